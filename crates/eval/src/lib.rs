//! Metrics of forgetting and of quality, and pictures of both.

pub mod digits;
pub mod distance;
pub mod frequency;
pub mod pictures;
pub mod score;
