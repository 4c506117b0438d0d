//! A caption for each image of a data set: a column of a Parquet file, or a file beside the images.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::Dataset;
use super::error::DataError;
use super::published::read_text;

/// What a line of a captions file may call its caption, as Hugging Face's image folders do.
const TEXT_KEYS: [&str; 3] = ["text", "caption", "prompt"];

/// The caption of every row.
///
/// `from` is a JSON file (an object from file names to captions, or a list of objects with `file_name` and `text`), a JSON
/// Lines file of such objects, or the name of a column of text.
///
/// # Errors
/// No such file or column, or an image without a caption.
pub fn captions(data: &Dataset, from: &str) -> Result<Vec<String>, DataError> {
    let path = PathBuf::from(from);
    if !path.is_file() {
        return match data.source.texts(from)? {
            Some(texts) => rows(data, from, texts),
            None => Err(DataError::format(
                data.path(),
                format!(
                    "captions {from:?}: no such file, and {} has no column of that name",
                    data.kind()
                ),
            )),
        };
    }
    let by_name = parse(&path, &read_text(&path)?)?;
    let found = (0..data.len()).map(|row| {
        let name = data.name(row);
        let plain = name.rsplit('/').next().unwrap_or(&name);
        by_name.get(&name).or_else(|| by_name.get(plain)).cloned()
    });
    rows(data, from, found.collect())
}

fn rows(data: &Dataset, from: &str, texts: Vec<Option<String>>) -> Result<Vec<String>, DataError> {
    let missing = texts.iter().filter(|text| text.is_none()).count();
    if let Some(first) = texts.iter().position(Option::is_none) {
        return Err(DataError::format(
            data.path(),
            format!(
                "{missing} of {} images have no caption in {from}, the first of them {}",
                data.len(),
                data.name(first)
            ),
        ));
    }
    Ok(texts.into_iter().flatten().collect())
}

fn parse(path: &Path, text: &str) -> Result<HashMap<String, String>, DataError> {
    let problem = |problem: String| DataError::format(path, problem);
    let is_lines = path.extension().is_some_and(|ending| ending == "jsonl");
    let entries: Vec<Value> = if is_lines {
        let lines = text
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.trim().is_empty());
        lines
            .map(|(number, line)| {
                serde_json::from_str(line)
                    .map_err(|error| problem(format!("line {}: {error}", number + 1)))
            })
            .collect::<Result<_, _>>()?
    } else {
        match serde_json::from_str(text)
            .map_err(|error| problem(format!("not valid JSON: {error}")))?
        {
            Value::Array(entries) => entries,
            Value::Object(by_name) => {
                let caption = |(name, caption): (String, Value)| match caption {
                    Value::String(caption) => Ok((name, caption)),
                    _ => Err(problem(format!("the caption of {name:?} is not a text"))),
                };
                return by_name.into_iter().map(caption).collect();
            }
            _ => return Err(problem("neither an object nor a list".into())),
        }
    };
    entries
        .iter()
        .map(|entry| {
            let name = entry.get("file_name").and_then(Value::as_str);
            let caption = TEXT_KEYS
                .iter()
                .find_map(|key| entry.get(key).and_then(Value::as_str));
            match (name, caption) {
                (Some(name), Some(caption)) => Ok((name.into(), caption.into())),
                _ => Err(problem(format!(
                    "an entry lacks `file_name` or one of {}",
                    TEXT_KEYS.join(", ")
                ))),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(name: &str, text: &str) -> Result<HashMap<String, String>, String> {
        parse(Path::new(name), text).map_err(|error| error.to_string())
    }

    #[test]
    fn captions_are_read_from_all_three_forms() {
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
        ] {
            let found = parsed(name, text).unwrap();
            assert_eq!(found["a.png"], "a cat", "{text}");
            assert_eq!(found["b/c.png"], "a dog", "{text}");
        }
    }

    #[test]
    fn what_is_no_caption_is_refused() {
        for (name, text, says) in [
            ("c.json", "7", "neither an object nor a list"),
            ("c.json", r#"{"a.png": 1}"#, "a.png"),
            (
                "c.json",
                r#"[{"file_name": "a.png"}]"#,
                "text, caption, prompt",
            ),
            ("c.jsonl", "{}\nnot json\n", "line 2"),
        ] {
            let error = parsed(name, text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
