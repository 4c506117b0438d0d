//! `retrack train`: a DDPM from scratch.

use std::path::{Path, PathBuf};

use retrack_checkpoint::folder::{Dtype, FolderError, ModelFolder, RawTensor};
use retrack_checkpoint::words::counted;
use retrack_checkpoint::written::{Command, Written};
use retrack_data::Split;
use retrack_networks::parameters;
use retrack_networks::random::Random;
use retrack_networks::schedule::{NoiseSchedule, SchedulerConfig};
use retrack_study::run::{Difference, Existing, RunError, RunFolder};
use retrack_unlearn::checkpoint;
use retrack_unlearn::feed::{BatchSize, Feed};
use retrack_unlearn::objective::Finetune;
use retrack_unlearn::optimizer::{AdamW, AdamWConfig, Ema, EmaConfig, LearningRate};
use retrack_unlearn::trainer::Trainer;
use serde_json::{Value, json};

use crate::args::TrainArgs;
use crate::progress;
use crate::progress::{Printed, say};
use retrack_study::arch::Arch;
use retrack_study::failure::Failure;
use retrack_study::folders::{as_path, existing, outside_all};
use retrack_study::session::Session;
use retrack_study::situation::{self, Situation};
use retrack_study::space::{self, Work};
use retrack_study::training_view::{self, Plan, TrainingView};
use retrack_study::unlearning::{publish, report_split};
use retrack_study::{interrupt, machine, model};

/// Where the files of a new pipeline are.
const FILES: [&str; 4] = [
    "model_index.json",
    "scheduler/scheduler_config.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
];

