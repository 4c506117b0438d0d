//! diffusers' `SD3Transformer2DModel`, channel-last.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use retrack_kernels as kernels;
use serde_json::{Value, json};

use super::block::JointTransformerBlock;
use super::{SD3Config, TEXT_TOKENS};
use crate::adaptive::{AdaLayerNorm, modulated, normalized};
use crate::captioned::{Captioned, Conditional};
use crate::cost::{Cost, KEPT_AT_MOST, LatentCost, at_once, fitting};
use crate::denoiser::{AT_ONCE, Embeddings, InputError};
use crate::embeddings::{TimestepEmbedding, sinusoidal};
use crate::family::{Architecture, PixelConfig, Told};
use crate::gradients::{GradientSet, GradientSum};
use crate::layers::Linear;
use crate::network::Network;
use crate::patches::{PatchEmbed, joined};
use crate::random::Draw;

/// Sines and cosines that a timestep becomes.
const SINUSOID: usize = 256;
/// The vector of an image's time and of its text: their sum (diffusers' `CombinedTimestepTextProjEmbeddings`).
#[derive(Module, Debug)]
pub(crate) struct TimeTextEmbedding {
    pub timestep_embedder: TimestepEmbedding,
    pub text_embedder: TimestepEmbedding,
}

/// The denoising network of Stable Diffusion 3 and 3.5.
///
/// Field names are the checkpoint's, so that a parameter's path is its key.
#[derive(Module, Debug)]
pub struct SD3Transformer2DModel {
    pub(crate) pos_embed: PatchEmbed,
    pub(crate) time_text_embed: TimeTextEmbedding,
    pub(crate) context_embedder: Linear,
    pub(crate) transformer_blocks: Vec<JointTransformerBlock>,
    pub(crate) norm_out: AdaLayerNorm,
    pub(crate) proj_out: Linear,
    patch_size: usize,
    in_channels: usize,
    most: usize,
}

impl From<SD3Config> for PixelConfig {
    fn from(config: SD3Config) -> Self {
        Self {
            sample_size: Some([config.sample_size; 2]),
            in_channels: config.in_channels,
            out_channels: config.out_channels,
            num_class_embeds: None,
            unknown_keys: config.unknown_keys.clone(),
            architecture: Arc::new(config),
        }
    }
}

impl Architecture for SD3Config {
    fn init(&self, device: &Device) -> Network {
        Network::new(Captioned::untold(self.init(device)))
    }

    fn cost(&self, height: usize, width: usize) -> Cost {
        self.cost(height, width).whole_graph()
    }

    fn told(&self) -> Option<Told> {
        Some(Told {
            states: ("joint_attention_dim", self.joint_attention_dim),
            pooled: Some(("pooled_projection_dim", self.pooled_projection_dim)),
        })
    }

    fn latent_cost(&self, height: usize, width: usize) -> Option<Box<dyn LatentCost>> {
        Some(Box::new(self.cost(height, width)))
    }

    fn first(&self, height: usize, width: usize) -> f64 {
        (height * width / self.patch_size.pow(2) * self.width()) as f64
    }

    fn side_multiple(&self) -> usize {
        self.patch_size
    }

    fn check_size(&self, height: usize, width: usize) -> Result<(), InputError> {
        check_size([height, width], self.patch_size, self.pos_embed_max_size)
    }

    fn facts(&self) -> Vec<(&'static str, Value)> {
        vec![
            ("width", json!(self.width())),
            ("num_layers", json!(self.num_layers)),
        ]
    }
}

/// Latents are of whole patches, and of no more than there are places for.
fn check_size(size: [usize; 2], patch: usize, most: usize) -> Result<(), InputError> {
    let fits = |side: &usize| *side > 0 && side.is_multiple_of(patch) && side / patch <= most;
    match size.iter().all(fits) {
        true => Ok(()),
        false => Err(InputError::Patches {
            height: size[0],
            width: size[1],
            patch,
            most: patch * most,
        }),
    }
}

impl SD3Config {
    /// The network, all parameters zero: [`parameters`](crate::parameters) fills them.
    pub fn init(&self, device: &Device) -> SD3Transformer2DModel {
        let width = self.width();
        let blocks = 0..self.num_layers;
        SD3Transformer2DModel {
            pos_embed: PatchEmbed::new(
                self.patch_size,
                self.in_channels,
                width,
                self.pos_embed_max_size,
                device,
            ),
            time_text_embed: TimeTextEmbedding {
                timestep_embedder: TimestepEmbedding::new(SINUSOID, width, device),
                text_embedder: TimestepEmbedding::new(self.pooled_projection_dim, width, device),
            },
            context_embedder: Linear::new(self.joint_attention_dim, width, device),
            transformer_blocks: blocks
                .map(|number| JointTransformerBlock::new(self, number, device))
                .collect(),
            norm_out: AdaLayerNorm::new(width, 2, device),
            proj_out: Linear::new(width, self.patch_size.pow(2) * self.out_channels, device),
            patch_size: self.patch_size,
            in_channels: self.in_channels,
            most: self.pos_embed_max_size,
        }
    }
}

