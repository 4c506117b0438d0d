//! A model folder as a network with its schedule.

use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::Device;

use crate::config::ConfigError;
use crate::cost::{Footprint, Training};
use crate::diffusion::Diffusion;
use crate::family::PixelConfig;
use crate::lora::Adapters;
use crate::network::Network;
use crate::parameters::{self, Mismatch};
use crate::schedule::{ScheduleError, SchedulerConfig, SchedulerKind};
use crate::text::TextError;
use crate::tokenizer::TokenizerError;
use retrack_checkpoint::folder::{Class, FolderError, Kind, ModelFolder, SDXL, Weights, Written};

/// Part of what training keeps of an image that is held at once where nothing is trained, about.
const PREDICTED: f64 = 0.25;

/// Why a model folder could not become a network.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A folder that cannot be read or written.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// A configuration of something that is not built here.
    #[error("{}: {source}", path.display())]
    Config {
        /// The configuration.
        path: PathBuf,
        /// Why.
        source: ConfigError,
    },
    /// A schedule that is not built here.
    #[error("{}: {source}", path.display())]
    Schedule {
        /// The configuration.
        path: PathBuf,
        /// Why.
        source: ScheduleError,
    },
    /// Weights of another network than the configuration's.
    #[error("{}: the weights do not fit the configuration\n{source}", path.display())]
    Mismatch {
        /// The folder or file.
        path: PathBuf,
        /// Why.
        source: Mismatch,
    },
    /// A tokenizer that cannot be used.
    #[error(transparent)]
    Tokenizer(TokenizerError),
    /// A tokenizer that does not fit the text encoder.
    #[error("{}: the tokenizer does not fit: {source}", path.display())]
    Text {
        /// The folder or file.
        path: PathBuf,
        /// Why.
        source: TextError,
    },
    /// A text-to-image model where one that denoises images is needed.
    #[error("{}: a text-to-image model, which this command does not take yet", path.display())]
    Conditional {
        /// The folder or file.
        path: PathBuf,
    },
    /// A model that denoises images where a text-to-image model is needed.
    #[error("{}: a model without a text encoder, where a text-to-image pipeline is needed", path.display())]
    Unconditional {
        /// The folder or file.
        path: PathBuf,
    },
    /// The denoiser of a text-to-image model, without its other parts.
    #[error(
        "{}: a text-to-image network without text encoder, tokenizer and autoencoder; give the pipeline's folder, which \
         holds model_index.json",
        path.display()
    )]
    NotAPipeline {
        /// The folder or file.
        path: PathBuf,
    },
    /// A folder that holds no whole CLIP.
    #[error(
        "{}: {found}, where both encoders of CLIP are needed; give the folder of a whole CLIPModel, as `hf download \
         openai/clip-vit-base-patch16 --local-dir DIR` fetches one",
        path.display()
    )]
    NotClip {
        /// The folder or file.
        path: PathBuf,
        /// What it holds.
        found: String,
    },
}

/// A denoiser of any family as it lies in a folder, alone or with a pipeline around it.
pub struct Model {
    /// Where it was read from.
    pub folder: ModelFolder,
    /// What its network is.
    pub config: PixelConfig,
    /// The folder's scheduler as a pipeline uses it; diffusers' DDPM defaults where a bare folder has none.
    pub scheduler: SchedulerConfig,
    /// The same for a sampler that is put in its place.
    replacing: SchedulerConfig,
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
        let at = |source| ModelError::Config {
            path: folder.config_path(),
            source,
        };
        let config = PixelConfig::from_json(&folder.class_name, &folder.config).map_err(at)?;
        let mut scheduler = scheduler(&folder)?;
        if let Some([height, width]) = config.sample_size {
            let patch = config.architecture.side_multiple();
            scheduler = scheduler.for_tokens((height / patch) * (width / patch));
        }
        let mut replacing = scheduler.clone();
        let in_pipeline = matches!(folder.kind, Kind::Pipeline { .. });
        if in_pipeline && folder.class == Class::Conditional {
            // The pipelines of SDXL and Stable Diffusion 3 take their own schedulers as they are.
            if !folder.is_pipeline(SDXL) && scheduler.flow.is_none() {
                scheduler = scheduler.for_latents();
            }
            replacing = replacing.unclipped();
        }
        let weights = folder.weights()?;
        let expected = config.cost(1, 1).parameters;
        check_parameters(expected, stored(&weights), folder.config_path())?;
        Ok(Self {
            folder,
            config,
            scheduler,
            replacing,
            weights,
        })
    }

    /// How to sample: by the folder's own scheduler, or by another one that is put in its place.
    pub fn sampling(&self, other: Option<SchedulerKind>) -> (SchedulerKind, &SchedulerConfig) {
        match other {
            Some(kind) => (kind, &self.replacing),
            None => (self.scheduler.kind, &self.scheduler),
        }
    }

    /// The network's own folder, and what a wrapper of PyTorch put before each name of its weights: see
    /// [`Weights::wrapping`].
    pub fn wrapping(&self) -> (PathBuf, &str) {
        let folder = self.folder.config_path().with_file_name("");
        (folder, self.weights.wrapping())
    }

    /// The network with the folder's weights, in f32. One that is told texts has none yet.
    ///
    /// # Errors
    /// All tensors that are missing, unexpected or of another shape.
    pub fn network(&self, device: &Device) -> Result<Network, ModelError> {
        fill(self.config.init(device), &self.weights, self.folder.root())
    }

    /// The network with the folder's weights and what adapters add to them, in f32.
    ///
    /// # Errors
    /// As [`network`](Self::network). Adapters of layers that the network lacks are left out.
    pub fn adapted_network(
        &self,
        adapters: &Adapters,
        device: &Device,
    ) -> Result<Network, ModelError> {
        let network = self.network(device)?;
        Ok(parameters::try_fill(network, |parameter| {
            let tensor = self.weights.get(&parameter.name).expect("filled above");
            let values = tensor.read()?.to_f32();
            Ok::<_, FolderError>(adapters.added_to(&parameter.name, values))
        })?)
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
        let mut weights = self.weights.clone();
        parameters::set_weights(network, &mut weights)?;
        Ok(self.folder.write_with(out, &weights)?)
    }
}

/// Refuses a folder whose network is of the other class than it is to be.
///
/// # Errors
/// It is.
pub fn check_class(folder: &ModelFolder, class: Class) -> Result<(), ModelError> {
    let path = || folder.root().to_path_buf();
    match class {
        _ if folder.class == class => Ok(()),
        Class::Unconditional => Err(ModelError::Conditional { path: path() }),
        Class::Conditional => Err(ModelError::Unconditional { path: path() }),
    }
}

/// The model that denoises pixels: its network is all that there is.
impl Diffusion for Model {
    fn denoiser(&self) -> &Model {
        self
    }

    fn denoiser_mut(&mut self) -> &mut Model {
        self
    }

    fn footprint(&self, training: &Training) -> Footprint {
        self.config.footprint(training)
    }

    /// The images, and what a pass holds of those that are drawn together.
    fn drawing(&self, [height, width]: [usize; 2], count: usize, together: usize) -> f64 {
        let pixels = (height * width * self.config.out_channels) as f64;
        let passing = 4.0 * PREDICTED * self.config.cost(height, width).activations;
        count as f64 * pixels + together as f64 * passing
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
    match PixelConfig::from_json(&folder.class_name, &folder.config) {
        Ok(config) => {
            let expected = config.cost(1, 1).parameters;
            check_parameters(expected, stored(weights), folder.config_path())
        }
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
