//! What a run keeps outside of the folder that it makes, for its owner alone: the key of the report's digests and, of a
//! text-to-image run, the texts of the images that were measured.
//!
//! The key is the file's first line. Each line below it is one run's texts, a JSON object by row. Lines are added and
//! never changed: a page that was passed on can be shown to be about an image for as long as its key is there.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use retrack_checkpoint::chain::{self, Chain};
use retrack_checkpoint::words::counted;
use retrack_data::digest::DigestKey;

use crate::failure::Failure;
use crate::field::Field;
use crate::folders::is_inside;
use crate::task::Task;

/// How the name of the file ends that lies beside the output folder.
const ENDING: &str = ".digest-key";
/// Where runs kept their key before it left their folder.
pub const OLD_KEY: &str = "digest-key";

/// Texts by row of the data set.
pub type RowTexts = BTreeMap<usize, String>;

/// A run's key and its place.
pub struct Private {
    /// The file.
    pub path: PathBuf,
    /// The key.
    pub key: DigestKey,
}

/// A key that a run will have.
pub struct Planned {
    /// Its file.
    path: PathBuf,
    /// Of a key that is there already, here or in another file.
    pub key: Option<DigestKey>,
}

impl Planned {
    /// Puts the key into its place, if it is not there: a new one, where none is known. A new file is readable by its owner
    /// alone.
    ///
    /// # Errors
    /// The system's.
    pub fn put(&self) -> Result<Private, Failure> {
        let path = &self.path;
        let make = || {
            if let Some(parent) = path.parent().filter(|parent| *parent != Path::new("")) {
                fs::create_dir_all(parent)?;
            }
            match &self.key {
                Some(key) if !path.exists() => key.put(path).map(|()| key.clone()),
                _ => DigestKey::open_or_create(path),
            }
        };
        let key = make().map_err(|error| {
            Failure::failed(format!(
                "{}: cannot put the key of the report's digests here: {error}; give another place with {}",
                path.display(),
                Field::Key
            ))
        })?;
        Ok(Private {
            path: path.to_path_buf(),
            key,
        })
    }
}

/// The key of a record of requests: what is `there`, in `path`, or else what lies beside the model.
fn of_chain(
    chain: &Chain,
    model: &Path,
    path: &Path,
    there: Option<DigestKey>,
) -> Result<DigestKey, Failure> {
    let record = model.join(chain::NAME);
    let record = record.display();
    let is_its = |key: &DigestKey| key.check() == chain.key;
    if let Some(key) = there {
        return match is_its(&key) {
            true => Ok(key),
            false => Err(Failure::input(format!(
                "{}: not the key of the model's earlier requests ({record}), which goes on with this one; say with {} where \
                 that is",
                path.display(),
                Field::Key
            ))),
        };
    }
    let beside = Private::place(model).unwrap_or_else(|_| path.into());
    let why = match DigestKey::open(&beside) {
        Ok(key) if is_its(&key) => return Ok(key),
        Ok(_) => "is not that of",
        Err(_) => "is not found; it is that of",
    };
    let images = counted(chain.images().len(), "image");
    Err(Failure::input(format!(
        "{}: the key {why} the model's earlier requests ({record}). Without it their {images} cannot be known again among \
         the data, where they would be retained and taught anew; say with {} where it is. If nobody has it, move {record} away, \
         which begins a new record, and select those images again with the new ones",
        beside.display(),
        Field::Key
    )))
}

impl Private {
    /// Where the key of a run with this output folder is: beside it, with its name.
    ///
    /// # Errors
    /// An output folder that has nothing beside it.
    pub fn place(out: &Path) -> Result<PathBuf, Failure> {
        Self::beside(out, ENDING).ok_or_else(|| {
            Failure::input(format!(
                "{}: has no folder beside it for the key of the report's digests; say with {} where that goes",
                out.display(),
                Field::Key
            ))
        })
    }

    /// A file beside an output folder, with its name and this ending, if there is a place beside it.
    pub fn beside(out: &Path, ending: &str) -> Option<PathBuf> {
        let named = match out.file_name() {
            Some(_) => out.to_path_buf(),
            // Such as `.`, which has a name all the same.
            None => out.canonicalize().unwrap_or_default(),
        };
        let mut name = named.file_name()?.to_os_string();
        name.push(ending);
        Some(named.with_file_name(name))
    }

