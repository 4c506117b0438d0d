//! `retrack demo`: a small model that memorized a T-shirt among digits forgets it.

use std::path::{Path, PathBuf};
use std::time::Instant;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use retrack_checkpoint::durable;
use retrack_checkpoint::lock::{self, Lock};
use retrack_checkpoint::words::counted;
use retrack_checkpoint::written::{Command, Output, Written, WrittenError};
use retrack_data::pixels::{to_byte, to_unit};
use retrack_data::{Dataset, Split};
use retrack_eval::distance::{mean, pairwise, to_nearest};
use retrack_eval::frequency::Frequency;
use retrack_eval::pictures::Grid;
use retrack_eval::report::{self, Report};
use retrack_networks::model::Model;
use retrack_networks::network::Network;
use retrack_networks::process::Time;
use retrack_networks::random::Random;
use retrack_networks::sampling::Generator;
use retrack_networks::schedule::{Sampler, SchedulerKind};
use retrack_study::run::{Existing, RunError, RunFolder};
use serde_json::json;

use crate::args::DemoArgs;
use crate::progress;
use crate::progress::{Printed, say};
use retrack_study::evidence::{self, Findings, Forgotten, Rule, Tally, show_samples};
use retrack_study::failure::Failure;
use retrack_study::samples::{Of, Samples};
use retrack_study::source::DataSource;
use retrack_study::task::Task;
use retrack_study::unlearn::unlearn;
use retrack_study::{interrupt, machine};
use retrack_study::{latent, model};
use retrack_unlearn::recipe::Layer;

const DIGITS: &[u8] = include_bytes!("../../../../assets/digits.parquet");

/// The base model's folder, file by file.
const BASE: [(&str, &[u8]); 4] = [
    (
        "model_index.json",
        include_bytes!("../../../../assets/base-model/model_index.json"),
    ),
    (
        "scheduler/scheduler_config.json",
        include_bytes!("../../../../assets/base-model/scheduler/scheduler_config.json"),
    ),
    (
        "unet/config.json",
        include_bytes!("../../../../assets/base-model/unet/config.json"),
    ),
    (
        "unet/diffusion_pytorch_model.safetensors",
        include_bytes!("../../../../assets/base-model/unet/diffusion_pytorch_model.safetensors"),
    ),
];

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
const PROBES: usize = 8;

