//! The scheduler classes of diffusers: which belong to networks that were trained as DDPM trains.
//!
//! Most of them only sample. A network that was saved with one was trained on `sqrt(abar_t) x0 + sqrt(1 - abar_t) e` at
//! whole timesteps, with the betas that the file says, as with DDPM: its folder is read, and sampled by DDIM.

use super::ScheduleError;
use super::config::{SchedulerKind, TimestepSpacing};

/// What a class says of the keys that its file lacks (diffusers 0.42).
#[derive(Debug, Clone, Copy)]
pub(super) struct Class {
    pub kind: SchedulerKind,
    /// The sampler that is not built here, whose place `kind` takes.
    pub foreign: Option<&'static str>,
    pub beta_start: f64,
    pub beta_end: f64,
    pub beta_schedule: &'static str,
    pub clip_sample: bool,
    pub spacing: TimestepSpacing,
}

/// The names that a message lists.
pub(super) const SUPPORTED: &str = "DDPMScheduler, DDIMScheduler, PNDMScheduler, EulerDiscreteScheduler, \
                                    EulerAncestralDiscreteScheduler, FlowMatchEulerDiscreteScheduler, and samplers of networks that \
                                    were trained like DDPM";

const DDPM: Class = Class {
    kind: SchedulerKind::Ddpm,
    foreign: None,
    beta_start: 1e-4,
    beta_end: 0.02,
    beta_schedule: "linear",
    clip_sample: true,
    spacing: TimestepSpacing::Leading,
};

const fn foreign(name: &'static str) -> Class {
    Class {
        kind: SchedulerKind::Ddim,
        foreign: Some(name),
        ..DDPM
    }
}

/// A solver of the differential equation: it clips nothing, and its steps reach from the first timestep to the last.
const fn solver(name: &'static str) -> Class {
    Class {
        clip_sample: false,
        spacing: TimestepSpacing::Linspace,
        ..foreign(name)
    }
}

/// A solver that is built here.
const fn euler(kind: SchedulerKind) -> Class {
    Class {
        kind,
        foreign: None,
        ..solver("")
    }
}

/// The same with the betas of latent diffusion.
const fn latent_solver(name: &'static str) -> Class {
    Class {
        beta_start: 0.00085,
        beta_end: 0.012,
        ..solver(name)
    }
}

/// A sampler of few steps.
const fn distilled(name: &'static str) -> Class {
    Class {
        beta_start: 0.00085,
        beta_end: 0.012,
        beta_schedule: "scaled_linear",
        clip_sample: false,
        ..foreign(name)
    }
}

const TRAINED_LIKE_DDPM: [Class; 18] = [
    foreign("DDIMInverseScheduler"),
    foreign("DDIMParallelScheduler"),
    foreign("DDPMParallelScheduler"),
    foreign("RePaintScheduler"),
    Class {
        beta_schedule: "squaredcos_cap_v2",
        spacing: TimestepSpacing::Linspace,
        ..foreign("UnCLIPScheduler")
    },
    solver("DEISMultistepScheduler"),
    solver("DPMSolverMultistepInverseScheduler"),
    solver("DPMSolverMultistepScheduler"),
    solver("DPMSolverSinglestepScheduler"),
    solver("LMSDiscreteScheduler"),
    solver("SASolverScheduler"),
    solver("UniPCMultistepScheduler"),
    latent_solver("DPMSolverSDEScheduler"),
    latent_solver("HeunDiscreteScheduler"),
    latent_solver("KDPM2AncestralDiscreteScheduler"),
    latent_solver("KDPM2DiscreteScheduler"),
    distilled("LCMScheduler"),
    distilled("TCDScheduler"),
];

/// Samplers that have no betas of their own. diffusers keeps those of the scheduler that such a one was made from, and
/// where the file holds them, they say how the network was trained.
const WITH_BETAS_ONLY: [Class; 3] = [
    solver("EDMDPMSolverMultistepScheduler"),
    solver("EDMEulerScheduler"),
    solver("IPNDMScheduler"),
];

