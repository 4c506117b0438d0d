//! `retrack evaluate`: what a model still knows, beside the model that it was made from.

use std::path::{Path, PathBuf};

use retrack_eval::pictures::Grid;
use retrack_eval::score::{Spread, Table};
use serde_json::json;

use super::evaluate_text;
use crate::args::EvaluateArgs;
use crate::evaluation::{Evaluation, Protocol, Skipped, Subject};
use crate::failure::Failure;
use crate::progress::say;
use crate::{latent, machine, model, progress};

/// Samples shown in a picture.
const SHOWN: usize = 256;

pub fn run(args: &EvaluateArgs) -> Result<(), Failure> {
    let device = machine::device(&args.machine.device)?;
    if latent::is_text(&args.model)? {
        return evaluate_text::run(args, &device);
    }
    evaluate_text::refuse_texts(args)?;
    let protocol = Protocol {
        metrics: args.metrics.clone(),
        samples: args.protocol.samples.unwrap_or(256),
        scheduler: args.scheduler,
        sampling_steps: args.steps,
        threshold: args.protocol.threshold,
        inception: args.protocol.inception.clone(),
        controls: args.protocol.controls.clone(),
    };
    protocol.check()?;
    if args.out.join("metrics.json").exists() && !args.force {
        return Err(Failure::input(format!(
            "{}: holds an evaluation already; choose another folder, or give --force to replace it",
            args.out.display()
        )));
    }

    let opened = model::open(&args.model)?;
    let data = model::open_data(&args.data, &opened)?;
    let subject = Subject::new(&data, &args.forget)?;
    let mut columns: Vec<(&str, &PathBuf, Evaluation)> = Vec::new();
    if let Some(baseline) = &args.baseline {
        let found = protocol.evaluate(baseline, &subject, args.seed, &device)?;
        columns.push(("baseline", baseline, found));
    }
    let found = protocol.evaluate(&args.model, &subject, args.seed, &device)?;
    columns.push(("model", &args.model, found));

    let shape = data.shape();
    for (name, _, found) in &columns {
        show(&args.out.join(format!("{name}.png")), shape, &found.samples)?;
    }
    let mut json = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "data_digest": data.digest()?,
        "forgotten_rows": subject.split.forget.len(),
        "duplicate_rows": subject.split.duplicates.len(),
        "protocol": protocol,
        "seed": args.seed,
    });
    for (name, path, found) in &columns {
        json[*name] = json!({
            "path": path.display().to_string(),
            "scores": found.scores,
            "skipped": found.skipped,
        });
    }
    let text = serde_json::to_string_pretty(&json).expect("JSON has no unwritable values");
    model::write(
        &args.out.join("metrics.json"),
        format!("{text}\n").as_bytes(),
    )?;
    if args.json {
        say!("{json}");
    } else {
        say!("{}", table(&columns).plain().trim_end());
    }
    report_skipped(&columns[0].2.skipped);
    Ok(())
}

/// A grid of the first samples.
fn show(
    path: &Path,
    shape: retrack_unlearn::data::ImageShape,
    samples: &[u8],
) -> Result<(), Failure> {
    let shown = &samples[..samples.len().min(SHOWN * shape.bytes())];
    if shown.is_empty() {
        return Ok(());
    }
    let shape = [shape.height, shape.width, shape.channels];
    let grid = Grid {
        shape,
        columns: 16,
        zoom: Grid::zoom_for(shape),
    };
    model::write(path, &grid.png(shown)?)
}

/// What was not measured, and what would measure it.
pub fn report_skipped(skipped: &[Skipped]) {
    for Skipped { metric, reason } in skipped {
        let name = serde_json::to_value(metric).expect("a name");
        progress::warn(format!(
            "{} was skipped: {reason}",
            name.as_str().unwrap_or_default()
        ));
    }
}

/// A row for each score, a column for each model.
fn table(columns: &[(&str, &PathBuf, Evaluation)]) -> Table {
    let mut headings = vec!["score".to_string()];
    headings.extend(columns.iter().map(|(name, _, _)| name.to_string()));
    headings.push("of".into());
    let scores = &columns[0].2.scores;
    let rows = scores.iter().map(|score| {
        let mut row = vec![score.name.clone()];
        for (_, _, found) in columns {
            let found = found.scores.iter().find(|found| found.name == score.name);
            row.push(found.map_or_else(String::new, |found| {
                let value = Spread::of(&[found.value]).expect("one value").text();
                match found.interval {
                    Some([low, high]) => format!("{value} [{low:.3}, {high:.3}]"),
                    None => value,
                }
            }));
        }
        row.push(score.count.to_string());
        row
    });
    Table {
        rows: rows.collect(),
        headings,
    }
}
