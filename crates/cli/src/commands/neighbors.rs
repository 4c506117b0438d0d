//! `retrack neighbors`: what would take a forgotten image's place.

use retrack_eval::pictures::Grid;
use retrack_unlearn::data::{Dataset, OpenOptions};
use retrack_unlearn::neighbors::{Neighbor, Prepared, prepare, root_mean_square};
use serde_json::{Value, json};

use crate::args::NeighborsArgs;
use crate::failure::Failure;
use crate::folders::{new_file_beside, outside};
use crate::progress::say;
use crate::unlearning::report_split;
use crate::{machine, model, progress};

/// Rows of the picture, and forgotten images listed on the terminal.
const SHOWN: usize = 20;

pub fn run(args: &NeighborsArgs) -> Result<(), Failure> {
    if args.neighbors == 0 {
        return Err(Failure::input("--neighbors is 0; give at least 1"));
    }
    if let Some(path) = &args.out {
        if args.data.is_dir() {
            outside(path, &args.data, "data")?;
        }
        new_file_beside(path, &args.data, args.force)?;
    }
    let options = OpenOptions {
        channels: None,
        memory_budget: model::BUDGET as u64,
    };
    let data = model::read_data(&args.data, &options)?;
    let rows = model::select(&args.forget, &data)?;
    let cache = machine::cache_folder();
    let searching = progress::activity("searching");
    let prepared = prepare(
        &data,
        &rows,
        args.neighbors,
        model::BUDGET,
        cache.as_deref(),
    )?;
    drop(searching);
    if prepared.from_cache {
        progress::detail("the neighbors were found before and kept in the cache");
    }
    report_split(&prepared.split, &data);
    if let Some(path) = &args.out {
        model::write(path, &picture(&data, &prepared, args.neighbors)?)?;
        progress::note(format!("picture in {}", path.display()));
    }
    let bytes = data.shape().bytes();
    if args.json {
        say!("{}", report(&prepared, bytes));
    } else {
        print(&data, &prepared, bytes);
    }
    Ok(())
}

fn report(prepared: &Prepared, bytes: usize) -> Value {
    let neighbor = |one: &Neighbor| {
        json!({
            "row": one.row,
            "distance": (one.distance_squared as f64).sqrt() / 255.0,
            "rms": root_mean_square(one.distance_squared, bytes),
        })
    };
    let found = prepared.split.forget.iter().zip(&prepared.neighbors);
    let images: Vec<Value> = found
        .map(|(row, found)| {
            json!({ "row": row, "neighbors": found.iter().map(neighbor).collect::<Vec<_>>() })
        })
        .collect();
    json!({
        "images": images,
        "duplicates": prepared.split.duplicates,
        "retained": prepared.split.retain.len(),
    })
}

fn print(data: &Dataset, prepared: &Prepared, bytes: usize) {
    let found = prepared.split.forget.iter().zip(&prepared.neighbors);
    for (&row, found) in found.take(SHOWN) {
        say!("{}", data.name(row));
        for one in found {
            say!(
                "  {:<32} distance {:8.3}   {:6.1} of 255 per value",
                data.name(one.row),
                (one.distance_squared as f64).sqrt() / 255.0,
                root_mean_square(one.distance_squared, bytes)
            );
        }
    }
    let more = prepared.split.forget.len().saturating_sub(SHOWN);
    if more > 0 {
        say!("and {more} more images; --json lists all");
    }
}

fn picture(data: &Dataset, prepared: &Prepared, k: usize) -> Result<Vec<u8>, Failure> {
    let shape = data.shape();
    let mut images = Vec::new();
    let mut image = vec![0; shape.bytes()];
    let found = prepared.split.forget.iter().zip(&prepared.neighbors);
    for (&row, found) in found.take(SHOWN) {
        for row in std::iter::once(row).chain(found.iter().map(|one| one.row)) {
            data.read(row, &mut image)?;
            images.extend_from_slice(&image);
        }
    }
    let shape = [shape.height, shape.width, shape.channels];
    let grid = Grid {
        shape,
        columns: k + 1,
        zoom: Grid::zoom_for(shape),
    };
    Ok(grid.png(&images)?)
}
