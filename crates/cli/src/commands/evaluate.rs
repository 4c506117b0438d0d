//! `retrack evaluate`: what a model still knows, beside the model that it was made from.

use retrack_study::evaluate::evaluate;
use retrack_study::evidence;
use retrack_study::failure::Failure;

use crate::args::EvaluateArgs;
use crate::progress::{self, say};

pub fn run(args: &EvaluateArgs) -> Result<(), Failure> {
    let found = evaluate(&args.evaluate())?;
    if args.json {
        say!("{}", found.json);
    } else {
        progress::table(&found.table);
        say!();
        progress::tell(evidence::printed(&found.verdict, &found.said));
        found.rule.iter().for_each(progress::tell);
        progress::tell(format_args!("report: {}", found.page.display()));
    }
    if !found.failed.is_empty() {
        return Err(Failure::failed(found.failed.join("; ")));
    }
    evidence::fail_if_found(args.fail_if_found, &found.verdict)
}
