//! A finished folder moves into an output folder, in place of what was written there before and of nothing else.
//!
//! At any moment of it the new files are whole, here or there. A list of them, the mark, lies beside the finished folder
//! from the first move to the last; who finds it goes on with the same call.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use retrack_checkpoint::durable;
use retrack_checkpoint::written::{
    self, Command, Owner, Written, WrittenError, belongs_to_git, files_below,
};

/// Without it a folder is no model to anybody: the old one goes first, the new one comes last.
const INDEX: [&str; 2] = ["model_index.json", "config.json"];

/// How files of weights end, in any library's form.
const WEIGHTS: [&str; 8] = [
    ".safetensors",
    ".safetensors.index.json",
    ".bin",
    ".bin.index.json",
    ".pt",
    ".pth",
    ".ckpt",
    ".msgpack",
];

/// Moves the files below `staged` to `out`. Files of the output folder's list that are not among them are removed, if
/// they are what was written; the list becomes that of the new files and of those that `record` returns, which is called
/// after the moves. The list says that `command` wrote it. `.gitattributes` and the like stay as they are. Returns weight files of somebody else beside the new
/// files, which a program may read in place of them.
///
/// # Errors
/// The disk's. A file in the way, before anything is moved but for what an interrupted call moved: with that file gone,
/// the same call does the rest.
pub fn publish(
    out: &Path,
    staged: &Path,
    mark: &Path,
    command: Option<Command>,
    record: impl FnOnce() -> io::Result<Vec<PathBuf>>,
) -> Result<Vec<PathBuf>, WrittenError> {
    let io_error = |source| WrittenError::Io {
        path: out.to_path_buf(),
        source,
    };
    let mut old = Written::read(out)?.unwrap_or_default();
    let mut waiting = match staged.is_dir() {
        true => files_below(staged).map_err(io_error)?,
        false => Vec::new(),
    };
    for file in std::mem::take(&mut waiting) {
        if belongs_to_git(&file) && old.owner(out, &file)? == Owner::Other {
            fs::remove_file(staged.join(file)).map_err(io_error)?;
        } else {
            waiting.push(file);
        }
    }
    let new = match Written::read_file(mark)? {
        Some(begun) => begun,
        None => {
            let mut new = Written::default();
            for file in &waiting {
                new.add(file, written::sha256(&staged.join(file))?);
            }
            new.save_file(mark)?;
            new
        }
    };
    let mut ours = old.clone();
    ours.extend(&new);
    ours.check(out, waiting.iter().map(PathBuf::as_path))?;

    for index in INDEX.map(PathBuf::from) {
        if waiting.contains(&index) {
            old.remove(out, &index)?;
        }
    }
    waiting.sort_by_key(|file| INDEX.iter().any(|index| file == Path::new(index)));
    let mut folders = BTreeSet::from([PathBuf::new()]);
    for file in &waiting {
        let folder = file.parent().unwrap_or(Path::new(""));
        if folders.insert(folder.to_path_buf()) {
            fs::create_dir_all(out.join(folder)).map_err(io_error)?;
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "the folders are synced when all files are there"
        )]
        fs::rename(staged.join(file), out.join(file)).map_err(io_error)?;
        written::remove_empty(staged, file);
    }
    let record = record().map_err(io_error)?;
    for file in old.paths() {
        if !new.has(&file) && !record.contains(&file) {
            old.remove(out, &file)?;
        }
    }
    for folder in &folders {
        durable::sync_folder(&out.join(folder)).map_err(io_error)?;
    }
    if staged.is_dir() {
        remove_empty_folders(staged).map_err(io_error)?;
    }
    let mut list = new.clone();
    list.command = command;
    for file in &record {
        list.set(file, written::sha256(&out.join(file))?);
    }
    list.save(out)?;
    foreign_weights(out, &new).map_err(io_error)
}

/// Removes a folder of empty folders.
pub(crate) fn remove_empty_folders(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_empty_folders(&entry.path())?;
        }
    }
    fs::remove_dir(folder)
}

/// Whether a file has the name of weights, which a program may read in place of others beside it.
pub fn is_weights(file: &Path) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    WEIGHTS.iter().any(|end| name.ends_with(end))
}

/// Whether a file has the name of a model's index, which says what the folder around it holds.
pub fn is_index(file: &Path) -> bool {
    INDEX
        .iter()
        .any(|index| file.file_name() == Some(index.as_ref()))
}

