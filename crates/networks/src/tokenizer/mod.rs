//! CLIP's tokenizer: from a prompt to the token numbers that its [text encoder](crate::text) takes.
//!
//! A folder keeps it as `vocab.json` with `merges.txt` or, since transformers 5, as `tokenizer.json`; what pads a short
//! prompt is in `special_tokens_map.json` and `tokenizer_config.json`. The pieces between (normalization, how words
//! are cut) are CLIP's and not configurable. Words that were added later, by textual inversion, are in `added`.

mod added;

use std::path::PathBuf;

use serde_json::{Map, Value, json};
use tokenizers::Tokenizer;

use retrack_checkpoint::folder::{FolderError, Part};
use retrack_checkpoint::json;

use added::{Words, added_token};

/// The vocabulary of Stable Diffusion takes 1 MB, a `tokenizer.json` 3.6 MB.
const LARGEST_FILE: u64 = 64 << 20;
/// The file that holds everything, as the `tokenizers` library writes it.
const WHOLE: &str = "tokenizer.json";
const CONFIG: &str = "tokenizer_config.json";
const MAP: &str = "special_tokens_map.json";
/// More tokens than any text encoder here has places for.
const LONGEST: usize = 1 << 16;

/// Why a tokenizer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// A file that cannot be read.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// A file that is no tokenizer of this kind.
    #[error("{}: {problem}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// How.
        problem: String,
    },
    /// No vocabulary.
    #[error("{}: neither vocab.json with merges.txt nor tokenizer.json; download the folder again", path.display())]
    Missing {
        /// The folder.
        path: PathBuf,
    },
    /// A text that the tokenizer fails on.
    #[error("{text:?}: cannot be tokenized: {problem}")]
    Text {
        /// The text.
        text: String,
        /// How.
        problem: String,
    },
}

/// A prompt as token numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    /// [`ClipTokenizer::max_length`] of them: start mark, text, end mark, padding.
    pub ids: Vec<i64>,
    /// The part of the prompt that did not fit.
    pub cut: Option<String>,
}

/// CLIP's byte-level byte-pair encoding.
#[derive(Debug, Clone)]
pub struct ClipTokenizer {
    tokenizer: Tokenizer,
    words: Words,
    end: i64,
    pad: i64,
    max_length: usize,
}

impl ClipTokenizer {
    /// Reads the `tokenizer` folder of a pipeline. `most`: places of the text encoder.
    ///
    /// # Errors
    /// Files that are missing, damaged or contradict each other.
    pub fn read(part: &Part, most: usize) -> Result<Self, TokenizerError> {
        let malformed = |file: &str, problem: String| TokenizerError::Malformed {
            path: part.path(file),
            problem,
        };
        let config = optional(part, CONFIG)?;
        // Since there is `added_tokens_decoder`, the other file repeats this one or is wrong.
        let map = match config.contains_key("added_tokens_decoder") {
            true => Map::new(),
            false => optional(part, MAP)?,
        };
        let mut marks = config.clone();
        marks.extend(map.clone());
        let whole = optional(part, WHOLE)?;
        check_settings(part, &config, &map, &whole)?;
        let (vocab, merges, added) = vocabulary(part, whole)?;
        let mut added = added::overlaid(part, &config, &map, added)?;
        // The library takes it for granted, and panics where a merged token is longer than all that there are.
        if let Some(merge) = unmerged(&vocab, &merges) {
            let problem = format!("the merge {merge} makes no token of the vocabulary");
            return Err(malformed("", problem));
        }
        let numbered = |text: &str| {
            let known = vocab.get(text).and_then(Value::as_u64);
            known.or_else(|| {
                let own = added.iter().find(|token| token["content"] == text);
                own.and_then(|token| token["id"].as_u64())
            })
        };
        let mark = |key: &str, default: &str| {
            let value = marks.get(key).filter(|value| !value.is_null());
            let content = match value {
                None => default,
                Some(value) => value
                    .as_str()
                    .or_else(|| value.get("content")?.as_str())
                    .ok_or_else(|| malformed(CONFIG, format!("`{key}` is not a token")))?,
            };
            let id = numbered(content).ok_or_else(|| {
                malformed(
                    CONFIG,
                    format!("`{key}` is {content:?}, which is not in the vocabulary"),
                )
            })?;
            let normalized = value.and_then(|value| value.get("normalized")?.as_bool());
            let normalized = normalized.unwrap_or(false);
            Ok::<_, TokenizerError>(added_token(id, content, normalized, true))
        };
        let (start, end) = (
            mark("bos_token", "<|startoftext|>")?,
            mark("eos_token", "<|endoftext|>")?,
        );
        let pad = mark("pad_token", "<|endoftext|>")?;
        let unknown = mark("unk_token", "<|endoftext|>")?;
        for token in [&pad, &start, &end, &unknown] {
            if !added.iter().any(|other| other["id"] == token["id"]) {
                added.push(token.clone());
            }
        }
        added.sort_by_key(|token| token["id"].as_u64());
        let words = Words::new(&added);
        let number = |token: &Value| token["id"].as_i64().expect("made above");
        let (end_id, pad_id) = (number(&end), number(&pad));
        let whole = json!({
            "version": "1.0",
            "added_tokens": added,
            "normalizer": { "type": "Sequence", "normalizers": [
                { "type": "NFC" },
                { "type": "Replace", "pattern": { "Regex": r"\s+" }, "content": " " },
                { "type": "Lowercase" },
            ]},
            "pre_tokenizer": { "type": "Sequence", "pretokenizers": [
                {
                    "type": "Split",
                    "pattern": { "Regex": concat!(
                        r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|",
                        r"[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
                    )},
                    "behavior": "Removed",
                    "invert": true,
                },
                { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true },
            ]},
            "post_processor": {
                "type": "RobertaProcessing",
                "sep": [end["content"], end["id"]],
                "cls": [start["content"], start["id"]],
                "trim_offsets": false,
                "add_prefix_space": false,
            },
            "decoder": null,
            "model": {
                "type": "BPE",
                "dropout": null,
                "unk_token": unknown["content"],
                "continuing_subword_prefix": "",
                "end_of_word_suffix": "</w>",
                "fuse_unk": false,
                "vocab": vocab,
                "merges": merges,
            },
        });
        let tokenizer = Tokenizer::from_bytes(whole.to_string())
            .map_err(|error| malformed("", format!("not CLIP's vocabulary and merges: {error}")))?;
        let own = config.get("model_max_length").and_then(Value::as_f64);
        let own = own.filter(|&length| length <= LONGEST as f64);
        let max_length = own.map_or(most, |length| length as usize).min(most);
        if max_length < 2 {
            let problem = "`model_max_length` leaves no place for the two marks".into();
            return Err(malformed(CONFIG, problem));
        }
        Ok(Self {
            tokenizer,
            words,
            end: end_id,
            pad: pad_id,
            max_length,
        })
    }

