//! Noise schedules and samplers: what a `scheduler_config.json` says, computed as diffusers computes it.
//!
//! [`NoiseSchedule`] is the [`Process`] of discrete betas; [`Ddpm`], [`Ddim`], [`Pndm`] and [`Euler`] walk from noise to an image. Noise
//! is always an argument. All of it is elementwise (dynamic thresholding aside, which
//! looks at one image at a time), so the layout of the last three dimensions does not matter.

mod betas;
mod classes;
mod clip;
mod config;
mod ddim;
mod ddpm;
mod euler;
mod flow;
mod keys;
mod noise;
mod pndm;
mod timesteps;

pub use clip::Clip;
pub use config::{
    BetaSchedule, Prediction, SchedulerConfig, SchedulerKind, SigmaSpacing, Sigmas,
    TimestepSpacing, Variance,
};
pub use ddim::Ddim;
pub use ddpm::Ddpm;
pub use euler::Euler;
pub use flow::{DynamicShift, Flow, FlowEuler, FlowMatching};
pub use noise::NoiseSchedule;
pub use pndm::{Pndm, PndmState};

use burn::tensor::Tensor;

use crate::process::{Process, Time};

/// What can be wrong with a scheduler's configuration or with what is asked of it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ScheduleError {
    /// The configuration is not a JSON object.
    #[error("scheduler config: expected a JSON object, found {found}")]
    NotAnObject {
        /// What it is.
        found: String,
    },
    /// A key asks for other mathematics than is built here.
    #[error("scheduler config: `{key}`: {value} is not supported; supported: {supported}")]
    Unsupported {
        /// The key.
        key: &'static str,
        /// Its value, as JSON.
        value: String,
        /// The values that are built.
        supported: &'static str,
    },
    /// A scheduler of networks that are trained in another way.
    #[error(
        "scheduler config: `_class_name`: {name:?} is not supported: {reason}; supported: {supported}",
        supported = classes::SUPPORTED
    )]
    Class {
        /// The class.
        name: String,
        /// Why not.
        reason: &'static str,
    },
    /// A key holds a value of the wrong type or range.
    #[error("scheduler config: `{key}`: {value} is not valid; expected {expected}")]
    Invalid {
        /// The key.
        key: &'static str,
        /// Its value, as JSON.
        value: String,
        /// What it would have to be.
        expected: String,
    },
    /// The betas leave no signal that f32 can hold.
    #[error(
        "scheduler config: {keys}: with that, nothing of the image is left in f32 from timestep {timestep} on; expected \
         smaller betas or a smaller `num_train_timesteps`"
    )]
    LostSignal {
        /// The keys that decide it, with their values.
        keys: String,
        /// The timestep.
        timestep: usize,
    },
    /// More steps than the network was trained with, or none.
    #[error("{steps} sampling steps asked for, but the scheduler allows 1 to {train_steps}")]
    InferenceSteps {
        /// Steps asked for.
        steps: usize,
        /// Timesteps of the training.
        train_steps: usize,
    },
    /// `steps_offset` moves the first timestep past the trained ones.
    #[error(
        "`steps_offset` {offset}{} moves the first of {steps} sampling steps to timestep {timestep}, but the last trained \
         one is {last}; {}",
        // `StableDiffusionPipeline` sets it, whatever the file says.
        if *.offset == 1 { " (which a pipeline of latents always has)" } else { "" },
        if .offset > .last {
            format!("put a `steps_offset` of {last} at most into the scheduler's configuration")
        } else {
            "use fewer steps".to_owned()
        }
    )]
    OffsetOutOfRange {
        /// The offset.
        offset: usize,
        /// Sampling steps.
        steps: usize,
        /// The timestep.
        timestep: usize,
        /// The last timestep of the training.
        last: usize,
    },
    /// The first step starts from pure noise, which says nothing about the image.
    #[error(
        "scheduler config: `rescale_betas_zero_snr`: true leaves no signal at timestep {timestep}, where {asked} cannot \
         start; {remedy}"
    )]
    NoSignal {
        /// The timestep.
        timestep: usize,
        /// What would start there.
        asked: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// A sampler of flow matching for a network that was trained on betas.
    #[error("scheduler config: it holds betas, and not how a network was trained by flow matching")]
    NotFlow,
    /// A sampler of betas for a network that was trained by flow matching.
    #[error(
        "scheduler config: the network was trained by flow matching, which {asked} does not sample; its own sampler does"
    )]
    NoBetas {
        /// The sampler.
        asked: &'static str,
    },
    /// A time from outside that flow matching does not have.
    #[error("timestep {timestep} is not above 0 and at most {last}, as times of flow matching are")]
    FlowTime {
        /// The time.
        timestep: f64,
        /// Pure noise's.
        last: usize,
    },
    /// DDIM's weight of fresh noise.
    #[error("eta is {eta}, expected 0 (deterministic) to 1 (as noisy as DDPM)")]
    Eta {
        /// The weight.
        eta: f64,
    },
    /// A timestep from outside that the schedule does not have.
    #[error("timestep {timestep} is outside of the schedule's 0 to {last}, or no whole number")]
    Timestep {
        /// The timestep.
        timestep: f64,
        /// The last timestep of the training.
        last: usize,
    },
}

