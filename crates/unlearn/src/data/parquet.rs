//! Parquet files with a Hugging Face image column: a struct of `bytes` and `path`, or plain binary.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use parquet::basic::{ConvertedType, LogicalType, Type};
use parquet::column::page::PageReader;
use parquet::column::reader::{ColumnReaderImpl, get_column_reader, get_typed_column_reader};
use parquet::data_type::{ByteArray, ByteArrayType, DataType};
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::serialized_reader::SerializedPageReader;
use parquet::schema::types::ColumnDescriptor;
use retrack_networks::files::open_regular;

use super::error::DataError;
use super::image::MAX_ENCODED;
use super::quiet::quietly;
use super::source::{Form, Source};

/// Encoded bytes that are read at once, at least: a few pages, so that one random read does not cost a whole row
/// group. A window is made of whole pages: a page is unpacked as a whole, and some writers make pages of 100 MB.
const WINDOW: u64 = 2 << 20;
/// Part of the memory budget that encoded windows may take.
const CACHE_SHARE: u64 = 8;

/// Rows of one or more Parquet files. Only the footers and the labels are read at once; images are read in windows
/// of neighboring rows, and the last windows are kept.
pub(crate) struct ParquetImages {
    files: Vec<OpenFile>,
    groups: Vec<Group>,
    len: usize,
    labels: Vec<Option<i64>>,
    cache: Mutex<WindowCache>,
}

struct OpenFile {
    path: PathBuf,
    metadata: Arc<ParquetMetaData>,
    /// Index of the leaf that holds the encoded images.
    image: usize,
}

/// A row group and its place in the data set.
struct Group {
    file: usize,
    index: usize,
    start: usize,
    rows: usize,
    /// Bytes of the image column, unpacked.
    size: u64,
    /// First rows of the windows, counted from the group's start; the first is 0.
    windows: Vec<usize>,
}

impl Group {
    /// The window that holds `row` of the data set, in rows of the group.
    fn window_of(&self, row: usize) -> Range<usize> {
        let next = self
            .windows
            .partition_point(|&start| start <= row - self.start);
        self.windows[next - 1]..*self.windows.get(next).unwrap_or(&self.rows)
    }

    fn window_bytes(&self, row: usize) -> u64 {
        (self.size as u128 * self.window_of(row).len() as u128 / self.rows as u128) as u64
    }
}

/// One window: the values of `rows` from row `start` of the data set on. `None` is a null.
struct Window {
    start: usize,
    bytes: u64,
    values: Vec<Option<ByteArray>>,
}

struct WindowCache {
    windows: VecDeque<Window>,
    budget: u64,
}

impl ParquetImages {
    pub fn open(root: &Path, paths: &[PathBuf], memory_budget: u64) -> Result<Self, DataError> {
        let (mut files, mut groups, mut labels) = (Vec::new(), Vec::new(), Vec::new());
        let mut len = 0;
        for path in paths {
            let file = open_regular(path).map_err(|error| DataError::io(path, error))?;
            let reader = guarded(path, || SerializedFileReader::new(file))?;
            let metadata = reader.metadata();
            let schema = metadata.file_metadata().schema_descr();
            let image = image_column(path, schema.columns())?;
            let label = label_column(schema.columns());
            for (index, group) in metadata.row_groups().iter().enumerate() {
                let problem =
                    |what: &str| DataError::format(path, format!("row group {index}: {what}"));
                let column = group
                    .columns()
                    .get(image)
                    .ok_or_else(|| problem("a column is missing"))?;
                // A reader trusts these counts for its allocations.
                let rows = usize::try_from(group.num_rows())
                    .map_err(|_| problem("its row count is negative"))?;
                let size = u64::try_from(column.uncompressed_size())
                    .unwrap_or(0)
                    .max(1);
                if column.num_values() != group.num_rows() {
                    return Err(problem(
                        "the image column has another number of values than the group has rows",
                    ));
                }
                if rows == 0 {
                    continue;
                }
                if let Some(label) = label {
                    labels.resize(len, None);
                    let column = group
                        .columns()
                        .get(label)
                        .ok_or_else(|| problem("a column is missing"))?;
                    let number = column.column_descr().physical_type();
                    labels.extend(guarded(path, || {
                        read_labels(path, metadata, index, label, rows, number)
                    })?);
                }
                let at_least = (rows as u64 * WINDOW / size).clamp(1, rows as u64) as usize;
                let windows = guarded(path, || windows(path, metadata, index, image, at_least))?;
                groups.push(Group {
                    file: files.len(),
                    index,
                    start: len,
                    rows,
                    size,
                    windows,
                });
                len += rows;
            }
            files.push(OpenFile {
                path: path.clone(),
                metadata: Arc::new(metadata.clone()),
                image,
            });
        }
        if len == 0 {
            return Err(DataError::format(root, "it holds no rows"));
        }
        if !labels.is_empty() {
            labels.resize(len, None);
        }
        let cache = WindowCache {
            windows: VecDeque::new(),
            budget: memory_budget / CACHE_SHARE,
        };
        Ok(Self {
            files,
            groups,
            len,
            labels,
            cache: Mutex::new(cache),
        })
    }

