//! `scheduler_config.json`, validated.

use std::sync::Arc;

use super::classes::{self, Class};
use super::flow::{Flow, FlowMatching};
use super::keys::{Keys, shown};
use super::{Clip, NoiseSchedule, ScheduleError};
use crate::process::Process;
use serde_json::{Value, json};

/// More timesteps than any published model by a factor of 100; bounds what a broken file can make us allocate.
pub(super) const MAX_TRAIN_TIMESTEPS: usize = 100_000;

/// The sampler that a configuration was saved for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchedulerKind {
    /// Ancestral sampling (Ho et al. 2020, [arXiv 2006.11239](https://arxiv.org/abs/2006.11239)).
    Ddpm,
    /// Deterministic sampling (Song et al. 2020, [arXiv 2010.02502](https://arxiv.org/abs/2010.02502)).
    Ddim,
    /// Pseudo numerical methods (Liu et al. 2022, [arXiv 2202.09778](https://arxiv.org/abs/2202.09778)).
    Pndm,
    /// Euler's method along the noise's scale (Karras et al. 2022, [arXiv 2206.00364](https://arxiv.org/abs/2206.00364)).
    Euler,
    /// The same with fresh noise in every step.
    EulerAncestral,
    /// Euler's method along the straight lines of flow matching (Esser et al. 2024, [arXiv 2403.03206](https://arxiv.org/abs/2403.03206)).
    FlowMatchEuler,
}

impl SchedulerKind {
    /// Its class in diffusers.
    pub fn class_name(self) -> &'static str {
        match self {
            Self::Ddpm => "DDPMScheduler",
            Self::Ddim => "DDIMScheduler",
            Self::Pndm => "PNDMScheduler",
            Self::Euler => "EulerDiscreteScheduler",
            Self::EulerAncestral => "EulerAncestralDiscreteScheduler",
            Self::FlowMatchEuler => "FlowMatchEulerDiscreteScheduler",
        }
    }
}

/// How much noise each training timestep adds.
#[derive(Debug, Clone, PartialEq)]
pub enum BetaSchedule {
    /// Evenly spaced betas.
    Linear {
        /// The first beta.
        start: f64,
        /// The last beta.
        end: f64,
    },
    /// Evenly spaced square roots of betas (latent diffusion).
    ScaledLinear {
        /// The first beta.
        start: f64,
        /// The last beta.
        end: f64,
    },
    /// The squared cosine.
    SquaredCosCapV2,
    /// `trained_betas`: given one by one.
    Trained(Vec<f64>),
}

/// What the network's output stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prediction {
    /// The noise `e`.
    Epsilon,
    /// The clean image `x0`.
    Sample,
    /// The velocity `g * e - s * x0` (Salimans & Ho 2022, arXiv 2202.00512).
    VPrediction,
}

/// The variance of the noise that a DDPM step adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variance {
    /// That of the posterior given `x0`: `(1 - abar_prev) / (1 - abar) * beta`.
    FixedSmall,
    /// `beta`.
    FixedLarge,
}

/// Which of the trained timesteps a shorter sampling visits (arXiv 2305.08891, table 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestepSpacing {
    /// Every n-th from 0, plus `steps_offset`.
    Leading,
    /// Every n-th down from the last.
    Trailing,
    /// From 0 to the last, both included.
    Linspace,
}

/// How Euler's method spaces the noise's scales.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SigmaSpacing {
    /// Those of the timesteps that are visited.
    #[default]
    Timesteps,
    /// Karras et al. 2022, [arXiv 2206.00364](https://arxiv.org/abs/2206.00364), eq. 5.
    Karras,
    /// Evenly by their logarithm.
    Exponential,
    /// By quantiles of a beta distribution, which is not computed here.
    Beta,
    /// `interpolation_type` "log_linear", which is not computed here.
    LogLinear,
}

/// What Euler's method reads of a configuration beside the timesteps.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Sigmas {
    /// How they are spaced.
    pub spacing: SigmaSpacing,
    /// Where they end, if they are spaced anew; else at that of the last timestep.
    pub min: Option<f64>,
    /// Where they begin; else at that of the first timestep.
    pub max: Option<f64>,
    /// Whether the last step ends at the smallest trained one, and not at 0.
    pub ends_at_min: bool,
}