/// Any sampler, for callers that choose at run time.
#[derive(Debug, Clone)]
pub enum Sampler {
    /// Ancestral sampling.
    Ddpm(Ddpm),
    /// Deterministic, or with a part of the noise.
    Ddim(Ddim),
    /// Pseudo numerical methods.
    Pndm(Pndm),
    /// Euler's method, with fresh noise or without.
    Euler(Euler),
    /// Euler's method along the lines of flow matching.
    Flow(FlowEuler),
}

/// One way from noise to an image, step by step.
#[derive(Debug)]
pub struct Walk<'a> {
    sampler: &'a Sampler,
    pndm: PndmState,
    timesteps: Vec<Time>,
}

impl Sampler {
    /// A sampler of the given kind; the configuration may have been saved by another kind, as with diffusers' `from_config`.
    ///
    /// # Errors
    ///
    /// As [`Ddpm::new`], [`Ddim::new`], [`Pndm::new`] and [`Euler::new`].
    pub fn new(
        kind: SchedulerKind,
        config: &SchedulerConfig,
        inference_steps: usize,
    ) -> Result<Self, ScheduleError> {
        if config.flow.is_some() && kind != SchedulerKind::FlowMatchEuler {
            let asked = kind.class_name();
            return Err(ScheduleError::NoBetas { asked });
        }
        Ok(match kind {
            SchedulerKind::Ddpm => Self::Ddpm(Ddpm::new(config, inference_steps)?),
            SchedulerKind::Ddim => Self::Ddim(Ddim::new(config, inference_steps)?),
            SchedulerKind::Pndm => Self::Pndm(Pndm::new(config, inference_steps)?),
            SchedulerKind::Euler => Self::Euler(Euler::new(config, inference_steps, false)?),
            SchedulerKind::EulerAncestral => {
                Self::Euler(Euler::new(config, inference_steps, true)?)
            }
            SchedulerKind::FlowMatchEuler => Self::Flow(FlowEuler::new(config, inference_steps)?),
        })
    }

    /// The timesteps to visit, from noise to image.
    pub fn timesteps(&self) -> &[Time] {
        match self {
            Self::Ddpm(sampler) => sampler.timesteps(),
            Self::Ddim(sampler) => sampler.timesteps(),
            Self::Pndm(sampler) => sampler.timesteps(),
            Self::Euler(sampler) => sampler.timesteps(),
            Self::Flow(sampler) => sampler.timesteps(),
        }
    }

    /// The forward process that it undoes.
    pub fn process(&self) -> &dyn Process {
        match self {
            Self::Ddpm(sampler) => sampler.schedule(),
            Self::Ddim(sampler) => sampler.schedule(),
            Self::Pndm(sampler) => sampler.schedule(),
            Self::Euler(sampler) => sampler.schedule(),
            Self::Flow(sampler) => sampler.process(),
        }
    }

    /// Standard normal noise as a walk over all timesteps begins with it.
    pub fn begin(&self, noise: Tensor<4>) -> Tensor<4> {
        match self {
            Self::Euler(sampler) if sampler.start() != 1.0 => noise.mul_scalar(sampler.start()),
            _ => noise,
        }
    }

    /// A new walk over all timesteps.
    pub fn walk(&self) -> Walk<'_> {
        self.walk_over(self.timesteps().to_vec())
    }

    /// A new walk that begins at timestep `first`, or at the highest below it.
    pub fn walk_from(&self, first: Time) -> Walk<'_> {
        self.walk_over(match self {
            Self::Pndm(sampler) => sampler.timesteps_from(first),
            other => {
                let all = other.timesteps().iter().copied();
                all.filter(|&timestep| timestep <= first).collect()
            }
        })
    }

    fn walk_over(&self, timesteps: Vec<Time>) -> Walk<'_> {
        Walk {
            sampler: self,
            pndm: PndmState::default(),
            timesteps,
        }
    }
}

impl Walk<'_> {
    /// The timesteps that it visits, one for each step.
    pub fn timesteps(&self) -> Vec<Time> {
        self.timesteps.clone()
    }

    /// One step towards the image: see [`Ddpm::step`], [`Ddim::step`], [`Pndm::step`] and [`Euler::step`].
    pub fn step(
        &mut self,
        output: Tensor<4>,
        timestep: Time,
        sample: Tensor<4>,
        noise: impl FnOnce() -> Tensor<4>,
    ) -> Tensor<4> {
        match self.sampler {
            Sampler::Ddpm(sampler) => sampler.step(output, timestep, sample, noise),
            Sampler::Ddim(sampler) => sampler.step(output, timestep, sample, noise),
            Sampler::Pndm(sampler) => sampler.step(&mut self.pndm, output, timestep, sample),
            Sampler::Euler(sampler) => sampler.step(output, timestep, sample, noise),
            Sampler::Flow(sampler) => sampler.step(output, timestep, sample),
        }
    }
}
