//! Images that a data set holds more than once.

use std::collections::HashMap;

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::{DataError, Dataset};

/// For each row of `data`, the first row that holds the same bytes: itself where there is none before it.
///
/// Images are equal whose SHA-256 is. Blocks that have to be decoded take at most `budget` bytes (or one image).
///
/// # Errors
/// [`DataError`] of an image that cannot be read.
pub fn first_equal(data: &Dataset, budget: usize) -> Result<Vec<usize>, DataError> {
    let all: Vec<usize> = (0..data.len()).collect();
    let mut firsts = Vec::with_capacity(all.len());
    let mut known: HashMap<[u8; 32], usize> = HashMap::new();
    data.blocks::<DataError>(&all, budget, |block| {
        let digests: Vec<[u8; 32]> = (0..block.rows.len())
            .into_par_iter()
            .map(|index| Sha256::digest(block.image(index)).into())
            .collect();
        for (digest, &row) in digests.into_iter().zip(block.rows) {
            firsts.push(*known.entry(digest).or_insert(row));
        }
        Ok(())
    })?;
    Ok(firsts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ImageShape;

    #[test]
    fn every_row_is_known_by_its_first_copy() {
        let shape = ImageShape {
            height: 1,
            width: 2,
            channels: 1,
        };
        let pixels = vec![1, 2, 2, 1, 1, 2, 3, 3, 2, 1, 1, 2];
        let data = Dataset::from_pixels(shape, pixels, vec![]).unwrap();
        assert_eq!(first_equal(&data, 1).unwrap(), [0, 1, 0, 3, 1, 0]);
    }
}
