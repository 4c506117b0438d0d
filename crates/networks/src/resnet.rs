//! Residual blocks and changes of resolution.

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use retrack_kernels as kernels;

use crate::attention::scaled;
use crate::config::TimeScaleShift;
use crate::layers::{Conv1x1, Conv3x3, ConvStride2, GroupNorm, Linear};
use crate::random::Draw;

/// A change of resolution inside a residual block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resize {
    Keep,
    /// Mean of 2x2 pixels.
    Down,
    /// Each pixel four times.
    Up,
}

/// What a [`ResnetBlock2D`] is made of.
#[derive(Debug, Clone)]
pub(crate) struct ResnetConfig {
    pub in_channels: usize,
    pub out_channels: usize,
    /// `None`: the block takes no time embedding, as those of an autoencoder.
    pub time_channels: Option<usize>,
    pub groups: usize,
    pub eps: f64,
    pub time_scale_shift: TimeScaleShift,
    pub dropout: f64,
    /// The sum of residual and branch is divided by this.
    pub output_scale: f64,
    pub resize: Resize,
}

/// Normalization, SiLU and convolution twice, with the time embedding between and a shortcut around.
#[derive(Module, Debug)]
pub(crate) struct ResnetBlock2D {
    pub norm1: GroupNorm,
    pub conv1: Conv3x3,
    pub time_emb_proj: Option<Linear>,
    pub norm2: GroupNorm,
    pub conv2: Conv3x3,
    pub conv_shortcut: Option<Conv1x1>,
    scale_shift: bool,
    dropout: f64,
    output_scale: f64,
    #[module(skip)]
    resize: Resize,
}

impl ResnetConfig {
    pub(crate) fn init(&self, device: &Device) -> ResnetBlock2D {
        let (inputs, outputs) = (self.in_channels, self.out_channels);
        let scale_shift = self.time_scale_shift == TimeScaleShift::ScaleShift;
        let time_outputs = if scale_shift { 2 * outputs } else { outputs };
        ResnetBlock2D {
            norm1: GroupNorm::new(self.groups, inputs, self.eps, device),
            conv1: Conv3x3::new(inputs, outputs, device),
            time_emb_proj: self
                .time_channels
                .map(|time| Linear::new(time, time_outputs, device)),
            norm2: GroupNorm::new(self.groups, outputs, self.eps, device),
            conv2: Conv3x3::new(outputs, outputs, device),
            conv_shortcut: (inputs != outputs).then(|| Conv1x1::new(inputs, outputs, device)),
            scale_shift,
            dropout: self.dropout,
            output_scale: self.output_scale,
            resize: self.resize,
        }
    }
}

impl ResnetBlock2D {
    /// `temb` is the time embedding after its SiLU, which all blocks share; a block without one takes
    /// `None`. `dropout` draws the masks of a training step; without it nothing is dropped.
    ///
    /// # Shapes
    /// `x`: `[batch, height, width, in]`, `temb`: `[batch, time]`, result: `[batch, height', width', out]`.
    ///
    /// # Panics
    /// A block with a time embedding that is given none.
    pub(crate) fn forward(
        &self,
        x: Tensor<4>,
        temb: impl Into<Option<Tensor<2>>>,
        dropout: Option<&mut Draw>,
    ) -> Tensor<4> {
        let h = self.norm1.forward_silu(x.clone());
        let (x, h) = match self.resize {
            Resize::Keep => (x, h),
            Resize::Down => (mean_2x2(x), mean_2x2(h)),
            Resize::Up => (
                kernels::upsample_nearest2x(x),
                kernels::upsample_nearest2x(h),
            ),
        };
        let time = self.time_emb_proj.as_ref().map(|projection| {
            projection.forward(temb.into().expect("this block takes a time embedding"))
        });
        let h = match time {
            None => self.norm2.forward_silu(self.conv1.forward(h)),
            Some(time) if self.scale_shift => {
                let half = time.dims()[1] / 2;
                let scale = time.clone().narrow(1, 0, half);
                let shift = time.narrow(1, half, half);
                self.norm2
                    .forward_scale_shift_silu(self.conv1.forward(h), scale, shift)
            }
            Some(time) => self.norm2.forward_silu(self.conv1.forward_shifted(h, time)),
        };
        let h = self.drop(h, dropout);
        let shortcut = match &self.conv_shortcut {
            Some(conv) => conv.forward(x),
            None => x,
        };
        scaled(self.conv2.forward_residual(h, shortcut), self.output_scale)
    }

    fn drop(&self, h: Tensor<4>, draw: Option<&mut Draw>) -> Tensor<4> {
        let (Some(draw), true) = (draw, self.dropout > 0.0) else {
            return h;
        };
        let keep = 1.0 - self.dropout;
        let mask: Vec<f32> = draw
            .uniform(h.shape().num_elements())
            .into_iter()
            .map(|u| {
                if f64::from(u) < keep {
                    (1.0 / keep) as f32
                } else {
                    0.0
                }
            })
            .collect();
        let mask = Tensor::from_data(TensorData::new(mask, h.dims()), &h.device());
        h * mask
    }
}

/// Mean of each 2x2 square; a last odd row or column is left out, as PyTorch's `AvgPool2d` does.
fn mean_2x2(x: Tensor<4>) -> Tensor<4> {
    let [batch, height, width, channels] = x.dims();
    let (half_h, half_w) = (height / 2, width / 2);
    x.narrow(1, 0, 2 * half_h)
        .narrow(2, 0, 2 * half_w)
        .reshape([batch, half_h, 2, half_w, 2 * channels])
        .mean_dim(2)
        .reshape([batch, half_h, half_w, 2, channels])
        .mean_dim(3)
        .reshape([batch, half_h, half_w, channels])
}

/// Halves the resolution, by a strided convolution or by a residual block.
#[derive(Module, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "a network has a handful of these"
)]
pub(crate) enum Downsampler {
    Conv(Downsample2D),
    Resnet(ResnetBlock2D),
}

/// Doubles the resolution, by a convolution after nearest-neighbor upsampling or by a residual block.
#[derive(Module, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "a network has a handful of these"
)]
pub(crate) enum Upsampler {
    Conv(Upsample2D),
    Resnet(ResnetBlock2D),
}

/// A strided convolution.
#[derive(Module, Debug)]
pub(crate) struct Downsample2D {
    pub conv: ConvStride2,
}

/// Nearest-neighbor upsampling and a convolution.
#[derive(Module, Debug)]
pub(crate) struct Upsample2D {
    pub conv: Conv3x3,
}

impl Downsampler {
    /// # Shapes
    /// `[batch, height, width, channels]` to half the height and width.
    pub(crate) fn forward(
        &self,
        x: Tensor<4>,
        temb: Tensor<2>,
        dropout: Option<&mut Draw>,
    ) -> Tensor<4> {
        match self {
            Self::Conv(down) => down.conv.forward(x),
            Self::Resnet(block) => block.forward(x, temb, dropout),
        }
    }
}

impl Upsampler {
    /// # Shapes
    /// `[batch, height, width, channels]` to twice the height and width.
    pub(crate) fn forward(
        &self,
        x: Tensor<4>,
        temb: Tensor<2>,
        dropout: Option<&mut Draw>,
    ) -> Tensor<4> {
        match self {
            Self::Conv(up) => up.conv.forward(kernels::upsample_nearest2x(x)),
            Self::Resnet(block) => block.forward(x, temb, dropout),
        }
    }
}