    fn group_of(&self, row: usize) -> &Group {
        &self.groups[self.groups.partition_point(|group| group.start <= row) - 1]
    }

    fn load(&self, group: &Group, row: usize) -> Result<Window, DataError> {
        let file = &self.files[group.file];
        let next = group
            .windows
            .partition_point(|&start| start <= row - group.start);
        let skip = group.windows[next - 1];
        let rows = group.windows.get(next).unwrap_or(&group.rows) - skip;
        let (values, bytes) = guarded(&file.path, || {
            read_column::<ByteArrayType>(
                &file.path,
                &file.metadata,
                group.index,
                file.image,
                skip,
                rows,
            )
            .map(|values| {
                let bytes = values
                    .iter()
                    .flatten()
                    .map(|value: &ByteArray| value.len() as u64)
                    .sum();
                (values, bytes)
            })
        })?;
        Ok(Window {
            start: group.start + skip,
            bytes,
            values,
        })
    }
}

/// Runs a part of the Parquet reader, which may fail or panic on a corrupt file.
fn guarded<T>(path: &Path, work: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, DataError> {
    let problem = match quietly(work) {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(error)) => error.to_string(),
        Err(panic) => panic,
    };
    Err(DataError::format(
        path,
        format!("the Parquet file is damaged ({problem}); fetch it again"),
    ))
}

fn pages(
    path: &Path,
    metadata: &ParquetMetaData,
    group: usize,
    column: usize,
) -> Result<SerializedPageReader<File>, ParquetError> {
    // Opened anew each time: readers share the position of a cloned file, and a data set may have more shards than
    // a process may have open files.
    let file = Arc::new(open_regular(path)?);
    let group = metadata.row_group(group);
    SerializedPageReader::new(file, group.column(column), group.num_rows() as usize, None)
}

/// Where windows of `at_least` rows start, each at a page. Reads the headers of the pages only.
fn windows(
    path: &Path,
    metadata: &ParquetMetaData,
    group: usize,
    column: usize,
    at_least: usize,
) -> Result<Vec<usize>, ParquetError> {
    let mut pages = pages(path, metadata, group, column)?;
    let (mut starts, mut row) = (vec![0], 0usize);
    while let Some(page) = pages.peek_next_page()? {
        pages.skip_next_page()?;
        if page.is_dict {
            continue;
        }
        if row - starts[starts.len() - 1] >= at_least {
            starts.push(row);
        }
        let rows = page.num_rows.or(page.num_levels);
        row += rows.ok_or_else(|| {
            ParquetError::General("a page does not say how many rows it has".into())
        })?;
    }
    let expected = metadata.row_group(group).num_rows();
    if row as i64 != expected {
        return Err(ParquetError::General(format!(
            "the pages of row group {group} hold {row} rows, not {expected}"
        )));
    }
    Ok(starts)
}

