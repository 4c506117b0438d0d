//! A small model that memorized a T-shirt among digits forgets it.

mod outcome;
mod report;
mod side;

use std::path::{Path, PathBuf};
use std::time::Instant;

use retrack_checkpoint::durable;
use retrack_checkpoint::lock::{self, Lock};
use retrack_checkpoint::written::{Command, Output, Written, WrittenError};
use retrack_data::{Dataset, Split};
use retrack_eval::distance::pairwise;
use retrack_eval::frequency::Frequency;
use retrack_eval::pictures::Grid;
use retrack_eval::report::{Outcome as Finding, Verdict};
use retrack_networks::process::Time;
use retrack_networks::schedule::SchedulerKind;
use retrack_unlearn::recipe::Layer;
use serde_json::{Value, json};

pub use self::outcome::{Digits, Outcome};
use self::side::Side;
use crate::evidence::{self, Forgotten, Rule};
use crate::failure::Failure;
use crate::field::Field;
use crate::observer::Observer;
use crate::run::{Existing, RunError, RunFolder};
use crate::source::DataSource;
use crate::task::Task;
use crate::train::FILES;
use crate::unlearn::unlearn;
use crate::{interrupt, machine, model, opened, progress};

const DATA: &str = "digits.parquet";
const BASE_MODEL: &str = "base-model";
const MODEL: &str = "model";
/// What else a demo leaves in its folder.
const RESULTS: [&str; 6] = [
    "before.png",
    "after.png",
    "half-way.png",
    "metrics.json",
    evidence::PAGE,
    evidence::CONTENT,
];

/// Samples nearer to the T-shirt than this count as it: the published experiment's threshold.
const THRESHOLD: f64 = 10.0;
/// Deterministic, so that a seed's two samples can be compared. With few steps it also repeats the T-shirt nearly as
/// often as the data holds it (11 of 2,000 samples), where ancestral sampling does so 4 times.
const SCHEDULER: SchedulerKind = SchedulerKind::Ddim;
/// Denoising steps of every sample.
const STEPS: usize = 50;
/// Where the T-shirt is noised to before it is denoised again, of 1,000.
const HALF_WAY: Time = Time::timestep(500);
/// How often that is tried.
pub const PROBES: usize = 8;

/// What the demo is shown on: a model that memorized the image of class 10 of its data, in pixels of one channel. The
/// content of files.
#[derive(Debug, Clone, Copy)]
pub struct Assets<'a> {
    /// The data set, as Parquet.
    pub data: &'a [u8],
    /// The model's `model_index.json`.
    pub index: &'a [u8],
    /// Its `scheduler/scheduler_config.json`.
    pub scheduler: &'a [u8],
    /// Its `unet/config.json`.
    pub config: &'a [u8],
    /// Its `unet/diffusion_pytorch_model.safetensors`.
    pub weights: &'a [u8],
}

/// What the demo is to do.
#[derive(Debug, Clone)]
pub struct Demo<'a> {
    /// What it is shown on.
    pub assets: Assets<'a>,
    /// Where everything goes.
    pub out: PathBuf,
    /// Replaces the files of an earlier demo there.
    pub force: bool,
    /// Samples from each model.
    pub count: usize,
    /// Decides all random numbers.
    pub seed: u64,
    /// `cpu`, or `cuda`, `vulkan`, `metal` with an optional `:NUMBER`.
    pub device: String,
}

/// What came of it.
#[derive(Debug)]
pub struct Shown {
    /// The numbers.
    pub outcome: Outcome,
    /// Of the report; `None`: no report was made.
    pub verdict: Option<Verdict>,
    /// All numbers, for programs.
    pub json: Value,
}

