//! The text encoder of CLIP (Radford et al. 2021) as Stable Diffusion uses it: from token numbers to the
//! hidden states that a conditional network attends to. There is no tokenizer here.

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData, activation};
use retrack_kernels as kernels;
use serde_json::Value;

use crate::attention::{merge_heads, split_heads};
use crate::config::{ConfigError, Fields};
use crate::layers::{Embedding, LayerNorm, Linear};

/// The activation between the two layers of a [`Mlp`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HiddenAct {
    /// x sigmoid(1.702 x): Stable Diffusion 1.
    QuickGelu,
    /// Stable Diffusion 2.
    Gelu,
}

/// Configuration of [`CLIPTextModel`], with the names and defaults of transformers.
#[derive(Debug, Clone, PartialEq)]
pub struct TextConfig {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub max_position_embeddings: usize,
    pub hidden_act: HiddenAct,
    pub layer_norm_eps: f64,
    /// Keys of the file that mean nothing to this network.
    pub unknown_keys: Vec<String>,
}

/// What the file says about other uses than encoding: training, special tokens, how it was saved.
const HARMLESS: [&str; 14] = [
    "architectures",
    "attention_dropout",
    "bos_token_id",
    "dropout",
    "dtype",
    "eos_token_id",
    "initializer_factor",
    "initializer_range",
    "model_type",
    "pad_token_id",
    "projection_dim",
    "torch_dtype",
    "transformers_version",
    "tie_word_embeddings",
];

impl TextConfig {
    /// Reads a parsed `config.json`.
    ///
    /// # Errors
    /// Names the key whose value has the wrong type, is not supported, or contradicts another.
    pub fn from_json(json: &Value) -> Result<Self, ConfigError> {
        let object = json.as_object().ok_or_else(|| {
            ConfigError::Inconsistent("the configuration is not a JSON object".into())
        })?;
        let mut fields = Fields::new(object);
        for key in HARMLESS {
            fields.get(key);
        }
        let config = Self {
            vocab_size: fields.count("vocab_size", 49408)?,
            hidden_size: fields.count("hidden_size", 512)?,
            intermediate_size: fields.count("intermediate_size", 2048)?,
            num_hidden_layers: fields.count("num_hidden_layers", 12)?,
            num_attention_heads: fields.count("num_attention_heads", 8)?,
            max_position_embeddings: fields.count("max_position_embeddings", 77)?,
            hidden_act: fields.choice("hidden_act", "quick_gelu", "quick_gelu, gelu", |name| {
                match name {
                    "quick_gelu" => Some(HiddenAct::QuickGelu),
                    "gelu" => Some(HiddenAct::Gelu),
                    _ => None,
                }
            })?,
            layer_norm_eps: fields.number("layer_norm_eps", 1e-5)?,
            unknown_keys: fields.unknown(),
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
        Ok(config)
    }

    /// Numbers in all parameters, exactly.
    pub fn parameters(&self) -> f64 {
        let [hidden, inner] = [self.hidden_size, self.intermediate_size].map(|n| n as f64);
        let layer = 4.0 * (hidden + 1.0) * hidden + 2.0 * hidden * inner + inner + 5.0 * hidden;
        let rows = (self.vocab_size + self.max_position_embeddings) as f64;
        rows * hidden + self.num_hidden_layers as f64 * layer + 2.0 * hidden
    }

    /// The network, all parameters zero: [`parameters`](crate::parameters) fills them.
    pub fn init(&self, device: &Device) -> CLIPTextModel {
        let hidden = self.hidden_size;
        let norm = || LayerNorm::new(hidden, self.layer_norm_eps, device);
        let linear = || Linear::new(hidden, hidden, device);
        let layer = || EncoderLayer {
            layer_norm1: norm(),
            self_attn: CausalAttention {
                q_proj: linear(),
                k_proj: linear(),
                v_proj: linear(),
                out_proj: linear(),
                heads: self.num_attention_heads,
            },
            layer_norm2: norm(),
            mlp: Mlp {
                fc1: Linear::new(hidden, self.intermediate_size, device),
                fc2: Linear::new(self.intermediate_size, hidden, device),
                quick: self.hidden_act == HiddenAct::QuickGelu,
            },
        };
        let text_model = TextTransformer {
            embeddings: TextEmbeddings {
                token_embedding: Embedding::new(self.vocab_size, hidden, device),
                position_embedding: Embedding::new(self.max_position_embeddings, hidden, device),
            },
            encoder: TextEncoder {
                layers: (0..self.num_hidden_layers).map(|_| layer()).collect(),
            },
            final_layer_norm: norm(),
        };
        CLIPTextModel { text_model }
    }
}

/// Why a text cannot be encoded.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TextError {
    #[error("no text has any tokens")]
    Empty,
    #[error("text {text} has {found} tokens, the first has {expected}")]
    Uneven {
        text: usize,
        found: usize,
        expected: usize,
    },
    #[error("texts have {found} tokens, the encoder takes at most {most}")]
    TooLong { found: usize, most: usize },
    #[error("token {token} of text {text} is not among the encoder's 0 to {last}")]
    Token {
        token: i64,
        text: usize,
        last: usize,
    },
}

