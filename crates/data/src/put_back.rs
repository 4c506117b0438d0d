//! Images that left a data set and are kept elsewhere, put back for as long as they are measured.
//!
//! They come back as the data set stored them, at rows of the caller's choice: at their own, the data set is the one that
//! it was, its digest included.

use std::borrow::Cow;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::error::Size;
use super::{DataError, Dataset, Form, OpenOptions, Source, image};

/// A row that is kept elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptRow {
    /// The number of its image's file, see [`KeptFiles::file`].
    pub file: usize,
    /// What the data set called it, if that was more than its number.
    pub name: Option<String>,
    /// Its label, if it had one.
    pub label: Option<i64>,
    /// The text that a run gave it, of a text-to-image model.
    pub text: Option<String>,
}

/// Where the images of such rows are.
pub trait KeptFiles: Send + Sync {
    /// A whole image file, by its number.
    ///
    /// # Errors
    /// What cannot be read.
    fn file(&self, number: usize) -> Result<Vec<u8>, DataError>;
}

impl fmt::Debug for dyn KeptFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("kept files")
    }
}

/// A source with some rows more.
struct PutBack {
    inner: Arc<dyn Source>,
    files: Arc<dyn KeptFiles>,
    /// The rows that are more, ascending.
    rows: Vec<(usize, KeptRow)>,
}

/// Whose a row is.
enum Whose<'a> {
    /// The source's own, by its number there.
    Inner(usize),
    Kept(&'a KeptRow),
}

impl PutBack {
    fn whose(&self, row: usize) -> Whose<'_> {
        match self.rows.binary_search_by_key(&row, |(row, _)| *row) {
            Ok(place) => Whose::Kept(&self.rows[place].1),
            Err(before) => Whose::Inner(row - before),
        }
    }

    /// Where a row of the source itself is now.
    fn outer(&self, inner: usize) -> usize {
        let mut row = inner;
        for (kept, _) in &self.rows {
            if *kept > row {
                break;
            }
            row += 1;
        }
        row
    }
}

impl Source for PutBack {
    fn kind(&self) -> &'static str {
        self.inner.kind()
    }

    fn form(&self) -> Form {
        self.inner.form()
    }

    fn len(&self) -> usize {
        self.inner.len() + self.rows.len()
    }

    fn name(&self, row: usize) -> String {
        let name = match self.whose(row) {
            Whose::Kept(kept) => kept.name.clone(),
            Whose::Inner(inner) => own_name(&*self.inner, inner),
        };
        name.unwrap_or_else(|| format!("row {row}"))
    }

    fn full_name(&self, row: usize) -> String {
        match self.whose(row) {
            Whose::Kept(_) => format!("the kept copy of {}", self.name(row)),
            Whose::Inner(inner) => self.inner.full_name(inner),
        }
    }

    fn label(&self, row: usize) -> Option<i64> {
        match self.whose(row) {
            Whose::Kept(kept) => kept.label,
            Whose::Inner(inner) => self.inner.label(inner),
        }
    }

    fn stored(&self, row: usize) -> Result<Cow<'_, [u8]>, DataError> {
        match self.whose(row) {
            Whose::Kept(kept) => {
                let name = self.full_name(row);
                let stored = as_stored(&*self.files, kept.file, &name, self.inner.form())?;
                Ok(Cow::Owned(stored))
            }
            Whose::Inner(inner) => self.inner.stored(inner),
        }
    }

    fn header(&self, row: usize) -> Result<(Size, bool), DataError> {
        match self.whose(row) {
            Whose::Kept(_) => image::header(&self.full_name(row), &self.stored(row)?),
            Whose::Inner(inner) => self.inner.header(inner),
        }
    }

    fn has_cheap_headers(&self) -> bool {
        self.inner.has_cheap_headers()
    }

    fn label_names(&self) -> &[String] {
        self.inner.label_names()
    }

    fn labels_are_names(&self) -> bool {
        self.inner.labels_are_names()
    }

    fn label_note(&self) -> Option<&str> {
        self.inner.label_note()
    }

    fn texts(&self, column: &str) -> Result<Option<Vec<Vec<String>>>, DataError> {
        let Some(mut texts) = self.inner.texts(column)? else {
            return Ok(None);
        };
        for (row, kept) in &self.rows {
            texts.insert(*row, kept.text.iter().cloned().collect());
        }
        Ok(Some(texts))
    }

    fn columns(&self) -> Vec<String> {
        self.inner.columns()
    }

    fn in_windows(&self) -> bool {
        self.inner.in_windows()
    }

    fn row_of(&self, path: &Path) -> Option<usize> {
        self.inner.row_of(path).map(|inner| self.outer(inner))
    }

    fn rows_named(&self, name: &str) -> Vec<usize> {
        let found = self.inner.rows_named(name).into_iter();
        let mut found: Vec<usize> = found.map(|inner| self.outer(inner)).collect();
        // The path at which a file lay names it still.
        let is_named = |kept: &str| {
            kept.rsplit('/').next() == Some(name) || Path::new(name).ends_with(Path::new(kept))
        };
        let kept = self.rows.iter();
        let kept = kept.filter(|(_, kept)| kept.name.as_deref().is_some_and(is_named));
        found.extend(kept.map(|(row, _)| row));
        found.sort_unstable();
        found
    }
}

