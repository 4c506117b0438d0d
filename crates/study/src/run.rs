//! What a run leaves beside the model: its configuration and what happened at each step.
//!
//! `OUT/run/config.json` holds the resolved configuration, `OUT/run/events.jsonl` one line a step,
//! `OUT/run/events.out.tfevents.*` the same for TensorBoard. Rows are named by number; no pixels.
//!
//! Only what the tool wrote is ever replaced or removed: what lies in the output folder by the list of
//! [`retrack_checkpoint::written`], what an unfinished run left in `run/` by its names there.

use std::cell::Cell;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use retrack_unlearn::checkpoint;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use crate::event_log::EventLog;
use crate::publish::{publish, remove_empty_folders};
use crate::tensorboard::{EventWriter, TensorboardError};
use retrack_checkpoint::durable;
use retrack_checkpoint::lock::{self, Lock, LockError};
use retrack_checkpoint::written::{
    self, Command, Owner, Written, WrittenError, belongs_to_git, files_below,
};

/// Why a run folder cannot be used. What to do about it depends on the command, which adds it.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("{}: the output folder is not empty", path.display())]
    NotEmpty { path: PathBuf },
    #[error("{}: not a folder; choose another output folder", path.display())]
    NotAFolder { path: PathBuf },
    #[error("{}: not empty, and no list of files that retrack wrote lies there ({}): it will not be replaced; move away \
             what is in it, or choose another output folder", path.display(), written::NAME)]
    NotOurs { path: PathBuf },
    #[error("{}: an interrupted run lies here", path.display())]
    Interrupted { path: PathBuf },
    #[error("{}: there is no interrupted run to resume", path.display())]
    NothingToResume { path: PathBuf },
    #[error("{}: the run was started with {difference}; use the same, or another output folder", path.display())]
    Differs {
        path: PathBuf,
        difference: Difference,
    },
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{}: not a run's configuration: {problem}", path.display())]
    Config { path: PathBuf, problem: String },
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Written(#[from] WrittenError),
    /// Somebody put it there while the run went on.
    #[error("{}: was put there during the run and would be replaced; move it away and resume the run, whose model waits in {}", path.display(), staged.display())]
    CameInTheWay { path: PathBuf, staged: PathBuf },
    #[error("{}: cannot be the output folder: {source}; choose another", path.display())]
    Unusable { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Tensorboard(#[from] TensorboardError),
}

/// What to do with an output folder that is not empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    Refuse,
    /// Replace what this tool wrote there.
    Force,
    /// Continue the run that was interrupted there.
    Resume,
    /// Take more steps than the run that ended there; the keys [`LONGER`] of its configuration change.
    Extend,
}

/// How far a run has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// There is nothing, or what a kill left of its beginning.
    NotBegun,
    Interrupted,
    /// It came to its end, or something else lies there.
    Ended,
}

/// What differs in the configuration of a run that is extended.
pub const LONGER: [&str; 3] = ["steps", "learning_rate", "ended_at"];

/// Where the inputs lay: they may be named in another way or have moved, because digests of what is in them stand beside.
pub const PLACES: [&str; 3] = ["model", "data", "adapter"];

/// Lies in a run's folder until its model is in place. Holds the paths of the model's files, one a line.
const UNFINISHED: &str = "unfinished";
/// Lies there while the complete model moves into place: the list of its files.
const MOVING: &str = "moving";
/// Lies there once the run was resumed, until its model is in place: what was [`Spent`] before.
const EARLIER: &str = "earlier.json";
const CONFIG: &str = "config.json";
pub(crate) const EVENTS: &str = "events.jsonl";
/// The key of an event that says how long the run had taken.
pub(crate) const ELAPSED: &str = "elapsed_seconds";
/// Where the model is written.
const STAGED: &str = "model";
/// How the name begins that it has until it is whole.
const PARTIAL: &str = ".model.partial-";
const FOLDER: &str = "run";
/// What else a run writes into its folder under fixed names.
const EVIDENCE: [&str; 3] = ["report.html", "report.json", LOSS_CURVE];
/// The picture of the losses that `train` draws.
pub const LOSS_CURVE: &str = "loss.svg";

/// The name of the picture of samples after a step.
pub fn samples_name(step: usize) -> String {
    format!("samples-{step:08}.png")
}

/// Whether a run writes files of this name into its folder.
fn is_runs(name: &str) -> bool {
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
    let text = fs::read_to_string(out.join(FOLDER).join(EVENTS)).ok()?;
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
    /// The files of the model that it will hold.
    planned: Vec<PathBuf>,
    /// Whose run it is.
    command: Option<Command>,
    _lock: Lock,
}

