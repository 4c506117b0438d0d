//! `retrack completions`: a script with which a shell completes commands and options.

use std::io::Write;

use crate::args::{CompletionsArgs, command};
use retrack_study::failure::Failure;

pub fn run(args: &CompletionsArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command(), "retrack", &mut script);
    // That nobody reads on is no error.
    let _ = std::io::stdout().write_all(&script);
    Ok(())
}
