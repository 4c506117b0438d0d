//! What `model_index.json` says: a pipeline's class and its parts, of which all must be understood. A part that is not
//! can make anything else of what the network denoises.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::error::{FolderError, shown};
use super::source::Source;
use super::{CONFIG, Class, MODEL_INDEX, SCHEDULER_CONFIG, SUPPORTED, class_name};

/// The class of SDXL's pipeline.
pub const SDXL: &str = "StableDiffusionXLPipeline";

/// The class of Stable Diffusion 3's.
pub const SD3: &str = "StableDiffusion3Pipeline";

/// The parts that denoise, of which a pipeline has one.
const DENOISERS: [&str; 2] = ["unet", "transformer"];

/// A pipeline around a conditional network.
struct LatentPipeline {
    class: &'static str,
    /// The class of that network.
    denoiser: &'static str,
    /// The parts that are computed here, with their classes.
    parts: &'static [(&'static str, &'static [&'static str])],
    /// All parts that it may have. The last ones look at finished images, or at a second input.
    known: &'static [&'static str],
}

const TOKENIZER: &[&str] = &["CLIPTokenizer", "CLIPTokenizerFast"];
/// All are read from the file that the last two are made of.
const T5_TOKENIZER: &[&str] = &[
    "T5Tokenizer",
    "T5TokenizerFast",
    "PreTrainedTokenizerFast",
    "TokenizersBackend",
];
const LATENT_PIPELINES: [LatentPipeline; 3] = [
    LatentPipeline {
        class: "StableDiffusionPipeline",
        denoiser: "UNet2DConditionModel",
        parts: &[
            ("vae", &["AutoencoderKL"]),
            ("text_encoder", &["CLIPTextModel"]),
            ("tokenizer", TOKENIZER),
        ],
        known: &[
            "unet",
            "scheduler",
            "vae",
            "text_encoder",
            "tokenizer",
            "feature_extractor",
            "image_encoder",
            "safety_checker",
        ],
    },
    LatentPipeline {
        class: SDXL,
        denoiser: "UNet2DConditionModel",
        parts: &[
            ("vae", &["AutoencoderKL"]),
            ("text_encoder", &["CLIPTextModel"]),
            ("text_encoder_2", &["CLIPTextModelWithProjection"]),
            ("tokenizer", TOKENIZER),
            ("tokenizer_2", TOKENIZER),
        ],
        known: &[
            "unet",
            "scheduler",
            "vae",
            "text_encoder",
            "text_encoder_2",
            "tokenizer",
            "tokenizer_2",
            "feature_extractor",
            "image_encoder",
        ],
    },
    LatentPipeline {
        class: SD3,
        denoiser: "SD3Transformer2DModel",
        parts: &[
            ("vae", &["AutoencoderKL"]),
            ("text_encoder", &["CLIPTextModelWithProjection"]),
            ("text_encoder_2", &["CLIPTextModelWithProjection"]),
            ("text_encoder_3", &["T5EncoderModel"]),
            ("tokenizer", TOKENIZER),
            ("tokenizer_2", TOKENIZER),
            ("tokenizer_3", T5_TOKENIZER),
        ],
        known: &[
            "transformer",
            "scheduler",
            "vae",
            "text_encoder",
            "text_encoder_2",
            "text_encoder_3",
            "tokenizer",
            "tokenizer_2",
            "tokenizer_3",
            "feature_extractor",
            "image_encoder",
        ],
    },
];
const LATENT_NAMES: &[&str] = &[
    LATENT_PIPELINES[0].class,
    LATENT_PIPELINES[1].class,
    LATENT_PIPELINES[2].class,
];

/// Pipelines whose network denoises something else than images, even where their files leave the other parts out.
const NO_IMAGES: [&str; 3] = [
    "AudioDiffusionPipeline",
    "LDMPipeline",
    "LDMSuperResolutionPipeline",
];

/// What `model_index.json` says, with the places of the parts.
#[derive(Debug, Clone)]
pub(super) struct Pipeline {
    pub class_name: String,
    pub unet: PathBuf,
    pub unet_class: String,
    pub scheduler: Option<PathBuf>,
    /// The parts besides network and scheduler, with their classes.
    others: Vec<(String, String)>,
}

impl Pipeline {
    pub(super) fn read(source: &Source) -> Result<Self, FolderError> {
        let file = Path::new(MODEL_INDEX);
        let path = source.path(file);
        let index = source.read_config(file)?;
        let class_name = class_name(&path, &index)?;
        let class_of = |part: &str| index.get(part)?.get(1)?.as_str();
        let mut denoisers = DENOISERS.into_iter();
        let denoiser = denoisers.find_map(|part| Some((part, class_of(part)?)));
        let Some((denoiser, unet_class)) = denoiser else {
            return Err(FolderError::UnsupportedClass {
                found: format!(
                    "the pipeline {} without a unet or a transformer",
                    shown(&class_name)
                ),
                path,
                supported: SUPPORTED,
            });
        };
        // A U-Net's own file says what it is; of old ones the index may say another class.
        if denoiser != "unet" && Class::named(unet_class).is_none() {
            return Err(FolderError::UnsupportedClass {
                found: format!(
                    "the pipeline {} with a {denoiser} of the class {}",
                    shown(&class_name),
                    shown(unet_class)
                ),
                path,
                supported: SUPPORTED,
            });
        }
        // diffusers looks for a part in its folder if there is one, else beside the index.
        let place = |part: &str| {
            if source.has_folder(Path::new(part)) {
                PathBuf::from(part)
            } else {
                PathBuf::new()
            }
        };
        Ok(Self {
            class_name,
            unet: place(denoiser),
            unet_class: unet_class.to_string(),
            scheduler: class_of("scheduler").map(|_| place("scheduler").join(SCHEDULER_CONFIG)),
            others: other_parts(&index, denoiser),
        })
    }

