//! One file a command.

mod bench;
mod completions;
mod demo;
mod evaluate;
mod experiment;
mod gradient;
mod history;
mod inspect;
mod merge;
mod neighbors;
mod predict;
mod sample;
mod train;
mod unlearn;
mod verify;

use std::time::Instant;

use crate::args::{Args, BenchCommand, Command};
use crate::{machine, progress, remedy};
use retrack_study::failure::Failure;
use retrack_study::{evidence, space};

/// Runs what was typed.
pub fn run(args: Args) -> Result<(), Failure> {
    let start = Instant::now();
    let command = args.command;
    remedy::speak_for(&command);
    machine::with_threads(threads(&command), || {
        progress::detail(format_args!(
            "retrack {} on {} threads",
            env!("CARGO_PKG_VERSION"),
            rayon::current_num_threads()
        ));
        dispatch(&command)?;
        progress::detail(format_args!(
            "done after {:.2} s{}",
            start.elapsed().as_secs_f64(),
            memory()
        ));
        Ok(())
    })
}

/// How much memory it took, where the system tells.
fn memory() -> String {
    let peak = evidence::peak_memory_bytes().map(|bytes| space::Bytes(bytes as f64));
    peak.map_or(String::new(), |peak| format!(", {peak} of memory at most"))
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
        Command::History(args) => history::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Predict(args) => predict::run(args),
        Command::Gradient(args) => gradient::run(args),
        Command::Bench(command) => bench::run(command),
        Command::Completions(args) => completions::run(args),
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
        Command::History(_) | Command::Inspect(_) | Command::Merge(_) | Command::Completions(_) => {
            None
        }
        Command::Predict(args) => args.machine.threads,
        Command::Gradient(args) => args.machine.threads,
        Command::Bench(command) => match command {
            BenchCommand::Step(args) | BenchCommand::Predict(args) => args.machine.threads,
            BenchCommand::Sample(args) => args.network.machine.threads,
            BenchCommand::Neighbors(args) => args.threads,
        },
    }
}
