//! A folder of images.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use retrack_checkpoint::files::open_regular;

use super::{Format, Found, Opened, Words};
use crate::OpenOptions;
use crate::error::{DataError, Size};
use crate::image::{self, MAX_ENCODED};
use crate::listing::{Listing, plain};
use crate::source::{Form, Source};
use crate::subsets::{choose, keyword, of_folders};

/// What a folder of images is called.
pub(crate) const KIND: &str = "folder of images";
const READABLE: [&str; 10] = [
    "png", "apng", "jpg", "jpeg", "jfif", "bmp", "gif", "webp", "tif", "tiff",
];
/// Image formats that people have and that cannot be read: leaving them out silently would change the rows.
const REFUSED: [&str; 12] = [
    "avif", "heic", "heif", "jxl", "jp2", "j2k", "ppm", "pgm", "pbm", "pnm", "tga", "qoi",
];
/// Enough for nearly every header; a longer one makes the whole file be read.
const PREFIX: usize = 64 << 10;
/// Deeper folders than people make: a loop of links.
const MAX_DEPTH: usize = 32;

/// Images as files.
pub(crate) struct Images;

impl Format for Images {
    fn words(&self) -> Option<Words> {
        Some(Words {
            short: "a folder",
            expected: "a folder of images",
            long: "a folder",
        })
    }

    fn open_file(&self, path: &Path, _: &str, _: &OpenOptions) -> Option<Opened> {
        let found = "this is a single image; name the folder that holds the images";
        is_image_name(path).then(|| Err(DataError::unrecognized(path, found)))
    }

    fn below(&self, folder: &Listing) -> Result<Option<Found>, DataError> {
        let images = Folder::find(folder.root)?;
        Ok(images.map(|images| {
            let first = &images.names[0];
            let called = first.split_once('/').map_or(first.as_str(), |(top, _)| top);
            Found {
                called: called.to_owned(),
                names: images.names,
            }
        }))
    }

    fn open_folder(&self, root: &Path, names: Vec<String>, options: &OpenOptions) -> Opened {
        let images = Folder {
            root: root.to_owned(),
            names,
            labels: Labels::None,
        };
        Ok(Box::new(images.of_split(options.split.as_deref())?))
    }
}

/// Image files below a folder, ordered by relative path, byte by byte with `/` between the parts (so `10.png`
/// comes before `9.png`). Subfolders are read too; files and folders whose name starts with a dot are not, nor are
/// files that no image extension marks.
#[derive(Debug)]
pub(crate) struct Folder {
    root: PathBuf,
    /// Relative paths, sorted.
    names: Vec<String>,
    labels: Labels,
}

/// What images are sorted by.
#[derive(Debug)]
enum Labels {
    None,
    /// One a name, from a file beside them.
    Given(Vec<i64>),
    /// One a name, from the folders that the images lie in, and what these are called.
    Folders {
        of_row: Vec<i64>,
        names: Vec<String>,
    },
}

impl Folder {
    /// `None` when there is no image below `root`.
    ///
    /// # Errors
    /// A folder that cannot be listed, an image in a format that is not read.
    pub(crate) fn open(root: &Path) -> Result<Option<Self>, DataError> {
        let found = Self::find(root)?;
        found.map(Self::readable).transpose()
    }

    /// The same with images in formats that are not read, of which [`of_split`](Self::of_split) takes none.
    pub(crate) fn find(root: &Path) -> Result<Option<Self>, DataError> {
        let mut names = Vec::new();
        collect(root, "", 0, &mut names)?;
        names.sort_unstable();
        Ok((!names.is_empty()).then(|| Self {
            root: root.to_owned(),
            names,
            labels: Labels::None,
        }))
    }

    /// The images of one split, of all where there are no splits and none is asked for.
    ///
    /// # Errors
    /// [`DataError::Splits`].
    pub(crate) fn of_split(self, wanted: Option<&str>) -> Result<Self, DataError> {
        let subsets = of_folders(self.names, wanted.is_some());
        let names = choose(&self.root, subsets, wanted, true, |names| Ok(names.len()))?;
        let labels = classes(&names).unwrap_or(Labels::None);
        let chosen = Self {
            root: self.root,
            names,
            labels,
        };
        chosen.readable()
    }

