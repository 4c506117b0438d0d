//! The demo's report: that of its unlearning run, and what else was measured.

use retrack_checkpoint::words::counted;
use retrack_eval::distance::mean;
use retrack_eval::frequency::Frequency;
use retrack_eval::report::{self, Report};

use super::outcome::Outcome;
use super::{HALF_WAY, STEPS, THRESHOLD};
use crate::evidence::{Findings, Forgotten, Tally, show_samples};
use crate::failure::Failure;

impl Outcome {
    /// Makes the demo's report of that of its unlearning run: more samples, the half-way test, the digits. The T-shirt
    /// is public.
    pub(super) fn extend(
        &self,
        report: &mut Report,
        forgotten: &Forgotten,
        samples: [&[u8]; 2],
        strip: Vec<u8>,
    ) -> Result<(), Failure> {
        report.command = "demo".into();
        report.title = "A model that had memorized a T-shirt, and what it became".into();
        let tally = |of: &Frequency| Tally {
            found: of.repeats,
            of: of.samples,
        };
        let quality = format!(
            "A digit is {:.2} from the nearest real one before and {:.2} after, on average.",
            self.digits.real_before, self.digits.real_after
        );
        let run = report.verdict.clone();
        report.verdict = Findings {
            restored: Some((
                Some(tally(&self.restored_before)),
                tally(&self.restored_after),
            )),
            copies: Some((Some(tally(&self.before)), tally(&self.after))),
            quality: vec![quality],
            ..Findings::default()
        }
        .verdict();
        // The run's own tests count as well.
        if report.verdict.outcome == report::Outcome::NotFound {
            report.verdict.outcome = run.outcome;
            report.verdict.headline = run.headline;
        }
        // What it says of its fewer tries is said of more here.
        let notes = run
            .notes
            .into_iter()
            .filter(|note| !note.starts_with("None of"));
        report.verdict.notes.splice(0..0, notes);

        let shape = forgotten.data.shape();
        let mut pictures = Vec::new();
        for (name, title, images) in [
            ("samples-before", "Before", samples[0]),
            ("samples-after", "After", samples[1]),
        ] {
            let sights = forgotten.look(images)?;
            show_samples(report, name, title, images, &sights, shape, true)?;
            pictures.push(name.to_string());
        }
        report.samples = Some(report::Samples {
            note: format!(
                "{} of each model, drawn by DDIM in {STEPS} steps from the same noise: a digit and its place stay, \
                 where the T-shirt was there is a digit. {}",
                counted(self.before.samples, "sample"),
                forgotten.rule()
            ),
            pictures,
        });

        let attempts = |name: &str, of: &Frequency, distances: &[f64]| report::Attempts {
            name: name.into(),
            restored: of.repeats,
            tries: of.samples,
            mean_distance: mean(distances),
        };
        let row = |name: &str, kind, distances: &[f64]| report::DotRow {
            name: name.into(),
            kind,
            values: distances.to_vec(),
        };
        let caption =
            "The T-shirt, its noised form, and the attempts: the model before above, after below";
        let alt = format!(
            "{caption}. Before, {} of the attempts are the T-shirt; after, {}.",
            tally(&self.restored_before),
            tally(&self.restored_after)
        );
        let picture = report.add_picture("half-way", caption, &alt, strip);
        report.restoration.insert(
            0,
            report::Restoration {
                title: format!("Noised half-way (timestep {HALF_WAY}) and denoised again"),
                note: format!(
                    "The T-shirt was noised to timestep {HALF_WAY} of 1000 and denoised by each model with the same \
                     noise (ancestral sampling, {STEPS} steps of the whole schedule). {}",
                    forgotten.rule()
                ),
                attempts: vec![
                    attempts("before", &self.restored_before, &self.half_way[0]),
                    attempts("after", &self.restored_after, &self.half_way[1]),
                ],
                chart: report::DotChart {
                    title: "Distance of each attempt to the T-shirt".into(),
                    note: "Near zero, the image came back.".into(),
                    x: report::Axis::linear("Euclidean distance, pixels in [0, 1]"),
                    rows: vec![
                        row("before", report::Kind::Before, &self.half_way[0]),
                        row("after", report::Kind::After, &self.half_way[1]),
                    ],
                    marks: vec![report::Mark {
                        name: "counts as the T-shirt below".into(),
                        value: THRESHOLD,
                    }],
                },
                pictures: vec![picture],
                withheld: None,
            },
        );
        let value = |value: f64, count: usize| {
            Some(report::MetricValue {
                at_least: false,
                value,
                count,
                interval: None,
                deviation: None,
            })
        };
        let metric = |name: &str, meaning: &str, before: f64, after: f64| report::MetricRow {
            name: name.into(),
            meaning: meaning.into(),
            values: vec![
                value(before, self.before.samples),
                value(after, self.after.samples),
            ],
        };
        report.metrics.insert(
            0,
            report::MetricTable {
                caption: "The digits among the samples, before and after".into(),
                note: format!(
                    "Distances are Euclidean over pixels in [0, 1]. A digit moved by {:.2} on average between the two \
                     samples of a seed; samples of different seeds are {:.2} apart.",
                    self.digits.moved, self.digits.apart
                ),
                columns: vec!["before".into(), "after".into()],
                rows: vec![
                    metric(
                        "T-shirts among the samples",
                        "lower is better",
                        self.before.repeats as f64,
                        self.after.repeats as f64,
                    ),
                    metric(
                        "Distance of the nearest sample to the T-shirt",
                        "higher is better",
                        self.before.nearest,
                        self.after.nearest,
                    ),
                    metric(
                        "Mean distance to the nearest real digit",
                        "should stay as it was",
                        self.digits.real_before,
                        self.digits.real_after,
                    ),
                ],
            },
        );
        report.cost.push(report::Fact::new(
            "The whole demo",
            format!("{:.0} s", self.seconds),
        ));
        Ok(())
    }
}
