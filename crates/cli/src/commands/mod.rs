//! One file a command.

mod bench;
mod demo;
mod evaluate;
mod experiment;
mod gradient;
mod inspect;
mod merge;
mod neighbors;
mod predict;
mod sample;
mod tensors;
mod train;
mod unlearn;
mod unlearn_text;
mod verify;

use crate::args::{Args, BenchCommand, Command};
use crate::failure::Failure;
use crate::{machine, remedy};

/// Runs what was typed.
pub fn run(args: Args) -> Result<(), Failure> {
    let command = args.command;
    remedy::speak_for(&command);
    machine::with_threads(threads(&command), || dispatch(&command))
}

fn dispatch(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Demo(args) => demo::run(args),
        Command::Train(args) => train::run(args),
        Command::Unlearn(args) => unlearn::run(args),
        Command::Neighbors(args) => neighbors::run(args),
        Command::Merge(args) => merge::run(args),
        Command::Sample(args) => sample::run(args),
        Command::Evaluate(args) => evaluate::run(args),
        Command::Experiment(args) => experiment::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Predict(args) => predict::run(args),
        Command::Gradient(args) => gradient::run(args),
        Command::Bench(command) => bench::run(command),
    }
}

/// What `--threads` says, where a command has it.
fn threads(command: &Command) -> Option<usize> {
    match command {
        Command::Demo(args) => args.machine.threads,
        Command::Train(args) => args.machine.threads,
        Command::Unlearn(args) => args.machine.threads,
        Command::Neighbors(args) => args.threads,
        Command::Sample(args) => args.machine.threads,
        Command::Evaluate(args) => args.machine.threads,
        Command::Experiment(args) => args.machine.threads,
        Command::Verify(args) => args.machine.threads,
        Command::Inspect(_) | Command::Merge(_) => None,
        Command::Predict(args) => args.machine.threads,
        Command::Gradient(args) => args.machine.threads,
        Command::Bench(command) => match command {
            BenchCommand::Step(args) | BenchCommand::Predict(args) => args.machine.threads,
            BenchCommand::Sample(args) => args.network.machine.threads,
            BenchCommand::Neighbors(args) => args.threads,
        },
    }
}
