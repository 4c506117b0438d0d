//! The text encoder of CLIP (Radford et al. 2021) as Stable Diffusion and SDXL use it: from token numbers to the hidden states
//! that a conditional network attends to. There is no tokenizer here.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use serde_json::Value;

use crate::config::{ConfigError, Fields, unsupported};
use crate::layers::{Embedding, LayerNorm, Projection};
use crate::transformer::{Defaults, Encoder, EncoderConfig};

/// Configuration of [`CLIPTextModel`], with the names and defaults of transformers.
#[derive(Debug, Clone, PartialEq)]
pub struct TextConfig {
    pub(crate) vocab_size: usize,
    pub(crate) max_position_embeddings: usize,
    pub(crate) encoder: EncoderConfig,
    /// The mark at whose place a text's own state is; `None` where the file does not give one number.
    pub(crate) eos_token_id: Option<i64>,
    /// How many numbers a text becomes as one vector; `None` of an encoder that does not make one.
    pub(crate) projection: Option<usize>,
    /// Keys of the file that mean nothing to this network.
    pub unknown_keys: Vec<String>,
}

/// What the file says about other uses than encoding: training, special tokens, how it was saved.
const HARMLESS: [&str; 10] = [
    "attention_dropout",
    "bos_token_id",
    "dropout",
    "dtype",
    "initializer_factor",
    "initializer_range",
    "pad_token_id",
    "torch_dtype",
    "transformers_version",
    "tie_word_embeddings",
];

/// What transformers wrote as the number of the end mark before release 4.32, whatever it was.
pub(crate) const LEGACY_END: i64 = 2;

/// The place of the end mark: the first, because some tokenizers pad with it. With the legacy number, the first of
/// the largest token, which the end mark is in CLIP's vocabulary.
pub(crate) fn end(ids: &[i64], end: i64) -> Option<usize> {
    let mark = match end {
        LEGACY_END => *ids.iter().max()?,
        end => end,
    };
    ids.iter().position(|&id| id == mark)
}

impl TextConfig {
    /// Reads a parsed `config.json` of a `CLIPTextModel`.
    ///
    /// # Errors
    /// Names the key whose value has the wrong type, is not supported, or contradicts another.
    pub fn from_json(json: &Value) -> Result<Self, ConfigError> {
        Self::read(json, "CLIPTextModel")
    }

    /// Reads a parsed `config.json` of a `CLIPTextModelWithProjection`.
    ///
    /// # Errors
    /// As [`from_json`](Self::from_json).
    pub fn with_projection(json: &Value) -> Result<Self, ConfigError> {
        let config = Self::read(json, PROJECTING)?;
        match config.eos_token_id {
            Some(_) => Ok(config),
            None => Err(ConfigError::Inconsistent(
                "`eos_token_id` is not one number".into(),
            )),
        }
    }

    fn read(json: &Value, class: &'static str) -> Result<Self, ConfigError> {
        let object = json.as_object().ok_or_else(|| {
            ConfigError::Inconsistent("the configuration is not a JSON object".into())
        })?;
        let mut fields = Fields::new(object);
        check_class(&mut fields, class)?;
        let projection = fields.count("projection_dim", 512)?;
        for key in HARMLESS {
            fields.get(key);
        }
        // diffusers then hides the padding from every place (`StableDiffusionPipeline.encode_prompt`).
        match fields.get("use_attention_mask") {
            None | Some(Value::Null | Value::Bool(false)) => {}
            Some(value) => {
                return Err(unsupported(
                    "use_attention_mask",
                    &value.to_string(),
                    "false",
                ));
            }
        }
        let defaults = Defaults {
            hidden_size: 512,
            intermediate_size: 2048,
            num_attention_heads: 8,
        };
        Ok(Self {
            vocab_size: fields.count("vocab_size", 49408)?,
            max_position_embeddings: fields.count("max_position_embeddings", 77)?,
            encoder: EncoderConfig::read(&mut fields, defaults)?,
            eos_token_id: match fields.get("eos_token_id") {
                None => Some(49407),
                Some(value) => value.as_i64(),
            },
            projection: (class == PROJECTING).then_some(projection),
            unknown_keys: fields.unknown(),
        })
    }

    /// The network, all parameters zero: [`parameters`](crate::parameters) fills them.
    pub fn init(&self, device: &Device) -> CLIPTextModel {
        let hidden = self.encoder.hidden_size;
        let text_model = TextTransformer {
            embeddings: TextEmbeddings {
                token_embedding: Embedding::new(self.vocab_size, hidden, device),
                position_embedding: Embedding::new(self.max_position_embeddings, hidden, device),
            },
            encoder: self.encoder.init(device),
            final_layer_norm: self.encoder.norm(device),
        };
        let projection = |width| Projection::new(hidden, width, device);
        CLIPTextModel {
            text_model,
            text_projection: self.projection.map(projection),
            end: self.eos_token_id.unwrap_or(LEGACY_END),
        }
    }