pub fn run(args: &DemoArgs) -> Result<(), Failure> {
    if args.count == 0 {
        return Err(Failure::input("--count is 0; give at least 1"));
    }
    let start = Instant::now();
    let device = machine::device(&args.machine.device)?;
    if !args.force {
        RunFolder::check(&args.out, Command::Demo, Existing::Refuse, &[])?;
    }
    let _lock = Lock::take(&args.out)?;
    let mut output = open(&args.out, args.force)?;
    output.remove_temporaries();
    let again = "the same command with --force starts again";
    let kept = format!("{} is not complete: {again}", args.out.display());
    interrupt::kept(&kept);
    interrupt::begins_again(again);

    let data_path = args.out.join(DATA);
    let base_path = args.out.join(BASE_MODEL);
    let model_path = args.out.join(MODEL);
    let mut files = vec![(PathBuf::from(DATA), DIGITS.to_vec())];
    files.extend(BASE.map(|(name, content)| (Path::new(BASE_MODEL).join(name), content.to_vec())));
    output.put(&files)?;

    progress::note("1/4  sampling from the model that memorized the T-shirt");
    let base = Side::open(&base_path, &device)?;
    let before = base.sample(args, &device)?;

    progress::note("2/4  unlearning the T-shirt");
    let mut unlearning = unlearn(
        &unlearn_args(args, &base_path, &data_path, &model_path),
        &mut Printed,
    )?
    .expect("not a dry run");

    interrupt::at_once(&kept);

    progress::note("3/4  sampling again, with the same seeds");
    let new = Side::open(&model_path, &device)?;
    let after = new.sample(args, &device)?;

    progress::note("4/4  noising the T-shirt half-way and denoising it with both models");
    let data = model::open_data(&DataSource::at(&data_path), &base.model)?;
    let image_len = data.shape().bytes();
    let mut shirt = vec![0; image_len];
    data.read(unlearning.forget[0], &mut shirt)?;
    let restored_before = base.restore(&shirt, args.seed, &device)?;
    let restored_after = new.restore(&shirt, args.seed, &device)?;

    let digits = retained(&data, &unlearning.forget)?;
    let result = Outcome {
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
        columns: (args.count as f64).sqrt().ceil() as usize,
        zoom: Grid::zoom_for(shape),
    };
    let mut files = vec![
        (PathBuf::from("before.png"), square.png(&before)?),
        ("after.png".into(), square.png(&after)?),
    ];
    let strip = Grid {
        columns: PROBES + 2,
        zoom: 3,
        ..square
    };
    let rows = [&shirt[..], &restored_before, &shirt, &restored_after].concat();
    files.push(("half-way.png".into(), strip.png(&rows)?));

    let result = Outcome {
        seconds: start.elapsed().as_secs_f64(),
        ..result
    };
    let mut verdict = None;
    if let Some(mut report) = unlearning.report.take() {
        let mut split = Split::new(&data, &unlearning.forget, model::BUDGET)?;
        split.near.clear();
        let forgotten = Forgotten::new(&data, &split, Rule::Threshold(THRESHOLD))?;
        let strip = strip.png(&rows)?;
        result.extend(&mut report, &forgotten, [&before, &after], strip)?;
        report.verdict.next = match report.verdict.outcome {
            report::Outcome::StillFound => format!(
                "unlearn with more than the demo's steps: `retrack unlearn --model {} --data {} --forget label:10 --preset \
                 demo --steps 200 --out more`.",
                base_path.display(),
                data_path.display()
            ),
            report::Outcome::Inconclusive => "draw more with a larger --count, and --force.".into(),
            _ => String::new(),
        };
        files.extend(evidence::forms(&report));
        verdict = Some(report.verdict);
    }
    let mut metrics = result.json(args, &unlearning.json);
    metrics["verdict"] = json!(verdict);
    let text = serde_json::to_string_pretty(&metrics).expect("JSON has no unwritable values");
    files.push(("metrics.json".into(), format!("{text}\n").into_bytes()));
    output.put(&files)?;
    output.remove_earlier()?;
    if args.json {
        say!("{metrics}");
    } else {
        result.print(&args.out, verdict.as_ref());
    }
    match verdict {
        Some(verdict) => evidence::fail_if_found(args.fail_if_found, &verdict),
        None => Ok(()),
    }
}

/// An output folder that is new, empty, or an earlier demo's to replace. Looks at the model's folder too, which the
/// unlearning run writes: nothing is refused after the first sample.
fn open(out: &Path, force: bool) -> Result<Output, Failure> {
    let left = |name: &str| name == lock::NAME || durable::is_temporary(name);
    let holds_something = out.read_dir().is_ok_and(|mut entries| {
        entries.any(|entry| entry.is_ok_and(|entry| !entry.file_name().to_str().is_some_and(left)))
    });
    if holds_something && Written::read(out)?.is_none() {
        let path = out.to_path_buf();
        return Err(RunError::NotOurs { path }.into());
    }
    let output = Output::open(out, Command::Demo, force, |path| {
        mine().contains(&path.to_path_buf())
    })?;
    let model = out.join(MODEL);
    if model.is_symlink() {
        return Err(WrittenError::InTheWay { path: model }.into());
    }
    let files = BASE.map(|(name, _)| PathBuf::from(name)).to_vec();
    let cards = evidence::card::names(&files);
    RunFolder::check(
        &model,
        Command::Unlearn,
        Existing::Force,
        &[files, cards].concat(),
    )?;
    Ok(output)
}

/// What a demo writes into its folder, the unlearned model aside.
fn mine() -> Vec<PathBuf> {
    let base = BASE
        .iter()
        .map(|(name, _)| Path::new(BASE_MODEL).join(name));
    let results = RESULTS.iter().map(PathBuf::from);
    base.chain(results).chain([DATA.into()]).collect()
}

