//! The keys of a `scheduler_config.json`, read by name.

use serde_json::{Map, Value};

use super::config::{
    BetaSchedule, MAX_TRAIN_TIMESTEPS, SchedulerConfig, SchedulerKind, SigmaSpacing, Sigmas,
};
use super::flow::{DynamicShift, Flow};
use super::{Clip, NoiseSchedule, ScheduleError};

/// Typed access to a JSON object whose `null`s mean "absent".
pub(super) struct Keys<'a>(pub &'a Map<String, Value>);

impl Keys<'_> {
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    pub(super) fn text(&self, key: &'static str) -> Result<Option<&str>, ScheduleError> {
        let text = |value: &Value| ScheduleError::Invalid {
            key,
            value: shown(value),
            expected: "a name".into(),
        };
        let value = self.get(key);
        value
            .map(|value| value.as_str().ok_or_else(|| text(value)))
            .transpose()
    }

    /// The configuration of a network that was trained by flow matching.
    pub(super) fn flow_matching(&self) -> Result<SchedulerConfig, ScheduleError> {
        let default = SchedulerConfig::default();
        let positive = |number: f64| number > 0.0 && number.is_finite();
        for (key, supported) in [
            (
                "invert_sigmas",
                "false: networks that see noise at time 0 are not computed here",
            ),
            ("stochastic_sampling", "false"),
        ] {
            if self.flag(key, false)? {
                return Err(ScheduleError::Unsupported {
                    key,
                    value: "true".into(),
                    supported,
                });
            }
        }
        let dynamic = match self.flag("use_dynamic_shifting", false)? {
            false => None,
            true => {
                let number = |key, default| self.number(key, default, "a number", f64::is_finite);
                let tokens = |key, default| self.count(key, default, 1, 1 << 30);
                let base_tokens = tokens("base_image_seq_len", 256)?;
                let dynamic = DynamicShift {
                    tokens: base_tokens,
                    base: number("base_shift", 0.5)?,
                    max: number("max_shift", 1.15)?,
                    base_tokens,
                    max_tokens: tokens("max_image_seq_len", 4096)?,
                    exponential: self.choice(
                        "time_shift_type",
                        true,
                        "exponential, linear",
                        |name| match name {
                            "exponential" => Some(true),
                            "linear" => Some(false),
                            _ => None,
                        },
                    )?,
                };
                if dynamic.base_tokens == dynamic.max_tokens {
                    return Err(ScheduleError::Invalid {
                        key: "max_image_seq_len",
                        value: dynamic.max_tokens.to_string(),
                        expected: "another number than `base_image_seq_len`".into(),
                    });
                }
                Some(dynamic)
            }
        };
        // diffusers takes 0 for none.
        let below_one = |number: f64| (0.0..1.0).contains(&number);
        let terminal = self.number("shift_terminal", 0.0, "a number from 0 to 1", below_one)?;
        Ok(SchedulerConfig {
            kind: SchedulerKind::FlowMatchEuler,
            num_train_timesteps: self.count(
                "num_train_timesteps",
                default.num_train_timesteps,
                1,
                MAX_TRAIN_TIMESTEPS,
            )?,
            clip: Clip::None,
            sigmas: Sigmas {
                spacing: self.sigmas()?.spacing,
                ..Sigmas::default()
            },
            flow: Some(Flow {
                shift: self.number("shift", 1.0, "a positive number", positive)?,
                dynamic,
                terminal: (terminal > 0.0).then_some(terminal),
            }),
            ..default
        })
    }

    /// What Euler's method reads. Other samplers of the same networks have the same keys.
    pub(super) fn sigmas(&self) -> Result<Sigmas, ScheduleError> {
        let mut spacing = SigmaSpacing::default();
        for (key, own) in [
            ("use_karras_sigmas", SigmaSpacing::Karras),
            ("use_exponential_sigmas", SigmaSpacing::Exponential),
            ("use_beta_sigmas", SigmaSpacing::Beta),
        ] {
            if !self.flag(key, false)? {
                continue;
            }
            if spacing != SigmaSpacing::default() {
                return Err(ScheduleError::Invalid {
                    key,
                    value: "true".into(),
                    expected: "false where another `use_..._sigmas` is true".into(),
                });
            }
            spacing = own;
        }
        if spacing == SigmaSpacing::default()
            && self.text("interpolation_type")? == Some("log_linear")
        {
            spacing = SigmaSpacing::LogLinear;
        }
        let bound = |key| {
            let positive = |sigma: f64| sigma > 0.0 && sigma.is_finite();
            let given = self.get(key).is_some();
            let number = self.number(key, 0.0, "a positive number", positive)?;
            Ok(given.then_some(number))
        };
        Ok(Sigmas {
            spacing,
            min: bound("sigma_min")?,
            max: bound("sigma_max")?,
            ends_at_min: self.text("final_sigmas_type")? == Some("sigma_min"),
        })
    }

    /// Refuses keys by which a sampler says that its network was not trained like DDPM.
    pub(super) fn refuse_other_training(&self) -> Result<(), ScheduleError> {
        if self.flag("use_flow_sigmas", false)? {
            return Err(ScheduleError::Unsupported {
                key: "use_flow_sigmas",
                value: "true".into(),
                supported: "false: networks trained by flow matching are not computed here",
            });
        }
        // Then the network is given the logarithm of the noise's scale in place of a timestep; diffusers goes by it
        // for this prediction only.
        let continuous = self.text("timestep_type")? == Some("continuous");
        if continuous && self.text("prediction_type")? == Some("v_prediction") {
            return Err(ScheduleError::Unsupported {
                key: "timestep_type",
                value: "\"continuous\"".into(),
                supported: "\"discrete\"",
            });
        }
        Ok(())
    }

    /// Refuses betas of which f32, in which diffusers multiplies them up, loses the last signal: then a sampling divides
    /// zero by zero. Rescaled ones have one timestep without, the last.
    pub(super) fn refuse_lost_signal(&self, config: &SchedulerConfig) -> Result<(), ScheduleError> {
        let rescaled = config.rescale_betas_zero_snr;
        let plain = SchedulerConfig {
            rescale_betas_zero_snr: false,
            ..config.clone()
        };
        let schedule = NoiseSchedule::new(&plain);
        if let Some(timestep) = schedule.abar.iter().position(|&abar| abar == 0.0) {
            // Those that are in the file: the others have defaults, with which alone no signal is lost.
            let decide: &[&str] = match config.beta_schedule {
                BetaSchedule::Trained(_) => &["num_train_timesteps", "trained_betas"],
                _ => &[
                    "num_train_timesteps",
                    "beta_schedule",
                    "beta_start",
                    "beta_end",
                ],
            };
            let there = decide.iter().filter_map(|&key| {
                let value = self.get(key)?;
                Some(format!("`{key}`: {}", shown(value)))
            });
            return Err(ScheduleError::LostSignal {
                keys: there.collect::<Vec<_>>().join(", "),
                timestep,
            });
        }
        let abar = NoiseSchedule::new(config).abar;
        let lost = abar[..abar.len() - 1]
            .iter()
            .any(|&abar| abar.is_nan() || abar <= 0.0);
        if rescaled && lost {
            return Err(ScheduleError::Invalid {
                key: "rescale_betas_zero_snr",
                value: "true".into(),
                expected: "false where the last betas are too small to be told apart in f32".into(),
            });
        }
        Ok(())
    }

    pub(super) fn flag(&self, key: &'static str, default: bool) -> Result<bool, ScheduleError> {
        self.read(key, default, "true or false", Value::as_bool)
    }

    pub(super) fn number(
        &self,
        key: &'static str,
        default: f64,
        expected: &str,
        valid: impl Fn(f64) -> bool,
    ) -> Result<f64, ScheduleError> {
        self.read(key, default, expected, |value| {
            value.as_f64().filter(|&number| valid(number))
        })
    }

    pub(super) fn count(
        &self,
        key: &'static str,
        default: usize,
        min: usize,
        max: usize,
    ) -> Result<usize, ScheduleError> {
        self.read(
            key,
            default,
            &format!("a whole number from {min} to {max}"),
            |value| {
                let count = usize::try_from(value.as_u64()?).ok()?;
                (min..=max).contains(&count).then_some(count)
            },
        )
    }

    pub(super) fn choice<T>(
        &self,
        key: &'static str,
        default: T,
        supported: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<T, ScheduleError> {
        let Some(value) = self.get(key) else {
            return Ok(default);
        };
        value
            .as_str()
            .and_then(parse)
            .ok_or_else(|| ScheduleError::Unsupported {
                key,
                value: shown(value),
                supported,
            })
    }

    pub(super) fn read<T>(
        &self,
        key: &'static str,
        default: T,
        expected: &str,
        parse: impl Fn(&Value) -> Option<T>,
    ) -> Result<T, ScheduleError> {
        let Some(value) = self.get(key) else {
            return Ok(default);
        };
        parse(value).ok_or_else(|| ScheduleError::Invalid {
            key,
            value: shown(value),
            expected: expected.to_owned(),
        })
    }
}

/// A value for a message: short, whatever the file holds.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("a list of {} values", items.len()),
        Value::Object(_) => "an object".to_owned(),
        other => {
            let text = other.to_string();
            match text.char_indices().nth(60) {
                Some((cut, _)) => format!("{}...", &text[..cut]),
                None => text,
            }
        }
    }
}
