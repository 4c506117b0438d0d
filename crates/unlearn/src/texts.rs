//! Which image has which text.

use std::collections::{BTreeMap, HashMap};

use sha2::{Digest, Sha256};

use retrack_checkpoint::hex::hex;
use retrack_data::Split;

/// Where an image's text comes from, the first that there is: its part's, what it was
/// called before, its own, the one for all.
#[derive(Debug, Clone, Default)]
pub struct Prompts {
    /// Of the images to forget.
    pub forget: Option<String>,
    /// Of the images to keep.
    pub retain: Option<String>,
    /// One for each row.
    pub captions: Option<Vec<String>>,
    /// Of every image.
    pub all: Option<String>,
    /// Of single rows, as an earlier run had it.
    pub recorded: BTreeMap<usize, String>,
}

/// The texts of a run, each once, and which one each row has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Texts {
    /// The distinct texts; their places are their numbers.
    pub known: Vec<String>,
    /// The number of each row's text.
    pub of_row: Vec<i64>,
}

/// An image for which there is no text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("row {row} has no text")]
pub struct NoText {
    /// The image's row.
    pub row: usize,
    /// Whether the image is to be forgotten.
    pub forgotten: bool,
}

impl Texts {
    /// Numbers the texts in the order in which forgotten, retained and earlier forgotten rows have them. `rows`: those of the data set.
    ///
    /// # Errors
    /// The first row without a text.
    pub fn assign(prompts: &Prompts, split: &Split, rows: usize) -> Result<Self, NoText> {
        let mut texts = Self {
            known: Vec::new(),
            of_row: vec![0; rows],
        };
        let mut numbers: HashMap<&str, i64> = HashMap::new();
        // What earlier requests had their images called is known here of recorded ones alone.
        for (rows, of_part, else_of_part, forgotten) in [
            (&split.forget, &prompts.forget, &None, true),
            (&split.retain, &prompts.retain, &None, false),
            (&split.earlier, &None, &prompts.retain, false),
        ] {
            for &row in rows {
                let caption = prompts.captions.as_ref().map(|captions| &captions[row]);
                let text = of_part.as_ref().or(prompts.recorded.get(&row));
                let text = text.or(caption).or(prompts.all.as_ref());
                let text = text.or(else_of_part.as_ref());
                let text = text.ok_or(NoText { row, forgotten })?;
                let next = numbers.len() as i64;
                texts.of_row[row] = *numbers.entry(text).or_insert_with(|| {
                    texts.known.push(text.clone());
                    next
                });
            }
        }
        Ok(texts)
    }

    /// The texts of some rows, each once.
    pub fn of(&self, rows: &[usize]) -> Vec<&str> {
        let mut numbers: Vec<i64> = rows.iter().map(|&row| self.of_row[row]).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let text = |number: i64| self.known[number as usize].as_str();
        numbers.into_iter().map(text).collect()
    }

    /// SHA-256 over all texts and whose they are, in hexadecimal.
    pub fn digest(&self) -> String {
        let mut hash = hashed(&self.known);
        for number in &self.of_row {
            hash.update(number.to_le_bytes());
        }
        hex(&hash.finalize())
    }
}

fn hashed(texts: &[String]) -> Sha256 {
    let mut hash = Sha256::new();
    for text in texts {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    }
    hash
}

/// SHA-256 over texts in their order, in hexadecimal.
pub fn digest(texts: &[String]) -> String {
    hex(&hashed(texts).finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split() -> Split {
        Split {
            forget: vec![2],
            retain: vec![0, 1, 3],
            ..Split::default()
        }
    }

    fn text(text: &str) -> Option<String> {
        Some(text.into())
    }

    #[test]
    fn a_part_s_text_goes_before_captions_and_these_before_the_one_for_all() {
        let captions = ["a", "b", "c", "a"].map(String::from).to_vec();
        let mut prompts = Prompts {
            captions: Some(captions),
            all: text("all"),
            ..Prompts::default()
        };
        let texts = Texts::assign(&prompts, &split(), 4).unwrap();
        assert_eq!(texts.known, ["c", "a", "b"]);
        assert_eq!(texts.of_row, [1, 2, 0, 1]);
        assert_eq!(texts.of(&[3, 0, 2]), ["c", "a"]);
        prompts.forget = text("f");
        assert_eq!(
            Texts::assign(&prompts, &split(), 4).unwrap().known,
            ["f", "a", "b"]
        );
        prompts.captions = None;
        assert_eq!(
            Texts::assign(&prompts, &split(), 4).unwrap().known,
            ["f", "all"]
        );
        prompts.all = None;
        let missing = Texts::assign(&prompts, &split(), 4).unwrap_err();
        assert_eq!((missing.row, missing.forgotten), (0, false));
    }

    #[test]
    fn the_digest_changes_with_a_text_and_with_its_image() {
        let texts = |known: [&str; 2], of_row: [i64; 2]| {
            let known = known.map(String::from).to_vec();
            Texts {
                known,
                of_row: of_row.to_vec(),
            }
            .digest()
        };
        let one = texts(["a", "bc"], [0, 1]);
        assert_eq!(one, texts(["a", "bc"], [0, 1]));
        assert_ne!(one, texts(["ab", "c"], [0, 1]));
        assert_ne!(one, texts(["a", "bc"], [1, 0]));
    }
}
