//! What training and sampling ask of a network, whatever its kind.

use burn::tensor::Tensor;

use crate::gradients::GradientSet;
use crate::random::Draw;
use crate::unet2d::{InputError, UNet2DModel};

/// A network that looks at a noisy image and predicts what the schedule's prediction type says.
pub trait Denoiser {
    /// # Shapes
    /// `x`: `[batch, height, width, channels]`; a timestep for each image (and a label: its class,
    /// or the number of its text, where the network has either); result: `[batch, height, width, channels]`.
    ///
    /// # Errors
    /// An input that does not fit the network.
    fn predict(
        &self,
        x: Tensor<4>,
        timesteps: &[usize],
        labels: Option<&[i64]>,
        dropout: Option<&mut Draw>,
    ) -> Result<Tensor<4>, InputError>;

    /// The backward pass of a loss (one element) made from this network's predictions.
    fn gradients(&self, loss: Tensor<1>) -> GradientSet;

    /// [`predict`](Self::predict)s, and adds the gradient of what `loss` (one element) makes of the
    /// prediction to `sum`. A network that would keep too much for that keeps less, in its own way.
    ///
    /// # Errors
    /// As `predict`.
    fn backward(
        &self,
        x: Tensor<4>,
        timesteps: &[usize],
        labels: Option<&[i64]>,
        dropout: Option<&mut Draw>,
        loss: &mut dyn FnMut(Tensor<4>) -> Tensor<1>,
        sum: &mut Option<GradientSet>,
    ) -> Result<(), InputError> {
        let prediction = self.predict(x, timesteps, labels, dropout)?;
        GradientSet::add_to(sum, self.gradients(loss(prediction)));
        Ok(())
    }
}

impl Denoiser for UNet2DModel {
    fn predict(
        &self,
        x: Tensor<4>,
        timesteps: &[usize],
        labels: Option<&[i64]>,
        dropout: Option<&mut Draw>,
    ) -> Result<Tensor<4>, InputError> {
        let timesteps: Vec<f32> = timesteps.iter().map(|&t| t as f32).collect();
        self.forward(x, &timesteps, labels, dropout)
    }

    fn gradients(&self, loss: Tensor<1>) -> GradientSet {
        GradientSet::of(self, loss)
    }
}
