//! The variational autoencoder of latent diffusion, channel-last.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use retrack_kernels as kernels;

use super::config::AutoencoderConfig;
use crate::attention::AttentionConfig;
use crate::blocks::MidBlock2D;
use crate::config::TimeScaleShift;
use crate::diffusion::{Autoencoder, Encoded};
use crate::layers::{Conv1x1, Conv3x3, ConvStride2, GroupNorm};
use crate::resnet::{Downsample2D, Resize, ResnetBlock2D, ResnetConfig, Upsample2D};

/// Of every normalization; the configuration has no say in it.
const EPS: f64 = 1e-6;
/// The log-variance is kept in this range.
const LOG_VARIANCE: [f64; 2] = [-30.0, 20.0];

/// The autoencoder of latent diffusion (Rombach et al. 2022): images of 8 x 8 times as many pixels as
/// their latents, at Stable Diffusion's four levels.
///
/// Images have values from -1 to 1. Field names are the checkpoint's, so that a parameter's path is its
/// key; a checkpoint's older attention names (`query`, `key`, `value`, `proj_attn`) are brought up to date
/// where [weight files](retrack_checkpoint::folder) are read.
#[derive(Module, Debug)]
pub struct AutoencoderKL {
    pub(crate) encoder: Encoder,
    /// Absent in Stable Diffusion 3, as the next one.
    pub(crate) quant_conv: Option<Conv1x1>,
    pub(crate) post_quant_conv: Option<Conv1x1>,
    pub(crate) decoder: Decoder,
    scaling_factor: f64,
    shift_factor: f64,
}

/// From images to twice as many channels as latents have.
#[derive(Module, Debug)]
pub(crate) struct Encoder {
    pub(crate) conv_in: Conv3x3,
    pub(crate) down_blocks: Vec<DownEncoderBlock2D>,
    pub(crate) mid_block: MidBlock2D,
    pub(crate) conv_norm_out: GroupNorm,
    pub(crate) conv_out: Conv3x3,
}

/// From latents to images.
#[derive(Module, Debug)]
pub(crate) struct Decoder {
    pub(crate) conv_in: Conv3x3,
    pub(crate) mid_block: MidBlock2D,
    pub(crate) up_blocks: Vec<UpDecoderBlock2D>,
    pub(crate) conv_norm_out: GroupNorm,
    pub(crate) conv_out: Conv3x3,
}

/// A level of the encoder.
#[derive(Module, Debug)]
pub(crate) struct DownEncoderBlock2D {
    pub(crate) resnets: Vec<ResnetBlock2D>,
    /// Empty at the coarsest level. Zeros are added at the bottom and right only.
    pub(crate) downsamplers: Vec<Downsample2D>,
}

/// A level of the decoder.
#[derive(Module, Debug)]
pub(crate) struct UpDecoderBlock2D {
    pub(crate) resnets: Vec<ResnetBlock2D>,
    /// Empty at the finest level.
    pub(crate) upsamplers: Vec<Upsample2D>,
}

/// Why an autoencoder cannot take an input.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum VaeError {
    /// Images or latents of other channels.
    #[error("{what} have {found} channels, the autoencoder takes {expected}")]
    Channels {
        /// Which: images or latents.
        what: &'static str,
        /// Their channels.
        found: usize,
        /// The autoencoder's.
        expected: usize,
    },
    /// A size that does not halve often enough.
    #[error(
        "images of {height} x {width} pixels do not shrink to whole latents: a multiple of {multiple} does"
    )]
    Size {
        /// Pixels from top to bottom.
        height: usize,
        /// Pixels from left to right.
        width: usize,
        /// Sides that are a multiple of it do.
        multiple: usize,
    },
    /// Noise of another shape than the latents.
    #[error("the noise has shape {found:?}, the latents {expected:?}")]
    Noise {
        /// The noise's.
        found: [usize; 4],
        /// The latents'.
        expected: [usize; 4],
    },
}

/// What an image is encoded to: a normal distribution for every latent value, independent of each other.
#[derive(Debug, Clone)]
pub struct Gaussian {
    /// `[batch, height, width, latent channels]`; also the distribution's mode.
    pub mean: Tensor<4>,
    /// Natural logarithm of the variance, from -30 to 20; the same shape.
    pub log_variance: Tensor<4>,
}

impl Gaussian {
    /// `[.., 2 channels]` of means, then log-variances.
    fn of(moments: Tensor<4>) -> Self {
        let half = moments.dims()[3] / 2;
        let log_variance = moments.clone().narrow(3, half, half);
        Self {
            mean: moments.narrow(3, 0, half),
            log_variance: log_variance.clamp(LOG_VARIANCE[0], LOG_VARIANCE[1]),
        }
    }

    /// mean + standard deviation * `noise`.
    ///
    /// # Shapes
    /// `noise` (standard normal) and result: those of the mean.
    ///
    /// # Errors
    /// Noise of another shape.
    pub fn sample(self, noise: Tensor<4>) -> Result<Tensor<4>, VaeError> {
        let (found, expected) = (noise.dims(), self.mean.dims());
        if found != expected {
            return Err(VaeError::Noise { found, expected });
        }
        Ok(self.mean + (self.log_variance * 0.5).exp() * noise)
    }
}

