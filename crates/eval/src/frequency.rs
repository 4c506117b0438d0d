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

    /// Repeats per sample.
    pub fn share(&self) -> f64 {
        self.repeats as f64 / self.samples.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
