//! What every kind of source can do, and how its images' shape is found.

use std::borrow::Cow;
use std::fmt;
use std::path::Path;

use rayon::prelude::*;

use super::error::{DataError, Size};
use super::{ImageShape, Resize, image};

/// How a source stores its images.
#[derive(Clone, Copy, Debug)]
pub enum Form {
    /// Encoded image files (PNG, JPEG, ...), all of one size in pixels.
    Encoded,
    /// Bytes in height, width, channel order, as many as the shape says: 0 is black, 255 white.
    Pixels(ImageShape),
}

/// A list of stored images, asked from many threads at once. `row` is always below [`len`](Self::len).
///
/// What is stored is what a data set's digest is made of: the same images must be the same bytes in the same order
/// whenever they are read.
///
/// ```
/// use std::borrow::Cow;
/// use std::path::Path;
/// use std::sync::Arc;
/// use retrack_data::{DataError, Dataset, Form, ImageShape, OpenOptions, Source};
///
/// /// Each row is all of one gray.
/// struct Grays(usize);
///
/// impl Source for Grays {
///     fn kind(&self) -> &'static str {
///         "grays"
///     }
///     fn form(&self) -> Form {
///         Form::Pixels(ImageShape { height: 8, width: 8, channels: 1 })
///     }
///     fn len(&self) -> usize {
///         self.0
///     }
///     fn stored(&self, row: usize) -> Result<Cow<'_, [u8]>, DataError> {
///         Ok(Cow::Owned(vec![row as u8; 64]))
///     }
/// }
///
/// let options = OpenOptions::default();
/// let data = Dataset::from_source(Path::new("grays"), Arc::new(Grays(5)), &options)?;
/// let mut image = vec![0; 64];
/// data.read(3, &mut image)?;
/// assert_eq!((data.len(), data.name(3), image[0]), (5, "row 3".to_owned(), 3));
/// # Ok::<(), DataError>(())
/// ```
#[expect(clippy::len_without_is_empty, reason = "a source is never empty")]
pub trait Source: Send + Sync {
    /// What it is, for people, in the singular: "folder of images", "Parquet".
    fn kind(&self) -> &'static str;

    /// How its images are stored, all alike.
    fn form(&self) -> Form;

    /// Number of images; at least 1.
    fn len(&self) -> usize;

    /// What a row is called, for people: a path below the source's folder, or "row 5".
    fn name(&self, row: usize) -> String {
        format!("row {row}")
    }

    /// For errors: the whole path, with the row where a file holds many.
    fn full_name(&self, row: usize) -> String {
        format!("{}, {}", self.kind(), self.name(row))
    }

    /// The class of an image, or whatever else it is sorted by.
    fn label(&self, row: usize) -> Option<i64> {
        let _ = row;
        None
    }

    /// One stored image: a whole encoded file, or pixels, as [`form`](Self::form) says.
    ///
    /// # Errors
    /// What cannot be read, with its file.
    fn stored(&self, row: usize) -> Result<Cow<'_, [u8]>, DataError>;

    /// Size and whether there is color, without decoding pixels. Called for encoded images only.
    ///
    /// # Errors
    /// What cannot be read, or is no image.
    fn header(&self, row: usize) -> Result<(Size, bool), DataError> {
        image::header(&self.full_name(row), &self.stored(row)?)
    }

    /// Whether headers are cheap to read without the images: all of them are checked before anything else then.
    fn has_cheap_headers(&self) -> bool {
        false
    }

    /// What label 0, 1, ... is called; empty where labels are just numbers.
    fn label_names(&self) -> &[String] {
        &[]
    }

    /// Whether labels follow from what rows are called, which a digest does not depend on: then it does not depend on them either,
    /// and [`Dataset::labels_digest`](crate::Dataset::labels_digest) does.
    fn labels_are_names(&self) -> bool {
        false
    }

    /// Where the labels are from or why there are none, where that may surprise.
    fn label_note(&self) -> Option<&str> {
        None
    }

    /// The texts of each row in a column, where the source has columns and one of that name.
    ///
    /// # Errors
    /// The column holds something else, or cannot be read.
    fn texts(&self, column: &str) -> Result<Option<Vec<Vec<String>>>, DataError> {
        let _ = column;
        Ok(None)
    }

