//! Transformer blocks over the pixels of an image, with attention to a text.
//!
//! Inside, tokens are rows: `[batch * tokens, channels]`.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use retrack_kernels as kernels;

use crate::attention::{merge_heads, split_heads};
use crate::feed_forward::FeedForward;
use crate::layers::{Conv1x1, GroupNorm, LayerNorm, Linear, Projection};

/// Of a transformer's group normalization, whatever the network's `norm_eps`.
const GROUP_NORM_EPS: f64 = 1e-6;
const LAYER_NORM_EPS: f64 = 1e-5;

/// Multi-head attention of one sequence over another or over itself (diffusers' `Attention` as
/// `BasicTransformerBlock` uses it). Its head dimension is channels / heads.
#[derive(Module, Debug)]
pub(crate) struct TokenAttention {
    pub to_q: Projection,
    pub to_k: Projection,
    pub to_v: Projection,
    /// One layer; the checkpoint's name is `to_out.0`.
    pub to_out: Vec<Linear>,
    heads: usize,
}

impl TokenAttention {
    /// `context`: width of what is looked at.
    pub(crate) fn new(channels: usize, context: usize, heads: usize, device: &Device) -> Self {
        Self {
            to_q: Projection::new(channels, channels, device),
            to_k: Projection::new(context, channels, device),
            to_v: Projection::new(context, channels, device),
            to_out: vec![Linear::new(channels, channels, device)],
            heads,
        }
    }

    /// # Shapes
    /// `x`: `[batch * tokens, channels]`, unchanged; `context`: `[batch * context tokens, context]`.
    pub(crate) fn forward(&self, x: Tensor<2>, context: Tensor<2>, batch: usize) -> Tensor<2> {
        let q = split_heads(self.to_q.forward(x), batch, self.heads);
        let k = split_heads(self.to_k.forward(context.clone()), batch, self.heads);
        let v = split_heads(self.to_v.forward(context), batch, self.heads);
        let scale = 1.0 / (q.dims()[2] as f64).sqrt();
        let attended = kernels::attention(q, k, v, scale);
        self.to_out[0].forward(merge_heads(attended, batch, self.heads))
    }
}

/// Self-attention, cross-attention and feed-forward, each after a normalization and inside a residual
/// connection.
#[derive(Module, Debug)]
pub(crate) struct BasicTransformerBlock {
    pub norm1: LayerNorm,
    pub attn1: TokenAttention,
    pub norm2: LayerNorm,
    pub attn2: TokenAttention,
    pub norm3: LayerNorm,
    pub ff: FeedForward,
    only_cross_attention: bool,
}

impl BasicTransformerBlock {
    /// # Shapes
    /// `x`: `[batch * tokens, channels]`, unchanged; `context`: `[batch * context tokens, context]`.
    pub(crate) fn forward(&self, x: Tensor<2>, context: &Tensor<2>, batch: usize) -> Tensor<2> {
        let normed = self.norm1.forward(x.clone());
        let first = if self.only_cross_attention {
            context.clone()
        } else {
            normed.clone()
        };
        let x = x + self.attn1.forward(normed, first, batch);
        let normed = self.norm2.forward(x.clone());
        let x = x + self.attn2.forward(normed, context.clone(), batch);
        let normed = self.norm3.forward(x.clone());
        x + self.ff.forward(normed)
    }
}

/// A linear map of the channels, as checkpoints of either kind store it.
#[derive(Module, Debug)]
pub(crate) enum PixelProjection {
    Conv(Conv1x1),
    Linear(Linear),
}

impl PixelProjection {
    fn new(channels: usize, linear: bool, device: &Device) -> Self {
        if linear {
            Self::Linear(Linear::new(channels, channels, device))
        } else {
            Self::Conv(Conv1x1::new(channels, channels, device))
        }
    }

    /// # Shapes
    /// `[rows, channels]`, unchanged.
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Linear(linear) => linear.forward(x),
            Self::Conv(conv) => kernels::linear(x, conv.weight.val(), Some(conv.bias.val())),
        }
    }
}

