//! The requests that a model was made by, one after another: `retrack.json` in its folder.
//!
//! Each request has the digests of the weights that it began with and of those that it wrote, so that the next one can be
//! seen to begin where it ended. Forgotten images are there by digests under a key that stays with the model's owner
//! and is the same for all requests: who has the folder alone can test no image against it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::files::read_text;

/// The file's name in a model's folder.
pub const NAME: &str = "retrack.json";
/// The form that this version reads and writes.
pub const FORMAT: u32 = 1;

/// SHA-256 of the files of a model's trained part, and of an adapter beside them, by their path in the folder.
pub type Weights = BTreeMap<String, String>;

/// All requests, the oldest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chain {
    /// [`FORMAT`]
    pub format: u32,
    /// A keyed digest of a text that everybody knows: it tells the key of the images' digests from another.
    pub key: String,
    /// What was done.
    pub requests: Vec<Request>,
}

/// What changed a model's weights, or was to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// When it ended: UTC, as `2026-01-31 23:59`.
    pub date: String,
    /// The version of this program.
    pub version: String,
    /// `unlearn` or `merge`.
    pub command: String,
    /// The method and the numbers of the run; none of a merge.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub settings: Value,
    /// It went as far as images that the model does not know, and no farther.
    #[serde(default, skip_serializing_if = "is_false")]
    pub calibrated: bool,
    /// Rank of the adapter that was trained in place of the weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter_rank: Option<usize>,
    /// Keyed digests of the distinct images that were to be forgotten, sorted.
    #[serde(default)]
    pub images: Vec<String>,
    /// Those of earlier requests that had come back and were forgotten again, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub again: Vec<String>,
    /// Of each image that was led as far as what the model does not know, by keyed digest: the mean logarithm of its denoising
    /// error before and after.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub led: BTreeMap<String, [f64; 2]>,
    /// The denoising error of retained images after such a run, as a multiple of what it was before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retained: Option<f64>,
    /// The weights that it began with.
    pub before: Weights,
    /// These are not those that the request before wrote: something else had changed them.
    #[serde(default, skip_serializing_if = "is_false")]
    pub changed_before: bool,
    /// The weights that it wrote.
    pub after: Weights,
    /// What its own tests found, in a line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
}

impl Request {
    /// The method's name.
    pub fn method(&self) -> Option<&str> {
        self.settings["method"].as_str()
    }

    /// Steps that were taken.
    pub fn steps(&self) -> Option<u64> {
        self.settings["steps"].as_u64()
    }
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// Why a chain cannot be gone on with.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// The system refused the file.
    #[error("{}: cannot read: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's own error.
        source: io::Error,
    },
    /// The file is none, or is damaged.
    #[error("{}: not a record of requests that retrack wrote: {problem}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// How.
        problem: String,
    },
    /// A request did not begin with what the one before wrote.
    #[error("{}: {}", path.display(), misfit(*number))]
    Misfit {
        /// The file.
        path: PathBuf,
        /// The request, counted from 1.
        number: usize,
    },
}

fn misfit(number: usize) -> String {
    format!(
        "request {number} began with other weights than request {} wrote: the record was changed, or a request is missing",
        number - 1
    )
}

impl Chain {
    /// One without requests. `key`: see [`Chain::key`].
    pub fn new(key: String) -> Self {
        Self {
            format: FORMAT,
            key,
            requests: Vec::new(),
        }
    }

    /// The chain of the model in `folder`; `None` where it has none. Whether its requests fit each other is for
    /// [`misfits`](Self::misfits) to say.
    ///
    /// # Errors
    /// A file of that name that is none, or cannot be read.
    pub fn read(folder: &Path) -> Result<Option<Self>, ChainError> {
        let path = folder.join(NAME);
        let text = match read_text(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Ok(None),
            Err(source) => match source.kind() {
                io::ErrorKind::InvalidData | io::ErrorKind::FileTooLarge => {
                    let problem = source.to_string();
                    return Err(ChainError::Unreadable { path, problem });
                }
                _ => return Err(ChainError::Io { path, source }),
            },
        };
        Self::parse(&text)
            .map(Some)
            .map_err(|problem| ChainError::Unreadable { path, problem })
    }

