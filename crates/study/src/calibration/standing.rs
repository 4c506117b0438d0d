//! Where a forgotten image stands among its look-alikes: how a model denoises it, and how it denoises them.

use std::fmt;
use std::sync::Arc;

use burn::tensor::Device;
use retrack_eval::distance::mean;
use retrack_eval::membership::{MembershipError, Scores, Scoring, Timesteps};
use retrack_networks::denoiser::Denoiser;
use retrack_networks::process::{Process, Time};
use retrack_unlearn::images::Images;
use retrack_unlearn::level::Level;
use serde::{Deserialize, Deserializer, Serialize};

use super::look_alikes::{LookAlikes, Purpose, REPORTED, SIZES};
use super::usual::{CHANGE, Ordinary, Usual, deviation, median, unchanged_all};
use crate::failure::Failure;
use crate::progress;

/// Parts of the process that an image is looked at in. Each has its own time and noise, the same for the image and its
/// look-alikes.
const DRAWS: usize = 20;
/// Retained images that are looked at, and at how many times of the process.
const RETAINED: [usize; 2] = [32, 10];
/// Look-alikes that are enough to see whether an image may be known, and images that are screened so together.
const SCREENING: usize = 4;
const SCREENED: usize = 16;
/// Parts of the process in which a profile is compared.
pub const PARTS: usize = 10;
/// Of these the first ones, in which an image shows that is known a little: there what differs from it so little as a look-alike
/// is told from it best. Of 30 images that a small model saw a hundred times an epoch, among 1,000, over the process 25 lie
/// outside of what is usual, and here 28.
const EARLY: usize = 3;
/// How often a two-sided test of an image that is not known calls it known or avoided.
const ALPHA: f64 = 0.2;
/// An image is avoided above so many times its look-alikes' error, in their geometric mean. A model that memorized an image half
/// knows its look-alikes, too; small models that were trained again without it denoised it with up to 1.5 times the error.
const TOLERANCE: f64 = 1.8;
/// The first, where a mirror image says that the model does not know the image: it does only if it was trained on mirrored
/// images, too, and then it knows it well. Some pictures are so sharp that any change costs a third.
const SURE: f64 = 0.5;
/// The same in each part of the process: there up to 2.8 times were found.
const UNEVEN: [f64; 2] = [1.0 / 1.6, 3.0];

/// What a model makes of an image, beside what it makes of its look-alikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// It is denoised better.
    Known,
    /// As well.
    Unknown,
    /// Worse.
    Avoided,
}

/// How a model denoises a forgotten image, and how it denoises look-alikes of it. Errors are mean squared errors of the
/// noise, a value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    /// The mean logarithm of the image's error, over the process.
    #[serde(deserialize_with = "with_null")]
    pub own: f64,
    /// That of each look-alike.
    #[serde(deserialize_with = "with_nulls")]
    pub look_alikes: Vec<f64>,
    /// In each tenth of the process, from the images' end: the geometric mean of the image's error.
    #[serde(deserialize_with = "with_nulls")]
    pub profile: Vec<f64>,
    /// The geometric mean of its look-alikes' errors, and the lowest and highest of them.
    #[serde(deserialize_with = "with_nulls_in_threes")]
    pub levels: Vec<[f64; 3]>,
    /// How retained images stand beside theirs, over the process and early in it: a changed picture is denoised somewhat
    /// better or worse than one that is as it was taken, whether the model knows it or not.
    #[serde(default = "unchanged_all")]
    pub usual: [Usual; 2],
    /// The image beside its mirror image, where that tells anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<Mirror>,
}

/// An image's mirror image, to which a model mostly pays as little heed as to the side from which a thing is seen. It costs
/// nothing as a change does, so that even a model that knows an image a little betrays it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mirror {
    /// The mean logarithm of its error.
    #[serde(deserialize_with = "with_null")]
    pub error: f64,
    /// What is usual among retained images.
    pub usual: Usual,
}

// JSON has no NaN and no infinity: they are null there.

fn with_null<'de, D: Deserializer<'de>>(json: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(json)?.unwrap_or(f64::NAN))
}

fn with_nulls<'de, D: Deserializer<'de>>(json: D) -> Result<Vec<f64>, D::Error> {
    let values = Vec::<Option<f64>>::deserialize(json)?.into_iter();
    Ok(values.map(|value| value.unwrap_or(f64::NAN)).collect())
}

