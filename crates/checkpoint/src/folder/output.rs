//! A folder that appears complete or not at all.
//!
//! Everything is written to `.NAME.partial-XXXXXX` beside the output folder, synced, and renamed into place. An error
//! removes it; a killed process or a power cut can leave it behind, the output folder is then as it was before.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::error::FolderError;
use super::source::Source;
use crate::leftovers::Leftover;

pub(super) struct Staging {
    /// As given, for messages.
    out: PathBuf,
    /// Absolute, without links.
    target: PathBuf,
    temporary: Option<(TempDir, Leftover)>,
    /// Parents made for it, outermost first.
    made: Vec<(PathBuf, Leftover)>,
}

impl Staging {
    /// Checks `out` and makes the temporary folder. `out` may be absent or empty. It must not be, contain or lie in
    /// `input`.
    pub(super) fn begin(out: &Path, input: Option<&Source>) -> Result<Self, FolderError> {
        let target = resolve(out)?;
        if let Some(input) = input {
            let path = out.to_path_buf();
            let root = input.root.clone();
            if target == input.canonical {
                return Err(FolderError::OutputIsInput { path });
            }
            if target.starts_with(&input.canonical) {
                return Err(FolderError::OutputInsideInput { path, input: root });
            }
            if input.canonical.starts_with(&target) {
                return Err(FolderError::OutputContainsInput { path, input: root });
            }
        }
        check_free(out, &target)?;
        let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else {
            return Err(FolderError::OutputNotEmpty {
                path: out.to_path_buf(),
            });
        };
        let mut staging = Self {
            out: out.to_path_buf(),
            target: target.clone(),
            temporary: None,
            made: Vec::new(),
        };
        let missing: Vec<_> = parent
            .ancestors()
            .take_while(|ancestor| !ancestor.exists())
            .collect();
        for folder in missing.into_iter().rev() {
            let leftover = Leftover::if_empty(folder);
            fs::create_dir(folder).map_err(FolderError::io(folder, "create the folder"))?;
            staging.made.push((folder.to_path_buf(), leftover));
        }
        let temporary = temporary_beside(parent, &format!(".{}.partial-", name.to_string_lossy()))
            .map_err(FolderError::io(out, "create a folder beside it"))?;
        let leftover = Leftover::whole(temporary.path());
        staging.temporary = Some((temporary, leftover));
        Ok(staging)
    }

    /// Where to write a file that will be `relative` to the output folder.
    pub(super) fn path(&self, relative: &Path) -> PathBuf {
        let base = self
            .temporary
            .as_ref()
            .map_or(self.target.as_path(), |(folder, _)| folder.path());
        base.join(relative)
    }

    pub(super) fn create_folder(&self, relative: &Path) -> Result<(), FolderError> {
        let path = self.path(relative);
        fs::create_dir_all(&path).map_err(FolderError::io(&path, "create the folder"))
    }

    /// Writes a small file.
    pub(super) fn write(&self, relative: &Path, content: &[u8]) -> Result<(), FolderError> {
        let path = self.path(relative);
        let mut file = new_file(&path)?;
        std::io::Write::write_all(&mut file, content)
            .and_then(|()| file.sync_all())
            .map_err(FolderError::io(&path, "write"))
    }

    /// Copies a file of `source` byte for byte. Permissions are those of a new file: a cache's may forbid writing.
    pub(super) fn copy(&self, source: &Source, relative: &Path) -> Result<(), FolderError> {
        let mut from = source.open(relative)?;
        let path = self.path(relative);
        let mut to = new_file(&path)?;
        std::io::copy(&mut from.file, &mut to)
            .and_then(|_| to.sync_all())
            .map_err(FolderError::io(&path, "write"))
    }

    /// Puts the folder in its place.
    pub(super) fn finish(mut self) -> Result<(), FolderError> {
        let Some((temporary, leftover)) = self.temporary.take() else {
            return Ok(());
        };
        sync_folders(temporary.path())?;
        leftover.keep(|| self.place(temporary))?;
        self.made.iter().for_each(|(folder, _)| sync_parent(folder));
        self.made.clear();
        Ok(())
    }

    fn place(&self, temporary: TempDir) -> Result<(), FolderError> {
        let cannot = || FolderError::io(&self.out, "put the finished folder in its place");
        #[cfg(windows)]
        let _ = fs::remove_dir(&self.target);
        #[expect(
            clippy::disallowed_methods,
            reason = "the folder around it is synced below"
        )]
        fs::rename(temporary.path(), &self.target).map_err(cannot())?;
        let _renamed = temporary.keep();
        sync_parent(&self.target);
        Ok(())
    }
}

/// A file of a folder that gets its name when it is whole.
#[expect(clippy::disallowed_methods, reason = "nobody sees the folder yet")]
pub(super) fn new_file(path: &Path) -> Result<File, FolderError> {
    File::create_new(path).map_err(FolderError::io(path, "create"))
}

impl Drop for Staging {
    fn drop(&mut self) {
        drop(self.temporary.take());
        for (folder, _) in self.made.iter().rev() {
            let _ = fs::remove_dir(folder);
        }
    }
}

