//! Opening the files of a model folder: regular files inside it only, with the usual failed downloads named.

use std::fs::{self, File};
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::error::FolderError;
use crate::files::open_regular;
use crate::json;

/// Configuration files are a few kilobytes; the bound keeps a wrong file from filling memory.
const LARGEST_CONFIG: u64 = 1 << 20;

/// A folder to read from. Paths inside it are relative to it.
#[derive(Debug, Clone)]
pub(super) struct Source {
    /// As the user gave it, for messages.
    pub root: PathBuf,
    /// Absolute, without links.
    pub canonical: PathBuf,
}

/// An open file of a model folder.
#[derive(Debug)]
pub(super) struct OpenFile {
    pub file: File,
    pub len: u64,
    /// For messages.
    pub path: PathBuf,
}

impl Source {
    pub(super) fn new(root: &Path) -> Result<Self, FolderError> {
        let path = root.to_path_buf();
        match fs::metadata(root) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => return Err(FolderError::NotAFolder { path }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(FolderError::MissingFolder { path });
            }
            Err(error) => return Err(FolderError::io(root, "open the folder")(error)),
        }
        let canonical = fs::canonicalize(root).map_err(FolderError::io(root, "open the folder"))?;
        Ok(Self {
            root: path,
            canonical,
        })
    }

    /// The path to show for a file.
    pub(super) fn path(&self, relative: &Path) -> PathBuf {
        self.root.join(relative)
    }

    /// Whether a file or link of that name is there.
    pub(super) fn has(&self, relative: &Path) -> bool {
        fs::symlink_metadata(self.canonical.join(relative)).is_ok()
    }

    pub(super) fn has_folder(&self, relative: &Path) -> bool {
        self.canonical.join(relative).is_dir()
    }

    /// Opens a regular file. A link is followed only where it stays in the folder, or in the blob store of the Hugging
    /// Face cache that the folder is a snapshot of: a folder from elsewhere must not make us read, and then copy into
    /// the output, files of this machine.
    pub(super) fn open(&self, relative: &Path) -> Result<OpenFile, FolderError> {
        let path = self.path(relative);
        let missing = |remedy: &str| FolderError::MissingFile {
            path: self.path(relative),
            remedy: remedy.to_string(),
        };
        let target = match fs::canonicalize(self.canonical.join(relative)) {
            Ok(target) => target,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(missing(if self.has(relative) {
                    "it is a link to a file that does not exist"
                } else {
                    "the model folder is incomplete, download it again"
                }));
            }
            Err(error) => return Err(FolderError::io(&path, "open")(error)),
        };
        if !target.starts_with(&self.canonical) && !self.in_blob_store(&target) {
            return Err(FolderError::LinkOutside { path, target });
        }
        // Looked at before opening: opening a pipe would wait for its writer.
        let metadata = fs::metadata(&target).map_err(FolderError::io(&path, "open"))?;
        if !metadata.is_file() {
            return Err(FolderError::NotRegular { path });
        }
        let file = File::open(&target).map_err(FolderError::io(&path, "open"))?;
        Ok(OpenFile {
            file,
            len: metadata.len(),
            path,
        })
    }

    fn in_blob_store(&self, target: &Path) -> bool {
        self.canonical
            .ancestors()
            .filter(|ancestor| ancestor.file_name().is_some_and(|name| name == "snapshots"))
            .filter_map(Path::parent)
            .any(|repository| target.starts_with(repository.join("blobs")))
    }

    /// Opens a file that must hold content, and names empty files, Git-LFS pointers and web pages as such.
    pub(super) fn open_content(&self, relative: &Path) -> Result<OpenFile, FolderError> {
        let mut open = self.open(relative)?;
        let mut start = Vec::with_capacity(64);
        let cannot = || FolderError::io(&open.path, "read");
        (&open.file)
            .take(64)
            .read_to_end(&mut start)
            .map_err(cannot())?;
        open.file.rewind().map_err(cannot())?;
        let path = std::mem::take(&mut open.path);
        if start.is_empty() {
            return Err(FolderError::Empty { path });
        }
        if start.starts_with(b"version https://git-lfs") {
            return Err(FolderError::LfsPointer { path });
        }
        let text = start.trim_ascii_start();
        if text.first() == Some(&b'<')
            && text
                .get(1)
                .is_some_and(|&byte| byte == b'!' || byte.is_ascii_alphabetic())
        {
            return Err(FolderError::Html { path });
        }
        open.path = path;
        Ok(open)
    }

    /// A whole file of at most `limit` bytes.
    pub(super) fn read_small(&self, relative: &Path, limit: u64) -> Result<Vec<u8>, FolderError> {
        let open = self.open_content(relative)?;
        let too_large = || {
            FolderError::malformed(
                &open.path,
                format!("larger than {limit} bytes, which no such file should be"),
            )
        };
        if open.len > limit {
            return Err(too_large());
        }
        let mut bytes = Vec::with_capacity(open.len as usize);
        (&open.file)
            .take(limit + 1)
            .read_to_end(&mut bytes)
            .map_err(FolderError::io(&open.path, "read"))?;
        if bytes.len() as u64 > limit {
            return Err(too_large());
        }
        Ok(bytes)
    }

    /// A configuration file: a JSON object.
    pub(super) fn read_config(&self, relative: &Path) -> Result<Value, FolderError> {
        self.read_json(relative, LARGEST_CONFIG)
    }

    /// A JSON object of at most `limit` bytes.
    pub(super) fn read_json(&self, relative: &Path, limit: u64) -> Result<Value, FolderError> {
        let bytes = self.read_small(relative, limit)?;
        let path = self.path(relative);
        let value: Value = match json::parse(&bytes) {
            Ok(value) => value,
            Err(source) => return Err(FolderError::Json { path, source }),
        };
        if !value.is_object() {
            return Err(FolderError::malformed(&path, "not a JSON object"));
        }
        Ok(value)
    }
}

