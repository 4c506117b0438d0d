//! Everything that can be wrong with a data set, each with the file and the remedy.

use std::io;
use std::path::{Path, PathBuf};

use retrack_checkpoint::words::{counted, listed};

use super::{ImageShape, Resize, sources};

/// Why a data set could not be opened or one of its images could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The operating system refused a file.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Nothing lies at the path.
    #[error("{}: no such file or folder", path.display())]
    Missing {
        /// The path as it was given.
        path: PathBuf,
    },
    /// The path exists and is not one of the supported sources.
    #[error("{}: {found}; expected {}", path.display(), sources::expected())]
    Unrecognized {
        /// The path as it was given.
        path: PathBuf,
        /// What lies there instead.
        found: String,
    },
    /// A known format that is not read.
    #[error("{}: {what}", path.display())]
    Unsupported {
        /// The file or folder.
        path: PathBuf,
        /// What it is, and what to do.
        what: String,
    },
    /// Several splits, and none or another one was asked for.
    #[error("{}: {}", path.display(), splits(found, wanted.as_deref()))]
    Splits {
        /// The file or folder.
        path: PathBuf,
        /// The split that was asked for.
        wanted: Option<String>,
        /// The splits that there are.
        found: Vec<Found>,
        /// Whether they can be read as one, as the split `all`.
        together: bool,
    },
    /// A folder holds more than one data set.
    #[error(
        "{}: holds more than one data set, {first} and {second}; name one of them",
        path.display()
    )]
    Ambiguous {
        /// The folder.
        path: PathBuf,
        /// The first data set's file or split.
        first: String,
        /// The second data set's file or split.
        second: String,
    },
    /// A file's structure contradicts its format or its own counts.
    #[error("{}: {problem}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the numbers.
        problem: String,
    },
    /// A file of prompts has none for these images.
    #[error("{}: no prompt for {images:?}", path.display())]
    NoPrompt {
        /// The file.
        path: PathBuf,
        /// The name of the images' folder.
        images: String,
    },
    /// One image cannot be decoded.
    #[error("{name}: {problem}")]
    Image {
        /// The image's file, or the Parquet file and row.
        name: String,
        /// What is wrong, with a remedy.
        problem: String,
    },
    /// Images of one data set differ in size. Nothing is ever resized silently.
    #[error(
        "{other} is {other_size} pixels{} but {first} is {first_size}: all images of a data set must have one size",
        if *resized { " when it is resized" } else { "" }
    )]
    MixedSizes {
        /// The first image of the data set.
        first: String,
        /// Its size, width x height.
        first_size: Size,
        /// The first image that differs.
        other: String,
        /// Its size, width x height.
        other_size: Size,
        /// Both sizes are those after resizing, which keeps all of an image.
        resized: bool,
    },
    /// A size to which nothing is resized.
    #[error("images can be resized to 1 to {} pixels, not {side}", Resize::MOST)]
    Side {
        /// The side that was asked for.
        side: usize,
    },
    /// A channel count that no conversion exists for.
    #[error(
        "images can be read with 1 (gray), 2 (gray, alpha), 3 (RGB) or 4 (RGBA) channels, not {channels}"
    )]
    Channels {
        /// The channels that were asked for.
        channels: usize,
    },
    /// A compressed source that can only be held in memory does not fit.
    #[error(
        "{}: {needed} bytes of pixels exceed the memory budget of {budget}; {remedy}",
        path.display()
    )]
    Memory {
        /// The file.
        path: PathBuf,
        /// Bytes that it needs.
        needed: u64,
        /// Bytes that are allowed.
        budget: u64,
        /// What to do about it.
        remedy: &'static str,
    },
    /// A row beyond the end.
    #[error("row {row} does not exist: the data set has {}", rows(*len))]
    Row {
        /// The row that was asked for.
        row: usize,
        /// Rows in the data set.
        len: usize,
    },
    /// A buffer or pixel array whose length is not that of the images.
    #[error("expected {expected} bytes of pixels for {shape}, not {found}")]
    Length {
        /// Shape of the images.
        shape: ImageShape,
        /// Bytes that the shape asks for.
        expected: usize,
        /// Bytes that were given.
        found: usize,
    },
}

impl DataError {
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::NotFound {
            return Self::Missing {
                path: path.to_owned(),
            };
        }
        Self::Io {
            path: path.to_owned(),
            source,
        }
    }

    pub(crate) fn unrecognized(path: &Path, found: &str) -> Self {
        Self::Unrecognized {
            path: path.to_owned(),
            found: found.to_owned(),
        }
    }

    pub(crate) fn ambiguous(path: &Path, first: &str, second: &str) -> Self {
        Self::Ambiguous {
            path: path.to_owned(),
            first: first.to_owned(),
            second: second.to_owned(),
        }
    }

    pub(crate) fn format(path: &Path, problem: impl Into<String>) -> Self {
        Self::Format {
            path: path.to_owned(),
            problem: problem.into(),
        }
    }

    pub(crate) fn image(name: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Image {
            name: name.into(),
            problem: problem.into(),
        }
    }
}

/// A split that a data set has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What it is called; empty for files that belong to no split.
    pub name: String,
    /// What the name stands for: `train`, `validation` or `test`.
    pub means: Option<&'static str>,
    /// Images in it.
    pub images: usize,
    /// Its first file, below the data set's folder.
    pub first: String,
}

fn splits(found: &[Found], wanted: Option<&str>) -> String {
    let one = |found: &Found| {
        let Found {
            name,
            images,
            first,
            ..
        } = found;
        let images = counted(*images, "image");
        let inside = format!("({images}, the first file {first})");
        match name.as_str() {
            "" => format!("one without a name {inside}, called \"\""),
            name => format!("{name} {inside}"),
        }
    };
    let listed = listed(found.iter().map(one));
    match wanted {
        None => format!("holds more than one data set, the splits {listed}"),
        Some(wanted) if found.iter().all(|found| found.name.is_empty()) => {
            format!("has no splits, and so none called \"{wanted}\"")
        }
        Some(wanted) => format!("has no split called \"{wanted}\"; there is {listed}"),
    }
}

/// "1 row, row 0", "3 rows, 0 to 2".
pub(crate) fn rows(len: usize) -> String {
    match len {
        1 => "1 row, row 0".into(),
        len => format!("{len} rows, 0 to {}", len.saturating_sub(1)),
    }
}

/// Width and height in pixels, shown as `width x height`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Pixels from left to right.
    pub width: usize,
    /// Pixels from top to bottom.
    pub height: usize,
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} x {}", self.width, self.height)
    }
}
