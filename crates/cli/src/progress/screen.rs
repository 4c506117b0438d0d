//! The one line on stderr that changes while something goes on. In a log file it is a line a minute instead.

use std::io::Write;
use std::sync::{Mutex, MutexGuard, Once};
use std::time::{Duration, Instant};

use console::Term;
use indicatif::{ProgressBar, ProgressStyle};
use retrack_checkpoint::words::duration;
use retrack_study::progress::{Change, Level};

use super::line::State;
use super::{detail, is_verbose, note, visible, volume};

/// Between two looks at what goes on.
const TICK: Duration = Duration::from_millis(250);
/// Between two lines in a log.
const LOG_EVERY: Duration = Duration::from_secs(60);
/// Until the first line of a task that takes long.
const LOG_FIRST: Duration = Duration::from_secs(5);
/// A task with less than this left says nothing early.
const SOON: Duration = Duration::from_secs(20);
/// Until the first line of a task whose first step is not done yet.
const LOG_SILENT: Duration = Duration::from_secs(30);

pub(super) static SCREEN: Screen = Screen(Mutex::new(Shown {
    tasks: Vec::new(),
    stage: None,
    phase: None,
    line: None,
    logged: None,
    next: 0,
}));

pub(super) struct Screen(Mutex<Shown>);

struct Shown {
    /// What goes on, the innermost last: that one is shown.
    tasks: Vec<Task>,
    /// Which of several models or runs this is about, and which part of the work on it.
    stage: Option<String>,
    phase: Option<String>,
    /// The terminal's last line, while it is ours.
    line: Option<ProgressBar>,
    /// When a line went into the log.
    logged: Option<Instant>,
    next: u64,
}

struct Task {
    id: u64,
    state: State,
    start: Instant,
    /// Whether the log speaks of it.
    logged: bool,
}

impl Screen {
    fn lock(&self) -> MutexGuard<'_, Shown> {
        self.0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The columns of a terminal; `None` for a file, a pipe or a terminal that only prints.
    pub(super) fn width_of(term: &Term) -> Option<usize> {
        let shown = term.features().is_attended();
        shown.then(|| {
            term.size_checked()
                .map_or(80, |(_, columns)| columns.max(20).into())
        })
    }

    pub(super) fn has_colours(&self) -> bool {
        Term::stderr().features().colors_supported()
    }

    /// Prints lines above the one that changes. `print` gets the terminal's columns, if it is one.
    pub(super) fn print(&self, print: impl FnOnce(Option<usize>)) {
        let mut shown = self.lock();
        let term = Term::stderr();
        let drawn = shown.line.is_some();
        shown.clear();
        print(Self::width_of(&term));
        if drawn {
            shown.draw(&term);
        }
    }
}

/// Shows nothing more: what went on has ended.
pub(super) fn end() {
    let mut shown = SCREEN.lock();
    shown.clear();
    shown.tasks.clear();
}

/// Removes the line that changes, for something else to be printed there.
pub fn clear() {
    SCREEN.lock().clear();
}

impl Shown {
    fn clear(&mut self) {
        if let Some(line) = self.line.take() {
            line.finish_and_clear();
        }
    }

    fn draw(&mut self, term: &Term) {
        let (Some(width), Some(state)) = (Screen::width_of(term), self.state()) else {
            return;
        };
        let line = self.line.get_or_insert_with(|| {
            let style = ProgressStyle::with_template("{msg}").expect("the template is fixed");
            ProgressBar::new_spinner().with_style(style)
        });
        // In the last column some terminals begin a new line, and Ctrl-C writes `^C` behind it.
        line.set_message(state.for_terminal(width - 3));
        line.tick();
    }

    /// Of the innermost task.
    fn state(&self) -> Option<State> {
        self.tasks.last().map(|task| self.titled(task))
    }

    /// How far a task is, its title with the place in the whole.
    fn titled(&self, task: &Task) -> State {
        let mut title = String::new();
        if let Some(stage) = &self.stage {
            title = format!("{stage} ");
        }
        title.push_str(&task.state.title);
        if let Some(phase) = &self.phase {
            title = format!("{title} ({phase})");
        }
        State {
            title,
            elapsed: task.start.elapsed(),
            ..task.state.clone()
        }
    }

    /// Adds to the log what is due.
    fn log(&mut self) {
        let Some(state) = self.state() else {
            return;
        };
        let told = self.tasks.last().is_some_and(|task| task.logged);
        if is_due(self.logged.map(|last| last.elapsed()), told, &state) {
            let _ = writeln!(std::io::stderr(), "{}", state.for_log());
            self.logged = Some(Instant::now());
            if let Some(task) = self.tasks.last_mut() {
                task.logged = true;
            }
        }
    }

