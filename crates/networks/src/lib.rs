//! Diffusers-compatible denoising networks, noise schedules, samplers and model folders.
//!
//! Inside, images are channel-last (`[batch, height, width, channels]`, f32); model folders keep
//! PyTorch's layout.

pub mod attention;
pub mod blocks;
pub mod changes;
pub mod clip;
pub mod conditional;
pub mod config;
pub mod cost;
pub mod denoiser;
pub mod diffusion;
pub mod embeddings;
pub mod family;
mod fields;
pub mod gradients;
pub mod layers;
pub mod lora;
pub mod model;
pub mod network;
pub mod parameters;
mod phases;
pub mod process;
pub mod random;
pub mod resnet;
pub mod sampling;
pub mod schedule;
pub mod stable_diffusion;
pub mod text;
pub mod tokenizer;
pub mod transformer;
pub mod unet2d;
pub mod vae;
