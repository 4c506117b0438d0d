//! CIFAR-10 and CIFAR-100 in their binary version: records of one label byte (CIFAR-100: coarse and fine label) and 3,072
//! pixel bytes, red plane first.

mod pickle;
mod python;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use retrack_checkpoint::files::open_regular;

pub(crate) use self::python::PythonBatches;
use super::{Certainty, Format, Found, Opened, Words, check_split};
use crate::error::DataError;
use crate::foreign;
use crate::listing::Listing;
use crate::raw::{RawImages, RecordFile};
use crate::subsets::{Subset, choose, keyword};
use crate::{ImageShape, OpenOptions};

const SHAPE: ImageShape = ImageShape {
    height: 32,
    width: 32,
    channels: 3,
};
const PIXELS: u64 = 32 * 32 * 3;
/// What the archives unpack to.
const FOLDERS: [&str; 2] = ["cifar-10-batches-bin", "cifar-100-binary"];
const BATCHES: [&str; 5] = [
    "data_batch_1.bin",
    "data_batch_2.bin",
    "data_batch_3.bin",
    "data_batch_4.bin",
    "data_batch_5.bin",
];
const TEST: &str = "test_batch.bin";

/// Batches of records.
pub(crate) struct Batches;

impl Format for Batches {
    fn words(&self) -> Option<Words> {
        Some(Words {
            short: "CIFAR-10 batches",
            expected: "CIFAR-10 batches",
            long: "CIFAR-10 or CIFAR-100 in the binary or Python version",
        })
    }

    fn knows(&self, name: &str) -> bool {
        name.ends_with(".bin")
    }

    fn open_file(&self, path: &Path, name: &str, options: &OpenOptions) -> Option<Opened> {
        // Weights of networks end so too.
        if !self.knows(name) || foreign::file(path).is_some() {
            return None;
        }
        let opened = || -> Opened {
            check_split(path, name, split(name), options, || rows(path))?;
            let paths = [path.to_owned()];
            Ok(Box::new(open(path, &paths, options.memory_budget)?))
        };
        Some(opened())
    }

    fn certainty(&self) -> Certainty {
        Certainty::Content
    }

    fn at_hand(&self, folder: &Listing) -> Result<Option<Found>, DataError> {
        let files = folder.files()?;
        let mut places = places(folder.root, files).into_iter();
        let near = |place: &String| place.is_empty() || FOLDERS.contains(&place.as_str());
        Ok(places.find(near).map(|place| {
            let is_batch = |name: &&String| name.starts_with(&place) && self.knows(name);
            let batch = files.iter().find(is_batch);
            Found {
                called: batch.unwrap_or(&place).clone(),
                names: vec![place],
            }
        }))
    }

    fn below(&self, folder: &Listing) -> Result<Option<Found>, DataError> {
        let places = places(folder.root, folder.files()?);
        Ok(Found::named_by_first(places))
    }

    fn open_folder(&self, path: &Path, names: Vec<String>, options: &OpenOptions) -> Opened {
        match names.as_slice() {
            [place] => Ok(Box::new(open_folder(path, place, options)?)),
            [first, .., last] => Err(DataError::ambiguous(path, first, last)),
            [] => unreachable!("a place was found"),
        }
    }
}

/// The two data sets that come in this form.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Version {
    Ten,
    /// Labeled by the fine label.
    Hundred,
}

impl Version {
    fn labels(self) -> u64 {
        match self {
            Self::Ten => 1,
            Self::Hundred => 2,
        }
    }

    fn record(self) -> u64 {
        self.labels() + PIXELS
    }

    fn classes(self) -> u8 {
        match self {
            Self::Ten => 10,
            Self::Hundred => 100,
        }
    }

    fn kind(self) -> &'static str {
        match self {
            Self::Ten => "CIFAR-10 batches",
            Self::Hundred => "CIFAR-100 batches",
        }
    }

    /// What a file of this length holds. Both lengths fit once in nine million bytes: then the name says.
    fn of(path: &Path, length: u64) -> Option<Self> {
        let fits = |version: &Self| length > 0 && length.is_multiple_of(version.record());
        let name = path.file_name().and_then(|name| name.to_str());
        let order = match name {
            Some("train.bin" | "test.bin") => [Self::Hundred, Self::Ten],
            _ => [Self::Ten, Self::Hundred],
        };
        order.into_iter().find(fits)
    }
}

