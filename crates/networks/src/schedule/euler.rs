//! Euler's method along the noise's scale.

use super::config::{Prediction, SchedulerConfig, SigmaSpacing, TimestepSpacing};
use super::timesteps::{linspace, timesteps};
use super::{NoiseSchedule, ScheduleError};
use crate::process::Time;
use burn::tensor::Tensor;

/// The share of signal that diffusers leaves at the last timestep of rescaled betas, where there would be none.
const LAST_ABAR: f32 = 1.0 / (1 << 24) as f32;
/// Of Karras's sigmas (Karras et al. 2022, arXiv 2206.00364, eq. 5).
const RHO: f64 = 7.0;

/// diffusers' `EulerDiscreteScheduler` and `EulerAncestralDiscreteScheduler` with their timesteps set.
///
/// They walk in `x / g = x0 + sigma e` with `sigma = s / g`, and show the network `g` times that. Here a sample is what the
/// network sees, as with the other samplers, at every step but the last, which leaves `x0 + sigma e`.
#[derive(Debug, Clone)]
pub struct Euler {
    schedule: NoiseSchedule,
    ancestral: bool,
    timesteps: Vec<Time>,
    /// At each of the timesteps, and where the last step ends.
    sigmas: Vec<f64>,
    start: f64,
}

impl Euler {
    /// `ancestral`: with fresh noise in every step.
    ///
    /// # Errors
    ///
    /// Sigmas or predictions that are not computed here; `inference_steps` is 0 or above the trained timesteps, or the
    /// timesteps that follow from it cannot be visited.
    pub fn new(
        config: &SchedulerConfig,
        inference_steps: usize,
        ancestral: bool,
    ) -> Result<Self, ScheduleError> {
        check(config, ancestral)?;
        let schedule = NoiseSchedule::new(config);
        let trained = trained_sigmas(config, &schedule);
        let mut times: Vec<f64> = match config.timestep_spacing {
            TimestepSpacing::Linspace => linspace(config, inference_steps)?,
            _ => {
                let whole = timesteps(config, inference_steps)?;
                whole.iter().map(|time| time.value()).collect()
            }
        };
        let mut sigmas: Vec<f64> = times.iter().map(|&t| interpolated(&trained, t)).collect();
        // diffusers' ancestral sampler reads none of these keys.
        let mut last = 0.0;
        if !ancestral {
            let own = &config.sigmas;
            let (max, min) = (own.max.unwrap_or(sigmas[0]), own.min);
            let min = min.unwrap_or(sigmas[sigmas.len() - 1]);
            if let Some(respaced) = respaced(own.spacing, max, min, inference_steps) {
                sigmas = respaced;
                times = sigmas.iter().map(|&s| time_of(&trained, s)).collect();
            }
            if own.ends_at_min {
                last = trained[0];
            }
        }
        sigmas.push(last);
        // diffusers keeps both in f32.
        let sigmas: Vec<f64> = sigmas.into_iter().map(|s| f64::from(s as f32)).collect();
        let times = times.into_iter().map(|t| Time::new(f64::from(t as f32)));
        let start = match config.timestep_spacing {
            TimestepSpacing::Leading => 1.0,
            _ => sigmas[0] / scale(sigmas[0]),
        };
        Ok(Self {
            timesteps: times.collect(),
            schedule,
            ancestral,
            sigmas,
            start,
        })
    }

    /// The forward process that it undoes.
    pub fn schedule(&self) -> &NoiseSchedule {
        &self.schedule
    }

    /// The timesteps to visit, from noise to image; between two trained ones where the configuration spreads them so.
    pub fn timesteps(&self) -> &[Time] {
        &self.timesteps
    }

    /// How long pure noise is where a walk begins.
    pub fn start(&self) -> f64 {
        self.start
    }

    /// What leads from a sample after `steps` steps to diffusers' own, `x0 + sigma e`.
    pub fn scale_after(&self, steps: usize) -> f64 {
        match steps < self.timesteps.len() {
            true => scale(self.sigmas[steps]),
            false => 1.0,
        }
    }

