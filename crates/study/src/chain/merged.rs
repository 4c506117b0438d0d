//! The requests of a model into which an adapter is folded: those of the adapter, where it was trained by one, or the
//! model's own.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use retrack_checkpoint::chain::{Chain, Request, Weights};
use retrack_checkpoint::folder::{ModelFolder, sha256_file};
use retrack_checkpoint::written::Command;
use retrack_data::digest::DigestKey;
use retrack_networks::lora;

use super::{add, warn_of_change, weights};
use crate::evidence::Private;
use crate::failure::Failure;
use crate::folders::digests;
use crate::progress;

/// What a merge goes on from.
pub(crate) struct Merged {
    chain: Chain,
    /// The folder that the chain lies in.
    from: PathBuf,
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
        let (chain, from) = match super::open(beside)?.filter(wrote) {
            Some(chain) => {
                before.insert(lora::FILE_NAME.into(), digest);
                (chain, beside)
            }
            None => match super::open(root)? {
                Some(chain) => (chain, root),
                None => return Ok(None),
            },
        };
        Ok(Some(Self {
            from: from.to_path_buf(),
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
        self.hand_on_key(out)?;
        let request = Request {
            command: Command::Merge.to_string(),
            before: self.before,
            changed_before: self.changed,
            ..Request::default()
        };
        add(self.chain, staged, out, request)
    }

    /// Puts the key of the requests beside `out`, where the next one looks for it, if it lies beside the folder that they come
    /// from.
    fn hand_on_key(&self, out: &Path) -> Result<(), Failure> {
        let (Ok(from), Ok(to)) = (Private::place(&self.from), Private::place(out)) else {
            return Ok(());
        };
        let is_its = |key: &DigestKey| key.check() == self.chain.key;
        let key = match DigestKey::open(&from) {
            Ok(key) if is_its(&key) => key,
            _ => {
                progress::note(format!(
                    "the key of this model's requests is not beside {}; a later request has to be told where it is",
                    self.from.display()
                ));
                return Ok(());
            }
        };
        match DigestKey::open(&to) {
            Ok(there) if is_its(&there) => (),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                key.put(&to).map_err(|error| Failure::writing(&to, error))?
            }
            _ => progress::warn(format!(
                "{}: there already, and not the key of this model's requests; a later request has to be told where that is: {}",
                to.display(),
                from.display()
            )),
        }
        Ok(())
    }
}
