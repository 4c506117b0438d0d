//! `retrack evaluate`: what a model still knows, beside the model that it was made from.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use retrack_checkpoint::lock::Lock;
use retrack_checkpoint::words::{counted, listed};
use retrack_checkpoint::written::{Command, Output};
use retrack_data::{Dataset, Split};
use retrack_eval::pictures::Grid;
use retrack_eval::report::Fact;
use retrack_eval::score::{Spread, Table};
use retrack_networks::lora;
use retrack_networks::schedule::SchedulerKind;
use retrack_study::run::RunFolder;
use serde_json::{Value, json};

use crate::args::EvaluateArgs;
use crate::progress;
use crate::progress::say;
use retrack_study::evaluation::{
    self, Evaluation, GUIDANCE, Missing, Protocol, Subject, each_once, sentences,
};
use retrack_study::evidence::comparison::{self, About, Column};
use retrack_study::evidence::{self, Forgotten, covered};
use retrack_study::failure::Failure;
use retrack_study::folders::{as_path, outside_all};
use retrack_study::names::{Metric, SamplerName};
use retrack_study::{interrupt, latent, machine, model};

const METRICS: &str = "metrics.json";
/// Samples shown in a picture.
const SHOWN: usize = 256;

pub fn run(args: &EvaluateArgs) -> Result<(), Failure> {
    let start = Instant::now();
    let forget = args.forget.iter().map(|one| ("selection", as_path(one)));
    let inputs = [
        ("data", Some(args.data.path.as_path())),
        ("model", Some(&args.model)),
        ("model", args.baseline.as_deref()),
    ];
    let inputs = inputs.into_iter().chain(args.protocol.inputs());
    outside_all(&args.out, inputs.chain(forget))?;
    let device = machine::device(&args.machine.device)?;
    let opened = latent::open(&args.model)?;
    let prompts = opened.prompts(&args.prompts.options(), &args.data.path)?;
    let forget = opened.selection(&args.forget, &args.data.path)?;
    let defaults = Defaults::of(prompts.is_some());
    let scheduler = args.scheduler.or(defaults.scheduler);
    let protocol = Protocol {
        metrics: args.metrics.clone().unwrap_or(defaults.metrics.to_vec()),
        samples: args.protocol.samples.unwrap_or(defaults.samples),
        scheduler,
        sampling_steps: args.steps.unwrap_or(opened.steps(scheduler, model::STEPS)),
        threshold: args.protocol.threshold,
        inception: args.protocol.inception.clone(),
        sscd: args.protocol.sscd.clone(),
        clip: args.protocol.clip.clone(),
        controls: args.protocol.controls.clone(),
        controls_split: args.protocol.controls_split.clone(),
        guidance: prompts
            .is_some()
            .then(|| args.prompts.guidance.unwrap_or(GUIDANCE)),
        class: args.protocol.class,
    };
    protocol.check()?;
    progress::detail(format_args!("measuring {}", json!(protocol)));
    let _lock = Lock::take(&args.out)?;
    let mut output = Output::open(&args.out, Command::Evaluate, args.force, is_ours)?;
    output.remove_temporaries();
    interrupt::kept("nothing is kept: the same command starts again");
    if let Some(baseline) = &args.baseline {
        latent::open(baseline)?;
    }
    let data = opened.open_data(&args.data.source())?;
    let judges = protocol.judges(&data, &device)?;
    let subject = Subject::new(
        &data,
        &forget,
        prompts.as_ref(),
        &judges,
        protocol.threshold,
    )?;
    if let Some(warning) = other_run(&args.model, &data, &subject.split, args)? {
        progress::warn(warning);
    }
    let classes = protocol.classes(&opened, &subject)?;
    let metrics = protocol.tried(&subject, opened.scheduler(), args.fail_if_found)?;
    let phases = evaluation::phases(&metrics, prompts.as_ref());
    // Its values are not needed while others' are measured.
    let kind = scheduler.map_or(opened.scheduler().kind, SchedulerKind::from);
    drop(opened);
    let models = 1 + usize::from(args.baseline.is_some());
    let measure = |number: usize, name: &str, path: &Path| {
        progress::note(format!(
            "{number}/{models}  {name} {} in {}: {}",
            path.display(),
            counted(phases.len(), "phase"),
            phases.join(", ")
        ));
        let _stage = retrack_study::progress::stage(number, models);
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

    let forgotten = subject.looked_for();
    // From here on the files must fit together.
    interrupt::finish_first("once the result is written");
    let mut files = Vec::new();
    let mut json = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "data_digest": data.digest()?,
        "split": args.data.reading.split,
        "alpha": data.alpha(),
        "forgotten_rows": subject.split.forget.len(),
        "duplicate_rows": subject.split.duplicates.len(),
        "protocol": protocol,
        "seed": args.seed,
    });
    if prompts.is_none() {
        json["thresholds"] = json!(subject.thresholds);
    }
    if let Some(classes) = &classes {
        json["classes"] = json!(each_once(classes));
    }
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
            "failed": evaluation.failed,
            "notes": evaluation.notes,
        });
        let mut prompts = Vec::new();
        for (number, drawn) in evaluation.drawn.iter().enumerate() {
            let picture = match drawn.prompt {
                Some(_) => format!("{name}-{number:02}.png"),
                None => format!("{name}.png"),
            };
            let shown = show(&forgotten, &drawn.samples, args.show_forgotten)?;
            files.extend(shown.map(|png| (PathBuf::from(&picture), png)));
            if let (Some(prompt), Some(clusters)) = (&drawn.prompt, &subject.clusters) {
                let mut of_prompt = json!({
                    "number": number,
                    "forgotten": drawn.forgotten,
                    "samples": protocol.samples,
                    "memorized": clusters.memorized(&drawn.samples),
                    "picture": picture,
                });
                // The others may be the forgotten one in other words.
                if args.show_forgotten {
                    of_prompt["prompt"] = prompt.as_str().into();
                }
                prompts.push(of_prompt);
            }
        }
        if !prompts.is_empty() {
            json[*name]["prompts"] = prompts.into();
        }
    }
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
            known_controls: found.evaluation.known_controls,
        })
        .collect();
    let mut facts = vec![
        Fact::new(
            "Selected by",
            match args.show_forgotten {
                true => forget.join(", "),
                false => evidence::selected(&forget, &subject.split.forget),
            },
        ),
        Fact::new(
            "Looked for",
            match (subject.split.forget.len(), forgotten.len()) {
                (rows, distinct) if rows == distinct => counted(rows, "image"),
                (rows, distinct) => format!("{}, {distinct} distinct", counted(rows, "row")),
            },
        ),
        Fact::new("Data set", args.data.path.display()),
    ];
    facts.push(Fact::new("What counts as one", forgotten.rule()));
    if protocol.draws(&metrics) {
        facts.push(Fact::new(
            "Samples are drawn by",
            format!(
                "{} in {}",
                format!("{kind:?}").to_uppercase(),
                counted(protocol.sampling_steps, "step")
            ),
        ));
    }
    if let Some(classes) = &classes {
        let whose = match protocol.class {
            Some(_) => "as --class says",
            None => "the forgotten images' own",
        };
        let fact = format!("{} ({whose})", listed(each_once(classes)));
        progress::note(format!("class of the samples: {fact}"));
        facts.push(Fact::new("Class of the samples", fact));
    }
    if let Some(prompts) = prompts.as_ref().filter(|_| args.show_forgotten) {
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
        notes: [missing(&columns), notes].concat(),
    };
    about.notes.iter().for_each(progress::warn);
    let said = about.notes.clone();
    let report = comparison::evaluated(&sides, &forgotten, args.show_forgotten, about)?;
    let page = args.out.join(evidence::PAGE);
    json["verdict"] = json!(report.verdict);
    json["report"] = page.display().to_string().into();
    let text = serde_json::to_string_pretty(&json).expect("JSON has no unwritable values");
    files.push((METRICS.into(), format!("{text}\n").into_bytes()));
    files.extend(evidence::forms(&report));
    output.put(&files)?;
    // Pictures of an earlier evaluation may show what this one covers, or a model that it does not have.
    output.remove_earlier()?;
    if args.json {
        say!("{json}");
    } else {
        progress::table(&table(&columns));
        say!();
        progress::tell(evidence::printed(&report.verdict, &said));
        if prompts.is_none() {
            progress::tell(forgotten.rule());
        }
        progress::tell(format_args!("report: {}", page.display()));
    }
    let failed: Vec<String> = columns.iter().flat_map(failures).collect();
    if !failed.is_empty() {
        return Err(Failure::failed(failed.join("; ")));
    }
    evidence::fail_if_found(args.fail_if_found, &report.verdict)
}

