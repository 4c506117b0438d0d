//! What a new request knows of those before it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use retrack_checkpoint::chain::{Chain, NAME, Request, Weights};
use retrack_checkpoint::folder::{ModelFolder, sha256_file};
use retrack_checkpoint::words::counted;
use retrack_data::{Dataset, SelectionError};
use retrack_networks::lora;
use serde_json::{Map, Value, json};

use super::{add, warn_of_change, weights};
use crate::evidence::{Planned, Private};
use crate::failure::Failure;
use crate::folders::digests;
use crate::model::BUDGET;
use crate::progress;
use crate::situation::{self, Situation};
use crate::task::Task;

/// The model that a request begins with.
pub struct Past {
    /// Its earlier requests.
    chain: Option<Chain>,
    /// SHA-256 of its weight files, as a run records them.
    pub digests: Map<String, Value>,
    /// The same with an adapter beside them.
    weights: Weights,
    /// They are not what the last request wrote.
    changed: bool,
    /// The key of the chain that will be written.
    pub key: Planned,
}

/// What lies in the data of images that earlier requests forgot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Earlier {
    /// Their rows, ascending.
    pub rows: Vec<usize>,
    /// How many distinct images they are.
    pub images: usize,
}

impl Past {
    /// Looks at the model that a request begins with.
    ///
    /// # Errors
    /// A chain that cannot be gone on with, a key that is not found, what was forgotten in an adapter alone.
    pub fn open(folder: &ModelFolder, args: &Task) -> Result<Self, Failure> {
        let root = folder.root();
        let chain = super::open(root)?;
        let digests = digests(folder)?;
        let weights = weights(folder, &digests)?;
        let last = chain.as_ref().and_then(|chain| chain.requests.last());
        if last.is_some_and(|last| last.adapter_rank.is_some())
            && weights.contains_key(lora::FILE_NAME)
        {
            return Err(Failure::input(format!(
                "{}: what the last request forgot is in the adapter {}, without which the weights know it; {}",
                root.display(),
                lora::FILE_NAME,
                situation::advice(Situation::ForgetsByAdapter)
            )));
        }
        let key = Private::check(args, chain.as_ref())?;
        Ok(Self {
            changed: chain
                .as_ref()
                .is_some_and(|chain| warn_of_change(chain, root, &weights)),
            chain,
            digests,
            weights,
            key,
        })
    }

    /// SHA-256 of the chain, by which a run knows it again; `None` where there is none.
    ///
    /// # Errors
    /// The system's.
    pub fn digest(&self, folder: &ModelFolder) -> Result<Option<String>, Failure> {
        let digest = self.chain.as_ref();
        let digest = digest.map(|_| sha256_file(&folder.root().join(NAME)));
        Ok(digest.transpose()?)
    }

    /// Says of an image that was selected and is not in the data, where that is so, that it was forgotten before.
    pub fn explain(&self, error: SelectionError, data: &Dataset) -> Failure {
        let inner = match &error {
            SelectionError::Line { source, .. } => source,
            error => error,
        };
        let (SelectionError::NoExactMatch { path, .. }, Some(chain), Some(key)) =
            (inner, &self.chain, &self.key.key)
        else {
            return error.into();
        };
        let pixels = data.read_file(path).unwrap_or_default();
        let digest = key.of(data.shape(), &pixels);
        match chain.images().get(digest.as_str()) {
            Some(&number) => Failure::input(format!(
                "{}: not in the data set; it was forgotten by {}. To measure it or to forget it again, put it back among the \
                 data",
                path.display(),
                of_request(chain, number)
            )),
            None => error.into(),
        }
    }

    /// What lies in `data` of images that were forgotten before, and which of the selected `rows` remain then. Of a
    /// selected image that was forgotten before, the earlier request is repeated only where `always` says so.
    ///
    /// # Errors
    /// Nothing remains; an image that cannot be read.
    pub fn set_apart(
        &self,
        data: &Dataset,
        rows: Vec<usize>,
        always: bool,
    ) -> Result<(Vec<usize>, Earlier), Failure> {
        let (Some(chain), Some(key)) = (&self.chain, &self.key.key) else {
            return Ok((rows, Earlier::default()));
        };
        let images: Vec<(&str, usize)> = chain.images().into_iter().collect();
        let digests = images.iter().map(|(digest, _)| *digest).zip(0..).collect();
        let searching = progress::activity("searching for images of earlier requests");
        let mut found = key.find(data, &digests, BUDGET)?;
        drop(searching);
        let repeated: BTreeMap<usize, usize> = rows
            .iter()
            .filter_map(|row| Some((*row, *found.get(row)?)))
            .collect();
        let mut rows = rows;
        if always {
            let again: BTreeSet<&usize> = repeated.values().collect();
            found.retain(|_, image| !again.contains(image));
        } else if let Some((&row, &image)) = repeated.first_key_value() {
            rows.retain(|row| !repeated.contains_key(row));
            let request = of_request(chain, images[image].1);
            let first = format!("{} was forgotten by {request} already", data.name(row));
            if rows.is_empty() {
                let all = match repeated.len() {
                    1 => String::new(),
                    many => format!("all {many} selected images were forgotten before: "),
                };
                return Err(Failure::input(format!(
                    "{all}{first}; {}",
                    situation::advice(Situation::Repeated)
                )));
            }
            progress::note(format!(
                "{} of {} selected rows were forgotten before and are treated like other images of earlier requests: {first}",
                repeated.len(),
                repeated.len() + rows.len()
            ));
        }
        let distinct: BTreeSet<&usize> = found.values().collect();
        let earlier = Earlier {
            images: distinct.len(),
            rows: found.keys().copied().collect(),
        };
        let requests = chain.requests.iter();
        let requests = requests.filter(|request| !request.images.is_empty());
        let forgot = format!(
            "{} that {} forgot",
            counted(images.len(), "image"),
            counted(requests.count(), "earlier request")
        );
        progress::note(match earlier.images {
            0 => format!("no longer in the data: {forgot}"),
            some => format!(
                "still in the data, and kept out of what is retained: {some} of {forgot} ({})",
                counted(earlier.rows.len(), "row")
            ),
        });
        Ok((rows, earlier))
    }

    /// Puts the chain with one more request into the folder `staged`, which is complete otherwise and moves to `out`. The request's date,
    /// version, weights and what it began with are filled in.
    ///
    /// # Errors
    /// A folder that cannot be read or written.
    pub fn add(
        &self,
        [staged, out]: [&Path; 2],
        private: &Private,
        request: Request,
    ) -> Result<(), Failure> {
        let chain = match &self.chain {
            Some(chain) => chain.clone(),
            None => Chain::new(private.key.check()),
        };
        let request = Request {
            before: self.weights.clone(),
            changed_before: self.changed,
            ..request
        };
        add(chain, staged, out, request)
    }
}

fn of_request(chain: &Chain, number: usize) -> String {
    format!(
        "request {number} of {} UTC",
        chain.requests[number - 1].date
    )
}

impl Earlier {
    /// For programs. `again`: how many of the images had come back.
    pub fn json(&self, again: Option<usize>) -> Value {
        json!({"images": self.images, "rows": self.rows.len(), "came_back": again})
    }
}
