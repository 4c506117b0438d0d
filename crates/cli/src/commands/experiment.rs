//! `retrack experiment`: methods x seeds x forgotten images, with the original model as reference.
//!
//! `OUT/experiment.json` says what is compared; `OUT/models/RUN` are the unlearned models, `OUT/results/RUN.json` what
//! was measured. A run that has its result is not repeated, so an experiment that was stopped goes on.

mod pace;
mod summary;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use burn::tensor::Device;
use retrack_checkpoint::durable;
use retrack_checkpoint::folder::Dtype;
use retrack_checkpoint::lock::{self, Lock};
use retrack_checkpoint::words::counted;
use retrack_checkpoint::written::{self, Command, Output};
use retrack_data::neighbors::{NeighborError, Neighbors};
use retrack_data::{Dataset, Split};
use retrack_eval::report::Fact;
use retrack_eval::score::Score;
use retrack_eval::subject::Subject;
use retrack_networks::cost::Training;
use retrack_study::run::{Difference, RunFolder, State, recorded_seconds};
use retrack_unlearn::objective::Method;
use retrack_unlearn::recipe::Layer;
use retrack_unlearn::texts;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::pace::Pace;
use self::summary::{caption, collapses, failures, notes, summarize, table};
use crate::args::ExperimentArgs;
use crate::progress;
use crate::progress::{Printed, say};
use retrack_study::evaluation::{GUIDANCE, Missing, Prompts, Protocol, once};
use retrack_study::evidence;
use retrack_study::evidence::compared::{self, compared, still_found};
use retrack_study::evidence::comparison::About;
use retrack_study::failure::Failure;
use retrack_study::folders::{as_path, digests, outside_all};
use retrack_study::latent::Opened;
use retrack_study::settings::{self, Experiment};
use retrack_study::situation::{self, Situation};
use retrack_study::space::{Needs, Work};
use retrack_study::task::Task;
use retrack_study::unlearn::{convert, unlearn};
use retrack_study::{interrupt, latent, machine, model};

/// The file that says what is compared.
const IDENTITY: &str = "experiment.json";
/// Where that file has the digest of the prompts, which may say whose the forgotten images are.
const PROMPTS_DIGEST: &str = "prompts_digest";
/// The table, for programs and for people.
const SUMMARY: [&str; 2] = ["summary.json", "summary.md"];
/// Steps between the checkpoints of a run.
const CHECKPOINT_EVERY: usize = 10;
/// After an interruption.
const GOES_ON: &str = "the same command goes on";
const KEPT: &str = "the runs that are complete are kept: the same command goes on";

/// What one line of the table is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    Original,
    Retrained,
    Method(Method),
}

impl Line {
    fn name(self) -> String {
        match self {
            Self::Original => "original".into(),
            Self::Retrained => "retrained".into(),
            Self::Method(method) => method.name().into(),
        }
    }
}

/// One run: a line with one seed and one thing to forget.
struct Run {
    line: Line,
    seed: u64,
    /// Place in the list of what is forgotten.
    forget: usize,
}

impl Run {
    fn trains(&self) -> bool {
        matches!(self.line, Line::Method(_))
    }

    fn name(&self) -> String {
        format!(
            "{}-seed{}-forget{}",
            self.line.name(),
            self.seed,
            self.forget
        )
    }
}

/// What a run left in `results/`.
#[derive(Debug, Serialize, Deserialize)]
struct Outcome {
    /// As [`Run::name`] has it; the file's name says it.
    #[serde(skip)]
    run: String,
    line: String,
    seed: u64,
    forget: String,
    /// How it was unlearned; nothing for the references.
    settings: Value,
    /// Seconds of unlearning, in all its parts.
    seconds: Option<f64>,
    /// Seconds of measuring.
    #[serde(default)]
    measuring_seconds: f64,
    scores: Vec<Score>,
    skipped: Vec<Missing>,
    #[serde(default)]
    failed: Vec<Missing>,
    /// Why there is no model to measure: its training came to nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unlearning_failed: Option<String>,
    /// How many times its start the loss of the retained images reached, where that was too much: a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    collapse: Option<String>,
    #[serde(default)]
    notes: Vec<String>,
}

