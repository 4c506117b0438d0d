//! Which timesteps a sampling visits.

use super::config::{Prediction, SchedulerConfig, TimestepSpacing};
use super::{NoiseSchedule, ScheduleError};
use crate::process::Time;

/// The timesteps of a sampling with `steps` steps, from noise to image.
pub(super) fn timesteps(
    config: &SchedulerConfig,
    steps: usize,
) -> Result<Vec<Time>, ScheduleError> {
    let trained = config.num_train_timesteps;
    check_steps(config, steps)?;
    let timesteps: Vec<usize> = match config.timestep_spacing {
        TimestepSpacing::Leading => {
            let stride = trained / steps;
            (0..steps)
                .rev()
                .map(|i| i * stride + config.steps_offset)
                .collect()
        }
        TimestepSpacing::Trailing => {
            // NumPy's `arange` steps by the difference of its first two values. Where rounding makes that too small
            // (62 of the 1,000 choices of `steps`, 61 the first), diffusers visits a timestep -1 at the end, which
            // no network was trained for; it is left out here.
            let first = trained as f64;
            let stride = first - (first - first / steps as f64);
            (0..steps)
                .map(|i| ((first - i as f64 * stride).round_ties_even() as usize).saturating_sub(1))
                .collect()
        }
        TimestepSpacing::Linspace => {
            let exact = linspace(config, steps)?.into_iter();
            exact.map(|t| t.round_ties_even() as usize).collect()
        }
    };
    if timesteps[0] >= trained {
        return Err(ScheduleError::OffsetOutOfRange {
            offset: config.steps_offset,
            steps,
            timestep: timesteps[0],
            last: trained - 1,
        });
    }
    Ok(timesteps.into_iter().map(Time::timestep).collect())
}

/// Evenly from the last trained timestep to the first, not rounded.
pub(super) fn linspace(config: &SchedulerConfig, steps: usize) -> Result<Vec<f64>, ScheduleError> {
    check_steps(config, steps)?;
    let last = (config.num_train_timesteps - 1) as f64;
    let stride = match steps {
        1 => 0.0,
        _ => last / (steps - 1) as f64,
    };
    Ok((0..steps).rev().map(|i| i as f64 * stride).collect())
}

fn check_steps(config: &SchedulerConfig, steps: usize) -> Result<(), ScheduleError> {
    let train_steps = config.num_train_timesteps;
    match (1..=train_steps).contains(&steps) {
        true => Ok(()),
        false => Err(ScheduleError::InferenceSteps { steps, train_steps }),
    }
}

/// Refuses a start at the last timestep of rescaled betas, from which the predicted noise cannot be turned into an image.
/// PNDM divides by its signal whatever is predicted.
pub(super) fn check_signal(
    config: &SchedulerConfig,
    schedule: &NoiseSchedule,
    timesteps: &[Time],
    pndm: bool,
) -> Result<(), ScheduleError> {
    let lost = timesteps
        .iter()
        .find(|&&timestep| schedule.abar_at(timestep) == 0.0);
    let asked = match schedule.prediction {
        _ if pndm => "PNDM",
        Prediction::Epsilon => "`prediction_type`: \"epsilon\"",
        _ => return Ok(()),
    };
    match lost {
        None => Ok(()),
        Some(&timestep) => Err(ScheduleError::NoSignal {
            timestep: schedule.index(timestep),
            asked,
            remedy: match config.timestep_spacing {
                TimestepSpacing::Leading => "use fewer steps",
                _ => "set `timestep_spacing` to \"leading\" there and use fewer steps",
            },
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spaced(timestep_spacing: TimestepSpacing, steps_offset: usize, steps: usize) -> Vec<Time> {
        let config = SchedulerConfig {
            timestep_spacing,
            steps_offset,
            ..SchedulerConfig::default()
        };
        timesteps(&config, steps).unwrap()
    }

    #[test]
    fn fifty_leading_steps_are_every_twentieth_from_zero() {
        let steps = spaced(TimestepSpacing::Leading, 0, 50);
        assert_eq!(steps.len(), 50);
        assert_eq!(steps[..3], [980, 960, 940]);
        assert_eq!(steps[48..], [20, 0]);
        assert_eq!(spaced(TimestepSpacing::Leading, 1, 50)[..2], [981, 961]);
        // The stride is rounded down: 1000 / 3 = 333.
        assert_eq!(spaced(TimestepSpacing::Leading, 0, 3), [666, 333, 0]);
    }

    #[test]
    fn trailing_steps_begin_at_the_last_timestep_and_round_halves_to_even() {
        let steps = spaced(TimestepSpacing::Trailing, 0, 50);
        assert_eq!(steps[..2], [999, 979]);
        assert_eq!(steps[49], 19);
        // 1000 - 62.5 = 937.5 rounds to 938, 812.5 to 812.
        assert_eq!(
            spaced(TimestepSpacing::Trailing, 0, 16)[..4],
            [999, 937, 874, 811]
        );
    }

    #[test]
    fn trailing_steps_never_pass_zero() {
        for steps in 1..=1000 {
            let timesteps = spaced(TimestepSpacing::Trailing, 0, steps);
            assert_eq!(timesteps.len(), steps);
            assert!(
                timesteps.windows(2).all(|pair| pair[0] > pair[1]),
                "{steps} steps"
            );
        }
    }

    #[test]
    fn linspace_steps_include_both_ends() {
        assert_eq!(spaced(TimestepSpacing::Linspace, 0, 4), [999, 666, 333, 0]);
        assert_eq!(spaced(TimestepSpacing::Linspace, 0, 1), [0]);
        // 999 / 2 = 499.5 rounds to the even 500.
        assert_eq!(spaced(TimestepSpacing::Linspace, 0, 3), [999, 500, 0]);
    }

    #[test]
    fn no_steps_and_more_steps_than_trained_are_refused() {
        for steps in [0, 1001] {
            let error = timesteps(&SchedulerConfig::default(), steps).unwrap_err();
            assert_eq!(
                error,
                ScheduleError::InferenceSteps {
                    steps,
                    train_steps: 1000
                }
            );
        }
    }

    #[test]
    fn an_offset_past_the_last_timestep_is_refused() {
        let config = SchedulerConfig {
            steps_offset: 1,
            ..SchedulerConfig::default()
        };
        let message = timesteps(&config, 1000).unwrap_err().to_string();
        assert!(
            message.contains("`steps_offset` 1 (which a pipeline of latents always has) moves"),
            "{message}"
        );
    }

    #[test]
    fn epsilon_cannot_start_where_no_signal_is_left() {
        let config = SchedulerConfig {
            rescale_betas_zero_snr: true,
            timestep_spacing: TimestepSpacing::Trailing,
            ..SchedulerConfig::default()
        };
        let refused = ScheduleError::NoSignal {
            timestep: 999,
            asked: "`prediction_type`: \"epsilon\"",
            remedy: "set `timestep_spacing` to \"leading\" there and use fewer steps",
        };
        assert_eq!(
            crate::schedule::Ddpm::new(&config, 10).unwrap_err(),
            refused
        );
        assert_eq!(
            crate::schedule::Ddim::new(&config, 10).unwrap_err(),
            refused
        );
        let config = SchedulerConfig {
            prediction: Prediction::VPrediction,
            ..config
        };
        assert!(crate::schedule::Ddim::new(&config, 10).is_ok());
    }
}