/// What passes from block to block.
struct Streams {
    /// `[batch * tokens, width]`.
    image: Tensor<2>,
    /// The same of the text's tokens.
    text: Tensor<2>,
}

impl SD3Transformer2DModel {
    /// Refuses what does not fit, before anything is computed.
    fn check(
        &self,
        [images, height, width, channels]: [usize; 4],
        timesteps: usize,
        texts: &Embeddings,
    ) -> Result<(), InputError> {
        if channels != self.in_channels {
            return Err(InputError::Channels {
                found: channels,
                expected: self.in_channels,
            });
        }
        if timesteps != images {
            return Err(InputError::Timesteps { images, timesteps });
        }
        check_size([height, width], self.patch_size, self.most)?;
        let found = texts.states.dims();
        let joint = self.context_embedder.weight.dims()[0];
        let as_many = |rows: usize| rows == 1 || rows == images;
        if !as_many(found[0]) || found[1] == 0 || found[2] != joint {
            return Err(InputError::EncoderHiddenStates {
                found,
                images,
                width: joint,
            });
        }
        let what = "`pooled_projections`";
        let pooled = texts.pooled.as_ref();
        let pooled = pooled.ok_or(InputError::ToldTooLittle { what })?.dims();
        let width = self.time_text_embed.text_embedder.linear_1.weight.dims()[0];
        match as_many(pooled[0]) && pooled[1] == width {
            true => Ok(()),
            false => Err(InputError::Told {
                what,
                found: pooled,
                expected: [images, width],
            }),
        }
    }

    /// What the first block is given, and the vector of each image after its SiLU. What is given was checked.
    fn begin(
        &self,
        sample: Tensor<4>,
        timesteps: &[f32],
        texts: Embeddings,
    ) -> (Streams, Tensor<2>) {
        let images = timesteps.len();
        let rows = sinusoidal(timesteps, SINUSOID, true, 0.0);
        let embed = &self.time_text_embed;
        let time = embed.timestep_embedder.forward_rows(rows, images);
        let pooled = texts.pooled.expect("checked");
        let pooled = embed.text_embedder.forward(pooled);
        // One text serves all images.
        let vector = kernels::silu(time + pooled);
        let [_, tokens, joint] = texts.states.dims();
        let states = texts.states.expand([images, tokens, joint]);
        let text = states.reshape([images * tokens, joint]);
        let streams = Streams {
            image: self.pos_embed.forward(sample),
            text: self.context_embedder.forward(text),
        };
        (streams, vector)
    }

    /// What follows the last block.
    fn end(&self, image: Tensor<2>, vector: &Tensor<2>, size: [usize; 3]) -> Tensor<4> {
        let [scale, shift] = self.norm_out.parts(vector);
        let image = modulated(normalized(image), scale, shift);
        joined(self.proj_out.forward(image), size, self.patch_size)
    }

    /// Predicts, for each image, what the scheduler's process says.
    ///
    /// # Shapes
    /// `sample`: `[batch, height, width, in]`, a timestep for each image; `texts`: one for each image, of hidden states `[batch,
    /// tokens, joint_attention_dim]` and as one vector, `[batch, pooled_projection_dim]`, or one that all images share; result:
    /// `[batch, height, width, out]`.
    ///
    /// # Errors
    /// A wrong number of channels or timesteps, texts of another shape, a height or width that is not of whole patches or has
    /// more of them than there are places for.
    pub fn forward(
        &self,
        sample: Tensor<4>,
        timesteps: &[f32],
        texts: Embeddings,
    ) -> Result<Tensor<4>, InputError> {
        let [batch, height, width, _] = sample.dims();
        self.check(sample.dims(), timesteps.len(), &texts)?;
        let (Streams { mut image, text }, vector) = self.begin(sample, timesteps, texts);
        let mut text = Some(text);
        for block in &self.transformer_blocks {
            let given = text.take().expect("only the last block gives none back");
            (image, text) = block.forward(image, given, &vector, batch);
        }
        Ok(self.end(image, &vector, [batch, height, width]))
    }

    /// Roughly how many bytes the backward pass of one whole graph keeps for samples of this size and texts of so many tokens.
    fn kept_bytes(&self, [batch, height, width]: [usize; 3], text: usize) -> f64 {
        let tokens = (height / self.patch_size) * (width / self.patch_size) + text;
        let own = self.proj_out.weight.dims()[0];
        let blocks = self
            .transformer_blocks
            .iter()
            .map(JointTransformerBlock::kept);
        4.0 * (batch * tokens * own) as f64 * blocks.sum::<f64>()
    }

