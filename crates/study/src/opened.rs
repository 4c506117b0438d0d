//! What several commands do with models of any kind.

use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use retrack_checkpoint::folder::{Class, FolderError, ModelFolder};
use retrack_checkpoint::words::counted;
use retrack_data::{Captions, Dataset, MEMORIZED, captions, is_published, own_captions};
use retrack_networks::denoiser::Embeddings;
use retrack_networks::diffusion::{self, Condition, Diffusion};
use retrack_networks::lora;
use retrack_networks::model::Model;
use retrack_networks::schedule::SchedulerKind;

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
///
/// # Errors
/// Whatever is wrong with the folder.
pub fn open(path: &Path) -> Result<Opened, Failure> {
    let opened = diffusion::from_folder(folder(path)?)?;
    say(opened.denoiser(), &opened.wrappings()?);
    Ok(Opened(opened))
}

/// Opens the denoiser of a model of any kind, which may lie alone.
///
/// # Errors
/// Whatever is wrong with the folder.
pub fn open_denoiser(path: &Path) -> Result<Model, Failure> {
    let opened = Model::from_folder(folder(path)?)?;
    say(&opened, &Diffusion::wrappings(&opened)?);
    Ok(opened)
}

fn folder(path: &Path) -> Result<ModelFolder, Failure> {
    let folder = ModelFolder::open(path).map_err(|error| unfinished(path, error))?;
    model::say_weights(&folder);
    Ok(folder)
}

/// Says what of a model is not taken as it stands there.
fn say(model: &Model, wrappings: &[(PathBuf, String)]) {
    for (folder, prefix) in wrappings {
        model::note_wrapping(folder, prefix);
    }
    let folder = &model.folder;
    model::warn_of_betas(folder, &model.scheduler);
    for key in &model.config.unknown_keys {
        progress::warn(format!(
            "{}: `{key}` means nothing to this network and is ignored",
            folder.config_path().display()
        ));
    }
    let (root, class) = (folder.root(), folder.class);
    if class == Class::Unconditional && folder.scheduler.is_none() {
        progress::warn(format!(
            "{}: no scheduler_config.json; taking diffusers' DDPM defaults (linear betas 1e-4 to 0.02, 1000 steps)",
            root.display()
        ));
    }
    if class == Class::Conditional && root.join(lora::FILE_NAME).is_file() {
        progress::warn(format!(
            "{}: its adapter {} is not applied, so this is the model without it; `retrack merge` folds it in",
            root.display(),
            lora::FILE_NAME
        ));
    }
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

    /// See [`open_data`].
    ///
    /// # Errors
    /// What cannot be read, images that the model does not take.
    pub fn open_data(&self, source: &DataSource) -> Result<Dataset, Failure> {
        open_data(&**self, source)
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

/// Opens the data set that a model was, or could have been, trained on.
///
/// # Errors
/// What cannot be read, images that the model does not take.
pub fn open_data(opened: &dyn Diffusion, source: &DataSource) -> Result<Dataset, Failure> {
    let model = opened.denoiser();
    model::check_images(model)?;
    let path = &source.path;
    let data = model::open_images(source, Some(opened.channels()))?;
    let shape = data.shape();
    let [height, width] = [shape.height, shape.width];
    let found = format!("{}: images of {height} x {width} pixels", path.display());
    // An autoencoder halves them, and so may the denoiser.
    let multiple = opened.side_multiple();
    if !height.is_multiple_of(multiple) || !width.is_multiple_of(multiple) {
        let side = height.min(width).next_multiple_of(multiple);
        return Err(Failure::input(format!(
            "{found}; this model takes multiples of {multiple}; {}",
            situation::advice_on(Situation::Sizes, side)
        )));
    }
    if let Some([own_height, own_width]) = opened.image_size()
        && [own_height, own_width] != [height, width]
    {
        let other = format!("{found}, but the model was made for {own_height} x {own_width}");
        // What denoises latents is used for other sizes too.
        match opened.latent_factor() {
            Some(_) => progress::warn(other),
            None => {
                let advice = match own_height == own_width {
                    true => situation::advice_on(Situation::OtherSize, own_height),
                    false => Situation::OtherSize.advice().to_owned(),
                };
                return Err(Failure::input(format!("{other}; {advice}")));
            }
        }
    }
    let factor = opened.latent_factor().unwrap_or(1);
    model.config.check_size(height / factor, width / factor)?;
    Ok(data)
}

/// The caption of each image, and a word where an image has several.
///
/// # Errors
/// Captions that cannot be read.
pub fn read_captions(data: &Dataset, from: &str) -> Result<Vec<String>, Failure> {
    Ok(said(captions(data, from)?, from, data))
}

/// The caption of each image that lies in a folder of images without being named, if any do, and a word that it is read.
///
/// # Errors
/// As [`own_captions`].
pub fn read_own_captions(data: &Dataset) -> Result<Option<Vec<String>>, Failure> {
    let Some((captions, from)) = own_captions(data)? else {
        return Ok(None);
    };
    progress::note(format!("the images' texts are those of {from}"));
    Ok(Some(said(captions, &from, data)))
}

fn said(captions: Captions, from: &str, data: &Dataset) -> Vec<String> {
    if captions.several > 0 {
        progress::warn(format!(
            "{from}: {} of {} have several captions; the first of each is taken",
            captions.several,
            counted(data.len(), "image")
        ));
    }
    captions.texts
}

/// Encodes texts and says which were too long.
///
/// # Errors
/// As [`Diffusion::embed`].
pub fn embed(
    opened: &dyn Diffusion,
    texts: &[&str],
    device: &Device,
) -> Result<Embeddings, Failure> {
    let texts: Vec<Option<&str>> = texts.iter().copied().map(Some).collect();
    embed_any(opened, &texts, device)
}

/// The same, where some may be no text at all.
///
/// # Errors
/// As [`Diffusion::embed`].
pub fn embed_any(
    opened: &dyn Diffusion,
    texts: &[Option<&str>],
    device: &Device,
) -> Result<Embeddings, Failure> {
    let found = opened.embed(texts, &device.clone().without_autodiff())?;
    for (text, cut) in texts.iter().zip(found.cut) {
        if let (Some(text), Some(cut)) = (text, cut) {
            progress::warn(format!(
                "the prompt \"{}\" has more than the {} tokens that the model reads; \"{}\" is ignored",
                shortened(text),
                opened.prompt_tokens().unwrap_or(0),
                shortened(&cut)
            ));
        }
    }
    Ok(found.texts)
}

/// A text for a message.
pub fn shortened(text: &str) -> String {
    const MOST: usize = 60;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_string(),
    }
}
