//! Images that a model draws.

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use retrack_checkpoint::words::counted;
use retrack_data::ImageShape;
use retrack_networks::conditional::Guided;
use retrack_networks::diffusion::Diffusion;
use retrack_networks::model::Model;
use retrack_networks::network::Network;
use retrack_networks::parameters::to_host;
use retrack_networks::random::Random;
use retrack_networks::sampling::Generator;
use retrack_networks::schedule::{Sampler, SchedulerKind};
use retrack_networks::stable_diffusion::StableDiffusion;

use crate::failure::Failure;
use crate::field::Field;
use crate::latent::embed;
use crate::model::{check_denoises, check_images, sampler, to_bytes};
use crate::situation::{self, Situation};
use crate::{progress, space};

/// Part of what training keeps of an image that is held at once where nothing is trained, about.
const PREDICTED: f64 = 0.25;

/// What to draw from a model.
pub struct Samples<'a> {
    pub count: usize,
    pub steps: usize,
    /// `None`: the model's own.
    pub scheduler: Option<SchedulerKind>,
    pub seed: u64,
    pub batch_size: usize,
    pub of: Of<'a>,
}

/// What they are to be images of.
pub enum Of<'a> {
    /// Of a network with classes: image i is of the one at i modulo their number. Empty of any other.
    Classes(Vec<i64>),
    /// Of a text-to-image model.
    Prompt(Prompt<'a>),
}

/// What a text-to-image model is asked for.
pub struct Prompt<'a> {
    pub prompt: &'a str,
    /// What is avoided, often the empty text.
    pub negative: &'a str,
    /// See [`Guided`].
    pub guidance: f64,
}

