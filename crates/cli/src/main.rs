//! The command line. The only place that parses arguments, prints, or decides an exit code.

mod args;
mod commands;
mod failure;
mod machine;
mod model;
mod progress;
mod settings;

use std::process::ExitCode;

use clap::Parser;

/// Training allocates and frees the same large buffers over and over; this one keeps their pages.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match commands::run(args::Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {}", failure.message);
            ExitCode::from(failure.code)
        }
    }
}
