//! What a run leaves beside the model: its configuration and what happened at each step.
//!
//! `OUT/run/config.json` holds the resolved configuration, `OUT/run/events.jsonl` one line a step,
//! `OUT/run/events.out.tfevents.*` the same for TensorBoard. Rows are named by number; no pixels.

use std::cell::Cell;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::lock::{self, Lock, LockError};
use crate::tensorboard::{EventWriter, TensorboardError};
use crate::trainer::StepReport;
use crate::{checkpoint, durable};

/// Why a run folder cannot be used. What to do about it depends on the command, which adds it.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("{}: the output folder is not empty", path.display())]
    NotEmpty { path: PathBuf },
    #[error("{}: not a folder; choose another output folder", path.display())]
    NotAFolder { path: PathBuf },
    #[error("{}: not empty, and neither a model folder nor a run: it will not be replaced; choose another", path.display())]
    NotOurs { path: PathBuf },
    #[error("{}: an interrupted run lies here", path.display())]
    Interrupted { path: PathBuf },
    #[error("{}: there is no interrupted run to resume", path.display())]
    NothingToResume { path: PathBuf },
    #[error("{}: the run was started with another {key}: {old} then, {new} now; use the same, or another output folder", path.display())]
    Differs {
        path: PathBuf,
        key: String,
        old: String,
        new: String,
    },
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{}: not a run's configuration: {problem}", path.display())]
    Config { path: PathBuf, problem: String },
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error("{}: cannot be the output folder: {source}; choose another", path.display())]
    Unusable { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Tensorboard(#[from] TensorboardError),
}

/// What to do with an output folder that is not empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    Refuse,
    /// Replace a model folder or a run.
    Force,
    /// Continue the run that was interrupted there.
    Resume,
}

/// Lies in a run's folder until its model is in place. Once the run has been resumed it says what was [`Spent`] before.
const UNFINISHED: &str = "unfinished";
/// Each step's record; the last one says how long the run has taken.
const EVENTS: &str = "events.jsonl";
/// The key under which it does.
const ELAPSED: &str = "elapsed_seconds";
/// Lies there while the complete model moves into place.
const MOVING: &str = "moving";

/// What the parts of a run took that were interrupted: until the last step that each recorded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Spent {
    pub seconds: f64,
    /// How often the run was resumed.
    pub resumptions: usize,
    /// Steps that were taken again, because a kill came between them and the next checkpoint.
    pub repeated_steps: usize,
}

/// The seconds that a run had taken when it recorded its last step; `None` where it recorded none.
pub fn recorded_seconds(out: &Path) -> Option<f64> {
    let text = fs::read_to_string(out.join("run").join(EVENTS)).ok()?;
    let events = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    events
        .filter_map(|event: Value| event.get(ELAPSED)?.as_f64())
        .reduce(f64::max)
}

/// The output folder of a run, which no other process writes to while this lives.
#[derive(Debug)]
pub struct RunFolder {
    out: PathBuf,
    /// When this part of the run began.
    start: Instant,
    /// What came before.
    spent: Cell<Spent>,
    _lock: Lock,
}

impl RunFolder {
    /// Checks `out` without changing anything.
    ///
    /// # Errors
    /// A folder that `existing` does not cover, or that another process writes to.
    pub fn check(out: &Path, existing: Existing) -> Result<(), RunError> {
        Lock::check(&out.join("run"))?;
        Self::check_contents(out, existing)
    }

