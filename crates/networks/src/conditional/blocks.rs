//! One level of a conditional network: residual blocks, their transformers, and the way to the next level.

use burn::module::Module;
use burn::tensor::Tensor;

use super::transformer::Transformer2DModel;
use crate::random::Draw;
use crate::resnet::{Downsample2D, ResnetBlock2D, Upsample2D};

/// What every block of a forward pass looks at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Condition<'a> {
    /// The time embedding after its SiLU, `[batch, time]`.
    pub temb: &'a Tensor<2>,
    /// The encoder's hidden states, `[batch * tokens, width]`.
    pub context: &'a Tensor<2>,
}

/// A level on the way down (`CrossAttnDownBlock2D`; without attentions, `DownBlock2D`).
#[derive(Module, Debug)]
pub(crate) struct CrossAttnDownBlock2D {
    pub resnets: Vec<ResnetBlock2D>,
    /// Empty, or one for each residual block.
    pub attentions: Vec<Transformer2DModel>,
    /// Empty at the coarsest level.
    pub downsamplers: Vec<Downsample2D>,
}

/// A level on the way up (`CrossAttnUpBlock2D`; without attentions, `UpBlock2D`).
#[derive(Module, Debug)]
pub(crate) struct CrossAttnUpBlock2D {
    pub resnets: Vec<ResnetBlock2D>,
    /// Empty, or one for each residual block.
    pub attentions: Vec<Transformer2DModel>,
    /// Empty at the finest level.
    pub upsamplers: Vec<Upsample2D>,
}

/// The coarsest point (`UNetMidBlock2DCrossAttn`): two residual blocks with a transformer between.
#[derive(Module, Debug)]
pub(crate) struct MidBlock2DCrossAttn {
    pub resnets: Vec<ResnetBlock2D>,
    pub attentions: Vec<Transformer2DModel>,
}

/// A level's residual block of this index and, where there is one, its transformer.
///
/// # Shapes
/// `x`: `[batch, height, width, in]` to `[batch, height, width, out]`.
pub(super) fn forward_layer(
    resnets: &[ResnetBlock2D],
    attentions: &[Transformer2DModel],
    layer: usize,
    x: Tensor<4>,
    condition: Condition,
    dropout: Option<&mut Draw>,
) -> Tensor<4> {
    let x = resnets[layer].forward(x, condition.temb.clone(), dropout);
    match attentions.get(layer) {
        Some(attention) => attention.forward(x, condition.context),
        None => x,
    }
}

impl MidBlock2DCrossAttn {
    /// # Shapes
    /// `x`: `[batch, height, width, channels]`, unchanged.
    pub(crate) fn forward(
        &self,
        x: Tensor<4>,
        condition: Condition,
        mut dropout: Option<&mut Draw>,
    ) -> Tensor<4> {
        let temb = condition.temb;
        let mut x = self.resnets[0].forward(x, temb.clone(), dropout.as_deref_mut());
        for (attention, resnet) in self.attentions.iter().zip(&self.resnets[1..]) {
            x = attention.forward(x, condition.context);
            x = resnet.forward(x, temb.clone(), dropout.as_deref_mut());
        }
        x
    }
}
