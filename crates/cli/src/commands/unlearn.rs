//! `retrack unlearn`: a model folder in, one that forgot out.

use std::collections::HashMap;
use std::path::Path;
use std::time::Instant;

use retrack_eval::report::Report;
use retrack_networks::random::Random;
use retrack_networks::schedule::NoiseSchedule;
use retrack_unlearn::data::{Dataset, Split};
use retrack_unlearn::feed::{BatchSize, Feed};
use retrack_unlearn::neighbors::{Neighbors, prepare, prepare_split};
use retrack_unlearn::optimizer::{AdamW, LearningRate};
use retrack_unlearn::run::{Existing, RunFolder};
use retrack_unlearn::trainer::{StepReport, Trainer};
use retrack_unlearn::watch::RetainedWatch;
use serde_json::{Value, json};

use super::unlearn_text;
use crate::args::UnlearnArgs;
use crate::evidence::{self, Evidence, Forgotten};
use crate::failure::Failure;
use crate::latent::{self, Opened};
use crate::progress::say;
use crate::session::{Observer, Session, Unobserved};
use crate::settings::Settings;
use crate::space::{self, Work};
use crate::{machine, model, progress};

pub fn run(args: &UnlearnArgs) -> Result<(), Failure> {
    let summary = unlearn(args)?;
    match summary {
        Some(summary) if args.json => say!("{}", summary.json),
        Some(summary) => say!("{}", summary.text),
        None => {}
    }
    Ok(())
}

/// What an unlearning run came to.
pub struct Summary {
    pub text: String,
    pub json: Value,
    /// The rows that were selected.
    pub forget: Vec<usize>,
    /// What `run/report.json` holds, unless `--no-report`.
    pub report: Option<Report>,
}