    fn check_contents(out: &Path, existing: Existing) -> Result<(), RunError> {
        let path = out.to_path_buf();
        let io_error = |source| RunError::Unusable {
            path: out.to_path_buf(),
            source,
        };
        let mut names = Vec::new();
        match fs::read_dir(out) {
            Ok(entries) => {
                for entry in entries {
                    names.push(entry.map_err(io_error)?.file_name());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                return Err(RunError::NotAFolder { path });
            }
            Err(error) => return Err(io_error(error)),
        }
        names.retain(|name| name != "run" || !has_not_begun(&out.join("run")));
        let interrupted = out.join("run").join(UNFINISHED).is_file();
        match existing {
            Existing::Resume if !interrupted => Err(RunError::NothingToResume { path }),
            Existing::Resume => Ok(()),
            _ if names.is_empty() => Ok(()),
            Existing::Force if is_model(out) || is_run(out) => Ok(()),
            Existing::Force => Err(RunError::NotOurs { path }),
            Existing::Refuse if interrupted => Err(RunError::Interrupted { path }),
            Existing::Refuse => Err(RunError::NotEmpty { path }),
        }
    }

    /// Starts a run in `out` with this resolved configuration, or continues one that has the same.
    ///
    /// # Errors
    /// As [`check`](Self::check); a run that was started with another configuration.
    pub fn begin(out: &Path, existing: Existing, config: &Value) -> Result<Self, RunError> {
        Self::check(out, existing)?;
        let lock = Lock::take(&out.join("run"))?;
        // Again, now that nobody else changes it.
        Self::check_contents(out, existing)?;
        let run = Self {
            out: out.to_path_buf(),
            start: Instant::now(),
            spent: Cell::default(),
            _lock: lock,
        };
        let folder = run.folder();
        let io_error = |source| RunError::Io {
            path: folder.clone(),
            source,
        };
        let path = folder.join("config.json");
        if existing == Existing::Resume {
            run.compare(&path, config)?;
            let text = fs::read_to_string(folder.join(UNFINISHED)).map_err(io_error)?;
            let mut spent: Spent = serde_json::from_str(&text).unwrap_or_default();
            spent.seconds = spent.seconds.max(recorded_seconds(out).unwrap_or(0.0));
            spent.resumptions += 1;
            run.spent.set(spent);
            if !run.is_moving() {
                run.record_spent().map_err(io_error)?;
            }
            return Ok(run);
        }
        for entry in fs::read_dir(&folder).map_err(io_error)? {
            let entry = entry.map_err(io_error)?;
            if entry.file_name() != lock::NAME {
                remove(&entry.path()).map_err(io_error)?;
            }
        }
        let text = serde_json::to_string_pretty(config).expect("JSON has no unwritable values");
        durable::write(&path, |out| writeln!(out, "{text}")).map_err(io_error)?;
        durable::write(&folder.join(UNFINISHED), |_| Ok(())).map_err(io_error)?;
        Ok(run)
    }

    fn compare(&self, path: &Path, config: &Value) -> Result<(), RunError> {
        let problem = |problem: String| RunError::Config {
            path: path.to_path_buf(),
            problem,
        };
        let text = fs::read_to_string(path).map_err(|source| RunError::Io {
            path: path.to_path_buf(),
            source,
        })?;
        let old: Value = serde_json::from_str(&text).map_err(|e| problem(e.to_string()))?;
        if !(old.is_object() && config.is_object()) {
            return Err(problem("not an object".into()));
        }
        match Difference::first(&old, config) {
            None => Ok(()),
            Some(Difference { key, old, new }) => Err(RunError::Differs {
                path: self.out.clone(),
                key,
                old,
                new,
            }),
        }
    }

    fn record_spent(&self) -> io::Result<()> {
        let text = serde_json::to_string(&self.spent.get()).expect("numbers");
        durable::write(&self.folder().join(UNFINISHED), |out| {
            writeln!(out, "{text}")
        })
    }

    /// Counts this part of the run from `start` on, where its work began before the folder was taken.
    pub fn started(self, start: Instant) -> Self {
        Self { start, ..self }
    }

    /// What the interrupted parts of the run took.
    pub fn spent(&self) -> Spent {
        self.spent.get()
    }

    /// Seconds that the run has taken, in all its parts: those of steps that had to be repeated count twice.
    pub fn seconds(&self) -> f64 {
        self.spent.get().seconds + self.start.elapsed().as_secs_f64()
    }

    /// Where the run's own files are.
    pub fn folder(&self) -> PathBuf {
        self.out.join("run")
    }

    /// Where to write the finished model, to be moved into place by [`publish`](Self::publish). What an
    /// interrupted run left there is removed.
    ///
    /// # Errors
    /// The disk's.
    pub fn staging(&self) -> Result<PathBuf, RunError> {
        let path = self.staged();
        if path.exists() {
            fs::remove_dir_all(&path).map_err(|source| RunError::Io {
                path: path.clone(),
                source,
            })?;
        }
        Ok(path)
    }

    /// The path that [`staging`](Self::staging) makes room at.
    pub fn staged(&self) -> PathBuf {
        self.folder().join("model")
    }

    /// Whether the run was interrupted while its complete model moved into place: nothing but
    /// [`publish`](Self::publish) is left to do.
    pub fn is_moving(&self) -> bool {
        self.folder().join(MOVING).is_file()
    }

    /// Moves the model from [`staging`](Self::staging) to the output folder, in place of what was there, and removes
    /// the checkpoints. Its index comes last: a folder without one is no model to anybody.
    ///
    /// # Errors
    /// The disk's.
    pub fn publish(&self) -> Result<(), RunError> {
        let io_error = |source| RunError::Io {
            path: self.out.clone(),
            source,
        };
        let list = |folder: &Path| -> io::Result<Vec<PathBuf>> {
            fs::read_dir(folder)?
                .map(|entry| Ok(entry?.path()))
                .collect()
        };
        let folder = self.folder();
        if !self.is_moving() {
            // The record of the run that made the input model is no part of this one.
            let earlier = self.staged().join("run");
            if earlier.is_dir() {
                fs::remove_dir_all(&earlier).map_err(io_error)?;
            }
            for old in list(&self.out).map_err(io_error)? {
                if old == self.folder() {
                    continue;
                }
                remove(&old).map_err(io_error)?;
            }
            durable::write(&folder.join(MOVING), |_| Ok(())).map_err(io_error)?;
        }
        let index = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default();
            name == "model_index.json" || name == "config.json"
        };
        if self.staged().is_dir() {
            let mut files = list(&self.staged()).map_err(io_error)?;
            files.sort_by_key(index);
            for file in files {
                let name = file.file_name().expect("listed");
                fs::rename(&file, self.out.join(name)).map_err(io_error)?;
            }
            fs::remove_dir(self.staged()).map_err(io_error)?;
        }
        durable::sync_folder(&self.out).map_err(io_error)?;
        checkpoint::remove_all(&folder).map_err(io_error)?;
        // In this order: without the second mark the first one means nothing.
        fs::remove_file(folder.join(UNFINISHED)).map_err(io_error)?;
        fs::remove_file(folder.join(MOVING)).map_err(io_error)?;
        durable::sync_folder(&folder).map_err(io_error)
    }
}

