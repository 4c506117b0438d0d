//! How large a network is and what a training step keeps of an image, from its configuration alone: a run that cannot
//! fit is refused before it takes any memory, and so is a configuration that promises an absurd network.

use crate::config::{Resample, TimeEmbedding, TimeScaleShift, UNet2DConfig};

/// What a network costs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// Numbers in all parameters, exactly.
    pub parameters: u64,
    /// Numbers that the forward pass of one image leaves for the backward pass, about.
    pub activations: f64,
}

/// What a training is about to do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Training {
    /// Height and width of the images, in pixels.
    pub size: [usize; 2],
    /// Images in a micro-batch of one stream.
    pub batch_size: usize,
    /// How many streams of images are minimized together.
    pub streams: usize,
    /// Whether an average of the weights is kept.
    pub ema: bool,
    /// Bytes of a number of the optimizer's moments.
    pub moment_bytes: usize,
    /// Whether the method combines two gradients.
    pub two_gradients: bool,
    /// Of the adapters, where only they are trained.
    pub rank: Option<usize>,
    /// Images that are encoded, where the network denoises latents: the forgotten and the retained.
    pub images: usize,
    /// Different texts, where it is told any.
    pub texts: usize,
}

/// What that takes, in bytes, about.
#[derive(Debug, Clone, PartialEq)]
pub struct Footprint {
    /// What a checkpoint holds: the trained weights, their average and the optimizer's moments.
    pub state: f64,
    /// What is in memory together at the peak, besides the program and its data.
    pub held: Vec<f64>,
}

/// What a step of training holds at its peak, in bytes, besides the weights and the optimizer's state.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepCost {
    /// Gradients that are there at once.
    pub gradients: f64,
    /// Everything that depends on the images, and the kernels' scratch memory.
    pub activations: f64,
    /// Whether stages are computed twice.
    pub by_stages: bool,
}

/// What a denoiser of latents costs: such a one computes its stages a second time where it would keep too much.
pub trait LatentCost: std::fmt::Debug {
    /// Numbers in all parameters, exactly.
    fn parameters(&self) -> u64;

    /// Numbers that are trained: all parameters, or adapters of a rank.
    fn trained(&self, rank: Option<usize>) -> f64;

    /// How many images pass at once, as the network itself decides it.
    fn at_once(&self) -> usize;

    /// What a step over micro-batches of `batch` images holds.
    fn step(&self, batch: usize, rank: Option<usize>) -> StepCost;
}

/// Numbers held at once for each that is counted. Measured: 0.99 for the demo's network, 1.04 for MNIST's, 1.02 for
/// CIFAR-10's.
pub(crate) const HELD: f64 = 1.05;
/// Gradients and scratch space of weights, in networks. Measured: 2.3 for CIFAR-10's, 2.7 for MNIST's.
/// A run that resumes needs no more: a checkpoint's tensors take their place one by one before there is a gradient.
/// Measured on 41.5 million parameters: 6.0 networks in all, 6.1 for the run that never stopped.
const GRADIENTS: f64 = 2.5;

/// What images of one pass may leave in memory although the network is smaller than that: 512 MiB, in numbers.
const LEFT: f64 = (512u64 << 18) as f64;

impl Training {
    /// Bytes of the pixels, noises and targets of a micro-batch, which are all there before its first pass: of images of so many
    /// values.
    pub(crate) fn drawn(&self, values: f64) -> f64 {
        32.0 * self.batch_size as f64 * self.streams as f64 * values
    }

    /// Images of one pass, where at most so many pass at once.
    pub(crate) fn pass(&self, at_once: usize) -> usize {
        let all = self.batch_size.saturating_mul(self.streams).max(1);
        all.div_ceil(all.div_ceil(at_once))
    }
}

/// How many images leave no more than `most`, where each leaves so much: one at least.
pub(crate) fn fitting(most: f64, each: f64) -> usize {
    // What is beyond any count saturates.
    ((most / each) as usize).max(1)
}

