//! Each crate can be packaged: what it compiles in lies in its own folder.

use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn files_that_are_compiled_in_lie_in_their_own_crate() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut seen = 0;
    for entry in fs::read_dir(crates).unwrap() {
        let folder = entry.unwrap().path();
        let mut sources = Vec::new();
        find_sources(&folder.join("src"), &mut sources);
        for source in sources {
            for included in included(&fs::read_to_string(&source).unwrap()) {
                seen += 1;
                let path = source.parent().unwrap().join(&included);
                assert!(path.is_file(), "{}: {included}", source.display());
                let up = included.matches("../").count();
                let below = source.strip_prefix(&folder).unwrap().components().count() - 1;
                assert!(
                    up <= below,
                    "{}: {included} lies outside of the crate",
                    source.display()
                );
            }
        }
    }
    assert!(seen > 10, "{seen}");
}

fn find_sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            find_sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The paths in `include_str!` and `include_bytes!`.
fn included(source: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for name in ["include_str!(", "include_bytes!("] {
        for (place, _) in source.match_indices(name) {
            let rest = source[place + name.len()..].trim_start();
            if let Some(path) = rest.strip_prefix('"').and_then(|rest| rest.split_once('"')) {
                paths.push(path.0.to_owned());
            }
        }
    }
    paths
}