impl Outcome {
    /// What the run took, whenever it was made.
    fn all_seconds(&self) -> f64 {
        self.seconds.unwrap_or(0.0) + self.measuring_seconds
    }
}

pub fn run(args: &ExperimentArgs) -> Result<(), Failure> {
    let captions = args.captions.as_deref().and_then(as_path);
    let forget = args.forget.iter().map(|one| ("selection", as_path(one)));
    let inputs = [
        ("data", Some(args.data.path.as_path())),
        ("model", Some(&args.model)),
        ("model", args.retrained.as_deref()),
        ("captions", captions),
        ("settings", args.config.as_deref()),
    ];
    let inputs = inputs.into_iter().chain(args.protocol.inputs());
    outside_all(&args.out, inputs.chain(forget))?;
    let device = machine::device(&args.machine.device)?;
    let preset = Experiment::resolve(&args.preset, args.config.as_deref())?;
    let mut opened = latent::open(&args.model)?;
    let wider = convert(args.dtype, &mut *opened)?;
    let prompts = opened.prompts(&args.prompts.options(), &args.data.path)?;
    let protocol = Protocol {
        metrics: args.metrics.clone().unwrap_or(preset.protocol.metrics),
        samples: args.protocol.samples.unwrap_or(preset.protocol.samples),
        threshold: args.protocol.threshold.or(preset.protocol.threshold),
        inception: args.protocol.inception.clone(),
        sscd: args.protocol.sscd.clone(),
        clip: args.protocol.clip.clone(),
        controls: args.protocol.controls.clone(),
        controls_split: args.protocol.controls_split.clone(),
        guidance: prompts
            .is_some()
            .then(|| args.prompts.guidance.unwrap_or(GUIDANCE)),
        class: args.protocol.class,
        sampling_steps: opened.steps(preset.protocol.scheduler, preset.protocol.sampling_steps),
        ..preset.protocol
    };
    protocol.check()?;
    if protocol.sampling_steps < preset.protocol.sampling_steps {
        progress::note(format!(
            "samples are drawn in {} steps: the model's schedule allows no more",
            protocol.sampling_steps
        ));
    }
    progress::detail(format_args!("measuring {}", json!(protocol)));
    once("--methods", &args.methods, |&method| {
        Line::Method(method).name()
    })?;
    // Who lists what nobody typed.
    let listed_by = match &args.config {
        _ if !args.forget.is_empty() || preset.forget.is_empty() => None,
        Some(path) if Experiment::resolve(&args.preset, None)?.forget != preset.forget => {
            Some(path.display().to_string())
        }
        _ => Some(format!("the preset {}", args.preset)),
    };
    let option = listed_by.as_ref().map_or_else(
        || "--forget".to_string(),
        |source| format!("`forget` of {source}"),
    );
    let forget = if args.forget.is_empty() {
        preset.forget
    } else {
        args.forget.clone()
    };
    let published = prompts.is_some() && retrack_data::is_published(&args.data.path);
    let forget = match forget.as_slice() {
        [] if published => opened.selection(&[], &args.data.path)?,
        _ => forget,
    };
    if forget.is_empty() {
        return Err(Failure::input(format!(
            "the preset {} does not say what to forget; give --forget, once for each run",
            args.preset
        )));
    }
    let seeds = match &args.seeds {
        Some(text) => parse_seeds(text)?,
        None => preset.seeds,
    };
    once("--seeds", &seeds, u64::to_string)?;
    once(&option, &forget, String::clone)?;

    let data = opened.open_data(&args.data.source())?;
    let judges = protocol.judges(&data, &device)?;
    // Before anything is written: a selection of nothing, a folder that cannot be copied, a disk that is too small.
    let mut shown = Vec::with_capacity(forget.len());
    let mut rows = Vec::with_capacity(forget.len());
    for selection in &forget {
        let one = std::slice::from_ref(selection);
        let found = model::select(one, &data);
        let found = found.map_err(|error| match &listed_by {
            Some(source) => Failure {
                message: format!(
                    "{source} has {selection} as what to forget: {}; give --forget for what this data set has, once for \
                     each run",
                    error.message
                ),
                ..error
            },
            None => error,
        })?;
        shown.push(evidence::selected(one, &found));
        rows.push(found);
    }
    once_each(&data, &option, &forget, &rows)?;
    let subject = |place: usize| {
        let forget = std::slice::from_ref(&forget[place]);
        let subject = protocol.subject(&data, forget, prompts.as_ref(), &judges);
        subject.map(|subject| (place, subject))
    };
    let mut current = subject(0)?;
    let classes = protocol.classes(&opened, &current.1)?;
    let metrics = protocol.tried(&current.1, opened.scheduler(), args.fail_if_found)?;
    let copied = opened.folder().check_copy()? + wider;
    let mut weights = json!({"original": digests(opened.folder())?});
    if let Some(path) = &args.retrained {
        let reference = latent::open(path)?;
        if reference.folder().class != opened.folder().class {
            return Err(Failure::input(format!(
                "{}: not a model of the same kind as --model ({}); give one that was trained alike",
                path.display(),
                args.model.display()
            )));
        }
        weights["retrained"] = digests(reference.folder())?.into();
    }
    let mut identity = json!({
        "command": "experiment",
        "version": env!("CARGO_PKG_VERSION"),
        "preset": args.preset,
        "weights_sha256": weights,
        "data_digest": data.digest()?,
        "split": args.data.reading.split,
        "alpha": data.alpha(),
        // What is left behind names no file of the data.
        "forget": shown,
        "protocol": protocol,
        "device": args.machine.device,
    });
    if evidence::names_files(&forget) {
        identity["forget_rows"] = json!(rows);
    }
    if let Some(dtype) = args.dtype {
        identity["dtype"] = Dtype::from(dtype).to_string().into();
    }
    if let Some(prompts) = &prompts {
        identity["prompts"] = prompts.count().into();
        identity[PROMPTS_DIGEST] = prompts.digest().into();
    }
    if let Some(from) = &args.captions {
        identity["captions_digest"] = texts::digest(&latent::read_captions(&data, from)?).into();
    }
    let mut lines = vec![Line::Original];
    lines.extend(args.retrained.iter().map(|_| Line::Retrained));
    lines.extend(args.methods.iter().map(|&method| Line::Method(method)));
    let mut runs = Vec::new();
    for place in 0..forget.len() {
        for &seed in &seeds {
            runs.extend(lines.iter().map(|&line| Run {
                line,
                seed,
                forget: place,
            }));
        }
    }
    let (there, missing): (Vec<&Run>, Vec<&Run>) = runs
        .iter()
        .partition(|run| result(&args.out, &run.name()).exists());
    // Of all runs the models stay, of one at a time the rest. What is there already needs nothing.
    let mut needs = Needs {
        disk: 0.0,
        memory: 0.0,
    };
    let mut models = 0.0;
    let mut neighbors = 0;
    for run in &missing {
        if let Line::Method(method) = run.line {
            let recipe = Layer {
                method: Some(method),
                ..Layer::default()
            };
            let unlearning = Task {
                recipe,
                ..unlearn_args(args, &forget[run.forget], &args.out)
            };
            neighbors = neighbors.max(neighbors_of_one(&data, &unlearning)?);
            let of_one = needs_of_one(&opened, &data, &unlearning, copied)?;
            needs.disk = needs.disk.max(of_one.disk - copied as f64);
            needs.memory = needs.memory.max(of_one.memory);
            // A model that was made but not measured is not made again.
            let made = args.out.join("models").join(run.name()).exists();
            models += if made { 0.0 } else { copied as f64 };
        }
    }
    needs.disk += models;
    if missing.iter().any(|run| run.trains()) {
        check_retained(&opened, &data, &rows, neighbors)?;
    }
    if args.dry_run {
        goes_on(&args.out, &identity)?;
        let mut plan = identity.clone();
        let names = |runs: &[&Run]| runs.iter().map(|run| run.name()).collect::<Vec<_>>();
        let (there, missing) = (names(&there), names(&missing));
        plan["runs"] = json!({"there": there, "missing": missing});
        plan["needs"] = needs.json(&args.out);
        progress::note(needs.text(&args.out));
        let text = serde_json::to_string_pretty(&plan).expect("JSON has no unwritable values");
        say!("{text}");
    }
    needs.check(&args.out, 0, situation::advice(Situation::StepTooLarge))?;
    if args.dry_run {
        return Ok(());
    }
    let (_lock, output) = begin(&args.out, &identity)?;
    let output = RefCell::new(output);
    let comparison = Comparison {
        args,
        protocol: &protocol,
        prompts: prompts.as_ref(),
        data: &data,
        forget: &forget,
        shown: &shown,
        device: &device,
        output: &output,
    };
    let mut outcomes = Vec::with_capacity(runs.len());
    let complete = match there.len() {
        0 => String::new(),
        some => format!(", {some} of them complete already"),
    };
    progress::note(format!("{}{complete}", counted(runs.len(), "run")));
    interrupt::goes_on(GOES_ON);
    interrupt::at_once(KEPT);
    let mut pace = Pace::default();
    for (index, run) in runs.iter().enumerate() {
        let start = Instant::now();
        let is_missing = |run: &&Run| !result(&args.out, &run.name()).exists();
        let missing = runs[index..].iter().filter(is_missing);
        let missing: Vec<bool> = missing.map(Run::trains).collect();
        let makes = is_missing(&run);
        let place = format!("{}/{}  {}", index + 1, runs.len(), run.name());
        progress::note(match makes {
            true => format!("{place}{}", pace.text(&missing)),
            false => format!("{place} is complete"),
        });
        let _stage = retrack_study::progress::stage(index + 1, runs.len());
        if current.0 != run.forget {
            current = subject(run.forget)?;
        }
        outcomes.push(Outcome {
            run: run.name(),
            ..comparison.outcome(run, &current.1)?
        });
        if makes {
            pace.add(run.trains(), start.elapsed());
        }
    }

    let table = table(&lines, &outcomes);
    if let Value::Object(keys) = &mut identity {
        // Of what is shown to others: who guesses a prompt could test it.
        keys.remove(PROMPTS_DIGEST);
    }
    let summary = json!({
        "experiment": identity,
        "failed": failures(&outcomes),
        "collapsed": collapses(&outcomes),
        "lines": lines.iter().map(|line| summarize(&line.name(), &outcomes)).collect::<Vec<_>>(),
    });
    let text = serde_json::to_string_pretty(&summary).expect("JSON has no unwritable values");
    let markdown = format!(
        "{}\n{}",
        table.markdown(),
        caption(&protocol, &metrics, &shown, &seeds, classes.is_some())
    );
    let runs = lines.iter().map(|line| compared::Line {
        name: line.name(),
        runs: outcomes
            .iter()
            .filter(|outcome| outcome.line == line.name())
            .map(|outcome| outcome.scores.clone())
            .collect(),
        collapsed: outcomes
            .iter()
            .filter(|outcome| outcome.line == line.name() && outcome.collapse.is_some())
            .map(|outcome| outcome.run.clone())
            .collect(),
    });
    let about = About {
        configuration: identity,
        facts: vec![
            Fact::new("Settings", format!("preset {}", args.preset)),
            Fact::new("Forgotten, one run each", shown.join(", ")),
            Fact::new("Model", args.model.display()),
            Fact::new("Data set", args.data.path.display()),
            Fact::new(
                "How it was measured",
                caption(&protocol, &metrics, &shown, &seeds, classes.is_some()).trim_end(),
            ),
        ],
        device: &args.machine.device,
        seconds: outcomes.iter().map(Outcome::all_seconds).sum(),
        notes: notes(&outcomes),
    };
    about.notes.iter().for_each(progress::warn);
    let said = about.notes.clone();
    let runs: Vec<compared::Line> = runs.collect();
    let report = compared(&runs, seeds.len(), about);
    let mut files = vec![
        (PathBuf::from(SUMMARY[0]), format!("{text}\n").into_bytes()),
        (SUMMARY[1].into(), markdown.into_bytes()),
    ];
    files.extend(evidence::forms(&report));
    output.borrow_mut().put(&files)?;
    progress::table(&table);
    progress::tell(caption(&protocol, &metrics, &forget, &seeds, classes.is_some()).trim_end());
    say!();
    progress::tell(evidence::printed(&report.verdict, &said));
    progress::tell(format_args!(
        "report: {}",
        args.out.join(evidence::PAGE).display()
    ));
    let failed = failures(&outcomes);
    if !failed.is_empty() {
        return Err(Failure::failed(format!(
            "{}; what is there is kept: to measure a run again, remove its file from {}",
            failed.join("; "),
            args.out.join("results").display()
        )));
    }
    match still_found(&runs).as_slice() {
        [] => Ok(()),
        _ if !args.fail_if_found => Ok(()),
        methods => Err(Failure::found(format!(
            "--fail-if-found: a forgotten image is still found with {}",
            methods.join(", ")
        ))),
    }
}

