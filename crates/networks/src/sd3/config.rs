//! `config.json` of an `SD3Transformer2DModel`, read strictly: what this crate does not compute, it refuses by name.

use serde_json::Value;

use crate::config::{ConfigError, Fields, MOST_LAYERS, unsupported};

/// Configuration of [`SD3Transformer2DModel`](super::SD3Transformer2DModel), with diffusers' names and defaults.
#[derive(Debug, Clone, PartialEq)]
pub struct SD3Config {
    /// Height and width of the latents that it was made for.
    pub sample_size: usize,
    /// Pixels of a latent that become one token, each way.
    pub patch_size: usize,
    /// Channels of the latents.
    pub in_channels: usize,
    /// Channels of what it predicts.
    pub out_channels: usize,
    pub(crate) num_layers: usize,
    pub(crate) attention_head_dim: usize,
    pub(crate) num_attention_heads: usize,
    /// Width of the encoders' hidden states.
    pub joint_attention_dim: usize,
    /// Of a text as one vector.
    pub pooled_projection_dim: usize,
    /// Tokens of an image at most, each way.
    pub(crate) pos_embed_max_size: usize,
    /// Blocks in which the image's tokens also attend to themselves alone (3.5 medium).
    pub(crate) dual_attention_layers: Vec<usize>,
    /// Whether queries and keys are normalized (3.5).
    pub(crate) qk_norm: bool,
    /// Keys of the file that mean nothing to this network.
    pub unknown_keys: Vec<String>,
}

impl SD3Config {
    /// Reads a parsed `config.json`.
    ///
    /// # Errors
    /// Names the key whose value has the wrong type, is not supported, or contradicts another.
    pub fn from_json(json: &Value) -> Result<Self, ConfigError> {
        let object = json.as_object().ok_or_else(|| {
            ConfigError::Inconsistent("the configuration is not a JSON object".into())
        })?;
        let mut fields = Fields::new(object);
        let in_channels = fields.count("in_channels", 16)?;
        let num_layers = fields.count("num_layers", 18)?;
        let heads = fields.count("num_attention_heads", 18)?;
        let head_dim = fields.count("attention_head_dim", 64)?;
        let config = Self {
            sample_size: fields.count("sample_size", 128)?,
            patch_size: fields.count("patch_size", 2)?,
            in_channels,
            out_channels: match fields.get("out_channels") {
                Some(Value::Null) => in_channels,
                _ => fields.count("out_channels", 16)?,
            },
            num_layers,
            attention_head_dim: head_dim,
            num_attention_heads: heads,
            joint_attention_dim: fields.count("joint_attention_dim", 4096)?,
            pooled_projection_dim: fields.count("pooled_projection_dim", 2048)?,
            pos_embed_max_size: fields.count("pos_embed_max_size", 96)?,
            dual_attention_layers: layers(&mut fields, "dual_attention_layers", num_layers)?,
            qk_norm: match fields.optional_text("qk_norm")?.as_deref() {
                None => false,
                Some("rms_norm") => true,
                Some(other) => return Err(unsupported("qk_norm", other, "null, rms_norm")),
            },
            unknown_keys: Vec::new(),
        };
        let width = fields.count("caption_projection_dim", 1152)?;
        let inconsistent = |problem: String| Err(ConfigError::Inconsistent(problem));
        if width != config.width() {
            return inconsistent(format!(
                "`caption_projection_dim` is {width}, but `num_attention_heads` x `attention_head_dim` is {}: tokens of \
                 images and texts are as wide",
                config.width()
            ));
        }
        if !config.width().is_multiple_of(4) {
            return inconsistent(format!(
                "`num_attention_heads` x `attention_head_dim` is {}, which does not split into the sines and cosines of \
                 two coordinates",
                config.width()
            ));
        }
        if num_layers > MOST_LAYERS {
            return inconsistent(format!(
                "`num_layers` = {num_layers} are more than {MOST_LAYERS}"
            ));
        }
        if config.patch_size > 64 {
            return inconsistent(format!("`patch_size` is {}; 64 at most", config.patch_size));
        }
        Ok(Self {
            unknown_keys: fields.unknown(),
            ..config
        })
    }

    /// Of every token.
    pub(crate) fn width(&self) -> usize {
        self.num_attention_heads
            .saturating_mul(self.attention_head_dim)
    }
}

/// A list of blocks' numbers.
fn layers(fields: &mut Fields, key: &'static str, count: usize) -> Result<Vec<usize>, ConfigError> {
    let Some(value) = fields.get(key) else {
        return Ok(Vec::new());
    };
    let wrong = || Fields::wrong(key, value, "a list of blocks' numbers");
    let list = match value {
        Value::Null => return Ok(Vec::new()),
        Value::Array(list) => list,
        _ => return Err(wrong()),
    };
    let number = |item: &Value| {
        let number = item
            .as_u64()
            .and_then(|number| usize::try_from(number).ok());
        number.filter(|&number| number < count).ok_or_else(wrong)
    };
    list.iter().map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn absent_keys_take_the_defaults_of_diffusers() {
        let config = SD3Config::from_json(&json!({})).unwrap();
        assert_eq!((config.width(), config.num_layers), (1152, 18));
        assert!(!config.qk_norm && config.dual_attention_layers.is_empty());
    }

    #[test]
    fn what_changes_the_mathematics_is_refused_by_name() {
        for (key, value) in [
            ("qk_norm", json!("layer_norm")),
            ("caption_projection_dim", json!(1000)),
            ("num_layers", json!(1 << 20)),
            ("patch_size", json!(1000)),
            ("attention_head_dim", json!("many")),
            ("dual_attention_layers", json!([18])),
            ("dual_attention_layers", json!("all")),
        ] {
            let error = SD3Config::from_json(&json!({ key: value })).expect_err(key);
            assert!(error.to_string().contains(key), "{key}: {error}");
        }
    }
}