/// What a backward pass of a denoiser of latents may keep in memory, in bytes, before it rather computes its stages a second time.
/// One image of 512 x 512 pixels makes Stable Diffusion 1.x keep four times this.
pub(crate) const KEPT_AT_MOST: f64 = (1u64 << 30) as f64;

/// How many images pass at once, where one keeps so many bytes of a whole graph: as many as need not compute their stages a
/// second time; where one alone does, as many as would keep no more than weights, gradient and moments take.
pub(crate) fn at_once(kept: f64, parameters: f64) -> usize {
    match kept <= KEPT_AT_MOST {
        true => fitting(KEPT_AT_MOST, kept),
        false => fitting(4.0 * 4.0 * parameters, kept),
    }
}

impl Cost {
    /// How many images leave no more than weights, gradient and moments are, or than little.
    pub(crate) fn at_once(&self) -> usize {
        let state = 4.0 * self.parameters as f64;
        fitting(state.max(LEFT), self.activations)
    }

    /// What training the network on images of `values` numbers takes.
    pub fn footprint(&self, training: &Training, values: usize) -> Footprint {
        let network = 4.0 * self.parameters as f64;
        // Checkpoints hold moments in 32 bits.
        let state = network * if training.ema { 4.0 } else { 3.0 };
        let moments = network * training.moment_bytes as f64 / 2.0;
        let second = if training.two_gradients { 1.0 } else { 0.0 };
        let gradients = network * (GRADIENTS + second);
        let pass = training.pass(self.at_once()) as f64;
        let images = 4.0 * HELD * pass * self.activations + training.drawn(values as f64);
        Footprint {
            state,
            held: vec![state - 2.0 * network + moments, gradients + images],
        }
    }
}

impl UNet2DConfig {
    /// The cost of the network on images of this size.
    pub fn cost(&self, height: usize, width: usize) -> Cost {
        let mut sum = Sum {
            config: self,
            cost: Cost {
                parameters: 0,
                activations: 0.0,
            },
            pixels: height as f64 * width as f64,
        };
        sum.network();
        sum.cost
    }
}

/// Numbers of one weight of a 3x3 convolution once it is transformed.
pub(crate) const TRANSFORMED: f64 = 36.0;

/// Numbers in a linear layer with a bias.
pub(crate) fn linear(inputs: usize, outputs: usize) -> u64 {
    (inputs as u64 + 1) * outputs as u64
}

/// Numbers in a convolution with a bias; `taps`: pixels that each of its results looks at.
pub(crate) fn conv(inputs: usize, outputs: usize, taps: u64) -> u64 {
    (taps * inputs as u64 + 1) * outputs as u64
}

/// Numbers in a normalization.
pub(crate) fn norm(channels: usize) -> u64 {
    2 * channels as u64
}

struct Sum<'a> {
    config: &'a UNet2DConfig,
    cost: Cost,
    /// Of the level at hand.
    pixels: f64,
}

