//! What is said while a study goes on. A front end (a terminal, a notebook) listens to it; without one nothing is said.

use std::fmt::Display;
use std::sync::OnceLock;

use crate::field::Field;
use crate::situation::Situation;

/// How a line is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// For those who want to know more.
    Detail,
    /// What is happening.
    Note,
    /// Something may not be what was meant.
    Warning,
}

/// A change of a task that goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Some steps were done before it began.
    StartAt(u64),
    /// So many more steps are done.
    Inc(u64),
    /// So many steps are done.
    Position(u64),
    /// What else is worth a look.
    Message(String),
    /// It has ended.
    End,
}

/// Where in the whole the work is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// One of several models or runs.
    Stage,
    /// One of several parts of the work on one model.
    Phase,
}

/// Who listens.
pub trait Front: Send + Sync {
    /// A line.
    fn say(&self, tone: Tone, text: &str);
    /// Whether details are said: what they tell may take time to find out.
    fn is_verbose(&self) -> bool;
    /// A task begins, of `total` steps where that is known. Returns its number.
    fn begin(&self, title: &str, total: Option<u64>, unit: &'static str) -> u64;
    /// A task goes on.
    fn change(&self, task: u64, change: Change);
    /// The work is at this place from now on; returns the place before.
    fn place(&self, level: Level, place: Option<String>) -> Option<String>;
    /// What to do in a situation, in words that fit the command that runs, as the end of a sentence.
    fn advice(&self, situation: Situation) -> Option<&'static str>;
    /// What may have been advised in a situation to whoever had an unlearning run made, whose report holds it.
    fn advised_by_runs(&self, situation: Situation) -> Vec<&'static str>;
    /// What a field is called here.
    fn field(&self, field: Field) -> String;
}

static FRONT: OnceLock<Box<dyn Front>> = OnceLock::new();

/// Has `front` listen for the rest of the process. The first one stays.
pub fn listen(front: Box<dyn Front>) {
    let _ = FRONT.set(front);
}

pub(crate) fn front() -> Option<&'static dyn Front> {
    FRONT.get().map(Box::as_ref)
}

fn say(tone: Tone, text: impl Display) {
    if let Some(front) = front() {
        front.say(tone, &text.to_string());
    }
}

/// A line about what is happening.
pub fn note(text: impl Display) {
    say(Tone::Note, text);
}

/// A line for those who want to know more.
pub fn detail(text: impl Display) {
    say(Tone::Detail, text);
}

/// A line about something that may not be what was meant.
pub fn warn(text: impl Display) {
    say(Tone::Warning, text);
}

/// Whether details are said.
pub fn is_verbose() -> bool {
    front().is_some_and(|front| front.is_verbose())
}

/// A task that goes on until this is dropped.
#[derive(Debug)]
pub struct Bar(Option<u64>);

/// A task of `steps` steps, each of which is one `unit`.
pub fn bar(title: &str, steps: usize, unit: &'static str) -> Bar {
    Bar(front().map(|front| front.begin(title, Some(steps as u64), unit)))
}

/// A task whose length nobody knows.
pub fn activity(title: &str) -> Bar {
    Bar(front().map(|front| front.begin(title, None, "")))
}

impl Bar {
    fn change(&self, change: Change) {
        if let (Some(front), Some(task)) = (front(), self.0) {
            front.change(task, change);
        }
    }

    /// Some steps were done before it began.
    pub fn start_at(&self, step: usize) {
        self.change(Change::StartAt(step as u64));
    }

    /// So many more steps are done.
    pub fn inc(&self, steps: u64) {
        self.change(Change::Inc(steps));
    }

    /// So many steps are done.
    pub fn set_position(&self, done: u64) {
        self.change(Change::Position(done));
    }

    /// What else is worth a look.
    pub fn set_message(&self, message: String) {
        self.change(Change::Message(message));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.change(Change::End);
    }
}

/// Where in the whole the work is, until this is dropped.
#[derive(Debug)]
pub struct Place {
    level: Level,
    before: Option<String>,
}

/// Work on one of several models or runs.
pub fn stage(number: usize, of: usize) -> Place {
    place(Level::Stage, number, of)
}

/// One of several parts of the work on one model.
pub fn phase(number: usize, of: usize) -> Place {
    place(Level::Phase, number, of)
}

fn place(level: Level, number: usize, of: usize) -> Place {
    let text = Some(format!("{number}/{of}"));
    Place {
        level,
        before: front().and_then(|front| front.place(level, text)),
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(front) = front() {
            front.place(self.level, self.before.take());
        }
    }
}