    /// How many numbers the network has.
    pub fn parameters(&self) -> u64 {
        let rows = self.vocab_size as u64 + self.max_position_embeddings as u64;
        let projection = self.projection.unwrap_or(0) as u64;
        (rows + 2 + projection) * self.encoder.hidden_size as u64 + self.encoder.parameters()
    }
}

/// The class of encoders that also make one vector of a text.
const PROJECTING: &str = "CLIPTextModelWithProjection";

/// Refuses text encoders of other classes, which give something else than CLIP's.
fn check_class(fields: &mut Fields, own: &'static str) -> Result<(), ConfigError> {
    const KIND: &str = "clip_text_model";
    if let Some(kind) = fields.optional_text("model_type")?
        && kind != KIND
    {
        return Err(unsupported("model_type", &kind, KIND));
    }
    match fields.get("architectures") {
        None | Some(Value::Null) => Ok(()),
        Some(Value::Array(classes)) if classes.is_empty() => Ok(()),
        Some(Value::Array(classes)) if classes.iter().any(|class| class == own) => Ok(()),
        Some(value) => {
            let shown: String = value.to_string().chars().take(80).collect();
            Err(unsupported("architectures", &shown, own))
        }
    }
}

/// Why a text cannot be encoded.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TextError {
    /// Nothing to encode.
    #[error("no text has any tokens")]
    Empty,
    /// Texts of different lengths in one batch.
    #[error("text {text} has {found} tokens, the first has {expected}")]
    Uneven {
        /// Its place in the batch.
        text: usize,
        /// Its tokens.
        found: usize,
        /// The first text's tokens.
        expected: usize,
    },
    /// More tokens than the encoder has places.
    #[error("texts have {found} tokens, the encoder takes at most {most}")]
    TooLong {
        /// Tokens of a text.
        found: usize,
        /// The encoder's places.
        most: usize,
    },
    /// A number that is no token.
    #[error("token {token} of text {text} is not among the encoder's 0 to {last}")]
    Token {
        /// The number.
        token: i64,
        /// Its place in the batch.
        text: usize,
        /// The last token.
        last: usize,
    },
    /// A text without an end mark.
    #[error("text {text} has no end mark (token {end})")]
    NoEnd {
        /// Its place in the batch.
        text: usize,
        /// The mark's number.
        end: i64,
    },
}

/// CLIP's text encoder. Field names are the checkpoint's, so that a parameter's path is its key.
#[derive(Module, Debug)]
pub struct CLIPTextModel {
    pub(crate) text_model: TextTransformer,
    /// Of a `CLIPTextModelWithProjection`.
    pub(crate) text_projection: Option<Projection>,
    end: i64,
}

/// What a text encoder makes of texts.
#[derive(Debug, Clone)]
pub struct TextStates {
    /// The last hidden states, normalized, `[texts, tokens, hidden_size]`.
    pub last: Tensor<3>,
    /// Those before the last layer, not normalized.
    pub before_last: Tensor<3>,
    /// Each text as one vector, `[texts, projection_dim]`, of an encoder with a projection.
    pub pooled: Option<Tensor<2>>,
}

/// Embeddings, layers, and a normalization.
#[derive(Module, Debug)]
pub(crate) struct TextTransformer {
    pub(crate) embeddings: TextEmbeddings,
    pub(crate) encoder: Encoder,
    pub(crate) final_layer_norm: LayerNorm,
}

/// A vector for each token, and one for each place.
#[derive(Module, Debug)]
pub(crate) struct TextEmbeddings {
    pub(crate) token_embedding: Embedding,
    pub(crate) position_embedding: Embedding,
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
        self.text_model.forward(texts)
    }

    /// All that pipelines take of an encoder.
    ///
    /// # Errors
    /// As [`forward`](Self::forward); with a projection, a text without an end mark.
    pub fn states(&self, texts: &[Vec<i64>]) -> Result<TextStates, TextError> {
        let [before_last, last] = self.text_model.states(texts)?;
        let pooled = match &self.text_projection {
            Some(projection) => Some(projection.forward(at_end(&last, texts, self.end)?)),
            None => None,
        };
        Ok(TextStates {
            last,
            before_last,
            pooled,
        })
    }
}

