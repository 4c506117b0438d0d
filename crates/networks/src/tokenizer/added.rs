//! Words that were added to a vocabulary later, each a token of its own: the marks, and what textual inversion teaches.
//!
//! A word may stand for several vectors. diffusers' `load_textual_inversion` adds `<cat>`, `<cat>_1`, `<cat>_2` and so
//! on, and `maybe_convert_prompt` puts all of them where a prompt says `<cat>`.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::{TokenizerError, WHOLE, optional};
use retrack_checkpoint::folder::Part;

const CONFIG: &str = "tokenizer_config.json";
const NUMBERS: &str = "added_tokens.json";
/// Bytes of a prompt with all vectors: a stranger's words must not fill memory, and no text encoder reads as many.
const LONGEST: usize = 1 << 20;

/// An entry of `tokenizer.json`. `normalized`: it is looked for in the text in small letters, itself in small letters.
pub(super) fn added_token(id: u64, content: &str, normalized: bool, special: bool) -> Value {
    json!({
        "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": normalized, "special": special,
    })
}

/// The added tokens of a whole `tokenizer.json`, taken out of it.
pub(super) fn listed(
    part: &Part,
    whole: &mut Map<String, Value>,
) -> Result<Vec<Value>, TokenizerError> {
    let Some(Value::Array(added)) = whole.remove("added_tokens") else {
        return Ok(Vec::new());
    };
    let numbered = |token: &Value| token["id"].is_u64() && token["content"].is_string();
    if added.iter().all(numbered) {
        return Ok(added);
    }
    Err(malformed(part, WHOLE, "an added token has no number"))
}

/// `added` with what the other files say, as transformers 5 reads them: `added_tokens_decoder` of the configuration
/// counts most; without one, `added_tokens.json` says words and numbers. `map`: `special_tokens_map.json`.
pub(super) fn overlaid(
    part: &Part,
    config: &Map<String, Value>,
    map: &Map<String, Value>,
    mut added: Vec<Value>,
) -> Result<Vec<Value>, TokenizerError> {
    let mut put = |token: Value| {
        added.retain(|old| old["id"] != token["id"] && old["content"] != token["content"]);
        added.push(token);
    };
    match config.get("added_tokens_decoder") {
        Some(Value::Object(decoder)) => {
            for (id, entry) in decoder {
                let id: Option<u64> = id.parse().ok();
                let (Some(id), Some(content)) = (id, entry["content"].as_str()) else {
                    let problem = "`added_tokens_decoder` has an entry that is no numbered token";
                    return Err(malformed(part, CONFIG, problem));
                };
                let flag = |key: &str, default| entry[key].as_bool().unwrap_or(default);
                let special = flag("special", false);
                let mut token = added_token(id, content, flag("normalized", !special), special);
                for key in ["single_word", "lstrip", "rstrip"] {
                    token[key] = flag(key, false).into();
                }
                put(token);
            }
        }
        Some(_) => {
            let problem = "`added_tokens_decoder` is not an object";
            return Err(malformed(part, CONFIG, problem));
        }
        None => {
            let special = special_words(config, map);
            for (content, id) in optional(part, NUMBERS)? {
                let Some(id) = id.as_u64() else {
                    return Err(malformed(part, NUMBERS, "a token's number is none"));
                };
                let special = special.contains(content.as_str());
                put(added_token(id, &content, !special, special));
            }
        }
    }
    Ok(added)
}

/// The words that transformers 5.24 finds as they are written and not in small letters, whatever their entries say of
/// that: the marks and `extra_special_tokens` of both files, and `additional_special_tokens` of the configuration where
/// that has no others. Those of the map are passed over, and so are entries of the configuration that are objects.
fn special_words<'a>(
    config: &'a Map<String, Value>,
    map: &'a Map<String, Value>,
) -> HashSet<&'a str> {
    const MARKS: [&str; 7] = [
        "bos_token",
        "eos_token",
        "unk_token",
        "sep_token",
        "pad_token",
        "cls_token",
        "mask_token",
    ];
    const EXTRA: &str = "extra_special_tokens";
    fn in_map(token: &Value) -> Option<&str> {
        token.as_str().or_else(|| token.get("content")?.as_str())
    }
    let marks = MARKS.iter().filter_map(|&key| match map.get(key) {
        Some(token) => in_map(token),
        None => config.get(key)?.as_str(),
    });
    let own = config.get(EXTRA).filter(|own| match own {
        Value::Array(own) => !own.is_empty(),
        Value::Object(own) => !own.is_empty(),
        _ => false,
    });
    let own = own.or_else(|| config.get("additional_special_tokens"));
    let listed = |list: Option<&'a Value>| list.and_then(Value::as_array).into_iter().flatten();
    let own = listed(own).filter_map(Value::as_str);
    let others = listed(map.get(EXTRA)).filter_map(in_map);
    marks.chain(own).chain(others).collect()
}

fn malformed(part: &Part, file: &str, problem: &str) -> TokenizerError {
    TokenizerError::Malformed {
        path: part.path(file),
        problem: problem.into(),
    }
}

/// The added words.
#[derive(Debug, Clone)]
pub(super) struct Words(HashSet<String>);

impl Words {
    /// From entries of `tokenizer.json`.
    pub(super) fn new(added: &[Value]) -> Self {
        let content = |token: &Value| token["content"].as_str().map(str::to_owned);
        Self(added.iter().filter_map(content).collect())
    }

    /// Whether one of them stands for several vectors.
    pub(super) fn any_of_several_vectors(&self) -> bool {
        self.0
            .iter()
            .any(|word| self.0.contains(&numbered(word, 1)))
    }

