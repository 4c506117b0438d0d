//! An unlearning run from a model folder to a model folder: its settings, its record and where its model goes.

pub mod event_log;
pub mod publish;
pub mod run;
pub mod tensorboard;