/// What the model's own record, where an unlearning run left one beside it, says otherwise than this command: then
/// another image is looked for than the one that was forgotten.
///
/// # Errors
/// Images that cannot be read.
fn other_run(
    model: &Path,
    data: &Dataset,
    split: &Split,
    args: &EvaluateArgs,
) -> Result<Option<String>, Failure> {
    let Some((recorded, _)) = RunFolder::recorded(model) else {
        return Ok(None);
    };
    if recorded["command"] != "unlearn" || recorded.get("data_digest").is_none() {
        return Ok(None);
    }
    let record = model.join("run").join("config.json");
    let says = |what: String| Some(format!("{}: {what}", record.display()));
    let same = recorded["data_digest"] == data.digest()?;
    let now = json!({"split": args.data.reading.split, "alpha": data.alpha()});
    for (key, option) in [("split", "--split"), ("alpha", "--alpha")] {
        if !same && recorded.get(key).is_some_and(|then| *then != now[key]) {
            let shown = |value: &Value| value.as_str().unwrap_or("none").to_owned();
            return Ok(says(format!(
                "this model was unlearned with {option} {}, and is measured with {option} {}: rows and pixels may be \
                 others",
                shown(&recorded[key]),
                shown(&now[key])
            )));
        }
    }
    if !same {
        return Ok(says(format!(
            "this model was unlearned on other images than those of {}: rows may be others",
            data.path().display()
        )));
    }
    let rows = |key: &str| -> Vec<usize> {
        serde_json::from_value(recorded[key].clone()).unwrap_or_default()
    };
    // Exact copies were forgotten too, whichever was named.
    let then: BTreeSet<usize> = [rows("forget_rows"), rows("duplicate_rows")]
        .concat()
        .into_iter()
        .collect();
    let now: BTreeSet<usize> = split
        .forget
        .iter()
        .chain(&split.duplicates)
        .copied()
        .collect();
    if recorded.get("forget_rows").is_none() || then == now {
        return Ok(None);
    }
    let other = now.difference(&then).next();
    Ok(says(match other {
        Some(row) => format!("this model did not forget row {row} of what --forget selects"),
        None => format!(
            "this model forgot {} more than --forget selects, which {} not looked for",
            counted(then.len() - now.len(), "image"),
            if then.len() - now.len() == 1 {
                "is"
            } else {
                "are"
            }
        ),
    }))
}

