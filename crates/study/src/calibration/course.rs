//! A run that goes on until its images are unknown: in rounds of steps, each with a rate that falls to nothing, and a look
//! after each.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::module::Module;
use retrack_checkpoint::words::counted;
use retrack_eval::distance::mean;
use retrack_networks::denoiser::Denoiser;
use retrack_networks::process::Time;
use retrack_unlearn::feed::{Feed, Focus};
use retrack_unlearn::level::{Gate, Level};
use retrack_unlearn::objective::{Objective, Pass, ReTrack};
use retrack_unlearn::optimizer::LearningRate;
use retrack_unlearn::recipe::Recipe;
use retrack_unlearn::trainer::{TrainError, Trainer};
use serde::{Deserialize, Serialize};

use super::look_alikes::Purpose;
use super::standing::{PARTS, Place, Standing, are_even};
use super::table::TABLE;
use super::usual::Ordinary;
use super::viewer::Viewer;
use crate::failure::Failure;
use crate::session::Course;
use crate::{model, progress};

/// Steps of a round.
pub const ROUND: usize = 40;
/// Rounds, at most; and one more for each so many images that are led, which share a round's draws.
pub const ROUNDS: usize = 4;
const SHARING: usize = 8;
/// From more distinct images on only those are looked at closely that the model may know.
const MANY: usize = 32;
/// Steps in which a round's rate rises.
const WARMUP: usize = 3;
/// How much longer the forgotten images' gradient is than the retained ones', at first.
const FORGET: f64 = 2.0;
/// The [`Gate`]'s. Found on the shipped model, beside one that was trained again, and on twelve images of two small data sets.
const BAND: [f64; 2] = [0.8, 1.1];
const REACH: f64 = 4.5;
const NEAR: f64 = 2.5;
/// How much more often than the first tenth of the process a part of it is drawn from, at most, and how often one is in which
/// the image is not known: in the first round, and in later ones, which come where work is left.
const OFTEN: f64 = 8.0;
const SELDOM: [f64; 2] = [1.0, 0.25];
/// The retained images' error may grow by this factor in all requests to a model; and in each by so much in any case.
const DAMAGED: f64 = 1.25;
const LEAST_ROOM: f64 = 1.05;
/// Where a run keeps what it measured.
pub const FILE: &str = "calibration.json";

/// Why a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// Every image is unknown.
    Unknown,
    /// The model knew none better than its look-alikes: no step was taken.
    NothingToDo,
    /// All rounds were taken, and not every image is unknown.
    Bound,
    /// The retained images were denoised too much worse than before.
    Damaged,
}

/// Steps with one rate, that falls to nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// Steps before it.
    pub from: usize,
    /// Its highest rate.
    pub rate: f64,
    /// Numbers of the images that it draws: those that are not unknown yet, or only just.
    pub images: Vec<usize>,
    /// How often it draws them in each tenth of the process.
    shares: Vec<f32>,
}

/// Where an image stands after a round.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Reached {
    /// Its error as a multiple of what its look-alikes' was before the run.
    pub ratio: f64,
    /// The mean logarithm of its error.
    pub own: f64,
    /// Beside them.
    pub place: Place,
}

/// What a run measured and decided, as it lies in its folder: no pixels. A resumed run reads it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The rows of the forgotten images, each distinct one once.
    pub rows: Vec<usize>,
    /// How the model of before denoises what it does not know: timesteps and errors, for each row that is led.
    pub(super) levels: Vec<Vec<(f64, f32)>>,
    /// Where each image stood before the run.
    pub before: Vec<Standing>,
    /// Weight of forgetting. Like the levels in f32: a decimal number read again is the nearest one, which of f64 is not
    /// sure.
    pub lambda: f32,
    /// The retained images' error before the run.
    pub(super) retained: f64,
    /// The same after the last round.
    pub(super) retained_after: Option<f64>,
    /// The rounds that were begun.
    pub rounds: Vec<Round>,
    /// Where each image that is led stood after the last round, by its number.
    pub after: BTreeMap<usize, Reached>,
    /// After how many steps the run ended, and why.
    pub ended: Option<(usize, Ending)>,
}

