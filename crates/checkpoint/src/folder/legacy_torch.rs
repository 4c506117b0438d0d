//! PyTorch's files of before version 1.6 (December 2018 to July 2020 and older), in which many well-known weights still
//! lie: pickles, then for each storage the number of its elements (u64, little-endian) and the elements.

use std::collections::HashMap;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use super::error::{FolderError, shown};
use super::pickle::{self, Legacy};
use super::source::Source;
use super::tensor::{RawTensor, byte_len};
use super::torch_file::{LARGEST_PICKLE, by_storage, check_views, pickle_error, tensor_of};

/// Reads all tensors in the order of the file.
pub(super) fn read(
    source: &Source,
    relative: &Path,
) -> Result<Vec<(String, RawTensor)>, FolderError> {
    let open = source.open_content(relative)?;
    let path = &open.path;
    let cannot_read = || FolderError::io(path, "read");
    let mut file = BufReader::with_capacity(1 << 20, open.file);
    let mut start = Vec::new();
    (&mut file)
        .take(LARGEST_PICKLE)
        .read_to_end(&mut start)
        .map_err(cannot_read())?;
    let Legacy {
        state_dict,
        keys,
        len,
    } = pickle::read_legacy(&start).map_err(|error| pickle_error(path, error))?;
    drop(start);
    check_views(path, open.len, &state_dict)?;
    file.seek(SeekFrom::Start(len as u64))
        .map_err(cannot_read())?;

    let bad = |key: &str, problem: &str| {
        FolderError::malformed(path, format!("storage {}: {problem}", shown(key)))
    };
    let mut storages: HashMap<String, _> = by_storage(&state_dict)
        .into_iter()
        .map(|(storage, views)| (storage.key.clone(), (storage, views)))
        .collect();
    let mut tensors: Vec<Option<RawTensor>> = vec![None; state_dict.len()];
    for key in keys {
        let Some((storage, views)) = storages.remove(&key) else {
            return Err(bad(&key, "belongs to no tensor, or is there twice"));
        };
        let mut count = [0; 8];
        file.read_exact(&mut count)
            .map_err(|_| bad(&key, "cut off; download the file again"))?;
        if u64::from_le_bytes(count) != storage.count as u64 {
            return Err(bad(&key, "holds another number of elements than declared"));
        }
        let Some(needed) = byte_len(storage.dtype, &[storage.count]) else {
            return Err(bad(&key, "too large"));
        };
        // Grows with what is there, not with what is declared.
        let mut bytes = Vec::new();
        (&mut file)
            .take(needed as u64)
            .read_to_end(&mut bytes)
            .map_err(cannot_read())?;
        if bytes.len() != needed {
            return Err(bad(&key, "cut off; download the file again"));
        }
        for index in views {
            tensors[index] = Some(tensor_of(path, &state_dict[index], &bytes)?);
        }
    }
    if let Some(key) = storages.into_keys().next() {
        return Err(bad(&key, "is missing"));
    }
    let names = state_dict.into_iter().map(|(name, _)| name);
    Ok(names
        .zip(tensors)
        .filter_map(|(name, tensor)| Some((name, tensor?)))
        .collect())
}