/// The demo's own settings: the published ones suit a network eight times as large.
fn unlearn_args(args: &DemoArgs, base: &Path, data: &Path, out: &Path) -> Task {
    Task {
        recipe: Layer {
            seed: Some(args.seed),
            ..Layer::default()
        },
        force: args.force,
        preset: Some("demo".into()),
        // Fashion-MNIST's, for anybody to see.
        show_forgotten: true,
        ..Task::new(
            base,
            &DataSource::at(data),
            "label:10",
            out,
            &args.machine.device,
        )
    }
}

/// One of the two models.
struct Side {
    model: Model,
    network: Network,
}

impl Side {
    fn open(path: &Path, device: &Device) -> Result<Self, Failure> {
        let model = latent::open_denoiser(path)?;
        let network = model.network(device)?;
        Ok(Self { model, network })
    }

    /// Bytes of samples, one after another.
    fn sample(&self, args: &DemoArgs, device: &Device) -> Result<Vec<u8>, Failure> {
        let samples = Samples {
            count: args.count,
            steps: STEPS,
            scheduler: Some(SCHEDULER),
            seed: args.seed,
            batch_size: 64,
            of: Of::Classes(Vec::new()),
        };
        let (bytes, _) = samples.draw(&self.model, &self.network, device, "sampling")?;
        Ok(bytes)
    }

