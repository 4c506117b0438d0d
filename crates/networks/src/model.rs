//! A model folder as a network with its schedule.

use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::Device;

use crate::conditional::UNet2DConditionConfig;
use crate::config::ConfigError;
use crate::cost::{Footprint, Training};
use crate::diffusion::{Condition, Diffusion};
use crate::family::PixelConfig;
use crate::network::Network;
use crate::parameters::{self, Mismatch};
use crate::schedule::{ScheduleError, SchedulerConfig};
use crate::text::TextError;
use crate::tokenizer::TokenizerError;
use retrack_checkpoint::folder::{Class, FolderError, ModelFolder, Weights, Written};

/// Why a model folder could not become a network.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error("{}: {source}", path.display())]
    Config { path: PathBuf, source: ConfigError },
    #[error("{}: {source}", path.display())]
    Schedule {
        path: PathBuf,
        source: ScheduleError,
    },
    #[error("{}: the weights do not fit the configuration\n{source}", path.display())]
    Mismatch { path: PathBuf, source: Mismatch },
    #[error(transparent)]
    Tokenizer(TokenizerError),
    #[error("{}: the tokenizer does not fit: {source}", path.display())]
    Text { path: PathBuf, source: TextError },
    #[error("{}: a text-to-image model, which this command does not take yet", path.display())]
    Conditional { path: PathBuf },
    #[error("{}: a model without a text encoder, where a text-to-image pipeline is needed", path.display())]
    Unconditional { path: PathBuf },
    #[error(
        "{}: a UNet2DConditionModel without text encoder, tokenizer and autoencoder; give the pipeline's folder, which \
         holds model_index.json",
        path.display()
    )]
    NotAPipeline { path: PathBuf },
    #[error(
        "{}: {found}, where both encoders of CLIP are needed; give the folder of a whole CLIPModel, as `hf download \
         openai/clip-vit-base-patch16 --local-dir DIR` fetches one",
        path.display()
    )]
    NotClip { path: PathBuf, found: String },
}

/// A denoising model read from a folder.
pub struct Model {
    pub folder: ModelFolder,
    pub config: PixelConfig,
    /// The folder's scheduler; diffusers' DDPM defaults where a bare folder has none.
    pub scheduler: SchedulerConfig,
    weights: Weights,
}

impl Model {
    /// Reads and checks configuration, scheduler and weights; their values are read again when the network is made.
    ///
    /// # Errors
    /// Anything in the folder that is damaged, missing, too much or not supported.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        Self::from_folder(ModelFolder::open(path)?)
    }

    /// The same for a folder that is open.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_folder(folder: ModelFolder) -> Result<Self, ModelError> {
        if folder.class != Class::Unconditional {
            return Err(ModelError::Conditional {
                path: folder.root().to_path_buf(),
            });
        }
        let at = |source| ModelError::Config {
            path: folder.config_path(),
            source,
        };
        let config = PixelConfig::from_json(&folder.class_name, &folder.config).map_err(at)?;
        let scheduler = scheduler(&folder)?;
        let weights = folder.weights()?;
        let expected = config.cost(1, 1).parameters;
        check_parameters(expected, stored(&weights), folder.config_path())?;
        Ok(Self {
            folder,
            config,
            scheduler,
            weights,
        })
    }

    /// See [`Weights::wrapping`].
    pub fn wrapping(&self) -> &str {
        self.weights.wrapping()
    }

    /// The network with the folder's weights, in f32.
    ///
    /// # Errors
    /// All tensors that are missing, unexpected or of another shape.
    pub fn network(&self, device: &Device) -> Result<Network, ModelError> {
        fill(self.config.init(device), &self.weights, self.folder.root())
    }

    /// The folder's weights; see [`Weights::write_as`] for the element type in which [`write`](Self::write) writes them.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// The same, to say how they are to be written.
    pub fn weights_mut(&mut self) -> &mut Weights {
        &mut self.weights
    }

    /// Writes the folder again with this network's weights; everything else stays as it is.
    ///
    /// # Errors
    /// As [`ModelFolder::write_with`].
    pub fn write(&self, network: &impl Module, out: &Path) -> Result<Written, ModelError> {
        write(&self.folder, &self.weights, network, out)
    }
}

impl Diffusion for Model {
    fn folder(&self) -> &ModelFolder {
        &self.folder
    }

    fn scheduler(&self) -> &SchedulerConfig {
        &self.scheduler
    }

    fn condition(&self) -> Condition {
        match self.config.num_class_embeds {
            Some(classes) => Condition::Class(classes),
            None => Condition::Nothing,
        }
    }

    fn channels(&self) -> usize {
        self.config.in_channels
    }

