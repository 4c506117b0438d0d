//! One pass over rows in memory, shared between threads.

use rayon::prelude::*;

use super::distance::{QUERIES, distances};
use super::{Neighbor, NeighborError};

/// Bytes of rows that one task compares with all queries: they stay in the second-level cache meanwhile.
const TASK: usize = 256 << 10;

/// The `k` nearest rows seen so far, nearest first, ties by lower row.
#[derive(Clone, Debug)]
pub(crate) struct Best {
    k: usize,
    found: Vec<(u64, usize)>,
}

impl Best {
    pub(super) fn new(k: usize) -> Self {
        Self {
            k,
            found: Vec::new(),
        }
    }

    /// The order is total, so the outcome does not depend on the order in which rows are offered.
    fn offer(&mut self, distance: u64, row: usize) {
        let entry = (distance, row);
        if self.found.len() == self.k {
            match self.found.last() {
                Some(last) if entry < *last => {
                    self.found.pop();
                }
                _ => return,
            }
        }
        let place = self.found.partition_point(|known| *known < entry);
        self.found.insert(place, entry);
    }

    fn merge(&mut self, other: Self) {
        for (distance, row) in other.found {
            self.offer(distance, row);
        }
    }

    pub(super) fn into_neighbors(self) -> Vec<Neighbor> {
        self.found
            .into_iter()
            .map(|(distance_squared, row)| Neighbor {
                row,
                distance_squared,
            })
            .collect()
    }
}

/// Offers `count` images to each query's [`Best`]; `image(i)` gives the bytes and the row of image `i`.
pub(crate) fn scan<'a>(
    count: usize,
    row_len: usize,
    image: impl Fn(usize) -> (&'a [u8], usize) + Sync,
    queries: &[&[u8]],
    best: &mut [Best],
) {
    let Some(k) = best.first().map(|best| best.k) else {
        return;
    };
    if k == 0 {
        return;
    }
    let arch = pulp::Arch::new();
    let per_task = (TASK / row_len.max(1)).max(1);
    let tasks = count.div_ceil(per_task);
    // Each split carries its own lists: few splits for many queries.
    let min_tasks = tasks.div_ceil(rayon::current_num_threads() * 8).max(1);
    let found = (0..tasks)
        .into_par_iter()
        .with_min_len(min_tasks)
        .fold(
            || vec![Best::new(k); queries.len()],
            |mut best, task| {
                let rows = task * per_task..count.min((task + 1) * per_task);
                let mut out = [0; QUERIES];
                for (best, queries) in best.chunks_mut(QUERIES).zip(queries.chunks(QUERIES)) {
                    for index in rows.clone() {
                        let (bytes, row) = image(index);
                        let out = &mut out[..queries.len()];
                        distances(arch, bytes, queries, out);
                        for (best, &distance) in best.iter_mut().zip(out.iter()) {
                            best.offer(distance, row);
                        }
                    }
                }
                best
            },
        )
        .reduce_with(|mut left, right| {
            for (left, right) in left.iter_mut().zip(right) {
                left.merge(right);
            }
            left
        });
    for (best, found) in best.iter_mut().zip(found.into_iter().flatten()) {
        best.merge(found);
    }
}

/// Sums over all bytes of the squared differences between `count` images and all queries: `[count, queries]`.
pub fn squared_distances<'a>(
    count: usize,
    image: impl Fn(usize) -> &'a [u8] + Sync,
    queries: &[&[u8]],
) -> Vec<u64> {
    let arch = pulp::Arch::new();
    let mut squared = vec![0; count * queries.len()];
    squared
        .par_chunks_exact_mut(queries.len())
        .enumerate()
        .for_each(|(index, out)| distances(arch, image(index), queries, out));
    squared
}

/// The `k` nearest rows of `bytes` for each query, nearest first, ties by lower row. `bytes` holds rows of `row_len`
/// bytes one after another; each query has `row_len` bytes. Runs on the current rayon pool.
///
/// # Errors
/// [`NeighborError::Length`] when lengths do not agree, [`NeighborError::TooFew`] when there are fewer than `k` rows.
pub fn nearest(
    bytes: &[u8],
    row_len: usize,
    queries: &[&[u8]],
    k: usize,
) -> Result<Vec<Vec<Neighbor>>, NeighborError> {
    if row_len == 0 || !bytes.len().is_multiple_of(row_len) {
        return Err(NeighborError::Length {
            row_len,
            found: bytes.len(),
        });
    }
    if let Some(query) = queries.iter().find(|query| query.len() != row_len) {
        return Err(NeighborError::Length {
            row_len,
            found: query.len(),
        });
    }
    let count = bytes.len() / row_len;
    if k > count {
        return Err(NeighborError::TooFew {
            wanted: k,
            retained: count,
        });
    }
    let mut best = vec![Best::new(k); queries.len()];
    scan(
        count,
        row_len,
        |index| (&bytes[index * row_len..][..row_len], index),
        queries,
        &mut best,
    );
    Ok(best.into_iter().map(Best::into_neighbors).collect())
}
