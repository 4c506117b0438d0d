//! diffusers' `AutoencoderKL`: the way between images and the latents that a conditional network denoises.

pub mod autoencoder;
pub mod config;

pub use autoencoder::{AutoencoderKL, Gaussian, VaeError};
pub use config::AutoencoderConfig;
