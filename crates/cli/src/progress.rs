//! What a person sees: how it goes on stderr, results on stdout.

use std::borrow::Cow;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A bar with rate and time left; invisible where stderr is no terminal.
pub fn bar(title: &str, steps: usize, unit: &str) -> ProgressBar {
    let template = format!(
        "{{prefix:>12}} [{{bar:32}}] {{pos}}/{{len}} {unit}  {{per_sec}}  {{eta}} left  {{msg}}"
    );
    let style = ProgressStyle::with_template(&template)
        .expect("the template is fixed")
        .with_key(
            "per_sec",
            |state: &indicatif::ProgressState, out: &mut dyn std::fmt::Write| {
                let _ = write!(out, "{:.1}/s", state.per_sec());
            },
        )
        .progress_chars("=> ");
    let bar = ProgressBar::new(steps as u64)
        .with_style(style)
        .with_prefix(visible(title).replace('\n', " "));
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}

/// A line about what is happening.
pub fn note(text: impl std::fmt::Display) {
    eprintln!("{}", visible(&text.to_string()));
}

/// A line about something that may not be what was meant.
pub fn warn(text: impl std::fmt::Display) {
    eprintln!("warning: {}", visible(&text.to_string()));
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
