//! diffusers' `SD3Transformer2DModel`: the denoiser of Stable Diffusion 3 and 3.5 (Esser et al. 2024, arXiv 2403.03206). Image and
//! text are tokens of one sequence, each with weights of its own.

mod block;
mod config;
mod cost;
mod transformer;

pub use config::SD3Config;
pub use cost::Sd3Cost;
pub use transformer::SD3Transformer2DModel;

/// Tokens of a text, where their number is not known: CLIP's and T5's as the pipeline makes them.
const TEXT_TOKENS: usize = 77 + 256;
