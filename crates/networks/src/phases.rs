//! What training a pipeline of latents takes: its networks are in memory one after another.

use crate::conditional::{ConditionalCost, UNet2DConditionConfig};
use crate::cost::{Footprint, HELD, Training};
use crate::stable_diffusion::TEXTS_AT_ONCE;
use crate::text::TextConfig;
use crate::vae::AutoencoderConfig;

/// What the parts of a pipeline cost, one after another in memory.
#[derive(Debug, Clone)]
pub(crate) struct Phases {
    /// Bytes while texts are encoded, and while images are.
    texts: f64,
    images: f64,
    denoiser: ConditionalCost,
    /// Numbers in an image's latent, and in a text's hidden states.
    latent: f64,
    states: f64,
}

impl Phases {
    /// Of images of this height and width.
    pub(crate) fn of(
        denoiser: &UNet2DConditionConfig,
        autoencoder: &AutoencoderConfig,
        text: &TextConfig,
        [height, width]: [usize; 2],
    ) -> Self {
        let factor = 1 << (autoencoder.block_out_channels.len() - 1);
        let (latent_height, latent_width) = (height / factor, width / factor);
        let encoding = autoencoder.encoding_cost(height, width);
        // An image as floats, and again on its way to the autoencoder.
        let image = 3.0 * (height * width * autoencoder.in_channels) as f64;
        let tokens = text.max_position_embeddings as f64;
        // Of each layer the widest, its result and what attention makes.
        let wide = (2 * text.encoder.intermediate_size + 6 * text.encoder.hidden_size) as f64;
        Self {
            texts: 4.0 * (text.parameters() as f64 + TEXTS_AT_ONCE as f64 * tokens * wide),
            images: 4.0 * (encoding.parameters + encoding.activations + image),
            denoiser: denoiser.cost(latent_height, latent_width),
            latent: (latent_height * latent_width * autoencoder.latent_channels) as f64,
            states: tokens * text.encoder.hidden_size as f64,
        }
    }

    /// What training the denoiser takes.
    pub(crate) fn footprint(&self, training: &Training) -> Footprint {
        // Mean and deviation of each latent.
        let latents = 2.0 * 4.0 * training.images as f64 * self.latent;
        let states = 4.0 * training.texts as f64 * self.states;
        let most = self.texts.max(self.images).max(self.training(training));
        Footprint {
            // Weights, where all are trained, and the optimizer's two moments; of adapters themselves.
            state: 3.0 * 4.0 * self.denoiser.trained(training.rank),
            held: vec![latents, states, HELD * most],
        }
    }

    /// Bytes of weights, moments, gradients and what a step holds.
    fn training(&self, training: &Training) -> f64 {
        let (denoiser, rank) = (&self.denoiser, training.rank);
        let trained = 4.0 * denoiser.trained(rank);
        let adapters = if rank.is_some() { trained } else { 0.0 };
        let second = if training.two_gradients { trained } else { 0.0 };
        let step = denoiser.step(training.batch_size, rank);
        4.0 * denoiser.parameters as f64
            + adapters
            + 2.0 * trained
            + second
            + step.gradients
            + step.activations
    }
}
