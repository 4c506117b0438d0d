//! Files that are the old one or the new one, never half.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use crate::leftovers::Leftover;

/// How the names of files begin that are not complete.
pub const TEMPORARY: &str = ".writing-";

/// Whether a file's name is one of those: six letters or digits follow.
pub fn is_temporary(name: &str) -> bool {
    name.strip_prefix(TEMPORARY).is_some_and(|rest| {
        rest.len() == 6 && rest.bytes().all(|byte| byte.is_ascii_alphanumeric())
    })
}

/// Removes such files from a folder that nobody else writes to, where a kill left them; what cannot be removed stays.
pub fn remove_temporaries(folder: &Path) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries {
        let is_ours = entry.file_name().to_str().is_some_and(is_temporary);
        if is_ours && entry.file_type().is_ok_and(|kind| kind.is_file()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Writes a file beside `path`, makes it durable and renames it into place.
///
/// # Errors
/// The system's; `path` is then as it was and the temporary file is gone.
pub fn write(
    path: &Path,
    content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    write_then(path, content, || Ok(()))
}

/// As [`write`](fn@write), with something to do once the content is durable and before it has its name.
///
/// # Errors
/// As [`write`](fn@write); those of `before_named`, after which `path` is as it was too.
pub fn write_then(
    path: &Path,
    content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    before_named: impl FnOnce() -> io::Result<()>,
) -> io::Result<()> {
    // As any new file; `tempfile`'s own default is private.
    write_with(path, Some(0o666), content, before_named)
}

/// As [`write`](fn@write), of a file that its owner alone may read.
///
/// # Errors
/// As [`write`](fn@write).
pub fn write_private(
    path: &Path,
    content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    write_with(path, None, content, || Ok(()))
}

fn write_with(
    path: &Path,
    mode: Option<u32>,
    content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    before_named: impl FnOnce() -> io::Result<()>,
) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(TEMPORARY);
    #[cfg(unix)]
    if let Some(mode) = mode {
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(mode));
    }
    #[cfg(not(unix))]
    let _ = mode;
    let mut file = builder.tempfile_in(folder)?;
    let leftover = Leftover::whole(file.path());
    let mut writer = BufWriter::new(file.as_file_mut());
    content(&mut writer)?;
    writer.flush()?;
    drop(writer);
    file.as_file().sync_all()?;
    before_named()?;
    leftover.keep(|| file.persist(path).map_err(|error| error.error))?;
    sync_folder(folder)
}

/// Makes the names in a folder durable, where the system can.
///
/// # Errors
/// The system's.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// Whether a disk, a quota or a limit on the size of files took no more.
pub fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}
