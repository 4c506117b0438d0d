//! Implicit sampling.

use super::config::SchedulerConfig;
use super::ddpm::alpha;
use super::timesteps::{check_signal, timesteps};
use super::{Clip, NoiseSchedule, ScheduleError};
use burn::tensor::Tensor;

/// diffusers' `DDIMScheduler` with its timesteps set. Deterministic unless [`Ddim::with_eta`] says otherwise.
#[derive(Debug, Clone)]
pub struct Ddim {
    schedule: NoiseSchedule,
    clip: Clip,
    /// `abar` where a step ends before timestep 0.
    last_abar: f64,
    stride: usize,
    eta: f64,
    timesteps: Vec<usize>,
}

impl Ddim {
    /// # Errors
    ///
    /// `inference_steps` is 0 or above the trained timesteps, or the timesteps that follow from it cannot be visited.
    pub fn new(config: &SchedulerConfig, inference_steps: usize) -> Result<Self, ScheduleError> {
        let schedule = NoiseSchedule::new(config);
        let timesteps = timesteps(config, inference_steps)?;
        check_signal(config, &schedule, &timesteps, false)?;
        Ok(Self {
            clip: config.clip,
            last_abar: if config.set_alpha_to_one {
                1.0
            } else {
                schedule.abar[0]
            },
            stride: config.num_train_timesteps / inference_steps,
            eta: 0.0,
            schedule,
            timesteps,
        })
    }

    /// With fresh noise in every step: 0 adds none, 1 as much as DDPM.
    ///
    /// # Errors
    ///
    /// `eta` is not between 0 and 1.
    pub fn with_eta(self, eta: f64) -> Result<Self, ScheduleError> {
        if (0.0..=1.0).contains(&eta) {
            Ok(Self { eta, ..self })
        } else {
            Err(ScheduleError::Eta { eta })
        }
    }

    /// The forward process that it undoes.
    pub fn schedule(&self) -> &NoiseSchedule {
        &self.schedule
    }

    /// The timesteps to visit, from noise to image.
    pub fn timesteps(&self) -> &[usize] {
        &self.timesteps
    }

    /// The clean image that a step at this timestep heads for: predicted, then clipped.
    ///
    /// # Shapes
    ///
    /// `output` (the network's) and `sample`: `[batch, ..]`, alike.
    pub fn clean(&self, output: Tensor<4>, timestep: usize, sample: Tensor<4>) -> Tensor<4> {
        self.clip
            .apply(self.schedule.clean(sample, output, &[timestep]))
    }

    /// One step from `timestep` to the one a stride below (Song et al. 2021, arXiv 2010.02502, eqs. 12 and 16).
    /// The predicted noise is the network's own, also where the predicted clean image was clipped.
    ///
    /// `noise` gives a standard normal draw of the sample's shape. It is called only where eta is above 0.
    ///
    /// # Shapes
    ///
    /// `output` (the network's) and `sample`: `[batch, ..]`, alike; so is the result.
    ///
    /// # Panics
    ///
    /// `timestep` is not one of the trained ones.
    pub fn step(
        &self,
        output: Tensor<4>,
        timestep: usize,
        sample: Tensor<4>,
        noise: impl FnOnce() -> Tensor<4>,
    ) -> Tensor<4> {
        let abar = self.schedule.abar[timestep];
        let abar_prev = timestep
            .checked_sub(self.stride)
            .map_or(self.last_abar, |previous| self.schedule.abar[previous]);
        let variance =
            self.eta.powi(2) * (1.0 - abar_prev) / (1.0 - abar) * (1.0 - alpha(abar, abar_prev));
        // Equal to zero at the ends, where rounding must not make it negative.
        let direction = (1.0 - abar_prev - variance).max(0.0).sqrt();

        let clean = self.clean(output.clone(), timestep, sample.clone());
        let epsilon = self.schedule.epsilon(sample, output, &[timestep]);
        let stepped = clean.mul_scalar(abar_prev.sqrt()) + epsilon.mul_scalar(direction);
        if self.eta > 0.0 {
            stepped + noise().mul_scalar(variance.sqrt())
        } else {
            stepped
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{BetaSchedule, Prediction};
    use super::*;
    use burn::tensor::{Device, TensorData};

    fn pixel(value: f32) -> Tensor<4> {
        Tensor::from_data(
            TensorData::new(vec![value], [1, 1, 1, 1]),
            &Device::default(),
        )
    }

    fn no_noise() -> Tensor<4> {
        panic!("noise was drawn")
    }

    /// betas 0.36 and 0.4375: abar = 0.64 and 0.36.
    fn two_steps() -> SchedulerConfig {
        SchedulerConfig {
            num_train_timesteps: 2,
            beta_schedule: BetaSchedule::Trained(vec![0.36, 0.4375]),
            prediction: Prediction::Sample,
            clip: Clip::None,
            ..SchedulerConfig::default()
        }
    }

    #[test]
    fn a_step_moves_along_the_predicted_noise() {
        // epsilon = (1 - 0.6 * 0.5) / 0.8 = 0.875; 0.8 * 0.5 + 0.6 * 0.875
        let sampler = Ddim::new(&two_steps(), 2).unwrap();
        let stepped = sampler
            .step(pixel(0.5), 1, pixel(1.0), no_noise)
            .into_scalar::<f32>();
        assert!((stepped - 0.925).abs() < 1e-6, "{stepped}");
    }

    #[test]
    fn with_eta_one_the_noise_is_that_of_ddpm() {
        // variance 0.24609375 as in DDPM; direction sqrt(0.36 - 0.24609375) = 0.3375
        let sampler = Ddim::new(&two_steps(), 2).unwrap().with_eta(1.0).unwrap();
        let stepped = sampler
            .step(pixel(0.5), 1, pixel(1.0), || pixel(1.0))
            .into_scalar::<f32>();
        let expected = 0.8 * 0.5 + 0.3375 * 0.875 + 0.496_078_4;
        assert!((stepped - expected).abs() < 1e-6, "{stepped}");
    }

    #[test]
    fn set_alpha_to_one_decides_where_the_last_step_ends() {
        // epsilon = (1 - 0.8 * 0.5) / 0.6 = 1
        let config = two_steps();
        let stepped = |config: &SchedulerConfig| {
            let sampler = Ddim::new(config, 2).unwrap();
            sampler
                .step(pixel(0.5), 0, pixel(1.0), no_noise)
                .into_scalar::<f32>()
        };
        assert!((stepped(&config) - 0.5).abs() < 1e-6);
        let stays = SchedulerConfig {
            set_alpha_to_one: false,
            ..config
        };
        assert!((stepped(&stays) - 1.0).abs() < 1e-6);
    }

    #[test]
    fn eta_outside_of_zero_to_one_is_refused() {
        for eta in [-0.1, 1.1, f64::NAN] {
            let sampler = Ddim::new(&two_steps(), 2).unwrap();
            assert!(matches!(
                sampler.with_eta(eta),
                Err(ScheduleError::Eta { .. })
            ));
        }
    }
}
