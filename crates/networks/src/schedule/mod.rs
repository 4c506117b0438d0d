//! Noise schedules and samplers: what a `scheduler_config.json` says, computed as diffusers computes it.
//!
//! A noisy image is `x_t = g * x0 + s * e` with `g = sqrt(abar_t)`, `s = sqrt(1 - abar_t)` and `e ~ N(0, I)`.
//! [`NoiseSchedule`] holds `abar` and converts between what a network may predict; [`Ddpm`] and [`Ddim`] walk from
//! noise to an image. Noise is always an argument. All of it is elementwise (dynamic thresholding aside, which
//! looks at one image at a time), so the layout of the last three dimensions does not matter.

mod betas;
mod clip;
mod config;
mod ddim;
mod ddpm;
mod noise;
mod timesteps;

pub use clip::Clip;
pub use config::{
    BetaSchedule, Prediction, SchedulerConfig, SchedulerKind, TimestepSpacing, Variance,
};
pub use ddim::Ddim;
pub use ddpm::Ddpm;
pub use noise::NoiseSchedule;

use burn::tensor::Tensor;

/// What can be wrong with a scheduler's configuration or with what is asked of it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ScheduleError {
    /// The configuration is not a JSON object.
    #[error("scheduler config: expected a JSON object, found {found}")]
    NotAnObject { found: String },
    /// A key asks for other mathematics than is built here.
    #[error("scheduler config: `{key}`: {value} is not supported; supported: {supported}")]
    Unsupported {
        key: &'static str,
        value: String,
        supported: &'static str,
    },
    /// A key holds a value of the wrong type or range.
    #[error("scheduler config: `{key}`: {value} is not valid; expected {expected}")]
    Invalid {
        key: &'static str,
        value: String,
        expected: String,
    },
    /// More steps than the network was trained with, or none.
    #[error("{steps} sampling steps asked for, but the scheduler allows 1 to {train_steps}")]
    InferenceSteps { steps: usize, train_steps: usize },
    /// `steps_offset` moves the first timestep past the trained ones.
    #[error(
        "scheduler config: `steps_offset`: {offset} moves the first of {steps} sampling steps to timestep {timestep}, \
         but the last trained one is {last}; use fewer steps"
    )]
    OffsetOutOfRange {
        offset: usize,
        steps: usize,
        timestep: usize,
        last: usize,
    },
    /// The first step starts from pure noise, whose predicted noise says nothing about the image.
    #[error(
        "scheduler config: `prediction_type`: \"epsilon\" cannot start at timestep {timestep}, where \
         `rescale_betas_zero_snr` leaves no signal; use fewer steps with \"leading\" spacing"
    )]
    NoSignal { timestep: usize },
    /// DDIM's weight of fresh noise.
    #[error("eta is {eta}, expected 0 (deterministic) to 1 (as noisy as DDPM)")]
    Eta { eta: f64 },
    /// A timestep from outside that the schedule does not have.
    #[error("timestep {timestep} is outside of the schedule's 0 to {last}")]
    Timestep { timestep: i64, last: usize },
}

/// Either sampler, for callers that choose at run time.
#[derive(Debug, Clone)]
pub enum Sampler {
    Ddpm(Ddpm),
    Ddim(Ddim),
}

impl Sampler {
    /// A sampler of the given kind; the configuration may have been saved by another kind, as with diffusers' `from_config`.
    ///
    /// # Errors
    ///
    /// As [`Ddpm::new`] and [`Ddim::new`].
    pub fn new(
        kind: SchedulerKind,
        config: &SchedulerConfig,
        inference_steps: usize,
    ) -> Result<Self, ScheduleError> {
        Ok(match kind {
            SchedulerKind::Ddpm => Self::Ddpm(Ddpm::new(config, inference_steps)?),
            SchedulerKind::Ddim => Self::Ddim(Ddim::new(config, inference_steps)?),
        })
    }

    /// The timesteps to visit, from noise to image.
    pub fn timesteps(&self) -> &[usize] {
        match self {
            Self::Ddpm(sampler) => sampler.timesteps(),
            Self::Ddim(sampler) => sampler.timesteps(),
        }
    }

    /// The forward process that it undoes.
    pub fn schedule(&self) -> &NoiseSchedule {
        match self {
            Self::Ddpm(sampler) => sampler.schedule(),
            Self::Ddim(sampler) => sampler.schedule(),
        }
    }

    /// One step towards the image: see [`Ddpm::step`] and [`Ddim::step`].
    pub fn step(
        &self,
        output: Tensor<4>,
        timestep: usize,
        sample: Tensor<4>,
        noise: impl FnOnce() -> Tensor<4>,
    ) -> Tensor<4> {
        match self {
            Self::Ddpm(sampler) => sampler.step(output, timestep, sample, noise),
            Self::Ddim(sampler) => sampler.step(output, timestep, sample, noise),
        }
    }
}
