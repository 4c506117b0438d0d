//! Images as tokens: a linear layer over the pixels of each patch.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use retrack_kernels as kernels;

/// A convolution whose stride is its width.
#[derive(Module, Debug)]
pub(crate) struct PatchEmbedding {
    /// `[patch, patch, in, out]`.
    pub(crate) weight: Param<Tensor<4>>,
    /// `[out]`; CLIP's has none.
    pub(crate) bias: Option<Param<Tensor<1>>>,
}

impl PatchEmbedding {
    /// The layer with all weights zero.
    pub(crate) fn new(
        patch: usize,
        [inputs, outputs]: [usize; 2],
        bias: bool,
        device: &Device,
    ) -> Self {
        let zeros = || Param::from_tensor(Tensor::zeros([outputs], device));
        Self {
            weight: Param::from_tensor(Tensor::zeros([patch, patch, inputs, outputs], device)),
            bias: bias.then(zeros),
        }
    }

    /// # Shapes
    /// `[batch, height, width, in]`, of whole patches, to `[batch, patches, out]`, row by row.
    pub(crate) fn forward(&self, x: Tensor<4>) -> Tensor<3> {
        let weight = self.weight.val();
        let [patch, _, channels, out] = weight.dims();
        let [batch, height, width, _] = x.dims();
        let (rows, columns) = (height / patch, width / patch);
        let pixels = patch * patch * channels;
        let patches = x
            .reshape([batch * rows, patch, columns, patch * channels])
            .swap_dims(1, 2)
            .reshape([batch * rows * columns, pixels]);
        let bias = self.bias.as_ref().map(Param::val);
        let tokens = kernels::linear(patches, weight.reshape([pixels, out]), bias);
        tokens.reshape([batch, rows * columns, out])
    }
}

/// [`PatchEmbedding`] and a vector for each place (diffusers' `PatchEmbed` as Stable Diffusion 3 uses it).
#[derive(Module, Debug)]
pub(crate) struct PatchEmbed {
    pub proj: PatchEmbedding,
    /// `[1, places, width]`, of a square of which the middle is taken; never trained.
    pub pos_embed: Param<Tensor<3>>,
}

impl PatchEmbed {
    /// `most`: places of the square each way.
    pub(crate) fn new(
        patch: usize,
        inputs: usize,
        width: usize,
        most: usize,
        device: &Device,
    ) -> Self {
        let places = Param::from_tensor(Tensor::zeros([1, most * most, width], device));
        Self {
            proj: PatchEmbedding::new(patch, [inputs, width], true, device),
            pos_embed: places.set_require_grad(false),
        }
    }

    /// # Shapes
    /// `[batch, height, width, in]`, of whole patches, no more of them each way than places, to `[batch * patches, width]`.
    pub(crate) fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let [batch, height, width, _] = x.dims();
        let patch = self.proj.weight.dims()[0];
        let (rows, columns) = (height / patch, width / patch);
        let tokens = self.proj.forward(x);
        let channels = tokens.dims()[2];
        let places = self.pos_embed.val();
        let most = places.dims()[1].isqrt();
        let middle = places
            .reshape([most, most, channels])
            .narrow(0, (most - rows) / 2, rows)
            .narrow(1, (most - columns) / 2, columns)
            .reshape([1, rows * columns, channels]);
        (tokens + middle).reshape([batch * rows * columns, channels])
    }
}

/// Tokens as images: the opposite of [`PatchEmbedding`]'s cutting.
///
/// # Shapes
/// `tokens`: `[batch * patches, patch * patch * channels]`; result: `[batch, height, width, channels]`.
pub(crate) fn joined(
    tokens: Tensor<2>,
    [batch, height, width]: [usize; 3],
    patch: usize,
) -> Tensor<4> {
    let channels = tokens.dims()[1] / (patch * patch);
    let (rows, columns) = (height / patch, width / patch);
    tokens
        .reshape([batch * rows, columns, patch, patch * channels])
        .swap_dims(1, 2)
        .reshape([batch, height, width, channels])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_that_are_cut_and_joined_are_the_image() {
        let device = Device::flex();
        let (patch, channels) = (2, 3);
        let mut layer = PatchEmbedding::new(patch, [channels, 12], false, &device);
        // The identity.
        layer.weight = Param::from_tensor(Tensor::<2>::eye(12, &device).reshape([2, 2, 3, 12]));
        let values = Tensor::<1, burn::tensor::Int>::arange(0..2 * 4 * 6 * 3, &device).float();
        let x = values.reshape([2, 4, 6, 3]);
        let tokens = layer.forward(x.clone());
        assert_eq!(tokens.dims(), [2, 6, 12]);
        let back = joined(tokens.reshape([12, 12]), [2, 4, 6], patch);
        assert_eq!(
            crate::parameters::to_host(back),
            crate::parameters::to_host(x)
        );
    }
}
