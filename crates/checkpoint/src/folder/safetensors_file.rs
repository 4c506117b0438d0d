//! Safetensors files: eight bytes with the header's length, a JSON header, the data.
//!
//! The header is read here rather than by the `safetensors` crate, which takes the last of two equal names, any first
//! character and any extra field, and forgets the order of the names; files are written with the crate's own header.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};

use safetensors::tensor::{Dtype as HeaderDtype, Metadata, TensorInfo};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde_json::{Value, json};

use super::error::{FolderError, shown};
use super::output;
use super::source::{OpenFile, Source};
use super::stored::StoredTensor;
use super::tensor::{Dtype, RawTensor, byte_len};

/// 100,000 tensors; bounds the memory that a header can take.
const LARGEST_HEADER: u64 = 16 << 20;
const LENGTH_BYTES: u64 = 8;

/// Finds all tensors, in the order of their data.
pub(super) fn find(
    source: &Source,
    relative: &Path,
) -> Result<Vec<(String, StoredTensor)>, FolderError> {
    let mut open = source.open_content(relative)?;
    let (header, entries) = read_header(&mut open)?;
    let mut start = LENGTH_BYTES + header.len() as u64;
    let open = Arc::new(Mutex::new(open));
    let tensors = entries.into_iter().map(|entry| {
        let Entry {
            name,
            dtype,
            shape,
            len,
        } = entry;
        let place = start;
        start += len as u64;
        let open = Arc::clone(&open);
        let tensor = StoredTensor::in_file(open, place, len, name.clone(), dtype, shape);
        (name, tensor)
    });
    Ok(tensors.collect())
}

/// Reads all tensors in the order of their data.
pub(super) fn read(
    source: &Source,
    relative: &Path,
) -> Result<Vec<(String, RawTensor)>, FolderError> {
    let found = find(source, relative)?.into_iter();
    found
        .map(|(name, tensor)| Ok((name, tensor.read()?.into_owned())))
        .collect()
}

/// The entries of the header's `__metadata__`.
pub(super) fn metadata(
    source: &Source,
    relative: &Path,
) -> Result<Vec<(String, String)>, FolderError> {
    let mut open = source.open_content(relative)?;
    let (header, _) = read_header(&mut open)?;
    let parsed: Header = serde_json::from_slice(&header)
        .map_err(|error| FolderError::malformed(&open.path, error.to_string()))?;
    Ok(parsed.metadata)
}

/// Writes to `out` the file with other values: the header, and with it names, order, types and metadata, stays byte
/// for byte. `tensor` gives the values to write, by the names of the file, one tensor at a time. `dtype` says in which
/// type those of a type are written, and `prefix` is taken from every name; where a type is another one or the prefix is
/// not empty, the header is made anew, with order and metadata as they were.
pub(super) fn rewrite<'a>(
    source: &Source,
    relative: &Path,
    out: &Path,
    dtype: impl Fn(Dtype) -> Dtype,
    prefix: &str,
    tensor: impl Fn(&str) -> Result<Option<Cow<'a, RawTensor>>, FolderError>,
) -> Result<(), FolderError> {
    let mut open = source.open_content(relative)?;
    let (mut header, mut entries) = read_header(&mut open)?;
    let converted = entries
        .iter()
        .any(|entry| dtype(entry.dtype) != entry.dtype);
    if converted || !prefix.is_empty() {
        for entry in &mut entries {
            entry.dtype = dtype(entry.dtype);
            entry.len = byte_len(entry.dtype, &entry.shape).ok_or_else(|| {
                FolderError::malformed(&open.path, format!("{} is too large", shown(&entry.name)))
            })?;
        }
        header = header_of(&header, &entries, prefix, &open.path)?;
    }
    let cannot = || FolderError::io(out, "write");
    let mut file = new_file(out)?;
    let length = (header.len() as u64).to_le_bytes();
    file.write_all(&length).map_err(cannot())?;
    file.write_all(&header).map_err(cannot())?;
    for entry in &entries {
        match tensor(&entry.name)? {
            Some(tensor) if tensor.dtype() == entry.dtype && tensor.shape() == entry.shape => {
                file.write_all(tensor.bytes()).map_err(cannot())?;
            }
            _ => return Err(FolderError::changed_since(&open.path, &entry.name)),
        }
    }
    finish(file).map_err(cannot())
}

