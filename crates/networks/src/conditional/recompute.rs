//! A backward pass that keeps only what passes between the network's stages and computes the rest anew
//! (gradient checkpointing, Chen et al. 2016, arXiv 1604.06174).

use burn::module::Module;
use burn::tensor::Tensor;

use super::blocks::Condition;
use super::stages::Input;
use super::unet::UNet2DConditionModel;
use crate::captioned::Conditional;
use crate::cost::{KEPT_AT_MOST, at_once, fitting};
use crate::denoiser::{AT_ONCE, Embeddings, InputError};
use crate::gradients::{GradientSet, GradientSum};
use crate::random::Draw;

/// What of a stage is kept until it is computed again.
struct Kept {
    input: Input,
    /// As it was before the stage drew its masks.
    dropout: Option<Draw>,
}

/// A leaf of the graph of one stage.
fn leaf<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
    tensor.autodiff().require_grad()
}

impl Conditional for UNet2DConditionModel {
    fn forward(
        &self,
        x: Tensor<4>,
        timesteps: &[f32],
        texts: Embeddings,
        dropout: Option<&mut Draw>,
    ) -> Result<Tensor<4>, InputError> {
        self.forward(x, timesteps, texts, dropout)
    }

    /// Images that would keep too much take [`backward_by_stages`](UNet2DConditionModel::backward_by_stages).
    fn backward(
        &self,
        x: Tensor<4>,
        timesteps: &[f32],
        texts: Embeddings,
        dropout: Option<&mut Draw>,
        loss: &mut dyn FnMut(Tensor<4>) -> Tensor<1>,
        sum: &mut Option<GradientSet>,
    ) -> Result<(), InputError> {
        if self.kept_bytes(x.dims()) > KEPT_AT_MOST {
            return self.backward_by_stages(x, timesteps, texts, dropout, loss, sum);
        }
        let prediction = self.forward(x, timesteps, texts, dropout)?;
        GradientSet::add_to(sum, GradientSet::of(self, loss(prediction)));
        Ok(())
    }

    fn at_once(&self, [height, width]: [usize; 2]) -> usize {
        let kept = self.kept_bytes([1, height, width, self.conv_in.weight.dims()[2]]);
        at_once(kept, self.num_params() as f64)
    }

    /// As many as keep little of one whole graph. One image of 512 x 512 pixels, which keeps more in Stable Diffusion 1.x, passes
    /// alone.
    fn looks_at_once(&self, [height, width]: [usize; 2]) -> usize {
        let kept = self.kept_bytes([1, height, width, self.conv_in.weight.dims()[2]]);
        fitting(KEPT_AT_MOST, kept).min(AT_ONCE)
    }
}

impl UNet2DConditionModel {
    /// As [`Conditional::backward`], in little memory.
    ///
    /// Each stage's graph exists while its own backward pass runs, and its gradients join `sum` before the
    /// next one's are made. The price is one more forward pass. Gradients are those of the whole graph up
    /// to the order of a few sums.
    ///
    /// # Errors
    /// As `forward`.
    pub fn backward_by_stages(
        &self,
        sample: Tensor<4>,
        timesteps: &[f32],
        texts: Embeddings,
        mut dropout: Option<&mut Draw>,
        loss: &mut dyn FnMut(Tensor<4>) -> Tensor<1>,
        sum: &mut Option<GradientSet>,
    ) -> Result<(), InputError> {
        let sample = sample.inner();
        self.check(sample.dims(), timesteps.len())?;
        let texts = texts.inner();
        let added = self.added(&texts, sample.dims())?;
        let context = self.context(texts.states, sample.dims()[0])?;
        let mut sum_by_part = GradientSum::new(sum.take());

        let plain = self.valid();
        let (mut x, temb) = plain.begin(sample.clone(), timesteps, added.clone());
        let condition = Condition {
            temb: &temb,
            context: &context,
        };
        let mut skips = vec![x.clone()];
        let mut kept = Vec::new();
        for stage in plain.stages() {
            let input = stage.input(x, &mut skips);
            kept.push(Kept {
                input: input.clone(),
                dropout: dropout.as_deref().cloned(),
            });
            x = stage.forward(input, condition, dropout.as_deref_mut());
            if stage.leaves_skip() {
                skips.push(x.clone());
            }
        }
        drop(plain);
        let context = context.autodiff();

        let last = leaf(x);
        let mut gradients = sum_by_part.backward(self, loss(self.end(last.clone())));
        let mut dx = last.grad_remove(&mut gradients).expect("a leaf");

        let mut dskips: Vec<Tensor<4>> = Vec::new();
        let mut dtemb: Option<Tensor<2>> = None;
        for (stage, mut kept) in self.stages().into_iter().zip(kept).rev() {
            if stage.leaves_skip() {
                dx = dx + dskips.pop().expect("the way up takes each skip");
            }
            let input = Input {
                x: leaf(kept.input.x),
                skip: kept.input.skip.map(leaf),
                ..kept.input
            };
            let temb = leaf(temb.clone());
            let condition = Condition {
                temb: &temb,
                context: &context,
            };
            let y = stage.forward(input.clone(), condition, kept.dropout.as_mut());
            // The gradient of this product's sum for y is the given one.
            let mut gradients = sum_by_part.backward(self, (y * dx.autodiff()).sum());
            dx = input
                .x
                .grad_remove(&mut gradients)
                .expect("every stage uses x");
            if let Some(skip) = input.skip {
                dskips.push(skip.grad_remove(&mut gradients).expect("used"));
            }
            if let Some(part) = temb.grad_remove(&mut gradients) {
                dtemb = Some(match dtemb {
                    Some(sum) => sum + part,
                    None => part,
                });
            }
        }

        let dx = dx + dskips.pop().expect("that of the first convolution");
        let (x, temb) = self.begin(sample.autodiff(), timesteps, added.map(Tensor::autodiff));
        let mut products = (x * dx.autodiff()).sum();
        if let Some(dtemb) = dtemb {
            products = products + (temb * dtemb.autodiff()).sum();
        }
        // Where only adapters are trained, nothing of this is.
        if products.is_tracked() {
            sum_by_part.backward(self, products);
        }
        *sum = Some(sum_by_part.finish(self));
        Ok(())
    }
}
