//! `retrack experiment`: methods x seeds x forgotten images, with the original model as reference.

use retrack_study::evidence;
use retrack_study::experiment::{Compared, Comparison, compare};
use retrack_study::failure::Failure;
use retrack_study::interrupt;

use crate::args::ExperimentArgs;
use crate::progress::{self, Printed, say};

pub fn run(args: &ExperimentArgs) -> Result<(), Failure> {
    interrupt::goes_on("the same command goes on");
    let seeds = args.seeds.as_deref().map(parse_seeds).transpose()?;
    let comparison = Comparison {
        preset: args.preset.clone(),
        config: args.config.clone(),
        model: args.model.clone(),
        retrained: args.retrained.clone(),
        data: args.data.source(),
        forget: args.forget.clone(),
        methods: args.methods.clone(),
        seeds,
        measuring: args.protocol.measuring(args.metrics.clone()),
        prompts: args.prompts.options(),
        out: args.out.clone(),
        dtype: args.dtype,
        must_look: args.fail_if_found,
        dry_run: args.dry_run,
        device: args.machine.device.clone(),
    };
    match compare(&comparison, &mut Printed)? {
        Some(compared) => show(args, &compared),
        None => Ok(()),
    }
}

/// Prints what was found, and decides what it means.
fn show(args: &ExperimentArgs, compared: &Compared) -> Result<(), Failure> {
    progress::table(&compared.table);
    progress::tell(compared.caption.trim_end());
    say!();
    progress::tell(evidence::printed(&compared.verdict, &compared.notes));
    progress::tell(format_args!(
        "report: {}",
        args.out.join(evidence::PAGE).display()
    ));
    if !compared.failed.is_empty() {
        return Err(Failure::failed(format!(
            "{}; what is there is kept: to measure a run again, remove its file from {}",
            compared.failed.join("; "),
            args.out.join("results").display()
        )));
    }
    match compared.still_found.as_slice() {
        [] => Ok(()),
        _ if !args.fail_if_found => Ok(()),
        methods => Err(Failure::found(format!(
            "--fail-if-found: a forgotten image is still found with {}",
            methods.join(", ")
        ))),
    }
}

/// `0,1,2` or `0-9` or both.
fn parse_seeds(text: &str) -> Result<Vec<u64>, Failure> {
    let wrong = || {
        Failure::input(format!(
            "--seeds {text}: give numbers, such as 0,1,2 or 0-9"
        ))
    };
    let number = |text: &str| text.trim().parse::<u64>().map_err(|_| wrong());
    let mut seeds = Vec::new();
    for part in text.split(',') {
        match part.split_once('-') {
            Some((first, last)) => {
                let (first, last) = (number(first)?, number(last)?);
                if first > last || last - first >= 10_000 {
                    return Err(wrong());
                }
                seeds.extend(first..=last);
            }
            None => seeds.push(number(part)?),
        }
    }
    Ok(seeds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_numbers_and_ranges() {
        assert_eq!(parse_seeds("3,0-2").unwrap(), [3, 0, 1, 2]);
        for wrong in ["", "a", "5-3", "1,", "0-99999999"] {
            assert_eq!(parse_seeds(wrong).unwrap_err().code, 2, "{wrong}");
        }
    }
}