/// CLIP's text encoder. Field names are the checkpoint's, so that a parameter's path is its key.
#[derive(Module, Debug)]
pub struct CLIPTextModel {
    pub text_model: TextTransformer,
}

/// Embeddings, layers, and a normalization.
#[derive(Module, Debug)]
pub struct TextTransformer {
    pub embeddings: TextEmbeddings,
    pub encoder: TextEncoder,
    pub final_layer_norm: LayerNorm,
}

/// A vector for each token, and one for each place.
#[derive(Module, Debug)]
pub struct TextEmbeddings {
    pub token_embedding: Embedding,
    pub position_embedding: Embedding,
}

/// The layers.
#[derive(Module, Debug)]
pub struct TextEncoder {
    pub layers: Vec<EncoderLayer>,
}

/// Attention and feed-forward, each after a normalization and inside a residual connection.
#[derive(Module, Debug)]
pub struct EncoderLayer {
    pub layer_norm1: LayerNorm,
    pub self_attn: CausalAttention,
    pub layer_norm2: LayerNorm,
    pub mlp: Mlp,
}

/// Attention of every token over itself and those before it.
#[derive(Module, Debug)]
pub struct CausalAttention {
    pub q_proj: Linear,
    pub k_proj: Linear,
    pub v_proj: Linear,
    pub out_proj: Linear,
    heads: usize,
}

/// Two linear layers with an activation between.
#[derive(Module, Debug)]
pub struct Mlp {
    pub fc1: Linear,
    pub fc2: Linear,
    quick: bool,
}

impl CLIPTextModel {
    /// The last hidden states, which a conditional network takes as `encoder_hidden_states`.
    ///
    /// # Shapes
    /// As many tokens in every text; result: `[texts, tokens, hidden_size]`.
    ///
    /// # Errors
    /// No tokens, texts of different lengths or longer than the encoder has places, tokens out of range.
    pub fn forward(&self, texts: &[Vec<i64>]) -> Result<Tensor<3>, TextError> {
        let model = &self.text_model;
        let tokens = self.check(texts)?;
        let places: Vec<i64> = (0..tokens as i64).collect();
        let each = model.embeddings.token_embedding.forward(&texts.concat());
        let place = model.embeddings.position_embedding.forward(&places);
        let mut x = each + place.repeat_dim(0, texts.len());
        let mask = causal_mask(tokens, &x.device());
        for layer in &model.encoder.layers {
            let normed = layer.layer_norm1.forward(x.clone());
            x = x + layer.self_attn.forward(normed, &mask, texts.len());
            let normed = layer.layer_norm2.forward(x.clone());
            x = x + layer.mlp.forward(normed);
        }
        let x = model.final_layer_norm.forward(x);
        let hidden = x.dims()[1];
        Ok(x.reshape([texts.len(), tokens, hidden]))
    }

