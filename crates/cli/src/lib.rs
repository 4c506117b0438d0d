//! The command line. The only place that parses arguments, prints, or decides an exit code.
//!
//! A library so that tests can reach it; its interface is the binary's.

#![cfg_attr(
    not(test),
    warn(clippy::disallowed_methods, clippy::print_stderr, clippy::print_stdout)
)]

mod args;
mod commands;
mod interrupt;
mod machine;
mod metric_words;
mod progress;
mod remedy;

use std::process::ExitCode;

use retrack_study::field::Field;
use retrack_study::interrupt::kept;
use retrack_study::settings;
use retrack_study::situation::Situation;

/// Does what the command line says; the process's exit code.
pub fn run() -> ExitCode {
    let args = args::parse();
    progress::begin(args.volume.quiet, args.volume.verbose);
    kept("nothing was written");
    match interrupt::listen().and_then(|()| commands::run(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            progress::fail(&failure.message);
            ExitCode::from(failure.code)
        }
    }
}

/// README's table of the metrics, for the test that compares them.
#[doc(hidden)]
pub fn metrics_table() -> String {
    metric_words::readme()
}

/// The command line as clap knows it, for the tests that compare messages with its options and write docs/reference.md.
#[doc(hidden)]
pub fn command_line() -> clap::Command {
    args::command()
}

/// What the command with this name advises in a situation, for the same test.
#[doc(hidden)]
pub fn advice(command: &str, situation: Situation) -> Option<&'static str> {
    remedy::advice_by(command, situation)
}

/// The option by which a field's value is given, for the same test.
#[doc(hidden)]
pub fn option(field: Field) -> String {
    remedy::option(field)
}

/// Reads a settings file as `--config` does, for the tests that feed it damaged ones.
#[doc(hidden)]
pub fn check_settings(path: &std::path::Path) -> Result<(), String> {
    settings::check_file(path).map_err(|failure| failure.message)
}
