//! Columns of a Parquet file that are read at once: labels and texts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use parquet::basic::{ConvertedType, LogicalType, Type};
use parquet::column::reader::{ColumnReaderImpl, get_column_reader, get_typed_column_reader};
use parquet::data_type::{
    BoolType, ByteArray, ByteArrayType, DataType, DoubleType, FloatType, Int32Type, Int64Type,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use parquet::schema::types::{ColumnDescriptor, SchemaDescriptor, Type as Field};
use serde_json::Value;

use super::rows::pages;
use crate::error::DataError;

/// What a row group says of a row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Label {
    Number(i64),
    Text(String),
    /// What is there instead of a label that can be read.
    Other(String),
}

/// Labels of all rows as numbers, with what each number is called where that is known.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Labels {
    /// Empty where there are none.
    pub of_row: Vec<Option<i64>>,
    /// What label 0, 1, ... is called, or empty.
    pub names: Vec<String>,
    /// Where they are from or why there are none, where that may surprise.
    pub note: Option<String>,
}

impl Labels {
    /// Labels that are texts are numbered in the order of the texts, as class folders are, unless all of them are whole
    /// numbers as these are written ("7" and "07" are two labels). `names`: what the numbers stand for, as the file says.
    pub(crate) fn new(
        path: &Path,
        labels: Vec<Option<Label>>,
        names: Vec<String>,
    ) -> Result<Self, DataError> {
        let known = || labels.iter().flatten();
        let texts: BTreeSet<&str> = known()
            .filter_map(|label| match label {
                Label::Text(text) => Some(text.as_str()),
                Label::Number(_) | Label::Other(_) => None,
            })
            .collect();
        let other = known().find_map(|label| match label {
            Label::Other(what) => Some(what.clone()),
            _ => None,
        });
        if other.is_some() {
            return Ok(Self {
                note: other,
                ..Self::default()
            });
        }
        if texts.is_empty() {
            let of_row = labels.into_iter().map(|label| match label? {
                Label::Number(number) => Some(number),
                Label::Text(_) | Label::Other(_) => None,
            });
            return Ok(Self {
                of_row: of_row.collect(),
                names,
                note: None,
            });
        }
        if known().any(|label| matches!(label, Label::Number(_))) {
            let problem = "its labels are texts in some of its files and numbers in others";
            return Err(DataError::format(path, problem));
        }
        let number = |text: &&str| {
            let number = text.parse::<i64>().ok();
            number.filter(|number| number.to_string() == **text)
        };
        let whole: Option<Vec<i64>> = texts.iter().map(number).collect();
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
            note: None,
        })
    }
}

/// Names of columns of labels, the first one that can be read going first. `fine_label` is CIFAR-100's.
const LABELS: [&str; 3] = ["label", "labels", "fine_label"];

/// The leaf with the labels: one of [`LABELS`], else the only one that the file calls a class label. The text says where
/// the labels are from, or why there are none, where that may surprise.
pub(crate) fn label_column(
    metadata: &ParquetMetaData,
    schema: &SchemaDescriptor,
) -> (Option<usize>, Option<String>) {
    let columns = schema.columns();
    let place = |name: &str| {
        columns.iter().position(|column| {
            column.path().parts() == [name]
                && column.max_rep_level() == 0
                && !is_decimal(column)
                && !matches!(
                    column.physical_type(),
                    Type::INT96 | Type::FIXED_LEN_BYTE_ARRAY
                )
        })
    };
    let classes: Vec<String> = features(metadata)
        .and_then(|features| {
            let classes = features.as_object()?.iter();
            let classes = classes.filter(|(_, feature)| class_names(feature).is_some());
            Some(classes.map(|(name, _)| name.clone()).collect())
        })
        .unwrap_or_default();
    let has = |name: &str| {
        columns
            .iter()
            .any(|column| column.path().parts()[0] == name)
    };
    if let Some((name, found)) = LABELS
        .into_iter()
        .find_map(|name| Some((name, place(name)?)))
    {
        let coarse = if has("coarse_label") {
            ", and not of `coarse_label`"
        } else {
            ""
        };
        let note = format!("its labels are those of its column `{name}`{coarse}");
        return (Some(found), (name == "fine_label").then_some(note));
    }
    let readable: Vec<usize> = classes.iter().filter_map(|name| place(name)).collect();
    let unread = LABELS
        .into_iter()
        .chain(["coarse_label"])
        .find(|name| has(name));
    match (readable.as_slice(), unread) {
        (&[one], _) => (Some(one), None),
        ([], Some(name)) | ([_, _, ..], Some(name)) => {
            let note = match place(name) {
                Some(_) => format!("its column `{name}` is not read as labels; call it `label`"),
                None => unread_labels(name, &holds(schema, name)),
            };
            (None, Some(note))
        }
        ([_, _, ..], None) => {
            let note = format!(
                "it has several columns of classes, {}; call the one that is meant `label`",
                classes.join(", ")
            );
            (None, Some(note))
        }
        ([], None) => (None, None),
    }
}

