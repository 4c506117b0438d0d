//! Statistics of features, remembered between runs: Inception takes hours for a data set.
//!
//! A file holds a mean and a covariance over all retained images and nothing of any single one. Its name is the SHA-256
//! of everything that the result depends on, the images' content and the network's weights included.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use retrack_checkpoint::durable;
use retrack_checkpoint::hex::hex;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use sha2::{Digest, Sha256};

use crate::frechet::FeatureStatistics;

/// Changes whenever the meaning of a file does.
const VERSION: u32 = 1;

/// Where the statistics of some rows of a data set are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StatisticsFile {
    path: PathBuf,
    key: String,
    dimensions: usize,
}

impl StatisticsFile {
    /// In `folder`, of `rows` of the data with digest `data`, by the network whose file has digest `network` and gives
    /// `dimensions` features.
    pub(crate) fn new(
        folder: &Path,
        data: &str,
        rows: &[usize],
        network: &str,
        dimensions: usize,
    ) -> Self {
        let mut hash = Sha256::new();
        hash.update(format!(
            "retrack statistics {VERSION}; data {data}; network {network}; {dimensions} features; rows "
        ));
        for &row in rows {
            hash.update((row as u64).to_le_bytes());
        }
        let key = hex(&hash.finalize());
        Self {
            path: folder.join(format!("statistics-{key}.safetensors")),
            key,
            dimensions,
        }
    }

    /// Where it lies.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What was kept; `None` where there is nothing, or a file that is not as this program writes it.
    pub(crate) fn read(&self) -> Option<FeatureStatistics> {
        let file = std::fs::read(&self.path).ok()?;
        let (_, header) = SafeTensors::read_metadata(&file).ok()?;
        let said = header.metadata().as_ref()?;
        let tensors = SafeTensors::deserialize(&file).ok()?;
        let values = |name: &str, shape: &[usize]| {
            let view = tensors.tensor(name).ok()?;
            (view.dtype() == Dtype::F64 && view.shape() == shape).then(|| view.data().to_vec())
        };
        let n = self.dimensions;
        let (mean, scatter) = (values("mean", &[n])?, values("scatter", &[n, n])?);
        let count = said.get("count")?.parse().ok()?;
        let sha256 = digest(count, &mean, &scatter);
        if said.get("key")? != &self.key || said.get("sha256")? != &sha256 {
            return None;
        }
        let doubles = |bytes: Vec<u8>| {
            let (values, _) = bytes.as_chunks::<8>();
            values.iter().map(|&b| f64::from_le_bytes(b)).collect()
        };
        let statistics = FeatureStatistics::from_parts(count, doubles(mean), doubles(scatter));
        Some(statistics)
    }

    /// Keeps `statistics`, in place of what was there.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn write(&self, statistics: &FeatureStatistics) -> io::Result<()> {
        let n = self.dimensions;
        let bytes = |values: &[f64]| -> Vec<u8> {
            let values = values.iter();
            values.flat_map(|value| value.to_le_bytes()).collect()
        };
        let (mean, scatter) = (bytes(statistics.mean()), bytes(statistics.scatter()));
        let said = HashMap::from([
            ("key".to_string(), self.key.clone()),
            ("count".to_string(), statistics.count().to_string()),
            (
                "sha256".to_string(),
                digest(statistics.count(), &mean, &scatter),
            ),
        ]);
        let view = |shape, data| TensorView::new(Dtype::F64, shape, data).map_err(io::Error::other);
        let tensors = [
            ("mean", view(vec![n], &mean)?),
            ("scatter", view(vec![n, n], &scatter)?),
        ];
        let file = safetensors::serialize(tensors, Some(said)).map_err(io::Error::other)?;
        if let Some(folder) = self.path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        durable::write(&self.path, |out| out.write_all(&file))
    }
}

fn digest(count: u64, mean: &[u8], scatter: &[u8]) -> String {
    let mut hash = Sha256::new();
    hash.update(count.to_le_bytes());
    hash.update(mean);
    hash.update(scatter);
    hex(&hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frechet::frechet_distance;

    fn statistics() -> FeatureStatistics {
        FeatureStatistics::of(2, &[1.0, 2.0, 4.0, -1.0, 3.0, 0.5])
    }

    #[test]
    fn what_is_kept_comes_back_and_is_found_by_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        // Made where it does not exist yet.
        let folder = folder.path().join("cache");
        let file = StatisticsFile::new(&folder, "data", &[0, 2], "network", 2);
        assert!(file.read().is_none());
        file.write(&statistics()).unwrap();
        let found = file.read().unwrap();
        assert_eq!(found.count(), 3);
        assert_eq!(found.mean(), statistics().mean());
        assert_eq!(found.scatter(), statistics().scatter());
        assert!(frechet_distance(&found, &statistics()).unwrap() < 1e-12);
        for other in [
            StatisticsFile::new(&folder, "data 2", &[0, 2], "network", 2),
            StatisticsFile::new(&folder, "data", &[0, 3], "network", 2),
            StatisticsFile::new(&folder, "data", &[0, 2], "network 2", 2),
            StatisticsFile::new(&folder, "data", &[0, 2], "network", 3),
        ] {
            assert!(other.read().is_none(), "{other:?}");
        }
    }

    #[test]
    fn a_damaged_file_is_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = StatisticsFile::new(folder.path(), "data", &[0, 2], "network", 2);
        file.write(&statistics()).unwrap();
        let whole = std::fs::read(file.path()).unwrap();
        for place in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[place] ^= 4;
            std::fs::write(file.path(), &damaged).unwrap();
            assert!(file.read().is_none(), "{place}");
            std::fs::write(file.path(), &whole[..place]).unwrap();
            assert!(file.read().is_none(), "{place}");
        }
    }
}
