//! Data sets, nearest neighbors, unlearning objectives and the trainer.

pub mod batch;
pub mod checkpoint;
pub mod feed;
pub mod images;
pub mod latents;
pub mod objective;
pub mod optimizer;
pub mod texts;
pub mod trainer;
pub mod watch;
