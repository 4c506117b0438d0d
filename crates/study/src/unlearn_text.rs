//! Unlearning of text-to-image models: the same run on latents.

use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::run::{Existing, RunFolder};
use burn::tensor::Device;
use retrack_data::neighbors::{Neighbor, NeighborError, Neighbors};
use retrack_data::{Dataset, Split, original_prompt};
use retrack_networks::denoiser::Denoiser;
use retrack_networks::diffusion::Diffusion;
use retrack_networks::lora;
use retrack_networks::random::Random;
use retrack_networks::stable_diffusion::StableDiffusion;
use retrack_unlearn::latents::{Encoder, LatentError, Latents};
use retrack_unlearn::recipe::TEXT_TO_IMAGE;
use retrack_unlearn::texts::{Prompts, Texts};

use crate::delivery::Delivery;
use crate::evidence::{self, Private};
use crate::failure::Failure;
use crate::field::Field;
use crate::latent::Opened;
use crate::names::DtypeName;
use crate::observer::Observer;
use crate::settings;
use crate::task::Task;
use crate::unlearn::{convert, interrupted_before_the_first_step, needs, resolved};
use crate::unlearning::{Outcome, Summary, Unlearning, fits, publish, report_split};
use crate::{latent, model, progress};

/// Refuses what only text-to-image models take.
pub fn refuse_texts(args: &Task) -> Result<(), Failure> {
    let texts = [
        (Field::Prompt, &args.prompt),
        (Field::ForgetPrompt, &args.forget_prompt),
        (Field::RetainPrompt, &args.retain_prompt),
        (Field::Captions, &args.captions),
    ];
    if args.train.is_some() || args.rank.is_some() {
        return Err(Failure::input(format!(
            "{}: adapters are for text-to-image models; leave {} and {} out",
            args.model.display(),
            Field::Train,
            Field::Rank
        )));
    }
    if let Some((field, _)) = texts.iter().find(|(_, text)| text.is_some()) {
        return Err(Failure::input(format!(
            "{}: this model takes no text; leave {field} out",
            args.model.display()
        )));
    }
    Ok(())
}

/// What is known of a run's output before it begins.
pub struct Destination<'a> {
    pub existing: Existing,
    /// Files of the folder that will be written.
    pub planned: &'a [PathBuf],
    /// Their bytes.
    pub copied: u64,
    /// Where the report's key is.
    pub key: Option<&'a Path>,
}

/// Runs the command; `None` after a dry run.
pub fn unlearn(
    args: &Task,
    destination: Destination,
    device: &Device,
    mut opened: Opened,
    observer: &mut dyn Observer,
) -> Result<Option<Summary>, Failure> {
    let Destination {
        existing,
        planned,
        mut copied,
        key,
    } = destination;
    let rank = args.adapter_rank().map_err(Failure::input)?;
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
    let opened = opened.as_latents().expect("a text-to-image model");
    let data = latent::open_data(&args.data, opened)?;
    let shape = data.shape();
    let with_preset = Task {
        preset: args.preset.clone().or(Some(TEXT_TO_IMAGE.into())),
        ..args.clone()
    };
    let settings = settings::resolve(&with_preset, shape.height, shape.width)?;
    settings::note_source(args, true, shape.height, shape.width);
    let objective = settings.objective();

    let rows = model::select(&args.forget, &data)?;
    let mut split = Split::new(&data, &rows, model::BUDGET)?;
    if split.retain.is_empty() {
        return Err(Failure::input(
            "all images are selected or exact copies of the selected ones; nothing would be retained",
        ));
    }
    let nearest = match settings.neighbors {
        Neighbors::Nearest(k) if objective.draws().neighbors => Some(k),
        _ => None,
    };
    if let Some(wanted) = nearest.filter(|&k| k > split.retain.len()) {
        let retained = split.retain.len();
        return Err(NeighborError::TooFew { wanted, retained }.into());
    }
    let texts = read_texts(args, &data, &split)?;
    let config = resolved(args, &settings, opened, &data, &split, Some(&texts))?;
    let needs = needs(opened, args, &settings, &data, &split, Some(&texts), copied)?;
    if args.dry_run {
        report_split(&split, &data);
    }
    if !fits(args, config.clone(), &needs, observer)? {
        return Ok(None);
    }

    let start = Instant::now();
    // A new run begins once all that it needs is read; one that goes on is compared with this command first.
    progress::detail(format_args!("settings {}", config["settings"]));
    let begin = || -> Result<_, Failure> {
        let private = key.map(Private::open_or_create).transpose()?;
        let run = RunFolder::begin(&args.out, existing, &config, planned)?;
        Ok((run, private))
    };
    let resumed = (existing == Existing::Resume).then(begin).transpose()?;
    if resumed.is_some() {
        interrupted_before_the_first_step(args.resume);
    }
    if let Some((run, _)) = resumed.as_ref().filter(|(run, _)| run.is_moving()) {
        publish(run, &args.out, false)?;
        return Ok(Some(Summary::new(
            args,
            &settings,
            &split,
            Outcome::of_waiting(&args.out),
            run,
        )));
    }
    // Text encoder, autoencoder and denoiser are in memory one after another.
    let known: Vec<&str> = texts.known.iter().map(String::as_str).collect();
    let states = latent::embed(opened, &known, device)?;
    let random = Random::new(settings.seed);
    let rows: Vec<usize> = split.forget.iter().chain(&split.retain).copied().collect();
    let latents = encode(opened, &data, &rows, texts.of_row.clone(), random, device)?;
    let neighbors = match nearest {
        Some(k) => {
            let found = latents.nearest(&split.retain, &split.forget, k)?;
            let distances = distances(&data, &split.forget, &found)?;
            split.report_near(&distances, shape.bytes());
            Some(distances)
        }
        None => None,
    };
    report_split(&split, &data);

    let with_autodiff = device.clone().autodiff();
    let mut network = Diffusion::network(opened, &with_autodiff)?;
    if let Some(rank) = rank {
        network = lora::attach(network, rank, &random);
    }
    network.tell(states.clone());
    let (run, private) = match resumed {
        Some(run) => run,
        None => {
            let (run, private) = begin()?;
            (run.started(start), private)
        }
    };
    interrupted_before_the_first_step(args.resume);
    let about = evidence::Run {
        args,
        settings: &settings,
        folder: &opened.model.folder,
        scheduler: &opened.model.scheduler,
        images: &latents,
        labels: true,
        text_to_image: true,
        texts: Some(&texts),
        private: private.as_ref(),
        data: &data,
        split: &split,
        neighbors: neighbors.as_deref(),
        config: &config,
    };
    let unlearning = Unlearning {
        about: &about,
        folder: &run,
        device,
    };
    let delivery = Delivery {
        base: opened,
        adapted: rank.is_some(),
        texts: Some(states),
        out: &args.out,
        device,
    };
    unlearning.run(network, &delivery, observer).map(Some)
}

