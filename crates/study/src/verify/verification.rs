//! What a verification compared, and what it found.

use std::path::PathBuf;

use serde::Serialize;
use serde_json::{Value, json};

use crate::evidence::Numbers;
use crate::reopened::WeightFacts;

/// Errors and distances may differ by this share: another processor rounds otherwise.
const TOLERANCE: f64 = 1e-2;

/// What was compared, and what differs.
#[derive(Debug, Clone)]
pub struct Verification {
    /// The run's own folder.
    pub folder: PathBuf,
    /// How many files, numbers and digests.
    pub compared: usize,
    /// Sentences.
    pub differences: Vec<String>,
    /// What cannot be measured any more, since the forgotten images are not there. Sentences.
    pub not_measured: Vec<String>,
    /// The scores.
    pub measured: Measured,
}

/// What was measured again, as `report.json` records it.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Measured {
    /// Of the base model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Numbers>,
    /// Of the model that was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Numbers>,
    /// How the weights differ.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<WeightFacts>,
}

impl Verification {
    pub(super) fn of(folder: PathBuf) -> Self {
        Self {
            folder,
            compared: 0,
            differences: Vec::new(),
            not_measured: Vec::new(),
            measured: Measured::default(),
        }
    }

    /// Whether all is as it is recorded.
    pub fn is_same(&self) -> bool {
        self.differences.is_empty()
    }

    /// For programs.
    pub fn json(&self) -> Value {
        json!({
            "same": self.is_same(),
            "compared": self.compared,
            "differences": self.differences,
            "not_measured": self.not_measured,
            "measured": self.measured,
        })
    }

    /// Of a run that is as it is recorded, a sentence.
    pub fn sentence(&self) -> String {
        if !self.not_measured.is_empty() {
            return format!(
                "same as far as it can be seen: {} files, numbers and digests of {} are as recorded, and no score was measured again",
                self.compared,
                self.folder.display()
            );
        }
        format!(
            "same: {} files, numbers and digests of {} are as recorded{}",
            self.compared,
            self.folder.display(),
            match self.measured.before {
                None => "; no score was measured again",
                Some(_) => "",
            }
        )
    }

    pub(super) fn differs(&mut self, what: impl Into<String>) {
        self.differences.push(what.into());
    }

    pub(super) fn equal(&mut self, name: &str, recorded: &str, now: &str) {
        self.compared += 1;
        if recorded != now {
            self.differs(format!("{name}: {recorded} recorded, {now} now"));
        }
    }

    /// Compares what a model was measured to be. `name`: of the model.
    pub(super) fn numbers(&mut self, name: &str, recorded: &Numbers, now: &Numbers) {
        for (what, then, now) in [
            (
                "samples that show a forgotten image",
                recorded.copies,
                now.copies,
            ),
            ("samples", recorded.samples, now.samples),
            (
                "attempts that restored one",
                recorded.restored,
                now.restored,
            ),
            (
                "samples and attempts that are not finite",
                recorded.broken,
                now.broken,
            ),
        ] {
            self.equal(
                &format!("{name}: {what}"),
                &then.to_string(),
                &now.to_string(),
            );
        }
        let of_look_alikes = |numbers: &Numbers| -> Vec<f64> {
            let standings = numbers.standings.iter();
            standings
                .flat_map(|one| one.look_alikes.iter().chain([&one.own]).chain(&one.profile))
                .copied()
                .collect()
        };
        let look_alikes = [recorded, now].map(of_look_alikes);
        for (what, then, now) in [
            (
                "errors beside those of look-alikes",
                &look_alikes[0],
                &look_alikes[1],
            ),
            (
                "distances of the attempts",
                &recorded.distances,
                &now.distances,
            ),
            (
                "denoising errors of forgotten images",
                &recorded.forgotten_errors,
                &now.forgotten_errors,
            ),
            (
                "denoising errors of controls",
                &recorded.control_errors,
                &now.control_errors,
            ),
        ] {
            self.compared += now.len();
            let apart = |(then, now): (&f64, &f64)| (then - now).abs() / then.abs().max(1e-9);
            // Not a number is as far as can be from a number, and is itself again.
            let apart = |pair: (&f64, &f64)| match (pair.0.is_finite(), pair.1.is_finite()) {
                (false, false) => Some(0.0),
                _ => Some(apart(pair)).filter(|apart| !apart.is_nan()),
            };
            let furthest = then
                .iter()
                .zip(now)
                .map(|pair| apart(pair).unwrap_or(f64::INFINITY))
                .fold(0.0, f64::max);
            if then.len() != now.len() {
                self.differs(format!(
                    "{name}: {what}: {} recorded, {} now",
                    then.len(),
                    now.len()
                ));
            } else if furthest > TOLERANCE {
                self.differs(format!(
                    "{name}: {what}: up to {:.1}% apart",
                    100.0 * furthest
                ));
            }
        }
    }
}
