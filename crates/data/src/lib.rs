#![doc = include_str!("../README.md")]
#![warn(unreachable_pub)]
#![cfg_attr(
    not(test),
    warn(clippy::disallowed_methods, clippy::print_stderr, clippy::print_stdout)
)]

mod alpha;
mod captions;
mod complete;
mod content;
pub mod digest;
mod error;
mod foreign;
mod image;
mod labels;
mod listing;
pub mod look_alikes;
pub mod near_copies;
pub mod neighbors;
mod open;
mod own_captions;
mod pillow;
pub mod pixels;
mod put_back;
mod quiet;
mod raw;
pub mod resample;
mod resize;
mod select;
mod source;
mod sources;
mod split;
mod subsets;
mod table;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rayon::prelude::*;

pub use self::alpha::Alpha;
pub use self::captions::{Captions, captions};
use self::content::Counts;
pub use self::content::Lossy;
pub use self::error::{DataError, Found, Size};
pub use self::labels::LabelError;
pub use self::near_copies::{NEAR_COPY_RMS, NearCopy};
pub use self::own_captions::own_captions;
pub use self::put_back::{KeptFiles, KeptRow};
pub use self::resize::{Crop, Resize};
pub use self::select::{Resolved, Selection, SelectionError, SelectionWarning};
pub use self::source::{Form, Source};
pub use self::sources::published::{MEMORIZED, is_published, modified_prompts, original_prompt};
pub use self::sources::{formats, formats_at_length};
pub use self::split::Split;

/// Memory for images while they are searched, in bytes.
pub const BUDGET: usize = 256 << 20;

/// Stored images that are taken from a source before all threads work on them.
const RUN: usize = 64;

/// Height, width and channels of every image of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ImageShape {
    /// Pixels from top to bottom.
    pub height: usize,
    /// Pixels from left to right.
    pub width: usize,
    /// 1 gray, 2 gray and alpha, 3 RGB, 4 RGBA.
    pub channels: usize,
}

impl ImageShape {
    /// Bytes of one image.
    pub fn bytes(&self) -> usize {
        self.height * self.width * self.channels
    }

    pub(crate) fn size(&self) -> Size {
        Size {
            width: self.width,
            height: self.height,
        }
    }
}

impl fmt::Display for ImageShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} x {} x {}", self.height, self.width, self.channels)
    }
}

/// How a data set is opened.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// Channels that the images are converted to, the model's. Without it: 3 if any image has color, else 1.
    pub channels: Option<usize>,
    /// Bytes that may be spent on keeping images in memory. A data set that needs more is decoded on demand.
    pub memory_budget: u64,
    /// Which split is read, where there are several: `train`, `test`, ...
    pub split: Option<String>,
    /// What becomes of transparency where `channels` leaves no room for it.
    pub alpha: Alpha,
    /// How images are resized; `None`: not at all, and all must have one size.
    pub resize: Option<Resize>,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            channels: None,
            memory_budget: 1 << 30,
            split: None,
            alpha: Alpha::default(),
            resize: None,
        }
    }
}

/// Images of one shape, with labels where the source has them. Reading is safe from many threads.
pub struct Dataset {
    path: PathBuf,
    source: Arc<dyn Source>,
    shape: ImageShape,
    /// All images, decoded, if they fit the budget and the source does not hold these very bytes already.
    pixels: Option<Vec<u8>>,
    alpha: Alpha,
    resize: Option<Resize>,
    /// What lies beside the data set and is none of it, where that may surprise.
    beside: Option<String>,
    /// Rows that left the data set and were put back, ascending, and the texts that they brought along.
    returned: Vec<usize>,
    texts: BTreeMap<usize, String>,
    lossy: OnceLock<Lossy>,
    digest: OnceLock<String>,
    /// SHA-256 of what the source stores of each row, once the digest was asked for.
    stored: OnceLock<Vec<[u8; 32]>>,
}

impl fmt::Debug for Dataset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dataset")
            .field("path", &self.path)
            .field("kind", &self.kind())
            .field("len", &self.len())
            .field("shape", &self.shape)
            .finish_non_exhaustive()
    }
}

impl Dataset {
    /// Opens the data set at `path`, whichever kind it is, and decodes it if all of it fits the budget.
    ///
    /// # Errors
    /// [`DataError`], which names the file. A data set larger than the budget is decoded later, all but its first
    /// image, and one that is damaged inside is then found by [`read`](Self::read) or [`digest`](Self::digest).
    pub fn open(path: &Path, options: &OpenOptions) -> Result<Self, DataError> {
        check(options)?;
        let source = open::detect(path, options)?;
        let beside = open::images_beside(path, source.as_ref());
        let opened = Self::from_source(path, source.into(), options)?;
        Ok(Self { beside, ..opened })
    }

