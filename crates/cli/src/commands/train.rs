//! `retrack train`: a DDPM from scratch.

use retrack_networks::config::UNet2DConfig;
use retrack_networks::files;
use retrack_networks::folder::{Dtype, FolderError, ModelFolder, RawTensor};
use retrack_networks::parameters;
use retrack_networks::random::Random;
use retrack_networks::schedule::{NoiseSchedule, SchedulerConfig};
use retrack_unlearn::data::{Dataset, OpenOptions, Split};
use retrack_unlearn::feed::{BatchSize, Feed};
use retrack_unlearn::objective::Finetune;
use retrack_unlearn::optimizer::{AdamW, AdamWConfig, Ema, EmaConfig, LearningRate};
use retrack_unlearn::run::RunFolder;
use retrack_unlearn::trainer::Trainer;
use serde_json::{Value, json};

use crate::args::TrainArgs;
use crate::failure::Failure;
use crate::folders::{existing, outside};
use crate::progress::say;
use crate::remedy::{self, Situation};
use crate::session::{Session, Unobserved};
use crate::space::{self, Work};
use crate::unlearning::{report_split, steps};
use crate::{interrupt, machine, model, progress};

pub fn run(args: &TrainArgs) -> Result<(), Failure> {
    let existing = existing(args.force, args.resume);
    if !args.dry_run {
        RunFolder::check(&args.out, existing)?;
    }
    if args.data.is_dir() {
        outside(&args.out, &args.data, "data")?;
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

    let text = files::read_text(&args.arch).map_err(|error| Failure::read(&args.arch, error))?;
    let at_arch = |problem: String| Failure::input(format!("{}: {problem}", args.arch.display()));
    let arch: Value =
        retrack_networks::json::parse(text.as_bytes()).map_err(|e| at_arch(e.to_string()))?;
    let config = UNet2DConfig::from_json(&arch).map_err(|e| at_arch(e.to_string()))?;
    model::check_denoises(&config, &args.arch)?;
    let options = OpenOptions {
        channels: Some(config.in_channels),
        memory_budget: 4 * model::BUDGET as u64,
    };
    let data = model::read_data(&args.data, &options)?;
    let shape = data.shape();
    config.check_size(shape.height, shape.width)?;
    if config
        .sample_size
        .is_some_and(|size| size != [shape.height, shape.width])
    {
        return Err(at_arch(format!(
            "`sample_size` is not the images' {} x {}",
            shape.height, shape.width
        )));
    }
    let cost = config.cost(shape.height, shape.width);
    let labels = config.num_class_embeds.is_some();
    if labels && data.label(0).is_none() {
        return Err(at_arch(
            "`num_class_embeds` is set, but the data set has no labels".into(),
        ));
    }
    let rows = match &args.exclude {
        None => (0..data.len()).collect(),
        Some(selection) => {
            let excluded = model::select(selection, &data)?;
            let split = Split::new(&data, &excluded, model::BUDGET)?;
            report_split(&split, &data);
            split.retain
        }
    };

    model::check_labels(&data, &rows, &config)?;

    let adamw = AdamWConfig::default();
    let ema = EmaConfig::default();
    let scheduler = SchedulerConfig::default();
    let learning_rate = LearningRate::Cosine {
        rate: args.lr,
        warmup: args.warmup,
        steps: args.steps,
    };
    let resolved = json!({
        "command": "train",
        "version": env!("CARGO_PKG_VERSION"),
        "arch": arch,
        "data": args.data.display().to_string(),
        "data_digest": data.digest()?,
        "exclude": args.exclude,
        "rows": rows.len(),
        "steps": args.steps,
        "batch_size": args.batch_size,
        "accumulate": args.accumulate,
        "learning_rate": learning_rate,
        "adamw": adamw,
        "ema": ema,
        "seed": args.seed,
        "device": args.machine.device,
    });
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
        return needs.check(&args.out, 0, remedy::advice(Situation::StepTooLarge));
    }
    let held = if args.resume {
        space::bytes_below(&args.out.join("run"))
    } else {
        0
    };
    needs.check(&args.out, held, remedy::advice(Situation::StepTooLarge))?;
    progress::detail(format_args!("settings {resolved}"));
    let run = RunFolder::begin(&args.out, existing, &resolved)?;
    interrupt::goes_on("the same command with --resume goes on");
    let done = match args.resume {
        true => "the steps that were done before are kept",
        false => "no step was done",
    };
    interrupt::kept(format!("{done}: the same command with --resume goes on"));
    if run.is_moving() {
        run.publish()?;
        report(args, rows.len());
        return Ok(());
    }

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
    session.train(&mut trainer, &feed, None, &mut Unobserved)?;

    let ema = trainer.ema.as_ref().expect("set above");
    let averaged = ema.apply(trainer.network().clone());
    let writing = progress::activity("writing the model");
    write(&arch, &data, &scheduler, &averaged, &run)?;
    drop(writing);
    run.publish()?;
    report(args, rows.len());
    Ok(())
}

fn report(args: &TrainArgs, images: usize) {
    progress::tell(format_args!(
        "trained on {images} images for {} {}; model in {}",
        args.steps,
        steps(args.steps),
        args.out.display()
    ));
}

/// Writes the averaged network as a new pipeline.
fn write(
    arch: &Value,
    data: &Dataset,
    scheduler: &SchedulerConfig,
    network: &retrack_networks::unet2d::UNet2DModel,
    run: &RunFolder,
) -> Result<(), Failure> {
    let mut arch = arch.clone();
    arch["_class_name"] = "UNet2DModel".into();
    if arch.get("sample_size").is_none_or(Value::is_null) {
        let shape = data.shape();
        arch["sample_size"] = json!([shape.height, shape.width]);
    }
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
        &arch,
        &scheduler.to_json(),
        tensors,
        true,
    )
    .map_err(|error: FolderError| error.into())
}
