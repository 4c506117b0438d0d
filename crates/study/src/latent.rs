//! What several commands do with text-to-image models.

use std::ops::{Deref, DerefMut};
use std::path::Path;

use burn::tensor::{Device, Tensor};
use retrack_checkpoint::folder::{Class, FolderError, ModelFolder};
use retrack_checkpoint::words::counted;
use retrack_data::{Dataset, MEMORIZED, captions, is_published};
use retrack_networks::diffusion::{Condition, Diffusion};
use retrack_networks::lora;
use retrack_networks::model::Model;
use retrack_networks::schedule::SchedulerKind;
use retrack_networks::stable_diffusion::{ConditionalModel, Embedded, StableDiffusion};

use crate::evaluation::Prompts;
use crate::failure::Failure;
use crate::field::Field;
use crate::names::SamplerName;
use crate::run::{RunFolder, State};
use crate::situation::{self, Situation};
use crate::source::{DataSource, PromptOptions};
use crate::{model, progress};

/// A model of any kind, opened.
pub struct Opened(Box<dyn Diffusion>);

impl Deref for Opened {
    type Target = dyn Diffusion;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl DerefMut for Opened {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut *self.0
    }
}

/// Opens a model of any kind and says what in its configuration means nothing.
pub fn open(path: &Path) -> Result<Opened, Failure> {
    let folder = ModelFolder::open(path).map_err(|error| unfinished(path, error))?;
    if folder.class == Class::Unconditional {
        return Ok(Opened(Box::new(model::from_folder(folder)?)));
    }
    model::say_weights(&folder);
    let opened = StableDiffusion::from_folder(folder)?;
    warn_of_unknown_keys(&opened.model);
    model::warn_of_betas(&opened.model.folder, &opened.model.scheduler);
    for (folder, prefix) in opened.wrappings()? {
        model::note_wrapping(&folder, &prefix);
    }
    warn_of_adapter(path, &opened.model);
    Ok(Opened(Box::new(opened)))
}

/// Why a folder is no model: a run there may not have come to its end.
fn unfinished(path: &Path, error: FolderError) -> Failure {
    match RunFolder::state(path) {
        State::Interrupted => Failure::input(format!(
            "{}: the run there was interrupted and has no model yet; {}",
            path.display(),
            situation::advice(Situation::NoModelYet)
        )),
        _ => error.into(),
    }
}

impl Opened {
    /// [`model::steps`], by a scheduler of that name or the model's own.
    pub fn steps(&self, scheduler: Option<SamplerName>, wanted: usize) -> usize {
        let (kind, config) = self.sampling(scheduler.map(SchedulerKind::from));
        model::steps(kind, config, wanted)
    }

    /// Opens the data set that this model was, or could have been, trained on.
    ///
    /// # Errors
    /// What cannot be read, images that the model does not take.
    pub fn open_data(&self, source: &DataSource) -> Result<Dataset, Failure> {
        match (self.as_pixels(), self.as_latents()) {
            (Some(opened), _) => model::open_data(source, opened),
            (_, Some(opened)) => open_data(source, opened),
            _ => unreachable!("a model is of one of these kinds"),
        }
    }

    /// What to draw, where it is a text-to-image model.
    ///
    /// # Errors
    /// Prompts for a model that takes none; none for one that needs them.
    pub fn prompts(&self, typed: &PromptOptions, data: &Path) -> Result<Option<Prompts>, Failure> {
        match (self.condition(), typed.given()) {
            (Condition::Text, _) => Ok(Some(Prompts::read(typed, data)?)),
            (_, None) => Ok(None),
            (_, Some(field)) => Err(Failure::input(format!(
                "{}: this model takes no text; leave {field} out",
                self.folder().root().display()
            ))),
        }
    }

    /// What is to be forgotten: as typed, or what the published layout of a prompt's images says.
    ///
    /// # Errors
    /// Neither.
    pub fn selection(&self, typed: &[String], data: &Path) -> Result<Vec<String>, Failure> {
        match (self.condition(), typed) {
            (Condition::Text, []) if is_published(data) => Ok(vec![format!("cluster:{MEMORIZED}")]),
            (_, []) => Err(Failure::input(format!(
                "{} is missing; say what to forget: an image file, row:5, rows:10-19, label:10 or @list.txt",
                Field::Forget
            ))),
            (_, typed) => Ok(typed.to_vec()),
        }
    }
}

/// Opens the images that the model was trained on or draws, as RGB.
pub fn open_data(source: &DataSource, opened: &StableDiffusion) -> Result<Dataset, Failure> {
    let path = &source.path;
    let data = model::open_images(source, Some(opened.vae_config.in_channels))?;
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
