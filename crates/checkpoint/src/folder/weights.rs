//! The tensors of a model folder under their present names.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indexmap::IndexMap;
use indexmap::map::Entry as MapEntry;

use super::error::{FolderError, shown};
use super::layout::Loaded;
use super::source::Source;
use super::stored::StoredTensor;
use super::tensor::{Dtype, RawTensor, TensorError};
use super::wrapping::wrapping;

/// A model folder's tensors in the order of their files, under the names that the network uses today
/// (`to_q`, `to_k`, `to_v`, `to_out.0` in attention blocks), each with its place in the folder.
#[derive(Debug, Clone)]
pub struct Weights {
    root: PathBuf,
    entries: IndexMap<String, Entry>,
    /// What stood before every name.
    wrapping: String,
    /// The element type that all weights are written in; `None`: each in its own.
    written_as: Option<Dtype>,
}

#[derive(Debug, Clone)]
struct Entry {
    tensor: StoredTensor,
    origin: Origin,
    /// Whether `tensor` is no longer what the file holds.
    is_set: bool,
    change: Option<Change>,
}

/// Makes a tensor's new values, in C order.
#[derive(Clone)]
struct Change(Arc<NewValues>);

type NewValues = dyn Fn() -> Result<Vec<f32>, FolderError> + Send + Sync;

impl std::fmt::Debug for Change {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Change")
    }
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
        let wrapping = wrapping(loaded.iter().map(|one| one.name.as_str()));
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
                        is_set: false,
                        change: None,
                    });
                }
            }
        }
        Ok(Self {
            root: source.root.clone(),
            entries,
            wrapping,
            written_as: None,
        })
    }

    /// What a wrapper of PyTorch (`module.`, `_orig_mod.`) put before every name in the files, and what is left out
    /// here; empty where nothing.
    pub fn wrapping(&self) -> &str {
        &self.wrapping
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no tensor at all.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The tensor as it was read, or as [`set_f32`](Self::set_f32) left it.
    pub fn get(&self, name: &str) -> Option<&StoredTensor> {
        self.entries.get(name).map(|entry| &entry.tensor)
    }

    /// Where a tensor came from.
    pub fn origin(&self, name: &str) -> Option<&Origin> {
        self.entries.get(name).map(|entry| &entry.origin)
    }

    /// The tensors' present names, in the order of the files.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// The tensors with their present names, in the order of the files.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &StoredTensor)> {
        self.entries
            .iter()
            .map(|(name, entry)| (name.as_str(), &entry.tensor))
    }

    /// Replaces a tensor's values (in C order), keeping its shape and element type. Refuses an unknown name, another
    /// number of values, NaN, infinity and values beyond the element type; the tensor is then as before.
    ///
    /// # Errors
    /// [`FolderError::Tensor`], with the name and what is wrong.
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
                entry.tensor = tensor.into();
                entry.is_set = true;
                entry.change = None;
                Ok(())
            }
            Err(source) => Err(fail(&entry.origin.file, source)),
        }
    }

    /// Replaces a tensor's values (in C order) by those that `values` will make when the folder is written, one tensor
    /// after another; what [`set_f32`](Self::set_f32) refuses is refused then. Refuses an unknown name.
    ///
    /// # Errors
    /// [`FolderError::Tensor`]: an unknown name, or a tensor of integers.
    pub fn set_later(
        &mut self,
        name: &str,
        values: impl Fn() -> Result<Vec<f32>, FolderError> + Send + Sync + 'static,
    ) -> Result<(), FolderError> {
        let Some(entry) = self.entries.get_mut(name) else {
            return Err(FolderError::Tensor {
                path: self.root.clone(),
                name: name.to_string(),
                source: TensorError::Unknown,
            });
        };
        entry.change = Some(Change(Arc::new(values)));
        Ok(())
    }

    /// Has all weights written in this element type, whatever the files hold; integers stay integers.
    pub fn write_as(&mut self, dtype: Dtype) {
        self.written_as = Some(dtype);
    }

    /// The element type in which a tensor of type `own` is written.
    pub fn written_dtype(&self, own: Dtype) -> Dtype {
        match (self.written_as, own) {
            (Some(dtype), own) if own != Dtype::I64 => dtype,
            (_, own) => own,
        }
    }

    /// Whether some tensor is written in another type than its file has.
    pub(super) fn converts(&self) -> bool {
        let mut entries = self.entries.values();
        entries.any(|entry| self.written_dtype(entry.tensor.dtype()) != entry.tensor.dtype())
    }

    /// Bytes of all values as they are written.
    pub fn written_bytes(&self) -> u64 {
        let tensors = self.entries.values().map(|entry| &entry.tensor);
        let bytes =
            tensors.map(|tensor| tensor.count() * self.written_dtype(tensor.dtype()).size());
        bytes.map(|bytes| bytes as u64).sum()
    }

    /// The model folder that the tensors were read from, as it was given.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether any tensor was set since it was read.
    pub(super) fn changed(&self) -> bool {
        self.entries.values().any(Entry::is_changed) || self.converts()
    }

    /// Whether any tensor of `file` was set since it was read.
    pub(super) fn changed_in(&self, file: &Path) -> bool {
        self.entries
            .values()
            .filter(|entry| entry.origin.file == file)
            .any(|entry| {
                let own = entry.tensor.dtype();
                entry.is_changed() || self.written_dtype(own) != own
            })
    }

    /// Whether any tensor is of `file`.
    pub(super) fn has_file(&self, file: &Path) -> bool {
        self.entries.values().any(|entry| entry.origin.file == file)
    }

    /// What to write for the tensors of `file`, by their names there.
    pub(super) fn of_file<'a>(
        &'a self,
        file: &Path,
    ) -> impl Fn(&str) -> Result<Option<Cow<'a, RawTensor>>, FolderError> + use<'a> {
        let entries = self.entries.values();
        let entries: HashMap<&'a str, &'a Entry> = entries
            .filter(|entry| entry.origin.file == file)
            .map(|entry| (entry.origin.name.as_str(), entry))
            .collect();
        move |name| {
            let entry = entries.get(name);
            let written = |entry: &&'a Entry| {
                entry.written(&self.root, self.written_dtype(entry.tensor.dtype()))
            };
            entry.map(written).transpose()
        }
    }
}

impl Entry {
    fn is_changed(&self) -> bool {
        self.is_set || self.change.is_some()
    }

    fn written(&self, root: &Path, dtype: Dtype) -> Result<Cow<'_, RawTensor>, FolderError> {
        let values = match &self.change {
            Some(Change(values)) => values()?,
            None if dtype == self.tensor.dtype() => return self.tensor.read(),
            None => self.tensor.read()?.to_f32(),
        };
        match RawTensor::from_f32(&values, self.tensor.shape().to_vec(), dtype) {
            Ok(tensor) => Ok(Cow::Owned(tensor)),
            Err(source) => Err(FolderError::Tensor {
                path: root.join(&self.origin.file),
                name: self.origin.name.clone(),
                source,
            }),
        }
    }
}
