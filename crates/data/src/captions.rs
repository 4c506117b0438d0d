//! A caption for each image of a data set: a column of a Parquet file, a file beside the images, or a text file for each.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use retrack_checkpoint::words::counted;
use serde_json::{Map, Value};
use unicode_normalization::UnicodeNormalization;

use super::Dataset;
use super::error::DataError;
use super::own_captions::compose;
use super::sources::parquet::text_rows;
use super::sources::published::read_text;
use super::table;

/// What an entry of a captions file may call its caption, as Hugging Face's image folders and others do.
const TEXT_KEYS: [&str; 6] = ["text", "caption", "prompt", "captions", "texts", "prompts"];
/// What it may call the image.
const NAME_KEYS: [&str; 8] = [
    "file_name",
    "filename",
    "file",
    "image",
    "image_path",
    "img",
    "path",
    "name",
];
/// Endings of text files that hold the caption of the image of the same name.
const BESIDE: [&str; 2] = ["txt", "caption"];

/// The captions of a data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captions {
    /// One for each row: the first, where there are several.
    pub texts: Vec<String>,
    /// Rows that have more than one.
    pub several: usize,
}

/// The caption of every row.
///
/// `from` is a JSON file (an object from file names to captions, or a list of objects with `file_name` and `text`), a JSON
/// Lines file of such objects, a table (CSV, TSV, Parquet) with columns of these names, COCO's annotations, a folder with a
/// text file for each image, or the name of a column of text. A caption may be a list: its first entry is taken.
/// A row that was [put back](Dataset::put_back) keeps the text that it brought along.
///
/// # Errors
/// No such file or column, or an image without a caption.
pub fn captions(data: &Dataset, from: &str) -> Result<Captions, DataError> {
    let path = Path::new(from);
    let mut named_first = None;
    let texts = if path.is_dir() {
        beside(data, path)?
    } else if path.is_file() {
        let entries = named(path, values(path)?)?;
        let texts = by_name(data, path, &entries);
        named_first = Some(entries.into_iter().next().map(|(name, _)| name));
        texts
    } else {
        column(data, from)?
    };
    finished(data, texts, from, named_first)
}

/// Captions of all rows, of those that were put back their own. `named`: where entries of a file were looked through by name, what
/// its first is of, if it has one.
pub(crate) fn finished(
    data: &Dataset,
    mut texts: Vec<Vec<String>>,
    from: &str,
    named: Option<Option<String>>,
) -> Result<Captions, DataError> {
    for (&row, text) in &data.texts {
        texts[row] = vec![text.clone()];
    }
    let missing = texts.iter().filter(|texts| texts.is_empty()).count();
    if let Some(first) = texts.iter().position(Vec::is_empty) {
        let name = data.name(first);
        let problem = match named {
            Some(None) => format!("{from} holds no captions"),
            Some(Some(entry)) if missing == data.len() => format!(
                "no caption in {from} fits any image: the file's first is of \"{entry}\", the data set's first image \
                 is \"{name}\"; one must be the end of the other, and fit nothing else"
            ),
            _ => format!(
                "{missing} of {} {} no caption in {from}, the first of them {name}",
                counted(data.len(), "image"),
                if missing == 1 { "has" } else { "have" },
            ),
        };
        return Err(DataError::format(data.path(), problem));
    }
    Ok(Captions {
        several: texts.iter().filter(|texts| texts.len() > 1).count(),
        texts: texts
            .into_iter()
            .filter_map(|texts| texts.into_iter().next())
            .collect(),
    })
}

fn column(data: &Dataset, name: &str) -> Result<Vec<Vec<String>>, DataError> {
    if let Some(texts) = data.source.texts(name)? {
        return Ok(texts);
    }
    let columns = data.source.columns();
    let problem = if columns.is_empty() {
        format!("no such file, and a {} has no columns", data.kind())
    } else {
        format!(
            "no such file, and no column of texts of that name; the columns are {}",
            columns.join(", ")
        )
    };
    Err(DataError::format(
        data.path(),
        format!("captions {name:?}: {problem}"),
    ))
}

