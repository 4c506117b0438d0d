//! diffusers' `UNet2DConditionModel`, channel-last.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use retrack_kernels as kernels;
use serde_json::{Value, json};

use super::blocks::{Condition, CrossAttnDownBlock2D, CrossAttnUpBlock2D, MidBlock2DCrossAttn};
use super::config::{Addition, UNet2DConditionConfig, side_multiple};
use super::transformer::{Transformer2DModel, TransformerConfig};
use crate::captioned::Captioned;
use crate::cost::{Cost, LatentCost};
use crate::denoiser::{Embeddings, InputError, Sizes};
use crate::embeddings::{TimestepEmbedding, sinusoidal};
use crate::family::{Architecture, PixelConfig, Told};
use crate::layers::{Conv3x3, ConvStride2, GroupNorm};
use crate::network::Network;
use crate::random::Draw;
use crate::resnet::{Downsample2D, Resize, ResnetBlock2D, ResnetConfig, Upsample2D};

/// The denoising network of latent diffusion (Rombach et al. 2022) as Stable Diffusion 1.x and 2.x and SDXL
/// configure it.
///
/// Field names are the checkpoint's, so that a parameter's path is its key.
#[derive(Module, Debug)]
pub struct UNet2DConditionModel {
    pub(crate) conv_in: Conv3x3,
    pub(crate) time_embedding: TimestepEmbedding,
    /// Of what SDXL's networks are told beside hidden states.
    pub(crate) add_embedding: Option<TimestepEmbedding>,
    pub(crate) down_blocks: Vec<CrossAttnDownBlock2D>,
    pub(crate) mid_block: MidBlock2DCrossAttn,
    pub(crate) up_blocks: Vec<CrossAttnUpBlock2D>,
    pub(crate) conv_norm_out: GroupNorm,
    pub(crate) conv_out: Conv3x3,
    cross_attention_dim: usize,
    size_dim: usize,
    downsample_padding: usize,
    center_input_sample: bool,
    sinusoid_dim: usize,
    flip_sin_to_cos: bool,
    freq_shift: f64,
}

impl From<UNet2DConditionConfig> for PixelConfig {
    fn from(config: UNet2DConditionConfig) -> Self {
        Self {
            sample_size: config.sample_size,
            in_channels: config.in_channels,
            out_channels: config.out_channels,
            num_class_embeds: None,
            unknown_keys: config.unknown_keys.clone(),
            architecture: Arc::new(config),
        }
    }
}

impl Architecture for UNet2DConditionConfig {
    fn init(&self, device: &Device) -> Network {
        Network::new(Captioned::untold(self.init(device)))
    }

    fn cost(&self, height: usize, width: usize) -> Cost {
        self.cost(height, width).whole_graph()
    }

    fn told(&self) -> Option<Told> {
        let inputs = "projection_class_embeddings_input_dim";
        Some(Told {
            states: ("cross_attention_dim", self.cross_attention_dim),
            pooled: self.addition.map(|addition| (inputs, addition.pooled)),
        })
    }

    fn latent_cost(&self, height: usize, width: usize) -> Option<Box<dyn LatentCost>> {
        Some(Box::new(self.cost(height, width)))
    }

    fn first(&self, height: usize, width: usize) -> f64 {
        (height * width * self.block_out_channels[0]) as f64
    }

    fn side_multiple(&self) -> usize {
        self.side_multiple()
    }

    fn facts(&self) -> Vec<(&'static str, Value)> {
        vec![
            ("channels", json!(self.block_out_channels)),
            ("layers_per_block", json!(self.layers_per_block)),
        ]
    }
}

