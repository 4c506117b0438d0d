//! The requests that a model was made by, one after another: what a new request has to know of them, and how it is added.
//!
//! An image that was forgotten may still lie in the data. Retained, it would be taught again, whether as itself, as a
//! neighbor or as what look-alikes are made of. It is known again by its keyed digest and kept out of all of these; a
//! calibrated run looks at it again, and forgets it again where it has come back.

mod history;
mod merged;
mod past;
mod recorded;

use std::path::Path;

use retrack_checkpoint::chain::{Chain, ChainError, NAME, Request, Weights};
use retrack_checkpoint::folder::{ModelFolder, sha256_file};
use retrack_checkpoint::words::listed;
use retrack_networks::lora;
use serde_json::{Map, Value};

pub use self::history::{History, history};
pub(crate) use self::merged::Merged;
pub use self::past::{Earlier, Looked, Past};
pub use self::recorded::Recorded;
use crate::evidence::now;
use crate::failure::Failure;
use crate::folders::digests;
use crate::situation::{self, Situation};
use crate::{model, progress};

/// The weights of a model's trained part with the adapter beside them, by digest. `files`: those of the weights, as
/// [`digests`](crate::folders::digests) has them.
///
/// # Errors
/// An adapter that cannot be read.
fn weights(folder: &ModelFolder, files: &Map<String, Value>) -> Result<Weights, Failure> {
    let text = |digest: &Value| digest.as_str().unwrap_or_default().to_owned();
    let files = files.iter();
    let mut weights: Weights = files
        .map(|(name, digest)| (name.clone(), text(digest)))
        .collect();
    let adapter = folder.root().join(lora::FILE_NAME);
    if adapter.is_file() {
        weights.insert(lora::FILE_NAME.into(), sha256_file(&adapter)?);
    }
    Ok(weights)
}

/// The chain of the model in a folder, whose requests fit each other; `None` where it has none.
///
/// # Errors
/// A chain that cannot be gone on with, and what to do.
fn open(folder: &Path) -> Result<Option<Chain>, Failure> {
    let read = || -> Result<Option<Chain>, ChainError> {
        let chain = Chain::read(folder)?;
        if let Some(chain) = &chain {
            chain.check(folder)?;
        }
        Ok(chain)
    };
    read().map_err(|error| match &error {
        ChainError::Io { .. } => Failure::failed(error),
        _ => Failure::input(format!(
            "{error}; {}",
            situation::advice(Situation::BrokenChain)
        )),
    })
}

/// Says which files of the model in `root` are not what the last request wrote. Whether there are any.
fn warn_of_change(chain: &Chain, root: &Path, now: &Weights) -> bool {
    let changed = chain.changed(now);
    if !changed.is_empty() {
        let files = changed.iter().take(3);
        let files = files.map(|name| root.join(name).display().to_string());
        progress::warn(format!(
            "{}: not what the last request wrote ({}): something else changed the model since, which may have taught again \
             what was forgotten. The record goes on and says so; if that was not meant, put back what was written and start \
             again",
            listed(files),
            root.join(NAME).display()
        ));
    }
    !changed.is_empty()
}

/// Puts a chain with one more request into the folder `staged`, which is complete otherwise and moves to `out`. The request's date, version and
/// the weights that it wrote are filled in.
fn add(mut chain: Chain, staged: &Path, out: &Path, request: Request) -> Result<(), Failure> {
    let folder = ModelFolder::open(staged)?;
    chain.requests.push(Request {
        date: now(),
        version: env!("CARGO_PKG_VERSION").into(),
        after: weights(&folder, &digests(&folder)?)?,
        ..request
    });
    model::write_for(&staged.join(NAME), &out.join(NAME), chain.text().as_bytes())
}
