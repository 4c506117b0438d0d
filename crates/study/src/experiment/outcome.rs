//! What is known of one run of an experiment.

use std::path::Path;

use retrack_eval::score::Score;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::plan::Run;
use crate::evaluation::Missing;
use crate::evidence;
use crate::failure::Failure;

/// What a run left in `results/`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Outcome {
    /// As [`Run::name`] has it; the file's name says it.
    #[serde(skip)]
    pub run: String,
    pub line: String,
    pub seed: u64,
    pub forget: String,
    /// How it was unlearned; nothing for the references.
    pub settings: Value,
    /// Seconds of unlearning, in all its parts.
    pub seconds: Option<f64>,
    /// Seconds of measuring.
    #[serde(default)]
    pub measuring_seconds: f64,
    pub scores: Vec<Score>,
    pub skipped: Vec<Missing>,
    #[serde(default)]
    pub failed: Vec<Missing>,
    /// Why there is no model to measure: its training came to nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unlearning_failed: Option<String>,
    /// How many times its start the loss of the retained images reached, where that was too much: a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collapse: Option<String>,
    #[serde(default)]
    pub notes: Vec<String>,
}

impl Outcome {
    /// Of a run of which nothing is known yet. `forget`: what it forgets, as it is recorded.
    pub fn nothing_of(run: &Run, forget: &str, settings: Value) -> Self {
        Self {
            run: run.name(),
            line: run.line.name(),
            seed: run.seed,
            forget: forget.into(),
            settings,
            seconds: None,
            measuring_seconds: 0.0,
            scores: Vec::new(),
            skipped: Vec::new(),
            failed: Vec::new(),
            unlearning_failed: None,
            collapse: None,
            notes: Vec::new(),
        }
    }

    /// What the run took, whenever it was made.
    pub fn all_seconds(&self) -> f64 {
        self.seconds.unwrap_or(0.0) + self.measuring_seconds
    }
}

/// What an unlearning run recorded of retained images that it lost, in a sentence.
///
/// # Errors
/// A record that cannot be read.
pub(super) fn collapse(out: &Path) -> Result<Option<String>, Failure> {
    let events = evidence::read_events(&out.join("run").join("events.jsonl"))?;
    let factor = events.iter().find_map(|event| event.get("collapse_factor"));
    Ok(factor.map(|factor| {
        let far = match factor.as_f64() {
            Some(factor) => format!("reached {factor:.1} times what it was at first"),
            // JSON has no other numbers.
            None => "is not finite any more".into(),
        };
        format!("the loss of the retained images {far}: the model lost what it should keep")
    }))
}
