//! What an experiment has models forget: one thing for each of its runs.

use std::collections::BTreeSet;
use std::slice;

use retrack_data::Dataset;

use super::Comparison;
use crate::evaluation::once;
use crate::evidence;
use crate::failure::Failure;
use crate::field::Field;
use crate::model;
use crate::opened::Opened;
use crate::settings::Experiment;

/// What is to be forgotten, before the data is read.
pub(super) struct Targets {
    /// Selections.
    forget: Vec<String>,
    /// Who lists what nobody gave: a preset or a file.
    listed_by: Option<String>,
    /// Where the list is, for messages.
    list: String,
}

/// The same in a data set.
pub(super) struct Found {
    /// Selections, as they were given.
    pub forget: Vec<String>,
    /// Of each, its rows.
    pub rows: Vec<Vec<usize>>,
    /// As it is recorded: no file's name.
    pub shown: Vec<String>,
}

impl Targets {
    /// What was given, else what the preset lists, else what published data says. `text_to_image`: the model is one.
    ///
    /// # Errors
    /// None of them says anything.
    pub fn choose(
        asked: &Comparison,
        preset: Vec<String>,
        opened: &Opened,
        text_to_image: bool,
    ) -> Result<Self, Failure> {
        let listed_by = match &asked.config {
            _ if !asked.forget.is_empty() || preset.is_empty() => None,
            Some(path) if Experiment::resolve(&asked.preset, None)?.forget != preset => {
                Some(path.display().to_string())
            }
            _ => Some(format!("the preset {}", asked.preset)),
        };
        let list = match &listed_by {
            Some(source) => format!("`forget` of {source}"),
            None => Field::Forget.to_string(),
        };
        let forget = match asked.forget.as_slice() {
            [] => preset,
            given => given.to_vec(),
        };
        let published = text_to_image && retrack_data::is_published(&asked.data.path);
        let forget = match forget.as_slice() {
            [] if published => opened.selection(&[], &asked.data.path)?,
            _ => forget,
        };
        if forget.is_empty() {
            return Err(Failure::input(format!(
                "the preset {} does not say what to forget; give {}, once for each run",
                asked.preset,
                Field::Forget
            )));
        }
        Ok(Self {
            forget,
            listed_by,
            list,
        })
    }

    /// # Errors
    /// A selection that is listed twice: its runs would count double.
    pub fn check(&self) -> Result<(), Failure> {
        once(&self.list, &self.forget, String::clone)
    }

    /// The rows of each.
    ///
    /// # Errors
    /// A selection of nothing, one image that is named in two ways.
    pub fn find(self, data: &Dataset) -> Result<Found, Failure> {
        let mut shown = Vec::with_capacity(self.forget.len());
        let mut rows = Vec::with_capacity(self.forget.len());
        for selection in &self.forget {
            let one = slice::from_ref(selection);
            let found =
                model::select(one, data).map_err(|error| self.explain(selection, error.into()))?;
            shown.push(evidence::selected(one, &found));
            rows.push(found);
        }
        self.check_rows(data, &rows)?;
        Ok(Found {
            forget: self.forget,
            rows,
            shown,
        })
    }

    /// Names who listed a selection that the data does not have.
    fn explain(&self, selection: &str, error: Failure) -> Failure {
        let Some(source) = &self.listed_by else {
            return error;
        };
        Failure {
            message: format!(
                "{source} has {selection} as what to forget: {}; give {} for what this data set has, once for each run",
                error.message,
                Field::Forget
            ),
            ..error
        }
    }

    /// An image that is named in two ways would be two runs of one thing.
    fn check_rows(&self, data: &Dataset, rows: &[Vec<usize>]) -> Result<(), Failure> {
        if rows.len() < 2 {
            return Ok(());
        }
        let mut known: Vec<BTreeSet<[u8; 32]>> = Vec::new();
        for (selection, rows) in self.forget.iter().zip(rows) {
            let images = data.digests(rows)?;
            if let Some(first) = known.iter().position(|one| *one == images) {
                return Err(Failure::input(format!(
                    "{}: {selection} is the same as {}; leave one of them out",
                    self.list, self.forget[first]
                )));
            }
            known.push(images);
        }
        Ok(())
    }
}
