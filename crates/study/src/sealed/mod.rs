//! Sealed copies: forgotten images, encrypted for their owner, that are kept for when they have left the data.
//!
//! A request demands that a picture leaves the data. Then nothing of it can be measured again, neither by `verify` nor by
//! a later request, unless a copy is kept. With `--keep-sealed` it lies beside the output folder, as the run's key does, and
//! opens with a key of the owner's own. Images come from it as rows of the data set, so that all that is measured of
//! them is measured as if they had never left.

mod archive;
mod key;
mod planned;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use retrack_checkpoint::durable;
use retrack_checkpoint::files::open_regular;
use retrack_checkpoint::folder::sha256_file;
use retrack_checkpoint::words::counted;
use retrack_data::{BUDGET, Dataset, Split};

pub use self::archive::Archive;
pub use self::key::KeyFile;
pub use self::planned::{Planned, extended};
use crate::evidence::Private;
use crate::failure::Failure;
use crate::progress;
use crate::run::RunFolder;

/// How the name of the file ends that lies beside a model's folder.
const ENDING: &str = ".sealed.age";
/// Bytes that a data set with images put back may keep in memory, as one without.
const MEMORY: u64 = 4 * BUDGET as u64;

/// Where the sealed copies of a run with this output folder are: beside it, with its name.
pub fn place(out: &Path) -> Option<PathBuf> {
    Private::beside(out, ENDING)
}

/// The sealed file beside a model's folder, where there is one.
pub fn beside(model: &Path) -> Option<PathBuf> {
    place(model).filter(|path| path.is_file())
}

/// Puts what was sealed beside the model `from` beside `out`, too, where requests to that look for it. An older file stays.
///
/// # Errors
/// A file that cannot be read or written.
pub(crate) fn hand_on(from: &Path, out: &Path) -> Result<(), Failure> {
    let (Some(from), Some(to)) = (beside(from), place(out)) else {
        return Ok(());
    };
    if to.exists() {
        if sha256_file(&to)? != sha256_file(&from)? {
            progress::warn(format!(
                "{}: there already; the sealed images of this model's requests are in {}, and a later request looks for them \
                 here",
                to.display(),
                from.display()
            ));
        }
        return Ok(());
    }
    let mut file = open_regular(&from).map_err(|error| Failure::read(&from, error))?;
    durable::write_private(&to, |out| io::copy(&mut file, out).map(drop))
        .map_err(|error| Failure::writing(&to, error))
}

/// Opens what was sealed beside a model, with this file of keys.
///
/// # Errors
/// No such files, a key that does not open it, one that is damaged.
pub fn open(key: &Path, model: &Path) -> Result<Arc<Archive>, Failure> {
    let keys = KeyFile::read(key)?.ok_or_else(|| {
        Failure::input(format!(
            "{}: no such file; give the file of keys with which the images were sealed",
            key.display()
        ))
    })?;
    let path = place(model).ok_or_else(|| {
        Failure::input(format!(
            "{}: has no folder beside it, where sealed images would be",
            model.display()
        ))
    })?;
    Archive::open(&path, &keys).map(Arc::new)
}

/// The data set of a run, from what is left of it and what the run sealed. `None`: it is not that.
///
/// # Errors
/// An image that cannot be read.
pub fn restored(
    data: &Dataset,
    archive: &Arc<Archive>,
    digest: &str,
) -> Result<Option<Dataset>, Failure> {
    let rows = archive.rows();
    let Some(missing) = data.missing(&rows, &**archive)? else {
        return Ok(None);
    };
    let missing = missing.into_iter().map(|place| rows[place].clone());
    let whole = data.put_back(missing.collect(), archive.clone(), MEMORY)?;
    Ok((whole.digest()? == digest).then_some(whole))
}

/// The data set with the forgotten images that `archive` holds and it lacks: where the model's own run had them, if the data is
/// what was left of that run's, and behind all others if not.
///
/// # Errors
/// An image that cannot be read.
pub fn with_forgotten(
    data: Dataset,
    archive: &Arc<Archive>,
    model: &Path,
) -> Result<Dataset, Failure> {
    let recorded = RunFolder::recorded(model).map(|(config, _)| config);
    let digest = recorded
        .as_ref()
        .and_then(|config| config["data_digest"].as_str());
    let whole = match digest {
        Some(digest) => restored(&data, archive, digest)?,
        None => None,
    };
    let extended = match whole {
        Some(whole) => whole,
        None => {
            let mut kept: Vec<_> = archive.forgotten().collect();
            kept.sort_by_key(|(digest, _)| *digest);
            kept.dedup_by(|(one, _), (other, _)| one == other);
            let all = (data.len()..).zip(kept.into_iter().map(|(_, row)| row));
            let all: Vec<_> = all.collect();
            let extended = data.put_back(all.clone(), archive.clone(), MEMORY)?;
            // Those that still are in the data need no copy.
            let copies = Split::new(&extended, extended.returned(), BUDGET)?.duplicates;
            let there = extended.digests(&copies)?;
            let is_lacking = |row: usize| -> Result<bool, Failure> {
                Ok(extended.digests(&[row])?.is_disjoint(&there))
            };
            let mut lacking = Vec::new();
            for (row, kept) in all {
                if is_lacking(row)? {
                    lacking.push((data.len() + lacking.len(), kept));
                }
            }
            data.put_back(lacking, archive.clone(), MEMORY)?
        }
    };
    progress::note(format!(
        "{}: {} put back in memory",
        archive.path().display(),
        counted(extended.returned().len(), "row")
    ));
    Ok(extended)
}
