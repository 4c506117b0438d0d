//! A run from a model folder to a model folder: unlearn, write, open again, measure, and keep the record.
//!
//! [`unlearn`](unlearn::unlearn) makes a model forget; [`evaluation`] measures models, [`evidence`] is what a person reads.
//! What is said on the way goes to a [front end](progress::Front).

pub mod arch;
pub mod bench;
pub mod captions;
pub mod choice;
pub mod delivery;
pub mod demo;
pub mod encoded;
pub mod evaluate;
pub mod evaluation;
pub mod event_log;
pub mod evidence;
pub mod execution;
pub mod experiment;
pub mod failure;
pub mod field;
pub mod folders;
pub mod inspect;
pub mod interrupt;
pub mod machine;
pub mod measuring;
pub mod merge;
pub mod model;
pub mod names;
pub mod neighbors;
pub mod observer;
pub mod opened;
pub mod progress;
pub mod publish;
pub mod reopened;
pub mod run;
pub mod sample;
pub mod samples;
pub mod session;
pub mod settings;
pub mod situation;
pub mod source;
pub mod space;
pub mod task;
pub mod tensorboard;
pub mod tensors;
pub mod train;
pub mod training_view;
pub mod unlearn;
pub mod verify;
