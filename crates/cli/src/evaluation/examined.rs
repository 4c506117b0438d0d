//! One model: whether it repeats, restores or recognises the forgotten images.

use std::cell::OnceCell;

use burn::module::Module;
use burn::tensor::Device;
use retrack_eval::auc::Bootstrap;
use retrack_eval::copies::{self, NEIGHBORS, Training};
use retrack_eval::distance::mean;
use retrack_eval::frequency::Frequency;
use retrack_eval::injection::{self, Restored};
use retrack_eval::membership::{Scoring, Timesteps};
use retrack_eval::nll::{Likelihood, rademacher};
use retrack_eval::score::Score;
use retrack_networks::model::Model;
use retrack_networks::random::Random;
use retrack_networks::sampling::Generator;
use retrack_networks::schedule::{NoiseSchedule, Sampler, SchedulerKind};
use retrack_networks::unet2d::UNet2DModel;
use retrack_unlearn::data::OpenOptions;
use retrack_unlearn::feed::to_unit;

use super::{Evaluation, Protocol, Subject, check_shape};
use crate::args::Metric;
use crate::failure::Failure;
use crate::{model, progress};

/// Forgotten images that are looked at one by one, at most.
const LOOKED_AT: usize = 64;
/// Forgotten images whose likelihood is computed, together, at most.
const TOGETHER: usize = 16;
/// Images never seen that forgotten ones are compared with, about.
const CONTROLS: usize = 200;
/// Timesteps and noises under which an image's denoising loss is taken.
const DRAWS: usize = 128;

/// One model being measured.
pub(super) struct Examined<'a> {
    pub(super) protocol: &'a Protocol,
    pub(super) subject: &'a Subject<'a>,
    pub(super) model: &'a Model,
    /// Without autodiff.
    pub(super) network: UNet2DModel,
    pub(super) device: &'a Device,
    pub(super) seed: u64,
    /// Drawn samples.
    pub(super) samples: Vec<u8>,
    /// Those that are not the forgotten image.
    pub(super) others: Vec<u8>,
    /// What [`Examined::injected`] gives.
    pub(super) injected: OnceCell<Vec<u8>>,
    pub(super) found: Evaluation,
}

/// Inside: why a metric is skipped.
pub(super) type Measured = Result<Result<(), String>, Failure>;

impl<'a> Examined<'a> {
    pub(super) fn measure(&mut self, metric: Metric) -> Measured {
        match metric {
            Metric::Frequency => self.frequency(),
            Metric::Injection => self.injection(),
            Metric::Sscd => self.sscd(),
            Metric::Nll => self.nll(),
            Metric::Membership => self.membership(),
            Metric::Copies => self.copies(),
            Metric::Digits => self.digits(),
            Metric::Fid => self.fid(),
            Metric::Is => self.inception_score(),
            Metric::Cluster | Metric::ClipIqa => Ok(Err("for text-to-image models".into())),
        }
    }

    pub(super) fn add(&mut self, name: &str, value: f64, count: usize) {
        self.found.add(name, value, count);
    }

    fn frequency(&mut self) -> Measured {
        let Some(threshold) = self.protocol.threshold else {
            return Ok(Err("give --threshold".into()));
        };
        let found = Frequency::most(&self.samples, self.subject.images(), threshold);
        let Some(most) = found else {
            return Ok(Err("there is no forgotten image".into()));
        };
        self.add("repeats", most.repeats as f64, most.samples);
        self.add("nearest_sample", most.nearest, most.samples);
        Ok(Ok(()))
    }

    /// The forgotten images that are looked at one by one.
    fn looked_at(&self) -> impl Iterator<Item = &[u8]> {
        self.subject.images().take(LOOKED_AT)
    }

    /// What [`injection::restore`] gives for each of [`Examined::looked_at`], one after another. Computed once for all
    /// metrics that judge it.
    fn injected(&self) -> Result<&[u8], Failure> {
        if let Some(injected) = self.injected.get() {
            return Ok(injected);
        }
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
        let bar = progress::bar(
            "injection",
            self.looked_at().count() * injection::TIMESTEP,
            "steps",
        );
        let mut injected = Vec::new();
        for image in self.looked_at() {
            let restored = injection::restore(&generator, image, &mut || bar.inc(1))?;
            injected.extend(restored);
        }
        drop(bar);
        Ok(self.injected.get_or_init(|| injected))
    }

    fn injection(&mut self) -> Measured {
        let Some(threshold) = self.protocol.threshold else {
            return Ok(Err("give --threshold".into()));
        };
        let images: Vec<&[u8]> = self.looked_at().collect();
        let found = Restored::of(&images, self.injected()?, threshold);
        self.add("restored", found.share, found.tries);
        self.add("restored_distance", found.distance, found.tries);
        Ok(Ok(()))
    }

    fn sscd(&mut self) -> Measured {
        let Some(sscd) = &self.subject.judges.sscd else {
            return Ok(Err(super::SSCD_LACKS.into()));
        };
        let shape = self.subject.data.shape();
        let injected = self
            .injected()?
            .chunks_exact(shape.bytes() * injection::REPEATS);
        let shape = [shape.height, shape.width, shape.channels];
        let mut similarities = Vec::new();
        for (image, restored) in self.looked_at().zip(injected) {
            let found = sscd.similarities(image, restored, shape);
            similarities.extend(found.map_err(Failure::input)?.all);
        }
        self.add("sscd", mean(&similarities), similarities.len());
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
        drop(bar);
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
        let controls = model::read_data(path, &options)?;
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
            timesteps: Timesteps::Uniform,
            batch_size: 64,
        };
        let images = (forgotten.len() + unseen.len()) / shape.bytes();
        let bar = progress::bar("membership", images * DRAWS, "losses");
        let bootstrap = Bootstrap {
            resamples: 1000,
            level: 0.95,
            random,
        };
        let found = scoring.compare(&forgotten, &unseen, &bootstrap, &mut |done| {
            bar.set_position(done as u64)
        });
        drop(bar);
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
            .and_then(|training| training.nearest(&self.samples, NEIGHBORS, model::BUDGET));
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
}
