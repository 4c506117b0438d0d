//! CLIP-IQA (Wang et al. 2023, arXiv 2207.12396): the quality of an image without another to compare it with, as the
//! probability that CLIP finds it nearer to "Good photo." than to "Bad photo.".
//!
//! CLIP is the user's, a folder of transformers' `CLIPModel`; nothing is downloaded. Scores of one network can be
//! compared with each other only. Those of the paper are of a ResNet-50 without embeddings of places that looks at
//! images of any size; the vision transformers here take squares (224 x 224 pixels), to which images are resized and
//! cut as CLIP was trained.
//!
//! torchmetrics 1.9 computes the same of the same folder, except that
//!
//! - it multiplies cosines by 100, whatever the network has learned, which is 100 for OpenAI's networks;
//! - it divides by `data_range` what the image processor then divides by 255: only images of 0 to 255 with
//!   `data_range=1.0` are seen as they are, and with `data_range=255` all are nearly black;
//! - it hands images over as floats, which are resized without being rounded or cut at 0 and 255, where CLIP's own
//!   preprocessing, as here, resizes bytes;
//! - with transformers 5 it fails, because features then come in an object.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use rayon::prelude::*;
use retrack_networks::clip::{Clip, Preprocessing};
use retrack_networks::model::ModelError;
use retrack_networks::parameters::to_host;

use crate::images::{ImagesError, image_len};
use crate::pillow::resize_and_crop;

/// What is good, and its opposite.
const PROMPTS: [&str; 2] = ["Good photo.", "Bad photo."];
/// Images that the network looks at together. Eight take 0.1 GB in the widest layer of `clip-vit-large-patch14`.
const AT_ONCE: usize = 8;

/// Why CLIP-IQA cannot be loaded or cannot judge images.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClipIqaError {
    /// A folder that is no CLIP of this kind.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Bytes that are no images.
    #[error(transparent)]
    Images(#[from] ImagesError),
    /// An embedding without a direction.
    #[error(
        "{}: what the network makes of {of} has no direction (all zero, or not finite); these weights cannot be used",
        path.display()
    )]
    Direction {
        /// CLIP's folder.
        path: PathBuf,
        /// Of what.
        of: String,
    },
    /// A scale beyond the range of numbers.
    #[error("{}: `logit_scale` is so large that its exponential is none; these weights cannot be used", path.display())]
    Scale {
        /// CLIP's folder.
        path: PathBuf,
    },
}

/// CLIP with both prompts embedded, ready to judge images.
#[derive(Debug)]
pub struct ClipIqa {
    clip: Clip,
    device: Device,
    /// Of length 1, in the order of [`PROMPTS`].
    prompts: [Vec<f64>; 2],
    scale: f64,
}

impl ClipIqa {
    /// Reads the folder of a `CLIPModel`, such as `openai/clip-vit-base-patch16`, and embeds the prompts.
    ///
    /// # Errors
    /// A folder that holds something else, and anything in it that is damaged, missing or not supported.
    pub fn open(folder: impl AsRef<Path>, device: &Device) -> Result<Self, ClipIqaError> {
        let clip = Clip::open(folder.as_ref(), device)?;
        let features = clip.text_features(&PROMPTS)?;
        let no_direction = |of: &str| ClipIqaError::Direction {
            path: clip.root().to_path_buf(),
            of: of.into(),
        };
        let features = to_host(features);
        let (good, bad) = features.split_at(features.len() / 2);
        let embed = |values, prompt: &str| unit(values).ok_or_else(|| no_direction(prompt));
        let prompts = [embed(good, PROMPTS[0])?, embed(bad, PROMPTS[1])?];
        let scale = clip.logit_scale();
        if !scale.is_finite() {
            return Err(ClipIqaError::Scale {
                path: clip.root().to_path_buf(),
            });
        }
        Ok(Self {
            clip,
            device: device.clone(),
            prompts,
            scale,
        })
    }

    /// The probability of "Good photo." for each image, from 0 to 1. Images are bytes: `shape` (height, width, channels)
    /// each, one after another, of any size. One channel is taken as gray.
    ///
    /// # Errors
    /// Other than 1 or 3 channels, no whole number of images, a network that gives no direction.
    pub fn scores(&self, images: &[u8], shape: [usize; 3]) -> Result<Vec<f64>, ClipIqaError> {
        let len = image_len(images, shape, "CLIP-IQA")?;
        let mut scores = Vec::with_capacity(images.len() / len);
        for some in images.chunks(AT_ONCE * len) {
            let features = self.embed(some, shape);
            let each = features.len() / (some.len() / len);
            for features in features.chunks_exact(each) {
                let image = unit(features).ok_or_else(|| ClipIqaError::Direction {
                    path: self.clip.root().to_path_buf(),
                    of: format!("image {}", scores.len()),
                })?;
                scores.push(self.score(&image));
            }
        }
        Ok(scores)
    }

    /// CLIP's vectors of a few images, one after another.
    fn embed(&self, images: &[u8], shape: [usize; 3]) -> Vec<f32> {
        let preprocessing = &self.clip.preprocessing;
        let images = images.par_chunks_exact(shape.iter().product());
        let pixels = images.flat_map_iter(|image| prepared(image, shape, preprocessing));
        let pixels: Vec<f32> = pixels.collect();
        let side = preprocessing.side;
        let shape = [pixels.len() / (side * side * 3), side, side, 3];
        let pixels = Tensor::from_data(TensorData::new(pixels, shape), &self.device);
        to_host(self.clip.image_features(pixels))
    }

    /// The first prompt's share of a softmax over both.
    fn score(&self, image: &[f64]) -> f64 {
        let [good, bad] = &self.prompts;
        let apart = dot(image, good) - dot(image, bad);
        1.0 / (1.0 + (-self.scale * apart).exp())
    }
}

/// One image of bytes as `[side, side, 3]` normalised values.
fn prepared(image: &[u8], shape: [usize; 3], preprocessing: &Preprocessing) -> Vec<f32> {
    let Preprocessing { side, mean, sd } = preprocessing;
    let bytes = resize_and_crop(image, shape, *side);
    let pixels = bytes.chunks_exact(shape[2]);
    let colors = pixels.flat_map(|pixel| match *pixel {
        [gray] => [gray; 3],
        _ => [pixel[0], pixel[1], pixel[2]],
    });
    colors
        .enumerate()
        .map(|(i, byte)| (f32::from(byte) / 255.0 - mean[i % 3]) / sd[i % 3])
        .collect()
}

/// The direction of `values`; nothing where they have none: all zero, or not finite.
fn unit(values: &[f32]) -> Option<Vec<f64>> {
    let values: Vec<f64> = values.iter().map(|&value| value.into()).collect();
    let norm = dot(&values, &values).sqrt();
    let has_direction = norm.is_finite() && norm > 0.0;
    has_direction.then(|| values.iter().map(|value| value / norm).collect())
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