/// From text files that are called as the images are, below the folder as the images are below theirs, or less deep
/// where that stands for one image alone.
pub(crate) fn beside(data: &Dataset, folder: &Path) -> Result<Vec<Vec<String>>, DataError> {
    let names: Vec<String> = (0..data.len()).map(|row| data.name(row)).collect();
    let mut rows: HashMap<String, usize> = HashMap::new();
    for suffix in names.iter().flat_map(|name| suffixes(name)) {
        *rows.entry(without_ending(suffix)).or_default() += 1;
    }
    let of_row = |name: &String| {
        let place = suffixes(name)
            .filter(|suffix| *suffix == name || rows.get(&without_ending(suffix)) == Some(&1))
            .flat_map(|suffix| [suffix.to_owned(), compose(suffix), suffix.nfd().collect()])
            .flat_map(|suffix| BESIDE.map(|ending| folder.join(&suffix).with_extension(ending)))
            .find(|place| place.is_file());
        let Some(place) = place else {
            return Ok(Vec::new());
        };
        Ok(vec![read_text(&place)?.trim().to_owned()])
    };
    names.iter().map(of_row).collect()
}

/// From entries by name: one name must be the end of the other, part by part; if none is, both without the endings of
/// the files.
fn by_name(data: &Dataset, from: &Path, entries: &[(String, Vec<String>)]) -> Vec<Vec<String>> {
    let parts = |name: &str| {
        let parts = name.split(['/', '\\']);
        let parts: Vec<&str> = parts.filter(|part| !matches!(*part, "" | ".")).collect();
        parts.join("/")
    };
    let rows: Vec<String> = (0..data.len()).map(|row| parts(&data.name(row))).collect();
    let below = below(data.path(), from);
    let names: Vec<String> = entries
        .iter()
        .map(|(name, _)| match &below {
            Some((folder, prefix)) if folder.join(name).is_file() => {
                parts(&format!("{prefix}/{name}"))
            }
            _ => parts(name),
        })
        .collect();
    let mut found = same_names(&rows, &names);
    let plain = |names: &[String]| -> Vec<String> {
        names.iter().map(|name| without_ending(name)).collect()
    };
    // macOS gives files decomposed names; those that are typed are composed.
    let composed = |names: &[String]| names.iter().map(|name| compose(name)).collect::<Vec<_>>();
    let [rows, names] = [composed(&rows), composed(&names)];
    for less in [
        same_names(&rows, &names),
        same_names(&plain(&rows), &plain(&names)),
    ] {
        for (found, less) in found.iter_mut().zip(less) {
            *found = found.or(less);
        }
    }
    let texts = |place: Option<usize>| place.map_or(Vec::new(), |place| entries[place].1.clone());
    found.into_iter().map(texts).collect()
}

/// The folder of a captions file and its path below the data set's folder, where it lies deeper than that: the names of
/// a `test/metadata.jsonl` are those of images in `test`.
fn below(root: &Path, from: &Path) -> Option<(PathBuf, String)> {
    let folder = fs::canonicalize(from).ok()?.parent()?.to_owned();
    let below = folder.strip_prefix(fs::canonicalize(root).ok()?).ok()?;
    let prefix = below
        .to_str()
        .filter(|prefix| !prefix.is_empty())?
        .to_owned();
    Some((folder, prefix))
}

/// The path, what is left of it without its first folder, and so on to its last part.
fn suffixes(name: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(name), |name| {
        name.split_once('/').map(|(_, rest)| rest)
    })
}

fn without_ending(name: &str) -> String {
    let (folder, last) = name.rsplit_once('/').unwrap_or(("", name));
    let stem = last.rsplit_once('.').map_or(last, |(stem, _)| stem);
    match folder {
        "" => stem.to_owned(),
        folder => format!("{folder}/{stem}"),
    }
}

/// For each row the place of its name: the same one, else the only one that it ends with or that ends with it. A name
/// that fits several rows is none's: another image's caption is worse than no caption.
fn same_names(rows: &[String], names: &[String]) -> Vec<Option<usize>> {
    let places = |names: &[String]| {
        let mut places: HashMap<String, Vec<usize>> = HashMap::new();
        for (place, name) in names.iter().enumerate() {
            places.entry(name.clone()).or_default().push(place);
        }
        places
    };
    let (of_rows, of_names) = (places(rows), places(names));
    let mut pairs: BTreeSet<(usize, usize)> = BTreeSet::new();
    for (row, name) in rows.iter().enumerate() {
        let places = suffixes(name).find_map(|name| of_names.get(name));
        pairs.extend(places.into_iter().flatten().map(|&place| (row, place)));
    }
    for (place, name) in names.iter().enumerate() {
        let rows = suffixes(name).find_map(|name| of_rows.get(name));
        pairs.extend(rows.into_iter().flatten().map(|&row| (row, place)));
    }
    let (mut in_row, mut in_name) = (vec![0; rows.len()], vec![0; names.len()]);
    for &(row, place) in &pairs {
        in_row[row] += 1;
        in_name[place] += 1;
    }
    let mut found = vec![None; rows.len()];
    for &(row, place) in &pairs {
        if in_row[row] == 1 && in_name[place] == 1 {
            found[row] = Some(place);
        }
    }
    for (row, name) in rows.iter().enumerate() {
        if let (Some(&[place]), Some(&[_])) = (
            of_names.get(name).map(Vec::as_slice),
            of_rows.get(name).map(Vec::as_slice),
        ) {
            found[row] = Some(place);
        }
    }
    found
}

