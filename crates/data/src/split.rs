//! The forgotten images, the retained ones, and the copies between them.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use rayon::prelude::*;

use super::{DataError, Dataset};
use crate::neighbors::{Neighbor, root_mean_square};

/// Root-mean-square difference a value, of 255, below which a retained image is reported as a near copy. Saving an
/// image again as JPEG of quality 90 moves it by 1 to 3; the nearest two different images of CIFAR-10 or MNIST are
/// some 10 apart.
pub const NEAR_COPY_RMS: f64 = 4.0;

/// A retained image that hardly differs from a forgotten one. It stays retained, and may teach the image back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NearCopy {
    /// The retained row.
    pub row: usize,
    /// The nearest forgotten row.
    pub of: usize,
    /// Root-mean-square difference a value, 0 to 255.
    pub distance: f64,
}

/// Rows of a data set, each list ascending. `forget`, `earlier`, `retain` and `duplicates` are disjoint and cover everything.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Split {
    /// Rows that were selected.
    pub forget: Vec<usize>,
    /// Rows of images that were forgotten before: they are not retained, and not forgotten anew either. See
    /// [`set_apart`](Self::set_apart).
    pub earlier: Vec<usize>,
    /// Rows to learn from.
    pub retain: Vec<usize>,
    /// Rows with exactly the pixels of a forgotten one. They are not retained either: left there, a copy would be the
    /// forgotten image's own nearest neighbor and teach it back.
    pub duplicates: Vec<usize>,
    /// Near copies among the retained rows, once neighbors are known; see [`report_near`](Self::report_near).
    pub near: Vec<NearCopy>,
}

impl Split {
    /// Splits `data` into `forget` (ascending, each row once) and the rest, in one pass. Images that are not in memory
    /// are decoded in blocks of at most `budget` bytes.
    ///
    /// # Errors
    /// [`DataError`]: a row that does not exist or an image that cannot be read.
    pub fn new(data: &Dataset, forget: &[usize], budget: usize) -> Result<Self, DataError> {
        let mut is_forgotten = vec![false; data.len()];
        for &row in forget {
            data.check_row(row)?;
            is_forgotten[row] = true;
        }
        // Rows by hash of their pixels: a hit is compared byte by byte, so that a collision costs time, not an image.
        let hasher = RandomState::new();
        let mut by_hash: HashMap<u64, Vec<usize>> = HashMap::new();
        data.blocks::<DataError>(forget, budget, |block| {
            let hashes: Vec<u64> = (0..block.rows.len())
                .into_par_iter()
                .map(|index| hasher.hash_one(block.image(index)))
                .collect();
            for (&row, hash) in block.rows.iter().zip(hashes) {
                by_hash.entry(hash).or_default().push(row);
            }
            Ok(())
        })?;
        let others: Vec<usize> = (0..data.len()).filter(|&row| !is_forgotten[row]).collect();
        let mut duplicates = Vec::new();
        data.blocks::<DataError>(&others, budget, |block| {
            let found = (0..block.rows.len())
                .into_par_iter()
                .filter_map(|index| {
                    let image = block.image(index);
                    let candidates = by_hash.get(&hasher.hash_one(image))?;
                    let same = is_any(data, candidates, image);
                    same.map(|same| same.then_some(block.rows[index]))
                        .transpose()
                })
                .collect::<Result<Vec<usize>, DataError>>()?;
            duplicates.extend(found);
            Ok(())
        })?;
        let is_duplicate = |row: &usize| duplicates.binary_search(row).is_ok();
        let retain = others
            .into_iter()
            .filter(|row| !is_duplicate(row))
            .collect();
        let forget = (0..data.len()).filter(|&row| is_forgotten[row]).collect();
        Ok(Self {
            forget,
            retain,
            duplicates,
            ..Self::default()
        })
    }

    /// Moves rows that were forgotten before (`earlier`, ascending) out of those that are to be.
    pub fn set_apart(&mut self, earlier: &[usize]) {
        let rows = std::mem::take(&mut self.forget).into_iter();
        (self.earlier, self.forget) = rows.partition(|row| earlier.binary_search(row).is_ok());
    }

    /// The rows that are to be forgotten, then those that were before.
    pub fn leaving(&self) -> Vec<usize> {
        [&self.forget[..], &self.earlier].concat()
    }

    /// Fills `near` from the neighbors of each row that [leaves](Self::leaving) (in that order, among `retain`), nearest
    /// first. `bytes` is the length of an image. Each row is named once, with the forgotten row nearest to it. Only
    /// neighbors are seen: where all of them are near copies, there may be more.
    pub fn report_near(&mut self, neighbors: &[Vec<Neighbor>], bytes: usize) {
        let mut nearest: HashMap<usize, (u64, usize)> = HashMap::new();
        for (of, found) in self.leaving().into_iter().zip(neighbors) {
            for neighbor in found {
                let entry = nearest.entry(neighbor.row).or_insert((u64::MAX, 0));
                *entry = (*entry).min((neighbor.distance_squared, of));
            }
        }
        self.near = nearest
            .into_iter()
            .map(|(row, (squared, of))| NearCopy {
                row,
                of,
                distance: root_mean_square(squared, bytes),
            })
            .filter(|copy| copy.distance < NEAR_COPY_RMS)
            .collect();
        self.near
            .sort_by(|a, b| a.distance.total_cmp(&b.distance).then(a.row.cmp(&b.row)));
    }
}

fn is_any(data: &Dataset, candidates: &[usize], image: &[u8]) -> Result<bool, DataError> {
    let mut forgotten = vec![0; image.len()];
    for &row in candidates {
        data.read(row, &mut forgotten)?;
        if forgotten == image {
            return Ok(true);
        }
    }
    Ok(false)
}
