//! Metrics of forgetting and of quality, and pictures of both.

pub mod auc;
pub mod clip_iqa;
pub mod clusters;
pub mod copies;
pub mod digits;
pub mod distance;
pub mod frechet;
pub mod frequency;
pub mod images;
pub mod inception;
mod inception_blocks;
pub mod inception_score;
pub mod injection;
pub mod membership;
pub mod nll;
pub mod ode;
mod onnx;
pub mod pictures;
mod pillow;
pub mod report;
mod resize;
pub mod score;
pub mod sscd;
pub mod statistics_file;
