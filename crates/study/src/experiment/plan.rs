//! The runs of an experiment, and what those that are missing need.

use std::collections::BTreeSet;
use std::path::Path;

use retrack_data::neighbors::{NeighborError, Neighbors};
use retrack_data::{Dataset, Split};
use retrack_networks::cost::Training;
use retrack_unlearn::objective::Method;

use super::Comparison;
use super::folder;
use crate::failure::Failure;
use crate::opened::Opened;
use crate::space::{Needs, Work};
use crate::task::Task;
use crate::{model, settings};

/// What one line of the table is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    Original,
    Retrained,
    Method(Method),
}

impl Line {
    pub fn name(self) -> String {
        match self {
            Self::Original => "original".into(),
            Self::Retrained => "retrained".into(),
            Self::Method(method) => method.name().into(),
        }
    }
}

/// One run: a line with one seed and one thing to forget.
#[derive(Debug)]
pub(super) struct Run {
    pub line: Line,
    pub seed: u64,
    /// Place in the list of what is forgotten.
    pub forget: usize,
}

impl Run {
    pub fn trains(&self) -> bool {
        matches!(self.line, Line::Method(_))
    }

    pub fn name(&self) -> String {
        format!(
            "{}-seed{}-forget{}",
            self.line.name(),
            self.seed,
            self.forget
        )
    }
}

/// All runs, in the order in which they are made.
pub(super) struct Plan {
    pub lines: Vec<Line>,
    pub runs: Vec<Run>,
}

impl Plan {
    /// Every line with every seed, for each of so many things to forget.
    pub fn new(asked: &Comparison, seeds: &[u64], targets: usize) -> Self {
        let mut lines = vec![Line::Original];
        lines.extend(asked.retrained.iter().map(|_| Line::Retrained));
        lines.extend(asked.methods.iter().map(|&method| Line::Method(method)));
        let mut runs = Vec::new();
        for forget in 0..targets {
            for &seed in seeds {
                runs.extend(lines.iter().map(|&line| Run { line, seed, forget }));
            }
        }
        Self { lines, runs }
    }

    /// The runs that have a result in `out`, and those that have none.
    pub fn split(&self, out: &Path) -> (Vec<&Run>, Vec<&Run>) {
        self.runs
            .iter()
            .partition(|run| folder::result(out, run).exists())
    }
}

/// What the runs that are missing need.
pub(super) struct Missing {
    pub needs: Needs,
    /// Neighbors that any of them looks for, at most.
    neighbors: usize,
    /// Any of them trains.
    trains: bool,
}

impl Missing {
    /// Of all runs the models stay, of one at a time the rest. What is there already needs nothing. `copied`: bytes of a
    /// model's folder.
    ///
    /// # Errors
    /// Settings that make no sense, numbers that no run could work through.
    pub fn of(
        missing: &[&Run],
        asked: &Comparison,
        forget: &[String],
        opened: &Opened,
        data: &Dataset,
        copied: u64,
    ) -> Result<Self, Failure> {
        let mut needs = Needs {
            disk: 0.0,
            memory: 0.0,
        };
        let mut models = 0.0;
        let mut neighbors = 0;
        for run in missing {
            if let Line::Method(method) = run.line {
                let unlearning = asked.task(&forget[run.forget], &asked.out, method, None);
                neighbors = neighbors.max(neighbors_of_one(data, &unlearning)?);
                let of_one = needs_of_one(opened, data, &unlearning, copied)?;
                needs.disk = needs.disk.max(of_one.disk - copied as f64);
                needs.memory = needs.memory.max(of_one.memory);
                // A model that was made but not measured is not made again.
                let made = folder::model(&asked.out, run).exists();
                models += if made { 0.0 } else { copied as f64 };
            }
        }
        needs.disk += models;
        Ok(Self {
            needs,
            neighbors,
            trains: missing.iter().any(|run| run.trains()),
        })
    }

    /// Refuses what the unlearning runs would refuse, which come after the references are measured: too few retained
    /// images for as many neighbors, images without a class. `rows`: what each run forgets.
    pub fn check_retained(
        &self,
        opened: &Opened,
        data: &Dataset,
        rows: &[Vec<usize>],
    ) -> Result<(), Failure> {
        if !self.trains {
            return Ok(());
        }
        let wanted = self.neighbors.max(1);
        let enough = |split: &Split| split.retain.len() >= wanted;
        let check_labels = |split: &Split| {
            let config = &opened.denoiser().config;
            model::check_labels(data, &split.retain, config)?;
            model::check_labels(data, &split.forget, config)
        };
        // Each run retains at least what all together do: one pass where that is enough.
        let all: BTreeSet<usize> = rows.iter().flatten().copied().collect();
        let all: Vec<usize> = all.into_iter().collect();
        let together = Split::new(data, &all, model::BUDGET)?;
        if enough(&together) {
            return check_labels(&together);
        }
        for rows in rows {
            let split = Split::new(data, rows, model::BUDGET)?;
            if !enough(&split) {
                return Err(NeighborError::TooFew {
                    wanted,
                    retained: split.retain.len(),
                }
                .into());
            }
            check_labels(&split)?;
        }
        Ok(())
    }
}

/// Neighbors that one unlearning run looks for; 0 where it looks for none.
fn neighbors_of_one(data: &Dataset, task: &Task) -> Result<usize, Failure> {
    let shape = data.shape();
    let settings = settings::resolve(task, shape.height, shape.width)?;
    Ok(match settings.neighbors {
        Neighbors::Nearest(k) if settings.objective().draws().neighbors => k,
        _ => 0,
    })
}

/// What one unlearning run needs at most: of all images.
fn needs_of_one(
    opened: &Opened,
    data: &Dataset,
    task: &Task,
    copied: u64,
) -> Result<Needs, Failure> {
    let shape = data.shape();
    let settings = settings::resolve(task, shape.height, shape.width)?;
    let training = Training {
        size: [shape.height, shape.width],
        batch_size: settings.batch_size,
        ema: false,
        moment_bytes: settings.adamw.state.bytes(),
        streams: settings.objective().streams(),
        two_gradients: settings.objective().two_gradients(),
        rank: None,
        images: data.len(),
        texts: match task.captions {
            Some(_) => data.len(),
            None => 1,
        },
    };
    let work = Work {
        footprint: opened.footprint(&training),
        data,
        batch_size: settings.batch_size,
        accumulate: settings.accumulate,
        steps: settings.steps,
        checkpoint_every: task.checkpoint_every,
        model: copied,
    };
    work.needs()
}