impl UNet2DConditionConfig {
    /// The network, all parameters zero: [`parameters`](crate::parameters) fills them.
    pub fn init(&self, device: &Device) -> UNet2DConditionModel {
        let channels = &self.block_out_channels;
        let levels = channels.len();
        let coarsest = levels - 1;

        let mut down_blocks = Vec::with_capacity(levels);
        let mut width = channels[0];
        for (level, &out) in channels.iter().enumerate() {
            let resnets = (0..self.layers_per_block)
                .map(|layer| self.resnet(if layer == 0 { width } else { out }, out, device))
                .collect();
            let count = self.layers_per_block * usize::from(self.down_attention[level]);
            let downsampler = || Downsample2D {
                conv: ConvStride2::new(out, self.downsample_padding, device),
            };
            down_blocks.push(CrossAttnDownBlock2D {
                resnets,
                attentions: self.transformers(level, count, device),
                downsamplers: (level < coarsest).then(downsampler).into_iter().collect(),
            });
            width = out;
        }

        let mut up_blocks = Vec::with_capacity(levels);
        let mut previous = channels[coarsest];
        for level in (0..levels).rev() {
            let (out, finer) = (channels[level], channels[level.saturating_sub(1)]);
            let layers = self.layers_per_block + 1;
            let resnets = (0..layers)
                .map(|layer| {
                    let skip = if layer + 1 == layers { finer } else { out };
                    let input = if layer == 0 { previous } else { out };
                    self.resnet(input + skip, out, device)
                })
                .collect();
            let count = layers * usize::from(self.up_attention[coarsest - level]);
            let upsampler = || Upsample2D {
                conv: Conv3x3::new(out, out, device),
            };
            up_blocks.push(CrossAttnUpBlock2D {
                resnets,
                attentions: self.transformers(level, count, device),
                upsamplers: (level > 0).then(upsampler).into_iter().collect(),
            });
            previous = out;
        }

        let time = self.time_embedding_dim;
        UNet2DConditionModel {
            conv_in: Conv3x3::new(self.in_channels, channels[0], device),
            time_embedding: TimestepEmbedding::new(channels[0], time, device),
            add_embedding: self
                .addition
                .map(|addition| TimestepEmbedding::new(addition.inputs(), time, device)),
            down_blocks,
            mid_block: self.mid(device),
            up_blocks,
            conv_norm_out: GroupNorm::new(self.norm_num_groups, channels[0], self.norm_eps, device),
            conv_out: Conv3x3::new(channels[0], self.out_channels, device),
            cross_attention_dim: self.cross_attention_dim,
            size_dim: self.addition.map_or(0, |addition| addition.size_dim),
            downsample_padding: self.downsample_padding,
            center_input_sample: self.center_input_sample,
            sinusoid_dim: channels[0],
            flip_sin_to_cos: self.flip_sin_to_cos,
            freq_shift: self.freq_shift,
        }
    }

    fn resnet_config(&self, in_channels: usize, out_channels: usize) -> ResnetConfig {
        ResnetConfig {
            in_channels,
            out_channels,
            time_channels: Some(self.time_embedding_dim),
            groups: self.norm_num_groups,
            eps: self.norm_eps,
            time_scale_shift: self.resnet_time_scale_shift,
            dropout: self.dropout,
            output_scale: 1.0,
            resize: Resize::Keep,
        }
    }

    fn resnet(&self, inputs: usize, outputs: usize, device: &Device) -> ResnetBlock2D {
        self.resnet_config(inputs, outputs).init(device)
    }

    fn transformer_config(&self, level: usize) -> TransformerConfig {
        TransformerConfig {
            channels: self.block_out_channels[level],
            heads: self.attention_heads[level],
            context: self.cross_attention_dim,
            layers: self.transformer_layers_per_block[level],
            groups: self.norm_num_groups,
            only_cross_attention: self.only_cross_attention[level],
            use_linear_projection: self.use_linear_projection,
        }
    }

    fn transformers(&self, level: usize, count: usize, device: &Device) -> Vec<Transformer2DModel> {
        let config = self.transformer_config(level);
        (0..count).map(|_| config.init(device)).collect()
    }

    fn mid(&self, device: &Device) -> MidBlock2DCrossAttn {
        let coarsest = self.block_out_channels.len() - 1;
        let channels = self.block_out_channels[coarsest];
        let resnet = ResnetConfig {
            output_scale: self.mid_block_scale_factor,
            ..self.resnet_config(channels, channels)
        };
        // diffusers keeps the mid block's self-attention whatever `only_cross_attention` says.
        let transformer = TransformerConfig {
            only_cross_attention: false,
            ..self.transformer_config(coarsest)
        };
        MidBlock2DCrossAttn {
            resnets: vec![resnet.init(device), resnet.init(device)],
            attentions: vec![transformer.init(device)],
        }
    }
}

