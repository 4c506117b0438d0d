//! A DDPM from scratch.

mod longer;

use std::path::PathBuf;

use burn::tensor::Device;
use retrack_checkpoint::folder::{Dtype, FolderError, ModelFolder, RawTensor};
use retrack_checkpoint::written::Command;
use retrack_data::Dataset;
use retrack_networks::cost;
use retrack_networks::family::PixelConfig;
use retrack_networks::network::Network;
use retrack_networks::parameters;
use retrack_networks::random::Random;
use retrack_networks::schedule::SchedulerConfig;
use retrack_unlearn::checkpoint;
use retrack_unlearn::feed::{BatchSize, Feed};
use retrack_unlearn::objective::Finetune;
use retrack_unlearn::optimizer::{AdamW, AdamWConfig, Ema, EmaConfig, LearningRate};
use retrack_unlearn::trainer::Trainer;
use serde_json::{Value, json};

use self::longer::{Longer, warmup};
use crate::arch::Arch;
use crate::execution::publish;
use crate::failure::Failure;
use crate::field::Field;
use crate::folders::{as_path, existing, outside_all};
use crate::near_copies::Copies;
use crate::observer::Observer;
use crate::run::{Difference, Existing, RunError, RunFolder};
use crate::session::{Session, Steps};
use crate::situation::{self, Situation};
use crate::source::{DataSource, record_resize};
use crate::space::{self, Needs, Work};
use crate::training_view::{self, Plan, TrainingView};
use crate::unlearn::interrupted_before_the_first_step;
use crate::{machine, model, near_copies, progress};

/// Where the files of a new pipeline are.
pub(crate) const FILES: [&str; 4] = [
    "model_index.json",
    "scheduler/scheduler_config.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
];

/// What is to be trained, on what, and for how long.
#[derive(Debug, Clone)]
pub struct Training {
    /// The images.
    pub data: DataSource,
    /// One of the networks known by name, or a UNet2DModel's `config.json`.
    pub arch: PathBuf,
    /// Where the model folder goes.
    pub out: PathBuf,
    /// Selections of images to leave out, with their exact copies.
    pub exclude: Vec<String>,
    /// Steps of the run.
    pub steps: usize,
    /// Images in a micro-batch.
    pub batch_size: usize,
    /// Micro-batches in a step.
    pub accumulate: usize,
    /// The highest: reached after the warm-up, then half a cosine down to 0.
    pub learning_rate: f64,
    /// Steps over which the learning rate rises. `None`: a tenth of all, at most 500.
    pub warmup: Option<usize>,
    /// Decides all random numbers.
    pub seed: u64,
    /// Steps between checkpoints.
    pub checkpoint_every: usize,
    /// Goes on with the interrupted run in `out`, or with one that ended after fewer steps.
    pub resume: bool,
    /// Replaces what retrack wrote in `out`.
    pub force: bool,
    /// Says what would be done, and stops.
    pub dry_run: bool,
    /// `cpu`, or `cuda`, `vulkan`, `metal` with an optional `:NUMBER`.
    pub device: String,
}

/// What became of it.
#[derive(Debug, Clone, Copy)]
pub struct Trained {
    /// Images that it was trained on.
    pub images: usize,
}

/// Trains a network from scratch and writes it as a new pipeline; `None` after a dry run.
///
/// # Errors
/// Whatever is wrong with what was given, a step that did not happen, a signal, files that cannot be written.
pub fn train(asked: &Training, observer: &mut dyn Observer) -> Result<Option<Trained>, Failure> {
    let exclude = asked.exclude.iter().map(|one| ("selection", as_path(one)));
    let inputs = [
        ("data", Some(asked.data.path.as_path())),
        ("network", Some(asked.arch.as_path())),
    ];
    outside_all(&asked.out, inputs.into_iter().chain(exclude))?;
    let planned = FILES.map(PathBuf::from);
    let longer = Longer::of(asked)?;
    let existing = match longer.extends {
        true => Existing::Extend,
        false => existing(asked.force, asked.resume),
    };
    if !asked.dry_run {
        RunFolder::check(&asked.out, Command::Train, existing, &planned)?;
    }
    asked.check()?;
    let device = machine::device(&asked.device)?.autodiff();
    let input = Input::open(asked)?;
    let trained = Trained {
        images: input.rows.len(),
    };

    let warmup = warmup(asked);
    let learning_rate = asked.learning_rate(warmup, asked.steps, &longer.ended_at);
    let mut resolved = input.resolved(asked, learning_rate, asked.steps, &longer.ended_at)?;
    if let Some((recorded, steps)) = &longer.recorded {
        let before = match longer.ended_at.split_last() {
            Some((last, earlier)) if last == steps => earlier,
            _ => &longer.ended_at,
        };
        let learning_rate = asked.learning_rate(warmup, *steps, before);
        let mut expected = input.resolved(asked, learning_rate, *steps, before)?;
        // Where the data lies now.
        expected["data"] = recorded["data"].clone();
        if let Some(difference) = Difference::first(recorded, &expected) {
            let path = asked.out.clone();
            return Err(RunError::Differs { path, difference }.into());
        }
    }
    let needs = input.needs(asked)?;
    let smaller = situation::advice(Situation::StepTooLarge);
    if asked.dry_run {
        resolved["needs"] = needs.json(&asked.out);
        progress::note(needs.text(&asked.out));
        observer.planned(&resolved);
        needs.check(&asked.out, 0, smaller)?;
        return Ok(None);
    }
    let held = match asked.resume {
        true => space::bytes_below(&asked.out.join("run")),
        false => 0,
    };
    needs.check(&asked.out, held, smaller)?;
    progress::detail(format_args!("settings {resolved}"));
    let run = RunFolder::begin(&asked.out, existing, &resolved, &planned)?;
    interrupted_before_the_first_step(asked.resume);
    if run.is_moving() {
        publish(&run, &asked.out, true)?;
        return Ok(Some(trained));
    }
    longer.say(asked, warmup);
    input.train(asked, learning_rate, device, &run, observer)?;
    publish(&run, &asked.out, true)?;
    Ok(Some(trained))
}