fn unread_labels(name: &str, holds: &str) -> String {
    format!(
        "its column `{name}` holds {holds}, which are not read as labels; whole numbers or texts are"
    )
}

fn is_decimal(column: &ColumnDescriptor) -> bool {
    column.converted_type() == ConvertedType::DECIMAL
        || matches!(column.logical_type_ref(), Some(LogicalType::Decimal { .. }))
}

/// What a column of a file holds, for people.
pub(crate) fn holds(schema: &SchemaDescriptor, name: &str) -> String {
    let mut fields = schema.root_schema().get_fields().iter();
    let Some(field) = fields.find(|field| field.name() == name) else {
        return "nothing".into();
    };
    let info = field.get_basic_info();
    let (converted, logical) = (info.converted_type(), info.logical_type_ref());
    if field.is_group() {
        return match converted {
            ConvertedType::LIST => "lists",
            ConvertedType::MAP | ConvertedType::MAP_KEY_VALUE => "maps",
            _ => "structs",
        }
        .into();
    }
    match (field.get_physical_type(), converted, logical) {
        (_, ConvertedType::UTF8 | ConvertedType::ENUM | ConvertedType::JSON, _)
        | (_, _, Some(LogicalType::String)) => "texts",
        (_, ConvertedType::DECIMAL, _) => "decimal numbers",
        (Type::BOOLEAN, ..) => "booleans",
        (Type::INT32 | Type::INT64, ..) => "whole numbers",
        (Type::INT96, ..) => "times",
        (Type::FLOAT, ..) => "numbers of type float",
        (Type::DOUBLE, ..) => "numbers of type double",
        (Type::BYTE_ARRAY, ..) => "binary values",
        (Type::FIXED_LEN_BYTE_ARRAY, ..) => "binary values of a fixed length",
    }
    .into()
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

/// The labels of a row group. Floating-point numbers are labels where they are whole, as pandas writes numbers beside
/// missing ones.
pub(crate) fn read_labels(
    path: &Path,
    metadata: &ParquetMetaData,
    group: usize,
    column: usize,
    rows: usize,
) -> Result<Vec<Option<Label>>, ParquetError> {
    let descriptor = metadata.row_group(group).column(column).column_descr();
    let name = descriptor.name();
    let unsigned = is_unsigned(descriptor);
    let number = |label: Option<i64>| label.map(Label::Number);
    let other = |what: String| Label::Other(unread_labels(name, &what));
    let whole = |label: f64| {
        // NaN stands for a missing label.
        (!label.is_nan()).then(|| {
            // Above 2^53 not every whole number is one.
            if label.fract() == 0.0 && label.abs() <= 9_007_199_254_740_992.0 {
                Label::Number(label as i64)
            } else {
                other(format!("numbers such as {label}"))
            }
        })
    };
    Ok(match descriptor.physical_type() {
        Type::INT32 => read_column::<Int32Type>(path, metadata, group, column, 0, rows)?
            .into_iter()
            .map(|label| {
                number(label.map(|label| match unsigned {
                    true => i64::from(label as u32),
                    false => i64::from(label),
                }))
            })
            .collect(),
        Type::INT64 => read_column::<Int64Type>(path, metadata, group, column, 0, rows)?
            .into_iter()
            .map(|label| {
                label.map(|label| match unsigned && label < 0 {
                    true => other(format!("numbers such as {}", label as u64)),
                    false => Label::Number(label),
                })
            })
            .collect(),
        Type::BOOLEAN => read_column::<BoolType>(path, metadata, group, column, 0, rows)?
            .into_iter()
            .map(|label| number(label.map(i64::from)))
            .collect(),
        Type::FLOAT => read_column::<FloatType>(path, metadata, group, column, 0, rows)?
            .into_iter()
            .map(|label| whole(f64::from(label?)))
            .collect(),
        Type::DOUBLE => read_column::<DoubleType>(path, metadata, group, column, 0, rows)?
            .into_iter()
            .map(|label| whole(label?))
            .collect(),
        _ => read_column::<ByteArrayType>(path, metadata, group, column, 0, rows)?
            .into_iter()
            .map(|label| {
                Some(match text(label?) {
                    Some(text) => Label::Text(text),
                    None => other("binary values that are no text (UTF-8)".into()),
                })
            })
            .collect(),
    })
}

fn is_unsigned(column: &ColumnDescriptor) -> bool {
    use ConvertedType::{UINT_8, UINT_16, UINT_32, UINT_64};
    matches!(
        column.converted_type(),
        UINT_8 | UINT_16 | UINT_32 | UINT_64
    ) || matches!(
        column.logical_type_ref(),
        Some(LogicalType::Integer(integer)) if !integer.is_signed
    )
}

fn text(value: ByteArray) -> Option<String> {
    String::from_utf8(value.data().to_vec()).ok()
}

/// The leaf with the texts of a column, alone or several in a list. The keys of a map are none.
pub(crate) fn text_column(schema: &SchemaDescriptor, name: &str) -> Option<usize> {
    let mut fields = schema.root_schema().get_fields().iter();
    let is_list = |field: &Field| {
        let info = field.get_basic_info();
        info.converted_type() == ConvertedType::LIST
            || matches!(info.logical_type_ref(), Some(LogicalType::List))
    };
    let is_list = fields.any(|field| field.name() == name && field.is_group() && is_list(field));
    schema.columns().iter().position(|column| {
        let parts = column.path().parts();
        let in_list = is_list && column.max_rep_level() == 1 && parts.len() == 3;
        parts[0] == name
            && column.physical_type() == Type::BYTE_ARRAY
            && !is_decimal(column)
            && ((parts.len() == 1 && column.max_rep_level() == 0) || in_list)
    })
}

/// Rows of texts that are read at once.
const BATCH: usize = 4096;

/// The texts of each row of a row group: none of a null. `None`: what is there is no text.
pub(crate) fn read_texts(
    path: &Path,
    metadata: &ParquetMetaData,
    group: usize,
    column: usize,
    rows: usize,
) -> Result<Option<Vec<Vec<String>>>, ParquetError> {
    let mut reader = reader::<ByteArrayType>(path, metadata, group, column)?;
    let descriptor = metadata.row_group(group).column(column).column_descr();
    let (present, in_list) = (descriptor.max_def_level(), descriptor.max_rep_level() > 0);
    let mut texts: Vec<Vec<String>> = Vec::new();
    let mut left = rows;
    // As many at once as may be held whatever the row count promises.
    while left > 0 {
        let (mut definitions, mut repetitions, mut values) = (Vec::new(), Vec::new(), Vec::new());
        let (records, ..) = reader.read_records(
            left.min(BATCH),
            Some(&mut definitions),
            Some(&mut repetitions),
            &mut values,
        )?;
        if records == 0 {
            return Err(short(group));
        }
        left -= records;
        let mut values = values.into_iter();
        if present == 0 {
            definitions = vec![0; records];
        }
        for (level, &definition) in definitions.iter().enumerate() {
            if !in_list || repetitions.get(level) == Some(&0) {
                texts.push(Vec::new());
            }
            if definition == present {
                let value = values.next().ok_or_else(|| short(group))?;
                let Some(text) = text(value) else {
                    return Ok(None);
                };
                texts.last_mut().ok_or_else(|| short(group))?.push(text);
            }
        }
    }
    if texts.len() != rows {
        return Err(short(group));
    }
    Ok(Some(texts))
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
        let two = of(&["7", "07"]);
        assert_eq!(two.of_row, [1, 0].map(Some));
        assert_eq!(two.names, ["07", "7"]);
        let mixed = vec![Some(Label::Number(1)), None, Some(Label::Text("a".into()))];
        let error = Labels::new(Path::new("x"), mixed, Vec::new()).unwrap_err();
        assert!(error.to_string().contains("texts in some"), "{error}");
    }
}