/// Where two configurations differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// As `outer.inner`.
    pub key: String,
    /// The values, or `nothing`.
    pub old: String,
    pub new: String,
}

impl Difference {
    /// The first difference between a configuration that was read from a file and one that would be written to it.
    pub fn first(old: &Value, new: &Value) -> Option<Self> {
        // Through text as well: reading may round a number's last digit.
        let new: Value = serde_json::from_str(&new.to_string()).expect("just written");
        Self::below(Some(old), Some(&new), String::new())
    }

    fn below(old: Option<&Value>, new: Option<&Value>, key: String) -> Option<Self> {
        if let (Some(Value::Object(a)), Some(Value::Object(b))) = (old, new) {
            return b.keys().chain(a.keys()).find_map(|inner| {
                let dot = if key.is_empty() { "" } else { "." };
                Self::below(a.get(inner), b.get(inner), format!("{key}{dot}{inner}"))
            });
        }
        let shown = |value: Option<&Value>| value.map_or("nothing".into(), Value::to_string);
        (old != new).then(|| Self {
            key,
            old: shown(old),
            new: shown(new),
        })
    }
}

/// Removes a file, a link, or a folder with what is in it.
fn remove(path: &Path) -> io::Result<()> {
    if path.is_dir() && !path.is_symlink() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    }
}

/// Whether a run was killed in this folder before it had begun: [`RunFolder::begin`] writes these and then its mark.
fn has_not_begun(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|mut entries| {
        entries.all(|entry| {
            entry.is_ok_and(|entry| {
                let name = entry.file_name();
                let name = name.to_string_lossy();
                name == lock::NAME || name == "config.json" || name.starts_with(durable::TEMPORARY)
            })
        })
    })
}

/// Whether a file is a JSON object with text under `key`.
fn has_text(path: &Path, key: &str) -> bool {
    let text = fs::read_to_string(path).unwrap_or_default();
    let json: Value = serde_json::from_str(&text).unwrap_or_default();
    json.get(key).is_some_and(Value::is_string)
}

/// Many programs keep a config.json; a model's names its class.
fn is_model(folder: &Path) -> bool {
    has_text(&folder.join("model_index.json"), "_class_name")
        || has_text(&folder.join("config.json"), "_class_name")
}

