#![doc = include_str!("../README.md")]
#![warn(unreachable_pub)]
#![cfg_attr(
    not(test),
    warn(clippy::disallowed_methods, clippy::print_stderr, clippy::print_stdout)
)]

mod auc;
pub mod clip_iqa;
mod clusters;
pub mod controls;
mod copies;
pub mod denoised;
pub mod digits;
pub mod distance;
pub mod examined;
pub mod forgotten;
pub mod frechet;
pub mod frequency;
pub mod images;
pub mod inception;
mod inception_blocks;
pub mod inception_score;
mod injection;
pub mod judges;
pub mod membership;
pub mod metric;
pub mod metrics;
pub mod nll;
mod ode;
mod onnx;
pub mod pictures;
mod pillow;
pub mod relearn;
pub mod report;
mod resize;
pub mod score;
pub mod sscd;
mod statistics_file;
pub mod subject;
pub mod watch;