    /// Refuses images in formats that are not read.
    fn readable(self) -> Result<Self, DataError> {
        let is_refused = |extension: &String| REFUSED.contains(&extension.as_str());
        let refused = self.names.iter().find_map(|name| {
            let path = self.root.join(name);
            Some((extension_of(&path).filter(is_refused)?, path))
        });
        match refused {
            None => Ok(self),
            Some((extension, path)) => {
                let format = match extension.as_str() {
                    "avif" => "AVIF",
                    "heic" | "heif" => "HEIC",
                    "jxl" => "JPEG XL",
                    _ => "",
                };
                let problem = image::unread_format(format).map_or_else(
                    || {
                        format!(
                            "{extension} files cannot be read; convert the image to PNG or JPEG, or move it away"
                        )
                    },
                    |said| format!("{said}; then move it away"),
                );
                Err(DataError::image(path.display().to_string(), problem))
            }
        }
    }

    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// The same images with labels, one for each name.
    pub(crate) fn with_labels(self, labels: Vec<i64>) -> Self {
        let labels = Labels::Given(labels);
        Self { labels, ..self }
    }

    fn path(&self, row: usize) -> PathBuf {
        self.root.join(&self.names[row])
    }
}

/// The folder that a path ends in and the path of the one above it, without the file.
fn place(name: &str) -> Option<(&str, &str)> {
    let (folder, _) = name.rsplit_once('/')?;
    Some(folder.rsplit_once('/').unwrap_or(("", folder)))
}

/// Labels by the sorted names of the folders that images lie in, as torchvision's and Hugging Face's image folders number them:
/// where every image lies in one of several folders in the same place, or in places that are called like splits. Folders that are
/// all called like splits are no classes.
fn classes(names: &[String]) -> Option<Labels> {
    let places: Option<Vec<(&str, &str)>> = names.iter().map(|name| place(name)).collect();
    let places = places?;
    let above: BTreeSet<&str> = places.iter().map(|(above, _)| *above).collect();
    let called: BTreeSet<&str> = places.iter().map(|(_, called)| *called).collect();
    let is_split = |folder: &&str| keyword(plain(folder)).is_some();
    let in_one_place = above.len() == 1 || above.iter().all(is_split);
    if called.len() < 2 || !in_one_place || called.iter().all(is_split) {
        return None;
    }
    let numbers: BTreeMap<&str, i64> = called.iter().copied().zip(0..).collect();
    Some(Labels::Folders {
        of_row: places.iter().map(|(_, called)| numbers[called]).collect(),
        names: called.into_iter().map(str::to_owned).collect(),
    })
}

fn collect(
    root: &Path,
    below: &str,
    depth: usize,
    names: &mut Vec<String>,
) -> Result<(), DataError> {
    let folder = root.join(below);
    if depth > MAX_DEPTH {
        return Err(DataError::format(
            &folder,
            "folders are nested too deep; is there a link to a parent?",
        ));
    }
    let io = |error| DataError::io(&folder, error);
    for entry in fs::read_dir(&folder).map_err(io)? {
        let entry = entry.map_err(io)?;
        let path = entry.path();
        let file_name = entry.file_name();
        let Some(name) = file_name.to_str() else {
            if extension_of(&path).is_some_and(|extension| READABLE.contains(&extension.as_str())) {
                return Err(DataError::format(
                    &path,
                    "its name is not valid UTF-8; rename it",
                ));
            }
            continue;
        };
        if name.starts_with('.') {
            continue;
        }
        let relative = if below.is_empty() {
            name.to_owned()
        } else {
            format!("{below}/{name}")
        };
        // Links are followed; a broken one is an error only if it stands for an image.
        let extension = extension_of(&path).unwrap_or_default();
        let is_image = READABLE.contains(&extension.as_str());
        let metadata = match fs::metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if is_image => {
                return Err(DataError::Io {
                    path,
                    source: error,
                });
            }
            Err(_) => continue,
        };
        if metadata.is_dir() {
            collect(root, &relative, depth + 1, names)?;
        } else if is_image || REFUSED.contains(&extension.as_str()) {
            names.push(relative);
        }
    }
    Ok(())
}

