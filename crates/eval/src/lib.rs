//! Metrics of forgetting and of quality, and pictures of both.

pub mod distance;
pub mod frechet;
pub mod frequency;
pub mod inception_score;
pub mod pictures;