/// Classes of networks that were trained in another way, whatever else their files say, with the way.
const OTHERS: [(&str, &str); 24] = [
    ("AmusedScheduler", DISCRETE),
    ("BlockRefinementScheduler", DISCRETE),
    ("CMStochasticIterativeScheduler", CONSISTENCY),
    ("CogVideoXDDIMScheduler", SHIFTED),
    ("CogVideoXDPMScheduler", SHIFTED),
    ("ConsistencyDecoderScheduler", CONSISTENCY),
    ("CosineDPMSolverMultistepScheduler", EDM),
    ("DDPMWuerstchenScheduler", CONTINUOUS),
    ("DiscreteDDIMScheduler", DISCRETE),
    ("EntropyBoundScheduler", DISCRETE),
    ("FlowMapEulerDiscreteScheduler", FLOW),
    ("FlowMatchHeunDiscreteScheduler", FLOW),
    ("FlowMatchLCMScheduler", FLOW),
    ("HeliosDMDScheduler", FLOW),
    ("HeliosScheduler", FLOW),
    ("KarrasVeScheduler", EDM),
    ("LTXEulerAncestralRFScheduler", FLOW),
    ("MiniMaxH3Scheduler", FLOW),
    ("PiflowScheduler", FLOW),
    ("RFD4ProteinaScheduler", FLOW),
    ("SCMScheduler", CONSISTENCY),
    ("ScoreSdeVeScheduler", EXPLODING),
    ("ScoreSdeVpScheduler", CONTINUOUS),
    ("VQDiffusionScheduler", DISCRETE),
];

const FLOW: &str =
    "of networks trained by flow matching, FlowMatchEulerDiscreteScheduler alone is computed here";
const EDM: &str =
    "it belongs to networks trained as EDM trains (Karras et al. 2022), which is not computed here";
const CONSISTENCY: &str = "it belongs to consistency models, which are trained in another way";
const DISCRETE: &str = "it belongs to networks of discrete tokens";
const CONTINUOUS: &str =
    "it belongs to networks trained at continuous times, which is not computed here";
const EXPLODING: &str =
    "it belongs to networks trained with exploding variances, which is not computed here";
const SHIFTED: &str =
    "it shifts the noise of its betas (`snr_shift_scale`), which is not computed here";
const NO_BETAS: &str = "its file holds no betas (`beta_schedule`, `beta_start`, `trained_betas`), so it does not say \
                        that the network was trained like DDPM";
const UNKNOWN: &str = "how its networks are trained is not known here";

/// Whether the betas in a file that names this sampler are another scheduler's.
pub(super) fn has_no_betas(foreign: &str) -> bool {
    let mut classes = WITH_BETAS_ONLY.iter();
    classes.any(|class| class.foreign == Some(foreign))
}

impl Class {
    /// The class that a file names, DDPM where it names none. `has_betas`: whether it holds the keys of betas.
    ///
    /// # Errors
    /// A class whose networks were trained in another way, with the way.
    pub(super) fn find(name: Option<&str>, has_betas: bool) -> Result<Self, ScheduleError> {
        let refused = |name: &str, reason| {
            Err(ScheduleError::Class {
                name: name.chars().take(60).collect(),
                reason,
            })
        };
        let named = |classes: &[Class], name| {
            let mut classes = classes.iter();
            classes.find(|class| class.foreign == Some(name)).copied()
        };
        let Some(name) = name else {
            return Ok(DDPM);
        };
        let kind = match name {
            "DDPMScheduler" => return Ok(DDPM),
            "DDIMScheduler" => SchedulerKind::Ddim,
            "PNDMScheduler" => SchedulerKind::Pndm,
            "EulerDiscreteScheduler" => return Ok(euler(SchedulerKind::Euler)),
            "EulerAncestralDiscreteScheduler" => return Ok(euler(SchedulerKind::EulerAncestral)),
            name => {
                if let Some(class) = named(&TRAINED_LIKE_DDPM, name) {
                    return Ok(class);
                }
                if let Some(class) = named(&WITH_BETAS_ONLY, name) {
                    return match has_betas {
                        true => Ok(class),
                        false => refused(name, NO_BETAS),
                    };
                }
                let other = OTHERS.iter().find(|(other, _)| *other == name);
                return refused(name, other.map_or(UNKNOWN, |(_, reason)| reason));
            }
        };
        Ok(Class { kind, ..DDPM })
    }
}
