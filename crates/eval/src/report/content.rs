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
    /// The version of this structure, [`FORMAT`].
    pub format: u32,
    /// `unlearn`, `evaluate`, `experiment` or `demo`.
    pub command: String,
    /// The heading of the page.
    pub title: String,
    /// When it was made: UTC, `2026-01-31 23:59`.
    pub made: String,
    /// The program's version.
    pub version: String,
    /// What the report comes to.
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
    /// The retained images that took the forgotten one's place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub neighbors: Option<Neighbors>,
    /// What the run took: time, memory.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cost: Vec<Fact>,
    /// What made the result.
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
    /// The tests still find the image.
    StillFound,
    /// The tests cannot tell.
    Inconclusive,
    /// Measurements without a question that has an answer.
    Measured,
}

/// One sentence with its numbers, and what it does not say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// How far it goes.
    pub outcome: Outcome,
    /// A few words.
    pub headline: String,
    /// What was found, with its numbers.
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
    /// What it is.
    pub name: String,
    /// As it is shown, with its unit.
    pub value: String,
}

impl Fact {
    /// A fact whose value is shown as it prints.
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
    /// What was asked, line by line.
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
    /// How they were drawn.
    pub note: String,
    /// Names of pictures, the earlier model first.
    pub pictures: Vec<String>,
}

/// Attempts to get the forgotten image back from its noised form.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Restoration {
    /// The heading of the section.
    pub title: String,
    /// How it was done, and what counts.
    pub note: String,
    /// What each model's attempts came to.
    pub attempts: Vec<Attempts>,
    /// Each attempt's distance.
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
    /// The model.
    pub name: String,
    /// Attempts that brought the image back.
    pub restored: usize,
    /// All attempts.
    pub tries: usize,
    /// Mean Euclidean distance to the forgotten image, pixels in [0, 1].
    pub mean_distance: f64,
}

/// Scores in rows, models or methods in columns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricTable {
    /// The heading of the table.
    pub caption: String,
    /// What holds for all its values.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// The models or methods.
    pub columns: Vec<String>,
    /// The scores.
    pub rows: Vec<MetricRow>,
}

/// One score of each model or method.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricRow {
    /// The score, as its metric records it.
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
    /// In the unit that the row's meaning says.
    pub value: f64,
    /// Samples, images, draws or runs.
    pub count: usize,
    /// Where the true value lies with 95% confidence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<[f64; 2]>,
    /// Of repeated runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deviation: Option<f64>,
    /// The true value is larger: what it counts was not reached.
    #[serde(default, skip_serializing_if = "is_false")]
    pub at_least: bool,
}

fn is_false(value: &bool) -> bool {
    !value
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
    /// An axis whose steps are equal.
    pub fn linear(name: &str) -> Self {
        Self {
            name: name.into(),
            log: false,
        }
    }

    /// A logarithmic axis.
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
    /// The heading of the chart.
    pub title: String,
    /// What holds for all its lines.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// The steps of the run, or what the lines run over.
    pub x: Axis,
    /// What the lines are of.
    pub y: Axis,
    /// The lines.
    pub series: Vec<Series>,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// What the legend calls it.
    pub name: String,
    /// x and y of each point, in order of x.
    pub points: Vec<[f64; 2]>,
}

/// What a row of dots is about; each kind has its own mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The model as it was.
    Before,
    /// The model that was to forget.
    After,
    /// Something to compare with.
    Control,
}

/// Rows of dots over a common axis.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DotChart {
    /// The heading of the chart.
    pub title: String,
    /// What holds for all its dots.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// What the dots are of.
    pub x: Axis,
    /// From top to bottom.
    pub rows: Vec<DotRow>,
    /// Values that all rows are compared with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub marks: Vec<Mark>,
}

/// The dots of one model or one kind of image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DotRow {
    /// What stands before the row.
    pub name: String,
    /// Its mark.
    pub kind: Kind,
    /// A dot each.
    pub values: Vec<f64>,
}

/// A line through all rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mark {
    /// What stands at it.
    pub name: String,
    /// Its place on the axis.
    pub value: f64,
}

/// The retained images that took the forgotten one's place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Neighbors {
    /// How they were found.
    pub note: String,
    /// One for each forgotten image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<NeighborGroup>,
    /// The name of a picture of all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub picture: Option<String>,
}

/// The neighbors of one forgotten image, nearest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NeighborGroup {
    /// Row of the forgotten image in the data set.
    pub of: usize,
    /// Rows of the neighbors in the data set.
    pub rows: Vec<usize>,
    /// Euclidean, pixels in [0, 1].
    pub distances: Vec<f64>,
}

/// What made the result, so that it can be checked.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// Program, machine, inputs and times, line by line.
    pub facts: Vec<Fact>,
    /// What was read and written.
    pub files: Vec<FileDigest>,
    /// The resolved configuration.
    pub configuration: Value,
}

/// SHA-256 of a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FileDigest {
    /// What the file is to the run.
    pub role: Role,
    /// Relative to the model's or the run's folder.
    pub path: String,
    /// In hexadecimal.
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
    /// What stands below it.
    pub caption: String,
    /// For who cannot see it.
    pub alt: String,
    /// Pixels.
    pub width: u32,
    /// Pixels.
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
