//! What a model still knows of forgotten images, and how good the rest is: the metrics of `evaluate` and `experiment`.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use retrack_eval::auc::Bootstrap;
use retrack_eval::copies::{self, NEIGHBORS, Training};
use retrack_eval::digits::{self, DigitClassifier, SIDE};
use retrack_eval::distance::{euclidean, mean};
use retrack_eval::frechet::{FeatureStatistics, frechet_distance};
use retrack_eval::frequency::Frequency;
use retrack_eval::inception::{self, Description, Inception};
use retrack_eval::inception_score::{self, InceptionScore};
use retrack_eval::membership::{Membership, Scoring};
use retrack_eval::nll::{Likelihood, rademacher};
use retrack_eval::score::Score;
use retrack_networks::model::Model;
use retrack_networks::random::Random;
use retrack_networks::sampling::Generator;
use retrack_networks::schedule::{NoiseSchedule, Sampler, SchedulerKind};
use retrack_networks::unet2d::UNet2DModel;
use retrack_unlearn::data::{Dataset, ImageShape, OpenOptions, Split};
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
/// Forgotten images whose likelihood is computed, together, at most.
const TOGETHER: usize = 16;
/// Images never seen that forgotten ones are compared with, about.
const CONTROLS: usize = 200;
/// Timesteps and noises under which an image's denoising loss is taken.
const DRAWS: usize = 128;

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
    /// Of the retained images, by the digit classifier and by Inception: the same for every model.
    digits: OnceCell<FeatureStatistics>,
    features: OnceCell<FeatureStatistics>,
    inception: OnceCell<Inception>,
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
            digits: OnceCell::new(),
            features: OnceCell::new(),
            inception: OnceCell::new(),
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
            SamplerName::Pndm => Self::Pndm,
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
            Metric::Nll => self.nll(),
            Metric::Membership => self.membership(),
            Metric::Copies => self.copies(),
            Metric::Digits => self.digits(),
            Metric::Fid => self.fid(),
            Metric::Is => self.inception_score(),
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

    /// The forgotten images, at most `most` of them, as a network sees them.
    fn forgotten(&self, most: usize) -> (usize, Vec<f32>) {
        let images: Vec<&[u8]> = self.subject.images().take(most).collect();
        let values = images.concat().into_iter().map(to_unit);
        (images.len(), values.collect())
    }

    fn nll(&mut self) -> Measured {
        if self.model.config.num_class_embeds.is_some() {
            return Ok(Err("not for networks with classes".into()));
        }
        let (count, values) = self.forgotten(TOGETHER);
        let shape = self.subject.data.shape();
        let shape = [count, shape.height, shape.width, shape.channels];
        let tracked = self.device.clone().autodiff();
        let network = self.model.network(&tracked)?.no_grad();
        let schedule = NoiseSchedule::new(&self.model.scheduler);
        let likelihood = Likelihood {
            network: &network,
            schedule: &schedule,
            device: &tracked,
        };
        let bar = progress::bar("likelihood", 1000, "of 1000");
        let probe = rademacher(
            &Random::new(self.seed),
            0..count as u64,
            values.len() / count.max(1),
        );
        let found = likelihood.bits_per_dim(&values, shape, None, &probe, &mut |time| {
            bar.set_position((1000.0 * time) as u64)
        });
        model::finish(&bar);
        match found {
            Ok(found) => {
                self.add("nll", mean(&found.bits_per_dim), count);
                Ok(Ok(()))
            }
            Err(error) => Ok(Err(error.to_string())),
        }
    }

    fn membership(&mut self) -> Measured {
        if self.model.config.num_class_embeds.is_some() {
            return Ok(Err("not for networks with classes".into()));
        }
        let Some(path) = &self.protocol.controls else {
            let lack = "give --controls: images like the training images that the model never saw";
            return Ok(Err(lack.into()));
        };
        let options = OpenOptions {
            channels: Some(self.model.config.in_channels),
            memory_budget: 4 * model::BUDGET as u64,
        };
        let controls = Dataset::open(path, &options)?;
        check_shape(controls.shape(), self.subject.data, path)?;
        let mut image = vec![0; controls.shape().bytes()];
        let mut unseen = Vec::new();
        let stride = controls.len().div_ceil(CONTROLS).max(1);
        for row in (0..controls.len()).step_by(stride) {
            controls.read(row, &mut image)?;
            unseen.extend(image.iter().map(|&byte| to_unit(byte)));
        }
        let (_, forgotten) = self.forgotten(LOOKED_AT);
        let shape = controls.shape();
        let schedule = NoiseSchedule::new(&self.model.scheduler);
        let random = Random::new(self.seed);
        let scoring = Scoring {
            network: &self.network,
            schedule: &schedule,
            random,
            device: self.device,
            shape: [shape.height, shape.width, shape.channels],
            draws: DRAWS,
            batch_size: 64,
        };
        let images = (forgotten.len() + unseen.len()) / shape.bytes();
        let bar = progress::bar("membership", images * DRAWS, "losses");
        let known = forgotten.len() / shape.bytes() * DRAWS;
        let found = scoring
            .losses(&forgotten, None, &mut |done| bar.set_position(done as u64))
            .and_then(|forgotten| {
                let control = scoring.losses(&unseen, None, &mut |done| {
                    bar.set_position((known + done) as u64)
                })?;
                let bootstrap = Bootstrap {
                    resamples: 1000,
                    level: 0.95,
                    random,
                };
                Membership::of(&forgotten, &control, &bootstrap)
            });
        model::finish(&bar);
        match found {
            Ok(found) => {
                let score = Score::new("membership_auc", found.auc, images);
                self.found.scores.push(score.with_interval(found.interval));
                self.add("forgotten_loss", found.forgotten_loss, found.draws);
                Ok(Ok(()))
            }
            Err(error) => Ok(Err(error.to_string())),
        }
    }

    fn copies(&mut self) -> Measured {
        let rows = [
            &self.subject.split.forget[..],
            &self.subject.split.duplicates,
        ]
        .concat();
        let found = Training::new(self.subject.data, &rows, model::BUDGET)
            .and_then(|training| training.nearest(&self.found.samples, NEIGHBORS, model::BUDGET));
        match found {
            Ok(found) => {
                let count = found.nearest.len();
                let distances: Vec<f64> = found.nearest.iter().map(|one| one.distance).collect();
                self.add("copies", found.share(copies::THRESHOLD), count);
                let forgotten = found.share_forgotten(copies::THRESHOLD);
                self.add("copies_of_forgotten", forgotten, count);
                self.add("distance_to_data", mean(&distances), count);
                Ok(Ok(()))
            }
            Err(error) => Ok(Err(error.to_string())),
        }
    }

    fn digits(&mut self) -> Measured {
        let shape = self.subject.data.shape();
        if [shape.height, shape.width, shape.channels] != [SIDE, SIDE, 1] {
            return Ok(Err(format!("made for {SIDE} x {SIDE} gray digits")));
        }
        let classifier = DigitClassifier::shipped(self.device);
        let retained = match self.subject.digits.get() {
            Some(retained) => retained,
            None => {
                let images = self.subject.read(&self.subject.split.retain)?;
                let mut statistics = FeatureStatistics::new(digits::FEATURES);
                statistics.add(&classifier.digits(&images, self.device).features);
                self.subject.digits.get_or_init(|| statistics)
            }
        };
        let found = classifier.digits(&self.others, self.device);
        let mut statistics = FeatureStatistics::new(digits::FEATURES);
        statistics.add(&found.features);
        let count = self.others.len() / shape.bytes();
        match frechet_distance(&statistics, retained) {
            Ok(distance) => self.add("digit_frechet", distance, count),
            Err(error) => return Ok(Err(error.to_string())),
        }
        match InceptionScore::of_probabilities(&found.probabilities, digits::DIGITS, 1) {
            Ok(score) => self.add("digit_score", score.mean, count),
            Err(error) => return Ok(Err(error.to_string())),
        }
        Ok(Ok(()))
    }

    /// What Inception says of the samples that are not the forgotten image, and of the retained images.
    fn inception(&self) -> Result<Result<&Inception, String>, Failure> {
        if let Some(inception) = self.subject.inception.get() {
            return Ok(Ok(inception));
        }
        let Some(path) = self.protocol.inception.clone().or_else(inception::find) else {
            let lack = "give --inception FILE: pt_inception-2015-12-05-6726825d.pth, as torch-fidelity downloads it";
            return Ok(Err(lack.into()));
        };
        let opened = Inception::open(&path, self.device).map_err(Failure::input)?;
        Ok(Ok(self.subject.inception.get_or_init(|| opened)))
    }

    fn describe(&self, inception: &Inception, images: &[u8]) -> Result<Description, Failure> {
        let shape = self.subject.data.shape();
        inception
            .describe(images, [shape.height, shape.width, shape.channels])
            .map_err(Failure::input)
    }

    fn fid(&mut self) -> Measured {
        let inception = match self.inception()? {
            Ok(inception) => inception,
            Err(lack) => return Ok(Err(lack)),
        };
        let retained = match self.subject.features.get() {
            Some(retained) => retained,
            None => {
                let mut statistics = FeatureStatistics::new(inception::FEATURES);
                let rows = &self.subject.split.retain;
                let bar = progress::bar("retained", rows.len(), "images");
                for rows in rows.chunks(256) {
                    let images = self.subject.read(rows)?;
                    statistics.add(&self.describe(inception, &images)?.features);
                    bar.inc(rows.len() as u64);
                }
                model::finish(&bar);
                self.subject.features.get_or_init(|| statistics)
            }
        };
        let mut statistics = FeatureStatistics::new(inception::FEATURES);
        statistics.add(&self.describe(inception, &self.others)?.features);
        let count = self.others.len() / self.subject.data.shape().bytes();
        match frechet_distance(&statistics, retained) {
            Ok(distance) => self.add("fid", distance, count),
            Err(error) => return Ok(Err(error.to_string())),
        }
        Ok(Ok(()))
    }

    fn inception_score(&mut self) -> Measured {
        let inception = match self.inception()? {
            Ok(inception) => inception,
            Err(lack) => return Ok(Err(lack)),
        };
        let logits = self.describe(inception, &self.others)?.logits;
        let count = self.others.len() / self.subject.data.shape().bytes();
        match InceptionScore::of_logits(&logits, inception::CLASSES, inception_score::SPLITS) {
            Ok(score) => self.add("inception_score", score.mean, count),
            Err(error) => return Ok(Err(error.to_string())),
        }
        Ok(Ok(()))
    }
}