    /// Names of the columns, where the source has any.
    fn columns(&self) -> Vec<String> {
        Vec::new()
    }

    /// Whether stored images are read in windows of neighbors: they are taken in order, from one thread, then.
    fn in_windows(&self) -> bool {
        false
    }

    /// All pixels in row order, if the source holds them so.
    fn memory(&self) -> Option<&[u8]> {
        None
    }

    /// The row of a file of this source, `path` being absolute and free of links.
    fn row_of(&self, path: &Path) -> Option<usize> {
        let _ = path;
        None
    }

    /// Rows called `name`: by the path below the folder, else by the file name alone.
    fn rows_named(&self, name: &str) -> Vec<usize> {
        let _ = name;
        Vec::new()
    }
}

impl fmt::Debug for dyn Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.kind(), self.len())
    }
}

/// The shape that all images must have, or come to have. With cheap headers every image is compared with the first one.
pub(crate) fn shape(
    source: &dyn Source,
    channels: Option<usize>,
    resize: Option<Resize>,
) -> Result<ImageShape, DataError> {
    if let Form::Pixels(native) = source.form() {
        let size = match resize {
            Some(resize) if native.bytes() > 0 => resized(source, 0, native.size(), resize)?,
            _ => native.size(),
        };
        return Ok(ImageShape {
            height: size.height,
            width: size.width,
            channels: channels.unwrap_or(native.channels),
        });
    }
    let (size, mut color) = source.header(0)?;
    let first = becomes(source, 0, size, resize)?;
    if source.has_cheap_headers() {
        let rest = (1..source.len()).into_par_iter();
        let problem = rest
            .clone()
            .map(|row| compare(source, first, row, resize).err())
            .find_first(Option::is_some);
        if let Some(Some(error)) = problem {
            return Err(error);
        }
    }
    if channels.is_none() && !color {
        let rest = (1..source.len()).into_par_iter();
        // A damaged image is reported when it is decoded.
        color = rest
            .map(|row| source.header(row).is_ok_and(|(_, color)| color))
            .any(|color| color);
    }
    let channels = channels.unwrap_or(if color { 3 } else { 1 });
    Ok(ImageShape {
        height: first.height,
        width: first.width,
        channels,
    })
}

/// The size that an image comes to have.
fn becomes(
    source: &dyn Source,
    row: usize,
    size: Size,
    resize: Option<Resize>,
) -> Result<Size, DataError> {
    if size.width == 0 || size.height == 0 {
        return Err(DataError::image(
            source.full_name(row),
            format!("its size is {size} pixels"),
        ));
    }
    // A header of a few bytes may promise anything; no decoder is asked before this.
    let most = image::most_decoded(resize.is_some()) / 3;
    if size.width.saturating_mul(size.height) as u64 > most {
        let problem = format!("{size} pixels are more than the {most} that one image may have");
        return Err(DataError::image(source.full_name(row), problem));
    }
    resize.map_or(Ok(size), |resize| resized(source, row, size, resize))
}

/// The same of one that is resized. A thin image may become as long as anything.
fn resized(source: &dyn Source, row: usize, from: Size, resize: Resize) -> Result<Size, DataError> {
    let size = resize.size(from);
    let most = image::most_decoded(false) / 3;
    if size.width.saturating_mul(size.height) as u64 > most {
        let problem = format!(
            "resized it would be {size} pixels, more than the {most} that one image may have"
        );
        return Err(DataError::image(source.full_name(row), problem));
    }
    Ok(size)
}

fn compare(
    source: &dyn Source,
    first_size: Size,
    row: usize,
    resize: Option<Resize>,
) -> Result<(), DataError> {
    let (size, _) = source.header(row)?;
    let other_size = match resize {
        // That of the first was looked at.
        None => size,
        Some(_) => becomes(source, row, size, resize)?,
    };
    if other_size == first_size {
        return Ok(());
    }
    Err(DataError::MixedSizes {
        first: source.full_name(0),
        first_size,
        other: source.full_name(row),
        other_size,
        resized: resize.is_some(),
    })
}
