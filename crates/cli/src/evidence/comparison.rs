//! The reports of `evaluate` and `experiment`: scores of several models side by side.

use std::collections::BTreeMap;

use retrack_eval::report::*;
use retrack_eval::score::{Score, Spread};
use serde_json::Value;

use super::counted;
use super::forgotten::Forgotten;
use super::machine_facts::{machine, now, peak_memory_bytes};
use super::pictures::show_samples;
use super::verdict::{Advice, Findings, Tally};
use crate::evaluation::Drawn;
use crate::failure::Failure;
use crate::latent::shortened;

/// One model that was measured.
pub struct Column<'a> {
    pub name: &'a str,
    pub scores: &'a [Score],
    /// Its first samples.
    pub drawn: &'a [Drawn],
}

/// What both commands know.
pub struct About<'a> {
    /// As it was resolved.
    pub configuration: Value,
    pub facts: Vec<Fact>,
    pub device: &'a str,
    pub seconds: f64,
    /// Sentences about what was not measured, and what a reader of the scores should know.
    pub notes: Vec<String>,
}

impl About<'_> {
    fn report(self, command: &str, title: String, verdict: Verdict) -> Report {
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

fn find<'a>(scores: &'a [Score], name: &str) -> Option<&'a Score> {
    scores.iter().find(|score| score.name == name)
}

/// `repeats` and `memorized` are numbers of samples, `restored` a share of tries.
fn tally(scores: &[Score], name: &str) -> Option<Tally> {
    let score = find(scores, name)?;
    let found = if name == "repeats" || name.starts_with("memorized") {
        score.value
    } else {
        score.value * score.count as f64
    };
    Some(Tally {
        found: found.round() as usize,
        of: score.count,
    })
}

fn findings(columns: &[Column], several: bool) -> Findings {
    let Some(last) = columns.last() else {
        return Findings::default();
    };
    let before = (columns.len() > 1).then(|| columns[0].scores);
    let pair = |name| {
        let after = tally(last.scores, name)?;
        Some((before.and_then(|scores| tally(scores, name)), after))
    };
    let membership =
        find(last.scores, "membership_auc").and_then(|score| Some((score.value, score.interval?)));
    let quality = QUALITY.iter().filter_map(|(name, words, _)| {
        let after = find(last.scores, name)?;
        Some(match before.and_then(|scores| find(scores, name)) {
            Some(before) => format!(
                "{words}: {} before, {} after.",
                text(before.value),
                text(after.value)
            ),
            None => format!("{words}: {}.", text(after.value)),
        })
    });
    // Of text-to-image models: what the samples of the forgotten prompt alone do not say.
    let mut doubts = Vec::new();
    if let Some(copies) = tally(last.scores, "copies_of_forgotten").filter(|of| of.found > 0) {
        doubts.push(format!(
            "{copies} samples are copies of a forgotten image: at most half as far from it as from their 50 nearest \
             training images on average."
        ));
    }
    if let Some(others) = tally(last.scores, "memorized_modified").filter(|of| of.found > 0) {
        doubts.push(format!(
            "{others} samples of the other prompts lie in the cluster of the forgotten images."
        ));
    }
    if let Some(sscd) = find(last.scores, "sscd").filter(|score| score.value > COPY) {
        doubts.push(format!(
            "SSCD finds what is drawn or restored alike to the forgotten image: {} on average, where {COPY} is usual for \
             a copy.",
            text(sscd.value)
        ));
    }
    Findings {
        several,
        doubts,
        restored: pair("restored"),
        copies: ["repeats", "memorized", "copies_of_forgotten"]
            .into_iter()
            .find_map(pair),
        advice: Advice::of_evaluation(),
        membership,
        quality: quality.take(1).collect(),
        ..Findings::default()
    }
}

/// Which end of a score is the good one.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Best {
    Lowest,
    Highest,
}