/// The absolute path of `out` without links, which need not exist yet.
fn resolve(out: &Path) -> Result<PathBuf, FolderError> {
    let mut existing = std::path::absolute(out).map_err(FolderError::io(out, "find the folder"))?;
    let mut rest = Vec::new();
    loop {
        match fs::canonicalize(&existing) {
            Ok(canonical) => {
                return Ok(rest
                    .iter()
                    .rev()
                    .fold(canonical, |path, name| path.join(name)));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(FolderError::io(out, "find the folder")(error)),
        }
        if fs::symlink_metadata(&existing).is_ok() {
            return Err(FolderError::OutputNotAFolder { path: existing });
        }
        match existing.file_name() {
            Some(name) => rest.push(name.to_os_string()),
            None => {
                return Err(FolderError::OutputPath {
                    path: out.to_path_buf(),
                });
            }
        }
        existing.pop();
    }
}

fn check_free(out: &Path, target: &Path) -> Result<(), FolderError> {
    let path = out.to_path_buf();
    if !target.exists() {
        return Ok(());
    }
    if !target.is_dir() {
        return Err(FolderError::OutputNotAFolder { path });
    }
    let mut entries = fs::read_dir(target).map_err(FolderError::io(out, "list the folder"))?;
    match entries.next() {
        None => Ok(()),
        Some(_) => Err(FolderError::OutputNotEmpty { path }),
    }
}

/// A new folder with the permissions of any new folder; `tempfile`'s own default would make the output private.
fn temporary_beside(parent: &Path, prefix: &str) -> std::io::Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(prefix);
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
    builder.tempdir_in(parent)
}

fn sync_folders(top: &Path) -> Result<(), FolderError> {
    let mut folders = vec![top.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let cannot = || FolderError::io(&folder, "sync the folder");
        sync_folder(&folder).map_err(cannot())?;
        for entry in fs::read_dir(&folder).map_err(cannot())? {
            let entry = entry.map_err(cannot())?;
            if entry.file_type().map_err(cannot())?.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    Ok(())
}

/// After the rename the folder is in its place; that a file system cannot sync folders is no reason to call it failed.
fn sync_parent(path: &Path) {
    if let Some(parent) = path.parent() {
        let _ = sync_folder(parent);
    }
}

#[cfg(unix)]
fn sync_folder(path: &Path) -> std::io::Result<()> {
    match File::open(path)?.sync_all() {
        // Some network file systems have no sync for folders.
        Err(error)
            if matches!(
                error.kind(),
                std::io::ErrorKind::InvalidInput | std::io::ErrorKind::Unsupported
            ) =>
        {
            Ok(())
        }
        other => other,
    }
}

#[cfg(not(unix))]
fn sync_folder(_: &Path) -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unfinished_folder_leaves_nothing_behind() {
        let base = tempfile::tempdir().unwrap();
        let out = base.path().join("a/b/out");
        let staging = Staging::begin(&out, None).unwrap();
        staging.write(Path::new("x"), b"1").unwrap();
        assert!(base.path().join("a/b").exists());
        drop(staging);
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 0);
    }

    #[cfg(unix)]
    #[test]
    fn a_finished_folder_has_the_permissions_of_a_new_one() {
        use std::os::unix::fs::PermissionsExt;
        let base = tempfile::tempdir().unwrap();
        let plain = base.path().join("plain");
        fs::create_dir(&plain).unwrap();
        let out = base.path().join("out");
        let staging = Staging::begin(&out, None).unwrap();
        staging.write(Path::new("x"), b"1").unwrap();
        staging.finish().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&out), mode(&plain));
        assert_eq!(fs::read(out.join("x")).unwrap(), b"1");
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_folder_that_holds_something_is_not_replaced() {
        let base = tempfile::tempdir().unwrap();
        let out = base.path().join("out");
        fs::create_dir(&out).unwrap();
        for name in ["letter.txt", "config.json"] {
            fs::write(out.join(name), "{}").unwrap();
            let refused = Staging::begin(&out, None).err().unwrap();
            assert!(matches!(refused, FolderError::OutputNotEmpty { .. }));
            fs::remove_file(out.join(name)).unwrap();
        }
        // Nor one that got something meanwhile.
        let staging = Staging::begin(&out, None).unwrap();
        staging.write(Path::new("x"), b"1").unwrap();
        fs::write(out.join("letter.txt"), "dear").unwrap();
        assert!(staging.finish().is_err());
        assert_eq!(fs::read(out.join("letter.txt")).unwrap(), b"dear");
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 1);
        fs::remove_file(out.join("letter.txt")).unwrap();
        let staging = Staging::begin(&out, None).unwrap();
        staging.write(Path::new("x"), b"1").unwrap();
        staging.finish().unwrap();
        assert_eq!(fs::read(out.join("x")).unwrap(), b"1");
    }

    #[test]
    fn an_output_path_through_an_absent_folder_and_up_is_refused() {
        let base = tempfile::tempdir().unwrap();
        let out = base.path().join("absent/../out");
        assert!(matches!(
            Staging::begin(&out, None),
            Err(FolderError::OutputPath { .. })
        ));
        let file = base.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(matches!(
            Staging::begin(&file, None),
            Err(FolderError::OutputNotAFolder { .. })
        ));
        assert!(Staging::begin(&file.join("out"), None).is_err());
    }

    #[test]
    fn a_full_disk_is_named_as_such() {
        let error = std::io::Error::from(std::io::ErrorKind::StorageFull);
        let error = FolderError::io(Path::new("out/x"), "write")(error);
        assert!(
            error
                .to_string()
                .contains("out/x: the disk is full: cannot write"),
            "{error}"
        );
    }
}
