//! The line that says how a task goes.

use std::time::Duration;

use console::{measure_text_width, truncate_str};
use retrack_checkpoint::words::duration;

/// Columns of the bar itself, the widest that fits; narrower ones say nothing.
const BARS: [usize; 4] = [32, 24, 16, 10];

/// Before this a rate says more of the first step than of the others.
const TOO_EARLY: Duration = Duration::from_secs(1);

/// How far a task is.
#[derive(Debug, Clone)]
pub struct State {
    pub title: String,
    /// Steps in all; `None` where nobody knows.
    pub total: Option<u64>,
    /// What is counted.
    pub unit: &'static str,
    /// Steps that were done when it began here.
    pub first: u64,
    pub done: u64,
    pub elapsed: Duration,
    pub message: String,
}

impl State {
    /// Time for the rest, if it goes on like that.
    pub fn left(&self) -> Option<Duration> {
        let (total, each) = (self.total?, self.each()?);
        let rest = total.saturating_sub(self.done);
        (rest > 0).then(|| Duration::from_secs_f64(each * rest as f64))
    }

    /// Seconds of a step.
    fn each(&self) -> Option<f64> {
        let here = self.done.saturating_sub(self.first);
        (here > 0 && self.elapsed >= TOO_EARLY).then(|| self.elapsed.as_secs_f64() / here as f64)
    }

    /// The same in words. The last second is one.
    fn left_in_words(&self) -> Option<String> {
        let left = self.left()?.max(Duration::from_secs(1));
        Some(format!("{} left", duration(left)))
    }

    fn counts(&self) -> String {
        match self.total {
            Some(total) => {
                let width = total.to_string().len();
                format!("{:>width$}/{total} {}", self.done, self.unit)
            }
            None => duration(self.elapsed),
        }
    }

    fn rate(&self) -> Option<String> {
        let each = self.each().filter(|_| self.total.is_some())?;
        Some(match 1.0 / each {
            rate if rate >= 100.0 => format!("{rate:.0}/s"),
            rate if rate >= 1.0 => format!("{rate:.1}/s"),
            _ if each < 10.0 => format!("{each:.1} s each"),
            _ => format!("{} each", duration(Duration::from_secs_f64(each))),
        })
    }

    /// For a log file.
    pub fn for_log(&self) -> String {
        let left = self.left_in_words();
        let message = Some(self.message.clone()).filter(|message| !message.is_empty());
        let parts = [
            Some(self.counts().trim_start().to_string()),
            self.rate(),
            left,
            message,
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        format!("{}: {}", self.title, parts.join(", "))
    }

    /// For a terminal: what fits into `width` columns, the most useful first.
    pub fn for_terminal(&self, width: usize) -> String {
        let counts = self.counts();
        let left = self.left_in_words();
        let message = Some(self.message.clone()).filter(|message| !message.is_empty());
        let mut free = width.saturating_sub(measure_text_width(&counts) + 2);
        let title = match free {
            0..4 => String::new(),
            _ => truncate_str(&self.title, free, "...").into_owned(),
        };
        free -= measure_text_width(&title);
        let mut take = |text: Option<String>| {
            let text = text?;
            let columns = measure_text_width(&text) + 2;
            (columns <= free).then(|| {
                free -= columns;
                text
            })
        };
        let left = take(left);
        // Its place is kept while the rest comes and goes.
        let narrow = self.total.and_then(|_| take(Some(" ".repeat(BARS[3] + 2))));
        let rate = take(self.rate());
        let message = take(message);
        let bar = narrow.map(|_| {
            let wide = BARS.into_iter().find(|columns| *columns <= free + BARS[3]);
            self.bar(wide.unwrap_or(BARS[3]))
        });
        let parts = [Some(title), bar, Some(counts), rate, left, message];
        let parts = parts.into_iter().flatten();
        let parts: Vec<String> = parts.filter(|part| !part.is_empty()).collect();
        parts.join("  ")
    }

    fn bar(&self, columns: usize) -> String {
        let total = self.total.unwrap_or(0).max(1);
        let filled = (columns as u64 * self.done.min(total) / total) as usize;
        let mut bar = "=".repeat(filled);
        if filled < columns {
            bar.push('>');
        }
        format!("[{bar:<columns$}]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(done: u64, seconds: f64) -> State {
        State {
            title: "unlearning".into(),
            total: Some(60),
            unit: "steps",
            first: 0,
            done,
            elapsed: Duration::from_secs_f64(seconds),
            message: "loss 123.45".into(),
        }
    }

    #[test]
    fn a_line_fits_any_terminal_and_says_what_matters_most() {
        for width in [10, 20, 40, 60, 79, 119] {
            for state in [
                state(0, 0.0),
                state(1, 33.0),
                state(59, 7200.0),
                state(60, 1.0),
            ] {
                let line = state.for_terminal(width);
                assert!(
                    measure_text_width(&line) <= width.max(13),
                    "{width}: {line}"
                );
                assert!(line.contains(&format!("{}/60 steps", state.done)), "{line}");
            }
        }
        assert_eq!(
            state(30, 60.0).for_terminal(79),
            "unlearning  [========>       ]  30/60 steps  2.0 s each  60 s left  loss 123.45"
        );
        assert_eq!(
            state(30, 60.0).for_terminal(59),
            "unlearning  [========>       ]  30/60 steps  60 s left"
        );
        assert_eq!(
            state(30, 15.0).for_terminal(39),
            "unlearning  30/60 steps  15 s left"
        );
    }

    #[test]
    fn nothing_is_said_of_the_time_left_before_a_step_is_done() {
        for early in [state(0, 0.0), state(0, 100.0), state(2, 0.1)] {
            let line = early.for_terminal(119);
            assert!(!line.contains("left") && !line.contains("/s"), "{line}");
        }
        // What an earlier process did says nothing of this one's pace.
        let resumed = State {
            first: 30,
            ..state(30, 5.0)
        };
        assert_eq!(resumed.left(), None);
        let resumed = State {
            first: 30,
            ..state(31, 5.0)
        };
        assert_eq!(resumed.left(), Some(Duration::from_secs(145)));
    }

    #[test]
    fn a_log_line_holds_the_same() {
        assert_eq!(
            state(30, 60.0).for_log(),
            "unlearning: 30/60 steps, 2.0 s each, 60 s left, loss 123.45"
        );
        let open = State {
            total: None,
            message: String::new(),
            ..state(0, 75.0)
        };
        assert_eq!(open.for_log(), "unlearning: 75 s");
    }
}
