//! What a study says, on the terminal.

use retrack_study::field::Field;
use retrack_study::observer::Observer;
use retrack_study::progress::{Change, Front, Level, Tone};
use retrack_study::situation::Situation;
use serde_json::Value;

use super::{detail, is_verbose, note, say, screen, warn};
use crate::remedy;

pub(super) struct Terminal;

impl Front for Terminal {
    fn say(&self, tone: Tone, text: &str) {
        match tone {
            Tone::Detail => detail(text),
            Tone::Note => note(text),
            Tone::Warning => warn(text),
        }
    }

    fn is_verbose(&self) -> bool {
        is_verbose()
    }

    fn begin(&self, title: &str, total: Option<u64>, unit: &'static str) -> u64 {
        screen::begin(title, total, unit)
    }

    fn change(&self, task: u64, change: Change) {
        screen::change(task, change);
    }

    fn place(&self, level: Level, place: Option<String>) -> Option<String> {
        screen::place(level, place)
    }

    fn advice(&self, situation: Situation) -> Option<&'static str> {
        remedy::advice(situation)
    }

    fn advised_by_runs(&self, situation: Situation) -> Vec<&'static str> {
        remedy::advised_by_runs(situation)
    }

    fn field(&self, field: Field) -> String {
        remedy::option(field)
    }
}

/// Prints what a dry run would do.
pub struct Printed;

impl Observer for Printed {
    fn planned(&mut self, plan: &Value) {
        let text = serde_json::to_string_pretty(plan).expect("JSON has no unwritable values");
        say!("{text}");
    }
}
