//! A few cheap looks at a model, the same for the one before and the one after: samples, attempts to restore the
//! forgotten images, denoising errors. All random numbers come from the plan's seed.

use std::cell::OnceCell;
use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor, TensorData};
use retrack_data::pixels::{to_byte, to_unit};
use retrack_eval::membership::{MembershipError, Scoring, Timesteps};
use retrack_networks::denoiser::Denoiser;
use retrack_networks::process::Time;
use retrack_networks::random::{Random, Stream};
use retrack_networks::sampling::Generator;
use retrack_networks::schedule::{Sampler, SchedulerConfig, SchedulerKind};
use retrack_unlearn::images::Images;
use serde::{Deserialize, Serialize};

use super::forgotten::{Forgotten, Sight};
use super::pictures::cover;
use super::verdict::Tally;
use crate::calibration::{Context, LookAlikes, Ordinary, Purpose, REPORTED, Standing, Viewer};
use crate::failure::Failure;
use crate::model;
use crate::names::SamplerName;
use crate::progress;

/// What is looked at; everything here and the models decide the numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Decides all random numbers.
    pub seed: u64,
    /// Samples of each model.
    pub samples: usize,
    /// How they are drawn: by the model's own scheduler, as `retrack sample` does.
    #[serde(default = "ddim")]
    pub sampler: SamplerName,
    /// Denoising steps of a sample.
    pub sampling_steps: usize,
    /// Attempts to restore a forgotten image from `timestep`, by ancestral sampling: the published injection, with
    /// fewer steps.
    pub tries: usize,
    /// Where restoring begins.
    pub timestep: usize,
    /// Steps of the whole schedule; those up to `timestep` are walked.
    pub restoring_steps: usize,
    /// Distinct forgotten images whose denoising error is taken, at most.
    pub forgotten: usize,
    /// Rows of the forgotten images that are looked at before all others, where there are too many to look at all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub first: Vec<usize>,
    /// Retained rows that they are compared with.
    pub controls: Vec<usize>,
    /// Timesteps and noises of each error, the same for all images.
    pub draws: usize,
    /// One timestep in each of as many equal parts of the schedule, else each anywhere in it.
    #[serde(default)]
    pub stratified: bool,
    /// Images computed together.
    pub batch_size: usize,
    /// Whether the forgotten images are compared with look-alikes.
    #[serde(default)]
    pub look_alikes: bool,
    /// Retained rows that look-alikes are made of, too.
    #[serde(default)]
    pub kept: Vec<usize>,
    /// Of images that earlier requests led, by row: see [`Standing::led`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub led: BTreeMap<usize, [f64; 2]>,
}

/// How reports drew before they said it.
fn ddim() -> SamplerName {
    SamplerName::Ddim
}

/// What the model's scheduler names, or DDIM where that is not built here.
fn sampler_of(scheduler: &SchedulerConfig, steps: usize) -> SamplerName {
    let own = match scheduler.kind {
        SchedulerKind::Ddpm => SamplerName::Ddpm,
        SchedulerKind::Ddim => SamplerName::Ddim,
        SchedulerKind::Pndm => SamplerName::Pndm,
        SchedulerKind::Euler => SamplerName::Euler,
        SchedulerKind::EulerAncestral => SamplerName::EulerAncestral,
        SchedulerKind::FlowMatchEuler => SamplerName::FlowMatchEuler,
    };
    match Sampler::new(own.into(), scheduler, steps) {
        Ok(_) => own,
        Err(_) => SamplerName::Ddim,
    }
}

/// The sampler that leads noised images back: ancestral, where the network was trained on betas.
fn restoring(scheduler: &SchedulerConfig) -> SchedulerKind {
    match scheduler.flow {
        Some(_) => SchedulerKind::FlowMatchEuler,
        None => SchedulerKind::Ddpm,
    }
}