/// A header for these entries, one after another, with the metadata of `old` and names without `prefix`.
fn header_of(
    old: &[u8],
    entries: &[Entry],
    prefix: &str,
    path: &Path,
) -> Result<Vec<u8>, FolderError> {
    let parsed: Header = serde_json::from_slice(old)
        .map_err(|error| FolderError::malformed(path, error.to_string()))?;
    let mut header = serde_json::Map::new();
    if !parsed.metadata.is_empty() {
        let texts = parsed.metadata.into_iter();
        let texts = texts.map(|(name, text)| (name, text.into()));
        header.insert("__metadata__".into(), Value::Object(texts.collect()));
    }
    let mut end = 0;
    for entry in entries {
        let start = end;
        end += entry.len;
        let declared = json!({
            "dtype": entry.dtype.name(),
            "shape": entry.shape,
            "data_offsets": [start, end],
        });
        let name = entry.name.strip_prefix(prefix).unwrap_or(&entry.name);
        header.insert(name.to_owned(), declared);
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(LENGTH_BYTES as usize), b' ');
    Ok(header)
}

/// Writes a new file, as `safetensors.torch.save_file(tensors, out, metadata={"format": "pt"})` does: the widest
/// element types first, then by name.
pub(super) fn create<'a>(
    out: &Path,
    tensors: impl IntoIterator<Item = (&'a str, &'a RawTensor)>,
) -> Result<(), FolderError> {
    let mut tensors: Vec<_> = tensors.into_iter().collect();
    let header_dtype = |tensor: &RawTensor| match tensor.dtype() {
        Dtype::F32 => HeaderDtype::F32,
        Dtype::F16 => HeaderDtype::F16,
        Dtype::BF16 => HeaderDtype::BF16,
        Dtype::F64 => HeaderDtype::F64,
        Dtype::I64 => HeaderDtype::I64,
    };
    tensors.sort_by(|(left_name, left), (right_name, right)| {
        header_dtype(right)
            .cmp(&header_dtype(left))
            .then(left_name.cmp(right_name))
    });
    let mut end = 0;
    let infos = tensors.iter().map(|(name, tensor)| {
        let start = end;
        end += tensor.bytes().len();
        let info = TensorInfo {
            dtype: header_dtype(tensor),
            shape: tensor.shape().to_vec(),
            data_offsets: (start, end),
        };
        (name.to_string(), info)
    });
    let format = HashMap::from([("format".to_string(), "pt".to_string())]);
    let header = Metadata::new(Some(format), infos.collect()).map_err(|error| {
        FolderError::malformed(out, format!("cannot describe the tensors: {error}"))
    })?;
    let mut header = serde_json::to_vec(&header).map_err(|source| FolderError::Json {
        path: out.to_path_buf(),
        source,
    })?;
    header.resize(header.len().next_multiple_of(LENGTH_BYTES as usize), b' ');
    let mut file = new_file(out)?;
    let write = |file: &mut BufWriter<File>| {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        let mut tensors = tensors.iter();
        tensors.try_for_each(|(_, tensor)| file.write_all(tensor.bytes()))
    };
    write(&mut file)
        .and_then(|()| finish(file))
        .map_err(FolderError::io(out, "write"))
}

fn new_file(out: &Path) -> Result<BufWriter<File>, FolderError> {
    Ok(BufWriter::with_capacity(1 << 20, output::new_file(out)?))
}

fn finish(mut file: BufWriter<File>) -> std::io::Result<()> {
    file.flush()?;
    file.get_ref().sync_all()
}

/// A tensor of a checked header; `len` bytes follow those of the entry before.
struct Entry {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    len: usize,
}

