//! Timesteps as vectors.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use retrack_kernels as kernels;

use crate::layers::Linear;

/// Sines and cosines of the timestep at geometrically spaced frequencies (diffusers' `Timesteps`).
///
/// Computed on the host in f32, operation by operation as PyTorch does: at timestep 999 one rounding
/// of the frequency already moves a phase by 6e-5.
///
/// Returns `[timesteps, dim]`, row-major.
pub(crate) fn sinusoidal(
    timesteps: &[f32],
    dim: usize,
    flip_sin_to_cos: bool,
    freq_shift: f64,
) -> Vec<f32> {
    let half = dim / 2;
    let log_period = -(10_000f64.ln()) as f32;
    let frequencies: Vec<f32> = (0..half)
        .map(|i| (log_period * i as f32 / (half as f64 - freq_shift) as f32).exp())
        .collect();
    let mut rows = Vec::with_capacity(timesteps.len() * dim);
    for &t in timesteps {
        let phases = || frequencies.iter().map(move |f| t * f);
        if flip_sin_to_cos {
            rows.extend(phases().map(f32::cos));
            rows.extend(phases().map(f32::sin));
        } else {
            rows.extend(phases().map(f32::sin));
            rows.extend(phases().map(f32::cos));
        }
        rows.extend(std::iter::repeat_n(0.0, dim - 2 * half));
    }
    rows
}

/// Fixed random frequencies of log t (diffusers' `GaussianFourierProjection`).
#[derive(Module, Debug)]
pub(crate) struct GaussianFourierProjection {
    /// `[dim]`, never trained.
    pub weight: Param<Tensor<1>>,
}

impl GaussianFourierProjection {
    pub(crate) fn new(dim: usize, device: &Device) -> Self {
        let weight = Param::from_tensor(Tensor::zeros([dim], device)).set_require_grad(false);
        Self { weight }
    }

    /// `[timesteps, 2 dim]`, row-major: sines, then cosines.
    pub(crate) fn forward(&self, timesteps: &[f32]) -> Vec<f32> {
        let weight = self.weight.val().into_data().convert::<f32>();
        let weight = weight.as_slice::<f32>().expect("converted to f32").to_vec();
        let mut rows = Vec::with_capacity(timesteps.len() * 2 * weight.len());
        for &t in timesteps {
            let log_t = t.ln();
            // PyTorch's order of products, each rounded to f32.
            let phases = || {
                weight
                    .iter()
                    .map(move |w| log_t * w * 2.0 * std::f32::consts::PI)
            };
            rows.extend(phases().map(f32::sin));
            rows.extend(phases().map(f32::cos));
        }
        rows
    }
}

/// Two linear layers with a SiLU between them (diffusers' `TimestepEmbedding`).
#[derive(Module, Debug)]
pub(crate) struct TimestepEmbedding {
    pub linear_1: Linear,
    pub linear_2: Linear,
}

impl TimestepEmbedding {
    pub(crate) fn new(inputs: usize, dim: usize, device: &Device) -> Self {
        Self {
            linear_1: Linear::new(inputs, dim, device),
            linear_2: Linear::new(dim, dim, device),
        }
    }

    /// # Shapes
    /// `[batch, inputs]` to `[batch, dim]`.
    pub(crate) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.linear_2
            .forward(kernels::silu(self.linear_1.forward(x)))
    }

    /// [`forward`](Self::forward) from host rows.
    pub(crate) fn forward_rows(&self, rows: Vec<f32>, batch: usize) -> Tensor<2> {
        let device = self.linear_1.weight.val().device();
        let width = rows.len() / batch;
        self.forward(Tensor::from_data(
            TensorData::new(rows, [batch, width]),
            &device,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_odd_width_ends_in_a_zero() {
        let row = sinusoidal(&[3.0], 5, false, 0.0);
        assert_eq!(row.len(), 5);
        assert_eq!(row[4], 0.0);
        assert!((row[0] - 3f32.sin()).abs() < 1e-6);
        assert!((row[2] - 3f32.cos()).abs() < 1e-6);
    }

    #[test]
    fn flipping_swaps_the_halves() {
        let (plain, flipped) = (
            sinusoidal(&[7.0], 8, false, 1.0),
            sinusoidal(&[7.0], 8, true, 1.0),
        );
        assert_eq!(plain[..4], flipped[4..]);
        assert_eq!(plain[4..], flipped[..4]);
    }
}