impl RunFolder {
    /// Checks `out` for a run of `command` without changing anything. `planned`: the files of the model that will be
    /// written there, by path, as far as they are known.
    ///
    /// # Errors
    /// A folder that `existing` does not cover, that another command wrote, or that another process writes to; a file of
    /// somebody else that would be replaced.
    pub fn check(
        out: &Path,
        command: Command,
        existing: Existing,
        planned: &[PathBuf],
    ) -> Result<(), RunError> {
        Lock::check(&out.join(FOLDER))?;
        Self::check_contents(out, Some(command), existing, planned)
    }

    fn check_contents(
        out: &Path,
        command: Option<Command>,
        existing: Existing,
        planned: &[PathBuf],
    ) -> Result<(), RunError> {
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
        let folder = out.join(FOLDER);
        names.retain(|name| name != FOLDER || !has_not_begun(&folder));
        // Left by a kill.
        names.retain(|name| !name.to_str().is_some_and(durable::is_temporary));
        let interrupted = is_unfinished(out);
        let list = Written::read(out)?;
        names.retain(|name| name != written::NAME && !is_building(name));
        if let (Some(command), Existing::Refuse | Existing::Force) = (command, existing) {
            // An interrupted run is that of its configuration, whatever it was to replace.
            let writer = match interrupted {
                true => recorded_command(&folder),
                false => list.as_ref().and_then(|list| list.writer(out)),
            };
            written::not_of_another(writer, command, out)?;
        }
        match existing {
            Existing::Resume if !interrupted => {
                return Err(RunError::NothingToResume { path });
            }
            Existing::Resume | Existing::Extend => {}
            _ if names.is_empty() => return Ok(()),
            Existing::Force => {
                // A repository that was made for the model and is empty yet.
                let only_git = names
                    .iter()
                    .all(|name| name == ".git" || name == ".gitattributes");
                if list.is_none() && !interrupted && !only_git {
                    return Err(RunError::NotOurs { path });
                }
            }
            Existing::Refuse if interrupted => return Err(RunError::Interrupted { path }),
            Existing::Refuse => return Err(RunError::NotEmpty { path }),
        }
        let ours = known(out, list.unwrap_or_default())?;
        let planned = planned.iter().filter(|file| !belongs_to_git(file));
        ours.check(out, planned.map(PathBuf::as_path))?;
        if !interrupted {
            // What a run writes or removes by its name.
            let record = record_names(&folder).map_err(io_error)?;
            let record: Vec<PathBuf> = record
                .iter()
                .map(|name| Path::new(FOLDER).join(name))
                .collect();
            ours.check(out, record.iter().map(PathBuf::as_path))?;
        }
        Ok(())
    }

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

    /// Removes the record of an earlier run. Its model stays until the new one moves into its place.
    fn clear(&self) -> Result<(), RunError> {
        let folder = self.folder();
        let io_error = self.io_error(&folder);
        let unfinished = is_unfinished(&self.out);
        let list = Written::read(&self.out)?;
        let had_list = list.is_some();
        let mut list = known(&self.out, list.unwrap_or_default())?;
        let mut old = Vec::new();
        for entry in fs::read_dir(&folder).map_err(&io_error)? {
            let entry = entry.map_err(&io_error)?;
            let name = entry.file_name();
            let path = Path::new(FOLDER).join(&name);
            let is_runs = unfinished && name.to_str().is_some_and(is_runs);
            // What replaces these goes over them.
            let stays = [lock::NAME, CONFIG, UNFINISHED]
                .iter()
                .any(|&mark| name == mark);
            if !stays
                && entry.file_type().is_ok_and(|kind| kind.is_file())
                && (is_runs || list.owner(&self.out, &path)? == Owner::Ours)
            {
                old.push(path);
            }
        }
        match unfinished {
            true => self.clear_staged()?,
            false => self.remove_old_mark()?,
        }
        if had_list {
            // From here on the names say what is the run's.
            self.write_mark()?;
            list.retain(|path| !path.starts_with(FOLDER));
            list.save(&self.out)?;
        }
        for path in old {
            let path = self.out.join(path);
            fs::remove_file(&path).map_err(self.io_error(&path))?;
        }
        if unfinished && !had_list {
            let path = folder.join(UNFINISHED);
            fs::remove_file(&path).map_err(self.io_error(&path))?;
        }
        Ok(())
    }

    /// Removes the list of a model that is in its place, where a kill left it.
    fn remove_old_mark(&self) -> Result<(), RunError> {
        let path = self.folder().join(MOVING);
        if Written::read_file(&path)?.is_some() {
            fs::remove_file(&path).map_err(self.io_error(&path))?;
        }
        Ok(())
    }

