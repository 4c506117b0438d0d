//! `retrack neighbors`: what would take a forgotten image's place.

use retrack_checkpoint::words::counted;
use retrack_data::neighbors::root_mean_square;
use retrack_study::failure::Failure;
use retrack_study::neighbors::{Found, SHOWN, Search, distance, search};

use crate::args::NeighborsArgs;
use crate::progress::say;

pub fn run(args: &NeighborsArgs) -> Result<(), Failure> {
    let found = search(&Search {
        data: args.data.source(),
        forget: args.forget.clone(),
        neighbors: args.neighbors,
        out: args.out.clone(),
        force: args.force,
    })?;
    if args.json {
        say!("{}", found.json());
    } else {
        print(&found);
    }
    Ok(())
}

fn print(found: &Found) {
    let data = &found.data;
    let bytes = data.shape().bytes();
    for (row, neighbors) in found.images().take(SHOWN) {
        say!("{}", data.name(row));
        for one in neighbors {
            say!(
                "  {:<32} distance {:8.3}   {:6.1} of 255 per value",
                data.name(one.row),
                distance(one),
                root_mean_square(one.distance_squared, bytes)
            );
        }
    }
    let more = found.images().len().saturating_sub(SHOWN);
    if more > 0 {
        say!("and {} more; --json lists all", counted(more, "image"));
    }
}