/// What a source calls a row, if that is more than its number.
fn own_name(source: &dyn Source, row: usize) -> Option<String> {
    Some(source.name(row)).filter(|name| *name != format!("row {row}"))
}

/// A kept image as a source of this form stores it.
fn as_stored(
    files: &dyn KeptFiles,
    number: usize,
    name: &str,
    form: Form,
) -> Result<Vec<u8>, DataError> {
    let file = files.file(number)?;
    let Form::Pixels(native) = form else {
        return Ok(file);
    };
    match image::decode(name, &file, Some(native.size()))? {
        Ok(decoded) => {
            let mut pixels = vec![0; native.bytes()];
            let (from, to) = (decoded.channels, native.channels);
            image::convert_channels(&decoded.pixels, from, to, super::Alpha::Drop, &mut pixels);
            Ok(pixels)
        }
        Err(other_size) => Err(DataError::MixedSizes {
            first: "every image of the data set".into(),
            first_size: native.size(),
            other: name.into(),
            other_size,
            resized: false,
        }),
    }
}

impl Dataset {
    /// The image of a row as a file that any program opens, and how its name ends: the very file that the source stores, or
    /// its pixels as PNG.
    ///
    /// # Errors
    /// No such row, an image that cannot be read.
    pub fn file(&self, row: usize) -> Result<(Vec<u8>, &'static str), DataError> {
        self.check_row(row)?;
        let stored = self.source.stored(row)?;
        match self.source.form() {
            Form::Encoded => {
                let ending = image::ending(&self.source.full_name(row), &stored)?;
                Ok((stored.into_owned(), ending))
            }
            Form::Pixels(native) => {
                let name = self.source.full_name(row);
                image::png(&name, &stored, native).map(|png| (png, "png"))
            }
        }
    }

    /// What the source calls a row, if that is more than its number.
    pub fn own_name(&self, row: usize) -> Option<String> {
        own_name(&*self.source, row)
    }

    /// Which of the rows of a data set, ascending, that are kept elsewhere are not in this one, which may be that data set
    /// without some of them; their places in `kept`. `None`: it has not enough rows to be that. What else differs is not
    /// looked at here: with them put back, the digest says whether it is the same.
    ///
    /// # Errors
    /// An image that cannot be read.
    pub fn missing(
        &self,
        kept: &[(usize, KeptRow)],
        files: &dyn KeptFiles,
    ) -> Result<Option<Vec<usize>>, DataError> {
        let mut missing = Vec::new();
        for (place, (row, kept)) in kept.iter().enumerate() {
            let here = row - missing.len();
            if here > self.len() {
                return Ok(None);
            }
            // Earlier versions kept no labels that are names.
            let is_unnamed = kept.label.is_none() && self.source.labels_are_names();
            let has_label = || is_unnamed || self.label(here) == kept.label;
            let is_here = here < self.len() && has_label() && {
                let name = format!("the kept copy of row {row}");
                let stored = as_stored(files, kept.file, &name, self.source.form())?;
                *self.source.stored(here)? == *stored
            };
            if !is_here {
                missing.push(place);
            }
        }
        Ok(Some(missing))
    }

    /// This data set with rows that are kept elsewhere put back, ascending, at the numbers that they are to have; the others
    /// move up. `memory_budget`: as in [`OpenOptions`].
    ///
    /// # Errors
    /// An image that cannot be read, or is of another size than the data set's. Where the images do not fit the budget, that is found
    /// when it is read.
    pub fn put_back(
        &self,
        rows: Vec<(usize, KeptRow)>,
        files: Arc<dyn KeptFiles>,
        memory_budget: u64,
    ) -> Result<Self, DataError> {
        let numbers: Vec<usize> = rows.iter().map(|(row, _)| *row).collect();
        let texts = rows.iter();
        let texts = texts.filter_map(|(row, kept)| Some((*row, kept.text.clone()?)));
        let texts = texts.collect();
        let source = Arc::new(PutBack {
            inner: self.source.clone(),
            files,
            rows,
        });
        let options = OpenOptions {
            channels: Some(self.shape.channels),
            memory_budget,
            split: None,
            alpha: self.alpha,
            resize: self.resize,
        };
        let mut data = Self::from_source(&self.path, source, &options)?;
        data.beside = self.beside.clone();
        data.returned = numbers;
        data.texts = texts;
        Ok(data)
    }

