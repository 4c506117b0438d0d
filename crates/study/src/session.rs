//! The steps of a run, as `train` and `unlearn` take them: recorded, with checkpoints, resumable.

use crate::run::{EventLog, RunFolder};
use retrack_unlearn::checkpoint;
use retrack_unlearn::feed::Feed;
use retrack_unlearn::optimizer::{AdamWConfig, EmaConfig};
use retrack_unlearn::trainer::{StepReport, Trainer};
use retrack_unlearn::watch::RetainedWatch;

use crate::failure::Failure;
use crate::observer::Observer;
use crate::situation::{self, Situation};
use crate::{interrupt, progress};

/// How long a run goes on.
pub trait Course {
    /// Whether the run is at its end: asked at its start and after each step. What is changed of the trainer counts for the
    /// next step.
    ///
    /// # Errors
    /// Whatever ends the run.
    fn is_over(&mut self, trainer: &mut Trainer) -> Result<bool, Failure>;
}

/// So many steps.
pub struct Steps(pub usize);

impl Course for Steps {
    fn is_over(&mut self, trainer: &mut Trainer) -> Result<bool, Failure> {
        Ok(trainer.step >= self.0)
    }
}

/// Looks at a network while it changes.
pub trait Look {
    /// Looks at the network as it is after the trainer's steps: at the start, and after each, of which one `is_last`. What it
    /// returns is recorded with the step.
    ///
    /// # Errors
    /// Whatever ends the run.
    fn look(
        &mut self,
        trainer: &Trainer,
        is_last: bool,
        log: &mut EventLog,
    ) -> Result<Vec<(&'static str, f64)>, Failure>;
}

/// Nobody looks.
pub struct Unobserved;

impl Look for Unobserved {
    fn look(
        &mut self,
        _: &Trainer,
        _: bool,
        _: &mut EventLog,
    ) -> Result<Vec<(&'static str, f64)>, Failure> {
        Ok(Vec::new())
    }
}

/// The steps of a run from where it is to its end.
pub struct Session<'a> {
    /// The run's folder.
    pub run: &'a RunFolder,
    /// What the progress bar says.
    pub title: &'a str,
    /// Steps of the whole run, at most.
    pub steps: usize,
    /// Steps between checkpoints; `None`: only what a signal or the end makes.
    pub checkpoint_every: Option<usize>,
}

impl Session<'_> {
    /// Puts the trainer where the interrupted run stopped.
    ///
    /// # Errors
    /// There are checkpoints, but none is whole.
    pub fn resume(
        &self,
        trainer: &mut Trainer,
        adamw: &AdamWConfig,
        ema: Option<&EmaConfig>,
    ) -> Result<(), Failure> {
        for error in checkpoint::resume(trainer, &self.run.folder(), adamw, ema)? {
            progress::warn(format!("{error}; the checkpoint before it is used"));
        }
        progress::note(format!("resuming after step {}", trainer.step));
        if let Some(factor) = trainer.watch.collapsed() {
            warn_of_collapse("before it was interrupted", factor);
        }
        Ok(())
    }

    /// Takes the steps that are left. Returns the last one, if there was one. `retained`: where the method's own loss
    /// does not speak of the retained images.
    ///
    /// # Errors
    /// A step that did not happen, a look or a signal, after a checkpoint of the steps before; a disk that does not take what
    /// is recorded.
    pub fn train(
        &self,
        trainer: &mut Trainer,
        feed: &Feed,
        course: &mut dyn Course,
        retained: Option<RetainedWatch>,
        look: &mut dyn Look,
        observer: &mut dyn Observer,
    ) -> Result<Option<StepReport>, Failure> {
        let mut log = EventLog::open(self.run, trainer.step)?;
        let mut is_last = course.is_over(trainer)?;
        let scores = look.look(trainer, is_last, &mut log)?;
        // A run that was kept because its last step could not be looked at has that step's record without them.
        log.complete(trainer.step, &scores)?;
        let bar = progress::bar(self.title, self.steps, "steps");
        bar.start_at(trainer.step);
        let kept = match interrupt::starts_again() {
            true => "",
            false => ", which is kept",
        };
        interrupt::finish_first(&format!("after this step{kept}"));
        let mut last = None;
        while !is_last {
            let mut report = match trainer.step(feed) {
                Ok(report) => report,
                Err(error) => {
                    keep(trainer, self.run);
                    return Err(error.into());
                }
            };
            if let Some(retained) = &retained {
                report.watched_retain = retained.look(trainer)?;
            }
            let retain = report.losses.retain.or(report.watched_retain);
            report.collapsed = retain.and_then(|loss| trainer.watch.see(loss));
            is_last = match course.is_over(trainer) {
                Ok(is_last) => is_last,
                Err(failure) => {
                    log.record(self.run, &report, &[])?;
                    keep(trainer, self.run);
                    return Err(failure);
                }
            };
            if is_last {
                // The last look writes the model: all that is left is worth more than the time it takes. Where a second
                // signal does not wait for it, --resume goes on to that look without another step.
                interrupt::finish_first("once the result is written");
                log.record(self.run, &report, &[])?;
                keep(trainer, self.run);
            }
            match look.look(trainer, is_last, &mut log) {
                Ok(scores) if is_last => log.complete(trainer.step, &scores)?,
                Ok(scores) => log.record(self.run, &report, &scores)?,
                Err(failure) if is_last => return Err(failure),
                Err(failure) => {
                    // What was learned is worth keeping, whatever could not be seen of it.
                    log.record(self.run, &report, &[])?;
                    keep(trainer, self.run);
                    return Err(failure);
                }
            }
            observer.step(&report);
            if let Some(factor) = report.collapsed {
                warn_of_collapse(&format!("step {}", trainer.step), factor);
            }
            bar.set_message(format!("loss {:.2}", report.losses.loss));
            bar.inc(1);
            let due = self
                .checkpoint_every
                .is_some_and(|every| trainer.step.is_multiple_of(every));
            if due && !is_last {
                checkpoint::save(trainer, &self.run.folder())?;
                progress::detail(format_args!("checkpoint after step {}", trainer.step));
            }
            last = Some(report);
            if let Some(code) = interrupt::pending()
                && !is_last
            {
                drop(bar);
                checkpoint::save(trainer, &self.run.folder())?;
                return Err(Failure {
                    code,
                    message: format!(
                        "interrupted after step {}{kept}: {}",
                        trainer.step,
                        interrupt::how_to_go_on()
                    ),
                    diverged: false,
                });
            }
        }
        interrupt::finish_first("once the result is written");
        Ok(last)
    }
}

/// Saves a checkpoint of what was learned, whatever cannot be done with it. Before the first step that is nothing.
pub fn keep(trainer: &Trainer, run: &RunFolder) {
    if trainer.step > 0
        && let Err(lost) = checkpoint::save(trainer, &run.folder())
    {
        progress::warn(Failure::from(lost).message);
    }
}

fn warn_of_collapse(when: &str, factor: f64) {
    let far = if factor.is_finite() {
        format!("{factor:.1} times what it was at first")
    } else {
        "not finite any more".into()
    };
    progress::warn(format!(
        "{when}: the loss of the retained images is {far}: the model is losing what it should keep; stop, and {}",
        situation::advice(Situation::Diverged)
    ));
}
