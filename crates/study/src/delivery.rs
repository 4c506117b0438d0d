//! How a trained network becomes a model folder, and what that folder then holds.

use std::path::Path;

use burn::tensor::Device;
use retrack_networks::lora;
use retrack_networks::network::Network;

use crate::execution::warn_of_copied;
use crate::failure::Failure;
use crate::names::LoraFormat;
use crate::progress;
use crate::reopened::{self, Base, Reopened};

/// Folders of networks that no training of a text-to-image model's denoiser reaches.
const UNTRAINED: [&str; 6] = [
    "text_encoder",
    "text_encoder_2",
    "text_encoder_3",
    "vae",
    "safety_checker",
    "image_encoder",
];

/// Where a network comes from, and where it goes.
pub struct Delivery<'a> {
    /// The model that training began with, and what was trained of it.
    pub base: Base<'a>,
    /// How an adapter's file names its tensors.
    pub format: LoraFormat,
    /// Where the new folder will be.
    pub out: &'a Path,
    /// Where it is computed.
    pub device: &'a Device,
}

impl Delivery<'_> {
    /// Writes the network into the folder `staged`, which is not there yet.
    ///
    /// # Errors
    /// The system's; a value that the folder's type cannot hold.
    pub fn write(&self, network: &Network, staged: &Path) -> Result<(), Failure> {
        let folder = self.base.model.folder();
        if self.base.adapted {
            // The model as it was, and what it has to be taken with.
            let tensors = match self.format {
                LoraFormat::Diffusers => lora::export(network)?,
                LoraFormat::Kohya => lora::export_kohya(network)?,
            };
            folder.write_beside(staged, lora::FILE_NAME, &tensors)?;
            progress::note(format!(
                "the model in {} forgets only with its adapter {}: `retrack merge` folds it in",
                self.out.display(),
                lora::FILE_NAME
            ));
            return Ok(());
        }
        let written = self.base.model.write(network, staged);
        let written = written.map_err(|error| reopened::failure(error, folder.can_convert()))?;
        // Other weights of a folder may hold the old network.
        let untrained = match self.base.model.latent_factor() {
            Some(_) => &UNTRAINED[..],
            None => &[],
        };
        warn_of_copied(written.copied_weights(), untrained);
        Ok(())
    }

    /// Opens that folder as anybody would. `network`: what was written into it.
    ///
    /// # Errors
    /// What is wrong with the folder.
    pub fn reopen(&self, network: &Network, staged: &Path) -> Result<Reopened, Failure> {
        reopened::reopen(&self.base, staged, Some(network), self.device)
    }
}
