//! CIFAR-10 in its binary version: records of one label byte and 3,072 pixel bytes, red plane first.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use retrack_networks::files::open_regular;

use super::ImageShape;
use super::error::DataError;
use super::raw::{RawImages, RecordFile};

const SHAPE: ImageShape = ImageShape {
    height: 32,
    width: 32,
    channels: 3,
};
const RECORD: u64 = 1 + 32 * 32 * 3;

/// The five training batches of `folder`, or `None` when it holds none of them. `test_batch.bin` is another data
/// set: it can be named by itself.
pub(crate) fn batches(folder: &Path) -> Result<Option<Vec<PathBuf>>, DataError> {
    let paths: Vec<PathBuf> = (1..=5)
        .map(|n| folder.join(format!("data_batch_{n}.bin")))
        .collect();
    let missing: Vec<&PathBuf> = paths.iter().filter(|path| !path.is_file()).collect();
    if missing.len() == paths.len() {
        return Ok(None);
    }
    if let Some(path) = missing.first() {
        let problem =
            "this batch is missing beside the others; fetch it, or name a single batch file";
        return Err(DataError::format(path, problem));
    }
    Ok(Some(paths))
}

/// Opens batch files, in the order given.
pub(crate) fn open(name: &Path, paths: &[PathBuf], budget: u64) -> Result<RawImages, DataError> {
    let mut files = Vec::new();
    let mut labels = Vec::new();
    for path in paths {
        let io = |error| DataError::io(path, error);
        let file = open_regular(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        if length == 0 || length % RECORD != 0 {
            return Err(DataError::format(
                path,
                format!(
                    "{length} bytes are not a whole number of CIFAR-10 records of {RECORD}; fetch the file again"
                ),
            ));
        }
        let rows = (length / RECORD) as usize;
        labels.extend(read_labels(path, &file, rows)?);
        files.push(RecordFile {
            path: path.clone(),
            file: Mutex::new(file),
            rows,
            offset: 1,
            stride: RECORD,
        });
    }
    RawImages::open("CIFAR-10 batches", name, SHAPE, files, true, labels, budget)
}

fn read_labels(path: &Path, file: &File, rows: usize) -> Result<Vec<i64>, DataError> {
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let mut record = [0; RECORD as usize];
    (0..rows)
        .map(|row| {
            reader
                .read_exact(&mut record)
                .map_err(|error| DataError::io(path, error))?;
            match record[0] {
                label @ 0..=9 => Ok(i64::from(label)),
                label => Err(DataError::format(
                    path,
                    format!(
                        "record {row} has label {label}, not 0 to 9: this is not a CIFAR-10 batch"
                    ),
                )),
            }
        })
        .collect()
}