    fn task(&mut self, id: u64) -> Option<&mut Task> {
        self.tasks.iter_mut().rev().find(|task| task.id == id)
    }
}

/// Whether a line belongs into the log. `since`: how long ago the last one was, if there was one; `told`: it was about
/// this task.
fn is_due(since: Option<Duration>, told: bool, state: &State) -> bool {
    match since {
        Some(since) if since >= LOG_EVERY => true,
        _ if told => false,
        _ if state.total.is_none() || state.done == state.first => state.elapsed >= LOG_SILENT,
        // The first of all says that something goes on.
        None => state.elapsed >= LOG_FIRST,
        Some(_) => state.elapsed >= LOG_FIRST && state.left().is_some_and(|left| left > SOON),
    }
}

/// Shows a task from now on, with rate and time left where its steps are known. Returns its number.
pub(super) fn begin(title: &str, total: Option<u64>, unit: &'static str) -> u64 {
    static TICKER: Once = Once::new();
    if volume() > 0 {
        TICKER.call_once(|| {
            // Without it nothing is shown; the work is the same.
            let _ = std::thread::Builder::new().spawn(tick);
        });
    }
    let mut shown = SCREEN.lock();
    let id = shown.next;
    shown.next += 1;
    shown.tasks.push(Task {
        id,
        state: State {
            title: visible(title).replace('\n', " "),
            total,
            unit,
            first: 0,
            done: 0,
            elapsed: Duration::ZERO,
            message: String::new(),
        },
        start: Instant::now(),
        logged: false,
    });
    id
}

fn tick() {
    let term = Term::stderr();
    loop {
        std::thread::sleep(TICK);
        let mut shown = SCREEN.lock();
        match Screen::width_of(&term) {
            Some(_) => shown.draw(&term),
            None => shown.log(),
        }
    }
}

/// A task goes on, or ends.
pub(super) fn change(id: u64, change: Change) {
    if change == Change::End {
        return finish(id);
    }
    let mut shown = SCREEN.lock();
    let Some(task) = shown.task(id) else { return };
    match change {
        Change::StartAt(step) => {
            task.state.first = step;
            task.state.done = step;
            task.start = Instant::now();
        }
        Change::Inc(steps) => task.state.done += steps,
        Change::Position(done) => task.state.done = done,
        Change::Message(message) => task.state.message = message,
        Change::End => {}
    }
}

/// Takes a task away: what it led to is printed instead.
fn finish(id: u64) {
    let mut shown = SCREEN.lock();
    let Some(place) = shown.tasks.iter().rposition(|task| task.id == id) else {
        return;
    };
    let task = shown.tasks.remove(place);
    let State { title, unit, .. } = shown.titled(&task);
    shown.clear();
    drop(shown);
    let took = task.start.elapsed();
    let steps = task.state.done - task.state.first;
    match task.state.total {
        Some(_) => detail(format_args!(
            "{title}: {steps} {unit} in {:.2} s",
            took.as_secs_f64()
        )),
        None => detail(format_args!("{title}: {:.2} s", took.as_secs_f64())),
    }
    // What was stopped says so itself.
    let is_done = task
        .state
        .total
        .is_none_or(|total| task.state.done >= total);
    if task.logged && is_done && !is_verbose() {
        note(format_args!("{title}: done after {}", duration(took)));
    }
}

/// Where in the whole the work is. Returns where it was.
pub(super) fn place(level: Level, text: Option<String>) -> Option<String> {
    let mut shown = SCREEN.lock();
    let slot = match level {
        Level::Stage => &mut shown.stage,
        Level::Phase => &mut shown.phase,
    };
    std::mem::replace(slot, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_gets_a_line_a_minute_and_an_early_one_of_what_takes_long() {
        let seconds = Duration::from_secs;
        let state = |done, elapsed| State {
            title: String::new(),
            total: Some(100),
            unit: "steps",
            first: 0,
            done,
            elapsed: seconds(elapsed),
            message: String::new(),
        };
        // The first line of all.
        assert!(!is_due(None, false, &state(1, 4)));
        assert!(is_due(None, false, &state(1, 5)));
        assert!(!is_due(None, false, &state(0, 29)));
        assert!(is_due(None, false, &state(0, 30)));
        // A line a minute.
        assert!(!is_due(Some(seconds(59)), true, &state(50, 100)));
        assert!(is_due(Some(seconds(60)), true, &state(50, 100)));
        // The next task, early where it takes long.
        assert!(is_due(Some(seconds(6)), false, &state(1, 6)));
        assert!(!is_due(Some(seconds(6)), false, &state(90, 6)));
    }
}
