//! What any model folder is to the rest of the house, whichever family its network is of.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use retrack_checkpoint::folder::{Class, ModelFolder, Weights, Written};

use crate::cost::{Footprint, Training};
use crate::denoiser::Embeddings;
use crate::model::{Model, ModelError};
use crate::network::Network;
use crate::process::Process;
use crate::schedule::{SchedulerConfig, SchedulerKind};
use crate::stable_diffusion::StableDiffusion;
use crate::vae::VaeError;

/// What a network is told beside a noisy image and its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    Nothing,
    /// Which of so many classes its image is of.
    Class(usize),
    /// What text encoders make of a text.
    Text,
}

impl Condition {
    /// How many classes there are, of a network that is told one.
    pub fn classes(self) -> Option<usize> {
        match self {
            Self::Class(classes) => Some(classes),
            Self::Nothing | Self::Text => None,
        }
    }
}

/// A model of images: a denoiser with what lies around it in its folder.
///
/// The denoiser sees either the images' pixels or what an [autoencoder](Self::autoencoder) makes of them, and beside them
/// what its [`Condition`] says. Both are each model's own: one of latents may have classes, or nothing.
pub trait Diffusion {
    /// The denoiser with its folder, scheduler and weights.
    fn denoiser(&self) -> &Model;

    /// The same, to say how its weights are to be written.
    fn denoiser_mut(&mut self) -> &mut Model;

    /// What training costs.
    fn footprint(&self, training: &Training) -> Footprint;

    /// Bytes that drawing `count` images takes at least, so many `together`, besides the weights. `size`: height and width
    /// of what the network denoises.
    fn drawing(&self, size: [usize; 2], count: usize, together: usize) -> f64;

    /// Channels of the model's images.
    fn channels(&self) -> usize {
        self.denoiser().config.in_channels
    }

    /// How many pixels of an image one latent stands for, each way; `None` where the network denoises pixels.
    fn latent_factor(&self) -> Option<usize> {
        None
    }

    /// What makes latents of images and images of latents, read from the folder; `None` where the network denoises pixels.
    ///
    /// # Errors
    /// Weights that cannot be read or do not fit.
    fn autoencoder(&self, device: &Device) -> Result<Option<Box<dyn Autoencoder>>, ModelError> {
        let _ = device;
        Ok(None)
    }

    /// Encodes texts: reads what encodes them, uses it once and drops it. `None` is no text at all, which a model may tell from
    /// the empty one: what guidance leads away from where nothing else is said.
    ///
    /// # Errors
    /// No texts; an encoder that cannot be read; a tokenizer whose numbers the encoder does not know; a model without a
    /// text encoder.
    fn embed(&self, texts: &[Option<&str>], device: &Device) -> Result<Embedded, ModelError> {
        let _ = (texts, device);
        Err(ModelError::Unconditional {
            path: self.folder().root().to_path_buf(),
        })
    }

    /// Numbers in all parameters of the networks beside the denoiser, each with a name for it.
    ///
    /// # Errors
    /// Weights that cannot be read or do not fit.
    fn other_parameters(&self) -> Result<Vec<(&'static str, usize)>, ModelError> {
        Ok(Vec::new())
    }

    /// The most tokens of a text that are read, of a model that is told texts.
    fn prompt_tokens(&self) -> Option<usize> {
        None
    }

    /// What wrappers of PyTorch put before every name of a network's weights, see [`Weights::wrapping`], with the path of
    /// that network's folder; nothing for the networks whose names are their own.
    ///
    /// # Errors
    /// Weight files that are missing or damaged.
    fn wrappings(&self) -> Result<Vec<(PathBuf, String)>, ModelError> {
        let (folder, prefix) = self.denoiser().wrapping();
        let own = (!prefix.is_empty()).then(|| (folder, prefix.to_owned()));
        Ok(own.into_iter().collect())
    }

    /// The model's folder.
    fn folder(&self) -> &ModelFolder {
        &self.denoiser().folder
    }

