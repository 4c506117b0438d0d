//! Which kind of source lies at a path.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::error::DataError;
use super::folder::{self, Folder};
use super::parquet::{self, ParquetImages};
use super::source::Source;
use super::subsets::{ALL, Subset, among, choose, folders, keyword};
use super::{OpenOptions, cifar, foreign, idx, published};

/// Folders below the one that is named in which files of a data set are looked for: Hugging Face keeps
/// `default/train/0000.parquet`.
const DEPTH: usize = 3;
/// Names of files that tell nothing are kept up to this number, for messages.
const MOST_NAMES: usize = 10_000;
/// Hugging Face's captions of an image folder, no data set of its own.
const METADATA: &str = "metadata.parquet";

pub(crate) fn detect(path: &Path, options: &OpenOptions) -> Result<Box<dyn Source>, DataError> {
    let metadata = fs::metadata(path).map_err(|error| DataError::io(path, error))?;
    if metadata.is_dir() {
        detect_folder(path, options)
    } else {
        detect_file(path, options)
    }
}

fn detect_file(path: &Path, options: &OpenOptions) -> Result<Box<dyn Source>, DataError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let unrecognized = |found: &str| DataError::Unrecognized {
        path: path.to_owned(),
        found: found.to_owned(),
    };
    // A file holds one split, whose name its own tells or nothing does.
    let check_split = |split: Option<String>, rows: &dyn Fn() -> Result<usize, DataError>| {
        let only = Subset {
            name: split.unwrap_or_default(),
            files: vec![name.to_string()],
        };
        let wanted = options.split.as_deref();
        choose(path, vec![only], wanted, true, |_| rows()).map(drop)
    };
    let budget = options.memory_budget;
    if is_parquet(&name) {
        check_split(table_split(&name), &|| parquet::rows(path))?;
        Ok(Box::new(ParquetImages::open(
            path,
            &[path.to_owned()],
            budget,
        )?))
    } else if idx::is_images_name(&name) {
        check_split(pair_split(&name), &|| idx::rows(path))?;
        Ok(Box::new(idx::open(path, budget)?))
    } else if idx::is_labels_name(&name) {
        Err(unrecognized(
            "this is the labels file of an IDX pair; name the images file beside it",
        ))
    } else if folder::is_image_name(path) {
        Err(unrecognized(
            "this is a single image; name the folder that holds the images",
        ))
    } else if let Some(what) = foreign::file(path) {
        Err(DataError::Unsupported {
            path: path.to_owned(),
            what,
        })
    } else if name.ends_with(".bin") {
        check_split(cifar::split(&name), &|| cifar::rows(path))?;
        Ok(Box::new(cifar::open(path, &[path.to_owned()], budget)?))
    } else {
        Err(unrecognized("no data set has a file of this name"))
    }
}

fn no_splits(path: &Path, wanted: &str) -> DataError {
    DataError::Splits {
        path: path.to_owned(),
        wanted: Some(wanted.to_owned()),
        found: Vec::new(),
        together: false,
    }
}

fn is_parquet(name: &str) -> bool {
    let name = name.to_lowercase();
    name.ends_with(".parquet") || name.ends_with(".pq") || name.ends_with(".parq")
}