/// Samples from the model, has it forget, samples again, and writes pictures, numbers and a report.
///
/// # Errors
/// A folder that holds something else, a signal, files that cannot be written.
pub fn run(demo: &Demo, observer: &mut dyn Observer) -> Result<Shown, Failure> {
    if demo.count == 0 {
        return Err(Failure::input(format!(
            "{} is 0; give at least 1",
            Field::Count
        )));
    }
    let start = Instant::now();
    let device = machine::device(&demo.device)?;
    if !demo.force {
        RunFolder::check(&demo.out, Command::Demo, Existing::Refuse, &[])?;
    }
    let _lock = Lock::take(&demo.out)?;
    let mut output = demo.open()?;
    output.remove_temporaries();
    let again = interrupt::how_to_go_on();
    let kept = format!("{} is not complete: {again}", demo.out.display());
    interrupt::kept(&kept);

    let paths = [DATA, BASE_MODEL, MODEL].map(|name| demo.out.join(name));
    let [data_path, base_path, model_path] = &paths;
    output.put(&demo.assets.files())?;

    progress::note("1/4  sampling from the model that memorized the T-shirt");
    let base = Side::open(base_path, &device)?;
    let before = base.sample(demo, &device)?;

    progress::note("2/4  unlearning the T-shirt");
    let task = demo.task(base_path, data_path, model_path);
    let mut unlearning = unlearn(&task, observer)?.expect("not a dry run");

    interrupt::at_once(&kept);

    progress::note("3/4  sampling again, with the same seeds");
    let new = Side::open(model_path, &device)?;
    let after = new.sample(demo, &device)?;

    progress::note("4/4  noising the T-shirt half-way and denoising it with both models");
    let data = opened::open_data(&base.model, &DataSource::at(data_path))?;
    let image_len = data.shape().bytes();
    let mut shirt = vec![0; image_len];
    data.read(unlearning.forget[0], &mut shirt)?;
    let restored_before = base.restore(&shirt, demo.seed, &device)?;
    let restored_after = new.restore(&shirt, demo.seed, &device)?;

    let digits = retained(&data, &unlearning.forget)?;
    let outcome = Outcome {
        before: Frequency::of(&before, &shirt, THRESHOLD),
        after: Frequency::of(&after, &shirt, THRESHOLD),
        restored_before: Frequency::of(&restored_before[image_len..], &shirt, THRESHOLD),
        restored_after: Frequency::of(&restored_after[image_len..], &shirt, THRESHOLD),
        digits: Digits::of(&before, &after, &shirt, &digits),
        half_way: [&restored_before, &restored_after].map(|restored| {
            let attempts = &restored[image_len..];
            pairwise(attempts, &shirt.repeat(PROBES), image_len)
        }),
        seconds: 0.0,
    };

    let shape = [data.shape().height, data.shape().width, 1];
    let square = Grid {
        shape,
        columns: (demo.count as f64).sqrt().ceil() as usize,
        zoom: Grid::zoom_for(shape),
    };
    let strip = Grid {
        columns: PROBES + 2,
        zoom: 3,
        ..square
    };
    let rows = [&shirt[..], &restored_before, &shirt, &restored_after].concat();
    let strip = strip.png(&rows)?;
    let mut files = vec![
        (PathBuf::from("before.png"), square.png(&before)?),
        ("after.png".into(), square.png(&after)?),
        ("half-way.png".into(), strip.clone()),
    ];

    let outcome = Outcome {
        seconds: start.elapsed().as_secs_f64(),
        ..outcome
    };
    let mut verdict = None;
    if let Some(mut report) = unlearning.report.take() {
        let split = Split::new(&data, &unlearning.forget, model::BUDGET)?;
        let forgotten = Forgotten::new(&data, &split, Rule::Threshold(THRESHOLD))?;
        outcome.extend(&mut report, &forgotten, [&before, &after], strip)?;
        report.verdict.next = next(report.verdict.outcome, base_path, data_path);
        files.extend(evidence::forms(&report));
        verdict = Some(report.verdict);
    }
    let mut json = outcome.json(demo.seed, &unlearning.json);
    json["verdict"] = json!(verdict);
    let text = serde_json::to_string_pretty(&json).expect("JSON has no unwritable values");
    files.push(("metrics.json".into(), format!("{text}\n").into_bytes()));
    output.put(&files)?;
    output.remove_earlier()?;
    Ok(Shown {
        outcome,
        verdict,
        json,
    })
}

