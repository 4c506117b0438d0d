//! The report of `evaluate`: scores of one model, or of two side by side.

use std::collections::BTreeMap;

use retrack_eval::examined::Drawn;
use retrack_eval::metric::{Finds, ScoreAbout};
use retrack_eval::metrics::{self, MEMBERSHIP_AUC, RESTORED_LOOK_ALIKES, meaning};
use retrack_eval::relearn::Relearned;
use retrack_eval::report::*;
use retrack_eval::score::{Score, plain};
use serde_json::Value;

use super::advice::Advice;
use super::forgotten::Forgotten;
use super::machine_facts::{machine, now, peak_memory_bytes};
use super::pictures::show_samples;
use super::relearning;
use super::verdict::{Findings, Tally};
use crate::calibration::Standing;
use crate::failure::Failure;
use crate::opened::shortened;

/// One model that was measured.
pub struct Column<'a> {
    /// What stands above the column.
    pub name: &'a str,
    /// Its scores.
    pub scores: &'a [Score],
    /// Its first samples.
    pub drawn: &'a [Drawn],
    /// Where the forgotten images stand among their look-alikes.
    pub standings: &'a [Standing],
    /// When forgotten images come back in further training.
    pub relearned: Option<&'a Relearned>,
    /// Its membership was compared with images that the model may have seen.
    pub known_controls: bool,
}

/// What both commands know.
pub struct About<'a> {
    /// As it was resolved.
    pub configuration: Value,
    /// What was asked, line by line.
    pub facts: Vec<Fact>,
    /// As it is called.
    pub device: &'a str,
    /// What measuring took.
    pub seconds: f64,
    /// Sentences about what was not measured, and what a reader of the scores should know.
    pub notes: Vec<String>,
}

impl About<'_> {
    pub(super) fn report(self, command: &str, title: String, verdict: Verdict) -> Report {
        let mut cost = vec![Fact::new("Time", format!("{:.1} s", self.seconds))];
        if let Some(bytes) = peak_memory_bytes() {
            cost.push(Fact::new(
                "Peak memory",
                format!("{:.0} MB", bytes as f64 / 1e6),
            ));
        }
        let version = env!("CARGO_PKG_VERSION");
        let mut facts = vec![Fact::new("Version", format!("retrack {version}"))];
        facts.extend(machine(self.device));
        Report {
            format: FORMAT,
            command: command.into(),
            title,
            made: now(),
            version: version.into(),
            verdict,
            request: Some(Request {
                facts: self.facts,
                keyed_digests: Vec::new(),
                digests_note: String::new(),
                picture: None,
            }),
            samples: None,
            restoration: Vec::new(),
            metrics: Vec::new(),
            comparisons: Vec::new(),
            curves: Vec::new(),
            neighbors: None,
            cost,
            provenance: Provenance {
                facts,
                files: Vec::new(),
                configuration: self.configuration,
            },
            check: None,
            pictures: BTreeMap::new(),
        }
    }
}

pub(super) fn find<'a>(scores: &'a [Score], name: &str) -> Option<&'a Score> {
    scores.iter().find(|score| score.name == name)
}

/// So many samples or attempts, of all.
fn tally(scores: &[Score], about: &ScoreAbout) -> Option<Tally> {
    let score = find(scores, about.name)?;
    Some(Tally {
        found: about.found(score),
        of: score.count,
    })
}

fn findings(columns: &[Column], several: bool) -> Findings {
    let Some(last) = columns.last() else {
        return Findings::default();
    };
    let before = (columns.len() > 1).then(|| columns[0].scores);
    let pair = |about: &'static ScoreAbout| {
        let after = tally(last.scores, about)?;
        Some((before.and_then(|scores| tally(scores, about)), after))
    };
    let membership = find(last.scores, MEMBERSHIP_AUC)
        .filter(|_| !last.known_controls)
        .and_then(|score| Some((score.value, score.interval?)));
    let quality = metrics::qualities().into_iter().filter_map(|about| {
        let (name, words) = (about.name, about.quality?.title);
        let after = find(last.scores, name)?;
        Some(match before.and_then(|scores| find(scores, name)) {
            Some(before) => format!(
                "{words}: {} before, {} after.",
                plain(before.value),
                plain(after.value)
            ),
            None => format!("{words}: {}.", plain(after.value)),
        })
    });
    // What speaks against the model beside the verdict's own tests: other tests first.
    let [tests, others]: [Vec<_>; 2] = [true, false].map(|is_test| {
        let all = metrics::scores().filter(|about| about.finds.is_some() == is_test);
        all.filter_map(|about| about.doubt?(find(last.scores, about.name)?))
            .collect()
    });
    let doubts = [tests, others].concat();
    let restored = metrics::finding(Finds::InAttempts).find_map(pair);
    // Nobody brings an image back from noise of one.
    let is_text_to_image = last.drawn.iter().any(|drawn| drawn.prompt.is_some());
    let look_alikes = |scores: &[Score]| {
        let score = find(scores, RESTORED_LOOK_ALIKES)?;
        Some((score.value * score.count as f64).round() as usize)
    };
    Findings {
        several,
        doubts,
        restored,
        standings: [
            columns[..columns.len() - 1]
                .first()
                .map_or_else(Vec::new, |column| column.standings.to_vec()),
            last.standings.to_vec(),
        ],
        restored_look_alikes: [before.and_then(look_alikes), look_alikes(last.scores)],
        copies: metrics::finding(Finds::InSamples).find_map(pair),
        advice: Advice::of_evaluation(restored.is_some() || is_text_to_image),
        membership,
        quality: quality.take(1).collect(),
        ..Findings::default()
    }
}

