//! What commands ask of the folders that they read and write.

use std::fmt::Display;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::run::Existing;
use retrack_checkpoint::folder::{ModelFolder, sha256_file};
use retrack_eval::pictures;
use serde_json::Value;

use crate::failure::Failure;
use crate::field::Field;

/// What to do with an output folder that is not empty.
pub fn existing(force: bool, resume: bool) -> Existing {
    match (force, resume) {
        (_, true) => Existing::Resume,
        (true, false) => Existing::Force,
        (false, false) => Existing::Refuse,
    }
}

/// Without links. What does not exist yet lies in the nearest folder that does.
fn absolute(path: &Path) -> std::io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    let mut existing = path.as_path();
    while !existing.exists() {
        existing = existing.parent().unwrap_or(Path::new("/"));
    }
    let rest = path.strip_prefix(existing).unwrap_or(Path::new(""));
    Ok(existing.canonicalize()?.join(rest))
}

/// Whether a file is or would be in a folder, or that folder itself.
pub fn is_inside(file: &Path, folder: &Path) -> bool {
    match (absolute(file), absolute(folder)) {
        (Ok(file), Ok(folder)) => file.starts_with(folder),
        _ => false,
    }
}

/// Refuses an output folder that is, holds or lies in an input's.
pub fn outside(out: &Path, input: &Path, what: &str) -> Result<(), Failure> {
    let (Ok(inner), Ok(outer)) = (absolute(out), absolute(input)) else {
        return Ok(());
    };
    if inner.starts_with(&outer) || outer.starts_with(&inner) {
        return Err(Failure::input(format!(
            "{}: the output folder overlaps the {what} folder {}; choose one elsewhere",
            out.display(),
            input.display()
        )));
    }
    Ok(())
}

/// Refuses an output folder that is, holds or lies in something that the command reads: it would be replaced with what an
/// earlier command wrote there. `inputs`: files and folders, each with what it is to the command; not those that were not
/// given.
pub fn outside_all<'a>(
    out: &Path,
    inputs: impl IntoIterator<Item = (&'static str, Option<&'a Path>)>,
) -> Result<(), Failure> {
    for (what, input) in inputs {
        let Some(input) = input else { continue };
        if input.is_dir() {
            outside(out, input, what)?;
        } else if is_inside(input, out) {
            return Err(Failure::input(format!(
                "{}: lies in the output folder {}, whose files may be replaced; choose another output folder, or move \
                 the file out of it",
                input.display(),
                out.display()
            )));
        }
    }
    Ok(())
}

/// What is typed for an option that takes a file or something else, where it names a file or a folder.
pub fn as_path(text: &str) -> Option<&Path> {
    Some(Path::new(text)).filter(|path| path.exists())
}

/// What the metadata of tensors says that a command wrote, its only entry.
pub const MADE_BY: (&str, &str) = ("made_by", "retrack");

/// Whether a file is one that a command wrote for `--out` or `--output`: pictures and tensors say so at their start.
fn is_own(path: &Path) -> bool {
    let mut start = Vec::new();
    let read = File::open(path).and_then(|file| file.take(64).read_to_end(&mut start));
    let (key, value) = MADE_BY;
    let tensors = format!("{{\"__metadata__\":{{\"{key}\":\"{value}\"");
    let is_tensors = |start: &[u8]| {
        let header = start.get(8..);
        header.is_some_and(|header| header.starts_with(tensors.as_bytes()))
    };
    read.is_ok() && (pictures::is_own(&start) || is_tensors(&start))
}

/// Refuses to write a file over one that is there and was not written by a command like this, unless `force` says so.
pub fn new_file(path: &Path, force: bool) -> Result<(), Failure> {
    let refused = |why: &dyn Display| Err(Failure::input(format!("{}: {why}", path.display())));
    let above = path.ancestors().skip(1).find(|above| above.exists());
    if let Some(file) = above.filter(|above| !above.is_dir()) {
        return refused(&format_args!(
            "{} is a file, and a folder is needed there; choose another name",
            file.display()
        ));
    }
    match path.symlink_metadata() {
        Ok(found) if found.is_dir() => refused(&"a folder; give the name of a file"),
        Ok(_) if force => Ok(()),
        Ok(found) if found.is_file() && is_own(path) => Ok(()),
        Ok(_) => refused(&format_args!(
            "there already, and not written by retrack; choose another name, or give {} to replace it",
            Field::Force
        )),
        Err(_) => Ok(()),
    }
}

/// The same for what is made of `input`, which is not replaced in any case.
pub fn new_file_beside(path: &Path, input: &Path, force: bool) -> Result<(), Failure> {
    if let (Ok(output), Ok(input)) = (path.canonicalize(), input.canonicalize())
        && output == input
    {
        return Err(Failure::input(format!(
            "{}: the input itself; choose another name for the output",
            path.display()
        )));
    }
    new_file(path, force)
}

/// SHA-256 of each weight file of a model, by its path in the folder.
pub fn digests(folder: &ModelFolder) -> Result<serde_json::Map<String, Value>, Failure> {
    let mut weights = serde_json::Map::new();
    for path in folder.weight_files() {
        let digest = sha256_file(&path)?;
        let name = path.strip_prefix(folder.root()).unwrap_or(&path);
        weights.insert(name.display().to_string(), digest.into());
    }
    Ok(weights)
}
