//! The requests of a model into which an adapter is folded: those of the adapter, where it was trained by one, or the
//! model's own.

use std::path::Path;

use retrack_checkpoint::chain::{Chain, Request, Weights};
use retrack_checkpoint::folder::{ModelFolder, sha256_file};
use retrack_checkpoint::written::Command;
use retrack_networks::lora;

use super::{add, warn_of_change, weights};
use crate::failure::Failure;
use crate::folders::digests;

/// What a merge goes on from.
pub(crate) struct Merged {
    chain: Chain,
    before: Weights,
    changed: bool,
}

impl Merged {
    /// The chain that goes on with an adapter folded into the model in `folder`; `None` where neither has one.
    ///
    /// # Errors
    /// A chain that cannot be gone on with, files that cannot be read.
    pub(crate) fn open(folder: &ModelFolder, adapter: &Path) -> Result<Option<Self>, Failure> {
        let root = folder.root();
        let mut before = weights(folder, &digests(folder)?)?;
        let beside = adapter.parent().unwrap_or(Path::new(""));
        let digest = sha256_file(adapter)?;
        // Of a file that a request wrote, whatever it is called now.
        let wrote = |chain: &Chain| {
            let last = chain.requests.last();
            last.is_some_and(|last| last.after.get(lora::FILE_NAME) == Some(&digest))
        };
        let chain = match super::open(beside)?.filter(wrote) {
            Some(chain) => {
                before.insert(lora::FILE_NAME.into(), digest);
                chain
            }
            None => match super::open(root)? {
                Some(chain) => chain,
                None => return Ok(None),
            },
        };
        Ok(Some(Self {
            changed: warn_of_change(&chain, root, &before),
            chain,
            before,
        }))
    }

    /// Puts the chain with the merge into the folder `staged`, which is complete otherwise and moves to `out`.
    ///
    /// # Errors
    /// A folder that cannot be read or written.
    pub(crate) fn add(self, staged: &Path, out: &Path) -> Result<(), Failure> {
        let request = Request {
            command: Command::Merge.to_string(),
            before: self.before,
            changed_before: self.changed,
            ..Request::default()
        };
        add(self.chain, staged, out, request)
    }
}