/// Transformer blocks over an image's pixels, between two projections and inside a residual connection.
#[derive(Module, Debug)]
pub(crate) struct Transformer2DModel {
    pub norm: GroupNorm,
    pub proj_in: PixelProjection,
    pub transformer_blocks: Vec<BasicTransformerBlock>,
    pub proj_out: PixelProjection,
}

/// What a [`Transformer2DModel`] is made of.
#[derive(Debug, Clone)]
pub(super) struct TransformerConfig {
    pub channels: usize,
    /// Must divide `channels`.
    pub heads: usize,
    /// Width of the encoder's hidden states.
    pub context: usize,
    pub layers: usize,
    pub groups: usize,
    pub only_cross_attention: bool,
    pub use_linear_projection: bool,
}

impl TransformerConfig {
    pub(super) fn init(&self, device: &Device) -> Transformer2DModel {
        let (channels, linear) = (self.channels, self.use_linear_projection);
        let norm = || LayerNorm::new(channels, LAYER_NORM_EPS, device);
        let attention = |context| TokenAttention::new(channels, context, self.heads, device);
        let first = if self.only_cross_attention {
            self.context
        } else {
            channels
        };
        let block = || BasicTransformerBlock {
            norm1: norm(),
            attn1: attention(first),
            norm2: norm(),
            attn2: attention(self.context),
            norm3: norm(),
            ff: FeedForward::geglu(channels, device),
            only_cross_attention: self.only_cross_attention,
        };
        Transformer2DModel {
            norm: GroupNorm::new(self.groups, channels, GROUP_NORM_EPS, device),
            proj_in: PixelProjection::new(channels, linear, device),
            transformer_blocks: (0..self.layers).map(|_| block()).collect(),
            proj_out: PixelProjection::new(channels, linear, device),
        }
    }
}

impl Transformer2DModel {
    /// # Shapes
    /// `x`: `[batch, height, width, channels]`, unchanged; `context`: `[batch * tokens, context]`.
    pub(crate) fn forward(&self, x: Tensor<4>, context: &Tensor<2>) -> Tensor<4> {
        let [batch, height, width, channels] = x.dims();
        let rows = self.norm.forward(x.clone());
        let rows = rows.reshape([batch * height * width, channels]);
        let mut rows = self.proj_in.forward(rows);
        for block in &self.transformer_blocks {
            rows = block.forward(rows, context, batch);
        }
        x + self
            .proj_out
            .forward(rows)
            .reshape([batch, height, width, channels])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters;

    #[test]
    fn layers_have_the_names_and_shapes_of_checkpoints() {
        let config = TransformerConfig {
            channels: 8,
            heads: 2,
            context: 6,
            layers: 1,
            groups: 4,
            only_cross_attention: false,
            use_linear_projection: false,
        };
        let of = |linear| {
            let config = TransformerConfig {
                use_linear_projection: linear,
                ..config.clone()
            };
            let all = parameters::list(&config.init(&Device::flex()));
            move |name: &str| all.iter().find(|p| p.name == name).map(|p| p.shape.clone())
        };
        let (conv, linear) = (of(false), of(true));
        assert_eq!(conv("proj_in.weight").unwrap(), [8, 8, 1, 1]);
        assert_eq!(linear("proj_in.weight").unwrap(), [8, 8]);
        let block = |rest: &str| conv(&format!("transformer_blocks.0.{rest}"));
        assert_eq!(block("attn2.to_k.weight").unwrap(), [8, 6]);
        assert_eq!(block("attn2.to_k.bias"), None);
        assert_eq!(block("attn1.to_out.0.bias").unwrap(), [8]);
        assert_eq!(block("ff.net.0.proj.weight").unwrap(), [64, 8]);
        assert_eq!(block("ff.net.2.weight").unwrap(), [8, 32]);
    }
}
