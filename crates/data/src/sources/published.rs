//! The layout in which prompts, the images that a model draws for them, and which of these are memorized were published:
//! `NAME/images/*.png`, `NAME/kmeans_labels.json` (1: memorized), and for all names `original_prompts.json` and
//! `modified_prompts.json`, in the folder of a name or the one above it.

use std::fs;
use std::path::Path;

use retrack_checkpoint::words::counted;
use serde_json::Value;

use super::images::Folder;
use super::{Certainty, Format, Found, Opened, Words};
use crate::OpenOptions;
use crate::error::DataError;
use crate::listing::Listing;
use crate::subsets::ALL;

const LABELS: &str = "kmeans_labels.json";
const IMAGES: &str = "images";
const ORIGINAL: &str = "original_prompts.json";
const MODIFIED: &str = "modified_prompts.json";
/// What memorized images are labeled.
pub const MEMORIZED: i64 = 1;
/// A JSON file of a data set: names, labels and captions.
pub(crate) const LARGEST_JSON: u64 = 256 << 20;

/// Images of prompts, labeled by cluster.
pub(crate) struct Published;

impl Format for Published {
    fn words(&self) -> Option<Words> {
        None
    }

    fn open_file(&self, _: &Path, _: &str, _: &OpenOptions) -> Option<Opened> {
        None
    }

    fn certainty(&self) -> Certainty {
        Certainty::Layout
    }

    fn at_hand(&self, folder: &Listing) -> Result<Option<Found>, DataError> {
        let found = || Found {
            names: vec![IMAGES.to_owned()],
            called: IMAGES.to_owned(),
        };
        Ok(is_published(folder.root).then(found))
    }

    fn open_folder(&self, path: &Path, _: Vec<String>, options: &OpenOptions) -> Opened {
        match options.split.as_deref() {
            Some(wanted) if wanted != ALL => Err(DataError::Splits {
                path: path.to_owned(),
                wanted: Some(wanted.to_owned()),
                found: Vec::new(),
                together: false,
            }),
            _ => Ok(Box::new(open(path)?)),
        }
    }
}

/// Whether the folder has this layout.
pub fn is_published(folder: &Path) -> bool {
    folder.join(LABELS).is_file() && folder.join(IMAGES).is_dir()
}

/// The images, labeled by cluster.
fn open(folder: &Path) -> Result<Folder, DataError> {
    let images = folder.join(IMAGES);
    let found = Folder::open(&images)?
        .ok_or_else(|| DataError::format(&images, "the folder holds no images"))?;
    let path = folder.join(LABELS);
    let labels = labels(&path, &read_json(&path)?, found.names())?;
    Ok(found.with_labels(labels))
}

/// One label for each of `names`: by its name, or a list in the order of the numbers that the files are named by, or of
/// their names where they are no numbers.
fn labels(path: &Path, json: &Value, names: &[String]) -> Result<Vec<i64>, DataError> {
    let number = |value: &Value| {
        let whole = value.as_f64().filter(|label| label.fract() == 0.0);
        whole
            .map(|label| label as i64)
            .or_else(|| value.as_bool().map(i64::from))
            .ok_or_else(|| DataError::format(path, format!("the label {value} is no whole number")))
    };
    let stem = |name: &str| {
        let stem = Path::new(name).file_stem().unwrap_or_default();
        stem.to_string_lossy().into_owned()
    };
    match json {
        Value::Array(labels) => {
            if labels.len() != names.len() {
                let (labels, images) = (labels.len(), names.len());
                return Err(DataError::format(
                    path,
                    format!(
                        "{} for {}",
                        counted(labels, "label"),
                        counted(images, "image")
                    ),
                ));
            }
            let numbers: Option<Vec<u64>> =
                names.iter().map(|name| stem(name).parse().ok()).collect();
            let mut order: Vec<usize> = (0..names.len()).collect();
            if let Some(numbers) = numbers {
                order.sort_by_key(|&row| (numbers[row], row));
            }
            let mut by_row = vec![0; names.len()];
            for (row, label) in order.into_iter().zip(labels) {
                by_row[row] = number(label)?;
            }
            Ok(by_row)
        }
        Value::Object(labels) => names
            .iter()
            .map(|name| {
                let below = format!("{IMAGES}/{name}");
                let found = labels
                    .get(name)
                    .or_else(|| labels.get(&below))
                    .or_else(|| labels.get(&stem(name)));
                number(
                    found.ok_or_else(|| DataError::format(path, format!("no label for {name}")))?,
                )
            })
            .collect(),
        _ => Err(DataError::format(
            path,
            "neither a list of labels nor labels by file name",
        )),
    }
}

/// The prompt whose images a folder of this layout holds; `None` without the file that says so.
///
/// # Errors
/// A file that cannot be read or names no prompt for this folder.
pub fn original_prompt(folder: &Path) -> Result<Option<String>, DataError> {
    // A list holds the same prompt's variants; the first is the prompt.
    let prompts = prompts(folder, ORIGINAL)?;
    Ok(prompts.and_then(|prompts| prompts.into_iter().next()))
}

