//! Where the images are, and how they are read.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use retrack_data::{Alpha, DataError, Dataset, OpenOptions, Resize, Source};
use serde_json::{Value, json};

use crate::field::Field;
use crate::folders::as_path;

/// A data set.
#[derive(Debug, Clone)]
pub struct DataSource {
    /// Where it is; of a source of one's own, what records and messages call it.
    pub path: PathBuf,
    /// How it is read.
    pub reading: Reading,
    /// Images that no format of the path's would give.
    pub own: Option<Arc<dyn Source>>,
}

/// How a data set is read.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    /// Which split, where the data set has several.
    pub split: Option<String>,
    /// What becomes of transparency.
    pub alpha: Alpha,
    /// How images are resized, if they are.
    pub resize: Option<Resize>,
}

impl DataSource {
    /// The data set at a path, read as usual.
    pub fn at(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            reading: Reading::default(),
            own: None,
        }
    }

    /// Images of one's own source, which `name` stands for. What reads a record of them later, `retrack verify` for one,
    /// looks for a data set at that path.
    pub fn of(name: &Path, source: impl Source + 'static) -> Self {
        Self {
            own: Some(Arc::new(source)),
            ..Self::at(name)
        }
    }

    /// Opens the images.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn open(&self, options: &OpenOptions) -> Result<Dataset, DataError> {
        match &self.own {
            None => Dataset::open(&self.path, options),
            Some(own) => Dataset::from_source(&self.path, own.clone(), options),
        }
    }
}

impl Reading {
    /// For images of `channels` (of their own where it is `None`), `memory_budget` bytes of which may be kept.
    pub fn options(&self, channels: Option<usize>, memory_budget: u64) -> OpenOptions {
        OpenOptions {
            channels,
            memory_budget,
            split: self.split.clone(),
            alpha: self.alpha,
            resize: self.resize,
        }
    }
}

/// The keys under which a record says how images were resized. Where they were not, it has none of them.
pub const RESIZE_KEYS: [&str; 3] = ["resize", "crop", "interpolation"];

/// Adds to a record, an object, how images are resized.
pub(crate) fn record_resize(record: &mut Value, resize: Option<Resize>) {
    let Some(Resize {
        side,
        crop,
        interpolation,
    }) = resize
    else {
        return;
    };
    for (key, value) in
        RESIZE_KEYS
            .into_iter()
            .zip([json!(side), json!(crop), json!(interpolation)])
    {
        record[key] = value;
    }
}

/// What a text-to-image model is to draw, and how.
#[derive(Debug, Clone, Default)]
pub struct PromptOptions {
    /// The prompt of the images to forget.
    pub prompt: Option<String>,
    /// Prompts that the model is to draw as before.
    pub modified_prompt: Vec<String>,
    /// How far to go towards the prompt.
    pub guidance: Option<f64>,
    /// Where each image's own text is: a file, a folder or a column.
    pub captions: Option<String>,
    /// The same of the controls.
    pub controls_captions: Option<String>,
}

impl PromptOptions {
    /// The files and folders that it reads, with what each is.
    pub fn inputs(&self) -> [(&'static str, Option<&Path>); 2] {
        [
            ("captions", self.captions.as_deref().and_then(as_path)),
            (
                "captions",
                self.controls_captions.as_deref().and_then(as_path),
            ),
        ]
    }

    /// The first field that was given, for models that take no text.
    pub fn given(&self) -> Option<Field> {
        [
            (Field::Prompt, self.prompt.is_some()),
            (Field::ModifiedPrompt, !self.modified_prompt.is_empty()),
            (Field::Guidance, self.guidance.is_some()),
            (Field::Captions, self.captions.is_some()),
            (Field::ControlsCaptions, self.controls_captions.is_some()),
        ]
        .into_iter()
        .find_map(|(field, given)| given.then_some(field))
    }
}
