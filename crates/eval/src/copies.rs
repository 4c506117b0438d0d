//! Samples that lie much nearer to one training image than to others.

use retrack_data::neighbors::{NeighborError, first_equal, nearest_to};
use retrack_data::{DataError, Dataset};
use serde::{Deserialize, Serialize};

use crate::distance::mean;

/// Neighbors that a sample's nearest training image is measured by, as published.
pub(crate) const NEIGHBORS: usize = 50;

/// One half: the sample is at most half as far from its nearest training image as from its neighbors on average.
/// Carlini et al. divide by this number and compare with 1.
pub(crate) const THRESHOLD: f64 = 0.5;

/// A sample and the training image nearest to it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Nearest {
    /// Row of the training image, the first of equal ones.
    pub row: usize,
    /// Euclidean distance over pixels in [0, 1].
    pub distance: f64,
    /// The distance, divided by the mean distance to the nearest training images (this one among them): in [0, 1],
    /// low for a copy.
    pub ratio: f64,
    /// Whether the nearest training image is a forgotten one.
    pub forgotten: bool,
}

/// Why samples cannot be compared with a training set.
#[derive(Debug, thiserror::Error)]
pub enum CopiesError {
    /// Fewer than two neighbors were asked for.
    #[error("{k} neighbors: the ratio needs at least 2")]
    Neighbors {
        /// How many.
        k: usize,
    },
    /// The data set has fewer different images than neighbors are needed.
    #[error(
        "a sample is measured by its {k} nearest training images, and this data set has only {distinct} different ones"
    )]
    Few {
        /// How many.
        k: usize,
        /// Its different images.
        distinct: usize,
    },
    /// A row that the training set does not have.
    #[error("forgotten row {row} is not among the training set's {len}")]
    Forgotten {
        /// The row.
        row: usize,
        /// Its images.
        len: usize,
    },
    /// No whole number of samples.
    #[error("{found} bytes of samples are not whole images of {image_len}")]
    Length {
        /// Bytes of an image.
        image_len: usize,
        /// Bytes given.
        found: usize,
    },
    /// The search failed.
    #[error(transparent)]
    Search(#[from] NeighborError),
    /// An image that cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
}

/// What training images samples resemble.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Copies {
    /// Of each sample.
    pub nearest: Vec<Nearest>,
}

/// A training set, made ready to be compared with: the data that the *original* model was trained on, forgotten
/// images included.
#[derive(Debug)]
pub struct Training<'a> {
    data: &'a Dataset,
    /// Rows of images that no earlier row equals.
    distinct: Vec<usize>,
    /// Those of `distinct` that equal a forgotten row, in order.
    forgotten: Vec<usize>,
}

impl<'a> Training<'a> {
    /// Finds out which images of `data` are equal: each counts once. Otherwise an image with 50 copies would be all of
    /// its samples' neighbors, at one distance, and no sample would be a copy of it. Whatever equals one of the rows
    /// `forgotten` counts as forgotten. Working memory is about `budget` bytes and a hash for each image.
    ///
    /// # Errors
    /// [`CopiesError::Forgotten`], or [`CopiesError::Data`] of an image that cannot be read.
    pub fn new(data: &'a Dataset, forgotten: &[usize], budget: usize) -> Result<Self, CopiesError> {
        let len = data.len();
        if let Some(&row) = forgotten.iter().find(|&&row| row >= len) {
            return Err(CopiesError::Forgotten { row, len });
        }
        let first = first_equal(data, budget)?;
        let mut forgotten: Vec<usize> = forgotten.iter().map(|&row| first[row]).collect();
        forgotten.sort_unstable();
        forgotten.dedup();
        let distinct = (0..len).filter(|&row| first[row] == row).collect();
        Ok(Self {
            data,
            distinct,
            forgotten,
        })
    }

    /// Images that differ from each other.
    pub fn distinct(&self) -> usize {
        self.distinct.len()
    }

    /// Whether there are as many images as a ratio to `k` of them needs.
    ///
    /// # Errors
    /// [`CopiesError::Few`]
    pub fn enough(&self, k: usize) -> Result<(), CopiesError> {
        let distinct = self.distinct();
        if distinct < k {
            return Err(CopiesError::Few { k, distinct });
        }
        Ok(())
    }

    /// The nearest training image of each of `samples`, bytes of the data set's shape, one image after another.
    ///
    /// With x the nearest training image of sample s, and S its `k` nearest,
    /// `ratio = |s - x| / mean over y in S of |s - y|` (Carlini et al. 2023, arXiv 2301.13188, section 5.1, where it is
    /// also divided by alpha = 1/2; they use k = 50). Samples that lie far from all data have a ratio near 1 however
    /// near their nearest image is, which a threshold on the distance alone does not see. The search takes about
    /// `budget` bytes; more samples than fit make several passes over the data.
    ///
    /// # Errors
    /// [`CopiesError`]: samples that do not fit, fewer than `k` distinct training images, or one that cannot be read.
    pub fn nearest(&self, samples: &[u8], k: usize, budget: usize) -> Result<Copies, CopiesError> {
        let image_len = self.data.shape().bytes();
        if k < 2 {
            return Err(CopiesError::Neighbors { k });
        }
        self.enough(k)?;
        if !samples.len().is_multiple_of(image_len) {
            return Err(CopiesError::Length {
                image_len,
                found: samples.len(),
            });
        }
        let samples: Vec<&[u8]> = samples.chunks_exact(image_len).collect();
        // Each of the search's tasks holds its own lists, at most 8 tasks for each thread.
        let lists = 8 * rayon::current_num_threads() * k * size_of::<(u64, usize)>();
        let at_once = (budget / 2 / lists).max(1);
        let mut found = Vec::with_capacity(samples.len());
        for samples in samples.chunks(at_once) {
            let blocks = budget - budget / 2;
            found.extend(nearest_to(self.data, &self.distinct, samples, k, blocks)?);
        }
        let nearest = found.into_iter().map(|neighbors| {
            let distances: Vec<f64> = neighbors
                .iter()
                .map(|neighbor| (neighbor.distance_squared as f64).sqrt() / 255.0)
                .collect();
            let row = neighbors[0].row;
            Nearest {
                row,
                distance: distances[0],
                // Distinct images are not all at distance 0.
                ratio: distances[0] / mean(&distances),
                forgotten: self.forgotten.binary_search(&row).is_ok(),
            }
        });
        Ok(Copies {
            nearest: nearest.collect(),
        })
    }
}

