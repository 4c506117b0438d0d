//! How messages count and list, and say how long something took.

use std::fmt::Display;
use std::time::Duration;

/// "1 image", "2 images"; `one`: a noun whose plural ends with s.
pub fn counted(count: usize, one: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {one}{plural}")
}

/// "a", "a and b", "a, b and c".
pub fn listed<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    match items.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        [before @ .., last] => format!("{} and {last}", before.join(", ")),
    }
}

/// A length of time for people, such as `47 s`, `3 min 20 s`, `2 h 5 min`.
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs_f64().round() as u64;
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    match seconds {
        0..90 => format!("{seconds} s"),
        90..600 => format!("{minutes} min {} s", seconds % 60),
        600..5400 => format!("{} min", (seconds + 30) / 60),
        5400..172_800 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{} d {} h", hours / 24, hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_one_and_the_last_comes_after_and() {
        assert_eq!(counted(1, "image"), "1 image");
        assert_eq!(counted(0, "image"), "0 images");
        assert_eq!(listed([0; 0]), "");
        assert_eq!(listed(["a"]), "a");
        assert_eq!(listed(["a", "b"]), "a and b");
        assert_eq!(listed([1, 2, 3]), "1, 2 and 3");
    }

    #[test]
    fn lengths_of_time_are_for_people() {
        let said = [0.2, 59.7, 200.0, 1500.0, 7500.0, 200_000.0];
        let said = said.map(|seconds| duration(Duration::from_secs_f64(seconds)));
        assert_eq!(
            said,
            [
                "0 s",
                "60 s",
                "3 min 20 s",
                "25 min",
                "2 h 5 min",
                "2 d 7 h"
            ]
        );
    }
}
