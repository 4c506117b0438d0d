//! The table of an experiment, and what a reader of it should know.

use retrack_eval::score::{Score, Spread, Table, bounded};
use serde_json::{Value, json};

use super::outcome::Outcome;
use super::plan::Line;
use crate::evaluation::sentences;

/// What a reader of the table should know, each thing once: with the runs that it holds for, where these are not all.
pub(super) fn notes(outcomes: &[Outcome]) -> Vec<String> {
    let said = |outcome: &Outcome| {
        let skipped = sentences(&outcome.skipped, "was skipped");
        let collapse = outcome.collapse.iter().cloned().collect();
        [skipped, outcome.notes.clone(), collapse].concat()
    };
    // Of many runs a note says the same with other numbers.
    let kind = |note: &str| -> String { note.chars().filter(|c| !c.is_numeric()).collect() };
    let mut kinds: Vec<String> = Vec::new();
    let mut notes = Vec::new();
    for note in outcomes.iter().flat_map(said) {
        if kinds.contains(&kind(&note)) {
            continue;
        }
        kinds.push(kind(&note));
        let alike = |one: &String| kind(one) == kind(&note);
        let runs = outcomes.iter().filter(|run| said(run).iter().any(alike));
        let runs: Vec<String> = runs.map(|run| run.run.clone()).collect();
        let same = outcomes.iter().all(|run| said(run).contains(&note));
        notes.push(match (runs.len() == outcomes.len(), same) {
            (true, true) => note,
            (true, false) => format!("{} (others alike): {note}", runs[0]),
            (false, _) => format!("{}: {note}", named(&runs)),
        });
    }
    notes.extend(failures(outcomes));
    notes
}

/// The first of many runs, and how many more.
fn named(runs: &[String]) -> String {
    const MOST: usize = 4;
    let first = runs[..runs.len().min(MOST)].join(", ");
    match runs.len().saturating_sub(MOST) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

/// What failed, with its run.
pub(super) fn failures(outcomes: &[Outcome]) -> Vec<String> {
    let of_run = |outcome: &Outcome| {
        let name = &outcome.run;
        let unlearning = outcome.unlearning_failed.iter();
        let unlearning = unlearning.map(|reason| format!("unlearning failed: {reason}"));
        unlearning
            .chain(sentences(&outcome.failed, "failed"))
            .map(|sentence| format!("{name}: {sentence}"))
            .collect::<Vec<_>>()
    };
    outcomes.iter().flat_map(of_run).collect()
}

/// The runs whose model lost what it should keep, with what was seen.
pub(super) fn collapses(outcomes: &[Outcome]) -> Vec<String> {
    let of_run =
        |outcome: &Outcome| Some(format!("{}: {}", outcome.run, outcome.collapse.as_ref()?));
    outcomes.iter().filter_map(of_run).collect()
}

/// Names of the scores, in the order in which they were found.
fn names(outcomes: &[Outcome]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for score in outcomes.iter().flat_map(|outcome| &outcome.scores) {
        if !names.contains(&score.name) {
            names.push(score.name.clone());
        }
    }
    names
}

/// A score over the runs of a line.
fn scores<'a>(
    line: &'a str,
    name: &'a str,
    outcomes: &'a [Outcome],
) -> impl Iterator<Item = &'a Score> {
    let outcomes = outcomes.iter().filter(move |outcome| outcome.line == line);
    let scores = outcomes.flat_map(|outcome| &outcome.scores);
    scores.filter(move |score| score.name == name)
}

/// Its values.
fn values(line: &str, name: &str, outcomes: &[Outcome]) -> Vec<f64> {
    scores(line, name, outcomes)
        .map(|score| score.value)
        .collect()
}

/// Whether some of them are only bounds.
fn at_least(line: &str, name: &str, outcomes: &[Outcome]) -> bool {
    scores(line, name, outcomes).any(|score| score.at_least)
}

/// A row for each line, a column for each score.
pub(super) fn table(lines: &[Line], outcomes: &[Outcome]) -> Table {
    let names = names(outcomes);
    let mut headings = vec!["method".to_string()];
    headings.extend(names.iter().cloned());
    headings.push("runs".into());
    let rows = lines.iter().map(|line| {
        let line = line.name();
        let mut row = vec![line.clone()];
        let runs = outcomes.iter().filter(|outcome| outcome.line == line);
        let runs = runs.count();
        for name in &names {
            let values = values(&line, name, outcomes);
            let spread = Spread::of(&values).map_or_else(
                || "-".to_string(),
                |spread| bounded(spread.text(), at_least(&line, name, outcomes)),
            );
            row.push(match values.len() {
                all if all == runs => spread,
                some => format!("{spread} ({some} of {runs} runs)"),
            });
        }
        row.push(runs.to_string());
        row
    });
    Table {
        rows: rows.collect(),
        headings,
    }
}

