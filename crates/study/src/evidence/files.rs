//! The files of a run and their digests.

use std::fs;
use std::path::{Path, PathBuf};

use retrack_checkpoint::folder::sha256_file;
use retrack_eval::report::{FileDigest, Role};

use super::card;
use crate::failure::Failure;

/// The files of a model folder, sorted: all but the run's record, the card (which its owner may edit) and names with a dot
/// first, which other programs leave.
///
/// # Errors
/// The system's.
pub fn output_paths(root: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let path = root.join(&folder);
        let read = |error| Failure::read(&path, error);
        for entry in fs::read_dir(&path).map_err(read)? {
            let entry = entry.map_err(read)?;
            let name = entry.file_name();
            let relative = folder.join(&name);
            let top = folder.as_os_str().is_empty();
            if name.to_string_lossy().starts_with('.')
                || (top && (name == "run" || name == card::NAME))
            {
                continue;
            }
            // A link may lead in a circle.
            match entry.file_type().map_err(read)?.is_dir() {
                true => folders.push(relative),
                false => found.push(relative),
            }
        }
    }
    found.sort();
    Ok(found)
}

/// SHA-256 of every one of these files in a model folder.
///
/// # Errors
/// The system's.
pub fn output_files(root: &Path, paths: &[PathBuf]) -> Result<Vec<FileDigest>, Failure> {
    let digests = paths.iter().map(|path| {
        let digest = FileDigest {
            role: Role::Output,
            sha256: sha256_file(&root.join(path))?,
            path: path.display().to_string(),
        };
        Ok(digest)
    });
    digests.collect()
}

/// SHA-256 of what a run recorded.
///
/// # Errors
/// The system's.
pub fn record_files(folder: &Path) -> Result<Vec<FileDigest>, Failure> {
    let names = ["config.json", "events.jsonl"]
        .into_iter()
        .filter(|name| folder.join(name).is_file());
    names
        .map(|name| {
            Ok(FileDigest {
                role: Role::Record,
                path: name.into(),
                sha256: sha256_file(&folder.join(name))?,
            })
        })
        .collect()
}