impl Record {
    /// What the model of before makes of the images, of their look-alikes, and of retained images. Of many images only those
    /// are looked at closely that it may know, unless the first `always` are to be led in any case.
    fn measure(
        viewer: &Viewer,
        network: &dyn Denoiser,
        requests: &Requests,
    ) -> Result<(Self, Option<Ordinary>), Failure> {
        let always = requests.always;
        let rows = &viewer.look_alikes.rows;
        let found = match viewer.look_alikes.are_controls {
            true => None,
            false => Some(viewer.ordinary(network)?),
        };
        let ordinary = found.unwrap_or(Ordinary::UNCHANGED);
        let mut before = match rows.len() > MANY && always == 0 {
            true => viewer.screened(network, &ordinary)?,
            false => Vec::new(),
        };
        let closely: Vec<usize> = match before.is_empty() {
            true => (0..rows.len()).collect(),
            false => (0..rows.len())
                .filter(|&image| before[image].is_suspect())
                .collect(),
        };
        let bar = progress::bar("what the model knows", closely.len(), "images");
        let mut levels = vec![Vec::new(); rows.len()];
        for image in closely {
            let standing = viewer.standing(network, image, Purpose::Stop, &ordinary)?;
            if image < always || requests.is_back(rows[image], &standing) {
                let level = viewer.level(network, image, &ordinary)?;
                let points = level.points().iter();
                levels[image] = points
                    .map(|(time, error)| (time.value(), *error as f32))
                    .collect();
            }
            match before.get_mut(image) {
                Some(rough) => *rough = standing,
                None => before.push(standing),
            }
            bar.inc(1);
        }
        let record = Self {
            rows: rows.clone(),
            levels,
            before,
            lambda: 0.0,
            retained: viewer.retained(network)?,
            retained_after: None,
            rounds: Vec::new(),
            after: BTreeMap::new(),
            ended: None,
        };
        Ok((record, found))
    }

    /// How many of the distinct images in these rows, ascending, the model knew before the run, and how many there are.
    pub fn known(&self, rows: &[usize]) -> [usize; 2] {
        let standings = self.rows.iter().zip(&self.before);
        let of_rows = standings.filter(|(row, _)| rows.binary_search(row).is_ok());
        let known: Vec<bool> = of_rows
            .map(|(_, standing)| standing.place() == Place::Known)
            .collect();
        [known.iter().filter(|known| **known).count(), known.len()]
    }

    /// The rows of the images that were led and are known no more, with the mean logarithms of their errors before and after.
    /// Errors that are no numbers are left out.
    pub fn led(&self) -> impl Iterator<Item = (usize, [f64; 2])> {
        let led = self.after.iter();
        let led = led
            .filter(|(_, reached)| reached.place != Place::Known)
            .map(|(&image, reached)| (self.rows[image], [self.before[image].own, reached.own]));
        led.filter(|(_, errors)| errors.iter().all(|error| error.is_finite()))
    }

    /// The retained images' error after the last round, as a multiple of what it was before.
    pub fn damage(&self) -> Option<f64> {
        let damage = self.retained_after? / self.retained;
        damage.is_finite().then_some(damage)
    }

    /// The settings that a run came to, after so many steps.
    pub fn taken(&self, settings: &Recipe, steps: usize) -> Recipe {
        let mut taken = Recipe {
            steps,
            ..settings.clone()
        };
        taken.strengths.set("lambda", self.lambda.into());
        taken
    }

    /// The same of a run that has ended.
    pub fn came_to(&self, settings: &Recipe) -> Recipe {
        let (steps, _) = self.ended.unwrap_or((settings.steps, Ending::Bound));
        self.taken(settings, steps)
    }

    /// Reads what an interrupted run had measured.
    ///
    /// # Errors
    /// The system's, a file that is none.
    pub fn read(folder: &Path) -> Result<Self, Failure> {
        let path = folder.join(FILE);
        let text = fs::read(&path).map_err(|error| Failure::read(&path, error))?;
        serde_json::from_slice(&text).map_err(|error| Failure::read(&path, error))
    }