    /// The rows that were [put back](Self::put_back), ascending.
    pub fn returned(&self) -> &[usize] {
        &self.returned
    }

    /// The text that a row which was put back brought along.
    pub fn text(&self, row: usize) -> Option<&str> {
        self.texts.get(&row).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ImageShape;

    struct Files(Vec<Vec<u8>>);

    impl KeptFiles for Files {
        fn file(&self, number: usize) -> Result<Vec<u8>, DataError> {
            Ok(self.0[number].clone())
        }
    }

    fn data(images: &[u8]) -> Dataset {
        let shape = ImageShape {
            height: 1,
            width: 2,
            channels: 1,
        };
        let pixels = images.iter().flat_map(|&of| [of, of + 1]).collect();
        let labels = images.iter().map(|&of| i64::from(of) / 100).collect();
        Dataset::from_pixels(shape, pixels, labels).unwrap()
    }

    fn kept(of: &Dataset, rows: &[usize]) -> (Vec<(usize, KeptRow)>, Arc<dyn KeptFiles>) {
        let row = |(file, &row): (usize, &usize)| {
            let kept = KeptRow {
                file,
                name: of.own_name(row),
                label: of.label(row),
                text: Some(format!("text {row}")),
            };
            (row, kept)
        };
        let files = rows.iter().map(|&row| of.file(row).unwrap().0).collect();
        (
            rows.iter().enumerate().map(row).collect(),
            Arc::new(Files(files)),
        )
    }

    #[test]
    fn a_data_set_whose_images_are_put_back_is_the_one_that_it_was() {
        let whole = data(&[10, 20, 30, 130, 30, 40]);
        let (rows, files) = kept(&whole, &[2, 3, 4]);
        for (left, expected) in [
            (&[10, 20, 40][..], &[0, 1, 2][..]),
            (&[10, 20, 30, 40], &[1, 2]),
            (&[10, 20, 130, 40], &[0, 2]),
            (&[10, 20, 30, 130, 30, 40], &[]),
        ] {
            let left = data(left);
            let missing = left.missing(&rows, &*files).unwrap().unwrap();
            assert_eq!(missing, expected);
            let back: Vec<_> = missing.iter().map(|&place| rows[place].clone()).collect();
            let numbers: Vec<usize> = back.iter().map(|(row, _)| *row).collect();
            let again = left.put_back(back, files.clone(), 0).unwrap();
            assert_eq!(again.digest().unwrap(), whole.digest().unwrap());
            assert_eq!(again.returned(), numbers);
            let mut image = [0; 2];
            again.read(3, &mut image).unwrap();
            assert_eq!((image, again.label(3)), ([130, 131], Some(1)));
            assert_eq!(again.name(5), "row 5");
            let text = numbers.contains(&2).then_some("text 2");
            assert_eq!(again.text(2), text);
        }
        assert_eq!(data(&[10]).missing(&rows, &*files).unwrap(), None);
    }

    #[test]
    fn rows_have_a_digest_of_their_own_wherever_they_lie() {
        let whole = data(&[10, 20, 30, 40]);
        let left = data(&[10, 30, 40]);
        let digest = whole.digest_of(&[0, 2, 3]).unwrap();
        assert_eq!(left.digest_of(&[0, 1, 2]).unwrap(), digest);
        assert_ne!(whole.digest_of(&[0, 1, 3]).unwrap(), digest);
        assert_ne!(whole.digest_of(&[0, 2]).unwrap(), digest);
    }

    #[test]
    fn images_of_another_size_are_not_put_back() {
        let whole = data(&[10, 20]);
        let shape = ImageShape {
            height: 2,
            width: 2,
            channels: 1,
        };
        let other = Dataset::from_pixels(shape, vec![0; 8], Vec::new()).unwrap();
        let (rows, files) = kept(&whole, &[1]);
        let error = other.put_back(rows, files, 1 << 20).unwrap_err();
        assert!(matches!(error, DataError::MixedSizes { .. }), "{error}");
    }
}
