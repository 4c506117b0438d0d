//! Exact Euclidean nearest neighbors on bytes.
//!
//! Pixels are bytes and the usual normalization of a model's input is affine, so squared distances of bytes, which
//! are whole numbers, order images exactly as distances of the model's inputs do.

mod cache;
mod distance;
mod equal;
mod search;

use std::collections::HashMap;
use std::str::FromStr;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use self::cache::{Prepared, prepare};
pub use self::equal::first_equal;
pub use self::search::nearest;
pub use self::search::squared_distances;
use self::search::{Best, scan};
use crate::{DataError, Dataset};

/// One neighbor. The natural order is by row; lists are ordered by distance, then row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbor {
    /// Row of the neighbor in its data set.
    pub row: usize,
    /// Sum over all bytes of the squared difference.
    pub distance_squared: u64,
}

/// Which retained images take a forgotten one's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Neighbors {
    /// This many, the nearest to the forgotten image: the published method.
    Nearest(usize),
    /// All of them, weighed anew for every noisy image: what the nearest approximate.
    All,
}

impl FromStr for Neighbors {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" => Ok(Self::All),
            _ => text
                .parse()
                .map(Self::Nearest)
                .map_err(|_| "expected a number, or all".into()),
        }
    }
}

impl Serialize for Neighbors {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Nearest(k) => serializer.serialize_u64(*k as u64),
            Self::All => serializer.serialize_str("all"),
        }
    }
}

impl<'de> Deserialize<'de> for Neighbors {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(
            untagged,
            expecting = "expected a whole number of neighbors, or \"all\""
        )]
        enum Either {
            Number(usize),
            Text(String),
        }
        match Either::deserialize(deserializer)? {
            Either::Number(k) => Ok(Self::Nearest(k)),
            Either::Text(text) => text.parse().map_err(D::Error::custom),
        }
    }
}

/// Why neighbors could not be found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NeighborError {
    /// More neighbors were asked for than there are images.
    #[error("{}", too_few(*wanted, *retained))]
    TooFew {
        /// Neighbors asked for.
        wanted: usize,
        /// Images to choose from.
        retained: usize,
    },
    /// Data whose length is not a whole number of rows, or a query of another length than a row.
    #[error("{found} bytes are not whole rows of {row_len}")]
    Length {
        /// Bytes of a row.
        row_len: usize,
        /// Bytes found.
        found: usize,
    },
    /// An image cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
}

fn too_few(wanted: usize, retained: usize) -> String {
    let wanted = match wanted {
        1 => "1 neighbor was".to_owned(),
        many => format!("{many} neighbors were"),
    };
    match retained {
        0 => "all images are selected or exact copies of the selected ones; nothing would be retained".to_owned(),
        1 => format!("{wanted} asked for, but only 1 image is retained"),
        many => format!("{wanted} asked for, but only {many} images are retained"),
    }
}

/// The root-mean-square difference of a value, 0 to 255, for a squared distance over `bytes` values.
pub fn root_mean_square(distance_squared: u64, bytes: usize) -> f64 {
    (distance_squared as f64 / bytes.max(1) as f64).sqrt()
}

/// The `k` nearest of the `retain` rows for each of the `forget` rows, nearest first, ties by lower row.
///
/// Images that are not in memory are decoded in blocks by all threads. Blocks and the forgotten images that are
/// looked for at one time take at most `budget` bytes together (and at least one image each); a larger forget set
/// makes several passes. Equal forgotten images are looked for once.
///
/// # Errors
/// [`NeighborError::TooFew`], or [`NeighborError::Data`] of an image that cannot be read.
pub fn nearest_in(
    data: &Dataset,
    retain: &[usize],
    forget: &[usize],
    k: usize,
    budget: usize,
) -> Result<Vec<Vec<Neighbor>>, NeighborError> {
    let length = data.shape().bytes();
    let at_once = (budget / 2 / length).max(1);
    let mut found = Vec::with_capacity(forget.len());
    for forget in forget.chunks(at_once) {
        let mut pixels = vec![0; forget.len() * length];
        for (out, &row) in pixels.chunks_exact_mut(length).zip(forget) {
            data.read(row, out)?;
        }
        let queries: Vec<&[u8]> = pixels.chunks_exact(length).collect();
        found.extend(nearest_to(data, retain, &queries, k, budget - budget / 2)?);
    }
    Ok(found)
}

/// The `k` nearest of `rows` for each query, an image of the data set's shape, nearest first, ties by lower row. Blocks
/// that have to be decoded take at most `budget` bytes (or one image); the queries and their neighbors come on top.
///
/// # Errors
/// [`NeighborError::Length`] of a query, [`NeighborError::TooFew`], or [`NeighborError::Data`] of an image that cannot
/// be read.
pub fn nearest_to(
    data: &Dataset,
    rows: &[usize],
    queries: &[&[u8]],
    k: usize,
    budget: usize,
) -> Result<Vec<Vec<Neighbor>>, NeighborError> {
    if k > rows.len() {
        return Err(NeighborError::TooFew {
            wanted: k,
            retained: rows.len(),
        });
    }
    let row_len = data.shape().bytes();
    if let Some(query) = queries.iter().find(|query| query.len() != row_len) {
        return Err(NeighborError::Length {
            row_len,
            found: query.len(),
        });
    }
    // 606 copies of one T-shirt are one query.
    let mut place: HashMap<&[u8], usize> = HashMap::new();
    let mut unique: Vec<&[u8]> = Vec::new();
    let places: Vec<usize> = queries
        .iter()
        .map(|&query| {
            *place.entry(query).or_insert_with(|| {
                unique.push(query);
                unique.len() - 1
            })
        })
        .collect();
    let mut best = vec![Best::new(k); unique.len()];
    data.blocks::<NeighborError>(rows, budget, |block| {
        let image = |index: usize| (block.image(index), block.rows[index]);
        scan(
            block.rows.len(),
            data.shape().bytes(),
            image,
            &unique,
            &mut best,
        );
        Ok(())
    })?;
    let found: Vec<Vec<Neighbor>> = best.into_iter().map(Best::into_neighbors).collect();
    Ok(places
        .into_iter()
        .map(|place| found[place].clone())
        .collect())
}