    /// As [`Conditional::backward`], in little memory: of each block only what it is given is kept, and it is computed again
    /// (gradient checkpointing, Chen et al. 2016, arXiv 1604.06174). Gradients are those of the whole graph up to the order of a
    /// few sums.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn backward_by_blocks(
        &self,
        sample: Tensor<4>,
        timesteps: &[f32],
        texts: Embeddings,
        loss: &mut dyn FnMut(Tensor<4>) -> Tensor<1>,
        sum: &mut Option<GradientSet>,
    ) -> Result<(), InputError> {
        let (sample, texts) = (sample.inner(), texts.inner());
        let [batch, height, width, _] = sample.dims();
        self.check(sample.dims(), timesteps.len(), &texts)?;
        let mut sum_by_part = GradientSum::new(sum.take());

        let plain = self.valid();
        let (streams, vector) = plain.begin(sample.clone(), timesteps, texts.clone());
        let (mut image, mut text) = (streams.image, Some(streams.text));
        let mut kept = Vec::with_capacity(plain.transformer_blocks.len());
        for block in &plain.transformer_blocks {
            let given = text.take().expect("only the last block gives none back");
            kept.push((image.clone(), given.clone()));
            (image, text) = block.forward(image, given, &vector, batch);
        }
        drop(plain);

        let mut vector_gradient: Option<Tensor<2>> = None;
        let mut add = |part: Option<Tensor<2>>| {
            vector_gradient = match (vector_gradient.take(), part) {
                (Some(sum), Some(part)) => Some(sum + part),
                (sum, part) => sum.or(part),
            };
        };
        let last = leaf(image);
        let own = leaf(vector.clone());
        let prediction = self.end(last.clone(), &own, [batch, height, width]);
        let mut gradients = sum_by_part.backward(self, loss(prediction));
        add(own.grad_remove(&mut gradients));
        let mut d_image = last.grad_remove(&mut gradients).expect("a leaf");
        let mut d_text: Option<Tensor<2>> = None;

        for (block, (image, text)) in self.transformer_blocks.iter().zip(kept).rev() {
            let (image, text, own) = (leaf(image), leaf(text), leaf(vector.clone()));
            let (y_image, y_text) = block.forward(image.clone(), text.clone(), &own, batch);
            // The gradient of this product's sum for what the block gives is the given one.
            let mut products = (y_image * d_image.autodiff()).sum();
            if let (Some(y), Some(d)) = (y_text, d_text.take()) {
                products = products + (y * d.autodiff()).sum();
            }
            let mut gradients = sum_by_part.backward(self, products);
            add(own.grad_remove(&mut gradients));
            d_image = image
                .grad_remove(&mut gradients)
                .expect("every block uses it");
            d_text = text.grad_remove(&mut gradients);
        }

        let (streams, vector) = self.begin(sample.autodiff(), timesteps, texts.autodiff());
        let mut products = (streams.image * d_image.autodiff()).sum();
        if let Some(d_text) = d_text {
            products = products + (streams.text * d_text.autodiff()).sum();
        }
        if let Some(gradient) = vector_gradient {
            products = products + (vector * gradient.autodiff()).sum();
        }
        // Where only adapters are trained, nothing of this is.
        if products.is_tracked() {
            sum_by_part.backward(self, products);
        }
        *sum = Some(sum_by_part.finish(self));
        Ok(())
    }
}

/// A leaf of the graph of one block.
fn leaf(tensor: Tensor<2>) -> Tensor<2> {
    tensor.autodiff().require_grad()
}

impl Conditional for SD3Transformer2DModel {
    /// Nothing is dropped: these networks have no dropout.
    fn forward(
        &self,
        x: Tensor<4>,
        timesteps: &[f32],
        texts: Embeddings,
        _: Option<&mut Draw>,
    ) -> Result<Tensor<4>, InputError> {
        self.forward(x, timesteps, texts)
    }

    fn backward(
        &self,
        x: Tensor<4>,
        timesteps: &[f32],
        texts: Embeddings,
        _: Option<&mut Draw>,
        loss: &mut dyn FnMut(Tensor<4>) -> Tensor<1>,
        sum: &mut Option<GradientSet>,
    ) -> Result<(), InputError> {
        let [batch, height, width, _] = x.dims();
        let tokens = texts.states.dims()[1];
        if self.kept_bytes([batch, height, width], tokens) > KEPT_AT_MOST {
            return self.backward_by_blocks(x, timesteps, texts, loss, sum);
        }
        let prediction = self.forward(x, timesteps, texts)?;
        GradientSet::add_to(sum, GradientSet::of(self, loss(prediction)));
        Ok(())
    }

    /// As many as need not compute their blocks a second time; where one alone does, as many as keep no more of a whole graph than
    /// weights, gradient and moments take.
    fn at_once(&self, [height, width]: [usize; 2]) -> usize {
        let kept = self.kept_bytes([1, height, width], TEXT_TOKENS);
        at_once(kept, self.num_params() as f64)
    }

    fn looks_at_once(&self, [height, width]: [usize; 2]) -> usize {
        let kept = self.kept_bytes([1, height, width], TEXT_TOKENS);
        fitting(KEPT_AT_MOST, kept).min(AT_ONCE)
    }
}
