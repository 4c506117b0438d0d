#![doc = include_str!("../README.md")]
#![warn(unreachable_pub)]
#![cfg_attr(
    not(test),
    warn(clippy::disallowed_methods, clippy::print_stderr, clippy::print_stdout)
)]

pub mod batch;
pub mod checkpoint;
pub mod feed;
pub mod images;
mod keys;
pub mod latents;
pub mod level;
pub mod objective;
pub mod optimizer;
pub mod recipe;
pub mod texts;
pub mod trainer;
pub mod watch;