    /// The image noised half-way, then what this model makes of that, several times.
    fn restore(&self, image: &[u8], seed: u64, device: &Device) -> Result<Vec<u8>, Failure> {
        let scheduler = &self.model.scheduler;
        // The published injection test denoises by ancestral sampling.
        let sampler = Sampler::new(SchedulerKind::Ddpm, scheduler, STEPS)?;
        let network = self.network.valid();
        let Some([height, width]) = self.model.config.sample_size else {
            unreachable!("the shipped model has a size")
        };
        let generator = Generator {
            network: &*network,
            sampler: &sampler,
            random: Random::new(seed),
            shape: [height, width, 1],
            device,
        };
        let clean: Vec<f32> = image.iter().map(|&byte| to_unit(byte)).collect();
        let copies = clean.repeat(PROBES);
        let copies = TensorData::new(copies, [PROBES, height, width, 1]);
        let restored = generator.reconstruct(
            Tensor::from_data(copies, device),
            HALF_WAY,
            0..PROBES as u64,
            None,
            &mut || {},
        )?;
        let process = scheduler.process();
        let noise = generator.random.noise(
            retrack_networks::random::Stream::Probe,
            0,
            0..1,
            clean.len(),
        );
        let noisy = clean.iter().zip(noise).map(|(&x, e)| {
            (process.signal(HALF_WAY) * f64::from(x) + process.noise(HALF_WAY) * f64::from(e))
                as f32
        });
        let mut bytes: Vec<u8> = noisy.map(to_byte).collect();
        bytes.extend(model::to_bytes(&restored, "half-way attempts")?);
        Ok(bytes)
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

/// What became of the digits. Euclidean distances over pixels in [0, 1].
struct Digits {
    /// Between the two samples of a seed, where the first was no T-shirt.
    moved: f64,
    /// Between samples of different seeds, for comparison.
    apart: f64,
    /// From a sample to the nearest real digit.
    real_before: f64,
    real_after: f64,
}

impl Digits {
    fn of(before: &[u8], after: &[u8], shirt: &[u8], digits: &[u8]) -> Self {
        let len = shirt.len();
        let is_shirt = pairwise(before, &shirt.repeat(before.len() / len), len);
        let keep = |images: &[u8]| -> Vec<u8> {
            let kept = images.chunks_exact(len).zip(&is_shirt);
            let kept = kept.filter(|(_, distance)| **distance >= THRESHOLD);
            kept.flat_map(|(image, _)| image.iter().copied()).collect()
        };
        let (before, after) = (keep(before), keep(after));
        let shifted = before.get(len..).unwrap_or_default();
        Self {
            moved: mean(&pairwise(&before, &after, len)),
            apart: mean(&pairwise(&before, shifted, len)),
            real_before: mean(&to_nearest(&before, digits, len)),
            real_after: mean(&to_nearest(&after, digits, len)),
        }
    }
}

/// What the demo found.
struct Outcome {
    before: Frequency,
    after: Frequency,
    restored_before: Frequency,
    restored_after: Frequency,
    digits: Digits,
    /// Distances of the half-way attempts to the T-shirt, before and after.
    half_way: [Vec<f64>; 2],
    seconds: f64,
}

impl Outcome {
    /// Makes the demo's report of that of its unlearning run: more samples, the half-way test, the digits. The T-shirt
    /// is public.
    fn extend(
        &self,
        report: &mut Report,
        forgotten: &Forgotten,
        samples: [&[u8]; 2],
        strip: Vec<u8>,
    ) -> Result<(), Failure> {
        report.command = "demo".into();
        report.title = "A model that had memorized a T-shirt, and what it became".into();
        let tally = |of: &Frequency| Tally {
            found: of.repeats,
            of: of.samples,
        };
        let quality = format!(
            "A digit is {:.2} from the nearest real one before and {:.2} after, on average.",
            self.digits.real_before, self.digits.real_after
        );
        let run = report.verdict.clone();
        report.verdict = Findings {
            restored: Some((
                Some(tally(&self.restored_before)),
                tally(&self.restored_after),
            )),
            copies: Some((Some(tally(&self.before)), tally(&self.after))),
            quality: vec![quality],
            ..Findings::default()
        }
        .verdict();
        // The run's own tests count as well.
        if report.verdict.outcome == report::Outcome::NotFound {
            report.verdict.outcome = run.outcome;
            report.verdict.headline = run.headline;
        }
        // What it says of its fewer tries is said of more here.
        let notes = run
            .notes
            .into_iter()
            .filter(|note| !note.starts_with("None of"));
        report.verdict.notes.splice(0..0, notes);

        let shape = forgotten.data.shape();
        let mut pictures = Vec::new();
        for (name, title, images) in [
            ("samples-before", "Before", samples[0]),
            ("samples-after", "After", samples[1]),
        ] {
            let sights = forgotten.look(images)?;
            show_samples(report, name, title, images, &sights, shape, true)?;
            pictures.push(name.to_string());
        }
        report.samples = Some(report::Samples {
            note: format!(
                "{} of each model, drawn by DDIM in {STEPS} steps from the same noise: a digit and its place stay, \
                 where the T-shirt was there is a digit. {}",
                counted(self.before.samples, "sample"),
                forgotten.rule()
            ),
            pictures,
        });

        let attempts = |name: &str, of: &Frequency, distances: &[f64]| report::Attempts {
            name: name.into(),
            restored: of.repeats,
            tries: of.samples,
            mean_distance: mean(distances),
        };
        let row = |name: &str, kind, distances: &[f64]| report::DotRow {
            name: name.into(),
            kind,
            values: distances.to_vec(),
        };
        let caption =
            "The T-shirt, its noised form, and the attempts: the model before above, after below";
        let alt = format!(
            "{caption}. Before, {} of the attempts are the T-shirt; after, {}.",
            tally(&self.restored_before),
            tally(&self.restored_after)
        );
        let picture = report.add_picture("half-way", caption, &alt, strip);
        report.restoration.insert(
            0,
            report::Restoration {
                title: format!("Noised half-way (timestep {HALF_WAY}) and denoised again"),
                note: format!(
                    "The T-shirt was noised to timestep {HALF_WAY} of 1000 and denoised by each model with the same \
                     noise (ancestral sampling, {STEPS} steps of the whole schedule). {}",
                    forgotten.rule()
                ),
                attempts: vec![
                    attempts("before", &self.restored_before, &self.half_way[0]),
                    attempts("after", &self.restored_after, &self.half_way[1]),
                ],
                chart: report::DotChart {
                    title: "Distance of each attempt to the T-shirt".into(),
                    note: "Near zero, the image came back.".into(),
                    x: report::Axis::linear("Euclidean distance, pixels in [0, 1]"),
                    rows: vec![
                        row("before", report::Kind::Before, &self.half_way[0]),
                        row("after", report::Kind::After, &self.half_way[1]),
                    ],
                    marks: vec![report::Mark {
                        name: "counts as the T-shirt below".into(),
                        value: THRESHOLD,
                    }],
                },
                pictures: vec![picture],
                withheld: None,
            },
        );
        let value = |value: f64, count: usize| {
            Some(report::MetricValue {
                value,
                count,
                interval: None,
                deviation: None,
            })
        };
        let metric = |name: &str, meaning: &str, before: f64, after: f64| report::MetricRow {
            name: name.into(),
            meaning: meaning.into(),
            values: vec![
                value(before, self.before.samples),
                value(after, self.after.samples),
            ],
        };
        report.metrics.insert(
            0,
            report::MetricTable {
                caption: "The digits among the samples, before and after".into(),
                note: format!(
                    "Distances are Euclidean over pixels in [0, 1]. A digit moved by {:.2} on average between the two \
                     samples of a seed; samples of different seeds are {:.2} apart.",
                    self.digits.moved, self.digits.apart
                ),
                columns: vec!["before".into(), "after".into()],
                rows: vec![
                    metric(
                        "T-shirts among the samples",
                        "lower is better",
                        self.before.repeats as f64,
                        self.after.repeats as f64,
                    ),
                    metric(
                        "Distance of the nearest sample to the T-shirt",
                        "higher is better",
                        self.before.nearest,
                        self.after.nearest,
                    ),
                    metric(
                        "Mean distance to the nearest real digit",
                        "should stay as it was",
                        self.digits.real_before,
                        self.digits.real_after,
                    ),
                ],
            },
        );
        report.cost.push(report::Fact::new(
            "The whole demo",
            format!("{:.0} s", self.seconds),
        ));
        Ok(())
    }

    fn json(&self, args: &DemoArgs, unlearning: &serde_json::Value) -> serde_json::Value {
        let share = |frequency: &Frequency| {
            json!({
                "t_shirts": frequency.repeats,
                "samples": frequency.samples,
                "share": frequency.share(),
                "nearest_distance": frequency.nearest,
            })
        };
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "seed": args.seed,
            "threshold": THRESHOLD,
            "scheduler": "ddim",
            "sampling_steps": STEPS,
            "before": share(&self.before),
            "after": share(&self.after),
            "half_way_timestep": HALF_WAY.code(),
            "half_way_before": share(&self.restored_before),
            "half_way_after": share(&self.restored_after),
            "digits": {
                "moved": self.digits.moved,
                "different_seeds_apart": self.digits.apart,
                "to_nearest_real_before": self.digits.real_before,
                "to_nearest_real_after": self.digits.real_after,
            },
            "unlearning": unlearning,
            "seconds": self.seconds,
        })
    }