/// An image that is named in two ways would be two runs of one thing. `option`: where they are named.
///
/// # Errors
/// Two selections of the same images, an image that cannot be read.
fn once_each(
    data: &Dataset,
    option: &str,
    forget: &[String],
    rows: &[Vec<usize>],
) -> Result<(), Failure> {
    if rows.len() < 2 {
        return Ok(());
    }
    let mut known: Vec<BTreeSet<[u8; 32]>> = Vec::new();
    for (selection, rows) in forget.iter().zip(rows) {
        let images = data.digests(rows)?;
        if let Some(first) = known.iter().position(|one| *one == images) {
            return Err(Failure::input(format!(
                "{option}: {selection} is the same as {}; leave one of them out",
                forget[first]
            )));
        }
        known.push(images);
    }
    Ok(())
}

/// Neighbors that one unlearning run looks for; 0 where it looks for none.
fn neighbors_of_one(data: &Dataset, args: &Task) -> Result<usize, Failure> {
    let shape = data.shape();
    let settings = settings::resolve(args, shape.height, shape.width)?;
    Ok(match settings.neighbors {
        Neighbors::Nearest(k) if settings.objective().draws().neighbors => k,
        _ => 0,
    })
}

/// Refuses what the unlearning runs would refuse, which come after the references are measured: too few retained images
/// for as many neighbors, images without a class.
fn check_retained(
    opened: &Opened,
    data: &Dataset,
    rows: &[Vec<usize>],
    neighbors: usize,
) -> Result<(), Failure> {
    let enough = |split: &Split| split.retain.len() >= neighbors.max(1);
    let check_labels = |split: &Split| {
        model::check_labels(data, &split.retain, &opened.denoiser().config)?;
        model::check_labels(data, &split.forget, &opened.denoiser().config)
    };
    // Each run retains at least what all together do: one pass where that is enough.
    let all: BTreeSet<usize> = rows.iter().flatten().copied().collect();
    let all: Vec<usize> = all.into_iter().collect();
    let together = Split::new(data, &all, model::BUDGET)?;
    if enough(&together) {
        return check_labels(&together);
    }
    for rows in rows {
        let split = Split::new(data, rows, model::BUDGET)?;
        if !enough(&split) {
            return Err(NeighborError::TooFew {
                wanted: neighbors.max(1),
                retained: split.retain.len(),
            }
            .into());
        }
        check_labels(&split)?;
    }
    Ok(())
}

