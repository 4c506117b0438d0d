//! The tensors of a model folder under their present names.

use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use indexmap::map::Entry as MapEntry;

use super::error::{FolderError, shown};
use super::layout::Loaded;
use super::source::Source;
use super::tensor::{RawTensor, TensorError};

/// A model folder's tensors in the order of their files, under the names that the network uses today
/// (`to_q`, `to_k`, `to_v`, `to_out.0` in attention blocks), each with its place in the folder.
#[derive(Debug, Clone)]
pub struct Weights {
    root: PathBuf,
    entries: IndexMap<String, Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    tensor: RawTensor,
    origin: Origin,
    changed: bool,
}

/// Where a tensor is in its model folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Relative to the model folder.
    pub file: PathBuf,
    /// The name in that file, which may be a deprecated one.
    pub name: String,
}

impl Weights {
    pub(super) fn new(source: &Source, loaded: Vec<Loaded>) -> Result<Self, FolderError> {
        let mut entries = IndexMap::with_capacity(loaded.len());
        for Loaded {
            file,
            name,
            current,
            tensor,
        } in loaded
        {
            match entries.entry(current) {
                MapEntry::Occupied(taken) => {
                    let first: &Entry = taken.get();
                    let problem = format!(
                        "{} and {} are the same parameter",
                        shown(&first.origin.name),
                        shown(&name)
                    );
                    return Err(FolderError::malformed(&source.path(&file), problem));
                }
                MapEntry::Vacant(free) => {
                    free.insert(Entry {
                        tensor,
                        origin: Origin { file, name },
                        changed: false,
                    });
                }
            }
        }
        Ok(Self {
            root: source.root.clone(),
            entries,
        })
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn get(&self, name: &str) -> Option<&RawTensor> {
        self.entries.get(name).map(|entry| &entry.tensor)
    }

    pub fn origin(&self, name: &str) -> Option<&Origin> {
        self.entries.get(name).map(|entry| &entry.origin)
    }

    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &RawTensor)> {
        self.entries
            .iter()
            .map(|(name, entry)| (name.as_str(), &entry.tensor))
    }

    /// Replaces a tensor's values (in C order), keeping its shape and element type. Refuses an unknown name, another
    /// number of values, NaN, infinity and values beyond the element type; the tensor is then as before.
    pub fn set_f32(&mut self, name: &str, values: &[f32]) -> Result<(), FolderError> {
        let fail = |file: &Path, source| FolderError::Tensor {
            path: self.root.join(file),
            name: name.to_string(),
            source,
        };
        let Some(entry) = self.entries.get_mut(name) else {
            return Err(fail(Path::new(""), TensorError::Unknown));
        };
        let old = &entry.tensor;
        match RawTensor::from_f32(values, old.shape().to_vec(), old.dtype()) {
            Ok(tensor) => {
                entry.tensor = tensor;
                entry.changed = true;
                Ok(())
            }
            Err(source) => Err(fail(&entry.origin.file, source)),
        }
    }

    /// The model folder that the tensors were read from, as it was given.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether any tensor was set since it was read.
    pub(super) fn changed(&self) -> bool {
        self.entries.values().any(|entry| entry.changed)
    }

    /// Whether any tensor of `file` was set since it was read.
    pub(super) fn changed_in(&self, file: &Path) -> bool {
        self.entries
            .values()
            .any(|entry| entry.changed && entry.origin.file == file)
    }

    /// The tensors of `file` by their names there.
    pub(super) fn of_file<'a>(
        &'a self,
        file: &Path,
    ) -> std::collections::HashMap<&'a str, &'a RawTensor> {
        self.entries
            .values()
            .filter(|entry| entry.origin.file == file)
            .map(|entry| (entry.origin.name.as_str(), &entry.tensor))
            .collect()
    }
}
