#![doc = include_str!("../README.md")]
#![warn(unreachable_pub)]
#![cfg_attr(
    not(test),
    warn(clippy::disallowed_methods, clippy::print_stderr, clippy::print_stdout)
)]

mod adaptive;
mod attention;
mod blocks;
pub mod captioned;
pub mod changes;
pub mod clip;
pub mod conditional;
pub mod config;
pub mod cost;
pub mod denoiser;
pub mod diffusion;
mod embeddings;
pub mod family;
mod feed_forward;
mod fields;
pub mod gradients;
pub mod layers;
pub mod lora;
pub mod model;
pub mod network;
pub mod parameters;
mod patches;
mod phases;
pub mod process;
pub mod random;
mod resnet;
pub mod sampling;
pub mod schedule;
pub mod sd3;
pub mod stable_diffusion;
pub mod t5;
pub mod text;
mod text_encoders;
pub mod tokenizer;
mod transformer;
pub mod unet2d;
pub mod vae;
