//! Opening files that somebody else chose: regular ones only, and never more of them than such a file can hold.
//!
//! Opening a pipe waits for its writer, and a device such as `/dev/zero` has no end: neither is looked into.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

/// More than any configuration, settings file or list that a person or a program writes.
pub const LARGEST_TEXT: u64 = 16 << 20;

/// Opens a file, following links.
///
/// # Errors
/// The system's; a folder, pipe or device.
pub fn open_regular(path: &Path) -> io::Result<File> {
    check_regular(&fs::metadata(path)?)?;
    let file = File::open(path)?;
    // Once more: another file may have taken its place.
    check_regular(&file.metadata()?)?;
    Ok(file)
}

fn check_regular(metadata: &fs::Metadata) -> io::Result<()> {
    let what = if metadata.is_file() {
        return Ok(());
    } else if metadata.is_dir() {
        "a folder, not a file"
    } else {
        "a pipe or device, not a regular file"
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, what))
}

/// The content of a file of at most `limit` bytes.
///
/// # Errors
/// As [`open_regular`]; a larger file.
pub fn read_bounded(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = open_regular(path)?;
    let too_large = || {
        io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("larger than the {limit} bytes that such a file may have"),
        )
    };
    let length = file.metadata()?.len();
    if length > limit {
        return Err(too_large());
    }
    let mut bytes = Vec::with_capacity(length as usize);
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(too_large());
    }
    Ok(bytes)
}

/// The content of a text file of at most [`LARGEST_TEXT`] bytes.
///
/// # Errors
/// As [`read_bounded`]; text that is not UTF-8, as [`io::ErrorKind::InvalidData`].
pub fn read_text(path: &Path) -> io::Result<String> {
    String::from_utf8(read_bounded(path, LARGEST_TEXT)?)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not a text file (UTF-8)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_up_to_their_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        fs::write(&path, [b'a'; 10]).unwrap();
        assert_eq!(read_bounded(&path, 10).unwrap(), [b'a'; 10]);
        let error = read_bounded(&path, 9).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        fs::write(&path, [0xff]).unwrap();
        assert_eq!(
            read_text(&path).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
        assert!(
            open_regular(folder.path())
                .unwrap_err()
                .to_string()
                .contains("a folder")
        );
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_pipe_or_a_device_is_refused_without_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        for path in [&path, Path::new("/dev/zero")] {
            let error = read_text(path).unwrap_err();
            assert!(error.to_string().contains("not a regular file"), "{error}");
        }
    }
}