/// Scores of quality, the one to judge by first.
const QUALITY: [(&str, &str, Best); 4] = [
    (
        "fid",
        "Frechet Inception distance to the retained images",
        Best::Lowest,
    ),
    (
        "digit_frechet",
        "Frechet distance of the digits to the retained ones",
        Best::Lowest,
    ),
    (
        "clip_iqa_modified",
        "CLIP-IQA of the other prompts' samples",
        Best::Highest,
    ),
    (
        "distance_to_data",
        "Mean distance of a sample to the nearest training image",
        Best::Lowest,
    ),
];

/// SSCD's usual threshold.
const COPY: f64 = 0.5;

fn text(value: f64) -> String {
    Spread::of(&[value]).map_or_else(String::new, |spread| spread.text())
}

/// What a score says, in plain words.
fn meaning(name: &str) -> &'static str {
    match name {
        "repeats" => "samples that count as a forgotten image; lower is better",
        "repeats_of_one" => "those that count as the forgotten image that is repeated most",
        "nearest_sample" => {
            "distance of the nearest sample to the nearest forgotten image; higher is better"
        }
        "restored" => "share of attempts that brought one back from noise; lower is better",
        "restored_distance" => {
            "mean distance of those attempts to the nearest forgotten image; higher is better"
        }
        "nll" => "bits per dimension of the forgotten images; higher: forgotten",
        "membership_auc" => "0.5: not told from images never seen; 1: known; 0: avoided",
        "forgotten_loss" => "denoising error of the forgotten images; higher: forgotten",
        "copies" => "share of samples that copy some training image",
        "copies_of_forgotten" => "share of samples that copy a forgotten image; lower is better",
        "distance_to_data" => "mean distance of a sample to the nearest training image",
        "digit_frechet" => {
            "Frechet distance in our digit classifier's features, not FID; lower is better"
        }
        "digit_score" => "score by our digit classifier, not IS; higher is better",
        "memorized" => {
            "samples of the forgotten prompt in the cluster of the forgotten images; lower is better"
        }
        "memorized_modified" => "the same of the other prompts' samples",
        "success" => "1 where none of them is; a mean over runs is the share that succeeded",
        "sscd" => {
            "likeness of such samples to the forgotten image; a copy: above 0.5; lower is better"
        }
        "sscd_modified" => "the same of the other prompts' samples",
        "clip_iqa" => "how good samples of the forgotten prompt look, 0 to 1; higher is better",
        "clip_iqa_modified" => "the same of the other prompts' samples",
        "fid" => "Frechet Inception distance to the retained images; lower is better",
        "inception_score" => "Inception score; higher is better",
        _ => "",
    }
}

