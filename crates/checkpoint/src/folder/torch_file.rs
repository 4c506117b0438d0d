//! PyTorch's `.bin`: a zip archive with a pickle `PREFIX/data.pkl` and one uncompressed entry `PREFIX/data/KEY` for
//! each storage.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;

use indexmap::IndexMap;
use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive};

use super::error::{FolderError, shown};
use super::output::new_file;
use super::pickle::{self, PickleError, Storage, View};
use super::source::{OpenFile, Source};
use super::tensor::{RawTensor, byte_len};

/// About 50,000 tensors; bounds what the pickle's values can take.
pub(super) const LARGEST_PICKLE: u64 = 8 << 20;
/// Tensors may share a storage (tied weights), so their sum may exceed the file, but not without bound.
const MOST_SHARING: u64 = 4;

const ZIP_START: &[u8] = b"PK\x03\x04";
/// Flag of a zip entry whose checksum follows its data.
const HAS_DESCRIPTOR: u16 = 1 << 3;
const DESCRIPTOR_SIGNATURE: u64 = 4;
/// Where flags and CRC-32 lie in a local and in a central header (APPNOTE.TXT 4.3.7 and 4.3.12).
const FLAGS_IN_LOCAL_HEADER: u64 = 6;
const CRC_IN_LOCAL_HEADER: u64 = 14;
const CRC_IN_CENTRAL_HEADER: u64 = 16;

/// Reads all tensors in the order of the file.
pub(super) fn read(
    source: &Source,
    relative: &Path,
) -> Result<Vec<(String, RawTensor)>, FolderError> {
    let mut archive = Archive::open(source, relative)?;
    let state_dict = archive.state_dict()?;
    let mut tensors: Vec<Option<RawTensor>> = vec![None; state_dict.len()];
    for (storage, views) in by_storage(&state_dict) {
        let (_, bytes) = archive.storage(&storage)?;
        for index in views {
            tensors[index] = Some(tensor_of(archive.path(), &state_dict[index], &bytes)?);
        }
    }
    let names = state_dict.into_iter().map(|(name, _)| name);
    Ok(names
        .zip(tensors)
        .filter_map(|(name, tensor)| Some((name, tensor?)))
        .collect())
}

/// The names of all tensors in the order of the file.
pub(super) fn names(source: &Source, relative: &Path) -> Result<Vec<String>, FolderError> {
    let state_dict = Archive::open(source, relative)?.state_dict()?;
    Ok(state_dict.into_iter().map(|(name, _)| name).collect())
}

/// Writes to `out` the file with other values: everything but the storages and their checksums stays byte for byte.
/// `tensor` gives the values to write, by the names of the file.
pub(super) fn rewrite<'a>(
    source: &Source,
    relative: &Path,
    out: &Path,
    tensor: impl Fn(&str) -> Result<Option<Cow<'a, RawTensor>>, FolderError>,
) -> Result<(), FolderError> {
    let mut archive = Archive::open(source, relative)?;
    let state_dict = archive.state_dict()?;
    let cannot = |action| FolderError::io(out, action);
    {
        let mut original = source.open_content(relative)?;
        let mut copy = new_file(out)?;
        std::io::copy(&mut original.file, &mut copy).map_err(cannot("write"))?;
    }
    let mut copy = OpenOptions::new()
        .read(true)
        .write(true)
        .open(out)
        .map_err(cannot("write"))?;
    for (storage, views) in by_storage(&state_dict) {
        let (place, mut bytes) = archive.storage(&storage)?;
        let given = views.iter().map(|&index| {
            let (name, view) = &state_dict[index];
            match tensor(name)? {
                Some(tensor) if tensor.dtype() == storage.dtype && tensor.shape() == view.shape => {
                    Ok((name, view, tensor))
                }
                _ => Err(FolderError::changed_since(archive.path(), name)),
            }
        });
        let given = given.collect::<Result<Vec<_>, _>>()?;
        for (_, view, tensor) in &given {
            scatter(view, tensor.bytes(), &mut bytes);
        }
        for (name, view, tensor) in given {
            if gather(view, &bytes) != tensor.bytes() {
                return Err(FolderError::malformed(
                    archive.path(),
                    format!(
                        "tensor {} shares memory with another one that now holds other values",
                        shown(name)
                    ),
                ));
            }
        }
        let crc = crc32fast::hash(&bytes).to_le_bytes();
        let mut put = |position: u64, bytes: &[u8]| {
            copy.seek(SeekFrom::Start(position))
                .and_then(|_| copy.write_all(bytes))
                .map_err(cannot("write"))
        };
        put(place.data, &bytes)?;
        put(place.central_header + CRC_IN_CENTRAL_HEADER, &crc)?;
        put(place.crc, &crc)?;
    }
    copy.sync_all().map_err(cannot("write"))
}

