//! Images as the latents of an autoencoder: what a text-to-image network is trained on.
//!
//! The autoencoder sees each image once. What it makes of it, a normal distribution, stays in memory and nowhere else: a
//! latent is as good as the image.

use std::collections::HashMap;

use burn::tensor::{Device, Tensor, TensorData};
use rayon::prelude::*;
use retrack_networks::diffusion::{Autoencoder, Encoded};
use retrack_networks::parameters::to_host;
use retrack_networks::random::Random;
use retrack_networks::vae::VaeError;

use crate::images::{Drawn, Images};
use retrack_data::neighbors::NeighborError;
use retrack_data::pixels::to_unit;
use retrack_data::{DataError, Dataset, ImageShape};

/// Why images have no latents.
#[derive(Debug, thiserror::Error)]
pub enum LatentError {
    /// An image that cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// An image that the autoencoder cannot encode.
    #[error("{name}: {source}")]
    Vae {
        /// The image.
        name: String,
        /// Why.
        source: VaeError,
    },
}

/// What makes latents of images.
pub struct Encoder<'a> {
    /// The model's.
    pub autoencoder: &'a dyn Autoencoder,
    /// The autoencoder's.
    pub device: &'a Device,
}

impl Encoder<'_> {
    /// Values in [-1, 1] of one image of height, width and channels.
    fn encode(
        &self,
        values: Vec<f32>,
        [height, width, channels]: [usize; 3],
    ) -> Result<Encoded, VaeError> {
        let image = TensorData::new(values, [1, height, width, channels]);
        self.autoencoder
            .latents_of(Tensor::from_data(image, self.device))
    }

    /// What [`Latents`] are on average, of a picture that is none of the data set's: its bytes.
    ///
    /// # Errors
    /// A picture that the autoencoder does not take.
    pub fn average(&self, bytes: &[u8], shape: ImageShape) -> Result<Vec<f32>, VaeError> {
        let values = bytes.iter().map(|&byte| to_unit(byte)).collect();
        let found = self.encode(values, [shape.height, shape.width, shape.channels])?;
        Ok(to_host(found.mean))
    }
}

/// Latents of some rows of a data set.
pub struct Latents {
    shape: [usize; 3],
    /// Where a row's values are.
    places: HashMap<usize, usize>,
    mean: Vec<f32>,
    deviation: Vec<f32>,
    /// The number of each row's text.
    texts: Vec<i64>,
    random: Random,
}

impl Latents {
    /// Encodes `rows` of `data`, one at a time: an autoencoder's layers are large.
    ///
    /// `texts` holds the number of each row's text. `random` is the run's. `progress` is called after each image.
    ///
    /// # Errors
    /// An image that cannot be read or that the autoencoder does not take.
    pub fn encode(
        encoder: &Encoder,
        data: &Dataset,
        rows: &[usize],
        texts: Vec<i64>,
        random: Random,
        mut progress: impl FnMut(),
    ) -> Result<Self, LatentError> {
        let mut latents = Self {
            shape: [0; 3],
            places: HashMap::with_capacity(rows.len()),
            mean: Vec::new(),
            deviation: Vec::new(),
            texts,
            random,
        };
        let pixels = Images::shape(data);
        for &row in rows {
            if latents.places.contains_key(&row) {
                continue;
            }
            let mut image = Vec::new();
            data.average(row, &mut image)?;
            let found = encoder
                .encode(image, pixels)
                .map_err(|source| LatentError::Vae {
                    name: data.name(row),
                    source,
                })?;
            let [_, height, width, channels] = found.mean.dims();
            latents.shape = [height, width, channels];
            latents.places.insert(row, latents.places.len());
            latents.mean.extend(to_host(found.mean));
            latents.deviation.extend(to_host(found.deviation));
            progress();
        }
        Ok(latents)
    }

    fn part<'a>(&self, values: &'a [f32], row: usize) -> &'a [f32] {
        let len = self.shape.iter().product::<usize>();
        let place = self.places[&row];
        &values[place * len..][..len]
    }

    /// The `k` nearest of the `retain` rows for each of the `forget` rows, nearest first, ties by lower row:
    /// Euclidean, between means.
    ///
    /// # Errors
    /// Fewer retained rows than `k`.
    pub fn nearest(
        &self,
        retain: &[usize],
        forget: &[usize],
        k: usize,
    ) -> Result<Vec<Vec<usize>>, NeighborError> {
        if retain.len() < k {
            return Err(NeighborError::TooFew {
                wanted: k,
                retained: retain.len(),
            });
        }
        let nearest = |&of: &usize| {
            let own = self.part(&self.mean, of);
            let mut found: Vec<(f64, usize)> = retain
                .par_iter()
                .map(|&row| {
                    let pairs = own.iter().zip(self.part(&self.mean, row));
                    let squares = pairs.map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2));
                    (squares.sum(), row)
                })
                .collect();
            found.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            found.into_iter().take(k).map(|(_, row)| row).collect()
        };
        Ok(forget.iter().map(nearest).collect())
    }
}

