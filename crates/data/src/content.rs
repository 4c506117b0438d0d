//! What a data set makes of what its source stores, and the digests of that.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use retrack_checkpoint::hex::hex;
use sha2::{Digest, Sha256};

use super::error::Size;
use super::sources::images;
use super::{Alpha, DataError, Dataset, Form, ImageShape, Resize, image};

/// Images that are not read as they are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lossy {
    /// With transparent pixels, read without an alpha channel: those that [`Dataset::alpha`] decides about.
    pub transparent: usize,
    /// Of 16-bit gray, scaled to 8 bits.
    pub scaled: usize,
    /// Of 16-bit color, or gray with alpha, whose high byte is taken.
    pub cut: usize,
    /// Of another size than the data set's, to which they are [resized](crate::OpenOptions::resize).
    pub resized: usize,
}

/// Counts from all threads.
#[derive(Default)]
pub(crate) struct Counts {
    transparent: AtomicUsize,
    scaled: AtomicUsize,
    cut: AtomicUsize,
    resized: AtomicUsize,
}

impl Counts {
    pub(crate) fn add(&self, lossy: Lossy) {
        self.transparent
            .fetch_add(lossy.transparent, Ordering::Relaxed);
        self.scaled.fetch_add(lossy.scaled, Ordering::Relaxed);
        self.cut.fetch_add(lossy.cut, Ordering::Relaxed);
        self.resized.fetch_add(lossy.resized, Ordering::Relaxed);
    }

    pub(crate) fn total(&self) -> Lossy {
        Lossy {
            transparent: self.transparent.load(Ordering::Relaxed),
            scaled: self.scaled.load(Ordering::Relaxed),
            cut: self.cut.load(Ordering::Relaxed),
            resized: self.resized.load(Ordering::Relaxed),
        }
    }
}

impl Dataset {
    /// Turns what the source stores of `row` into pixels. What was lost on the way is 0 or 1 image of each kind.
    pub(crate) fn decode(
        &self,
        row: usize,
        stored: &[u8],
        out: &mut [u8],
    ) -> Result<Lossy, DataError> {
        match self.source.form() {
            Form::Pixels(native) if stored.len() != native.bytes() => Err(DataError::Length {
                shape: native,
                expected: native.bytes(),
                found: stored.len(),
            }),
            Form::Pixels(native) => Ok(self.fit(stored, native, out)),
            Form::Encoded => {
                let name = self.source.full_name(row);
                self.decode_file(&name, stored, out)?
                    .map_err(|size| self.mixed(self.source.full_name(0), name, size))
            }
        }
    }

    /// Decodes an image file; a size that is not, and does not become, the data set's is `Ok(Err(size))`.
    fn decode_file(
        &self,
        name: &str,
        bytes: &[u8],
        out: &mut [u8],
    ) -> Result<Result<Lossy, Size>, DataError> {
        let own = self.shape.size();
        let expected = self.resize.is_none().then_some(own);
        let decoded = match image::decode(name, bytes, expected)? {
            Ok(decoded) => decoded,
            Err(size) => return Ok(Err(size)),
        };
        let becomes = self.becomes(decoded.size);
        if becomes != own {
            return Ok(Err(becomes));
        }
        let shape = ImageShape {
            height: decoded.size.height,
            width: decoded.size.width,
            channels: decoded.channels,
        };
        Ok(Ok(Lossy {
            scaled: usize::from(decoded.scaled),
            cut: usize::from(decoded.cut),
            ..self.fit(&decoded.pixels, shape, out)
        }))
    }

    /// The size that an image has once it is read.
    fn becomes(&self, size: Size) -> Size {
        self.resize.map_or(size, |resize| resize.size(size))
    }

    fn mixed(&self, first: String, other: String, other_size: Size) -> DataError {
        DataError::MixedSizes {
            first,
            first_size: self.shape.size(),
            other,
            other_size,
            resized: self.resize.is_some(),
        }
    }

