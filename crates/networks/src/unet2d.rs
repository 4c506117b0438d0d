//! diffusers' `UNet2DModel`, channel-last.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use retrack_kernels as kernels;
use serde_json::{Value, json};

use crate::attention::{Attention, AttentionConfig};
use crate::blocks::{DownBlock2D, MidBlock2D, UpBlock2D};
use crate::config::{Resample, TimeEmbedding, UNet2DConfig};
use crate::cost::Cost;
use crate::denoiser::InputError;
use crate::embeddings::{GaussianFourierProjection, TimestepEmbedding, sinusoidal};
use crate::family::{Architecture, PixelConfig};
use crate::layers::{Conv3x3, Embedding, GroupNorm};
use crate::network::Network;
use crate::random::Draw;
use crate::resnet::{
    Downsample2D, Downsampler, Resize, ResnetBlock2D, ResnetConfig, Upsample2D, Upsampler,
};

/// The denoising network of DDPM (Ho et al. 2020) with the options that diffusers gives it.
///
/// Field names are the checkpoint's, so that a parameter's path is its key.
#[derive(Module, Debug)]
pub struct UNet2DModel {
    pub(crate) conv_in: Conv3x3,
    /// Only Fourier time embeddings have weights.
    pub(crate) time_proj: Option<GaussianFourierProjection>,
    pub(crate) time_embedding: TimestepEmbedding,
    pub(crate) class_embedding: Option<Embedding>,
    pub(crate) down_blocks: Vec<DownBlock2D>,
    pub(crate) mid_block: Option<MidBlock2D>,
    pub(crate) up_blocks: Vec<UpBlock2D>,
    pub(crate) conv_norm_out: GroupNorm,
    pub(crate) conv_out: Conv3x3,
    center_input_sample: bool,
    sinusoid_dim: usize,
    flip_sin_to_cos: bool,
    freq_shift: f64,
    #[module(skip)]
    pub(crate) config: UNet2DConfig,
}

impl From<UNet2DConfig> for PixelConfig {
    fn from(config: UNet2DConfig) -> Self {
        Self {
            sample_size: config.sample_size,
            in_channels: config.in_channels,
            out_channels: config.out_channels,
            num_class_embeds: config.num_class_embeds,
            unknown_keys: config.unknown_keys.clone(),
            architecture: Arc::new(config),
        }
    }
}

impl Architecture for UNet2DConfig {
    fn init(&self, device: &Device) -> Network {
        Network::new(self.init(device))
    }

    fn cost(&self, height: usize, width: usize) -> Cost {
        self.cost(height, width)
    }

    fn check_size(&self, height: usize, width: usize) -> Result<(), InputError> {
        self.check_size(height, width)
    }

    fn without_time_zero(&self) -> Option<&'static str> {
        let fourier = self.time_embedding_type == TimeEmbedding::Fourier;
        fourier.then_some("`time_embedding_type` is fourier")
    }

    fn facts(&self) -> Vec<(&'static str, Value)> {
        vec![
            ("channels", json!(self.block_out_channels)),
            ("layers_per_block", json!(self.layers_per_block)),
        ]
    }
}

