//! `retrack neighbors`: what would take a forgotten image's place.

use retrack_checkpoint::words::counted;
use retrack_data::Dataset;
use retrack_data::neighbors::{Neighbor, Prepared, prepare, root_mean_square};
use retrack_eval::pictures::Grid;
use serde_json::{Value, json};

use crate::args::NeighborsArgs;
use crate::progress;
use crate::progress::say;
use retrack_study::failure::Failure;
use retrack_study::folders::{new_file_beside, outside};
use retrack_study::unlearning::report_split;
use retrack_study::{machine, model};

/// Rows of the picture, and forgotten images listed on the terminal.
const SHOWN: usize = 20;

pub fn run(args: &NeighborsArgs) -> Result<(), Failure> {
    if args.neighbors == 0 {
        return Err(Failure::input("--neighbors is 0; give at least 1"));
    }
    if let Some(path) = &args.out {
        if args.data.path.is_dir() {
            outside(path, &args.data.path, "data")?;
        }
        new_file_beside(path, &args.data.path, args.force)?;
    }
    let data = model::open_images(&args.data.path, &args.data.reading.reading(), None)?;
    let rows = model::select(&args.forget, &data)?;
    let cache = machine::cache_folder();
    let searching = retrack_study::progress::activity("searching");
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
        say!("{}", report(&data, &prepared));
    } else {
        print(&data, &prepared, bytes);
    }
    Ok(())
}

fn report(data: &Dataset, prepared: &Prepared) -> Value {
    let bytes = data.shape().bytes();
    let neighbor = |one: &Neighbor| {
        json!({
            "row": one.row,
            "name": data.name(one.row),
            "distance": (one.distance_squared as f64).sqrt() / 255.0,
            "rms": root_mean_square(one.distance_squared, bytes),
        })
    };
    let found = prepared.split.forget.iter().zip(&prepared.neighbors);
    let images: Vec<Value> = found
        .map(|(&row, found)| {
            json!({
                "row": row,
                "name": data.name(row),
                "neighbors": found.iter().map(neighbor).collect::<Vec<_>>(),
            })
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
        say!("and {} more; --json lists all", counted(more, "image"));
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