fn is_run(folder: &Path) -> bool {
    has_text(&folder.join("run/config.json"), "command")
}

/// The record of each step: `events.jsonl` and TensorBoard.
#[derive(Debug)]
pub struct EventLog {
    path: PathBuf,
    lines: File,
    tensorboard: EventWriter,
}

impl EventLog {
    /// A new record, or one that goes on after `step` steps: what an interrupted run wrote beyond is
    /// dropped.
    ///
    /// # Errors
    /// The disk's.
    pub fn open(run: &RunFolder, step: usize) -> Result<Self, RunError> {
        let path = run.folder().join(EVENTS);
        let io_error = |source| RunError::Io {
            path: path.clone(),
            source,
        };
        let (mut kept, mut dropped) = (Vec::new(), 0);
        if path.exists() {
            let file = BufReader::new(File::open(&path).map_err(io_error)?);
            for line in file.lines() {
                let line = line.map_err(io_error)?;
                let event: Value = serde_json::from_str(&line).unwrap_or_default();
                match event.get("step").and_then(Value::as_u64) {
                    Some(of) if of <= step as u64 => kept.push(line),
                    Some(_) => dropped += 1,
                    None => {}
                }
            }
        }
        if dropped > 0 {
            let mut spent = run.spent.get();
            spent.repeated_steps += dropped;
            run.spent.set(spent);
            run.record_spent().map_err(io_error)?;
        }
        durable::write(&path, |out| {
            kept.iter().try_for_each(|line| writeln!(out, "{line}"))
        })
        .map_err(io_error)?;
        let lines = OpenOptions::new().append(true).open(&path);
        let mut tensorboard = EventWriter::create(&run.folder())?;
        if step > 0 {
            tensorboard.resume_at(step as u64 + 1)?;
        }
        Ok(Self {
            lines: lines.map_err(io_error)?,
            path,
            tensorboard,
        })
    }

    /// Records one step of `run`, and what else was seen after it.
    ///
    /// # Errors
    /// The disk's.
    pub fn record(
        &mut self,
        run: &RunFolder,
        report: &StepReport,
        more: &[(&str, f64)],
    ) -> Result<(), RunError> {
        let losses = &report.losses;
        let mut event = json!({
            "step": report.step,
            "loss": losses.loss,
            "gradient_norm": report.gradient_norm,
            "learning_rate": report.learning_rate,
            "seconds": report.seconds,
            ELAPSED: run.seconds(),
        });
        let mut scalars = vec![
            ("loss", losses.loss as f32),
            ("gradient_norm", report.gradient_norm as f32),
            ("learning_rate", report.learning_rate as f32),
            ("seconds", report.seconds as f32),
        ];
        let terms = [
            ("retain_loss", losses.retain),
            ("forget_loss", losses.forget),
            ("correction_loss", losses.correction),
            ("watched_retain_loss", report.watched_retain),
            ("collapse_factor", report.collapsed),
        ];
        for (name, term) in terms {
            if let Some(term) = term {
                event[name] = term.into();
                scalars.push((name, term as f32));
            }
        }
        for &(name, value) in more {
            event[name] = value.into();
            scalars.push((name, value as f32));
        }
        writeln!(self.lines, "{event}").map_err(|source| RunError::Io {
            path: self.path.clone(),
            source,
        })?;
        self.tensorboard.scalars(report.step as u64, &scalars)?;
        self.tensorboard.flush()?;
        Ok(())
    }

    /// Records a picture, the bytes of a PNG file.
    ///
    /// # Errors
    /// The disk's.
    pub fn picture(&mut self, step: usize, tag: &str, png: &[u8]) -> Result<(), RunError> {
        self.tensorboard.image(step as u64, tag, png)?;
        Ok(self.tensorboard.flush()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_named_by_its_path() {
        let old = json!({"a": {"b": 1, "c": [2]}, "d": 3});
        let new = json!({"a": {"b": 1, "c": [3]}, "d": 3});
        assert_eq!(Difference::first(&old, &old), None);
        let found = Difference::first(&old, &new).unwrap();
        assert_eq!(
            (&*found.key, &*found.old, &*found.new),
            ("a.c", "[2]", "[3]")
        );
        let found = Difference::first(&old, &json!({"a": old["a"]})).unwrap();
        assert_eq!((&*found.key, &*found.new), ("d", "nothing"));
    }
}
