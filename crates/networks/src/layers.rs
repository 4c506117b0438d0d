//! The layers with weights. Each keeps its weight in the layout its operation reads; see
//! [`parameters`](crate::parameters) for the way from and to PyTorch's.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use retrack_kernels as kernels;

/// A parameter that awaits its values.
fn blank<const D: usize>(shape: [usize; D], device: &Device) -> Param<Tensor<D>> {
    Param::from_tensor(Tensor::zeros(shape, device))
}

/// 3x3 convolution, stride 1, one pixel of zero padding.
#[derive(Module, Debug)]
pub struct Conv3x3 {
    /// `[3, 3, in, out]`.
    pub weight: Param<Tensor<4>>,
    /// `[out]`.
    pub bias: Param<Tensor<1>>,
}

impl Conv3x3 {
    /// The layer with all weights zero.
    pub fn new(in_channels: usize, out_channels: usize, device: &Device) -> Self {
        Self {
            weight: blank([3, 3, in_channels, out_channels], device),
            bias: blank([out_channels], device),
        }
    }

    /// # Shapes
    /// `[batch, height, width, in]` to `[batch, height, width, out]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        kernels::conv3x3(x, self.weight.val(), self.bias.val().unsqueeze(), None)
    }

    /// The convolution with `shift` (`[batch, out]`) added to every pixel of its image.
    pub fn forward_shifted(&self, x: Tensor<4>, shift: Tensor<2>) -> Tensor<4> {
        let bias = shift + self.bias.val().unsqueeze();
        kernels::conv3x3(x, self.weight.val(), bias, None)
    }

    /// The convolution plus `residual` (`[batch, height, width, out]`).
    pub fn forward_residual(&self, x: Tensor<4>, residual: Tensor<4>) -> Tensor<4> {
        let bias = self.bias.val().unsqueeze();
        kernels::conv3x3(x, self.weight.val(), bias, Some(residual))
    }
}

/// 3x3 convolution, stride 2.
#[derive(Module, Debug)]
pub struct ConvStride2 {
    /// `[3, 3, in, out]`.
    pub weight: Param<Tensor<4>>,
    /// `[out]`.
    pub bias: Param<Tensor<1>>,
    symmetric: bool,
}

impl ConvStride2 {
    /// `padding`: 1 pads every side, 0 the bottom and right only.
    /// The layer with all weights zero.
    pub fn new(channels: usize, padding: usize, device: &Device) -> Self {
        Self {
            weight: blank([3, 3, channels, channels], device),
            bias: blank([channels], device),
            symmetric: padding == 1,
        }
    }

    /// # Shapes
    /// `[batch, height, width, channels]` to half the height and width, rounded up when every side
    /// is padded and down otherwise.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let padding = if self.symmetric {
            kernels::Padding::Symmetric
        } else {
            kernels::Padding::BottomRight
        };
        kernels::conv3x3_stride2(x, self.weight.val(), self.bias.val(), padding)
    }
}

/// 1x1 convolution: a linear layer over the channels.
#[derive(Module, Debug)]
pub struct Conv1x1 {
    /// `[in, out]`.
    pub weight: Param<Tensor<2>>,
    /// `[out]`.
    pub bias: Param<Tensor<1>>,
}

impl Conv1x1 {
    /// The layer with all weights zero.
    pub fn new(in_channels: usize, out_channels: usize, device: &Device) -> Self {
        Self {
            weight: blank([in_channels, out_channels], device),
            bias: blank([out_channels], device),
        }
    }

    /// # Shapes
    /// `[batch, height, width, in]` to `[batch, height, width, out]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [batch, height, width, channels] = x.dims();
        let rows = x.reshape([batch * height * width, channels]);
        let y = kernels::linear(rows, self.weight.val(), Some(self.bias.val()));
        y.reshape([batch as i64, height as i64, width as i64, -1])
    }
}

/// Linear layer.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[in, out]`.
    pub weight: Param<Tensor<2>>,
    /// `[out]`.
    pub bias: Param<Tensor<1>>,
}

impl Linear {
    /// The layer with all weights zero.
    pub fn new(inputs: usize, outputs: usize, device: &Device) -> Self {
        Self {
            weight: blank([inputs, outputs], device),
            bias: blank([outputs], device),
        }
    }