/// A scheduler's configuration. Its defaults are those of diffusers for DDPM and DDIM.
#[derive(Debug, Clone, PartialEq)]
pub struct SchedulerConfig {
    /// The sampler.
    pub kind: SchedulerKind,
    /// The sampler that the file names, where it is not built here; `kind` then takes its place.
    pub foreign: Option<&'static str>,
    /// Timesteps of the training.
    pub num_train_timesteps: usize,
    /// How much noise each timestep adds.
    pub beta_schedule: BetaSchedule,
    /// What the network predicts.
    pub prediction: Prediction,
    /// What happens to the predicted clean image within a step.
    pub clip: Clip,
    /// Read by DDPM.
    pub variance: Variance,
    /// Which timesteps a shorter sampling visits.
    pub timestep_spacing: TimestepSpacing,
    /// Added to them, with [`TimestepSpacing::Leading`].
    pub steps_offset: usize,
    /// Read by DDIM and PNDM: the last step ends at `abar = 1`, else at that of timestep 0.
    pub set_alpha_to_one: bool,
    /// Read by PNDM: no Runge-Kutta steps at the start.
    pub skip_prk_steps: bool,
    /// Whether the betas are changed so that the last timestep is pure noise (Lin et al. 2023, [arXiv 2305.08891](https://arxiv.org/abs/2305.08891)).
    pub rescale_betas_zero_snr: bool,
    /// Read by Euler.
    pub sigmas: Sigmas,
    /// Of a network that was trained by flow matching: then nothing of betas, predictions and clipping is read.
    pub flow: Option<Flow>,
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        Self {
            kind: SchedulerKind::Ddpm,
            foreign: None,
            num_train_timesteps: 1000,
            beta_schedule: BetaSchedule::Linear {
                start: 1e-4,
                end: 0.02,
            },
            prediction: Prediction::Epsilon,
            clip: Clip::Range(1.0),
            variance: Variance::FixedSmall,
            timestep_spacing: TimestepSpacing::Leading,
            steps_offset: 0,
            set_alpha_to_one: true,
            skip_prk_steps: false,
            rescale_betas_zero_snr: false,
            sigmas: Sigmas::default(),
            flow: None,
        }
    }
}