/// Steps of a sample: those of `retrack sample`, so that both look alike.
const SAMPLING_STEPS: usize = model::STEPS;
/// Parts of a run, in forward passes, that may go into what is drawn of each model, into each one's denoising errors, and
/// into looking at these on the way.
const DRAWING: f64 = 0.08;
const ERRORS: f64 = 0.015;
const ON_THE_WAY: f64 = 0.1;
/// Retained images that are compared with, at most.
const CONTROLS: usize = 64;

impl Plan {
    /// A plan that takes about a tenth of a run, for each of the two models, and never more than is useful.
    ///
    /// `work`: forward passes of single images that the run is worth.
    pub fn new(
        seed: u64,
        work: usize,
        scheduler: &SchedulerConfig,
        forgotten: &Forgotten,
        batch_size: usize,
    ) -> Self {
        let timesteps = scheduler.num_train_timesteps;
        let own = model::steps(scheduler.kind, scheduler, SAMPLING_STEPS);
        let sampler = sampler_of(scheduler, own);
        let full = Self {
            seed,
            samples: 16,
            sampler,
            sampling_steps: model::steps(sampler.into(), scheduler, SAMPLING_STEPS),
            tries: 8,
            timestep: timesteps / 4,
            restoring_steps: model::steps(restoring(scheduler), scheduler, 100),
            forgotten: REPORTED,
            first: Vec::new(),
            controls: Vec::new(),
            draws: 16,
            stratified: true,
            batch_size: batch_size.clamp(1, 64),
            look_alikes: true,
            kept: Vec::new(),
            led: BTreeMap::new(),
        };
        let share = |of: f64, passes: usize| of * work as f64 / passes as f64;
        let part = |of: usize, share: f64, least: usize| {
            ((of as f64 * share).round() as usize).clamp(least, of)
        };
        let drawing = full.samples * full.sampling_steps + full.tries * full.restoring_steps / 4;
        let drawing = share(DRAWING, drawing);
        // Fewer images and fewer draws of each.
        let images = full.forgotten.min(forgotten.len()) + CONTROLS;
        let errors = share(ERRORS, images * full.draws).sqrt();
        let controls = part(CONTROLS, errors, 8).min(forgotten.others.len());
        let stride = forgotten.others.len() / controls.max(1);
        Self {
            samples: part(full.samples, drawing, 4),
            tries: part(full.tries, drawing, 4),
            forgotten: part(full.forgotten, errors, 4).min(forgotten.len()),
            draws: part(full.draws, errors, 8),
            controls: (0..controls)
                .map(|place| forgotten.others[place * stride])
                .collect(),
            ..full
        }
    }

    /// Without anything that has to be drawn: of a text-to-image model that takes longer than many steps. Comparing with
    /// look-alikes draws nothing.
    pub fn without_pictures(self) -> Self {
        Self {
            samples: 0,
            tries: 0,
            ..self
        }
    }

    /// The sampler in a sentence.
    pub fn sampler_name(&self) -> &'static str {
        match self.sampler {
            SamplerName::Ddpm => "DDPM",
            SamplerName::Ddim => "DDIM",
            SamplerName::Pndm => "PNDM",
            SamplerName::Euler => "Euler's method",
            SamplerName::EulerAncestral => "Euler's method with fresh noise",
            SamplerName::FlowMatchEuler => "Euler's method along its straight lines",
        }
    }

    /// Whether samples are drawn by what the model's scheduler names.
    pub fn is_own_sampler(&self, scheduler: &SchedulerConfig) -> bool {
        scheduler.foreign.is_none() && scheduler.kind == self.sampler.into()
    }

    /// How often the errors are looked at on the way of a run that is worth `work` forward passes: five to ten times.
    pub fn glances(&self, work: usize) -> usize {
        let passes = (self.forgotten + self.controls.len()) * self.draws;
        ((ON_THE_WAY * work as f64 / passes as f64) as usize).clamp(5, 10)
    }
}

