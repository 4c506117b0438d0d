//! Model folders of conditional networks: the network alone, and `StableDiffusionPipeline` around it.

use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use crate::conditional::{Captioned, UNet2DConditionConfig, UNet2DConditionModel};
use crate::config::ConfigError;
use crate::cost::{Footprint, Training};
use crate::diffusion::{Condition, Diffusion};
use crate::lora::Adapters;
use crate::model::{self, ModelError};
use crate::network::Network;
use crate::parameters;
use crate::phases::Phases;
use crate::schedule::{SchedulerConfig, SchedulerKind};
use crate::text::{CLIPTextModel, TextConfig};
use crate::tokenizer::ClipTokenizer;
use crate::vae::{AutoencoderConfig, AutoencoderKL};
use retrack_checkpoint::folder::{
    Class, FolderError, Kind, Library, ModelFolder, Part, Weights, Written,
};

/// A conditional denoiser read from a folder.
pub struct ConditionalModel {
    pub folder: ModelFolder,
    pub config: UNet2DConditionConfig,
    /// The folder's scheduler as a pipeline uses it; diffusers' DDPM defaults where a bare folder has none.
    pub scheduler: SchedulerConfig,
    /// The same for a sampler that is put in its place.
    replacing: SchedulerConfig,
    weights: Weights,
}

impl ConditionalModel {
    /// Reads and checks configuration, scheduler and weights.
    ///
    /// # Errors
    /// Anything in the folder that is damaged, missing, too much or not supported.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        Self::from_folder(ModelFolder::open(path)?)
    }

    /// The same for a folder that is open.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_folder(folder: ModelFolder) -> Result<Self, ModelError> {
        if folder.class != Class::Conditional {
            return Err(ModelError::Unconditional {
                path: folder.root().to_path_buf(),
            });
        }
        let config =
            UNet2DConditionConfig::from_json(&folder.config).map_err(at(folder.config_path()))?;
        let mut scheduler = model::scheduler(&folder)?;
        let mut replacing = scheduler.clone();
        if matches!(folder.kind, Kind::Pipeline { .. }) {
            scheduler = scheduler.for_latents();
            replacing = replacing.unclipped();
        }
        let weights = folder.weights()?;
        let expected = config.cost(1, 1).parameters;
        model::check_parameters(expected, model::stored(&weights), folder.config_path())?;
        Ok(Self {
            folder,
            config,
            scheduler,
            replacing,
            weights,
        })
    }

    /// How to sample: by the folder's own scheduler, or by another one that is put in its place.
    pub fn sampling(&self, other: Option<SchedulerKind>) -> (SchedulerKind, &SchedulerConfig) {
        match other {
            Some(kind) => (kind, &self.replacing),
            None => (self.scheduler.kind, &self.scheduler),
        }
    }

    /// See [`Weights::wrapping`].
    pub fn wrapping(&self) -> &str {
        self.weights.wrapping()
    }

    /// The network with the folder's weights, in f32.
    ///
    /// # Errors
    /// All tensors that are missing, unexpected or of another shape.
    pub fn network(&self, device: &Device) -> Result<UNet2DConditionModel, ModelError> {
        model::fill(self.config.init(device), &self.weights, self.folder.root())
    }

    /// The network with the folder's weights and what adapters add to them, in f32.
    ///
    /// # Errors
    /// As [`network`](Self::network). Adapters of layers that the network lacks are left out.
    pub fn adapted_network(
        &self,
        adapters: &Adapters,
        device: &Device,
    ) -> Result<UNet2DConditionModel, ModelError> {
        let network = self.network(device)?;
        Ok(parameters::try_fill(network, |parameter| {
            let tensor = self.weights.get(&parameter.name).expect("filled above");
            let values = tensor.read()?.to_f32();
            Ok::<_, FolderError>(adapters.added_to(&parameter.name, values))
        })?)
    }

    /// The folder's weights; see [`Weights::write_as`] for the element type in which [`write`](Self::write) writes them.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// The same, to say how they are to be written.
    pub fn weights_mut(&mut self) -> &mut Weights {
        &mut self.weights
    }

    /// Writes the folder again with this network's weights; everything else stays as it is.
    ///
    /// # Errors
    /// As [`ModelFolder::write_with`].
    pub fn write(&self, network: &impl Module, out: &Path) -> Result<Written, ModelError> {
        model::write(&self.folder, &self.weights, network, out)
    }
}

