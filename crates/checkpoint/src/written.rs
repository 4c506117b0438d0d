//! What was written into an output folder, so that nothing else is ever replaced or removed there.
//!
//! The folder holds a list, [`NAME`]: each file by its path in the folder, with the SHA-256 of what was written. A file
//! that has one of its digests still is this tool's own and may be replaced or removed. What is not in the list or was
//! changed since belongs to somebody else: it stays where it is, and a command that would have to write over it refuses.
//! Links are never followed: a path through one is somebody else's. So is whatever lies in a folder `.git`.
//!
//! An entry is written before its file, so a kill leaves no file of ours unlisted. A file that is being replaced has two
//! digests meanwhile.
//!
//! The list also says which command wrote the folder: another command does not replace its results.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use crate::folder::{FILES_LIST, sha256_file};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::durable;
use crate::hex::hex;

/// The list's name in an output folder.
pub const NAME: &str = FILES_LIST;
/// A list of a hundred thousand files has some 12 MB.
const LONGEST: u64 = 64 << 20;

/// Why an output folder's files cannot be replaced.
#[derive(Debug, thiserror::Error)]
pub enum WrittenError {
    /// A file that is not known would be replaced.
    #[error("{}: not written by retrack, or changed since, and it would be replaced; move it away, or choose another output folder", path.display())]
    InTheWay {
        /// The file or folder.
        path: PathBuf,
    },
    /// The list is damaged, or is none.
    #[error("{}: not retrack's list of the files that it wrote: {problem}; move it away, or choose another output folder", path.display())]
    List {
        /// The file or folder.
        path: PathBuf,
        /// How.
        problem: String,
    },
    /// The folder is another command's.
    #[error("{}: holds what `retrack {command}` wrote, which no other command replaces; choose another output folder", path.display())]
    OtherCommand {
        /// The file or folder.
        path: PathBuf,
        /// The one that wrote it.
        command: Command,
    },
    /// The system refused a file.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's own error.
        source: io::Error,
    },
}

impl WrittenError {
    fn io(path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self::Io {
            path: path.to_path_buf(),
            source,
        }
    }
}

/// Whose a path in an output folder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// Nothing is there.
    Nobody,
    /// In the list, with the content that it says.
    Ours,
    /// Not in the list, changed since, a folder, a link, or below a link or a file.
    Other,
}

/// A command that writes into an output folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Command {
    /// `retrack demo`
    Demo,
    /// `retrack evaluate`
    Evaluate,
    /// `retrack experiment`
    Experiment,
    /// `retrack merge`
    Merge,
    /// `retrack sample`
    Sample,
    /// `retrack train`
    Train,
    /// `retrack unlearn`
    Unlearn,
}

impl Command {
    /// The one that a run's configuration names.
    pub fn of(config: &Value) -> Option<Self> {
        Self::deserialize(&config["command"]).ok()
    }
}

impl fmt::Display for Command {
    /// As it is typed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// The files of an output folder that this tool wrote.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Written {
    /// The command that wrote the folder first. Lists of earlier versions do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Command>,
    /// By path, with `/` between names: SHA-256 in lower-case hexadecimal.
    files: BTreeMap<String, BTreeSet<String>>,
}

impl Written {
    /// The list of an output folder; `None` where it has none.
    ///
    /// # Errors
    /// A file of that name that is no such list.
    pub fn read(out: &Path) -> Result<Option<Self>, WrittenError> {
        Self::read_file(&out.join(NAME))
    }

