//! A run's images and their look-alikes as its network sees them: the latents of the model's autoencoder, or pixels.

use burn::tensor::Device;
use retrack_data::Dataset;
use retrack_data::neighbors::Neighbor;
use retrack_networks::diffusion::Diffusion;
use retrack_networks::random::Random;
use retrack_unlearn::latents::{Encoder, LatentError, Latents};

use crate::calibration::{LookAlikes, Pictures};
use crate::failure::Failure;
use crate::progress;

/// Rows of a data set that are to be encoded.
pub struct Rows<'a> {
    /// Where they lie.
    pub data: &'a Dataset,
    /// Which they are.
    pub rows: Vec<usize>,
    /// The number of each row's text, of all rows of the data set.
    pub texts: Vec<i64>,
}

/// The latents of some rows, `None` of a model whose network denoises pixels; and the look-alikes of `pictures`, latents or
/// pixels. `texts`: the number of each row's text.
///
/// # Errors
/// An autoencoder or an image that cannot be read or does not fit.
pub fn encode<'a>(
    opened: &dyn Diffusion,
    data: &'a Dataset,
    rows: &[usize],
    texts: Vec<i64>,
    random: Random,
    pictures: Pictures<'a>,
    device: &Device,
) -> Result<(Option<Latents>, LookAlikes<'a>), Failure> {
    let rows = Rows {
        data,
        rows: rows.to_vec(),
        texts,
    };
    let (latents, look_alikes) = encode_all(opened, vec![rows], random, pictures, device)?;
    Ok((latents.into_iter().next(), look_alikes))
}

/// The same of rows of several data sets, the one of `pictures` first; no latents of a model whose network denoises pixels. All
/// is encoded in one go: the autoencoder, which may be large, is read once and dropped at the end.
///
/// # Errors
/// As [`encode`].
pub fn encode_all<'a>(
    opened: &dyn Diffusion,
    all: Vec<Rows>,
    random: Random,
    pictures: Pictures<'a>,
    device: &Device,
) -> Result<(Vec<Latents>, LookAlikes<'a>), Failure> {
    let device = device.clone().without_autodiff();
    let Some(autoencoder) = opened.autoencoder(&device)? else {
        return Ok((Vec::new(), pictures.as_pixels()?));
    };
    let data = pictures.data();
    let encoder = Encoder {
        autoencoder: &*autoencoder,
        device: &device,
    };
    let images: usize = all.iter().map(|one| one.rows.len()).sum();
    let bar = progress::bar("encoding", images + pictures.count(), "images");
    let encode = || {
        let mut latents = Vec::with_capacity(all.len());
        for Rows { data, rows, texts } in all {
            let of_one = Latents::encode(&encoder, data, &rows, texts, random, || bar.inc(1))?;
            latents.push(of_one);
        }
        let look_alikes = pictures.seen(|row, picture| {
            let values = encoder.average(&picture, data.shape());
            bar.inc(1);
            values.map_err(|source| LatentError::Vae {
                name: data.name(row),
                source,
            })
        })?;
        Ok((latents, look_alikes))
    };
    encode().map_err(|error| match error {
        LatentError::Data(error) => error.into(),
        error => Failure::input(error),
    })
}

/// How far apart the pixels of neighbors are.
///
/// # Errors
/// An image that cannot be read.
pub fn distances(
    data: &Dataset,
    forget: &[usize],
    neighbors: &[Vec<usize>],
) -> Result<Vec<Vec<Neighbor>>, Failure> {
    let read = |row| {
        let mut image = vec![0; data.shape().bytes()];
        data.read(row, &mut image)?;
        Ok::<_, Failure>(image)
    };
    let pairs = forget.iter().zip(neighbors);
    pairs
        .map(|(&of, rows)| {
            let own = read(of)?;
            rows.iter()
                .map(|&row| {
                    let squares = own.iter().zip(read(row)?).map(|(&a, b)| {
                        let difference = i64::from(a) - i64::from(b);
                        (difference * difference) as u64
                    });
                    Ok(Neighbor {
                        row,
                        distance_squared: squares.sum(),
                    })
                })
                .collect()
        })
        .collect()
}