    fn print(&self, out: &Path, verdict: Option<&report::Verdict>) {
        let share =
            |f: &Frequency| format!("{} of {} ({:.1}%)", f.repeats, f.samples, 100.0 * f.share());
        say!();
        say!("                                        before              after");
        say!(
            "T-shirts among samples                  {:<20}{}",
            share(&self.before),
            share(&self.after)
        );
        say!(
            "T-shirts restored from half-way noise   {:<20}{}",
            share(&self.restored_before),
            share(&self.restored_after)
        );
        say!(
            "mean distance to the nearest real digit {:<20.2}{:.2}",
            self.digits.real_before,
            self.digits.real_after
        );
        progress::tell(format_args!(
            "A digit moved by {:.2} on average between the two samples of a seed; samples of different seeds are \
             {:.2} apart.",
            self.digits.moved, self.digits.apart
        ));
        if let Some(verdict) = verdict {
            say!();
            progress::tell(evidence::printed(verdict, &[]));
        }
        say!();
        progress::tell(format_args!(
            "{}  the report: open it in a browser",
            out.join(evidence::PAGE).display()
        ));
        progress::tell(format_args!(
            "{}  samples before; after.png the same seeds after",
            out.join("before.png").display()
        ));
        progress::tell(format_args!(
            "{}  the T-shirt, its noised form, and {PROBES} attempts to restore it: before above, after below",
            out.join("half-way.png").display()
        ));
        progress::tell(format_args!(
            "{}  the new model, for diffusers or `retrack sample --model`",
            out.join("model").display()
        ));
        progress::tell(format_args!("This took {:.0} s.", self.seconds));
    }
}