impl SchedulerConfig {
    /// Reads the content of a `scheduler_config.json`. Absent and `null` keys take diffusers' defaults, and keys
    /// that no sampler here reads are ignored.
    ///
    /// # Errors
    ///
    /// The key and its value, where it changes the mathematics and is not supported, or has a wrong type or range.
    pub fn from_json(config: &Value) -> Result<Self, ScheduleError> {
        let keys = Keys(
            config
                .as_object()
                .ok_or_else(|| ScheduleError::NotAnObject {
                    found: shown(config),
                })?,
        );
        let default = Self::default();

        let has_betas = ["beta_schedule", "beta_start", "trained_betas"]
            .iter()
            .any(|key| keys.get(key).is_some());
        let name = keys.text("_class_name")?;
        if name == Some(SchedulerKind::FlowMatchEuler.class_name()) {
            return keys.flow_matching();
        }
        let class = Class::find(name, has_betas)?;
        let Class { kind, foreign, .. } = class;
        keys.refuse_other_training()?;
        let num_train_timesteps = keys.count(
            "num_train_timesteps",
            default.num_train_timesteps,
            1,
            MAX_TRAIN_TIMESTEPS,
        )?;
        let prediction = keys.choice(
            "prediction_type",
            default.prediction,
            "epsilon, sample, v_prediction",
            |name| match name {
                "epsilon" => Some(Prediction::Epsilon),
                "sample" => Some(Prediction::Sample),
                "v_prediction" => Some(Prediction::VPrediction),
                _ => None,
            },
        )?;
        // Files written before `prediction_type` existed; one that has both may say the same twice.
        if !keys.flag("predict_epsilon", true)? && prediction != Prediction::Sample {
            return Err(ScheduleError::Unsupported {
                key: "predict_epsilon",
                value: "false".into(),
                supported: "true, or `prediction_type` \"sample\" in its place",
            });
        }
        let clip = if keys.flag("thresholding", false)? {
            Clip::Dynamic {
                ratio: keys.number(
                    "dynamic_thresholding_ratio",
                    0.995,
                    "a number from 0 to 1",
                    |ratio| (0.0..=1.0).contains(&ratio),
                )?,
                max: keys.number("sample_max_value", 1.0, "a positive number", |max| {
                    max > 0.0
                })?,
            }
        } else if keys.flag("clip_sample", class.clip_sample)? {
            Clip::Range(
                keys.number("clip_sample_range", 1.0, "a positive number", |range| {
                    range > 0.0
                })?,
            )
        } else {
            Clip::None
        };
        let variance = keys.choice(
            "variance_type",
            default.variance,
            "fixed_small, fixed_small_log, fixed_large",
            |name| match name {
                // The logarithm is taken and undone again: the same number.
                "fixed_small" | "fixed_small_log" => Some(Variance::FixedSmall),
                "fixed_large" => Some(Variance::FixedLarge),
                // "fixed_large_log" is the square root of a negative logarithm in diffusers: not a number.
                _ => None,
            },
        )?;
        let timestep_spacing = keys.choice(
            "timestep_spacing",
            class.spacing,
            "leading, trailing, linspace",
            |name| match name {
                "leading" => Some(TimestepSpacing::Leading),
                "trailing" => Some(TimestepSpacing::Trailing),
                "linspace" => Some(TimestepSpacing::Linspace),
                _ => None,
            },
        )?;
        let rescale_betas_zero_snr =
            keys.flag("rescale_betas_zero_snr", default.rescale_betas_zero_snr)?;
        if rescale_betas_zero_snr && num_train_timesteps == 1 {
            return Err(ScheduleError::Invalid {
                key: "rescale_betas_zero_snr",
                value: "true".into(),
                expected: "false where `num_train_timesteps` is 1".into(),
            });
        }
        let config = Self {
            kind,
            foreign,
            num_train_timesteps,
            beta_schedule: beta_schedule(&keys, &class, num_train_timesteps)?,
            prediction,
            clip,
            variance,
            timestep_spacing,
            steps_offset: keys.count(
                "steps_offset",
                default.steps_offset,
                0,
                MAX_TRAIN_TIMESTEPS,
            )?,
            // PNDM's default is another.
            set_alpha_to_one: keys.flag("set_alpha_to_one", kind != SchedulerKind::Pndm)?,
            skip_prk_steps: keys.flag("skip_prk_steps", default.skip_prk_steps)?,
            rescale_betas_zero_snr,
            sigmas: keys.sigmas()?,
            flow: None,
        };
        keys.refuse_lost_signal(&config)?;
        Ok(config)
    }

    /// The process that networks with this file were trained on.
    pub fn process(&self) -> Arc<dyn Process> {
        match &self.flow {
            Some(flow) => Arc::new(FlowMatching::new(flow, self.num_train_timesteps)),
            None => Arc::new(NoiseSchedule::new(self)),
        }
    }

