//! What a report says. This structure, as JSON, is `report.json`; the page shows it and nothing else.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::base64;

/// The version of this structure, in [`Report::format`].
pub const FORMAT: u32 = 1;

/// Everything that one report says. Sections that a command has nothing for are empty and are not shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`FORMAT`].
    pub format: u32,
    /// `unlearn`, `evaluate`, `experiment` or `demo`.
    pub command: String,
    pub title: String,
    /// When it was made: UTC, `2026-01-31 23:59`.
    pub made: String,
    /// The program's version.
    pub version: String,
    pub verdict: Verdict,
    /// What was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Request>,
    /// Samples of both models with the same seeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<Samples>,
    /// The forgotten image noised and denoised again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub restoration: Vec<Restoration>,
    /// Tables of scores.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<MetricTable>,
    /// Values beside one another, dot by dot.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub comparisons: Vec<DotChart>,
    /// What happened over the steps of the run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub curves: Vec<LineChart>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub neighbors: Option<Neighbors>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cost: Vec<Fact>,
    pub provenance: Provenance,
    /// What `retrack verify` computes again; free of pixels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<Value>,
    /// PNG files by the names that the sections use. Last, so that the rest can be read without them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pictures: BTreeMap<String, Picture>,
}

/// How far a verdict goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The tests no longer find the image.
    NotFound,
    /// The tests no longer find the image, but the model shows that it avoids it, or lost what it should keep.
    Reservations,
    /// The tests still find the image, or cannot tell.
    StillFound,
    Inconclusive,
    /// Measurements without a question that has an answer.
    Measured,
}

/// One sentence with its numbers, and what it does not say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    pub outcome: Outcome,
    /// A few words.
    pub headline: String,
    pub sentence: String,
    /// Reservations, a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// What to do next, where the image is still found or the tests cannot tell: a sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub next: String,
}

/// A name and its value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fact {
    pub name: String,
    pub value: String,
}

impl Fact {
    pub fn new(name: &str, value: impl ToString) -> Self {
        Self {
            name: name.into(),
            value: value.to_string(),
        }
    }
}

/// What was to be forgotten: counts and keyed digests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    pub facts: Vec<Fact>,
    /// One for each distinct forgotten image; HMAC-SHA-256 under the run's key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keyed_digests: Vec<String>,
    /// What they are for, and where the key is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub digests_note: String,
    /// The forgotten images, only where they may be shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub picture: Option<String>,
}

/// Samples of one model or of two, the same seed in the same place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Samples {
    pub note: String,
    /// Names of pictures, the earlier model first.
    pub pictures: Vec<String>,
}

/// Attempts to get the forgotten image back from its noised form.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Restoration {
    pub title: String,
    /// How it was done, and what counts.
    pub note: String,
    pub attempts: Vec<Attempts>,
    pub chart: DotChart,
    /// Names of pictures.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pictures: Vec<String>,
    /// Why there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withheld: Option<String>,
}

/// What one model's attempts came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attempts {
    pub name: String,
    pub restored: usize,
    pub tries: usize,
    /// Mean Euclidean distance to the forgotten image, pixels in [0, 1].
    pub mean_distance: f64,
}

/// Scores in rows, models or methods in columns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricTable {
    pub caption: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    pub columns: Vec<String>,
    pub rows: Vec<MetricRow>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricRow {
    pub name: String,
    /// In plain words, with the unit.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub meaning: String,
    /// One for each column.
    pub values: Vec<Option<MetricValue>>,
}

/// A value with what it rests on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MetricValue {
    pub value: f64,
    /// Samples, images, draws or runs.
    pub count: usize,
    /// Where the true value lies with 95% confidence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<[f64; 2]>,
    /// Of repeated runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deviation: Option<f64>,
}

/// What an axis measures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Axis {
    /// With its unit.
    pub name: String,
    /// Logarithmic; only of values above 0.
    #[serde(default)]
    pub log: bool,
}

impl Axis {
    pub fn linear(name: &str) -> Self {
        Self {
            name: name.into(),
            log: false,
        }
    }

    pub fn log(name: &str) -> Self {
        Self {
            name: name.into(),
            log: true,
        }
    }
}

/// Lines over a common axis.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LineChart {
    pub title: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    pub x: Axis,
    pub y: Axis,
    pub series: Vec<Series>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Series {
    pub name: String,
    pub points: Vec<[f64; 2]>,
}

/// What a row of dots is about; each kind has its own mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Before,
    After,
    /// Something to compare with.
    Control,
}

/// Rows of dots over a common axis.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DotChart {
    pub title: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    pub x: Axis,
    pub rows: Vec<DotRow>,
    /// Values that all rows are compared with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub marks: Vec<Mark>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DotRow {
    pub name: String,
    pub kind: Kind,
    pub values: Vec<f64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mark {
    pub name: String,
    pub value: f64,
}

/// The retained images that took the forgotten one's place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Neighbors {
    pub note: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<NeighborGroup>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub picture: Option<String>,
}

/// The neighbors of one forgotten image, nearest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NeighborGroup {
    /// Row of the forgotten image in the data set.
    pub of: usize,
    pub rows: Vec<usize>,
    /// Euclidean, pixels in [0, 1].
    pub distances: Vec<f64>,
}

/// What made the result, so that it can be checked.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    pub facts: Vec<Fact>,
    pub files: Vec<FileDigest>,
    /// The resolved configuration.
    pub configuration: Value,
}

/// SHA-256 of a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FileDigest {
    pub role: Role,
    /// Relative to the model's or the run's folder.
    pub path: String,
    pub sha256: String,
}

/// What a file is to the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Weights that were read.
    Input,
    /// The model that was written.
    Output,
    /// The run's own record.
    Record,
}

/// A picture of the page.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Picture {
    pub caption: String,
    /// For who cannot see it.
    pub alt: String,
    /// Pixels.
    pub width: u32,
    pub height: u32,
    /// The PNG file.
    #[serde(with = "base64")]
    pub png: Vec<u8>,
}

impl Report {
    /// The content of `report.json`.
    pub fn json(&self) -> String {
        let text = serde_json::to_string_pretty(self).expect("JSON has no unwritable values");
        format!("{text}\n")
    }

    /// The content of `report.html`: one page that needs nothing else.
    pub fn html(&self) -> String {
        super::page::render(self)
    }

    /// Adds a picture, the bytes of a PNG file, and returns its name.
    ///
    /// # Panics
    ///
    /// `png` is no PNG file.
    pub fn add_picture(&mut self, name: &str, caption: &str, alt: &str, png: Vec<u8>) -> String {
        assert!(png.starts_with(b"\x89PNG\r\n\x1a\n") && png.len() > 24);
        let number =
            |at: usize| u32::from_be_bytes(png[at..at + 4].try_into().expect("four bytes"));
        let picture = Picture {
            caption: caption.into(),
            alt: alt.into(),
            width: number(16),
            height: number(20),
            png,
        };
        self.pictures.insert(name.into(), picture);
        name.into()
    }
}
