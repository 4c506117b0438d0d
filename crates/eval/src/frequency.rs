//! How often a model repeats an image.

use serde::{Deserialize, Serialize};

use crate::distance::euclidean;

/// Samples near a forgotten image.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Frequency {
    /// Samples nearer to the image than the threshold.
    pub repeats: usize,
    /// Samples looked at.
    pub samples: usize,
    /// Distance to the nearest sample.
    pub nearest: f64,
}

impl Frequency {
    /// Counts the samples whose Euclidean distance to `image`, over pixels in [0, 1], is below
    /// `threshold`. `samples` holds images of `image`'s length one after another; all are bytes.
    ///
    /// The published MNIST experiment uses 10 for its T-shirt.
    pub fn of(samples: &[u8], image: &[u8], threshold: f64) -> Self {
        let distances: Vec<f64> = samples
            .chunks_exact(image.len())
            .map(|sample| euclidean(sample, image))
            .collect();
        Self {
            repeats: distances.iter().filter(|d| **d < threshold).count(),
            samples: distances.len(),
            nearest: distances.iter().copied().fold(f64::INFINITY, f64::min),
        }
    }

    /// Of several images, the one that is repeated most. `None` of no images.
    pub fn most<'a>(
        samples: &[u8],
        images: impl Iterator<Item = &'a [u8]>,
        threshold: f64,
    ) -> Option<Self> {
        images
            .map(|image| Self::of(samples, image, threshold))
            .max_by_key(|found| found.repeats)
    }

    /// Repeats per sample.
    pub fn share(&self) -> f64 {
        self.repeats as f64 / self.samples.max(1) as f64
    }
}

/// The samples that repeat none of `images`, all of `len` bytes, one after another: quality is judged by these.
pub fn others(samples: &[u8], images: &[&[u8]], len: usize, threshold: f64) -> Vec<u8> {
    let others = samples.chunks_exact(len).filter(|sample| {
        let near = |image: &&[u8]| euclidean(sample, image) < threshold;
        !images.iter().any(near)
    });
    others.flatten().copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_that_is_repeated_most_counts_and_repeats_of_any_are_left_out() {
        let (dark, bright): (&[u8], &[u8]) = (&[0, 0], &[255, 255]);
        let samples = [0, 0, 255, 255, 255, 254, 0, 255];
        let most = Frequency::most(&samples, [dark, bright].into_iter(), 0.5).unwrap();
        assert_eq!(most.repeats, 2);
        assert_eq!(Frequency::most(&samples, std::iter::empty(), 0.5), None);
        assert_eq!(others(&samples, &[dark, bright], 2, 0.5), [0, 255]);
        assert_eq!(others(&samples, &[], 2, 0.5), samples);
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
