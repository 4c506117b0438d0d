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

/// Neighbors that near copies are looked for among where a method needs none: the published number of neighbors, so
/// that its cache serves both.
const LOOKED_FOR: usize = 10;

/// A forget set made ready for unlearning.
#[derive(Debug)]
pub struct Prepared {
    /// Forgotten, retained and duplicate rows, and near copies.
    pub split: Split,
    /// The nearest retained rows of each forgotten row, in the order of `split.forget`.
    pub neighbors: Vec<Vec<Neighbor>>,
    /// Nothing was computed: the cache held the result.
    pub from_cache: bool,
    /// Why the result could not be kept for the next run, which is no failure of this one.
    pub cache_error: Option<(PathBuf, io::Error)>,
}

/// Splits `data` and finds the `k` nearest retained neighbors of each `forget` row. With `cache`, a folder, the
/// result is kept there and found again; a damaged file is ignored and written anew. Working memory is bounded by
/// `budget` bytes as in [`nearest_in`].
///
/// # Errors
/// [`NeighborError`]; see [`Split::new`] and [`nearest_in`].
pub fn prepare(
    data: &Dataset,
    forget: &[usize],
    k: usize,
    budget: usize,
    cache: Option<&Path>,
) -> Result<Prepared, NeighborError> {
    let mut forget = forget.to_vec();
    forget.sort_unstable();
    forget.dedup();
    let forget = forget.as_slice();
    let file = match cache {
        Some(folder) => {
            let key = key(&data.digest()?, forget, k);
            Some((folder, folder.join(format!("neighbors-{key}.json")), key))
        }
        None => None,
    };
    if let Some((_, path, key)) = &file
        && let Some((mut split, neighbors)) = load(path, key, data.len(), forget, k)
    {
        split.report_near(&neighbors, data.shape().bytes());
        return Ok(Prepared {
            split,
            neighbors,
            from_cache: true,
            cache_error: None,
        });
    }
    let mut split = Split::new(data, forget, budget)?;
    let neighbors = nearest_in(data, &split.retain, &split.forget, k, budget)?;
    split.report_near(&neighbors, data.shape().bytes());
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

/// Splits `data` as [`prepare`] does where no neighbors are needed, and finds near copies among the `LOOKED_FOR`
/// nearest retained images of each forgotten one: the price of one search, whatever else a method does with all images.
///
/// # Errors
/// [`NeighborError`]; see [`Split::new`] and [`nearest_in`].
pub fn prepare_split(
    data: &Dataset,
    forget: &[usize],
    budget: usize,
    cache: Option<&Path>,
) -> Result<Prepared, NeighborError> {
    match prepare(data, forget, LOOKED_FOR, budget, cache) {
        // So few that their number needs no cache.
        Err(NeighborError::TooFew { retained, .. }) => {
            prepare(data, forget, retained, budget, None)
        }
        prepared => prepared,
    }
}

/// The retained set needs no place of its own: it is every row that is neither forgotten nor a duplicate.
fn key(digest: &str, forget: &[usize], k: usize) -> String {
    let mut hash = Sha256::new();
    hash.update(format!(
        "retrack neighbors {VERSION}; retain all but forgotten and equal; k {k}; data {digest};"
    ));
    for &row in forget {
        hash.update((row as u64).to_le_bytes());
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

/// What the file holds, or `None` when it is missing or anything in it is not as this program writes it.
fn load(
    path: &Path,
    key: &str,
    len: usize,
    forget: &[usize],
    k: usize,
) -> Option<(Split, Vec<Vec<Neighbor>>)> {
    let content: Content = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    if content.version != VERSION || content.key != key || content.neighbors.len() != forget.len() {
        return None;
    }
    #[derive(Clone, Copy, PartialEq)]
    enum Part {
        Retain,
        Forget,
        Duplicate,
    }
    let mut parts = vec![Part::Retain; len];
    for (rows, part) in [
        (forget, Part::Forget),
        (content.duplicates.as_slice(), Part::Duplicate),
    ] {
        for &row in rows {
            let place = parts.get_mut(row)?;
            if *place != Part::Retain {
                return None;
            }
            *place = part;
        }
    }
    let of = |part: Part| {
        (0..len)
            .filter(|&row| parts[row] == part)
            .collect::<Vec<_>>()
    };
    for found in &content.neighbors {
        let ordered = found
            .windows(2)
            .all(|pair| (pair[0].1, pair[0].0) < (pair[1].1, pair[1].0));
        let retained = found
            .iter()
            .all(|&(row, _)| parts.get(row) == Some(&Part::Retain));
        if found.len() != k || !ordered || !retained {
            return None;
        }
    }
    let split = Split {
        forget: of(Part::Forget),
        retain: of(Part::Retain),
        duplicates: of(Part::Duplicate),
        ..Split::default()
    };
    let neighbor = |(row, distance_squared)| Neighbor {
        row,
        distance_squared,
    };
    let neighbors = content
        .neighbors
        .into_iter()
        .map(|found| found.into_iter().map(neighbor).collect())
        .collect();
    Some((split, neighbors))
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