impl Copies {
    /// Share of samples whose ratio is below `threshold`. NaN without samples, as the other shares.
    pub fn share(&self, threshold: f64) -> f64 {
        self.share_of(|nearest| nearest.ratio < threshold)
    }

    /// Share of samples whose nearest training image is a forgotten one, however far.
    pub fn nearest_forgotten(&self) -> f64 {
        self.share_of(|nearest| nearest.forgotten)
    }

    /// Share of samples that are copies, by `threshold`, of a forgotten image.
    pub fn share_forgotten(&self, threshold: f64) -> f64 {
        self.share_of(|nearest| nearest.forgotten && nearest.ratio < threshold)
    }

    fn share_of(&self, counts: impl Fn(&Nearest) -> bool) -> f64 {
        let count = self
            .nearest
            .iter()
            .filter(|nearest| counts(nearest))
            .count();
        count as f64 / self.nearest.len() as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use retrack_data::ImageShape;

    /// Bytes of images at once.
    const BUDGET: usize = 1 << 20;
    const SHAPE: ImageShape = ImageShape {
        height: 1,
        width: 2,
        channels: 1,
    };

    fn data(pixels: &[[u8; 2]]) -> Dataset {
        Dataset::from_pixels(SHAPE, pixels.concat(), vec![]).unwrap()
    }

    #[test]
    fn the_ratio_is_to_the_mean_distance_of_the_nearest() {
        let data = data(&[[0, 0], [0, 51], [0, 153], [0, 255]]);
        let training = Training::new(&data, &[1], BUDGET).unwrap();
        let samples = [[0, 61], [0, 255], [0, 100]].concat();
        let copies = training.nearest(&samples, 3, BUDGET).unwrap();
        // Of the first: 10, 61 and 92 of 255 apart. Of the last: 49, 53 and 100.
        let expected = [
            (1, 10.0, 30.0 / 163.0, true),
            (3, 0.0, 0.0, false),
            (1, 49.0, 147.0 / 202.0, true),
        ];
        for (found, (row, distance, ratio, forgotten)) in copies.nearest.iter().zip(expected) {
            assert_eq!((found.row, found.forgotten), (row, forgotten));
            assert!((found.distance - distance / 255.0).abs() < 1e-12);
            assert!((found.ratio - ratio).abs() < 1e-12, "{found:?}");
        }
        // Little memory makes many passes.
        assert_eq!(copies, training.nearest(&samples, 3, 0).unwrap());
        assert_eq!(copies.share(THRESHOLD), 2.0 / 3.0);
        assert_eq!(copies.nearest_forgotten(), 2.0 / 3.0);
        assert_eq!(copies.share_forgotten(THRESHOLD), 1.0 / 3.0);
    }

    #[test]
    fn copies_in_the_training_set_do_not_hide_a_copy_among_the_samples() {
        let mut pixels = vec![[200, 200]; 60];
        pixels.extend((0..60).map(|i| [i, 0]));
        let data = data(&pixels);
        // Any of the equal rows stands for all of them.
        let training = Training::new(&data, &[59, 7], BUDGET).unwrap();
        assert_eq!(training.distinct(), 61);
        let copies = training.nearest(&[201, 200], NEIGHBORS, BUDGET).unwrap();
        let found = copies.nearest[0];
        assert_eq!((found.row, found.forgotten), (0, true));
        assert!(found.ratio < 0.01, "{found:?}");
        assert_eq!(copies.share_forgotten(THRESHOLD), 1.0);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let data = data(&[[0, 0], [0, 0], [1, 0], [2, 0]]);
        let error = Training::new(&data, &[4], BUDGET).unwrap_err();
        assert!(matches!(error, CopiesError::Forgotten { row: 4, len: 4 }));
        let training = Training::new(&data, &[], BUDGET).unwrap();
        let error = |samples: &[u8], k| {
            training
                .nearest(samples, k, BUDGET)
                .unwrap_err()
                .to_string()
        };
        assert!(error(&[0; 3], 2).starts_with("3 bytes"));
        assert!(error(&[0; 2], 1).starts_with("1 neighbors"));
        assert!(
            error(&[0; 2], 4).ends_with(
                "4 nearest training images, and this data set has only 3 different ones"
            )
        );
        let none = training.nearest(&[], 2, BUDGET).unwrap();
        assert!(none.share(THRESHOLD).is_nan());
    }
}