    /// The prompt with all vectors of each word. `tokens`: those of the prompt, whose words alone are replaced, wherever
    /// they stand; a token in small letters is another word than one with capitals (as diffusers 0.42 does it).
    ///
    /// # Errors
    /// A prompt that would grow without bound.
    pub(super) fn expanded(&self, text: &str, tokens: &[String]) -> Result<String, String> {
        let mut text = text.to_owned();
        let mut seen = HashSet::new();
        for token in tokens {
            if token.is_empty() || !self.0.contains(token) || !seen.insert(token) {
                continue;
            }
            let others = (1..).map(|number| numbered(token, number));
            let all = others.take_while(|word| self.0.contains(word));
            let all = all.fold(token.clone(), |all, word| all + " " + &word);
            let grown = text.matches(token.as_str()).count() * all.len();
            if grown > LONGEST {
                return Err(format!(
                    "the vectors of {token:?} make it longer than {LONGEST} bytes"
                ));
            }
            text = text.replace(token.as_str(), &all);
        }
        Ok(text)
    }
}

/// What the vectors of a word after the first are called.
fn numbered(word: &str, number: usize) -> String {
    format!("{word}_{number}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Words {
        Words(words.iter().map(|&word| word.to_owned()).collect())
    }

    fn expanded(words: &Words, text: &str, tokens: &[&str]) -> String {
        let tokens: Vec<String> = tokens.iter().map(|&token| token.to_owned()).collect();
        words.expanded(text, &tokens).unwrap()
    }

    /// As transformers 5.24.0 gave `<Two>` for each of these pairs of files.
    #[test]
    fn special_words_are_those_of_transformers() {
        let entry = |normalized| json!([{ "content": "<Two>", "normalized": normalized }]);
        for (config, map, special) in [
            (json!({}), json!({}), false),
            (
                json!({ "additional_special_tokens": ["<Two>"] }),
                json!({}),
                true,
            ),
            (
                json!({ "additional_special_tokens": entry(false) }),
                json!({}),
                false,
            ),
            (
                json!({ "extra_special_tokens": ["<Two>"] }),
                json!({}),
                true,
            ),
            (
                json!({ "extra_special_tokens": entry(true) }),
                json!({}),
                false,
            ),
            (
                json!({ "extra_special_tokens": { "a_token": "<Two>" } }),
                json!({}),
                false,
            ),
            (
                json!({ "extra_special_tokens": [], "additional_special_tokens": ["<Two>"] }),
                json!({}),
                true,
            ),
            (
                json!({ "extra_special_tokens": ["q"], "additional_special_tokens": ["<Two>"] }),
                json!({}),
                false,
            ),
            (
                json!({}),
                json!({ "additional_special_tokens": ["<Two>"] }),
                false,
            ),
            (
                json!({}),
                json!({ "extra_special_tokens": ["<Two>"] }),
                true,
            ),
            (
                json!({}),
                json!({ "extra_special_tokens": entry(true) }),
                true,
            ),
            (
                json!({}),
                json!({ "extra_special_tokens": entry(false) }),
                true,
            ),
            (
                json!({}),
                json!({ "extra_special_tokens": { "a_token": "<Two>" } }),
                false,
            ),
            (
                json!({ "additional_special_tokens": ["<Two>"] }),
                json!({ "extra_special_tokens": ["q"] }),
                true,
            ),
            (
                json!({ "additional_special_tokens": ["<Two>"] }),
                json!({ "additional_special_tokens": ["q"] }),
                true,
            ),
            (json!({ "pad_token": "<Two>" }), json!({}), true),
            (
                json!({ "pad_token": { "content": "<Two>" } }),
                json!({}),
                false,
            ),
            (json!({}), json!({ "pad_token": "<Two>" }), true),
            (
                json!({}),
                json!({ "pad_token": { "content": "<Two>", "normalized": true } }),
                true,
            ),
            (json!({ "x_token": "<Two>" }), json!({}), false),
            (
                json!({ "mask_token": "<Two>" }),
                json!({ "mask_token": "q" }),
                false,
            ),
        ] {
            let (config, map) = (config.as_object().unwrap(), map.as_object().unwrap());
            let found = special_words(config, map).contains("<Two>");
            assert_eq!(found, special, "{config:?} {map:?}");
        }
    }

    #[test]
    fn a_word_of_several_vectors_becomes_all_of_them_wherever_it_stands() {
        let words = words(&["<two>", "<two>_1", "<two>_2", "<one>", "<two>_4"]);
        assert!(words.any_of_several_vectors());
        assert_eq!(
            expanded(
                &words,
                "a <two>, <one> <two>",
                &["a</w>", "<two>", "<one>", "<two>"]
            ),
            "a <two> <two>_1 <two>_2, <one> <two> <two>_1 <two>_2"
        );
        // What was written out by hand is replaced once more, by diffusers too.
        assert_eq!(
            expanded(&words, "<two> <two>_1", &["<two>", "<two>_1"]),
            "<two> <two>_1 <two>_2 <two> <two>_1 <two>_2_1"
        );
        assert_eq!(expanded(&words, "<two>_1", &["<two>_1"]), "<two>_1");
    }

    #[test]
    fn words_within_words_do_not_fill_memory() {
        let many = (1..5000).flat_map(|number| [format!("a_{number}"), format!("__{number}")]);
        let words = Words(many.chain(["a".into(), "_".into()]).collect());
        let tokens = ["a", "_"].map(str::to_owned);
        let error = words.expanded("a _", &tokens).unwrap_err();
        assert!(error.contains("longer than"), "{error}");
    }

    #[test]
    fn words_of_one_vector_stay() {
        let words = words(&["<one>", "<|endoftext|>", "_1"]);
        assert!(!words.any_of_several_vectors());
        assert_eq!(expanded(&words, "a <one>", &["<one>"]), "a <one>");
    }
}
