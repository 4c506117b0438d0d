//! Parquet files with a Hugging Face image column: one file, or shards and splits in a folder.

mod columns;
mod rows;
mod tables;
mod texts;

use std::path::{Path, PathBuf};

use self::rows::ParquetImages;
pub(crate) use self::tables::text_rows;
use super::{Certainty, Format, Found, Opened, Words, check_split};
use crate::OpenOptions;
use crate::error::DataError;
use crate::listing::{Listing, plain};
use crate::subsets::{Subset, among, choose, folders, keyword};

/// Hugging Face's captions of an image folder, no data set of its own.
const METADATA: &str = "metadata.parquet";

/// Tables of images.
pub(crate) struct Parquet;

impl Format for Parquet {
    fn words(&self) -> Option<Words> {
        Some(Words {
            short: "Parquet",
            expected: "a Parquet file or folder",
            long: "a Parquet file or folder (Hugging Face image column)",
        })
    }

    fn knows(&self, name: &str) -> bool {
        let name = name.to_lowercase();
        name.ends_with(".parquet") || name.ends_with(".pq") || name.ends_with(".parq")
    }

    fn open_file(&self, path: &Path, name: &str, options: &OpenOptions) -> Option<Opened> {
        let open = || -> Opened {
            check_split(path, name, table_split(name), options, || rows::rows(path))?;
            let paths = [path.to_owned()];
            Ok(Box::new(ParquetImages::open(
                path,
                &paths,
                options.memory_budget,
            )?))
        };
        self.knows(name).then(open)
    }

    fn certainty(&self) -> Certainty {
        Certainty::Content
    }

    fn at_hand(&self, folder: &Listing) -> Result<Option<Found>, DataError> {
        let named = self.named(folder)?;
        let tables = |at: &dyn Fn(&str) -> bool| -> Vec<String> {
            let there = named.iter().filter(|name| at(name));
            there
                .filter(|name| has_images(folder, name))
                .cloned()
                .collect()
        };
        let here = tables(&|name| !name.contains('/'));
        Ok(Found::named_by_first(match here.is_empty() {
            true => tables(&|name| name.starts_with("data/")),
            false => here,
        }))
    }

    fn below(&self, folder: &Listing) -> Result<Option<Found>, DataError> {
        let mut names = self.named(folder)?;
        names.retain(|name| has_images(folder, name));
        let called = names.first().map(|name| place(name).to_owned());
        Ok(called.map(|called| Found { names, called }))
    }

    fn open_folder(&self, path: &Path, names: Vec<String>, options: &OpenOptions) -> Opened {
        // Several configurations of a data set often hold the same images: folders that are not called like splits.
        let configuration = |name: &String| -> String {
            let parts = folders(name).filter(|(_, part)| keyword(part).is_none());
            parts.map(|(_, part)| part).collect::<Vec<_>>().join("/")
        };
        let mut known = names.iter().map(|name| (configuration(name), name));
        if let Some((first, first_name)) = known.next()
            && let Some((_, name)) = known.find(|(other, _)| *other != first)
        {
            return Err(DataError::ambiguous(path, place(first_name), place(name)));
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
            |names| names.iter().map(|name| rows::rows(&path.join(name))).sum(),
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

    /// It says which columns there are.
    fn refusal(&self, folder: &Listing, options: &OpenOptions) -> Option<DataError> {
        let mut names = self.named(folder).ok()?;
        names.retain(|name| !has_images(folder, name));
        let refused = |names| self.open_folder(folder.root, names, options).err();
        (!names.is_empty()).then_some(names).and_then(refused)
    }
}

impl Parquet {
    fn named(&self, folder: &Listing) -> Result<Vec<String>, DataError> {
        folder.called(|name| self.knows(name) && name != METADATA)
    }
}

/// Tables beside a data set, such as its captions, are none of it.
fn has_images(folder: &Listing, name: &str) -> bool {
    !rows::has_no_images(&folder.root.join(name))
}

/// The last part of a path without its ending.
fn stem(name: &str) -> &str {
    let name = plain(name);
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
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
