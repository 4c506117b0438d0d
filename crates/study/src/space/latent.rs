//! What a run on the latents of a text-to-image model needs.

use retrack_data::{Dataset, ImageShape};
use retrack_networks::conditional::{ConditionalCost, UNet2DConditionConfig};
use retrack_networks::stable_diffusion::StableDiffusion;
use retrack_networks::text::TextConfig;
use retrack_networks::vae::AutoencoderConfig;

use super::{HELD, Needs, PROGRAM, check_images, data_held, disk};
use crate::failure::Failure;

/// Texts that are encoded together.
const TEXTS_AT_ONCE: f64 = 8.0;

/// What the parts of a pipeline cost, one after another in memory.
#[derive(Debug, Clone)]
pub struct Phases {
    /// Bytes while texts are encoded, and while images are.
    texts: f64,
    images: f64,
    denoiser: ConditionalCost,
    /// Numbers in an image's latent, and in a text's hidden states.
    latent: f64,
    states: f64,
}

impl Phases {
    /// Of images of this shape.
    pub fn new(opened: &StableDiffusion, shape: ImageShape) -> Self {
        Self::of(
            &opened.model.config,
            &opened.vae_config,
            &opened.text_config,
            [shape.height, shape.width],
        )
    }

    fn of(
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
            texts: 4.0 * (text.parameters() as f64 + TEXTS_AT_ONCE * tokens * wide),
            images: 4.0 * (encoding.parameters + encoding.activations + image),
            denoiser: denoiser.cost(latent_height, latent_width),
            latent: (latent_height * latent_width * autoencoder.latent_channels) as f64,
            states: tokens * text.encoder.hidden_size as f64,
        }
    }
}

/// What a run on latents is about to do.
pub struct LatentWork<'a> {
    pub phases: Phases,
    pub data: &'a Dataset,
    /// Images that are encoded: the forgotten and the retained.
    pub images: usize,
    /// Different texts.
    pub texts: usize,
    /// Of the adapters, where only they are trained.
    pub rank: Option<usize>,
    /// Images in a micro-batch of one stream.
    pub batch_size: usize,
    pub accumulate: usize,
    pub steps: usize,
    pub checkpoint_every: Option<usize>,
    /// Bytes of the folder that will be written.
    pub model: u64,
    /// Whether the method combines two gradients.
    pub two_gradients: bool,
}

impl LatentWork<'_> {
    /// What it comes to.
    ///
    /// # Errors
    /// Numbers that no run could work through.
    pub fn needs(&self) -> Result<Needs, Failure> {
        check_images(self.steps, self.accumulate, self.batch_size)?;
        let phases = &self.phases;
        // Mean and deviation of each latent.
        let latents = 2.0 * 4.0 * self.images as f64 * phases.latent;
        let states = 4.0 * self.texts as f64 * phases.states;
        let training = self.training();
        let most = phases.texts.max(phases.images).max(training);
        // Weights, where all are trained, and the optimizer's two moments; of adapters themselves.
        let state = 3.0 * 4.0 * phases.denoiser.trained(self.rank);
        Ok(Needs {
            disk: disk(self.model, state, self.steps, self.checkpoint_every),
            memory: PROGRAM + data_held(self.data) + latents + states + HELD * most,
        })
    }

    /// Bytes of weights, moments, gradients and what a step holds.
    fn training(&self) -> f64 {
        let denoiser = &self.phases.denoiser;
        let trained = 4.0 * denoiser.trained(self.rank);
        let adapters = if self.rank.is_some() { trained } else { 0.0 };
        let second = if self.two_gradients { trained } else { 0.0 };
        let step = denoiser.step(self.batch_size, self.rank);
        4.0 * denoiser.parameters as f64
            + adapters
            + 2.0 * trained
            + second
            + step.gradients
            + step.activations
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

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
        Phases::of(
            &denoiser.unwrap(),
            &autoencoder.unwrap(),
            &text.unwrap(),
            sizes,
        )
    }

    fn work(data: &Dataset, side: usize, batch_size: usize, rank: Option<usize>) -> LatentWork<'_> {
        LatentWork {
            phases: phases(side),
            data,
            images: 10,
            texts: 2,
            rank,
            batch_size,
            accumulate: 1,
            steps: 10,
            checkpoint_every: Some(5),
            model: 0,
            two_gradients: false,
        }
    }

    fn data() -> Dataset {
        let shape = ImageShape {
            height: 1,
            width: 1,
            channels: 3,
        };
        Dataset::from_pixels(shape, vec![0; 6], vec![0, 0]).unwrap()
    }

    /// Measured with the published sizes, one image of 512 x 512: see SECURITY.md.
    #[test]
    fn stable_diffusion_needs_what_was_measured() {
        let data = data();
        let memory = |rank| work(&data, 512, 1, rank).needs().unwrap().memory / 1e9;
        let (full, adapters) = (memory(None), memory(Some(4)));
        assert!((full / 14.6 - 1.0).abs() < 0.1, "{full}");
        assert!((adapters / 4.2 - 1.0).abs() < 0.1, "{adapters}");
    }

    #[test]
    fn more_images_need_more_and_adapters_need_less() {
        let data = data();
        let needs = |side, batch, rank| work(&data, side, batch, rank).needs().unwrap();
        for rank in [None, Some(4)] {
            assert!(needs(512, 4, rank).memory > needs(512, 1, rank).memory + 5e8);
            assert!(needs(768, 1, rank).memory > needs(512, 1, rank).memory + 3e8);
        }
        assert!(needs(512, 1, Some(128)).memory > needs(512, 1, Some(4)).memory + 1e8);
        assert!(needs(512, 1, Some(4)).disk < needs(512, 1, None).disk / 100.0);
        let two = LatentWork {
            two_gradients: true,
            ..work(&data, 512, 1, None)
        };
        let more = two.needs().unwrap().memory - needs(512, 1, None).memory;
        assert!((more - HELD * 4.0 * 859_520_964.0).abs() < 1e3, "{more}");
    }

    #[test]
    fn a_large_image_is_refused_for_its_autoencoder() {
        let phases = phases(4096);
        assert!(phases.images > 20e9, "{}", phases.images);
    }

    #[test]
    fn more_steps_than_can_be_counted_are_refused() {
        let data = data();
        let endless = LatentWork {
            steps: usize::MAX,
            ..work(&data, 512, 1, None)
        };
        assert_eq!(endless.needs().unwrap_err().code, 2);
    }
}
