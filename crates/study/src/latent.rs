//! What several commands do with text-to-image models.

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use retrack_checkpoint::folder::{Class, FolderError, ModelFolder, Weights};
use retrack_checkpoint::words::counted;
use retrack_data::{Dataset, ImageShape, MEMORIZED, captions, is_published};
use retrack_networks::conditional::{Guided, UNet2DConditionModel};
use retrack_networks::lora;
use retrack_networks::model::Model;
use retrack_networks::parameters::to_host;
use retrack_networks::random::Random;
use retrack_networks::sampling::Generator;
use retrack_networks::schedule::{SchedulerConfig, SchedulerKind};
use retrack_networks::stable_diffusion::{ConditionalModel, Embedded, StableDiffusion};

use crate::evaluation::Prompts;
use crate::failure::Failure;
use crate::names::SamplerName;
use crate::run::{RunFolder, State};
use crate::situation::{self, Situation};
use crate::source::{DataSource, PromptOptions};
use crate::{model, progress, space};

/// A model of either kind.
pub enum Opened {
    /// Denoises images.
    Image(Box<Model>),
    /// Denoises the latents of images, by a text.
    Text(Box<StableDiffusion>),
}

/// Opens a model of either kind and says what in its configuration means nothing.
pub fn open(path: &Path) -> Result<Opened, Failure> {
    let folder = ModelFolder::open(path).map_err(|error| unfinished(path, error))?;
    if folder.class == Class::Unconditional {
        return Ok(Opened::Image(Box::new(model::from_folder(folder)?)));
    }
    model::say_weights(&folder);
    let opened = StableDiffusion::from_folder(folder)?;
    warn_of_unknown_keys(&opened.model);
    model::warn_of_betas(&opened.model.folder, &opened.model.scheduler);
    for (folder, prefix) in opened.wrappings()? {
        model::note_wrapping(&folder, &prefix);
    }
    warn_of_adapter(path, &opened.model);
    Ok(Opened::Text(Box::new(opened)))
}

/// Why a folder is no model: a run there may not have come to its end.
fn unfinished(path: &Path, error: FolderError) -> Failure {
    match RunFolder::state(path) {
        State::Interrupted => Failure::input(format!(
            "{}: the run there was interrupted and has no model yet; finish it with `retrack unlearn --resume` or \
             `retrack train --resume` and the options that began it",
            path.display()
        )),
        _ => error.into(),
    }
}

impl Opened {
    pub fn folder(&self) -> &ModelFolder {
        match self {
            Self::Image(opened) => &opened.folder,
            Self::Text(opened) => &opened.model.folder,
        }
    }

    pub fn weights_mut(&mut self) -> &mut Weights {
        match self {
            Self::Image(opened) => opened.weights_mut(),
            Self::Text(opened) => opened.model.weights_mut(),
        }
    }

    pub fn scheduler(&self) -> &SchedulerConfig {
        match self {
            Self::Image(opened) => &opened.scheduler,
            Self::Text(opened) => &opened.model.scheduler,
        }
    }

    /// [`model::steps`], by a scheduler of that name or the model's own.
    pub fn steps(&self, scheduler: Option<SamplerName>, wanted: usize) -> usize {
        let other = scheduler.map(SchedulerKind::from);
        let (kind, config) = match self {
            Self::Image(opened) => (other.unwrap_or(opened.scheduler.kind), &opened.scheduler),
            Self::Text(opened) => opened.model.sampling(other),
        };
        model::steps(kind, config, wanted)
    }

    /// Opens the data set that this model was, or could have been, trained on.
    ///
    /// # Errors
    /// What cannot be read, images that the model does not take.
    pub fn open_data(&self, source: &DataSource) -> Result<Dataset, Failure> {
        match self {
            Self::Image(opened) => model::open_data(source, opened),
            Self::Text(opened) => open_data(source, opened),
        }
    }

    /// What to draw, where it is a text-to-image model.
    ///
    /// # Errors
    /// Prompts for a model that takes none; none for one that needs them.
    pub fn prompts(&self, typed: &PromptOptions, data: &Path) -> Result<Option<Prompts>, Failure> {
        match (self, typed.typed()) {
            (Self::Text(_), _) => Ok(Some(Prompts::read(typed, data)?)),
            (Self::Image(_), None) => Ok(None),
            (Self::Image(opened), Some(option)) => Err(Failure::input(format!(
                "{}: this model takes no text; leave {option} out",
                opened.folder.root().display()
            ))),
        }
    }