fn extension_of(path: &Path) -> Option<String> {
    Some(path.extension()?.to_str()?.to_ascii_lowercase())
}

/// Whether the file's extension is that of an image.
pub(crate) fn is_image_name(path: &Path) -> bool {
    extension_of(path)
        .is_some_and(|e| READABLE.contains(&e.as_str()) || REFUSED.contains(&e.as_str()))
}

/// Reads an encoded image, bounded by [`MAX_ENCODED`].
pub(crate) fn read_whole(path: &Path) -> Result<Vec<u8>, DataError> {
    let io = |error| DataError::io(path, error);
    let file = open_regular(path).map_err(io)?;
    let mut bytes = Vec::new();
    file.take(MAX_ENCODED + 1)
        .read_to_end(&mut bytes)
        .map_err(io)?;
    if bytes.len() as u64 > MAX_ENCODED {
        let problem =
            format!("the file is larger than the {MAX_ENCODED} bytes that one image may have");
        return Err(DataError::image(path.display().to_string(), problem));
    }
    Ok(bytes)
}

impl Source for Folder {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn form(&self) -> Form {
        Form::Encoded
    }

    fn len(&self) -> usize {
        self.names.len()
    }

    fn name(&self, row: usize) -> String {
        self.names[row].clone()
    }

    fn full_name(&self, row: usize) -> String {
        self.path(row).display().to_string()
    }

    fn label(&self, row: usize) -> Option<i64> {
        match &self.labels {
            Labels::None => None,
            Labels::Given(labels) | Labels::Folders { of_row: labels, .. } => {
                labels.get(row).copied()
            }
        }
    }

    fn label_names(&self) -> &[String] {
        match &self.labels {
            Labels::Folders { names, .. } => names,
            _ => &[],
        }
    }

    fn labels_are_names(&self) -> bool {
        matches!(self.labels, Labels::Folders { .. })
    }

    fn stored(&self, row: usize) -> Result<Cow<'_, [u8]>, DataError> {
        read_whole(&self.path(row)).map(Cow::Owned)
    }

    fn header(&self, row: usize) -> Result<(Size, bool), DataError> {
        let path = self.path(row);
        let io = |error| DataError::io(&path, error);
        let mut prefix = Vec::new();
        open_regular(&path)
            .map_err(io)?
            .take(PREFIX as u64)
            .read_to_end(&mut prefix)
            .map_err(io)?;
        let name = path.display().to_string();
        if let Some(header) = image::header_from_prefix(&prefix) {
            return Ok(header);
        }
        image::recognize(&name, &prefix)?;
        if prefix.len() < PREFIX {
            // The prefix is the whole file: a header that cannot be found in it is missing.
            image::check_complete(&name, &prefix)?;
            return image::header(&name, &prefix);
        }
        image::header(&name, &read_whole(&path)?)
    }

    fn has_cheap_headers(&self) -> bool {
        true
    }

    fn row_of(&self, path: &Path) -> Option<usize> {
        let root = fs::canonicalize(&self.root).ok()?;
        let parts: Option<Vec<&str>> = path
            .strip_prefix(root)
            .ok()?
            .components()
            .map(|part| part.as_os_str().to_str())
            .collect();
        self.names.binary_search(&parts?.join("/")).ok()
    }

    fn rows_named(&self, name: &str) -> Vec<usize> {
        if let Ok(row) = self
            .names
            .binary_search_by(|known| known.as_str().cmp(name))
        {
            return vec![row];
        }
        let is_named = |known: &str| known.rsplit('/').next() == Some(name);
        (0..self.names.len())
            .filter(|&row| is_named(&self.names[row]))
            .collect()
    }
}
