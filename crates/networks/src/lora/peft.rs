//! What PEFT's own `save_pretrained` writes: `adapter_model.safetensors` with `adapter_config.json` beside it.

use std::path::{Path, PathBuf};

use retrack_checkpoint::folder::Part;
use serde_json::Value;

use super::LoraError;
use super::file::{Place, Role};
use super::settings::Settings;

/// The files of a folder in which an adapter lies, in the order in which PEFT looks for them.
pub const FILE_NAMES: [&str; 2] = ["adapter_model.safetensors", "adapter_model.bin"];
/// The file of its settings.
pub(super) const CONFIG: &str = "adapter_config.json";

/// Before every name: PEFT's model around the tuner around the network.
const PREFIX: &str = "base_model.model.";
const ENDS: [(&str, Role); 4] = [
    (".lora_A.weight", Role::A),
    (".lora_B.weight", Role::B),
    (".lora_magnitude_vector", Role::Magnitude),
    (".lora_magnitude_vector.weight", Role::Magnitude),
];

/// Whether such names are among those of a file; others are then refused by name.
pub(super) fn is(keys: &[String]) -> bool {
    keys.iter().any(|key| key.starts_with(PREFIX))
}

/// What a tensor is. The file does not say of which network.
pub(super) fn place(key: &str) -> Option<Place> {
    let name = key.strip_prefix(PREFIX)?;
    let mut ends = ENDS.iter();
    let (layer, role) = ends.find_map(|(end, role)| Some((name.strip_suffix(end)?, *role)))?;
    Some(Place {
        component: None,
        layer: layer.to_owned(),
        role,
    })
}

/// Where the settings of an adapter lie: beside it.
pub(super) fn config(path: &Path) -> PathBuf {
    path.with_file_name(CONFIG)
}

/// The settings that lie beside an adapter.
///
/// # Errors
/// None there; as [`Settings::read`].
pub(super) fn settings(path: &Path) -> Result<Settings, LoraError> {
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let part = Part::at(folder)?;
    if !part.has(CONFIG) {
        return Err(LoraError::Malformed {
            path: path.to_path_buf(),
            problem: format!(
                "it is in PEFT's own form, whose {CONFIG} says how strong it is and is not beside it; put it there"
            ),
        });
    }
    match part.json(CONFIG)? {
        Value::Object(all) => Settings::new(&part.path(CONFIG), CONFIG, &all),
        other => unreachable!("an object, not {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_pefts_lead_to_a_layer_or_are_not_read() {
        let layer = |key: &str| place(key).map(|place| (place.layer, place.role));
        for (end, role) in ENDS {
            let found = layer(&format!("base_model.model.a.to_q{end}"));
            assert_eq!(found, Some(("a.to_q".to_owned(), role)), "{end}");
        }
        for key in [
            "base_model.model.a.lora_embedding_A",
            "base_model.model.a.lora_B.bias",
            "base_model.model.a.weight",
            "base_model.model.a.lora_A.default.weight",
            "base_model.a.lora_A.weight",
        ] {
            assert_eq!(layer(key), None, "{key}");
        }
    }
}