    /// A data set from pixels in memory: `pixels` holds whole images of `shape`, one after another, and `labels` is
    /// empty or has one entry an image.
    ///
    /// # Errors
    /// [`DataError::Length`] when the lengths do not agree.
    pub fn from_pixels(
        shape: ImageShape,
        pixels: Vec<u8>,
        labels: Vec<i64>,
    ) -> Result<Self, DataError> {
        let (bytes, found) = (shape.bytes(), pixels.len());
        let rows = if labels.is_empty() {
            found.checked_div(bytes).unwrap_or(0)
        } else {
            labels.len()
        };
        if rows == 0 || rows * bytes != found {
            return Err(DataError::Length {
                shape,
                expected: rows * bytes,
                found,
            });
        }
        let source = Arc::new(raw::RawImages::in_memory(
            "pixels in memory",
            shape,
            pixels,
            labels,
        ));
        Self::from_source(
            Path::new("memory"),
            source,
            &OpenOptions {
                memory_budget: 0,
                ..OpenOptions::default()
            },
        )
    }

    /// A data set of a source that no file of this crate opens: images that are computed, or of another format. `path`
    /// stands for it in messages and records. [`OpenOptions::split`] means nothing to it.
    ///
    /// # Errors
    /// No rows, images without pixels or of a shape that they do not fill, images that cannot be read.
    pub fn from_source(
        path: &Path,
        source: Arc<dyn Source>,
        options: &OpenOptions,
    ) -> Result<Self, DataError> {
        check(options)?;
        if source.len() == 0 {
            return Err(DataError::format(path, "it holds no rows"));
        }
        let shape = source::shape(source.as_ref(), options.channels, options.resize)?;
        if shape.bytes() == 0 {
            return Err(DataError::format(path, format!("its images are {shape}")));
        }
        let mut dataset = Self {
            path: path.to_owned(),
            source,
            shape,
            pixels: None,
            alpha: options.alpha,
            resize: options.resize,
            beside: None,
            returned: Vec::new(),
            texts: BTreeMap::new(),
            lossy: OnceLock::new(),
            digest: OnceLock::new(),
            stored: OnceLock::new(),
        };
        let total = (dataset.len() as u64).saturating_mul(shape.bytes() as u64);
        if dataset.pixels().is_none() && total <= options.memory_budget {
            dataset.pixels = Some(dataset.decode_all()?);
        } else if dataset.pixels().is_none() {
            dataset.read(0, &mut vec![0; shape.bytes()])?;
        }
        Ok(dataset)
    }

    fn decode_all(&self) -> Result<Vec<u8>, DataError> {
        let mut pixels = vec![0; self.len() * self.shape.bytes()];
        let rows: Vec<usize> = (0..self.len()).collect();
        let counts = Counts::default();
        self.each_stored(
            &rows,
            &mut pixels,
            self.shape.bytes(),
            |row, stored, out| {
                counts.add(self.decode(row, stored, out)?);
                Ok(())
            },
        )?;
        let _ = self.lossy.set(counts.total());
        Ok(pixels)
    }

    /// Hands what the source stores of each of `rows` to `work`, from all threads, with the row's `width` entries of
    /// `out`. Of several damaged images the first is reported, whatever the number of threads.
    fn each_stored<T: Send>(
        &self,
        rows: &[usize],
        out: &mut [T],
        width: usize,
        work: impl Fn(usize, &[u8], &mut [T]) -> Result<(), DataError> + Sync,
    ) -> Result<(), DataError> {
        let first = |failed: Option<Option<DataError>>| failed.flatten().map_or(Ok(()), Err);
        if !self.source.in_windows() {
            let all = out.par_chunks_mut(width).zip(rows);
            return first(
                all.map(|(out, &row)| {
                    self.source
                        .stored(row)
                        .and_then(|stored| work(row, &stored, out))
                        .err()
                })
                .find_first(Option::is_some),
            );
        }
        for (rows, out) in rows.chunks(RUN).zip(out.chunks_mut(RUN * width)) {
            let mut taken = Vec::with_capacity(rows.len());
            let mut error = None;
            for &row in rows {
                match self.source.stored(row) {
                    Ok(stored) => taken.push((row, stored)),
                    Err(failed) => {
                        error = Some(failed);
                        break;
                    }
                }
            }
            let all = out.par_chunks_mut(width).zip(&taken);
            first(
                all.map(|(out, (row, stored))| work(*row, stored, out).err())
                    .find_first(Option::is_some),
            )?;
            error.map_or(Ok(()), Err)?;
        }
        Ok(())
    }

