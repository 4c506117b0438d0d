//! What an experiment found: its table, its report, and the files that hold them.

use std::path::PathBuf;

use retrack_eval::report::Fact;
use serde_json::{Value, json};

use super::folder::{Folder, SUMMARY, pretty};
use super::outcome::Outcome;
use super::plan::Line;
use super::summary::{collapses, failures, notes, summarize, table};
use super::{Compared, Comparison};
use crate::evidence::compared::{self, compared, still_found};
use crate::evidence::comparison::About;
use crate::failure::Failure;
use crate::{evidence, progress};

/// All that table and report are made of.
pub(super) struct Found<'a> {
    pub asked: &'a Comparison,
    pub lines: &'a [Line],
    pub seeds: usize,
    /// What was forgotten, as it is recorded.
    pub shown: &'a [String],
    /// What the experiment is, as it is shown.
    pub identity: Value,
    /// What the numbers rest on.
    pub caption: String,
    pub outcomes: &'a [Outcome],
}

impl Found<'_> {
    /// Says what a reader should know, and writes table and report into the folder.
    ///
    /// # Errors
    /// Files that cannot be written.
    pub fn write(self, folder: &mut Folder) -> Result<Compared, Failure> {
        let (asked, outcomes) = (self.asked, self.outcomes);
        let table = table(self.lines, outcomes);
        let summary = json!({
            "experiment": self.identity,
            "failed": failures(outcomes),
            "collapsed": collapses(outcomes),
            "lines": self.lines.iter().map(|line| summarize(&line.name(), outcomes)).collect::<Vec<_>>(),
        });
        let markdown = format!("{}\n{}", table.markdown(), self.caption);
        let notes = notes(outcomes);
        notes.iter().for_each(progress::warn);
        let about = About {
            configuration: self.identity,
            facts: vec![
                Fact::new("Settings", format!("preset {}", asked.preset)),
                Fact::new("Forgotten, one run each", self.shown.join(", ")),
                Fact::new("Model", asked.model.display()),
                Fact::new("Data set", asked.data.path.display()),
                Fact::new("How it was measured", self.caption.trim_end()),
            ],
            device: &asked.device,
            seconds: outcomes.iter().map(Outcome::all_seconds).sum(),
            notes: notes.clone(),
        };
        let lines: Vec<compared::Line> =
            self.lines.iter().map(|&line| of(line, outcomes)).collect();
        let report = compared(&lines, self.seeds, about);
        let mut files = vec![
            (PathBuf::from(SUMMARY[0]), pretty(&summary)),
            (SUMMARY[1].into(), markdown.into_bytes()),
        ];
        files.extend(evidence::forms(&report));
        folder.put(&files)?;
        let still_found = still_found(&lines);
        Ok(Compared {
            table,
            caption: self.caption,
            notes,
            failed: failures(outcomes),
            still_found: still_found.into_iter().map(String::from).collect(),
            verdict: report.verdict,
        })
    }
}

/// What the runs of a line found.
fn of(line: Line, outcomes: &[Outcome]) -> compared::Line {
    let name = line.name();
    let runs = || outcomes.iter().filter(|outcome| outcome.line == name);
    let collapsed = runs().filter(|outcome| outcome.collapse.is_some());
    compared::Line {
        runs: runs().map(|outcome| outcome.scores.clone()).collect(),
        collapsed: collapsed.map(|outcome| outcome.run.clone()).collect(),
        name: name.clone(),
    }
}
