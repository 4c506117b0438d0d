//! Another part of a pipeline than its network.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::CONFIG;
use super::error::FolderError;
use super::layout::{DIFFUSERS, Layout, Loaded, TRANSFORMERS};
use super::source::Source;
use super::tensor::RawTensor;
use super::weights::Weights;
use super::wrapping::wrapping;

/// Who wrote a part: they name weight files differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Library {
    /// `diffusion_pytorch_model.*`
    Diffusers,
    /// `model.*` and `pytorch_model.*`
    Transformers,
}

/// A folder of a pipeline, such as `text_encoder`.
#[derive(Debug, Clone)]
pub struct Part {
    source: Source,
    /// Relative to the root.
    pub(super) folder: PathBuf,
}

impl Part {
    pub(super) fn open(
        source: &Source,
        name: &'static str,
        what: &str,
    ) -> Result<Self, FolderError> {
        let folder = PathBuf::from(name);
        if !source.has_folder(&folder) {
            return Err(FolderError::MissingFile {
                path: source.path(&folder),
                remedy: format!(
                    "the model has no {what}; give the whole pipeline's folder, as it was downloaded"
                ),
            });
        }
        Ok(Self {
            source: source.clone(),
            folder,
        })
    }

    /// A part that lies alone.
    ///
    /// # Errors
    /// No such folder.
    pub fn at(folder: impl AsRef<Path>) -> Result<Self, FolderError> {
        Ok(Self {
            source: Source::new(folder.as_ref())?,
            folder: PathBuf::new(),
        })
    }

    /// The path to show for one of its files.
    pub fn path(&self, file: &str) -> PathBuf {
        self.source.path(&self.folder.join(file))
    }

    /// Whether the part has a file of this name.
    pub fn has(&self, file: &str) -> bool {
        self.source.has(&self.folder.join(file))
    }

    /// A whole file of at most `limit` bytes.
    ///
    /// # Errors
    /// A file that is missing, empty, too large or not its own content.
    pub fn read(&self, file: &str, limit: u64) -> Result<Vec<u8>, FolderError> {
        self.source.read_small(&self.folder.join(file), limit)
    }

    /// Its `config.json`.
    ///
    /// # Errors
    /// A file that is missing or not a JSON object.
    pub fn config(&self) -> Result<Value, FolderError> {
        self.json(CONFIG)
    }

    /// A configuration file.
    ///
    /// # Errors
    /// A file that is missing or not a JSON object.
    pub fn json(&self, file: &str) -> Result<Value, FolderError> {
        self.source.read_config(&self.folder.join(file))
    }

    /// Its tensors under their present names. `library` names the files.
    ///
    /// # Errors
    /// As [`ModelFolder::weights`](super::ModelFolder::weights).
    pub fn tensors(&self, library: Library) -> Result<Vec<(String, RawTensor)>, FolderError> {
        let loaded = self.loaded(library)?.into_iter();
        loaded
            .map(|one| Ok((one.current, one.tensor.read()?.into_owned())))
            .collect()
    }

    /// The same, each tensor to be read when it is asked for.
    ///
    /// # Errors
    /// As [`Self::tensors`].
    pub fn weights(&self, library: Library) -> Result<Weights, FolderError> {
        Weights::new(&self.source, self.loaded(library)?)
    }

    /// What a wrapper of PyTorch put before the name of every tensor, see [`Weights::wrapping`].
    ///
    /// # Errors
    /// Weight files that are missing or damaged.
    pub fn wrapping(&self, library: Library) -> Result<String, FolderError> {
        let names = self.layout(library)?.names(&self.source)?;
        Ok(wrapping(names.iter().map(String::as_str)))
    }

    /// How many bytes the weight files have, for a look before they are read.
    ///
    /// # Errors
    /// Weight files that are missing.
    pub fn weight_bytes(&self, library: Library) -> Result<u64, FolderError> {
        let layout = self.layout(library)?;
        let mut bytes = 0;
        for file in &layout.files {
            bytes += self.source.open_content(file)?.len;
        }
        Ok(bytes)
    }

    fn loaded(&self, library: Library) -> Result<Vec<Loaded>, FolderError> {
        self.layout(library)?.read(&self.source)
    }

    pub(super) fn layout(&self, library: Library) -> Result<Layout, FolderError> {
        let names = match library {
            Library::Diffusers => &DIFFUSERS,
            Library::Transformers => &TRANSFORMERS,
        };
        Layout::find(&self.source, &self.folder, names)
    }
}
