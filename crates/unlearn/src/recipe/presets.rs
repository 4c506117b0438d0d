//! The published settings, and the demo's.

/// Name and content of each.
const PRESETS: [(&str, &str); 5] = [
    ("demo", include_str!("../../presets/demo.toml")),
    (
        "mnist-tshirt",
        include_str!("../../presets/mnist-tshirt.toml"),
    ),
    ("cifar10", include_str!("../../presets/cifar10.toml")),
    ("celeba-hq", include_str!("../../presets/celeba-hq.toml")),
    (
        TEXT_TO_IMAGE,
        include_str!("../../presets/stable-diffusion.toml"),
    ),
];

/// The preset of text-to-image models.
pub const TEXT_TO_IMAGE: &str = "stable-diffusion";

/// The names of all presets.
pub fn preset_names() -> impl Iterator<Item = &'static str> {
    PRESETS.iter().map(|(name, _)| *name)
}

/// The preset for images of this size in pixels: that of the published system which is most like them.
pub fn preset_for(height: usize, width: usize) -> &'static str {
    match height.max(width) {
        ..=28 => "mnist-tshirt",
        29..=64 => "cifar10",
        _ => "celeba-hq",
    }
}

/// A preset's file.
pub(super) fn text(name: &str) -> Option<&'static str> {
    let found = PRESETS.iter().find(|(own, _)| *own == name);
    found.map(|(_, text)| *text)
}