    /// How many tokens every prompt becomes.
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// The number of the mark after a text.
    pub fn end(&self) -> i64 {
        self.end
    }

    /// The tokens of a prompt, padded, or cut where there are too many. A word of several vectors becomes all of them.
    ///
    /// # Errors
    /// The vocabulary lacks what the text needs.
    pub fn encode(&self, text: &str) -> Result<Tokens, TokenizerError> {
        let cannot = |problem: String| TokenizerError::Text {
            text: text.into(),
            problem,
        };
        let encoded = |text: &str, marks: bool| {
            let encoding = self.tokenizer.encode(text, marks);
            encoding.map_err(|error| cannot(error.to_string()))
        };
        let text = if self.words.any_of_several_vectors() {
            let tokens = encoded(text, false)?;
            let expanded = self.words.expanded(text, tokens.get_tokens());
            &expanded.map_err(cannot)?
        } else {
            text
        };
        let encoding = encoded(text, true)?;
        let mut ids: Vec<i64> = encoding.get_ids().iter().map(|&id| id.into()).collect();
        let mut cut = None;
        if ids.len() > self.max_length {
            ids.truncate(self.max_length - 1);
            ids.push(self.end);
            let from = encoding.get_offsets()[self.max_length - 1].0;
            cut = Some(text.get(from..).unwrap_or(text).trim().to_string());
        }
        ids.resize(self.max_length, self.pad);
        Ok(Tokens { ids, cut })
    }
}

/// A JSON object from a file that need not be there.
fn optional(part: &Part, file: &str) -> Result<Map<String, Value>, TokenizerError> {
    if !part.has(file) {
        return Ok(Map::new());
    }
    object(part, file)
}

fn object(part: &Part, file: &str) -> Result<Map<String, Value>, TokenizerError> {
    let bytes = part.read(file, LARGEST_FILE)?;
    match json::parse(&bytes) {
        Ok(Value::Object(object)) => Ok(object),
        other => Err(TokenizerError::Malformed {
            path: part.path(file),
            problem: match other {
                Ok(_) => "not a JSON object".into(),
                Err(error) => format!("not valid JSON: {error}"),
            },
        }),
    }
}

/// The first merge whose result is no token. What is no merge at all is left to the library.
fn unmerged<'a>(vocab: &Map<String, Value>, merges: &'a Value) -> Option<&'a Value> {
    merges.as_array()?.iter().find(|merge| {
        let parts: Option<Vec<&str>> = match merge {
            Value::String(text) => Some(text.split(' ').collect()),
            Value::Array(parts) => parts.iter().map(Value::as_str).collect(),
            _ => None,
        };
        parts.is_some_and(|parts| !vocab.contains_key(&parts.concat()))
    })
}

/// Tokens with their numbers, merges, and the tokens that no text is cut into.
type Vocabulary = (Map<String, Value>, Value, Vec<Value>);