/// A folder is what its files make it. Files of a data set lie in it, in `data/` as Hugging Face keeps them, in
/// `cifar-10-batches-bin/` as its archive unpacks; else further down, where nothing else is found.
fn detect_folder(path: &Path, options: &OpenOptions) -> Result<Box<dyn Source>, DataError> {
    let split = options.split.as_deref();
    if published::is_published(path) {
        return match split {
            Some(wanted) if wanted != ALL => Err(no_splits(path, wanted)),
            _ => Ok(Box::new(published::open(path)?)),
        };
    }
    let files = below(path)?;
    let of = |wanted: &dyn Fn(&str) -> bool| -> Vec<String> {
        let named = |file: &&String| wanted(plain(file));
        files.iter().filter(named).cloned().collect()
    };
    // Tables beside a data set, such as its captions, are none of it.
    let (tables, side): (Vec<String>, Vec<String>) =
        of(&|name| is_parquet(name) && name != METADATA)
            .into_iter()
            .partition(|name| !parquet::has_no_images(&path.join(name)));
    let mut pairs = of(&idx::is_images_name);
    // A file beside its own packed copy is one data set.
    pairs.dedup_by(|packed, plain| *packed == format!("{plain}.gz"));
    let at_top = |names: &[String]| -> Vec<String> {
        let top = names.iter().filter(|name| !name.contains('/'));
        top.cloned().collect()
    };
    let direct = match at_top(&tables) {
        none if none.is_empty() => {
            let data = tables.iter().filter(|name| name.starts_with("data/"));
            data.cloned().collect()
        }
        direct => direct,
    };
    // What lies at hand is the data set, and images elsewhere are of something else, unless they are another split of it.
    let check_alone = |data: &str| match split_of_images(path) {
        Some(images) => Err(ambiguous(path, &images, data)),
        None => Ok(()),
    };
    if let Some(first) = direct.first() {
        check_alone(first)?;
        return open_tables(path, direct, options);
    }
    let mut batches = cifar::places(path, &files);
    let near = |place: &String| place.is_empty() || cifar::FOLDERS.contains(&place.as_str());
    if let Some(place) = batches.iter().find(|place| near(place)) {
        let batch = files
            .iter()
            .find(|name| name.starts_with(place.as_str()) && name.ends_with(".bin"));
        check_alone(batch.map_or(place, |batch| batch))?;
        return Ok(Box::new(cifar::open_folder(path, place, options)?));
    }
    let direct = at_top(&pairs);
    if let Some(first) = direct.first() {
        check_alone(first)?;
        return open_pairs(path, direct, options);
    }

    let images = Folder::find(path)?;
    let mut found: Vec<&str> = Vec::new();
    if let Some(images) = &images {
        let name = &images.names()[0];
        found.push(
            name.split_once('/')
                .map_or(name.as_str(), |(folder, _)| folder),
        );
    }
    found.extend(tables.first().map(|name| place(name)));
    let others = [&pairs, &batches];
    found.extend(
        others
            .iter()
            .filter_map(|names| names.first())
            .map(String::as_str),
    );
    if let [first, second, ..] = found.as_slice() {
        return Err(ambiguous(path, first, second));
    }
    if let Some(images) = images {
        return Ok(Box::new(images.of_split(split)?));
    }
    if !tables.is_empty() {
        return open_tables(path, tables, options);
    }
    if !pairs.is_empty() {
        return open_pairs(path, pairs, options);
    }
    if let Some(place) = batches.pop() {
        if let Some(other) = batches.first() {
            return Err(ambiguous(path, other, &place));
        }
        return Ok(Box::new(cifar::open_folder(path, &place, options)?));
    }
    Err(match foreign::folder(path, &files) {
        Some(what) => DataError::Unsupported {
            path: path.to_owned(),
            what,
        },
        // It says which columns there are.
        None if !side.is_empty() => return open_tables(path, side, options),
        None => DataError::Unrecognized {
            path: path.to_owned(),
            found: match files.as_slice() {
                [] if holds_folders(path) => format!(
                    "no file lies in the folder or in {DEPTH} levels of folders below it; name the folder that holds \
                     the files"
                ),
                [] => "the folder holds no files".to_owned(),
                files => format!(
                    "no file in it belongs to a data set (it holds {})",
                    foreign::listing(files)
                ),
            },
        },
    })
}

/// A folder with images that is called like a split.
fn split_of_images(path: &Path) -> Option<String> {
    let images = Folder::find(path).ok()??;
    images.names().iter().find_map(|name| {
        let (parent, part) = folders(name).find(|(_, part)| keyword(part).is_some())?;
        Some(match parent {
            "" => part.to_owned(),
            parent => format!("{parent}/{part}"),
        })
    })
}

/// What is said of images in the folder of another data set, which are none of it.
pub(crate) fn images_beside(path: &Path, source: &dyn Source) -> Option<String> {
    if !path.is_dir() || source.kind() == folder::KIND {
        return None;
    }
    let images = Folder::find(path).ok()??;
    let (count, first) = (images.names().len(), &images.names()[0]);
    let (images, are) = match count {
        1 => ("1 image".to_owned(), "is"),
        many => (format!("{many} images"), "are"),
    };
    Some(format!(
        "read as {}; {images} beside it ({first}{}) {are} not read",
        source.kind(),
        if count > 1 { ", ..." } else { "" },
    ))
}

