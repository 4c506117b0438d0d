//! A model folder in, one that forgot out.

use crate::run::RunFolder;
use retrack_checkpoint::written::Command;
use retrack_data::neighbors::{Neighbors, prepare, prepare_split};
use retrack_data::{Dataset, Split};
use retrack_networks::cost::Training;
use retrack_networks::diffusion::{Condition, Diffusion};
use retrack_unlearn::recipe::Recipe;
use retrack_unlearn::texts::Texts;
use serde_json::{Value, json};

use crate::delivery::Delivery;
use crate::evidence::{self, Private, selected};
use crate::failure::Failure;
use crate::field::Field;
use crate::folders::{as_path, digests, existing, outside, outside_all};
use crate::names::DtypeName;
use crate::observer::Observer;
use crate::settings;
use crate::situation::{self, Situation};
use crate::space::{Needs, Work};
use crate::task::Task;
use crate::unlearning::{Outcome, Summary, Unlearning, fits, planned, publish, report_split};
use crate::{interrupt, latent, machine, model, progress, unlearn_text};

/// What is there now, if a signal ends the command.
pub(crate) fn interrupted_before_the_first_step(resumes: bool) {
    let how = interrupt::how_to_go_on();
    interrupt::kept(match resumes {
        true => format!("the steps that were done before are kept: {how}"),
        false => format!("no step was done: {how}"),
    });
}

/// Makes a model forget, from its folder to a new one; `None` after a dry run.
///
/// # Errors
/// Whatever is wrong with what was given, a step that did not happen, a signal, files that cannot be written.
pub fn unlearn(args: &Task, observer: &mut dyn Observer) -> Result<Option<Summary>, Failure> {
    let existing = existing(args.force, args.resume);
    if args.checkpoint_every == Some(0) {
        return Err(Failure::input(format!(
            "{} is 0; give at least 1, or leave it out",
            Field::CheckpointEvery
        )));
    }
    let captions = args.captions.as_deref().and_then(as_path);
    let forget = args.forget.iter().map(|one| ("selection", as_path(one)));
    let inputs = [
        ("data", Some(args.data.path.as_path())),
        ("captions", captions),
        ("settings", args.config.as_deref()),
    ];
    outside_all(&args.out, inputs.into_iter().chain(forget))?;
    if !args.dry_run {
        RunFolder::check(&args.out, Command::Unlearn, existing, &[])?;
    }
    let device = machine::device(&args.device)?;
    let mut opened = latent::open(&args.model)?;
    if opened.condition() != Condition::Text {
        unlearn_text::refuse_texts(args)?;
    }
    let args = &Task {
        forget: opened.selection(&args.forget, &args.data.path)?,
        ..args.clone()
    };
    outside(&args.out, opened.folder().root(), "model")?;
    let key = match args.no_report {
        true => None,
        false => Some(Private::check(args)?),
    };
    let key = key.as_deref();
    let copied = opened.folder().check_copy()?;
    let planned = planned(opened.folder(), matches!(args.adapter_rank(), Ok(Some(_))))?;
    if !args.dry_run {
        RunFolder::check(&args.out, Command::Unlearn, existing, &planned)?;
    }
    if opened.condition() == Condition::Text {
        if args.must_look {
            return Err(Failure::input(format!(
                "{}: nothing is drawn of a text-to-image model here; {}",
                Field::MustLook,
                situation::advice(Situation::NothingLooks)
            )));
        }
        let destination = unlearn_text::Destination {
            existing,
            planned: &planned,
            copied,
            key,
        };
        return unlearn_text::unlearn(args, destination, &device, opened, observer);
    }
    let copied = copied + convert(args.dtype, &mut *opened)?;
    let opened = opened.as_pixels().expect("the other kind");
    let network = opened.network(&device.clone().autodiff())?;
    let data = model::open_data(&args.data, opened)?;
    let shape = data.shape();
    let settings = settings::resolve(args, shape.height, shape.width)?;
    settings::note_source(args, false, shape.height, shape.width);
    let objective = settings.objective();

    let rows = model::select(&args.forget, &data)?;
    let nearest = match settings.neighbors {
        Neighbors::Nearest(k) if objective.draws().neighbors => Some(k),
        _ => None,
    };
    let cache = machine::cache_folder().filter(|_| !args.dry_run);
    let searching = progress::activity("searching for neighbors and copies");
    let prepared = match nearest {
        Some(k) => prepare(&data, &rows, k, model::BUDGET, cache.as_deref())?,
        None => prepare_split(&data, &rows, model::BUDGET, cache.as_deref())?,
    };
    drop(searching);
    if prepared.from_cache {
        progress::detail("the neighbors were found before and kept in the cache");
    }
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

    let config = resolved(args, &settings, opened, &data, &split, None)?;
    let needs = needs(opened, args, &settings, &data, &split, None, copied)?;
    if !fits(args, config.clone(), &needs, observer)? {
        return Ok(None);
    }

    progress::detail(format_args!("settings {}", config["settings"]));
    let private = key.map(Private::open_or_create).transpose()?;
    let run = RunFolder::begin(&args.out, existing, &config, &planned)?;
    interrupted_before_the_first_step(args.resume);
    if run.is_moving() {
        publish(&run, &args.out, false)?;
        return Ok(Some(Summary::new(
            args,
            &settings,
            &split,
            Outcome::of_waiting(&args.out),
            &run,
        )));
    }
    let about = evidence::Run {
        args,
        settings: &settings,
        folder: &opened.folder,
        scheduler: &opened.scheduler,
        images: &data,
        labels: opened.config.num_class_embeds.is_some(),
        text_to_image: false,
        texts: None,
        private: private.as_ref(),
        data: &data,
        split: &split,
        neighbors: nearest.as_deref(),
        config: &config,
    };
    let unlearning = Unlearning {
        about: &about,
        folder: &run,
        device: &device,
    };
    let delivery = Delivery {
        base: opened,
        adapted: false,
        texts: None,
        out: &args.out,
        device: &device,
    };
    unlearning.run(network, &delivery, observer).map(Some)
}