    /// Gives pixels the channels of this data set, and its size. What is laid over a color is so before it is resized, as where
    /// training scripts convert an image first.
    fn fit(&self, pixels: &[u8], shape: ImageShape, out: &mut [u8]) -> Lossy {
        let (from, to) = (shape.channels, self.shape.channels);
        let resize = self.resize.filter(|_| shape.size() != self.shape.size());
        match resize {
            None => image::convert_channels(pixels, from, to, self.alpha, out),
            Some(resize) => {
                let converted = ImageShape {
                    channels: to,
                    ..shape
                };
                let mut whole = Cow::Borrowed(pixels);
                if from != to {
                    let mut other = vec![0; converted.bytes()];
                    image::convert_channels(pixels, from, to, self.alpha, &mut other);
                    whole = Cow::Owned(other);
                }
                out.copy_from_slice(&resize.apply(&whole, converted));
            }
        }
        let lost = self.loses_alpha() && image::is_transparent(pixels, from);
        Lossy {
            transparent: usize::from(lost),
            resized: usize::from(resize.is_some()),
            ..Lossy::default()
        }
    }

    fn loses_alpha(&self) -> bool {
        !self.shape.channels.is_multiple_of(2)
    }

    /// What becomes of transparency, as the data set was opened.
    pub fn alpha(&self) -> Alpha {
        self.alpha
    }

    /// How images were resized, as the data set was opened.
    pub fn resize(&self) -> Option<Resize> {
        self.resize
    }

    /// How many images are not read as they are stored. Reads all that the source stores unless the images are in
    /// memory.
    ///
    /// # Errors
    /// As [`digest`](Self::digest).
    pub fn lossy(&self) -> Result<Lossy, DataError> {
        if let Some(lossy) = self.lossy.get() {
            return Ok(*lossy);
        }
        // Plain pixels are in memory as they are stored.
        let plain = match self.source.form() {
            Form::Pixels(shape) => {
                !shape.channels.is_multiple_of(2) && shape.size() == self.shape.size()
            }
            Form::Encoded => false,
        };
        if !plain {
            self.digest()?;
        }
        Ok(*self.lossy.get_or_init(Lossy::default))
    }

    /// SHA-256 of the pixels of `rows`; equal images have one.
    ///
    /// # Errors
    /// [`DataError`] of a row that does not exist or an image that cannot be read.
    pub fn digests(&self, rows: &[usize]) -> Result<BTreeSet<[u8; 32]>, DataError> {
        let mut image = vec![0; self.shape.bytes()];
        let digest = |&row: &usize| -> Result<[u8; 32], DataError> {
            self.read(row, &mut image)?;
            Ok(Sha256::digest(&image).into())
        };
        rows.iter().map(digest).collect()
    }

    /// SHA-256 over the content, in hexadecimal, the same on any machine: shape, number of rows and, row by row, the
    /// SHA-256 of what the source stores and the label. What is stored is the encoded file of a folder or a Parquet
    /// column and the pixels of IDX and CIFAR-10 (so packing with gzip or renaming changes nothing). Encoded files
    /// are hashed, not their pixels, because decoding costs 20 times as much. Where transparent images are read as
    /// opaque ones, it also depends on how ([`alpha`](Self::alpha)); where 16 bits of color become 8 or images are resized, on
    /// that as well.
    ///
    /// # Errors
    /// [`DataError`] of the first file that cannot be read or has no end.
    pub fn digest(&self) -> Result<String, DataError> {
        if let Some(digest) = self.digest.get() {
            return Ok(digest.clone());
        }
        let all: Vec<usize> = (0..self.len()).collect();
        let mut rows = vec![[0; 32]; all.len()];
        let counts = Counts::default();
        let count = self.lossy.get().is_none();
        self.each_stored(&all, &mut rows, 1, |row, stored, out: &mut [[u8; 32]]| {
            let may_be = match self.source.form() {
                Form::Pixels(shape) => shape.channels.is_multiple_of(2),
                Form::Encoded => {
                    image::check_complete(&self.source.full_name(row), stored)?;
                    count && image::may_be_lossy(stored)
                }
            };
            if count && may_be {
                counts.add(self.decode(row, stored, &mut vec![0; self.shape.bytes()])?);
            } else if count && self.resize.is_some() {
                counts.add(Lossy {
                    resized: usize::from(self.stored_size(row, stored)? != self.shape.size()),
                    ..Lossy::default()
                });
            }
            out[0] = Sha256::digest(stored).into();
            Ok(())
        })?;
        let lossy = self.lossy.get_or_init(|| counts.total());
        let mut hash = self.hash_of_shape(b"retrack data 1", self.len());
        if lossy.transparent > 0 {
            hash.update(format!("alpha {}", self.alpha));
        }
        // These were rounded once: what is kept under a digest of that time holds other pixels.
        if lossy.cut > 0 {
            hash.update("high bytes");
        }
        // Which part is kept of them follows from the shape.
        if let Some(resize) = self.resize.filter(|_| lossy.resized > 0) {
            hash.update(format!("resized, {}", resize.interpolation));
        }
        for (row, stored) in rows.iter().enumerate() {
            self.hash_row(&mut hash, row, stored);
        }
        let _ = self.stored.set(rows);
        Ok(self.digest.get_or_init(|| hex(&hash.finalize())).clone())
    }