impl Samples<'_> {
    /// Draws images by the model's denoiser, or by what became of it: bytes one after another.
    ///
    /// # Errors
    /// A model that says no size, steps that the schedule does not have, a class that the model lacks.
    ///
    /// # Panics
    /// Classes of a text-to-image model, a prompt of any other.
    pub fn draw(
        &self,
        model: &dyn Diffusion,
        network: &Network,
        device: &Device,
        title: &str,
    ) -> Result<(Vec<u8>, ImageShape), Failure> {
        let device = &device.clone().without_autodiff();
        match (&self.of, model.as_pixels(), model.as_latents()) {
            (Of::Classes(classes), Some(model), _) => {
                self.draw_pixels(model, network, classes, device, title)
            }
            (Of::Prompt(prompt), _, Some(model)) => {
                self.draw_latents(model, network, prompt, device, title)
            }
            _ => panic!("what is asked for is of another kind than the model"),
        }
    }

    fn draw_pixels(
        &self,
        model: &Model,
        network: &Network,
        classes: &[i64],
        device: &Device,
        title: &str,
    ) -> Result<(Vec<u8>, ImageShape), Failure> {
        let Some([height, width]) = model.config.sample_size else {
            return Err(no_size(model, "images"));
        };
        model.config.check_size(height, width)?;
        check_images(model)?;
        check_denoises(&model.config, &model.folder.config_path())?;
        if let (Some(number), []) = (model.config.num_class_embeds, classes) {
            return Err(Failure::input(format!(
                "the network has {}; {}",
                match number {
                    1 => "1 class, 0".to_owned(),
                    many => format!("{many} classes"),
                },
                situation::advice(Situation::NoClass)
            )));
        }
        let shape = ImageShape {
            height,
            width,
            channels: model.config.out_channels,
        };
        self.warn_of_foreign(model);
        let sampler = self.sampler(model, String::new())?;
        let together = self.batch_size.clamp(1, self.count.max(1)) as f64;
        let of_batch = together * 4.0 * PREDICTED * model.config.cost(height, width).activations;
        let images = self.count as f64 * shape.bytes() as f64;
        self.check_memory(model, images + of_batch, together)?;
        let generator = Generator {
            network: &network.valid(),
            sampler: &sampler,
            random: Random::new(self.seed),
            shape: [height, width, shape.channels],
            device,
        };
        let mut bytes = Vec::with_capacity(self.count * shape.bytes());
        self.generate(&generator, classes, title, &mut |images| {
            bytes.extend(to_bytes(&images, "samples")?);
            Ok(())
        })?;
        Ok((bytes, shape))
    }

    fn draw_latents(
        &self,
        model: &StableDiffusion,
        network: &Network,
        prompt: &Prompt,
        device: &Device,
        title: &str,
    ) -> Result<(Vec<u8>, ImageShape), Failure> {
        let config = &model.model.config;
        let Some([height, width]) = config.sample_size else {
            return Err(no_size(model, "latents"));
        };
        let guidance = prompt.guidance;
        if !guidance.is_finite() {
            return Err(Failure::input(format!(
                "{} is {guidance}; give a number",
                Field::Guidance
            )));
        }
        self.warn_of_foreign(model);
        // Refuses latents of an absurd size before they take any memory: counts them, the images, and what a pass with
        // and without the prompt begins with, which is less than all of it.
        let pixels = height as f64 * width as f64;
        let together = self.batch_size.min(self.count) as f64;
        let latents = self.count as f64 * pixels * config.in_channels as f64 * 4.0;
        let images = self.count as f64 * pixels * (model.latent_factor().pow(2) * 3) as f64;
        let pass = together * 2.0 * pixels * config.block_out_channels[0] as f64 * 4.0;
        self.check_memory(model, latents + images + pass, together)?;
        let sampler = self.sampler(model, format!(", guidance {guidance}"))?;
        let texts = embed(model, &[prompt.prompt, prompt.negative], device)?;
        let shape = [height, width, config.in_channels];
        let generator = Generator {
            network: &Guided::new(network, texts, guidance),
            sampler: &sampler,
            random: Random::new(self.seed),
            shape,
            device,
        };
        let mut latents = Vec::new();
        self.generate(&generator, &[], title, &mut |some| {
            latents.extend(some);
            Ok(())
        })?;
        decode(model, &latents, shape, device)
    }

    /// Says that the folder's own sampler is another, where it would be taken.
    fn warn_of_foreign(&self, model: &dyn Diffusion) {
        if let (None, Some(name)) = (self.scheduler, model.scheduler().foreign) {
            progress::warn(format!(
                "{}: {name} is not built here; sampling by DDIM in its place ({})",
                model.folder().root().display(),
                situation::advice(Situation::ForeignScheduler)
            ));
        }
    }

    /// `how`: what else decides what is drawn.
    fn sampler(&self, model: &dyn Diffusion, how: String) -> Result<Sampler, Failure> {
        let (kind, config) = model.sampling(self.scheduler);
        let sampler = sampler(kind, config, self.steps, model.folder())?;
        progress::detail(format_args!(
            "{} images by {} in {} steps{how}, {} at a time, seed {}",
            self.count,
            kind.class_name(),
            self.steps,
            self.batch_size,
            self.seed
        ));
        Ok(sampler)
    }

    fn check_memory(
        &self,
        model: &dyn Diffusion,
        bytes: f64,
        together: f64,
    ) -> Result<(), Failure> {
        space::check_memory(
            bytes,
            &format!("{}, {together} at a time,", counted(self.count, "sample")),
            &situation::smaller_samples(self.count, &model.folder().config_path()),
        )
    }

    /// Gives what the generator draws to `keep`, batch by batch.
    fn generate(
        &self,
        generator: &Generator,
        classes: &[i64],
        title: &str,
        keep: &mut dyn FnMut(Vec<f32>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let batches = self.count.div_ceil(self.batch_size.max(1));
        let steps = generator.sampler.timesteps().len();
        let bar = progress::bar(title, batches * steps, "steps");
        for batch in 0..batches {
            let first = batch * self.batch_size;
            let last = (first + self.batch_size).min(self.count);
            let class = |image: usize| classes[image % classes.len()];
            let labels: Option<Vec<i64>> =
                (!classes.is_empty()).then(|| (first..last).map(class).collect());
            let numbers = first as u64..last as u64;
            keep(generator.images(numbers, labels.as_deref(), &mut || bar.inc(1))?)?;
        }
        Ok(())
    }
}

/// `of`: what the network's own size is one of.
fn no_size(model: &dyn Diffusion, of: &str) -> Failure {
    Failure::input(format!(
        "{}: `sample_size` is missing; add the height and width of its {of}",
        model.folder().config_path().display()
    ))
}

/// The images of latents, one at a time: an autoencoder's layers are large.
fn decode(
    opened: &StableDiffusion,
    latents: &[f32],
    [height, width, channels]: [usize; 3],
    device: &Device,
) -> Result<(Vec<u8>, ImageShape), Failure> {
    let autoencoder = opened.autoencoder(device)?;
    let factor = opened.latent_factor();
    let shape = ImageShape {
        height: height * factor,
        width: width * factor,
        channels: 3,
    };
    let len = height * width * channels;
    let bar = progress::bar("decoding", latents.len() / len, "images");
    let mut bytes = Vec::with_capacity(latents.len() / len * shape.bytes());
    for latent in latents.chunks_exact(len) {
        let latent = TensorData::new(latent.to_vec(), [1, height, width, channels]);
        let image = autoencoder
            .to_images(Tensor::from_data(latent, device))
            .map_err(Failure::input)?;
        bytes.extend(to_bytes(&to_host(image), "samples")?);
        bar.inc(1);
    }
    Ok((bytes, shape))
}
