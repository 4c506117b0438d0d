//! Which kind of source lies at a path.

use std::fs;
use std::path::{Path, PathBuf};

use super::error::DataError;
use super::folder::{self, Folder};
use super::parquet::ParquetImages;
use super::source::Source;
use super::{OpenOptions, cifar, idx, published};

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
    if name.ends_with(".parquet") {
        Ok(Box::new(ParquetImages::open(
            path,
            &[path.to_owned()],
            options.memory_budget,
        )?))
    } else if idx::is_images_name(&name) {
        Ok(Box::new(idx::open(path, options.memory_budget)?))
    } else if idx::is_labels_name(&name) {
        Err(unrecognized(
            "this is the labels file of an IDX pair; name the images file beside it",
        ))
    } else if name.ends_with(".bin") {
        Ok(Box::new(cifar::open(
            path,
            &[path.to_owned()],
            options.memory_budget,
        )?))
    } else if folder::is_image_name(path) {
        Err(unrecognized(
            "this is a single image; name the folder that holds the images",
        ))
    } else if name.ends_with(".tar.gz")
        || name.ends_with(".tgz")
        || name.ends_with(".zip")
        || name.ends_with(".tar")
    {
        Err(unrecognized(
            "this is an archive; unpack it and name the folder",
        ))
    } else {
        Err(unrecognized("no data set has a file of this name"))
    }
}

/// A folder is what its files make it. Hugging Face keeps Parquet files in `data/`, and the CIFAR-10 archive unpacks
/// to `cifar-10-batches-bin/`: both are found from the folder above.
fn detect_folder(path: &Path, options: &OpenOptions) -> Result<Box<dyn Source>, DataError> {
    let budget = options.memory_budget;
    if published::is_published(path) {
        return Ok(Box::new(published::open(path)?));
    }
    let here = list(path)?;
    let with = |wanted: &dyn Fn(&str) -> bool, files: &[PathBuf]| -> Vec<PathBuf> {
        let named = |file: &&PathBuf| {
            file.file_name()
                .and_then(|name| name.to_str())
                .is_some_and(wanted)
        };
        files.iter().filter(named).cloned().collect()
    };
    let mut parquet = with(&|name| name.ends_with(".parquet"), &here);
    let data = path.join("data");
    if parquet.is_empty() && data.is_dir() {
        parquet = with(&|name| name.ends_with(".parquet"), &list(&data)?);
    }
    let mut images = with(&idx::is_images_name, &here);
    // A file beside its own packed copy is one data set.
    images.dedup_by(|packed, plain| file_name(packed) == format!("{}.gz", file_name(plain)));
    let inside = path.join("cifar-10-batches-bin");
    let batches = match cifar::batches(path)? {
        None if inside.is_dir() => cifar::batches(&inside)?,
        found => found,
    };

    if !parquet.is_empty() {
        check_shards(path, &parquet)?;
        return Ok(Box::new(ParquetImages::open(path, &parquet, budget)?));
    }
    if let Some(batches) = batches {
        return Ok(Box::new(cifar::open(path, &batches, budget)?));
    }
    match images.as_slice() {
        [] => {}
        [only] => return Ok(Box::new(idx::open(only, budget)?)),
        [first, second, ..] => return Err(ambiguous(path, file_name(first), file_name(second))),
    }
    match Folder::open(path)? {
        Some(folder) => Ok(Box::new(folder)),
        None => Err(DataError::Unrecognized {
            path: path.to_owned(),
            found: if here.is_empty() {
                "the folder holds no files"
            } else {
                "no file in it belongs to a data set"
            }
            .to_owned(),
        }),
    }
}

fn ambiguous(path: &Path, first: String, second: String) -> DataError {
    DataError::Ambiguous {
        path: path.to_owned(),
        first,
        second,
    }
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// Files of a folder by name, without hidden ones.
fn list(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let io = |error| DataError::io(folder, error);
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.is_file() && !file_name(&path).starts_with('.') {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Hugging Face names shards `train-00000-of-00002.parquet`: two splits are two data sets, and a missing shard would
/// shift every row after it.
fn check_shards(folder: &Path, files: &[PathBuf]) -> Result<(), DataError> {
    let split = |name: &str| {
        files
            .iter()
            .find(|file| file_name(file) == format!("{name}.parquet"))
    };
    if let (Some(train), Some(other)) = (
        split("train"),
        split("test").or_else(|| split("validation")),
    ) {
        return Err(ambiguous(folder, file_name(train), file_name(other)));
    }
    let shards: Vec<Option<Shard>> = files
        .iter()
        .map(|file| Shard::parse(&file_name(file)))
        .collect();
    let mut known: Option<&Shard> = None;
    for (file, shard) in files.iter().zip(&shards) {
        let Some(shard) = shard else { continue };
        match known {
            Some(first) if first.split != shard.split || first.count != shard.count => {
                let first_file = &files[shards.iter().position(Option::is_some).unwrap_or(0)];
                return Err(ambiguous(folder, file_name(first_file), file_name(file)));
            }
            _ => known = Some(shard),
        }
    }
    let Some(first) = known else { return Ok(()) };
    for index in 0..first.count {
        if !shards.iter().flatten().any(|shard| shard.index == index) {
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
