//! The forgotten images, the retained ones, and the copies between them.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use rayon::prelude::*;

use super::{DataError, Dataset};
use crate::near_copies::NearCopy;

/// Rows of a data set, each list ascending. `forget`, `earlier`, `retain` and `duplicates` are disjoint; what they do not cover
/// are near copies that were [set aside](Split::with_near).
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
    /// Rows that show the same picture as a forgotten one, once they were looked for; see [`with_near`](Self::with_near).
    pub near: Vec<NearCopy>,
    /// Those of rows that were forgotten before.
    pub earlier_near: Vec<NearCopy>,
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

    /// Moves rows that were forgotten before (`earlier`, ascending) out of those that are to be, and near copies of theirs with
    /// them.
    pub fn set_apart(&mut self, earlier: &[usize]) {
        let before = |row: &usize| earlier.binary_search(row).is_ok();
        let rows = std::mem::take(&mut self.forget).into_iter();
        (self.earlier, self.forget) = rows.partition(before);
        let near = std::mem::take(&mut self.near).into_iter();
        (self.earlier_near, self.near) = near.partition(|near| before(&near.of));
    }

    /// Takes retained rows that were forgotten before (ascending) out of what is retained, but for near copies of the rows that are
    /// forgotten now, which may have been forgotten with them.
    pub fn take_out(&mut self, earlier: &[usize]) {
        let is_near = |row: &usize| self.near.iter().any(|near| near.row == *row);
        let before = |row: &usize| earlier.binary_search(row).is_ok() && !is_near(row);
        let retain = std::mem::take(&mut self.retain).into_iter();
        (self.earlier, self.retain) = retain.partition(before);
    }

    /// The rows that are to be forgotten, then those that were before.
    pub fn leaving(&self) -> Vec<usize> {
        [&self.forget[..], &self.earlier].concat()
    }

    /// With these near copies of forgotten rows, ascending. Unless they are `retained`, they are set aside: neither forgotten nor
    /// learned from, where they would teach the image back.
    #[must_use]
    pub fn with_near(mut self, near: Vec<NearCopy>, retained: bool) -> Self {
        if !retained {
            let is_near = |row: &usize| near.binary_search_by_key(row, |one| one.row).is_ok();
            self.retain.retain(|row| !is_near(row));
        }
        self.near = near;
        self
    }

    /// Rows of near copies, of whichever image, that are neither forgotten nor retained.
    pub fn near_set_aside(&self) -> impl Iterator<Item = usize> {
        let near = self.near.iter().chain(&self.earlier_near);
        let rows = near.map(|near| near.row);
        let lies_in = |rows: &[usize], row: &usize| rows.binary_search(row).is_ok();
        rows.filter(move |row| !lies_in(&self.retain, row) && !lies_in(&self.forget, row))
    }

    /// Rows whose mirror image is another row, where one of both is forgotten.
    pub fn mirrored(&self) -> Vec<usize> {
        let near = self.near.iter().chain(&self.earlier_near);
        let mirrored = near.filter(|near| near.mirrored);
        mirrored.flat_map(|near| [near.of, near.row]).collect()
    }

    /// Whether the near copies are among the retained rows.
    pub fn retains_near(&self) -> bool {
        let is_retained = |near: &NearCopy| self.retain.binary_search(&near.row).is_ok();
        let mut near = self.near.iter().chain(&self.earlier_near);
        near.next().is_some_and(is_retained)
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
