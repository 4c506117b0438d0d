//! Data sets, nearest neighbors, unlearning objectives and the trainer.

pub mod batch;
pub mod checkpoint;
pub mod data;
pub mod digest;
pub mod durable;
pub mod event_log;
pub mod feed;
pub mod images;
pub mod latents;
pub mod lock;
pub mod neighbors;
pub mod objective;
pub mod optimizer;
pub mod publish;
pub mod run;
pub mod tensorboard;
pub mod texts;
pub mod trainer;
pub mod watch;
pub mod written;