/// Positions in the archive that change with a storage's values.
struct Place {
    central_header: u64,
    data: u64,
    /// The checksum besides the central directory's.
    crc: u64,
}

struct Archive {
    zip: ZipArchive<BufReader<File>>,
    open: OpenFile,
    /// With its slash.
    prefix: String,
}

impl Archive {
    fn open(source: &Source, relative: &Path) -> Result<Self, FolderError> {
        // Two handles: the zip reader relies on the position of its own.
        let mut open = source.open_content(relative)?;
        let file = source.open_content(relative)?.file;
        let path = open.path.clone();
        let mut start = [0; 4];
        if open.len < 4 {
            return Err(FolderError::malformed(
                &path,
                "too short for a PyTorch file",
            ));
        }
        open.file
            .read_exact(&mut start)
            .map_err(FolderError::io(&path, "read"))?;
        if start != ZIP_START {
            // PROTO opcode: the old format is a row of pickles.
            return Err(if start[0] == 0x80 {
                FolderError::LegacyTorch { path }
            } else {
                FolderError::malformed(
                    &path,
                    "not a PyTorch file (neither a zip archive nor a pickle)",
                )
            });
        }
        let mut zip = ZipArchive::new(BufReader::new(file)).map_err(zip_error(&path))?;
        if zip.offset() != 0 {
            return Err(FolderError::malformed(
                &path,
                "the zip archive does not begin at the start of the file",
            ));
        }
        if zip.has_duplicate_names() {
            return Err(FolderError::malformed(
                &path,
                "the zip archive holds two entries of the same name",
            ));
        }
        if zip.has_overlapping_entries().map_err(zip_error(&path))? {
            return Err(FolderError::malformed(
                &path,
                "entries of the zip archive overlap",
            ));
        }
        let mut prefixes: Vec<_> = zip
            .file_names_raw()
            .filter_map(|name| name.strip_suffix(b"data.pkl"))
            .filter(|prefix| prefix.last() == Some(&b'/'))
            .map(<[u8]>::to_vec)
            .collect();
        let prefix = match (prefixes.pop(), prefixes.pop()) {
            (Some(prefix), None) => String::from_utf8(prefix).ok(),
            _ => None,
        };
        let Some(prefix) = prefix else {
            return Err(FolderError::malformed(
                &path,
                "a zip archive, but not one that torch.save wrote (it needs exactly one NAME/data.pkl)",
            ));
        };
        Ok(Self { zip, open, prefix })
    }

    fn path(&self) -> &Path {
        &self.open.path
    }

    /// The pickle's names and views, each checked to lie within its storage.
    fn state_dict(&mut self) -> Result<Vec<(String, View)>, FolderError> {
        let order = self.entry("byteorder", 16)?;
        if order.is_some_and(|(_, order)| order != b"little") {
            return Err(FolderError::malformed(
                self.path(),
                "written on a big-endian machine, which is not read",
            ));
        }
        let Some((_, pickle)) = self.entry("data.pkl", LARGEST_PICKLE)? else {
            return Err(FolderError::malformed(
                self.path(),
                "no data.pkl in the archive",
            ));
        };
        let state_dict =
            pickle::read_state_dict(&pickle).map_err(|error| pickle_error(self.path(), error))?;
        check_views(self.path(), self.open.len, &state_dict)?;
        Ok(state_dict)
    }

    fn storage(&mut self, storage: &Storage) -> Result<(Place, Vec<u8>), FolderError> {
        let name = format!("data/{}", storage.key);
        let Some((place, bytes)) = self.entry(&name, u64::MAX)? else {
            return Err(FolderError::malformed(
                self.path(),
                format!("no entry {} in the archive", shown(&name)),
            ));
        };
        let declared = byte_len(storage.dtype, &[storage.count]);
        if declared != Some(bytes.len()) {
            return Err(FolderError::malformed(
                self.path(),
                format!(
                    "entry {} has {} bytes where {} elements of {} are declared",
                    shown(&name),
                    bytes.len(),
                    storage.count,
                    storage.dtype
                ),
            ));
        }
        Ok((place, bytes))
    }