/// What a file of captions holds.
pub(crate) enum Values {
    /// Entries that say what they are of.
    Entries(Vec<Value>),
    /// Captions by name.
    Names(Map<String, Value>),
}

impl Values {
    /// Whether any entry has the key of a caption.
    pub(crate) fn has_texts(&self) -> bool {
        match self {
            Self::Entries(entries) => entries
                .iter()
                .any(|entry| TEXT_KEYS.iter().any(|key| entry.get(key).is_some())),
            Self::Names(names) => !names.is_empty(),
        }
    }
}

/// What a file holds, as its name and its content tell.
pub(crate) fn values(path: &Path) -> Result<Values, DataError> {
    let ending = path.extension().and_then(|ending| ending.to_str());
    let ending = ending.unwrap_or_default().to_lowercase();
    if matches!(ending.as_str(), "parquet" | "pq" | "parq") {
        let wanted = [&NAME_KEYS[..], &TEXT_KEYS].concat();
        return Ok(Values::Entries(text_rows(path, &wanted)?));
    }
    values_of_text(path, &read_text(path)?, &ending)
}

fn values_of_text(path: &Path, text: &str, ending: &str) -> Result<Values, DataError> {
    let problem = |problem: String| DataError::format(path, problem);
    let separator = match ending {
        "csv" => Some(','),
        "tsv" => Some('\t'),
        // Flickr8k's captions.txt is a table.
        "txt" if !text.trim_start().starts_with(['{', '[']) => Some(','),
        _ => None,
    };
    if let Some(separator) = separator {
        let rows = table::rows(text, separator).map_err(problem)?;
        return Ok(Values::Entries(rows));
    }
    Ok(Values::Entries(match serde_json::from_str(text) {
        Ok(Value::Array(entries)) => entries,
        Ok(Value::Object(object)) => match coco(&object) {
            Some(entries) => entries,
            // A line alone is a whole object.
            None if ending != "jsonl" && ending != "ndjson" => return Ok(Values::Names(object)),
            None => vec![Value::Object(object)],
        },
        Ok(other) => {
            return Err(problem(format!(
                "it holds {}, neither an object nor a list",
                kind(&other)
            )));
        }
        Err(error) => lines(text, ending, error).map_err(problem)?,
    }))
}

/// Names and captions of a file, several entries of one name put together.
pub(crate) fn named(path: &Path, values: Values) -> Result<Vec<(String, Vec<String>)>, DataError> {
    let problem = |problem: String| DataError::format(path, problem);
    let entries = match values {
        Values::Entries(entries) => entries,
        Values::Names(object) => {
            return object
                .into_iter()
                .map(|(name, caption)| match texts(&caption) {
                    Some(texts) => Ok((name, texts)),
                    None => Err(problem(format!(
                        "the caption of {name:?} is {}; a text, a list of texts or an object with one of {} is \
                         expected",
                        kind(&caption),
                        TEXT_KEYS.join(", ")
                    ))),
                })
                .collect();
        }
    };
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for (number, entry) in entries.iter().enumerate() {
        let name = NAME_KEYS
            .iter()
            .find_map(|key| entry.get(key).and_then(Value::as_str));
        let (Some(name), Some(texts)) = (name, texts_of(entry)) else {
            let number = number + 1;
            if let Some((key, value)) = misfit(entry, name.is_some()) {
                return Err(problem(format!(
                    "entry {number}: its `{key}` is {}, not a text{}",
                    kind(value),
                    name.map(|name| format!(" (it is of \"{name}\")"))
                        .unwrap_or_default()
                )));
            }
            return Err(problem(format!(
                "entry {number} has {}; it needs the file's name as `file_name` and its caption as one of {}",
                keys(entry),
                TEXT_KEYS.join(", ")
            )));
        };
        match places.get(name) {
            Some(&place) => found[place].1.extend(texts),
            None => {
                places.insert(name.to_owned(), found.len());
                found.push((name.to_owned(), texts));
            }
        }
    }
    Ok(found)
}

