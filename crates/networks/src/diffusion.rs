//! What any model folder is to the rest of the house, whichever family its network is of.

use std::path::Path;
use std::sync::Arc;

use burn::tensor::Device;
use retrack_checkpoint::folder::{Class, ModelFolder, Weights, Written};

use crate::cost::{Footprint, Training};
use crate::model::{Model, ModelError};
use crate::network::Network;
use crate::process::Process;
use crate::schedule::{SchedulerConfig, SchedulerKind};
use crate::stable_diffusion::StableDiffusion;

/// What a network is told beside a noisy image and its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    Nothing,
    /// Which of so many classes its image is of.
    Class(usize),
    /// The hidden states of a text.
    Text,
}

/// A model of images: a denoiser with what lies around it in its folder.
///
/// Its images are bytes of [`channels`](Self::channels). What the denoiser sees of them is either their pixels or what
/// an autoencoder makes of them, of which [`as_latents`](Self::as_latents) tells.
pub trait Diffusion {
    fn folder(&self) -> &ModelFolder;

    /// The folder's scheduler, as a pipeline around it uses it.
    fn scheduler(&self) -> &SchedulerConfig;

    /// How to sample: by the folder's own scheduler, or by another one that is put in its place.
    fn sampling(&self, other: Option<SchedulerKind>) -> (SchedulerKind, &SchedulerConfig) {
        let kind = other.unwrap_or(self.scheduler().kind);
        (kind, self.scheduler())
    }

    /// The way from images to noise that the network was trained on.
    fn process(&self) -> Arc<dyn Process> {
        self.scheduler().process()
    }

    /// What the network is told beside an image.
    fn condition(&self) -> Condition;

    /// Channels of the model's images.
    fn channels(&self) -> usize;

    /// Height and width of the images that the network was made for; `None` where the folder does not say.
    fn image_size(&self) -> Option<[usize; 2]>;

    /// Keys of the network's configuration that mean nothing to it.
    fn unknown_keys(&self) -> &[String];

    /// Which parts' weights carry names that a wrapper of PyTorch put there, with the prefix, see
    /// [`Weights::wrapping`].
    ///
    /// # Errors
    /// Weight files that are missing or damaged.
    fn wrappings(&self) -> Result<Vec<(std::path::PathBuf, String)>, ModelError>;

    /// The denoiser's weights; see [`Weights::write_as`] for the element type in which [`write`](Self::write) writes them.
    fn weights(&self) -> &Weights;

    /// The same, to say how they are to be written.
    fn weights_mut(&mut self) -> &mut Weights;

    /// What training costs.
    fn footprint(&self, training: &Training) -> Footprint;

    /// The denoiser with the folder's weights, in f32. One that is told texts has none yet.
    ///
    /// # Errors
    /// All tensors that are missing, unexpected or of another shape.
    fn network(&self, device: &Device) -> Result<Network, ModelError>;

    /// Writes the folder again with this network's weights; everything else stays as it is.
    ///
    /// # Errors
    /// As [`ModelFolder::write_with`].
    fn write(&self, network: &Network, out: &Path) -> Result<Written, ModelError>;

    /// The model that denoises pixels, if that is what it is.
    fn as_pixels(&self) -> Option<&Model> {
        None
    }

    /// The model with an autoencoder and texts, if that is what it is.
    fn as_latents(&self) -> Option<&StableDiffusion> {
        None
    }
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
