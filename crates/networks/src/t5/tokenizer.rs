//! T5's tokenizer: from a prompt to token numbers, by the `tokenizer.json` that transformers writes.

use retrack_checkpoint::folder::Part;
use retrack_checkpoint::json;
use tokenizers::Tokenizer;

use crate::tokenizer::{TokenizerError, Tokens};

const FILE: &str = "tokenizer.json";
/// The published one takes 2.4 MB.
const LARGEST_FILE: u64 = 64 << 20;
/// Of T5's vocabulary, whatever it is for.
const PAD: &str = "<pad>";
const END: &str = "</s>";

/// A tokenizer of pieces of sentences.
#[derive(Debug, Clone)]
pub struct T5Tokenizer {
    tokenizer: Tokenizer,
    end: i64,
    pad: i64,
}

impl T5Tokenizer {
    /// Reads the `tokenizer_3` folder of a pipeline.
    ///
    /// # Errors
    /// A file that is missing or damaged.
    pub fn read(part: &Part) -> Result<Self, TokenizerError> {
        let malformed = |problem: String| TokenizerError::Malformed {
            path: part.path(FILE),
            problem,
        };
        if !part.has(FILE) {
            return Err(malformed(
                "missing; transformers writes it: AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)".into(),
            ));
        }
        let bytes = part.read(FILE, LARGEST_FILE)?;
        // The library takes merges of other models for granted, and panics where they make no token.
        let json = json::parse(&bytes).map_err(|error| malformed(error.to_string()))?;
        if json["model"]["type"] != "Unigram" {
            return Err(malformed(format!(
                "its model is {}, where T5's is Unigram",
                json["model"]["type"]
            )));
        }
        let tokenizer = Tokenizer::from_bytes(&bytes)
            .map_err(|error| malformed(format!("not a tokenizer: {error}")))?;
        let mark = |token: &str| {
            let id = tokenizer.token_to_id(token);
            id.map(i64::from)
                .ok_or_else(|| malformed(format!("{token} is not in the vocabulary")))
        };
        Ok(Self {
            end: mark(END)?,
            pad: mark(PAD)?,
            tokenizer,
        })
    }

    /// So many tokens of a prompt: padded, or cut before the end mark where there are too many.
    ///
    /// # Errors
    /// The vocabulary lacks what the text needs.
    pub fn encode(&self, text: &str, length: usize) -> Result<Tokens, TokenizerError> {
        let encoding = self
            .tokenizer
            .encode(text, true)
            .map_err(|error| TokenizerError::Text {
                text: text.into(),
                problem: error.to_string(),
            })?;
        let mut ids: Vec<i64> = encoding.get_ids().iter().map(|&id| id.into()).collect();
        let mut cut = None;
        if ids.len() > length {
            ids.truncate(length - 1);
            ids.push(self.end);
            let from = encoding.get_offsets()[length - 1].0;
            cut = Some(text.get(from..).unwrap_or(text).trim().to_string());
        }
        ids.resize(length, self.pad);
        Ok(Tokens { ids, cut })
    }
}
