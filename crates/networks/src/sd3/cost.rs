//! How large the network is and what a backward pass of it keeps, from its configuration alone.

use super::SD3Config;
use super::block::JointTransformerBlock;
use crate::cost::{Cost, linear};

/// Images of its width that a block's backward pass keeps for each token, about: both normalizations, queries, keys and values,
/// what attention made of them, and the feed-forward layer of four times the width, before and after its activation.
const KEPT: f64 = 24.0;
/// A second attention's.
const SECOND: f64 = 7.0;

impl JointTransformerBlock {
    /// In numbers for each token, as shares of the width.
    pub(super) fn kept(&self) -> f64 {
        match self.attn2 {
            Some(_) => KEPT + SECOND,
            None => KEPT,
        }
    }
}

impl SD3Config {
    /// The cost of the network on latents of this size.
    pub fn cost(&self, height: usize, width: usize) -> Cost {
        let own = self.width();
        let head = if self.qk_norm {
            self.attention_head_dim as u64
        } else {
            0
        };
        let feed_forward = linear(own, 4 * own) + linear(4 * own, own);
        let square = linear(own, own);
        let patch = self.patch_size.pow(2);
        let places = self.pos_embed_max_size.pow(2) * own;
        let mut parameters = linear(patch * self.in_channels, own) + places as u64;
        parameters += linear(256, own) + linear(self.pooled_projection_dim, own) + 2 * square;
        parameters += linear(self.joint_attention_dim, own);
        let mut kept = 0.0;
        for number in 0..self.num_layers {
            let last = number + 1 == self.num_layers;
            let dual = self.dual_attention_layers.contains(&number);
            let (norm, context) = (if dual { 9 } else { 6 }, if last { 2 } else { 6 });
            parameters += linear(own, norm * own) + linear(own, context * own);
            parameters += 7 * square + 4 * head + feed_forward;
            kept += KEPT;
            if !last {
                parameters += square + feed_forward;
            }
            if dual {
                parameters += 4 * square + 2 * head;
                kept += SECOND;
            }
        }
        parameters += linear(own, 2 * own) + linear(own, patch * self.out_channels);
        let tokens = (height / self.patch_size) * (width / self.patch_size) + super::TEXT_TOKENS;
        Cost {
            parameters,
            activations: kept * (tokens * own) as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::module::Module;
    use burn::tensor::Device;
    use serde_json::json;

    #[test]
    fn the_count_of_parameters_is_that_of_the_network() {
        for more in [
            json!({}),
            json!({ "qk_norm": "rms_norm", "dual_attention_layers": [0, 1] }),
            json!({ "num_layers": 1, "patch_size": 1, "out_channels": 3 }),
        ] {
            let mut json = json!({
                "num_layers": 3, "attention_head_dim": 4, "num_attention_heads": 2, "caption_projection_dim": 8,
                "joint_attention_dim": 12, "pooled_projection_dim": 6, "in_channels": 5, "pos_embed_max_size": 4
            });
            let own = json.as_object_mut().unwrap();
            own.append(&mut more.as_object().unwrap().clone());
            let config = SD3Config::from_json(&json).unwrap();
            let network = config.init(&Device::flex());
            assert_eq!(
                config.cost(8, 8).parameters,
                network.num_params() as u64,
                "{json}"
            );
        }
    }

    /// Stable Diffusion 3 medium: 24 blocks of 1536.
    #[test]
    fn the_published_network_has_two_billion_parameters() {
        let config = SD3Config::from_json(&json!({
            "num_layers": 24, "num_attention_heads": 24, "caption_projection_dim": 1536, "pos_embed_max_size": 192
        }));
        let parameters = config.unwrap().cost(128, 128).parameters as f64;
        assert!((parameters / 2.03e9 - 1.0).abs() < 0.05, "{parameters}");
    }
}
