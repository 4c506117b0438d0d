//! A Parquet file as a table of texts, such as `metadata.parquet` in a folder of images.

use std::path::Path;

use parquet::file::metadata::ParquetMetaData;
use retrack_checkpoint::words::listed;
use serde_json::{Map, Value};

use super::columns::{holds, read_texts, text_column};
use super::rows::{footer, guarded};
use crate::error::DataError;
use crate::sources::published::LARGEST_JSON;

/// Rows of such a table; a footer may promise any number of them.
const MOST_ROWS: i64 = 4_000_000;

/// Each row as an object of those of the `wanted` columns that hold texts or lists of texts: a text where there is one, null where
/// there is none.
///
/// # Errors
/// A file that cannot be read or holds more than a file of captions may; none of the columns in it.
pub(crate) fn text_rows(path: &Path, wanted: &[&str]) -> Result<Vec<Value>, DataError> {
    let metadata = footer(path)?;
    let schema = metadata.file_metadata().schema_descr();
    let columns: Vec<(&str, usize)> = wanted
        .iter()
        .filter_map(|name| Some((*name, text_column(schema, name)?)))
        .collect();
    if columns.is_empty() {
        let fields = schema.root_schema().get_fields().iter();
        let there =
            fields.map(|field| format!("`{}` ({})", field.name(), holds(schema, field.name())));
        let problem = format!(
            "it has no column of texts that is called {}; it has {}",
            listed(wanted.iter().copied()),
            listed(there)
        );
        return Err(DataError::format(path, problem));
    }
    check_size(path, &metadata, &columns)?;
    let mut rows: Vec<Value> = Vec::new();
    for (index, group) in metadata.row_groups().iter().enumerate() {
        let count = usize::try_from(group.num_rows()).unwrap_or(0);
        let mut objects: Vec<Map<String, Value>> = Vec::new();
        for &(name, column) in &columns {
            let read = guarded(path, || read_texts(path, &metadata, index, column, count))?;
            let Some(texts) = read else {
                let problem =
                    format!("its column `{name}` holds binary values that are no text (UTF-8)");
                return Err(DataError::format(path, problem));
            };
            objects.resize_with(texts.len(), Map::new);
            for (object, mut texts) in objects.iter_mut().zip(texts) {
                let value = match texts.len() {
                    0 => Value::Null,
                    1 => Value::from(texts.remove(0)),
                    _ => Value::from(texts),
                };
                object.insert(name.to_owned(), value);
            }
        }
        rows.extend(objects.into_iter().map(Value::Object));
    }
    if rows.is_empty() {
        return Err(DataError::format(path, "it holds no rows"));
    }
    Ok(rows)
}

fn check_size(
    path: &Path,
    metadata: &ParquetMetaData,
    columns: &[(&str, usize)],
) -> Result<(), DataError> {
    let (mut rows, mut bytes) = (0i64, 0i64);
    for (index, group) in metadata.row_groups().iter().enumerate() {
        let problem = |what: &str| DataError::format(path, format!("row group {index}: {what}"));
        if group.num_rows() < 0 {
            return Err(problem("its row count is negative"));
        }
        rows = rows.saturating_add(group.num_rows());
        for &(_, column) in columns {
            let column = group.columns().get(column);
            let column = column.ok_or_else(|| problem("a column is missing"))?;
            let flat = column.column_descr().max_rep_level() == 0;
            if flat && column.num_values() != group.num_rows() {
                return Err(problem(
                    "a column has another number of values than the group has rows",
                ));
            }
            bytes = bytes.saturating_add(column.uncompressed_size().max(0));
        }
    }
    if rows > MOST_ROWS || bytes as u64 > LARGEST_JSON {
        let problem = format!(
            "its texts are {rows} rows of {bytes} bytes; such a file may have {MOST_ROWS} and {LARGEST_JSON}"
        );
        return Err(DataError::format(path, problem));
    }
    Ok(())
}