/// Whether the folder holds this experiment already; a new one starts in an empty folder.
///
/// # Errors
/// It holds another experiment or something else.
fn goes_on(out: &Path, identity: &Value) -> Result<bool, Failure> {
    let path = out.join(IDENTITY);
    if path.exists() {
        let text = fs::read_to_string(&path).map_err(|error| Failure::read(&path, error))?;
        let old: Value = serde_json::from_str(&text).map_err(|e| Failure::read(&path, e))?;
        return match Difference::first(&old, identity) {
            None => Ok(true),
            Some(difference) => Err(Failure::input(format!(
                "{}: this experiment was started with {difference}; use the same, or another output folder",
                out.display()
            ))),
        };
    }
    // A kill may have left the list, which is written first, the lock and files that are not complete.
    let begins =
        |name: &str| [lock::NAME, written::NAME].contains(&name) || durable::is_temporary(name);
    let empty = fs::read_dir(out).map_or(true, |mut entries| {
        entries.all(|entry| entry.is_ok_and(|entry| entry.file_name().to_str().is_some_and(begins)))
    });
    if !empty {
        return Err(Failure::input(format!(
            "{}: not empty, and no experiment; choose another output folder",
            out.display()
        )));
    }
    Ok(false)
}

/// Takes the folder for a new experiment, or for the one that it holds already.
fn begin(out: &Path, identity: &Value) -> Result<(Lock, Output), Failure> {
    let lock = Lock::take(out)?;
    let goes_on = goes_on(out, identity)?;
    // Summaries that somebody wrote on stay: better now than after the last run.
    let mut output = Output::open(out, Command::Experiment, true, |path| {
        let written = SUMMARY.iter().chain(&[evidence::PAGE, evidence::CONTENT]);
        written.into_iter().any(|name| path == Path::new(name))
    })?;
    output.remove_temporaries();
    if !goes_on {
        let text = serde_json::to_string_pretty(identity).expect("JSON has no unwritable values");
        output.put(&[(IDENTITY.into(), format!("{text}\n").into_bytes())])?;
    }
    Ok((lock, output))
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

/// What all runs share.
struct Comparison<'a> {
    args: &'a ExperimentArgs,
    protocol: &'a Protocol,
    prompts: Option<&'a Prompts>,
    data: &'a Dataset,
    /// As typed, and as it is recorded.
    forget: &'a [String],
    shown: &'a [String],
    device: &'a Device,
    /// Where results are written.
    output: &'a RefCell<Output>,
}