/// Runs the command; `None` after a dry run.
pub fn unlearn(args: &UnlearnArgs) -> Result<Option<Summary>, Failure> {
    let existing = existing(args.force, args.resume);
    if args.checkpoint_every == Some(0) {
        return Err(Failure::input(
            "--checkpoint-every is 0; give at least 1, or leave it out",
        ));
    }
    if !args.dry_run {
        RunFolder::check(&args.out, existing)?;
    }
    let device = machine::device(&args.machine.device)?;
    let opened = match latent::open(&args.model)? {
        Opened::Image(opened) => *opened,
        Opened::Text(opened) => return unlearn_text::unlearn(args, existing, &device, *opened),
    };
    unlearn_text::refuse_texts(args)?;
    outside(&args.out, opened.folder.root(), "model")?;
    if args.data.is_dir() {
        outside(&args.out, &args.data, "data")?;
    }
    let copied = opened.folder.check_copy()?;
    let network = opened.network(&device.clone().autodiff())?;
    let data = model::open_data(&args.data, &opened)?;
    let shape = data.shape();
    let settings = Settings::resolve(args, shape.height, shape.width)?;
    let objective = settings.method.objective();

    let rows = model::select(&args.forget, &data)?;
    let nearest = match settings.neighbors {
        Neighbors::Nearest(k) if objective.draws().neighbors => Some(k),
        _ => None,
    };
    let cache = machine::cache_folder().filter(|_| !args.dry_run);
    let prepared = match nearest {
        Some(k) => prepare(&data, &rows, k, model::BUDGET, cache.as_deref())?,
        None => prepare_split(&data, &rows, model::BUDGET, cache.as_deref())?,
    };
    if let Some((path, error)) = &prepared.cache_error {
        progress::warn(format!(
            "{}: cannot keep the neighbors for the next run: {error}",
            path.display()
        ));
    }
    let nearest = nearest.map(|_| prepared.neighbors);
    let split = prepared.split;
    report_split(&split, &data);
    if split.retain.is_empty() {
        return Err(Failure::input(
            "all images are selected or exact copies of the selected ones; nothing would be retained",
        ));
    }
    model::check_labels(&data, &split.retain, &opened.config)?;
    model::check_labels(&data, &split.forget, &opened.config)?;

    let mut config = resolved(args, &settings, &opened, &data, &split)?;
    let draws = objective.draws();
    let needs = Work {
        cost: opened.config.cost(shape.height, shape.width),
        data: &data,
        batch_size: settings.batch_size,
        accumulate: settings.accumulate,
        steps: settings.steps,
        checkpoint_every: args.checkpoint_every,
        model: copied,
        ema: false,
        two_gradients: draws.uniform || draws.mixture.is_some(),
    }
    .needs()?;
    if args.dry_run {
        config["needs"] = needs.json(&args.out);
        progress::note(needs.text(&args.out));
        let text = serde_json::to_string_pretty(&config).expect("JSON has no unwritable values");
        say!("{text}");
    }
    let held = if args.resume {
        space::bytes_below(&args.out.join("run"))
    } else {
        0
    };
    needs.check(&args.out, held, SMALLER)?;
    if args.dry_run {
        return Ok(None);
    }

    let neighbors: Option<HashMap<usize, Vec<usize>>> = nearest.as_ref().map(|nearest| {
        let found = split.forget.iter().zip(nearest);
        found
            .map(|(&row, found)| (row, found.iter().map(|one| one.row).collect()))
            .collect()
    });
    let schedule = NoiseSchedule::new(&opened.scheduler);
    let size = BatchSize {
        images: settings.batch_size,
        accumulate: settings.accumulate,
    };
    let mut feed = Feed::new(
        &data,
        &split.retain,
        &split.forget,
        Random::new(settings.seed),
        size,
        schedule.timesteps(),
        opened.config.num_class_embeds.is_some(),
    );
    if let Some(neighbors) = &neighbors {
        feed = feed.with_neighbors(neighbors);
    }
    let start = Instant::now();
    let run = RunFolder::begin(&args.out, existing, &config)?;
    if run.is_moving() {
        run.publish()?;
        return Ok(Some(summary(args, &settings, &split, None, None, start)));
    }
    let about = evidence::Run {
        args,
        settings: &settings,
        folder: &opened.folder,
        scheduler: &opened.scheduler,
        images: &data,
        labels: opened.config.num_class_embeds.is_some(),
        text_to_image: false,
        data: &data,
        split: &split,
        neighbors: nearest.as_deref(),
        config: &config,
    };
    let forgotten = match args.no_report {
        true => None,
        false => Some(Forgotten::new(&data, &split, None)?),
    };
    let mut evidence = match &forgotten {
        Some(forgotten) => Some(Evidence::begin(&about, forgotten, &network, &device)?),
        None => None,
    };
    let mut trainer = Trainer::new(
        network,
        schedule,
        device.clone().autodiff(),
        objective,
        AdamW::new(settings.adamw.clone()),
        LearningRate::Constant {
            rate: settings.learning_rate,
        },
    );
    let session = Session {
        run: &run,
        title: "unlearning",
        steps: settings.steps,
        checkpoint_every: args.checkpoint_every,
    };
    let watch = RetainedWatch::new(&trainer, &feed)?;
    if args.resume {
        session.resume(&mut trainer, &settings.adamw, None)?;
    }
    let mut nobody = Unobserved;
    let observer: &mut dyn Observer<_> = match &mut evidence {
        Some(evidence) => evidence,
        None => &mut nobody,
    };
    let last = session.train(&mut trainer, &feed, watch, observer)?;

    let staged = run.staging()?;
    let written = opened.write(trainer.network(), &staged, false)?;
    let report = finish(evidence, &about, &staged, &run, start)?;
    run.publish()?;
    for path in written.copied_weights() {
        progress::warn(format!(
            "{} was copied unchanged; it may hold what was to be forgotten",
            path.display()
        ));
    }
    Ok(Some(summary(args, &settings, &split, last, report, start)))
}

/// Puts the report into the run's folder and the card into the model's, which is not in its place yet.
pub(super) fn finish(
    evidence: Option<Evidence>,
    about: &evidence::Run,
    staged: &Path,
    run: &RunFolder,
    start: Instant,
) -> Result<Option<Report>, Failure> {
    let report = match evidence {
        Some(evidence) => {
            let report = evidence.finish(staged, &run.folder(), start)?;
            evidence::write(&run.folder(), &report)?;
            Some(report)
        }
        None => None,
    };
    let verdict = report
        .as_ref()
        .map(|report| report.verdict.sentence.as_str());
    evidence::card::write(staged, about, verdict)?;
    Ok(report)
}

pub(super) fn summary(
    args: &UnlearnArgs,
    settings: &Settings,
    split: &Split,
    last: Option<StepReport>,
    report: Option<Report>,
    start: Instant,
) -> Summary {
    let seconds = start.elapsed().as_secs_f64();
    let forgotten = split.forget.len() + split.duplicates.len();
    let mut text = format!(
        "{}: {} {} unlearned from {} in {} {}, {seconds:.1} s; model in {}",
        settings.method.name(),
        forgotten,
        if forgotten == 1 { "image" } else { "images" },
        args.model.display(),
        settings.steps,
        steps(settings.steps),
        args.out.display()
    );
    let page = report.as_ref().map(|report| {
        let page = args.out.join("run").join(evidence::PAGE);
        text.push_str(&format!(
            "\n{}. {}\nreport: {}",
            report.verdict.headline,
            report.verdict.sentence,
            page.display()
        ));
        page.display().to_string()
    });
    let json = json!({
        "method": settings.method.name(),
        "out": args.out.display().to_string(),
        "steps": settings.steps,
        "forgotten_rows": split.forget.len(),
        "duplicate_rows": split.duplicates.len(),
        "near_copies": split.near.len(),
        "retained_rows": split.retain.len(),
        "seconds": seconds,
        "last_loss": last.as_ref().map(|report| report.losses.loss),
        "report": page,
        "verdict": report.as_ref().map(|report| &report.verdict),
    });
    Summary {
        text,
        json,
        forget: split.forget.clone(),
        report,
    }
}