    /// The file's sampler where it has no betas of its own: those in the file were left by the scheduler that it was made
    /// from, and are taken for the ones that the network was trained with.
    pub fn without_own_betas(&self) -> Option<&'static str> {
        self.foreign.filter(|name| classes::has_no_betas(name))
    }

    /// What `StableDiffusionPipeline` makes of the scheduler that it is loaded with, whatever the file says: latents are
    /// not clipped, and `steps_offset` is 1.
    pub fn for_latents(mut self) -> Self {
        self.steps_offset = 1;
        self.unclipped()
    }

    /// For latents, which are not clipped, by a scheduler that was chosen in place of the pipeline's own: diffusers takes
    /// its `steps_offset` as it is.
    pub fn unclipped(mut self) -> Self {
        if let Clip::Range(_) = self.clip {
            self.clip = Clip::None;
        }
        self
    }

    /// For images of so many tokens, where the sampling hangs on their number.
    pub fn for_tokens(mut self, tokens: usize) -> Self {
        if let Some(Flow {
            dynamic: Some(dynamic),
            ..
        }) = &mut self.flow
        {
            dynamic.tokens = tokens;
        }
        self
    }

    /// The content of a `scheduler_config.json` that diffusers loads and [`SchedulerConfig::from_json`] reads back.
    pub fn to_json(&self) -> Value {
        if let Some(flow) = &self.flow {
            return self.flow_json(flow);
        }
        let (beta_schedule, trained_betas, range) = match &self.beta_schedule {
            BetaSchedule::Linear { start, end } => ("linear", Value::Null, Some((*start, *end))),
            BetaSchedule::ScaledLinear { start, end } => {
                ("scaled_linear", Value::Null, Some((*start, *end)))
            }
            BetaSchedule::SquaredCosCapV2 => ("squaredcos_cap_v2", Value::Null, None),
            BetaSchedule::Trained(betas) => ("linear", json!(betas), None),
        };
        let mut config = json!({
            "_class_name": self.kind.class_name(),
            "beta_schedule": beta_schedule,
            "num_train_timesteps": self.num_train_timesteps,
            "prediction_type": match self.prediction {
                Prediction::Epsilon => "epsilon",
                Prediction::Sample => "sample",
                Prediction::VPrediction => "v_prediction",
            },
            "rescale_betas_zero_snr": self.rescale_betas_zero_snr,
            "steps_offset": self.steps_offset,
            "timestep_spacing": match self.timestep_spacing {
                TimestepSpacing::Leading => "leading",
                TimestepSpacing::Trailing => "trailing",
                TimestepSpacing::Linspace => "linspace",
            },
            "trained_betas": trained_betas,
            "clip_sample": matches!(self.clip, Clip::Range(_)),
            "thresholding": matches!(self.clip, Clip::Dynamic { .. }),
        });
        if let Some((start, end)) = range {
            config["beta_start"] = json!(start);
            config["beta_end"] = json!(end);
        }
        match self.clip {
            Clip::None => {}
            Clip::Range(range) => config["clip_sample_range"] = json!(range),
            Clip::Dynamic { ratio, max } => {
                config["dynamic_thresholding_ratio"] = json!(ratio);
                config["sample_max_value"] = json!(max);
            }
        }
        match self.kind {
            SchedulerKind::Ddpm => {
                config["variance_type"] = json!(match self.variance {
                    Variance::FixedSmall => "fixed_small",
                    Variance::FixedLarge => "fixed_large",
                });
            }
            SchedulerKind::Ddim => config["set_alpha_to_one"] = json!(self.set_alpha_to_one),
            SchedulerKind::Pndm => {
                config["set_alpha_to_one"] = json!(self.set_alpha_to_one);
                config["skip_prk_steps"] = json!(self.skip_prk_steps);
            }
            SchedulerKind::Euler => self.sigmas.write(&mut config),
            SchedulerKind::EulerAncestral | SchedulerKind::FlowMatchEuler => {}
        }
        config
    }

    fn flow_json(&self, flow: &Flow) -> Value {
        let spacing = |spacing| self.sigmas.spacing == spacing;
        let mut config = json!({
            "_class_name": SchedulerKind::FlowMatchEuler.class_name(),
            "num_train_timesteps": self.num_train_timesteps,
            "shift": flow.shift,
            "shift_terminal": flow.terminal,
            "use_dynamic_shifting": flow.dynamic.is_some(),
            "use_karras_sigmas": spacing(SigmaSpacing::Karras),
            "use_exponential_sigmas": spacing(SigmaSpacing::Exponential),
            "use_beta_sigmas": spacing(SigmaSpacing::Beta),
        });
        if let Some(dynamic) = flow.dynamic {
            config["base_shift"] = json!(dynamic.base);
            config["max_shift"] = json!(dynamic.max);
            config["base_image_seq_len"] = json!(dynamic.base_tokens);
            config["max_image_seq_len"] = json!(dynamic.max_tokens);
            config["time_shift_type"] = json!(match dynamic.exponential {
                true => "exponential",
                false => "linear",
            });
        }
        config
    }
}

impl Sigmas {
    fn write(&self, config: &mut Value) {
        let spacing = |spacing| self.spacing == spacing;
        config["use_karras_sigmas"] = json!(spacing(SigmaSpacing::Karras));
        config["use_exponential_sigmas"] = json!(spacing(SigmaSpacing::Exponential));
        config["use_beta_sigmas"] = json!(spacing(SigmaSpacing::Beta));
        config["interpolation_type"] = json!(match self.spacing {
            SigmaSpacing::LogLinear => "log_linear",
            _ => "linear",
        });
        config["sigma_min"] = json!(self.min);
        config["sigma_max"] = json!(self.max);
        config["final_sigmas_type"] = json!(match self.ends_at_min {
            true => "sigma_min",
            false => "zero",
        });
    }
}

