//! The training loop's one step, shared by unlearning and by training from scratch.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Instant;

use burn::tensor::Device;
use retrack_networks::denoiser::InputError;
use retrack_networks::network::Network;
use retrack_networks::process::Process;
use retrack_networks::random::Stream;

use crate::feed::{Feed, Focus};
use crate::objective::{Losses, NotFinite, Objective, Pass, PassError, Sums};
use crate::optimizer::{AdamW, Ema, LearningRate};
use crate::watch::CollapseWatch;
use retrack_data::DataError;

/// Why a step did not happen. The network is as it was before.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// Images that cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Images that do not fit the network.
    #[error(transparent)]
    Input(#[from] InputError),
    /// A loss or gradient that is not finite.
    #[error("the {what} is {value} at step {step}")]
    NotFinite {
        /// What it is, as "loss".
        what: &'static str,
        /// NaN or infinity.
        value: f64,
        /// The step, counted from 1.
        step: usize,
    },
}

/// A network in training.
pub struct Trainer {
    /// `None` only while a step replaces it.
    network: Option<Network>,
    /// The network's way to noise.
    pub process: Arc<dyn Process>,
    /// Where the network is; with autodiff.
    pub device: Device,
    /// What is minimized.
    pub objective: Box<dyn Objective>,
    /// What turns gradients into steps.
    pub optimizer: AdamW,
    /// How large the steps are.
    pub learning_rate: LearningRate,
    /// How the next steps draw forgotten images; `None`: all that the feed has, at all times.
    pub focus: Option<Focus>,
    /// The average of the weights over the run, where one is kept.
    pub ema: Option<Ema>,
    /// What the retained images' loss was at first, and lately.
    pub watch: CollapseWatch,
    /// Steps taken.
    pub step: usize,
}

/// What one step did.
#[derive(Debug, Clone, PartialEq)]
pub struct StepReport {
    /// Counted from 1.
    pub step: usize,
    /// Means over the step's images.
    pub losses: Losses,
    /// Before clipping.
    pub gradient_norm: f64,
    /// Of this step.
    pub learning_rate: f64,
    /// That the step took.
    pub seconds: f64,
    /// The loss of [`crate::watch::RetainedWatch`] after the step, where it was looked at.
    pub watched_retain: Option<f64>,
    /// How many times its start the retained images' loss has reached, at the step where that is too much.
    pub collapsed: Option<f64>,
}

impl From<PassError> for TrainError {
    fn from(error: PassError) -> Self {
        match error {
            PassError::Input(error) => Self::Input(error),
            PassError::Data(error) => Self::Data(error),
        }
    }
}

impl Trainer {
    /// `network` lives on a device with autodiff.
    pub fn new(
        network: Network,
        process: Arc<dyn Process>,
        device: Device,
        objective: Box<dyn Objective>,
        optimizer: AdamW,
        learning_rate: LearningRate,
    ) -> Self {
        let watch = match objective.reports_retain() {
            true => CollapseWatch::of_steps(),
            false => CollapseWatch::of_the_same(),
        };
        Self {
            network: Some(network),
            process,
            device,
            objective,
            optimizer,
            learning_rate,
            focus: None,
            ema: None,
            watch,
            step: 0,
        }
    }

    /// The network as it is after the last step.
    pub fn network(&self) -> &Network {
        self.network.as_ref().expect("no step is under way")
    }

    /// Puts what `change` makes of the network in its place.
    pub fn replace_network(&mut self, change: impl FnOnce(Network) -> Network) {
        self.network = self.network.take().map(change);
    }

    /// One step over all micro-batches of `feed`.
    ///
    /// # Errors
    /// Data that cannot be read, images that do not fit, a loss or gradient that is not finite.
    pub fn step(&mut self, feed: &Feed) -> Result<StepReport, TrainError> {
        let start = Instant::now();
        let mut sums = Sums::default();
        let mut losses = Losses::default();
        for micro in 0..feed.accumulate() {
            let draws = self.objective.draws();
            let batch = match &self.focus {
                Some(focus) => feed.focused(focus, self.step, micro, draws)?,
                None => feed.batch(self.step, micro, draws)?,
            };
            let masks = (self.step * feed.accumulate() + micro) as u64;
            let pass = Pass {
                network: &**self.network(),
                process: &*self.process,
                device: &self.device,
                dropout: Some(RefCell::new(feed.random().stream(Stream::Dropout, masks))),
            };
            let part = self.objective.backward(&pass, &batch, &mut sums)?;
            losses.accumulate(&part, feed.accumulate());
        }
        let at_step = |NotFinite { what, value }| TrainError::NotFinite {
            what,
            value,
            step: self.step + 1,
        };
        losses.check().map_err(at_step)?;
        let combined = self.objective.combine(sums.divide(feed.accumulate()));
        let gradient = combined.map_err(at_step)?;
        let norm = NotFinite::check("gradient's norm", gradient.norm()).map_err(at_step)?;

        let learning_rate = self.learning_rate.at(self.step);
        let network = self.network.take().expect("no step is under way");
        let network = self.optimizer.step(network, gradient, norm, learning_rate);
        if let Some(ema) = &mut self.ema {
            ema.update(&network);
        }
        self.network = Some(network);
        self.step += 1;
        Ok(StepReport {
            step: self.step,
            losses,
            gradient_norm: norm,
            learning_rate,
            seconds: start.elapsed().as_secs_f64(),
            watched_retain: None,
            collapsed: None,
        })
    }
}