    /// The list in this file; `None` where there is no such file.
    ///
    /// # Errors
    /// A file that is no such list.
    pub fn read_file(path: &Path) -> Result<Option<Self>, WrittenError> {
        let problem = |problem: &str| WrittenError::List {
            path: path.to_path_buf(),
            problem: problem.into(),
        };
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Ok(None),
            Err(error) => return Err(WrittenError::io(path)(error)),
            Ok(found) if !found.is_file() => return Err(problem("not a file")),
            Ok(found) if found.len() > LONGEST => return Err(problem("too long")),
            Ok(_) => {}
        }
        let text = fs::read(path).map_err(WrittenError::io(path))?;
        let list: Self = serde_json::from_slice(&text).map_err(|e| problem(&e.to_string()))?;
        match list.files.keys().find(|name| !is_plain(Path::new(name))) {
            Some(name) => Err(problem(&format!("{name:?} is no path in the folder"))),
            None => Ok(list.into()),
        }
    }

    /// Writes the list into the folder.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn save(&self, out: &Path) -> Result<(), WrittenError> {
        self.save_file(&out.join(NAME))
    }

    /// Writes the list into this file.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn save_file(&self, path: &Path) -> Result<(), WrittenError> {
        let text = serde_json::to_string_pretty(self).expect("JSON has no unwritable values");
        durable::write(path, |file| writeln!(file, "{text}")).map_err(WrittenError::io(path))
    }

    /// Adds a digest of a file. A path that is no text is left out, and with that never ours.
    pub fn add(&mut self, path: &Path, digest: String) {
        if let Some(name) = name(path) {
            self.files.entry(name).or_default().insert(digest);
        }
    }

    /// Makes `digest` the only one of a file.
    pub fn set(&mut self, path: &Path, digest: String) {
        if let Some(name) = name(path) {
            self.files.insert(name, [digest].into());
        }
    }

    /// Adds the digests of another list.
    pub fn extend(&mut self, other: &Self) {
        for (name, digests) in &other.files {
            let known = self.files.entry(name.clone()).or_default();
            known.extend(digests.iter().cloned());
        }
    }

    /// Takes a file out of the list.
    pub fn forget(&mut self, path: &Path) {
        if let Some(name) = name(path) {
            self.files.remove(&name);
        }
    }

    /// Takes the files out for which `keep` is false.
    pub fn retain(&mut self, keep: impl Fn(&Path) -> bool) {
        self.files.retain(|name, _| keep(Path::new(name)));
    }

    /// Whether the file is in the list.
    pub fn has(&self, path: &Path) -> bool {
        name(path).is_some_and(|name| self.files.contains_key(&name))
    }

    /// The files, relative to the folder, sorted.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.files.keys().map(PathBuf::from).collect()
    }

    /// Whether one of the files is there. What Git reads stays where somebody empties the folder by `rm -r out/*`.
    fn is_there(&self, out: &Path) -> bool {
        let mut paths = self.files.keys().map(Path::new);
        paths.any(|path| !belongs_to_git(path) && out.join(path).symlink_metadata().is_ok())
    }

    /// The command whose files are there, as far as it is known.
    pub fn writer(&self, out: &Path) -> Option<Command> {
        self.command.filter(|_| self.is_there(out))
    }

    /// Has the folder be this command's from now on, unless there are files of an earlier version, which are anybody's.
    ///
    /// # Errors
    /// [`WrittenError::OtherCommand`].
    pub fn take_for(&mut self, command: Command, out: &Path) -> Result<(), WrittenError> {
        not_of_another(self.writer(out), command, out)?;
        if !self.is_there(out) {
            self.command = Some(command);
        }
        Ok(())
    }

    /// Whose `path` in the folder is. A file of ours is read whole.
    ///
    /// # Errors
    /// A file that cannot be looked at.
    pub fn owner(&self, out: &Path, path: &Path) -> Result<Owner, WrittenError> {
        let mut at = out.to_path_buf();
        let mut parts = path.components().peekable();
        while let Some(part) = parts.next() {
            at.push(part);
            let found = match fs::symlink_metadata(&at) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Owner::Nobody),
                found => found.map_err(WrittenError::io(&at))?,
            };
            if parts.peek().is_some() {
                if !found.is_dir() {
                    return Ok(Owner::Other);
                }
            } else if !found.is_file() {
                return Ok(Owner::Other);
            }
        }
        let Some(digests) = name(path).and_then(|name| self.files.get(&name)) else {
            return Ok(Owner::Other);
        };
        Ok(match digests.contains(&sha256(&at)?) {
            true => Owner::Ours,
            false => Owner::Other,
        })
    }

    /// Refuses if one of `paths` is somebody else's.
    ///
    /// # Errors
    /// [`WrittenError::InTheWay`].
    pub fn check<'a>(
        &self,
        out: &Path,
        paths: impl IntoIterator<Item = &'a Path>,
    ) -> Result<(), WrittenError> {
        for path in paths {
            if self.owner(out, path)? == Owner::Other {
                return Err(WrittenError::InTheWay {
                    path: in_the_way(out, path),
                });
            }
        }
        Ok(())
    }

    /// Removes a file if it is ours, and the folders around it that are empty then. Either way it leaves the list.
    ///
    /// # Errors
    /// A file that cannot be looked at or removed.
    pub fn remove(&mut self, out: &Path, path: &Path) -> Result<(), WrittenError> {
        if self.owner(out, path)? == Owner::Ours {
            let file = out.join(path);
            fs::remove_file(&file).map_err(WrittenError::io(&file))?;
            remove_empty(out, path);
        }
        self.forget(path);
        Ok(())
    }
}

