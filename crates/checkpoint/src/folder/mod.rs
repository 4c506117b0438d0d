//! Model folders as Hugging Face diffusers keeps them: reading every tensor under its present name, and writing a folder
//! that `from_pretrained` loads as it loads the input.
//!
//! Nothing here knows Burn: tensors are bytes with a shape. Whatever lies in a folder is treated as hostile: it is
//! checked before it is believed, bounded before it is allocated, and never executed.

mod error;
mod layout;
mod legacy_torch;
mod names;
mod output;
mod part;
mod pickle;
mod pipeline;
mod safetensors_file;
mod source;
mod stored;
mod tensor;
mod torch_file;
mod training;
mod weight_file;
mod weights;
mod wrapping;
mod writing;

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

pub use error::FolderError;
pub use names::current_name;
pub use part::{Library, Part};
pub use pipeline::{SD3, SDXL};
pub use safetensors_file::check_names as check_safetensors_names;
pub use source::sha256_file;
pub use stored::StoredTensor;
pub use tensor::{Dtype, RawTensor, TensorError};
pub use training::{is_training_state, training_checkpoint};
pub use weight_file::{read_weight_file, read_weight_file_metadata};
pub use weights::{Origin, Weights};

use layout::{Layout, is_weights};
use output::Staging;
use pipeline::Pipeline;
use source::Source;

/// The diffusers release whose folders are written; it is recorded in new ones.
const DIFFUSERS_VERSION: &str = "0.42.1";
/// The networks that are read, by `_class_name`. How they are built, `retrack_networks` knows.
pub const CLASSES: &[(&str, Class)] = &[
    ("UNet2DModel", Class::Unconditional),
    ("UNet2DConditionModel", Class::Conditional),
    ("SD3Transformer2DModel", Class::Conditional),
];
const SUPPORTED: &[&str] = &names::<{ CLASSES.len() }>(CLASSES);
/// The list of the files that a command wrote into a folder (`retrack_checkpoint::written`), and the folder of the record
/// of the run that did. Both speak of that one folder and are no part of a copy.
pub const FILES_LIST: &str = ".retrack-files.json";
const RECORD: &str = "run";

const MODEL_INDEX: &str = "model_index.json";
const CONFIG: &str = "config.json";
const SCHEDULER_CONFIG: &str = "scheduler_config.json";

/// What a folder holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// `model_index.json` with a network and a scheduler, in `unet/` and `scheduler/` or, as in old repositories,
    /// beside it.
    Pipeline {
        /// The pipeline's class.
        class_name: String,
    },
    /// The network alone: `config.json` with its weights.
    Bare,
}

/// Which network a folder holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Denoises images, as a `UNet2DModel` does.
    Unconditional,
    /// Denoises what a text encoder and an autoencoder describe, as a `UNet2DConditionModel` does.
    Conditional,
}

impl Class {
    /// That of the networks with this `_class_name`.
    pub fn named(name: &str) -> Option<Self> {
        let mut classes = CLASSES.iter();
        classes
            .find(|(class, _)| *class == name)
            .map(|&(_, class)| class)
    }
}

const fn names<const N: usize>(classes: &'static [(&'static str, Class)]) -> [&'static str; N] {
    let mut names = [""; N];
    let mut place = 0;
    while place < N {
        names[place] = classes[place].0;
        place += 1;
    }
    names
}

/// A model folder whose configuration was read and whose weight files were found; the weights were not read yet.
#[derive(Debug, Clone)]
pub struct ModelFolder {
    /// Pipeline or network alone.
    pub kind: Kind,
    /// The network's `_class_name`.
    pub class_name: String,
    /// Which network it is.
    pub class: Class,
    /// The network's `config.json`: a JSON object.
    pub config: Value,
    /// The scheduler's `scheduler_config.json`: a JSON object. A bare folder need not have one.
    pub scheduler: Option<Value>,
    source: Source,
    /// The scheduler's file, relative to the root.
    scheduler_config: Option<PathBuf>,
    /// The network's folder, relative to the root.
    unet: PathBuf,
    layout: Layout,
    index: Option<Pipeline>,
    /// What a pipeline around a bare folder adds to its network, so that it does not denoise images.
    around: Option<String>,
}

/// What [`ModelFolder::write_with`] did; paths are relative to the folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Written {
    /// Weight files with new values.
    pub changed: Vec<PathBuf>,
    /// Files copied byte for byte.
    pub copied: Vec<PathBuf>,
    /// What the output deliberately lacks, see [`ModelFolder::write_with`].
    pub left_out: Vec<PathBuf>,
}