/// What to do next, as a sentence.
fn next(found: Finding, base: &Path, data: &Path) -> String {
    match found {
        Finding::StillFound => format!(
            "unlearn with more than the demo's steps: `retrack unlearn --model {} --data {} --forget label:10 --preset \
             demo --steps 200 --out more`.",
            base.display(),
            data.display()
        ),
        Finding::Inconclusive => format!(
            "draw more with a larger {}, and {}.",
            Field::Count,
            Field::Force
        ),
        _ => String::new(),
    }
}

impl Assets<'_> {
    /// What of them a demo writes into its folder.
    fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let base = [self.index, self.scheduler, self.config, self.weights];
        let contents = [self.data].into_iter().chain(base);
        let files = inputs().zip(contents);
        files
            .map(|(path, content)| (path, content.to_vec()))
            .collect()
    }
}

/// The files that a demo begins with, in its folder.
fn inputs() -> impl Iterator<Item = PathBuf> {
    let base = FILES.map(|name| Path::new(BASE_MODEL).join(name));
    [PathBuf::from(DATA)].into_iter().chain(base)
}

/// Whether a demo writes this into its folder, the unlearned model aside.
fn is_ours(path: &Path) -> bool {
    inputs()
        .chain(RESULTS.map(PathBuf::from))
        .any(|ours| ours == path)
}

impl Demo<'_> {
    /// An output folder that is new, empty, or an earlier demo's to replace. Looks at the model's folder too, which the
    /// unlearning run writes: nothing is refused after the first sample.
    fn open(&self) -> Result<Output, Failure> {
        let out = &self.out;
        let left = |name: &str| name == lock::NAME || durable::is_temporary(name);
        let holds_something = out.read_dir().is_ok_and(|mut entries| {
            entries
                .any(|entry| entry.is_ok_and(|entry| !entry.file_name().to_str().is_some_and(left)))
        });
        if holds_something && Written::read(out)?.is_none() {
            let path = out.to_path_buf();
            return Err(RunError::NotOurs { path }.into());
        }
        let output = Output::open(out, Command::Demo, self.force, is_ours)?;
        let model = out.join(MODEL);
        if model.is_symlink() {
            return Err(WrittenError::InTheWay { path: model }.into());
        }
        let files = FILES.map(PathBuf::from).to_vec();
        let cards = evidence::card::names(&files);
        RunFolder::check(
            &model,
            Command::Unlearn,
            Existing::Force,
            &[files, cards].concat(),
        )?;
        Ok(output)
    }

    /// The demo's own settings: the published ones suit a network eight times as large.
    fn task(&self, base: &Path, data: &Path, out: &Path) -> Task {
        Task {
            recipe: Layer {
                seed: Some(self.seed),
                ..Layer::default()
            },
            force: self.force,
            preset: Some("demo".into()),
            // Fashion-MNIST's, for anybody to see.
            show_forgotten: true,
            ..Task::new(base, &DataSource::at(data), "label:10", out, &self.device)
        }
    }
}

/// All images that are not forgotten ones, one after another.
fn retained(data: &Dataset, forget: &[usize]) -> Result<Vec<u8>, Failure> {
    let image_len = data.shape().bytes();
    let mut pixels = Vec::with_capacity(data.len() * image_len);
    let mut image = vec![0; image_len];
    for row in (0..data.len()).filter(|row| forget.binary_search(row).is_err()) {
        data.read(row, &mut image)?;
        pixels.extend_from_slice(&image);
    }
    Ok(pixels)
}
