#![doc = include_str!("../README.md")]
#![warn(unreachable_pub)]
#![cfg_attr(
    not(test),
    warn(clippy::disallowed_methods, clippy::print_stderr, clippy::print_stdout)
)]

pub mod chain;
pub mod durable;
pub mod files;
pub mod folder;
pub mod hex;
pub mod json;
pub mod leftovers;
pub mod lock;
pub mod words;
pub mod written;
