//! What the record of a model's requests says of the images of a data set, to whoever measures the model.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use retrack_checkpoint::chain::{Chain, NAME};
use retrack_data::digest::DigestKey;
use retrack_data::{BUDGET, Dataset};

use crate::evidence::Private;
use crate::failure::Failure;
use crate::progress;

/// The record of a model, with the key by which it names images.
pub struct Recorded {
    chain: Chain,
    key: DigestKey,
}

impl Recorded {
    /// That of the model in a folder; `None` where it has none.
    ///
    /// # Errors
    /// In a sentence, why its images cannot be known again.
    pub fn of(model: &Path) -> Result<Option<Self>, String> {
        let Some(chain) = Chain::read(model).map_err(|error| error.to_string())? else {
            return Ok(None);
        };
        let record = model.join(NAME);
        let beside = Private::place(model).map_err(|failure| failure.message)?;
        match DigestKey::open(&beside) {
            Ok(key) if key.check() == chain.key => Ok(Some(Self { chain, key })),
            _ => Err(format!(
                "{}: the key of this record is not in {}",
                record.display(),
                beside.display()
            )),
        }
    }

    /// The same of a model that is measured; where its images cannot be known again, a note says what follows.
    pub fn measured(model: &Path) -> Option<Self> {
        Self::of(model).unwrap_or_else(|why| {
            progress::note(format!(
                "{why}: images that its requests forgot count as retained where they still lie in the data"
            ));
            None
        })
    }

    /// The rows of `data` that hold images of these requests, without those in `rows` and their copies.
    ///
    /// # Errors
    /// An image that cannot be read.
    pub fn apart(&self, data: &Dataset, rows: &[usize]) -> Result<Vec<usize>, Failure> {
        let digests: BTreeMap<&str, usize> = self.chain.images().into_keys().zip(0..).collect();
        let found = self.key.find(data, &digests, BUDGET)?;
        let looked_for: BTreeSet<&usize> = rows.iter().filter_map(|row| found.get(row)).collect();
        let apart = found
            .iter()
            .filter(|(_, image)| !looked_for.contains(image));
        Ok(apart.map(|(row, _)| *row).collect())
    }

    /// Where a request led the image in this row, if one did: see [`Chain::led`].
    ///
    /// # Errors
    /// An image that cannot be read.
    pub fn led(&self, data: &Dataset, row: usize) -> Result<Option<[f64; 2]>, Failure> {
        let mut image = vec![0; data.shape().bytes()];
        data.read(row, &mut image)?;
        let digest = self.key.of(data.shape(), &image);
        Ok(self.chain.led(&digest))
    }
}
