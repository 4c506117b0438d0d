//! A tensor of a model folder that may still lie in its file.

use std::borrow::Cow;
use std::io::{Read, Seek, SeekFrom};
use std::sync::{Arc, Mutex};

use super::error::FolderError;
use super::source::OpenFile;
use super::tensor::{Dtype, RawTensor};

/// A tensor with known type and shape whose values are read when they are asked for, so that a whole file
/// need never be in memory.
#[derive(Debug, Clone)]
pub struct StoredTensor(Place);

#[derive(Debug, Clone)]
enum Place {
    Memory(RawTensor),
    File {
        /// Shared by the tensors of a file; a lock, because a file has one position.
        open: Arc<Mutex<OpenFile>>,
        start: u64,
        /// For messages.
        name: String,
        dtype: Dtype,
        shape: Vec<usize>,
        len: usize,
    },
}

impl From<RawTensor> for StoredTensor {
    fn from(tensor: RawTensor) -> Self {
        Self(Place::Memory(tensor))
    }
}

impl StoredTensor {
    /// `len` bytes from `start` on, as the file's checked header says.
    pub(super) fn in_file(
        open: Arc<Mutex<OpenFile>>,
        start: u64,
        len: usize,
        name: String,
        dtype: Dtype,
        shape: Vec<usize>,
    ) -> Self {
        Self(Place::File {
            open,
            start,
            name,
            dtype,
            shape,
            len,
        })
    }

    /// The type of its elements.
    pub fn dtype(&self) -> Dtype {
        match &self.0 {
            Place::Memory(tensor) => tensor.dtype(),
            Place::File { dtype, .. } => *dtype,
        }
    }

    /// In the order of its dimensions.
    pub fn shape(&self) -> &[usize] {
        match &self.0 {
            Place::Memory(tensor) => tensor.shape(),
            Place::File { shape, .. } => shape,
        }
    }

    /// Number of elements.
    pub fn count(&self) -> usize {
        self.shape().iter().product()
    }

    /// Type, shape and values.
    ///
    /// # Errors
    /// The file can no longer be read where the tensor was.
    pub fn read(&self) -> Result<Cow<'_, RawTensor>, FolderError> {
        let (open, start, name, dtype, shape, len) = match &self.0 {
            Place::Memory(tensor) => return Ok(Cow::Borrowed(tensor)),
            Place::File {
                open,
                start,
                name,
                dtype,
                shape,
                len,
            } => (open, start, name, dtype, shape, len),
        };
        let mut bytes = vec![0; *len];
        // A reader that panicked leaves the position anywhere, which is where it is set from.
        let mut open = open.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        open.file
            .seek(SeekFrom::Start(*start))
            .and_then(|_| open.file.read_exact(&mut bytes))
            .map_err(FolderError::io(&open.path, "read"))?;
        match RawTensor::new(*dtype, shape.clone(), bytes) {
            Ok(tensor) => Ok(Cow::Owned(tensor)),
            Err(source) => Err(FolderError::Tensor {
                path: open.path.clone(),
                name: name.clone(),
                source,
            }),
        }
    }
}