/// What was found, free of pixels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Numbers {
    /// Samples that count as a forgotten image.
    pub copies: usize,
    /// Samples that are images.
    pub samples: usize,
    /// Samples and attempts that are none: they hold values that are not finite.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub broken: usize,
    /// Attempts that brought a forgotten image back.
    pub restored: usize,
    /// Distance of what each attempt led to, to the nearest forgotten image; of those that led to an image.
    pub distances: Vec<f64>,
    /// Denoising error of each forgotten image: mean squared error of the predicted noise, a value. JSON has no NaN and no
    /// infinity; they are null there.
    #[serde(deserialize_with = "with_nulls")]
    pub forgotten_errors: Vec<f64>,
    /// The same of the controls.
    #[serde(deserialize_with = "with_nulls")]
    pub control_errors: Vec<f64>,
    /// Where each forgotten image stands among its look-alikes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub standings: Vec<Standing>,
    /// Attempts that brought a look-alike back, which nobody has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored_look_alikes: Option<usize>,
    /// Distance of what each of these led to, to the look-alike that it began with; of those that led to an image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub look_alike_distances: Vec<f64>,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

fn with_nulls<'de, D: serde::Deserializer<'de>>(json: D) -> Result<Vec<f64>, D::Error> {
    let values = Vec::<Option<f64>>::deserialize(json)?;
    Ok(values
        .into_iter()
        .map(|value| value.unwrap_or(f64::NAN))
        .collect())
}

impl Numbers {
    /// How much of what was looked at is not finite: samples, attempts and denoising errors.
    pub fn not_finite(&self) -> Tally {
        let errors = || self.forgotten_errors.iter().chain(&self.control_errors);
        let finite = errors().filter(|error| error.is_finite()).count();
        Tally {
            found: self.broken + errors().count() - finite,
            of: self.samples + self.distances.len() + self.broken + errors().count(),
        }
    }

    /// Mean denoising errors of the forgotten images and of the controls.
    pub fn mean_errors(&self) -> [f64; 2] {
        [&self.forgotten_errors, &self.control_errors].map(|all| retrack_eval::distance::mean(all))
    }
}

/// The numbers, and the pictures behind them.
pub struct Measurement {
    /// What is recorded.
    pub numbers: Numbers,
    /// Bytes. What is no image is a crossed-out tile.
    pub samples: Vec<u8>,
    /// Of what is no image the distance is not a number.
    pub sights: Vec<Sight>,
    /// Attempts to restore a forgotten image, as bytes.
    pub restored: Vec<u8>,
}

/// Where a model is looked at.
pub struct Probe<'a> {
    /// How much is measured.
    pub plan: Plan,
    /// What counts as a forgotten image.
    pub forgotten: &'a Forgotten<'a>,
    /// What the network sees of the data set.
    pub images: &'a dyn Images,
    /// What it sees of look-alikes of the forgotten ones: those for the [report](Purpose::Report), where the plan has them.
    pub look_alikes: &'a LookAlikes<'a>,
    /// The model's schedule.
    pub scheduler: &'a SchedulerConfig,
    /// Without autodiff.
    pub device: Device,
    /// The network has classes or texts.
    pub labels: bool,
    /// What was ordinary among retained images when a model was first looked at: the one of before.
    pub ordinary: OnceCell<Ordinary>,
}