/// Each text's own state: the one at its end mark.
///
/// # Shapes
/// `states`: `[texts, tokens, width]`; result: `[texts, width]`.
///
/// # Errors
/// A text without an end mark.
pub(crate) fn at_end(
    states: &Tensor<3>,
    texts: &[Vec<i64>],
    mark: i64,
) -> Result<Tensor<2>, TextError> {
    let [count, tokens, width] = states.dims();
    let mut rows = Vec::with_capacity(count);
    for (text, ids) in texts.iter().enumerate() {
        let place = end(ids, mark).ok_or(TextError::NoEnd { text, end: mark })?;
        rows.push((text * tokens + place) as i64);
    }
    let rows = Tensor::<1, Int>::from_ints(rows.as_slice(), &states.device());
    Ok(states
        .clone()
        .reshape([count * tokens, width])
        .select(0, rows))
}

impl TextTransformer {
    /// As [`CLIPTextModel::forward`].
    ///
    /// # Errors
    /// As there.
    pub(crate) fn forward(&self, texts: &[Vec<i64>]) -> Result<Tensor<3>, TextError> {
        let [_, last] = self.states(texts)?;
        Ok(last)
    }

    /// The hidden states before the last layer, and those after it, normalized.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    fn states(&self, texts: &[Vec<i64>]) -> Result<[Tensor<3>; 2], TextError> {
        let tokens = self.check(texts)?;
        let places: Vec<i64> = (0..tokens as i64).collect();
        let each = self.embeddings.token_embedding.forward(&texts.concat());
        let place = self.embeddings.position_embedding.forward(&places);
        let x = each + place.repeat_dim(0, texts.len());
        let mask = causal_mask(tokens, &x.device());
        let [before_last, x] = self.encoder.states(x, Some(&mask), texts.len());
        let x = self.final_layer_norm.forward(x);
        let shape = [texts.len(), tokens, x.dims()[1]];
        Ok([before_last, x].map(|states| states.reshape(shape)))
    }

    /// How many tokens each text has.
    fn check(&self, texts: &[Vec<i64>]) -> Result<usize, TextError> {
        let embeddings = &self.embeddings;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transformer::HiddenAct;
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
            ("model_type", json!("t5")),
            ("architectures", json!(["CLIPTextModelWithProjection"])),
            ("layer_norm_eps", json!(0)),
            ("use_attention_mask", json!(true)),
            ("num_attention_heads", json!(3)),
            ("num_hidden_layers", json!(1025)),
            ("vocab_size", json!("many")),
        ] {
            let mut json = small();
            json[key] = value;
            let error = TextConfig::from_json(&json).expect_err(key).to_string();
            assert!(error.contains(key), "{key}: {error}");
        }
        let mut unmasked = small();
        unmasked["use_attention_mask"] = json!(false);
        let config = TextConfig::from_json(&unmasked).unwrap();
        assert_eq!(config, TextConfig::from_json(&small()).unwrap());
        assert_eq!(config.encoder.hidden_act, HiddenAct::QuickGelu);
        assert!(config.unknown_keys.is_empty());
    }

    #[test]
    fn an_encoder_with_a_projection_is_of_a_class_of_its_own() {
        let mut json = small();
        json["architectures"] = json!(["CLIPTextModelWithProjection"]);
        json["projection_dim"] = json!(3);
        json["eos_token_id"] = json!(9);
        let config = TextConfig::with_projection(&json).unwrap();
        assert_eq!(config.projection, Some(3));
        let network = config.init(&Device::flex());
        assert_eq!(config.parameters(), network.num_params() as u64);
        let texts = [vec![0, 1, 9, 9], vec![0, 9, 9, 9]];
        let states = network.states(&texts).unwrap();
        assert_eq!(states.pooled.unwrap().dims(), [2, 3]);
        assert_eq!(states.before_last.dims(), [2, 4, 8]);
        let refused = network.states(&[vec![0, 1, 2, 3]]).unwrap_err();
        assert_eq!(refused, TextError::NoEnd { text: 0, end: 9 });
        json["eos_token_id"] = json!([1, 2]);
        assert!(TextConfig::with_projection(&json).is_err());
        json["architectures"] = json!(["CLIPTextModel"]);
        let text = TextConfig::with_projection(&json).unwrap_err().to_string();
        assert!(text.contains("CLIPTextModelWithProjection"), "{text}");
    }

    #[test]
    fn the_end_mark_is_the_first_of_its_number_or_of_the_largest() {
        assert_eq!(end(&[7, 3, 5, 5], 5), Some(2));
        assert_eq!(end(&[7, 3, 9, 9], LEGACY_END), Some(2));
        assert_eq!(end(&[7, 3, 9, 0], 4), None);
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