    /// Puts it into the run's folder.
    ///
    /// # Errors
    /// The system's.
    pub fn write(&self, folder: &Path) -> Result<(), Failure> {
        let text = serde_json::to_vec_pretty(self).expect("plain data");
        model::write(&folder.join(FILE), &text)
    }

    /// The level of each row that is led, given with the number of its image.
    pub fn levels<'a>(
        &self,
        rows: impl IntoIterator<Item = (&'a usize, &'a usize)>,
    ) -> HashMap<usize, Level> {
        let level = |image: usize| {
            let points = self.levels[image].iter();
            Level::new(
                points
                    .map(|&(time, error)| (Time::new(time), error.into()))
                    .collect(),
            )
        };
        let led = rows
            .into_iter()
            .filter(|(_, image)| !self.levels[**image].is_empty());
        led.map(|(row, image)| (*row, level(*image))).collect()
    }

    /// The round of a step, counted from 0.
    fn round(&self, step: usize) -> &Round {
        let round = self.rounds.iter().rev().find(|round| round.from <= step);
        round.expect("there is a first round")
    }
}

/// How often images that stand so are drawn in each part of the process. The picture is decided where errors are small, and
/// small errors move a network little; where the images are not known there is little to do.
fn shares<'a>(standings: impl Iterator<Item = &'a Standing>, seldom: f64) -> Vec<f32> {
    /// From this ratio of errors on an image counts as known.
    const KNOWN: f64 = 4.0;
    let of = |Standing {
                  profile, levels, ..
              }: &Standing|
     -> Vec<f64> {
        let share = |(own, [level, ..]): (&f64, &[f64; 3])| {
            let known = ((level / own).ln() / KNOWN.ln()).clamp(0.0, 1.0);
            let often = (levels[0][0] / level).sqrt().clamp(1.0, OFTEN);
            seldom + known * (often - seldom)
        };
        profile.iter().zip(levels).map(share).collect()
    };
    let shares: Vec<Vec<f64>> = standings.map(of).collect();
    let mean_of = |part: usize| mean(&shares.iter().map(|one| one[part]).collect::<Vec<_>>());
    let means = (0..PARTS).map(mean_of);
    // Errors that are none, of a broken model, decide nothing.
    means
        .map(|share| if share.is_finite() { share as f32 } else { 1.0 })
        .collect()
}

/// Leads a run's images to unknown.
pub struct Calibrated<'a> {
    /// What was measured and decided.
    pub record: Record,
    /// What was ordinary among retained images, where a run that was not interrupted looked at them.
    pub ordinary: Option<Ordinary>,
    /// Numbers of the images that are led.
    led: Vec<usize>,
    viewer: &'a Viewer<'a>,
    /// The retained images' error may grow by this factor.
    room: f64,
    /// The run's.
    folder: PathBuf,
}

/// What is asked of a run, and what those before it did.
pub struct Requests<'a> {
    /// So many of the first images are led although the model may not know them.
    pub always: usize,
    /// Of the images that an earlier request led: the mean logarithm of their error before and after it, by row.
    pub led: &'a BTreeMap<usize, [f64; 2]>,
    /// How much worse they left retained images, a factor.
    pub damage: f64,
}

impl Requests<'_> {
    /// Whether the model knows an image; of one that was led before: whether it is nearer to where it was than to where it was
    /// led. Its look-alikes were led with it and tell little now.
    fn is_back(&self, row: usize, standing: &Standing) -> bool {
        let led = self.led.get(&row).copied();
        standing.clone().with_led(led).place() == Place::Known
    }
}

