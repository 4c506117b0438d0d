//! The folder of an experiment: what it says of itself, the results of its runs, and its table.

use std::fs;
use std::path::{Path, PathBuf};

use retrack_checkpoint::durable;
use retrack_checkpoint::lock::{self, Lock};
use retrack_checkpoint::written::{self, Command, Output};
use serde::Serialize;
use serde_json::Value;

use super::outcome::Outcome;
use super::plan::Run;
use crate::evidence;
use crate::failure::Failure;
use crate::run::Difference;

/// The file that says what is compared.
const IDENTITY: &str = "experiment.json";
/// The table, for programs and for people.
pub(super) const SUMMARY: [&str; 2] = ["summary.json", "summary.md"];

/// Where the model of a run is.
pub(super) fn model(out: &Path, run: &Run) -> PathBuf {
    out.join("models").join(run.name())
}

/// Where the result of a run is.
pub(super) fn result(out: &Path, run: &Run) -> PathBuf {
    out.join(result_name(&run.name()))
}

/// The same in the folder.
fn result_name(run: &str) -> PathBuf {
    Path::new("results").join(format!("{run}.json"))
}

/// A folder that nobody else writes to.
pub(super) struct Folder<'a> {
    path: &'a Path,
    output: Output,
    _lock: Lock,
}

impl<'a> Folder<'a> {
    /// Takes the folder for a new experiment, or for the one that it holds already.
    ///
    /// # Errors
    /// As [`goes_on`]; somebody else writes there or wrote what would be replaced.
    pub fn begin(path: &'a Path, identity: &Value) -> Result<Self, Failure> {
        let lock = Lock::take(path)?;
        let goes_on = goes_on(path, identity)?;
        // Summaries that somebody wrote on stay: better now than after the last run.
        let mut output = Output::open(path, Command::Experiment, true, |path| {
            let written = SUMMARY.iter().chain(&[evidence::PAGE, evidence::CONTENT]);
            written.into_iter().any(|name| path == Path::new(name))
        })?;
        output.remove_temporaries();
        if !goes_on {
            output.put(&[(IDENTITY.into(), pretty(identity))])?;
        }
        Ok(Self {
            path,
            output,
            _lock: lock,
        })
    }

    /// The result of a run, if it is there.
    ///
    /// # Errors
    /// A file that holds something else.
    pub fn read(&self, run: &Run) -> Result<Option<Outcome>, Failure> {
        let path = result(self.path, run);
        if !path.exists() {
            return Ok(None);
        }
        let text = fs::read_to_string(&path).map_err(|error| Failure::read(&path, error))?;
        let old: Outcome = serde_json::from_str(&text).map_err(|error| {
            Failure::input(format!(
                "{}: not the result of a run ({error}); remove it to measure that run again",
                path.display()
            ))
        })?;
        Ok(Some(Outcome {
            run: run.name(),
            ..old
        }))
    }

    /// Writes a result, so that its run is not repeated.
    pub fn keep(&mut self, outcome: &Outcome) -> Result<(), Failure> {
        self.put(&[(result_name(&outcome.run), pretty(outcome))])
    }

    /// Writes files, each by its path in the folder.
    pub fn put(&mut self, files: &[(PathBuf, Vec<u8>)]) -> Result<(), Failure> {
        Ok(self.output.put(files)?)
    }
}

/// JSON as an experiment's files have it, with a line's end behind it.
pub(super) fn pretty(value: &impl Serialize) -> Vec<u8> {
    let text = serde_json::to_string_pretty(value).expect("JSON has no unwritable values");
    format!("{text}\n").into_bytes()
}

/// Whether the folder holds this experiment already; a new one starts in an empty folder.
///
/// # Errors
/// It holds another experiment or something else.
pub(super) fn goes_on(out: &Path, identity: &Value) -> Result<bool, Failure> {
    let path = out.join(IDENTITY);
    if path.exists() {
        let text = fs::read_to_string(&path).map_err(|error| Failure::read(&path, error))?;
        let old: Value = serde_json::from_str(&text).map_err(|e| Failure::read(&path, e))?;
        return match Difference::first(&old, identity) {
            None => Ok(true),
            Some(difference) => Err(Failure::input(format!(
                "{}: this experiment was started with {difference}; use the same, or another output folder",
                out.display()
            ))),
        };
    }
    // A kill may have left the list, which is written first, the lock and files that are not complete.
    let begins =
        |name: &str| [lock::NAME, written::NAME].contains(&name) || durable::is_temporary(name);
    let empty = fs::read_dir(out).map_or(true, |mut entries| {
        entries.all(|entry| entry.is_ok_and(|entry| entry.file_name().to_str().is_some_and(begins)))
    });
    if !empty {
        return Err(Failure::input(format!(
            "{}: not empty, and no experiment; choose another output folder",
            out.display()
        )));
    }
    Ok(false)
}
