//! The command line as clap knows it: what `--help` leaves to `--help-all`, and errors that fit the terminal.

use clap::{CommandFactory, FromArgMatches};

use super::Args;
use crate::progress;

/// The whole command line.
pub fn command() -> clap::Command {
    shortened(Args::command())
}

/// Leaves the options under a heading to `--help-all`, in every command.
fn shortened(command: clap::Command) -> clap::Command {
    command
        .mut_args(|arg| {
            let common = arg.get_help_heading().is_none() || arg.is_required_set();
            arg.hide_short_help(!common)
        })
        .mut_subcommands(shortened)
}

/// Reads the process's arguments. Help, versions and usage errors are printed here and end the process.
#[expect(clippy::disallowed_methods, reason = "nothing has begun")]
pub fn parse() -> Args {
    let found = command()
        .try_get_matches()
        .and_then(|matches| Args::from_arg_matches(&matches));
    match found {
        Ok(args) => args,
        Err(error) if error.use_stderr() => {
            progress::misused(&error.render());
            std::process::exit(error.exit_code());
        }
        Err(error) => {
            progress::show_help(&error.render());
            std::process::exit(error.exit_code());
        }
    }
}
