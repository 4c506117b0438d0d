//! Model folders of a `StableDiffusionPipeline`.

use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use crate::conditional::UNet2DConditionConfig;
use crate::config::ConfigError;
use crate::cost::{Footprint, Training};
use crate::denoiser::Embeddings;
use crate::diffusion::{Autoencoder, Diffusion, Embedded};
use crate::model::{self, Model, ModelError};
use crate::parameters;
use crate::phases::Phases;
use crate::text::{CLIPTextModel, TextConfig};
use crate::tokenizer::ClipTokenizer;
use crate::vae::{AutoencoderConfig, AutoencoderKL};
use retrack_checkpoint::folder::{Class, FolderError, Kind, Library, ModelFolder, Part};

/// A whole text-to-image pipeline of Stable Diffusion 1.x or 2.x. Only its denoiser is in memory; the other networks
/// are read when they are asked for.
pub struct StableDiffusion {
    /// The denoiser.
    pub model: Model,
    /// That of the denoiser, in full.
    pub config: UNet2DConditionConfig,
    /// What its autoencoder is.
    pub vae_config: AutoencoderConfig,
    /// What its text encoder is.
    pub text_config: TextConfig,
    /// What turns a prompt into token numbers.
    pub tokenizer: ClipTokenizer,
    vae: Part,
    text_encoder: Part,
}

/// Texts that are encoded together.
pub(crate) const TEXTS_AT_ONCE: usize = 8;

impl StableDiffusion {
    /// Reads and checks all but the weights of text encoder and autoencoder.
    ///
    /// # Errors
    /// A folder that is no whole pipeline, and anything in it that is damaged, missing or not supported.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        Self::from_folder(ModelFolder::open(path)?)
    }

    /// The same for a folder that is open.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_folder(folder: ModelFolder) -> Result<Self, ModelError> {
        if folder.class == Class::Conditional && folder.kind == Kind::Bare {
            return Err(ModelError::NotAPipeline {
                path: folder.root().to_path_buf(),
            });
        }
        model::check_class(&folder, Class::Conditional)?;
        let model = Model::from_folder(folder)?;
        let folder = &model.folder;
        let config =
            UNet2DConditionConfig::from_json(&folder.config).map_err(at(folder.config_path()))?;
        folder.check_parts()?;
        let text_encoder = folder.part("text_encoder", "text encoder")?;
        let tokenizer = folder.part("tokenizer", "tokenizer")?;
        let vae = folder.part("vae", "autoencoder")?;
        let in_text = at(text_encoder.path("config.json"));
        let in_vae = at(vae.path("config.json"));
        let text_config = TextConfig::from_json(&text_encoder.config()?).map_err(in_text)?;
        let vae_config = AutoencoderConfig::from_json(&vae.config()?).map_err(in_vae)?;
        for (part, library, expected) in [
            (
                &text_encoder,
                Library::Transformers,
                text_config.parameters(),
            ),
            (&vae, Library::Diffusers, vae_config.parameters()),
        ] {
            // No type of theirs takes fewer than two bytes.
            let stored = part.weight_bytes(library)? / 2;
            model::check_parameters(expected, stored, part.path("config.json"))?;
        }
        let tokenizer = ClipTokenizer::read(&tokenizer, text_config.max_position_embeddings)?;
        let disagree = |problem: String| ModelError::Config {
            path: folder.config_path(),
            source: ConfigError::Inconsistent(problem),
        };
        let (width, states) = (config.cross_attention_dim, text_config.encoder.hidden_size);
        if width != states {
            return Err(disagree(format!(
                "`cross_attention_dim` is {width}, but the text encoder's `hidden_size` {states}"
            )));
        }
        let latents = vae_config.latent_channels;
        for (key, channels) in [
            ("in_channels", config.in_channels),
            ("out_channels", config.out_channels),
        ] {
            if channels != latents {
                return Err(disagree(format!(
                    "`{key}` is {channels}, but the autoencoder's latents have {latents} channels; inpainting, \
                     depth and upscaling networks are not supported"
                )));
            }
        }
        if (vae_config.in_channels, vae_config.out_channels) != (3, 3) {
            return Err(disagree("the autoencoder's images are not RGB".into()));
        }
        Ok(Self {
            config,
            vae_config,
            text_config,
            tokenizer,
            vae,
            text_encoder,
            model,
        })
    }

    fn factor(&self) -> usize {
        1 << (self.vae_config.block_out_channels.len() - 1)
    }

    /// The autoencoder with the folder's weights.
    ///
    /// # Errors
    /// Weights that cannot be read or do not fit.
    pub fn autoencoder(&self, device: &Device) -> Result<AutoencoderKL, ModelError> {
        let tensors = self.vae.tensors(Library::Diffusers)?;
        let network = self.vae_config.init(device);
        parameters::load(network, tensors).map_err(|source| ModelError::Mismatch {
            path: self.vae.path(""),
            source,
        })
    }

    /// The text encoder with the folder's weights.
    ///
    /// # Errors
    /// Weights that cannot be read or do not fit.
    pub fn text_encoder(&self, device: &Device) -> Result<CLIPTextModel, ModelError> {
        const PREFIX: &str = "text_model.";
        let tensors = self.text_encoder.tensors(Library::Transformers)?;
        // transformers 5 leaves the prefix out. Old files carry the places' numbers, 0, 1, 2 and so on.
        let named = tensors.into_iter().map(|(name, tensor)| {
            let name = if name.starts_with(PREFIX) {
                name
            } else {
                format!("{PREFIX}{name}")
            };
            (name, tensor)
        });
        let tensors = named.filter(|(name, _)| !name.ends_with("embeddings.position_ids"));
        parameters::load(self.text_config.init(device), tensors).map_err(|source| {
            ModelError::Mismatch {
                path: self.text_encoder.path(""),
                source,
            }
        })
    }
}

