//! JSON as Python writes it: `json.dumps` puts `NaN`, `Infinity` and `-Infinity` where a number is none, which no other
//! reader of JSON takes. diffusers saves `"lambda_min_clipped": -Infinity` with every DPM-Solver.

use serde_json::Value;

const NO_NUMBERS: [&str; 3] = ["-Infinity", "Infinity", "NaN"];

/// Parses JSON. Where Python's three words stand for a value, the value is that word as a string: a key that nobody
/// reads may hold it, and one that must be a number is refused with it.
///
/// # Errors
/// Anything else that is not JSON.
pub fn parse(bytes: &[u8]) -> Result<Value, serde_json::Error> {
    serde_json::from_slice(bytes).or_else(|error| match quoted(bytes) {
        Some(bytes) => serde_json::from_slice(&bytes),
        None => Err(error),
    })
}

/// The text with the words in quotation marks; `None` where there are none.
fn quoted(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(bytes.len() + 16);
    let (mut rest, mut in_string, mut found) = (bytes, false, false);
    while let Some(&byte) = rest.first() {
        let word = match in_string {
            false => NO_NUMBERS.iter().find(|word| is_value(&out, rest, word)),
            true => None,
        };
        if let Some(word) = word {
            out.push(b'"');
            out.extend(word.as_bytes());
            out.push(b'"');
            rest = &rest[word.len()..];
            found = true;
            continue;
        }
        let taken = if in_string && byte == b'\\' {
            rest.len().min(2)
        } else {
            in_string ^= byte == b'"';
            1
        };
        out.extend(&rest[..taken]);
        rest = &rest[taken..];
    }
    found.then_some(out)
}

/// Whether `rest` begins with `word` where a value stands, after what is in `before`.
fn is_value(before: &[u8], rest: &[u8], word: &str) -> bool {
    let Some(after) = rest.strip_prefix(word.as_bytes()) else {
        return false;
    };
    let before = before.trim_ascii_end().last();
    let after = after.trim_ascii_start().first();
    matches!(before, None | Some(b':' | b'[' | b','))
        && matches!(after, None | Some(b',' | b']' | b'}'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_python_writes_for_no_number_is_read_as_a_word() {
        let text = br#"{"a": -Infinity, "b":[NaN,Infinity , 1], "c": "x \" NaN, -Infinity", "d": {"e":NaN}}"#;
        let read = parse(text).unwrap();
        let word = |word: &str| Value::from(word);
        assert_eq!(read["a"], word("-Infinity"));
        assert_eq!(read["b"], json!(["NaN", "Infinity", 1]));
        assert_eq!(read["c"], word("x \" NaN, -Infinity"));
        assert_eq!(read["d"]["e"], word("NaN"));
    }

    #[test]
    fn nothing_else_becomes_json() {
        for text in [
            "{NaN: 1}",
            "{\"a\": nan}",
            "{\"a\": +Infinity}",
            "{\"a\": NaNa}",
            "{\"a\": 1NaN}",
            "{\"a\": NaN",
            "{\"a\": \"NaN",
            "{\"a\" NaN}",
            "",
        ] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
        assert_eq!(parse(b"{\"a\": [1.5]}").unwrap(), json!({ "a": [1.5] }));
    }
}
