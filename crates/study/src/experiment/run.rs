//! One run of an experiment: its model is made if it is a method's, and measured.

use std::fs;
use std::path::Path;
use std::time::Instant;

use burn::tensor::Device;
use retrack_data::Dataset;
use retrack_eval::subject::Subject;
use serde_json::{Value, json};

use super::folder::{self, Folder};
use super::outcome::{Outcome, collapse};
use super::plan::{Line, Run};
use super::targets::Found;
use super::{Comparison, complete_runs_are_kept};
use crate::evaluation::{Prompts, Protocol};
use crate::failure::Failure;
use crate::observer::Observer;
use crate::run::{Difference, RunFolder, State, recorded_seconds};
use crate::task::Task;
use crate::unlearn::unlearn;
use crate::{interrupt, progress, settings};

/// What all runs share.
pub(super) struct Runs<'a> {
    pub asked: &'a Comparison,
    pub protocol: &'a Protocol,
    pub prompts: Option<&'a Prompts>,
    pub data: &'a Dataset,
    pub targets: &'a Found,
    pub device: &'a Device,
}

impl Runs<'_> {
    /// The result of a run: read if it is there, else made and kept.
    ///
    /// # Errors
    /// A result or a model of other settings, and whatever ends a run but that its training came to nothing.
    pub fn outcome(
        &self,
        run: &Run,
        subject: &Subject,
        folder: &mut Folder,
        observer: &mut dyn Observer,
    ) -> Result<Outcome, Failure> {
        let unlearning = self.unlearning(run);
        let settings = match &unlearning {
            Some(unlearning) => {
                let shape = self.data.shape();
                json!(settings::resolve(unlearning, shape.height, shape.width)?)
            }
            None => Value::Null,
        };
        if let Some(old) = folder.read(run)? {
            return match differing(&old.settings, &settings) {
                None => Ok(old),
                Some(Difference {
                    key,
                    old: then,
                    new,
                }) => Err(Failure::input(format!(
                    "{}: this run was made with another {key}: {then} then, {new} now; remove the file and the \
                     model of that name to repeat the run, or use another output folder",
                    folder::result(&self.asked.out, run).display()
                ))),
            };
        }
        let outcome = self.make(run, unlearning.as_ref(), settings, subject, observer)?;
        folder.keep(&outcome)?;
        Ok(outcome)
    }

    fn make(
        &self,
        run: &Run,
        unlearning: Option<&Task>,
        settings: Value,
        subject: &Subject,
        observer: &mut dyn Observer,
    ) -> Result<Outcome, Failure> {
        let mut seconds = None;
        if let Some(unlearning) = unlearning {
            match self.unlearn(unlearning, &settings, observer) {
                // The others may do better.
                Err(failure) if failure.diverged => {
                    let message = failure.message;
                    progress::warn(format!("{}: unlearning failed: {message}", run.name()));
                    interrupt::at_once(complete_runs_are_kept());
                    return Ok(Outcome {
                        unlearning_failed: Some(message),
                        ..Outcome::nothing_of(run, &self.targets.shown[run.forget], settings)
                    });
                }
                took => seconds = took?,
            }
        }
        let start = Instant::now();
        let found = self.protocol.scores(
            self.model(run, unlearning),
            subject,
            self.prompts,
            run.seed,
            self.device,
        )?;
        let collapse = match unlearning {
            Some(unlearning) => collapse(&unlearning.out)?,
            None => None,
        };
        Ok(Outcome {
            seconds,
            measuring_seconds: start.elapsed().as_secs_f64(),
            scores: found.scores,
            skipped: found.skipped,
            failed: found.failed,
            collapse,
            notes: found.notes,
            ..Outcome::nothing_of(run, &self.targets.shown[run.forget], settings)
        })
    }

    /// The folder that is measured.
    fn model<'b>(&'b self, run: &Run, unlearning: Option<&'b Task>) -> &'b Path {
        match (unlearning, run.line) {
            (Some(unlearning), _) => &unlearning.out,
            (None, Line::Retrained) => {
                let path = self.asked.retrained.as_deref();
                path.expect("a line only where it was given")
            }
            (None, _) => &self.asked.model,
        }
    }

    /// What is to be unlearned for a run; nothing for the references.
    fn unlearning(&self, run: &Run) -> Option<Task> {
        let Line::Method(method) = run.line else {
            return None;
        };
        let out = folder::model(&self.asked.out, run);
        let forget = &self.targets.forget[run.forget];
        Some(self.asked.task(forget, &out, method, Some(run.seed)))
    }

    /// Makes the model if it is not complete. Returns how long that took, now or before.
    fn unlearn(
        &self,
        task: &Task,
        settings: &Value,
        observer: &mut dyn Observer,
    ) -> Result<Option<f64>, Failure> {
        let state = RunFolder::state(&task.out);
        if state == State::Ended {
            // Complete, but stopped before it was measured: it may have been made with other settings.
            let path = task.out.join("run").join("config.json");
            let text = fs::read_to_string(&path).map_err(|error| Failure::read(&path, error))?;
            let made: Value = serde_json::from_str(&text).map_err(|e| Failure::read(&path, e))?;
            return match differing(&made["settings"], settings) {
                None => Ok(recorded_seconds(&task.out)),
                Some(Difference { key, old, new }) => Err(Failure::input(format!(
                    "{}: this model was made with another {key}: {old} then, {new} now; remove it to repeat the run, \
                     or use another output folder",
                    task.out.display()
                ))),
            };
        }
        let task = Task {
            resume: state == State::Interrupted,
            ..task.clone()
        };
        let seconds = unlearn(&task, observer)?.map(|summary| summary.seconds);
        interrupt::at_once(complete_runs_are_kept());
        Ok(seconds)
    }
}

/// The first difference between the settings of then and of now, which are called so.
fn differing(made: &Value, now: &Value) -> Option<Difference> {
    Difference::first(&json!({"settings": made}), &json!({"settings": now}))
}
