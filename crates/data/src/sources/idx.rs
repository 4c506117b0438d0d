//! IDX files, the format of MNIST: a big-endian header and plain bytes, often packed with gzip.

use std::collections::BTreeSet;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use flate2::read::MultiGzDecoder;
use retrack_checkpoint::files::open_regular;
use retrack_checkpoint::words::counted;

use super::{Format, Found, Opened, Words, check_split};
use crate::error::DataError;
use crate::listing::{Listing, plain};
use crate::raw::{RawImages, RecordFile};
use crate::subsets::{Subset, choose};
use crate::{ImageShape, OpenOptions};

const KIND: &str = "IDX pair";
/// gzip cannot pack better: a header that promises more than this times the file is lying.
const MAX_RATIO: u64 = 1032;

/// Images, and the labels beside them.
pub(crate) struct IdxPair;

impl Format for IdxPair {
    fn words(&self) -> Option<Words> {
        Some(Words {
            short: "an IDX pair",
            expected: "an IDX pair (*-images-idx3-ubyte[.gz])",
            long: "an IDX pair (*-images-idx3-ubyte[.gz])",
        })
    }

    fn knows(&self, name: &str) -> bool {
        is_images_name(name)
    }

    fn open_file(&self, path: &Path, name: &str, options: &OpenOptions) -> Option<Opened> {
        if is_labels_name(name) {
            let found = "this is the labels file of an IDX pair; name the images file beside it";
            return Some(Err(DataError::unrecognized(path, found)));
        }
        let opened = || -> Opened {
            check_split(path, name, split(name), options, || rows(path))?;
            Ok(Box::new(open(path, options.memory_budget)?))
        };
        self.knows(name).then(opened)
    }

    fn at_hand(&self, folder: &Listing) -> Result<Option<Found>, DataError> {
        let mut names = self.pairs(folder)?;
        names.retain(|name| !name.contains('/'));
        Ok(Found::named_by_first(names))
    }

    fn below(&self, folder: &Listing) -> Result<Option<Found>, DataError> {
        Ok(Found::named_by_first(self.pairs(folder)?))
    }

    fn open_folder(&self, path: &Path, names: Vec<String>, options: &OpenOptions) -> Opened {
        let places: BTreeSet<&str> = names
            .iter()
            .map(|name| name.rsplit_once('/').map_or("", |(folder, _)| folder))
            .collect();
        if places.len() > 1 {
            return Err(DataError::ambiguous(
                path,
                &names[0],
                &names[names.len() - 1],
            ));
        }
        let subsets = Subset::group(names, split);
        let one = |names: &[String]| rows(&path.join(&names[0]));
        let wanted = options.split.as_deref();
        let chosen = choose(path, subsets, wanted, false, one)?;
        match chosen.as_slice() {
            [only] => Ok(Box::new(open(&path.join(only), options.memory_budget)?)),
            several => Err(DataError::ambiguous(
                path,
                &several[0],
                &several[several.len() - 1],
            )),
        }
    }
}

impl IdxPair {
    fn pairs(&self, folder: &Listing) -> Result<Vec<String>, DataError> {
        let mut names = folder.called(is_images_name)?;
        // A file beside its own packed copy is one data set.
        names.dedup_by(|packed, plain| *packed == format!("{plain}.gz"));
        Ok(names)
    }
}

/// The split that an IDX pair belongs to: `train-images-idx3-ubyte`.
fn split(name: &str) -> Option<String> {
    let (before, _) = plain(name).split_once("images")?;
    Some(before.trim_end_matches(['-', '.', '_']).to_owned())
}

/// `train-images-idx3-ubyte`, `t10k-images.idx3-ubyte.gz`, `images-idx4-ubyte`, ...
fn is_images_name(name: &str) -> bool {
    let name = name.strip_suffix(".gz").unwrap_or(name);
    ["-idx3-ubyte", ".idx3-ubyte", "-idx4-ubyte", ".idx4-ubyte"]
        .iter()
        .any(|end| {
            name.strip_suffix(end)
                .is_some_and(|stem| stem.ends_with("images"))
        })
}

/// The labels file's name says so.
fn is_labels_name(name: &str) -> bool {
    let name = name.strip_suffix(".gz").unwrap_or(name);
    name.ends_with("labels-idx1-ubyte") || name.ends_with("labels.idx1-ubyte")
}

/// The labels file that belongs to an images file, packed or not, or `None` when it is not there.
fn labels_beside(images: &Path) -> Option<PathBuf> {
    let name = images.file_name()?.to_str()?;
    let name = name.strip_suffix(".gz").unwrap_or(name);
    // From the end: the prefix may hold "images" too.
    let stem = &name[..name.rfind("images")?];
    let rest = &name[name.rfind("images")? + "images".len()..];
    let labels = format!(
        "{stem}labels{}",
        rest.replace("idx3", "idx1").replace("idx4", "idx1")
    );
    [labels.clone(), format!("{labels}.gz")]
        .into_iter()
        .map(|name| images.with_file_name(name))
        .find(|path| path.is_file())
}

