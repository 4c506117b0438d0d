//! Looks at forgotten images and their look-alikes through a network.

use std::sync::Arc;

use burn::tensor::Device;
use retrack_eval::distance::mean;
use retrack_eval::membership::{MembershipError, Scores, Scoring, Timesteps};
use retrack_networks::denoiser::Denoiser;
use retrack_networks::process::{Process, Time};
use retrack_unlearn::images::Images;
use retrack_unlearn::level::Level;

use super::errors::{Errors, log, profile};
use super::look_alikes::{LookAlikes, Purpose, REPORTED, SIZES};
use super::standing::{EARLY, PARTS, Standing};
use super::usual::{Ordinary, Usual};
use crate::failure::Failure;
use crate::progress;

/// Parts of the process that an image is looked at in. Each has its own time and noise, the same for the image and its
/// look-alikes.
pub(super) const DRAWS: usize = 20;
/// Retained images that are looked at, and at how many times of the process.
const RETAINED: [usize; 2] = [32, 10];
/// Look-alikes that are enough to see whether an image may be known, and images that are screened so together.
const SCREENING: usize = 4;
const SCREENED: usize = 16;

/// Looks at forgotten images and their look-alikes, and at a few retained images.
pub struct Viewer<'a> {
    /// The look-alikes, and which images they are like.
    pub look_alikes: &'a LookAlikes<'a>,
    /// As the network takes them.
    images: &'a dyn Images,
    /// The network is told the images' classes or texts.
    labels: bool,
    /// All of them are told this class, whatever theirs are.
    class: Option<i64>,
    /// Rows of retained images.
    retained: Vec<usize>,
    context: Context,
}

/// What images are looked at with.
pub struct Context {
    /// The model's.
    pub process: Arc<dyn Process>,
    /// Without autodiff.
    pub device: Device,
    /// Images that the network looks at together.
    pub batch_size: usize,
    /// Decides times and noises.
    pub seed: u64,
}

impl<'a> Viewer<'a> {
    /// Looks at the images of a run that look-alikes were made of.
    pub fn new(
        look_alikes: &'a LookAlikes<'a>,
        images: &'a dyn Images,
        labels: bool,
        retain: &[usize],
        context: Context,
    ) -> Self {
        let count = RETAINED[0].min(retain.len());
        let retained = (0..count).map(|at| retain[at * retain.len() / count]);
        Self {
            look_alikes,
            images,
            labels,
            class: None,
            retained: retained.collect(),
            context,
        }
    }

    /// With this class for all images, where somebody said one.
    pub fn of_class(self, class: Option<i64>) -> Self {
        Self { class, ..self }
    }

    /// What the network makes of the images in `rows`, then of `others`, each with the row whose class or text it has.
    fn scores(
        &self,
        network: &dyn Denoiser,
        rows: &[usize],
        others: &[(usize, &[f32])],
        purpose: Purpose,
        draws: usize,
    ) -> Result<(Scores, Vec<Time>), Failure> {
        let mut values = Vec::new();
        for &row in rows {
            self.images.average(row, &mut values)?;
        }
        for (_, other) in others {
            values.extend_from_slice(other);
        }
        let label = |row: usize| {
            let class = self.class.or_else(|| self.images.label(row));
            class.unwrap_or(0)
        };
        let all = rows
            .iter()
            .copied()
            .chain(others.iter().map(|(row, _)| *row));
        let labels: Option<Vec<i64>> = self.labels.then(|| all.map(label).collect());
        let scoring = Scoring {
            network,
            process: &*self.context.process,
            random: purpose.random(self.context.seed),
            device: &self.context.device,
            shape: self.images.shape(),
            draws,
            timesteps: Timesteps::Stratified,
            batch_size: self.context.batch_size,
        };
        let scores = scoring.losses(&values, labels.as_deref(), &mut |_| ());
        let scores = scores.map_err(|error| match error {
            MembershipError::Input(error) => error.into(),
            error => Failure::failed(error),
        })?;
        Ok((scores, scoring.times()))
    }

