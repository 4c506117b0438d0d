//! T5's encoder (Raffel et al. 2020, arXiv 1910.10683; version 1.1's gated feed-forward) as Stable Diffusion 3 uses it: from token
//! numbers to hidden states. It is read one block at a time: the published one has 4.7 billion parameters.

mod config;
mod tokenizer;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData, activation};
use retrack_checkpoint::folder::{FolderError, Library, Part, Weights};

use crate::adaptive::RmsNorm;
use crate::attention::{merge_heads, split_heads};
use crate::layers::Projection;
use crate::model::{self, ModelError};
use crate::text::TextError;

pub use config::T5Config;
pub use tokenizer::T5Tokenizer;

/// The two names of the table of tokens. Files hold one of them or both, which are the same.
const TABLES: [&str; 2] = ["shared.weight", "encoder.embed_tokens.weight"];
const BIAS: &str = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight";

/// An encoder in a folder, with its tokenizer.
pub(crate) struct T5Encoder {
    pub config: T5Config,
    pub tokenizer: T5Tokenizer,
    part: Part,
}

/// Attention of every token over its sequence, without a scale.
#[derive(Module, Debug)]
struct SelfAttention {
    q: Projection,
    k: Projection,
    v: Projection,
    o: Projection,
}

/// A layer whose one half is multiplied by the GELU of the other, and one back.
#[derive(Module, Debug)]
struct DenseReluDense {
    wi_0: Projection,
    wi_1: Projection,
    wo: Projection,
}

/// Attention and feed-forward, each after a normalization and inside a residual connection. Checkpoints call the two `layer.0` and
/// `layer.1`.
#[derive(Module, Debug)]
struct Block {
    attention: SelfAttention,
    attention_norm: RmsNorm,
    feed_forward: DenseReluDense,
    feed_forward_norm: RmsNorm,
}

/// The name in a checkpoint of a block's parameter.
fn stored(name: &str) -> String {
    let (part, rest) = name.split_once('.').expect("a field of a field");
    let place = match part {
        "attention" => "layer.0.SelfAttention",
        "attention_norm" => "layer.0.layer_norm",
        "feed_forward" => "layer.1.DenseReluDense",
        "feed_forward_norm" => "layer.1.layer_norm",
        other => unreachable!("a block has no {other}"),
    };
    format!("{place}.{rest}")
}

impl Block {
    fn new(config: &T5Config, device: &Device) -> Self {
        let (width, inner) = (config.d_model, config.num_heads * config.d_kv);
        let norm = || RmsNorm::new(width, config.layer_norm_epsilon, device);
        let into = |outputs| Projection::new(width, outputs, device);
        Self {
            attention: SelfAttention {
                q: into(inner),
                k: into(inner),
                v: into(inner),
                o: Projection::new(inner, width, device),
            },
            attention_norm: norm(),
            feed_forward: DenseReluDense {
                wi_0: into(config.d_ff),
                wi_1: into(config.d_ff),
                wo: Projection::new(config.d_ff, width, device),
            },
            feed_forward_norm: norm(),
        }
    }

    /// # Shapes
    /// `x`: `[batch * tokens, width]`, unchanged; `bias`: `[heads, tokens, tokens]`.
    fn forward(&self, x: Tensor<2>, bias: &Tensor<3>, batch: usize) -> Tensor<2> {
        let heads = bias.dims()[0];
        let normed = normalized(&self.attention_norm, x.clone());
        let head = |layer: &Projection| split_heads(layer.forward(normed.clone()), batch, heads);
        let [q, k, v] = [&self.attention.q, &self.attention.k, &self.attention.v].map(head);
        let scores = q.matmul(k.swap_dims(1, 2)) + bias.clone().repeat_dim(0, batch);
        let attended = activation::softmax(scores, 2).matmul(v);
        let x = x + self
            .attention
            .o
            .forward(merge_heads(attended, batch, heads));

        let normed = normalized(&self.feed_forward_norm, x.clone());
        let layers = &self.feed_forward;
        let gate = activation::gelu_approximate(layers.wi_0.forward(normed.clone()));
        x + layers.wo.forward(gate * layers.wi_1.forward(normed))
    }
}

fn normalized(norm: &RmsNorm, x: Tensor<2>) -> Tensor<2> {
    norm.forward(x.unsqueeze_dim(0)).squeeze_dim(0)
}

impl T5Encoder {
    /// Reads and checks configuration and tokenizer.
    ///
    /// # Errors
    /// What is missing, damaged or not supported.
    pub(crate) fn read(part: Part, tokenizer: &Part) -> Result<Self, ModelError> {
        let config = T5Config::from_json(&part.config()?).map_err(|source| ModelError::Config {
            path: part.path("config.json"),
            source,
        })?;
        // No type takes fewer than two bytes.
        let stored = part.weight_bytes(Library::Transformers)? / 2;
        model::check_parameters(config.parameters(), stored, part.path("config.json"))?;
        Ok(Self {
            tokenizer: T5Tokenizer::read(tokenizer)?,
            config,
            part,
        })
    }

