//! Devices, and the places where this machine keeps things.

use std::path::PathBuf;

use burn::tensor::Device;

use crate::failure::Failure;
use crate::field::Field;

/// The device with this name: `cpu`, or `cuda`, `vulkan`, `metal` with an optional `:INDEX`.
///
/// # Errors
/// A name that this binary was not built for.
pub fn device(name: &str) -> Result<Device, Failure> {
    let (kind, index) = match name.split_once(':') {
        Some((kind, index)) => match index.parse::<usize>() {
            Ok(index) => (kind, index),
            Err(_) => {
                return Err(Failure::input(format!(
                    "{} {name}: {index} is not a device's number",
                    Field::Device
                )));
            }
        },
        None => (name, 0),
    };
    let _ = index;
    match kind {
        "cpu" => Ok(Device::flex()),
        #[cfg(feature = "cuda")]
        "cuda" => Ok(Device::cuda(index)),
        #[cfg(feature = "vulkan")]
        "vulkan" => Ok(Device::vulkan(gpu(name, index))),
        #[cfg(feature = "metal")]
        "metal" => Ok(Device::metal(gpu(name, index))),
        "cuda" | "vulkan" | "metal" => Err(Failure::input(format!(
            "{} {name}: this binary was built without it; build with \
             `cargo build --release --features {kind}`",
            Field::Device
        ))),
        _ => Err(Failure::input(format!(
            "{} {name}: unknown; give cpu, cuda, vulkan or metal",
            Field::Device
        ))),
    }
}

/// Whether a device of this name is the CPU.
pub fn is_cpu(name: &str) -> bool {
    name.split(':').next() == Some("cpu")
}

/// The device's default choice, or the numbered one where a number was given.
#[cfg(any(feature = "vulkan", feature = "metal"))]
fn gpu(name: &str, index: usize) -> burn::tensor::DeviceKind {
    if name.contains(':') {
        burn::tensor::DeviceKind::DiscreteGpu(index)
    } else {
        burn::tensor::DeviceKind::DefaultDevice
    }
}

/// Where results that can be computed again are kept: row numbers and distances, statistics of many images.
pub fn cache_folder() -> Option<PathBuf> {
    let folder = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    folder("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| folder("HOME").map(|home| PathBuf::from(home).join(".cache")))
        .map(|cache| cache.join("retrack"))
}