/// A whole text-to-image pipeline of Stable Diffusion 1.x or 2.x. Only its denoiser is in memory; the other networks
/// are read when they are asked for.
pub struct StableDiffusion {
    pub model: ConditionalModel,
    pub vae_config: AutoencoderConfig,
    pub text_config: TextConfig,
    pub tokenizer: ClipTokenizer,
    vae: Part,
    text_encoder: Part,
}

/// Prompts as the denoiser looks at them.
pub struct Embedded {
    /// `[texts, tokens, width]`, on a device without autodiff.
    pub states: Tensor<3>,
    /// For each text, the part of it that did not fit.
    pub cut: Vec<Option<String>>,
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
        let model = ConditionalModel::from_folder(folder)?;
        let folder = &model.folder;
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
        let (width, states) = (
            model.config.cross_attention_dim,
            text_config.encoder.hidden_size,
        );
        if width != states {
            return Err(disagree(format!(
                "`cross_attention_dim` is {width}, but the text encoder's `hidden_size` {states}"
            )));
        }
        let latents = vae_config.latent_channels;
        for (key, channels) in [
            ("in_channels", model.config.in_channels),
            ("out_channels", model.config.out_channels),
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
            vae_config,
            text_config,
            tokenizer,
            vae,
            text_encoder,
            model,
        })
    }

    /// What wrappers of PyTorch put before every name of a network's weights, see [`Weights::wrapping`], with the path of
    /// that network's folder; nothing for the networks whose names are their own.
    ///
    /// # Errors
    /// Weight files that are missing or damaged.
    pub fn wrappings(&self) -> Result<Vec<(PathBuf, String)>, ModelError> {
        let unet = self.model.folder.config_path().with_file_name("");
        let mut all = vec![(unet, self.model.wrapping().to_owned())];
        for (part, library) in [
            (&self.text_encoder, Library::Transformers),
            (&self.vae, Library::Diffusers),
        ] {
            all.push((part.path(""), part.wrapping(library)?));
        }
        all.retain(|(_, prefix)| !prefix.is_empty());
        Ok(all)
    }

    /// How many pixels of an image one latent stands for, each way.
    pub fn latent_factor(&self) -> usize {
        1 << (self.vae_config.block_out_channels.len() - 1)
    }

    /// Height and width of the images that the network was made for; `None` where the folder does not say.
    pub fn image_size(&self) -> Option<[usize; 2]> {
        let size = self.model.config.sample_size?;
        Some(size.map(|side| side * self.latent_factor()))
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

    /// Encodes texts: reads the text encoder, uses it once and drops it.
    ///
    /// # Errors
    /// No texts; an encoder that cannot be read; a tokenizer whose numbers the encoder does not know.
    pub fn embed(&self, texts: &[&str], device: &Device) -> Result<Embedded, ModelError> {
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
            states: Tensor::cat(states, 0),
            cut,
        })
    }
}

impl Diffusion for StableDiffusion {
    fn folder(&self) -> &ModelFolder {
        &self.model.folder
    }

    fn scheduler(&self) -> &SchedulerConfig {
        &self.model.scheduler
    }

    fn sampling(&self, other: Option<SchedulerKind>) -> (SchedulerKind, &SchedulerConfig) {
        self.model.sampling(other)
    }

    fn condition(&self) -> Condition {
        Condition::Text
    }

    fn channels(&self) -> usize {
        self.vae_config.in_channels
    }

    fn image_size(&self) -> Option<[usize; 2]> {
        self.image_size()
    }

    fn unknown_keys(&self) -> &[String] {
        &self.model.config.unknown_keys
    }

    fn wrappings(&self) -> Result<Vec<(PathBuf, String)>, ModelError> {
        self.wrappings()
    }

    fn weights(&self) -> &Weights {
        self.model.weights()
    }

    fn weights_mut(&mut self) -> &mut Weights {
        self.model.weights_mut()
    }

    fn footprint(&self, training: &Training) -> Footprint {
        let phases = Phases::of(
            &self.model.config,
            &self.vae_config,
            &self.text_config,
            training.size,
        );
        phases.footprint(training)
    }

    fn network(&self, device: &Device) -> Result<Network, ModelError> {
        Ok(Network::new(Captioned::untold(self.model.network(device)?)))
    }

    fn write(&self, network: &Network, out: &Path) -> Result<Written, ModelError> {
        self.model.write(network, out)
    }

    fn as_latents(&self) -> Option<&StableDiffusion> {
        Some(self)
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