impl Written {
    /// Copied files that look like weights: other networks, or other forms of this one, which still hold what was to
    /// be changed.
    pub fn copied_weights(&self) -> impl Iterator<Item = &Path> {
        let is_weights = |path: &&Path| is_weights(&path.to_string_lossy());
        self.copied.iter().map(PathBuf::as_path).filter(is_weights)
    }
}

impl ModelFolder {
    /// Reads the configuration of a pipeline folder or a bare UNet folder and finds the weights that diffusers would
    /// load without `variant`.
    ///
    /// # Errors
    /// What is missing, damaged, outside of the folder or not supported.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, FolderError> {
        let source = Source::new(path.as_ref())?;
        let index = if source.has(Path::new(MODEL_INDEX)) {
            Some(Pipeline::read(&source)?)
        } else {
            None
        };
        let (kind, unet, scheduler_config) = match &index {
            Some(index) => {
                let class_name = index.class_name.clone();
                let kind = Kind::Pipeline { class_name };
                (kind, index.unet.clone(), index.scheduler.clone())
            }
            None => {
                let scheduler = PathBuf::from(SCHEDULER_CONFIG);
                let scheduler = source.has(&scheduler).then_some(scheduler);
                (Kind::Bare, PathBuf::new(), scheduler)
            }
        };
        let config_path = unet.join(CONFIG);
        if kind == Kind::Bare && !source.has(&config_path) {
            return Err(FolderError::MissingFile {
                path: source.path(&config_path),
                remedy: training_checkpoint(&source.root).unwrap_or_else(|| {
                    "give the folder that holds model_index.json or config.json".into()
                }),
            });
        }
        let config = source.read_config(&config_path)?;
        let (class_name, class) = check_class(
            &source.path(&config_path),
            &config,
            index.as_ref().map(|index| index.unet_class.as_str()),
        )?;
        if let Some(index) = &index {
            index.check(class, &class_name, &source.path(Path::new(MODEL_INDEX)))?;
        }
        let around = match kind {
            Kind::Bare => pipeline::around(&source, class),
            Kind::Pipeline { .. } => None,
        };
        let scheduler = scheduler_config
            .as_deref()
            .map(|path| source.read_config(path))
            .transpose()?;
        let layout = Layout::find(&source, &unet, &layout::DIFFUSERS)?;
        Ok(Self {
            kind,
            class_name,
            class,
            config,
            scheduler,
            scheduler_config,
            source,
            unet,
            layout,
            index,
            around,
        })
    }

    /// Refuses a pipeline whose text encoder, tokenizer or autoencoder are of other classes than those computed here.
    ///
    /// # Errors
    /// The part and its class.
    pub fn check_parts(&self) -> Result<(), FolderError> {
        match &self.index {
            Some(index) => index.check_parts(&self.source.path(Path::new(MODEL_INDEX))),
            None => Ok(()),
        }
    }

    /// For a network without its pipeline, what the pipeline that lies around it makes of its images, where that is
    /// something else than images; `None` where nothing says so.
    pub fn around(&self) -> Option<&str> {
        self.around.as_deref()
    }

    /// The folder as it was given.
    pub fn root(&self) -> &Path {
        &self.source.root
    }

    /// Whether it is a pipeline of this class.
    pub fn is_pipeline(&self, name: &str) -> bool {
        matches!(&self.kind, Kind::Pipeline { class_name } if class_name == name)
    }

    /// A setting of the pipeline itself, from `model_index.json`.
    ///
    /// # Errors
    /// A file that was changed since the folder was opened.
    pub fn setting(&self, key: &str) -> Result<Option<Value>, FolderError> {
        let index = self.source.read_config(Path::new(MODEL_INDEX))?;
        Ok(index.get(key).cloned())
    }

    /// The file that says of which parts the pipeline is.
    pub fn index_path(&self) -> PathBuf {
        self.source.path(Path::new(MODEL_INDEX))
    }

    /// The file that holds the network's configuration.
    pub fn config_path(&self) -> PathBuf {
        self.source.path(&self.unet.join(CONFIG))
    }

    /// The scheduler's `scheduler_config.json`; the root where there is none.
    pub fn scheduler_path(&self) -> PathBuf {
        let file = self.scheduler_config.as_deref();
        file.map_or_else(|| self.root().to_path_buf(), |file| self.source.path(file))
    }

    /// Another part of the pipeline, such as `vae`: its folder, which must be there.
    ///
    /// # Errors
    /// No such folder; the sentence says `what` is missing.
    pub fn part(&self, name: &'static str, what: &str) -> Result<Part, FolderError> {
        Part::open(&self.source, name, what)
    }

    /// Whether `model_index.json` names this part, and not as left out.
    ///
    /// # Errors
    /// As [`setting`](Self::setting).
    pub fn has_part(&self, name: &str) -> Result<bool, FolderError> {
        let entry = self.setting(name)?;
        Ok(entry.is_some_and(|entry| entry.get(1).is_some_and(Value::is_string)))
    }

    /// The files that hold the weights.
    pub fn weight_files(&self) -> Vec<PathBuf> {
        self.layout
            .files
            .iter()
            .map(|file| self.source.path(file))
            .collect()
    }

    /// Finds every tensor and looks at its values once; those of safetensors files stay where they are. Refuses damaged files, NaN and infinity, and shards that differ from their index.
    ///
    /// # Errors
    /// The file, and the tensor if it is one of them.
    pub fn weights(&self) -> Result<Weights, FolderError> {
        Weights::new(&self.source, self.layout.read(&self.source)?)
    }

    /// Writes a new pipeline folder as diffusers' `save_pretrained` does: `model_index.json`, `unet/` and `scheduler/`.
    ///
    /// `pipeline` is the pipeline's class (`DDPMPipeline`); both configurations name their own (`_class_name`).
    /// `tensors` have their present names. See [`ModelFolder::write_with`] for `out`.
    ///
    /// # Errors
    /// A network that is not known here, a configuration without `_class_name`; those of `out`, as
    /// [`ModelFolder::write_with`].
    pub fn create<'a>(
        out: &Path,
        pipeline: &str,
        unet: &Value,
        scheduler: &Value,
        tensors: impl IntoIterator<Item = (&'a str, &'a RawTensor)>,
    ) -> Result<(), FolderError> {
        let unet_file = Path::new("unet").join(CONFIG);
        let scheduler_file = Path::new("scheduler").join(SCHEDULER_CONFIG);
        check_class(&out.join(&unet_file), unet, None)?;
        let scheduler_class = class_name(&out.join(&scheduler_file), scheduler)?;
        let index = json!({
            "_class_name": pipeline,
            "scheduler": ["diffusers", scheduler_class],
            "unet": ["diffusers", class_name(&out.join(&unet_file), unet)?],
        });
        let staging = Staging::begin(out, None)?;
        staging.create_folder(Path::new("unet"))?;
        staging.create_folder(Path::new("scheduler"))?;
        for (file, value) in [
            (Path::new(MODEL_INDEX), &index),
            (&unet_file, unet),
            (&scheduler_file, scheduler),
        ] {
            staging.write(file, &config_bytes(&out.join(file), value)?)?;
        }
        safetensors_file::create(
            &staging.path(Path::new("unet/diffusion_pytorch_model.safetensors")),
            tensors,
        )?;
        staging.finish()
    }
}

