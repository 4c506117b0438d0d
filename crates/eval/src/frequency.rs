//! How often a model repeats images.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::distance::euclidean;

/// Samples near forgotten images.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Frequency {
    /// Samples nearer to any of the images than that image's threshold.
    pub repeats: usize,
    /// Those near the image that is repeated most: as many as `repeats` where there is one image.
    pub of_one: usize,
    /// Samples looked at.
    pub samples: usize,
    /// Distance of the nearest sample to the image that it is nearest to.
    pub nearest: f64,
}

/// What one sample is to the images.
struct Nearness {
    /// Places of the images that it counts as.
    near: Vec<usize>,
    /// Distance to the nearest image.
    nearest: f64,
}

impl Nearness {
    fn of(sample: &[u8], images: &[&[u8]], thresholds: &[f64]) -> Self {
        let mut found = Self {
            near: Vec::new(),
            nearest: f64::INFINITY,
        };
        for (place, (image, &threshold)) in images.iter().zip(thresholds).enumerate() {
            let distance = euclidean(sample, image);
            found.nearest = found.nearest.min(distance);
            if distance < threshold {
                found.near.push(place);
            }
        }
        found
    }
}

/// Samples lie one after another, all of the images' length.
fn nearness(samples: &[u8], images: &[&[u8]], thresholds: &[f64]) -> Vec<Nearness> {
    assert_eq!(images.len(), thresholds.len(), "a threshold for each image");
    let len = images.first().map_or(0, |image| image.len());
    if len == 0 {
        return Vec::new();
    }
    samples
        .par_chunks_exact(len)
        .map(|sample| Nearness::of(sample, images, thresholds))
        .collect()
}

/// Distance of each of `samples` to the nearest of `images`: bytes, of the same length, one after another.
pub fn to_nearest_image(samples: &[u8], images: &[&[u8]]) -> Vec<f64> {
    let thresholds = vec![0.0; images.len()];
    let all = nearness(samples, images, &thresholds);
    all.into_iter().map(|one| one.nearest).collect()
}

impl Frequency {
    /// Counts the samples whose Euclidean distance to `image`, over pixels in [0, 1], is below
    /// `threshold`. `samples` holds images of `image`'s length one after another; all are bytes.
    ///
    /// The published MNIST experiment uses 10 for its T-shirt.
    pub fn of(samples: &[u8], image: &[u8], threshold: f64) -> Self {
        Self::of_any(samples, &[image], &[threshold])
    }

    /// Counts the samples that repeat any of `images`, each once. Every image has its threshold.
    ///
    /// # Panics
    /// As many thresholds as images are needed.
    pub fn of_any(samples: &[u8], images: &[&[u8]], thresholds: &[f64]) -> Self {
        let all = nearness(samples, images, thresholds);
        let mut counts = vec![0; images.len()];
        for &place in all.iter().flat_map(|one| &one.near) {
            counts[place] += 1;
        }
        Self {
            repeats: all.iter().filter(|one| !one.near.is_empty()).count(),
            of_one: counts.into_iter().max().unwrap_or(0),
            samples: all.len(),
            nearest: all
                .iter()
                .map(|one| one.nearest)
                .fold(f64::INFINITY, f64::min),
        }
    }

    /// Repeats per sample.
    pub fn share(&self) -> f64 {
        self.repeats as f64 / self.samples.max(1) as f64
    }
}

/// The samples that repeat none of `images`, all of one length, one after another: quality is judged by these.
///
/// # Panics
/// As many thresholds as images are needed.
pub fn others(samples: &[u8], images: &[&[u8]], thresholds: &[f64]) -> Vec<u8> {
    let Some(len) = images.first().map(|image| image.len()) else {
        return samples.to_vec();
    };
    let all = nearness(samples, images, thresholds);
    let others = samples.chunks_exact(len).zip(all);
    let others = others.filter(|(_, one)| one.near.is_empty());
    others.flat_map(|(sample, _)| sample).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_that_shows_any_of_the_images_counts_and_repeats_of_any_are_left_out() {
        let (dark, bright): (&[u8], &[u8]) = (&[0, 0], &[255, 255]);
        let samples = [0, 0, 255, 255, 255, 254, 0, 255];
        let found = Frequency::of_any(&samples, &[dark, bright], &[0.5; 2]);
        assert_eq!((found.repeats, found.of_one, found.samples), (3, 2, 4));
        assert_eq!(others(&samples, &[dark, bright], &[0.5; 2]), [0, 255]);
        assert_eq!(others(&samples, &[], &[]), samples);
    }

    #[test]
    fn the_nearest_sample_is_the_nearest_to_any_image_wherever_that_stands() {
        let (dark, bright): (&[u8], &[u8]) = (&[0, 0], &[255, 255]);
        let samples = [51, 0, 0, 102];
        for images in [[dark, bright], [bright, dark]] {
            let found = Frequency::of_any(&samples, &images, &[0.1; 2]);
            assert_eq!((found.repeats, found.of_one), (0, 0));
            assert!((found.nearest - 0.2).abs() < 1e-12, "{found:?}");
        }
        assert_eq!(to_nearest_image(&samples, &[dark]), [0.2, 0.4]);
    }

    #[test]
    fn every_image_has_its_own_threshold_and_a_sample_near_two_counts_once() {
        let (dark, gray): (&[u8], &[u8]) = (&[0], &[102]);
        let samples = [51];
        for (thresholds, repeats) in [([0.3, 0.3], 1), ([0.1, 0.3], 1), ([0.1, 0.1], 0)] {
            let found = Frequency::of_any(&samples, &[dark, gray], &thresholds);
            assert_eq!(found.repeats, repeats);
        }
    }

    #[test]
    fn only_samples_below_the_threshold_count() {
        let image = [255, 255, 0, 0];
        let samples = [255, 255, 0, 0, 255, 0, 0, 0, 0, 0, 255, 255];
        let found = Frequency::of(&samples, &image, 1.0);
        assert_eq!((found.repeats, found.samples), (1, 3));
        assert_eq!(found.nearest, 0.0);
        assert_eq!(Frequency::of(&samples, &image, 1.001).repeats, 2);
    }
}
