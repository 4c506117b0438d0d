//! `retrack verify`: computes again what a run's report says, and lists what differs.

use retrack_study::failure::Failure;
use retrack_study::verify::verify;

use crate::args::VerifyArgs;
use crate::progress::{self, say};

pub fn run(args: &VerifyArgs) -> Result<(), Failure> {
    let found = verify(&args.verify())?;
    if args.json {
        say!("{}", found.json());
    } else {
        match found.is_same() {
            true => progress::tell(found.sentence()),
            false => found.differences.iter().for_each(progress::tell),
        }
        found.not_measured.iter().for_each(progress::tell);
    }
    let run = args.run.display();
    match found.differences.len() {
        0 => Ok(()),
        1 => Err(Failure::failed(format!("{run}: 1 difference"))),
        many => Err(Failure::failed(format!("{run}: {many} differences"))),
    }
}