/// Reads and checks the header, and leaves the file at the start of the data. Gives the header's bytes and the entries
/// in the order of their data.
fn read_header(open: &mut OpenFile) -> Result<(Vec<u8>, Vec<Entry>), FolderError> {
    let path = &open.path;
    let bad = |problem: String| FolderError::malformed(path, problem);
    if open.len < LENGTH_BYTES {
        return Err(bad(format!(
            "too short for a safetensors file ({} bytes)",
            open.len
        )));
    }
    let mut length = [0; LENGTH_BYTES as usize];
    open.file
        .read_exact(&mut length)
        .map_err(FolderError::io(path, "read"))?;
    let length = u64::from_le_bytes(length);
    if length > LARGEST_HEADER {
        return Err(bad(format!(
            "not a safetensors file, or a damaged one: its header would be {length} bytes long (at most {LARGEST_HEADER} are read)"
        )));
    }
    let Some(data_len) = (open.len - LENGTH_BYTES).checked_sub(length) else {
        return Err(bad(format!(
            "cut off within the header ({length} bytes declared); download it again"
        )));
    };
    let mut header = vec![0; length as usize];
    open.file
        .read_exact(&mut header)
        .map_err(FolderError::io(path, "read"))?;
    if header.first() != Some(&b'{') {
        return Err(bad("the safetensors header does not start with `{`".into()));
    }
    let parsed: Header = serde_json::from_slice(&header)
        .map_err(|error| bad(format!("the safetensors header is not valid: {error}")))?;

    let mut declared = parsed.tensors;
    declared.sort_by_key(|(_, tensor)| tensor.data_offsets);
    let mut entries = Vec::with_capacity(declared.len());
    let mut end = 0u64;
    for (name, tensor) in declared {
        let of_tensor = |problem: String| bad(format!("tensor {}: {problem}", shown(&name)));
        let [start, stop] = tensor.data_offsets;
        if start != end {
            let relation = if start < end {
                "overlap those before"
            } else {
                "leave a gap before it"
            };
            return Err(of_tensor(format!(
                "its data (bytes {start} to {stop}) {relation}"
            )));
        }
        if stop > data_len {
            return Err(of_tensor(format!(
                "its data would end at byte {stop}, but the file has {data_len}; it is cut off, download it again"
            )));
        }
        let Some(dtype) = Dtype::from_name(&tensor.dtype) else {
            return Err(of_tensor(format!(
                "element type {} is not supported (F32, F16, BF16, F64 and I64 are)",
                shown(&tensor.dtype)
            )));
        };
        let Some(len) = byte_len(dtype, &tensor.shape) else {
            return Err(of_tensor(format!("shape {:?} is too large", tensor.shape)));
        };
        if stop.checked_sub(start) != Some(len as u64) {
            return Err(of_tensor(format!(
                "shape {:?} of {dtype} needs {len} bytes, its data is bytes {start} to {stop}",
                tensor.shape
            )));
        }
        end = stop;
        entries.push(Entry {
            name,
            dtype,
            shape: tensor.shape,
            len,
        });
    }
    if end != data_len {
        return Err(bad(format!(
            "{} bytes at its end belong to no tensor",
            data_len - end
        )));
    }
    Ok((header, entries))
}

/// Checks what the `safetensors` crate leaves out of a file's header: its first character, names that are there twice,
/// unknown fields.
///
/// # Errors
/// What is wrong with it.
pub fn check_names(file: &[u8]) -> Result<(), String> {
    let Some((length, rest)) = file.split_first_chunk::<8>() else {
        return Err("too short for a safetensors file".into());
    };
    let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
    let Some(header) = rest.get(..length) else {
        return Err("not a safetensors file, or one that is cut off within its header".into());
    };
    if header.first() != Some(&b'{') {
        return Err("the safetensors header does not start with `{`".into());
    }
    serde_json::from_slice::<Header>(header)
        .map(|_| ())
        .map_err(|error| format!("the safetensors header is not valid: {error}"))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeclaredTensor {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [u64; 2],
}

/// The header in its own order, with names checked to be unique.
struct Header {
    tensors: Vec<(String, DeclaredTensor)>,
    metadata: Vec<(String, String)>,
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct HeaderVisitor;
        impl<'de> Visitor<'de> for HeaderVisitor {
            type Value = Header;

            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut seen = std::collections::HashSet::new();
                let mut tensors = Vec::new();
                let mut metadata = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if !seen.insert(name.clone()) {
                        return Err(A::Error::custom(format_args!(
                            "{} is there twice",
                            shown(&name)
                        )));
                    }
                    if name == "__metadata__" {
                        metadata = map.next_value::<UniqueMap>()?.0;
                    } else {
                        tensors.push((name, map.next_value()?));
                    }
                }
                Ok(Header { tensors, metadata })
            }
        }
        deserializer.deserialize_map(HeaderVisitor)
    }
}

/// A JSON object of strings whose names are unique, in its own order.
pub(super) struct UniqueMap(pub Vec<(String, String)>);

impl<'de> Deserialize<'de> for UniqueMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct UniqueMapVisitor;
        impl<'de> Visitor<'de> for UniqueMapVisitor {
            type Value = UniqueMap;

            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("an object of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<UniqueMap, A::Error> {
                let mut seen = std::collections::HashSet::new();
                let mut entries = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, String>()? {
                    if !seen.insert(name.clone()) {
                        return Err(A::Error::custom(format_args!(
                            "{} is there twice",
                            shown(&name)
                        )));
                    }
                    entries.push((name, value));
                }
                Ok(UniqueMap(entries))
            }
        }
        deserializer.deserialize_map(UniqueMapVisitor)
    }
}

#[cfg(test)]
#[path = "safetensors_file_tests.rs"]
mod tests;
