//! One writer to a folder: a file that its process holds locked while it works there.
//!
//! The lock is the system's and goes with the process, however it ends; the number in the file is for people. A file
//! that a killed process left is therefore no obstacle.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use crate::leftovers::Leftover;

/// The file's name in the folder.
pub const NAME: &str = "lock";

/// What the file says before the number: digits alone may be somebody else's.
const OURS: &str = "retrack ";

/// Why a folder could not be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process writes there.
    #[error("{}: process {process} is writing here; wait until it ends, or choose another output folder", folder.display())]
    Busy {
        /// The folder.
        folder: PathBuf,
        /// The number of the process.
        process: String,
    },
    /// The path is no folder.
    #[error("{}: not a folder; choose another output folder", folder.display())]
    NotAFolder {
        /// The folder.
        folder: PathBuf,
    },
    /// A file of the lock's name is somebody else's.
    #[error("{}: not a lock of retrack, which would have this name; move it away, or choose another output folder", path.display())]
    NotALock {
        /// The file.
        path: PathBuf,
    },
    /// The system refuses the folder.
    #[error("{}: cannot be the output folder: {source}; choose another", folder.display())]
    Unusable {
        /// The folder.
        folder: PathBuf,
        /// The system's own error.
        source: io::Error,
    },
}

/// A folder that nobody else writes to while this lives. What it made for itself goes with it.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    /// Closing it ends the lock.
    _file: File,
    /// Folders made for it, innermost first.
    made: Vec<PathBuf>,
    /// All this, in case the process ends before.
    _leftovers: Vec<Leftover>,
}

impl Lock {
    /// Takes a folder, which is made if it is not there.
    ///
    /// # Errors
    /// Another process has it; a folder that cannot be made or written to.
    pub fn take(folder: &Path) -> Result<Self, LockError> {
        let unusable = |source| LockError::Unusable {
            folder: folder.to_path_buf(),
            source,
        };
        let mut made = Vec::new();
        let missing = folder
            .ancestors()
            .take_while(|path| *path != Path::new("") && !path.exists());
        for path in missing {
            made.push(path.to_path_buf());
        }
        fs::create_dir_all(folder).map_err(|source| match folder.exists() {
            true => LockError::NotAFolder {
                folder: folder.to_path_buf(),
            },
            false => unusable(source),
        })?;
        let path = folder.join(NAME);
        loop {
            let mut file = open(&path).map_err(unusable)?;
            // Somebody else's file would be emptied here and removed at the end.
            let before = holder(&mut file);
            if let Ok(None) = before {
                return Err(LockError::NotALock { path });
            }
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    return Err(LockError::Busy {
                        folder: folder.to_path_buf(),
                        process: shown(holder(&mut file)),
                    });
                }
                // A file system without locks: nothing can be promised there.
                Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {}
                Err(TryLockError::Error(error)) => return Err(unusable(error)),
            }
            // Not readable while somebody had it locked: now it is, or whose it is cannot be known.
            if before.is_err() && holder(&mut file).map_err(unusable)?.is_none() {
                return Err(LockError::NotALock { path });
            }
            // Its last owner may have removed the file between our opening and our locking it.
            if !is_at(&file, &path) {
                continue;
            }
            let written = file
                .set_len(0)
                .and_then(|()| file.rewind())
                .and_then(|()| writeln!(file, "{OURS}{}", std::process::id()));
            written.map_err(unusable)?;
            // In the order in which they were made: they go in the other.
            let folders = made.iter().rev().map(|folder| Leftover::if_empty(folder));
            let mut leftovers: Vec<Leftover> = folders.collect();
            leftovers.push(Leftover::whole(&path));
            return Ok(Self {
                path,
                _file: file,
                made,
                _leftovers: leftovers,
            });
        }
    }

    /// Fails if another process has the folder now. Changes nothing.
    ///
    /// # Errors
    /// [`LockError::Busy`], [`LockError::NotALock`].
    pub fn check(folder: &Path) -> Result<(), LockError> {
        let path = folder.join(NAME);
        let Ok(mut file) = File::open(&path) else {
            return Ok(());
        };
        if let Ok(None) = holder(&mut file) {
            return Err(LockError::NotALock { path });
        }
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => Err(LockError::Busy {
                folder: folder.to_path_buf(),
                process: shown(holder(&mut file)),
            }),
            _ => Ok(()),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // While it is still locked: nobody can have taken it.
        let _ = fs::remove_file(&self.path);
        for folder in &self.made {
            if fs::remove_dir(folder).is_err() {
                break;
            }
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.is_file() => {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                format!("{} is no lock file", path.display()),
            ));
        }
        _ => {}
    }
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
}