fn class_name(path: &Path, config: &Value) -> Result<String, FolderError> {
    match config.get("_class_name") {
        Some(Value::String(class)) => Ok(class.clone()),
        Some(_) => Err(FolderError::malformed(
            path,
            "`_class_name` is not a string",
        )),
        None => Err(FolderError::malformed(
            path,
            "no `_class_name`; is this a model of diffusers?",
        )),
    }
}

/// The network's class. Old configurations may leave it to `model_index.json`.
fn check_class(
    path: &Path,
    config: &Value,
    class_in_index: Option<&str>,
) -> Result<(String, Class), FolderError> {
    let name = match (config.get("_class_name"), class_in_index) {
        (None, Some(class)) => class.to_string(),
        _ => class_name(path, config)?,
    };
    match Class::named(&name) {
        Some(class) => Ok((name, class)),
        None => Err(FolderError::UnsupportedClass {
            path: path.to_path_buf(),
            found: format!("the class {}", error::shown(&name)),
            supported: SUPPORTED,
        }),
    }
}

/// A configuration file as diffusers writes it: keys sorted, two spaces, its version recorded.
fn config_bytes(path: &Path, config: &Value) -> Result<Vec<u8>, FolderError> {
    let mut config = config.clone();
    if let Value::Object(map) = &mut config {
        map.entry("_diffusers_version")
            .or_insert_with(|| DIFFUSERS_VERSION.into());
    }
    let mut bytes =
        serde_json::to_vec_pretty(&sorted(config)).map_err(|source| FolderError::Json {
            path: path.to_path_buf(),
            source,
        })?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map
                .into_iter()
                .map(|(key, value)| (key, sorted(value)))
                .collect();
            entries.sort_by(|(left, _), (right, _)| left.cmp(right));
            Value::Object(Map::from_iter(entries))
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        other => other,
    }
}
