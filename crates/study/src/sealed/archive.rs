//! The sealed file: a zip archive of image files and a list of them, encrypted by age.
//!
//! `age -d -i KEYFILE OUT.sealed.age > sealed.zip` opens it without this program. The list, `manifest.json`, says which rows of the
//! run's data set each image was.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};

use age::stream::StreamReader;
use age::{DecryptError, Decryptor, Encryptor, Identity, Recipient};
use retrack_checkpoint::durable;
use retrack_checkpoint::files::open_regular;
use retrack_checkpoint::written::digest;
use retrack_data::{DataError, Dataset, KeptFiles, KeptRow};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zip::result::ZipError;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use super::key::{KeyFile, is_encrypted};
use crate::failure::Failure;

/// The form that this version writes and reads.
const FORMAT: u32 = 1;
/// The list's name in the archive.
const MANIFEST: &str = "manifest.json";
/// More than a list of all rows of a data set.
const LARGEST_MANIFEST: u64 = 1 << 30;
/// More than an image file that a data set may hold.
const LARGEST_IMAGE: u64 = 128 << 20;

/// What lies in a sealed file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`]
    pub format: u32,
    /// What wrote it.
    pub made_by: String,
    /// Height, width and channels of the images, as the model took them.
    pub shape: [usize; 3],
    /// The distinct image files.
    pub images: Vec<SealedImage>,
}

/// An image file and the rows that it was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SealedImage {
    /// Its name in the archive.
    pub file: String,
    /// SHA-256 of the file.
    pub sha256: String,
    /// The keyed digest of its pixels, as `retrack.json` names it.
    pub keyed_digest: String,
    /// What it is to the run.
    pub kind: Kind,
    /// The rows of the run's data set that held it.
    pub rows: Vec<SealedRow>,
}

/// What an image is to the run that sealed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Forgotten, by this request or by an earlier one.
    Forgotten,
    /// Nearly a copy of one, and set aside with it.
    NearCopy,
}

/// A row of a data set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SealedRow {
    /// Its number.
    pub row: usize,
    /// What the data set called it, if that was more than its number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<i64>,
    /// The text that it had, of a text-to-image model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// A row to be sealed.
pub struct ToSeal {
    pub row: usize,
    pub kind: Kind,
    pub keyed_digest: String,
    pub text: Option<String>,
}

/// Writes `rows` of `data` into a sealed file, each distinct image once. Returns how many these are.
///
/// # Errors
/// An image that cannot be read, a file that cannot be written; what was there is then as it was.
pub fn write(
    path: &Path,
    keys: &KeyFile,
    data: &Dataset,
    rows: impl IntoIterator<Item = Result<ToSeal, Failure>>,
) -> Result<usize, Failure> {
    let mut unreadable = None;
    let mut count = 0;
    let written = durable::write_private(path, |out| {
        let failed = Rc::default();
        let out = Remembering {
            out,
            failed: Rc::clone(&failed),
        };
        let recipients = keys.recipients.iter().map(|one| one as &dyn Recipient);
        let encryptor = Encryptor::with_recipients(recipients).map_err(io::Error::other)?;
        let mut zip = ZipWriter::new_stream(encryptor.wrap_output(out)?);
        let put = put(&mut zip, data, rows, &failed);
        let finished = zip.finish().map_err(io::Error::from);
        let finished = finished.and_then(|zipped| zipped.into_inner().finish().map(drop));
        if let Some(error) = failed.take() {
            return Err(error);
        }
        count = put.map_err(|failure| {
            let error = io::Error::other(failure.message.clone());
            unreadable = Some(failure);
            error
        })?;
        finished
    });
    match (written, unreadable) {
        (Ok(()), _) => Ok(count),
        (Err(_), Some(failure)) => Err(failure),
        (Err(error), None) => Err(Failure::writing(path, error)),
    }
}