/// Refuses a folder that another command than `command` wrote.
///
/// # Errors
/// [`WrittenError::OtherCommand`].
pub fn not_of_another(
    writer: Option<Command>,
    command: Command,
    out: &Path,
) -> Result<(), WrittenError> {
    match writer.filter(|&writer| writer != command) {
        Some(command) => Err(WrittenError::OtherCommand {
            path: out.to_path_buf(),
            command,
        }),
        None => Ok(()),
    }
}

/// The SHA-256 of bytes, as the list has it.
pub fn digest(content: &[u8]) -> String {
    hex(&Sha256::digest(content))
}

/// SHA-256 of a file, in hexadecimal.
///
/// # Errors
/// A file that cannot be read.
pub fn sha256(path: &Path) -> Result<String, WrittenError> {
    sha256_file(path).map_err(|error| WrittenError::io(path)(io::Error::other(error)))
}

/// The first part of a path that is not as it would have to be, for messages.
fn in_the_way(out: &Path, path: &Path) -> PathBuf {
    let mut at = out.to_path_buf();
    for part in path.components() {
        at.push(part);
        if !at.is_dir() || at.is_symlink() {
            break;
        }
    }
    at
}

/// Removes the folders around `path` in `out` that hold nothing, innermost first.
pub fn remove_empty(out: &Path, path: &Path) {
    for folder in path.ancestors().skip(1) {
        let folder_is_out = folder.as_os_str().is_empty();
        if folder_is_out || fs::remove_dir(out.join(folder)).is_err() {
            break;
        }
    }
}

/// A path as the list has it.
fn name(path: &Path) -> Option<String> {
    let parts: Option<Vec<&str>> = path.iter().map(|part| part.to_str()).collect();
    parts.map(|parts| parts.join("/"))
}

/// Whether a path from a list leads to a file in the folder that a list can own.
fn is_plain(path: &Path) -> bool {
    let mut parts = path.components().peekable();
    parts.peek().is_some()
        && parts.all(|part| matches!(part, Component::Normal(part) if part != ".git"))
}

/// Whether a file says how Git treats others: the output folder's own stays.
pub fn belongs_to_git(file: &Path) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    [".gitattributes", ".gitignore", ".gitmodules"].contains(&&*name)
}

/// Files (and links) below a folder, sorted; links are not followed.
///
/// # Errors
/// The system's.
pub fn files_below(root: &Path) -> io::Result<Vec<PathBuf>> {
    let (mut files, mut folders) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root.join(&folder))? {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            match entry.file_type()?.is_dir() {
                true => folders.push(path),
                false => files.push(path),
            }
        }
    }
    files.sort();
    Ok(files)
}

/// The files that a command puts into an output folder of its own, beside whatever else lies there.
#[derive(Debug)]
pub struct Output {
    out: PathBuf,
    written: Written,
    may_write: fn(&Path) -> bool,
    /// Written since it was opened.
    fresh: BTreeSet<PathBuf>,
}