impl<'a> Calibrated<'a> {
    /// What the model knows before its first step; what an interrupted run in `folder` had found is read again.
    ///
    /// # Errors
    /// Images that do not fit the network, a record that cannot be read.
    pub fn begin(
        viewer: &'a Viewer,
        network: &dyn Denoiser,
        folder: PathBuf,
        requests: Requests<'a>,
    ) -> Result<Self, Failure> {
        let (record, ordinary) = match folder.join(FILE).exists() {
            true => (Record::read(&folder)?, None),
            false => Record::measure(viewer, network, &requests)?,
        };
        // Only of these is there a level.
        let led = |image: &usize| !record.levels[*image].is_empty();
        Ok(Self {
            led: (0..record.rows.len()).filter(led).collect(),
            room: (DAMAGED / requests.damage).max(LEAST_ROOM),
            record,
            ordinary,
            viewer,
            folder,
        })
    }

    /// What the run will do, for people.
    pub fn outlook(&self) -> String {
        let images = counted(self.record.rows.len(), "distinct image");
        match self.led.len() {
            0 => format!(
                "{images}, none of which the model knows better than look-alikes: no step is taken"
            ),
            led => format!(
                "{images}, {led} known better than look-alikes: rounds of {ROUND} steps, at most {}, until none is",
                self.rounds()
            ),
        }
    }

    /// Rounds, at most.
    fn rounds(&self) -> usize {
        ROUNDS + self.led.len() / SHARING
    }

    /// Steps, at most.
    pub fn steps(&self) -> usize {
        ROUND * self.rounds()
    }

    /// The rows that are led.
    pub fn rows(&self) -> Vec<usize> {
        self.viewer.look_alikes.rows_of(&self.led)
    }

    /// What the run minimizes: `rate` is the first round's. The forgotten images' weight follows from the two gradients at the
    /// first step.
    ///
    /// # Errors
    /// Images that do not fit the network, a file that cannot be written.
    pub fn objective(
        &mut self,
        pass: &Pass,
        feed: &Feed,
        rate: f64,
    ) -> Result<Box<dyn Objective>, Failure> {
        let gate = Arc::new(Gate {
            levels: self.record.levels(&self.viewer.look_alikes.of_row),
            band: BAND,
            reach: REACH,
            near: NEAR,
        });
        let objective = |lambda| ReTrack {
            lambda,
            gate: Some(gate.clone()),
        };
        let length = |term| -> Result<f64, Failure> {
            let mut sum = None;
            pass.backward([term], &mut sum).map_err(TrainError::from)?;
            Ok(sum.map_or(0.0, |gradient| gradient.norm()))
        };
        if self.record.rounds.is_empty() && !self.led.is_empty() {
            let standings = self.led.iter().map(|&image| &self.record.before[image]);
            let round = Round {
                from: 0,
                rate,
                images: self.led.clone(),
                shares: shares(standings, SELDOM[0]),
            };
            let focus = self.focus(&round);
            let objective = objective(1.0);
            let batch = feed.focused(&focus, 0, 0, objective.draws())?;
            let forgetting = objective.forgetting(pass, &batch, 1.0);
            let (forgetting, _) = forgetting.map_err(TrainError::from)?;
            let keeping = objective.keeping(pass, &batch, 1.0);
            let (forget, retain) = (length(forgetting)?, length(keeping)?);
            let lambda = FORGET * retain / (FORGET * retain + forget);
            // What is no number ends the run at its first step.
            self.record.lambda = if lambda.is_finite() {
                lambda as f32
            } else {
                0.5
            };
            self.record.rounds.push(round);
            self.record.write(&self.folder)?;
        }
        Ok(Box::new(objective(self.record.lambda.into())))
    }

    /// How a round draws.
    fn focus(&self, round: &Round) -> Focus {
        Focus {
            rows: self.viewer.look_alikes.rows_of(&round.images),
            shares: round.shares.iter().map(|share| (*share).into()).collect(),
        }
    }

    fn end(&mut self, step: usize, ending: Ending) -> Result<bool, Failure> {
        match ending {
            Ending::Unknown | Ending::NothingToDo => (),
            Ending::Bound => progress::warn(format!(
                "after {step} steps not every image is denoised like its look-alikes; the report says how they stand"
            )),
            Ending::Damaged => progress::warn(format!(
                "ended after {step} steps: retained images are denoised more than {:.0}% worse than before, and what requests \
                 take together is to stay near a quarter",
                100.0 * (self.room - 1.0)
            )),
        }
        self.record.ended = Some((step, ending));
        self.record.write(&self.folder)?;
        model::write(&self.folder.join(TABLE), self.record.table().as_bytes())?;
        Ok(true)
    }

