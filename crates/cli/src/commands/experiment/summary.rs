//! The table of an experiment and what its numbers rest on.

use retrack_checkpoint::words::counted;
use retrack_eval::metric::Metric;
use retrack_eval::score::{Spread, Table};
use serde_json::{Value, json};

use super::{Line, Outcome};
use retrack_study::evaluation::{Protocol, sentences};

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
        let runs = outcomes.iter().filter(|outcome| outcome.line == line);
        let runs = runs.count();
        for name in &names {
            let values = values(&line, name, outcomes);
            let spread =
                Spread::of(&values).map_or_else(|| "-".to_string(), |spread| spread.text());
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

pub(super) fn summarize(line: &str, outcomes: &[Outcome]) -> Value {
    let scores: serde_json::Map<String, Value> = names(outcomes)
        .into_iter()
        .filter_map(|name| {
            let spread = Spread::of(&values(line, &name, outcomes))?;
            Some((name, json!(spread)))
        })
        .collect();
    let runs = outcomes.iter().filter(|outcome| outcome.line == line);
    json!({"line": line, "runs": runs.count(), "scores": scores})
}

/// What the numbers of a table rest on. `metrics`: those that are measured; `classes`: the model has some.
pub(super) fn caption(
    protocol: &Protocol,
    metrics: &[&'static dyn Metric],
    forget: &[String],
    seeds: &[u64],
    classes: bool,
) -> String {
    let scheduler = protocol.scheduler.map_or_else(
        || "the model's own scheduler".to_string(),
        |name| {
            let name = serde_json::to_value(name).expect("a name");
            name.as_str().unwrap_or_default().to_uppercase()
        },
    );
    let looks = metrics.iter().any(|metric| metric.looks_for_the_image());
    let counts = match (protocol.guidance, protocol.threshold) {
        (Some(_), _) => String::new(),
        _ if !looks => String::new(),
        (None, Some(threshold)) => format!(
            " A picture counts as a forgotten image when it is nearer to it than {threshold} (Euclidean, pixels in [0, 1])."
        ),
        (None, None) => " A picture counts as a forgotten image when its distance to it is less than half of that image's \
                         distance to its nearest retained image that is no copy."
            .into(),
    };
    let draws = protocol.draws(metrics);
    let class = match protocol.class {
        _ if !draws => String::new(),
        Some(class) => format!(" Samples are of class {class}."),
        None if classes => " Samples are of the forgotten images' classes.".into(),
        None => String::new(),
    };
    let drawn = match draws {
        true => format!(
            " {} a run, {scheduler} with {}.",
            counted(protocol.samples, "sample"),
            counted(protocol.sampling_steps, "step"),
        ),
        false => String::new(),
    };
    format!(
        "Mean ± standard deviation over runs: seeds {}, forgotten {}.{drawn}{counts}{class}\n",
        seeds
            .iter()
            .map(u64::to_string)
            .collect::<Vec<_>>()
            .join(", "),
        forget.join(", "),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use retrack_eval::metrics::named;
    use retrack_eval::score::Score;
    use retrack_study::evaluation::Missing;
    use retrack_study::settings::Experiment;
    use retrack_unlearn::objective::{Method, NegGrad, Siss};

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
    fn a_caption_speaks_of_samples_where_a_metric_draws_some_and_of_copies_where_one_looks_for_them()
     {
        let preset = Experiment::resolve("cifar10", None).unwrap().protocol;
        let said = |names: &[&str], protocol: &Protocol| {
            let metrics: Vec<_> = names.iter().filter_map(|name| named(name)).collect();
            let protocol = Protocol {
                metrics: metrics.clone(),
                ..protocol.clone()
            };
            caption(&protocol, &metrics, &["row:1".into()], &[0], true)
        };
        for metrics in [&["nll"][..], &["nll", "membership"]] {
            let said = said(metrics, &preset);
            assert_eq!(
                said,
                "Mean ± standard deviation over runs: seeds 0, forgotten row:1.\n"
            );
        }
        let injection = said(&["injection", "nll"], &preset);
        assert!(
            injection.contains("A picture counts") && !injection.contains("DDIM"),
            "{injection}"
        );
        assert!(!injection.contains("ample"), "{injection}");
        let fid = said(&["nll", "fid"], &preset);
        assert!(
            fid.contains("50000 samples a run, DDIM with 50 steps."),
            "{fid}"
        );
        assert!(
            fid.contains("Samples are of the forgotten") && !fid.contains("A picture"),
            "{fid}"
        );
        let prompted = Protocol {
            guidance: Some(7.5),
            ..preset
        };
        let prompted = said(&["sscd"], &prompted);
        assert!(prompted.contains("samples a run, DDIM"), "{prompted}");
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
