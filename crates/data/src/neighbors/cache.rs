//! Duplicates and neighbors of a forget set, remembered between runs.
//!
//! A cache file holds row numbers and distances and never pixels: nothing that stays on disk may show a forgotten
//! image. Its name is the SHA-256 of everything that the result depends on, the data's content included.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use retrack_checkpoint::leftovers::Leftover;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Neighbor, NeighborError, nearest_in};
use crate::{Dataset, Split};
use retrack_checkpoint::hex::hex;

/// Changes whenever the meaning of a cache file does.
const VERSION: u32 = 1;

/// A forget set made ready for unlearning.
#[derive(Debug)]
pub struct Prepared {
    /// As it was given.
    pub split: Split,
    /// The nearest retained rows of each forgotten row, in the order of `split.forget`.
    pub neighbors: Vec<Vec<Neighbor>>,
    /// Nothing was computed: the cache held the result.
    pub from_cache: bool,
    /// Why the result could not be kept for the next run, which is no failure of this one.
    pub cache_error: Option<(PathBuf, io::Error)>,
}

/// Finds the `k` nearest retained neighbors of each forgotten row of `split`. With `cache`, a folder, the
/// result is kept there and found again; a damaged file is ignored and written anew. Working memory is bounded by
/// `budget` bytes as in [`nearest_in`].
///
/// # Errors
/// [`NeighborError`]; see [`nearest_in`].
pub fn prepare(
    data: &Dataset,
    split: Split,
    k: usize,
    budget: usize,
    cache: Option<&Path>,
) -> Result<Prepared, NeighborError> {
    let file = match cache {
        Some(folder) => {
            let key = key(&data.digest()?, &split, k);
            Some((folder, folder.join(format!("neighbors-{key}.json")), key))
        }
        None => None,
    };
    if let Some((_, path, key)) = &file
        && let Some(neighbors) = load(path, key, &split, k)
    {
        return Ok(Prepared {
            split,
            neighbors,
            from_cache: true,
            cache_error: None,
        });
    }
    let neighbors = nearest_in(data, &split.retain, &split.forget, k, budget)?;
    let cache_error = file.and_then(|(folder, path, key)| {
        let content = Content::new(key, &split, &neighbors);
        store(folder, &path, &content)
            .err()
            .map(|error| (path, error))
    });
    Ok(Prepared {
        split,
        neighbors,
        from_cache: false,
        cache_error,
    })
}

/// The retained set needs no place of its own: it is every row that is neither forgotten nor a duplicate, nor a near copy that
/// was set aside.
fn key(digest: &str, split: &Split, k: usize) -> String {
    let mut hash = Sha256::new();
    hash.update(format!(
        "retrack neighbors {VERSION}; retain all but forgotten and equal; k {k}; data {digest};"
    ));
    for &row in &split.forget {
        hash.update((row as u64).to_le_bytes());
    }
    if !split.near.is_empty() && !split.retains_near() {
        hash.update("; without");
        for near in &split.near {
            hash.update((near.row as u64).to_le_bytes());
        }
    }
    hex(&hash.finalize())
}

#[derive(Serialize, Deserialize)]
struct Content {
    version: u32,
    key: String,
    duplicates: Vec<usize>,
    /// For each forgotten row: row and squared distance of its neighbors.
    neighbors: Vec<Vec<(usize, u64)>>,
}

impl Content {
    fn new(key: String, split: &Split, neighbors: &[Vec<Neighbor>]) -> Self {
        let pairs = |found: &Vec<Neighbor>| {
            found
                .iter()
                .map(|one| (one.row, one.distance_squared))
                .collect()
        };
        Self {
            version: VERSION,
            key,
            duplicates: split.duplicates.clone(),
            neighbors: neighbors.iter().map(pairs).collect(),
        }
    }
}

/// What the file holds, or `None` when it is missing or anything in it is not as this program writes it for this split.
fn load(path: &Path, key: &str, split: &Split, k: usize) -> Option<Vec<Vec<Neighbor>>> {
    let content: Content = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    let is_of_split = content.version == VERSION
        && content.key == key
        && content.duplicates == split.duplicates
        && content.neighbors.len() == split.forget.len();
    let is_whole = |found: &Vec<(usize, u64)>| {
        let ordered = found
            .windows(2)
            .all(|pair| (pair[0].1, pair[0].0) < (pair[1].1, pair[1].0));
        let mut rows = found.iter();
        let retained = rows.all(|(row, _)| split.retain.binary_search(row).is_ok());
        found.len() == k && ordered && retained
    };
    if !is_of_split || !content.neighbors.iter().all(is_whole) {
        return None;
    }
    let neighbor = |(row, distance_squared)| Neighbor {
        row,
        distance_squared,
    };
    let found = content.neighbors.into_iter();
    Some(
        found
            .map(|found| found.into_iter().map(neighbor).collect())
            .collect(),
    )
}

/// Writes beside the target, then renames: a reader sees the old file or the new one, whatever happens between.
fn store(folder: &Path, path: &Path, content: &Content) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    let leftover = Leftover::whole(file.path());
    serde_json::to_writer(io::BufWriter::new(&mut file), content)?;
    file.flush()?;
    file.as_file().sync_all()?;
    leftover.keep(|| file.persist(path).map_err(|error| error.error))?;
    // Without this the rename itself may be lost. Windows cannot open a folder and does not need to.
    if cfg!(unix) {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}
