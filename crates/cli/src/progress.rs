//! What a person sees: how it goes on stderr, results on stdout.

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
        .with_prefix(title.to_string());
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}

/// A line about what is happening.
pub fn note(text: impl std::fmt::Display) {
    eprintln!("{text}");
}

/// A line about something that may not be what was meant.
pub fn warn(text: impl std::fmt::Display) {
    eprintln!("warning: {text}");
}

/// `println!` for results. That nobody reads on (`retrack ... | head`) is no error.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write;
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}
pub(crate) use say;
