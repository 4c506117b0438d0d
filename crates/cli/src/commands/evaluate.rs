//! `retrack evaluate`: what a model still knows, beside the model that it was made from.

use std::path::{Path, PathBuf};
use std::time::Instant;

use retrack_eval::pictures::Grid;
use retrack_eval::report::Fact;
use retrack_eval::score::{Spread, Table};
use retrack_unlearn::lock::Lock;
use serde_json::json;

use super::evaluate_text;
use crate::args::EvaluateArgs;
use crate::evaluation::{Evaluation, Protocol, Skipped, Subject};
use crate::evidence::comparison::{self, About, Column};
use crate::evidence::{self, Forgotten, covered};
use crate::failure::Failure;
use crate::folders::outside;
use crate::progress::say;
use crate::{latent, machine, model, progress};

/// Samples shown in a picture.
const SHOWN: usize = 256;

pub fn run(args: &EvaluateArgs) -> Result<(), Failure> {
    let start = Instant::now();
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
        sscd: args.protocol.sscd.clone(),
        controls: args.protocol.controls.clone(),
    };
    protocol.check()?;
    if args.data.is_dir() {
        outside(&args.out, &args.data, "data")?;
    }
    let _lock = Lock::take(&args.out)?;
    if args.out.join("metrics.json").exists() && !args.force {
        return Err(Failure::input(format!(
            "{}: holds an evaluation already; choose another folder, or give --force to replace it",
            args.out.display()
        )));
    }

    let opened = model::open(&args.model)?;
    if let Some(baseline) = &args.baseline {
        model::open(baseline)?;
    }
    let data = model::open_data(&args.data, &opened)?;
    let judges = protocol.judges(&device)?;
    let subject = Subject::new(&data, &args.forget, &judges)?;
    let measure = |path| protocol.evaluate(path, &subject, args.seed, &device);
    let mut columns: Vec<(&str, &PathBuf, Evaluation)> = Vec::new();
    if let Some(baseline) = &args.baseline {
        columns.push(("baseline", baseline, measure(baseline)?));
    }
    columns.push(("model", &args.model, measure(&args.model)?));

    let forgotten = Forgotten::new(&data, &subject.split, protocol.threshold)?;
    for (name, _, found) in &columns {
        let path = args.out.join(format!("{name}.png"));
        show(&path, &forgotten, &found.samples, args.show_forgotten)?;
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
            "notes": found.notes,
        });
    }
    let text = serde_json::to_string_pretty(&json).expect("JSON has no unwritable values");
    model::write(
        &args.out.join("metrics.json"),
        format!("{text}\n").as_bytes(),
    )?;
    let shown = |found: &Evaluation| found.samples.len().min(SHOWN * data.shape().bytes());
    let sides: Vec<Column> = columns
        .iter()
        .map(|(name, _, found)| Column {
            name,
            scores: &found.scores,
            samples: &found.samples[..shown(found)],
        })
        .collect();
    let mut facts = vec![
        Fact::new("Selected by", &args.forget),
        Fact::new(
            "Looked for",
            format!(
                "{} rows, {} of them distinct",
                subject.split.forget.len(),
                forgotten.len()
            ),
        ),
        Fact::new("Data set", args.data.display()),
    ];
    facts.extend(
        columns
            .iter()
            .map(|(name, path, _)| Fact::new(name, path.display())),
    );
    let about = About {
        configuration: json.clone(),
        facts,
        device: &args.machine.device,
        seconds: start.elapsed().as_secs_f64(),
        skipped: skipped_sentences(&columns[0].2.skipped),
    };
    let report = comparison::evaluated(&sides, &forgotten, args.show_forgotten, about)?;
    evidence::write(&args.out, &report)?;
    if args.json {
        say!("{json}");
    } else {
        say!("{}", table(&columns).plain().trim_end());
    }
    let notes: Vec<String> = columns
        .iter()
        .flat_map(|(name, _, found)| {
            found
                .notes
                .iter()
                .map(move |note| format!("{name}: {note}"))
        })
        .collect();
    // What a metric lacks, it lacks for all models.
    tell(&columns[0].2.skipped, &notes);
    Ok(())
}

/// A grid of the first samples, what may be a forgotten image covered.
fn show(
    path: &Path,
    forgotten: &Forgotten,
    samples: &[u8],
    show_forgotten: bool,
) -> Result<(), Failure> {
    let shape = forgotten.data.shape();
    let shown = &samples[..samples.len().min(SHOWN * shape.bytes())];
    if shown.is_empty() {
        return Ok(());
    }
    let (shown, _) = covered(shown, &forgotten.look(shown)?, shape, show_forgotten);
    let shape = [shape.height, shape.width, shape.channels];
    let grid = Grid {
        shape,
        columns: 16,
        zoom: Grid::zoom_for(shape),
    };
    model::write(path, &grid.png(&shown)?)
}

/// What was not measured, and what would measure it; what a reader should know of the rest.
pub fn tell(skipped: &[Skipped], notes: &[String]) {
    skipped_sentences(skipped)
        .iter()
        .chain(notes)
        .for_each(progress::warn);
}

/// What was not measured, and what would measure it, as sentences.
pub fn skipped_sentences(skipped: &[Skipped]) -> Vec<String> {
    let sentence =
        |Skipped { metric, reason }: &Skipped| format!("{} was skipped: {reason}", metric.name());
    skipped.iter().map(sentence).collect()
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
