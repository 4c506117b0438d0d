//! Whether a model brings an image back from its noised form: the published "injection" (arXiv 2509.13007).

use burn::tensor::{Tensor, TensorData};
use retrack_networks::sampling::Generator;
use retrack_networks::unet2d::InputError;
use retrack_unlearn::feed::{to_byte, to_unit};

use crate::distance::{euclidean, mean};

/// Where an image is noised to before the model denoises it again, of 1,000.
pub const TIMESTEP: usize = 250;
/// How often that is tried with each image. The published number rests on one try.
pub const REPEATS: usize = 16;

/// What a model makes of `image` (bytes) from noise at [`TIMESTEP`]: [`REPEATS`] images of bytes, one after another.
/// The published measure denoises ancestrally over every timestep; `generator` says how it is done here. `progress` is
/// called after each denoising step.
///
/// # Errors
/// An image that does not fit the network.
pub fn restore(
    generator: &Generator,
    image: &[u8],
    progress: &mut dyn FnMut(),
) -> Result<Vec<u8>, InputError> {
    let clean: Vec<f32> = image.iter().map(|&byte| to_unit(byte)).collect();
    let [height, width, channels] = generator.shape;
    let copies = TensorData::new(clean.repeat(REPEATS), [REPEATS, height, width, channels]);
    let copies = Tensor::from_data(copies, generator.device);
    let restored = generator.reconstruct(copies, TIMESTEP, 0..REPEATS as u64, None, progress)?;
    Ok(restored.into_iter().map(to_byte).collect())
}

/// How near restored images come to the images that they were made from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Restored {
    /// Of the tries: those nearer than the threshold.
    pub share: f64,
    /// Mean Euclidean distance, pixels in [0, 1].
    pub distance: f64,
    pub tries: usize,
}

impl Restored {
    /// `restored` holds as many tries for each of `images`, one after another; all are bytes of one shape.
    pub fn of(images: &[&[u8]], restored: &[u8], threshold: f64) -> Self {
        let each = restored.len() / images.len().max(1);
        let tries = images.iter().zip(restored.chunks_exact(each.max(1)));
        let distances: Vec<f64> = tries
            .flat_map(|(image, restored)| {
                let restored = restored.chunks_exact(image.len());
                restored.map(|restored| euclidean(restored, image))
            })
            .collect();
        let near = distances.iter().filter(|&&apart| apart < threshold).count();
        Self {
            share: near as f64 / distances.len() as f64,
            distance: mean(&distances),
            tries: distances.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_image_is_compared_with_its_own_restorations() {
        let (dark, bright) = ([0, 0], [255, 255]);
        let restored = [0, 0, 255, 0, 255, 255, 255, 255];
        let found = Restored::of(&[&dark, &bright], &restored, 0.5);
        assert_eq!((found.share, found.distance, found.tries), (0.75, 0.25, 4));
        let swapped = Restored::of(&[&bright, &dark], &restored, 0.5);
        assert_eq!(swapped.share, 0.0);
    }
}
