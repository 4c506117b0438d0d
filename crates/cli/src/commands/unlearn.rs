//! `retrack unlearn`: a model folder in, one that forgot out.

use retrack_study::evidence;
use retrack_study::failure::Failure;
use retrack_study::interrupt;
use retrack_study::unlearn::unlearn;

use crate::args::UnlearnArgs;
use crate::progress::{self, Printed, say};

pub fn run(args: &UnlearnArgs) -> Result<(), Failure> {
    interrupt::goes_on("the same command with --resume goes on");
    let Some(summary) = unlearn(&args.task(), &mut Printed)? else {
        return Ok(());
    };
    if args.json {
        say!("{}", summary.json);
    } else {
        progress::tell(&summary.text);
    }
    match &summary.report {
        Some(report) => evidence::fail_if_found(args.fail_if_found, &report.verdict),
        // Another command made the report before it could publish the model.
        None if args.fail_if_found => {
            evidence::fail_if_found(true, &evidence::read(&args.out.join("run"))?.verdict)
        }
        None => Ok(()),
    }
}
