//! What of a written folder is not passed on with the model, for Git and for huggingface_hub's `upload_folder`, which
//! sends the folder's `.gitignore` along for the Hub to heed (nested ones it does not).

use std::path::Path;

use crate::failure::Failure;
use crate::model;

/// The file's name.
pub const NAME: &str = ".gitignore";

/// The record holds rows, paths and settings; the page is made to be shown.
const CONTENT: &str = "\
# Written by retrack: of a run's record, the report alone is for others.
/run/*
!/run/report.html
!/run/report.json
*.digest-key
*.sealed.age
";

/// Puts a `.gitignore` into a complete model folder that is not in its place yet, where it came without one. `out`: that place.
///
/// # Errors
/// The system's.
pub fn write(folder: &Path, out: &Path) -> Result<(), Failure> {
    let path = folder.join(NAME);
    match path.exists() {
        true => Ok(()),
        false => model::write_for(&path, &out.join(NAME), CONTENT.as_bytes()),
    }
}
