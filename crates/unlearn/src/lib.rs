//! Unlearning objectives, the recipe of a run, and the trainer.

pub mod batch;
pub mod checkpoint;
pub mod feed;
pub mod images;
mod keys;
pub mod latents;
pub mod objective;
pub mod optimizer;
pub mod recipe;
pub mod texts;
pub mod trainer;
pub mod watch;