impl Sum<'_> {
    fn network(&mut self) {
        let config = self.config;
        let channels = &config.block_out_channels;
        let levels = channels.len();
        let time = config.time_embedding_dim;
        let fourier = config.time_embedding_type == TimeEmbedding::Fourier;
        let time_inputs = channels[0] * if fourier { 2 } else { 1 };
        self.cost.parameters += u64::from(fourier) * channels[0] as u64;
        self.cost.parameters += linear(time_inputs, time) + linear(time, time);
        self.cost.parameters += (config.num_class_embeds.unwrap_or(0) * time) as u64;

        self.cost.parameters += conv(config.in_channels, channels[0], 9);
        self.keep(channels[0]);
        let mut input = channels[0];
        for (level, &out) in channels.iter().enumerate() {
            for layer in 0..config.layers_per_block {
                self.resnet(if layer == 0 { input } else { out }, out);
                if config.down_attention[level] {
                    self.attention(out, Some(config.norm_num_groups));
                }
            }
            input = out;
            if level + 1 < levels {
                self.pixels /= 4.0;
                let by_resnet =
                    config.down_attention[level] && config.downsample_type == Resample::Resnet;
                self.resample(out, by_resnet);
            }
        }
        if config.mid_block {
            let groups = config.attn_norm_num_groups.or_else(|| {
                (config.resnet_time_scale_shift == TimeScaleShift::Default)
                    .then_some(config.norm_num_groups)
            });
            self.resnet(input, input);
            self.resnet(input, input);
            if config.add_attention {
                self.attention(input, groups);
            }
        }
        let mut previous = input;
        for step in 0..levels {
            let out = channels[levels - 1 - step];
            let finer = channels[levels.saturating_sub(step + 2)];
            for layer in 0..=config.layers_per_block {
                let skip = if layer == config.layers_per_block {
                    finer
                } else {
                    out
                };
                // The concatenation with what came down is a tensor of its own.
                self.keep(previous + skip);
                self.resnet(previous + skip, out);
                previous = out;
                if config.up_attention[step] {
                    self.attention(out, Some(config.norm_num_groups));
                }
            }
            if step + 1 < levels {
                self.pixels *= 4.0;
                let by_resnet =
                    config.up_attention[step] && config.upsample_type == Resample::Resnet;
                self.resample(out, by_resnet);
            }
        }
        self.cost.parameters += norm(channels[0]) + conv(channels[0], config.out_channels, 9);
        self.keep(channels[0]);
    }

    fn keep(&mut self, channels: usize) {
        self.cost.activations += channels as f64 * self.pixels;
    }

    fn resnet(&mut self, input: usize, output: usize) {
        let config = self.config;
        let scale_shift = config.resnet_time_scale_shift == TimeScaleShift::ScaleShift;
        let time_outputs = output * if scale_shift { 2 } else { 1 };
        self.cost.parameters += norm(input)
            + conv(input, output, 9)
            + linear(config.time_embedding_dim, time_outputs)
            + norm(output)
            + conv(output, output, 9);
        if input != output {
            self.cost.parameters += conv(input, output, 1);
        }
        // Of each normalization its result, of each convolution its own.
        self.keep(input);
        self.keep(3 * output);
    }

    fn attention(&mut self, channels: usize, groups: Option<usize>) {
        let head = self.config.attention_head_dim.unwrap_or(channels).max(1);
        let inner = channels / head * head;
        if groups.is_some() {
            self.cost.parameters += norm(channels);
        }
        self.cost.parameters += 3 * linear(channels, inner) + linear(inner, channels);
        // Normalized, queries, keys, values, what they gave, and the sum with the input.
        self.keep(6 * channels);
    }

    fn resample(&mut self, channels: usize, by_resnet: bool) {
        if by_resnet {
            self.resnet(channels, channels);
        } else {
            self.cost.parameters += conv(channels, channels, 9);
            self.keep(2 * channels);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use burn::module::Module;
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn the_number_of_parameters_is_that_of_the_network_for_every_configuration_in_the_fixtures() {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/parity");
        let mut seen = 0;
        for entry in std::fs::read_dir(fixtures).unwrap() {
            let path = entry.unwrap().path().join("config.json");
            let Ok(text) = std::fs::read_to_string(&path) else {
                continue;
            };
            let json = serde_json::from_str(&text).unwrap();
            let Ok(config) = UNet2DConfig::from_json(&json) else {
                continue;
            };
            let network = config.init(&Device::flex());
            let cost = config.cost(16, 16);
            assert_eq!(
                cost.parameters,
                network.num_params() as u64,
                "{}",
                path.display()
            );
            assert!(cost.activations > 0.0);
            seen += 1;
        }
        assert!(seen > 20, "{seen}");
    }
}
