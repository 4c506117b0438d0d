//! Whether an output folder may be used: nothing of somebody else is in the way.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use retrack_checkpoint::durable;
use retrack_checkpoint::lock::Lock;
use retrack_checkpoint::written::{self, Command, Written, belongs_to_git};

use super::names::{FOLDER, MOVING, is_building, record_names};
use super::state::{has_not_begun, is_unfinished, recorded_command};
use super::{Existing, RunError, RunFolder};

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

    pub(super) fn check_contents(
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
}

/// An output folder's list with what an interrupted run has moved into it.
pub(super) fn known(out: &Path, mut list: Written) -> Result<Written, RunError> {
    if let Some(moved) = Written::read_file(&out.join(FOLDER).join(MOVING))? {
        list.extend(&moved);
    }
    Ok(list)
}