/// The last part of a path without its ending.
fn stem(name: &str) -> &str {
    let name = plain(name);
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}

/// The last part of a path.
fn plain(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

fn ambiguous(path: &Path, first: &str, second: &str) -> DataError {
    DataError::Ambiguous {
        path: path.to_owned(),
        first: first.to_owned(),
        second: second.to_owned(),
    }
}

/// Whether folders lie [`DEPTH`] levels down, in which nobody looked.
fn holds_folders(root: &Path) -> bool {
    let mut level = vec![root.to_owned()];
    for _ in 0..=DEPTH {
        let below = |folder: &PathBuf| {
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            let seen =
                entries.filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'));
            let folders = seen.map(|entry| entry.path()).filter(|path| path.is_dir());
            folders.take(MOST_NAMES).collect::<Vec<_>>()
        };
        level = level.iter().flat_map(below).take(MOST_NAMES).collect();
    }
    !level.is_empty()
}

/// Files in a folder and some way below it, by their sorted paths from there, without hidden ones and without images.
fn below(root: &Path) -> Result<Vec<String>, DataError> {
    let mut files = Vec::new();
    let mut folders = vec![(String::new(), 0)];
    while let Some((name, depth)) = folders.pop() {
        let folder = root.join(&name);
        let io = |error| DataError::io(&folder, error);
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if depth == 0 => return Err(io(error)),
            // What cannot be looked into is reported where images are looked for.
            Err(_) => continue,
        };
        for entry in entries {
            let entry = entry.map_err(io)?;
            let Some(own) = entry.file_name().to_str().map(str::to_owned) else {
                continue;
            };
            if own.starts_with('.') {
                continue;
            }
            let path = match name.as_str() {
                "" => own,
                name => format!("{name}/{own}"),
            };
            let is_image = folder::is_image_name(Path::new(&path));
            // Links are followed: Hugging Face's cache is made of them.
            let kind = entry.file_type().map_err(io)?;
            if kind.is_dir() || (kind.is_symlink() && entry.path().is_dir()) {
                if depth < DEPTH {
                    folders.push((path, depth + 1));
                }
            } else if !is_image
                && entry.path().is_file()
                && (files.len() < MOST_NAMES || is_parquet(&path) || path.ends_with(".bin"))
            {
                files.push(path);
            }
        }
    }
    files.sort_unstable();
    Ok(files)
}

fn open_tables(
    path: &Path,
    names: Vec<String>,
    options: &OpenOptions,
) -> Result<Box<dyn Source>, DataError> {
    // Several configurations of a data set often hold the same images: folders that are not called like splits.
    let configuration = |name: &String| -> String {
        let parts = folders(name).filter(|(_, part)| keyword(part).is_none());
        parts.map(|(_, part)| part).collect::<Vec<_>>().join("/")
    };
    let mut known = names.iter().map(|name| (configuration(name), name));
    if let Some((first, first_name)) = known.next()
        && let Some((_, name)) = known.find(|(other, _)| *other != first)
    {
        return Err(ambiguous(path, place(first_name), place(name)));
    }
    let beside = names.clone();
    let alike = among(beside.iter().map(|name| stem(name)));
    let split = |name: &str| {
        let known = || {
            alike
                .contains_key(stem(name))
                .then(|| stem(name).to_owned())
        };
        table_split(name).or_else(known)
    };
    let chosen = choose(
        path,
        Subset::group(names, split),
        options.split.as_deref(),
        true,
        |names| {
            names
                .iter()
                .map(|name| parquet::rows(&path.join(name)))
                .sum()
        },
    )?;
    for subset in Subset::group(chosen.clone(), split) {
        check_shards(path, &subset.files)?;
    }
    let files: Vec<PathBuf> = chosen.iter().map(|name| path.join(name)).collect();
    Ok(Box::new(ParquetImages::open(
        path,
        &files,
        options.memory_budget,
    )?))
}

