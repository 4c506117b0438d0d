//! Methods, metrics, samplers and types by the names under which they are asked for and recorded.

use retrack_checkpoint::folder::Dtype;
use retrack_unlearn::objective::{METHODS, Method};
use serde::{Deserialize, Serialize};

use crate::choice::Choice;

/// What of a denoiser is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrainedPart {
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

/// Element types of weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DtypeName {
    F32,
    F16,
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

/// The samplers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SamplerName {
    Ddpm,
    Ddim,
    Pndm,
}

impl Choice for SamplerName {
    const ALL: &'static [Self] = &[Self::Ddpm, Self::Ddim, Self::Pndm];

    fn name(self) -> &'static str {
        match self {
            Self::Ddpm => "ddpm",
            Self::Ddim => "ddim",
            Self::Pndm => "pndm",
        }
    }
}

/// The metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Metric {
    Frequency,
    Injection,
    Sscd,
    Nll,
    Membership,
    Copies,
    Digits,
    Fid,
    Is,
    Cluster,
    #[serde(rename = "clip-iqa")]
    ClipIqa,
}

impl Choice for Metric {
    const ALL: &'static [Self] = &[
        Self::Frequency,
        Self::Injection,
        Self::Sscd,
        Self::Nll,
        Self::Membership,
        Self::Copies,
        Self::Digits,
        Self::Fid,
        Self::Is,
        Self::Cluster,
        Self::ClipIqa,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Frequency => "frequency",
            Self::Injection => "injection",
            Self::Sscd => "sscd",
            Self::Nll => "nll",
            Self::Membership => "membership",
            Self::Copies => "copies",
            Self::Digits => "digits",
            Self::Fid => "fid",
            Self::Is => "is",
            Self::Cluster => "cluster",
            Self::ClipIqa => "clip-iqa",
        }
    }

    fn help(self) -> Option<&'static str> {
        Some(match self {
            Self::Frequency => "Samples that show any forgotten image (nearer than --threshold)",
            Self::Injection => {
                "How often a forgotten image comes back from noise at a quarter of the schedule (nearer than --threshold)"
            }
            Self::Sscd => {
                "How similar to the forgotten image is what comes back from that noise, or for its prompt, by SSCD (--sscd)"
            }
            Self::Nll => "Bits per dimension of the forgotten images",
            Self::Membership => {
                "Denoising loss of the forgotten images against images never seen (--controls)"
            }
            Self::Copies => "How near samples are to training images",
            Self::Digits => "Quality of digits by this project's own classifier (28 x 28 gray)",
            Self::Fid => "Frechet Inception distance to the retained images (--inception)",
            Self::Is => "Inception score (--inception)",
            Self::Cluster => {
                "Text-to-image: samples nearer to the mean of the forgotten images than to that of the others"
            }
            Self::ClipIqa => "Text-to-image: how good samples look, from 0 to 1 (--clip)",
        })
    }
}
