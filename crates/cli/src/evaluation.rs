//! What a model still knows of forgotten images, and how good the rest is: the metrics of `evaluate` and `experiment`.

use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use retrack_eval::digits::{DigitClassifier, SIDE};
use retrack_eval::distance::euclidean;
use retrack_eval::frequency::Frequency;
use retrack_eval::score::Score;
use retrack_networks::model::Model;
use retrack_networks::random::Random;
use retrack_networks::sampling::Generator;
use retrack_networks::schedule::{Sampler, SchedulerKind};
use retrack_networks::unet2d::UNet2DModel;
use retrack_unlearn::data::{Dataset, ImageShape, Split};
use retrack_unlearn::feed::{to_byte, to_unit};
use serde::{Deserialize, Serialize};

use crate::args::{Metric, SamplerName};
use crate::failure::Failure;
use crate::model::{self, Samples};
use crate::progress;

/// Where a forgotten image is noised to before the model denoises it again, of 1,000: the published injection.
const INJECTION: usize = 250;
/// How often that is tried with each forgotten image.
const INJECTIONS: usize = 16;
/// Forgotten images that are looked at one by one, at most.
const LOOKED_AT: usize = 64;

/// What is measured, and how. Everything here decides the numbers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Protocol {
    pub metrics: Vec<Metric>,
    pub samples: usize,
    /// `None`: the model's own.
    pub scheduler: Option<SamplerName>,
    pub sampling_steps: usize,
    /// `None`: frequency and injection are skipped.
    pub threshold: Option<f64>,
    pub inception: Option<PathBuf>,
    pub controls: Option<PathBuf>,
}

/// What a model was to forget, and what it was to keep.
pub struct Subject<'a> {
    pub data: &'a Dataset,
    pub split: Split,
    /// Each forgotten image once, one after another.
    forgotten: Vec<u8>,
}

impl<'a> Subject<'a> {
    /// # Errors
    /// A selection that means nothing, an image that cannot be read.
    pub fn new(data: &'a Dataset, forget: &str) -> Result<Self, Failure> {
        let split = Split::new(data, &model::select(forget, data)?, model::BUDGET)?;
        let len = data.shape().bytes();
        let mut forgotten: Vec<u8> = Vec::new();
        let mut image = vec![0; len];
        for &row in &split.forget {
            data.read(row, &mut image)?;
            if !forgotten.chunks_exact(len).any(|known| known == image) {
                forgotten.extend_from_slice(&image);
            }
        }
        Ok(Self {
            data,
            split,
            forgotten,
        })
    }

    fn images(&self) -> impl Iterator<Item = &[u8]> {
        self.forgotten.chunks_exact(self.data.shape().bytes())
    }

    fn read(&self, rows: &[usize]) -> Result<Vec<u8>, Failure> {
        let mut image = vec![0; self.data.shape().bytes()];
        let mut pixels = Vec::with_capacity(rows.len() * image.len());
        for &row in rows {
            self.data.read(row, &mut image)?;
            pixels.extend_from_slice(&image);
        }
        Ok(pixels)
    }
}

/// A metric that could not be computed, and what it lacks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Skipped {
    pub metric: Metric,
    pub reason: String,
}

/// What was found about one model.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Evaluation {
    pub scores: Vec<Score>,
    pub skipped: Vec<Skipped>,
    /// Bytes of the samples, one image after another.
    #[serde(skip)]
    pub samples: Vec<u8>,
}

/// One model being measured.
struct Examined<'a> {
    protocol: &'a Protocol,
    subject: &'a Subject<'a>,
    model: &'a Model,
    /// Without autodiff.
    network: UNet2DModel,
    device: &'a Device,
    seed: u64,
    /// Drawn samples that are not the forgotten image.
    others: Vec<u8>,
    found: Evaluation,
}

impl Protocol {
    /// # Errors
    /// Numbers that make no sense.
    pub fn check(&self) -> Result<(), Failure> {
        if self.metrics.is_empty() {
            return Err(Failure::input("--metrics names nothing to measure"));
        }
        if self.samples == 0 || self.sampling_steps == 0 {
            return Err(Failure::input(
                "the numbers of samples and of sampling steps need to be at least 1",
            ));
        }
        match self.threshold {
            Some(threshold) if !(threshold > 0.0 && threshold.is_finite()) => Err(Failure::input(
                format!("--threshold is {threshold}; give a number above 0"),
            )),
            _ => Ok(()),
        }
    }

    /// Measures the model in `path`. Models that are measured with the same seed draw the same noise.
    ///
    /// # Errors
    /// A model that cannot be read or does not fit the data. What a metric lacks is no error: it is skipped.
    pub fn evaluate(
        &self,
        path: &Path,
        subject: &Subject,
        seed: u64,
        device: &Device,
    ) -> Result<Evaluation, Failure> {
        let opened = model::open(path)?;
        let network = opened.network(device)?;
        let samples = if self.metrics.iter().any(|metric| metric.draws_samples()) {
            let samples = Samples {
                count: self.samples,
                steps: self.sampling_steps,
                scheduler: self.scheduler.map(SchedulerKind::from),
                seed,
                batch_size: 64,
                class: None,
            };
            let (samples, shape) = samples.draw(&opened, &network, device, "sampling")?;
            check_shape(shape, subject.data, path)?;
            samples
        } else {
            Vec::new()
        };
        let mut examined = Examined {
            protocol: self,
            subject,
            model: &opened,
            network: network.valid(),
            device,
            seed,
            others: without(&samples, subject, self.threshold),
            found: Evaluation {
                samples,
                ..Evaluation::default()
            },
        };
        for &metric in &self.metrics {
            if let Err(reason) = examined.measure(metric)? {
                examined.found.skipped.push(Skipped { metric, reason });
            }
        }
        Ok(examined.found)
    }
}