    /// SHA-256 over the content of these rows alone, in hexadecimal: shape, their number, and what the source stores of each
    /// with its label, whatever their numbers. It is no [`digest`](Self::digest), not of all rows either.
    ///
    /// # Errors
    /// As [`digest`](Self::digest); a row that does not exist.
    pub fn digest_of(&self, rows: &[usize]) -> Result<String, DataError> {
        self.digest()?;
        let stored = self.stored.get().map_or(&[][..], Vec::as_slice);
        let mut hash = self.hash_of_shape(b"retrack rows 1", rows.len());
        // Whether a transparent image is among them or left is no matter here.
        if self.loses_alpha() {
            hash.update(format!("alpha {}", self.alpha));
        }
        if let Some(resize) = self.resize {
            hash.update(format!("resized, {}", resize.interpolation));
        }
        for &row in rows {
            self.check_row(row)?;
            self.hash_row(&mut hash, row, &stored[row]);
        }
        Ok(hex(&hash.finalize()))
    }

    /// The size of what the source stores of `row`.
    fn stored_size(&self, row: usize, stored: &[u8]) -> Result<Size, DataError> {
        match self.source.form() {
            Form::Pixels(shape) => Ok(shape.size()),
            Form::Encoded => Ok(image::header(&self.source.full_name(row), stored)?.0),
        }
    }

    /// SHA-256 over labels and what they are called, in hexadecimal, where the [digest](Self::digest) does not depend on them: those
    /// of folders, by their names. `None` of other labels and where there are none.
    pub fn labels_digest(&self) -> Option<String> {
        if !self.source.labels_are_names() {
            return None;
        }
        let mut hash = Sha256::new();
        for name in self.source.label_names() {
            hash.update((name.len() as u64).to_le_bytes());
            hash.update(name);
        }
        for row in 0..self.len() {
            hash.update(self.label(row).unwrap_or(-1).to_le_bytes());
        }
        Some(hex(&hash.finalize()))
    }

    fn hash_of_shape(&self, start: &[u8], rows: usize) -> Sha256 {
        let mut hash = Sha256::new();
        hash.update(start);
        let ImageShape {
            height,
            width,
            channels,
        } = self.shape;
        for number in [height, width, channels, rows] {
            hash.update((number as u64).to_le_bytes());
        }
        hash
    }

    fn hash_row(&self, hash: &mut Sha256, row: usize, stored: &[u8; 32]) {
        hash.update(stored);
        match self.label(row).filter(|_| !self.source.labels_are_names()) {
            Some(label) => {
                hash.update([1]);
                hash.update(label.to_le_bytes());
            }
            None => hash.update([0]),
        }
    }

    /// Decodes an image file as this data set's images are decoded.
    ///
    /// # Errors
    /// [`DataError`]: the file cannot be read, or its size is not the data set's.
    pub fn read_file(&self, path: &Path) -> Result<Vec<u8>, DataError> {
        let bytes = images::read_whole(path)?;
        let name = path.display().to_string();
        let mut pixels = vec![0; self.shape.bytes()];
        match self.decode_file(&name, &bytes, &mut pixels)? {
            Ok(_) => Ok(pixels),
            Err(size) => {
                let all = format!("every image of {}", self.path.display());
                Err(self.mixed(all, name, size))
            }
        }
    }
}
