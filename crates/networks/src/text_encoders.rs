//! What turns prompts into what a denoiser is told: tokenizers and text encoders as the pipelines of Stable Diffusion 1 to 3
//! and SDXL put them together.

use std::path::PathBuf;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use retrack_checkpoint::folder::{Library, ModelFolder, Part};
use serde_json::Value;

use crate::config::ConfigError;
use crate::denoiser::{Embeddings, Sizes};
use crate::diffusion::Embedded;
use crate::model::{self, ModelError};
use crate::parameters;
use crate::t5::T5Encoder;
use crate::text::{CLIPTextModel, TextConfig, TextError, TextStates};
use crate::tokenizer::ClipTokenizer;

/// Texts that are encoded together.
pub(crate) const TEXTS_AT_ONCE: usize = 8;

/// A text encoder of CLIP with its tokenizer, as both lie in a pipeline's folder. Its weights are read when it is asked.
pub(crate) struct TextEncoder {
    pub config: TextConfig,
    pub tokenizer: ClipTokenizer,
    pub part: Part,
    /// The folder that it lies in.
    pub name: &'static str,
}

impl TextEncoder {
    /// `name`, `tokenizer`: their folders. `projects`: whether the encoder makes one vector of a text, too.
    fn read(
        folder: &ModelFolder,
        name: &'static str,
        tokenizer: &'static str,
        projects: bool,
    ) -> Result<Self, ModelError> {
        let part = folder.part(name, "text encoder")?;
        let words = folder.part(tokenizer, "tokenizer")?;
        let json = part.config()?;
        let read = match projects {
            true => TextConfig::with_projection,
            false => TextConfig::from_json,
        };
        let config = read(&json).map_err(|source| ModelError::Config {
            path: part.path("config.json"),
            source,
        })?;
        // No type takes fewer than two bytes.
        let stored = part.weight_bytes(Library::Transformers)? / 2;
        model::check_parameters(config.parameters(), stored, part.path("config.json"))?;
        Ok(Self {
            tokenizer: ClipTokenizer::read(&words, config.max_position_embeddings)?,
            config,
            part,
            name,
        })
    }

    /// Of its hidden states.
    fn width(&self) -> usize {
        self.config.encoder.hidden_size
    }

    /// The network with the folder's weights.
    pub(crate) fn network(&self, device: &Device) -> Result<CLIPTextModel, ModelError> {
        const PREFIX: &str = "text_model.";
        const OUTSIDE: &str = "text_projection.";
        let tensors = self.part.tensors(Library::Transformers)?;
        // transformers 5 leaves the prefix out. Old files carry the places' numbers, 0, 1, 2 and so on.
        let named = tensors.into_iter().map(|(name, tensor)| {
            let name = match name.starts_with(PREFIX) || name.starts_with(OUTSIDE) {
                true => name,
                false => format!("{PREFIX}{name}"),
            };
            (name, tensor)
        });
        let tensors = named.filter(|(name, _)| !name.ends_with("embeddings.position_ids"));
        parameters::load(self.config.init(device), tensors).map_err(|source| ModelError::Mismatch {
            path: self.part.path(""),
            source,
        })
    }

    /// What it makes of texts, and of each the part that did not fit.
    fn states(
        &self,
        texts: &[&str],
        device: &Device,
    ) -> Result<(TextStates, Vec<Option<String>>), ModelError> {
        let (mut ids, mut cut) = (Vec::new(), Vec::new());
        for text in texts {
            let tokens = self.tokenizer.encode(text)?;
            ids.push(tokens.ids);
            cut.push(tokens.cut);
        }
        let at = |source| ModelError::Text {
            path: self.part.path(""),
            source,
        };
        let network = self.network(device)?;
        let mut chunks = Vec::new();
        for ids in ids.chunks(TEXTS_AT_ONCE) {
            chunks.push(network.states(ids).map_err(at)?);
        }
        if chunks.is_empty() {
            return Err(at(TextError::Empty));
        }
        let all =
            |of: &dyn Fn(&TextStates) -> Tensor<3>| Tensor::cat(chunks.iter().map(of).collect(), 0);
        let pooled: Option<Vec<_>> = chunks.iter().map(|states| states.pooled.clone()).collect();
        let states = TextStates {
            last: all(&|states| states.last.clone()),
            before_last: all(&|states| states.before_last.clone()),
            pooled: pooled.map(|pooled| Tensor::cat(pooled, 0)),
        };
        Ok((states, cut))
    }
}

/// What encoding texts takes, in numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct TextCost {
    /// At the peak: encoders are in memory one after another.
    pub encoding: f64,
    /// Of one text, once it is encoded.
    pub states: f64,
}

impl TextCost {
    /// Of one encoder.
    pub(crate) fn of(config: &TextConfig) -> Self {
        let tokens = config.max_position_embeddings as f64;
        let encoder = &config.encoder;
        // Of each layer the widest, its result and what attention makes.
        let wide = (2 * encoder.intermediate_size + 6 * encoder.hidden_size) as f64;
        let states = tokens * encoder.hidden_size as f64;
        Self {
            encoding: config.parameters() as f64 + TEXTS_AT_ONCE as f64 * tokens * wide,
            states: states + config.projection.unwrap_or(0) as f64,
        }
    }
}

