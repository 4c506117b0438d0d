//! `retrack evaluate`: what a model still knows, beside the model that it was made from.

use std::path::Path;
use std::time::Instant;

use retrack_eval::pictures::Grid;
use retrack_eval::report::Fact;
use retrack_eval::score::{Spread, Table};
use retrack_networks::lora;
use retrack_unlearn::lock::Lock;
use serde_json::json;

use crate::args::{EvaluateArgs, Metric, SamplerName};
use crate::evaluation::{Evaluation, GUIDANCE, Protocol, Skipped, Subject};
use crate::evidence::comparison::{self, About, Column};
use crate::evidence::{self, Forgotten, Rule, covered};
use crate::failure::Failure;
use crate::folders::outside;
use crate::progress::say;
use crate::{interrupt, latent, machine, model, progress};

/// Samples shown in a picture.
const SHOWN: usize = 256;

pub fn run(args: &EvaluateArgs) -> Result<(), Failure> {
    let start = Instant::now();
    let device = machine::device(&args.machine.device)?;
    let opened = latent::open(&args.model)?;
    let prompts = opened.prompts(&args.prompts, &args.data)?;
    let forget = opened.selection(&args.forget, &args.data)?;
    let defaults = Defaults::of(prompts.is_some());
    let protocol = Protocol {
        metrics: args.metrics.clone().unwrap_or(defaults.metrics.to_vec()),
        samples: args.protocol.samples.unwrap_or(defaults.samples),
        scheduler: args.scheduler.or(defaults.scheduler),
        sampling_steps: args.steps,
        threshold: args.protocol.threshold,
        inception: args.protocol.inception.clone(),
        sscd: args.protocol.sscd.clone(),
        clip: args.protocol.clip.clone(),
        controls: args.protocol.controls.clone(),
        guidance: prompts
            .is_some()
            .then(|| args.prompts.guidance.unwrap_or(GUIDANCE)),
    };
    protocol.check()?;
    progress::detail(format_args!("measuring {}", json!(protocol)));
    if args.data.is_dir() {
        outside(&args.out, &args.data, "data")?;
    }
    for model in std::iter::once(&args.model).chain(&args.baseline) {
        outside(&args.out, model, "model")?;
    }
    let _lock = Lock::take(&args.out)?;
    interrupt::kept("nothing is kept: the same command starts again");
    if args.out.join("metrics.json").exists() && !args.force {
        return Err(Failure::input(format!(
            "{}: holds an evaluation already; choose another folder, or give --force to replace it",
            args.out.display()
        )));
    }
    if let Some(baseline) = &args.baseline {
        latent::open(baseline)?;
    }
    let data = opened.open_data(&args.data)?;
    drop(opened);
    let judges = protocol.judges(&device)?;
    let subject = Subject::new(&data, &forget, prompts.as_ref(), &judges)?;
    let models = 1 + usize::from(args.baseline.is_some());
    let phases = protocol.phases(prompts.as_ref());
    let measure = |number: usize, name: &str, path: &Path| {
        progress::note(format!(
            "{number}/{models}  {name} {} in {} phase{}: {}",
            path.display(),
            phases.len(),
            progress::ending(phases.len()),
            phases.join(", ")
        ));
        let _stage = progress::stage(number, models);
        protocol.evaluate(path, &subject, args.seed, &device)
    };
    let mut columns: Vec<Found> = Vec::new();
    if let Some(baseline) = &args.baseline {
        columns.push(Found {
            name: "baseline",
            path: baseline,
            evaluation: measure(1, "baseline", baseline)?,
        });
    }
    columns.push(Found {
        name: "model",
        path: &args.model,
        evaluation: measure(models, "model", &args.model)?,
    });

    let rule = match (&subject.clusters, protocol.threshold) {
        (Some(clusters), _) => Rule::Cluster(clusters),
        (None, Some(threshold)) => Rule::Threshold(threshold),
        (None, None) => Rule::Nearest,
    };
    let forgotten = Forgotten::new(&data, &subject.split, rule)?;
    // From here on the files must fit together.
    interrupt::finish_first("once the result is written");
    remove_pictures(&args.out)?;
    let mut json = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "data_digest": data.digest()?,
        "forgotten_rows": subject.split.forget.len(),
        "duplicate_rows": subject.split.duplicates.len(),
        "protocol": protocol,
        "seed": args.seed,
    });
    if let Some(clusters) = &subject.clusters {
        json["cluster_agreement"] = clusters.agreement.into();
    }
    for Found {
        name,
        path,
        evaluation,
    } in &columns
    {
        json[*name] = json!({
            "path": path.display().to_string(),
            "scores": evaluation.scores,
            "skipped": evaluation.skipped,
            "notes": evaluation.notes,
        });
        let mut prompts = Vec::new();
        for (number, drawn) in evaluation.drawn.iter().enumerate() {
            let picture = match drawn.prompt {
                Some(_) => format!("{name}-{number:02}.png"),
                None => format!("{name}.png"),
            };
            let path = args.out.join(&picture);
            show(&path, &forgotten, &drawn.samples, args.show_forgotten)?;
            if let (Some(prompt), Some(clusters)) = (&drawn.prompt, &subject.clusters) {
                prompts.push(json!({
                    "prompt": prompt,
                    "forgotten": drawn.forgotten,
                    "samples": protocol.samples,
                    "memorized": clusters.memorized(&drawn.samples),
                    "picture": picture,
                }));
            }
        }
        if !prompts.is_empty() {
            json[*name]["prompts"] = prompts.into();
        }
    }
    let text = serde_json::to_string_pretty(&json).expect("JSON has no unwritable values");
    model::write(
        &args.out.join("metrics.json"),
        format!("{text}\n").as_bytes(),
    )?;
    let most = SHOWN * data.shape().bytes();
    for Found { evaluation, .. } in &mut columns {
        for drawn in &mut evaluation.drawn {
            drawn.samples.truncate(most);
        }
    }
    let sides: Vec<Column> = columns
        .iter()
        .map(|found| Column {
            name: found.name,
            scores: &found.evaluation.scores,
            drawn: &found.evaluation.drawn,
        })
        .collect();
    let mut facts = vec![
        Fact::new(
            "Selected by",
            match args.show_forgotten {
                true => forget.clone(),
                false => evidence::selected(&forget, &subject.split.forget),
            },
        ),
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
    if let Some(prompts) = &prompts {
        facts.push(Fact::new("Their prompt", &prompts.forgotten));
    }
    facts.extend(
        columns
            .iter()
            .map(|found| Fact::new(found.name, found.path.display())),
    );
    let notes: Vec<String> = columns
        .iter()
        .flat_map(
            |Found {
                 name, evaluation, ..
             }| {
                let notes = evaluation.notes.iter();
                notes.map(move |note| format!("{name}: {note}"))
            },
        )
        .collect();
    // What a metric lacks, it lacks for all models.
    let skipped = skipped_sentences(&columns[0].evaluation.skipped);
    let without = columns.iter().filter_map(|found| {
        let adapter = found.path.join(lora::FILE_NAME);
        (prompts.is_some() && adapter.is_file()).then(|| {
            format!(
                "{}: measured without the adapter {} beside it; `retrack merge` folds it in.",
                found.name,
                lora::FILE_NAME
            )
        })
    });
    let notes: Vec<String> = without.chain(notes).collect();
    let about = About {
        configuration: json.clone(),
        facts,
        device: &args.machine.device,
        seconds: start.elapsed().as_secs_f64(),
        notes: [skipped, notes].concat(),
    };
    about.notes.iter().for_each(progress::warn);
    let report = comparison::evaluated(&sides, &forgotten, args.show_forgotten, about)?;
    evidence::write(&args.out, &report)?;
    if args.json {
        say!("{json}");
    } else {
        progress::table(&table(&columns));
    }
    Ok(())
}