    /// Numbers that encoding takes at its peak, of texts of so many tokens: the table as it is read, or a block and what passes.
    pub(crate) fn encoding(&self, tokens: usize) -> f64 {
        let config = &self.config;
        let table = (config.vocab_size * config.d_model) as f64;
        let wide = 4 * config.d_ff + 8 * config.d_model + 3 * config.num_heads * tokens;
        let block = (config.parameters() as f64 - table) / config.num_layers.max(1) as f64;
        table.max(2.0 * block) + 2.0 * (tokens * wide) as f64
    }

    pub(crate) fn part(&self) -> &Part {
        &self.part
    }

    /// The hidden states after the last block, normalized.
    ///
    /// # Shapes
    /// As many tokens in every text; result: `[texts, tokens, d_model]`.
    ///
    /// # Errors
    /// Weights that cannot be read or do not fit, tokens out of range.
    pub(crate) fn states(
        &self,
        texts: &[Vec<i64>],
        device: &Device,
    ) -> Result<Tensor<3>, ModelError> {
        let weights = self.part.weights(Library::Transformers)?;
        let (count, tokens) = (texts.len(), texts.first().map_or(0, Vec::len));
        let mut x = self.embedded(&weights, texts, device)?;
        let bias = self.bias(&weights, tokens, device)?;
        for number in 0..self.config.num_layers {
            let block = Block::new(&self.config, device);
            let name = |own: &str| format!("encoder.block.{number}.{}", stored(own));
            let block = self.filled(block, &weights, &name)?;
            x = block.forward(x, &bias, count);
        }
        let norm = RmsNorm::new(self.config.d_model, self.config.layer_norm_epsilon, device);
        let norm = self.filled(norm, &weights, &|own| {
            format!("encoder.final_layer_norm.{own}")
        })?;
        let x = normalized(&norm, x);
        Ok(x.reshape([count, tokens, self.config.d_model]))
    }

    /// A module with the weights that `name` says.
    fn filled<M: Module>(
        &self,
        module: M,
        weights: &Weights,
        name: &dyn Fn(&str) -> String,
    ) -> Result<M, ModelError> {
        let mut missing = None;
        let filled = crate::parameters::try_fill(module, |parameter| {
            let name = name(&parameter.name);
            let own = weights.get(&name).filter(|t| t.shape() == parameter.shape);
            match own {
                Some(tensor) => Ok::<_, FolderError>(tensor.read()?.to_f32()),
                None => {
                    missing.get_or_insert((name, parameter.shape.clone()));
                    Ok(vec![0.0; parameter.shape.iter().product()])
                }
            }
        })?;
        match missing {
            None => Ok(filled),
            Some((name, shape)) => Err(self.unfit(format!(
                "`{name}` is missing, or not of the shape {shape:?} that the configuration says"
            ))),
        }
    }

    fn unfit(&self, problem: String) -> ModelError {
        ModelError::Config {
            path: self.part.path("config.json"),
            source: crate::config::ConfigError::Inconsistent(problem),
        }
    }

    /// The vector of each token, `[texts * tokens, d_model]`.
    fn embedded(
        &self,
        weights: &Weights,
        texts: &[Vec<i64>],
        device: &Device,
    ) -> Result<Tensor<2>, ModelError> {
        let shape = [self.config.vocab_size, self.config.d_model];
        let mut tables = TABLES.iter().filter_map(|name| weights.get(name));
        let table = tables.find(|table| table.shape() == shape);
        let table = table.ok_or_else(|| {
            self.unfit(format!(
                "`{}` is missing, or not of the shape {shape:?}",
                TABLES[0]
            ))
        })?;
        let table = table.read()?;
        let width = self.config.d_model;
        let mut rows = Vec::with_capacity(texts.len() * width);
        for (text, ids) in texts.iter().enumerate() {
            for &token in ids {
                let known = usize::try_from(token).ok();
                let row = known.filter(|&row| row < self.config.vocab_size);
                let row = row.ok_or_else(|| ModelError::Text {
                    path: self.part.path(""),
                    source: TextError::Token {
                        token,
                        text,
                        last: self.config.vocab_size - 1,
                    },
                })?;
                rows.extend(table.rows_f32(row, 1));
            }
        }
        let shape = [rows.len() / width, width];
        Ok(Tensor::from_data(TensorData::new(rows, shape), device))
    }

    /// What is added to the scores of each head: a number for how far two places are from each other.
    fn bias(
        &self,
        weights: &Weights,
        tokens: usize,
        device: &Device,
    ) -> Result<Tensor<3>, ModelError> {
        let (buckets, heads) = (self.config.buckets, self.config.num_heads);
        let table = weights.get(BIAS).filter(|t| t.shape() == [buckets, heads]);
        let table = table.ok_or_else(|| {
            self.unfit(format!(
                "`{BIAS}` is missing, or not of the shape {:?}",
                [buckets, heads]
            ))
        })?;
        let table = table.read()?.to_f32();
        let mut values = Vec::with_capacity(heads * tokens * tokens);
        for head in 0..heads {
            for query in 0..tokens {
                for key in 0..tokens {
                    let bucket = self.config.bucket(key as i64 - query as i64);
                    values.push(table[bucket * heads + head]);
                }
            }
        }
        let values = TensorData::new(values, [heads, tokens, tokens]);
        Ok(Tensor::from_data(values, device))
    }
}
