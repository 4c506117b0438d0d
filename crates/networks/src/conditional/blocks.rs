//! One level of a conditional network: residual blocks, their transformers, and the way to the next level.

use burn::module::Module;
use burn::tensor::Tensor;
use retrack_kernels as kernels;

use super::transformer::Transformer2DModel;
use crate::random::Draw;
use crate::resnet::{Downsample2D, ResnetBlock2D, Upsample2D};

/// What every block of a forward pass looks at.
#[derive(Debug, Clone, Copy)]
pub struct Condition<'a> {
    /// The time embedding after its SiLU, `[batch, time]`.
    pub temb: &'a Tensor<2>,
    /// The encoder's hidden states, `[batch * tokens, width]`.
    pub context: &'a Tensor<2>,
}

/// A level on the way down (`CrossAttnDownBlock2D`; without attentions, `DownBlock2D`).
#[derive(Module, Debug)]
pub struct CrossAttnDownBlock2D {
    pub resnets: Vec<ResnetBlock2D>,
    /// Empty, or one for each residual block.
    pub attentions: Vec<Transformer2DModel>,
    /// Empty at the coarsest level.
    pub downsamplers: Vec<Downsample2D>,
}

/// A level on the way up (`CrossAttnUpBlock2D`; without attentions, `UpBlock2D`).
#[derive(Module, Debug)]
pub struct CrossAttnUpBlock2D {
    pub resnets: Vec<ResnetBlock2D>,
    /// Empty, or one for each residual block.
    pub attentions: Vec<Transformer2DModel>,
    /// Empty at the finest level.
    pub upsamplers: Vec<Upsample2D>,
}

/// The coarsest point (`UNetMidBlock2DCrossAttn`): two residual blocks with a transformer between.
#[derive(Module, Debug)]
pub struct MidBlock2DCrossAttn {
    pub resnets: Vec<ResnetBlock2D>,
    pub attentions: Vec<Transformer2DModel>,
}

impl CrossAttnDownBlock2D {
    /// Every intermediate result goes to `skips`, for the way up.
    ///
    /// # Shapes
    /// `x`: `[batch, height, width, in]`; result: half of height and width unless this is the coarsest level.
    pub fn forward(
        &self,
        mut x: Tensor<4>,
        condition: Condition,
        skips: &mut Vec<Tensor<4>>,
        mut dropout: Option<&mut Draw>,
    ) -> Tensor<4> {
        for (i, resnet) in self.resnets.iter().enumerate() {
            x = resnet.forward(x, condition.temb.clone(), dropout.as_deref_mut());
            if let Some(attention) = self.attentions.get(i) {
                x = attention.forward(x, condition.context);
            }
            skips.push(x.clone());
        }
        for downsampler in &self.downsamplers {
            x = downsampler.conv.forward(x);
            skips.push(x.clone());
        }
        x
    }
}

impl CrossAttnUpBlock2D {
    /// Takes one of `skips` for each residual block, last first.
    ///
    /// # Shapes
    /// `x`: `[batch, height, width, in]`; result: twice height and width unless this is the finest level.
    pub fn forward(
        &self,
        mut x: Tensor<4>,
        condition: Condition,
        skips: &mut Vec<Tensor<4>>,
        mut dropout: Option<&mut Draw>,
    ) -> Tensor<4> {
        for (i, resnet) in self.resnets.iter().enumerate() {
            let skip = skips.pop().expect("the way down leaves a skip for each");
            x = kernels::concat_channels(x, skip);
            x = resnet.forward(x, condition.temb.clone(), dropout.as_deref_mut());
            if let Some(attention) = self.attentions.get(i) {
                x = attention.forward(x, condition.context);
            }
        }
        for upsampler in &self.upsamplers {
            x = upsampler.conv.forward(kernels::upsample_nearest2x(x));
        }
        x
    }
}

impl MidBlock2DCrossAttn {
    /// # Shapes
    /// `x`: `[batch, height, width, channels]`, unchanged.
    pub fn forward(
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