impl Comparison<'_> {
    /// The result of a run: read if it is there, else made.
    fn outcome(&self, run: &Run, subject: &Subject) -> Result<Outcome, Failure> {
        let path = result(&self.args.out, &run.name());
        let unlearning = match run.line {
            Line::Method(method) => Some(self.unlearn_args(run, method)),
            _ => None,
        };
        let settings = match &unlearning {
            Some(unlearning) => {
                let shape = self.data.shape();
                json!(settings::resolve(unlearning, shape.height, shape.width)?)
            }
            None => Value::Null,
        };
        if path.exists() {
            let text = fs::read_to_string(&path).map_err(|error| Failure::read(&path, error))?;
            let old: Outcome = serde_json::from_str(&text).map_err(|error| {
                Failure::input(format!(
                    "{}: not the result of a run ({error}); remove it to measure that run again",
                    path.display()
                ))
            })?;
            let made = json!({"settings": old.settings});
            return match Difference::first(&made, &json!({"settings": settings})) {
                None => Ok(old),
                Some(Difference {
                    key,
                    old: then,
                    new,
                }) => Err(Failure::input(format!(
                    "{}: this run was made with another {key}: {then} then, {new} now; remove the file and the \
                     model of that name to repeat the run, or use another output folder",
                    path.display()
                ))),
            };
        }
        let (model, seconds) = match (&unlearning, run.line) {
            (Some(unlearning), _) => {
                match self.unlearn(unlearning, &settings) {
                    // The others may do better.
                    Err(failure) if failure.diverged => {
                        let message = failure.message;
                        progress::warn(format!("{}: unlearning failed: {message}", run.name()));
                        interrupt::at_once(KEPT);
                        return self.keep(Outcome {
                            unlearning_failed: Some(message),
                            ..self.nothing_of(run, settings)
                        });
                    }
                    seconds => (unlearning.out.clone(), seconds?),
                }
            }
            (None, Line::Retrained) => {
                let path = self.args.retrained.clone();
                (path.expect("a line only where it was given"), None)
            }
            (None, _) => (self.args.model.clone(), None),
        };
        let start = Instant::now();
        let found = self
            .protocol
            .evaluate(&model, subject, self.prompts, run.seed, self.device)?;
        let collapse = match &unlearning {
            Some(unlearning) => collapse(&unlearning.out)?,
            None => None,
        };
        self.keep(Outcome {
            seconds,
            measuring_seconds: start.elapsed().as_secs_f64(),
            scores: found.scores,
            skipped: found.skipped,
            failed: found.failed,
            collapse,
            notes: found.notes,
            ..self.nothing_of(run, settings)
        })
    }

    /// A run of which nothing is known yet.
    fn nothing_of(&self, run: &Run, settings: Value) -> Outcome {
        Outcome {
            run: run.name(),
            line: run.line.name(),
            seed: run.seed,
            forget: self.shown[run.forget].clone(),
            settings,
            seconds: None,
            measuring_seconds: 0.0,
            scores: Vec::new(),
            skipped: Vec::new(),
            failed: Vec::new(),
            unlearning_failed: None,
            collapse: None,
            notes: Vec::new(),
        }
    }

    /// Writes a result, so that its run is not repeated.
    fn keep(&self, outcome: Outcome) -> Result<Outcome, Failure> {
        let text = serde_json::to_string_pretty(&outcome).expect("JSON has no unwritable values");
        let name = result(Path::new(""), &outcome.run);
        let content = format!("{text}\n").into_bytes();
        self.output.borrow_mut().put(&[(name, content)])?;
        Ok(outcome)
    }

    /// Makes the model if it is not complete. Returns how long that took, now or before.
    fn unlearn(&self, args: &Task, settings: &Value) -> Result<Option<f64>, Failure> {
        let state = RunFolder::state(&args.out);
        if state == State::Ended {
            // Complete, but stopped before it was measured: it may have been made with other settings.
            let path = args.out.join("run").join("config.json");
            let text = fs::read_to_string(&path).map_err(|error| Failure::read(&path, error))?;
            let made: Value = serde_json::from_str(&text).map_err(|e| Failure::read(&path, e))?;
            let made = json!({"settings": made["settings"]});
            return match Difference::first(&made, &json!({"settings": settings})) {
                None => Ok(recorded_seconds(&args.out)),
                Some(Difference { key, old, new }) => Err(Failure::input(format!(
                    "{}: this model was made with another {key}: {old} then, {new} now; remove it to repeat the run, \
                     or use another output folder",
                    args.out.display()
                ))),
            };
        }
        let args = Task {
            resume: state == State::Interrupted,
            ..args.clone()
        };
        let seconds = unlearn(&args, &mut Printed)?.map(|summary| summary.seconds);
        interrupt::at_once(KEPT);
        Ok(seconds)
    }

    fn unlearn_args(&self, run: &Run, method: Method) -> Task {
        let out = self.args.out.join("models").join(run.name());
        let recipe = Layer {
            method: Some(method),
            seed: Some(run.seed),
            ..Layer::default()
        };
        Task {
            recipe,
            ..unlearn_args(self.args, &self.forget[run.forget], &out)
        }
    }
}