impl AutoencoderConfig {
    /// The network, all parameters zero: [`parameters`](crate::parameters) fills them.
    pub fn init(&self, device: &Device) -> AutoencoderKL {
        let latents = self.latent_channels;
        let conv = |channels| Conv1x1::new(channels, channels, device);
        AutoencoderKL {
            encoder: self.encoder(device),
            quant_conv: self.quant_conv.then(|| conv(2 * latents)),
            post_quant_conv: self.post_quant_conv.then(|| conv(latents)),
            decoder: self.decoder(device),
            scaling_factor: self.scaling_factor,
            shift_factor: self.shift_factor,
        }
    }

    fn encoder(&self, device: &Device) -> Encoder {
        let channels = &self.block_out_channels;
        let coarsest = channels.len() - 1;
        let mut width = channels[0];
        let mut down_blocks = Vec::with_capacity(channels.len());
        for (level, &out) in channels.iter().enumerate() {
            let downsampler = || Downsample2D {
                conv: ConvStride2::new(out, 0, device),
            };
            down_blocks.push(DownEncoderBlock2D {
                resnets: self.resnets(width, out, self.layers_per_block, device),
                downsamplers: (level < coarsest).then(downsampler).into_iter().collect(),
            });
            width = out;
        }
        Encoder {
            conv_in: Conv3x3::new(self.in_channels, channels[0], device),
            down_blocks,
            mid_block: self.mid(device),
            conv_norm_out: GroupNorm::new(self.norm_num_groups, width, EPS, device),
            conv_out: Conv3x3::new(width, 2 * self.latent_channels, device),
        }
    }

    fn decoder(&self, device: &Device) -> Decoder {
        let channels = &self.block_out_channels;
        let coarsest = channels[channels.len() - 1];
        let mut width = coarsest;
        let mut up_blocks = Vec::with_capacity(channels.len());
        for (level, &out) in channels.iter().enumerate().rev() {
            let upsampler = || Upsample2D {
                conv: Conv3x3::new(out, out, device),
            };
            up_blocks.push(UpDecoderBlock2D {
                resnets: self.resnets(width, out, self.layers_per_block + 1, device),
                upsamplers: (level > 0).then(upsampler).into_iter().collect(),
            });
            width = out;
        }
        Decoder {
            conv_in: Conv3x3::new(self.latent_channels, coarsest, device),
            mid_block: self.mid(device),
            up_blocks,
            conv_norm_out: GroupNorm::new(self.norm_num_groups, width, EPS, device),
            conv_out: Conv3x3::new(width, self.out_channels, device),
        }
    }

    fn resnets(
        &self,
        inputs: usize,
        outputs: usize,
        count: usize,
        device: &Device,
    ) -> Vec<ResnetBlock2D> {
        let config = |in_channels| ResnetConfig {
            in_channels,
            out_channels: outputs,
            time_channels: None,
            groups: self.norm_num_groups,
            eps: EPS,
            time_scale_shift: TimeScaleShift::Default,
            dropout: 0.0,
            output_scale: 1.0,
            resize: Resize::Keep,
        };
        (0..count)
            .map(|layer| config(if layer == 0 { inputs } else { outputs }).init(device))
            .collect()
    }

    fn mid(&self, device: &Device) -> MidBlock2D {
        let channels = self.block_out_channels[self.block_out_channels.len() - 1];
        let attention = AttentionConfig {
            channels,
            head_dim: None,
            groups: Some(self.norm_num_groups),
            eps: EPS,
            output_scale: 1.0,
        };
        MidBlock2D {
            resnets: self.resnets(channels, channels, 2, device),
            attentions: vec![attention.init(device)],
        }
    }
}

impl AutoencoderKL {
    /// The distribution of the latents of images.
    ///
    /// # Shapes
    /// `x`: `[batch, height, width, in]`; result: `[batch, height / f, width / f, latent channels]`, f = 2
    /// for every level but one.
    ///
    /// # Errors
    /// A wrong number of channels; a height or width that f does not divide.
    pub fn encode(&self, x: Tensor<4>) -> Result<Gaussian, VaeError> {
        let [_, height, width, channels] = x.dims();
        check_channels("images", channels, &self.encoder.conv_in)?;
        let multiple: usize = 1 << (self.encoder.down_blocks.len() - 1);
        let whole = |side: usize| side > 0 && side.is_multiple_of(multiple);
        if !whole(height) || !whole(width) {
            return Err(VaeError::Size {
                height,
                width,
                multiple,
            });
        }
        let moments = self.encoder.forward(x);
        Ok(Gaussian::of(match &self.quant_conv {
            Some(conv) => conv.forward(moments),
            None => moments,
        }))
    }