/// The SHA-256 of a file's content in lower-case hexadecimal, read in pieces.
///
/// # Errors
/// A file that is not regular, or that cannot be read.
pub fn sha256_file(path: &Path) -> Result<String, FolderError> {
    let mut file = open_regular(path).map_err(FolderError::io(path, "open"))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file
            .read(&mut buffer)
            .map_err(FolderError::io(path, "read"))?
        {
            0 => break,
            count => hasher.update(&buffer[..count]),
        }
    }
    Ok(hasher
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_of_a_file_is_its_sha256() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        fs::write(&path, "abc").unwrap();
        assert_eq!(
            sha256_file(&path).unwrap(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        let error = sha256_file(&folder.path().join("y")).unwrap_err();
        assert!(error.to_string().contains("/y: cannot open"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn a_pipe_in_place_of_a_file_is_refused_without_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        let made = std::process::Command::new("mkfifo")
            .arg(&path)
            .status()
            .unwrap();
        assert!(made.success());
        let source = Source::new(folder.path()).unwrap();
        let error = source.read_config(Path::new("config.json")).unwrap_err();
        assert!(matches!(error, FolderError::NotRegular { .. }), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_inside_the_folder_and_into_the_hub_cache_only() {
        use std::os::unix::fs::symlink;
        let base = tempfile::tempdir().unwrap();
        let snapshot = base.path().join("models--a--b/snapshots/0123");
        let blobs = base.path().join("models--a--b/blobs");
        fs::create_dir_all(&snapshot).unwrap();
        fs::create_dir_all(&blobs).unwrap();
        fs::write(blobs.join("b1"), "{}").unwrap();
        fs::write(base.path().join("secret"), "{}").unwrap();
        fs::write(snapshot.join("real.json"), "{}").unwrap();
        symlink("../../blobs/b1", snapshot.join("cached.json")).unwrap();
        symlink("real.json", snapshot.join("inside.json")).unwrap();
        symlink("../../../secret", snapshot.join("outside.json")).unwrap();
        symlink("nowhere", snapshot.join("broken.json")).unwrap();
        let source = Source::new(&snapshot).unwrap();
        source.read_config(Path::new("cached.json")).unwrap();
        source.read_config(Path::new("inside.json")).unwrap();
        let error = source.read_config(Path::new("outside.json")).unwrap_err();
        assert!(matches!(error, FolderError::LinkOutside { .. }), "{error}");
        let error = source.read_config(Path::new("broken.json")).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("link to a file that does not exist"),
            "{error}"
        );
    }
}
