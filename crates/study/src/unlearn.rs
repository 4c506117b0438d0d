//! A model folder in, one that forgot out.

use std::collections::HashMap;
use std::time::Instant;

use retrack_checkpoint::words::counted;
use retrack_checkpoint::written::Command;
use retrack_data::neighbors::{Neighbor, NeighborError, Neighbors, prepare};
use retrack_data::{Dataset, Split};
use retrack_eval::controls::Controls;
use retrack_networks::cost::Training;
use retrack_networks::diffusion::{Condition, Diffusion};
use retrack_networks::lora;
use retrack_networks::random::Random;
use retrack_unlearn::optimizer::State;
use retrack_unlearn::recipe::{Recipe, TEXT_TO_IMAGE};
use retrack_unlearn::texts::Texts;
use serde_json::{Value, json};

use crate::calibration::{CONTROLS, Pictures, Purpose, kept};
use crate::chain::{Earlier, Past};
use crate::delivery::Delivery;
use crate::encoded::{distances, encode};
use crate::evidence::{self, selected};
pub use crate::execution::Summary;
use crate::execution::{Outcome, Unlearning, fits, planned, publish};
use crate::failure::Failure;
use crate::field::Field;
use crate::folders::{as_path, existing, outside, outside_all};
use crate::names::{DtypeName, LoraFormat};
use crate::near_copies::Copies;
use crate::observer::Observer;
use crate::opened::open_data;
use crate::reopened::Base;
use crate::run::{Existing, RunFolder};
use crate::settings;
use crate::situation::{self, Situation};
use crate::source::record_resize;
use crate::space::{Needs, Work};
use crate::task::Task;
use crate::{captions, controls, interrupt, machine, model, near_copies, opened, progress, sealed};

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
    let captions_file = args.captions.as_deref().and_then(as_path);
    let forget = args.forget.iter().map(|one| ("selection", as_path(one)));
    let inputs = [
        ("data", Some(args.data.path.as_path())),
        ("captions", captions_file),
        ("settings", args.config.as_deref()),
        ("controls", args.controls.as_deref()),
    ];
    outside_all(&args.out, inputs.into_iter().chain(forget))?;
    if !args.dry_run {
        RunFolder::check(&args.out, Command::Unlearn, existing, &[])?;
    }
    let device = machine::device(&args.device)?;
    let mut opened = opened::open(&args.model)?;
    let told_texts = opened.condition() == Condition::Text;
    if !told_texts {
        captions::refuse(args)?;
    }
    let args = &Task {
        forget: opened.selection(&args.forget, &args.data.path)?,
        ..args.clone()
    };
    outside(&args.out, opened.folder().root(), "model")?;
    let past = Past::open(opened.folder(), args)?;
    let sealing = sealed::Planned::check(args)?;
    let mut copied = opened.folder().check_copy()?;
    let planned = planned(opened.folder(), matches!(args.adapter_rank(), Ok(Some(_))))?;
    if !args.dry_run {
        RunFolder::check(&args.out, Command::Unlearn, existing, &planned)?;
    }
    if told_texts && args.must_look {
        return Err(Failure::input(format!(
            "{}: nothing is drawn of a text-to-image model here; {}",
            Field::MustLook,
            situation::advice(Situation::NothingLooks)
        )));
    }
    let rank = args.adapter_rank().map_err(Failure::input)?;
    let format = args.adapter_format().map_err(Failure::input)?;
    // Theirs for other networks follow the original's layers, which are cut otherwise.
    if format == LoraFormat::Kohya && opened.folder().class_name != "UNet2DConditionModel" {
        return Err(Failure::input(format!(
            "{} kohya: these names are of U-Nets, and {} holds a {}; leave it out",
            Field::LoraFormat,
            args.model.display(),
            opened.folder().class_name
        )));
    }
    if rank.is_some() && !matches!(args.dtype, None | Some(DtypeName::F32)) {
        return Err(Failure::input(format!(
            "{}: adapters are written in f32; leave it out with {} lora",
            Field::Dtype,
            Field::Train
        )));
    }
    if rank.is_none() {
        copied += convert(args.dtype, &mut *opened)?;
    }
    let opened = &*opened;
    // Text encoder, autoencoder and denoiser are in memory one after another; a denoiser alone is read at once.
    let encodes = opened.latent_factor().is_some();
    let read = || opened.network(&device.clone().autodiff());
    let network = (!encodes).then(read).transpose()?;
    let looked = past.look(
        open_data(opened, &args.data)?,
        sealing.as_ref(),
        &args.model,
    )?;
    let data = &looked.data;
    let shape = data.shape();
    let with_preset = Task {
        preset: args
            .preset
            .clone()
            .or(told_texts.then(|| TEXT_TO_IMAGE.into())),
        ..args.clone()
    };
    let mut settings = settings::resolve(&with_preset, shape.height, shape.width)?;
    let calibrates = settings::calibrates(args);
    if calibrates {
        settings = settings::calibrated(settings, args, opened.weights(), rank.is_some());
    } else {
        settings::note_source(args, told_texts, shape.height, shape.width);
    }
    if settings.adamw.state != State::F32 && !machine::is_cpu(&args.device) {
        return Err(Failure::input(format!(
            "{} bf16 is for the CPU, not for {}; leave it out",
            Field::OptimizerState,
            args.device
        )));
    }
    let objective = settings.objective();

    let rows = model::select(&args.forget, data);
    let rows = rows.map_err(|error| past.explain(error, data, &args.model))?;
    let (rows, earlier) = past.set_apart(&looked, rows, args.always)?;
    let nearest = match settings.neighbors {
        Neighbors::Nearest(k) if objective.draws().neighbors => Some(k),
        _ => None,
    };
    // Copies of all that leaves are looked for, whenever it was forgotten.
    let leaving = [&rows[..], &earlier.rows].concat();
    let least = nearest.unwrap_or(1);
    let mut split = near_copies::split(data, &leaving, args.copies, least)?;
    let sheet = near_copies::show(&split, data, &args.out, args.force)?;
    near_copies::report(&split, data, sheet.as_deref());
    if args.copies == Copies::Aside && split.retains_near() {
        progress::warn("they were not set aside, since too few images would be retained");
    }
    if split.retain.is_empty() {
        return Err(Failure::input(
            "all images are selected or exact copies of the selected ones; nothing would be retained",
        ));
    }
    if let Some(wanted) = nearest.filter(|&k| k > split.retain.len()) {
        let retained = split.retain.len();
        return Err(NeighborError::TooFew { wanted, retained }.into());
    }
    let mut neighbors = match nearest.filter(|_| !encodes) {
        Some(k) => Some(search(data, &split, k, args.dry_run)?),
        None => None,
    };
    set_apart(&mut split, &mut neighbors, &earlier);
    model::check_labels(data, &split.retain, &opened.denoiser().config)?;
    model::check_labels(data, &split.leaving(), &opened.denoiser().config)?;
    let texts = match told_texts {
        true => Some(captions::read(args, data, &split, &looked.texts)?),
        false => None,
    };

    let controls = controls(args, data)?;

    let mut config = resolved(args, &settings, &past, data, &split, texts.as_ref())?;
    if let Some(digest) = data.labels_digest()
        && opened.denoiser().config.condition().classes().is_some()
    {
        config["labels_digest"] = digest.into();
    }
    if let Some(digest) = past.digest(opened.folder())? {
        config["requests_sha256"] = digest.into();
        config["earlier_rows"] = json!(split.earlier);
    }
    if sealing.is_some() {
        config["keep_sealed"] = true.into();
    }
    if !data.returned().is_empty() {
        config["sealed_rows"] = json!(data.returned());
    }
    if calibrates {
        config["calibrated"] = json!(if args.always { "always" } else { "where_known" });
    }
    if let Some(controls) = &controls {
        config["controls_digest"] = controls.data().digest()?.into();
    }
    let needs = needs(
        opened,
        args,
        &settings,
        data,
        &split,
        texts.as_ref(),
        copied,
    )?;
    if !fits(args, config.clone(), &needs, observer)? {
        return Ok(None);
    }

    let start = Instant::now();
    progress::detail(format_args!("settings {}", config["settings"]));
    let begin = || -> Result<_, Failure> {
        let private = past.key.put()?;
        let run = RunFolder::begin(&args.out, existing, &config, &planned)?;
        if let Some(sealing) = &sealing {
            sealing.seal(data, &split, texts.as_ref(), &private.key)?;
        }
        Ok((run, private))
    };
    // A new run begins once all that it needs is read; one that goes on is compared with this command first.
    let ready = network.is_some() || existing == Existing::Resume;
    let begun = ready.then(begin).transpose()?;
    if begun.is_some() {
        interrupted_before_the_first_step(args.resume);
    }
    if let Some((run, _)) = begun.as_ref().filter(|(run, _)| run.is_moving()) {
        publish(run, &args.out, false)?;
        return Ok(Some(Summary::new(
            args,
            &settings,
            &split,
            Outcome::of_waiting(&args.out),
            run,
            &earlier,
        )));
    }
    let random = Random::new(settings.seed);
    let told = match &texts {
        Some(texts) => {
            let known: Vec<&str> = texts.known.iter().map(String::as_str).collect();
            Some(opened::embed(opened, &known, &device)?)
        }
        None => None,
    };
    let numbers = texts
        .as_ref()
        .map_or_else(Vec::new, |texts| texts.of_row.clone());
    let rows = [split.leaving(), split.retain.clone()].concat();
    let purposes = [
        (Purpose::Level, calibrates),
        (Purpose::Stop, calibrates),
        (Purpose::Report, !args.no_report),
    ];
    let purposes: Vec<Purpose> = purposes
        .into_iter()
        .filter_map(|(purpose, has)| has.then_some(purpose))
        .collect();
    let kept = match purposes.is_empty() {
        true => Vec::new(),
        false => kept(data, &split.retain)?,
    };
    let pictures = Pictures::read(data, &split.leaving(), kept, &purposes, settings.seed)?;
    let pictures = pictures.without_mirrors_of(&split.mirrored());
    let pictures = match &controls {
        Some(controls) => pictures.with_controls(controls),
        None => pictures,
    };
    let (latents, look_alikes) = encode(opened, data, &rows, numbers, random, pictures, &device)?;
    if let (Some(latents), Some(k)) = (&latents, nearest) {
        let found = latents.nearest(&split.retain, &split.leaving(), k)?;
        neighbors = Some(distances(data, &split.leaving(), &found)?);
    }
    let mut network = network.map_or_else(read, Ok)?;
    if let Some(rank) = rank {
        network = lora::attach(network, rank, &random);
    }
    if let Some(told) = &told {
        network.tell(told.clone());
    }
    let (run, private) = match begun {
        Some(begun) => begun,
        None => {
            let (run, private) = begin()?;
            (run.started(start), private)
        }
    };
    interrupted_before_the_first_step(args.resume);
    let about = evidence::Run {
        args,
        settings: &settings,
        folder: opened.folder(),
        scheduler: opened.scheduler(),
        images: match &latents {
            Some(latents) => latents,
            None => data,
        },
        look_alikes: &look_alikes,
        labels: opened.condition() != Condition::Nothing,
        text_to_image: told_texts,
        texts: texts.as_ref(),
        private: Some(&private),
        data,
        first: &[],
        found_known: None,
        ordinary: None,
        led: &earlier.led,
        split: &split,
        neighbors: neighbors.as_deref(),
        config: &config,
    };
    let unlearning = Unlearning {
        about: &about,
        folder: &run,
        device: &device,
        calibrates,
        past: &past,
        earlier: &earlier,
    };
    let delivery = Delivery {
        base: Base {
            model: opened,
            adapted: rank.is_some(),
            texts: told.as_ref(),
        },
        format,
        out: &args.out,
        device: &device,
    };
    unlearning.run(network, &delivery, observer).map(Some)
}

