//! A conditional network's forward pass as a list of parts.

use burn::tensor::Tensor;
use retrack_kernels as kernels;

use super::blocks::{
    Condition, CrossAttnDownBlock2D, CrossAttnUpBlock2D, MidBlock2DCrossAttn, forward_layer,
};
use super::unet::UNet2DConditionModel;
use crate::random::Draw;
use crate::resnet::{Downsample2D, Upsample2D};

/// One part between the first convolution and the last normalization. All that passes from one to the next
/// is an image and the stack of skips.
#[derive(Clone, Copy)]
pub(super) enum Stage<'a> {
    Down(&'a CrossAttnDownBlock2D, usize),
    Downsample(&'a Downsample2D),
    Mid(&'a MidBlock2DCrossAttn),
    Up(&'a CrossAttnUpBlock2D, usize),
    Upsample(&'a Upsample2D),
}

impl UNet2DConditionModel {
    /// In the order of the forward pass.
    pub(super) fn stages(&self) -> Vec<Stage<'_>> {
        let mut stages = Vec::new();
        for block in &self.down_blocks {
            stages.extend((0..block.resnets.len()).map(|layer| Stage::Down(block, layer)));
            stages.extend(block.downsamplers.iter().map(Stage::Downsample));
        }
        stages.push(Stage::Mid(&self.mid_block));
        for block in &self.up_blocks {
            stages.extend((0..block.resnets.len()).map(|layer| Stage::Up(block, layer)));
            stages.extend(block.upsamplers.iter().map(Stage::Upsample));
        }
        stages
    }
}

/// What a stage works on.
#[derive(Clone)]
pub(super) struct Input {
    pub x: Tensor<4>,
    /// What is joined to it.
    pub skip: Option<Tensor<4>>,
    /// Height and width that an enlargement leads to: those of the next skip.
    pub size: [usize; 2],
}

/// Roughly how many bytes a backward pass keeps for a stage: of a residual block six images of its width, of a
/// transformer layer forty (its own, those of attention and, of eight times the width, of the feed-forward).
pub(super) fn kept_bytes(images: [usize; 3], own: usize, layers: usize) -> f64 {
    let pixels: f64 = images.iter().map(|&side| side as f64).product();
    4.0 * pixels * own as f64 * (6 + 40 * layers) as f64
}

impl Stage<'_> {
    /// Whether the result also goes on the stack of skips.
    pub(super) fn leaves_skip(&self) -> bool {
        matches!(self, Self::Down(..) | Self::Downsample(_))
    }

    /// Takes what this stage needs off the stack of skips.
    pub(super) fn input(&self, x: Tensor<4>, skips: &mut Vec<Tensor<4>>) -> Input {
        let skip = matches!(self, Self::Up(..))
            .then(|| skips.pop().expect("the way down leaves a skip for each"));
        let [_, height, width, _] = skips.last().unwrap_or(&x).dims();
        Input {
            x,
            skip,
            size: [height, width],
        }
    }

    /// # Shapes
    /// `x` and `skip` (where one is taken): `[batch, height, width, channels]`; result: of half the height and width,
    /// rounded up, or of `size` where the stage changes them.
    pub(super) fn forward(
        &self,
        Input { x, skip, size }: Input,
        condition: Condition,
        dropout: Option<&mut Draw>,
    ) -> Tensor<4> {
        match self {
            Self::Down(block, layer) => {
                let (resnets, attentions) = (&block.resnets, &block.attentions);
                forward_layer(resnets, attentions, *layer, x, condition, dropout)
            }
            Self::Downsample(down) => down.conv.forward(x),
            Self::Mid(block) => block.forward(x, condition, dropout),
            Self::Up(block, layer) => {
                let skip = skip.expect("this stage takes a skip");
                let x = kernels::concat_channels(x, skip);
                let (resnets, attentions) = (&block.resnets, &block.attentions);
                forward_layer(resnets, attentions, *layer, x, condition, dropout)
            }
            Self::Upsample(up) => {
                let [height, width] = size;
                // An odd side was rounded up on the way down. Its nearest neighbors are those of twice the size, without
                // the last.
                let enlarged = kernels::upsample_nearest2x(x);
                up.conv
                    .forward(enlarged.narrow(1, 0, height).narrow(2, 0, width))
            }
        }
    }

    /// Roughly how many bytes a backward pass keeps for images of `x`'s shape.
    fn kept_bytes(&self, [batch, height, width, channels]: [usize; 4]) -> f64 {
        let (own, layers) = match self {
            Self::Down(block, layer) => {
                let transformer = block.attentions.get(*layer);
                let layers = transformer.map_or(0, |t| t.transformer_blocks.len());
                (block.resnets[*layer].conv2.bias.dims()[0], layers)
            }
            Self::Up(block, layer) => {
                let transformer = block.attentions.get(*layer);
                let layers = transformer.map_or(0, |t| t.transformer_blocks.len());
                (block.resnets[*layer].conv2.bias.dims()[0], layers)
            }
            Self::Mid(block) => {
                let layers = block.attentions.iter().map(|t| t.transformer_blocks.len());
                (2 * channels, layers.sum())
            }
            Self::Downsample(_) | Self::Upsample(_) => (channels, 0),
        };
        kept_bytes([batch, height, width], own, layers)
    }
}

impl UNet2DConditionModel {
    /// Roughly how many bytes the backward pass of one whole graph keeps for samples of this shape.
    pub(super) fn kept_bytes(&self, [batch, mut height, mut width, _]: [usize; 4]) -> f64 {
        let mut channels = self.conv_in.bias.dims()[0];
        let mut bytes = 0.0;
        let mut sizes = Vec::new();
        for stage in self.stages() {
            bytes += stage.kept_bytes([batch, height, width, channels]);
            match stage {
                Stage::Down(block, layer) => channels = block.resnets[layer].conv2.bias.dims()[0],
                Stage::Up(block, layer) => channels = block.resnets[layer].conv2.bias.dims()[0],
                Stage::Downsample(_) => {
                    sizes.push((height, width));
                    (height, width) = (height.div_ceil(2), width.div_ceil(2));
                }
                Stage::Upsample(_) => (height, width) = sizes.pop().expect("came down before"),
                Stage::Mid(_) => {}
            }
        }
        bytes
    }
}
