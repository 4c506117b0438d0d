//! What a model was to forget, and what it was to keep.

use std::cell::OnceCell;

use retrack_data::{Dataset, Split};
use retrack_eval::clusters::Clusters;
use retrack_eval::copies::{CopiesError, NEIGHBORS, Training};
use retrack_eval::frechet::FeatureStatistics;
use retrack_eval::sscd::Embedding;

use super::{Judges, Prompts};
use crate::evidence::{Forgotten, Rule};
use crate::failure::Failure;
use crate::model;
use crate::progress;

/// Forgotten images that others are compared with by SSCD, at most.
const KNOWN: usize = 512;

/// What a model was to forget, and what it was to keep.
pub struct Subject<'a> {
    pub data: &'a Dataset,
    pub(super) judges: &'a Judges,
    pub split: Split,
    /// What a text-to-image model is asked to draw.
    pub(super) prompts: Option<&'a Prompts>,
    /// The forgotten images against all others, where there are prompts.
    pub clusters: Option<Clusters>,
    /// Each forgotten image once.
    pub forgotten: Forgotten<'a>,
    /// Of each: what is nearer counts as it. Euclidean distance, pixels in [0, 1]. None where there are prompts.
    pub thresholds: Vec<f64>,
    /// What is the same for every model: the training images that samples may copy, and of the retained images by the
    /// digit classifier and by Inception, with the classes that they are of.
    training: OnceCell<Training<'a>>,
    known: OnceCell<Vec<Embedding>>,
    pub(super) digits: OnceCell<(Vec<i64>, FeatureStatistics)>,
    pub(super) features: OnceCell<(Vec<i64>, FeatureStatistics)>,
}

impl<'a> Subject<'a> {
    /// `prompts`: of a text-to-image model. `threshold`: of all images, where one was given.
    ///
    /// # Errors
    /// A selection that means nothing, an image that cannot be read, no images that would give a threshold.
    pub fn new(
        data: &'a Dataset,
        forget: &[String],
        prompts: Option<&'a Prompts>,
        judges: &'a Judges,
        threshold: Option<f64>,
    ) -> Result<Self, Failure> {
        let split = Split::new(data, &model::select(forget, data)?, model::BUDGET)?;
        let rule = threshold.map_or(Rule::Half, Rule::Threshold);
        let forgotten = Forgotten::new(data, &split, rule)?;
        Ok(Self {
            data,
            judges,
            prompts,
            clusters: match prompts {
                Some(_) => Some(clusters(data, &split)?),
                None => None,
            },
            thresholds: match (prompts, threshold) {
                (Some(_), _) => Vec::new(),
                (None, Some(threshold)) => vec![threshold; forgotten.len()],
                (None, None) => forgotten.half_ways()?,
            },
            split,
            forgotten,
            training: OnceCell::new(),
            known: OnceCell::new(),
            digits: OnceCell::new(),
            features: OnceCell::new(),
        })
    }

    /// The forgotten images with the rule by which a picture counts as one of them.
    pub fn looked_for(&self) -> Forgotten<'_> {
        let forgotten = self.forgotten.clone();
        match &self.clusters {
            Some(clusters) => Forgotten {
                rule: Rule::Cluster(clusters),
                ..forgotten
            },
            None => forgotten,
        }
    }

    pub(super) fn images(&self) -> impl Iterator<Item = &[u8]> {
        self.forgotten.images()
    }

    /// Retained images of these classes, or all: bytes, one after another.
    pub(super) fn read(&self, rows: &[usize]) -> Result<Vec<u8>, Failure> {
        let mut image = vec![0; self.data.shape().bytes()];
        let mut pixels = Vec::with_capacity(rows.len() * image.len());
        for &row in rows {
            self.data.read(row, &mut image)?;
            pixels.extend_from_slice(&image);
        }
        Ok(pixels)
    }

    /// The retained rows that samples of these classes are like; of a network without classes, all.
    pub(super) fn like(&self, classes: &[i64]) -> Vec<usize> {
        let rows = self.split.retain.iter().copied();
        if classes.is_empty() {
            return rows.collect();
        }
        let is_like = |row: &usize| {
            let label = self.data.label(*row);
            label.is_some_and(|label| classes.contains(&label))
        };
        rows.filter(is_like).collect()
    }

    /// The images that samples may be copies of.
    pub(super) fn training(&self) -> Result<&Training<'a>, CopiesError> {
        if let Some(training) = self.training.get() {
            return Ok(training);
        }
        let rows = [&self.split.forget[..], &self.split.duplicates].concat();
        let training = Training::new(self.data, &rows, model::BUDGET)?;
        Ok(self.training.get_or_init(|| training))
    }

    /// Why copies cannot be told among so few images.
    pub(super) fn too_few_for_copies(&self) -> Option<String> {
        match self.training().and_then(|all| all.enough(NEIGHBORS)) {
            Err(error @ CopiesError::Few { .. }) => Some(error.to_string()),
            // What cannot be read is no lack: it fails when it is measured.
            _ => None,
        }
    }

    /// The forgotten images as SSCD sees them, and whether these are not all.
    pub(super) fn known(&self) -> Result<&[Embedding], Failure> {
        if let Some(known) = self.known.get() {
            return Ok(known);
        }
        let sscd = self.judges.sscd.as_ref();
        let sscd = sscd.ok_or_else(|| Failure::failed("SSCD was not read"))?;
        let shape = self.data.shape();
        let count = self.forgotten.len().min(KNOWN);
        let bar = progress::bar("sscd", count, "images");
        let mut known = Vec::with_capacity(count);
        for image in self.images().take(KNOWN) {
            let shape = [shape.height, shape.width, shape.channels];
            known.extend(sscd.embed(image, shape).map_err(Failure::failed)?);
            bar.inc(1);
        }
        drop(bar);
        Ok(self.known.get_or_init(|| known))
    }

    /// Says of a metric that it looked at the first `most` forgotten images, where there are more.
    pub(super) fn only_the_first(&self, name: &str, most: usize) -> Option<String> {
        let all = self.forgotten.len();
        (all > most).then(|| format!("{name} rests on the first {most} of {all} forgotten images"))
    }

    /// The same of SSCD's comparisons.
    pub(super) fn only_known(&self) -> Option<String> {
        self.only_the_first("sscd", KNOWN)
    }
}

/// The forgotten images and their copies against all others.
fn clusters(data: &Dataset, split: &Split) -> Result<Clusters, Failure> {
    let mut memorized = vec![false; data.len()];
    for &row in split.forget.iter().chain(&split.duplicates) {
        memorized[row] = true;
    }
    let clusters = Clusters::of(&memorized, data.shape().bytes(), |row, image| {
        data.read(row, image)
    })?;
    clusters.ok_or_else(|| {
        Failure::input("all images are to be forgotten; there is nothing to compare samples with")
    })
}
