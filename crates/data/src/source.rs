//! What every kind of source can do, and how its images' shape is found.

use std::borrow::Cow;
use std::path::Path;

use rayon::prelude::*;

use super::error::{DataError, Size};
use super::{ImageShape, image};

/// How a source stores its images.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Form {
    /// Encoded image files (PNG, JPEG, ...).
    Encoded,
    /// Bytes in height, width, channel order.
    Pixels(ImageShape),
}

/// A list of stored images. `row` is always below `len`, which is at least 1.
pub(crate) trait Source: Send + Sync {
    fn kind(&self) -> &'static str;
    fn form(&self) -> Form;
    fn len(&self) -> usize;
    /// For people: a path below the source's folder, or "row 5".
    fn name(&self, row: usize) -> String;
    /// For errors: the whole path, with the row where a file holds many.
    fn full_name(&self, row: usize) -> String;
    fn label(&self, _row: usize) -> Option<i64> {
        None
    }
    fn stored(&self, row: usize) -> Result<Cow<'_, [u8]>, DataError>;
    /// Size and whether there is color, without decoding pixels. Called for encoded images only.
    fn header(&self, row: usize) -> Result<(Size, bool), DataError> {
        image::header(&self.full_name(row), &self.stored(row)?)
    }
    /// Headers are cheap to read without the images: check all of them before anything else.
    fn has_cheap_headers(&self) -> bool {
        false
    }
    /// What label 0, 1, ... is called; empty where labels are just numbers.
    fn label_names(&self) -> &[String] {
        &[]
    }
    /// Where the labels are from or why there are none, where that may surprise.
    fn label_note(&self) -> Option<&str> {
        None
    }
    /// The texts of each row in a column, where the source has columns and one of that name.
    fn texts(&self, _column: &str) -> Result<Option<Vec<Vec<String>>>, DataError> {
        Ok(None)
    }
    /// Names of the columns, where the source has any.
    fn columns(&self) -> Vec<String> {
        Vec::new()
    }
    /// Stored images are read in windows of neighbors: take them in order, from one thread.
    fn in_windows(&self) -> bool {
        false
    }
    /// All pixels in row order, if the source holds them so.
    fn memory(&self) -> Option<&[u8]> {
        None
    }
    /// The row of a file of this source, `path` being absolute and free of links.
    fn row_of(&self, _path: &Path) -> Option<usize> {
        None
    }
    /// Rows called `name`: by the path below the folder, else by the file name alone.
    fn rows_named(&self, _name: &str) -> Vec<usize> {
        Vec::new()
    }
}

/// The shape that all images must have. With cheap headers every image is compared with the first one.
pub(crate) fn shape(source: &dyn Source, channels: Option<usize>) -> Result<ImageShape, DataError> {
    if let Form::Pixels(native) = source.form() {
        return Ok(ImageShape {
            channels: channels.unwrap_or(native.channels),
            ..native
        });
    }
    let (size, mut color) = source.header(0)?;
    if size.width == 0 || size.height == 0 {
        return Err(DataError::image(
            source.full_name(0),
            format!("its size is {size} pixels"),
        ));
    }
    // A header of a few bytes may promise anything; no decoder is asked before this.
    if size.width.saturating_mul(size.height) as u64 > image::MAX_DECODED / 3 {
        let problem = format!(
            "{size} pixels are more than the {} that one image may have",
            image::MAX_DECODED / 3
        );
        return Err(DataError::image(source.full_name(0), problem));
    }
    if source.has_cheap_headers() {
        let rest = (1..source.len()).into_par_iter();
        let problem = rest
            .clone()
            .map(|row| compare(source, size, row).err())
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
        height: size.height,
        width: size.width,
        channels,
    })
}

fn compare(source: &dyn Source, first_size: Size, row: usize) -> Result<(), DataError> {
    let (other_size, _) = source.header(row)?;
    if other_size == first_size {
        return Ok(());
    }
    Err(DataError::MixedSizes {
        first: source.full_name(0),
        first_size,
        other: source.full_name(row),
        other_size,
    })
}
