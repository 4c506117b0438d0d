//! Images that a model draws.

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use retrack_checkpoint::words::counted;
use retrack_data::ImageShape;
use retrack_networks::captioned::Guided;
use retrack_networks::denoiser::Denoiser;
use retrack_networks::diffusion::{Autoencoder, Condition, Diffusion};
use retrack_networks::network::Network;
use retrack_networks::parameters::to_host;
use retrack_networks::random::Random;
use retrack_networks::sampling::Generator;
use retrack_networks::schedule::{Sampler, SchedulerKind};

use crate::failure::Failure;
use crate::field::Field;
use crate::model::{check_images, sampler, to_bytes};
use crate::opened::embed_any;
use crate::situation::{self, Situation};
use crate::{progress, space};

/// What to draw from a model.
pub struct Samples<'a> {
    /// How many.
    pub count: usize,
    /// Denoising steps.
    pub steps: usize,
    /// `None`: the model's own.
    pub scheduler: Option<SchedulerKind>,
    /// Decides all random numbers.
    pub seed: u64,
    /// Images computed together.
    pub batch_size: usize,
    /// What they show.
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
    /// The prompt.
    pub prompt: &'a str,
    /// What is avoided; where nothing is said, what stands for no text in the model.
    pub negative: Option<&'a str>,
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
        let config = &model.denoiser().config;
        let Some([height, width]) = config.sample_size else {
            return Err(no_size(model));
        };
        config.check_size(height, width)?;
        check_images(model.denoiser())?;
        let (classes, how) = self.asked(model.condition())?;
        self.warn_of_foreign(model);
        // Refuses images of an absurd size before they take any memory.
        let together = self.batch_size.clamp(1, self.count.max(1));
        let bytes = model.drawing([height, width], self.count, together);
        self.check_memory(model, bytes, together)?;
        let sampler = self.sampler(model, how)?;
        let network = network.valid();
        let guided;
        let denoiser: &dyn Denoiser = match &self.of {
            Of::Classes(_) => &*network,
            Of::Prompt(asked) => {
                let texts = embed_any(model, &[Some(asked.prompt), asked.negative], device)?;
                guided = Guided::new(&network, texts, asked.guidance);
                &guided
            }
        };
        let shape = [height, width, config.in_channels];
        let generator = Generator {
            network: denoiser,
            sampler: &sampler,
            random: Random::new(self.seed),
            shape,
            device,
        };
        let factor = model.latent_factor();
        let image = ImageShape {
            height: height * factor.unwrap_or(1),
            width: width * factor.unwrap_or(1),
            channels: model.channels(),
        };
        let (mut latents, mut bytes) = (Vec::new(), Vec::new());
        self.generate(&generator, classes, title, &mut |drawn| {
            match factor {
                Some(_) => latents.extend(drawn),
                None => bytes.extend(to_bytes(&drawn, "samples")?),
            }
            Ok(())
        })?;
        if let Some(autoencoder) = model.autoencoder(device)? {
            bytes = decode(&*autoencoder, &latents, shape, device)?;
        }
        Ok((bytes, image))
    }

    /// The classes that are asked for, and what else than those is said of how to draw.
    fn asked(&self, condition: Condition) -> Result<(&[i64], String), Failure> {
        match (&self.of, condition) {
            (Of::Classes(classes), Condition::Class(number)) if classes.is_empty() => {
                Err(Failure::input(format!(
                    "the network has {}; {}",
                    match number {
                        1 => "1 class, 0".to_owned(),
                        many => format!("{many} classes"),
                    },
                    situation::advice(Situation::NoClass)
                )))
            }
            (Of::Classes(classes), Condition::Nothing | Condition::Class(_)) => {
                Ok((classes, String::new()))
            }
            (Of::Prompt(Prompt { guidance, .. }), Condition::Text) if guidance.is_finite() => {
                Ok((&[], format!(", guidance {guidance}")))
            }
            (Of::Prompt(Prompt { guidance, .. }), Condition::Text) => Err(Failure::input(format!(
                "{} is {guidance}; give a number",
                Field::Guidance
            ))),
            _ => panic!("what is asked for is of another kind than the model"),
        }
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
        together: usize,
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

fn no_size(model: &dyn Diffusion) -> Failure {
    Failure::input(format!(
        "{}: `sample_size` is missing; add the height and width of its {}",
        model.folder().config_path().display(),
        match model.latent_factor() {
            Some(_) => "latents",
            None => "images",
        }
    ))
}

/// The images of latents of this shape, one at a time: an autoencoder's layers are large.
fn decode(
    autoencoder: &dyn Autoencoder,
    latents: &[f32],
    [height, width, channels]: [usize; 3],
    device: &Device,
) -> Result<Vec<u8>, Failure> {
    let len = height * width * channels;
    let bar = progress::bar("decoding", latents.len() / len, "images");
    let mut bytes = Vec::new();
    for latent in latents.chunks_exact(len) {
        let latent = TensorData::new(latent.to_vec(), [1, height, width, channels]);
        let image = autoencoder
            .images_of(Tensor::from_data(latent, device))
            .map_err(Failure::input)?;
        bytes.extend(to_bytes(&to_host(image), "samples")?);
        bar.inc(1);
    }
    Ok(bytes)
}
