//! A training that goes on where an earlier one stopped or ended.

use std::path::Path;

use retrack_checkpoint::words::counted;
use retrack_checkpoint::written::{Command, Written};
use retrack_unlearn::checkpoint;
use serde_json::Value;

use super::Training;
use crate::failure::Failure;
use crate::field::Field;
use crate::progress;
use crate::run::{Existing, RunFolder};

/// What a run that goes on has of the one that lies in its folder.
#[derive(Default)]
pub(super) struct Longer {
    /// The run there ended, and this one takes more steps.
    pub extends: bool,
    /// Steps at which it ended before, in order.
    pub ended_at: Vec<usize>,
    /// Its configuration and its steps, where it ended.
    pub recorded: Option<(Value, usize)>,
}

impl Longer {
    pub fn of(asked: &Training) -> Result<Self, Failure> {
        let there = RunFolder::recorded(&asked.out).filter(|_| asked.resume);
        let Some((recorded, ended)) = there.filter(|(config, _)| config["command"] == "train")
        else {
            return Ok(Self::default());
        };
        let counts = recorded["ended_at"].as_array().into_iter().flatten();
        let mut ended_at: Vec<usize> = counts
            .filter_map(|count| Some(count.as_u64()? as usize))
            .collect();
        let steps = recorded["steps"].as_u64().unwrap_or_default() as usize;
        if !ended {
            return Ok(Self {
                ended_at,
                ..Self::default()
            });
        }
        let out = asked.out.display();
        let newest = checkpoint::list(&asked.out.join("run")).first().copied();
        let Some(newest) = newest else {
            return Err(Failure::input(format!(
                "{out}: the run there ended after {steps} steps and its last checkpoint is gone, so that it cannot \
                 go on; leave {} out and choose another output folder",
                Field::Resume
            )));
        };
        // A run that was to take more steps, and was killed after its configuration was written and before its mark, has
        // not begun: what lies there ended at its last checkpoint.
        let ended_after = newest.min(steps);
        if asked.steps <= ended_after {
            return Err(Failure::input(format!(
                "{out}: the run there ended after {ended_after} steps; give a larger {} to go on from there",
                Field::Steps
            )));
        }
        // Somebody else's file is no damaged checkpoint of this run.
        let run = Path::new("run");
        let list = Written::read(&asked.out)?.unwrap_or_default();
        if !list.has(&checkpoint::file(run, newest)) {
            RunFolder::check(&asked.out, Command::Train, Existing::Extend, &[])?;
        }
        // While the run is still one that ended.
        checkpoint::verify(&asked.out.join("run"), newest).map_err(|error| {
            Failure::input(format!(
                "{error}; the run there ended after {ended_after} steps and its model is whole, but it cannot go on: leave \
                 {} out and choose another output folder",
                Field::Resume
            ))
        })?;
        if ended_after == steps {
            ended_at.push(steps);
        }
        Ok(Self {
            extends: true,
            ended_at,
            recorded: Some((recorded, steps)),
        })
    }

    /// What becomes of the learning rate.
    pub fn say(&self, asked: &Training, warmup: usize) {
        let ended = self.ended_at.last().filter(|_| self.extends);
        let left = asked.steps.saturating_sub(ended.copied().unwrap_or(0));
        if warmup >= left {
            progress::warn(format!(
                "the learning rate rises over {} and only {left} are left: it never reaches {:e}",
                counted(warmup, "step"),
                asked.learning_rate
            ));
            return;
        }
        if let Some(ended) = ended {
            progress::note(format!(
                "the run that ended after {ended} steps goes on to {}: its learning rate, which had come down to 0, \
                 rises over {} steps to where a cosine over {} steps is by then, and follows that to its end; one run \
                 of {} steps would have become another model",
                asked.steps, warmup, asked.steps, asked.steps
            ));
        }
    }
}

/// Steps over which the learning rate rises: as given, as the run that goes on recorded them, or a tenth of all.
pub(super) fn warmup(asked: &Training) -> usize {
    const MOST: usize = 500;
    let there = RunFolder::recorded(&asked.out).filter(|_| asked.resume);
    let recorded = there.and_then(|(config, _)| config["learning_rate"]["warmup"].as_u64());
    let usual = recorded.map_or((asked.steps / 10).min(MOST), |steps| steps as usize);
    asked.warmup.unwrap_or(usual)
}
