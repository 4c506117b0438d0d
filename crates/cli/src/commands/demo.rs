//! `retrack demo`: a small model that memorized a T-shirt among digits forgets it.

use std::path::Path;
use std::time::Instant;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use retrack_eval::distance::{mean, pairwise, to_nearest};
use retrack_eval::frequency::Frequency;
use retrack_eval::pictures::Grid;
use retrack_networks::model::Model;
use retrack_networks::random::Random;
use retrack_networks::sampling::Generator;
use retrack_networks::schedule::{NoiseSchedule, Sampler, SchedulerKind};
use retrack_networks::unet2d::UNet2DModel;
use retrack_unlearn::data::Dataset;
use retrack_unlearn::feed::{to_byte, to_unit};
use retrack_unlearn::run::{Existing, RunFolder};
use serde_json::json;

use super::unlearn::unlearn;
use crate::args::{DemoArgs, UnlearnArgs};
use crate::failure::Failure;
use crate::model::{self, Samples};
use crate::progress::say;
use crate::{machine, progress};

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

/// What a demo leaves in its folder.
const PARTS: [&str; 7] = [
    "digits.parquet",
    "base-model",
    "model",
    "before.png",
    "after.png",
    "half-way.png",
    "metrics.json",
];

/// Samples nearer to the T-shirt than this count as it: the published experiment's threshold.
const THRESHOLD: f64 = 10.0;
/// Deterministic, so that a seed's two samples can be compared. With few steps it also repeats the T-shirt nearly as
/// often as the data holds it (11 of 2,000 samples), where ancestral sampling does so 4 times.
const SCHEDULER: SchedulerKind = SchedulerKind::Ddim;
/// Denoising steps of every sample.
const STEPS: usize = 50;
/// Where the T-shirt is noised to before it is denoised again, of 1,000.
const HALF_WAY: usize = 500;
/// How often that is tried.
const PROBES: usize = 8;

pub fn run(args: &DemoArgs) -> Result<(), Failure> {
    if args.count == 0 {
        return Err(Failure::input("--count is 0; give at least 1"));
    }
    let start = Instant::now();
    let device = machine::device(&args.machine.device)?;
    clear(&args.out, args.force)?;

    let data_path = args.out.join("digits.parquet");
    let base_path = args.out.join("base-model");
    let model_path = args.out.join("model");
    model::write(&data_path, DIGITS)?;
    for (name, content) in BASE {
        model::write(&base_path.join(name), content)?;
    }

    progress::note("1/4  sampling from the model that memorized the T-shirt");
    let base = Side::open(&base_path, &device)?;
    let before = base.sample(args, &device)?;

    progress::note("2/4  unlearning the T-shirt");
    let unlearning =
        unlearn(&unlearn_args(args, &base_path, &data_path, &model_path))?.expect("not a dry run");

    progress::note("3/4  sampling again, with the same seeds");
    let new = Side::open(&model_path, &device)?;
    let after = new.sample(args, &device)?;

    progress::note("4/4  noising the T-shirt half-way and denoising it with both models");
    let data = model::open_data(&data_path, &base.model)?;
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
        seconds: 0.0,
    };

    let shape = [data.shape().height, data.shape().width, 1];
    let square = Grid {
        shape,
        columns: (args.count as f64).sqrt().ceil() as usize,
        zoom: Grid::zoom_for(shape),
    };
    model::write(&args.out.join("before.png"), &square.png(&before)?)?;
    model::write(&args.out.join("after.png"), &square.png(&after)?)?;
    let strip = Grid {
        columns: PROBES + 2,
        zoom: 3,
        ..square
    };
    let rows = [&shirt[..], &restored_before, &shirt, &restored_after].concat();
    model::write(&args.out.join("half-way.png"), &strip.png(&rows)?)?;

    let result = Outcome {
        seconds: start.elapsed().as_secs_f64(),
        ..result
    };
    let metrics = result.json(args, &unlearning.json);
    let text = serde_json::to_string_pretty(&metrics).expect("JSON has no unwritable values");
    model::write(
        &args.out.join("metrics.json"),
        format!("{text}\n").as_bytes(),
    )?;
    if args.json {
        say!("{metrics}");
    } else {
        result.print(&args.out);
    }
    Ok(())
}

/// An output folder that is new, empty, or an earlier demo to replace.
fn clear(out: &Path, force: bool) -> Result<(), Failure> {
    if force {
        for name in PARTS {
            let path = out.join(name);
            let removed = if path.is_dir() {
                std::fs::remove_dir_all(&path)
            } else if path.exists() {
                std::fs::remove_file(&path)
            } else {
                continue;
            };
            removed.map_err(|error| Failure::write(&path, error))?;
        }
    }
    RunFolder::check(out, Existing::Refuse)?;
    Ok(())
}

/// The demo's own settings: the published ones suit a network eight times as large.
fn unlearn_args(args: &DemoArgs, base: &Path, data: &Path, out: &Path) -> UnlearnArgs {
    UnlearnArgs {
        seed: Some(args.seed),
        preset: Some("demo".into()),
        ..UnlearnArgs::plain(base, data, "label:10", out, &args.machine)
    }
}

/// One of the two models.
struct Side {
    model: Model,
    network: UNet2DModel,
}

impl Side {
    fn open(path: &Path, device: &Device) -> Result<Self, Failure> {
        let model = model::open(path)?;
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
            class: None,
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
            network: &network,
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
        let schedule = NoiseSchedule::new(scheduler);
        let noise = generator.random.noise(
            retrack_networks::random::Stream::Probe,
            0,
            0..1,
            clean.len(),
        );
        let noisy = clean.iter().zip(noise).map(|(&x, e)| {
            (schedule.signal(HALF_WAY) * f64::from(x) + schedule.noise(HALF_WAY) * f64::from(e))
                as f32
        });
        Ok(noisy.chain(restored).map(to_byte).collect())
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
    seconds: f64,
}

impl Outcome {
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
            "half_way_timestep": HALF_WAY,
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

    fn print(&self, out: &Path) {
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
        say!(
            "A digit moved by {:.2} on average between the two samples of a seed; samples of different seeds are \
             {:.2} apart.",
            self.digits.moved,
            self.digits.apart
        );
        say!();
        say!(
            "{}  samples before; after.png the same seeds after",
            out.join("before.png").display()
        );
        say!(
            "{}  the T-shirt, its noised form, and {PROBES} attempts to restore it: before above, after below",
            out.join("half-way.png").display()
        );
        say!(
            "{}  the new model, for diffusers or `retrack sample --model`",
            out.join("model").display()
        );
        say!("This took {:.0} s.", self.seconds);
    }
}
