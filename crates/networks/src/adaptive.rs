//! Layers that a vector of each image steers: its time, and what it shows (adaLN, Peebles & Xie 2023, arXiv 2212.09748).

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use retrack_kernels as kernels;

use crate::layers::Linear;

/// Of all normalizations here.
const EPS: f64 = 1e-6;

/// Every row less its mean and divided by its deviation.
///
/// # Shapes
/// `[rows, channels]`, unchanged.
pub(crate) fn normalized(x: Tensor<2>) -> Tensor<2> {
    let [rows, channels] = x.dims();
    let device = x.device();
    let (one, zero) = (
        Tensor::ones([1, channels], &device),
        Tensor::zeros([1, channels], &device),
    );
    let images = x.reshape([rows, 1, 1, channels]);
    kernels::group_norm(images, one, zero, 1, EPS, false).reshape([rows, channels])
}

/// `x * (1 + scale) + shift`, each image with its own.
///
/// # Shapes
/// `x`: `[batch * tokens, channels]`, unchanged; `scale`, `shift`: `[batch, channels]`.
pub(crate) fn modulated(x: Tensor<2>, scale: Tensor<2>, shift: Tensor<2>) -> Tensor<2> {
    let (shape, x, scale) = by_image(x, scale + 1.0);
    let [batch, channels] = shift.dims();
    (x * scale + shift.reshape([batch, 1, channels])).reshape(shape)
}

/// `x * gate`, each image with its own.
///
/// # Shapes
/// `x`: `[batch * tokens, channels]`, unchanged; `gate`: `[batch, channels]`.
pub(crate) fn gated(x: Tensor<2>, gate: Tensor<2>) -> Tensor<2> {
    let (shape, x, gate) = by_image(x, gate);
    (x * gate).reshape(shape)
}

fn by_image(x: Tensor<2>, vectors: Tensor<2>) -> ([usize; 2], Tensor<3>, Tensor<3>) {
    let shape = x.dims();
    let [batch, channels] = vectors.dims();
    let x = x.reshape([batch, shape[0] / batch, channels]);
    (shape, x, vectors.reshape([batch, 1, channels]))
}

/// The linear layer that makes a normalization's scale and shift, and gates, of an image's vector. (diffusers'
/// `AdaLayerNormZero`, `SD35AdaLayerNormZeroX` and `AdaLayerNormContinuous`, whose normalizations have no parameters.)
#[derive(Module, Debug)]
pub(crate) struct AdaLayerNorm {
    pub linear: Linear,
}

impl AdaLayerNorm {
    /// `parts`: how many vectors it makes.
    pub(crate) fn new(channels: usize, parts: usize, device: &Device) -> Self {
        Self {
            linear: Linear::new(channels, parts * channels, device),
        }
    }

    /// # Shapes
    /// `vector`: `[batch, channels]`, after its SiLU; result: `N` of `[batch, channels]`.
    pub(crate) fn parts<const N: usize>(&self, vector: &Tensor<2>) -> [Tensor<2>; N] {
        let all = self.linear.forward(vector.clone());
        let channels = all.dims()[1] / N;
        std::array::from_fn(|part| all.clone().narrow(1, part * channels, channels))
    }
}

/// Every row divided by its root mean square, with a scale for each channel (Zhang & Sennrich 2019, arXiv 1910.07467).
#[derive(Module, Debug)]
pub(crate) struct RmsNorm {
    /// `[channels]`.
    pub weight: burn::module::Param<Tensor<1>>,
    eps: f64,
}

impl RmsNorm {
    pub(crate) fn new(channels: usize, eps: f64, device: &Device) -> Self {
        Self {
            weight: burn::module::Param::from_tensor(Tensor::zeros([channels], device)),
            eps,
        }
    }

    /// # Shapes
    /// `[.., .., channels]`, unchanged.
    pub(crate) fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let mean = x.clone().square().mean_dim(2);
        x / (mean + self.eps).sqrt() * self.weight.val().unsqueeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::TensorData;

    fn rows(values: [f32; 8]) -> Tensor<2> {
        let data = TensorData::new(values.to_vec(), [4, 2]);
        Tensor::from_data(data, &Device::flex())
    }

    #[test]
    fn each_image_is_scaled_and_shifted_by_its_own_vector() {
        let vectors = |values: [f32; 4]| {
            let data = TensorData::new(values.to_vec(), [2, 2]);
            Tensor::<2>::from_data(data, &Device::flex())
        };
        let x = rows([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
        let (scale, shift) = (
            vectors([0.0, 1.0, 2.0, 3.0]),
            vectors([1.0, 0.0, 0.0, -1.0]),
        );
        let found = crate::parameters::to_host(modulated(x.clone(), scale.clone(), shift));
        assert_eq!(found, [2.0, 4.0, 4.0, 8.0, 15.0, 23.0, 21.0, 31.0]);
        let found = crate::parameters::to_host(gated(x, scale));
        assert_eq!(found, [0.0, 2.0, 0.0, 4.0, 10.0, 18.0, 14.0, 24.0]);
    }

    #[test]
    fn rows_are_normalized_by_themselves() {
        let found =
            crate::parameters::to_host(normalized(rows([1.0, 3.0, -2.0, 2.0, 0.0, 8.0, 5.0, 4.0])));
        for pair in found.as_chunks::<2>().0 {
            assert!(
                (pair[0].abs() - 1.0).abs() < 1e-5 && (pair[0] + pair[1]).abs() < 1e-5,
                "{pair:?}"
            );
        }
    }
}
