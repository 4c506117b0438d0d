//! The rows of Parquet files with an image column: a struct of `bytes` and `path`, or plain binary.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use parquet::basic::{ConvertedType, LogicalType, Type};
use parquet::column::page::PageReader;
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::serialized_reader::SerializedPageReader;
use parquet::schema::types::ColumnDescriptor;
use retrack_checkpoint::files::open_regular;

use super::columns::{
    Labels, holds, label_column, label_names, read_column, read_labels, read_texts, text_column,
};
use super::texts;
use crate::error::DataError;
use crate::foreign::typed;
use crate::image::MAX_ENCODED;
use crate::quiet::quietly;
use crate::source::{Form, Source};

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
    labels: Labels,
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
    pub(crate) fn open(
        root: &Path,
        paths: &[PathBuf],
        memory_budget: u64,
    ) -> Result<Self, DataError> {
        let (mut files, mut groups, mut labels) = (Vec::new(), Vec::new(), Vec::new());
        let (mut names, mut note) = (Vec::new(), None);
        let mut len = 0;
        for path in paths {
            let file = open_regular(path).map_err(|error| DataError::io(path, error))?;
            let reader = guarded(path, || SerializedFileReader::new(file))?;
            let metadata = reader.metadata();
            let schema = metadata.file_metadata().schema_descr();
            let image = image_column(path, metadata)?;
            let (label, of_label) = label_column(metadata, schema);
            note = note.or(of_label);
            if let Some(label) = label.filter(|_| names.is_empty()) {
                names = label_names(metadata, &schema.columns()[label]);
            }
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
                    if group.columns().len() <= label {
                        return Err(problem("a column is missing"));
                    }
                    labels.extend(guarded(path, || {
                        read_labels(path, metadata, index, label, rows)
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
        let mut labels = Labels::new(root, labels, names)?;
        labels.note = labels.note.or(note);
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

/// Rows that the footer of a Parquet file counts.
pub(crate) fn rows(path: &Path) -> Result<usize, DataError> {
    let metadata = footer(path)?;
    Ok(usize::try_from(metadata.file_metadata().num_rows()).unwrap_or(0))
}

/// Whether a Parquet file can be read and no column of it may hold images.
pub(crate) fn has_no_images(path: &Path) -> bool {
    footer(path).is_ok_and(|metadata| {
        image_columns(metadata.file_metadata().schema_descr().columns()).is_empty()
    })
}

pub(super) fn footer(path: &Path) -> Result<ParquetMetaData, DataError> {
    let file = open_regular(path).map_err(|error| DataError::io(path, error))?;
    guarded(path, || {
        Ok(SerializedFileReader::new(file)?.metadata().clone())
    })
}

/// The first bytes of a file.
fn start(path: &Path) -> Vec<u8> {
    let mut start = Vec::new();
    if let Ok(file) = open_regular(path) {
        let _ = file.take(64).read_to_end(&mut start);
    }
    start
}

/// Runs a part of the Parquet reader, which may fail or panic on a corrupt file.
pub(super) fn guarded<T>(
    path: &Path,
    work: impl FnOnce() -> Result<T, ParquetError>,
) -> Result<T, DataError> {
    let problem = match quietly(work) {
        Ok(Ok(value)) => return Ok(value),
        // A codec or an encoding that is not built in is no damage.
        Ok(Err(ParquetError::NYI(what))) => {
            return Err(DataError::Unsupported {
                path: path.to_owned(),
                what: format!(
                    "this Parquet file is packed in a way that is not read ({what}); write it again: python -c \"import \
                     pyarrow.parquet as p; p.write_table(p.read_table('{0}'), 'images.parquet')\"",
                    typed(path)
                ),
            });
        }
        Ok(Err(error)) => error.to_string(),
        Err(panic) => panic,
    };
    let start = start(path);
    if start.starts_with(b"version https://git-lfs") {
        let problem = "this is a Git LFS pointer, not the file; run `git lfs pull`";
        return Err(DataError::format(path, problem));
    }
    if start.starts_with(b"PARE") {
        return Err(DataError::Unsupported {
            path: path.to_owned(),
            what: "this Parquet file is encrypted, which is not read; write it without encryption"
                .into(),
        });
    }
    Err(DataError::format(
        path,
        format!("the Parquet file is damaged ({problem}); fetch it again"),
    ))
}

pub(super) fn pages(
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

/// A column of texts.
pub(super) fn is_text(column: &ColumnDescriptor) -> bool {
    column.physical_type() == Type::BYTE_ARRAY
        && (column.converted_type() == ConvertedType::UTF8
            || matches!(
                column.logical_type_ref(),
                Some(LogicalType::String | LogicalType::Json)
            ))
}

/// The columns that may hold images: structs with `bytes`, else binary ones.
fn image_columns(columns: &[Arc<ColumnDescriptor>]) -> Vec<usize> {
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
    let in_structs: Vec<usize> = binary.iter().copied().filter(in_struct).collect();
    match in_structs.is_empty() {
        true => binary.into_iter().filter(at_top).collect(),
        false => in_structs,
    }
}

/// The leaf with the images: `bytes` inside a struct, else a binary column; one called `image` or `img` goes first.
fn image_column(path: &Path, metadata: &ParquetMetaData) -> Result<usize, DataError> {
    let columns = metadata.file_metadata().schema_descr().columns();
    let parts = |index: usize| columns[index].path().parts();
    let candidates = image_columns(columns);
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
    let of_texts = [
        "image",
        "img",
        "image_path",
        "file_name",
        "path",
        "url",
        "image_url",
    ]
    .into_iter()
    .find_map(|wanted| {
        columns.iter().position(|column| {
            let parts = column.path().parts();
            is_text(column)
                && parts[0].eq_ignore_ascii_case(wanted)
                && (parts.len() == 1 || parts[1..] == ["path"])
        })
    });
    if let Some(column) = of_texts.filter(|_| candidates.is_empty()) {
        let problem = texts::problem(path, metadata, column)?;
        return Err(DataError::format(path, problem));
    }
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
        self.labels.of_row.get(row).copied().flatten()
    }

    fn label_names(&self) -> &[String] {
        &self.labels.names
    }

    fn label_note(&self) -> Option<&str> {
        self.labels.note.as_deref()
    }

    fn texts(&self, column: &str) -> Result<Option<Vec<Vec<String>>>, DataError> {
        let mut texts = Vec::with_capacity(self.len);
        for group in &self.groups {
            let file = &self.files[group.file];
            let schema = file.metadata.file_metadata().schema_descr();
            let other = |what: &str| {
                DataError::format(
                    &file.path,
                    format!("its column `{column}` holds {what}, not texts or lists of texts"),
                )
            };
            let fields = schema.root_schema().get_fields();
            if !fields.iter().any(|field| field.name() == column) {
                return Ok(None);
            }
            let Some(place) = text_column(schema, column) else {
                return Err(other(&holds(schema, column)));
            };
            let read = guarded(&file.path, || {
                read_texts(&file.path, &file.metadata, group.index, place, group.rows)
            })?;
            texts.extend(read.ok_or_else(|| other("binary values that are no text (UTF-8)"))?);
        }
        Ok(Some(texts))
    }

    fn columns(&self) -> Vec<String> {
        let columns = self.files[0].metadata.file_metadata().schema_descr();
        let names = columns.root_schema().get_fields().iter();
        names.map(|field| field.name().to_owned()).collect()
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
                "the row has no image bytes; the file must contain its images, not paths to them: open the folder of the \
                 images instead, or write the table again with their bytes in it",
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
