//! What an unlearning run seals, and what it goes on with of what earlier ones sealed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use retrack_checkpoint::words::counted;
use retrack_data::digest::DigestKey;
use retrack_data::{Dataset, Split};
use retrack_unlearn::texts::Texts;

use super::archive::{self, Archive, Kind, ToSeal};
use super::{KeyFile, MEMORY, beside, place};
use crate::evidence::Private;
use crate::failure::Failure;
use crate::field::Field;
use crate::progress;
use crate::task::Task;

/// Sealed copies that a run will make.
pub struct Planned {
    path: PathBuf,
    key_path: PathBuf,
    /// `None`: it will be made.
    keys: Option<KeyFile>,
}

impl Planned {
    /// What a run is to seal, and with which key: nothing is written yet.
    ///
    /// # Errors
    /// A place where one of both cannot be, a file of keys that is none, an older sealed file, unless it may be replaced.
    pub fn check(args: &Task) -> Result<Option<Self>, Failure> {
        let Some(key_path) = &args.keep_sealed else {
            return Ok(None);
        };
        let out = args.out.display();
        let Some(path) = place(&args.out) else {
            return Err(Failure::input(format!(
                "{out}: has no folder beside it for the sealed images; choose another output folder"
            )));
        };
        let shown = path.display();
        let remedy = "choose another output folder";
        Private::refuse_inside(args, &path, "the sealed images", remedy)?;
        let remedy = format!("give another place with {}", Field::KeepSealed);
        Private::refuse_inside(args, key_path, "the key of the sealed images", &remedy)?;
        let keys = KeyFile::read(key_path)?;
        let parent = key_path.parent().filter(|parent| *parent != Path::new(""));
        if keys.is_none()
            && let Some(parent) = parent
            && !parent.is_dir()
        {
            return Err(Failure::input(format!(
                "{}: its folder does not exist; make it, or give another place with {}",
                key_path.display(),
                Field::KeepSealed
            )));
        }
        if path.is_dir() {
            return Err(Failure::input(format!(
                "{shown}: a folder, where the file of the sealed images would go; move it away"
            )));
        }
        match (path.exists(), args.resume, args.force) {
            // Of this run, which replaces it by the same.
            (false, ..) | (_, true, _) => {}
            (true, _, true) => progress::warn(format!(
                "{shown}: holds the sealed images of an earlier run, and will be replaced as {} says; move it away to keep \
                 it",
                Field::Force
            )),
            (true, ..) => {
                return Err(Failure::input(format!(
                    "{shown}: there already, with the sealed images of an earlier run; move it away, choose another output \
                     folder, or give {} to replace it",
                    Field::Force
                )));
            }
        }
        Ok(Some(Self {
            path,
            key_path: key_path.clone(),
            keys,
        }))
    }

    /// What was sealed beside the model that a run begins with. `None`: nothing, or this key only seals.
    ///
    /// # Errors
    /// A file that cannot be opened.
    pub fn open(&self, model: &Path) -> Result<Option<Archive>, Failure> {
        match (beside(model), &self.keys) {
            (None, _) => Ok(None),
            (Some(path), Some(keys)) => Archive::open(&path, keys).map(Some),
            (Some(path), None) => Err(Failure::input(format!(
                "{}: not there, and it must be the key of {}, which this run goes on with; give that with {}",
                self.key_path.display(),
                path.display(),
                Field::KeepSealed
            ))),
        }
    }

    /// Whether it can open anything.
    pub fn opens(&self) -> bool {
        self.keys.as_ref().is_none_or(KeyFile::opens)
    }

    /// Seals what leaves with a run: the forgotten images, by this request and by earlier ones, their exact copies, and the
    /// near copies that were set aside. `texts`: of a network that is told any.
    ///
    /// # Errors
    /// An image that cannot be read, files that cannot be written.
    pub fn seal(
        &self,
        data: &Dataset,
        split: &Split,
        texts: Option<&Texts>,
        key: &DigestKey,
    ) -> Result<(), Failure> {
        let made;
        let keys = match &self.keys {
            Some(keys) => keys,
            None => {
                made = match KeyFile::read(&self.key_path)? {
                    Some(keys) => keys,
                    None => KeyFile::make(&self.key_path)?,
                };
                progress::note(format!(
                    "{} is the new key of the sealed images: keep it, apart from them; nothing else opens them",
                    self.key_path.display()
                ));
                &made
            }
        };
        let _sealing = progress::activity("sealing the forgotten images");
        let mut rows = leaving(split);
        rows.sort_unstable_by_key(|(row, ..)| *row);
        let mut image = vec![0; data.shape().bytes()];
        let rows = rows.into_iter().map(|(row, kind, has_text)| {
            data.read(row, &mut image)?;
            Ok(ToSeal {
                row,
                kind,
                keyed_digest: key.of(data.shape(), &image),
                text: texts
                    .filter(|_| has_text)
                    .map(|texts| texts.of(&[row]).concat()),
            })
        });
        let count = archive::write(&self.path, keys, data, rows)?;
        progress::note(format!(
            "{}: {} sealed for the key in {}",
            self.path.display(),
            counted(count, "image"),
            self.key_path.display()
        ));
        Ok(())
    }
}

/// The rows that leave, what they are, and whether a text is known of them.
fn leaving(split: &Split) -> Vec<(usize, Kind, bool)> {
    let forgotten = split.forget.iter().chain(&split.earlier);
    let forgotten = forgotten.map(|&row| (row, Kind::Forgotten, true));
    let copies = split.duplicates.iter();
    let copies = copies.map(|&row| (row, Kind::Forgotten, false));
    let near = split.near_set_aside();
    let near = near.map(|row| (row, Kind::NearCopy, false));
    forgotten.chain(copies).chain(near).collect()
}

/// A model's data set with the images of its earlier requests that it lacks.
pub struct Extended {
    /// With them behind all others.
    pub data: Dataset,
    /// The texts of images of earlier requests, by keyed digest, as they were sealed.
    pub texts: BTreeMap<String, String>,
}

/// Adds the sealed images that `wanted` names by keyed digests to a data set.
///
/// # Errors
/// An image that cannot be read, or that is not what its keyed digest says.
pub fn extended(
    data: Dataset,
    archive: &Arc<Archive>,
    key: &DigestKey,
    wanted: impl Fn(&str) -> bool,
) -> Result<Extended, Failure> {
    let mut texts = BTreeMap::new();
    let mut rows = BTreeMap::new();
    for (digest, row) in archive.forgotten() {
        if let Some(text) = &row.text {
            texts.insert(digest.to_owned(), text.clone());
        }
        if wanted(digest) {
            rows.entry(digest.to_owned()).or_insert(row);
        }
    }
    if rows.is_empty() {
        return Ok(Extended { data, texts });
    }
    let (digests, rows): (Vec<String>, Vec<_>) = rows.into_iter().unzip();
    let rows = (data.len()..).zip(rows).collect();
    let data = data.put_back(rows, archive.clone(), MEMORY)?;
    let mut image = vec![0; data.shape().bytes()];
    for (&row, digest) in data.returned().iter().zip(&digests) {
        data.read(row, &mut image)?;
        if key.of(data.shape(), &image) != *digest {
            return Err(Failure::input(format!(
                "{}: {} is read with other pixels than when it was forgotten; give {} as it was then",
                archive.path().display(),
                data.name(row),
                Field::Alpha
            )));
        }
    }
    Ok(Extended { data, texts })
}