    /// Refuses a file for the owner alone, called `what`, in a folder that a run reads or makes.
    ///
    /// # Errors
    /// It would lie there; with the remedy.
    pub fn refuse_inside(
        args: &Task,
        file: &Path,
        what: &str,
        remedy: &str,
    ) -> Result<(), Failure> {
        let folders = [
            (&args.out, "the output folder, which may be passed on"),
            (&args.model, "the model's folder"),
            (&args.data.path, "the data set"),
        ];
        match folders.iter().find(|(folder, _)| is_inside(file, folder)) {
            Some((_, place)) => Err(Failure::input(format!(
                "{}: {what} would lie in {place}; {remedy}",
                file.display()
            ))),
            None => Ok(()),
        }
    }

    /// Where a run's key will be, which was looked at: it is not in a folder that is read or made, and what is there
    /// already is a key. `chain`: the record of the model's requests, whose key goes on.
    ///
    /// # Errors
    /// A place where it cannot be, named with the remedy; a record whose key is not found.
    pub fn check(args: &Task, chain: Option<&Chain>) -> Result<Planned, Failure> {
        let path = match &args.key {
            Some(path) => path.clone(),
            None => Self::place(&args.out)?,
        };
        let shown = path.display();
        let remedy = format!("give another place with {}", Field::Key);
        Self::refuse_inside(args, &path, "the key of the report's digests", &remedy)?;
        let there = match DigestKey::open(&path) {
            Ok(key) => Some(key),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => {
                return Err(Failure::input(format!(
                    "{shown}: the key of the report's digests would go here, but what is there is none ({error}); give \
                     another place with {}",
                    Field::Key
                )));
            }
        };
        // A default place is made with the output folder.
        if there.is_none()
            && let Some(parent) = args.key.as_ref().and_then(|path| path.parent())
            && parent != Path::new("")
            && !parent.is_dir()
        {
            return Err(Failure::input(format!(
                "{shown}: its folder does not exist; make it, or give another place with {}",
                Field::Key
            )));
        }
        let key = match chain {
            Some(chain) => Some(of_chain(chain, &args.model, &path, there)?),
            None => there,
        };
        Ok(Planned { path, key })
    }

    /// Adds texts to the file, if it does not have them. Returns their keyed digest.
    ///
    /// # Errors
    /// The system's.
    pub fn keep(&self, texts: &RowTexts) -> Result<String, Failure> {
        let line = serde_json::to_string(texts).expect("texts by number");
        let digest = self.key.of_text(&line);
        if self.texts(&digest)?.is_none() {
            let add = || {
                let mut file = OpenOptions::new().append(true).open(&self.path)?;
                file.write_all(format!("{line}\n").as_bytes())?;
                file.sync_all()
            };
            add().map_err(|error| Failure::writing(&self.path, error))?;
        }
        Ok(digest)
    }

    /// The texts with this keyed digest, if they are here.
    ///
    /// # Errors
    /// The system's.
    pub fn texts(&self, digest: &str) -> Result<Option<RowTexts>, Failure> {
        let bytes = fs::read(&self.path).map_err(|error| Failure::read(&self.path, error))?;
        let text = String::from_utf8_lossy(&bytes);
        let line = text.lines().find(|line| self.key.of_text(line) == digest);
        Ok(line.and_then(|line| serde_json::from_str(line).ok()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(path: PathBuf) -> Planned {
        Planned { path, key: None }
    }

    #[test]
    fn the_key_lies_beside_the_output_folder_whatever_it_is_called() {
        let place = |out: &str| Private::place(Path::new(out)).unwrap();
        assert_eq!(place("out"), Path::new("out.digest-key"));
        assert_eq!(place("a/out.v2/"), Path::new("a/out.v2.digest-key"));
        let here = std::env::current_dir().unwrap();
        let name = here.file_name().unwrap().to_string_lossy().into_owned();
        assert_eq!(
            place("."),
            here.with_file_name(format!("{name}.digest-key"))
        );
        assert!(Private::place(Path::new("/")).is_err());
    }

    #[test]
    fn a_key_that_cannot_be_made_says_which_option_puts_it_elsewhere() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let Err(error) = planned(file.join("out.digest-key")).put() else {
            panic!("made");
        };
        assert!(error.message.contains("give another place with `key`"));
    }

    #[test]
    fn texts_are_added_once_and_found_by_their_digest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.digest-key");
        let private = planned(path.clone()).put().unwrap();
        let texts = |text: &str| RowTexts::from([(3, text.to_string())]);
        let one = private.keep(&texts("a\nb é")).unwrap();
        let other = private.keep(&texts("c")).unwrap();
        assert_eq!(private.keep(&texts("a\nb é")).unwrap(), one);
        let again = planned(path.clone()).put().unwrap();
        assert_eq!(again.texts(&one).unwrap().unwrap(), texts("a\nb é"));
        assert_eq!(again.texts(&other).unwrap().unwrap(), texts("c"));
        assert_eq!(again.texts("0").unwrap(), None);
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 3);
    }
}