/// An object a line.
fn lines(text: &str, ending: &str, whole: serde_json::Error) -> Result<Vec<Value>, String> {
    let lines: Vec<(usize, &str)> = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .collect();
    let is_lines = ending == "jsonl" || ending == "ndjson";
    let first = lines
        .first()
        .map(|(_, line)| serde_json::from_str::<Value>(line));
    if !is_lines && !matches!(first, Some(Ok(Value::Object(_)))) {
        return Err(format!("not valid JSON: {whole}"));
    }
    lines
        .into_iter()
        .map(|(number, line)| {
            serde_json::from_str(line).map_err(|error| format!("line {}: {error}", number + 1))
        })
        .collect()
}

/// The texts of a caption: one, a list of them, or an object with either.
fn texts(caption: &Value) -> Option<Vec<String>> {
    match caption {
        Value::String(text) => Some(vec![text.clone()]),
        Value::Array(texts) if !texts.is_empty() => texts
            .iter()
            .map(|text| text.as_str().map(str::to_owned))
            .collect(),
        Value::Object(_) => texts_of(caption),
        _ => None,
    }
}

fn texts_of(entry: &Value) -> Option<Vec<String>> {
    // Exports leave unused columns null or empty; an object is none of the forms of a caption.
    let holds_nothing = |value: &&Value| match value {
        Value::Null | Value::Object(_) => true,
        Value::Array(texts) => texts.is_empty(),
        _ => false,
    };
    let mut found = TEXT_KEYS.iter().filter_map(|key| entry.get(key));
    texts(found.find(|value| !holds_nothing(value))?)
}

/// COCO's annotations: captions by the numbers of images, and what these are called.
fn coco(object: &Map<String, Value>) -> Option<Vec<Value>> {
    let (images, annotations) = (
        object.get("images")?.as_array()?,
        object.get("annotations")?.as_array()?,
    );
    // Some writers make the numbers texts.
    let number = |id: &Value| match id {
        Value::Number(number) => Some(number.to_string()),
        id => id.as_str().map(str::to_owned),
    };
    let names: HashMap<String, &Value> = images
        .iter()
        .filter_map(|image| Some((number(image.get("id")?)?, image.get("file_name")?)))
        .collect();
    let entries = annotations.iter().filter_map(|annotation| {
        let name = names.get(&number(annotation.get("image_id")?)?)?;
        let caption = annotation.get("caption")?;
        Some(serde_json::json!({"file_name": name, "text": caption}))
    });
    Some(entries.collect())
}

/// The key of an entry that is there but holds no text: its name's, or with a name its caption's.
fn misfit(entry: &Value, has_name: bool) -> Option<(&str, &Value)> {
    let keys: &[&'static str] = if has_name { &TEXT_KEYS } else { &NAME_KEYS };
    keys.iter()
        .find_map(|&key| entry.get(key).map(|value| (key, value)))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(texts) if texts.is_empty() => "an empty list",
        Value::Array(_) => "a list of other things than texts",
        Value::Object(_) => "an object",
    }
}

