//! The files of a folder and some way below it.

use std::cell::OnceCell;
use std::fs;
use std::path::{Path, PathBuf};

use super::error::DataError;
use super::sources::SOURCES;
use super::sources::images::is_image_name;

/// Folders below the one that is named in which files of a data set are looked for: Hugging Face keeps
/// `default/train/0000.parquet`.
pub(crate) const DEPTH: usize = 3;
/// Names of files that tell nothing are kept up to this number, for messages.
const MOST_NAMES: usize = 10_000;

/// A folder, whose files are listed when somebody asks for them.
pub(crate) struct Listing<'a> {
    pub root: &'a Path,
    files: OnceCell<Vec<String>>,
}

impl<'a> Listing<'a> {
    pub(crate) fn new(root: &'a Path) -> Self {
        Self {
            root,
            files: OnceCell::new(),
        }
    }

    /// Files by their sorted paths below the folder, [`DEPTH`] folders down at most, without hidden ones and without images.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub(crate) fn files(&self) -> Result<&[String], DataError> {
        match self.files.get() {
            Some(files) => Ok(files),
            None => {
                let files = below(self.root)?;
                Ok(self.files.get_or_init(|| files))
            }
        }
    }

    /// Those of the files whose own names, without folders, are wanted.
    ///
    /// # Errors
    /// As [`files`](Self::files).
    pub(crate) fn called(&self, wanted: impl Fn(&str) -> bool) -> Result<Vec<String>, DataError> {
        let files = self.files()?.iter();
        Ok(files.filter(|file| wanted(plain(file))).cloned().collect())
    }

    /// Whether folders lie [`DEPTH`] levels down, in which nobody looked.
    pub(crate) fn is_deeper(&self) -> bool {
        let mut level = vec![self.root.to_owned()];
        for _ in 0..=DEPTH {
            let below = |folder: &PathBuf| {
                let entries = fs::read_dir(folder).into_iter().flatten().flatten();
                let seen =
                    entries.filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'));
                let folders = seen.map(|entry| entry.path()).filter(|path| path.is_dir());
                folders.take(MOST_NAMES).collect::<Vec<_>>()
            };
            level = level.iter().flat_map(below).take(MOST_NAMES).collect();
        }
        !level.is_empty()
    }
}

/// The last part of a path.
pub(crate) fn plain(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

fn below(root: &Path) -> Result<Vec<String>, DataError> {
    let mut files = Vec::new();
    let mut folders = vec![(String::new(), 0)];
    while let Some((name, depth)) = folders.pop() {
        let folder = root.join(&name);
        let io = |error| DataError::io(&folder, error);
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if depth == 0 => return Err(io(error)),
            // What cannot be looked into is reported where images are looked for.
            Err(_) => continue,
        };
        for entry in entries {
            let entry = entry.map_err(io)?;
            let Some(own) = entry.file_name().to_str().map(str::to_owned) else {
                continue;
            };
            if own.starts_with('.') {
                continue;
            }
            let is_image = is_image_name(Path::new(&own));
            let is_known = SOURCES.iter().any(|format| format.knows(&own));
            let path = match name.as_str() {
                "" => own,
                name => format!("{name}/{own}"),
            };
            // Links are followed: Hugging Face's cache is made of them.
            let kind = entry.file_type().map_err(io)?;
            if kind.is_dir() || (kind.is_symlink() && entry.path().is_dir()) {
                if depth < DEPTH {
                    folders.push((path, depth + 1));
                }
            } else if !is_image && entry.path().is_file() && (files.len() < MOST_NAMES || is_known)
            {
                files.push(path);
            }
        }
    }
    files.sort_unstable();
    Ok(files)
}
