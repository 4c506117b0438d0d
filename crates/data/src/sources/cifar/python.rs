//! CIFAR-10 and CIFAR-100 in their Python version: a pickled dict a batch, of an array of bytes (red plane first) and a list of
//! labels.
//!
//! The pixels are read where they lie in the file, as those of the binary version are, and are the same.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use retrack_checkpoint::files::open_regular;

use super::pickle::{Batch, read_batch};
use super::{PIXELS, SHAPE, Version};
use crate::OpenOptions;
use crate::error::DataError;
use crate::listing::{Listing, plain};
use crate::raw::{RawImages, RecordFile};
use crate::sources::{Certainty, Format, Found, Opened, Words, check_split};
use crate::subsets::{Subset, choose, keyword};

/// What the archives unpack to.
const FOLDERS: [&str; 2] = ["cifar-10-batches-py", "cifar-100-python"];
const BATCHES: [&str; 5] = [
    "data_batch_1",
    "data_batch_2",
    "data_batch_3",
    "data_batch_4",
    "data_batch_5",
];
const TEST_BATCH: &str = "test_batch";
/// CIFAR-100's training batch has 155 MB.
const LARGEST: u64 = 256 << 20;

/// Pickled batches.
pub(crate) struct PythonBatches;

impl Format for PythonBatches {
    fn words(&self) -> Option<Words> {
        None
    }

    fn open_file(&self, path: &Path, name: &str, options: &OpenOptions) -> Option<Opened> {
        let opened = || -> Opened {
            let rows = || Ok(read(path)?.labels.len());
            check_split(path, name, split(name), options, rows)?;
            Ok(Box::new(open(
                path,
                &[path.to_owned()],
                options.memory_budget,
            )?))
        };
        let is_batch = BATCHES.contains(&name)
            || name == TEST_BATCH
            || (matches!(name, "train" | "test") && is_pickle(path));
        is_batch.then(opened)
    }

    fn certainty(&self) -> Certainty {
        Certainty::Content
    }

    fn at_hand(&self, folder: &Listing) -> Result<Option<Found>, DataError> {
        let mut places = places(folder)?.into_iter();
        let near = |place: &String| place.is_empty() || FOLDERS.contains(&place.as_str());
        Ok(places.find(near).map(|place| Found {
            called: called(&place),
            names: vec![place],
        }))
    }

    fn below(&self, folder: &Listing) -> Result<Option<Found>, DataError> {
        let places: Vec<String> = places(folder)?.into_iter().collect();
        let first = places.first().map(|place| called(place));
        Ok(first.map(|called| Found {
            names: places,
            called,
        }))
    }

    fn open_folder(&self, path: &Path, names: Vec<String>, options: &OpenOptions) -> Opened {
        match names.as_slice() {
            [place] => Ok(Box::new(open_folder(path, place, options)?)),
            [first, .., last] => Err(DataError::ambiguous(path, first, last)),
            [] => unreachable!("a place was found"),
        }
    }
}

fn called(place: &str) -> String {
    match place {
        "" => "its pickled CIFAR batches".into(),
        place => place.to_owned(),
    }
}

/// Folders that hold batches.
fn places(folder: &Listing) -> Result<BTreeSet<String>, DataError> {
    let files = folder.files()?;
    let has = |place: &str, name: &str| {
        let path = match place {
            "" => name.to_owned(),
            place => format!("{place}/{name}"),
        };
        files.contains(&path)
    };
    let is_batch = |file: &str| {
        let place = file.rsplit_once('/').map_or("", |(place, _)| place);
        match plain(file) {
            name if BATCHES.contains(&name) => true,
            // Many files are called so; CIFAR-100 has `meta` beside.
            "train" | "test" => has(place, "meta") && is_pickle(&folder.root.join(file)),
            _ => false,
        }
    };
    let batches = files.iter().filter(|file| is_batch(file));
    let place = |file: &String| {
        file.rsplit_once('/')
            .map_or(String::new(), |(place, _)| place.into())
    };
    Ok(batches.map(place).collect())
}

