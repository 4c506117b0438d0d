//! What a report keeps so that its scores can be computed again.

use std::path::PathBuf;

use retrack_data::{Alpha, Dataset, Resize, Split};
use serde::{Deserialize, Serialize};

use super::forgotten::Rule;
use super::probe::{Numbers, Plan};
use crate::failure::Failure;
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
    /// How images were resized, if they were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resize: Option<Resize>,
    /// SHA-256 of the data set's content.
    pub data_digest: String,
    /// The same of the rows alone that stay when the forgotten images and their exact copies leave the data set, and of those that
    /// stay when near copies leave, too, if there are any. Earlier versions did not record them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rest_digests: Vec<String>,
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

/// [`Check::rest_digests`]
///
/// # Errors
/// An image that cannot be read.
pub fn rest_digests(data: &Dataset, split: &Split) -> Result<Vec<String>, Failure> {
    let mut stays = vec![true; data.len()];
    let leave = |stays: &mut Vec<bool>, rows: &[usize]| {
        rows.iter().for_each(|&row| stays[row] = false);
        let rows: Vec<usize> = (0..stays.len()).filter(|&row| stays[row]).collect();
        data.digest_of(&rows)
    };
    let exact = [&split.forget[..], &split.duplicates, &split.earlier].concat();
    let mut digests = vec![leave(&mut stays, &exact)?];
    let near: Vec<usize> = split.near_set_aside().collect();
    if !near.is_empty() {
        digests.push(leave(&mut stays, &near)?);
    }
    Ok(digests)
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