/// All that a pipeline has of them.
pub(crate) struct TextEncoders {
    /// One or two.
    encoders: Vec<TextEncoder>,
    form: Form,
}

/// How a pipeline puts together what they make of a text.
enum Form {
    /// Stable Diffusion: the last hidden states.
    Last,
    /// SDXL: the states before the last layer, joined; and the second encoder's vector of the text.
    Joined {
        /// Whether zeros stand for no text at all.
        zeros: bool,
        /// Pixels of an image for each that the denoiser sees, both ways.
        factor: usize,
    },
    /// Stable Diffusion 3: the states before the last layer, joined, widened by zeros to those of T5, which follow them; and both
    /// encoders' vectors of the text, joined. Without T5 zeros stand for what it makes.
    Followed {
        t5: Option<Box<T5Encoder>>,
        /// Of the hidden states.
        width: usize,
    },
}

/// Tokens of a text that T5 reads, as diffusers' pipeline takes them by default.
const T5_TOKENS: usize = 256;

impl TextEncoders {
    /// Those of a `StableDiffusionPipeline`.
    pub(crate) fn one(folder: &ModelFolder) -> Result<Self, ModelError> {
        let encoder = TextEncoder::read(folder, "text_encoder", "tokenizer", false)?;
        Ok(Self {
            encoders: vec![encoder],
            form: Form::Last,
        })
    }

    /// Those of a `StableDiffusionXLPipeline`.
    pub(crate) fn two(folder: &ModelFolder, factor: usize) -> Result<Self, ModelError> {
        const ZEROS: &str = "force_zeros_for_empty_prompt";
        let encoders = pair(folder, false)?;
        let inconsistent = |problem: String| ModelError::Config {
            path: folder.index_path(),
            source: ConfigError::Inconsistent(problem),
        };
        let zeros = match folder.setting(ZEROS)? {
            None | Some(Value::Null) => true,
            Some(Value::Bool(zeros)) => zeros,
            Some(value) => {
                return Err(inconsistent(format!(
                    "`{ZEROS}` is {value}, not true or false"
                )));
            }
        };
        Ok(Self {
            encoders,
            form: Form::Joined { zeros, factor },
        })
    }

    /// Those of a `StableDiffusion3Pipeline`. `width`: of the hidden states that its denoiser takes.
    pub(crate) fn three(folder: &ModelFolder, width: usize) -> Result<Self, ModelError> {
        let encoders = pair(folder, true)?;
        let clip: usize = encoders.iter().map(TextEncoder::width).sum();
        if clip > width {
            return Err(ModelError::Config {
                path: folder.config_path(),
                source: ConfigError::Inconsistent(format!(
                    "`joint_attention_dim` is {width}, but the first two text encoders' `hidden_size`s are {clip} together"
                )),
            });
        }
        let t5 = match folder.has_part("text_encoder_3")? {
            true => {
                let part = folder.part("text_encoder_3", "third text encoder")?;
                let tokenizer = folder.part("tokenizer_3", "third tokenizer")?;
                Some(Box::new(T5Encoder::read(part, &tokenizer)?))
            }
            false => None,
        };
        Ok(Self {
            encoders,
            form: Form::Followed { t5, width },
        })
    }

    /// What encoding texts takes.
    pub(crate) fn cost(&self) -> TextCost {
        let all = self.encoders.iter();
        let all = all.map(|encoder| TextCost::of(&encoder.config));
        let own = all.fold(
            TextCost {
                encoding: 0.0,
                states: 0.0,
            },
            |sum, one| TextCost {
                encoding: sum.encoding.max(one.encoding),
                states: sum.states + one.states,
            },
        );
        match &self.form {
            Form::Followed { t5, width } => TextCost {
                encoding: own
                    .encoding
                    .max(t5.as_ref().map_or(0.0, |t5| t5.encoding(T5_TOKENS))),
                states: own.states + ((self.tokenizer().max_length() + T5_TOKENS) * width) as f64,
            },
            _ => own,
        }
    }

    /// Width of the hidden states, and of a text's one vector where there is one.
    pub(crate) fn widths(&self) -> (usize, Option<usize>) {
        let projections = self.encoders.iter();
        let mut projections = projections.filter_map(|encoder| encoder.config.projection);
        match &self.form {
            Form::Followed { t5, width } => {
                let states = t5.as_ref().map_or(*width, |t5| t5.config.d_model);
                (states, Some(projections.sum()))
            }
            _ => {
                let states = self.encoders.iter().map(TextEncoder::width);
                (states.sum(), projections.next())
            }
        }
    }

    /// The tokenizer of the first encoder.
    pub(crate) fn tokenizer(&self) -> &ClipTokenizer {
        &self.encoders[0].tokenizer
    }

