//! `retrack history`: the requests that a model was made by, one after another.

use retrack_study::chain::history;
use retrack_study::failure::Failure;

use crate::args::HistoryArgs;
use crate::progress::{self, say};

pub fn run(args: &HistoryArgs) -> Result<(), Failure> {
    let found = history(&args.folder)?;
    if args.json {
        say!("{}", found.json());
    } else {
        found.lines().iter().for_each(progress::tell);
        found.sentence().iter().for_each(progress::tell);
        found.problems.iter().for_each(progress::tell);
    }
    let folder = args.folder.display();
    match found.problems.len() {
        0 => Ok(()),
        1 => Err(Failure::failed(format!("{folder}: 1 thing does not fit"))),
        many => Err(Failure::failed(format!(
            "{folder}: {many} things do not fit"
        ))),
    }
}
