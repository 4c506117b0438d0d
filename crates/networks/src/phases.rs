//! What training a pipeline of latents takes: its networks are in memory one after another.

use crate::cost::{Footprint, HELD, LatentCost, Training};
use crate::text_encoders::TextCost;
use crate::vae::AutoencoderConfig;

/// What the parts of a pipeline cost, one after another in memory.
#[derive(Debug)]
pub(crate) struct Phases {
    /// Bytes while texts are encoded, and while images are.
    texts: f64,
    images: f64,
    denoiser: Box<dyn LatentCost>,
    /// Numbers in an image's latent, and in a text's hidden states.
    latent: f64,
    states: f64,
}

impl Phases {
    /// Of images of this height and width. `denoiser`: what it costs on latents of a height and a width.
    pub(crate) fn of(
        denoiser: &dyn Fn(usize, usize) -> Box<dyn LatentCost>,
        autoencoder: &AutoencoderConfig,
        texts: &TextCost,
        [height, width]: [usize; 2],
    ) -> Self {
        let factor = autoencoder.factor();
        let (latent_height, latent_width) = (height / factor, width / factor);
        let encoding = autoencoder.encoding_cost(height, width);
        // An image as floats, and again on its way to the autoencoder.
        let image = 3.0 * (height * width * autoencoder.in_channels) as f64;
        Self {
            texts: 4.0 * texts.encoding,
            images: 4.0 * (encoding.parameters + encoding.activations + image),
            denoiser: denoiser(latent_height, latent_width),
            latent: (latent_height * latent_width * autoencoder.latent_channels) as f64,
            states: texts.states,
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
        let step = denoiser.step(training.pass(denoiser.at_once()), rank);
        4.0 * denoiser.parameters() as f64
            + adapters
            + trained * training.moment_bytes as f64 / 2.0
            + second
            + step.gradients
            + step.activations
            + training.drawn(self.latent)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::conditional::UNet2DConditionConfig;
    use crate::text::TextConfig;

    /// Stable Diffusion 1.
    fn phases(side: usize) -> Phases {
        let list = |name: &str| vec![Value::from(name); 4];
        let denoiser = UNet2DConditionConfig::from_json(&json!({"cross_attention_dim": 768}));
        let autoencoder = AutoencoderConfig::from_json(&json!({
            "block_out_channels": [128, 256, 512, 512], "layers_per_block": 2,
            "down_block_types": list("DownEncoderBlock2D"), "up_block_types": list("UpDecoderBlock2D")
        }));
        let text = TextConfig::from_json(&json!({
            "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12
        }));
        let sizes = [side, side];
        let denoiser = denoiser.unwrap();
        Phases::of(
            &|height, width| Box::new(denoiser.cost(height, width)),
            &autoencoder.unwrap(),
            &TextCost::of(&text.unwrap()),
            sizes,
        )
    }

    fn training(side: usize, batch_size: usize, rank: Option<usize>) -> Training {
        Training {
            size: [side, side],
            batch_size,
            streams: 1,
            ema: false,
            moment_bytes: 4,
            two_gradients: false,
            rank,
            images: 10,
            texts: 2,
        }
    }

    fn footprint(side: usize, batch_size: usize, rank: Option<usize>) -> Footprint {
        phases(side).footprint(&training(side, batch_size, rank))
    }

    fn memory(side: usize, batch_size: usize, rank: Option<usize>) -> f64 {
        footprint(side, batch_size, rank).held.iter().sum()
    }

    /// Measured with the published sizes, one image of 512 x 512: see SECURITY.md.
    #[test]
    fn stable_diffusion_needs_what_was_measured() {
        // The program itself takes 64 MB.
        let of = |rank| (64e6 + memory(512, 1, rank)) / 1e9;
        let (full, adapters) = (of(None), of(Some(4)));
        assert!((full / 14.6 - 1.0).abs() < 0.1, "{full}");
        assert!((adapters / 4.2 - 1.0).abs() < 0.1, "{adapters}");
    }

    #[test]
    fn more_images_need_more_and_adapters_need_less() {
        for rank in [None, Some(4)] {
            assert!(memory(512, 4, rank) > memory(512, 1, rank) + 5e8);
            assert!(memory(768, 1, rank) > memory(512, 1, rank) + 3e8);
        }
        assert!(memory(512, 1, Some(128)) > memory(512, 1, Some(4)) + 1e8);
        let state = |rank| footprint(512, 1, rank).state;
        assert!(state(Some(4)) < state(None) / 100.0);
        let two = Training {
            two_gradients: true,
            ..training(512, 1, None)
        };
        let two: f64 = phases(512).footprint(&two).held.iter().sum();
        let more = two - memory(512, 1, None);
        assert!((more - HELD * 4.0 * 859_520_964.0).abs() < 1e3, "{more}");
    }

    #[test]
    fn a_large_image_is_refused_for_its_autoencoder() {
        let phases = phases(4096);
        assert!(phases.images > 20e9, "{}", phases.images);
    }
}
