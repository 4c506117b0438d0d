//! One model: whether it repeats, restores or recognises the forgotten images.

use std::cell::OnceCell;

use burn::module::Module;
use burn::tensor::Device;
use retrack_data::pixels::to_unit;
use retrack_eval::auc::Bootstrap;
use retrack_eval::copies::{self, NEIGHBORS};
use retrack_eval::distance::mean;
use retrack_eval::frequency::Frequency;
use retrack_eval::injection::{self, Restored};
use retrack_eval::membership::{Scoring, Timesteps};
use retrack_eval::nll::{Likelihood, rademacher};
use retrack_eval::score::Score;
use retrack_networks::model::Model;
use retrack_networks::random::Random;
use retrack_networks::sampling::Generator;
use retrack_networks::schedule::NoiseSchedule;
use retrack_networks::unet2d::UNet2DModel;

use super::{Evaluation, Protocol, Subject, each_once};
use crate::failure::Failure;
use crate::names::Metric;
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
pub(super) struct Examined<'a, 'b> {
    pub(super) protocol: &'a Protocol,
    pub(super) subject: &'a Subject<'b>,
    pub(super) model: &'a Model,
    /// Without autodiff.
    pub(super) network: UNet2DModel,
    pub(super) device: &'a Device,
    pub(super) seed: u64,
    /// Of each forgotten image, of a network with classes.
    pub(super) classes: Option<Vec<i64>>,
    /// Drawn samples.
    pub(super) samples: Vec<u8>,
    /// Those that are not the forgotten image.
    pub(super) others: Vec<u8>,
    /// What [`Examined::injected`] gives.
    pub(super) injected: OnceCell<Vec<u8>>,
    pub(super) found: Evaluation,
}