/// Opens an images file and the labels beside it. Without a labels file the data set has no labels.
fn open(path: &Path, budget: u64) -> Result<RawImages, DataError> {
    let mut images = Idx::open(path)?;
    let (rows, shape) = match *images.dimensions {
        [rows, height, width] => (
            rows,
            ImageShape {
                height,
                width,
                channels: 1,
            },
        ),
        [rows, height, width, channels] if (1..=4).contains(&channels) => (
            rows,
            ImageShape {
                height,
                width,
                channels,
            },
        ),
        ref other => {
            let problem =
                format!("its dimensions are {other:?}, not [rows, height, width] as images have");
            return Err(DataError::format(path, problem));
        }
    };
    if rows == 0 || shape.bytes() == 0 {
        let problem = format!(
            "it holds {} of {} x {} pixels",
            counted(rows, "image"),
            shape.height,
            shape.width
        );
        return Err(DataError::format(path, problem));
    }
    let labels = match labels_beside(path) {
        Some(labels_path) => read_labels(&labels_path, path, rows)?,
        None => Vec::new(),
    };
    if !images.packed {
        let offset = images.header;
        let file = RecordFile {
            path: path.to_owned(),
            file: Mutex::new(open_regular(path).map_err(|error| DataError::io(path, error))?),
            rows,
            offset,
            stride: shape.bytes() as u64,
        };
        return RawImages::open(KIND, path, shape, vec![file], false, labels, budget);
    }
    if images.content > budget {
        return Err(DataError::Memory {
            path: path.to_owned(),
            needed: images.content,
            budget,
            remedy: "unpack it with gunzip, so that images can be read one by one, or raise the budget",
        });
    }
    let pixels = images.read_all()?;
    Ok(RawImages::in_memory(KIND, shape, pixels, labels))
}

/// Images that the header of an images file promises.
fn rows(path: &Path) -> Result<usize, DataError> {
    Ok(Idx::open(path)?.dimensions[0])
}

fn read_labels(path: &Path, images: &Path, rows: usize) -> Result<Vec<i64>, DataError> {
    let mut labels = Idx::open(path)?;
    if *labels.dimensions != [rows] {
        let problem = format!(
            "it holds {:?} labels but {} holds {}; the two files do not belong together",
            labels.dimensions,
            images.display(),
            counted(rows, "image")
        );
        return Err(DataError::format(path, problem));
    }
    Ok(labels.read_all()?.into_iter().map(i64::from).collect())
}

/// An IDX file whose header was read and compared with the file's length.
struct Idx {
    path: PathBuf,
    reader: Box<dyn Read>,
    packed: bool,
    dimensions: Vec<usize>,
    /// Bytes of the header and after it.
    header: u64,
    content: u64,
}

impl Idx {
    fn open(path: &Path) -> Result<Self, DataError> {
        let io = |error| DataError::io(path, error);
        let truncated = |error: io::Error| match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                DataError::format(path, "the file ends inside its header; fetch it again")
            }
            _ => DataError::Io {
                path: path.to_owned(),
                source: error,
            },
        };
        let file = open_regular(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let packed = path.extension().is_some_and(|extension| extension == "gz");
        let file = BufReader::with_capacity(1 << 18, file);
        let mut reader: Box<dyn Read> = if packed {
            Box::new(MultiGzDecoder::new(file))
        } else {
            Box::new(file)
        };
        let mut magic = [0; 4];
        reader.read_exact(&mut magic).map_err(truncated)?;
        let [0, 0, 8, count @ 1..=4] = magic else {
            let problem =
                format!("it starts with {magic:02x?}, not as an IDX file of bytes (00 00 08 ..)");
            return Err(DataError::format(path, problem));
        };
        let mut dimensions = Vec::new();
        for _ in 0..count {
            let mut number = [0; 4];
            reader.read_exact(&mut number).map_err(truncated)?;
            dimensions.push(u32::from_be_bytes(number) as usize);
        }
        let header = 4 + 4 * u64::from(count);
        let content = dimensions
            .iter()
            .try_fold(1u64, |product, &n| product.checked_mul(n as u64));
        let fits = |content: u64| {
            if packed {
                content <= length.saturating_mul(MAX_RATIO)
            } else {
                content.checked_add(header) == Some(length)
            }
        };
        match content {
            Some(content) if fits(content) => Ok(Self {
                path: path.to_owned(),
                reader,
                packed,
                dimensions,
                header,
                content,
            }),
            _ => {
                let problem = format!(
                    "its header promises {dimensions:?} bytes, which a file of {length} bytes cannot hold; \
                     fetch it again"
                );
                Err(DataError::format(path, problem))
            }
        }
    }

    /// The bytes after the header, exactly as many as it promises.
    fn read_all(&mut self) -> Result<Vec<u8>, DataError> {
        let mut bytes = Vec::with_capacity(self.content as usize);
        let read = (&mut self.reader)
            .take(self.content + 1)
            .read_to_end(&mut bytes);
        let found = bytes.len() as u64;
        let problem = match read {
            Ok(_) if found == self.content => return Ok(bytes),
            Ok(_) if found > self.content => "more".to_owned(),
            Ok(_) => found.to_string(),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => found.to_string(),
            Err(error) => {
                return Err(DataError::format(
                    &self.path,
                    format!("it cannot be unpacked: {error}"),
                ));
            }
        };
        Err(DataError::format(
            &self.path,
            format!(
                "its header promises {} bytes but {problem} follow; fetch it again",
                self.content
            ),
        ))
    }
}