    /// One step from `timestep` to the next along the predicted noise (Karras et al. 2022, algorithm 1 without its churn); an
    /// ancestral one goes further and adds noise.
    ///
    /// `noise` gives a standard normal draw of the sample's shape. It is called only where some is added.
    ///
    /// # Shapes
    ///
    /// `output` (the network's) and `sample`: `[batch, ..]`, alike; so is the result.
    ///
    /// # Panics
    ///
    /// `timestep` is not one of [`timesteps`](Self::timesteps).
    pub fn step(
        &self,
        output: Tensor<4>,
        timestep: Time,
        sample: Tensor<4>,
        noise: impl FnOnce() -> Tensor<4>,
    ) -> Tensor<4> {
        let mut all = self.timesteps.iter();
        let place = all.position(|&own| own == timestep);
        let place = place.expect("one of this sampler's timesteps");
        let (sigma, to) = (self.sigmas[place], self.sigmas[place + 1]);
        let up = match self.ancestral {
            true => (to * to * (sigma * sigma - to * to) / (sigma * sigma)).sqrt(),
            false => 0.0,
        };
        let down = (to * to - up * up).max(0.0).sqrt();
        let epsilon = match self.schedule.prediction {
            Prediction::Epsilon => output,
            Prediction::VPrediction => {
                (output + sample.clone().mul_scalar(sigma)).div_scalar(scale(sigma))
            }
            Prediction::Sample => {
                (sample.clone().mul_scalar(scale(sigma)) - output).div_scalar(sigma)
            }
        };
        let mut stepped = sample.mul_scalar(scale(sigma)) + epsilon.mul_scalar(down - sigma);
        if up > 0.0 {
            stepped = stepped + noise().mul_scalar(up);
        }
        stepped.div_scalar(self.scale_after(place + 1))
    }
}

/// `1 / g` at a sigma.
fn scale(sigma: f64) -> f64 {
    (sigma * sigma + 1.0).sqrt()
}

/// So many sigmas from `max` to `min`, where they are spaced anew.
pub(super) fn respaced(
    spacing: SigmaSpacing,
    max: f64,
    min: f64,
    count: usize,
) -> Option<Vec<f64>> {
    type Curve = fn(f64) -> f64;
    let (straight, back): (Curve, Curve) = match spacing {
        SigmaSpacing::Karras => (|sigma| sigma.powf(1.0 / RHO), |x| x.powf(RHO)),
        SigmaSpacing::Exponential => (f64::ln, f64::exp),
        _ => return None,
    };
    let (from, to) = (straight(max), straight(min));
    let last = count.saturating_sub(1).max(1) as f64;
    let sigma = |place: usize| back(from + place as f64 / last * (to - from));
    Some((0..count).map(sigma).collect())
}

/// Refuses what these samplers do not compute, here or in diffusers.
fn check(config: &SchedulerConfig, ancestral: bool) -> Result<(), ScheduleError> {
    let refused = |key, value: &str, supported| {
        Err(ScheduleError::Unsupported {
            key,
            value: value.into(),
            supported,
        })
    };
    if ancestral {
        return match config.prediction {
            Prediction::Sample => refused(
                "prediction_type",
                "\"sample\"",
                "epsilon and v_prediction with the ancestral sampler; DDIM and DDPM take sample too",
            ),
            _ => Ok(()),
        };
    }
    match config.sigmas.spacing {
        SigmaSpacing::Beta => refused(
            "use_beta_sigmas",
            "true",
            "false, or sampling by DDIM or the ancestral sampler",
        ),
        SigmaSpacing::LogLinear => refused(
            "interpolation_type",
            "\"log_linear\"",
            "linear, or sampling by DDIM or the ancestral sampler",
        ),
        _ => Ok(()),
    }
}

/// `s / g` of every trained timestep, as diffusers computes it in f32.
fn trained_sigmas(config: &SchedulerConfig, schedule: &NoiseSchedule) -> Vec<f64> {
    let last = schedule.abar.len() - 1;
    let sigma = |(timestep, &abar): (usize, &f64)| {
        let abar = match config.rescale_betas_zero_snr && timestep == last {
            true => LAST_ABAR,
            false => abar as f32,
        };
        f64::from(((1.0 - abar) / abar).sqrt())
    };
    schedule.abar.iter().enumerate().map(sigma).collect()
}

/// The sigma at a time that may lie between two timesteps.
fn interpolated(sigmas: &[f64], time: f64) -> f64 {
    let below = (time as usize).min(sigmas.len() - 1);
    let above = (below + 1).min(sigmas.len() - 1);
    sigmas[below] + (sigmas[above] - sigmas[below]) * (time - below as f64)
}