    /// The round after `step`, or why there is none.
    fn next(
        &mut self,
        network: &dyn Denoiser,
        step: usize,
    ) -> Result<Result<Round, Ending>, Failure> {
        let retained = self.viewer.retained(network)?;
        self.record.retained_after = Some(retained);
        let mut known = Vec::new();
        let mut standings = Vec::with_capacity(self.led.len());
        for &image in &self.led {
            let before = &self.record.before[image];
            let standing = self.viewer.beside(network, image, Purpose::Stop, before)?;
            progress::detail(format_args!("image {image}: {standing}"));
            let place = standing.place_after(before);
            let reached = Reached {
                ratio: standing.ratio_after(before),
                own: standing.own,
                place,
            };
            self.record.after.insert(image, reached);
            if place == Place::Known {
                known.push(standing.left() / before.left());
            }
            standings.push(standing);
        }
        let even = are_even(&standings);
        let done = |(image, standing): (&usize, &Standing)| {
            let unknown = self.record.after[image].place == Place::Unknown;
            unknown && (even || are_even(std::slice::from_ref(standing)))
        };
        if self.led.iter().zip(&standings).all(done) {
            return Ok(Err(Ending::Unknown));
        } else if retained > self.room * self.record.retained {
            return Ok(Err(Ending::Damaged));
        } else if self.record.rounds.len() == self.rounds() {
            return Ok(Err(Ending::Bound));
        }
        // What has hardly arrived would come back with nobody at it.
        let drawn = |(image, standing): &(usize, Standing)| {
            !done((image, standing)) || standing.is_suspect()
        };
        let (images, standings): (Vec<usize>, Vec<Standing>) = self
            .led
            .iter()
            .copied()
            .zip(standings)
            .filter(drawn)
            .unzip();
        let last = self.record.round(step - 1).rate;
        let rate = if mean(&known) > 0.5 && self.led.len() <= SHARING {
            // Not half of the way. Images that share a round are not led as far in it.
            2.0 * last
        } else if known.is_empty() {
            0.5 * last
        } else {
            last
        };
        Ok(Ok(Round {
            from: step,
            rate,
            images,
            shares: shares(standings.iter(), SELDOM[1]),
        }))
    }
}

impl Course for Calibrated<'_> {
    fn is_over(&mut self, trainer: &mut Trainer) -> Result<bool, Failure> {
        let step = trainer.step;
        if let Some((end, _)) = self.record.ended {
            return Ok(step >= end);
        }
        if self.led.is_empty() {
            return self.end(step, Ending::NothingToDo);
        }
        let last = self.record.rounds.last().expect("there is a first round");
        if step == last.from + ROUND {
            let network = trainer.network().valid();
            match self.next(&*network, step)? {
                Err(ending) => return self.end(step, ending),
                Ok(round) => {
                    self.record.rounds.push(round);
                    self.record.write(&self.folder)?;
                }
            }
        }
        let round = self.record.round(step);
        trainer.learning_rate = LearningRate::Round {
            rate: round.rate,
            warmup: WARMUP,
            from: round.from,
            steps: ROUND,
        };
        trainer.focus = Some(self.focus(round));
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_that_was_led_is_back_once_it_is_nearer_to_where_it_was() {
        let led = BTreeMap::from([(7, [0.01f64.ln(), 0.09f64.ln()])]);
        let requests = Requests {
            always: 0,
            led: &led,
            damage: 1.0,
        };
        // Its look-alikes were led with it: by them alone it is known.
        let stands = |own| Standing::even(own, 0.2);
        assert!(requests.is_back(3, &stands(0.08)));
        for (own, back) in [(0.08, false), (0.04, false), (0.02, true), (0.01, true)] {
            assert_eq!(requests.is_back(7, &stands(own)), back, "{own}");
        }
    }
}
