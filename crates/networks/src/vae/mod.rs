//! diffusers' `AutoencoderKL`: the way between images and the latents that a conditional network denoises.

mod autoencoder;
mod config;
mod cost;

pub use autoencoder::{AutoencoderKL, Gaussian, VaeError};
pub use config::AutoencoderConfig;
pub use cost::EncodingCost;
