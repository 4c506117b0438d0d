//! A small classifier of 28-pixel digits: the features and probabilities behind MNIST's scores.
//!
//! The published tables judge MNIST samples by a digit classifier that was never published. This one was trained on
//! the demo's digits by `cargo run --release --example train_digit_classifier`; its scores are called *digit score*
//! and *digit Frechet distance*, because they are comparable with one another and with nothing else.

use std::collections::HashMap;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData, activation::softmax};
use retrack_networks::layers::{Conv3x3, ConvStride2, GroupNorm, Linear};
use retrack_networks::parameters::{self, Mismatch, to_host};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

/// Height and width of the images.
pub const SIDE: usize = 28;
/// Numbers in the features of an image.
pub const FEATURES: usize = 48;
/// Classes.
pub const DIGITS: usize = 10;

const SHIPPED: &[u8] = include_bytes!("../assets/digit-classifier.safetensors");

/// Why weights are not a digit classifier's.
#[derive(Debug, thiserror::Error)]
pub enum ClassifierError {
    /// No safetensors file.
    #[error("not a safetensors file: {0}")]
    Format(#[from] safetensors::SafeTensorError),
    /// A tensor of another type than f32.
    #[error("{name}: not f32")]
    Dtype {
        /// The tensor's name.
        name: String,
    },
    /// Other tensors than the classifier has.
    #[error("not the digit classifier's weights\n{0}")]
    Mismatch(#[from] Mismatch),
}

/// Convolutions to 14 and 7 pixels, the mean over pixels, one linear layer.
#[derive(Module, Debug)]
pub struct DigitClassifier {
    conv_in: Conv3x3,
    norm_in: GroupNorm,
    down_1: ConvStride2,
    conv_1: Conv3x3,
    norm_1: GroupNorm,
    down_2: ConvStride2,
    conv_2: Conv3x3,
    norm_2: GroupNorm,
    classify: Linear,
}

/// What the classifier makes of images.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Digits {
    /// `[images, FEATURES]`.
    pub features: Vec<f32>,
    /// `[images, DIGITS]`; each row sums to 1.
    pub probabilities: Vec<f32>,
}

impl Digits {
    /// The most probable digit of each image.
    pub fn labels(&self) -> Vec<usize> {
        let rows = self.probabilities.chunks_exact(DIGITS);
        rows.map(|row| (0..DIGITS).max_by(|&a, &b| row[a].total_cmp(&row[b])))
            .map(|label| label.expect("there are digits"))
            .collect()
    }
}

impl DigitClassifier {
    /// A classifier whose weights are all zero, to be initialized or filled.
    pub fn new(device: &Device) -> Self {
        let (narrow, wide) = (24, FEATURES);
        let norm = |channels| GroupNorm::new(8, channels, 1e-5, device);
        Self {
            conv_in: Conv3x3::new(1, narrow, device),
            norm_in: norm(narrow),
            down_1: ConvStride2::new(narrow, 1, device),
            conv_1: Conv3x3::new(narrow, wide, device),
            norm_1: norm(wide),
            down_2: ConvStride2::new(wide, 1, device),
            conv_2: Conv3x3::new(wide, wide, device),
            norm_2: norm(wide),
            classify: Linear::new(wide, DIGITS, device),
        }
    }

    /// The one that this project ships: 98.8% of held-out digits right (assets/README.md).
    pub fn shipped(device: &Device) -> Self {
        Self::read(SHIPPED, device).expect("the shipped classifier was written by this code")
    }

    /// Reads what [`write`](Self::write) wrote.
    ///
    /// # Errors
    /// Anything but a safetensors file of these parameters.
    pub fn read(file: &[u8], device: &Device) -> Result<Self, ClassifierError> {
        let file = SafeTensors::deserialize(file)?;
        let mut values = HashMap::new();
        let mut shapes = Vec::new();
        for (name, view) in file.tensors() {
            if view.dtype() != Dtype::F32 {
                return Err(ClassifierError::Dtype { name });
            }
            let floats = view.data().chunks_exact(4);
            let floats = floats.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            shapes.push((name.clone(), view.shape().to_vec()));
            values.insert(name, floats.collect::<Vec<f32>>());
        }
        let network = Self::new(device);
        Mismatch::check(&network, &shapes)?;
        Ok(parameters::fill(network, |parameter| {
            values.remove(&parameter.name).expect("checked")
        }))
    }

    /// A safetensors file with PyTorch's names and layouts.
    pub fn write(&self) -> Vec<u8> {
        let parameters: Vec<(String, Vec<usize>, Vec<u8>)> = parameters::export(self)
            .into_iter()
            .map(|(parameter, values)| {
                let bytes = values.iter().flat_map(|value| value.to_le_bytes());
                (parameter.name, parameter.shape, bytes.collect())
            })
            .collect();
        let views = parameters.iter().map(|(name, shape, bytes)| {
            let view = TensorView::new(Dtype::F32, shape.clone(), bytes);
            (name, view.expect("as many bytes as the shape says"))
        });
        safetensors::serialize(views, None).expect("the names are plain")
    }

    /// Features and logits.
    ///
    /// # Shapes
    /// `[batch, 28, 28, 1]`, values in [-1, 1], to `[batch, FEATURES]` and `[batch, DIGITS]`.
    pub fn forward(&self, x: Tensor<4>) -> (Tensor<2>, Tensor<2>) {
        let x = self.norm_in.forward_silu(self.conv_in.forward(x));
        let x = self.down_1.forward(x);
        let x = self.norm_1.forward_silu(self.conv_1.forward(x));
        let x = self.down_2.forward(x);
        let x = self.norm_2.forward_silu(self.conv_2.forward(x));
        let [batch, height, width, channels] = x.dims();
        let features = x
            .reshape([batch, height * width, channels])
            .mean_dim(1)
            .reshape([batch, channels]);
        let logits = self.classify.forward(features.clone());
        (features, logits)
    }

    /// Looks at images of bytes, 784 each, one after another.
    pub fn digits(&self, images: &[u8], device: &Device) -> Digits {
        const BATCH: usize = 256;
        let mut digits = Digits::default();
        for images in images.chunks(BATCH * SIDE * SIDE) {
            let values: Vec<f32> = images
                .iter()
                .map(|&byte| retrack_data::pixels::to_unit(byte))
                .collect();
            let shape = [values.len() / (SIDE * SIDE), SIDE, SIDE, 1];
            let x = Tensor::from_data(TensorData::new(values, shape), device);
            let (features, logits) = self.forward(x);
            digits.features.extend(to_host(features));
            digits.probabilities.extend(to_host(softmax(logits, 1)));
        }
        digits
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use retrack_networks::random::Random;

    #[test]
    fn what_is_written_is_read_back() {
        let device = Device::flex();
        let network = parameters::initialize(DigitClassifier::new(&device), &Random::new(1));
        let file = network.write();
        let again = DigitClassifier::read(&file, &device).unwrap();
        let image: Vec<u8> = (0..784).map(|i| (i % 251) as u8).collect();
        assert_eq!(
            network.digits(&image, &device),
            again.digits(&image, &device)
        );
        assert!(matches!(
            DigitClassifier::read(&file[..100], &device),
            Err(ClassifierError::Format(_))
        ));
    }

    #[test]
    fn probabilities_sum_to_one() {
        let device = Device::flex();
        let digits = DigitClassifier::shipped(&device).digits(&[0; 2 * 784], &device);
        assert_eq!(digits.features.len(), 2 * FEATURES);
        for row in digits.probabilities.chunks_exact(DIGITS) {
            assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5);
        }
    }
}