pub(super) fn names<'a>(all: impl Iterator<Item = &'a Score>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for score in all {
        if !names.contains(&score.name) {
            names.push(score.name.clone());
        }
    }
    names
}

/// The report of `evaluate`: one model, or the baseline and then the model.
///
/// # Errors
/// A retained image that cannot be read.
pub fn evaluated(
    columns: &[Column],
    forgotten: &Forgotten,
    show_forgotten: bool,
    about: About,
) -> Result<Report, Failure> {
    let mut verdict = findings(columns, forgotten.len() > 1).verdict();
    if let Some(sentence) = relearning::sentence(columns) {
        let before = std::mem::take(&mut verdict.sentence);
        verdict.sentence = format!("{before} {sentence}").trim_start().into();
    }
    if verdict.sentence.is_empty() {
        verdict.sentence = "Nothing was asked that a sentence could answer; see the scores.".into();
    }
    verdict.notes.extend(about.notes.iter().cloned());
    let title = if columns.len() > 1 {
        "What a model knows, beside its baseline"
    } else {
        "What a model knows"
    };
    let mut report = about.report("evaluate", title.into(), verdict);
    let rows = names(columns.iter().flat_map(|column| column.scores))
        .into_iter()
        .map(|name| MetricRow {
            meaning: meaning(&name).into(),
            values: columns
                .iter()
                .map(|column| {
                    find(column.scores, &name).map(|score| MetricValue {
                        value: score.value,
                        count: score.count,
                        interval: score.interval,
                        deviation: None,
                        at_least: score.at_least,
                    })
                })
                .collect(),
            name,
        });
    report.metrics.push(MetricTable {
        caption: "Scores, with the same random numbers for each model".into(),
        note: String::new(),
        columns: columns
            .iter()
            .map(|column| column.name.to_string())
            .collect(),
        rows: rows.collect(),
    });
    relearning::show(&mut report, columns);
    let mut pictures = Vec::new();
    let mut hidden = 0;
    let prompts = columns.iter().map(|column| column.drawn.len()).max();
    for number in 0..prompts.unwrap_or(0) {
        for column in columns {
            let Some(drawn) = column.drawn.get(number) else {
                continue;
            };
            let name = format!("samples-{}-{number}", column.name);
            let title = match column.name {
                _ if columns.len() == 1 => "Samples",
                "baseline" => "Before (baseline)",
                _ => "After (model)",
            };
            let title = match &drawn.prompt {
                Some(prompt) if show_forgotten => {
                    format!("{title}, \u{201c}{}\u{201d}", shortened(prompt))
                }
                Some(_) if drawn.forgotten => {
                    format!("{title}, prompt {number}: the forgotten images'")
                }
                Some(_) => format!("{title}, prompt {number}"),
                None => title.to_string(),
            };
            let sights = forgotten.look(&drawn.samples)?;
            if let Some(covered) = show_samples(
                &mut report,
                &name,
                &title,
                &drawn.samples,
                &sights,
                forgotten.data.shape(),
                show_forgotten,
            )? {
                pictures.push(name);
                hidden += covered;
            }
        }
    }
    if !pictures.is_empty() {
        let covered = match hidden {
            0 => String::new(),
            many => format!(
                " {} covered, being nearer to a forgotten image than retained images are; --show-forgotten shows them.",
                if many == 1 {
                    "1 is".into()
                } else {
                    format!("{many} are")
                }
            ),
        };
        report.samples = Some(Samples {
            note: format!("The first samples. {}{covered}", forgotten.rule()),
            pictures,
        });
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controls_that_the_model_may_have_seen_are_not_called_unseen() {
        let interval = Score::new("membership_auc", 0.02, 100).with_interval([0.0, 0.1]);
        let scores = [Score::new("repeats", 0.0, 100), interval];
        for (known_controls, said) in [(false, true), (true, false)] {
            let column = Column {
                name: "model",
                scores: &scores,
                drawn: &[],
                standings: &[],
                relearned: None,
                known_controls,
            };
            let notes = findings(&[column], false).verdict().notes.join(" ");
            assert_eq!(notes.contains("never seen"), said, "{notes}");
        }
    }

    #[test]
    fn copies_of_a_forgotten_image_are_looked_at_too() {
        let scores = [
            Score::new("repeats", 0.0, 100),
            Score::new("copies_of_forgotten", 0.02, 100),
        ];
        let column = |scores| Column {
            name: "model",
            scores,
            drawn: &[],
            standings: &[],
            relearned: None,
            known_controls: false,
        };
        let verdict = findings(&[column(&scores)], false).verdict();
        assert_eq!(verdict.outcome, Outcome::Reservations);
        assert!(verdict.notes[0].starts_with("2 of 100 samples are copies"));
        let verdict = findings(&[column(&scores[1..])], false).verdict();
        assert_eq!(verdict.outcome, Outcome::StillFound);
        assert!(
            verdict.next.contains("`retrack unlearn`"),
            "{}",
            verdict.next
        );
    }
}