    /// The folder's scheduler, as a pipeline around it uses it.
    fn scheduler(&self) -> &SchedulerConfig {
        &self.denoiser().scheduler
    }

    /// See [`Model::sampling`].
    fn sampling(&self, other: Option<SchedulerKind>) -> (SchedulerKind, &SchedulerConfig) {
        self.denoiser().sampling(other)
    }

    /// The way from images to noise that the network was trained on.
    fn process(&self) -> Arc<dyn Process> {
        self.scheduler().process()
    }

    /// What the network is told beside an image.
    fn condition(&self) -> Condition {
        self.denoiser().config.condition()
    }

    /// Height and width of the images that the network was made for; `None` where the folder does not say.
    fn image_size(&self) -> Option<[usize; 2]> {
        let size = self.denoiser().config.sample_size?;
        Some(size.map(|side| side * self.latent_factor().unwrap_or(1)))
    }

    /// What divides height and width of all images that the model takes; it may refuse some of them nevertheless.
    fn side_multiple(&self) -> usize {
        let denoised = self.denoiser().config.architecture.side_multiple();
        denoised * self.latent_factor().unwrap_or(1)
    }

    /// The denoiser's weights; see [`Weights::write_as`] for the element type in which [`write`](Self::write) writes them.
    fn weights(&self) -> &Weights {
        self.denoiser().weights()
    }

    /// The same, to say how they are to be written.
    fn weights_mut(&mut self) -> &mut Weights {
        self.denoiser_mut().weights_mut()
    }

    /// See [`Model::network`].
    ///
    /// # Errors
    /// All tensors that are missing, unexpected or of another shape.
    fn network(&self, device: &Device) -> Result<Network, ModelError> {
        self.denoiser().network(device)
    }

    /// Writes the folder again with this network's weights; everything else stays as it is.
    ///
    /// # Errors
    /// As [`ModelFolder::write_with`].
    fn write(&self, network: &Network, out: &Path) -> Result<Written, ModelError> {
        self.denoiser().write(network, out)
    }
}

/// Texts as a denoiser is told them.
pub struct Embedded {
    /// One after another.
    pub texts: Embeddings,
    /// For each text, the part of it that did not fit.
    pub cut: Vec<Option<String>>,
}

/// What makes latents of images, and images of latents.
pub trait Autoencoder {
    /// What images are encoded to, as a denoiser is trained on it.
    ///
    /// # Shapes
    /// `images`: `[batch, height, width, channels]`, values from -1 to 1.
    ///
    /// # Errors
    /// A number of channels or a size that it does not take.
    fn latents_of(&self, images: Tensor<4>) -> Result<Encoded, VaeError>;

    /// The images of a denoiser's latents.
    ///
    /// # Shapes
    /// `latents`: `[batch, height, width, latent channels]`; result: `[batch, f height, f width, channels]`, f as
    /// [`Diffusion::latent_factor`] says.
    ///
    /// # Errors
    /// A wrong number of channels.
    fn images_of(&self, latents: Tensor<4>) -> Result<Tensor<4>, VaeError>;
}

/// What images are encoded to: a normal distribution for every latent value, independent of each other.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// `[batch, height, width, latent channels]`.
    pub mean: Tensor<4>,
    /// Standard deviation, of the same shape; 0 where an image has one latent only.
    pub deviation: Tensor<4>,
}

/// Reads and checks the model in a folder; see [`Model::open`] and [`StableDiffusion::open`].
///
/// # Errors
/// Anything in the folder that is damaged, missing, too much or not supported.
pub fn open(path: &Path) -> Result<Box<dyn Diffusion>, ModelError> {
    from_folder(ModelFolder::open(path)?)
}

/// The same for a folder that is open.
///
/// # Errors
/// As [`open`].
pub fn from_folder(folder: ModelFolder) -> Result<Box<dyn Diffusion>, ModelError> {
    Ok(match folder.class {
        Class::Unconditional => Box::new(Model::from_folder(folder)?),
        Class::Conditional => Box::new(StableDiffusion::from_folder(folder)?),
    })
}