/// Which image has which text: what was typed, or what the data says of itself.
fn read_texts(args: &Task, data: &Dataset, split: &Split) -> Result<Texts, Failure> {
    let prompts = Prompts {
        forget: args.forget_prompt.clone(),
        retain: args.retain_prompt.clone(),
        captions: match &args.captions {
            Some(from) => Some(latent::read_captions(data, from)?),
            None => None,
        },
        all: match &args.prompt {
            Some(prompt) => Some(prompt.clone()),
            None if retrack_data::is_published(&args.data.path) => {
                original_prompt(&args.data.path)?
            }
            None => None,
        },
    };
    Texts::assign(&prompts, split, data.len()).map_err(|missing| {
        let own = match missing.forgotten {
            true => Field::ForgetPrompt,
            false => Field::RetainPrompt,
        };
        Failure::input(format!(
            "{} has no prompt; give one for all images with {}, one for each with {}, or {own}",
            data.name(missing.row),
            Field::Prompt,
            Field::Captions
        ))
    })
}

/// The latents of some rows. `texts`: the number of each row's text. The autoencoder is dropped at the end.
pub fn encode(
    opened: &StableDiffusion,
    data: &Dataset,
    rows: &[usize],
    texts: Vec<i64>,
    random: Random,
    device: &Device,
) -> Result<Latents, Failure> {
    let device = device.clone().without_autodiff();
    let autoencoder = opened.autoencoder(&device)?;
    let encoder = Encoder {
        autoencoder: &autoencoder,
        scaling_factor: opened.vae_config.scaling_factor,
        device: &device,
    };
    let bar = progress::bar("encoding", rows.len(), "images");
    let latents = Latents::encode(&encoder, data, rows, texts, random, || bar.inc(1));
    drop(bar);
    latents.map_err(|error| match error {
        LatentError::Data(error) => error.into(),
        error => Failure::input(error),
    })
}

/// How far apart the pixels of neighbors are.
fn distances(
    data: &Dataset,
    forget: &[usize],
    neighbors: &[Vec<usize>],
) -> Result<Vec<Vec<Neighbor>>, Failure> {
    let read = |row| {
        let mut image = vec![0; data.shape().bytes()];
        data.read(row, &mut image)?;
        Ok::<_, Failure>(image)
    };
    let pairs = forget.iter().zip(neighbors);
    pairs
        .map(|(&of, rows)| {
            let own = read(of)?;
            rows.iter()
                .map(|&row| {
                    let squares = own.iter().zip(read(row)?).map(|(&a, b)| {
                        let difference = i64::from(a) - i64::from(b);
                        (difference * difference) as u64
                    });
                    Ok(Neighbor {
                        row,
                        distance_squared: squares.sum(),
                    })
                })
                .collect()
        })
        .collect()
}
