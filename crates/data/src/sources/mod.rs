//! The formats that data sets come in, a file each, and the list of them.
//!
//! A format is added by its file here, and by two lines below: the module and its place in [`SOURCES`]. Messages and the
//! command line's help name it from there. What it opens is a [`Source`]; one that is computed, or that another crate
//! reads, needs no format: [`Dataset::from_source`](crate::Dataset::from_source) takes it.

pub(crate) mod cifar;
pub(crate) mod idx;
pub(crate) mod images;
pub(crate) mod parquet;
pub(crate) mod published;

use std::path::Path;

use crate::OpenOptions;
use crate::error::DataError;
use crate::listing::Listing;
use crate::source::Source;
use crate::subsets::{Subset, choose};

/// All formats, in the order in which they are looked for and named. In a folder, what lies [at hand](Format::at_hand) goes
/// before what lies below; of several formats at hand the [surest](Format::certainty) is taken.
pub(crate) static SOURCES: &[&dyn Format] = &[
    &published::Published,
    &images::Images,
    &parquet::Parquet,
    &idx::IdxPair,
    &cifar::Batches,
    &cifar::PythonBatches,
];

/// The formats in the order in which what is at hand is taken.
pub(crate) fn surest_first() -> Vec<&'static dyn Format> {
    let mut formats = SOURCES.to_vec();
    formats.sort_by_key(|format| format.certainty());
    formats
}

/// What was opened, or why it was not.
pub(crate) type Opened = Result<Box<dyn Source>, DataError>;

/// A format of data sets: what it is called, what of it lies at a path, and how that is opened.
///
/// A format of single files, whose names tell it, says so in [`knows`](Self::knows): then files of it are found in folders.
pub(crate) trait Format: Sync {
    /// What it is called; `None` of a layout of another format, which is not named beside that one.
    fn words(&self) -> Option<Words>;

    /// Whether a file of this name, the last part of a path, holds a data set of this format, or a part of one.
    fn knows(&self, name: &str) -> bool {
        let _ = name;
        false
    }

    /// Opens a single file called `name`; `None`: its name is not one of this format's.
    ///
    /// # Errors
    /// A file that is damaged or, as its name says, no data set by itself.
    fn open_file(&self, path: &Path, name: &str, options: &OpenOptions) -> Option<Opened>;

    /// How sure it is that what is [at hand](Self::at_hand) is of this format.
    fn certainty(&self) -> Certainty {
        Certainty::Name
    }

    /// What of this format lies in a folder itself, or where its archives put it: that is the folder's data set, whatever
    /// lies below. Usually: the files that it [knows](Self::knows).
    ///
    /// # Errors
    /// A folder that cannot be listed.
    fn at_hand(&self, folder: &Listing) -> Result<Option<Found>, DataError> {
        let mut names = folder.called(|name| self.knows(name))?;
        names.retain(|name| !name.contains('/'));
        Ok(Found::named_by_first(names))
    }

    /// What of this format lies anywhere in a folder. Asked where nothing is at hand; two formats that find something are
    /// two data sets. Usually: the files that it [knows](Self::knows).
    ///
    /// # Errors
    /// As [`at_hand`](Self::at_hand).
    fn below(&self, folder: &Listing) -> Result<Option<Found>, DataError> {
        Ok(Found::named_by_first(
            folder.called(|name| self.knows(name))?,
        ))
    }

    /// Opens what was found in the folder `root`.
    ///
    /// # Errors
    /// Several splits and none chosen, more than one data set, files that are damaged.
    fn open_folder(&self, root: &Path, names: Vec<String>, options: &OpenOptions) -> Opened;

    /// Why the files of a folder that look like this format are no data set, where nothing else was found.
    fn refusal(&self, folder: &Listing, options: &OpenOptions) -> Option<DataError> {
        let _ = (folder, options);
        None
    }
}

/// What a format is called in lists of all of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Words {
    /// In half a line of help.
    pub short: &'static str,
    /// Among what is read, where something else was found.
    pub expected: &'static str,
    /// In longer help.
    pub long: &'static str,
}

/// How sure a format is of what lies in a folder. The surest goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Certainty {
    /// The whole folder is laid out so; images in it are part of that.
    Layout,
    /// Files were looked into, or their names are always these.
    Content,
    /// The files' names end so.
    Name,
}

/// What a folder holds of one format.
#[derive(Debug)]
pub(crate) struct Found {
    /// Files, or folders of files, by their sorted paths below the folder.
    pub names: Vec<String>,
    /// What a message calls it, where it is one data set of two.
    pub called: String,
}

impl Found {
    /// Files that are called like the first of them; `None` where there are none.
    pub(crate) fn named_by_first(names: Vec<String>) -> Option<Self> {
        let called = names.first()?.clone();
        Some(Self { names, called })
    }
}

/// Refuses a file where another split is asked for than the one that its name tells, if it tells any.
///
/// # Errors
/// [`DataError::Splits`], with what `rows` counts.
pub(crate) fn check_split(
    path: &Path,
    name: &str,
    split: Option<String>,
    options: &OpenOptions,
    rows: impl Fn() -> Result<usize, DataError>,
) -> Result<(), DataError> {
    let only = Subset {
        name: split.unwrap_or_default(),
        files: vec![name.to_owned()],
    };
    let wanted = options.split.as_deref();
    choose(path, vec![only], wanted, true, |_| rows()).map(drop)
}

/// The formats that are read, for half a line of help: "a folder, Parquet, ... or ...".
pub fn formats() -> String {
    list(|words| words.short, " or ")
}

/// The formats that are read, with the names of their files.
pub fn formats_at_length() -> String {
    list(|words| words.long, ", or ")
}

/// The formats of which one was expected.
pub(crate) fn expected() -> String {
    list(|words| words.expected, " or ")
}

fn list(words: fn(Words) -> &'static str, last: &str) -> String {
    let all = SOURCES.iter().filter_map(|format| format.words());
    let all: Vec<&str> = all.map(words).collect();
    match all.as_slice() {
        [before @ .., end] if !before.is_empty() => format!("{}{last}{end}", before.join(", ")),
        all => all.concat(),
    }
}
