//! Text that fits a terminal.

use std::path::Path;

use console::measure_text_width;

/// Words of which a path may consist, at most.
const WORDS: usize = 8;

/// Breaks lines between words, so that none is longer than `width` columns; what was one line goes on indented. Words
/// and paths stay whole, longer ones too.
pub fn wrap(text: &str, width: usize) -> String {
    let typed: Vec<String> = std::env::args().skip(1).collect();
    wrap_around(text, width, &typed, &|path| {
        Path::new(path).symlink_metadata().is_ok()
    })
}

/// `typed`: what must not be torn apart though it holds spaces. `is_path`: whether a text is the path of something.
fn wrap_around(
    text: &str,
    width: usize,
    typed: &[String],
    is_path: &dyn Fn(&str) -> bool,
) -> String {
    let lines = text
        .split('\n')
        .map(|line| wrap_line(line, width, typed, is_path));
    lines.collect::<Vec<_>>().join("\n")
}

fn wrap_line(line: &str, width: usize, typed: &[String], is_path: &dyn Fn(&str) -> bool) -> String {
    if measure_text_width(line) <= width {
        return line.to_string();
    }
    let own = line.len() - line.trim_start_matches(' ').len();
    let indent = " ".repeat((own + 2).min(width / 4));
    let mut wrapped = String::with_capacity(line.len() + 16);
    let mut column = 0;
    for (gap, word) in words(line, typed, is_path) {
        let columns = measure_text_width(word);
        if column > 0 && column + gap + columns > width {
            wrapped.push('\n');
            wrapped.push_str(&indent);
            column = indent.len();
        } else {
            wrapped.extend(std::iter::repeat_n(' ', gap));
            column += gap;
        }
        wrapped.push_str(word);
        column += columns;
    }
    wrapped
}

/// What stays whole, each with the spaces before it.
fn words<'a>(
    line: &'a str,
    typed: &[String],
    is_path: &dyn Fn(&str) -> bool,
) -> Vec<(usize, &'a str)> {
    let mut words = Vec::new();
    let mut rest = line;
    loop {
        let word = rest.trim_start_matches(' ');
        let gap = rest.len() - word.len();
        if word.is_empty() {
            return words;
        }
        let end = whole(word, typed, is_path);
        words.push((gap, &word[..end]));
        rest = &word[end..];
    }
}

/// Where the word ends with which `text` begins, or the path with spaces in it.
fn whole(text: &str, typed: &[String], is_path: &dyn Fn(&str) -> bool) -> usize {
    let end_of_word = |from: usize| text[from..].find(' ').map_or(text.len(), |at| from + at);
    let bare = text.trim_start_matches(['"', '\'', '`', '(']);
    let start = text.len() - bare.len();
    let mut end = end_of_word(0);
    for value in typed {
        // `--option=value` is one argument.
        let value = value.split_once('=').map_or(&value[..], |(_, value)| value);
        if value.contains(' ') && bare.starts_with(value) {
            end = end.max(end_of_word(start + value.len()));
        }
    }
    let mut longer = end;
    for _ in 1..WORDS {
        if longer == text.len() {
            break;
        }
        longer = end_of_word(longer + 1);
        let path = text.get(start..longer).unwrap_or_default();
        let path = path.trim_end_matches([':', ',', ';', '.', ')', '"', '\'', '`']);
        if is_path(path) {
            end = longer;
        }
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str, width: usize) -> String {
        wrap_around(text, width, &[], &|_| false)
    }

    #[test]
    fn lines_break_between_words_and_keep_them_all() {
        let text = "warning: photos/IMG_0001.png is nearly a copy of photos/IMG_0002.png and stays retained";
        for width in [20, 40, 60, 80] {
            let wrapped = plain(text, width);
            for line in wrapped.lines() {
                let words = line.split_whitespace().count();
                assert!(line.len() <= width || words == 1, "{width}: {line}");
            }
            let words = wrapped.split_whitespace().collect::<Vec<_>>().join(" ");
            assert_eq!(words, text);
        }
        assert_eq!(
            plain("short  line\n  and another", 80),
            "short  line\n  and another"
        );
        assert_eq!(plain("äöü äöü", 4), "äöü\n äöü");
        // Wide letters take two columns.
        assert_eq!(plain("写真 写真", 6), "写真\n 写真");
        assert_eq!(plain("", 10), "");
    }

    #[test]
    fn paths_with_spaces_are_not_torn_apart() {
        let typed = ["--data=My Photos".to_string(), "No Such Folder".to_string()];
        let exists = |path: &str| path == "My Photos/IMG 01.png";
        let text = "reading My Photos/IMG 01.png: truncated; No Such Folder is not there";
        let wrapped = wrap_around(text, 16, &typed, &exists);
        assert!(wrapped.contains("My Photos/IMG 01.png:"), "{wrapped}");
        assert!(wrapped.contains("No Such Folder"), "{wrapped}");
    }
}
