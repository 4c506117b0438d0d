//! What a report keeps so that its scores can be computed again.

use std::path::PathBuf;

use retrack_data::Alpha;
use serde::{Deserialize, Serialize};

use super::forgotten::Rule;
use super::probe::{Numbers, Plan};
use crate::reopened::WeightFacts;

/// What `retrack verify` computes again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// As typed.
    pub model: PathBuf,
    /// Where the data set lay.
    pub data: PathBuf,
    /// Which split of it.
    #[serde(default)]
    pub split: Option<String>,
    /// What became of transparency.
    #[serde(default)]
    pub alpha: Alpha,
    /// SHA-256 of the data set's content.
    pub data_digest: String,
    /// The forgotten rows.
    pub forget_rows: Vec<usize>,
    /// The rows of images that earlier requests forgot, which are not retained either.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier_rows: Vec<usize>,
    /// Rows that are nearly copies of one of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier_near_rows: Vec<usize>,
    /// Rows that are nearly copies.
    pub near_rows: Vec<usize>,
    /// What shows one of them counts as a forgotten image; in earlier versions it did not.
    #[serde(default)]
    pub near_count: bool,
    /// They are among the retained rows, as they were in earlier versions.
    #[serde(default = "yes")]
    pub retains_near: bool,
    /// Rows whose mirror image is in the data.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mirrored_rows: Vec<usize>,
    /// Pictures were counted by [`Rule::Half`], in earlier versions by [`Rule::Nearest`].
    #[serde(default)]
    pub half_way: bool,
    /// How much was measured.
    pub plan: Plan,
    /// The scores of the base model.
    pub before: Numbers,
    /// Of the folder as it was written.
    pub after: Numbers,
    /// How the weights differ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<WeightFacts>,
    /// The keyed digest of the texts of the images that were measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub texts: Option<String>,
}

fn yes() -> bool {
    true
}

impl Check {
    /// What counted as a forgotten image.
    pub fn rule(&self) -> Rule<'static> {
        match self.half_way {
            true => Rule::Half,
            false => Rule::Nearest,
        }
    }
}