/// Folders that hold batches, below `root`; `files` are all paths below it.
fn places(root: &Path, files: &[String]) -> Vec<String> {
    let places: BTreeSet<&str> = files
        .iter()
        .filter_map(|file| {
            let (folder, name) = file.rsplit_once('/').unwrap_or(("", file));
            let hundred = || {
                let length = fs::metadata(root.join(file)).ok()?.len();
                Some(Version::of(&root.join(file), length)? == Version::Hundred)
            };
            let is_batch = BATCHES.contains(&name)
                || (matches!(name, "train.bin" | "test.bin") && hundred() == Some(true));
            is_batch.then_some(folder)
        })
        .collect();
    places.into_iter().map(str::to_owned).collect()
}

/// The five training batches of a folder are its data set, unless another split is asked for; CIFAR-100 has a file for
/// each split.
fn open_folder(root: &Path, place: &str, options: &OpenOptions) -> Result<RawImages, DataError> {
    let folder = root.join(place);
    let missing: Vec<&str> = BATCHES
        .into_iter()
        .filter(|name| !folder.join(name).is_file())
        .collect();
    let wanted = options.split.as_deref();
    let (subsets, wanted) = if missing.len() < BATCHES.len() {
        if let Some(name) = missing.first() {
            let problem =
                "this batch is missing beside the others; fetch it, or name a single batch file";
            return Err(DataError::format(&folder.join(name), problem));
        }
        let mut files = BATCHES.map(str::to_owned).to_vec();
        files.extend(folder.join(TEST).is_file().then(|| TEST.to_owned()));
        (Subset::group(files, split), wanted.or(Some("train")))
    } else {
        let files = ["test.bin", "train.bin"].map(str::to_owned);
        let there = files.into_iter().filter(|name| folder.join(name).is_file());
        (Subset::group(there.collect(), split), wanted)
    };
    let chosen = choose(root, subsets, wanted, true, |names| {
        names.iter().map(|name| rows(&folder.join(name))).sum()
    })?;
    let paths: Vec<PathBuf> = chosen.iter().map(|name| folder.join(name)).collect();
    open(root, &paths, options.memory_budget)
}

/// The split that a file holds, by its name.
fn split(name: &str) -> Option<String> {
    match name.strip_prefix("data_batch_") {
        Some(_) => Some("train".to_owned()),
        None => keyword(name).map(|(word, _)| word.to_owned()),
    }
}

fn rows(path: &Path) -> Result<usize, DataError> {
    let length = fs::metadata(path)
        .map_err(|error| DataError::io(path, error))?
        .len();
    Ok((length / version(path, length)?.record()) as usize)
}

fn version(path: &Path, length: u64) -> Result<Version, DataError> {
    Version::of(path, length).ok_or_else(|| {
        let [ten, hundred] = [Version::Ten, Version::Hundred].map(Version::record);
        let problem = format!(
            "{length} bytes are not a whole number of CIFAR-10's records of {ten} or CIFAR-100's of {hundred}; if it is \
             one of their files, fetch it again; other files of this ending are not read: save their images as PNG files \
             and name the folder"
        );
        DataError::format(path, problem)
    })
}

/// Opens batch files of one version, in the order given.
fn open(name: &Path, paths: &[PathBuf], budget: u64) -> Result<RawImages, DataError> {
    let mut files = Vec::new();
    let mut labels = Vec::new();
    let mut known = None;
    for path in paths {
        let io = |error| DataError::io(path, error);
        let file = open_regular(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let version = version(path, length)?;
        if *known.get_or_insert(version) != version {
            let problem = "this file is of another version of CIFAR than those before it";
            return Err(DataError::format(path, problem));
        }
        let rows = (length / version.record()) as usize;
        labels.extend(read_labels(path, &file, rows, version)?);
        files.push(RecordFile {
            path: path.clone(),
            file: Mutex::new(file),
            rows,
            offset: version.labels(),
            stride: version.record(),
        });
    }
    let kind = known.map_or("CIFAR-10 batches", Version::kind);
    RawImages::open(kind, name, SHAPE, files, true, labels, budget)
}

fn read_labels(
    path: &Path,
    file: &File,
    rows: usize,
    version: Version,
) -> Result<Vec<i64>, DataError> {
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let mut record = vec![0; version.record() as usize];
    (0..rows)
        .map(|row| {
            reader
                .read_exact(&mut record)
                .map_err(|error| DataError::io(path, error))?;
            let label = record[version.labels() as usize - 1];
            if label < version.classes() {
                return Ok(i64::from(label));
            }
            let problem = format!(
                "record {row} has label {label}, not 0 to {}: this is no file of {}",
                version.classes() - 1,
                version.kind()
            );
            Err(DataError::format(path, problem))
        })
        .collect()
}
