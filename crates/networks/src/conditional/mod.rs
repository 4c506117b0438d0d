//! diffusers' `UNet2DConditionModel` as Stable Diffusion 1.x, 2.x and XL use it: a denoiser of latents that looks at
//! a text through cross-attention.

mod blocks;
pub(crate) mod config;
mod cost;
mod recompute;
mod stages;
mod transformer;
mod unet;

pub use config::UNet2DConditionConfig;
pub use cost::ConditionalCost;
pub use unet::UNet2DConditionModel;