    fn errors(
        &self,
        network: &dyn Denoiser,
        image: usize,
        purpose: Purpose,
    ) -> Result<Errors, Failure> {
        let row = self.look_alikes.rows[image];
        let look_alikes = self.look_alikes.of(image, purpose, usize::MAX)?;
        let count = look_alikes.len();
        let mirror = self.look_alikes.mirror(image)?;
        let others = look_alikes.iter().chain(&mirror);
        let others: Vec<(usize, &[f32])> = others.map(|other| (row, &other[..])).collect();
        let (scores, times) = self.scores(network, &[row], &others, purpose, DRAWS)?;
        let of = |at| scores.of(at).to_vec();
        Ok(Errors {
            times,
            own: of(0),
            look_alikes: (1..=count).map(of).collect(),
            mirror: mirror.map(|_| of(count + 1)),
        })
    }

    /// The mean error of retained images, always the same ones with the same noise.
    ///
    /// # Errors
    /// Images that do not fit the network.
    pub fn retained(&self, network: &dyn Denoiser) -> Result<f64, Failure> {
        let (scores, _) = self.scores(network, &self.retained, &[], Purpose::Stop, RETAINED[1])?;
        Ok(mean(&scores.means()))
    }

    /// What is ordinary among retained images.
    ///
    /// # Errors
    /// An image that does not fit the network.
    pub fn ordinary(&self, network: &dyn Denoiser) -> Result<Ordinary, Failure> {
        let kept = &self.look_alikes.kept;
        let rows: Vec<usize> = kept.iter().map(|kept| kept.row).collect();
        let mirrors = kept.iter().map(|kept| (kept.row, &kept.mirror[..]));
        let mirrors: Vec<(usize, &[f32])> = mirrors.collect();
        let look_alikes = kept.iter().flat_map(|kept| {
            let look_alikes = kept.look_alikes.iter();
            look_alikes.map(|one| (kept.row, &one[..]))
        });
        let others: Vec<(usize, &[f32])> = mirrors.iter().copied().chain(look_alikes).collect();
        let (scores, _) = self.scores(network, &rows, &others, Purpose::Level, PARTS)?;
        let of = |at: usize| log(scores.of(at));
        let beside_mirrors = |of: &dyn Fn(usize) -> f64| -> Vec<f64> {
            let images = 0..rows.len();
            images.map(|at| of(at) - of(rows.len() + at)).collect()
        };
        let mirror = match Usual::of_mirrors(beside_mirrors(&of)) {
            // A closer look, with other noise.
            Some(_) => {
                let (scores, _) = self.scores(network, &rows, &mirrors, Purpose::Stop, DRAWS)?;
                Usual::of_mirrors(beside_mirrors(&|at| log(scores.of(at))))
            }
            None => None,
        };
        let mut first = 2 * rows.len();
        let mut beside_look_alikes = [Vec::new(), Vec::new()];
        for (at, kept) in kept.iter().enumerate() {
            let last = first + kept.look_alikes.len();
            for (logs, parts) in beside_look_alikes.iter_mut().zip([PARTS, EARLY]) {
                let of = |at: usize| log(&scores.of(at)[..parts]);
                logs.push(of(at) - mean(&(first..last).map(of).collect::<Vec<_>>()));
            }
            first = last;
        }
        Ok(Ordinary {
            look_alikes: beside_look_alikes.map(Usual::of_look_alikes),
            mirror,
        })
    }

    /// Where the forgotten image with this number stands. `ordinary`: what [`ordinary`](Self::ordinary) found of the model.
    ///
    /// # Errors
    /// An image that does not fit the network.
    pub fn standing(
        &self,
        network: &dyn Denoiser,
        image: usize,
        purpose: Purpose,
        ordinary: &Ordinary,
    ) -> Result<Standing, Failure> {
        Ok(self.errors(network, image, purpose)?.standing(ordinary))
    }