pub fn run(args: &TrainArgs) -> Result<(), Failure> {
    let exclude = args.exclude.iter().map(|one| ("selection", as_path(one)));
    let inputs = [
        ("data", Some(args.data.path.as_path())),
        ("network", Some(args.arch.as_path())),
    ];
    outside_all(&args.out, inputs.into_iter().chain(exclude))?;
    let planned = FILES.map(PathBuf::from);
    let longer = Longer::of(args)?;
    let existing = match longer.extends {
        true => Existing::Extend,
        false => existing(args.force, args.resume),
    };
    if !args.dry_run {
        RunFolder::check(&args.out, Command::Train, existing, &planned)?;
    }
    if args.steps == 0 || args.batch_size == 0 || args.accumulate == 0 {
        return Err(Failure::input(
            "--steps, --batch-size and --accumulate need at least 1",
        ));
    }
    if args.checkpoint_every == 0 {
        return Err(Failure::input("--checkpoint-every is 0; give at least 1"));
    }
    if !(args.lr > 0.0 && args.lr.is_finite()) {
        return Err(Failure::input(format!(
            "--lr is {}; give a number above 0",
            args.lr
        )));
    }
    let device = machine::device(&args.machine.device)?.autodiff();

    let given = Arch::read(&args.arch)?;
    let data = model::open_images(
        &args.data.path,
        &args.data.reading.reading(),
        given.channels(),
    )?;
    let shape = data.shape();
    let (arch, config) = given.fit(shape)?;
    let cost = config.cost(shape.height, shape.width);
    let labels = config.num_class_embeds.is_some();
    if labels && data.label(0).is_none() {
        return Err(given.fail("`num_class_embeds` is set, but the data set has no labels".into()));
    }
    let (rows, excluded) = match args.exclude.as_slice() {
        [] => ((0..data.len()).collect(), Vec::new()),
        selections => {
            let excluded = model::select(selections, &data)?;
            let split = Split::new(&data, &excluded, model::BUDGET)?;
            report_split(&split, &data);
            (split.retain, excluded)
        }
    };

    model::check_labels(&data, &rows, &config)?;

    let warmup = warmup(args);
    let adamw = AdamWConfig::default();
    let ema = EmaConfig::default();
    let scheduler = SchedulerConfig::default();
    // What this command, or one with other steps, records.
    let of_steps = |steps: usize, ended_at: &[usize]| -> Result<(LearningRate, Value), Failure> {
        let learning_rate = LearningRate::Cosine {
            rate: args.lr,
            warmup,
            steps,
            ended_at: ended_at.last().copied().unwrap_or(0),
        };
        let mut resolved = json!({
            "command": "train",
            "version": env!("CARGO_PKG_VERSION"),
            "arch": arch,
            "data": args.data.path.display().to_string(),
            "split": args.data.reading.split,
            "alpha": data.alpha(),
            "data_digest": data.digest()?,
            "exclude": match args.exclude.as_slice() {
                [] => Value::Null,
                selections => model::recorded(selections, &excluded),
            },
            "rows": rows.len(),
            "steps": steps,
            "batch_size": args.batch_size,
            "accumulate": args.accumulate,
            "learning_rate": learning_rate,
            "adamw": adamw,
            "ema": ema,
            "seed": args.seed,
            "device": args.machine.device,
        });
        if !ended_at.is_empty() {
            resolved["ended_at"] = ended_at.into();
        }
        Ok((learning_rate, resolved))
    };
    let (learning_rate, resolved) = of_steps(args.steps, &longer.ended_at)?;
    if let Some((recorded, steps)) = &longer.recorded {
        let before = match longer.ended_at.split_last() {
            Some((last, earlier)) if last == steps => earlier,
            _ => &longer.ended_at,
        };
        let (_, mut expected) = of_steps(*steps, before)?;
        // Where the data lies now.
        expected["data"] = recorded["data"].clone();
        if let Some(difference) = Difference::first(recorded, &expected) {
            let path = args.out.clone();
            return Err(RunError::Differs { path, difference }.into());
        }
    }
    let needs = Work {
        cost,
        data: &data,
        batch_size: args.batch_size,
        accumulate: args.accumulate,
        steps: args.steps,
        checkpoint_every: Some(args.checkpoint_every),
        model: 4 * cost.parameters + (1 << 20),
        ema: true,
        two_gradients: false,
    }
    .needs()?;
    if args.dry_run {
        let mut resolved = resolved;
        resolved["needs"] = needs.json(&args.out);
        progress::note(needs.text(&args.out));
        let text = serde_json::to_string_pretty(&resolved).expect("JSON has no unwritable values");
        say!("{text}");
        return needs.check(&args.out, 0, situation::advice(Situation::StepTooLarge));
    }
    let held = if args.resume {
        space::bytes_below(&args.out.join("run"))
    } else {
        0
    };
    needs.check(&args.out, held, situation::advice(Situation::StepTooLarge))?;
    progress::detail(format_args!("settings {resolved}"));
    let run = RunFolder::begin(&args.out, existing, &resolved, &planned)?;
    interrupt::goes_on("the same command with --resume goes on");
    let done = match args.resume {
        true => "the steps that were done before are kept",
        false => "no step was done",
    };
    interrupt::kept(format!("{done}: the same command with --resume goes on"));
    if run.is_moving() {
        publish(&run, &args.out, true)?;
        report(args, rows.len());
        return Ok(());
    }
    longer.say(args, warmup);

    let random = Random::new(args.seed);
    let network = parameters::initialize(config.init(&device), &random);
    let schedule = NoiseSchedule::new(&scheduler);
    let size = BatchSize {
        images: args.batch_size,
        accumulate: args.accumulate,
    };
    let feed = Feed::new(
        &data,
        &rows,
        &[],
        random,
        size,
        schedule.timesteps(),
        labels,
    );
    let mut trainer = Trainer::new(
        network,
        schedule,
        device.clone(),
        Box::new(Finetune),
        AdamW::new(adamw.clone()),
        learning_rate,
    );
    trainer.ema = Some(Ema::new(ema.clone(), trainer.network()));
    let session = Session {
        run: &run,
        title: "training",
        steps: args.steps,
        checkpoint_every: Some(args.checkpoint_every),
    };
    if args.resume {
        session.resume(&mut trainer, &adamw, Some(&ema))?;
    }
    let mut view = TrainingView {
        folder: run.folder(),
        plan: match training_view::can_show(&config) {
            true => Plan::new(args.steps, args.batch_size * args.accumulate),
            false => Plan::none(),
        },
        config: &config,
        scheduler: &scheduler,
        seed: args.seed,
        device,
    };
    progress::note(view.announce(&args.out));
    session.train(&mut trainer, &feed, None, &mut view, &mut Printed)?;
    view.draw_loss()?;
    if checkpoint::list(&run.folder()).first() != Some(&args.steps) {
        // From it the run can be extended: that it could not be saved before the last look is no more a warning.
        checkpoint::save(&trainer, &run.folder())?;
    }

    let ema = trainer.ema.as_ref().expect("set above");
    let averaged = ema.apply(trainer.network().clone());
    let writing = retrack_study::progress::activity("writing the model");
    write(&arch, &scheduler, &averaged, &run)?;
    drop(writing);
    publish(&run, &args.out, true)?;
    report(args, rows.len());
    Ok(())
}