    /// Reads what [`text`](Self::text) wrote.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        /// What every version has.
        #[derive(Deserialize)]
        struct Head {
            #[serde(default)]
            format: Value,
        }
        let Head { format } = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if format.is_null() {
            return Err("it has no format".into());
        } else if format.as_u64() != Some(FORMAT.into()) {
            return Err(format!(
                "its format is {format}, and this version reads {FORMAT}"
            ));
        }
        let chain: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if chain.requests.is_empty() {
            return Err("it has no requests".into());
        }
        let of_requests = chain.requests.iter().flat_map(|request| {
            let weights = [&request.before, &request.after];
            let weights = weights.into_iter().flat_map(BTreeMap::values);
            request.images.iter().chain(&request.again).chain(weights)
        });
        if of_requests.chain([&chain.key]).all(|one| is_digest(one)) {
            Ok(chain)
        } else {
            Err("not all of its digests are 64 hexadecimal digits".into())
        }
    }

    /// As it lies in the file.
    pub fn text(&self) -> String {
        let text = serde_json::to_string_pretty(self).expect("JSON has no unwritable values");
        text + "\n"
    }

    /// The requests, counted from 1, that began with other weights than the one before wrote, although they do not say so.
    pub fn misfits(&self) -> Vec<usize> {
        let pairs = self.requests.windows(2).zip(2..);
        pairs
            .filter(|(pair, _)| pair[0].after != pair[1].before && !pair[1].changed_before)
            .map(|(_, number)| number)
            .collect()
    }

    /// Refuses a chain whose requests do not fit each other. `folder`: where it lies.
    ///
    /// # Errors
    /// [`ChainError::Misfit`], the first.
    pub fn check(&self, folder: &Path) -> Result<(), ChainError> {
        match self.misfits().first() {
            None => Ok(()),
            Some(&number) => Err(ChainError::Misfit {
                path: folder.join(NAME),
                number,
            }),
        }
    }

    /// What the last request wrote, and what is there `now` in its place: the names of the files that differ.
    pub fn changed<'a>(&'a self, now: &'a Weights) -> Vec<&'a str> {
        let Some(last) = self.requests.last() else {
            return Vec::new();
        };
        let then = &last.after;
        let names = then
            .keys()
            .chain(now.keys().filter(|name| !then.contains_key(*name)));
        names
            .filter(|name| then.get(*name) != now.get(*name))
            .map(String::as_str)
            .collect()
    }

    /// Keyed digests of all images that were ever to be forgotten, each with the number of the last request that named it,
    /// counted from 1.
    pub fn images(&self) -> BTreeMap<&str, usize> {
        let numbered = self.requests.iter().zip(1..);
        numbered
            .flat_map(|(request, number)| {
                let images = request.images.iter();
                images.map(move |image| (image.as_str(), number))
            })
            .collect()
    }

    /// Of the image with this keyed digest, if a request led it: the mean logarithm of its denoising error before and after
    /// the last one that did.
    pub fn led(&self, image: &str) -> Option<[f64; 2]> {
        let mut latest = self.requests.iter().rev();
        latest.find_map(|request| request.led.get(image)).copied()
    }
}

fn is_digest(text: &str) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text.len() == 64 && text.bytes().all(is_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(of: char) -> String {
        of.to_string().repeat(64)
    }

    fn weights(of: char) -> Weights {
        [("unet/w.safetensors".to_string(), digest(of))].into()
    }

    fn chain() -> Chain {
        let request = |images: &[char], before, after| Request {
            date: "2026-01-31 23:59".into(),
            command: "unlearn".into(),
            images: images.iter().copied().map(digest).collect(),
            before: weights(before),
            after: weights(after),
            ..Request::default()
        };
        Chain {
            requests: vec![
                request(&['1', '2'], 'a', 'b'),
                request(&['3'], 'b', 'c'),
                request(&['1'], 'c', 'd'),
            ],
            ..Chain::new(digest('0'))
        }
    }

    #[test]
    fn what_was_written_is_read_again_and_a_folder_without_it_has_none() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Chain::read(folder.path()).unwrap(), None);
        std::fs::write(folder.path().join(NAME), chain().text()).unwrap();
        assert_eq!(Chain::read(folder.path()).unwrap(), Some(chain()));
    }

    #[test]
    fn an_image_belongs_to_the_last_request_that_named_it() {
        let chain = chain();
        let [one, two, three] = ['1', '2', '3'].map(digest);
        let expected = [(one.as_str(), 3), (&two, 1), (&three, 2)];
        assert_eq!(chain.images(), expected.into());
    }

    #[test]
    fn a_request_that_begins_elsewhere_is_found_unless_it_says_so() {
        let mut chain = chain();
        assert!(chain.misfits().is_empty());
        chain.check(Path::new("m")).unwrap();
        chain.requests.remove(1);
        assert_eq!(chain.misfits(), [2]);
        let error = chain.check(Path::new("m")).unwrap_err().to_string();
        assert!(error.starts_with("m/retrack.json: request 2 began"));
        chain.requests[1].changed_before = true;
        assert!(chain.misfits().is_empty());
    }

    #[test]
    fn files_that_are_not_what_the_last_request_wrote_are_named() {
        let chain = chain();
        assert!(chain.changed(&weights('d')).is_empty());
        assert_eq!(chain.changed(&weights('c')), ["unet/w.safetensors"]);
        let other = [("w.bin".to_string(), digest('d'))].into();
        assert_eq!(chain.changed(&other), ["unet/w.safetensors", "w.bin"]);
    }

    #[test]
    fn what_is_no_chain_is_refused_with_the_reason() {
        let good = chain().text();
        for (text, why) in [
            ("{", "EOF"),
            ("{}", "no format"),
            (
                &good.replace("\"format\": 1", "\"format\": 2"),
                "format is 2",
            ),
            (&good.replace(&digest('3'), "x"), "digests"),
            (
                &good.replace(&digest('0'), &digest('0').to_uppercase().replace('0', "G")),
                "digests",
            ),
            (&good.replace("\"date\"", "\"dates\""), "dates"),
            (&Chain::new(digest('0')).text(), "no requests"),
        ] {
            let problem = Chain::parse(text).unwrap_err();
            assert!(problem.contains(why), "{why}: {problem}");
        }
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(NAME), [0xff]).unwrap();
        let error = Chain::read(folder.path()).unwrap_err();
        assert!(matches!(error, ChainError::Unreadable { .. }), "{error}");
    }
}