    /// Where the data set was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The kind of source, for people: "folder of images", "Parquet", "IDX pair", "CIFAR-10 batches".
    pub fn kind(&self) -> &'static str {
        self.source.kind()
    }

    /// Number of images; at least 1.
    #[expect(clippy::len_without_is_empty, reason = "a data set is never empty")]
    pub fn len(&self) -> usize {
        self.source.len()
    }

    /// Shape of every image.
    pub fn shape(&self) -> ImageShape {
        self.shape
    }

    /// What to call a row in a message: its path below the folder, else "row 5".
    pub fn name(&self, row: usize) -> String {
        self.source.name(row)
    }

    /// The row's label, if the source has labels.
    pub fn label(&self, row: usize) -> Option<i64> {
        self.source.label(row)
    }

    /// What the source calls a label, where labels have names.
    pub fn label_name(&self, label: i64) -> Option<&str> {
        let names = self.source.label_names();
        let place = usize::try_from(label).ok()?;
        names.get(place).map(String::as_str)
    }

    /// Where the labels are from, or why a column of labels is not read, where that may surprise.
    pub fn label_note(&self) -> Option<&str> {
        self.source.label_note()
    }

    /// Which images in the data set's folder are none of it, where there are any.
    pub fn beside(&self) -> Option<&str> {
        self.beside.as_deref()
    }

    /// All images in row order, if they are kept in memory.
    pub fn pixels(&self) -> Option<&[u8]> {
        self.pixels.as_deref().or_else(|| {
            let native = matches!(self.source.form(), Form::Pixels(shape) if shape == self.shape);
            if native { self.source.memory() } else { None }
        })
    }

    /// Writes the image of `row` to `out`, bytes in height, width, channel order.
    ///
    /// # Errors
    /// [`DataError`]: no such row, an `out` of another length than the shape's, or an image that cannot be read.
    pub fn read(&self, row: usize, out: &mut [u8]) -> Result<(), DataError> {
        let (shape, bytes) = (self.shape, self.shape.bytes());
        self.check_row(row)?;
        if out.len() != bytes {
            return Err(DataError::Length {
                shape,
                expected: bytes,
                found: out.len(),
            });
        }
        if let Some(pixels) = self.pixels() {
            out.copy_from_slice(&pixels[row * bytes..][..bytes]);
            return Ok(());
        }
        self.decode(row, &self.source.stored(row)?, out).map(drop)
    }

    fn check_row(&self, row: usize) -> Result<(), DataError> {
        if row >= self.len() {
            return Err(DataError::Row {
                row,
                len: self.len(),
            });
        }
        Ok(())
    }

    /// Hands `rows` to `work` in blocks of consecutive entries. A block that has to be decoded takes at most `budget`
    /// bytes (or one image) and is decoded by all threads; images that are in memory are not copied.
    ///
    /// # Errors
    /// A row that does not exist, an image that cannot be read, and those of `work`.
    pub fn blocks<E: From<DataError>>(
        &self,
        rows: &[usize],
        budget: usize,
        mut work: impl FnMut(Block<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        for &row in rows {
            self.check_row(row)?;
        }
        let length = self.shape.bytes();
        if let Some(pixels) = self.pixels() {
            return work(Block {
                rows,
                pixels,
                length,
                gathered: false,
            });
        }
        let per_block = (budget / length).clamp(1, rows.len().max(1));
        let mut buffer = vec![0; per_block * length];
        for rows in rows.chunks(per_block) {
            let pixels = &mut buffer[..rows.len() * length];
            self.each_stored(rows, pixels, length, |row, stored, out| {
                self.decode(row, stored, out).map(drop)
            })?;
            work(Block {
                rows,
                pixels,
                length,
                gathered: true,
            })?;
        }
        Ok(())
    }
}

fn check(options: &OpenOptions) -> Result<(), DataError> {
    match options.channels {
        Some(channels) if !(1..=4).contains(&channels) => Err(DataError::Channels { channels }),
        _ => options.resize.map_or(Ok(()), Resize::check),
    }
}

/// Some images in memory, with their rows.
pub struct Block<'a> {
    /// Their rows, in the order of [`image`](Self::image).
    pub rows: &'a [usize],
    pixels: &'a [u8],
    length: usize,
    /// Image `i` lies at place `i`; otherwise at place `rows[i]`.
    gathered: bool,
}

impl<'a> Block<'a> {
    /// The bytes of image `index`, in height, width, channel order.
    pub fn image(&self, index: usize) -> &'a [u8] {
        let place = if self.gathered {
            index
        } else {
            self.rows[index]
        };
        &self.pixels[place * self.length..][..self.length]
    }
}
