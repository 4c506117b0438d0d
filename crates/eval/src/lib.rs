//! Metrics of forgetting and of quality, and pictures of both.

pub mod distance;
pub mod frequency;
pub mod nll;
pub mod ode;
pub mod pictures;