    /// The images of latents as [`encode`](Self::encode) gives them.
    ///
    /// # Shapes
    /// `z`: `[batch, height, width, latent channels]`; result: `[batch, f height, f width, out]`, f = 2 for
    /// every level but one.
    ///
    /// # Errors
    /// A wrong number of channels.
    pub fn decode(&self, z: Tensor<4>) -> Result<Tensor<4>, VaeError> {
        check_channels("latents", z.dims()[3], &self.decoder.conv_in)?;
        Ok(self.decoder.forward(match &self.post_quant_conv {
            Some(conv) => conv.forward(z),
            None => z,
        }))
    }

    /// What a denoiser is trained on: a sample of [`encode`](Self::encode) less the shift, times the scaling factor.
    ///
    /// # Shapes
    /// As `encode`; `noise` (standard normal) has the result's.
    ///
    /// # Errors
    /// As `encode`; noise of another shape.
    pub fn to_latents(&self, x: Tensor<4>, noise: Tensor<4>) -> Result<Tensor<4>, VaeError> {
        Ok(self.scaled(self.encode(x)?.sample(noise)?))
    }

    fn scaled(&self, latents: Tensor<4>) -> Tensor<4> {
        match self.shift_factor {
            0.0 => latents * self.scaling_factor,
            shift => (latents - shift) * self.scaling_factor,
        }
    }

    /// The images of a denoiser's latents: [`decode`](Self::decode) after division by the scaling factor, plus the shift.
    ///
    /// # Shapes
    /// As `decode`.
    ///
    /// # Errors
    /// As `decode`.
    pub fn to_images(&self, latents: Tensor<4>) -> Result<Tensor<4>, VaeError> {
        let latents = latents / self.scaling_factor;
        self.decode(match self.shift_factor {
            0.0 => latents,
            shift => latents + shift,
        })
    }
}

impl Autoencoder for AutoencoderKL {
    /// Distributions of [`encode`](Self::encode), shifted and scaled.
    fn latents_of(&self, images: Tensor<4>) -> Result<Encoded, VaeError> {
        let Gaussian { mean, log_variance } = self.encode(images)?;
        Ok(Encoded {
            mean: self.scaled(mean),
            deviation: (log_variance * 0.5).exp() * self.scaling_factor.abs(),
        })
    }

    fn images_of(&self, latents: Tensor<4>) -> Result<Tensor<4>, VaeError> {
        self.to_images(latents)
    }
}

fn check_channels(what: &'static str, found: usize, conv: &Conv3x3) -> Result<(), VaeError> {
    let expected = conv.weight.dims()[2];
    if found == expected {
        return Ok(());
    }
    Err(VaeError::Channels {
        what,
        found,
        expected,
    })
}

impl Encoder {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let mut x = self.conv_in.forward(x);
        for block in &self.down_blocks {
            for resnet in &block.resnets {
                x = resnet.forward(x, None, None);
            }
            for downsampler in &block.downsamplers {
                x = downsampler.conv.forward(x);
            }
        }
        x = self.mid_block.forward(x, None, None);
        self.conv_out.forward(self.conv_norm_out.forward_silu(x))
    }
}

impl Decoder {
    fn forward(&self, z: Tensor<4>) -> Tensor<4> {
        let mut x = self.mid_block.forward(self.conv_in.forward(z), None, None);
        for block in &self.up_blocks {
            for resnet in &block.resnets {
                x = resnet.forward(x, None, None);
            }
            for upsampler in &block.upsamplers {
                x = upsampler.conv.forward(kernels::upsample_nearest2x(x));
            }
        }
        self.conv_out.forward(self.conv_norm_out.forward_silu(x))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::to_host;

    fn network() -> AutoencoderKL {
        let config = serde_json::json!({
            "block_out_channels": [8, 16], "norm_num_groups": 4,
            "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D"],
            "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D"]
        });
        let config = AutoencoderConfig::from_json(&config).unwrap();
        config.init(&Device::flex())
    }

    #[test]
    fn log_variances_are_kept_in_range() {
        let moments = Tensor::<1>::from_floats([1.0, -100.0, 2.0, 100.0], &Device::flex());
        let gaussian = Gaussian::of(moments.reshape([2, 1, 1, 2]));
        assert_eq!(to_host(gaussian.mean), [1.0, 2.0]);
        assert_eq!(to_host(gaussian.log_variance), [-30.0, 20.0]);
    }

    #[test]
    fn what_does_not_fit_is_refused_with_the_numbers() {
        let device = Device::flex();
        let image = |shape: [usize; 4]| Tensor::<4>::zeros(shape, &device);
        let network = network();
        let encode = |shape| network.encode(image(shape)).unwrap_err().to_string();
        assert!(encode([1, 4, 4, 4]).contains("4 channels"));
        assert!(encode([1, 4, 5, 3]).contains("4 x 5 pixels"));
        let error = network.decode(image([1, 4, 4, 3])).unwrap_err().to_string();
        assert!(error.contains("latents have 3 channels"), "{error}");
        let noise = image([1, 2, 3, 4]);
        let error = network.to_latents(image([1, 4, 4, 3]), noise).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("[1, 2, 3, 4]") && text.contains("[1, 2, 2, 4]"),
            "{text}"
        );
    }
}
