//! Files and folders that are nobody's once the process ends: what a signal removes before it ends one.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

/// In the order in which they were made.
static LEFTOVERS: Mutex<Vec<Entry>> = Mutex::new(Vec::new());

#[derive(Debug, Clone, PartialEq, Eq)]
enum Entry {
    /// A file, or a folder with all that is in it.
    Whole(PathBuf),
    /// A folder that goes if it is empty.
    IfEmpty(PathBuf),
}

fn entries() -> MutexGuard<'static, Vec<Entry>> {
    LEFTOVERS
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Something temporary. Its maker removes it, or gives it its place with [`keep`](Self::keep); this only remembers it in
/// case the process ends before.
#[derive(Debug)]
pub struct Leftover(Entry);

impl Leftover {
    /// A file, or a folder with all that is in it, about to be made.
    pub fn whole(path: &Path) -> Self {
        Self::remember(Entry::Whole(absolute(path)))
    }

    /// A folder that is no use while it is empty.
    pub fn if_empty(path: &Path) -> Self {
        Self::remember(Entry::IfEmpty(absolute(path)))
    }

    fn remember(entry: Entry) -> Self {
        entries().push(entry.clone());
        Self(entry)
    }

    /// Does what makes it permanent, such as renaming it, while nothing can remove it.
    pub fn keep<T>(self, place: impl FnOnce() -> T) -> T {
        let mut entries = entries();
        let result = place();
        forget(&mut entries, &self.0);
        // Dropping this looks there again.
        drop(entries);
        result
    }
}

impl Drop for Leftover {
    fn drop(&mut self) {
        forget(&mut entries(), &self.0);
    }
}

fn forget(entries: &mut Vec<Entry>, entry: &Entry) {
    if let Some(place) = entries.iter().rposition(|one| one == entry) {
        entries.remove(place);
    }
}

/// A command does not change its folder, but it costs nothing to be sure.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}

/// Removes all of them, the last one first. From then on whoever would make or place another waits for the end of the
/// process.
pub fn remove_all() {
    let entries = entries();
    remove(&entries);
    std::mem::forget(entries);
}

#[expect(
    clippy::disallowed_methods,
    reason = "entries are what this process made"
)]
fn remove(entries: &[Entry]) {
    for entry in entries.iter().rev() {
        match entry {
            // Other threads still write there.
            Entry::Whole(path) if path.is_dir() => {
                let gone = || fs::remove_dir_all(path).is_ok() || !path.exists();
                let _ = (0..100).any(|_| gone());
            }
            Entry::Whole(path) => {
                let _ = fs::remove_file(path);
            }
            Entry::IfEmpty(path) => {
                let _ = fs::remove_dir(path);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_temporary_goes_and_folders_with_something_else_stay() {
        let base = tempfile::tempdir().unwrap();
        let at = |name: &str| base.path().join(name);
        fs::create_dir_all(at("new/inner")).unwrap();
        fs::create_dir_all(at("old")).unwrap();
        fs::create_dir_all(at("partial/unet")).unwrap();
        for file in [
            "new/inner/lock",
            "old/lock",
            "old/photo",
            "partial/unet/weights",
        ] {
            fs::write(at(file), "").unwrap();
        }
        remove(&[
            Entry::IfEmpty(at("new")),
            Entry::IfEmpty(at("new/inner")),
            Entry::Whole(at("new/inner/lock")),
            Entry::IfEmpty(at("old")),
            Entry::Whole(at("old/lock")),
            Entry::Whole(at("partial")),
            Entry::Whole(at("never-made")),
        ]);
        let left: Vec<_> = fs::read_dir(base.path()).unwrap().flatten().collect();
        assert_eq!(left.len(), 1);
        assert!(at("old/photo").exists() && !at("old/lock").exists());
    }

    #[test]
    fn what_has_its_place_is_remembered_no_more() {
        let path = Path::new("/nowhere/file-of-this-test");
        let is_known = || entries().contains(&Entry::Whole(path.into()));
        let leftover = Leftover::whole(path);
        assert!(is_known());
        assert_eq!(leftover.keep(|| 5), 5);
        assert!(!is_known());
        drop(Leftover::whole(path));
        assert!(!is_known());
    }
}
