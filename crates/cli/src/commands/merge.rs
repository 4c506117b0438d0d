//! `retrack merge`: an adapter folded into the weights it was trained for.

use retrack_study::failure::Failure;
use retrack_study::merge::{Merge, merge};

use crate::args::MergeArgs;

pub fn run(args: &MergeArgs) -> Result<(), Failure> {
    merge(&Merge {
        model: args.model.clone(),
        adapter: args.adapter.clone(),
        out: args.out.clone(),
        force: args.force,
        dtype: args.dtype,
    })
}