/// Reads `rows` values of a leaf column after skipping `skip`; pages before are not unpacked.
fn read_column<T: DataType>(
    path: &Path,
    metadata: &ParquetMetaData,
    group: usize,
    column: usize,
    skip: usize,
    rows: usize,
) -> Result<Vec<Option<T::T>>, ParquetError> {
    let short = || ParquetError::EOF(format!("row group {group} ends before its row count"));
    let descriptor = metadata.row_group(group).column(column).column_descr_ptr();
    let nullable = descriptor.max_def_level();
    let reader = get_column_reader(descriptor, Box::new(pages(path, metadata, group, column)?));
    let mut reader: ColumnReaderImpl<T> = get_typed_column_reader(reader);
    if reader.skip_records(skip)? != skip {
        return Err(short());
    }
    let (mut levels, mut values) = (Vec::new(), Vec::new());
    let (records, ..) = reader.read_records(rows, Some(&mut levels), None, &mut values)?;
    if records != rows {
        return Err(short());
    }
    if nullable == 0 {
        return Ok(values.into_iter().map(Some).collect());
    }
    let mut values = values.into_iter();
    levels
        .into_iter()
        .map(|level| {
            if level == nullable {
                values.next().map(Some).ok_or_else(short)
            } else {
                Ok(None)
            }
        })
        .collect()
}

fn read_labels(
    path: &Path,
    metadata: &ParquetMetaData,
    group: usize,
    column: usize,
    rows: usize,
    number: Type,
) -> Result<Vec<Option<i64>>, ParquetError> {
    use parquet::data_type::{Int32Type, Int64Type};
    Ok(match number {
        Type::INT32 => read_column::<Int32Type>(path, metadata, group, column, 0, rows)?
            .into_iter()
            .map(|label| label.map(i64::from))
            .collect(),
        _ => read_column::<Int64Type>(path, metadata, group, column, 0, rows)?,
    })
}

/// The leaf with the images: `bytes` inside a struct, else a binary column; one called `image` or `img` goes first.
fn image_column(path: &Path, columns: &[Arc<ColumnDescriptor>]) -> Result<usize, DataError> {
    let is_text = |column: &ColumnDescriptor| {
        column.converted_type() == ConvertedType::UTF8
            || matches!(
                column.logical_type_ref(),
                Some(LogicalType::String | LogicalType::Json)
            )
    };
    let is_binary = |column: &ColumnDescriptor| {
        column.physical_type() == Type::BYTE_ARRAY
            && column.max_rep_level() == 0
            && !is_text(column)
    };
    let parts = |index: usize| columns[index].path().parts();
    let in_struct = |&index: &usize| parts(index).len() == 2 && parts(index)[1] == "bytes";
    let at_top = |&index: &usize| parts(index).len() == 1;
    let binary: Vec<usize> = (0..columns.len())
        .filter(|&index| is_binary(&columns[index]))
        .collect();
    let mut candidates: Vec<usize> = binary.iter().copied().filter(in_struct).collect();
    if candidates.is_empty() {
        candidates = binary.into_iter().filter(at_top).collect();
    }
    let names = |indices: &[usize]| {
        indices
            .iter()
            .map(|&index| columns[index].path().string())
            .collect::<Vec<_>>()
            .join(", ")
    };
    let preferred = ["image", "img"].iter().find_map(|wanted| {
        candidates
            .iter()
            .copied()
            .find(|&index| parts(index)[0] == *wanted)
    });
    match (preferred, candidates.as_slice()) {
        (Some(index), _) | (None, &[index]) => Ok(index),
        (None, []) => {
            let all: Vec<usize> = (0..columns.len()).collect();
            Err(DataError::format(
                path,
                format!(
                    "it has no image column (a struct with `bytes`, or binary); its columns are {}",
                    names(&all)
                ),
            ))
        }
        (None, several) => Err(DataError::format(
            path,
            format!(
                "several columns may hold images ({}); call the right one `image`",
                names(several)
            ),
        )),
    }
}

