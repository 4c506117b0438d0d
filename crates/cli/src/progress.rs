//! What a person sees: how it goes on stderr, results on stdout.

mod line;
mod screen;
mod terminal;
mod wrap;

use std::borrow::Cow;
use std::fmt::Display;
use std::io::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Instant;

pub use self::screen::clear;
use self::screen::{SCREEN, Screen};
pub use self::terminal::Printed;
use self::terminal::Terminal;
use self::wrap::wrap;

/// How much is said on the way: 0 warnings and errors, 1 progress and notes too, 2 details as well.
static VOLUME: AtomicU8 = AtomicU8::new(1);

/// When the process began, nearly.
static START: OnceLock<Instant> = OnceLock::new();

/// Says less or more from now on, and what a study says too.
pub fn begin(quiet: bool, verbose: bool) {
    retrack_study::progress::listen(Box::new(Terminal));
    START.get_or_init(Instant::now);
    let volume = match (quiet, verbose) {
        (true, _) => 0,
        (_, true) => 2,
        _ => 1,
    };
    VOLUME.store(volume, Ordering::Relaxed);
}

fn volume() -> u8 {
    VOLUME.load(Ordering::Relaxed)
}

/// A line about what is happening.
pub fn note(text: impl Display) {
    if volume() > 0 {
        complain(text);
    }
}

/// A line for those who want to know more (`-v`), after the seconds that have passed.
pub fn detail(text: impl Display) {
    if volume() > 1 {
        let seconds = START.get_or_init(Instant::now).elapsed().as_secs_f64();
        complain(format_args!("{seconds:7.2} s  {text}"));
    }
}

/// Whether details are said: what they tell may take time to find out.
pub fn is_verbose() -> bool {
    volume() > 1
}

/// A line about something that may not be what was meant.
pub fn warn(text: impl Display) {
    complain(format_args!("warning: {text}"));
}

/// The error that ends a command.
pub fn fail(text: impl Display) {
    screen::end();
    complain(format_args!("error: {text}"));
}

/// Prints on stderr whatever the volume.
fn complain(text: impl Display) {
    print_error(&visible(&text.to_string()));
}

/// What clap says of wrong usage, colours and all.
pub fn misused(text: &clap::builder::StyledStr) {
    let text = match SCREEN.has_colours() {
        true => text.ansi().to_string(),
        false => text.to_string(),
    };
    print_error(text.trim_end());
}

/// Help on stdout, colours and all. clap wraps it but for the usage.
pub fn show_help(text: &clap::builder::StyledStr) {
    let stdout = console::Term::stdout();
    let text = match stdout.features().colors_supported() {
        true => text.ansi().to_string(),
        false => text.to_string(),
    };
    let text = match Screen::width_of(&stdout) {
        Some(width) => wrap(text.trim_end(), width),
        None => text.trim_end().to_string(),
    };
    say!("{text}");
}

fn print_error(text: &str) {
    SCREEN.print(|width| {
        let text = width.map_or(text.into(), |width| wrap(text, width));
        let _ = writeln!(std::io::stderr(), "{text}");
    });
}

/// A result in words on stdout. Like notes it is wrapped where a terminal shows it.
pub fn tell(text: impl Display) {
    let text = visible(&text.to_string()).into_owned();
    let text = match Screen::width_of(&console::Term::stdout()) {
        Some(width) => wrap(&text, width),
        None => text,
    };
    say!("{text}");
}

/// A table of results on stdout.
pub fn table(table: &retrack_eval::score::Table) {
    let text = match Screen::width_of(&console::Term::stdout()) {
        Some(width) => table.within(width),
        None => table.plain(),
    };
    say!("{}", text.trim_end());
}

/// Text in which nothing but line breaks and tabs acts on a terminal: names of files come from strangers too.
pub fn visible(text: &str) -> Cow<'_, str> {
    let acts = |c: char| c.is_control() && c != '\n' && c != '\t';
    if !text.contains(acts) {
        return text.into();
    }
    text.chars()
        .map(|c| {
            if acts(c) {
                c.escape_default().to_string()
            } else {
                c.to_string()
            }
        })
        .collect()
}

/// `println!` for results. That nobody reads on (`retrack ... | head`) is no error.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write;
        $crate::progress::clear();
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}
pub(crate) use say;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_send_commands_to_the_terminal() {
        assert_eq!(visible("a\tb\nc"), "a\tb\nc");
        assert_eq!(visible("\u{1b}[2Jü\r"), "\\u{1b}[2Jü\\r");
    }
}
