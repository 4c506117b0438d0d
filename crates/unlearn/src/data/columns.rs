//! Columns of a Parquet file that are read at once: labels and texts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use parquet::basic::Type;
use parquet::column::reader::{ColumnReaderImpl, get_column_reader, get_typed_column_reader};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use parquet::schema::types::ColumnDescriptor;
use serde_json::Value;

use super::error::DataError;
use super::parquet::{is_text, pages};

/// What a row group says of a row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Label {
    Number(i64),
    Text(String),
}

/// Labels of all rows as numbers, with what each number is called where that is known.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Labels {
    /// Empty where there are none.
    pub of_row: Vec<Option<i64>>,
    /// What label 0, 1, ... is called, or empty.
    pub names: Vec<String>,
}

impl Labels {
    /// Labels that are texts are numbered in the order of the texts, as class folders are, unless all of them are whole
    /// numbers. `names`: what the numbers stand for, as the file says.
    pub fn new(
        path: &Path,
        labels: Vec<Option<Label>>,
        names: Vec<String>,
    ) -> Result<Self, DataError> {
        let known = || labels.iter().flatten();
        let texts: BTreeSet<&str> = known()
            .filter_map(|label| match label {
                Label::Text(text) => Some(text.as_str()),
                Label::Number(_) => None,
            })
            .collect();
        if texts.is_empty() {
            let of_row = labels.into_iter().map(|label| match label? {
                Label::Number(number) => Some(number),
                Label::Text(_) => None,
            });
            return Ok(Self {
                of_row: of_row.collect(),
                names,
            });
        }
        if known().any(|label| matches!(label, Label::Number(_))) {
            let problem = "its labels are texts in some of its files and numbers in others";
            return Err(DataError::format(path, problem));
        }
        let whole: Option<Vec<i64>> = texts.iter().map(|text| text.parse().ok()).collect();
        let numbers: BTreeMap<&str, i64> = match &whole {
            Some(numbers) => texts.iter().copied().zip(numbers.iter().copied()).collect(),
            None => texts.iter().copied().zip(0..).collect(),
        };
        let of_row = labels.iter().map(|label| match label {
            Some(Label::Text(text)) => numbers.get(text.as_str()).copied(),
            _ => None,
        });
        Ok(Self {
            of_row: of_row.collect(),
            names: match whole {
                Some(_) => Vec::new(),
                None => texts.iter().map(|text| text.to_string()).collect(),
            },
        })
    }
}

/// The leaf with the labels: `label` or `labels`, else the only one that the file calls a class label.
pub(crate) fn label_column(
    metadata: &ParquetMetaData,
    columns: &[Arc<ColumnDescriptor>],
) -> Option<usize> {
    let place = |name: &str| {
        columns.iter().position(|column| {
            column.path().parts() == [name]
                && column.max_rep_level() == 0
                && (matches!(
                    column.physical_type(),
                    Type::INT32 | Type::INT64 | Type::BOOLEAN
                ) || is_text(column))
        })
    };
    ["label", "labels"].into_iter().find_map(place).or_else(|| {
        let features = features(metadata)?;
        let mut classes = features.as_object()?.iter().filter_map(|(name, feature)| {
            class_names(feature)?;
            place(name)
        });
        classes.next().filter(|_| classes.next().is_none())
    })
}

/// What Hugging Face's metadata calls the classes of a column of labels.
pub(crate) fn label_names(metadata: &ParquetMetaData, column: &ColumnDescriptor) -> Vec<String> {
    let name = column.name();
    features(metadata)
        .and_then(|features| class_names(features.get(name)?))
        .unwrap_or_default()
}

fn features(metadata: &ParquetMetaData) -> Option<Value> {
    let entries = metadata.file_metadata().key_value_metadata()?;
    let entry = entries.iter().find(|entry| entry.key == "huggingface")?;
    let json: Value = serde_json::from_str(entry.value.as_deref()?).ok()?;
    Some(json.get("info")?.get("features")?.clone())
}

fn class_names(feature: &Value) -> Option<Vec<String>> {
    let is_class = feature.get("_type")?.as_str()? == "ClassLabel";
    let names = feature.get("names")?.as_array()?;
    let names = names.iter().map(|name| name.as_str().map(str::to_owned));
    names.collect::<Option<Vec<_>>>().filter(|_| is_class)
}

/// The labels of a row group.
pub(crate) fn read_labels(
    path: &Path,
    metadata: &ParquetMetaData,
    group: usize,
    column: usize,
    rows: usize,
) -> Result<Vec<Option<Label>>, ParquetError> {
    let descriptor = metadata.row_group(group).column(column).column_descr();
    let number = |label: Option<i64>| label.map(Label::Number);
    Ok(match descriptor.physical_type() {
        Type::INT32 => read_column::<Int32Type>(path, metadata, group, column, 0, rows)?
            .into_iter()
            .map(|label| number(label.map(i64::from)))
            .collect(),
        Type::INT64 => read_column::<Int64Type>(path, metadata, group, column, 0, rows)?
            .into_iter()
            .map(number)
            .collect(),
        Type::BOOLEAN => read_column::<BoolType>(path, metadata, group, column, 0, rows)?
            .into_iter()
            .map(|label| number(label.map(i64::from)))
            .collect(),
        _ => read_column::<ByteArrayType>(path, metadata, group, column, 0, rows)?
            .into_iter()
            .map(|label| {
                label
                    .map(text)
                    .transpose()
                    .map(|text| text.map(Label::Text))
            })
            .collect::<Result<_, _>>()?,
    })
}