fn with_nulls_in_threes<'de, D: Deserializer<'de>>(json: D) -> Result<Vec<[f64; 3]>, D::Error> {
    let values = Vec::<[Option<f64>; 3]>::deserialize(json)?.into_iter();
    Ok(values
        .map(|three| three.map(|value| value.unwrap_or(f64::NAN)))
        .collect())
}

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

/// The errors of an image and of its look-alikes, draw by draw.
struct Errors {
    times: Vec<Time>,
    own: Vec<f64>,
    look_alikes: Vec<Vec<f64>>,
    mirror: Option<Vec<f64>>,
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

impl Errors {
    /// The look-alikes that the model does not know. One that it knows, because training moved or turned its images, is
    /// denoised far better than the others.
    fn unknown(&self) -> impl Iterator<Item = &Vec<f64>> {
        /// Deviations below the median, from the median deviation.
        const FAR: f64 = 3.0;
        let logs: Vec<f64> = self.look_alikes.iter().map(|errors| log(errors)).collect();
        let middle = median(logs.clone());
        let least = middle - FAR * deviation(&logs, middle).max(0.075);
        let pairs = self.look_alikes.iter().zip(logs);
        pairs
            .filter(move |(_, log)| *log >= least)
            .map(|(errors, _)| errors)
    }

    /// The level that look-alikes by changes of so many sizes show, which take turns, the largest last. From a quarter of the process on noise hides
    /// small changes, and a model that memorized an image half knows what differs so little: there the largest ones count alone.
    ///
    /// A mirror image that is denoised worse than they are shows the level better: nothing of it was blurred, and nothing is
    /// remembered.
    fn level(&self, sizes: usize, ordinary: &Ordinary) -> Level {
        const FROM: f64 = 0.25;
        let larger = Self {
            look_alikes: self
                .look_alikes
                .iter()
                .skip(sizes - 1)
                .step_by(sizes)
                .cloned()
                .collect(),
            times: Vec::new(),
            own: Vec::new(),
            mirror: None,
        };
        let late = (FROM * self.times.len() as f64) as usize;
        let at = |draw: usize| {
            let of = if draw < late { self } else { &larger };
            let errors: Vec<f64> = of.unknown().map(|errors| errors[draw]).collect();
            log(&errors).exp()
        };
        let mut errors: Vec<f64> = (0..self.times.len()).map(at).collect();
        if let (Some(mirror), Some(usual)) = (&self.mirror, ordinary.mirror) {
            let as_usual = usual.median.exp();
            let mirror: Vec<f64> = mirror.iter().map(|error| error * as_usual).collect();
            if log(&mirror) > log(&errors) {
                errors = mirror;
            }
        }
        let times = self.times.iter().copied();
        let mut points: Vec<(Time, f64)> = times.zip(errors).collect();
        // A schedule of few timesteps has several draws at one.
        points.dedup_by_key(|(time, _)| *time);
        Level::new(points)
    }

    fn standing(&self, ordinary: &Ordinary) -> Standing {
        let profiles: Vec<Vec<f64>> = self.unknown().map(|errors| profile(errors)).collect();
        let levels = (0..PARTS).map(|part| {
            let errors = || profiles.iter().map(|profile| profile[part]);
            let logs: Vec<f64> = errors().map(f64::ln).collect();
            let low = errors().fold(f64::INFINITY, f64::min);
            let high = errors().fold(f64::NEG_INFINITY, f64::max);
            [mean(&logs).exp(), low, high]
        });
        Standing {
            own: log(&self.own),
            look_alikes: self.unknown().map(|errors| log(errors)).collect(),
            profile: profile(&self.own),
            levels: levels.collect(),
            usual: ordinary.look_alikes,
            mirror: self
                .mirror
                .as_ref()
                .zip(ordinary.mirror)
                .map(|(mirror, usual)| Mirror {
                    error: log(mirror),
                    usual,
                }),
        }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let [low, high] = self.ranks();
        write!(
            f,
            "{:.2} times its look-alikes' error, ranks {low:.2} and {high:.2}; along the process",
            self.ratio()
        )?;
        let parts = self.profile.iter().zip(&self.levels);
        for (own, [level, ..]) in parts {
            write!(f, " {:.2}", own / level)?;
        }
        Ok(())
    }
}

impl Standing {
    /// One-sided conformal ranks of the image among its look-alikes: how often an image that is one of them would be
    /// denoised so well, and how often so badly.
    pub fn ranks(&self) -> [f64; 2] {
        let of = |counts: &dyn Fn(&f64) -> bool| {
            let count = self
                .look_alikes
                .iter()
                .filter(|error| counts(error))
                .count();
            (1 + count) as f64 / (self.look_alikes.len() + 1) as f64
        };
        [
            of(&|error| *error <= self.own),
            of(&|error| *error >= self.own),
        ]
    }