impl Probe<'_> {
    /// Looks at a network on a device without autodiff.
    ///
    /// # Errors
    /// Data that cannot be read, a network that does not fit.
    pub fn measure(&self, network: &dyn Denoiser) -> Result<Measurement, Failure> {
        self.measure_with(network, None)
    }

    /// The first look, at the model before it changes: attempts begin where they tell something, so late in the process that it
    /// does not bring look-alikes back, which it cannot know. Later looks begin there, too.
    ///
    /// # Errors
    /// As [`measure`](Self::measure).
    pub fn begin(mut self, network: &dyn Denoiser) -> Result<(Self, Measurement), Failure> {
        /// Eighths of the process at which attempts begin.
        const FROM: std::ops::RangeInclusive<usize> = 2..=5;
        let mut back = None;
        if self.restores_look_alikes() {
            for eighths in FROM {
                self.plan.timestep = eighths * self.scheduler.num_train_timesteps / 8;
                let found = back.insert(self.restore_look_alikes(network)?);
                if found.0 <= self.plan.tries / 8 {
                    break;
                }
            }
        }
        let measurement = self.measure_with(network, back)?;
        Ok((self, measurement))
    }

    fn restores_look_alikes(&self) -> bool {
        self.plan.look_alikes && self.plan.tries > 0
    }

    /// `back`: what came back of look-alikes, where that is known.
    fn measure_with(
        &self,
        network: &dyn Denoiser,
        back: Option<(usize, Vec<f64>)>,
    ) -> Result<Measurement, Failure> {
        let phase = progress::phase(1, 3);
        let (samples, sights) = self.look(&self.samples(network)?)?;
        drop(phase);
        let phase = progress::phase(2, 3);
        let own = |attempt| self.attempted(attempt).collect();
        let (restored, found) = self.look(&self.restore(network, &own)?)?;
        let look_alikes = match back {
            None if self.restores_look_alikes() => Some(self.restore_look_alikes(network)?),
            known => known,
        };
        drop(phase);
        let _phase = progress::phase(3, 3);
        let images = self.looked_at().concat().len();
        let bar = progress::bar("denoising errors", images * self.plan.draws, "passes");
        let mut before = 0;
        let (forgotten_errors, control_errors) = self.errors(network, &mut |done| {
            // It is counted from 0 for each of the two kinds.
            bar.inc(done.saturating_sub(before) as u64);
            before = done;
        })?;
        drop(bar);
        let count = |sights: &[Sight]| sights.iter().filter(|sight| sight.counts).count();
        let distances = |sights: &[Sight]| -> Vec<f64> {
            let distances = sights.iter().map(|sight| sight.distance);
            distances.filter(|distance| !distance.is_nan()).collect()
        };
        let images = [&sights, &found].map(|sights| distances(sights).len());
        Ok(Measurement {
            numbers: Numbers {
                copies: count(&sights),
                samples: images[0],
                broken: sights.len() + found.len() - images[0] - images[1],
                restored: count(&found),
                distances: distances(&found),
                forgotten_errors,
                control_errors,
                standings: self.standings(network)?,
                restored_look_alikes: look_alikes.as_ref().map(|(count, _)| *count),
                look_alike_distances: look_alikes.map_or_else(Vec::new, |(_, distances)| distances),
            },
            samples,
            sights,
            restored,
        })
    }

    fn standings(&self, network: &dyn Denoiser) -> Result<Vec<Standing>, Failure> {
        if !self.plan.look_alikes {
            return Ok(Vec::new());
        }
        let context = Context {
            process: self.scheduler.process(),
            device: self.device.clone(),
            batch_size: self.plan.batch_size,
            seed: self.plan.seed,
        };
        let viewer = Viewer::new(self.look_alikes, self.images, self.labels, &[], context);
        let ordinary = match self.ordinary.get() {
            Some(known) => known,
            None => {
                let found = viewer.ordinary(network)?;
                self.ordinary.get_or_init(|| found)
            }
        };
        let standings = viewer.reported(network, ordinary)?.into_iter();
        let led = |image: usize| {
            let row = &self.look_alikes.rows[image];
            self.plan.led.get(row).copied()
        };
        let standings = standings.enumerate();
        standings
            .map(|(image, standing)| viewer.with_led(network, image, standing, led(image)))
            .collect()
    }

    /// How many attempts bring a look-alike back, with the noise and by the measure with which the forgotten image's do, and how
    /// near they come.
    fn restore_look_alikes(&self, network: &dyn Denoiser) -> Result<(usize, Vec<f64>), Failure> {
        let half_ways = self.forgotten.half_ways()?;
        let len = self.forgotten.data.shape().bytes();
        let images = self.forgotten.len().min(REPORTED);
        let attempts = 0..self.plan.tries;
        let sets: Vec<Vec<Vec<f32>>> = (0..images.min(attempts.len()))
            .map(|image| {
                let most = attempts.len().div_ceil(images);
                self.look_alikes.of(image, Purpose::Report, most)
            })
            .collect::<Result<_, _>>()?;
        let start = |attempt: usize| {
            let all = &sets[attempt % images];
            all[attempt / images % all.len()].clone()
        };
        let values = self.restore(network, &start)?;
        let distance = |(attempt, values): (usize, &[f32])| {
            let squares = start(attempt).into_iter().zip(values).map(|(a, b)| {
                // Values in [-1, 1], distances of pixels in [0, 1].
                (f64::from(a - b) / 2.0).powi(2)
            });
            squares.sum::<f64>().sqrt()
        };
        let mut distances: Vec<f64> = values.chunks_exact(len).enumerate().map(distance).collect();
        let attempts = distances.iter().enumerate();
        let came_back = attempts
            .filter(|(attempt, distance)| **distance < half_ways[attempt % images])
            .count();
        distances.retain(|distance| distance.is_finite());
        Ok((came_back, distances))
    }

    /// The mean denoising errors of a measurement alone.
    ///
    /// # Errors
    /// As [`measure`](Self::measure).
    pub fn glance(&self, network: &dyn Denoiser) -> Result<[f64; 2], Failure> {
        let (forgotten, control) = self.errors(network, &mut |_| ())?;
        Ok([forgotten, control].map(|errors| retrack_eval::distance::mean(&errors)))
    }

    /// Looks at images of values around [-1, 1]. As bytes, values that are not finite would be black: such an image is no
    /// image, and above all none that was forgotten.
    fn look(&self, values: &[f32]) -> Result<(Vec<u8>, Vec<Sight>), Failure> {
        let shape = self.forgotten.data.shape();
        let images = || values.chunks_exact(shape.bytes());
        let is_image = |image: &[f32]| image.iter().all(|value| value.is_finite());
        let bytes: Vec<u8> = images()
            .flat_map(|image| match is_image(image) {
                true => image.iter().map(|&value| to_byte(value)).collect(),
                false => cover(shape),
            })
            .collect();
        let mut sights = self.forgotten.look(&bytes)?;
        for (sight, image) in sights.iter_mut().zip(images()) {
            if !is_image(image) {
                *sight = Sight {
                    distance: f64::NAN,
                    counts: false,
                    hidden: false,
                };
            }
        }
        Ok((bytes, sights))
    }

    fn shape(&self) -> [usize; 3] {
        let shape = self.forgotten.data.shape();
        [shape.height, shape.width, shape.channels]
    }

    /// The classes of the forgotten images, over and over.
    fn classes(&self, first: usize, count: usize) -> Option<Vec<i64>> {
        let rows = &self.forgotten.rows;
        let class = |place: usize| {
            self.forgotten
                .data
                .label(rows[(first + place) % rows.len()])
                .unwrap_or(0)
        };
        self.labels.then(|| (0..count).map(class).collect())
    }

    fn samples(&self, network: &dyn Denoiser) -> Result<Vec<f32>, Failure> {
        if self.plan.samples == 0 {
            return Ok(Vec::new());
        }
        let sampler = Sampler::new(
            self.plan.sampler.into(),
            self.scheduler,
            self.plan.sampling_steps,
        )?;
        let generator = self.generator(network, &sampler);
        let batches = self.plan.samples.div_ceil(self.plan.batch_size);
        let bar = progress::bar("samples", batches * sampler.timesteps().len(), "steps");
        let mut values = Vec::new();
        for first in (0..self.plan.samples).step_by(self.plan.batch_size) {
            let last = (first + self.plan.batch_size).min(self.plan.samples);
            let classes = self.classes(first, last - first);
            let images =
                generator.images(first as u64..last as u64, classes.as_deref(), &mut || {
                    bar.inc(1)
                })?;
            values.extend(images);
        }
        Ok(values)
    }

    /// The forgotten image that an attempt begins with.
    fn attempted(&self, attempt: usize) -> impl Iterator<Item = f32> {
        let len = self.forgotten.data.shape().bytes();
        let image = attempt % self.forgotten.len();
        let pixels = &self.forgotten.pixels[image * len..][..len];
        pixels.iter().map(|&byte| to_unit(byte))
    }

    /// `start`: the image that an attempt begins with.
    fn restore(
        &self,
        network: &dyn Denoiser,
        start: &dyn Fn(usize) -> Vec<f32>,
    ) -> Result<Vec<f32>, Failure> {
        let kind = restoring(self.scheduler);
        let sampler = Sampler::new(kind, self.scheduler, self.plan.restoring_steps)?;
        let generator = self.generator(network, &sampler);
        let [height, width, channels] = self.shape();
        let batches = self.plan.tries.div_ceil(self.plan.batch_size);
        let walked = |t: &&Time| **t <= self.plan.timestep.into();
        let steps = batches * sampler.timesteps().iter().filter(walked).count();
        let bar = progress::bar("restoring", steps, "steps");
        let mut values = Vec::new();
        for first in (0..self.plan.tries).step_by(self.plan.batch_size) {
            let last = (first + self.plan.batch_size).min(self.plan.tries);
            let clean: Vec<f32> = (first..last).flat_map(start).collect();
            let clean = TensorData::new(clean, [last - first, height, width, channels]);
            let classes = self.classes(first, last - first);
            let images = generator.reconstruct(
                Tensor::from_data(clean, &self.device),
                self.plan.timestep.into(),
                first as u64..last as u64,
                classes.as_deref(),
                &mut || bar.inc(1),
            )?;
            values.extend(images);
        }
        Ok(values)
    }

    /// What the attempts begin with, as bytes.
    pub fn noised(&self) -> Vec<u8> {
        let process = self.scheduler.process();
        let time = Time::timestep(self.plan.timestep);
        let (signal, sigma) = (process.signal(time), process.noise(time));
        let len = self.forgotten.data.shape().bytes();
        let noise =
            Random::new(self.plan.seed).noise(Stream::Probe, 0, 0..self.plan.tries as u64, len);
        let clean = (0..self.plan.tries).flat_map(|attempt| self.attempted(attempt));
        let noisy = clean.zip(noise);
        noisy
            .map(|(x, e)| to_byte((signal * f64::from(x) + sigma * f64::from(e)) as f32))
            .collect()
    }

    fn generator<'b>(&'b self, network: &'b dyn Denoiser, sampler: &'b Sampler) -> Generator<'b> {
        Generator {
            network,
            sampler,
            random: Random::new(self.plan.seed),
            shape: self.shape(),
            device: &self.device,
        }
    }

    /// The rows whose errors are taken: forgotten ones and controls.
    pub fn looked_at(&self) -> [&[usize]; 2] {
        let forgotten = self.plan.forgotten.min(self.forgotten.len());
        [&self.forgotten.rows[..forgotten], &self.plan.controls]
    }

    fn errors(
        &self,
        network: &dyn Denoiser,
        progress: &mut dyn FnMut(usize),
    ) -> Result<(Vec<f64>, Vec<f64>), Failure> {
        let plan = &self.plan;
        let process = self.scheduler.process();
        let scoring = Scoring {
            network,
            process: &*process,
            random: Random::new(plan.seed),
            device: &self.device,
            shape: self.images.shape(),
            draws: plan.draws,
            timesteps: match plan.stratified {
                true => Timesteps::Stratified,
                false => Timesteps::Uniform,
            },
            batch_size: plan.batch_size,
        };
        let mut losses = |rows: &[usize]| -> Result<Vec<f64>, Failure> {
            let mut values = Vec::new();
            for &row in rows {
                self.images.average(row, &mut values)?;
            }
            let classes: Vec<i64> = rows
                .iter()
                .map(|&row| self.images.label(row).unwrap_or(0))
                .collect();
            let classes = self.labels.then_some(&classes[..]);
            let scores =
                scoring
                    .losses(&values, classes, progress)
                    .map_err(|error| match error {
                        MembershipError::Input(error) => error.into(),
                        error => Failure::failed(error),
                    })?;
            Ok(scores.means())
        };
        let [forgotten, controls] = self.looked_at();
        Ok((losses(forgotten)?, losses(controls)?))
    }
}