/// Protocols 2 to 5.
fn is_pickle(path: &Path) -> bool {
    let mut start = [0; 2];
    let read = open_regular(path).and_then(|mut file| file.read_exact(&mut start));
    read.is_ok() && matches!(start, [0x80, 2..=5])
}

/// The split that a file holds, by its name.
fn split(name: &str) -> Option<String> {
    match name.strip_prefix("data_batch_") {
        Some(_) => Some("train".to_owned()),
        None => keyword(name).map(|(word, _)| word.to_owned()),
    }
}

/// As of the binary version: the five training batches, unless another split is asked for.
fn open_folder(root: &Path, place: &str, options: &OpenOptions) -> Result<RawImages, DataError> {
    let folder = root.join(place);
    let there = |name: &&str| folder.join(name).is_file();
    let missing: Vec<&str> = BATCHES.into_iter().filter(|name| !there(name)).collect();
    let wanted = options.split.as_deref();
    let (names, wanted) = if missing.len() < BATCHES.len() {
        if let Some(name) = missing.first() {
            let problem = "this batch is missing beside the others; fetch the whole archive (its binary version is read as well), or \
                 name a single batch file";
            return Err(DataError::format(&folder.join(name), problem));
        }
        let mut names = BATCHES.to_vec();
        names.extend(Some(TEST_BATCH).filter(there));
        (names, wanted.or(Some("train")))
    } else {
        let names = ["test", "train"].into_iter().filter(there);
        (names.collect::<Vec<&str>>(), wanted)
    };
    let names = names.into_iter().map(str::to_owned).collect();
    let subsets = Subset::group(names, split);
    let chosen = choose(root, subsets, wanted, true, |names| {
        let rows = |name: &String| Ok(read(&folder.join(name))?.labels.len());
        names.iter().map(rows).sum()
    })?;
    let paths: Vec<PathBuf> = chosen.iter().map(|name| folder.join(name)).collect();
    open(root, &paths, options.memory_budget)
}

/// What a batch holds.
fn read(path: &Path) -> Result<Batch, DataError> {
    let io = |error| DataError::io(path, error);
    let length = fs::metadata(path).map_err(io)?.len();
    if length > LARGEST {
        let problem = format!("{length} bytes are more than any batch of CIFAR has");
        return Err(DataError::format(path, problem));
    }
    let mut bytes = Vec::new();
    let file = open_regular(path).map_err(io)?;
    file.take(LARGEST).read_to_end(&mut bytes).map_err(io)?;
    read_batch(&bytes).map_err(|problem| {
        let problem =
            format!("{problem}; fetch it again, from https://www.cs.toronto.edu/~kriz/cifar.html");
        DataError::format(path, problem)
    })
}

/// Opens batch files of one version, in the order given.
fn open(name: &Path, paths: &[PathBuf], budget: u64) -> Result<RawImages, DataError> {
    let (mut files, mut labels) = (Vec::new(), Vec::new());
    let mut known = None;
    for path in paths {
        let batch = read(path)?;
        let version = match batch.fine {
            true => Version::Hundred,
            false => Version::Ten,
        };
        if *known.get_or_insert(version) != version {
            let problem = "this file is of another version of CIFAR than those before it";
            return Err(DataError::format(path, problem));
        }
        let wrong = batch
            .labels
            .iter()
            .position(|label| *label >= i64::from(version.classes()));
        if let Some(row) = wrong {
            let problem = format!(
                "row {row} has label {}, not 0 to {}: this is no file of {}",
                batch.labels[row],
                version.classes() - 1,
                version.kind()
            );
            return Err(DataError::format(path, problem));
        }
        files.push(RecordFile {
            path: path.clone(),
            file: Mutex::new(open_regular(path).map_err(|error| DataError::io(path, error))?),
            rows: batch.labels.len(),
            offset: batch.offset as u64,
            stride: PIXELS,
        });
        labels.extend(batch.labels);
    }
    let kind = known.map_or("CIFAR-10 batches", Version::kind);
    RawImages::open(kind, name, SHAPE, files, true, labels, budget)
}