/// The images that say how far a run leads, where there are any.
///
/// # Errors
/// A run that is not led by them, images that are too few, of another shape, or cannot be read.
fn controls(args: &Task, data: &Dataset) -> Result<Option<Controls>, Failure> {
    let Some(path) = &args.controls else {
        return Ok(None);
    };
    if !settings::calibrates(args) {
        return Err(Failure::input(format!(
            "{}: they say how far the image is led, and so do the settings that were given; leave one of them out",
            Field::Controls
        )));
    }
    let controls = controls::open(path, args.controls_split.clone(), data)?;
    let usable = match controls.are_known() {
        true => 0,
        false => controls.rows().len(),
    };
    if usable < CONTROLS {
        return Err(Failure::input(format!(
            "{}: {usable} of its {} are not in the data set, and {CONTROLS} are needed; leave {} out to compare with look-alikes",
            path.display(),
            counted(controls.data().len(), "image"),
            Field::Controls
        )));
    }
    let left_out = controls.data().len() - usable;
    if left_out > 0 {
        progress::note(format!(
            "{}: {} also in the data set and left out",
            path.display(),
            match left_out {
                1 => "1 image is".to_owned(),
                many => format!("{many} images are"),
            }
        ));
    }
    Ok(Some(controls))
}

/// The `k` nearest retained images of each forgotten row. `dry`: what is found is not kept for the next run.
fn search(
    data: &Dataset,
    split: &Split,
    k: usize,
    dry: bool,
) -> Result<Vec<Vec<Neighbor>>, Failure> {
    let cache = machine::cache_folder().filter(|_| !dry);
    let searching = progress::activity("searching for neighbors");
    let prepared = prepare(data, split.clone(), k, model::BUDGET, cache.as_deref())?;
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
    Ok(prepared.neighbors)
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

/// Moves what earlier requests forgot behind what is to be forgotten now, the neighbors of each row with it.
fn set_apart(split: &mut Split, neighbors: &mut Option<Vec<Vec<Neighbor>>>, earlier: &Earlier) {
    let before = split.forget.clone();
    split.set_apart(&earlier.rows);
    if let Some(found) = neighbors {
        let mut of: HashMap<usize, Vec<Neighbor>> =
            before.into_iter().zip(std::mem::take(found)).collect();
        let rows = split.leaving().into_iter();
        *found = rows
            .map(|row| of.remove(&row).unwrap_or_default())
            .collect();
    }
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
        moment_bytes: settings.adamw.state.bytes(),
        streams: settings.objective().streams(),
        two_gradients: settings.objective().two_gradients(),
        rank: args.adapter_rank().map_err(Failure::input)?,
        images: split.leaving().len() + split.retain.len(),
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
    past: &Past,
    data: &Dataset,
    split: &Split,
    texts: Option<&Texts>,
) -> Result<Value, Failure> {
    let mut config = json!({
        "command": "unlearn",
        "version": env!("CARGO_PKG_VERSION"),
        "model": args.model.display().to_string(),
        "weights_sha256": past.digests,
        "data": args.data.path.display().to_string(),
        "split": args.data.reading.split,
        "alpha": data.alpha(),
        "data_digest": data.digest()?,
        // What names a file may say whose picture it is, and so may a prompt, which the digest stands for; the rows say
        // which one it was.
        "forget": selected(&args.forget, &split.forget),
    });
    record_resize(&mut config, data.resize());
    // Before the rows that follow from it: whoever resumes with another choice is told of this one.
    if let Some(near) = near_copies::record(split) {
        config["near_copies"] = near;
    }
    config["forget_rows"] = json!(split.forget);
    config["duplicate_rows"] = json!(split.duplicates);
    config["retained"] = split.retain.len().into();
    if let Some(texts) = texts {
        config["prompts"] = texts.known.len().into();
        config["prompts_digest"] = texts.digest().into();
    }
    config["device"] = json!(args.device);
    config["settings"] = json!(settings);
    if let Ok(Some(rank)) = args.adapter_rank() {
        config["adapter_rank"] = rank.into();
        if let Ok(LoraFormat::Kohya) = args.adapter_format() {
            config["lora_format"] = "kohya".into();
        }
    }
    Ok(config)
}
