//! Tables of text: comma-separated values with a line of headings (RFC 4180).

use serde_json::{Map, Value};

/// A row as an object from headings to texts, for each row after the first.
///
/// # Errors
/// A quote that does not end, rows of more or fewer fields than there are headings.
pub(crate) fn rows(text: &str, separator: char) -> Result<Vec<Value>, String> {
    let mut records = records(text, separator)?.into_iter();
    let Some((_, headings)) = records.next() else {
        return Err("the table is empty".into());
    };
    let found: Result<Vec<Value>, String> = records
        .map(|(line, fields)| {
            if fields.len() != headings.len() {
                return Err(format!(
                    "line {line} has {} fields, but the headings are {}",
                    fields.len(),
                    headings.join(", ")
                ));
            }
            let pairs = headings
                .iter()
                .cloned()
                .zip(fields.into_iter().map(Value::from));
            Ok(Value::Object(pairs.collect::<Map<_, _>>()))
        })
        .collect();
    match found?.as_slice() {
        [] => Err(format!(
            "no entry follows its first line, which is taken for headings: {}",
            headings.join(", ")
        )),
        found => Ok(found.to_vec()),
    }
}

/// Fields of each line that is not empty, with the number of the line that it starts on, from 1.
fn records(text: &str, separator: char) -> Result<Vec<(usize, Vec<String>)>, String> {
    let mut records = Vec::new();
    let (mut fields, mut field) = (Vec::new(), String::new());
    let (mut quoted, mut was_quoted, mut line, mut start) = (false, false, 1, 1);
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        line += usize::from(character == '\n');
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                field.push('"');
                characters.next();
            }
            '"' if quoted => quoted = false,
            _ if quoted => field.push(character),
            '"' if field.is_empty() => (quoted, was_quoted) = (true, true),
            '\r' if characters.peek() == Some(&'\n') => {}
            '\n' => {
                if !(fields.is_empty() && field.is_empty() && !was_quoted) {
                    fields.push(std::mem::take(&mut field));
                    records.push((start, std::mem::take(&mut fields)));
                }
                (was_quoted, start) = (false, line);
            }
            _ if character == separator => {
                fields.push(std::mem::take(&mut field));
                was_quoted = false;
            }
            _ => field.push(character),
        }
    }
    if quoted {
        return Err(format!(
            "a quoted text that starts near line {start} has no end"
        ));
    }
    if !fields.is_empty() || !field.is_empty() {
        fields.push(field);
        records.push((start, fields));
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_hold_separators_lines_and_quotes() {
        let text = "a,b\r\n\"x, y\",\"two\nlines\"\n\n\"he said \"\"no\"\"\",\"\"";
        let found = rows(text, ',').unwrap();
        assert_eq!(found[0]["a"], "x, y");
        assert_eq!(found[0]["b"], "two\nlines");
        assert_eq!(found[1]["a"], "he said \"no\"");
        assert_eq!(found[1]["b"], "");
        assert_eq!(rows("a\tb\n1\t2", '\t').unwrap()[0]["b"], "2");
    }

    #[test]
    fn tables_that_do_not_add_up_are_refused() {
        for (text, says) in [
            ("", "empty"),
            ("a,b\n", "headings: a, b"),
            ("a,b\n1,2\n\n1,2,3\n", "line 4 has 3 fields"),
            ("a,b\n\"1,2\n", "no end"),
        ] {
            let error = rows(text, ',').unwrap_err();
            assert!(error.contains(says), "{text:?}: {error}");
        }
    }
}
