//! One level of the network: residual blocks, their attentions, and the way to the next level.

use burn::module::Module;
use burn::tensor::Tensor;
use retrack_kernels as kernels;

use crate::attention::Attention;
use crate::random::Draw;
use crate::resnet::{Downsampler, ResnetBlock2D, Upsampler};

/// A level on the way down (`DownBlock2D`; with attentions, `AttnDownBlock2D`).
#[derive(Module, Debug)]
pub(crate) struct DownBlock2D {
    pub resnets: Vec<ResnetBlock2D>,
    /// Empty, or one for each residual block.
    pub attentions: Vec<Attention>,
    /// Empty at the coarsest level.
    pub downsamplers: Vec<Downsampler>,
}

/// A level on the way up (`UpBlock2D`; with attentions, `AttnUpBlock2D`).
#[derive(Module, Debug)]
pub(crate) struct UpBlock2D {
    pub resnets: Vec<ResnetBlock2D>,
    /// Empty, or one for each residual block.
    pub attentions: Vec<Attention>,
    /// Empty at the finest level.
    pub upsamplers: Vec<Upsampler>,
}

/// The coarsest point (`UNetMidBlock2D`).
#[derive(Module, Debug)]
pub(crate) struct MidBlock2D {
    pub resnets: Vec<ResnetBlock2D>,
    pub attentions: Vec<Attention>,
}

impl DownBlock2D {
    /// Every intermediate result goes to `skips`, for the way up.
    ///
    /// # Shapes
    /// `x`: `[batch, height, width, in]`, `temb`: `[batch, time]`.
    pub(crate) fn forward(
        &self,
        mut x: Tensor<4>,
        temb: &Tensor<2>,
        skips: &mut Vec<Tensor<4>>,
        mut dropout: Option<&mut Draw>,
    ) -> Tensor<4> {
        for (i, resnet) in self.resnets.iter().enumerate() {
            x = resnet.forward(x, temb.clone(), dropout.as_deref_mut());
            if let Some(attention) = self.attentions.get(i) {
                x = attention.forward(x);
            }
            skips.push(x.clone());
        }
        for downsampler in &self.downsamplers {
            x = downsampler.forward(x, temb.clone(), dropout.as_deref_mut());
            skips.push(x.clone());
        }
        x
    }
}

impl UpBlock2D {
    /// Takes one of `skips` for each residual block, last first.
    ///
    /// # Shapes
    /// `x`: `[batch, height, width, in]`, `temb`: `[batch, time]`.
    pub(crate) fn forward(
        &self,
        mut x: Tensor<4>,
        temb: &Tensor<2>,
        skips: &mut Vec<Tensor<4>>,
        mut dropout: Option<&mut Draw>,
    ) -> Tensor<4> {
        for (i, resnet) in self.resnets.iter().enumerate() {
            let skip = skips.pop().expect("the way down leaves a skip for each");
            x = kernels::concat_channels(x, skip);
            x = resnet.forward(x, temb.clone(), dropout.as_deref_mut());
            if let Some(attention) = self.attentions.get(i) {
                x = attention.forward(x);
            }
        }
        for upsampler in &self.upsamplers {
            x = upsampler.forward(x, temb.clone(), dropout.as_deref_mut());
        }
        x
    }
}

impl MidBlock2D {
    /// # Shapes
    /// `x`: `[batch, height, width, channels]`, unchanged; `temb`: `[batch, time]`, `None` in an autoencoder.
    pub(crate) fn forward<'t>(
        &self,
        x: Tensor<4>,
        temb: impl Into<Option<&'t Tensor<2>>>,
        mut dropout: Option<&mut Draw>,
    ) -> Tensor<4> {
        let temb = temb.into();
        let mut x = self.resnets[0].forward(x, temb.cloned(), dropout.as_deref_mut());
        for (i, resnet) in self.resnets[1..].iter().enumerate() {
            if let Some(attention) = self.attentions.get(i) {
                x = attention.forward(x);
            }
            x = resnet.forward(x, temb.cloned(), dropout.as_deref_mut());
        }
        x
    }
}
