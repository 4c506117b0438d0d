//! Model folders of a `StableDiffusionPipeline`, `StableDiffusionXLPipeline` or `StableDiffusion3Pipeline`.

use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::Device;

use crate::config::ConfigError;
use crate::cost::{Footprint, Training};
use crate::diffusion::{Autoencoder, Diffusion, Embedded};
use crate::family::Told;
use crate::model::{self, Model, ModelError};
use crate::parameters;
use crate::phases::Phases;
use crate::text_encoders::TextEncoders;
use crate::tokenizer::ClipTokenizer;
use crate::vae::{AutoencoderConfig, AutoencoderKL};
use retrack_checkpoint::folder::{Class, FolderError, Kind, Library, ModelFolder, Part, SD3, SDXL};

/// A whole text-to-image pipeline of Stable Diffusion 1.x, 2.x, XL or 3. Only its denoiser is in memory; the other networks
/// are read when they are asked for.
pub struct StableDiffusion {
    /// The denoiser.
    pub model: Model,
    /// What the denoiser is told of texts.
    pub told: Told,
    /// What its autoencoder is.
    pub vae_config: AutoencoderConfig,
    vae: Part,
    texts: TextEncoders,
}

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
        let config = &model.config;
        let told = config.architecture.told();
        let told = told.expect("networks of this class are told texts");
        folder.check_parts()?;
        let vae = folder.part("vae", "autoencoder")?;
        let in_vae = at(vae.path("config.json"));
        let vae_config = AutoencoderConfig::from_json(&vae.config()?).map_err(in_vae)?;
        let texts = if folder.is_pipeline(SDXL) {
            TextEncoders::two(folder, vae_config.factor())?
        } else if folder.is_pipeline(SD3) {
            TextEncoders::three(folder, told.states.1)?
        } else {
            TextEncoders::one(folder)?
        };
        // No type takes fewer than two bytes.
        let stored = vae.weight_bytes(Library::Diffusers)? / 2;
        model::check_parameters(vae_config.parameters(), stored, vae.path("config.json"))?;
        let disagree = |problem: String| ModelError::Config {
            path: folder.config_path(),
            source: ConfigError::Inconsistent(problem),
        };
        check_texts(&told, &texts).map_err(disagree)?;
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
            told,
            vae_config,
            vae,
            texts,
            model,
        })
    }

    /// The tokenizer of the first text encoder, which turns a prompt into token numbers.
    pub fn tokenizer(&self) -> &ClipTokenizer {
        self.texts.tokenizer()
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
}

impl Diffusion for StableDiffusion {
    fn denoiser(&self) -> &Model {
        &self.model
    }

    fn denoiser_mut(&mut self) -> &mut Model {
        &mut self.model
    }

    fn footprint(&self, training: &Training) -> Footprint {
        let denoiser = |height, width| {
            let architecture = &self.model.config.architecture;
            let cost = architecture.latent_cost(height, width);
            cost.expect("networks of this class denoise latents")
        };
        let phases = Phases::of(
            &denoiser,
            &self.vae_config,
            &self.texts.cost(),
            training.size,
        );
        phases.footprint(training)
    }

    /// The latents, the images, and what a pass with and without the prompt begins with, which is less than all of it.
    fn drawing(&self, [height, width]: [usize; 2], count: usize, together: usize) -> f64 {
        let pixels = height as f64 * width as f64;
        let config = &self.model.config;
        let latents = count as f64 * pixels * config.in_channels as f64 * 4.0;
        let images = count as f64 * pixels * (self.vae_config.factor().pow(2) * 3) as f64;
        let pass = together as f64 * 2.0 * config.architecture.first(height, width) * 4.0;
        latents + images + pass
    }

    fn channels(&self) -> usize {
        self.vae_config.in_channels
    }

    fn latent_factor(&self) -> Option<usize> {
        Some(self.vae_config.factor())
    }

    fn autoencoder(&self, device: &Device) -> Result<Option<Box<dyn Autoencoder>>, ModelError> {
        let autoencoder = self.autoencoder(device)?;
        Ok(Some(Box::new(autoencoder)))
    }

    fn embed(&self, texts: &[Option<&str>], device: &Device) -> Result<Embedded, ModelError> {
        self.texts.embed(texts, device)
    }

    fn other_parameters(&self) -> Result<Vec<(&'static str, usize)>, ModelError> {
        let device = Device::flex();
        let mut all = self.texts.parameters(&device)?;
        all.push(("autoencoder", self.autoencoder(&device)?.num_params()));
        Ok(all)
    }

    fn prompt_tokens(&self) -> Option<usize> {
        Some(self.tokenizer().max_length())
    }

    fn wrappings(&self) -> Result<Vec<(PathBuf, String)>, ModelError> {
        let (unet, prefix) = self.model.wrapping();
        let mut all = vec![(unet, prefix.to_owned())];
        all.extend(self.texts.wrappings()?);
        let prefix = self.vae.wrapping(Library::Diffusers)?;
        all.push((self.vae.path(""), prefix));
        all.retain(|(_, prefix)| !prefix.is_empty());
        Ok(all)
    }
}

/// What text encoders make of a text is what the denoiser takes.
///
/// # Errors
/// What is not.
fn check_texts(told: &Told, texts: &TextEncoders) -> Result<(), String> {
    let (states, pooled) = texts.widths();
    let (key, width) = told.states;
    if width != states {
        return Err(format!(
            "`{key}` is {width}, but the text encoders' hidden states have {states} numbers"
        ));
    }
    match (told.pooled, pooled) {
        (None, None) => Ok(()),
        (Some((_, width)), Some(pooled)) if width == pooled => Ok(()),
        (Some((key, width)), Some(pooled)) => Err(format!(
            "by `{key}` a text as one vector has {width} numbers, but by the text encoders' `projection_dim` {pooled}"
        )),
        (Some((key, _)), None) => Err(format!(
            "by `{key}` the network takes a text as one vector, which this pipeline's text encoder does not make"
        )),
        (None, Some(_)) => Err(
            "the network takes no text as one vector (`addition_embed_type` is null), which this pipeline gives it".into(),
        ),
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
