//! How far the run in a folder has come, and what it recorded of itself.

use std::fs;
use std::path::Path;

use retrack_checkpoint::durable;
use retrack_checkpoint::lock;
use retrack_checkpoint::written::{self, Command};
use serde_json::Value;

use super::RunFolder;
use super::names::{CONFIG, ELAPSED, EVENTS, FOLDER, UNFINISHED};

/// How far a run has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// There is nothing, or what a kill left of its beginning.
    NotBegun,
    /// A run that was interrupted.
    Interrupted,
    /// It came to its end, or something else lies there.
    Ended,
}

impl RunFolder {
    /// The configuration of the run that lies in an output folder, and whether it came to its end.
    pub fn recorded(out: &Path) -> Option<(Value, bool)> {
        let folder = out.join(FOLDER);
        let text = fs::read_to_string(folder.join(CONFIG)).ok()?;
        let ended = !is_unfinished(out) && !has_not_begun(&folder);
        Some((serde_json::from_str(&text).ok()?, ended))
    }

    /// How far a run has come in an output folder.
    pub fn state(out: &Path) -> State {
        let folder = out.join(FOLDER);
        if is_unfinished(out) {
            return State::Interrupted;
        }
        let began = fs::read_dir(out).is_ok_and(|mut entries| {
            entries.any(|entry| {
                let name = entry.map(|entry| entry.file_name()).unwrap_or_default();
                let is_begun_run = name == FOLDER && !has_not_begun(&folder);
                is_begun_run || name != FOLDER && !durable::is_temporary(&name.to_string_lossy())
            })
        });
        match began {
            true => State::Ended,
            false => State::NotBegun,
        }
    }
}

/// The seconds that a run had taken when it recorded its last step; `None` where it recorded none.
pub fn recorded_seconds(out: &Path) -> Option<f64> {
    let text = fs::read_to_string(out.join(FOLDER).join(EVENTS)).ok()?;
    let events = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    events
        .filter_map(|event: Value| event.get(ELAPSED)?.as_f64())
        .reduce(f64::max)
}

/// Whether a run was killed in this folder before it had begun: [`RunFolder::begin`] writes these and then its mark.
pub(super) fn has_not_begun(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|mut entries| {
        entries.all(|entry| {
            entry.is_ok_and(|entry| {
                let name = entry.file_name();
                let name = name.to_string_lossy();
                name == lock::NAME
                    || name == CONFIG && is_config(&entry.path())
                    || durable::is_temporary(&name)
            })
        })
    })
}

/// Whether a run was interrupted in this output folder. One that replaces another writes its mark before its
/// configuration; that other left the list.
pub(super) fn is_unfinished(out: &Path) -> bool {
    let folder = out.join(FOLDER);
    folder.join(UNFINISHED).is_file()
        && (is_config(&folder.join(CONFIG)) || out.join(written::NAME).is_file())
}

/// Whether a file is the configuration of a run.
fn is_config(path: &Path) -> bool {
    command_of_config(path).is_some()
}

/// The command whose run's record lies in a folder.
pub(super) fn recorded_command(folder: &Path) -> Option<Command> {
    command_of_config(&folder.join(CONFIG))
}

/// The command that a run's configuration names, with which version and what it worked on; `None` of another file.
fn command_of_config(path: &Path) -> Option<Command> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let json: Value = serde_json::from_str(&text).unwrap_or_default();
    let command = Command::of(&json)?;
    let worked_on = match command {
        Command::Train | Command::Unlearn => "data_digest",
        Command::Merge => "adapter_sha256",
        _ => return None,
    };
    let is_whole =
        json.get("version").is_some_and(Value::is_string) && json.get(worked_on).is_some();
    is_whole.then_some(command)
}