/// Has the weights written in another type. Returns the bytes that this takes beyond what they are.
///
/// # Errors
/// Files whose form does not allow it.
pub fn convert(dtype: Option<DtypeName>, model: &mut dyn Diffusion) -> Result<u64, Failure> {
    let Some(dtype) = dtype else {
        return Ok(0);
    };
    let before = model.weights().written_bytes();
    model.weights_mut().write_as(dtype.into());
    model.folder().check_types(model.weights())?;
    Ok(model.weights().written_bytes().saturating_sub(before))
}

/// What the run needs of disk and memory. `texts`: of a network that is told any; `copied`: bytes of the new folder.
pub(crate) fn needs(
    model: &dyn Diffusion,
    args: &Task,
    settings: &Recipe,
    data: &Dataset,
    split: &Split,
    texts: Option<&Texts>,
    copied: u64,
) -> Result<Needs, Failure> {
    let shape = data.shape();
    let training = Training {
        size: [shape.height, shape.width],
        batch_size: settings.batch_size,
        ema: false,
        two_gradients: settings.objective().two_gradients(),
        rank: args.adapter_rank().map_err(Failure::input)?,
        images: split.forget.len() + split.retain.len(),
        texts: texts.map_or(0, |texts| texts.known.len()),
    };
    let work = Work {
        footprint: model.footprint(&training),
        data,
        batch_size: settings.batch_size,
        accumulate: settings.accumulate,
        steps: settings.steps,
        checkpoint_every: args.checkpoint_every,
        model: copied,
    };
    work.needs()
}

/// Everything that decides the result, as the run records it. Rows are numbers; no pixels. `texts`: of a network that is
/// told any.
pub(crate) fn resolved(
    args: &Task,
    settings: &Recipe,
    model: &dyn Diffusion,
    data: &Dataset,
    split: &Split,
    texts: Option<&Texts>,
) -> Result<Value, Failure> {
    let mut config = json!({
        "command": "unlearn",
        "version": env!("CARGO_PKG_VERSION"),
        "model": args.model.display().to_string(),
        "weights_sha256": digests(model.folder())?,
        "data": args.data.path.display().to_string(),
        "split": args.data.reading.split,
        "alpha": data.alpha(),
        "data_digest": data.digest()?,
        // What names a file may say whose picture it is, and so may a prompt, which the digest stands for; the rows say
        // which one it was.
        "forget": selected(&args.forget, &split.forget),
        "forget_rows": split.forget,
        "duplicate_rows": split.duplicates,
        "retained": split.retain.len(),
    });
    if let Some(texts) = texts {
        config["prompts"] = texts.known.len().into();
        config["prompts_digest"] = texts.digest().into();
    }
    config["device"] = json!(args.device);
    config["settings"] = json!(settings);
    if let Ok(Some(rank)) = args.adapter_rank() {
        config["adapter_rank"] = rank.into();
    }
    Ok(config)
}
