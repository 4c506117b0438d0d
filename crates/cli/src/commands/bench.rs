//! `retrack bench`: how fast this machine is at the work that the other commands do.

use retrack_study::bench::{neighbors, predict, sample, step};
use retrack_study::failure::Failure;

use crate::args::BenchCommand;
use crate::progress::say;

pub fn run(command: &BenchCommand) -> Result<(), Failure> {
    let line = match command {
        BenchCommand::Step(args) => step(&args.work())?,
        BenchCommand::Predict(args) => predict(&args.work())?,
        BenchCommand::Sample(args) => sample(&args.network.work(), args.steps)?,
        BenchCommand::Neighbors(args) => neighbors(&args.work())?,
    };
    say!("{line}");
    Ok(())
}
