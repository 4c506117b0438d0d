//! The command line. The only place that parses arguments, prints, or decides an exit code.

mod args;
mod commands;
mod evaluation;
mod evidence;
mod failure;
mod interrupt;
mod machine;
mod model;
mod progress;
mod session;
mod settings;

use std::process::ExitCode;

use clap::Parser;

/// Training allocates and frees the same large buffers over and over; this one keeps their pages.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// mimalloc's `mi_option_purge_delay`, which `libmimalloc-sys` does not name.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

fn main() -> ExitCode {
    // Freed pages stay: given back, the kernel would clear them again for the next step, 3% of its time.
    // SAFETY: an option that exists, set before there are other threads.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, -1) };
    match commands::run(args::Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {}", failure.message);
            ExitCode::from(failure.code)
        }
    }
}