/// `trained_betas`, else `beta_schedule` with its range. Betas must lie strictly between 0 and 1 as the f32 that they
/// become: at 0 the first step divides by zero, at 1 the last one does.
fn beta_schedule(
    keys: &Keys,
    class: &Class,
    timesteps: usize,
) -> Result<BetaSchedule, ScheduleError> {
    const BETA: &str =
        "a number between 0 and 1, from 3e-8 to 0.99999997: beyond, f32 takes it for 0 or 1";
    let is_beta = |beta: f64| {
        let left = 1.0 - beta as f32;
        left > 0.0 && left < 1.0
    };

    if let Some(value) = keys.get("trained_betas") {
        let invalid = |value, expected: &str| ScheduleError::Invalid {
            key: "trained_betas",
            value,
            expected: expected.to_owned(),
        };
        let betas = value
            .as_array()
            .ok_or_else(|| invalid(shown(value), "a list of numbers"))?;
        if betas.len() != timesteps {
            let expected = format!(
                "{timesteps}, as many as `num_train_timesteps`{}",
                match keys.get("num_train_timesteps") {
                    Some(_) => "",
                    None => ", whose default that is",
                }
            );
            return Err(invalid(shown(value), &expected));
        }
        let beta = |(place, value): (usize, &Value)| {
            let beta = value.as_f64().filter(|&beta| is_beta(beta));
            beta.ok_or_else(|| invalid(format!("number {}, {}", place + 1, shown(value)), BETA))
        };
        let betas: Result<_, _> = betas.iter().enumerate().map(beta).collect();
        return Ok(BetaSchedule::Trained(betas?));
    }
    let start = || keys.number("beta_start", class.beta_start, BETA, is_beta);
    let end = || keys.number("beta_end", class.beta_end, BETA, is_beta);
    let supported = "linear, scaled_linear, squaredcos_cap_v2";
    let name = keys.choice("beta_schedule", class.beta_schedule, supported, |name| {
        ["linear", "scaled_linear", "squaredcos_cap_v2"]
            .into_iter()
            .find(|&known| known == name)
    })?;
    Ok(match name {
        "linear" => BetaSchedule::Linear {
            start: start()?,
            end: end()?,
        },
        "scaled_linear" => BetaSchedule::ScaledLinear {
            start: start()?,
            end: end()?,
        },
        _ => BetaSchedule::SquaredCosCapV2,
    })
}

#[cfg(test)]
mod tests {
    use super::super::DynamicShift;
    use super::*;

    fn message(config: Value) -> String {
        SchedulerConfig::from_json(&config).unwrap_err().to_string()
    }

    #[test]
    fn an_empty_object_takes_the_defaults_of_diffusers() {
        assert_eq!(
            SchedulerConfig::from_json(&json!({})).unwrap(),
            SchedulerConfig::default()
        );
    }

    #[test]
    fn the_published_cifar10_configuration_is_read() {
        let config = SchedulerConfig::from_json(&json!({
            "_class_name": "DDPMScheduler", "_diffusers_version": "0.1.1", "beta_end": 0.02,
            "beta_schedule": "linear", "beta_start": 0.0001, "clip_sample": true, "num_train_timesteps": 1000,
            "trained_betas": null, "variance_type": "fixed_large", "timestep_values": null, "tensor_format": "pt"
        }))
        .unwrap();
        assert_eq!(
            config,
            SchedulerConfig {
                variance: Variance::FixedLarge,
                ..SchedulerConfig::default()
            }
        );
    }

    #[test]
    fn the_published_stable_diffusion_configuration_is_read() {
        let config = SchedulerConfig::from_json(&json!({
            "_class_name": "PNDMScheduler", "beta_end": 0.012, "beta_schedule": "scaled_linear",
            "beta_start": 0.00085, "clip_sample": false, "num_train_timesteps": 1000, "set_alpha_to_one": false,
            "skip_prk_steps": true, "steps_offset": 1, "trained_betas": null
        }))
        .unwrap();
        assert_eq!(
            config,
            SchedulerConfig {
                kind: SchedulerKind::Pndm,
                beta_schedule: BetaSchedule::ScaledLinear {
                    start: 0.00085,
                    end: 0.012
                },
                clip: Clip::None,
                set_alpha_to_one: false,
                skip_prk_steps: true,
                steps_offset: 1,
                ..SchedulerConfig::default()
            }
        );
    }

