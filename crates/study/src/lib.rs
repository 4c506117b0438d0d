#![doc = include_str!("../README.md")]
#![cfg_attr(
    not(test),
    warn(clippy::disallowed_methods, clippy::print_stderr, clippy::print_stdout)
)]

mod arch;
pub mod bench;
pub mod calibration;
mod captions;
pub mod chain;
pub mod choice;
mod controls;
mod delivery;
pub mod demo;
mod encoded;
pub mod evaluate;
pub mod evaluation;
mod event_log;
pub mod evidence;
mod execution;
pub mod experiment;
pub mod failure;
pub mod field;
mod folders;
pub mod inspect;
pub mod interrupt;
pub mod machine;
pub mod measuring;
pub mod merge;
pub mod model;
pub mod names;
pub mod near_copies;
pub mod neighbors;
pub mod observer;
mod opened;
pub mod progress;
mod publish;
mod reopened;
mod run;
pub mod sample;
mod samples;
pub mod sealed;
mod session;
pub mod settings;
pub mod situation;
pub mod source;
pub mod space;
pub mod task;
pub mod tensorboard;
pub mod tensors;
pub mod train;
mod training_view;
pub mod unlearn;
pub mod verify;
