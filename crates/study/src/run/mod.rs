//! What a run leaves beside the model: its configuration and what happened at each step.
//!
//! `OUT/run/config.json` holds the resolved configuration, `OUT/run/events.jsonl` one line a step,
//! `OUT/run/events.out.tfevents.*` the same for TensorBoard. Rows are named by number; no pixels.
//!
//! Only what the tool wrote is ever replaced or removed: what lies in the output folder by the list of
//! [`retrack_checkpoint::written`], what an unfinished run left in `run/` by its names there.

mod check;
mod clear;
mod difference;
mod names;
mod state;

use std::cell::Cell;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use retrack_checkpoint::durable;
use retrack_checkpoint::lock::{Lock, LockError};
use retrack_checkpoint::written::{self, Command, Written, WrittenError};
use retrack_unlearn::checkpoint;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::difference::{Difference, LONGER};
pub use self::names::{BUILDING, LOSS_CURVE, samples_name};
use self::names::{CONFIG, EARLIER, FOLDER, MOVING, STAGED, UNFINISHED, is_runs};
pub(crate) use self::names::{ELAPSED, EVENTS};
pub use self::state::{State, recorded_seconds};
pub use crate::event_log::EventLog;
use crate::publish::publish;
use crate::tensorboard::TensorboardError;

/// Why a run folder cannot be used. What to do about it depends on the command, which adds it.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The folder holds something.
    #[error("{}: the output folder is not empty", path.display())]
    NotEmpty {
        /// The file or folder.
        path: PathBuf,
    },
    /// The path is no folder.
    #[error("{}: not a folder; choose another output folder", path.display())]
    NotAFolder {
        /// The file or folder.
        path: PathBuf,
    },
    /// A model that no run wrote.
    #[error("{}: not empty, and no list of files that retrack wrote lies there ({}): it will not be replaced; move away \
             what is in it, or choose another output folder", path.display(), written::NAME)]
    NotOurs {
        /// The file or folder.
        path: PathBuf,
    },
    /// An interrupted run lies there.
    #[error("{}: an interrupted run lies here", path.display())]
    Interrupted {
        /// The file or folder.
        path: PathBuf,
    },
    /// No interrupted run lies there.
    #[error("{}: there is no interrupted run to resume", path.display())]
    NothingToResume {
        /// The file or folder.
        path: PathBuf,
    },
    /// The run that lies there has another configuration.
    #[error("{}: the run was started with {difference}; use the same, or another output folder", path.display())]
    Differs {
        /// The file or folder.
        path: PathBuf,
        /// The first that differs.
        difference: Difference,
    },
    /// The system refused a file.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's own error.
        source: io::Error,
    },
    /// A configuration that cannot be read.
    #[error("{}: not a run's configuration: {problem}", path.display())]
    Config {
        /// The file or folder.
        path: PathBuf,
        /// How.
        problem: String,
    },
    /// Another process writes there.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A file of somebody else, or of another command.
    #[error(transparent)]
    Written(#[from] WrittenError),
    /// Somebody put it there while the run went on.
    #[error("{}: was put there during the run and would be replaced; move it away and resume the run, whose model waits in {}", path.display(), staged.display())]
    CameInTheWay {
        /// The file or folder.
        path: PathBuf,
        /// Where the model waits.
        staged: PathBuf,
    },
    /// The system refuses the folder.
    #[error("{}: cannot be the output folder: {source}; choose another", path.display())]
    Unusable {
        /// The file or folder.
        path: PathBuf,
        /// The system's own error.
        source: io::Error,
    },
    /// The curves cannot be written.
    #[error(transparent)]
    Tensorboard(#[from] TensorboardError),
}

/// What to do with an output folder that is not empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// It must be empty or absent.
    Refuse,
    /// Replace what this tool wrote there.
    Force,
    /// Continue the run that was interrupted there.
    Resume,
    /// Take more steps than the run that ended there; the keys [`LONGER`] of its configuration change.
    Extend,
}

/// What the parts of a run took that were interrupted: until the last step that each recorded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Spent {
    /// What those parts took.
    pub seconds: f64,
    /// How often the run was resumed.
    pub resumptions: usize,
    /// Steps that were taken again, because a kill came between them and the next checkpoint.
    pub repeated_steps: usize,
}

/// The output folder of a run, which no other process writes to while this lives.
#[derive(Debug)]
pub struct RunFolder {
    out: PathBuf,
    /// When this part of the run began.
    start: Instant,
    /// What came before.
    spent: Cell<Spent>,
    /// The files of the model that it will hold.
    planned: Vec<PathBuf>,
    /// Whose run it is.
    command: Option<Command>,
    _lock: Lock,
}

impl RunFolder {
    /// Starts a run in `out` with this resolved configuration, or continues one that has the same.
    ///
    /// # Errors
    /// As [`check`](Self::check); a run that was started with another configuration.
    pub fn begin(
        out: &Path,
        existing: Existing,
        config: &Value,
        planned: &[PathBuf],
    ) -> Result<Self, RunError> {
        let command = Command::of(config);
        Lock::check(&out.join(FOLDER))?;
        Self::check_contents(out, command, existing, &[])?;
        let lock = Lock::take(&out.join(FOLDER))?;
        // Again, now that nobody else changes it.
        Self::check_contents(out, command, existing, planned)?;
        // Of a command that writes into the same folder without a run.
        if Lock::check(out).is_ok() {
            durable::remove_temporaries(out);
        }
        let run = Self {
            out: out.to_path_buf(),
            start: Instant::now(),
            spent: Cell::default(),
            planned: planned.to_vec(),
            command,
            _lock: lock,
        };
        let path = run.folder().join(CONFIG);
        let text = serde_json::to_string_pretty(config).expect("JSON has no unwritable values");
        let text = format!("{text}\n");
        match existing {
            Existing::Resume => {
                run.compare(&path, config, &[])?;
                run.remember()?;
                return Ok(run);
            }
            Existing::Extend => {
                run.compare(&path, config, &LONGER)?;
                run.spent.set(Spent {
                    seconds: recorded_seconds(out).unwrap_or(0.0),
                    ..Spent::default()
                });
                run.remove_old_mark()?;
                run.announce_config(&text)?;
            }
            Existing::Refuse | Existing::Force => run.clear()?,
        }
        durable::write(&path, |out| out.write_all(text.as_bytes())).map_err(run.io_error(&path))?;
        run.write_mark()?;
        Ok(run)
    }

