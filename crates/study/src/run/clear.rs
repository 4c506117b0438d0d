//! What earlier runs left in an output folder, removed.

use std::fs;
use std::path::{Path, PathBuf};

use retrack_checkpoint::durable;
use retrack_checkpoint::lock;
use retrack_checkpoint::written::{Owner, Written, WrittenError, files_below};

use super::check::known;
use super::names::{CONFIG, FOLDER, MOVING, PARTIAL, STAGED, UNFINISHED, is_runs};
use super::state::is_unfinished;
use super::{RunError, RunFolder};
use crate::publish::remove_empty_folders;

impl RunFolder {
    /// Removes the record of an earlier run. Its model stays until the new one moves into its place.
    pub(super) fn clear(&self) -> Result<(), RunError> {
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
    pub(super) fn remove_old_mark(&self) -> Result<(), RunError> {
        let path = self.folder().join(MOVING);
        if Written::read_file(&path)?.is_some() {
            fs::remove_file(&path).map_err(self.io_error(&path))?;
        }
        Ok(())
    }

    /// Removes a model that an interrupted run wrote and did not put into its place: the files that it had planned.
    pub(super) fn clear_staged(&self) -> Result<(), RunError> {
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
}