    /// What is to be forgotten: as typed, or what the published layout of a prompt's images says.
    ///
    /// # Errors
    /// Neither.
    pub fn selection(&self, typed: &[String], data: &Path) -> Result<Vec<String>, Failure> {
        match (self, typed) {
            (Self::Text(_), []) if is_published(data) => Ok(vec![format!("cluster:{MEMORIZED}")]),
            (_, []) => Err(Failure::input(
                "--forget is missing; say what to forget: an image file, row:5, rows:10-19, label:10 or @list.txt",
            )),
            (_, typed) => Ok(typed.to_vec()),
        }
    }
}

/// Opens the images that the model was trained on or draws, as RGB.
pub fn open_data(source: &DataSource, opened: &StableDiffusion) -> Result<Dataset, Failure> {
    let path = &source.path;
    let data = model::open_images(path, &source.reading, Some(opened.vae_config.in_channels))?;
    let shape = data.shape();
    // Halved by the autoencoder, and again by a denoiser that takes no odd sides.
    let multiple = opened.latent_factor() * opened.model.config.side_multiple();
    if !shape.height.is_multiple_of(multiple) || !shape.width.is_multiple_of(multiple) {
        return Err(Failure::input(format!(
            "{}: images of {} x {} pixels; this model takes multiples of {multiple}; crop or resize them first",
            path.display(),
            shape.height,
            shape.width
        )));
    }
    if let Some([height, width]) = opened.image_size()
        && [height, width] != [shape.height, shape.width]
    {
        progress::warn(format!(
            "{}: images of {} x {} pixels, but the model was made for {height} x {width}",
            path.display(),
            shape.height,
            shape.width
        ));
    }
    Ok(data)
}

/// The caption of each image, and a word where an image has several.
pub fn read_captions(data: &Dataset, from: &str) -> Result<Vec<String>, Failure> {
    let captions = captions(data, from)?;
    if captions.several > 0 {
        progress::warn(format!(
            "{from}: {} of {} have several captions; the first of each is taken",
            captions.several,
            counted(data.len(), "image")
        ));
    }
    Ok(captions.texts)
}

/// A denoiser of either kind, without what may lie around it.
pub enum Network {
    Image(Box<Model>),
    Text(Box<ConditionalModel>),
}

/// Opens a denoiser of either kind; a conditional one may lie alone.
pub fn open_network(path: &Path) -> Result<Network, Failure> {
    let folder = ModelFolder::open(path).map_err(|error| unfinished(path, error))?;
    if folder.class == Class::Unconditional {
        return Ok(Network::Image(Box::new(model::from_folder(folder)?)));
    }
    model::say_weights(&folder);
    let opened = ConditionalModel::from_folder(folder)?;
    warn_of_unknown_keys(&opened);
    model::warn_of_betas(&opened.folder, &opened.scheduler);
    model::note_wrapping(
        &opened.folder.config_path().with_file_name(""),
        opened.wrapping(),
    );
    warn_of_adapter(path, &opened);
    Ok(Network::Text(Box::new(opened)))
}

/// Says that a folder's adapter is no part of what is read of it.
fn warn_of_adapter(path: &Path, model: &ConditionalModel) {
    if model.folder.root().join(lora::FILE_NAME).is_file() {
        progress::warn(format!(
            "{}: its adapter {} is not applied, so this is the model without it; `retrack merge` folds it in",
            path.display(),
            lora::FILE_NAME
        ));
    }
}

fn warn_of_unknown_keys(model: &ConditionalModel) {
    for key in &model.config.unknown_keys {
        progress::warn(format!(
            "{}: `{key}` means nothing to this network and is ignored",
            model.folder.config_path().display()
        ));
    }
}

/// Encodes texts and says which were too long.
pub fn embed(
    opened: &StableDiffusion,
    texts: &[&str],
    device: &Device,
) -> Result<Tensor<3>, Failure> {
    let Embedded { states, cut } = opened.embed(texts, &device.clone().without_autodiff())?;
    for (text, cut) in texts.iter().zip(cut) {
        if let Some(cut) = cut {
            progress::warn(format!(
                "the prompt \"{}\" has more than the {} tokens that the model reads; \"{}\" is ignored",
                shortened(text),
                opened.tokenizer.max_length(),
                shortened(&cut)
            ));
        }
    }
    Ok(states)
}

/// A text for a message.
pub fn shortened(text: &str) -> String {
    const MOST: usize = 60;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_string(),
    }
}

/// Images to draw by a prompt.
pub struct PromptedSamples<'a> {
    pub count: usize,
    pub steps: usize,
    /// `None`: the model's own.
    pub scheduler: Option<SchedulerKind>,
    pub seed: u64,
    pub batch_size: usize,
    pub prompt: &'a str,
    pub negative_prompt: &'a str,
    pub guidance: f64,
}