/// "step" for one, "steps" for others.
pub fn steps(count: usize) -> &'static str {
    if count == 1 { "step" } else { "steps" }
}

/// What to do with an output folder that is not empty.
pub fn existing(force: bool, resume: bool) -> Existing {
    match (force, resume) {
        (_, true) => Existing::Resume,
        (true, false) => Existing::Force,
        (false, false) => Existing::Refuse,
    }
}

/// What to do when a run does not fit into memory.
pub const SMALLER: &str =
    "give a smaller --batch-size and a larger --accumulate, whose product decides the result";

/// Refuses an output folder that is, holds or lies in an input's.
pub fn outside(out: &Path, input: &Path, what: &str) -> Result<(), Failure> {
    // A folder that does not exist yet lies in the nearest one that does.
    let absolute = |path: &Path| {
        let path = std::path::absolute(path)?;
        let mut existing = path.as_path();
        while !existing.exists() {
            existing = existing.parent().unwrap_or(Path::new("/"));
        }
        let rest = path.strip_prefix(existing).unwrap_or(Path::new(""));
        Ok::<_, std::io::Error>(existing.canonicalize()?.join(rest))
    };
    let (Ok(inner), Ok(outer)) = (absolute(out), absolute(input)) else {
        return Ok(());
    };
    if inner.starts_with(&outer) || outer.starts_with(&inner) {
        return Err(Failure::input(format!(
            "{}: the output folder overlaps the {what} folder {}; choose one elsewhere",
            out.display(),
            input.display()
        )));
    }
    Ok(())
}

/// Says what leaves with the forgotten images and what stays dangerously near.
pub fn report_split(split: &Split, data: &Dataset) {
    if !split.duplicates.is_empty() {
        progress::note(format!(
            "{} exact {} of what is to be forgotten leave the retained images with it",
            split.duplicates.len(),
            if split.duplicates.len() == 1 {
                "copy"
            } else {
                "copies"
            }
        ));
    }
    for near in split.near.iter().take(5) {
        progress::warn(format!(
            "{} is nearly a copy of {} ({:.1} of 255 apart per value) and stays retained: it may teach the image \
             back; add it to --forget if it is the same",
            data.name(near.row),
            data.name(near.of),
            near.distance
        ));
    }
    if split.near.len() > 5 {
        progress::warn(format!("{} more near copies", split.near.len() - 5));
    }
}

/// SHA-256 of each weight file of a model, by its path in the folder.
pub fn digests(
    model: &retrack_networks::model::Model,
) -> Result<serde_json::Map<String, Value>, Failure> {
    folder_digests(&model.folder)
}

/// The same for an open folder.
pub fn folder_digests(
    folder: &retrack_networks::folder::ModelFolder,
) -> Result<serde_json::Map<String, Value>, Failure> {
    let mut weights = serde_json::Map::new();
    for path in folder.weight_files() {
        let digest = retrack_networks::folder::sha256_file(&path)?;
        let name = path.strip_prefix(folder.root()).unwrap_or(&path);
        weights.insert(name.display().to_string(), digest.into());
    }
    Ok(weights)
}

/// Everything that decides the result, as the run records it. Rows are numbers; no pixels.
fn resolved(
    args: &UnlearnArgs,
    settings: &Settings,
    model: &retrack_networks::model::Model,
    data: &Dataset,
    split: &Split,
) -> Result<Value, Failure> {
    Ok(json!({
        "command": "unlearn",
        "version": env!("CARGO_PKG_VERSION"),
        "model": args.model.display().to_string(),
        "weights_sha256": digests(model)?,
        "data": args.data.display().to_string(),
        "data_digest": data.digest()?,
        "forget": args.forget,
        "forget_rows": split.forget,
        "duplicate_rows": split.duplicates,
        "retained": split.retain.len(),
        "device": args.machine.device,
        "settings": settings,
    }))
}