    fn image_size(&self) -> Option<[usize; 2]> {
        self.config.sample_size
    }

    fn unknown_keys(&self) -> &[String] {
        &self.config.unknown_keys
    }

    fn wrappings(&self) -> Result<Vec<(PathBuf, String)>, ModelError> {
        let folder = self.folder.config_path().with_file_name("");
        let mut all = vec![(folder, self.wrapping().to_owned())];
        all.retain(|(_, prefix)| !prefix.is_empty());
        Ok(all)
    }

    fn weights(&self) -> &Weights {
        &self.weights
    }

    fn weights_mut(&mut self) -> &mut Weights {
        &mut self.weights
    }

    fn footprint(&self, training: &Training) -> Footprint {
        self.config.footprint(training)
    }

    fn network(&self, device: &Device) -> Result<Network, ModelError> {
        self.network(device)
    }

    fn write(&self, network: &Network, out: &Path) -> Result<Written, ModelError> {
        self.write(network, out)
    }

    fn as_pixels(&self) -> Option<&Model> {
        Some(self)
    }
}

/// Numbers in all tensors of a folder.
pub(crate) fn stored(weights: &Weights) -> u64 {
    weights.iter().map(|(_, t)| t.count() as u64).sum()
}

/// Refuses the configuration in `path` of a network of `expected` numbers, where the weights have far fewer, before it
/// takes any memory. Smaller differences are listed tensor by tensor.
pub(crate) fn check_parameters(
    expected: u64,
    stored: u64,
    path: PathBuf,
) -> Result<(), ModelError> {
    if expected <= stored.saturating_mul(4).saturating_add(1 << 24) {
        return Ok(());
    }
    Err(ModelError::Config {
        path,
        source: ConfigError::Inconsistent(format!(
            "it describes a network of {expected} numbers, but the weights have no more than {stored}; they do not \
             belong together"
        )),
    })
}

/// Refuses a folder whose configuration cannot be one, or belongs to a far larger network than its weights, where the
/// network itself is not asked for. Settings that are not computed here are no reason.
///
/// # Errors
/// The key, or the numbers of both.
pub fn check_size(folder: &ModelFolder, weights: &Weights) -> Result<(), ModelError> {
    let expected = match folder.class {
        Class::Unconditional => PixelConfig::from_json(&folder.class_name, &folder.config)
            .map(|config| config.cost(1, 1).parameters),
        Class::Conditional => UNet2DConditionConfig::from_json(&folder.config)
            .map(|config| config.cost(1, 1).parameters),
    };
    match expected {
        Ok(expected) => check_parameters(expected, stored(weights), folder.config_path()),
        Err(ConfigError::Unsupported { .. }) => Ok(()),
        Err(source) => Err(ModelError::Config {
            path: folder.config_path(),
            source,
        }),
    }
}

/// A folder's scheduler, diffusers' DDPM defaults where it has none.
pub(crate) fn scheduler(folder: &ModelFolder) -> Result<SchedulerConfig, ModelError> {
    match &folder.scheduler {
        Some(json) => SchedulerConfig::from_json(json).map_err(|source| ModelError::Schedule {
            path: folder.scheduler_path(),
            source,
        }),
        None => Ok(SchedulerConfig::default()),
    }
}

/// `network` with the weights of the folder `root`.
pub(crate) fn fill<M: Module>(network: M, weights: &Weights, root: &Path) -> Result<M, ModelError> {
    let shapes = weights.iter();
    let shapes: Vec<_> = shapes
        .map(|(name, tensor)| (name.to_string(), tensor.shape().to_vec()))
        .collect();
    fill_shapes(network, weights, &shapes, root)
}

/// `network` with those tensors of the folder `root` that `shapes` names, and with no others there.
pub(crate) fn fill_shapes<M: Module>(
    network: M,
    weights: &Weights,
    shapes: &[(String, Vec<usize>)],
    root: &Path,
) -> Result<M, ModelError> {
    Mismatch::check(&network, shapes).map_err(|source| ModelError::Mismatch {
        path: root.to_path_buf(),
        source,
    })?;
    Ok(parameters::try_fill(network, |parameter| {
        let tensor = weights.get(&parameter.name).expect("checked");
        Ok::<_, FolderError>(tensor.read()?.to_f32())
    })?)
}

/// Writes `folder` again with a network's trained weights.
pub(crate) fn write(
    folder: &ModelFolder,
    weights: &Weights,
    network: &impl Module,
    out: &Path,
) -> Result<Written, ModelError> {
    let mut weights = weights.clone();
    parameters::set_weights(network, &mut weights)?;
    Ok(folder.write_with(out, &weights)?)
}