/// What an unlearning run recorded of retained images that it lost, in a sentence.
///
/// # Errors
/// A record that cannot be read.
fn collapse(out: &Path) -> Result<Option<String>, Failure> {
    let events = evidence::read_events(&out.join("run").join("events.jsonl"))?;
    let factor = events.iter().find_map(|event| event.get("collapse_factor"));
    Ok(factor.map(|factor| {
        let far = match factor.as_f64() {
            Some(factor) => format!("reached {factor:.1} times what it was at first"),
            // JSON has no other numbers.
            None => "is not finite any more".into(),
        };
        format!("the loss of the retained images {far}: the model lost what it should keep")
    }))
}

/// What the unlearning runs of an experiment have in common.
fn unlearn_args(args: &ExperimentArgs, forget: &str, out: &Path) -> Task {
    Task {
        preset: Some(args.preset.clone()),
        config: args.config.clone(),
        checkpoint_every: Some(CHECKPOINT_EVERY),
        dtype: args.dtype,
        no_report: true,
        prompt: args.prompts.prompt.clone(),
        captions: args.captions.clone(),
        ..Task::new(
            &args.model,
            &args.data.source(),
            forget,
            out,
            &args.machine.device,
        )
    }
}

/// Where the result of a run is.
fn result(out: &Path, name: &str) -> PathBuf {
    out.join("results").join(format!("{name}.json"))
}

/// What one unlearning run needs at most: of all images.
fn needs_of_one(
    opened: &Opened,
    data: &Dataset,
    args: &Task,
    copied: u64,
) -> Result<Needs, Failure> {
    let shape = data.shape();
    let settings = settings::resolve(args, shape.height, shape.width)?;
    let training = Training {
        size: [shape.height, shape.width],
        batch_size: settings.batch_size,
        ema: false,
        two_gradients: settings.objective().two_gradients(),
        rank: None,
        images: data.len(),
        texts: match args.captions {
            Some(_) => data.len(),
            None => 1,
        },
    };
    let work = Work {
        footprint: opened.footprint(&training),
        data,
        batch_size: settings.batch_size,
        accumulate: settings.accumulate,
        steps: settings.steps,
        checkpoint_every: args.checkpoint_every,
        model: copied,
    };
    work.needs()
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
