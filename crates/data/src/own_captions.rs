//! Captions that lie in a folder of images without being named: tables called `metadata` as Hugging Face's `datasets` finds
//! them, or a text file beside each image.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use unicode_normalization::UnicodeNormalization;

use super::captions::{Captions, beside, finished, named, values};
use super::error::DataError;
use super::sources::images;
use super::{Dataset, is_published};

/// Tables of what is known of images, as `datasets` calls them.
const METADATA: [&str; 3] = ["metadata.jsonl", "metadata.csv", "metadata.parquet"];

/// The captions that a folder of images holds, and where they were found; `None`: none are there, or the data set is of another
/// kind.
///
/// Each image's is the entry of its name, relative to the table's folder, in the nearest table in its folder or one above it. A
/// table without texts does not count. Where there is no table, text files beside the images are looked for.
///
/// # Errors
/// Two tables in one folder, one that cannot be read, an image without a caption where others have one.
pub fn own_captions(data: &Dataset) -> Result<Option<(Captions, String)>, DataError> {
    let root = data.path();
    if data.kind() != images::KIND || !root.is_dir() || is_published(root) {
        return Ok(None);
    }
    let names: Vec<String> = (0..data.len()).map(|row| data.name(row)).collect();
    let tables = tables(root, &names)?;
    if let Some(first) = tables.keys().next() {
        let texts = names.iter().map(|name| of_image(&tables, name)).collect();
        let from = match tables.len() {
            1 => tables[first].path.clone(),
            more => format!("{} and {} more like it", tables[first].path, more - 1),
        };
        let captions = finished(data, texts, &from, None)?;
        return Ok(Some((captions, from)));
    }
    let texts = beside(data, root)?;
    if texts.iter().all(Vec::is_empty) {
        return Ok(None);
    }
    let from = format!("the text files beside the images of {}", root.display());
    let captions = finished(data, texts, &from, None)?;
    Ok(Some((captions, from)))
}

/// What a table says of images, by their paths below the data set's folder.
struct Table {
    path: String,
    texts: HashMap<String, Vec<String>>,
    /// The same by the composed forms of their names (NFC): macOS gives files others than people type.
    composed: HashMap<String, Vec<String>>,
}

/// The tables with captions, by the folders below the data set's in which they lie.
fn tables(root: &Path, names: &[String]) -> Result<BTreeMap<String, Table>, DataError> {
    let folders: BTreeSet<&str> = names.iter().flat_map(|name| above(name)).collect();
    let mut tables = BTreeMap::new();
    for folder in folders {
        let place = root.join(folder);
        let mut there = METADATA.iter().map(|name| place.join(name));
        let mut there = there.by_ref().filter(|path| path.is_file());
        let Some(path) = there.next() else {
            continue;
        };
        if let Some(other) = there.next() {
            let problem = format!(
                "both it and {} say what images show; move one of them away, or say which is meant",
                other.display()
            );
            return Err(DataError::format(&path, problem));
        }
        let values = values(&path)?;
        if !values.has_texts() {
            continue;
        }
        let (mut texts, mut composed) = (HashMap::new(), HashMap::new());
        for (name, found) in named(&path, values)? {
            let name = resolved(folder, &name);
            composed.insert(compose(&name), found.clone());
            texts.insert(name, found);
        }
        let path = path.display().to_string();
        let table = Table {
            path,
            texts,
            composed,
        };
        tables.insert(folder.to_owned(), table);
    }
    Ok(tables)
}

/// What the nearest table says of an image.
fn of_image(tables: &BTreeMap<String, Table>, name: &str) -> Vec<String> {
    let nearest = above(name).filter_map(|folder| tables.get(folder)).last();
    let found = nearest.and_then(|table| {
        let exact = table.texts.get(name);
        exact.or_else(|| table.composed.get(&compose(name)))
    });
    found.cloned().unwrap_or_default()
}

/// The folders above a file, from the data set's own, which is "", on.
fn above(name: &str) -> impl Iterator<Item = &str> {
    let inner = name.match_indices('/').map(|(at, _)| &name[..at]);
    std::iter::once("").chain(inner)
}

/// A path that a table in `folder` names, with `.` and `..` worked out and the slashes of Windows turned.
fn resolved(folder: &str, name: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in folder.split('/').chain(name.split(['/', '\\'])) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

pub(crate) fn compose(name: &str) -> String {
    name.nfc().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_tables_are_paths_from_there() {
        for (folder, name, path) in [
            ("", "a.png", "a.png"),
            ("", "./b/a.png", "b/a.png"),
            ("b", "a.png", "b/a.png"),
            ("b/c", "..\\a.png", "b/a.png"),
            ("b", "/a.png", "b/a.png"),
        ] {
            assert_eq!(resolved(folder, name), path);
        }
        assert_eq!(above("b/c/a.png").collect::<Vec<_>>(), ["", "b", "b/c"]);
        assert_eq!(compose("cafe\u{301}"), "caf\u{e9}");
    }
}