    /// How many tokens each text has.
    fn check(&self, texts: &[Vec<i64>]) -> Result<usize, TextError> {
        let embeddings = &self.text_model.embeddings;
        let most = embeddings.position_embedding.rows();
        let last = embeddings.token_embedding.rows() - 1;
        let expected = texts.first().map_or(0, Vec::len);
        if expected == 0 {
            return Err(TextError::Empty);
        }
        if expected > most {
            return Err(TextError::TooLong {
                found: expected,
                most,
            });
        }
        for (text, tokens) in texts.iter().enumerate() {
            if tokens.len() != expected {
                return Err(TextError::Uneven {
                    text,
                    found: tokens.len(),
                    expected,
                });
            }
            let known = |token: &&i64| usize::try_from(**token).is_ok_and(|token| token <= last);
            if let Some(&token) = tokens.iter().find(|token| !known(token)) {
                return Err(TextError::Token { token, text, last });
            }
        }
        Ok(expected)
    }
}

/// `[1, tokens, tokens]`: 0 where a token (row) may look, minus infinity after it.
fn causal_mask(tokens: usize, device: &Device) -> Tensor<3> {
    let row = |query: usize| {
        (0..tokens).map(
            move |key| {
                if key <= query { 0.0 } else { f32::NEG_INFINITY }
            },
        )
    };
    let values: Vec<f32> = (0..tokens).flat_map(row).collect();
    Tensor::from_data(TensorData::new(values, [1, tokens, tokens]), device)
}

impl CausalAttention {
    /// # Shapes
    /// `x`: `[texts * tokens, channels]`, unchanged; `mask`: `[1, tokens, tokens]`.
    fn forward(&self, x: Tensor<2>, mask: &Tensor<3>, texts: usize) -> Tensor<2> {
        let q = split_heads(self.q_proj.forward(x.clone()), texts, self.heads);
        let k = split_heads(self.k_proj.forward(x.clone()), texts, self.heads);
        let v = split_heads(self.v_proj.forward(x), texts, self.heads);
        let scale = 1.0 / (q.dims()[2] as f64).sqrt();
        let scores = (q * scale).matmul(k.swap_dims(1, 2)) + mask.clone();
        let attended = activation::softmax(scores, 2).matmul(v);
        self.out_proj
            .forward(merge_heads(attended, texts, self.heads))
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn small() -> Value {
        json!({
            "vocab_size": 10, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1,
            "num_attention_heads": 2, "max_position_embeddings": 4, "torch_dtype": "float32"
        })
    }

    #[test]
    fn what_changes_the_mathematics_is_refused_by_name() {
        for (key, value) in [
            ("hidden_act", json!("relu")),
            ("layer_norm_eps", json!(0)),
            ("num_attention_heads", json!(3)),
            ("vocab_size", json!("many")),
        ] {
            let mut json = small();
            json[key] = value;
            let error = TextConfig::from_json(&json).expect_err(key).to_string();
            assert!(error.contains(key), "{key}: {error}");
        }
        let config = TextConfig::from_json(&small()).unwrap();
        assert_eq!(config.hidden_act, HiddenAct::QuickGelu);
        assert!(config.unknown_keys.is_empty());
    }

    #[test]
    fn texts_that_do_not_fit_are_refused_with_the_numbers() {
        let network = TextConfig::from_json(&small()).unwrap();
        let network = network.init(&Device::flex());
        let error = |texts: &[Vec<i64>]| network.forward(texts).unwrap_err();
        assert_eq!(error(&[]), TextError::Empty);
        assert_eq!(error(&[vec![]]), TextError::Empty);
        let (found, most) = (5, 4);
        assert_eq!(error(&[vec![0; 5]]), TextError::TooLong { found, most });
        let uneven = TextError::Uneven {
            text: 1,
            found: 1,
            expected: 2,
        };
        assert_eq!(error(&[vec![0; 2], vec![0]]), uneven);
        for token in [-1, 10] {
            let wrong = TextError::Token {
                token,
                text: 1,
                last: 9,
            };
            assert_eq!(error(&[vec![0], vec![token]]), wrong);
        }
    }
}