    /// # Shapes
    /// `[rows, in]` to `[rows, out]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        kernels::linear(x, self.weight.val(), Some(self.bias.val()))
    }
}

/// Linear layer without a bias.
#[derive(Module, Debug)]
pub struct Projection {
    /// `[in, out]`.
    pub weight: Param<Tensor<2>>,
}

impl Projection {
    /// The layer with all weights zero.
    pub fn new(inputs: usize, outputs: usize, device: &Device) -> Self {
        Self {
            weight: blank([inputs, outputs], device),
        }
    }

    /// # Shapes
    /// `[rows, in]` to `[rows, out]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        kernels::linear(x, self.weight.val(), None)
    }
}

/// Normalization of every row by its own mean and variance, with a scale and a shift for each channel.
#[derive(Module, Debug)]
pub struct LayerNorm {
    /// `[channels]`.
    pub weight: Param<Tensor<1>>,
    /// `[channels]`.
    pub bias: Param<Tensor<1>>,
    eps: f64,
}

impl LayerNorm {
    /// The layer with all weights zero.
    pub fn new(channels: usize, eps: f64, device: &Device) -> Self {
        Self {
            weight: blank([channels], device),
            bias: blank([channels], device),
            eps,
        }
    }

    /// # Shapes
    /// `[rows, channels]`, unchanged.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let [rows, channels] = x.dims();
        let (gamma, beta) = (self.weight.val().unsqueeze(), self.bias.val().unsqueeze());
        // A row is an image of one pixel, all of whose channels form one group.
        let images = x.reshape([rows, 1, 1, channels]);
        kernels::group_norm(images, gamma, beta, 1, self.eps, false).reshape([rows, channels])
    }
}

/// Group normalization with a scale and a shift for each channel.
#[derive(Module, Debug)]
pub struct GroupNorm {
    /// `[channels]`.
    pub weight: Param<Tensor<1>>,
    /// `[channels]`.
    pub bias: Param<Tensor<1>>,
    groups: usize,
    eps: f64,
}

impl GroupNorm {
    /// The layer with all weights zero.
    pub fn new(groups: usize, channels: usize, eps: f64, device: &Device) -> Self {
        Self {
            weight: blank([channels], device),
            bias: blank([channels], device),
            groups,
            eps,
        }
    }

    /// # Shapes
    /// `[batch, height, width, channels]`, unchanged.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let (gamma, beta) = (self.weight.val().unsqueeze(), self.bias.val().unsqueeze());
        kernels::group_norm(x, gamma, beta, self.groups, self.eps, false)
    }

    /// SiLU of the normalization.
    pub fn forward_silu(&self, x: Tensor<4>) -> Tensor<4> {
        let (gamma, beta) = (self.weight.val().unsqueeze(), self.bias.val().unsqueeze());
        kernels::group_norm(x, gamma, beta, self.groups, self.eps, true)
    }

    /// SiLU of `normalization * (1 + scale) + shift`, with `scale` and `shift` `[batch, channels]`.
    pub fn forward_scale_shift_silu(
        &self,
        x: Tensor<4>,
        scale: Tensor<2>,
        shift: Tensor<2>,
    ) -> Tensor<4> {
        let scale = scale + 1.0;
        let gamma = scale.clone() * self.weight.val().unsqueeze();
        let beta = scale * self.bias.val().unsqueeze() + shift;
        kernels::group_norm(x, gamma, beta, self.groups, self.eps, true)
    }
}

/// A table of vectors.
#[derive(Module, Debug)]
pub struct Embedding {
    /// `[rows, dim]`.
    pub weight: Param<Tensor<2>>,
}

impl Embedding {
    /// The layer with all weights zero.
    pub fn new(rows: usize, dim: usize, device: &Device) -> Self {
        Self {
            weight: blank([rows, dim], device),
        }
    }

    /// How many vectors there are.
    pub fn rows(&self) -> usize {
        self.weight.dims()[0]
    }

    /// # Shapes
    /// `[n, dim]` for n indices.
    pub fn forward(&self, indices: &[i64]) -> Tensor<2> {
        let table = self.weight.val();
        let device = table.device();
        let indices = Tensor::<1, burn::tensor::Int>::from_ints(indices, &device);
        table.select(0, indices)
    }
}
