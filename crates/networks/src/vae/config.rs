//! `config.json` of an `AutoencoderKL`, read strictly: what this crate does not compute, it refuses by name.

use serde_json::{Value, json};

use crate::conditional::config::only;
use crate::config::{ConfigError, Fields, check_layers, check_levels, unsupported};

/// Configuration of [`AutoencoderKL`](super::AutoencoderKL), with diffusers' names and defaults.
#[derive(Debug, Clone, PartialEq)]
pub struct AutoencoderConfig {
    /// Channels of the images.
    pub in_channels: usize,
    /// Channels of the images that come back.
    pub out_channels: usize,
    /// Channels of the latents.
    pub latent_channels: usize,
    /// One for each level, from the finest on.
    pub block_out_channels: Vec<usize>,
    pub(crate) layers_per_block: usize,
    pub(crate) norm_num_groups: usize,
    /// Latents times this have a standard deviation of about 1: what the denoiser sees.
    pub scaling_factor: f64,
    /// What is taken from latents first (Stable Diffusion 3); 0 in others.
    pub shift_factor: f64,
    /// Whether a 1x1 convolution follows the encoder.
    pub(crate) quant_conv: bool,
    /// Whether one goes before the decoder.
    pub(crate) post_quant_conv: bool,
    /// Keys of the file that mean nothing to this network.
    pub unknown_keys: Vec<String>,
}

impl AutoencoderConfig {
    /// Reads a parsed `config.json`.
    ///
    /// # Errors
    /// Names the key whose value has the wrong type, is not supported, or contradicts another.
    pub fn from_json(json: &Value) -> Result<Self, ConfigError> {
        let object = json.as_object().ok_or_else(|| {
            ConfigError::Inconsistent("the configuration is not a JSON object".into())
        })?;
        let mut fields = Fields::new(object);
        only(
            &mut fields,
            "_class_name",
            &json!("AutoencoderKL"),
            "AutoencoderKL",
        )?;
        for key in ["latents_mean", "latents_std"] {
            only(&mut fields, key, &Value::Null, "null")?;
        }
        only(&mut fields, "mid_block_add_attention", &json!(true), "true")?;
        let act = fields.text("act_fn", "silu")?;
        if act != "silu" && act != "swish" {
            return Err(unsupported("act_fn", &act, "silu"));
        }
        fields.flag("force_upcast", true)?; // about half precision
        fields.sample_size()?; // about tiling

        let block_out_channels = fields.counts("block_out_channels", &[64])?;
        let levels = block_out_channels.len();
        if levels == 0 {
            return Err(ConfigError::Inconsistent(
                "`block_out_channels` is empty".into(),
            ));
        }
        for (key, block) in [
            ("down_block_types", "DownEncoderBlock2D"),
            ("up_block_types", "UpDecoderBlock2D"),
        ] {
            let count = count_blocks(&mut fields, key, block)?;
            if count != levels {
                return Err(ConfigError::Inconsistent(format!(
                    "`{key}` has {count} entries but `block_out_channels` has {levels}"
                )));
            }
        }
        let config = Self {
            in_channels: fields.count("in_channels", 3)?,
            out_channels: fields.count("out_channels", 3)?,
            latent_channels: fields.count("latent_channels", 4)?,
            layers_per_block: fields.count("layers_per_block", 1)?,
            norm_num_groups: fields.count("norm_num_groups", 32)?,
            scaling_factor: fields.number("scaling_factor", 0.18215)?,
            shift_factor: match fields.get("shift_factor") {
                Some(Value::Null) => 0.0,
                _ => fields.number("shift_factor", 0.0)?,
            },
            quant_conv: fields.flag("use_quant_conv", true)?,
            post_quant_conv: fields.flag("use_post_quant_conv", true)?,
            unknown_keys: fields.unknown(),
            block_out_channels,
        };
        check_levels(levels)?;
        check_layers("layers_per_block", config.layers_per_block, levels)?;
        if !config.scaling_factor.is_normal() {
            return Err(ConfigError::Inconsistent(format!(
                "`scaling_factor` is {}; latents are divided by it",
                config.scaling_factor
            )));
        }
        let groups = config.norm_num_groups;
        for &channels in &config.block_out_channels {
            if !channels.is_multiple_of(groups) {
                return Err(ConfigError::Inconsistent(format!(
                    "a normalization over {channels} channels cannot have `norm_num_groups` = {groups} groups"
                )));
            }
        }
        Ok(config)
    }
}

impl AutoencoderConfig {
    /// Pixels of an image for each of its latent, both ways.
    pub fn factor(&self) -> usize {
        1 << (self.block_out_channels.len() - 1)
    }
}

/// How many entries a list of block types has, all of which must be `supported`.
fn count_blocks(
    fields: &mut Fields,
    key: &'static str,
    supported: &'static str,
) -> Result<usize, ConfigError> {
    let Some(value) = fields.get(key) else {
        return Ok(1);
    };
    let list = value
        .as_array()
        .ok_or_else(|| Fields::wrong(key, value, "a list of block types"))?;
    for item in list {
        match item.as_str() {
            Some(name) if name == supported => {}
            Some(name) => return Err(unsupported(key, name, supported)),
            None => return Err(Fields::wrong(key, item, "a block type")),
        }
    }
    Ok(list.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Value {
        json!({
            "_class_name": "AutoencoderKL", "block_out_channels": [32, 64],
            "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D"],
            "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D"],
            "force_upcast": true, "shift_factor": null, "sample_size": 512, "use_quant_conv": true
        })
    }

    #[test]
    fn absent_keys_take_the_defaults_of_diffusers() {
        let config = AutoencoderConfig::from_json(&small()).unwrap();
        assert_eq!(config.scaling_factor, 0.18215);
        assert_eq!(config.layers_per_block, 1);
        assert_eq!(config.latent_channels, 4);
        assert!(config.unknown_keys.is_empty());
        let config = AutoencoderConfig::from_json(&json!({})).unwrap();
        assert_eq!(config.block_out_channels, [64]);
    }

    #[test]
    fn what_changes_the_mathematics_is_refused_by_name() {
        for (key, value) in [
            ("_class_name", json!("AutoencoderTiny")),
            ("_class_name", json!("AsymmetricAutoencoderKL")),
            ("layers_per_block", json!(1 << 20)),
            ("act_fn", json!("gelu")),
            ("block_out_channels", json!([32])),
            ("block_out_channels", json!([])),
            ("down_block_types", json!(["DownEncoderBlock2D"])),
            (
                "down_block_types",
                json!(["AttnDownEncoderBlock2D", "DownEncoderBlock2D"]),
            ),
            (
                "up_block_types",
                json!(["UpDecoderBlock2D", "AttnUpDecoderBlock2D"]),
            ),
            ("latents_mean", json!([0.0])),
            ("latents_std", json!([1.0])),
            ("mid_block_add_attention", json!(false)),
            ("norm_num_groups", json!(48)),
            ("scaling_factor", json!(0)),
            ("shift_factor", json!("much")),
            ("use_post_quant_conv", json!("no")),
            ("use_quant_conv", json!(1)),
        ] {
            let mut json = small();
            json[key] = value;
            let error = AutoencoderConfig::from_json(&json).expect_err(key);
            let error = error.to_string();
            assert!(error.contains(key), "{key}: {error}");
        }
    }
}
