//! The families of denoising networks, by the `_class_name` of their configuration.
//!
//! A family is one file: a configuration read from `config.json`, its [`Architecture`], and the network. It is added by its
//! line in `FAMILIES`, and in the list of classes that `retrack_checkpoint` reads.

use std::fmt;
use std::sync::Arc;

use burn::tensor::Device;
use retrack_checkpoint::folder::Class;
use serde_json::Value;

use crate::conditional::UNet2DConditionConfig;
use crate::config::{ConfigError, UNet2DConfig};
use crate::cost::{Cost, Footprint, LatentCost, Training};
use crate::denoiser::InputError;
use crate::diffusion::Condition;
use crate::network::Network;
use crate::sd3::SD3Config;

/// The configuration of a network of a family.
type Read = fn(&Value) -> Result<PixelConfig, ConfigError>;

/// Every family. The first one is meant where a configuration names none.
const FAMILIES: &[(&str, Read)] = &[
    ("UNet2DModel", unet2d),
    ("UNet2DConditionModel", unet2d_condition),
    ("SD3Transformer2DModel", sd3),
];

fn unet2d(json: &Value) -> Result<PixelConfig, ConfigError> {
    UNet2DConfig::from_json(json).map(PixelConfig::from)
}

fn unet2d_condition(json: &Value) -> Result<PixelConfig, ConfigError> {
    UNet2DConditionConfig::from_json(json).map(PixelConfig::from)
}

fn sd3(json: &Value) -> Result<PixelConfig, ConfigError> {
    SD3Config::from_json(json).map(PixelConfig::from)
}

/// What a family computes, as one configuration describes it.
pub trait Architecture: fmt::Debug + Send + Sync {
    /// The network, all parameters zero: [`parameters`](crate::parameters) fills them.
    fn init(&self, device: &Device) -> Network;

    /// What the network costs on images of this size.
    fn cost(&self, height: usize, width: usize) -> Cost;

    /// What divides height and width of all that passes.
    fn side_multiple(&self) -> usize {
        1
    }

    /// Whether images of this size pass.
    ///
    /// # Errors
    /// Why they do not.
    fn check_size(&self, height: usize, width: usize) -> Result<(), InputError> {
        let _ = (height, width);
        Ok(())
    }

    /// What the network is told of texts ([`Denoiser::tell`](crate::denoiser::Denoiser::tell)), if anything.
    fn told(&self) -> Option<Told> {
        None
    }

    /// What the network costs on latents of this size, where it denoises latents.
    fn latent_cost(&self, height: usize, width: usize) -> Option<Box<dyn LatentCost>> {
        let _ = (height, width);
        None
    }

    /// Numbers that the first layer makes of an image of this size.
    fn first(&self, height: usize, width: usize) -> f64 {
        (height * width) as f64
    }

    /// The setting for which the network has no time 0, where it has none.
    fn without_time_zero(&self) -> Option<&'static str> {
        None
    }

    /// What else there is to say of the network.
    fn facts(&self) -> Vec<(&'static str, Value)> {
        Vec::new()
    }
}

/// What a network is told of texts: widths, each with the key that says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// Of hidden states.
    pub states: (&'static str, usize),
    /// Of a text as one vector, where the network takes one.
    pub pooled: Option<(&'static str, usize)>,
}

/// The configuration of a denoising network of any family: what the rest asks of it.
#[derive(Debug, Clone)]
pub struct PixelConfig {
    /// Height and width of what it denoises; `None` where the file does not say.
    pub sample_size: Option<[usize; 2]>,
    /// Channels of the images that the network takes.
    pub in_channels: usize,
    /// Channels of what it predicts.
    pub out_channels: usize,
    /// How many classes its images may have; `None`: it takes no labels.
    pub num_class_embeds: Option<usize>,
    /// Keys of the file that mean nothing to this network.
    pub unknown_keys: Vec<String>,
    /// The rest, which only its own family reads.
    pub architecture: Arc<dyn Architecture>,
}

/// The family of networks that denoise pixels that a configuration names, the first where it names none of them.
pub fn class_name(json: &Value) -> &'static str {
    let named = json.get("_class_name").and_then(Value::as_str);
    let named = named.filter(|name| Class::named(name) == Some(Class::Unconditional));
    named.and_then(find).unwrap_or(&FAMILIES[0]).0
}

fn find(class_name: &str) -> Option<&'static (&'static str, Read)> {
    FAMILIES.iter().find(|(class, _)| *class == class_name)
}

impl PixelConfig {
    /// Reads a parsed `config.json` of the family `class_name`.
    ///
    /// # Errors
    /// Names the key whose value has the wrong type, is not supported, or contradicts another.
    ///
    /// # Panics
    /// There is no such family.
    pub fn from_json(class_name: &str, json: &Value) -> Result<Self, ConfigError> {
        let (_, read) = find(class_name).expect("a family");
        read(json)
    }

    /// See [`Architecture::init`].
    pub fn init(&self, device: &Device) -> Network {
        self.architecture.init(device)
    }

    /// See [`Architecture::cost`].
    pub fn cost(&self, height: usize, width: usize) -> Cost {
        self.architecture.cost(height, width)
    }

    /// What the network is told beside a noisy image and its time.
    pub fn condition(&self) -> Condition {
        match self.num_class_embeds {
            _ if self.architecture.told().is_some() => Condition::Text,
            Some(classes) => Condition::Class(classes),
            None => Condition::Nothing,
        }
    }

    /// What training the network on pixels costs.
    pub fn footprint(&self, training: &Training) -> Footprint {
        let [height, width] = training.size;
        let values = height * width * self.in_channels;
        self.cost(height, width).footprint(training, values)
    }

    /// See [`Architecture::check_size`].
    ///
    /// # Errors
    /// Why images of this size do not pass.
    pub fn check_size(&self, height: usize, width: usize) -> Result<(), InputError> {
        self.architecture.check_size(height, width)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use retrack_checkpoint::folder::CLASSES;

    #[test]
    fn every_class_of_folders_has_its_family() {
        let classes: Vec<&str> = CLASSES.iter().map(|(name, _)| *name).collect();
        let families: Vec<&str> = FAMILIES.iter().map(|(name, _)| *name).collect();
        assert_eq!(classes, families);
    }
}
