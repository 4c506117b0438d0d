//! A model folder as a network with its schedule.

use std::path::{Path, PathBuf};

use burn::tensor::Device;

use crate::config::{ConfigError, UNet2DConfig};
use crate::folder::{FolderError, ModelFolder, Weights, Written};
use crate::parameters::{self, Mismatch};
use crate::schedule::{ScheduleError, SchedulerConfig};
use crate::unet2d::UNet2DModel;

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
}

/// A denoising model read from a folder.
pub struct Model {
    pub folder: ModelFolder,
    pub config: UNet2DConfig,
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
        let folder = ModelFolder::open(path)?;
        let at = |source| ModelError::Config {
            path: folder.config_path(),
            source,
        };
        let config = UNet2DConfig::from_json(&folder.config).map_err(at)?;
        let scheduler = match &folder.scheduler {
            Some(json) => {
                SchedulerConfig::from_json(json).map_err(|source| ModelError::Schedule {
                    path: folder.root().to_path_buf(),
                    source,
                })?
            }
            None => SchedulerConfig::default(),
        };
        let weights = folder.weights()?;
        Ok(Self {
            folder,
            config,
            scheduler,
            weights,
        })
    }

    /// The network with the folder's weights, in f32.
    ///
    /// # Errors
    /// All tensors that are missing, unexpected or of another shape.
    pub fn network(&self, device: &Device) -> Result<UNet2DModel, ModelError> {
        let network = self.config.init(device);
        let shapes: Vec<(String, Vec<usize>)> = self
            .weights
            .iter()
            .map(|(name, tensor)| (name.to_string(), tensor.shape().to_vec()))
            .collect();
        Mismatch::check(&network, &shapes).map_err(|source| ModelError::Mismatch {
            path: self.folder.root().to_path_buf(),
            source,
        })?;
        let network = parameters::try_fill(network, |parameter| {
            let tensor = self.weights.get(&parameter.name).expect("checked");
            Ok::<_, FolderError>(tensor.read()?.to_f32())
        })?;
        Ok(network)
    }

    /// Writes the folder again with this network's weights; everything else stays as it is.
    ///
    /// # Errors
    /// As [`ModelFolder::write_with`].
    pub fn write(
        &self,
        network: &UNet2DModel,
        out: &Path,
        overwrite: bool,
    ) -> Result<Written, ModelError> {
        let mut weights = self.weights.clone();
        parameters::set_weights(network, &mut weights)?;
        Ok(self.folder.write_with(out, &weights, overwrite)?)
    }
}