/// Puts the images and their list into an archive, until what is below it has failed.
fn put<W: Write + Seek>(
    zip: &mut ZipWriter<W>,
    data: &Dataset,
    rows: impl IntoIterator<Item = Result<ToSeal, Failure>>,
    failed: &RefCell<Option<io::Error>>,
) -> Result<usize, Failure> {
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .unix_permissions(0o600);
    let mut add = |name: &str, content: &[u8]| -> Result<(), Failure> {
        let added = zip.start_file(name, options).map_err(io::Error::from);
        added
            .and_then(|()| zip.write_all(content))
            .map_err(Failure::failed)
    };
    let mut images: Vec<SealedImage> = Vec::new();
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    for row in rows {
        let row = row?;
        let (file, ending) = data.file(row.row)?;
        let sha256 = digest(&file);
        let next = images.len();
        let place = *places.entry(sha256.clone()).or_insert(next);
        if place == next {
            let name = format!("images/{:05}.{ending}", next + 1);
            add(&name, &file)?;
            if failed.borrow().is_some() {
                return Ok(0);
            }
            images.push(SealedImage {
                file: name,
                sha256,
                keyed_digest: row.keyed_digest,
                kind: row.kind,
                rows: Vec::new(),
            });
        }
        images[place].rows.push(SealedRow {
            row: row.row,
            name: data.own_name(row.row),
            label: data.label(row.row),
            text: row.text,
        });
    }
    let count = images.len();
    let shape = data.shape();
    let manifest = Manifest {
        format: FORMAT,
        made_by: format!("retrack {}", env!("CARGO_PKG_VERSION")),
        shape: [shape.height, shape.width, shape.channels],
        images,
    };
    let text = serde_json::to_string_pretty(&manifest).expect("JSON has no unwritable values");
    add(MANIFEST, format!("{text}\n").as_bytes())?;
    Ok(count)
}

/// Keeps the first error and takes all that follows for written: the archive's writer prints what its end meets, were it told.
struct Remembering<'a> {
    out: &'a mut dyn Write,
    failed: Rc<RefCell<Option<io::Error>>>,
}

impl Write for Remembering<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut failed = self.failed.borrow_mut();
        if failed.is_none()
            && let Err(error) = self.out.write_all(bytes)
        {
            *failed = Some(error);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is read without going beyond its end: there age's reader (0.11.5) computes a length below nothing, and panics. An
/// archive may name any place, and whoever has the public key can seal one.
struct Within<R> {
    inner: R,
    length: u64,
}

impl<R: Seek> Within<R> {
    fn new(mut inner: R) -> io::Result<Self> {
        let length = inner.seek(SeekFrom::End(0))?;
        inner.seek(SeekFrom::Start(0))?;
        Ok(Self { inner, length })
    }
}

impl<R: Read> Read for Within<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.inner.read(bytes)
    }
}

impl<R: Seek> Seek for Within<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(place) => Some(place),
            SeekFrom::End(away) => self.length.checked_add_signed(away),
            SeekFrom::Current(away) => self.inner.stream_position()?.checked_add_signed(away),
        };
        match target.filter(|target| *target <= self.length) {
            Some(target) => self.inner.seek(SeekFrom::Start(target)),
            None => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "it names a place beyond its end",
            )),
        }
    }
}

/// A sealed file that was opened. Images are decrypted when they are asked for, and never put on the disk.
pub struct Archive {
    path: PathBuf,
    manifest: Manifest,
    zip: Mutex<ZipArchive<Within<StreamReader<BufReader<File>>>>>,
}

impl Archive {
    /// Opens a sealed file.
    ///
    /// # Errors
    /// No such file, one that is damaged or was sealed for another key.
    pub fn open(path: &Path, keys: &KeyFile) -> Result<Self, Failure> {
        let refused = |why: String| Failure::input(format!("{}: {why}", path.display()));
        let key = keys.path.display();
        if !keys.opens() {
            return Err(refused(format!(
                "{key} holds a recipient alone, with which images are sealed and not opened; give the file with its secret \
                 key, AGE-SECRET-KEY-1..."
            )));
        }
        let file = open_regular(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => refused(
                "no such file: no images were sealed beside this model, or the file was moved; put it back, or leave the \
                 key out"
                    .into(),
            ),
            _ => Failure::read(path, error),
        })?;
        let mut file = BufReader::new(file);
        let start = io::BufRead::fill_buf(&mut file).map_err(|error| Failure::read(path, error))?;
        if !is_encrypted(start) {
            return Err(refused(
                "not a file that age encrypted; put back the one that the run wrote".into(),
            ));
        }
        let damaged = |why: &dyn std::fmt::Display| {
            refused(format!("damaged or cut short ({why}); {PUT_BACK}"))
        };
        let opened = Decryptor::new_buffered(file)
            .and_then(|file| file.decrypt(keys.identities.iter().map(|one| one as &dyn Identity)));
        let stream = match opened {
            Ok(stream) => stream,
            Err(DecryptError::NoMatchingKeys) => {
                return Err(refused(format!(
                    "sealed for another key than that of {key}; give the file of keys with which it was sealed"
                )));
            }
            Err(DecryptError::Io(error)) if error.kind() != io::ErrorKind::UnexpectedEof => {
                return Err(Failure::read(path, error));
            }
            Err(error) => return Err(damaged(&reason(&error))),
        };
        let stream = Within::new(stream).map_err(|error| damaged(&error))?;
        let mut zip = ZipArchive::new(stream).map_err(|error| damaged(&of_zip(&error)))?;
        let manifest = {
            let mut list = zip
                .by_name(MANIFEST)
                .map_err(|error| damaged(&of_zip(&error)))?;
            let mut text = String::new();
            let read = Read::take(&mut list, LARGEST_MANIFEST).read_to_string(&mut text);
            read.map_err(|error| damaged(&error))?;
            parse(&text)
                .map_err(|why| refused(format!("its list of images cannot be read: {why}")))?
        };
        Ok(Self {
            path: path.into(),
            manifest,
            zip: Mutex::new(zip),
        })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What lies in it.
    pub fn images(&self) -> &[SealedImage] {
        &self.manifest.images
    }

