//! Metrics of forgetting and of quality, and pictures of both.

pub mod auc;
pub mod copies;
pub mod distance;
pub mod frequency;
pub mod membership;
pub mod nll;
pub mod ode;
pub mod pictures;
