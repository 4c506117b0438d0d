//! The files of a run and their digests.

use std::fs;
use std::path::{Path, PathBuf};

use retrack_eval::report::{FileDigest, Role};
use retrack_networks::folder::sha256_file;

use super::card;
use crate::failure::Failure;

/// SHA-256 of every file of a model folder, by path: all but the run's record, the card (which its owner may edit) and
/// names with a dot first, which other programs leave.
///
/// # Errors
/// The system's.
pub fn output_files(root: &Path) -> Result<Vec<FileDigest>, Failure> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let path = root.join(&folder);
        let entries = fs::read_dir(&path).map_err(|error| Failure::read(&path, error))?;
        for entry in entries {
            let entry = entry.map_err(|error| Failure::read(&path, error))?;
            let name = entry.file_name();
            let relative = folder.join(&name);
            let top = folder.as_os_str().is_empty();
            if name.to_string_lossy().starts_with('.')
                || (top && (name == "run" || name == card::NAME))
            {
                continue;
            }
            if entry.path().is_dir() {
                folders.push(relative);
                continue;
            }
            found.push(FileDigest {
                role: Role::Output,
                sha256: sha256_file(&entry.path())?,
                path: relative.display().to_string(),
            });
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
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