impl PromptedSamples<'_> {
    /// Refuses latents of an absurd size before they take any memory: counts them, the images, and what a pass with and
    /// without the prompt begins with, which is less than all of it.
    fn check_memory(
        &self,
        opened: &StableDiffusion,
        [height, width]: [usize; 2],
    ) -> Result<(), Failure> {
        let config = &opened.model.config;
        let pixels = height as f64 * width as f64;
        let together = self.batch_size.min(self.count) as f64;
        let latents = self.count as f64 * pixels * config.in_channels as f64 * 4.0;
        let images = self.count as f64 * pixels * (opened.latent_factor().pow(2) * 3) as f64;
        let pass = together * 2.0 * pixels * config.block_out_channels[0] as f64 * 4.0;
        space::check_memory(
            latents + images + pass,
            &format!("{}, {together} at a time,", counted(self.count, "sample")),
            &situation::smaller_samples(self.count, &opened.model.folder.config_path()),
        )
    }

    /// Draws images, bytes one after another.
    ///
    /// # Errors
    /// A model that says no size, steps that the schedule does not have.
    pub fn draw(
        &self,
        opened: &StableDiffusion,
        network: &UNet2DConditionModel,
        device: &Device,
        title: &str,
    ) -> Result<(Vec<u8>, ImageShape), Failure> {
        let Some([height, width]) = opened.model.config.sample_size else {
            return Err(Failure::input(format!(
                "{}: `sample_size` is missing; add the height and width of its latents",
                opened.model.folder.config_path().display()
            )));
        };
        if !self.guidance.is_finite() {
            return Err(Failure::input(format!(
                "--guidance is {}; give a number",
                self.guidance
            )));
        }
        if let (None, Some(name)) = (self.scheduler, opened.model.scheduler.foreign) {
            progress::warn(format!(
                "{}: {name} is not built here; sampling by DDIM in its place ({})",
                opened.model.folder.root().display(),
                situation::advice(Situation::ForeignScheduler)
            ));
        }
        self.check_memory(opened, [height, width])?;
        let (kind, config) = opened.model.sampling(self.scheduler);
        let sampler = model::sampler(kind, config, self.steps, &opened.model.folder)?;
        let device = device.clone().without_autodiff();
        progress::detail(format_args!(
            "{} images by {} in {} steps, guidance {}, {} at a time, seed {}",
            self.count,
            kind.class_name(),
            self.steps,
            self.guidance,
            self.batch_size,
            self.seed
        ));
        let texts = embed(opened, &[self.prompt, self.negative_prompt], &device)?;
        let network = Guided {
            network,
            prompt: texts.clone().narrow(0, 0, 1),
            negative: texts.narrow(0, 1, 1),
            guidance: self.guidance,
        };
        let latent_shape = [height, width, opened.model.config.in_channels];
        let generator = Generator {
            network: &network,
            sampler: &sampler,
            random: Random::new(self.seed),
            shape: latent_shape,
            device: &device,
        };
        let batches = self.count.div_ceil(self.batch_size);
        let bar = progress::bar(title, batches * sampler.timesteps().len(), "steps");
        let mut latents = Vec::new();
        for batch in 0..batches {
            let first = batch * self.batch_size;
            let last = (first + self.batch_size).min(self.count);
            latents.extend(generator.images(first as u64..last as u64, None, &mut || bar.inc(1))?);
        }
        drop(bar);
        decode(opened, &latents, latent_shape, &device)
    }
}

/// The images of latents, one at a time: an autoencoder's layers are large.
fn decode(
    opened: &StableDiffusion,
    latents: &[f32],
    [height, width, channels]: [usize; 3],
    device: &Device,
) -> Result<(Vec<u8>, ImageShape), Failure> {
    let autoencoder = opened.autoencoder(device)?;
    let factor = opened.latent_factor();
    let shape = ImageShape {
        height: height * factor,
        width: width * factor,
        channels: 3,
    };
    let len = height * width * channels;
    let bar = progress::bar("decoding", latents.len() / len, "images");
    let mut bytes = Vec::with_capacity(latents.len() / len * shape.bytes());
    for latent in latents.chunks_exact(len) {
        let latent = TensorData::new(latent.to_vec(), [1, height, width, channels]);
        let image = autoencoder
            .to_images(Tensor::from_data(latent, device))
            .map_err(Failure::input)?;
        bytes.extend(model::to_bytes(&to_host(image), "samples")?);
        bar.inc(1);
    }
    Ok((bytes, shape))
}