fn names<'a>(all: impl Iterator<Item = &'a Score>) -> Vec<String> {
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
                Some(prompt) => format!("{title}, \u{201c}{}\u{201d}", shortened(prompt)),
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
                " {} covered, being as near to a forgotten image as no retained one is; --show-forgotten shows them.",
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

/// The scores that find a forgotten image or do not: above 0, it is found.
const TESTS: [&str; 5] = [
    "repeats",
    "restored",
    "memorized",
    "memorized_modified",
    "copies_of_forgotten",
];

/// The methods of which a run still showed a forgotten image.
pub fn still_found(lines: &[Line]) -> Vec<&str> {
    let shows = |line: &&Line| {
        let mut values = TESTS.iter().flat_map(|test| line.values(test));
        !line.is_reference() && values.any(|value| value > 0.0)
    };
    let lines = lines.iter().filter(shows);
    lines.map(|line| line.name.as_str()).collect()
}

/// The runs of one line of an experiment.
pub struct Line {
    /// `original`, `retrained` or a method.
    pub name: String,
    /// The scores of each run.
    pub runs: Vec<Vec<Score>>,
}

impl Line {
    fn values(&self, name: &str) -> Vec<f64> {
        let scores = self.runs.iter().filter_map(|scores| find(scores, name));
        scores.map(|score| score.value).collect()
    }

    fn is_reference(&self) -> bool {
        self.name == "original" || self.name == "retrained"
    }
}

/// The report of `experiment`.
pub fn compared(lines: &[Line], seeds: usize, about: About) -> Report {
    let names = names(lines.iter().flat_map(|line| line.runs.iter().flatten()));
    let mut verdict = comparison(lines, seeds, &names);
    verdict.notes.extend(about.notes.iter().cloned());
    let methods = lines.iter().filter(|line| !line.is_reference()).count();
    let title = format!(
        "{} compared over {}",
        counted(methods, "method"),
        counted(seeds, "seed")
    );
    let mut report = about.report("experiment", title, verdict);
    report.metrics.push(MetricTable {
        caption: "Mean and standard deviation over the runs of each method".into(),
        note: "Each value rests on as many runs as it says, each with the samples that the configuration names; a run \
               whose metric failed is named above."
            .into(),
        columns: lines.iter().map(|line| line.name.clone()).collect(),
        rows: names
            .iter()
            .map(|name| MetricRow {
                name: name.clone(),
                meaning: meaning(name).into(),
                values: lines
                    .iter()
                    .map(|line| {
                        let spread = Spread::of(&line.values(name))?;
                        Some(MetricValue {
                            value: spread.mean,
                            count: spread.count,
                            interval: None,
                            deviation: spread.deviation,
                        })
                    })
                    .collect(),
            })
            .collect(),
    });
    report.comparisons = names
        .iter()
        .map(|name| DotChart {
            title: name.clone(),
            note: "One mark a run.".into(),
            x: Axis::linear(
                meaning(name)
                    .split(';')
                    .next()
                    .filter(|words| !words.is_empty())
                    .unwrap_or(name),
            ),
            rows: lines
                .iter()
                .map(|line| DotRow {
                    name: line.name.clone(),
                    kind: match line.name.as_str() {
                        "original" => Kind::Before,
                        "retrained" => Kind::Control,
                        _ => Kind::After,
                    },
                    values: line.values(name),
                })
                .collect(),
            marks: Vec::new(),
        })
        .collect();
    report
}

/// Which methods never showed the image, and which of them kept quality best.
fn comparison(lines: &[Line], seeds: usize, names: &[String]) -> Verdict {
    let tests: Vec<&str> = TESTS
        .into_iter()
        .filter(|test| names.iter().any(|name| name == test))
        .collect();
    let methods: Vec<&Line> = lines.iter().filter(|line| !line.is_reference()).collect();
    let clean: Vec<&Line> = methods
        .iter()
        .copied()
        .filter(|line| {
            tests.iter().all(|test| {
                let values = line.values(test);
                !values.is_empty()
                    && values.len() == line.runs.len()
                    && values.iter().all(|value| *value == 0.0)
            })
        })
        .collect();
    let found = still_found(lines);
    let unknown: Vec<&str> = methods
        .iter()
        .map(|line| line.name.as_str())
        .filter(|name| !found.contains(name) && clean.iter().all(|line| line.name != *name))
        .collect();
    let mut sentences = Vec::new();
    if tests.is_empty() || methods.is_empty() {
        sentences.push(
            "No test in this comparison looks for the image itself; see the scores.".to_string(),
        );
    } else {
        let list: Vec<&str> = clean.iter().map(|line| line.name.as_str()).collect();
        sentences.push(format!(
            "{} of {} never showed a forgotten image over {}{}.",
            clean.len(),
            counted(methods.len(), "method"),
            counted(seeds, "seed"),
            if list.is_empty() {
                String::new()
            } else {
                format!(": {}", list.join(", "))
            }
        ));
    }
    if !tests.is_empty() && !unknown.is_empty() {
        sentences.push(format!(
            "Of {} it is not known: a test failed in some runs.",
            unknown.join(", ")
        ));
    }
    let quality = QUALITY
        .iter()
        .find(|(name, _, _)| names.iter().any(|known| known == name));
    if let Some((name, words, end)) = quality {
        let mean = |line: &Line| Spread::of(&line.values(name)).map(|spread| spread.mean);
        let among = if clean.is_empty() || tests.is_empty() {
            &methods
        } else {
            &clean
        };
        let best = among
            .iter()
            .filter_map(|line| Some((mean(line)?, line)))
            .min_by(|a, b| match end {
                Best::Lowest => a.0.total_cmp(&b.0),
                Best::Highest => b.0.total_cmp(&a.0),
            });
        if let Some((value, line)) = best {
            let original = lines
                .iter()
                .find(|line| line.name == "original")
                .and_then(mean);
            sentences.push(format!(
                "{words} is {} with {} ({}{}).",
                match end {
                    Best::Lowest => "lowest",
                    Best::Highest => "highest",
                },
                line.name,
                text(value),
                original.map_or_else(String::new, |value| format!(
                    "; the original model: {}",
                    text(value)
                ))
            ));
        }
    }
    Verdict {
        outcome: Outcome::Measured,
        headline: "Compared".into(),
        sentence: sentences.join(" "),
        notes: Vec::new(),
        next: match (found.as_slice(), clean.as_slice()) {
            ([], _) => String::new(),
            (_, []) => "give a --config FILE with more `steps` or a higher `learning_rate`, or other --methods, and \
                        another --out."
                .into(),
            (_, [first, ..]) => format!(
                "unlearn with a method that never showed it, such as `retrack unlearn --method {}`.",
                first.name
            ),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str, repeats: &[f64], distance: f64) -> Line {
        let run = |repeats: &f64| {
            vec![
                Score::new("repeats", *repeats, 100),
                Score::new("fid", distance, 100),
            ]
        };
        Line {
            name: name.into(),
            runs: repeats.iter().map(run).collect(),
        }
    }

    fn about() -> About<'static> {
        About {
            configuration: Value::Null,
            facts: Vec::new(),
            device: "cpu",
            seconds: 1.0,
            notes: vec!["fid was skipped".into()],
        }
    }

    #[test]
    fn a_comparison_names_who_never_shows_the_image_and_keeps_quality_best() {
        let lines = [
            line("original", &[3.0, 2.0], 10.0),
            line("retrack", &[0.0, 0.0], 11.0),
            line("siss", &[0.0, 0.0], 12.0),
            line("neggrad", &[0.0, 1.0], 9.0),
        ];
        let report = compared(&lines, 2, about());
        assert_eq!(
            report.verdict.sentence,
            "2 of 3 methods never showed a forgotten image over 2 seeds: retrack, siss. Frechet Inception distance to \
             the retained images is lowest with retrack (11.00; the original model: 10.00)."
        );
        assert_eq!(report.verdict.notes, ["fid was skipped"]);
        assert_eq!(report.comparisons.len(), 2);
        assert_eq!(
            report.metrics[0].rows[0].values[3].unwrap().deviation,
            Some(0.5f64.sqrt())
        );
    }

    #[test]
    fn a_run_without_its_test_is_no_run_that_never_showed_the_image() {
        let mut lines = [
            line("original", &[3.0, 2.0], 10.0),
            line("siss", &[0.0, 0.0], 12.0),
        ];
        lines[1].runs[1].remove(0);
        let report = compared(&lines, 2, about());
        assert!(
            report.verdict.sentence.starts_with(
                "0 of 1 method never showed a forgotten image over 2 seeds. Of siss it is not known: a test failed in \
                 some runs."
            ),
            "{}",
            report.verdict.sentence
        );
        let value = report.metrics[0].rows[0].values[1].unwrap();
        assert_eq!((value.value, value.count), (0.0, 1));
        assert!(still_found(&lines).is_empty());
    }

    #[test]
    fn what_to_do_next_depends_on_whether_any_method_forgot() {
        let lines = [line("siss", &[1.0], 12.0), line("retrack", &[0.0], 12.0)];
        assert_eq!(still_found(&lines), ["siss"]);
        let next = compared(&lines, 1, about()).verdict.next;
        assert!(next.contains("--method retrack"), "{next}");
        let next = compared(&lines[..1], 1, about()).verdict.next;
        assert!(
            next.contains("--config") && next.contains("`steps`"),
            "{next}"
        );
        assert_eq!(compared(&lines[1..], 1, about()).verdict.next, "");
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

    #[test]
    fn without_a_method_that_never_shows_it_nothing_is_called_forgotten() {
        let found = compared(
            &[line("original", &[3.0], 10.0), line("siss", &[1.0], 12.0)],
            1,
            about(),
        );
        assert!(
            found
                .verdict
                .sentence
                .starts_with("0 of 1 method never showed"),
            "{}",
            found.verdict.sentence
        );
    }
}