impl UNet2DConditionModel {
    /// Predicts, for each image, what the scheduler's prediction type says.
    ///
    /// `dropout` draws the masks of a training step; without it nothing is dropped.
    ///
    /// # Shapes
    /// `sample`: `[batch, height, width, in]`, a timestep for each image; `texts`: one for each image, of hidden states
    /// `[batch, tokens, cross_attention_dim]`, or one that all images share; result: `[batch, height, width, out]`.
    ///
    /// # Errors
    /// A wrong number of channels or timesteps; texts of another shape, or without what else the network is told of them; a
    /// height or width that does not halve evenly down to the coarsest level.
    pub fn forward(
        &self,
        sample: Tensor<4>,
        timesteps: &[f32],
        texts: Embeddings,
        mut dropout: Option<&mut Draw>,
    ) -> Result<Tensor<4>, InputError> {
        self.check(sample.dims(), timesteps.len())?;
        let added = self.added(&texts, sample.dims())?;
        let context = self.context(texts.states, sample.dims()[0])?;
        let (mut x, temb) = self.begin(sample, timesteps, added);
        let condition = Condition {
            temb: &temb,
            context: &context,
        };
        let mut skips = vec![x.clone()];
        for stage in self.stages() {
            let input = stage.input(x, &mut skips);
            x = stage.forward(input, condition, dropout.as_deref_mut());
            if stage.leaves_skip() {
                skips.push(x.clone());
            }
        }
        Ok(self.end(x))
    }

    /// The first convolution, and the time embedding after its SiLU, `[batch, time]`.
    /// `added`: see [`added`](Self::added).
    pub(super) fn begin(
        &self,
        sample: Tensor<4>,
        timesteps: &[f32],
        added: Option<Tensor<2>>,
    ) -> (Tensor<4>, Tensor<2>) {
        let rows = sinusoidal(
            timesteps,
            self.sinusoid_dim,
            self.flip_sin_to_cos,
            self.freq_shift,
        );
        let mut embedding = self.time_embedding.forward_rows(rows, timesteps.len());
        if let (Some(layers), Some(added)) = (&self.add_embedding, added) {
            embedding = embedding + layers.forward(added);
        }
        let sample = if self.center_input_sample {
            sample * 2.0 - 1.0
        } else {
            sample
        };
        (self.conv_in.forward(sample), kernels::silu(embedding))
    }

    /// What follows the last stage.
    pub(super) fn end(&self, x: Tensor<4>) -> Tensor<4> {
        self.conv_out.forward(self.conv_norm_out.forward_silu(x))
    }

    pub(super) fn check(
        &self,
        [batch, height, width, channels]: [usize; 4],
        timesteps: usize,
    ) -> Result<(), InputError> {
        let expected = self.conv_in.weight.dims()[2];
        if channels != expected {
            return Err(InputError::Channels {
                found: channels,
                expected,
            });
        }
        if timesteps != batch {
            return Err(InputError::Timesteps {
                images: batch,
                timesteps,
            });
        }
        let multiple = side_multiple(self.downsample_padding, self.down_blocks.len());
        for side in [height, width] {
            if side == 0 || !side.is_multiple_of(multiple) {
                // The first level where the side is odd; 0 halves to 0 at once.
                let side = side >> side.trailing_zeros().min(multiple.trailing_zeros());
                let half = (side + self.downsample_padding) / 2;
                return Err(InputError::Size {
                    height,
                    width,
                    side,
                    half,
                    back: 2 * half,
                    multiple,
                });
            }
        }
        Ok(())
    }

    /// What the network is told beside hidden states, `[batch, ..]`: pooled texts, then the sizes as a timestep is put.
    pub(super) fn added(
        &self,
        texts: &Embeddings,
        [images, height, width, _]: [usize; 4],
    ) -> Result<Option<Tensor<2>>, InputError> {
        let Some(layers) = &self.add_embedding else {
            return Ok(None);
        };
        let missing = |what| InputError::ToldTooLittle { what };
        let pooled = texts.pooled.clone().ok_or(missing("`text_embeds`"))?;
        let sizes = texts.sizes.as_ref().ok_or(missing("`time_ids`"))?;
        let all = layers.linear_1.weight.dims()[0];
        let sizes_width = Addition::SIZES * self.size_dim;
        let check = |what, found: [usize; 2], width| match found {
            [1, own] if own == width => Ok(()),
            [rows, own] if rows == images && own == width => Ok(()),
            _ => Err(InputError::Told {
                what,
                found,
                expected: [images, width],
            }),
        };
        check("`text_embeds`", pooled.dims(), all - sizes_width)?;
        let sizes = match sizes {
            Sizes::Whole(factor) => {
                let [height, width] = [height, width].map(|side| (side * factor) as f32);
                vec![[height, width, 0.0, 0.0, height, width]]
            }
            Sizes::Each(sizes) => sizes.clone(),
        };
        check(
            "`time_ids`",
            [sizes.len(), Addition::SIZES],
            Addition::SIZES,
        )?;
        let rows = sinusoidal(
            sizes.as_flattened(),
            self.size_dim,
            self.flip_sin_to_cos,
            self.freq_shift,
        );
        let rows = TensorData::new(rows, [sizes.len(), sizes_width]);
        let rows = Tensor::<2>::from_data(rows, &pooled.device());
        let pooled = pooled.expand([images, all - sizes_width]);
        let rows = rows.expand([images, sizes_width]);
        Ok(Some(Tensor::cat(vec![pooled, rows], 1)))
    }