    /// Each row of the run's data set that lies here, ascending.
    pub fn rows(&self) -> Vec<(usize, KeptRow)> {
        let images = self.images().iter().enumerate();
        let mut rows: Vec<(usize, KeptRow)> = images
            .flat_map(|(number, image)| {
                let rows = image.rows.iter();
                rows.map(move |row| (row.row, row.kept(number)))
            })
            .collect();
        rows.sort_by_key(|(row, _)| *row);
        rows.dedup_by_key(|(row, _)| *row);
        rows
    }

    /// The keyed digest of each forgotten image, with its first row.
    pub fn forgotten(&self) -> impl Iterator<Item = (&str, KeptRow)> {
        let images = self.images().iter().enumerate();
        images
            .filter(|(_, image)| image.kind == Kind::Forgotten)
            .filter_map(|(number, image)| {
                let row = image.rows.first()?;
                Some((image.keyed_digest.as_str(), row.kept(number)))
            })
    }
}

impl SealedRow {
    fn kept(&self, file: usize) -> KeptRow {
        KeptRow {
            file,
            name: self.name.clone(),
            label: self.label,
            text: self.text.clone(),
        }
    }
}

/// What to do where a sealed file is no more what it was.
const PUT_BACK: &str = "put back a copy of the file as the run wrote it, or leave the key out";

impl KeptFiles for Archive {
    fn file(&self, number: usize) -> Result<Vec<u8>, DataError> {
        let image = &self.manifest.images[number];
        let failed = |why: String| DataError::Format {
            path: self.path.clone(),
            problem: format!("{}: {why}; {PUT_BACK}", image.file),
        };
        let mut zip = self.zip.lock().unwrap_or_else(PoisonError::into_inner);
        let mut file = zip
            .by_name(&image.file)
            .map_err(|error| failed(of_zip(&error)))?;
        let mut content = Vec::new();
        Read::take(&mut file, LARGEST_IMAGE)
            .read_to_end(&mut content)
            .map_err(|error| failed(error.to_string()))?;
        match digest(&content) == image.sha256 {
            true => Ok(content),
            false => Err(failed("not the image that was sealed".into())),
        }
    }
}

fn parse(text: &str) -> Result<Manifest, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if value["format"].as_u64() != Some(FORMAT.into()) {
        return Err(format!(
            "its format is {}, and this version reads {FORMAT}",
            value["format"]
        ));
    }
    serde_json::from_value(value).map_err(|error| error.to_string())
}

/// In words.
fn of_zip(error: &ZipError) -> String {
    match error {
        ZipError::Io(error) => error.to_string(),
        error => error.to_string(),
    }
}

/// In words; age's own are for its command.
fn reason(error: &DecryptError) -> String {
    match error {
        DecryptError::InvalidHeader => "its header makes no sense".into(),
        DecryptError::InvalidMac => "its header was changed".into(),
        DecryptError::DecryptionFailed => "its content was changed".into(),
        DecryptError::UnknownFormat => "a version of age's form that is not read".into(),
        error => error.to_string(),
    }
}
