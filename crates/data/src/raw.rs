//! Images stored as plain pixels: in memory, or at fixed places of files.

use std::borrow::Cow;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::ImageShape;
use super::error::DataError;
use super::source::{Form, Source};

/// Records of equal length in one file, each with one image in it.
#[derive(Debug)]
pub(crate) struct RecordFile {
    pub path: PathBuf,
    pub file: Mutex<File>,
    pub rows: usize,
    /// Where the first image starts, and the bytes from one image to the next.
    pub offset: u64,
    pub stride: u64,
}

impl RecordFile {
    /// Reads image `row` of this file.
    fn read(&self, row: usize, out: &mut [u8]) -> Result<(), DataError> {
        // A poisoned lock only means that another thread panicked between seek and read: both are done anew.
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(self.offset + row as u64 * self.stride))
            .and_then(|_| file.read_exact(out))
            .map_err(|error| DataError::io(&self.path, error))
    }
}

/// Where the pixels are.
#[derive(Debug)]
pub(crate) enum Store {
    Memory(Vec<u8>),
    Files(Vec<RecordFile>),
}

/// A source of plain pixels.
#[derive(Debug)]
pub(crate) struct RawImages {
    kind: &'static str,
    name: PathBuf,
    shape: ImageShape,
    len: usize,
    store: Store,
    /// Stored as whole channel planes (CIFAR-10) rather than channel by channel in each pixel.
    planar: bool,
    labels: Vec<i64>,
}

impl RawImages {
    pub(crate) fn in_memory(
        kind: &'static str,
        shape: ImageShape,
        pixels: Vec<u8>,
        labels: Vec<i64>,
    ) -> Self {
        let len = pixels.len() / shape.bytes();
        Self {
            kind,
            name: PathBuf::from("memory"),
            shape,
            len,
            store: Store::Memory(pixels),
            planar: false,
            labels,
        }
    }

    /// Keeps the pixels in memory if they fit `budget`, else reads each image when it is asked for.
    pub(crate) fn open(
        kind: &'static str,
        name: &Path,
        shape: ImageShape,
        files: Vec<RecordFile>,
        planar: bool,
        labels: Vec<i64>,
        budget: u64,
    ) -> Result<Self, DataError> {
        let len = files.iter().map(|file| file.rows).sum::<usize>();
        let mut images = Self {
            kind,
            name: name.to_owned(),
            shape,
            len,
            store: Store::Files(files),
            planar,
            labels,
        };
        if (len as u64).saturating_mul(shape.bytes() as u64) <= budget {
            let mut pixels = vec![0; len * shape.bytes()];
            for (row, out) in pixels.chunks_exact_mut(shape.bytes()).enumerate() {
                images.read(row, out)?;
            }
            images.store = Store::Memory(pixels);
            images.planar = false;
        }
        Ok(images)
    }

    fn read(&self, mut row: usize, out: &mut [u8]) -> Result<(), DataError> {
        let Store::Files(files) = &self.store else {
            return Ok(());
        };
        for file in files {
            if row >= file.rows {
                row -= file.rows;
                continue;
            }
            if !self.planar {
                return file.read(row, out);
            }
            let mut planes = vec![0; out.len()];
            file.read(row, &mut planes)?;
            let channels = self.shape.channels;
            for (channel, plane) in planes.chunks_exact(out.len() / channels).enumerate() {
                for (pixel, &value) in out.chunks_exact_mut(channels).zip(plane) {
                    pixel[channel] = value;
                }
            }
            return Ok(());
        }
        Err(DataError::Row { row, len: self.len })
    }
}

impl Source for RawImages {
    fn kind(&self) -> &'static str {
        self.kind
    }

    fn form(&self) -> Form {
        Form::Pixels(self.shape)
    }

    fn len(&self) -> usize {
        self.len
    }

    fn name(&self, row: usize) -> String {
        format!("row {row}")
    }

    fn full_name(&self, row: usize) -> String {
        format!("{}, row {row}", self.name.display())
    }

    fn label(&self, row: usize) -> Option<i64> {
        self.labels.get(row).copied()
    }

    fn stored(&self, row: usize) -> Result<Cow<'_, [u8]>, DataError> {
        let length = self.shape.bytes();
        if let Some(pixels) = self.memory() {
            return Ok(Cow::Borrowed(&pixels[row * length..][..length]));
        }
        let mut out = vec![0; length];
        self.read(row, &mut out)?;
        Ok(Cow::Owned(out))
    }

    fn memory(&self) -> Option<&[u8]> {
        match &self.store {
            Store::Memory(pixels) => Some(pixels),
            Store::Files(_) => None,
        }
    }
}