/// What is measured where nothing is said.
struct Defaults {
    metrics: &'static [Metric],
    samples: usize,
    scheduler: Option<SamplerName>,
}

impl Defaults {
    /// Of a text-to-image model the published ones.
    fn of(text_to_image: bool) -> Self {
        match text_to_image {
            true => Self {
                metrics: &[Metric::Cluster, Metric::Sscd, Metric::ClipIqa],
                samples: 16,
                scheduler: Some(SamplerName::Ddpm),
            },
            false => Self {
                metrics: &[Metric::Frequency, Metric::Injection, Metric::Copies],
                samples: 256,
                scheduler: None,
            },
        }
    }
}

/// One model and what was found about it.
struct Found<'a> {
    /// `baseline` or `model`.
    name: &'static str,
    path: &'a Path,
    evaluation: Evaluation,
}

/// Removes the pictures of an earlier evaluation: they may show what this one covers, or a model that it does not have.
fn remove_pictures(out: &Path) -> Result<(), Failure> {
    let Ok(entries) = std::fs::read_dir(out) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let rest = ["baseline", "model"]
            .into_iter()
            .find_map(|model| name.strip_prefix(model)?.strip_suffix(".png"));
        let ours = rest.is_some_and(|rest| {
            let number = rest.strip_prefix('-').unwrap_or("0");
            (rest.is_empty() || rest.starts_with('-'))
                && !number.is_empty()
                && number.bytes().all(|byte| byte.is_ascii_digit())
        });
        if ours {
            let path = entry.path();
            std::fs::remove_file(&path).map_err(|error| Failure::write(&path, error))?;
        }
    }
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
    let count = shown.len() / shape.bytes();
    let shape = [shape.height, shape.width, shape.channels];
    let grid = Grid {
        shape,
        columns: (count as f64).sqrt().ceil() as usize,
        zoom: Grid::zoom_for(shape),
    };
    model::write(path, &grid.png(&shown)?)
}

/// What was not measured, and what would measure it, as sentences.
pub fn skipped_sentences(skipped: &[Skipped]) -> Vec<String> {
    let sentence =
        |Skipped { metric, reason }: &Skipped| format!("{} was skipped: {reason}", metric.name());
    skipped.iter().map(sentence).collect()
}

/// A row for each score, a column for each model.
fn table(columns: &[Found]) -> Table {
    let mut headings = vec!["score".to_string()];
    headings.extend(columns.iter().map(|found| found.name.to_string()));
    headings.push("of".into());
    let scores = &columns[0].evaluation.scores;
    let rows = scores.iter().map(|score| {
        let mut row = vec![score.name.clone()];
        for found in columns {
            let found = found
                .evaluation
                .scores
                .iter()
                .find(|found| found.name == score.name);
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