    /// Removes a model that an interrupted run wrote and did not put into its place: the files that it had planned.
    fn clear_staged(&self) -> Result<(), RunError> {
        let folder = self.folder();
        let mark = fs::read_to_string(folder.join(UNFINISHED)).unwrap_or_default();
        let planned: Vec<&Path> = match mark.is_empty() {
            true => self.planned.iter().map(PathBuf::as_path).collect(),
            false => mark.lines().map(Path::new).collect(),
        };
        for entry in fs::read_dir(&folder).map_err(self.io_error(&folder))? {
            let entry = entry.map_err(self.io_error(&folder))?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let is_ours = name == STAGED || name.starts_with(PARTIAL);
            let staged = entry.path();
            if !is_ours || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            let io_error = self.io_error(&staged);
            for file in files_below(&staged).map_err(&io_error)? {
                let name = file.file_name().unwrap_or_default().to_string_lossy();
                let path = staged.join(&file);
                if !planned.contains(&file.as_path()) && !durable::is_temporary(&name) {
                    return Err(WrittenError::InTheWay { path }.into());
                }
                fs::remove_file(&path).map_err(&io_error)?;
            }
            remove_empty_folders(&staged).map_err(io_error)?;
        }
        Ok(())
    }

    fn compare(&self, path: &Path, config: &Value, but: &[&str]) -> Result<(), RunError> {
        let problem = |problem: String| RunError::Config {
            path: path.to_path_buf(),
            problem,
        };
        let text = fs::read_to_string(path).map_err(|source| RunError::Io {
            path: path.to_path_buf(),
            source,
        })?;
        let mut old: Value = serde_json::from_str(&text).map_err(|e| problem(e.to_string()))?;
        let mut config = config.clone();
        let (Some(before), Some(now)) = (old.as_object_mut(), config.as_object_mut()) else {
            return Err(problem("not an object".into()));
        };
        for &key in but.iter().chain(&PLACES) {
            before.remove(key);
            now.remove(key);
        }
        match Difference::first(&old, &config) {
            None => Ok(()),
            Some(difference) => Err(RunError::Differs {
                path: self.out.clone(),
                difference,
            }),
        }
    }

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

/// An output folder's list with what an interrupted run has moved into it.
fn known(out: &Path, mut list: Written) -> Result<Written, RunError> {
    if let Some(moved) = Written::read_file(&out.join(FOLDER).join(MOVING))? {
        list.extend(&moved);
    }
    Ok(list)
}

/// The key of the images' digest.
const DATA_DIGEST: &str = "data_digest";

/// Where two configurations differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// As `outer.inner`.
    pub key: String,
    /// The values, or `nothing`.
    pub old: String,
    pub new: String,
}

impl fmt::Display for Difference {
    /// As in "the run was started with ...".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, old, new } = self;
        match key.as_str() {
            DATA_DIGEST => write!(
                f,
                "other images: the images have changed since ({key} {old} then, {new} now)"
            ),
            _ => write!(f, "another {key}: {old} then, {new} now"),
        }
    }
}

impl Difference {
    /// The first difference between a configuration that was read from a file and one that would be written to it. How
    /// the images were read comes before their digest, which changes with it.
    pub fn first(old: &Value, new: &Value) -> Option<Self> {
        // Through text as well: reading may round a number's last digit.
        let new: Value = serde_json::from_str(&new.to_string()).expect("just written");
        let reading = ["split", "alpha"]
            .into_iter()
            .find_map(|key| Self::below(old.get(key), new.get(key), key.to_owned()));
        reading.or_else(|| Self::below(Some(old), Some(&new), String::new()))
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

/// How the name of a folder begins in which a command builds a model, in the output folder, before that changes.
pub const BUILDING: &str = ".merging-";

/// Whether a file's name in an output folder is that of a model being built, or of what a kill left of one: it is in
/// nobody's way, and never removed. Until it is whole its own name has a dot more.
fn is_building(name: &OsStr) -> bool {
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
fn record_names(folder: &Path) -> io::Result<Vec<OsString>> {
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

/// Whether a run was killed in this folder before it had begun: [`RunFolder::begin`] writes these and then its mark.
fn has_not_begun(folder: &Path) -> bool {
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
fn is_unfinished(out: &Path) -> bool {
    let folder = out.join(FOLDER);
    folder.join(UNFINISHED).is_file()
        && (is_config(&folder.join(CONFIG)) || out.join(written::NAME).is_file())
}

/// Whether a file is the configuration of a run.
fn is_config(path: &Path) -> bool {
    command_of_config(path).is_some()
}

/// The command whose run's record lies in a folder.
fn recorded_command(folder: &Path) -> Option<Command> {
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

#[cfg(test)]
mod tests {
    use serde_json::json;

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
        // How the images were read explains another digest.
        let old = json!({"data_digest": "a", "split": "train"});
        let found = Difference::first(&old, &json!({"data_digest": "b", "split": "test"}));
        assert_eq!(found.unwrap().key, "split");
        let found = Difference::first(&old, &json!({"data_digest": "b", "split": "train"}));
        assert!(
            found
                .unwrap()
                .to_string()
                .contains("the images have changed since")
        );
        let old = json!({"a": {"b": 1, "c": [2]}, "d": 3});
        let found = Difference::first(&old, &json!({"a": old["a"]})).unwrap();
        assert_eq!((&*found.key, &*found.new), ("d", "nothing"));
    }
}