    /// `[batch * tokens, cross_attention_dim]`.
    pub(super) fn context(
        &self,
        states: Tensor<3>,
        images: usize,
    ) -> Result<Tensor<2>, InputError> {
        let found = states.dims();
        let [texts, tokens, width] = found;
        let fits = (texts == 1 || texts == images) && tokens > 0;
        if !fits || width != self.cross_attention_dim {
            return Err(InputError::EncoderHiddenStates {
                found,
                images,
                width: self.cross_attention_dim,
            });
        }
        let states = if texts == images {
            states
        } else {
            states.expand([images, tokens, width])
        };
        Ok(states.reshape([images * tokens, width]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::captioned::Conditional;

    fn network(padding: usize) -> UNet2DConditionModel {
        let config = UNet2DConditionConfig::from_json(&json!({
            "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
            "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
            "block_out_channels": [8, 16], "layers_per_block": 1, "norm_num_groups": 4,
            "attention_head_dim": 2, "cross_attention_dim": 6, "downsample_padding": padding
        }));
        config.unwrap().init(&Device::flex())
    }

    fn forward(
        sample: [usize; 4],
        timesteps: &[f32],
        states: [usize; 3],
    ) -> Result<Tensor<4>, InputError> {
        forward_padded(1, sample, timesteps, states)
    }

    fn forward_padded(
        padding: usize,
        sample: [usize; 4],
        timesteps: &[f32],
        states: [usize; 3],
    ) -> Result<Tensor<4>, InputError> {
        let device = Device::flex();
        let (sample, states) = (
            Tensor::zeros(sample, &device),
            Tensor::<3>::zeros(states, &device),
        );
        network(padding).forward(sample, timesteps, states.into(), None)
    }

    #[test]
    fn the_larger_images_are_the_fewer_are_looked_at_at_once() {
        let at_once = |side| network(1).looks_at_once([side, side]);
        assert_eq!(at_once(8), 64);
        assert!((2..64).contains(&at_once(128)), "{}", at_once(128));
        assert_eq!(at_once(1 << 14), 1);
    }

    #[test]
    fn what_does_not_fit_is_refused_before_anything_is_computed() {
        let fits = forward([2, 4, 6, 4], &[1.0, 2.0], [2, 3, 6]).unwrap();
        assert_eq!(fits.dims(), [2, 4, 6, 4]);
        let error = |sample, timesteps: &[f32], states| {
            forward(sample, timesteps, states).unwrap_err().to_string()
        };
        let text = error([2, 4, 4, 4], &[1.0, 2.0], [3, 3, 6]);
        assert!(
            text.contains("[3, 3, 6]") && text.contains("[1 or 2, tokens, 6]"),
            "{text}"
        );
        assert!(error([1, 4, 4, 4], &[1.0], [1, 0, 6]).contains("[1, 0, 6]"));
        assert!(error([1, 4, 4, 4], &[1.0], [1, 3, 7]).contains("[1, 3, 7]"));
        assert!(error([1, 4, 4, 3], &[1.0], [1, 3, 6]).contains("3 channels"));
        assert!(error([2, 4, 4, 4], &[1.0], [1, 3, 6]).contains("1 timesteps"));
        // An odd side is rounded up and cut again, unless that would make it larger.
        let odd = forward([1, 4, 5, 4], &[1.0], [1, 3, 6]).unwrap();
        assert_eq!(odd.dims(), [1, 4, 5, 4]);
        let refused = forward_padded(0, [1, 4, 5, 4], &[1.0], [1, 3, 6]);
        let text = refused.unwrap_err().to_string();
        assert!(
            text.contains("5 pixels halve to 2 and double to 4"),
            "{text}"
        );
    }
}