impl Images for Latents {
    fn shape(&self) -> [usize; 3] {
        self.shape
    }

    fn label(&self, row: usize) -> Option<i64> {
        self.texts.get(row).copied()
    }

    fn clean(&self, row: usize, drawn: Drawn, values: &mut Vec<f32>) -> Result<(), DataError> {
        let (mean, deviation) = (self.part(&self.mean, row), self.part(&self.deviation, row));
        let mut draw = self.random.at(drawn.stream, 0, drawn.index);
        let noise = draw.normal(mean.len());
        let parts = mean.iter().zip(deviation).zip(noise);
        values.extend(parts.map(|((mean, deviation), noise)| mean + deviation * noise));
        Ok(())
    }

    fn average(&self, row: usize, values: &mut Vec<f32>) -> Result<(), DataError> {
        values.extend_from_slice(self.part(&self.mean, row));
        Ok(())
    }

    fn as_bytes(&self) -> Option<&Dataset> {
        None
    }

    fn in_memory(&self, row: usize) -> Option<&[f32]> {
        Some(self.part(&self.mean, row))
    }
}

#[cfg(test)]
mod tests {
    use retrack_networks::random::Stream;

    use super::*;
    use crate::batch::{Candidates, Draws};
    use crate::feed::{BatchSize, Feed};

    /// Row i, of two values, has mean [i, -i] and deviation [0.5, 0].
    fn latents(rows: usize) -> Latents {
        let each = |of: fn(usize) -> [f32; 2]| (0..rows).flat_map(of).collect();
        Latents {
            shape: [1, 2, 1],
            places: (0..rows).map(|row| (row, row)).collect(),
            mean: each(|row| [row as f32, -(row as f32)]),
            deviation: each(|_| [0.5, 0.0]),
            texts: vec![0; rows],
            random: Random::new(7),
        }
    }

    #[test]
    fn a_draw_follows_from_stream_and_number_alone() {
        let latents = latents(3);
        let draw = |row, stream, index| {
            let mut values = Vec::new();
            let drawn = Drawn { stream, index };
            latents.clean(row, drawn, &mut values).unwrap();
            values
        };
        let first = draw(2, Stream::RetainLatent, 4);
        assert_eq!(first, draw(2, Stream::RetainLatent, 4));
        assert_ne!(first, draw(2, Stream::RetainLatent, 5));
        assert_ne!(first, draw(2, Stream::ForgetLatent, 4));
        assert_eq!(first[1], -2.0);
        let noise = Random::new(7).at(Stream::RetainLatent, 0, 4).normal(1)[0];
        assert_eq!(first[0], 2.0 + 0.5 * noise);
        let mut average = Vec::new();
        latents.average(2, &mut average).unwrap();
        assert_eq!(average, [2.0, -2.0]);
    }

    #[test]
    fn all_retained_latents_are_candidates_where_they_lie() {
        let latents = latents(6);
        let (retain, forget) = ([0, 1, 3, 5], [2]);
        let size = BatchSize {
            images: 3,
            accumulate: 1,
        };
        let process = retrack_networks::schedule::SchedulerConfig::default().process();
        let random = Random::new(1);
        let feed = Feed::new(&latents, &retain, &forget, random, size, process, false);
        let draws = Draws {
            forget: true,
            neighbors: true,
            ..Draws::default()
        };
        let batch = feed.batch(0, 0, draws).unwrap();
        let Some(Candidates::InMemory(all)) = batch.neighbors else {
            panic!("latents that were copied");
        };
        assert_eq!(all.len(), retain.len());
        for (found, row) in all.into_iter().zip(retain) {
            assert!(std::ptr::eq(found, latents.part(&latents.mean, row)));
        }
    }

    #[test]
    fn neighbors_are_the_nearest_means_and_the_lower_row_of_two() {
        let latents = latents(6);
        let found = latents.nearest(&[0, 1, 3, 5], &[2], 3).unwrap();
        assert_eq!(found, [[1, 3, 0]]);
        let error = latents.nearest(&[0, 1], &[2], 3).unwrap_err();
        assert!(error.to_string().contains("3 neighbors"), "{error}");
    }
}