/// The time at which the noise has this scale: between the two timesteps around it, by the logarithm.
fn time_of(sigmas: &[f64], sigma: f64) -> f64 {
    // In f32, like the trained sigmas.
    let log = |sigma: f64| f64::from((sigma as f32).ln());
    let own = sigma.max(1e-10).ln();
    let below = sigmas.partition_point(|&trained| log(trained) <= own);
    let below = below.saturating_sub(1).min(sigmas.len().saturating_sub(2));
    let above = (below + 1).min(sigmas.len() - 1);
    let (low, high) = (log(sigmas[below]), log(sigmas[above]));
    let part = ((low - own) / (low - high)).clamp(0.0, 1.0);
    (1.0 - part) * below as f64 + part * above as f64
}

#[cfg(test)]
mod tests {
    use super::super::{BetaSchedule, SchedulerKind};
    use super::*;
    use burn::tensor::{Device, TensorData};

    fn pixel(value: f32) -> Tensor<4> {
        let data = TensorData::new(vec![value], [1, 1, 1, 1]);
        Tensor::from_data(data, &Device::default())
    }

    fn no_noise() -> Tensor<4> {
        panic!("noise was drawn")
    }

    /// abar = 0.64 and 0.36: sigma = 3/4 and 4/3.
    fn two_steps() -> SchedulerConfig {
        SchedulerConfig {
            kind: SchedulerKind::Euler,
            num_train_timesteps: 2,
            beta_schedule: BetaSchedule::Trained(vec![0.36, 0.4375]),
            ..SchedulerConfig::default()
        }
    }

    #[test]
    fn a_step_follows_the_predicted_noise_to_the_next_scale() {
        let euler = Euler::new(&two_steps(), 2, false).unwrap();
        assert_eq!(euler.timesteps(), [1, 0]);
        // x / g = 1 / 0.6; minus 0.5 (4/3 - 3/4); times 0.8.
        let stepped = euler.step(pixel(0.5), Time::timestep(1), pixel(1.0), no_noise);
        let expected = 0.8 * (1.0 / 0.6 - 0.5 * (4.0 / 3.0 - 0.75));
        assert!((stepped.into_scalar::<f32>() - expected as f32).abs() < 1e-6);
        // The last one ends at the clean image, whatever its scale was.
        let last = euler.step(pixel(0.5), Time::timestep(0), pixel(1.0), no_noise);
        assert!((last.into_scalar::<f32>() - (1.0 / 0.8 - 0.5 * 0.75)).abs() < 1e-6);
    }

    #[test]
    fn every_prediction_of_the_same_noise_takes_the_same_step() {
        // x0 = 0.5 and e = 0.875 make x = 0.6 * 0.5 + 0.8 * 0.875 = 1 at timestep 1.
        let step = |prediction, output: f32| {
            let config = SchedulerConfig {
                prediction,
                ..two_steps()
            };
            let euler = Euler::new(&config, 2, false).unwrap();
            let stepped = euler.step(pixel(output), Time::timestep(1), pixel(1.0), no_noise);
            stepped.into_scalar::<f32>()
        };
        let epsilon = step(Prediction::Epsilon, 0.875);
        let sample = step(Prediction::Sample, 0.5);
        let velocity = step(Prediction::VPrediction, 0.6 * 0.875 - 0.8 * 0.5);
        assert!((epsilon - sample).abs() < 1e-6, "{epsilon} {sample}");
        assert!((epsilon - velocity).abs() < 1e-6, "{epsilon} {velocity}");
    }

    #[test]
    fn what_it_cannot_do_is_refused_by_name() {
        for (spacing, key) in [
            (SigmaSpacing::Beta, "use_beta_sigmas"),
            (SigmaSpacing::LogLinear, "interpolation_type"),
        ] {
            let mut config = two_steps();
            config.sigmas.spacing = spacing;
            let text = Euler::new(&config, 2, false).unwrap_err().to_string();
            assert!(text.contains(key), "{text}");
            assert!(Euler::new(&config, 2, true).is_ok());
        }
        let config = SchedulerConfig {
            prediction: Prediction::Sample,
            ..two_steps()
        };
        let text = Euler::new(&config, 2, true).unwrap_err().to_string();
        assert!(text.contains("prediction_type"), "{text}");
        assert!(Euler::new(&config, 3, false).is_err());
    }
}