impl Training {
    /// # Errors
    /// Numbers that make no sense.
    fn check(&self) -> Result<(), Failure> {
        if self.steps == 0 || self.batch_size == 0 || self.accumulate == 0 {
            return Err(Failure::input(format!(
                "{}, {} and {} need at least 1",
                Field::Steps,
                Field::BatchSize,
                Field::Accumulate
            )));
        }
        if self.checkpoint_every == 0 {
            return Err(Failure::input(format!(
                "{} is 0; give at least 1",
                Field::CheckpointEvery
            )));
        }
        if !(self.learning_rate > 0.0 && self.learning_rate.is_finite()) {
            return Err(Failure::input(format!(
                "{} is {}; give a number above 0",
                Field::LearningRate,
                self.learning_rate
            )));
        }
        Ok(())
    }

    /// Of a run of so many steps, which ended after `ended_at` before.
    fn learning_rate(&self, warmup: usize, steps: usize, ended_at: &[usize]) -> LearningRate {
        LearningRate::Cosine {
            rate: self.learning_rate,
            warmup,
            steps,
            ended_at: ended_at.last().copied().unwrap_or(0),
        }
    }
}

/// The images and the network that is to learn them.
struct Input {
    data: Dataset,
    /// The network as its folder will say it, and as it is built.
    arch: Value,
    config: PixelConfig,
    scheduler: SchedulerConfig,
    adamw: AdamWConfig,
    ema: EmaConfig,
    /// What it learns from, and what was selected to be left out.
    rows: Vec<usize>,
    excluded: Vec<usize>,
}

impl Input {
    /// # Errors
    /// A network or a data set that cannot be read, or that do not fit each other.
    fn open(asked: &Training) -> Result<Self, Failure> {
        let given = Arch::read(&asked.arch)?;
        let source = &asked.data;
        let data = model::open_images(source, given.channels())?;
        let (arch, config) = given.fit(data.shape())?;
        if config.num_class_embeds.is_some() && (0..data.len()).all(|row| data.label(row).is_none())
        {
            let problem = "`num_class_embeds` is set, but the data set has no labels";
            return Err(given.fail(problem.into()));
        }
        let (rows, excluded) = match asked.exclude.as_slice() {
            [] => ((0..data.len()).collect(), Vec::new()),
            selections => {
                let excluded = model::select(selections, &data)?;
                let split = near_copies::split(&data, &excluded, Copies::Retained, 1)?;
                near_copies::report(&split, &data, None);
                if !split.near.is_empty() {
                    progress::note(situation::advice(Situation::NearCopy));
                }
                (split.retain, excluded)
            }
        };
        model::check_labels(&data, &rows, &config)?;
        Ok(Self {
            data,
            arch,
            config,
            scheduler: SchedulerConfig::default(),
            adamw: AdamWConfig::default(),
            ema: EmaConfig::default(),
            rows,
            excluded,
        })
    }