/// Refuses what would cut or pad a prompt otherwise than it is done here. `map`: `special_tokens_map.json`.
fn check_settings(
    part: &Part,
    config: &Map<String, Value>,
    map: &Map<String, Value>,
    whole: &Map<String, Value>,
) -> Result<(), TokenizerError> {
    let refused = |file: &str, key: &str, value: &Value, only: &str| TokenizerError::Malformed {
        path: part.path(file),
        problem: format!("`{key}` = {value} is not computed here, only {only}"),
    };
    // Where the configuration does not say the side, transformers takes that of the whole file.
    for (key, in_whole) in [
        ("padding_side", "padding"),
        ("truncation_side", "truncation"),
    ] {
        let said = [(map, MAP), (config, CONFIG)];
        let said = said
            .into_iter()
            .find_map(|(object, file)| Some((file, object.get(key)?)));
        match said {
            Some((file, side)) if side != "right" => {
                return Err(refused(file, key, side, "\"right\""));
            }
            Some(_) => {}
            None => {
                let side = whole
                    .get(in_whole)
                    .and_then(|object| object.get("direction"));
                if let Some(side) = side.filter(|side| *side != "Right") {
                    let key = format!("{in_whole}.direction");
                    return Err(refused(WHOLE, &key, side, "\"Right\""));
                }
            }
        }
    }
    const SPLIT: &str = "split_special_tokens";
    match config.get(SPLIT) {
        Some(split @ Value::Bool(true)) => Err(refused(CONFIG, SPLIT, split, "false")),
        _ => Ok(()),
    }
}

/// Refuses `vocab.json` and `merges.txt` beside a whole file with others: releases of transformers before 5 read the
/// former, later ones the latter.
fn check_alike(
    part: &Part,
    whole: &Map<String, Value>,
    (vocab, merges, added): (&Map<String, Value>, &Value, &[Value]),
) -> Result<(), TokenizerError> {
    let Some(model) = whole.get("model").and_then(Value::as_object) else {
        return Ok(());
    };
    let marks = |token: &str| added.iter().any(|other| other["content"] == token);
    let within = |one: &Map<String, Value>, other: &Map<String, Value>| {
        one.iter()
            .all(|(token, id)| other.get(token) == Some(id) || marks(token))
    };
    // As text: "a b" is written as ["a", "b"] too.
    let listed = |merges: &Value| -> Option<Vec<String>> {
        let text = |merge: &Value| match merge {
            Value::String(text) => Some(text.clone()),
            Value::Array(parts) => {
                let parts: Option<Vec<&str>> = parts.iter().map(Value::as_str).collect();
                Some(parts?.join(" "))
            }
            _ => None,
        };
        merges.as_array()?.iter().map(text).collect()
    };
    let other_tokens = match model.get("vocab") {
        Some(Value::Object(other)) => !within(vocab, other) || !within(other, vocab),
        _ => false,
    };
    let other_merges = model
        .get("merges")
        .is_some_and(|other| listed(other) != listed(merges));
    if !other_tokens && !other_merges {
        return Ok(());
    }
    let which = if other_tokens {
        "vocab.json"
    } else {
        "merges.txt"
    };
    Err(TokenizerError::Malformed {
        path: part.path(which),
        problem: format!(
            "says otherwise than {WHOLE} beside it; remove {WHOLE}, or vocab.json and merges.txt, whichever the model was \
             not trained with (transformers before release 5 reads the latter two, later ones {WHOLE})"
        ),
    })
}

/// Vocabulary, merges, and the tokens that [`WHOLE`], read as `whole`, adds to them.
fn vocabulary(part: &Part, mut whole: Map<String, Value>) -> Result<Vocabulary, TokenizerError> {
    let malformed = |file: &str, problem: &str| TokenizerError::Malformed {
        path: part.path(file),
        problem: problem.into(),
    };
    if part.has("vocab.json") && part.has("merges.txt") {
        let vocab = object(part, "vocab.json")?;
        let text = String::from_utf8(part.read("merges.txt", LARGEST_FILE)?)
            .map_err(|_| malformed("merges.txt", "not a text file (UTF-8)"))?;
        let merges = text
            .lines()
            .filter(|line| !line.starts_with("#version") && !line.is_empty())
            .map(|line| match line.split_once(' ') {
                Some((left, right)) => Ok(json!([left, right])),
                None => Err(malformed("merges.txt", "a line is not two tokens")),
            })
            .collect::<Result<Vec<Value>, _>>()?;
        let merges = merges.into();
        let added = added::listed(part, &mut whole)?;
        check_alike(part, &whole, (&vocab, &merges, &added))?;
        return Ok((vocab, merges, added));
    }
    if !part.has(WHOLE) {
        return Err(TokenizerError::Missing {
            path: part.path(""),
        });
    }
    let added = added::listed(part, &mut whole)?;
    let model = whole.get_mut("model").and_then(Value::as_object_mut);
    let model = model
        .filter(|model| model.get("type").is_none_or(|kind| kind == "BPE"))
        .ok_or_else(|| malformed(WHOLE, "not a byte-pair encoding, as CLIP's is"))?;
    match (model.remove("vocab"), model.remove("merges")) {
        (Some(Value::Object(vocab)), Some(merges @ Value::Array(_))) => Ok((vocab, merges, added)),
        _ => Err(malformed(WHOLE, "without vocabulary or merges")),
    }
}
