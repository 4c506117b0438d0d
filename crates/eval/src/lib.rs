//! Metrics of forgetting and of quality, and pictures of both.

pub mod auc;
pub mod clusters;
pub mod copies;
pub mod digits;
pub mod distance;
pub mod frechet;
pub mod frequency;
pub mod inception;
mod inception_blocks;
pub mod inception_score;
pub mod membership;
pub mod nll;
pub mod ode;
pub mod pictures;
mod resize;
pub mod score;
