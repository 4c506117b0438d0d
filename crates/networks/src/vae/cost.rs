//! How large an autoencoder is and what encoding an image takes, from its configuration alone.

use super::AutoencoderConfig;
use crate::cost::TRANSFORMED;

/// What an [`AutoencoderConfig`] costs where it encodes one image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EncodingCost {
    /// Numbers in all parameters, the decoder's too, exactly.
    pub parameters: f64,
    /// Numbers that are held at the peak besides.
    pub activations: f64,
}

impl AutoencoderConfig {
    /// How many numbers the network has, exactly where they are fewer than 2^53.
    pub(crate) fn parameters(&self) -> u64 {
        self.encoding_cost(1, 1).parameters as u64
    }

    /// The cost of encoding an image of this size.
    pub fn encoding_cost(&self, height: usize, width: usize) -> EncodingCost {
        let channels: Vec<f64> = self.block_out_channels.iter().map(|&c| c as f64).collect();
        let (latents, layers) = (self.latent_channels as f64, self.layers_per_block as f64);
        let (finest, coarsest) = (channels[0], channels[channels.len() - 1]);
        let conv = |inputs: f64, outputs: f64| (9.0 * inputs + 1.0) * outputs;
        let linear = |inputs: f64, outputs: f64| (inputs + 1.0) * outputs;
        let resnet = |inputs: f64, outputs: f64| {
            let shortcut = if inputs == outputs {
                0.0
            } else {
                linear(inputs, outputs)
            };
            2.0 * (inputs + outputs) + conv(inputs, outputs) + conv(outputs, outputs) + shortcut
        };
        // Both ends have one: two residual blocks, and an attention with a normalization.
        let mid =
            2.0 * resnet(coarsest, coarsest) + 2.0 * coarsest + 4.0 * linear(coarsest, coarsest);
        let mut parameters = conv(self.in_channels as f64, finest)
            + conv(latents, coarsest)
            + 2.0 * mid
            + 2.0 * (coarsest + finest)
            + conv(coarsest, 2.0 * latents)
            + conv(finest, self.out_channels as f64)
            + f64::from(u8::from(self.quant_conv)) * linear(2.0 * latents, 2.0 * latents)
            + f64::from(u8::from(self.post_quant_conv)) * linear(latents, latents);
        let mut activations = 0.0f64;
        let (mut inputs, mut pixels) = (finest, height as f64 * width as f64);
        for (level, &outputs) in channels.iter().enumerate() {
            parameters += resnet(inputs, outputs) + (layers - 1.0) * resnet(outputs, outputs);
            // Images that are there together: what came, two on the way, and the shortcut's.
            let shortcut = if inputs == outputs { 0.0 } else { outputs };
            let most = (2.0 * inputs + outputs).max(inputs + 2.0 * outputs + shortcut);
            let transformed = TRANSFORMED * outputs * outputs;
            activations = activations.max(pixels * most + transformed);
            if level + 1 < channels.len() {
                // Down in the encoder, up in the decoder.
                parameters +=
                    conv(outputs, outputs) + conv(channels[level + 1], channels[level + 1]);
                pixels /= 4.0;
            }
            inputs = outputs;
        }
        // The decoder has one layer more, from the coarsest level on.
        let mut inputs = coarsest;
        for &outputs in channels.iter().rev() {
            parameters += resnet(inputs, outputs) + layers * resnet(outputs, outputs);
            inputs = outputs;
        }
        // Attention at the coarsest level: queries, keys and values, twice in the order of heads, and the image.
        activations = activations.max(pixels * 8.0 * coarsest);
        EncodingCost {
            parameters,
            activations,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use burn::module::Module;
    use burn::tensor::Device;

    use super::*;
    use crate::text::TextConfig;

    fn json(path: &str) -> serde_json::Value {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/parity");
        let text = std::fs::read_to_string(fixtures.join(path)).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn parameters_are_those_of_the_networks() {
        for pipeline in ["pipeline_sd1", "pipeline_sd2"] {
            let path = format!("{pipeline}/model/vae/config.json");
            let config = AutoencoderConfig::from_json(&json(&path)).unwrap();
            let count = config.init(&Device::flex()).num_params() as f64;
            assert_eq!(config.encoding_cost(64, 64).parameters, count, "{path}");
            let path = format!("{pipeline}/model/text_encoder/config.json");
            let config = TextConfig::from_json(&json(&path)).unwrap();
            let count = config.init(&Device::flex()).num_params() as f64;
            assert_eq!(config.parameters() as f64, count, "{path}");
        }
    }

    #[test]
    fn stable_diffusions_autoencoder_is_counted() {
        let down = vec!["DownEncoderBlock2D"; 4];
        let up = vec!["UpDecoderBlock2D"; 4];
        let config = AutoencoderConfig::from_json(&serde_json::json!({
            "block_out_channels": [128, 256, 512, 512], "layers_per_block": 2,
            "down_block_types": down, "up_block_types": up
        }));
        let cost = config.unwrap().encoding_cost(512, 512);
        assert_eq!(cost.parameters, 83_653_863.0);
    }
}