    /// Refuses a pipeline of another kind, and one with a part that is not understood. `path`: the index's.
    /// `network`: the class of what it denoises by.
    pub(super) fn check(
        &self,
        class: Class,
        network: &str,
        path: &Path,
    ) -> Result<(), FolderError> {
        let pipeline = format!("the pipeline {}", shown(&self.class_name));
        let own = self.latent().map(|latent| latent.denoiser);
        if class == Class::Conditional && own != Some(network) {
            let found = format!("{pipeline} around a {network}");
            return unsupported(path, found, LATENT_NAMES);
        }
        if let Some((part, own)) = self.not_understood(class) {
            let found = format!(
                "{pipeline} with {} of the class {}",
                shown(part),
                shown(own)
            );
            return match class {
                Class::Unconditional => unsupported(path, found, &[ALONE]),
                Class::Conditional => unsupported(path, found, self.known()),
            };
        }
        if class == Class::Unconditional && self.is_of_no_images() {
            let found = format!("{pipeline}, whose network does not denoise images,");
            return unsupported(path, found, &[ALONE]);
        }
        Ok(())
    }

    /// Refuses parts of a text-to-image pipeline that are of other classes than those computed here.
    pub(super) fn check_parts(&self, path: &Path) -> Result<(), FolderError> {
        let parts = self.latent().map_or(&[][..], |latent| latent.parts);
        for &(part, classes) in parts {
            let own = self.others.iter().find(|(name, _)| name == part);
            if let Some((_, own)) = own
                && !classes.contains(&own.as_str())
            {
                let found = format!("`{part}` of the class {}", shown(own));
                return unsupported(path, found, classes);
            }
        }
        Ok(())
    }

    fn latent(&self) -> Option<&'static LatentPipeline> {
        let mut pipelines = LATENT_PIPELINES.iter();
        pipelines.find(|latent| latent.class == self.class_name)
    }

    /// Parts that are understood around a conditional network.
    fn known(&self) -> &'static [&'static str] {
        self.latent().map_or(&[], |latent| latent.known)
    }

    fn is_of_no_images(&self) -> bool {
        NO_IMAGES.contains(&self.class_name.as_str())
    }

    /// The first part that is not understood, with its class.
    fn not_understood(&self, class: Class) -> Option<(&str, &str)> {
        let understood = |(part, _): &&(String, String)| {
            class == Class::Conditional && self.known().contains(&part.as_str())
        };
        let part = self.others.iter().find(|part| !understood(part));
        part.map(|(part, class)| (part.as_str(), class.as_str()))
    }
}

fn unsupported(
    path: &Path,
    found: String,
    supported: &'static [&'static str],
) -> Result<(), FolderError> {
    Err(FolderError::UnsupportedClass {
        path: path.to_path_buf(),
        found,
        supported,
    })
}

const ALONE: &str =
    "a UNet2DModel that denoises images, in a pipeline with a scheduler and nothing else";

/// Every entry that names a library and a class, but network and scheduler. Entries of nulls are parts that were left
/// out; other entries are settings.
fn other_parts(index: &Value, denoiser: &str) -> Vec<(String, String)> {
    let entries = index.as_object().into_iter().flatten();
    entries
        .filter(|(name, _)| ![denoiser, "scheduler"].contains(&name.as_str()))
        .filter_map(|(name, value)| {
            let [library, class] = value.as_array()?.as_slice() else {
                return None;
            };
            match (library, class) {
                (Value::Null, Value::Null) => None,
                (_, Value::String(class)) => Some((name.clone(), class.clone())),
                (_, class) => Some((name.clone(), class.to_string())),
            }
        })
        .collect()
}

/// For a network of images that was given alone: what the pipeline whose folder it lies in adds to it.
pub(super) fn around(source: &Source, class: Class) -> Option<String> {
    let parent = source.canonical.parent()?;
    if class != Class::Unconditional || source.canonical.file_name()? != "unet" {
        return None;
    }
    let parent = Source::new(parent).ok()?;
    if !parent.has(Path::new(MODEL_INDEX)) || !parent.has(&Path::new("unet").join(CONFIG)) {
        return None;
    }
    let index = Pipeline::read(&parent).ok()?;
    let pipeline = &index.class_name;
    match index.not_understood(class) {
        Some((part, own)) if Class::named(&index.unet_class) == Some(Class::Unconditional) => {
            Some(format!(
                "the pipeline {} with {} of the class {}",
                shown(pipeline),
                shown(part),
                shown(own)
            ))
        }
        None if index.is_of_no_images() => Some(format!("the pipeline {}", shown(pipeline))),
        _ => None,
    }
}