/// Steps over which the learning rate rises: as typed, as the run that goes on recorded them, or a tenth of all.
fn warmup(args: &TrainArgs) -> usize {
    const MOST: usize = 500;
    let there = RunFolder::recorded(&args.out).filter(|_| args.resume);
    let recorded = there.and_then(|(config, _)| config["learning_rate"]["warmup"].as_u64());
    let usual = recorded.map_or((args.steps / 10).min(MOST), |steps| steps as usize);
    args.warmup.unwrap_or(usual)
}

/// What a run that goes on has of the one that lies in its folder.
#[derive(Default)]
struct Longer {
    /// The run there ended, and this one takes more steps.
    extends: bool,
    /// Steps at which it ended before, in order.
    ended_at: Vec<usize>,
    /// Its configuration and its steps, where it ended.
    recorded: Option<(Value, usize)>,
}

impl Longer {
    fn of(args: &TrainArgs) -> Result<Self, Failure> {
        let there = RunFolder::recorded(&args.out).filter(|_| args.resume);
        let Some((recorded, ended)) = there.filter(|(config, _)| config["command"] == "train")
        else {
            return Ok(Self::default());
        };
        let counts = recorded["ended_at"].as_array().into_iter().flatten();
        let mut ended_at: Vec<usize> = counts
            .filter_map(|count| Some(count.as_u64()? as usize))
            .collect();
        let steps = recorded["steps"].as_u64().unwrap_or_default() as usize;
        if !ended {
            return Ok(Self {
                ended_at,
                ..Self::default()
            });
        }
        let out = args.out.display();
        let newest = checkpoint::list(&args.out.join("run")).first().copied();
        let Some(newest) = newest else {
            return Err(Failure::input(format!(
                "{out}: the run there ended after {steps} steps and its last checkpoint is gone, so that it cannot \
                 go on; leave --resume out and choose another output folder"
            )));
        };
        // A run that was to take more steps, and was killed after its configuration was written and before its mark, has
        // not begun: what lies there ended at its last checkpoint.
        let ended_after = newest.min(steps);
        if args.steps <= ended_after {
            return Err(Failure::input(format!(
                "{out}: the run there ended after {ended_after} steps; give a larger --steps to go on from there"
            )));
        }
        // Somebody else's file is no damaged checkpoint of this run.
        let run = Path::new("run");
        let list = Written::read(&args.out)?.unwrap_or_default();
        if !list.has(&checkpoint::file(run, newest)) {
            RunFolder::check(&args.out, Command::Train, Existing::Extend, &[])?;
        }
        // While the run is still one that ended.
        checkpoint::verify(&args.out.join("run"), newest).map_err(|error| {
            Failure::input(format!(
                "{error}; the run there ended after {ended_after} steps and its model is whole, but it cannot go on: leave \
                 --resume out and choose another output folder"
            ))
        })?;
        if ended_after == steps {
            ended_at.push(steps);
        }
        Ok(Self {
            extends: true,
            ended_at,
            recorded: Some((recorded, steps)),
        })
    }

    /// What becomes of the learning rate.
    fn say(&self, args: &TrainArgs, warmup: usize) {
        let ended = self.ended_at.last().filter(|_| self.extends);
        let left = args.steps.saturating_sub(ended.copied().unwrap_or(0));
        if warmup >= left {
            progress::warn(format!(
                "the learning rate rises over {} and only {left} are left: it never reaches {:e}",
                counted(warmup, "step"),
                args.lr
            ));
            return;
        }
        if let Some(ended) = ended {
            progress::note(format!(
                "the run that ended after {ended} steps goes on to {}: its learning rate, which had come down to 0, \
                 rises over {} steps to where a cosine over {} steps is by then, and follows that to its end; one run \
                 of {} steps would have become another model",
                args.steps, warmup, args.steps, args.steps
            ));
        }
    }
}

fn report(args: &TrainArgs, images: usize) {
    progress::tell(format_args!(
        "trained on {} for {}; model in {}",
        counted(images, "image"),
        counted(args.steps, "step"),
        args.out.display()
    ));
}

/// Writes the averaged network as a new pipeline.
fn write(
    arch: &Value,
    scheduler: &SchedulerConfig,
    network: &retrack_networks::unet2d::UNet2DModel,
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