/// What failed of a model, as sentences that name it.
fn failures(found: &Found) -> Vec<String> {
    let sentences = sentences(&found.evaluation.failed, "failed").into_iter();
    sentences
        .map(|sentence| format!("{}: {sentence}", found.name))
        .collect()
}

/// What has no number: what a metric lacks, named with the model where not all lack it, and what failed.
fn missing(columns: &[Found]) -> Vec<String> {
    let mut said: Vec<String> = Vec::new();
    for found in columns {
        let everywhere = |lack: &Missing| {
            let mut all = columns.iter();
            all.all(|found| found.evaluation.skipped.contains(lack))
        };
        for lack in &found.evaluation.skipped {
            let [sentence] = &sentences(std::slice::from_ref(lack), "was skipped")[..] else {
                continue;
            };
            let sentence = match everywhere(lack) {
                true => sentence.clone(),
                false => format!("{}: {sentence}", found.name),
            };
            if !said.contains(&sentence) {
                said.push(sentence);
            }
        }
    }
    said.extend(columns.iter().flat_map(failures));
    said
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

/// Whether an evaluation writes a file of this name.
fn is_ours(path: &Path) -> bool {
    let name = path.to_string_lossy();
    let picture = ["baseline", "model"]
        .into_iter()
        .find_map(|model| name.strip_prefix(model)?.strip_suffix(".png"));
    let is_picture = |rest: &str| {
        let number = rest.strip_prefix('-').unwrap_or("0");
        (rest.is_empty() || rest.starts_with('-'))
            && !number.is_empty()
            && number.bytes().all(|byte| byte.is_ascii_digit())
    };
    [METRICS, evidence::PAGE, evidence::CONTENT].contains(&&*name)
        || picture.is_some_and(is_picture)
}

/// A grid of the first samples, what may be a forgotten image covered.
fn show(
    forgotten: &Forgotten,
    samples: &[u8],
    show_forgotten: bool,
) -> Result<Option<Vec<u8>>, Failure> {
    let shape = forgotten.data.shape();
    let shown = &samples[..samples.len().min(SHOWN * shape.bytes())];
    if shown.is_empty() {
        return Ok(None);
    }
    let (shown, _) = covered(shown, &forgotten.look(shown)?, shape, show_forgotten);
    let count = shown.len() / shape.bytes();
    let shape = [shape.height, shape.width, shape.channels];
    let grid = Grid {
        shape,
        columns: (count as f64).sqrt().ceil() as usize,
        zoom: Grid::zoom_for(shape),
    };
    Ok(Some(grid.png(&shown)?))
}

/// A row for each score, a column for each model.
fn table(columns: &[Found]) -> Table {
    let mut headings = vec!["score".to_string()];
    headings.extend(columns.iter().map(|found| found.name.to_string()));
    headings.push("of".into());
    let mut names: Vec<&str> = Vec::new();
    for score in columns.iter().flat_map(|found| &found.evaluation.scores) {
        if !names.contains(&score.name.as_str()) {
            names.push(&score.name);
        }
    }
    let rows = names.into_iter().map(|name| {
        let mut row = vec![name.to_string()];
        let mut counts: Vec<String> = Vec::new();
        for found in columns {
            let mut scores = found.evaluation.scores.iter();
            let Some(found) = scores.find(|found| found.name == name) else {
                row.push("-".into());
                counts.push("-".into());
                continue;
            };
            let value = Spread::of(&[found.value]).expect("one value").text();
            row.push(match found.interval {
                Some([low, high]) => format!("{value} [{low:.3}, {high:.3}]"),
                None => value,
            });
            counts.push(found.count.to_string());
        }
        // One number where it is everybody's.
        counts.dedup();
        row.push(counts.join(" / "));
        row
    });
    Table {
        rows: rows.collect(),
        headings,
    }
}
