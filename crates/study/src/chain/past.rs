//! What a new request knows of those before it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

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
use crate::situation::{self, Situation};
use crate::task::Task;
use crate::{progress, sealed};

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

/// What lies in the data of images that earlier requests forgot, or was put back from their sealed copies.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Earlier {
    /// Their rows, ascending.
    pub rows: Vec<usize>,
    /// How many distinct images they are.
    pub images: usize,
    /// Of those that a request led: the mean logarithm of their denoising error before and after it, by row.
    pub led: BTreeMap<usize, [f64; 2]>,
    /// How many of these are sealed copies alone.
    pub sealed: usize,
}

/// The data with all that is there of images of earlier requests.
pub struct Looked {
    /// Sealed copies lie behind all other rows.
    pub data: Dataset,
    /// What rows were called when they were forgotten, where that was sealed.
    pub texts: BTreeMap<usize, String>,
    /// The number of the image in each row that holds one.
    found: BTreeMap<usize, usize>,
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

    /// How much worse retained images are denoised by what earlier requests did: a factor, 1 without any.
    pub fn damage(&self) -> f64 {
        let requests = self.chain.iter().flat_map(|chain| &chain.requests);
        let factors = requests.filter_map(|request| request.retained);
        factors.product::<f64>().max(1.0)
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

    /// Says of an image that was selected and is not in the data, where that is so, that it was forgotten before. `model`: beside whose folder it may be
    /// sealed.
    pub fn explain(&self, error: SelectionError, data: &Dataset, model: &Path) -> Failure {
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
                 data{}",
                path.display(),
                of_request(chain, number),
                match sealed::beside(model) {
                    Some(path) => format!(
                        "; {} holds sealed copies: {}",
                        path.display(),
                        situation::advice(Situation::SealedApart)
                    ),
                    None => String::new(),
                }
            )),
            None => error.into(),
        }
    }

    /// Looks for images of earlier requests in `data`, and puts back from their sealed copies those that it lacks. `sealed`: with
    /// which key, and where the run's own go; `model`: beside whose folder they are.
    ///
    /// # Errors
    /// An image that cannot be read, sealed copies that cannot be opened.
    pub fn look(
        &self,
        data: Dataset,
        sealed: Option<&sealed::Planned>,
        model: &Path,
    ) -> Result<Looked, Failure> {
        let (Some(chain), Some(key)) = (&self.chain, &self.key.key) else {
            return Ok(Looked {
                data,
                texts: BTreeMap::new(),
                found: BTreeMap::new(),
            });
        };
        let images: Vec<(&str, usize)> = chain.images().into_iter().collect();
        let digests: BTreeMap<&str, usize> =
            images.iter().map(|(digest, _)| *digest).zip(0..).collect();
        let searching = progress::activity("searching for images of earlier requests");
        let mut found = key.find(&data, &digests, BUDGET)?;
        drop(searching);
        let there: BTreeSet<usize> = found.values().copied().collect();
        let lacks = images.len() - there.len();
        let archive = match sealed {
            Some(sealed) if lacks > 0 || sealed.opens() => sealed.open(model)?,
            _ => None,
        };
        let (data, sealed_texts) = match archive {
            Some(archive) => {
                let archive = Arc::new(archive);
                let wanted = |digest: &str| {
                    let image = digests.get(digest);
                    image.is_some_and(|image| !there.contains(image))
                };
                let extended = sealed::extended(data, &archive, key, wanted)?;
                (extended.data, extended.texts)
            }
            None => (data, BTreeMap::new()),
        };
        let mut image = vec![0; data.shape().bytes()];
        for &row in data.returned() {
            data.read(row, &mut image)?;
            if let Some(&number) = digests.get(key.of(data.shape(), &image).as_str()) {
                found.insert(row, number);
            }
        }
        let lost = lacks - data.returned().len();
        if lost > 0 {
            let lost = format!("of images of earlier requests, {lost} no longer in the data");
            match (sealed, sealed::beside(model)) {
                (Some(_), _) => progress::warn(format!(
                    "{lost} and without a sealed copy: whether the model knows {} again cannot be measured any more",
                    if lacks == 1 { "it" } else { "them" }
                )),
                (None, Some(path)) => progress::note(format!(
                    "{lost}; {} holds sealed copies: {}",
                    path.display(),
                    situation::advice(Situation::SealedApart)
                )),
                (None, None) => {}
            }
        }
        let texts = found.iter();
        let texts = texts
            .filter_map(|(row, &number)| Some((*row, sealed_texts.get(images[number].0)?.clone())));
        Ok(Looked {
            texts: texts.collect(),
            data,
            found,
        })
    }

    /// What is there of images that were forgotten before, and which of the selected `rows` remain then. Of a
    /// selected image that was forgotten before, the earlier request is repeated only where `always` says so.
    ///
    /// # Errors
    /// Nothing remains; an image that cannot be read.
    pub fn set_apart(
        &self,
        looked: &Looked,
        rows: Vec<usize>,
        always: bool,
    ) -> Result<(Vec<usize>, Earlier), Failure> {
        let Some(chain) = &self.chain else {
            return Ok((rows, Earlier::default()));
        };
        let Looked { data, found, .. } = looked;
        let mut found = found.clone();
        let images: Vec<(&str, usize)> = chain.images().into_iter().collect();
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
        let sealed = data.returned().iter();
        let earlier = Earlier {
            images: distinct.len(),
            led: found
                .iter()
                .filter_map(|(row, image)| Some((*row, chain.led(images[*image].0)?)))
                .collect(),
            sealed: sealed.filter(|row| found.contains_key(row)).count(),
            rows: found.keys().copied().collect(),
        };
        let requests = chain.requests.iter();
        let requests = requests.filter(|request| !request.images.is_empty());
        let forgot = format!(
            "{} that {} forgot",
            counted(images.len(), "image"),
            counted(requests.count(), "earlier request")
        );
        progress::note(match (earlier.images, earlier.sealed) {
            (0, _) => format!("no longer in the data: {forgot}"),
            (some, 0) => format!(
                "still in the data, and kept out of what is retained: {some} of {forgot} ({})",
                counted(earlier.rows.len(), "row")
            ),
            (some, sealed) => format!(
                "still in the data or sealed, and kept out of what is retained: {some} of {forgot}, {sealed} by {} sealed {} \
                 alone",
                if sealed == 1 { "its" } else { "their" },
                if sealed == 1 { "copy" } else { "copies" }
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
        json!({
            "images": self.images,
            "rows": self.rows.len(),
            "sealed": self.sealed,
            "came_back": again,
        })
    }
}