/// What lies in the way of an [`Output`].
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// Files that an earlier command wrote.
    #[error("{}: was written by an earlier command", path.display())]
    Earlier {
        /// One of them.
        path: PathBuf,
    },
    /// A file of somebody else, or of another command.
    #[error(transparent)]
    Written(#[from] WrittenError),
}

impl Output {
    /// Looks whether the files in `out` that `may_write` names, which are all that will be written, are ours or not
    /// there. Changes nothing.
    ///
    /// # Errors
    /// A folder that another command wrote; somebody else's file in the way; without `replace`, one of ours too.
    pub fn open(
        out: &Path,
        command: Command,
        replace: bool,
        may_write: fn(&Path) -> bool,
    ) -> Result<Self, OutputError> {
        let mut written = Written::read(out)?.unwrap_or_default();
        written.take_for(command, out)?;
        let mut there = Vec::new();
        match fs::read_dir(out) {
            Ok(entries) => {
                for entry in entries {
                    let entry = entry.map_err(WrittenError::io(out))?;
                    there.push(PathBuf::from(entry.file_name()));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(WrittenError::io(out)(error).into()),
        }
        // Files in folders are known by the list only.
        there.extend(
            written
                .paths()
                .into_iter()
                .filter(|path| path.iter().count() > 1),
        );
        there.retain(|path| may_write(path));
        written.check(out, there.iter().map(PathBuf::as_path))?;
        let exists = |path: &&PathBuf| out.join(path).exists();
        match there.iter().find(exists).filter(|_| !replace) {
            Some(path) => Err(OutputError::Earlier {
                path: out.join(path),
            }),
            None => Ok(Self {
                out: out.to_path_buf(),
                written,
                may_write,
                fresh: BTreeSet::new(),
            }),
        }
    }

    /// Removes what a killed command left incomplete beside these files. Only under the folder's lock.
    pub fn remove_temporaries(&self) {
        let mut folders = BTreeSet::from([self.out.clone()]);
        for path in self.written.paths() {
            if (self.may_write)(&path)
                && let Some(folder) = path.parent()
                && !folder.as_os_str().is_empty()
                && !self.out.join(folder).is_symlink()
            {
                folders.insert(self.out.join(folder));
            }
        }
        folders
            .iter()
            .for_each(|folder| durable::remove_temporaries(folder));
    }

    /// Writes files, whose folders are made, over those of the same name that are ours.
    ///
    /// # Errors
    /// The disk's; somebody else's file of that name, before anything is written.
    pub fn put(&mut self, files: &[(PathBuf, Vec<u8>)]) -> Result<(), WrittenError> {
        let out = &self.out;
        self.written
            .check(out, files.iter().map(|(path, _)| path.as_path()))?;
        fs::create_dir_all(out).map_err(WrittenError::io(out))?;
        let digests: Vec<String> = files.iter().map(|(_, content)| digest(content)).collect();
        for ((path, _), digest) in files.iter().zip(&digests) {
            self.written.add(path, digest.clone());
        }
        self.written.save(out)?;
        for (path, content) in files {
            let file = out.join(path);
            if let Some(folder) = file.parent() {
                fs::create_dir_all(folder).map_err(WrittenError::io(folder))?;
            }
            durable::write(&file, |out| out.write_all(content)).map_err(WrittenError::io(&file))?;
        }
        for ((path, _), digest) in files.iter().zip(digests) {
            self.written.set(path, digest);
            self.fresh.insert(path.clone());
        }
        self.written.save(out)
    }

    /// Removes what an earlier command wrote and this one did not.
    ///
    /// # Errors
    /// The disk's.
    pub fn remove_earlier(&mut self) -> Result<(), WrittenError> {
        for path in self.written.paths() {
            if (self.may_write)(&path) && !self.fresh.contains(&path) {
                self.written.remove(&self.out, &path)?;
            }
        }
        self.written.save(&self.out)
    }
}

#[cfg(test)]
#[path = "written_tests.rs"]
mod tests;