fn text(value: ByteArray) -> Result<String, ParquetError> {
    String::from_utf8(value.data().to_vec())
        .map_err(|_| ParquetError::General("a text is not UTF-8".into()))
}

/// The leaf with the texts of a column, alone or several in a list.
pub(crate) fn text_column(columns: &[Arc<ColumnDescriptor>], name: &str) -> Option<usize> {
    columns.iter().position(|column| {
        let parts = column.path().parts();
        let in_list = column.max_rep_level() == 1 && parts.len() == 3;
        parts[0] == name
            && column.physical_type() == Type::BYTE_ARRAY
            && ((parts.len() == 1 && column.max_rep_level() == 0) || in_list)
    })
}

/// The texts of each row of a row group: none of a null.
pub(crate) fn read_texts(
    path: &Path,
    metadata: &ParquetMetaData,
    group: usize,
    column: usize,
    rows: usize,
) -> Result<Vec<Vec<String>>, ParquetError> {
    let mut reader = reader::<ByteArrayType>(path, metadata, group, column)?;
    let descriptor = metadata.row_group(group).column(column).column_descr();
    let (present, in_list) = (descriptor.max_def_level(), descriptor.max_rep_level() > 0);
    let (mut definitions, mut repetitions, mut values) = (Vec::new(), Vec::new(), Vec::new());
    let (records, ..) = reader.read_records(
        rows,
        Some(&mut definitions),
        Some(&mut repetitions),
        &mut values,
    )?;
    if records != rows {
        return Err(short(group));
    }
    let mut values = values.into_iter();
    let mut texts: Vec<Vec<String>> = Vec::with_capacity(rows);
    if present == 0 {
        definitions = vec![0; rows];
    }
    for (level, &definition) in definitions.iter().enumerate() {
        if !in_list || repetitions.get(level) == Some(&0) {
            texts.push(Vec::new());
        }
        if definition == present {
            let value = values.next().ok_or_else(|| short(group))?;
            texts
                .last_mut()
                .ok_or_else(|| short(group))?
                .push(text(value)?);
        }
    }
    if texts.len() != rows {
        return Err(short(group));
    }
    Ok(texts)
}

fn short(group: usize) -> ParquetError {
    ParquetError::EOF(format!("row group {group} ends before its row count"))
}

fn reader<T: DataType>(
    path: &Path,
    metadata: &ParquetMetaData,
    group: usize,
    column: usize,
) -> Result<ColumnReaderImpl<T>, ParquetError> {
    let descriptor = metadata.row_group(group).column(column).column_descr_ptr();
    let pages = Box::new(pages(path, metadata, group, column)?);
    Ok(get_typed_column_reader(get_column_reader(
        descriptor, pages,
    )))
}

/// Reads `rows` values of a leaf column after skipping `skip`; pages before are not unpacked.
pub(crate) fn read_column<T: DataType>(
    path: &Path,
    metadata: &ParquetMetaData,
    group: usize,
    column: usize,
    skip: usize,
    rows: usize,
) -> Result<Vec<Option<T::T>>, ParquetError> {
    let nullable = metadata
        .row_group(group)
        .column(column)
        .column_descr()
        .max_def_level();
    let mut reader = reader::<T>(path, metadata, group, column)?;
    if reader.skip_records(skip)? != skip {
        return Err(short(group));
    }
    let (mut levels, mut values) = (Vec::new(), Vec::new());
    let (records, ..) = reader.read_records(rows, Some(&mut levels), None, &mut values)?;
    if records != rows {
        return Err(short(group));
    }
    if nullable == 0 {
        return Ok(values.into_iter().map(Some).collect());
    }
    let mut values = values.into_iter();
    levels
        .into_iter()
        .map(|level| {
            if level == nullable {
                values.next().map(Some).ok_or_else(|| short(group))
            } else {
                Ok(None)
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(texts: &[&str]) -> Labels {
        let labels = texts.iter().map(|text| Some(Label::Text(text.to_string())));
        Labels::new(Path::new("x.parquet"), labels.collect(), Vec::new()).unwrap()
    }

    #[test]
    fn labels_that_are_texts_are_numbered_by_name_and_whole_numbers_keep_their_value() {
        let animals = of(&["dog", "cat", "dog", "ant"]);
        assert_eq!(animals.of_row, [2, 1, 2, 0].map(Some));
        assert_eq!(animals.names, ["ant", "cat", "dog"]);
        let numbers = of(&["10", "2", "10"]);
        assert_eq!(numbers.of_row, [10, 2, 10].map(Some));
        assert!(numbers.names.is_empty());
        let mixed = vec![Some(Label::Number(1)), None, Some(Label::Text("a".into()))];
        let error = Labels::new(Path::new("x"), mixed, Vec::new()).unwrap_err();
        assert!(error.to_string().contains("texts in some"), "{error}");
    }
}
