//! The layers that CLIP's two encoders share (Radford et al. 2021): attention and feed-forward, each after a
//! normalization and inside a residual connection.

use burn::module::Module;
use burn::tensor::{Device, Tensor, activation};
use retrack_kernels as kernels;

use crate::attention::{merge_heads, split_heads};
use crate::config::{ConfigError, Fields};
use crate::layers::{LayerNorm, Linear};

/// Many times those of any published encoder; a stranger's file must not make us build for hours.
const MOST_LAYERS: usize = 1024;

/// The activation between the two layers of a [`Mlp`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HiddenAct {
    /// x sigmoid(1.702 x): OpenAI's CLIP, Stable Diffusion 1.
    QuickGelu,
    /// Stable Diffusion 2.
    Gelu,
}

/// What an [`Encoder`] is made of, with the names of transformers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct EncoderConfig {
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub hidden_act: HiddenAct,
    pub layer_norm_eps: f64,
}

/// Sizes of an encoder whose configuration does not say them.
pub(crate) struct Defaults {
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_attention_heads: usize,
}

impl EncoderConfig {
    /// # Errors
    /// Names the key whose value has the wrong type, is not supported, or contradicts another.
    pub(crate) fn read(fields: &mut Fields, defaults: Defaults) -> Result<Self, ConfigError> {
        let config = Self {
            hidden_size: fields.count("hidden_size", defaults.hidden_size)?,
            intermediate_size: fields.count("intermediate_size", defaults.intermediate_size)?,
            num_hidden_layers: fields.count("num_hidden_layers", 12)?,
            num_attention_heads: fields
                .count("num_attention_heads", defaults.num_attention_heads)?,
            hidden_act: fields.choice("hidden_act", "quick_gelu", "quick_gelu, gelu", |name| {
                match name {
                    "quick_gelu" => Some(HiddenAct::QuickGelu),
                    "gelu" => Some(HiddenAct::Gelu),
                    _ => None,
                }
            })?,
            layer_norm_eps: fields.number("layer_norm_eps", 1e-5)?,
        };
        if config.layer_norm_eps <= 0.0 {
            return Err(ConfigError::Inconsistent(
                "`layer_norm_eps` must be above 0".into(),
            ));
        }
        let (hidden, heads) = (config.hidden_size, config.num_attention_heads);
        if !hidden.is_multiple_of(heads) {
            return Err(ConfigError::Inconsistent(format!(
                "`hidden_size` = {hidden} does not split into `num_attention_heads` = {heads} heads"
            )));
        }
        if config.num_hidden_layers > MOST_LAYERS {
            return Err(ConfigError::Inconsistent(format!(
                "`num_hidden_layers` = {} are more than {MOST_LAYERS}",
                config.num_hidden_layers
            )));
        }
        Ok(config)
    }

    /// The layers, all parameters zero.
    pub(crate) fn init(&self, device: &Device) -> Encoder {
        let hidden = self.hidden_size;
        let linear = || Linear::new(hidden, hidden, device);
        let layer = || EncoderLayer {
            layer_norm1: self.norm(device),
            self_attn: SelfAttention {
                q_proj: linear(),
                k_proj: linear(),
                v_proj: linear(),
                out_proj: linear(),
                heads: self.num_attention_heads,
            },
            layer_norm2: self.norm(device),
            mlp: Mlp {
                fc1: Linear::new(hidden, self.intermediate_size, device),
                fc2: Linear::new(self.intermediate_size, hidden, device),
                quick: self.hidden_act == HiddenAct::QuickGelu,
            },
        };
        Encoder {
            layers: (0..self.num_hidden_layers).map(|_| layer()).collect(),
        }
    }

    /// A normalization of this encoder's width.
    pub(crate) fn norm(&self, device: &Device) -> LayerNorm {
        LayerNorm::new(self.hidden_size, self.layer_norm_eps, device)
    }

    /// How many numbers the layers have.
    pub(crate) fn parameters(&self) -> u64 {
        let (hidden, inner) = (self.hidden_size as u64, self.intermediate_size as u64);
        let attention = 4 * hidden * (hidden + 1);
        let mlp = hidden * (inner + 1) + inner * (hidden + 1);
        self.num_hidden_layers as u64 * (attention + mlp + 4 * hidden)
    }
}

/// The layers. Field names are the checkpoint's, so that a parameter's path is its key.
#[derive(Module, Debug)]
pub(crate) struct Encoder {
    pub layers: Vec<EncoderLayer>,
}

/// Attention and feed-forward, each after a normalization and inside a residual connection.
#[derive(Module, Debug)]
pub(crate) struct EncoderLayer {
    pub layer_norm1: LayerNorm,
    pub self_attn: SelfAttention,
    pub layer_norm2: LayerNorm,
    pub mlp: Mlp,
}

/// Attention of every token over its sequence.
#[derive(Module, Debug)]
pub(crate) struct SelfAttention {
    pub q_proj: Linear,
    pub k_proj: Linear,
    pub v_proj: Linear,
    pub out_proj: Linear,
    heads: usize,
}

/// Two linear layers with an activation between.
#[derive(Module, Debug)]
pub(crate) struct Mlp {
    pub fc1: Linear,
    pub fc2: Linear,
    quick: bool,
}

impl Encoder {
    /// `batch` sequences of as many tokens each, one after another.
    ///
    /// # Shapes
    /// `x`: `[batch * tokens, channels]`, unchanged; `mask`: `[1, tokens, tokens]`, added to the scores.
    pub(crate) fn forward(
        &self,
        x: Tensor<2>,
        mask: Option<&Tensor<3>>,
        batch: usize,
    ) -> Tensor<2> {
        let [_, last] = self.states(x, mask, batch);
        last
    }

    /// As [`forward`](Self::forward): what the last layer is given, and what it makes of it.
    pub(crate) fn states(
        &self,
        x: Tensor<2>,
        mask: Option<&Tensor<3>>,
        batch: usize,
    ) -> [Tensor<2>; 2] {
        let first = [x.clone(), x];
        self.layers.iter().fold(first, |[_, x], layer| {
            let given = x.clone();
            let normed = layer.layer_norm1.forward(x.clone());
            let x = x + layer.self_attn.forward(normed, mask, batch);
            let normed = layer.layer_norm2.forward(x.clone());
            [given, x + layer.mlp.forward(normed)]
        })
    }
}

impl SelfAttention {
    /// # Shapes
    /// As [`Encoder::forward`].
    fn forward(&self, x: Tensor<2>, mask: Option<&Tensor<3>>, batch: usize) -> Tensor<2> {
        let q = split_heads(self.q_proj.forward(x.clone()), batch, self.heads);
        let k = split_heads(self.k_proj.forward(x.clone()), batch, self.heads);
        let v = split_heads(self.v_proj.forward(x), batch, self.heads);
        let scale = 1.0 / (q.dims()[2] as f64).sqrt();
        let attended = match mask {
            Some(mask) => {
                let scores = (q * scale).matmul(k.swap_dims(1, 2)) + mask.clone();
                activation::softmax(scores, 2).matmul(v)
            }
            None => kernels::attention(q, k, v, scale),
        };
        self.out_proj
            .forward(merge_heads(attended, batch, self.heads))
    }
}

impl Mlp {
    /// # Shapes
    /// `[rows, channels]`, unchanged.
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let x = self.fc1.forward(x);
        let x = if self.quick {
            activation::sigmoid(x.clone() * 1.702) * x
        } else {
            kernels::gelu(x)
        };
        self.fc2.forward(x)
    }
}