/// Samples that are not the forgotten image: quality is judged without it.
fn without(samples: &[u8], subject: &Subject, threshold: Option<f64>) -> Vec<u8> {
    let Some(threshold) = threshold else {
        return samples.to_vec();
    };
    let samples = samples.chunks_exact(subject.data.shape().bytes());
    let others = samples.filter(|sample| {
        let near = |image| euclidean(sample, image) < threshold;
        !subject.images().any(near)
    });
    others.flatten().copied().collect()
}

fn check_shape(shape: ImageShape, data: &Dataset, path: &Path) -> Result<(), Failure> {
    if shape == data.shape() {
        return Ok(());
    }
    Err(Failure::input(format!(
        "{}: its images are {} x {} x {}, the data's {} x {} x {}",
        path.display(),
        shape.height,
        shape.width,
        shape.channels,
        data.shape().height,
        data.shape().width,
        data.shape().channels
    )))
}

impl Metric {
    fn draws_samples(self) -> bool {
        !matches!(self, Self::Injection | Self::Nll | Self::Membership)
    }
}

impl From<SamplerName> for SchedulerKind {
    fn from(name: SamplerName) -> Self {
        match name {
            SamplerName::Ddpm => Self::Ddpm,
            SamplerName::Ddim => Self::Ddim,
        }
    }
}

/// Inside: why a metric is skipped.
type Measured = Result<Result<(), String>, Failure>;

impl Examined<'_> {
    fn measure(&mut self, metric: Metric) -> Measured {
        match metric {
            Metric::Frequency => self.frequency(),
            Metric::Injection => self.injection(),
            Metric::Digits => self.digits(),
            _ => Ok(Err("not measured by this version".into())),
        }
    }

    fn add(&mut self, name: &str, value: f64, count: usize) {
        self.found.scores.push(Score::new(name, value, count));
    }

    fn frequency(&mut self) -> Measured {
        let Some(threshold) = self.protocol.threshold else {
            return Ok(Err("give --threshold".into()));
        };
        // Of several forgotten images, the one that is repeated most.
        let found = self.subject.images();
        let found = found.map(|image| Frequency::of(&self.found.samples, image, threshold));
        let Some(most) = found.max_by_key(|found| found.repeats) else {
            return Ok(Err("there is no forgotten image".into()));
        };
        self.add("repeats", most.repeats as f64, most.samples);
        self.add("nearest_sample", most.nearest, most.samples);
        Ok(Ok(()))
    }

    fn injection(&mut self) -> Measured {
        let Some(threshold) = self.protocol.threshold else {
            return Ok(Err("give --threshold".into()));
        };
        let shape = self.subject.data.shape();
        let sampler = Sampler::new(
            SchedulerKind::Ddpm,
            &self.model.scheduler,
            self.model.scheduler.num_train_timesteps,
        )?;
        let generator = Generator {
            network: &self.network,
            sampler: &sampler,
            random: Random::new(self.seed),
            shape: [shape.height, shape.width, shape.channels],
            device: self.device,
        };
        let images: Vec<&[u8]> = self.subject.images().take(LOOKED_AT).collect();
        let bar = progress::bar("injection", images.len() * INJECTION, "steps");
        let (mut near, mut distance) = (0, 0.0);
        for image in &images {
            let clean: Vec<f32> = image.iter().map(|&byte| to_unit(byte)).collect();
            let dims = [INJECTIONS, shape.height, shape.width, shape.channels];
            let copies = TensorData::new(clean.repeat(INJECTIONS), dims);
            let restored = generator.reconstruct(
                Tensor::from_data(copies, self.device),
                INJECTION,
                0..INJECTIONS as u64,
                None,
                &mut || bar.inc(1),
            )?;
            let restored: Vec<u8> = restored.into_iter().map(to_byte).collect();
            for restored in restored.chunks_exact(image.len()) {
                let apart = euclidean(restored, image);
                near += usize::from(apart < threshold);
                distance += apart;
            }
        }
        model::finish(&bar);
        let tries = images.len() * INJECTIONS;
        self.add("restored", near as f64 / tries as f64, tries);
        self.add("restored_distance", distance / tries as f64, tries);
        Ok(Ok(()))
    }

    fn digits(&mut self) -> Measured {
        let shape = self.subject.data.shape();
        if [shape.height, shape.width, shape.channels] != [SIDE, SIDE, 1] {
            return Ok(Err(format!("made for {SIDE} x {SIDE} gray digits")));
        }
        let classifier = DigitClassifier::shipped(self.device);
        let samples = classifier.digits(&self.others, self.device);
        let retained = self.subject.read(&self.subject.split.retain)?;
        let retained = classifier.digits(&retained, self.device);
        let _ = (samples, retained);
        Ok(Ok(()))
    }
}
