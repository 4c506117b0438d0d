//! Self-attention over pixels.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use retrack_kernels as kernels;

use crate::layers::{GroupNorm, Linear};

/// Self-attention of every pixel over all pixels of its image, with a residual connection
/// (diffusers' `Attention` as UNet2DModel's blocks use it).
#[derive(Module, Debug)]
pub(crate) struct Attention {
    pub group_norm: Option<GroupNorm>,
    pub to_q: Linear,
    pub to_k: Linear,
    pub to_v: Linear,
    /// One layer; the checkpoint's name is `to_out.0`.
    pub to_out: Vec<Linear>,
    heads: usize,
    output_scale: f64,
}

/// What an [`Attention`] is made of.
#[derive(Debug, Clone)]
pub(crate) struct AttentionConfig {
    pub channels: usize,
    /// `None`: one head over all channels.
    pub head_dim: Option<usize>,
    /// `None`: no normalization before the attention.
    pub groups: Option<usize>,
    pub eps: f64,
    /// The sum of residual and attention is divided by this.
    pub output_scale: f64,
}

impl AttentionConfig {
    pub(crate) fn init(&self, device: &Device) -> Attention {
        let head_dim = self.head_dim.unwrap_or(self.channels);
        let heads = self.channels / head_dim;
        let inner = heads * head_dim;
        Attention {
            group_norm: self
                .groups
                .map(|groups| GroupNorm::new(groups, self.channels, self.eps, device)),
            to_q: Linear::new(self.channels, inner, device),
            to_k: Linear::new(self.channels, inner, device),
            to_v: Linear::new(self.channels, inner, device),
            to_out: vec![Linear::new(inner, self.channels, device)],
            heads,
            output_scale: self.output_scale,
        }
    }
}

impl Attention {
    /// # Shapes
    /// `[batch, height, width, channels]`, unchanged.
    pub(crate) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [batch, height, width, channels] = x.dims();
        let pixels = height * width;
        let normed = match &self.group_norm {
            Some(norm) => norm.forward(x.clone()),
            None => x.clone(),
        };
        let rows = normed.reshape([batch * pixels, channels]);
        let q = split_heads(self.to_q.forward(rows.clone()), batch, self.heads);
        let k = split_heads(self.to_k.forward(rows.clone()), batch, self.heads);
        let v = split_heads(self.to_v.forward(rows), batch, self.heads);
        let scale = 1.0 / (q.dims()[2] as f64).sqrt();
        let attended = merge_heads(kernels::attention(q, k, v, scale), batch, self.heads);
        let y = self.to_out[0]
            .forward(attended)
            .reshape([batch, height, width, channels]);
        scaled(x + y, self.output_scale)
    }
}

/// `[batch * tokens, heads * dim]` to `[batch * heads, tokens, dim]`.
pub(crate) fn split_heads(x: Tensor<2>, batch: usize, heads: usize) -> Tensor<3> {
    let [rows, inner] = x.dims();
    let (tokens, dim) = (rows / batch, inner / heads);
    if heads == 1 {
        return x.reshape([batch, tokens, dim]);
    }
    x.reshape([batch, tokens, heads, dim])
        .swap_dims(1, 2)
        .reshape([batch * heads, tokens, dim])
}

/// The way back of [`split_heads`].
pub(crate) fn merge_heads(x: Tensor<3>, batch: usize, heads: usize) -> Tensor<2> {
    let [_, tokens, dim] = x.dims();
    if heads == 1 {
        return x.reshape([batch * tokens, dim]);
    }
    x.reshape([batch, heads, tokens, dim])
        .swap_dims(1, 2)
        .reshape([batch * tokens, heads * dim])
}

/// `x / scale`, without an operation for the usual 1.
pub(crate) fn scaled(x: Tensor<4>, scale: f64) -> Tensor<4> {
    if scale == 1.0 { x } else { x.div_scalar(scale) }
}
