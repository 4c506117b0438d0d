//! What was found about the models, side by side.

use std::path::{Path, PathBuf};

use retrack_eval::pictures::Grid;
use retrack_eval::score::Table;
use retrack_eval::subject::Subject;
use retrack_networks::lora;
use serde_json::{Value, json};

use crate::evaluation::{Evaluation, Missing, Protocol, sentences};
use crate::evidence::{Forgotten, covered};
use crate::failure::Failure;

/// Samples shown in a picture.
pub(super) const SHOWN: usize = 256;

/// One model and what was found about it.
pub(super) struct Found<'a> {
    /// `baseline` or `model`.
    pub name: &'static str,
    pub path: &'a Path,
    pub evaluation: Evaluation,
}

impl Found<'_> {
    /// What the file of all scores holds of it. Pictures of what was drawn are added to `files`.
    ///
    /// # Errors
    /// Samples that cannot be shown.
    pub(super) fn record(
        &self,
        protocol: &Protocol,
        subject: &Subject,
        show_forgotten: bool,
        files: &mut Vec<(PathBuf, Vec<u8>)>,
    ) -> Result<Value, Failure> {
        let Self {
            name,
            path,
            evaluation,
        } = self;
        let mut record = json!({
            "path": path.display().to_string(),
            "scores": evaluation.scores,
            "skipped": evaluation.skipped,
            "failed": evaluation.failed,
            "notes": evaluation.notes,
        });
        if !evaluation.standings.is_empty() {
            record["look_alikes"] = json!(evaluation.standings);
        }
        if let Some(relearned) = &evaluation.relearned {
            record["relearned"] = json!(relearned);
        }
        let mut prompts = Vec::new();
        for (number, drawn) in evaluation.drawn.iter().enumerate() {
            let picture = match drawn.prompt {
                Some(_) => format!("{name}-{number:02}.png"),
                None => format!("{name}.png"),
            };
            let shown = show(&subject.looked_for(), &drawn.samples, show_forgotten)?;
            files.extend(shown.map(|png| (PathBuf::from(&picture), png)));
            if let (Some(prompt), Some(clusters)) = (&drawn.prompt, &subject.clusters) {
                let mut of_prompt = json!({
                    "number": number,
                    "forgotten": drawn.forgotten,
                    "samples": protocol.samples,
                    "memorized": clusters.memorized(&drawn.samples),
                    "picture": picture,
                });
                // The others may be the forgotten one in other words.
                if show_forgotten {
                    of_prompt["prompt"] = prompt.as_str().into();
                }
                prompts.push(of_prompt);
            }
        }
        if !prompts.is_empty() {
            record["prompts"] = prompts.into();
        }
        Ok(record)
    }

    /// What a reader of its scores should know, as sentences that name it; not those in `said`.
    fn notes(&self, said: &[String]) -> impl Iterator<Item = String> {
        let notes = self.evaluation.notes.iter();
        let notes = notes.filter(|note| !said.contains(note));
        notes.map(|note| format!("{}: {note}", self.name))
    }

    /// Says of a text-to-image model that an adapter lies beside it, which is no part of what was measured.
    fn without_adapter(&self) -> Option<String> {
        self.path.join(lora::FILE_NAME).is_file().then(|| {
            format!(
                "{}: measured without the adapter {} beside it; `retrack merge` folds it in.",
                self.name,
                lora::FILE_NAME
            )
        })
    }
}

/// All that a reader of the scores should know: what has no number first.
pub(super) fn notes(columns: &[Found], text_to_image: bool) -> Vec<String> {
    let mut notes = missing(columns);
    let mut of_all = Vec::new();
    if text_to_image {
        notes.extend(columns.iter().filter_map(Found::without_adapter));
        of_all = shared(columns);
    }
    for found in columns {
        notes.extend(found.notes(&of_all));
    }
    notes.extend(of_all);
    notes
}

/// The notes that several models have in common.
fn shared(columns: &[Found]) -> Vec<String> {
    let [first, others @ ..] = columns else {
        return Vec::new();
    };
    let everywhere = |note: &&String| {
        let mut others = others.iter();
        others.all(|found| found.evaluation.notes.contains(note))
    };
    let notes = first.evaluation.notes.iter().filter(everywhere);
    match others {
        [] => Vec::new(),
        _ => notes.cloned().collect(),
    }
}

/// What failed of a model, as sentences that name it.
pub(super) fn failures(found: &Found) -> Vec<String> {
    let sentences = sentences(&found.evaluation.failed, "failed").into_iter();
    sentences
        .map(|sentence| format!("{}: {sentence}", found.name))
        .collect()
}

/// What has no number: what a metric lacks, named with the model where not all lack it, and what failed.
fn missing(columns: &[Found]) -> Vec<String> {
    let mut said: Vec<String> = Vec::new();
    for found in columns {
        let everywhere = |lack: &Missing| {
            let mut all = columns.iter();
            all.all(|found| found.evaluation.skipped.contains(lack))
        };
        for lack in &found.evaluation.skipped {
            let [sentence] = &sentences(std::slice::from_ref(lack), "was skipped")[..] else {
                continue;
            };
            let sentence = match everywhere(lack) {
                true => sentence.clone(),
                false => format!("{}: {sentence}", found.name),
            };
            if !said.contains(&sentence) {
                said.push(sentence);
            }
        }
    }
    said.extend(columns.iter().flat_map(failures));
    said
}

/// A grid of the first samples, what may be a forgotten image covered.
fn show(
    forgotten: &Forgotten,
    samples: &[u8],
    show_forgotten: bool,
) -> Result<Option<Vec<u8>>, Failure> {
    let shape = forgotten.data.shape();
    let shown = &samples[..samples.len().min(SHOWN * shape.bytes())];
    if shown.is_empty() {
        return Ok(None);
    }
    let (shown, _) = covered(shown, &forgotten.look(shown)?, shape, show_forgotten);
    let count = shown.len() / shape.bytes();
    let shape = [shape.height, shape.width, shape.channels];
    let grid = Grid {
        shape,
        columns: (count as f64).sqrt().ceil() as usize,
        zoom: Grid::zoom_for(shape),
    };
    Ok(Some(grid.png(&shown)?))
}

/// A row for each score, a column for each model.
pub(super) fn table(columns: &[Found]) -> Table {
    let mut headings = vec!["score".to_string()];
    headings.extend(columns.iter().map(|found| found.name.to_string()));
    headings.push("of".into());
    let mut names: Vec<&str> = Vec::new();
    for score in columns.iter().flat_map(|found| &found.evaluation.scores) {
        if !names.contains(&score.name.as_str()) {
            names.push(&score.name);
        }
    }
    let rows = names.into_iter().map(|name| {
        let mut row = vec![name.to_string()];
        let mut counts: Vec<String> = Vec::new();
        for found in columns {
            let mut scores = found.evaluation.scores.iter();
            let Some(found) = scores.find(|found| found.name == name) else {
                row.push("-".into());
                counts.push("-".into());
                continue;
            };
            let value = found.text();
            row.push(match found.interval {
                Some([low, high]) => format!("{value} [{low:.3}, {high:.3}]"),
                None => value,
            });
            counts.push(found.count.to_string());
        }
        // One number where it is everybody's.
        counts.dedup();
        row.push(counts.join(" / "));
        row
    });
    Table {
        rows: rows.collect(),
        headings,
    }
}
