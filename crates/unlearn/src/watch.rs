//! Whether training destroys what it should keep, while every number is still finite.

use std::collections::VecDeque;

use burn::module::Module;
use serde_json::{Value, json};

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

/// Watches the loss of the retained images against its own start. Part of a run's state: one that goes on compares with
/// what it began with, and says once what it has seen.
#[derive(Debug, Clone, PartialEq)]
pub struct CollapseWatch {
    /// How many losses make the start, and how many are compared with it.
    start_len: usize,
    recent_len: usize,
    start: Vec<f64>,
    recent: VecDeque<f64>,
    /// How many times its start the loss had reached when that was too much.
    collapsed: Option<f64>,
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
            collapsed: None,
        }
    }

    /// Whether it knows no loss yet.
    pub fn is_new(&self) -> bool {
        self.start.is_empty()
    }

    /// How many times its start the loss had reached when that was too much.
    pub fn collapsed(&self) -> Option<f64> {
        self.collapsed
    }

    /// The state, as [`restore`](Self::restore) reads it: numbers as their bits, because one may be no number.
    pub fn to_json(&self) -> Value {
        let bits = |value: &f64| value.to_bits();
        json!({
            "start": self.start.iter().map(bits).collect::<Vec<_>>(),
            "recent": self.recent.iter().map(bits).collect::<Vec<_>>(),
            "collapsed": self.collapsed.as_ref().map(bits),
        })
    }

    /// Takes the state of a watch of the same kind. `None` if that is not one.
    pub fn restore(&mut self, state: &Value) -> Option<()> {
        let number = |value: &Value| value.as_u64().map(f64::from_bits);
        let numbers = |key: &str| -> Option<Vec<f64>> {
            state.get(key)?.as_array()?.iter().map(number).collect()
        };
        let (start, recent) = (numbers("start")?, numbers("recent")?);
        let collapsed = match state.get("collapsed")? {
            Value::Null => None,
            value => Some(number(value)?),
        };
        if start.len() > self.start_len || recent.len() > self.recent_len {
            return None;
        }
        self.start = start;
        self.recent = recent.into();
        self.collapsed = collapsed;
        Some(())
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
        if self.recent.len() < self.recent_len || within || self.collapsed.is_some() {
            return None;
        }
        self.collapsed = Some(factor);
        self.collapsed
    }
}

/// A few retained images, always the same with the same noise, for methods whose own loss does not speak of them. It
/// looks at the network without a gradient and draws nothing that a step draws: the run computes what it computes
/// without.
pub struct RetainedWatch {
    images: Vec<Noised>,
}

impl RetainedWatch {
    /// `None` where the trainer's method reports the retained images' loss itself. The start is the loss of the
    /// network as it is now, unless the trainer has resumed: then it is what the run began with.
    ///
    /// # Errors
    /// An image that cannot be read or does not fit the network.
    pub fn begin(trainer: &mut Trainer, feed: &Feed) -> Result<Option<Self>, TrainError> {
        if trainer.objective.reports_retain() {
            return Ok(None);
        }
        let watch = Self {
            images: feed.watched(WATCHED)?,
        };
        if trainer.watch.is_new() {
            let start = watch.loss(trainer)?;
            trainer.watch.see(start);
        }
        Ok(Some(watch))
    }

    /// Every few steps: the loss now.
    ///
    /// # Errors
    /// Images that do not fit the network.
    pub fn look(&self, trainer: &Trainer) -> Result<Option<f64>, TrainError> {
        match trainer.step.is_multiple_of(EVERY) {
            true => self.loss(trainer).map(Some),
            false => Ok(None),
        }
    }

    fn loss(&self, trainer: &Trainer) -> Result<f64, TrainError> {
        let network = trainer.network().valid();
        let pass = Pass {
            network: &*network,
            process: &*trainer.process,
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
    fn a_watch_that_is_written_and_read_goes_on_as_if_it_never_stopped() {
        let growing = (0..40).map(|i| 20.0 + 4.0 * f64::from(i));
        let losses: Vec<f64> = std::iter::repeat_n(20.0, START)
            .chain(growing)
            .chain([f64::NAN, f64::INFINITY])
            .collect();
        let mut whole = CollapseWatch::of_steps();
        let of_whole: Vec<_> = losses.iter().map(|&loss| whole.see(loss)).collect();
        assert_eq!(of_whole.iter().flatten().count(), 1);
        for stops in [vec![2], vec![7, 9], (0..losses.len()).collect()] {
            let mut parts = CollapseWatch::of_steps();
            let mut of_parts = Vec::new();
            for (step, &loss) in losses.iter().enumerate() {
                if stops.contains(&step) {
                    let text = parts.to_json().to_string();
                    parts = CollapseWatch::of_steps();
                    parts
                        .restore(&serde_json::from_str(&text).unwrap())
                        .unwrap();
                }
                of_parts.push(parts.see(loss));
            }
            assert_eq!(of_parts, of_whole, "{stops:?}");
            assert_eq!(parts.collapsed(), whole.collapsed());
        }
    }

    #[test]
    fn what_is_no_watch_is_not_read_as_one() {
        let mut watch = CollapseWatch::of_the_same();
        for state in [
            json!({}),
            json!({"start": [], "recent": []}),
            json!({"start": [1.5], "recent": [], "collapsed": null}),
            json!({"start": [1, 2], "recent": [], "collapsed": null}),
            json!({"start": [1], "recent": [1, 2], "collapsed": null}),
            json!({"start": [1], "recent": [1], "collapsed": "5"}),
        ] {
            assert_eq!(watch.restore(&state), None, "{state}");
        }
        assert!(watch.is_new());
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