    /// Where all forgotten images stand, roughly: with few look-alikes and draws, so that none is known for certain.
    ///
    /// # Errors
    /// As [`standing`](Self::standing).
    pub fn screened(
        &self,
        network: &dyn Denoiser,
        ordinary: &Ordinary,
    ) -> Result<Vec<Standing>, Failure> {
        let rows = &self.look_alikes.rows;
        let bar = progress::bar("screening", rows.len(), "images");
        let mut standings = Vec::with_capacity(rows.len());
        for first in (0..rows.len()).step_by(SCREENED) {
            let rows = &rows[first..(first + SCREENED).min(rows.len())];
            let mut made = Vec::with_capacity(rows.len());
            for image in first..first + rows.len() {
                let look_alikes = self.look_alikes.of(image, Purpose::Stop, SCREENING)?;
                made.push((look_alikes, self.look_alikes.mirror(image)?));
            }
            let others = rows
                .iter()
                .zip(&made)
                .flat_map(|(row, (look_alikes, mirror))| {
                    let others = look_alikes.iter().chain(mirror);
                    others.map(|other| (*row, &other[..]))
                });
            let others: Vec<(usize, &[f32])> = others.collect();
            let (scores, times) = self.scores(network, rows, &others, Purpose::Stop, PARTS)?;
            let mut first = rows.len();
            for (at, (look_alikes, mirror)) in made.iter().enumerate() {
                let last = first + look_alikes.len();
                let of = |at| scores.of(at).to_vec();
                let errors = Errors {
                    times: times.clone(),
                    own: of(at),
                    look_alikes: (first..last).map(of).collect(),
                    mirror: mirror.as_ref().map(|_| of(last)),
                };
                first = last + usize::from(mirror.is_some());
                standings.push(errors.standing(ordinary));
                bar.inc(1);
            }
        }
        Ok(standings)
    }

    /// Where the first [`REPORTED`] forgotten images stand, for a report.
    ///
    /// # Errors
    /// As [`standing`](Self::standing).
    pub fn reported(
        &self,
        network: &dyn Denoiser,
        ordinary: &Ordinary,
    ) -> Result<Vec<Standing>, Failure> {
        let images = self.look_alikes.rows.len().min(REPORTED);
        let bar = progress::bar("look-alikes", images, "images");
        (0..images)
            .map(|image| {
                let standing = self.standing(network, image, Purpose::Report, ordinary);
                bar.inc(1);
                standing
            })
            .collect()
    }

    /// A standing with where a request led the image. Other times and noises give other errors, so it is moved by how far this
    /// standing's error lies from the one by the times and noises that decide when a run stops, by which `led` was measured.
    ///
    /// # Errors
    /// As [`standing`](Self::standing).
    pub fn with_led(
        &self,
        network: &dyn Denoiser,
        image: usize,
        standing: Standing,
        led: Option<[f64; 2]>,
    ) -> Result<Standing, Failure> {
        let Some(led) = led else {
            return Ok(standing);
        };
        let row = self.look_alikes.rows[image];
        let (scores, _) = self.scores(network, &[row], &[], Purpose::Stop, DRAWS)?;
        let moved = standing.own - log(scores.of(0));
        Ok(standing.with_led(Some(led.map(|error| error + moved))))
    }

    /// Where the forgotten image with this number stands beside what another model made of its look-alikes: the one of `before`,
    /// which was measured with the same purpose. A run moves look-alikes with the image.
    ///
    /// # Errors
    /// As [`standing`](Self::standing).
    pub fn beside(
        &self,
        network: &dyn Denoiser,
        image: usize,
        purpose: Purpose,
        before: &Standing,
    ) -> Result<Standing, Failure> {
        let row = self.look_alikes.rows[image];
        let (scores, _) = self.scores(network, &[row], &[], purpose, DRAWS)?;
        let own = scores.of(0);
        Ok(Standing {
            own: log(own),
            profile: profile(own),
            ..before.clone()
        })
    }

    /// Where the forgotten image with this number is to be led, by what `network` makes of its look-alikes and its mirror image.
    ///
    /// # Errors
    /// As [`standing`](Self::standing).
    pub fn level(
        &self,
        network: &dyn Denoiser,
        image: usize,
        ordinary: &Ordinary,
    ) -> Result<Level, Failure> {
        // Controls were not changed.
        let sizes = match self.look_alikes.are_controls {
            true => 1,
            false => SIZES.len(),
        };
        Ok(self
            .errors(network, image, Purpose::Level)?
            .level(sizes, ordinary))
    }
}