/// The scores of a line over its runs, for programs.
pub(super) fn summarize(line: &str, outcomes: &[Outcome]) -> Value {
    let scores: serde_json::Map<String, Value> = names(outcomes)
        .into_iter()
        .filter_map(|name| {
            let spread = Spread::of(&values(line, &name, outcomes))?;
            let mut scores = json!(spread);
            if at_least(line, &name, outcomes) {
                scores["at_least"] = true.into();
            }
            Some((name, scores))
        })
        .collect();
    let runs = outcomes.iter().filter(|outcome| outcome.line == line);
    json!({"line": line, "runs": runs.count(), "scores": scores})
}

#[cfg(test)]
mod tests {
    use retrack_eval::metrics::named;
    use retrack_unlearn::objective::{Method, NegGrad, Siss};

    use super::*;
    use crate::evaluation::Missing;

    fn outcome(line: &str, seed: u64, nll: Option<f64>) -> Outcome {
        let missing = |reason: &str| Missing {
            metric: named("nll").unwrap(),
            reason: reason.into(),
        };
        Outcome {
            run: format!("{line}-seed{seed}-forget0"),
            line: line.into(),
            seed,
            forget: "row:1".into(),
            settings: Value::Null,
            seconds: None,
            measuring_seconds: 0.0,
            scores: nll.iter().map(|&nll| Score::new("nll", nll, 1)).collect(),
            skipped: Vec::new(),
            failed: match nll {
                Some(_) => Vec::new(),
                None => vec![missing("not finite")],
            },
            unlearning_failed: None,
            collapse: None,
            notes: Vec::new(),
        }
    }

    fn outcomes() -> Vec<Outcome> {
        vec![
            outcome("original", 0, Some(3.0)),
            outcome("original", 1, Some(5.0)),
            outcome("siss", 0, Some(2.0)),
            outcome("siss", 1, None),
            outcome("neggrad", 0, None),
            outcome("neggrad", 1, None),
        ]
    }

    #[test]
    fn a_metric_that_failed_is_named_with_its_run_and_counts_no_run_that_lacks_it() {
        let outcomes = outcomes();
        let failed = [
            "siss-seed1-forget0: nll failed: not finite",
            "neggrad-seed0-forget0: nll failed: not finite",
            "neggrad-seed1-forget0: nll failed: not finite",
        ];
        assert_eq!(failures(&outcomes), failed);
        assert_eq!(notes(&outcomes), failed);
        let lines = [
            Line::Original,
            Line::Method(Method::of::<Siss>()),
            Line::Method(Method::of::<NegGrad>()),
        ];
        let table = table(&lines, &outcomes);
        let cells: Vec<&str> = table.rows.iter().map(|row| row[1].as_str()).collect();
        assert_eq!(
            cells,
            ["4.000 ± 1.414", "2.000 (1 of 2 runs)", "- (0 of 2 runs)"]
        );
        let siss = summarize("siss", &outcomes);
        assert_eq!(
            (&siss["runs"], &siss["scores"]["nll"]["count"]),
            (&json!(2), &json!(1))
        );
    }

    #[test]
    fn what_only_some_runs_say_is_said_with_their_names_and_what_all_say_once() {
        let mut outcomes = outcomes();
        for outcome in &mut outcomes {
            outcome.failed.clear();
            outcome.notes.push("the same for all".into());
            outcome.notes.push(format!("biased by {}", outcome.seed));
        }
        outcomes[3].skipped.push(Missing {
            metric: named("fid").unwrap(),
            reason: "give --inception FILE".into(),
        });
        outcomes[5].notes.push("a last one".into());
        assert_eq!(
            notes(&outcomes),
            [
                "the same for all",
                "original-seed0-forget0 (others alike): biased by 0",
                "siss-seed1-forget0: fid was skipped: give --inception FILE",
                "neggrad-seed1-forget0: a last one",
            ]
        );
    }
}
