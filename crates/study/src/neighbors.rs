//! What would take a forgotten image's place: the retained images nearest to it.

use std::iter;
use std::path::PathBuf;

use retrack_data::Dataset;
use retrack_data::neighbors::{Neighbor, Prepared, prepare, root_mean_square};
use retrack_eval::pictures::Grid;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::field::Field;
use crate::folders::{new_file_beside, outside};
use crate::near_copies::Copies;
use crate::source::DataSource;
use crate::{machine, model, near_copies, progress};

/// Rows of the picture.
pub const SHOWN: usize = 20;

/// Which images, and how many neighbors of each.
#[derive(Debug, Clone)]
pub struct Search {
    /// The images.
    pub data: DataSource,
    /// Selections.
    pub forget: Vec<String>,
    /// How many of each.
    pub neighbors: usize,
    /// A picture, if one is wanted: a row for each of the first forgotten images, shown first, and its neighbors.
    pub out: Option<PathBuf>,
    /// Replaces the picture if it is there.
    pub force: bool,
}

/// What was found.
pub struct Found {
    /// The images.
    pub data: Dataset,
    /// The split and the neighbors.
    pub prepared: Prepared,
}

/// Distance of a neighbor: Euclidean, pixels in [0, 1].
pub fn distance(neighbor: &Neighbor) -> f64 {
    (neighbor.distance_squared as f64).sqrt() / 255.0
}

/// Searches the neighbors of each selected image among the retained ones, and draws them.
///
/// # Errors
/// Data that cannot be read, fewer retained images than neighbors, a picture that cannot be written.
pub fn search(asked: &Search) -> Result<Found, Failure> {
    if asked.neighbors == 0 {
        return Err(Failure::input(format!(
            "{} is 0; give at least 1",
            Field::Neighbors
        )));
    }
    let source = &asked.data;
    if let Some(path) = &asked.out {
        if source.path.is_dir() {
            outside(path, &source.path, "data")?;
        }
        new_file_beside(path, &source.path, asked.force)?;
    }
    let data = model::open_images(source, None)?;
    let rows = model::select(&asked.forget, &data)?;
    // As `unlearn` does.
    let split = near_copies::split(&data, &rows, Copies::Aside, asked.neighbors)?;
    let cache = machine::cache_folder();
    let searching = progress::activity("searching");
    let prepared = prepare(
        &data,
        split,
        asked.neighbors,
        model::BUDGET,
        cache.as_deref(),
    )?;
    drop(searching);
    if prepared.from_cache {
        progress::detail("the neighbors were found before and kept in the cache");
    }
    near_copies::report(&prepared.split, &data, None);
    let found = Found { data, prepared };
    if let Some(path) = &asked.out {
        model::write(path, &found.picture(asked.neighbors)?)?;
        progress::note(format!("picture in {}", path.display()));
    }
    Ok(found)
}

impl Found {
    /// Each forgotten image's row, and its neighbors, nearest first.
    pub fn images(&self) -> impl ExactSizeIterator<Item = (usize, &[Neighbor])> {
        let forget = self.prepared.split.forget.iter().copied();
        forget.zip(self.prepared.neighbors.iter().map(Vec::as_slice))
    }

    /// All of it, for programs.
    pub fn json(&self) -> Value {
        let bytes = self.data.shape().bytes();
        let neighbor = |one: &Neighbor| {
            json!({
                "row": one.row,
                "name": self.data.name(one.row),
                "distance": distance(one),
                "rms": root_mean_square(one.distance_squared, bytes),
            })
        };
        let images: Vec<Value> = self
            .images()
            .map(|(row, found)| {
                json!({
                    "row": row,
                    "name": self.data.name(row),
                    "neighbors": found.iter().map(neighbor).collect::<Vec<_>>(),
                })
            })
            .collect();
        json!({
            "images": images,
            "duplicates": self.prepared.split.duplicates,
            "near_copies": self.near_copies(),
            "retained": self.prepared.split.retain.len(),
        })
    }

    fn near_copies(&self) -> Vec<Value> {
        let near = self.prepared.split.near.iter();
        near.map(|one| {
            json!({
                "row": one.row,
                "name": self.data.name(one.row),
                "of": one.of,
                "mirrored": one.mirrored,
                "rms": one.distance,
            })
        })
        .collect()
    }

    fn picture(&self, neighbors: usize) -> Result<Vec<u8>, Failure> {
        let shape = self.data.shape();
        let mut images = Vec::new();
        let mut image = vec![0; shape.bytes()];
        for (row, found) in self.images().take(SHOWN) {
            for row in iter::once(row).chain(found.iter().map(|one| one.row)) {
                self.data.read(row, &mut image)?;
                images.extend_from_slice(&image);
            }
        }
        let shape = [shape.height, shape.width, shape.channels];
        let grid = Grid {
            shape,
            columns: neighbors + 1,
            zoom: Grid::zoom_for(shape),
        };
        Ok(grid.png(&images)?)
    }
}