    /// Reads one entry, which must be stored as it is: compressed entries could be bombs, and torch writes none.
    fn entry(&mut self, name: &str, limit: u64) -> Result<Option<(Place, Vec<u8>)>, FolderError> {
        let path = self.open.path.clone();
        let bad = |problem: &str| {
            FolderError::malformed(&path, format!("archive entry {}: {problem}", shown(name)))
        };
        let mut entry = match self.zip.by_name(&format!("{}{name}", self.prefix)) {
            Ok(entry) => entry,
            Err(ZipError::FileNotFound) => return Ok(None),
            Err(error) => return Err(bad(&error.to_string())),
        };
        if entry.encrypted() || entry.compression() != CompressionMethod::Stored {
            return Err(bad("compressed or encrypted, which torch.save never does"));
        }
        let size = entry.size();
        if size != entry.compressed_size() || size > self.open.len {
            return Err(bad("its sizes contradict each other"));
        }
        if size > limit {
            return Err(bad("too large"));
        }
        let Some(data) = entry.data_start() else {
            return Err(bad("has no data"));
        };
        let (local_header, central_header) = (entry.header_start(), entry.central_header_start());
        let crc = entry.crc32();
        let mut bytes = Vec::with_capacity(size as usize);
        // The reader compares the CRC-32 at its end.
        entry
            .by_ref()
            .take(size.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(|error| bad(&error.to_string()))?;
        drop(entry);
        if bytes.len() as u64 != size {
            return Err(bad("cut off"));
        }
        let Some(crc) = self.find_crc(local_header, data.saturating_add(size), crc)? else {
            return Err(bad("its checksums contradict each other"));
        };
        let place = Place {
            central_header,
            data,
            crc,
        };
        Ok(Some((place, bytes)))
    }

    /// Where an entry's checksum is besides the central directory: in its local header, or behind its data where the
    /// header's flags say so (APPNOTE.TXT 4.3.9, with or without a signature). `None` where it is not there.
    fn find_crc(
        &mut self,
        local_header: u64,
        data_end: u64,
        crc: u32,
    ) -> Result<Option<u64>, FolderError> {
        let mut read = |position: u64, buffer: &mut [u8]| {
            let file = &mut self.open.file;
            file.seek(SeekFrom::Start(position))
                .and_then(|_| file.read_exact(buffer))
                .map_err(FolderError::io(&self.open.path, "read"))
        };
        let mut flags = [0; 2];
        read(local_header + FLAGS_IN_LOCAL_HEADER, &mut flags)?;
        let places = if u16::from_le_bytes(flags) & HAS_DESCRIPTOR == 0 {
            let in_header = local_header + CRC_IN_LOCAL_HEADER;
            [in_header, in_header]
        } else {
            [data_end + DESCRIPTOR_SIGNATURE, data_end]
        };
        for place in places {
            let mut found = [0; 4];
            read(place, &mut found)?;
            if u32::from_le_bytes(found) == crc {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }
}

pub(super) fn pickle_error(path: &Path, error: PickleError) -> FolderError {
    match error {
        PickleError::Forbidden(global) => FolderError::ForbiddenGlobal {
            path: path.to_path_buf(),
            global,
        },
        PickleError::Malformed(_) | PickleError::Other(_) => {
            FolderError::malformed(path, error.to_string())
        }
    }
}

/// Checks that each view lies within its storage, that no storage is declared in two ways, and that the tensors do not
/// take much more memory than the file's `len` bytes.
pub(super) fn check_views(
    path: &Path,
    len: u64,
    state_dict: &[(String, View)],
) -> Result<(), FolderError> {
    let mut total = 0u64;
    let mut storages: HashMap<&str, &Storage> = HashMap::new();
    for (name, view) in state_dict {
        if storages.entry(&view.storage.key).or_insert(&view.storage) != &&view.storage {
            let problem = format!(
                "storage {} is declared in two ways",
                shown(&view.storage.key)
            );
            return Err(FolderError::malformed(path, problem));
        }
        let bytes = check_view(view).map_err(|problem| {
            FolderError::malformed(path, format!("tensor {}: {problem}", shown(name)))
        })?;
        total = total.saturating_add(bytes as u64);
    }
    if total > len.saturating_mul(MOST_SHARING) {
        return Err(FolderError::malformed(
            path,
            format!(
                "its tensors would take {total} bytes, {MOST_SHARING} times more than the file holds"
            ),
        ));
    }
    Ok(())
}

fn zip_error(path: &Path) -> impl FnOnce(ZipError) -> FolderError {
    let path = path.to_path_buf();
    move |error| {
        FolderError::malformed(
            &path,
            format!("damaged zip archive, download it again: {error}"),
        )
    }
}

/// Indices of the views of each storage, so that each storage is read once and held alone.
pub(super) fn by_storage(state_dict: &[(String, View)]) -> Vec<(Storage, Vec<usize>)> {
    let mut groups: IndexMap<&str, Vec<usize>> = IndexMap::new();
    for (index, (_, view)) in state_dict.iter().enumerate() {
        groups.entry(&view.storage.key).or_default().push(index);
    }
    groups
        .into_values()
        .map(|views| (state_dict[views[0]].1.storage.clone(), views))
        .collect()
}

/// A checked view's tensor; `storage` holds the bytes of its whole storage.
pub(super) fn tensor_of(
    path: &Path,
    (name, view): &(String, View),
    storage: &[u8],
) -> Result<RawTensor, FolderError> {
    let gathered = gather(view, storage);
    RawTensor::new(view.storage.dtype, view.shape.clone(), gathered).map_err(|source| {
        FolderError::Tensor {
            path: path.to_path_buf(),
            name: name.clone(),
            source,
        }
    })
}

/// The bytes of a view that lies within its storage and repeats no element.
fn check_view(view: &View) -> Result<usize, String> {
    let View {
        storage,
        offset,
        shape,
        stride,
    } = view;
    let count = shape
        .iter()
        .try_fold(1usize, |product, &side| product.checked_mul(side));
    let bytes = byte_len(storage.dtype, shape);
    let (Some(count), Some(bytes)) = (count, bytes) else {
        return Err(format!("shape {shape:?} is too large"));
    };
    if count == 0 {
        return Ok(0);
    }
    let last = shape
        .iter()
        .zip(stride)
        .try_fold(*offset, |last, (&side, &stride)| {
            last.checked_add((side - 1).checked_mul(stride)?)
        });
    if last.is_none_or(|last| last >= storage.count) {
        return Err(format!(
            "shape {shape:?} with strides {stride:?} from element {offset} reaches beyond its storage of {} elements",
            storage.count
        ));
    }
    // Whole, as torch.expand leaves it, but other values could not be written to it.
    if count > storage.count {
        return Err(format!(
            "shape {shape:?} with strides {stride:?} repeats elements of its storage of {}, which is not read; in Python, \
             load the file with torch.load(FILE, weights_only=True), replace each tensor by tensor.contiguous() and save \
             all again with torch.save",
            storage.count
        ));
    }
    Ok(bytes)
}

/// Calls `visit` with each element's position in the storage, in C order of the view.
fn positions(view: &View, mut visit: impl FnMut(usize)) {
    let View {
        offset,
        shape,
        stride,
        ..
    } = view;
    if shape.contains(&0) {
        return;
    }
    let mut index = vec![0; shape.len()];
    let mut position = *offset;
    // One step beyond the last element of a side may leave the range of numbers; it is always taken back.
    loop {
        visit(position);
        let mut axis = shape.len();
        loop {
            if axis == 0 {
                return;
            }
            axis -= 1;
            index[axis] += 1;
            position = position.wrapping_add(stride[axis]);
            if index[axis] < shape[axis] {
                break;
            }
            position = position.wrapping_sub(index[axis].wrapping_mul(stride[axis]));
            index[axis] = 0;
        }
    }
}

/// The byte range of a view whose elements lie side by side in C order.
fn contiguous(view: &View) -> Option<std::ops::Range<usize>> {
    let mut expected = 1;
    for (&side, &stride) in view.shape.iter().zip(&view.stride).rev() {
        if side != 1 && stride != expected {
            return None;
        }
        expected *= side;
    }
    let size = view.storage.dtype.size();
    Some(view.offset * size..(view.offset + expected) * size)
}

fn gather(view: &View, storage: &[u8]) -> Vec<u8> {
    if view.shape.contains(&0) {
        return Vec::new();
    }
    if let Some(range) = contiguous(view) {
        return storage[range].to_vec();
    }
    let size = view.storage.dtype.size();
    let mut bytes = Vec::new();
    positions(view, |position| {
        bytes.extend_from_slice(&storage[position * size..][..size])
    });
    bytes
}

fn scatter(view: &View, values: &[u8], storage: &mut [u8]) {
    let size = view.storage.dtype.size();
    let mut values = values.chunks_exact(size);
    positions(view, |position| {
        if let Some(value) = values.next() {
            storage[position * size..][..size].copy_from_slice(value);
        }
    });
}

#[cfg(test)]
#[path = "torch_file_tests.rs"]
mod tests;