/// The number in a lock file, empty while it is being written; `None` where the file is none.
///
/// # Errors
/// It cannot be read. On Windows that is so while another process has it locked.
fn holder(file: &mut File) -> io::Result<Option<String>> {
    if !file.metadata()?.is_file() {
        return Ok(None);
    }
    let mut text = Vec::new();
    file.rewind()?;
    Read::take(&mut *file, 31).read_to_end(&mut text)?;
    if text.is_empty() {
        return Ok(Some(String::new()));
    }
    let Some(number) = text.strip_prefix(OURS.as_bytes()) else {
        return Ok(None);
    };
    let number = number.trim_ascii_end();
    let is_lock = text.len() <= 30 && !number.is_empty() && number.iter().all(u8::is_ascii_digit);
    Ok(is_lock.then(|| String::from_utf8_lossy(number).into_owned()))
}

fn shown(holder: io::Result<Option<String>>) -> String {
    let process = holder.ok().flatten();
    process
        .filter(|process| !process.is_empty())
        .unwrap_or_else(|| "(unknown)".into())
}

#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), fs::metadata(path)) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

#[cfg(not(unix))]
fn is_at(_file: &File, path: &Path) -> bool {
    path.exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_owner_at_a_time_and_nothing_stays_behind() {
        let base = tempfile::tempdir().unwrap();
        let folder = base.path().join("a/b");
        let lock = Lock::take(&folder).unwrap();
        let error = Lock::take(&folder).unwrap_err().to_string();
        let process = format!("process {} is writing here", std::process::id());
        assert!(error.contains(&process), "{error}");
        assert!(Lock::check(&folder).is_err());
        drop(lock);
        assert!(!base.path().join("a").exists());
        // Left by a process that was killed.
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(NAME), "retrack 1\n").unwrap();
        Lock::check(&folder).unwrap();
        drop(Lock::take(&folder).unwrap());
        assert!(folder.exists());
        assert!(!folder.join(NAME).exists());
    }

    #[test]
    fn a_file_of_somebody_else_is_no_lock_and_keeps_its_content() {
        let base = tempfile::tempdir().unwrap();
        for content in [
            "Dear all",
            "{\n",
            "4711",
            "retrack",
            "retrack 1 and more",
            "123456789012345678901234567890",
        ] {
            fs::write(base.path().join(NAME), content).unwrap();
            let error = Lock::take(base.path()).unwrap_err();
            assert!(matches!(error, LockError::NotALock { .. }), "{error}");
            assert_eq!(fs::read_to_string(base.path().join(NAME)).unwrap(), content);
        }
    }

    #[test]
    fn a_lock_that_cannot_be_read_is_of_an_unknown_process() {
        // As Windows has it while another process holds the lock.
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join(NAME);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .unwrap();
        let found = holder(&mut file);
        assert!(found.is_err(), "{found:?}");
        assert_eq!(shown(found), "(unknown)");
        fs::write(&path, [0xff, b'1']).unwrap();
        assert_eq!(holder(&mut File::open(&path).unwrap()).unwrap(), None);
        fs::write(&path, "retrack 17\n").unwrap();
        assert_eq!(shown(holder(&mut File::open(&path).unwrap())), "17");
    }

    #[test]
    fn what_is_no_folder_is_refused() {
        let base = tempfile::tempdir().unwrap();
        let file = base.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(matches!(
            Lock::take(&file),
            Err(LockError::NotAFolder { .. })
        ));
    }
}