impl UNet2DConfig {
    /// The network, all parameters zero: [`parameters`](crate::parameters) fills them.
    pub fn init(&self, device: &Device) -> UNet2DModel {
        let channels = &self.block_out_channels;
        let levels = channels.len();
        let fourier = self.time_embedding_type == TimeEmbedding::Fourier;
        let time_inputs = if fourier {
            2 * channels[0]
        } else {
            channels[0]
        };

        let mut down_blocks = Vec::with_capacity(levels);
        let mut width = channels[0];
        for (level, &out) in channels.iter().enumerate() {
            let resnets = (0..self.layers_per_block)
                .map(|layer| self.resnet(if layer == 0 { width } else { out }, out, device))
                .collect();
            let attentions = self.attentions(
                self.down_attention[level],
                self.layers_per_block,
                out,
                device,
            );
            let downsamplers = if level + 1 == levels {
                vec![]
            } else if self.down_attention[level] && self.downsample_type == Resample::Resnet {
                vec![Downsampler::Resnet(self.resize(out, Resize::Down, device))]
            } else {
                let conv = crate::layers::ConvStride2::new(out, self.downsample_padding, device);
                vec![Downsampler::Conv(Downsample2D { conv })]
            };
            down_blocks.push(DownBlock2D {
                resnets,
                attentions,
                downsamplers,
            });
            width = out;
        }

        let mut up_blocks = Vec::with_capacity(levels);
        let mut previous = channels[levels - 1];
        for step in 0..levels {
            let out = channels[levels - 1 - step];
            let finer = channels[levels.saturating_sub(step + 2)];
            let layers = self.layers_per_block + 1;
            let resnets = (0..layers)
                .map(|layer| {
                    let skip = if layer + 1 == layers { finer } else { out };
                    let input = if layer == 0 { previous } else { out };
                    self.resnet(input + skip, out, device)
                })
                .collect();
            let attentions = self.attentions(self.up_attention[step], layers, out, device);
            let upsamplers = if step + 1 == levels {
                vec![]
            } else if self.up_attention[step] && self.upsample_type == Resample::Resnet {
                vec![Upsampler::Resnet(self.resize(out, Resize::Up, device))]
            } else {
                let conv = Conv3x3::new(out, out, device);
                vec![Upsampler::Conv(Upsample2D { conv })]
            };
            up_blocks.push(UpBlock2D {
                resnets,
                attentions,
                upsamplers,
            });
            previous = out;
        }

        UNet2DModel {
            conv_in: Conv3x3::new(self.in_channels, channels[0], device),
            time_proj: fourier.then(|| GaussianFourierProjection::new(channels[0], device)),
            time_embedding: TimestepEmbedding::new(time_inputs, self.time_embedding_dim, device),
            class_embedding: self
                .num_class_embeds
                .map(|rows| Embedding::new(rows, self.time_embedding_dim, device)),
            down_blocks,
            mid_block: self.mid_block.then(|| self.mid(device)),
            up_blocks,
            conv_norm_out: GroupNorm::new(self.norm_num_groups, channels[0], self.norm_eps, device),
            conv_out: Conv3x3::new(channels[0], self.out_channels, device),
            center_input_sample: self.center_input_sample,
            sinusoid_dim: channels[0],
            flip_sin_to_cos: self.flip_sin_to_cos,
            freq_shift: self.freq_shift,
            config: self.clone(),
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

    fn resize(&self, channels: usize, resize: Resize, device: &Device) -> ResnetBlock2D {
        ResnetConfig {
            resize,
            ..self.resnet_config(channels, channels)
        }
        .init(device)
    }

    fn attentions(
        &self,
        present: bool,
        layers: usize,
        channels: usize,
        device: &Device,
    ) -> Vec<Attention> {
        let config = AttentionConfig {
            channels,
            head_dim: self.attention_head_dim,
            groups: Some(self.norm_num_groups),
            eps: self.norm_eps,
            output_scale: 1.0,
        };
        let count = if present { layers } else { 0 };
        (0..count).map(|_| config.init(device)).collect()
    }

    fn mid(&self, device: &Device) -> MidBlock2D {
        let channels = *self.block_out_channels.last().expect("checked on reading");
        let resnet = ResnetConfig {
            output_scale: self.mid_block_scale_factor,
            ..self.resnet_config(channels, channels)
        };
        // Scale-shift networks have no normalization before the mid attention unless asked for.
        let default_groups = (self.resnet_time_scale_shift
            == crate::config::TimeScaleShift::Default)
            .then_some(self.norm_num_groups);
        let attention = AttentionConfig {
            channels,
            head_dim: self.attention_head_dim,
            groups: self.attn_norm_num_groups.or(default_groups),
            eps: self.norm_eps,
            output_scale: self.mid_block_scale_factor,
        };
        MidBlock2D {
            resnets: vec![resnet.init(device), resnet.init(device)],
            attentions: if self.add_attention {
                vec![attention.init(device)]
            } else {
                vec![]
            },
        }
    }

    /// Whether images of this size come back at every level of the way up.
    ///
    /// # Errors
    /// The side that is odd at a level where it must be even, and what would fit.
    pub fn check_size(&self, height: usize, width: usize) -> Result<(), InputError> {
        let halvings = self.block_out_channels.len() - 1;
        for mut side in [height, width] {
            for level in 0..halvings {
                let conv =
                    !(self.down_attention[level] && self.downsample_type == Resample::Resnet);
                let half = if conv && self.downsample_padding == 1 {
                    side.div_ceil(2)
                } else {
                    side / 2
                };
                if half == 0 || 2 * half != side {
                    return Err(InputError::Size {
                        height,
                        width,
                        side,
                        half,
                        back: 2 * half,
                        multiple: 1 << halvings,
                    });
                }
                side = half;
            }
        }
        Ok(())
    }
}

impl UNet2DModel {
    /// Predicts, for each image, what the scheduler's prediction type says.
    ///
    /// `dropout` draws the masks of a training step; without it nothing is dropped.
    ///
    /// # Shapes
    /// `sample`: `[batch, height, width, in]`; a timestep (and, for networks with classes, a label) for
    /// each image; result: `[batch, height, width, out]`.
    ///
    /// # Errors
    /// Labels missing, unexpected or out of range; a wrong number of channels or timesteps.
    pub fn forward(
        &self,
        sample: Tensor<4>,
        timesteps: &[f32],
        class_labels: Option<&[i64]>,
        mut dropout: Option<&mut Draw>,
    ) -> Result<Tensor<4>, InputError> {
        let [batch, _, _, channels] = sample.dims();
        let expected = self.conv_in.weight.dims()[2];
        if channels != expected {
            return Err(InputError::Channels {
                found: channels,
                expected,
            });
        }
        if timesteps.len() != batch {
            return Err(InputError::Timesteps {
                images: batch,
                timesteps: timesteps.len(),
            });
        }

        let mut temb = self.time(timesteps);
        if let Some(classes) = self.classes(class_labels, batch)? {
            temb = temb + classes;
        }
        let temb = kernels::silu(temb);

        let sample = if self.center_input_sample {
            sample * 2.0 - 1.0
        } else {
            sample
        };
        let mut x = self.conv_in.forward(sample);
        let mut skips = vec![x.clone()];
        for block in &self.down_blocks {
            x = block.forward(x, &temb, &mut skips, dropout.as_deref_mut());
        }
        if let Some(block) = &self.mid_block {
            x = block.forward(x, &temb, dropout.as_deref_mut());
        }
        for block in &self.up_blocks {
            x = block.forward(x, &temb, &mut skips, dropout.as_deref_mut());
        }
        let x = self.conv_out.forward(self.conv_norm_out.forward_silu(x));
        Ok(match &self.time_proj {
            None => x,
            Some(_) => {
                let t = TensorData::new(timesteps.to_vec(), [batch, 1, 1, 1]);
                let t = Tensor::<4>::from_data(t, &x.device());
                x / t
            }
        })
    }

    /// `[batch, time]`.
    fn time(&self, timesteps: &[f32]) -> Tensor<2> {
        let rows = match &self.time_proj {
            Some(fourier) => fourier.forward(timesteps),
            None => sinusoidal(
                timesteps,
                self.sinusoid_dim,
                self.flip_sin_to_cos,
                self.freq_shift,
            ),
        };
        self.time_embedding.forward_rows(rows, timesteps.len())
    }

    fn classes(
        &self,
        labels: Option<&[i64]>,
        batch: usize,
    ) -> Result<Option<Tensor<2>>, InputError> {
        match (&self.class_embedding, labels) {
            (None, None) => Ok(None),
            (None, Some(_)) => Err(InputError::LabelsUnexpected),
            (Some(table), None) => Err(InputError::LabelsMissing {
                classes: table.rows(),
            }),
            (Some(table), Some(labels)) => {
                if labels.len() != batch {
                    return Err(InputError::LabelsMissing {
                        classes: table.rows(),
                    });
                }
                let last = table.rows() - 1;
                for (image, &label) in labels.iter().enumerate() {
                    if label < 0 || label as usize > last {
                        return Err(InputError::LabelOutOfRange { label, image, last });
                    }
                }
                Ok(Some(table.forward(labels)))
            }
        }
    }
}
