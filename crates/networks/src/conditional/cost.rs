//! How large a conditional network is and what a backward pass of it holds, from its configuration alone.

use super::UNet2DConditionConfig;
use super::stages::kept_bytes;
use crate::config::TimeScaleShift;
use crate::cost::{
    Cost, KEPT_AT_MOST, LatentCost, StepCost, TRANSFORMED, at_once, conv, linear, norm,
};

/// Numbers that a transformer's backward pass makes beside what was kept, in images of its width: the gradients of the
/// feed-forward's two layers, the widest.
const WIDEST: f64 = 13.0;
/// Tiles of 4 x 4 pixels up to which a convolution transforms its weights piece by piece.
const FEW_TILES: f64 = 64.0;

/// What a [`UNet2DConditionConfig`] costs.
#[derive(Debug, Clone, PartialEq)]
pub struct ConditionalCost {
    /// Numbers in all parameters, exactly.
    pub parameters: u64,
    /// Numbers in the adapters of rank 1, exactly; those of rank r have r times as many.
    pub adapters: u64,
    /// In the order of the forward pass.
    stages: Vec<StageCost>,
    /// Pixels of a latent.
    pixels: f64,
    /// Of the first convolution.
    width: f64,
}

/// What one stage costs; numbers an image, where nothing else is said.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct StageCost {
    /// In all.
    parameters: u64,
    /// In weights that adapters are on, in all.
    adapted: u64,
    /// What its graph keeps.
    kept: f64,
    /// What its backward pass makes beside it.
    passing: f64,
    result: f64,
    /// In the transformed weights of the largest convolution, in all, and the tiles of its image.
    transformed: f64,
    tiles: f64,
    /// What [`kept_bytes`] says.
    rough_bytes: f64,
}

impl UNet2DConditionConfig {
    /// The cost of the network on latents of this size.
    pub fn cost(&self, height: usize, width: usize) -> ConditionalCost {
        let mut sum = Sum {
            config: self,
            cost: ConditionalCost {
                parameters: 0,
                adapters: 0,
                stages: Vec::new(),
                pixels: height as f64 * width as f64,
                width: self.block_out_channels[0] as f64,
            },
            height,
            width,
        };
        sum.network();
        sum.cost
    }
}

impl ConditionalCost {
    /// Parameters, and what the forward pass of one image leaves where no stage is computed twice.
    pub fn whole_graph(&self) -> Cost {
        Cost {
            parameters: self.parameters,
            activations: self.stages.iter().map(|stage| stage.kept).sum(),
        }
    }
}

impl LatentCost for ConditionalCost {
    fn parameters(&self) -> u64 {
        self.parameters
    }

    fn trained(&self, rank: Option<usize>) -> f64 {
        match rank {
            Some(rank) => self.adapters as f64 * rank as f64,
            None => self.parameters as f64,
        }
    }

    fn at_once(&self) -> usize {
        let rough = self.stages.iter().map(|stage| stage.rough_bytes).sum();
        at_once(rough, self.parameters as f64)
    }

    fn step(&self, batch: usize, rank: Option<usize>) -> StepCost {
        let batch = batch as f64;
        let rough: f64 = self
            .stages
            .iter()
            .map(|stage| batch * stage.rough_bytes)
            .sum();
        let by_stages = rough > KEPT_AT_MOST;
        let gradient = |stage: &StageCost| match rank {
            // Each adapter becomes a weight, for whose gradient there must be room too.
            Some(_) => 2.0 * stage.adapted as f64,
            None => stage.parameters as f64,
        };
        let largest =
            |of: &dyn Fn(&StageCost) -> f64| self.stages.iter().map(of).fold(0.0, f64::max);
        let scratch = largest(&|stage| {
            let often = batch * stage.tiles > FEW_TILES;
            if often { stage.transformed } else { 0.0 }
        });
        // The first convolution's result, what passes from stage to stage, and the sample's relatives.
        let results: f64 = self.stages.iter().map(|stage| stage.result).sum();
        let between = results + (self.width + 16.0) * self.pixels;
        let trained = self.trained(rank);
        let (gradients, activations) = if by_stages {
            let live = |stage: &StageCost| batch * (stage.kept + stage.passing) + gradient(stage);
            (trained, batch * between + largest(&live))
        } else {
            // One micro-batch's gradient beside the sum of those before.
            let adapted: f64 = match rank {
                Some(_) => self.stages.iter().map(|stage| stage.adapted as f64).sum(),
                None => 0.0,
            };
            let kept: f64 = self.stages.iter().map(|stage| stage.kept).sum();
            let passing = largest(&|stage| stage.passing);
            (2.0 * trained, batch * (between + kept + passing) + adapted)
        };
        StepCost {
            gradients: 4.0 * gradients,
            activations: 4.0 * (activations + scratch),
            by_stages,
        }
    }
}