    /// Everything that decides the result, as a run of so many steps records it, which ended after `ended_at` before.
    ///
    /// # Errors
    /// Data that cannot be read.
    fn resolved(
        &self,
        asked: &Training,
        learning_rate: LearningRate,
        steps: usize,
        ended_at: &[usize],
    ) -> Result<Value, Failure> {
        let mut resolved = json!({
            "command": "train",
            "version": env!("CARGO_PKG_VERSION"),
            "arch": self.arch,
            "data": asked.data.path.display().to_string(),
            "split": asked.data.reading.split,
            "alpha": self.data.alpha(),
            "data_digest": self.data.digest()?,
            "exclude": match asked.exclude.as_slice() {
                [] => Value::Null,
                selections => model::recorded(selections, &self.excluded),
            },
            "rows": self.rows.len(),
            "steps": steps,
            "batch_size": asked.batch_size,
            "accumulate": asked.accumulate,
            "learning_rate": learning_rate,
            "adamw": self.adamw,
            "ema": self.ema,
            "seed": asked.seed,
            "device": asked.device,
        });
        record_resize(&mut resolved, self.data.resize());
        if let Some(digest) = self.data.labels_digest()
            && self.config.condition().classes().is_some()
        {
            resolved["labels_digest"] = digest.into();
        }
        if !ended_at.is_empty() {
            resolved["ended_at"] = ended_at.into();
        }
        Ok(resolved)
    }

    /// # Errors
    /// Numbers that no run could work through.
    fn needs(&self, asked: &Training) -> Result<Needs, Failure> {
        let shape = self.data.shape();
        let cost = self.config.cost(shape.height, shape.width);
        let work = Work {
            footprint: self.config.footprint(&cost::Training {
                size: [shape.height, shape.width],
                batch_size: asked.batch_size,
                ema: true,
                moment_bytes: 4,
                streams: 1,
                two_gradients: false,
                rank: None,
                images: 0,
                texts: 0,
            }),
            data: &self.data,
            batch_size: asked.batch_size,
            accumulate: asked.accumulate,
            steps: asked.steps,
            checkpoint_every: Some(asked.checkpoint_every),
            model: 4 * cost.parameters + (1 << 20),
        };
        work.needs()
    }

    /// Takes the steps that are left, and writes the averaged network into the run's folder.
    ///
    /// # Errors
    /// A step that did not happen, a signal, files that cannot be written.
    fn train(
        &self,
        asked: &Training,
        learning_rate: LearningRate,
        device: Device,
        run: &RunFolder,
        observer: &mut dyn Observer,
    ) -> Result<(), Failure> {
        let random = Random::new(asked.seed);
        let network = parameters::initialize(self.config.init(&device), &random);
        let process = self.scheduler.process();
        let size = BatchSize {
            images: asked.batch_size,
            accumulate: asked.accumulate,
        };
        let labels = self.config.num_class_embeds.is_some();
        let (data, rows) = (&self.data, &self.rows);
        let feed = Feed::new(data, rows, &[], random, size, process.clone(), labels);
        let mut trainer = Trainer::new(
            network,
            process,
            device.clone(),
            Box::new(Finetune),
            AdamW::new(self.adamw.clone()),
            learning_rate,
        );
        trainer.ema = Some(Ema::new(self.ema.clone(), trainer.network()));
        let session = Session {
            run,
            title: "training",
            steps: asked.steps,
            checkpoint_every: Some(asked.checkpoint_every),
        };
        if asked.resume {
            session.resume(&mut trainer, &self.adamw, Some(&self.ema))?;
        }
        let mut view = TrainingView {
            folder: run.folder(),
            plan: match training_view::can_show(&self.config) {
                true => Plan::new(asked.steps, asked.batch_size * asked.accumulate),
                false => Plan::none(),
            },
            config: &self.config,
            scheduler: &self.scheduler,
            seed: asked.seed,
            device,
        };
        progress::note(view.announce(&asked.out));
        let mut course = Steps(session.steps);
        session.train(&mut trainer, &feed, &mut course, None, &mut view, observer)?;
        view.draw_loss()?;
        if checkpoint::list(&run.folder()).first() != Some(&asked.steps) {
            // From it the run can be extended: that it could not be saved before the last look is no more a warning.
            checkpoint::save(&trainer, &run.folder())?;
        }
        let ema = trainer.ema.as_ref().expect("set above");
        let averaged = ema.apply(trainer.network().clone());
        let _writing = progress::activity("writing the model");
        write(&self.arch, &self.scheduler, &averaged, run)
    }
}

/// Writes the averaged network as a new pipeline.
fn write(
    arch: &Value,
    scheduler: &SchedulerConfig,
    network: &Network,
    run: &RunFolder,
) -> Result<(), Failure> {
    let tensors = parameters::export(network)
        .into_iter()
        .map(|(parameter, values)| {
            let tensor = RawTensor::from_f32(&values, parameter.shape.clone(), Dtype::F32);
            let tensor = tensor.map_err(|error| Failure::failed(error.to_string()))?;
            Ok((parameter.name, tensor))
        })
        .collect::<Result<Vec<_>, Failure>>()?;
    let tensors = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
    ModelFolder::create(
        &run.staging()?,
        "DDPMPipeline",
        arch,
        &scheduler.to_json(),
        tensors,
    )
    .map_err(|error: FolderError| error.into())
}