impl<'a> Examined<'a, '_> {
    /// # Errors
    /// The metric does not work, or the command was interrupted.
    pub(super) fn measure(&mut self, metric: Metric) -> Result<(), Failure> {
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
            Metric::Cluster | Metric::ClipIqa => unreachable!("lacks a text-to-image model"),
        }
    }

    pub(super) fn add(&mut self, name: &str, value: f64, count: usize) {
        self.found.add(name, value, count);
    }

    fn note(&mut self, note: Option<String>) {
        self.found.notes.extend(note);
    }

    /// The classes that samples are of; none of a network without classes.
    pub(super) fn drawn_classes(&self) -> Vec<i64> {
        self.classes.as_deref().map_or_else(Vec::new, each_once)
    }

    fn frequency(&mut self) -> Result<(), Failure> {
        let images: Vec<&[u8]> = self.subject.images().collect();
        let found = Frequency::of_any(&self.samples, &images, &self.subject.thresholds);
        self.add("repeats", found.repeats as f64, found.samples);
        if images.len() > 1 {
            self.add("repeats_of_one", found.of_one as f64, found.samples);
        }
        self.add("nearest_sample", found.nearest, found.samples);
        Ok(())
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
        let sampler = injection::sampler(&self.model.scheduler)?;
        let generator = Generator {
            network: &self.network,
            sampler: &sampler,
            random: Random::new(self.seed),
            shape: [shape.height, shape.width, shape.channels],
            device: self.device,
        };
        let steps = injection::timestep(self.model.scheduler.num_train_timesteps) + 1;
        let bar = progress::bar("injection", self.looked_at().count() * steps, "steps");
        let mut injected = Vec::new();
        for (place, image) in self.looked_at().enumerate() {
            let label = self.classes.as_ref().map(|classes| classes[place]);
            let restored = injection::restore(&generator, image, label, &mut || bar.inc(1))?;
            injected.extend(model::to_bytes(&restored, "attempts to restore an image")?);
        }
        drop(bar);
        Ok(self.injected.get_or_init(|| injected))
    }

    fn injection(&mut self) -> Result<(), Failure> {
        // An attempt may lead to any of them, whichever it began with.
        let images: Vec<&[u8]> = self.subject.images().collect();
        let found = Restored::of(&images, &self.subject.thresholds, self.injected()?);
        self.add("restored", found.share, found.tries);
        self.add("restored_distance", found.distance, found.tries);
        self.note(self.subject.only_the_first("injection", LOOKED_AT));
        Ok(())
    }

    fn sscd(&mut self) -> Result<(), Failure> {
        let sscd = self.subject.judges.sscd.as_ref();
        let sscd = sscd.ok_or_else(|| Failure::failed("SSCD was not read"))?;
        let known = self.subject.known()?;
        let shape = self.subject.data.shape();
        let shape = [shape.height, shape.width, shape.channels];
        let restored = sscd
            .embed(self.injected()?, shape)
            .map_err(Failure::failed)?;
        let similarities: Vec<f64> = restored.iter().map(|one| one.most_similar(known)).collect();
        self.add("sscd", mean(&similarities), similarities.len());
        self.note(self.subject.only_the_first("sscd", LOOKED_AT));
        Ok(())
    }

    /// The forgotten images, at most `most` of them, as a network sees them.
    fn forgotten(&self, most: usize) -> (usize, Vec<f32>) {
        let images: Vec<&[u8]> = self.subject.images().take(most).collect();
        let values = images.concat().into_iter().map(to_unit);
        (images.len(), values.collect())
    }

    fn nll(&mut self) -> Result<(), Failure> {
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
        let timesteps = schedule.timesteps();
        let bar = progress::bar("likelihood", timesteps, "timesteps");
        let probe = rademacher(
            &Random::new(self.seed),
            0..count as u64,
            values.len() / count.max(1),
        );
        let labels = self.classes.as_ref().map(|classes| &classes[..count]);
        let found = likelihood.bits_per_dim(&values, shape, labels, &probe, &mut |time| {
            bar.set_position((timesteps as f64 * time) as u64)
        });
        drop(bar);
        let found = found.map_err(Failure::failed)?;
        self.add("nll", mean(&found.bits_per_dim), count);
        self.note(self.subject.only_the_first("nll", TOGETHER));
        Ok(())
    }

    fn membership(&mut self) -> Result<(), Failure> {
        let controls = self.subject.judges.controls.as_ref();
        let controls = controls.ok_or_else(|| Failure::failed("the controls were not read"))?;
        self.found.known_controls = controls.are_known();
        self.found.notes.extend(controls.note());
        let stride = controls.rows.len().div_ceil(CONTROLS).max(1);
        let rows: Vec<usize> = controls.rows.iter().copied().step_by(stride).collect();
        let controls = &controls.data;
        let mut image = vec![0; controls.shape().bytes()];
        let mut unseen = Vec::new();
        for &row in &rows {
            controls.read(row, &mut image)?;
            unseen.extend(image.iter().map(|&byte| to_unit(byte)));
        }
        let (count, forgotten) = self.forgotten(LOOKED_AT);
        let labels = match (&self.classes, self.protocol.class) {
            (None, _) => None,
            (Some(classes), Some(class)) => Some((&classes[..count], vec![class; rows.len()])),
            (Some(classes), None) => {
                model::check_labels(controls, &rows, &self.model.config)?;
                let of_controls = rows.iter().filter_map(|&row| controls.label(row));
                Some((&classes[..count], of_controls.collect()))
            }
        };
        let labels = labels.as_ref().map(|(own, others)| [*own, &others[..]]);
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
        let images = count + rows.len();
        let bar = progress::bar("membership", images * DRAWS, "losses");
        let bootstrap = Bootstrap {
            resamples: 1000,
            level: 0.95,
            random,
        };
        let found = scoring.compare(&forgotten, &unseen, labels, &bootstrap, &mut |done| {
            bar.set_position(done as u64)
        });
        drop(bar);
        let found = found.map_err(Failure::failed)?;
        let score = Score::new("membership_auc", found.auc, images);
        self.found.scores.push(score.with_interval(found.interval));
        self.add("forgotten_loss", found.forgotten_loss, found.draws);
        self.note(self.subject.only_the_first("membership", LOOKED_AT));
        Ok(())
    }

    fn copies(&mut self) -> Result<(), Failure> {
        let training = self.subject.training().map_err(Failure::failed)?;
        let found = training.nearest(&self.samples, NEIGHBORS, model::BUDGET);
        let found = found.map_err(Failure::failed)?;
        let count = found.nearest.len();
        let distances: Vec<f64> = found.nearest.iter().map(|one| one.distance).collect();
        self.add("copies", found.share(copies::THRESHOLD), count);
        let forgotten = found.share_forgotten(copies::THRESHOLD);
        self.add("copies_of_forgotten", forgotten, count);
        self.add("distance_to_data", mean(&distances), count);
        Ok(())
    }
}