struct Sum<'a> {
    config: &'a UNet2DConditionConfig,
    cost: ConditionalCost,
    /// Of the level at hand.
    height: usize,
    width: usize,
}

impl Sum<'_> {
    fn network(&mut self) {
        let config = self.config;
        let channels = &config.block_out_channels;
        let (levels, time) = (channels.len(), config.time_embedding_dim);
        let inputs = config.addition.map(|addition| addition.inputs());
        for inputs in [Some(channels[0]), inputs].into_iter().flatten() {
            self.cost.parameters += linear(inputs, time) + linear(time, time);
        }
        self.cost.parameters += conv(config.in_channels, channels[0], 9);
        let mut input = channels[0];
        // Odd sides are rounded up on the way down and come back on the way up.
        let mut sizes = Vec::new();
        for (level, &out) in channels.iter().enumerate() {
            for _ in 0..config.layers_per_block {
                self.layer(level, input, out, config.down_attention[level]);
                input = out;
            }
            if level + 1 < levels {
                let before = [self.height, self.width];
                sizes.push(before);
                [self.height, self.width] = before.map(|side| side.div_ceil(2));
                self.resample(out, before);
            }
        }
        self.mid(levels - 1);
        let mut previous = input;
        for (step, level) in (0..levels).rev().enumerate() {
            let (out, finer) = (channels[level], channels[level.saturating_sub(1)]);
            for layer in 0..=config.layers_per_block {
                let skip = if layer == config.layers_per_block {
                    finer
                } else {
                    out
                };
                self.layer(level, previous + skip, out, config.up_attention[step]);
                previous = out;
            }
            if let Some(size) = sizes.pop() {
                let before = [self.height, self.width];
                [self.height, self.width] = size;
                self.resample(out, before);
            }
        }
        self.cost.parameters += norm(channels[0]) + conv(channels[0], config.out_channels, 9);
    }

    fn pixels(&self) -> f64 {
        self.height as f64 * self.width as f64
    }

    fn push(&mut self, stage: StageCost) {
        self.cost.parameters += stage.parameters;
        self.cost.stages.push(stage);
    }

    /// A residual block and, where the level attends, its transformer. `input` counts what was joined to it.
    fn layer(&mut self, level: usize, input: usize, out: usize, attends: bool) {
        let mut stage = self.resnet(input, out);
        let layers = if attends {
            self.config.transformer_layers_per_block[level]
        } else {
            0
        };
        if attends {
            self.transformer(level, self.config.only_cross_attention[level], &mut stage);
        }
        stage.rough_bytes = kept_bytes([1, self.height, self.width], out, layers);
        self.push(stage);
    }

    fn mid(&mut self, level: usize) {
        let channels = self.config.block_out_channels[level];
        let mut stage = self.resnet(channels, channels);
        let second = self.resnet(channels, channels);
        self.transformer(level, false, &mut stage);
        stage.parameters += second.parameters;
        stage.kept += second.kept;
        let layers = self.config.transformer_layers_per_block[level];
        stage.rough_bytes = kept_bytes([1, self.height, self.width], 2 * channels, layers);
        self.push(stage);
    }

    fn resnet(&self, input: usize, out: usize) -> StageCost {
        let config = self.config;
        let scale_shift = config.resnet_time_scale_shift == TimeScaleShift::ScaleShift;
        let time_outputs = out * if scale_shift { 2 } else { 1 };
        let shortcut = if input == out { 0 } else { conv(input, out, 1) };
        let pixels = self.pixels();
        StageCost {
            parameters: norm(input)
                + conv(input, out, 9)
                + linear(config.time_embedding_dim, time_outputs)
                + norm(out)
                + conv(out, out, 9)
                + shortcut,
            adapted: 0,
            // What it was given, both normalizations' results, the first convolution's and its own.
            kept: pixels * (2 * input + 3 * out) as f64,
            passing: pixels * (input + 2 * out) as f64,
            result: pixels * out as f64,
            transformed: TRANSFORMED * (input * out) as f64,
            tiles: (self.height.div_ceil(4) * self.width.div_ceil(4)) as f64,
            rough_bytes: 0.0,
        }
    }

    fn transformer(&mut self, level: usize, only_cross: bool, stage: &mut StageCost) {
        let config = self.config;
        let channels = config.block_out_channels[level];
        let (context, layers) = (
            config.cross_attention_dim,
            config.transformer_layers_per_block[level],
        );
        let square = (channels * channels) as u64;
        let first = if only_cross { context } else { channels };
        // Queries and results, keys and values, of both attentions.
        let adapted = 4 * square + 2 * (channels * (first + context)) as u64;
        let block = adapted
            + 3 * norm(channels)
            + 2 * channels as u64
            + linear(channels, 8 * channels)
            + linear(4 * channels, channels);
        let layers = layers as u64;
        stage.parameters += norm(channels) + 2 * linear(channels, channels) + layers * block;
        stage.adapted += layers * adapted;
        let ranks = 4 * 2 * channels + 2 * (first + channels) + 2 * (context + channels);
        self.cost.adapters += layers * ranks as u64;
        // Of each block: self-attention six images of its width, cross-attention four, the feed-forward fourteen. Around
        // them: two.
        let width = self.pixels() * channels as f64;
        stage.kept += width * (2.0 + 24.0 * layers as f64);
        stage.passing = stage.passing.max(WIDEST * width);
    }

    /// A convolution that halves the image of size `before`, or one of the enlarged image.
    fn resample(&mut self, channels: usize, before: [usize; 2]) {
        let pixels = self.pixels();
        let whole = before[0] as f64 * before[1] as f64;
        let grows = pixels > whole;
        let given = if grows { pixels } else { whole };
        let stage = StageCost {
            parameters: conv(channels, channels, 9),
            kept: (given + pixels) * channels as f64,
            passing: (given + pixels) * channels as f64,
            result: pixels * channels as f64,
            transformed: if grows {
                TRANSFORMED * (channels * channels) as f64
            } else {
                0.0
            },
            tiles: (self.height.div_ceil(4) * self.width.div_ceil(4)) as f64,
            rough_bytes: kept_bytes([1, before[0], before[1]], channels, 0),
            ..StageCost::default()
        };
        self.push(stage);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use burn::module::Module;
    use burn::tensor::Device;

    use super::*;
    use crate::lora;
    use crate::parameters;
    use crate::random::Random;

    #[test]
    fn parameters_adapters_and_what_is_kept_are_those_of_the_network_for_every_fixture() {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/parity");
        let mut seen = 0;
        for entry in std::fs::read_dir(fixtures).unwrap() {
            let folder = entry.unwrap().path();
            for name in ["config.json", "model/unet/config.json"] {
                let Ok(text) = std::fs::read_to_string(folder.join(name)) else {
                    continue;
                };
                let json: serde_json::Value = serde_json::from_str(&text).unwrap();
                let conditional = json["_class_name"] == "UNet2DConditionModel"
                    || json.get("cross_attention_dim").is_some();
                let Ok(config) = UNet2DConditionConfig::from_json(&json) else {
                    continue;
                };
                if !conditional {
                    continue;
                }
                let network = config.init(&Device::flex().autodiff());
                let sides = match config.side_multiple() {
                    1 => [5, 14],
                    _ => [16, 16],
                };
                let cost = config.cost(sides[0], sides[1]);
                let path = folder.display();
                assert_eq!(cost.parameters, network.num_params() as u64, "{path}");
                let rough: f64 = cost.stages.iter().map(|stage| stage.rough_bytes).sum();
                assert_eq!(
                    rough,
                    network.kept_bytes([1, sides[0], sides[1], config.in_channels]),
                    "{path}"
                );
                let adapted = lora::attach(network, 3, &Random::new(1));
                let mut trained = 0;
                parameters::visit(&adapted, |parameter, _| {
                    if parameter.name.contains(".lora.") {
                        trained += parameter.shape.iter().product::<usize>();
                    }
                });
                assert_eq!(cost.trained(Some(3)), trained as f64, "{path}");
                seen += 1;
            }
        }
        assert!(seen >= 4, "{seen}");
    }

    #[test]
    fn what_is_measured_of_stable_diffusion_1_is_estimated() {
        let config = UNet2DConditionConfig::from_json(&serde_json::json!({
            "_class_name": "UNet2DConditionModel", "cross_attention_dim": 768
        }));
        let cost = config.unwrap().cost(64, 64);
        assert_eq!(cost.parameters, 859_520_964);
        let full = cost.step(1, None);
        assert!(full.by_stages);
        assert_eq!(full.gradients, 4.0 * 859_520_964.0);
        // Two images of 256 x 256 keep less than a gigabyte of graph.
        assert!(!cost_of(16).step(1, None).by_stages);
    }

    fn cost_of(side: usize) -> ConditionalCost {
        let config = UNet2DConditionConfig::from_json(&serde_json::json!({
            "_class_name": "UNet2DConditionModel", "cross_attention_dim": 768
        }));
        config.unwrap().cost(side, side)
    }
}