    /// Lists the configuration that is about to replace a finished run's: a kill before the mark leaves either of them,
    /// and both are ours.
    fn announce_config(&self, text: &str) -> Result<(), RunError> {
        if let Some(mut list) = Written::read(&self.out)? {
            list.add(
                &Path::new(FOLDER).join(CONFIG),
                written::digest(text.as_bytes()),
            );
            list.save(&self.out)?;
        }
        Ok(())
    }

    /// Takes up what the parts of an interrupted run took.
    fn remember(&self) -> Result<(), RunError> {
        let path = self.folder().join(EARLIER);
        let text = fs::read_to_string(path).unwrap_or_default();
        let mut spent: Spent = serde_json::from_str(&text).unwrap_or_default();
        let recorded = recorded_seconds(&self.out).unwrap_or(0.0);
        spent.seconds = spent.seconds.max(recorded);
        spent.resumptions += 1;
        self.record_spent(spent)
    }

    /// Counts steps whose record is dropped, because they are taken again.
    pub(crate) fn repeat(&self, steps: usize) -> Result<(), RunError> {
        let mut spent = self.spent.get();
        spent.repeated_steps += steps;
        self.record_spent(spent)
    }

    fn record_spent(&self, spent: Spent) -> Result<(), RunError> {
        self.spent.set(spent);
        if self.is_moving() {
            return Ok(());
        }
        let path = self.folder().join(EARLIER);
        let text = serde_json::to_string(&spent).expect("numbers");
        durable::write(&path, |out| writeln!(out, "{text}")).map_err(self.io_error(&path))
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

    fn io_error(&self, path: &Path) -> impl Fn(io::Error) -> RunError + use<> {
        let path = path.to_path_buf();
        move |source| RunError::Io {
            path: path.clone(),
            source,
        }
    }

    fn write_mark(&self) -> Result<(), RunError> {
        let path = self.folder().join(UNFINISHED);
        let names = self.planned.iter().filter_map(|file| file.to_str());
        let names: Vec<&str> = names.collect();
        durable::write(&path, |out| {
            names.iter().try_for_each(|name| writeln!(out, "{name}"))
        })
        .map_err(self.io_error(&path))
    }

    /// Where the run's own files are.
    pub fn folder(&self) -> PathBuf {
        self.out.join(FOLDER)
    }

    /// Where to write the finished model, to be moved into place by [`publish`](Self::publish). What an
    /// interrupted run left there is removed.
    ///
    /// # Errors
    /// The disk's; a file in the way.
    pub fn staging(&self) -> Result<PathBuf, RunError> {
        self.clear_staged()?;
        Ok(self.staged())
    }

    /// The path that [`staging`](Self::staging) makes room at.
    pub fn staged(&self) -> PathBuf {
        self.folder().join(STAGED)
    }

    /// Whether the run was interrupted while its complete model moved into place: nothing but
    /// [`publish`](Self::publish) is left to do.
    pub fn is_moving(&self) -> bool {
        self.folder().join(MOVING).is_file()
    }

    /// Moves the model from [`staging`](Self::staging) to the output folder, in place of what a run wrote there before,
    /// and removes the checkpoints; `keep_newest`: all but the newest, from which the run can be extended. Its index
    /// comes last: a folder without one is no model to anybody. Returns weight files of somebody else that lie beside
    /// the model's.
    ///
    /// # Errors
    /// The disk's; somebody else's file where one of the model's would be.
    pub fn publish(&self, keep_newest: bool) -> Result<Vec<PathBuf>, RunError> {
        let folder = self.folder();
        let io_error = self.io_error(&self.out);
        let record = || {
            checkpoint::remove_all(&folder, keep_newest)?;
            let mut record = Vec::new();
            for entry in fs::read_dir(&folder)? {
                let entry = entry?;
                let name = entry.file_name();
                let is_mark = [UNFINISHED, MOVING, EARLIER]
                    .iter()
                    .any(|&mark| name == mark);
                let is_runs = name.to_str().is_some_and(is_runs);
                if is_runs && !is_mark && entry.file_type()?.is_file() {
                    record.push(Path::new(FOLDER).join(name));
                }
            }
            Ok(record)
        };
        let (staged, mark) = (self.staged(), folder.join(MOVING));
        let staying = publish(&self.out, &staged, &mark, self.command, record);
        let staying = staying.map_err(|error| match error {
            WrittenError::InTheWay { path } => RunError::CameInTheWay { path, staged },
            error => error.into(),
        })?;
        match fs::remove_file(folder.join(EARLIER)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error(error)),
            _ => {}
        }
        // In this order: without the second mark the first one means nothing.
        fs::remove_file(folder.join(UNFINISHED)).map_err(&io_error)?;
        fs::remove_file(folder.join(MOVING)).map_err(&io_error)?;
        durable::sync_folder(&folder).map_err(&io_error)?;
        Ok(staying)
    }
}