impl Diffusion for StableDiffusion {
    fn denoiser(&self) -> &Model {
        &self.model
    }

    fn denoiser_mut(&mut self) -> &mut Model {
        &mut self.model
    }

    fn footprint(&self, training: &Training) -> Footprint {
        let phases = Phases::of(
            &self.config,
            &self.vae_config,
            &self.text_config,
            training.size,
        );
        phases.footprint(training)
    }

    /// The latents, the images, and what a pass with and without the prompt begins with, which is less than all of it.
    fn drawing(&self, [height, width]: [usize; 2], count: usize, together: usize) -> f64 {
        let pixels = height as f64 * width as f64;
        let latents = count as f64 * pixels * self.config.in_channels as f64 * 4.0;
        let images = count as f64 * pixels * (self.factor().pow(2) * 3) as f64;
        let pass = together as f64 * 2.0 * pixels * self.config.block_out_channels[0] as f64 * 4.0;
        latents + images + pass
    }

    fn channels(&self) -> usize {
        self.vae_config.in_channels
    }

    fn latent_factor(&self) -> Option<usize> {
        Some(self.factor())
    }

    fn autoencoder(&self, device: &Device) -> Result<Option<Box<dyn Autoencoder>>, ModelError> {
        let autoencoder = self.autoencoder(device)?;
        Ok(Some(Box::new(autoencoder)))
    }

    fn embed(&self, texts: &[&str], device: &Device) -> Result<Embedded, ModelError> {
        let mut ids = Vec::with_capacity(texts.len());
        let mut cut = Vec::with_capacity(texts.len());
        for text in texts {
            let tokens = self.tokenizer.encode(text)?;
            ids.push(tokens.ids);
            cut.push(tokens.cut);
        }
        let encoder = self.text_encoder(device)?;
        let states = ids
            .chunks(TEXTS_AT_ONCE)
            .map(|ids| encoder.forward(ids))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|source| ModelError::Text {
                path: self.text_encoder.path(""),
                source,
            })?;
        Ok(Embedded {
            texts: Embeddings {
                states: Tensor::cat(states, 0),
            },
            cut,
        })
    }

    fn other_parameters(&self) -> Result<Vec<(&'static str, usize)>, ModelError> {
        let device = Device::flex();
        Ok(vec![
            ("text_encoder", self.text_encoder(&device)?.num_params()),
            ("autoencoder", self.autoencoder(&device)?.num_params()),
        ])
    }

    fn prompt_tokens(&self) -> Option<usize> {
        Some(self.tokenizer.max_length())
    }

    fn wrappings(&self) -> Result<Vec<(PathBuf, String)>, ModelError> {
        let (unet, prefix) = self.model.wrapping();
        let mut all = vec![(unet, prefix.to_owned())];
        for (part, library) in [
            (&self.text_encoder, Library::Transformers),
            (&self.vae, Library::Diffusers),
        ] {
            all.push((part.path(""), part.wrapping(library)?));
        }
        all.retain(|(_, prefix)| !prefix.is_empty());
        Ok(all)
    }
}

fn at(path: PathBuf) -> impl FnOnce(ConfigError) -> ModelError {
    move |source| ModelError::Config { path, source }
}

impl From<crate::tokenizer::TokenizerError> for ModelError {
    fn from(error: crate::tokenizer::TokenizerError) -> Self {
        match error {
            crate::tokenizer::TokenizerError::Folder(error) => Self::Folder(error),
            error => Self::Tokenizer(error),
        }
    }
}

impl ModelError {
    /// Whether the machine failed, and not what it was given.
    pub fn is_environment(&self) -> bool {
        matches!(self, Self::Folder(error) if FolderError::is_environment(error))
    }
}