/// Prompts like a folder's own, which a model should still draw as before; none without the file that says so.
///
/// # Errors
/// As [`original_prompt`].
pub fn modified_prompts(folder: &Path) -> Result<Vec<String>, DataError> {
    Ok(prompts(folder, MODIFIED)?.unwrap_or_default())
}

/// What the file `name`, in the folder or the one above, says of this folder: one text at least.
fn prompts(folder: &Path, name: &str) -> Result<Option<Vec<String>>, DataError> {
    let absolute = fs::canonicalize(folder).map_err(|error| DataError::io(folder, error))?;
    let above = absolute.parent().map(|parent| parent.join(name));
    let places = [Some(absolute.join(name)), above];
    let Some(path) = places.into_iter().flatten().find(|path| path.is_file()) else {
        return Ok(None);
    };
    let own = absolute.file_name().unwrap_or_default().to_string_lossy();
    let json = read_json(&path)?;
    let found = match &json {
        Value::Object(prompts) => prompts.get(own.as_ref()),
        Value::Array(prompts) => match own.parse::<usize>() {
            Ok(number) => prompts.get(number),
            Err(_) if prompts.len() == 1 => prompts.first(),
            // The folder's own file may list its prompts.
            Err(_) => Some(&json).filter(|_| path.parent() == Some(absolute.as_path())),
        },
        text => Some(text),
    };
    let texts = match found {
        Some(Value::Array(several)) => several.iter().map(Value::as_str).collect(),
        found => found
            .map(Value::as_str)
            .into_iter()
            .collect::<Option<Vec<&str>>>(),
    };
    match texts {
        Some(texts) if !texts.is_empty() => Ok(Some(texts.into_iter().map(String::from).collect())),
        _ => Err(DataError::NoPrompt {
            path,
            images: own.into_owned(),
        }),
    }
}

pub(crate) fn read_json(path: &Path) -> Result<Value, DataError> {
    serde_json::from_str(&read_text(path)?)
        .map_err(|error| DataError::format(path, format!("not valid JSON: {error}")))
}

/// A text file of bounded size.
pub(crate) fn read_text(path: &Path) -> Result<String, DataError> {
    let size = fs::metadata(path).map_err(|error| DataError::io(path, error))?;
    if size.len() > LARGEST_JSON {
        let problem = format!("larger than the {LARGEST_JSON} bytes that such a file may have");
        return Err(DataError::format(path, problem));
    }
    let bytes = fs::read(path).map_err(|error| DataError::io(path, error))?;
    let text = String::from_utf8(bytes);
    let text = text.map_err(|_| DataError::format(path, "not a text file (UTF-8)"))?;
    // Some editors, and Windows', begin with a mark.
    Ok(match text.strip_prefix('\u{feff}') {
        Some(rest) => rest.to_owned(),
        None => text,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(json: Value, names: &[&str]) -> Result<Vec<i64>, String> {
        let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
        labels(Path::new("kmeans_labels.json"), &json, &names).map_err(|error| error.to_string())
    }

    #[test]
    fn a_list_of_labels_is_in_the_order_of_the_files_numbers() {
        // By name 10.png lies between 1.png and 2.png.
        let names = ["0.png", "1.png", "10.png", "2.png"];
        assert_eq!(of(json!([0, 1, 0, 1]), &names).unwrap(), [0, 1, 1, 0]);
        let error = of(json!([0, 1]), &names).unwrap_err();
        assert!(error.contains("2 labels for 4 images"), "{error}");
    }

    #[test]
    fn labels_by_name_are_found_by_file_name_path_or_number() {
        let json = json!({"0.png": 1, "images/1.png": true, "2": 0.0});
        assert_eq!(
            of(json.clone(), &["0.png", "1.png", "2.png"]).unwrap(),
            [1, 1, 0]
        );
        let error = of(json, &["3.png"]).unwrap_err();
        assert!(error.contains("no label for 3.png"), "{error}");
    }

    #[test]
    fn the_prompt_of_a_folder_is_found_beside_it_and_in_it() {
        let base = tempfile::tempdir().unwrap();
        let folder = base.path().join("astronaut");
        fs::create_dir(&folder).unwrap();
        assert_eq!(original_prompt(&folder).unwrap(), None);
        let above = base.path().join(ORIGINAL);
        fs::write(&above, json!({"astronaut": "on a horse"}).to_string()).unwrap();
        assert_eq!(original_prompt(&folder).unwrap().unwrap(), "on a horse");
        fs::write(&above, json!({"other": "x"}).to_string()).unwrap();
        let error = original_prompt(&folder).unwrap_err().to_string();
        assert!(error.contains("no prompt for \"astronaut\""), "{error}");
        fs::write(folder.join(ORIGINAL), json!(["on the moon"]).to_string()).unwrap();
        assert_eq!(original_prompt(&folder).unwrap().unwrap(), "on the moon");
    }
}