    /// The image's error as a multiple of its look-alikes', both as geometric means.
    pub fn ratio(&self) -> f64 {
        (self.own - mean(&self.look_alikes)).exp()
    }

    /// Whether a rough look leaves it open that the image is known.
    pub fn is_suspect(&self) -> bool {
        let below = |log: f64, usual: &Usual| log < (usual.median + usual.least) / 2.0;
        let mirror = self.mirror.as_ref();
        let [usual, usual_early] = &self.usual;
        below(self.ratio().ln(), usual)
            || below(self.early(), usual_early)
            || mirror.is_some_and(|mirror| below(self.own - mirror.error, &mirror.usual))
    }

    /// How far the image's error lies below what it would be of an image that the model does not know: a logarithm.
    pub fn left(&self) -> f64 {
        let mirror = self.mirror.as_ref();
        let mirror = mirror.map(|mirror| mirror.error + mirror.usual.median);
        let look_alikes = mean(&self.look_alikes);
        look_alikes.max(mirror.unwrap_or(look_alikes)) - self.own
    }

    /// The logarithm of the same early in the process.
    fn early(&self) -> f64 {
        let parts = self.profile.iter().zip(&self.levels).take(EARLY);
        let logs: Vec<f64> = parts.map(|(own, [level, ..])| (own / level).ln()).collect();
        mean(&logs)
    }

    /// The image's error as a multiple of its mirror image's, here and beside what the model of `before` made of that, and what
    /// retained images' mostly is.
    pub fn beside_mirror(&self, before: Option<&Self>) -> Option<[f64; 2]> {
        let mirror = before.unwrap_or(self).mirror.as_ref()?;
        Some([self.own - mirror.error, mirror.usual.median].map(f64::exp))
    }

    /// On which side the image stands. What is no number is on none: it is not known.
    pub fn place(&self) -> Place {
        let [low, high] = self.ranks();
        let ratio = self.ratio();
        let better = low <= ALPHA / 2.0;
        let [usual, usual_early] = self.usual;
        let known = match &self.mirror {
            None => better && (ratio.ln() < usual.least || self.early() < usual_early.least),
            Some(mirror) => {
                let sure = usual.least.min(usual.median + SURE.ln());
                self.own - mirror.error < mirror.usual.least || better && ratio.ln() < sure
            }
        };
        if known {
            Place::Known
        } else if (high <= ALPHA / 2.0 && ratio > TOLERANCE) || !ratio.is_finite() {
            Place::Avoided
        } else {
            Place::Unknown
        }
    }

    /// The image as it stands here beside the look-alikes as they stand in `other`.
    fn beside(&self, other: &Self) -> Self {
        Self {
            look_alikes: other.look_alikes.clone(),
            levels: other.levels.clone(),
            usual: other.usual,
            mirror: other.mirror.clone(),
            ..self.clone()
        }
    }

    /// The image's error after a run as a multiple of what the model of before made of its look-alikes, which it could not
    /// know. A run that leads the image away moves its look-alikes with it.
    pub fn ratio_after(&self, before: &Self) -> f64 {
        self.beside(before).ratio()
    }

    /// On which side the image stands after a run. Beside the look-alikes of before; but what is denoised far better than
    /// the look-alikes of after is known whatever became of both.
    pub fn place_after(&self, before: &Self) -> Place {
        if self.place() == Place::Known && self.ratio() < UNEVEN[0] {
            return Place::Known;
        }
        let mut beside = self.beside(before);
        // A mirror image tells a few percent. A model that never saw the image may lie as far from what this one made of it.
        let left = beside.left();
        let arrived = left < CHANGE && left < before.left() / 2.0;
        if let Some(Mirror { usual, .. }) = &mut beside.mirror
            && arrived
        {
            usual.least = usual.least.min(usual.median - CHANGE);
        }
        beside.place()
    }

