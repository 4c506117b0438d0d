//! The network that `train` begins with: one of the shapes known by name, or a `config.json`.

use std::path::Path;

use retrack_checkpoint::files;
use retrack_checkpoint::words::listed;
use retrack_data::ImageShape;
use retrack_networks::family::{self, PixelConfig};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::model;
use crate::situation::{self, Situation};

/// The shapes by name. Input size and channels are those of the data.
pub const NAMED: [(&str, &str); 4] = [
    ("small", include_str!("../presets/arch/small.json")),
    ("mnist", include_str!("../presets/arch/mnist.json")),
    (
        "ddpm-cifar10-32",
        include_str!("../presets/arch/ddpm-cifar10-32.json"),
    ),
    (
        "ddpm-celebahq-256",
        include_str!("../presets/arch/ddpm-celebahq-256.json"),
    ),
];

/// Without these diffusers builds a network of 274 million parameters, which nobody means who leaves them out.
const SIZES: [&str; 3] = ["block_out_channels", "down_block_types", "up_block_types"];

/// A network's configuration, which may leave size and channels of its images to the data.
pub struct Arch<'a> {
    /// As it was given.
    given: &'a Path,
    json: Value,
}

impl<'a> Arch<'a> {
    /// The shape of that name, else that file.
    ///
    /// # Errors
    /// No such name or file, a file that is no configuration, or one that does not say how large the network is.
    pub fn read(given: &'a Path) -> Result<Self, Failure> {
        let named = NAMED.iter().find(|(name, _)| given == Path::new(name));
        let text = match named {
            Some((_, text)) => (*text).to_string(),
            None if !given.exists() => {
                let names: Vec<&str> = NAMED.iter().map(|(name, _)| *name).collect();
                return Err(Failure::input(format!(
                    "{}: neither a file nor a network known by name ({})",
                    given.display(),
                    names.join(", ")
                )));
            }
            None => files::read_text(given).map_err(|error| Failure::read(given, error))?,
        };
        let json = retrack_checkpoint::json::parse(text.as_bytes())
            .map_err(|error| Failure::input(format!("{}: {error}", given.display())))?;
        let arch = Self { given, json };
        let missing: Vec<String> = SIZES
            .iter()
            .filter(|&&key| arch.json.get(key).is_none_or(Value::is_null))
            .map(|key| format!("`{key}`"))
            .collect();
        let unet = family::class_name(&arch.json) == "UNet2DModel";
        if unet && arch.json.is_object() && !missing.is_empty() {
            return Err(arch.fail(format!(
                "{} {} missing: the file must say how large the network is; {}",
                listed(&missing),
                if missing.len() == 1 { "is" } else { "are" },
                situation::advice(Situation::NoSizes)
            )));
        }
        // What is wrong whatever the data is, before the data is read.
        let config = arch.config(&arch.json)?;
        model::check_denoises(&config, given)?;
        Ok(arch)
    }

    fn config(&self, json: &Value) -> Result<PixelConfig, Failure> {
        let class = family::class_name(json);
        PixelConfig::from_json(class, json).map_err(|error| self.fail(error.to_string()))
    }

    /// An error about this configuration.
    pub fn fail(&self, problem: String) -> Failure {
        Failure::input(format!("{}: {problem}", self.given.display()))
    }

    /// Channels of the images, where the configuration says so.
    pub fn channels(&self) -> Option<usize> {
        let said = |key: &str| self.json.get(key).and_then(Value::as_u64);
        said("in_channels")
            .or(said("out_channels"))
            .map(|count| count as usize)
    }

    /// The configuration for images of this shape, with nothing left open.
    ///
    /// # Errors
    /// Images that the network does not fit.
    pub fn fit(&self, shape: ImageShape) -> Result<(Value, PixelConfig), Failure> {
        let mut json = self.json.clone();
        for key in ["in_channels", "out_channels"] {
            if json.get(key).is_none() {
                json[key] = shape.channels.into();
            }
        }
        if json.get("sample_size").is_none_or(Value::is_null) {
            json["sample_size"] = json!([shape.height, shape.width]);
        }
        json["_class_name"] = family::class_name(&json).into();
        let config = self.config(&json)?;
        config
            .check_size(shape.height, shape.width)
            .map_err(|error| self.fail(error.to_string()))?;
        if config.sample_size != Some([shape.height, shape.width]) {
            return Err(self.fail(format!(
                "`sample_size` is not the images' {} x {}",
                shape.height, shape.width
            )));
        }
        Ok((json, config))
    }
}
