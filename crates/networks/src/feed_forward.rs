//! The feed-forward part of a transformer block: four times as wide, and back.

use burn::module::Module;
use burn::tensor::{Device, Tensor, activation};
use retrack_kernels as kernels;

use crate::layers::Linear;

/// A linear layer whose one half is multiplied by the GELU of the other (Shazeer 2020, "GLU variants
/// improve transformer").
#[derive(Module, Debug)]
pub(crate) struct Geglu {
    pub proj: Linear,
}

/// A linear layer and GELU, by its approximation with a hyperbolic tangent.
#[derive(Module, Debug)]
pub(crate) struct TanhGelu {
    pub proj: Linear,
}

/// A layer of a [`FeedForward`].
#[derive(Module, Debug)]
pub(crate) enum FeedForwardLayer {
    Gate(Geglu),
    Tanh(TanhGelu),
    Linear(Linear),
}

impl FeedForwardLayer {
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Gate(gate) => kernels::geglu(gate.proj.forward(x)),
            Self::Tanh(gelu) => activation::gelu_approximate(gelu.proj.forward(x)),
            Self::Linear(linear) => linear.forward(x),
        }
    }
}

/// Two linear layers with an activation between.
#[derive(Module, Debug)]
pub(crate) struct FeedForward {
    /// Layers 0 and 2; layer 1 is a dropout in diffusers, which these networks never use.
    pub net: Vec<Option<FeedForwardLayer>>,
}

impl FeedForward {
    /// With GEGLU, as in the networks of Stable Diffusion 1 to XL.
    pub(crate) fn geglu(channels: usize, device: &Device) -> Self {
        let proj = Linear::new(channels, 8 * channels, device);
        Self::new(FeedForwardLayer::Gate(Geglu { proj }), channels, device)
    }

    /// With GELU's approximation, as in DiT and Stable Diffusion 3.
    pub(crate) fn tanh_gelu(channels: usize, device: &Device) -> Self {
        let proj = Linear::new(channels, 4 * channels, device);
        Self::new(FeedForwardLayer::Tanh(TanhGelu { proj }), channels, device)
    }

    fn new(first: FeedForwardLayer, channels: usize, device: &Device) -> Self {
        let back = FeedForwardLayer::Linear(Linear::new(4 * channels, channels, device));
        Self {
            net: vec![Some(first), None, Some(back)],
        }
    }

    /// # Shapes
    /// `[rows, channels]`, unchanged.
    pub(crate) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let layers = self.net.iter().flatten();
        layers.fold(x, |x, layer| layer.forward(x))
    }
}
