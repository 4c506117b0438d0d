//! The table of an experiment and what its numbers rest on.

use retrack_eval::score::{Spread, Table};
use serde_json::{Value, json};

use super::{Line, Outcome};
use crate::commands::evaluate::skipped_sentences;
use crate::evaluation::Protocol;
use crate::evidence::counted;

/// What a reader of the table should know: of one run, because it holds for all of a protocol.
pub(super) fn notes(outcomes: &[Outcome]) -> Vec<String> {
    let first = outcomes.first();
    first.map_or_else(Vec::new, |outcome| {
        [skipped_sentences(&outcome.skipped), outcome.notes.clone()].concat()
    })
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

/// The values of a score over the runs of a line.
fn values(line: &str, name: &str, outcomes: &[Outcome]) -> Vec<f64> {
    let outcomes = outcomes.iter().filter(|outcome| outcome.line == line);
    let scores = outcomes.flat_map(|outcome| &outcome.scores);
    scores
        .filter(|score| score.name == name)
        .map(|score| score.value)
        .collect()
}

pub(super) fn table(lines: &[Line], outcomes: &[Outcome]) -> Table {
    let names = names(outcomes);
    let mut headings = vec!["method".to_string()];
    headings.extend(names.iter().cloned());
    headings.push("runs".into());
    let rows = lines.iter().map(|line| {
        let line = line.name();
        let mut row = vec![line.clone()];
        for name in &names {
            let spread = Spread::of(&values(&line, name, outcomes));
            row.push(spread.map_or_else(String::new, |spread| spread.text()));
        }
        let runs = outcomes.iter().filter(|outcome| outcome.line == line);
        row.push(runs.count().to_string());
        row
    });
    Table {
        rows: rows.collect(),
        headings,
    }
}

pub(super) fn summarize(line: &str, outcomes: &[Outcome]) -> Value {
    let scores: serde_json::Map<String, Value> = names(outcomes)
        .into_iter()
        .filter_map(|name| {
            let spread = Spread::of(&values(line, &name, outcomes))?;
            Some((name, json!(spread)))
        })
        .collect();
    json!({"line": line, "scores": scores})
}

/// What the numbers of a table rest on.
pub(super) fn caption(protocol: &Protocol, forget: &[String], seeds: &[u64]) -> String {
    let scheduler = protocol.scheduler.map_or_else(
        || "the model's own scheduler".to_string(),
        |name| {
            let name = serde_json::to_value(name).expect("a name");
            name.as_str().unwrap_or_default().to_uppercase()
        },
    );
    format!(
        "Mean ± standard deviation over runs: seeds {}, forgotten {}. {} a run, {scheduler} with {}.\n",
        seeds
            .iter()
            .map(u64::to_string)
            .collect::<Vec<_>>()
            .join(", "),
        forget.join(", "),
        counted(protocol.samples, "sample"),
        counted(protocol.sampling_steps, "step"),
    )
}
