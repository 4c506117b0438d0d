//! Whether training destroys what it should keep, while every number is still finite.

use std::collections::VecDeque;

use burn::module::Module;
use retrack_networks::denoiser::Denoiser;

use crate::batch::Noised;
use crate::feed::Feed;
use crate::objective::Pass;
use crate::trainer::{TrainError, Trainer};

/// Losses of steps whose mean is the start: few, because a collapse may begin with the first.
const START: usize = 5;
/// Losses of steps whose mean is compared with it: one step's is mostly the luck of its timesteps.
const STEPS: usize = 10;
/// How many times its start the loss of the retained images may reach. Four images a step reach 3.2 by luck alone; a
/// rate ten times too high reaches 17 within 25 steps (the demo's network).
const FACTOR: f64 = 5.0;
/// Retained images that are looked at where a method's own loss does not speak of them.
const WATCHED: usize = 16;
/// Steps between two looks. With the published batch of 128, whose backward pass costs two forward passes, 16 images
/// every five steps are 0.8% of NegGrad's work.
const EVERY: usize = 5;

/// Watches the loss of the retained images against its own start.
#[derive(Debug, Clone)]
pub struct CollapseWatch {
    /// How many losses make the start, and how many are compared with it.
    start_len: usize,
    recent_len: usize,
    start: Vec<f64>,
    recent: VecDeque<f64>,
    warned: bool,
}

impl CollapseWatch {
    /// Of losses whose images, noises and timesteps differ from step to step.
    pub fn of_steps() -> Self {
        Self::new(START, STEPS)
    }

    /// Of losses that are all of the same images, noises and timesteps: nothing in them is luck.
    pub fn of_the_same() -> Self {
        Self::new(1, 1)
    }

    fn new(start_len: usize, recent_len: usize) -> Self {
        Self {
            start_len,
            recent_len,
            start: Vec::new(),
            recent: VecDeque::new(),
            warned: false,
        }
    }

    /// Takes the next loss. Returns how many times its start the loss has reached, once, where that is too much: the
    /// mean of the last ones more than five times that of the first ones.
    pub fn see(&mut self, retain_loss: f64) -> Option<f64> {
        if self.start.len() < self.start_len {
            self.start.push(retain_loss);
            return None;
        }
        self.recent.push_back(retain_loss);
        if self.recent.len() > self.recent_len {
            self.recent.pop_front();
        }
        let mean = |sum: f64, count: usize| sum / count as f64;
        let start = mean(self.start.iter().sum(), self.start.len());
        let recent = mean(self.recent.iter().sum(), self.recent.len());
        let factor = recent / start;
        // Written so that a loss that is no number counts as too much.
        let within = factor <= FACTOR;
        let collapsed = self.recent.len() == self.recent_len && !within && !self.warned;
        self.warned |= collapsed;
        collapsed.then_some(factor)
    }
}

/// Watches a few retained images, always the same with the same noise, for methods whose own loss does not speak of
/// them. It looks at the network without a gradient and draws nothing that a step draws: the run computes what it
/// computes without.
pub struct RetainedWatch {
    images: Vec<Noised>,
    watch: CollapseWatch,
}

impl RetainedWatch {
    /// `None` where the trainer's method reports the retained images' loss itself. The start is the loss of the
    /// network as it is now: of a resumed run, before the trainer resumes.
    ///
    /// # Errors
    /// An image that cannot be read or does not fit the network.
    pub fn new<M: Module + Denoiser>(
        trainer: &Trainer<M>,
        feed: &Feed,
    ) -> Result<Option<Self>, TrainError> {
        if trainer.objective.reports_retain() {
            return Ok(None);
        }
        let mut watch = Self {
            images: feed.watched(WATCHED)?,
            watch: CollapseWatch::of_the_same(),
        };
        let start = watch.loss(trainer)?;
        watch.watch.see(start);
        Ok(Some(watch))
    }

    /// Every few steps: the loss now, and how many times its start it is where that is too much.
    ///
    /// # Errors
    /// Images that do not fit the network.
    pub fn see<M: Module + Denoiser>(
        &mut self,
        trainer: &Trainer<M>,
    ) -> Result<Option<(f64, Option<f64>)>, TrainError> {
        if !trainer.step.is_multiple_of(EVERY) {
            return Ok(None);
        }
        let loss = self.loss(trainer)?;
        Ok(Some((loss, self.watch.see(loss))))
    }

    fn loss<M: Module + Denoiser>(&self, trainer: &Trainer<M>) -> Result<f64, TrainError> {
        let network = trainer.network().valid();
        let pass = Pass {
            network: &network,
            schedule: &trainer.schedule,
            device: &trainer.device.clone().without_autodiff(),
            dropout: None,
        };
        let mut sum = 0.0;
        for images in &self.images {
            sum += pass.error(images)? * images.len() as f64;
        }
        let count: usize = self.images.iter().map(Noised::len).sum();
        Ok(sum / count as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_that_multiplies_is_seen_once() {
        let mut watch = CollapseWatch::of_steps();
        let growing = (0..60).map(|i| 20.0 + 4.0 * f64::from(i));
        let losses = std::iter::repeat_n(20.0, START).chain(growing);
        let seen: Vec<f64> = losses.filter_map(|loss| watch.see(loss)).collect();
        assert_eq!(seen.len(), 1);
        assert!((seen[0] - 5.1).abs() < 1e-9, "{seen:?}");
    }

    #[test]
    fn luck_is_no_collapse() {
        let mut watch = CollapseWatch::of_steps();
        let losses = (0..200).map(|i| if i % 7 == 0 { 90.0 } else { 15.0 });
        assert_eq!(losses.filter_map(|loss| watch.see(loss)).count(), 0);
    }
    #[test]
    fn of_the_same_images_one_loss_is_enough() {
        let mut watch = CollapseWatch::of_the_same();
        let seen = [2.0, 9.0, 10.5, 40.0].map(|loss| watch.see(loss));
        assert_eq!(seen, [None, None, Some(5.25), None]);
        let mut watch = CollapseWatch::of_the_same();
        assert_eq!(watch.see(2.0), None);
        assert!(watch.see(f64::NAN).is_some());
    }
}
