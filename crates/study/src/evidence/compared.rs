//! The report of `experiment`: methods side by side over their runs.

use retrack_checkpoint::words::{counted, listed};
use retrack_eval::metric::{Best, Quality, ScoreAbout};
use retrack_eval::metrics::{self, meaning};
use retrack_eval::report::*;
use retrack_eval::score::{Score, Spread, plain};

use super::comparison::{About, find, names};

/// The scores that find a forgotten image or do not: above 0, it is found.
fn tests() -> impl Iterator<Item = &'static str> {
    let tests = metrics::scores().filter(|score| score.finds.is_some());
    tests.map(|score| score.name)
}

/// The methods of which a run still showed a forgotten image.
pub fn still_found(lines: &[Line]) -> Vec<&str> {
    let shows = |line: &&Line| {
        let mut values = tests().flat_map(|test| line.values(test));
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
    /// Names of the runs whose model lost what it should keep.
    pub collapsed: Vec<String>,
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
    let lacks = lines.iter().any(|line| {
        let mut values = names.iter().map(|name| line.values(name));
        values.any(|values| values.len() < line.runs.len())
    });
    let mut report = about.report("experiment", title, verdict);
    report.metrics.push(MetricTable {
        caption: "Mean and standard deviation over the runs of each method".into(),
        note: format!(
            "Each value rests on as many runs as it says, each with the samples that the configuration names{}.",
            match lacks {
                true => "; a run that lacks one is named above",
                false => "",
            }
        ),
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
                        let scores = line.runs.iter().filter_map(|scores| find(scores, name));
                        Some(MetricValue {
                            at_least: scores.into_iter().any(|score| score.at_least),
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

/// Where the original shows no forgotten image either, that a method shows none says nothing.
fn nothing_to_forget(lines: &[Line], tests: &[&str]) -> Option<String> {
    let original = lines.iter().find(|line| line.name == "original")?;
    let values: Vec<f64> = tests
        .iter()
        .flat_map(|test| original.values(test))
        .collect();
    let more = match tests.contains(&"restored") {
        true => "more samples may",
        false => "more samples may, or `injection` among the metrics",
    };
    (!values.is_empty() && values.iter().all(|value| *value == 0.0)).then(|| {
        format!(
            "The original model did not show a forgotten image in these tests either, so they say nothing about \
             forgetting: {more}."
        )
    })
}

/// Which methods never showed the image, and which of them kept quality best.
fn comparison(lines: &[Line], seeds: usize, names: &[String]) -> Verdict {
    let tests: Vec<&str> = tests()
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
        let seeds = counted(seeds, "seed");
        if !list.is_empty() {
            sentences.push(format!(
                "{} of {} never showed a forgotten image over {seeds}: {}.",
                clean.len(),
                counted(methods.len(), "method"),
                list.join(", ")
            ));
        }
        if list.is_empty() && !found.is_empty() {
            sentences.push(format!(
                "A forgotten image is still found with {} over {seeds}.",
                listed(&found)
            ));
        }
    }
    let (collapsed, clean): (Vec<&Line>, Vec<&Line>) = clean
        .into_iter()
        .partition(|line| !line.collapsed.is_empty());
    let lost: Vec<&Line> = methods
        .iter()
        .copied()
        .filter(|line| !line.collapsed.is_empty())
        .collect();
    for line in &lost {
        sentences.push(format!(
            "{} lost what it should keep in {}, so it is no success.",
            line.name,
            listed(&line.collapsed)
        ));
    }
    if !tests.is_empty() && !unknown.is_empty() {
        sentences.push(format!(
            "Of {} it is not known: a run or a test failed.",
            unknown.join(", ")
        ));
    }
    let quality = metrics::qualities()
        .into_iter()
        .find(|about| names.iter().any(|known| known == about.name));
    if let Some(ScoreAbout {
        name,
        quality: Some(Quality { title, .. }),
        best: Some(end),
        ..
    }) = quality
    {
        let mean = |line: &Line| Spread::of(&line.values(name)).map(|spread| spread.mean);
        let kept: Vec<&Line> = methods
            .iter()
            .copied()
            .filter(|line| line.collapsed.is_empty())
            .collect();
        let among = if clean.is_empty() || tests.is_empty() {
            &kept
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
                "{title} is {} with {} ({}{}).",
                match end {
                    Best::Lowest => "lowest",
                    Best::Highest => "highest",
                },
                line.name,
                plain(value),
                original.map_or_else(String::new, |value| format!(
                    "; the original model: {}",
                    plain(value)
                ))
            ));
        }
    }
    Verdict {
        outcome: Outcome::Measured,
        headline: "Compared".into(),
        sentence: sentences.join(" "),
        notes: nothing_to_forget(lines, &tests).into_iter().collect(),
        next: match (found.as_slice(), clean.as_slice()) {
            ([], _) if collapsed.is_empty() => String::new(),
            ([], [_, ..]) => String::new(),
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
    use serde_json::Value;

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
            collapsed: Vec::new(),
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
    fn where_the_original_shows_nothing_the_tests_are_said_to_say_nothing() {
        let lines = [
            line("original", &[0.0, 0.0], 10.0),
            line("retrack", &[0.0, 0.0], 11.0),
        ];
        let notes = compared(&lines, 2, about()).verdict.notes;
        assert!(
            notes[0].contains("they say nothing about forgetting"),
            "{notes:?}"
        );
        assert_eq!(notes.len(), 2);
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
            report
                .verdict
                .sentence
                .starts_with("Of siss it is not known: a run or a test failed."),
            "{}",
            report.verdict.sentence
        );
        let value = report.metrics[0].rows[0].values[1].unwrap();
        assert_eq!((value.value, value.count), (0.0, 1));
        assert!(still_found(&lines).is_empty());
    }

    #[test]
    fn a_model_that_lost_what_it_should_keep_is_named_and_never_the_best() {
        let mut lines = [
            line("original", &[3.0], 10.0),
            line("retrack", &[0.0], 11.0),
            line("neggrad", &[0.0], 5.0),
        ];
        lines[2].collapsed = vec!["neggrad-seed0-forget0".into()];
        let said = compared(&lines, 1, about()).verdict.sentence;
        assert!(
            said.contains("neggrad lost what it should keep in neggrad-seed0-forget0"),
            "{said}"
        );
        assert!(said.contains("is lowest with retrack"), "{said}");
        // Where it is the only one, nothing is best.
        lines[1].collapsed = vec!["retrack-seed0-forget0".into()];
        let verdict = compared(&lines, 1, about()).verdict;
        assert!(!verdict.sentence.contains("lowest"), "{verdict:?}");
        assert!(verdict.next.contains("--config"), "{verdict:?}");
    }

    #[test]
    fn what_was_measured_is_not_advised() {
        let run = |name: &str| Line {
            name: name.into(),
            runs: vec![vec![
                Score::new("repeats", 0.0, 4),
                Score::new("restored", 0.0, 4),
            ]],
            collapsed: Vec::new(),
        };
        let note = compared(&[run("original"), run("siss")], 1, about())
            .verdict
            .notes[0]
            .clone();
        assert!(note.ends_with("forgetting: more samples may."), "{note}");
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
                .starts_with("A forgotten image is still found with siss over 1 seed."),
            "{}",
            found.verdict.sentence
        );
    }
}
