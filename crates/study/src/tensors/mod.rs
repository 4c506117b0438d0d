//! Networks and objectives on tensors that come from and go to safetensors files, in PyTorch's layout, for comparison from
//! outside.

mod gradient;
mod predict;
mod texts;

use std::path::{Path, PathBuf};

use retrack_checkpoint::files;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

pub use self::gradient::{Gradient, gradient};
pub use self::predict::{Predict, predict};
use crate::failure::Failure;
use crate::folders::MADE_BY;
use crate::model;
use crate::situation::{self, Situation};

/// Tensors of a larger file would not fit beside the network that is to take them.
const LARGEST: u64 = 64 << 30;

/// The tensors of one input file.
struct Tensors {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Tensors {
    fn read(path: &Path) -> Result<Self, Failure> {
        let bytes =
            files::read_bounded(path, LARGEST).map_err(|error| Failure::read(path, error))?;
        retrack_checkpoint::folder::check_safetensors_names(&bytes)
            .map_err(|problem| Failure::input(format!("{}: {problem}", path.display())))?;
        let tensors = Self {
            path: path.to_path_buf(),
            bytes,
        };
        tensors.parsed()?;
        Ok(tensors)
    }

    fn parsed(&self) -> Result<SafeTensors<'_>, Failure> {
        SafeTensors::deserialize(&self.bytes).map_err(|error| self.fail(error))
    }

    fn fail(&self, problem: impl std::fmt::Display) -> Failure {
        Failure::input(format!("{}: {problem}", self.path.display()))
    }

    fn has(&self, key: &str) -> Result<bool, Failure> {
        Ok(self.parsed()?.tensor(key).is_ok())
    }

    /// Numbers and shape of `key`, whatever its type.
    fn numbers(&self, key: &str) -> Result<(Vec<f64>, Vec<usize>), Failure> {
        let tensors = self.parsed()?;
        let view = tensors.tensor(key).map_err(|_| self.fail(missing(key)))?;
        let data = view.data();
        macro_rules! read {
            ($type:ty) => {{
                let (words, _) = data.as_chunks::<{ size_of::<$type>() }>();
                words
                    .iter()
                    .map(|word| <$type>::from_le_bytes(*word) as f64)
                    .collect()
            }};
        }
        let numbers = match view.dtype() {
            Dtype::F32 => read!(f32),
            Dtype::F64 => read!(f64),
            Dtype::I64 => read!(i64),
            Dtype::I32 => read!(i32),
            Dtype::U8 | Dtype::BOOL => read!(u8),
            dtype => {
                return Err(self.fail(format!("`{key}` is {dtype:?}; give F32 or I64")));
            }
        };
        Ok((numbers, view.shape().to_vec()))
    }

    /// Images `[..., C, H, W]` as `[..., H, W, C]`, with the shape in the file's order.
    fn images(&self, key: &str, dims: usize) -> Result<(Vec<f32>, Vec<usize>), Failure> {
        let (numbers, shape) = self.numbers(key)?;
        if shape.len() != dims || shape.contains(&0) {
            return Err(self.fail(format!(
                "`{key}` has shape {shape:?}; give {dims} dimensions, none of them 0"
            )));
        }
        let [channels, height, width] = shape[dims - 3..] else {
            unreachable!("at least three dimensions")
        };
        let values: Vec<f32> = numbers.into_iter().map(|n| n as f32).collect();
        Ok((channel_last(&values, channels, height * width), shape))
    }

    /// A text encoder's hidden states, `[texts, tokens, width]`.
    fn states(&self, key: &str) -> Result<(Vec<f32>, [usize; 3]), Failure> {
        let (numbers, shape) = self.numbers(key)?;
        match shape[..] {
            [texts, tokens, width] if !shape.contains(&0) => {
                let values = numbers.into_iter().map(|n| n as f32).collect();
                Ok((values, [texts, tokens, width]))
            }
            _ => Err(self.fail(format!(
                "`{key}` has shape {shape:?}; give [texts, tokens, width], none of them 0"
            ))),
        }
    }

    /// `[texts, width]`, or one row for all of them, which is repeated; with the width.
    fn rows(&self, key: &str, texts: usize) -> Result<(Vec<f32>, usize), Failure> {
        let (numbers, shape) = self.numbers(key)?;
        let values: Vec<f32> = numbers.into_iter().map(|n| n as f32).collect();
        match shape[..] {
            [1, width] if width > 0 => Ok((values.repeat(texts), width)),
            [rows, width] if rows == texts && width > 0 => Ok((values, width)),
            _ => Err(self.fail(format!(
                "`{key}` has shape {shape:?}; give [{texts}, width], a row for each text of `encoder_hidden_states`"
            ))),
        }
    }

    /// Numbers, one for each of `images`.
    fn one_each(&self, key: &str, images: usize) -> Result<Vec<f64>, Failure> {
        let (numbers, shape) = self.numbers(key)?;
        if shape != [images] {
            return Err(self.fail(format!(
                "`{key}` has shape {shape:?}; give [{images}], one for each image"
            )));
        }
        match numbers.iter().all(|number| number.is_finite()) {
            true => Ok(numbers),
            false => Err(self.fail(format!("`{key}` holds values that are not finite"))),
        }
    }

    /// Whole numbers, one for each of `images`.
    fn integers(&self, key: &str, images: usize) -> Result<Vec<i64>, Failure> {
        let numbers = self.one_each(key, images)?;
        if numbers.iter().any(|n| n.fract() != 0.0) {
            return Err(self.fail(format!("`{key}` holds fractions; give whole numbers")));
        }
        Ok(numbers.into_iter().map(|n| n as i64).collect())
    }
}

fn missing(key: &str) -> String {
    format!(
        "`{key}` is missing; {}",
        situation::advice(Situation::MissingTensor)
    )
}

/// `[images, C, pixels]` to `[images, pixels, C]`.
fn channel_last(values: &[f32], channels: usize, pixels: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(values.len());
    for image in values.chunks_exact(channels * pixels) {
        for pixel in 0..pixels {
            out.extend((0..channels).map(|channel| image[channel * pixels + pixel]));
        }
    }
    out
}

/// `[images, pixels, C]` to `[images, C, pixels]`.
fn channel_first(values: &[f32], channels: usize, pixels: usize) -> Vec<f32> {
    channel_last(values, pixels, channels)
}

/// Writes tensors of f32.
fn write(path: &Path, tensors: &[(String, Vec<usize>, Vec<f32>)]) -> Result<(), Failure> {
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(_, _, values)| values.iter().flat_map(|v| v.to_le_bytes()).collect())
        .collect();
    let views = tensors.iter().zip(&bytes).map(|((name, shape, _), bytes)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes);
        (name.as_str(), view.expect("values fill the shape"))
    });
    let (key, value) = MADE_BY;
    let metadata = [(key.into(), value.into())].into();
    let content = safetensors::serialize(views, Some(metadata)).map_err(Failure::failed)?;
    model::write(path, &content)
}
