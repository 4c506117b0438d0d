//! Methods, samplers and types by the names under which they are asked for and recorded.

use retrack_checkpoint::folder::Dtype;
use retrack_unlearn::objective::{METHODS, Method};
use retrack_unlearn::optimizer::State;
use serde::{Deserialize, Serialize};

use crate::choice::Choice;

/// What of a denoiser is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrainedPart {
    /// Every parameter.
    All,
    /// Low-rank adapters of the attention layers.
    Lora,
}

impl Choice for TrainedPart {
    const ALL: &'static [Self] = &[Self::All, Self::Lora];

    fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Lora => "lora",
        }
    }

    fn help(self) -> Option<&'static str> {
        match self {
            Self::All => None,
            Self::Lora => Some("Low-rank adapters of the attention layers"),
        }
    }
}

/// Names in an adapter's file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LoraFormat {
    /// Those of diffusers and PEFT.
    #[default]
    Diffusers,
    /// Those of kohya's sd-scripts.
    Kohya,
}

impl Choice for LoraFormat {
    const ALL: &'static [Self] = &[Self::Diffusers, Self::Kohya];

    fn name(self) -> &'static str {
        match self {
            Self::Diffusers => "diffusers",
            Self::Kohya => "kohya",
        }
    }

    fn help(self) -> Option<&'static str> {
        match self {
            Self::Diffusers => Some("Names of diffusers and PEFT"),
            Self::Kohya => Some(
                "Names of kohya's sd-scripts, with an alpha a layer, which ComfyUI and others read",
            ),
        }
    }
}

/// Element types of weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DtypeName {
    /// 32-bit floating point.
    F32,
    /// 16-bit floating point.
    F16,
    /// bfloat16.
    Bf16,
}

impl Choice for DtypeName {
    const ALL: &'static [Self] = &[Self::F32, Self::F16, Self::Bf16];

    fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }
}

impl From<DtypeName> for Dtype {
    fn from(name: DtypeName) -> Self {
        match name {
            DtypeName::F32 => Self::F32,
            DtypeName::F16 => Self::F16,
            DtypeName::Bf16 => Self::BF16,
        }
    }
}

impl Choice for Method {
    const ALL: &'static [Self] = METHODS;

    fn name(self) -> &'static str {
        self.about().name
    }

    fn help(self) -> Option<&'static str> {
        Some(self.about().summary)
    }
}

impl Choice for State {
    const ALL: &'static [Self] = &[Self::F32, Self::Bf16];

    fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }
}

/// The samplers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SamplerName {
    /// Ancestral sampling.
    Ddpm,
    /// Deterministic sampling.
    Ddim,
    /// Pseudo numerical methods.
    Pndm,
    /// Euler's method.
    Euler,
    /// Euler's method with fresh noise in every step.
    EulerAncestral,
    /// Euler's method along the straight lines of flow matching.
    FlowMatchEuler,
}

impl Choice for SamplerName {
    const ALL: &'static [Self] = &[
        Self::Ddpm,
        Self::Ddim,
        Self::Pndm,
        Self::Euler,
        Self::EulerAncestral,
        Self::FlowMatchEuler,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Ddpm => "ddpm",
            Self::Ddim => "ddim",
            Self::Pndm => "pndm",
            Self::Euler => "euler",
            Self::EulerAncestral => "euler-ancestral",
            Self::FlowMatchEuler => "flow-match-euler",
        }
    }
}