/// The folder of a configuration that a Parquet file lies in, above its splits' folders.
fn place(name: &str) -> &str {
    let ends = |(parent, part): (&str, &str)| match parent {
        "" => (part.len(), keyword(part).is_none()),
        parent => (parent.len() + 1 + part.len(), keyword(part).is_none()),
    };
    let parts: Vec<(usize, bool)> = folders(name).map(ends).collect();
    let own = parts.iter().rev().find(|(_, own)| *own);
    own.or(parts.first()).map_or(name, |&(end, _)| &name[..end])
}

/// The split that a Parquet file belongs to: `train-00000-of-00002.parquet`, `train/0000.parquet`, `my_train.parquet`.
fn table_split(name: &str) -> Option<String> {
    let shard = Shard::parse(plain(name)).map(|shard| shard.split);
    let known = |name: &String| keyword(name).is_some();
    let folder = || {
        let parts = folders(name).map(|(_, part)| part.to_owned());
        parts.filter(known).last()
    };
    shard
        .clone()
        .filter(known)
        .or_else(folder)
        .or(shard)
        .or_else(|| Some(keyword(plain(name))?.0.to_owned()))
}

/// The split that an IDX pair belongs to: `train-images-idx3-ubyte`.
fn pair_split(name: &str) -> Option<String> {
    let (before, _) = plain(name).split_once("images")?;
    Some(before.trim_end_matches(['-', '.', '_']).to_owned())
}

fn open_pairs(
    path: &Path,
    names: Vec<String>,
    options: &OpenOptions,
) -> Result<Box<dyn Source>, DataError> {
    let places: BTreeSet<&str> = names
        .iter()
        .map(|name| name.rsplit_once('/').map_or("", |(folder, _)| folder))
        .collect();
    if places.len() > 1 {
        return Err(ambiguous(path, &names[0], &names[names.len() - 1]));
    }
    let subsets = Subset::group(names, pair_split);
    let one = |names: &[String]| idx::rows(&path.join(&names[0]));
    let wanted = options.split.as_deref();
    let chosen = choose(path, subsets, wanted, false, one)?;
    match chosen.as_slice() {
        [only] => Ok(Box::new(idx::open(
            &path.join(only),
            options.memory_budget,
        )?)),
        several => Err(ambiguous(path, &several[0], &several[several.len() - 1])),
    }
}

/// Hugging Face names shards `train-00000-of-00002.parquet`: a missing one would shift every row after it.
fn check_shards(folder: &Path, names: &[String]) -> Result<(), DataError> {
    let shards: Vec<(&String, Shard)> = names
        .iter()
        .filter_map(|name| Some((name, Shard::parse(plain(name))?)))
        .collect();
    let Some((first_name, first)) = shards.first() else {
        return Ok(());
    };
    let two_uploads = |one: &str, other: &str, what: &str| {
        let problem = format!(
            "holds {what}, {one} and {other}, as two uploads leave them; move the files of one of them to another folder"
        );
        Err(DataError::format(folder, problem))
    };
    let is_other = |shard: &Shard| first.split != shard.split || first.count != shard.count;
    if let Some((name, _)) = shards.iter().find(|(_, shard)| is_other(shard)) {
        return two_uploads(first_name, name, "shards of two data sets");
    }
    for (place, (name, shard)) in shards.iter().enumerate() {
        let same = |(_, other): &&(&String, Shard)| other.index == shard.index;
        if let Some((other, _)) = shards[..place].iter().find(same) {
            return two_uploads(other, name, "the same shard twice");
        }
    }
    for index in 0..first.count {
        if !shards.iter().any(|(_, shard)| shard.index == index) {
            let name = format!("{}-{index:05}-of-{:05}.parquet", first.split, first.count);
            let problem = format!(
                "shard {index} of {} is missing ({name}); fetch it",
                first.count
            );
            return Err(DataError::format(folder, problem));
        }
    }
    Ok(())
}

struct Shard {
    split: String,
    index: usize,
    count: usize,
}

impl Shard {
    fn parse(name: &str) -> Option<Self> {
        let stem = name.strip_suffix(".parquet")?;
        let (rest, count) = stem.split_once("-of-")?;
        let (split, index) = rest.rsplit_once('-')?;
        // Newer files carry a hash after the count.
        let count = count.split('-').next()?;
        Some(Self {
            split: split.to_owned(),
            index: index.parse().ok()?,
            count: count.parse().ok()?,
        })
    }
}