    #[test]
    fn a_sampler_that_is_not_built_is_named_and_has_a_stand_in() {
        let config = SchedulerConfig::from_json(&json!({
            "_class_name": "HeunDiscreteScheduler", "beta_end": 0.012, "beta_schedule": "scaled_linear",
            "beta_start": 0.00085, "prediction_type": "v_prediction"
        }))
        .unwrap();
        assert_eq!(config.kind, SchedulerKind::Ddim);
        assert_eq!(config.foreign, Some("HeunDiscreteScheduler"));
        assert_eq!(config.prediction, Prediction::VPrediction);
    }

    #[test]
    fn what_changes_the_mathematics_and_is_not_built_is_refused_by_name() {
        for (key, value) in [
            ("beta_schedule", json!("sigmoid")),
            ("beta_schedule", json!("laplace")),
            ("prediction_type", json!("flow_prediction")),
            ("variance_type", json!("learned_range")),
            ("variance_type", json!("fixed_large_log")),
            ("timestep_spacing", json!("karras")),
            ("_class_name", json!("FlowMatchHeunDiscreteScheduler")),
            ("predict_epsilon", json!(false)),
            ("use_flow_sigmas", json!(true)),
        ] {
            let text = message(json!({ key: value }));
            assert!(
                text.contains(&format!("`{key}`: {value} is not supported")),
                "{text}"
            );
        }
    }

    #[test]
    fn values_of_the_wrong_type_or_range_are_refused_by_name() {
        for (key, value) in [
            ("num_train_timesteps", json!(0)),
            ("num_train_timesteps", json!(1e12)),
            ("num_train_timesteps", json!("1000")),
            ("beta_start", json!(0.0)),
            ("beta_end", json!(1.5)),
            ("clip_sample", json!("yes")),
            ("clip_sample_range", json!(-1.0)),
            ("steps_offset", json!(-1)),
        ] {
            let text = message(json!({ key: value }));
            assert!(
                text.contains(&format!("`{key}`: {value} is not valid")),
                "{text}"
            );
        }
        assert!(message(json!({"trained_betas": [0.1, 0.2]})).contains("a list of 2 values"));
        assert!(message(json!([])).contains("expected a JSON object"));
    }

    #[test]
    fn a_configuration_survives_being_written_and_read() {
        let configs = [
            SchedulerConfig::default(),
            SchedulerConfig {
                kind: SchedulerKind::Ddim,
                beta_schedule: BetaSchedule::ScaledLinear {
                    start: 0.00085,
                    end: 0.012,
                },
                prediction: Prediction::VPrediction,
                clip: Clip::None,
                timestep_spacing: TimestepSpacing::Trailing,
                steps_offset: 1,
                set_alpha_to_one: false,
                rescale_betas_zero_snr: true,
                ..SchedulerConfig::default()
            },
            SchedulerConfig {
                num_train_timesteps: 3,
                beta_schedule: BetaSchedule::Trained(vec![0.1, 0.2, 0.3]),
                prediction: Prediction::Sample,
                clip: Clip::Dynamic {
                    ratio: 0.9,
                    max: 3.0,
                },
                variance: Variance::FixedLarge,
                timestep_spacing: TimestepSpacing::Linspace,
                ..SchedulerConfig::default()
            },
            SchedulerConfig {
                kind: SchedulerKind::Euler,
                clip: Clip::None,
                timestep_spacing: TimestepSpacing::Linspace,
                sigmas: Sigmas {
                    spacing: SigmaSpacing::Karras,
                    min: Some(0.02),
                    max: None,
                    ends_at_min: true,
                },
                ..SchedulerConfig::default()
            },
            SchedulerConfig {
                kind: SchedulerKind::FlowMatchEuler,
                clip: Clip::None,
                flow: Some(Flow {
                    shift: 3.0,
                    dynamic: Some(DynamicShift {
                        base: 0.5,
                        max: 1.15,
                        base_tokens: 256,
                        max_tokens: 4096,
                        exponential: true,
                        tokens: 256,
                    }),
                    terminal: Some(0.02),
                }),
                ..SchedulerConfig::default()
            },
            SchedulerConfig {
                beta_schedule: BetaSchedule::SquaredCosCapV2,
                clip: Clip::Range(2.0),
                ..SchedulerConfig::default()
            },
        ];
        for config in configs {
            assert_eq!(
                SchedulerConfig::from_json(&config.to_json()).unwrap(),
                config
            );
        }
    }
}