fn keys(entry: &Value) -> String {
    match entry {
        Value::Object(object) if object.is_empty() => "no keys".into(),
        Value::Object(object) => {
            let keys: Vec<&str> = object.keys().take(10).map(String::as_str).collect();
            format!("the keys {}", keys.join(", "))
        }
        other => format!("no keys: it is {}", kind(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(name: &str, text: &str) -> Result<HashMap<String, Vec<String>>, String> {
        let path = Path::new(name);
        let ending = path.extension().unwrap().to_str().unwrap();
        values_of_text(path, text, ending)
            .and_then(|values| named(path, values))
            .map(|entries| entries.into_iter().collect())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn captions_are_read_from_all_forms() {
        for (name, text) in [
            ("c.json", r#"{"a.png": "a cat", "b/c.png": "a dog"}"#),
            (
                "c.json",
                r#"[{"file_name": "a.png", "text": "a cat"}, {"file_name": "b/c.png", "caption": "a dog"}]"#,
            ),
            (
                "metadata.jsonl",
                "{\"file_name\": \"a.png\", \"text\": \"a cat\"}\n\n{\"file_name\": \"b/c.png\", \"prompt\": \"a dog\"}\n",
            ),
            (
                "lines.json",
                "{\"image\": \"a.png\", \"text\": [\"a cat\"]}\n{\"image\": \"b/c.png\", \"captions\": [\"a dog\"]}",
            ),
            (
                "kohya.json",
                r#"{"a.png": {"caption": "a cat", "tags": "x"}, "b/c.png": {"caption": "a dog"}}"#,
            ),
            (
                "metadata.csv",
                "file_name,width,text\r\na.png,8,a cat\r\nb/c.png,8,\"a dog\"\r\n",
            ),
            (
                "captions.txt",
                "image,caption\na.png,a cat\nb/c.png,a dog\n",
            ),
            (
                "coco.json",
                r#"{"info": {}, "images": [{"id": 7, "file_name": "a.png"}, {"id": 8, "file_name": "b/c.png"}],
                    "annotations": [{"image_id": 8, "caption": "a dog"}, {"image_id": 7, "caption": "a cat"}]}"#,
            ),
            (
                "coco_of_texts.json",
                r#"{"images": [{"id": "7", "file_name": "a.png"}, {"id": "x8", "file_name": "b/c.png"}],
                    "annotations": [{"image_id": "x8", "caption": "a dog"}, {"image_id": 7, "caption": "a cat"}]}"#,
            ),
        ] {
            let found = parsed(name, text).unwrap();
            assert_eq!(found["a.png"], ["a cat"], "{text}");
            assert_eq!(found["b/c.png"], ["a dog"], "{text}");
        }
        let line = parsed("one.jsonl", r#"{"file_name": "a.png", "text": "a cat"}"#).unwrap();
        assert_eq!(line["a.png"], ["a cat"]);
    }

    #[test]
    fn a_key_that_holds_no_caption_gives_way_to_the_next() {
        for (name, text) in [
            (
                "c.json",
                r#"[{"file_name": "a.png", "text": null, "prompt": "a dog"}]"#,
            ),
            (
                "c.jsonl",
                r#"{"file_name": "a.png", "text": [], "captions": ["a dog"]}"#,
            ),
            (
                "c.json",
                r#"{"a.png": {"text": {"en": "x"}, "caption": null, "prompt": "a dog"}}"#,
            ),
        ] {
            assert_eq!(parsed(name, text).unwrap()["a.png"], ["a dog"], "{text}");
        }
        for text in [
            r#"[{"file_name": "a.png", "text": null}]"#,
            r#"[{"file_name": "a.png", "text": 7, "prompt": "a dog"}]"#,
        ] {
            let error = parsed("c.json", text).unwrap_err();
            assert!(error.contains("entry 1: its `text` is"), "{error}");
        }
    }

    #[test]
    fn several_captions_of_an_image_stay_in_their_order() {
        for (name, text) in [
            ("c.json", r#"{"a.png": ["one", "two"]}"#),
            (
                "c.jsonl",
                "{\"file_name\": \"a.png\", \"text\": [\"one\", \"two\"]}",
            ),
            ("c.csv", "file_name,text\na.png,one\na.png,two\n"),
        ] {
            assert_eq!(
                parsed(name, text).unwrap()["a.png"],
                ["one", "two"],
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_caption_is_refused_with_what_is_there() {
        for (name, text, says) in [
            ("c.json", "7", "neither an object nor a list"),
            ("c.json", r#"{"a.png": 1}"#, "\"a.png\" is a number"),
            ("c.json", r#"{"a.png": []}"#, "an empty list"),
            (
                "c.json",
                r#"[{"file_name": "a.png", "label": 3}]"#,
                "entry 1 has the keys file_name, label; it needs",
            ),
            (
                "c.json",
                r#"[{"file_name": "a.png"}]"#,
                "text, caption, prompt",
            ),
            ("c.jsonl", "{}\nnot json\n", "line 2"),
            ("c.json", "not json", "not valid JSON"),
            ("c.csv", "a.png,a cat\n", "entry"),
            (
                "c.json",
                r#"[{"file_name": "a.png", "text": 7}]"#,
                "entry 1: its `text` is a number, not a text (it is of \"a.png\")",
            ),
            (
                "c.json",
                r#"[{"file_name": 7, "text": "a cat"}]"#,
                "entry 1: its `file_name` is a number, not a text",
            ),
            (
                "c.json",
                r#"[{"file_name": "a.png", "text": null}]"#,
                "entry 1: its `text` is null",
            ),
        ] {
            let error = parsed(name, text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
