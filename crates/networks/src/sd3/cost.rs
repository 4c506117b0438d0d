//! How large the network is and what a backward pass of it keeps, from its configuration alone.

use super::SD3Config;
use super::block::JointTransformerBlock;
use crate::cost::{Cost, KEPT_AT_MOST, LatentCost, StepCost, at_once, linear};

/// What an [`SD3Config`] costs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sd3Cost {
    /// Numbers in all parameters, exactly.
    pub parameters: u64,
    /// Those that are trained: all but the table of places.
    trainable: u64,
    /// Numbers in the adapters of rank 1, exactly.
    adapters: u64,
    /// Numbers of an image that a whole graph keeps, that passes from block to block, and that the largest block keeps, about.
    kept: f64,
    between: f64,
    largest: f64,
    /// In the weights of the largest block, and those of them that adapters are on.
    block: u64,
    adapted: u64,
}

impl Sd3Cost {
    /// Parameters, and what the forward pass of one image leaves where no block is computed twice.
    pub fn whole_graph(&self) -> Cost {
        Cost {
            parameters: self.parameters,
            activations: self.kept,
        }
    }
}

impl LatentCost for Sd3Cost {
    fn parameters(&self) -> u64 {
        self.parameters
    }

    fn trained(&self, rank: Option<usize>) -> f64 {
        match rank {
            Some(rank) => self.adapters as f64 * rank as f64,
            None => self.trainable as f64,
        }
    }

    fn at_once(&self) -> usize {
        at_once(4.0 * self.kept, self.parameters as f64)
    }

    fn step(&self, batch: usize, rank: Option<usize>) -> StepCost {
        let batch = batch as f64;
        let trained = self.trained(rank);
        let by_stages = 4.0 * batch * self.kept > KEPT_AT_MOST;
        // Of a block that is computed again: its weights' gradient; of adapters, the weights that they become and those' gradient.
        let own = match rank {
            Some(_) => 2.0 * self.adapted as f64,
            None => self.block as f64,
        };
        let (gradients, activations) = match by_stages {
            true => (trained, batch * (self.between + 2.0 * self.largest) + own),
            false => (2.0 * trained, batch * self.kept + own),
        };
        StepCost {
            gradients: 4.0 * gradients,
            activations: 4.0 * activations,
            by_stages,
        }
    }
}

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
    pub fn cost(&self, height: usize, width: usize) -> Sd3Cost {
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
        let (mut kept, mut largest, mut adapters) = (0.0, 0.0f64, 0);
        let (mut block, mut adapted) = (0, 0);
        for number in 0..self.num_layers {
            let last = number + 1 == self.num_layers;
            let dual = self.dual_attention_layers.contains(&number);
            let (norm, context) = (if dual { 9 } else { 6 }, if last { 2 } else { 6 });
            let mut weights = linear(own, norm * own) + linear(own, context * own);
            weights += 7 * square + 4 * head + feed_forward;
            let (mut layers, mut keeps) = (7, KEPT);
            if !last {
                weights += square + feed_forward;
                layers += 1;
            }
            if dual {
                weights += 4 * square + 2 * head;
                layers += 4;
                keeps += SECOND;
            }
            parameters += weights;
            adapters += layers * 2 * own as u64;
            kept += keeps;
            largest = largest.max(keeps);
            block = block.max(weights);
            adapted = adapted.max(layers * (own * own) as u64);
        }
        parameters += linear(own, 2 * own) + linear(own, patch * self.out_channels);
        let tokens = (height / self.patch_size) * (width / self.patch_size) + super::TEXT_TOKENS;
        let image = (tokens * own) as f64;
        Sd3Cost {
            parameters,
            trainable: parameters - places as u64,
            adapters,
            kept: kept * image,
            between: image * self.num_layers as f64,
            largest: largest * image,
            block,
            adapted,
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