fn foreign_weights(out: &Path, ours: &Written) -> io::Result<Vec<PathBuf>> {
    let folders: BTreeSet<PathBuf> = ours
        .paths()
        .iter()
        .filter_map(|file| Some(file.parent()?.to_path_buf()))
        .collect();
    let mut found = Vec::new();
    for folder in folders {
        for entry in fs::read_dir(out.join(&folder))? {
            let path = folder.join(entry?.file_name());
            if is_weights(&path) && !ours.has(&path) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folders {
        base: tempfile::TempDir,
    }

    impl Folders {
        fn new(files: &[(&str, &str)]) -> Self {
            let folders = Self {
                base: tempfile::tempdir().unwrap(),
            };
            for (name, content) in files {
                folders.write(name, content);
            }
            folders
        }

        fn path(&self, name: &str) -> PathBuf {
            self.base.path().join(name)
        }

        fn write(&self, name: &str, content: &str) {
            fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
            fs::write(self.path(name), content).unwrap();
        }

        /// Content by name of what is not the tool's own.
        fn out(&self) -> Vec<(String, String)> {
            let files = files_below(&self.path("out")).unwrap().into_iter();
            files
                .map(|file| {
                    let content = fs::read_to_string(self.path("out").join(&file)).unwrap();
                    (file.display().to_string(), content)
                })
                .filter(|(name, _)| name != written::NAME)
                .collect()
        }

        fn publish(&self) -> Result<Vec<PathBuf>, WrittenError> {
            let record = || Ok(Vec::new());
            publish(
                &self.path("out"),
                &self.path("new"),
                &self.path("mark"),
                None,
                record,
            )
        }

        fn list(&self, files: &[(&str, &str)]) {
            let mut list = Written::default();
            for (name, content) in files {
                list.add(Path::new(name), written::digest(content.as_bytes()));
            }
            list.save(&self.path("out")).unwrap();
        }
    }

    const NEW: [(&str, &str); 2] = [
        ("new/model_index.json", "2"),
        ("new/unet/w.safetensors", "2"),
    ];

    fn texts(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        let pairs = pairs.iter();
        pairs
            .map(|(name, content)| (name.to_string(), content.to_string()))
            .collect()
    }

    #[test]
    fn the_old_model_goes_and_what_belongs_to_somebody_else_stays() {
        let folders = Folders::new(&NEW);
        for (name, content) in [
            (".git/HEAD", "ref"),
            (".gitattributes", "theirs"),
            ("model_index.json", "1"),
            ("notes.md", "mine"),
            ("unet/old.bin", "1"),
            ("unet/changed.bin", "mine now"),
            ("vae/config.json", "1"),
        ] {
            folders.write(&format!("out/{name}"), content);
        }
        folders.write("new/.gitattributes", "the base model's");
        folders.list(&[
            ("model_index.json", "1"),
            ("unet/old.bin", "1"),
            ("unet/changed.bin", "1"),
            ("vae/config.json", "1"),
        ]);
        assert_eq!(folders.publish().unwrap(), [Path::new("unet/changed.bin")]);
        let expected = [
            (".git/HEAD", "ref"),
            (".gitattributes", "theirs"),
            ("model_index.json", "2"),
            ("notes.md", "mine"),
            ("unet/changed.bin", "mine now"),
            ("unet/w.safetensors", "2"),
        ];
        assert_eq!(folders.out(), texts(&expected));
        assert!(!folders.path("out/vae").exists() && !folders.path("new").exists());
        let list = Written::read(&folders.path("out")).unwrap().unwrap();
        assert_eq!(list.paths().len(), 2);
    }

    #[test]
    fn a_file_that_came_in_the_way_stops_it_and_the_same_call_does_the_rest() {
        let folders = Folders::new(&NEW);
        folders.write("out/unet/w.safetensors", "mine");
        let Err(WrittenError::InTheWay { path }) = folders.publish() else {
            panic!("published");
        };
        assert_eq!(path, folders.path("out/unet/w.safetensors"));
        assert_eq!(folders.out(), texts(&[("unet/w.safetensors", "mine")]));
        fs::remove_file(path).unwrap();
        folders.publish().unwrap();
        assert_eq!(folders.out().len(), 2);
    }

    #[test]
    fn a_call_that_died_at_any_move_is_finished_by_the_next() {
        for moved in 0..3 {
            let folders = Folders::new(&NEW);
            folders.write("out/model_index.json", "1");
            folders.write("out/unet/old.bin", "1");
            folders.list(&[("model_index.json", "1"), ("unet/old.bin", "1")]);
            let mut mark = Written::default();
            for (name, content) in NEW {
                let name = name.strip_prefix("new/").unwrap();
                mark.add(Path::new(name), written::digest(content.as_bytes()));
            }
            mark.save_file(&folders.path("mark")).unwrap();
            // As it goes: the old index, the weights, the new index.
            if moved > 0 {
                fs::remove_file(folders.path("out/model_index.json")).unwrap();
            }
            for (name, _) in NEW.iter().rev().take(moved) {
                let to = folders.path("out").join(name.strip_prefix("new/").unwrap());
                fs::rename(folders.path(name), to).unwrap();
            }
            folders.publish().unwrap();
            let expected = [("model_index.json", "2"), ("unet/w.safetensors", "2")];
            assert_eq!(folders.out(), texts(&expected), "{moved}");
        }
    }
}