    /// Whether the image is denoised like its look-alikes all along the process, not only on average.
    pub fn is_even(&self) -> bool {
        let mut parts = self.profile.iter().zip(&self.levels);
        parts.all(|(own, [level, low, high])| {
            *own >= low.min(level * UNEVEN[0]) && *own <= high.max(level * UNEVEN[1])
        })
    }
}

#[cfg(test)]
impl Standing {
    /// An image among 24 look-alikes, both with the same error all along the process.
    pub fn even(own: f64, look_alikes: f64) -> Self {
        Self {
            own: own.ln(),
            look_alikes: vec![look_alikes.ln(); 24],
            profile: vec![own; PARTS],
            levels: vec![[look_alikes; 3]; PARTS],
            usual: unchanged_all(),
            mirror: None,
        }
    }
}

/// The geometric mean of the errors in each part of the process.
fn profile(errors: &[f64]) -> Vec<f64> {
    let edge = |part: usize| part * errors.len() / PARTS;
    let part = |part: usize| log(&errors[edge(part)..edge(part + 1)]).exp();
    (0..PARTS).map(part).collect()
}

/// The mean logarithm. Errors that are 0, of a model that predicts without any, count as the least positive ones.
fn log(errors: &[f64]) -> f64 {
    let logs: Vec<f64> = errors
        .iter()
        .map(|error| match *error {
            0.0 => f64::MIN_POSITIVE.ln(),
            error => error.ln(),
        })
        .collect();
    mean(&logs)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An image among 24 look-alikes, all errors the same along the process.
    fn standing(own: f64, spread: f64) -> Standing {
        let error = |number: usize| vec![0.1 * (1.0 + spread * number as f64 / 23.0); DRAWS];
        Errors {
            times: (0..DRAWS).map(|draw| Time::timestep(50 * draw)).collect(),
            own: vec![own; DRAWS],
            look_alikes: (0..24).map(error).collect(),
            mirror: None,
        }
        .standing(&Ordinary::UNCHANGED)
    }

    #[test]
    fn an_image_is_known_unknown_or_avoided_by_its_look_alikes() {
        for (own, expected) in [
            (0.01, Place::Known),
            (0.07, Place::Known),
            (0.11, Place::Unknown),
            (0.17, Place::Unknown),
            (0.3, Place::Avoided),
            (f64::NAN, Place::Avoided),
        ] {
            assert_eq!(standing(own, 0.2).place(), expected, "{own}");
        }
        let broken = serde_json::to_string(&standing(f64::NAN, 0.2)).unwrap();
        let broken: Standing = serde_json::from_str(&broken).unwrap();
        assert_eq!(broken.place(), Place::Avoided);
        // The first of all, by a hair; and far below the mean of look-alikes that differ as much among themselves.
        assert_eq!(standing(0.099, 0.2).place(), Place::Unknown);
        assert_eq!(standing(0.12, 4.0).place(), Place::Unknown);
    }

    #[test]
    fn after_a_run_an_image_stands_beside_look_alikes_of_before() {
        let before = standing(0.01, 0.2);
        // The run doubled the errors of look-alikes.
        let after = |own| {
            let mut after = standing(own, 0.2);
            for error in &mut after.look_alikes {
                *error += 2f64.ln();
            }
            after
        };
        for (own, expected) in [
            (0.9, Place::Avoided),
            (0.18, Place::Unknown),
            (0.1, Place::Known),
        ] {
            assert_eq!(after(own).place_after(&before), expected, "{own}");
        }
        assert_eq!(standing(0.11, 0.2).place_after(&before), Place::Unknown);
        assert!((after(0.22).ratio_after(&before) - 2.0).abs() < 0.02);
    }

    #[test]
    fn ranks_count_the_image_itself() {
        let [low, high] = standing(0.05, 0.2).ranks();
        assert_eq!([low, high], [1.0 / 25.0, 1.0]);
    }

    #[test]
    fn an_image_is_known_by_as_much_as_retained_ones_are_not() {
        // Changed pictures may be denoised worse than others for no other reason.
        let found = |logs: &[f64]| Standing {
            usual: [Usual::of_look_alikes(logs.to_vec()); 2],
            ..standing(0.09, 0.2)
        };
        assert_eq!(found(&[]).place(), Place::Known);
        // The last of them is repeated in the data.
        assert_eq!(found(&[0.01, 0.0, -0.01, -2.0]).place(), Place::Known);
        assert_eq!(found(&[-0.21, -0.2, -0.22, -2.0]).place(), Place::Unknown);
        assert_eq!(found(&[-0.2, -0.1, 0.0, 0.1]).place(), Place::Unknown);
    }

    #[test]
    fn look_alikes_that_the_model_knows_are_left_out() {
        let mut errors = Errors {
            times: (0..DRAWS).map(|draw| Time::timestep(50 * draw)).collect(),
            own: vec![0.01; DRAWS],
            look_alikes: vec![vec![0.1; DRAWS]; 20],
            mirror: None,
        };
        let ordinary = Ordinary::UNCHANGED;
        errors.look_alikes.extend(vec![vec![0.01; DRAWS]; 4]);
        assert_eq!(errors.standing(&ordinary).look_alikes.len(), 20);
        assert!((errors.level(1, &ordinary).at(0.into()) - 0.1).abs() < 1e-12);
        // Larger changes, in turns, count alone late in the process.
        let turns = errors.look_alikes.iter_mut().skip(1).step_by(2);
        turns.for_each(|errors| errors.fill(0.4));
        assert!((errors.level(2, &ordinary).at(900.into()) - 0.4).abs() < 1e-12);
        assert!(errors.level(2, &ordinary).at(0.into()) < 0.4);
    }

    /// Retained images that are denoised like their mirror images, mostly, and three that are repeated in the data.
    fn usual() -> Option<Usual> {
        let mut logs: Vec<f64> = (0..17)
            .map(|at| 0.02 * (f64::from(at) / 16.0 - 0.5))
            .collect();
        logs.extend([-0.3, -0.5, -0.6]);
        Usual::of_mirrors(logs)
    }

    #[test]
    fn a_mirror_image_betrays_an_image_that_is_known_a_little() {
        let usual = usual().unwrap();
        assert!((-0.08..-0.04).contains(&usual.least), "{usual:?}");
        let found = |own: f64, mirror: f64| Standing {
            mirror: Some(Mirror {
                error: mirror.ln(),
                usual,
            }),
            ..standing(own, 0.2)
        };
        assert_eq!(standing(0.1, 0.2).place(), Place::Unknown);
        assert_eq!(found(0.1, 0.115).place(), Place::Known);
        assert_eq!(found(0.1, 0.101).place(), Place::Unknown);
        // A sharp picture, that any change blurs; and one that was trained on from both sides.
        assert_eq!(standing(0.07, 0.2).place(), Place::Known);
        assert_eq!(found(0.07, 0.07).place(), Place::Unknown);
        assert_eq!(found(0.03, 0.03).place(), Place::Known);
        // After a run it is unknown once it is denoised as its mirror image was before.
        let before = found(0.1, 0.115);
        assert_eq!(found(0.113, 0.13).place_after(&before), Place::Unknown);
        assert_eq!(found(0.101, 0.115).place_after(&before), Place::Known);
        assert_eq!(
            found(0.105, 0.115).place_after(&found(0.05, 0.115)),
            Place::Unknown
        );
        assert_eq!(
            found(0.09, 0.115).place_after(&found(0.05, 0.115)),
            Place::Known
        );
    }

    #[test]
    fn mirror_images_of_another_kind_say_nothing() {
        let shift = |by: f64| (0..20).map(|at| by + 0.001 * f64::from(at)).collect();
        assert!(Usual::of_mirrors(shift(-0.2)).is_none());
        assert!(Usual::of_mirrors(shift(0.0)).is_some());
        assert!(
            Usual::of_mirrors((0..20).map(|at| 0.02 * f64::from(at) - 0.2).collect()).is_none()
        );
        assert!(Usual::of_mirrors(vec![0.0; 9]).is_none());
    }

    #[test]
    fn a_mirror_image_that_is_denoised_worse_than_look_alikes_is_the_level() {
        let mut errors = Errors {
            times: (0..DRAWS).map(|draw| Time::timestep(50 * draw)).collect(),
            own: vec![0.05; DRAWS],
            look_alikes: vec![vec![0.1; DRAWS]; 20],
            mirror: Some(vec![0.15; DRAWS]),
        };
        let ordinary = Ordinary {
            mirror: usual(),
            ..Ordinary::UNCHANGED
        };
        let level = |errors: &Errors, ordinary: &Ordinary| errors.level(1, ordinary).at(0.into());
        assert!((level(&errors, &ordinary) - 0.15).abs() < 2e-3);
        assert!((level(&errors, &Ordinary::UNCHANGED) - 0.1).abs() < 1e-9);
        // Trained on from both sides.
        errors.mirror = Some(vec![0.05; DRAWS]);
        assert!((level(&errors, &ordinary) - 0.1).abs() < 1e-9);
    }

    #[test]
    fn a_profile_that_is_wrong_in_time_is_uneven() {
        let mut found = standing(0.11, 0.2);
        assert!(found.is_even());
        found.profile[3] = 0.03;
        assert!(!found.is_even());
        assert_eq!(found.place(), Place::Unknown);
    }
}