fn label_column(columns: &[Arc<ColumnDescriptor>]) -> Option<usize> {
    ["label", "labels"].iter().find_map(|wanted| {
        columns.iter().position(|column| {
            column.path().parts() == [*wanted]
                && column.max_rep_level() == 0
                && matches!(column.physical_type(), Type::INT32 | Type::INT64)
        })
    })
}

impl WindowCache {
    fn get(&mut self, row: usize) -> Option<Option<ByteArray>> {
        let holds =
            |window: &Window| (window.start..window.start + window.values.len()).contains(&row);
        let place = self.windows.iter().position(holds)?;
        if place > 0 {
            let window = self.windows.remove(place)?;
            self.windows.push_front(window);
        }
        let window = self.windows.front()?;
        Some(window.values[row - window.start].clone())
    }

    /// Drops the windows that were not used for longest until `bytes` more fit, or none is left. Called before a window
    /// is read, so that a window larger than the budget is at least the only one.
    fn make_room(&mut self, bytes: u64) {
        let mut total: u64 = self.windows.iter().map(|window| window.bytes).sum();
        while total.saturating_add(bytes) > self.budget
            && let Some(last) = self.windows.pop_back()
        {
            total -= last.bytes;
        }
    }
}

impl Source for ParquetImages {
    fn kind(&self) -> &'static str {
        "Parquet"
    }

    fn form(&self) -> Form {
        Form::Encoded
    }

    fn len(&self) -> usize {
        self.len
    }

    fn name(&self, row: usize) -> String {
        format!("row {row}")
    }

    fn full_name(&self, row: usize) -> String {
        let path = &self.files[self.group_of(row).file].path;
        format!("{}, row {row}", path.display())
    }

    fn label(&self, row: usize) -> Option<i64> {
        self.labels.get(row).copied().flatten()
    }

    fn texts(&self, column: &str) -> Result<Option<Vec<Option<String>>>, DataError> {
        let mut texts = Vec::with_capacity(self.len);
        for group in &self.groups {
            let file = &self.files[group.file];
            let columns = file.metadata.file_metadata().schema_descr();
            let place = columns.columns().iter().position(|leaf| {
                leaf.path().parts() == [column]
                    && leaf.max_rep_level() == 0
                    && leaf.physical_type() == Type::BYTE_ARRAY
            });
            let Some(place) = place else {
                return Ok(None);
            };
            let values = guarded(&file.path, || {
                read_column::<ByteArrayType>(
                    &file.path,
                    &file.metadata,
                    group.index,
                    place,
                    0,
                    group.rows,
                )
            })?;
            for value in values {
                let text = value.map(|value: ByteArray| String::from_utf8(value.data().to_vec()));
                let text = text.transpose().map_err(|_| {
                    DataError::format(
                        &file.path,
                        format!("the column {column} is not text (UTF-8)"),
                    )
                })?;
                texts.push(text);
            }
        }
        Ok(Some(texts))
    }

    fn in_windows(&self) -> bool {
        true
    }

    fn stored(&self, row: usize) -> Result<Cow<'_, [u8]>, DataError> {
        let group = self.group_of(row);
        // The lock is held while a window is read, so that threads at the same window read it once. Decoding, which
        // takes longer, happens outside.
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let value = match cache.get(row) {
            Some(value) => value,
            None => {
                cache.make_room(group.window_bytes(row));
                let window = self.load(group, row)?;
                let value = window.values[row - window.start].clone();
                cache.windows.push_front(window);
                value
            }
        };
        drop(cache);
        match value {
            None => Err(DataError::image(
                self.full_name(row),
                "the row has no image bytes; the file must contain its images, not paths to them",
            )),
            Some(value) if value.len() as u64 > MAX_ENCODED => Err(DataError::image(
                self.full_name(row),
                format!(
                    "{} bytes are more than the {MAX_ENCODED} that one image may have",
                    value.len()
                ),
            )),
            Some(value) => Ok(Cow::Owned(value.data().to_vec())),
        }
    }
}
