//! What the files of a run are called.

use crate::calibration;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::Path;

use retrack_checkpoint::durable;
use retrack_unlearn::checkpoint;

use crate::tensorboard::EventWriter;

/// Lies in a run's folder until its model is in place. Holds the paths of the model's files, one a line.
pub(super) const UNFINISHED: &str = "unfinished";
/// Lies there while the complete model moves into place: the list of its files.
pub(super) const MOVING: &str = "moving";
/// Lies there once the run was resumed, until its model is in place: what was [`Spent`](super::Spent) before.
pub(super) const EARLIER: &str = "earlier.json";
pub(super) const CONFIG: &str = "config.json";
pub(crate) const EVENTS: &str = "events.jsonl";
/// The key of an event that says how long the run had taken.
pub(crate) const ELAPSED: &str = "elapsed_seconds";
/// Where the model is written.
pub(super) const STAGED: &str = "model";
/// How the name begins that it has until it is whole.
pub(super) const PARTIAL: &str = ".model.partial-";
pub(super) const FOLDER: &str = "run";
/// What else a run writes into its folder under fixed names.
const EVIDENCE: [&str; 5] = [
    "report.html",
    "report.json",
    LOSS_CURVE,
    calibration::FILE,
    calibration::TABLE,
];
/// The picture of the losses that `train` draws.
pub const LOSS_CURVE: &str = "loss.svg";

/// The name of the picture of samples after a step.
pub fn samples_name(step: usize) -> String {
    format!("samples-{step:08}.png")
}

/// Whether a run writes files of this name into its folder.
pub(super) fn is_runs(name: &str) -> bool {
    let numbered = |name: &str| {
        let step = name
            .strip_prefix("samples-")
            .and_then(|rest| rest.strip_suffix(".png"));
        step.is_some_and(|step| step.len() >= 8 && step.bytes().all(|byte| byte.is_ascii_digit()))
    };
    [UNFINISHED, MOVING, EARLIER, CONFIG, EVENTS].contains(&name)
        || EVIDENCE.contains(&name)
        || numbered(name)
        || EventWriter::is_name(name)
        || checkpoint::is_name(name)
        || durable::is_temporary(name)
}

/// How the name of a folder begins in which a command builds a model, in the output folder, before that changes.
pub const BUILDING: &str = ".merging-";

/// Whether a file's name in an output folder is that of a model being built, or of what a kill left of one: it is in
/// nobody's way, and never removed. Until it is whole its own name has a dot more.
pub(super) fn is_building(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    let name = name
        .strip_prefix('.')
        .filter(|rest| rest.starts_with('.'))
        .unwrap_or(&name);
    name.strip_prefix(BUILDING)
        .is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
}

/// What lies in a finished run's folder under names that a run writes or removes. Not what killed processes left there:
/// an old mark, which is read as a list, and files that were not complete.
pub(super) fn record_names(folder: &Path) -> io::Result<Vec<OsString>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        // Nothing is written through a file; its owner shows with what would be.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return Ok(vec![CONFIG.into()]);
        }
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        let Some(text) = name.to_str() else { continue };
        let is_left = text == MOVING || durable::is_temporary(text);
        if (is_runs(text) && !is_left) || text == STAGED || text.starts_with(PARTIAL) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}
