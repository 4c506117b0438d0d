//! The command line. The only place that parses arguments, prints, or decides an exit code.
//!
//! A library so that tests can reach it; its interface is the binary's.

mod args;
mod commands;
mod interrupt;
mod machine;
mod progress;
mod remedy;

use std::process::ExitCode;

use retrack_study::interrupt::kept;
use retrack_study::settings;

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

/// Reads a settings file as `--config` does, for the tests that feed it damaged ones.
#[doc(hidden)]
pub fn check_settings(path: &std::path::Path) -> Result<(), String> {
    settings::check_file(path).map_err(|failure| failure.message)
}
