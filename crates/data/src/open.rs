//! Which data set lies at a path.

use std::fs;
use std::path::Path;

use super::error::DataError;
use super::listing::{DEPTH, Listing};
use super::source::Source;
use super::sources::images::{self, Folder};
use super::sources::{Certainty, Format, Found, Opened, SOURCES, surest_first};
use super::subsets::{folders, keyword};
use super::{OpenOptions, foreign};

pub(crate) fn detect(path: &Path, options: &OpenOptions) -> Opened {
    let metadata = fs::metadata(path).map_err(|error| DataError::io(path, error))?;
    if metadata.is_dir() {
        detect_folder(path, options)
    } else {
        detect_file(path, options)
    }
}

fn detect_file(path: &Path, options: &OpenOptions) -> Opened {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut formats = SOURCES.iter();
    if let Some(opened) = formats.find_map(|format| format.open_file(path, &name, options)) {
        return opened;
    }
    Err(match foreign::file(path) {
        Some(what) => DataError::Unsupported {
            path: path.to_owned(),
            what,
        },
        None => DataError::unrecognized(path, "no data set has a file of this name"),
    })
}

/// A folder is what its files make it. Files of a data set lie in it, in `data/` as Hugging Face keeps them, in
/// `cifar-10-batches-bin/` as its archive unpacks; else further down, where nothing else is found.
fn detect_folder(path: &Path, options: &OpenOptions) -> Opened {
    let folder = Listing::new(path);
    for format in surest_first() {
        if let Some(found) = format.at_hand(&folder)? {
            // Images elsewhere are of something else, unless they are another split of it.
            if format.certainty() != Certainty::Layout
                && let Some(images) = split_of_images(path)
            {
                return Err(DataError::ambiguous(path, &images, &found.called));
            }
            return format.open_folder(path, found.names, options);
        }
    }
    let mut below: Vec<(&dyn Format, Found)> = Vec::new();
    for &format in SOURCES {
        below.extend(format.below(&folder)?.map(|found| (format, found)));
    }
    match below.as_slice() {
        [(_, first), (_, second), ..] => {
            return Err(DataError::ambiguous(path, &first.called, &second.called));
        }
        _ => {
            if let Some((format, found)) = below.pop() {
                return format.open_folder(path, found.names, options);
            }
        }
    }
    let files = folder.files()?;
    if let Some(what) = foreign::folder(path, files) {
        return Err(DataError::Unsupported {
            path: path.to_owned(),
            what,
        });
    }
    let mut refusals = SOURCES.iter();
    if let Some(refusal) = refusals.find_map(|format| format.refusal(&folder, options)) {
        return Err(refusal);
    }
    let found = match files {
        [] if folder.is_deeper() => format!(
            "no file lies in the folder or in {DEPTH} levels of folders below it; name the folder that holds the files"
        ),
        [] => "the folder holds no files".to_owned(),
        files => format!(
            "no file in it belongs to a data set (it holds {})",
            foreign::listing(files)
        ),
    };
    Err(DataError::unrecognized(path, &found))
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
    if !path.is_dir() || source.kind() == images::KIND {
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
