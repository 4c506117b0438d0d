//! Files of models: safetensors and PyTorch's, folders of diffusers, and what keeps every written file whole: durable
//! writes, locks, digests, and lists of what was written.
//!
//! Tensors are bytes with a type and a shape here, in PyTorch's layout; nothing in this crate computes with them.

pub mod durable;
pub mod files;
pub mod folder;
pub mod hex;
pub mod json;
pub mod leftovers;
pub mod lock;
pub mod words;
pub mod written;
