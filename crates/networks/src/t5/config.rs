//! `config.json` of a `T5EncoderModel`.

use serde_json::Value;

use crate::config::{ConfigError, Fields, MOST_LAYERS, unsupported};

/// What a T5 encoder is made of, with the names and defaults of transformers.
#[derive(Debug, Clone, PartialEq)]
pub struct T5Config {
    pub(crate) vocab_size: usize,
    pub(crate) d_model: usize,
    /// Of a head's queries, keys and values.
    pub(crate) d_kv: usize,
    /// Of the feed-forward layer.
    pub(crate) d_ff: usize,
    pub(crate) num_layers: usize,
    pub(crate) num_heads: usize,
    /// Of distances between two places.
    pub(crate) buckets: usize,
    /// From here on all distances are in one.
    pub(crate) max_distance: usize,
    pub(crate) layer_norm_epsilon: f64,
}

impl T5Config {
    /// Reads a parsed `config.json`.
    ///
    /// # Errors
    /// Names the key whose value has the wrong type, is not supported, or contradicts another.
    pub fn from_json(json: &Value) -> Result<Self, ConfigError> {
        let object = json.as_object().ok_or_else(|| {
            ConfigError::Inconsistent("the configuration is not a JSON object".into())
        })?;
        let mut fields = Fields::new(object);
        if let Some(kind) = fields.optional_text("model_type")?
            && kind != "t5"
        {
            return Err(unsupported("model_type", &kind, "t5"));
        }
        const GATED: &str = "gated-gelu";
        let act = fields.text("feed_forward_proj", "relu")?;
        if act != GATED {
            return Err(unsupported("feed_forward_proj", &act, GATED));
        }
        let config = Self {
            vocab_size: fields.count("vocab_size", 32128)?,
            d_model: fields.count("d_model", 512)?,
            d_kv: fields.count("d_kv", 64)?,
            d_ff: fields.count("d_ff", 2048)?,
            num_layers: fields.count("num_layers", 6)?,
            num_heads: fields.count("num_heads", 8)?,
            buckets: fields.count("relative_attention_num_buckets", 32)?,
            max_distance: fields.count("relative_attention_max_distance", 128)?,
            layer_norm_epsilon: fields.number("layer_norm_epsilon", 1e-6)?,
        };
        let problem = if config.num_layers > MOST_LAYERS {
            Some(format!(
                "`num_layers` = {} are more than {MOST_LAYERS}",
                config.num_layers
            ))
        } else if config.layer_norm_epsilon <= 0.0 {
            Some("`layer_norm_epsilon` must be above 0".into())
        } else if config.buckets < 4 || !config.buckets.is_multiple_of(4) {
            Some(format!(
                "`relative_attention_num_buckets` is {}, not a multiple of 4",
                config.buckets
            ))
        } else if config.max_distance <= config.buckets / 4 {
            Some(format!(
                "`relative_attention_max_distance` is {}, which {} buckets reach beyond",
                config.max_distance, config.buckets
            ))
        } else {
            None
        };
        match problem {
            Some(problem) => Err(ConfigError::Inconsistent(problem)),
            None => Ok(config),
        }
    }

    /// How many numbers the network has.
    pub fn parameters(&self) -> u64 {
        let [vocab, width, inner, wide] = [
            self.vocab_size,
            self.d_model,
            self.num_heads.saturating_mul(self.d_kv),
            self.d_ff,
        ]
        .map(|number| number as u64);
        let block = 4u64
            .saturating_mul(width.saturating_mul(inner))
            .saturating_add(3u64.saturating_mul(width.saturating_mul(wide)))
            .saturating_add(2 * width);
        let blocks = block.saturating_mul(self.num_layers as u64);
        let bias = (self.buckets as u64).saturating_mul(self.num_heads as u64);
        vocab
            .saturating_mul(width)
            .saturating_add(blocks)
            .saturating_add(bias)
            .saturating_add(width)
    }

    /// In which bucket a distance from a query to a key is: one each for the near ones, the others in shares of their logarithm;
    /// half of them are for keys that come after.
    pub(super) fn bucket(&self, distance: i64) -> usize {
        let half = self.buckets / 2;
        let after = if distance > 0 { half } else { 0 };
        let far = distance.unsigned_abs() as usize;
        let near = half / 2;
        let own = match far < near {
            true => far,
            false => {
                // In f32, as PyTorch computes it.
                let share = (far as f32 / near as f32).ln()
                    / (self.max_distance as f64 / near as f64).ln() as f32;
                (near + (share * (half - near) as f32) as usize).min(half - 1)
            }
        };
        after + own
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn distances_fall_into_the_buckets_of_transformers() {
        let json = json!({ "feed_forward_proj": "gated-gelu" });
        let config = T5Config::from_json(&json).unwrap();
        // T5Attention._relative_position_bucket of transformers 5.24.
        for (distance, bucket) in [
            (0, 0),
            (-1, 1),
            (-7, 7),
            (-8, 8),
            (-11, 8),
            (-12, 9),
            (-127, 15),
            (-1000, 15),
            (1, 17),
            (8, 24),
            (64, 30),
            (500, 31),
        ] {
            assert_eq!(config.bucket(distance), bucket, "{distance}");
        }
    }

    #[test]
    fn what_changes_the_mathematics_is_refused_by_name() {
        for (key, value) in [
            ("feed_forward_proj", json!("relu")),
            ("model_type", json!("umt5")),
            ("num_layers", json!(1 << 20)),
            ("relative_attention_num_buckets", json!(6)),
            ("relative_attention_max_distance", json!(8)),
            ("d_model", json!("wide")),
        ] {
            let mut json = json!({ "feed_forward_proj": "gated-gelu" });
            json[key] = value;
            let error = T5Config::from_json(&json).expect_err(key).to_string();
            assert!(error.contains(key), "{key}: {error}");
        }
    }
}
