//! What turns prompts into what a denoiser is told: tokenizers and text encoders as the pipelines of Stable Diffusion and SDXL
//! put them together.

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
}

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
        let first = TextEncoder::read(folder, "text_encoder", "tokenizer", false)?;
        let second = TextEncoder::read(folder, "text_encoder_2", "tokenizer_2", true)?;
        let index = folder.index_path();
        let inconsistent = |problem: String| ModelError::Config {
            path: index.clone(),
            source: ConfigError::Inconsistent(problem),
        };
        let lengths = [&first, &second].map(|one| one.tokenizer.max_length());
        if lengths[0] != lengths[1] {
            return Err(inconsistent(format!(
                "`tokenizer` makes {} tokens of a text, `tokenizer_2` {}; they are joined one by one",
                lengths[0], lengths[1]
            )));
        }
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
            encoders: vec![first, second],
            form: Form::Joined { zeros, factor },
        })
    }

    /// What each is configured as.
    pub(crate) fn configs(&self) -> Vec<&TextConfig> {
        let each = self.encoders.iter();
        each.map(|encoder| &encoder.config).collect()
    }

    /// Width of the hidden states, and of a text's one vector where there is one.
    pub(crate) fn widths(&self) -> (usize, Option<usize>) {
        let configs = self.configs();
        let states = configs.iter().map(|config| config.encoder.hidden_size);
        let pooled = configs.iter().find_map(|config| config.projection);
        (states.sum(), pooled)
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
        let cut = made[0].1.clone();
        let states: Vec<TextStates> = made.into_iter().map(|(states, _)| states).collect();
        let texts = match self.form {
            Form::Last => states[0].last.clone().into(),
            Form::Joined { zeros, factor } => {
                let kept = texts.iter().map(|text| text.is_some() || !zeros);
                joined(&states, &kept.collect::<Vec<_>>(), factor)
            }
        };
        Ok(Embedded { texts, cut })
    }

    /// How many numbers each has.
    pub(crate) fn parameters(
        &self,
        device: &Device,
    ) -> Result<Vec<(&'static str, usize)>, ModelError> {
        let each = self.encoders.iter();
        each.map(|encoder| Ok((encoder.name, encoder.network(device)?.num_params())))
            .collect()
    }

    /// See [`Diffusion::wrappings`](crate::diffusion::Diffusion::wrappings).
    pub(crate) fn wrappings(&self) -> Result<Vec<(PathBuf, String)>, ModelError> {
        let each = self.encoders.iter();
        each.map(|encoder| {
            let prefix = encoder.part.wrapping(Library::Transformers)?;
            Ok((encoder.part.path(""), prefix))
        })
        .collect()
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
