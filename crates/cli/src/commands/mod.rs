//! One file a command.

mod bench;
mod demo;
mod evaluate;
mod experiment;
mod gradient;
mod inspect;
mod neighbors;
mod predict;
mod sample;
mod tensors;
mod train;
mod unlearn;

use crate::args::{Args, Command};
use crate::failure::Failure;

/// Runs what was typed.
pub fn run(args: Args) -> Result<(), Failure> {
    match args.command {
        Command::Demo(args) => demo::run(&args),
        Command::Train(args) => train::run(&args),
        Command::Unlearn(args) => unlearn::run(&args),
        Command::Neighbors(args) => neighbors::run(&args),
        Command::Sample(args) => sample::run(&args),
        Command::Evaluate(args) => evaluate::run(&args),
        Command::Experiment(args) => experiment::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Predict(args) => predict::run(&args),
        Command::Gradient(args) => gradient::run(&args),
        Command::Bench(command) => bench::run(&command),
    }
}