    /// See [`Diffusion::embed`](crate::diffusion::Diffusion::embed).
    pub(crate) fn embed(
        &self,
        texts: &[Option<&str>],
        device: &Device,
    ) -> Result<Embedded, ModelError> {
        let words: Vec<&str> = texts.iter().map(|text| text.unwrap_or("")).collect();
        let mut made = Vec::with_capacity(self.encoders.len());
        for encoder in &self.encoders {
            made.push(encoder.states(&words, device)?);
        }
        let mut cut = made[0].1.clone();
        let states: Vec<TextStates> = made.into_iter().map(|(states, _)| states).collect();
        let texts = match &self.form {
            Form::Last => states[0].last.clone().into(),
            Form::Joined { zeros, factor } => {
                let kept = texts.iter().map(|text| text.is_some() || !zeros);
                joined(&states, &kept.collect::<Vec<_>>(), *factor)
            }
            Form::Followed { t5: None, width } => {
                let shape = [words.len(), T5_TOKENS, *width];
                followed(&states, Tensor::zeros(shape, device))
            }
            Form::Followed { t5: Some(t5), .. } => {
                let mut ids = Vec::with_capacity(words.len());
                cut.clear();
                for text in &words {
                    let tokens = t5.tokenizer.encode(text, T5_TOKENS)?;
                    ids.push(tokens.ids);
                    // What the shorter encoders do not see, this one does.
                    cut.push(tokens.cut);
                }
                followed(&states, t5.states(&ids, device)?)
            }
        };
        Ok(Embedded { texts, cut })
    }

    /// How many numbers each has.
    pub(crate) fn parameters(
        &self,
        device: &Device,
    ) -> Result<Vec<(&'static str, usize)>, ModelError> {
        let mut all = Vec::new();
        for encoder in &self.encoders {
            all.push((encoder.name, encoder.network(device)?.num_params()));
        }
        if let Form::Followed { t5: Some(t5), .. } = &self.form {
            all.push(("text_encoder_3", t5.config.parameters() as usize));
        }
        Ok(all)
    }

    /// See [`Diffusion::wrappings`](crate::diffusion::Diffusion::wrappings).
    pub(crate) fn wrappings(&self) -> Result<Vec<(PathBuf, String)>, ModelError> {
        let mut parts: Vec<&Part> = self.encoders.iter().map(|encoder| &encoder.part).collect();
        if let Form::Followed { t5: Some(t5), .. } = &self.form {
            parts.push(t5.part());
        }
        let each = parts.into_iter();
        each.map(|part| Ok((part.path(""), part.wrapping(Library::Transformers)?)))
            .collect()
    }
}

/// CLIP's two encoders. `projects`: whether the first one makes one vector of a text, as the second does.
fn pair(folder: &ModelFolder, projects: bool) -> Result<Vec<TextEncoder>, ModelError> {
    let first = TextEncoder::read(folder, "text_encoder", "tokenizer", projects)?;
    let second = TextEncoder::read(folder, "text_encoder_2", "tokenizer_2", true)?;
    let lengths = [&first, &second].map(|one| one.tokenizer.max_length());
    match lengths[0] == lengths[1] {
        true => Ok(vec![first, second]),
        false => Err(ModelError::Config {
            path: folder.index_path(),
            source: ConfigError::Inconsistent(format!(
                "`tokenizer` makes {} tokens of a text, `tokenizer_2` {}; they are joined one by one",
                lengths[0], lengths[1]
            )),
        }),
    }
}

/// Stable Diffusion 3's: what CLIP's encoders make of texts, then `states` of a third one, which are wider.
fn followed(clip: &[TextStates], states: Tensor<3>) -> Embeddings {
    let before_last = clip.iter().map(|states| states.before_last.clone());
    let joined = Tensor::cat(before_last.collect(), 2);
    let [texts, tokens, own] = joined.dims();
    let zeros = Tensor::zeros([texts, tokens, states.dims()[2] - own], &joined.device());
    let widened = Tensor::cat(vec![joined, zeros], 2);
    let pooled = clip.iter().filter_map(|states| states.pooled.clone());
    Embeddings {
        states: Tensor::cat(vec![widened, states], 1),
        pooled: Some(Tensor::cat(pooled.collect(), 1)),
        sizes: None,
    }
}

/// SDXL's: zeros for texts that are not `kept`.
fn joined(states: &[TextStates], kept: &[bool], factor: usize) -> Embeddings {
    let before_last = states.iter().map(|states| states.before_last.clone());
    let pooled = states.iter().find_map(|states| states.pooled.clone());
    let (states, pooled) = (
        Tensor::cat(before_last.collect(), 2),
        pooled.expect("the second encoder projects"),
    );
    let count = kept.len();
    let kept: Vec<f32> = kept.iter().map(|&kept| f32::from(u8::from(kept))).collect();
    let kept = Tensor::<1>::from_floats(kept.as_slice(), &states.device());
    Embeddings {
        states: states * kept.clone().reshape([count, 1, 1]),
        pooled: Some(pooled * kept.reshape([count, 1])),
        sizes: Some(Sizes::Whole(factor)),
    }
}
