//! Ancestral sampling.

use super::config::{SchedulerConfig, Variance};
use super::timesteps::{check_signal, timesteps};
use super::{Clip, NoiseSchedule, ScheduleError};
use burn::tensor::Tensor;

/// diffusers' `DDPMScheduler` with its timesteps set.
#[derive(Debug, Clone)]
pub struct Ddpm {
    schedule: NoiseSchedule,
    clip: Clip,
    variance: Variance,
    timesteps: Vec<usize>,
}

impl Ddpm {
    /// # Errors
    ///
    /// `inference_steps` is 0 or above the trained timesteps, or the timesteps that follow from it cannot be visited.
    pub fn new(config: &SchedulerConfig, inference_steps: usize) -> Result<Self, ScheduleError> {
        let schedule = NoiseSchedule::new(config);
        let timesteps = timesteps(config, inference_steps)?;
        check_signal(config, &schedule, &timesteps, false)?;
        Ok(Self {
            schedule,
            clip: config.clip,
            variance: config.variance,
            timesteps,
        })
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

    /// One step from `timestep` to the next of [`Ddpm::timesteps`]: a draw from the posterior of `x_prev` given `x_t`
    /// and the predicted clean image (Ho et al. 2020, arXiv 2006.11239, eqs. 6-7, with the variance of section 3.2).
    ///
    /// `noise` gives a standard normal draw of the sample's shape. It is not called at timestep 0.
    ///
    /// # Shapes
    ///
    /// `output` (the network's) and `sample`: `[batch, ..]`, alike; so is the result.
    ///
    /// # Panics
    ///
    /// `timestep` is not one of [`Ddpm::timesteps`].
    pub fn step(
        &self,
        output: Tensor<4>,
        timestep: usize,
        sample: Tensor<4>,
        noise: impl FnOnce() -> Tensor<4>,
    ) -> Tensor<4> {
        let abar = self.schedule.abar[timestep];
        let abar_prev = self
            .previous(timestep)
            .map_or(1.0, |previous| self.schedule.abar[previous]);
        let alpha = alpha(abar, abar_prev);
        let beta = 1.0 - alpha;

        let clean = self.clean(output, timestep, sample.clone());
        let mean = clean.mul_scalar(abar_prev.sqrt() * beta / (1.0 - abar))
            + sample.mul_scalar(alpha.sqrt() * (1.0 - abar_prev) / (1.0 - abar));
        if timestep == 0 {
            return mean;
        }
        let variance = match self.variance {
            Variance::FixedSmall => ((1.0 - abar_prev) / (1.0 - abar) * beta).max(1e-20),
            Variance::FixedLarge => beta,
        };
        mean + noise().mul_scalar(variance.sqrt())
    }

    /// The timestep after this one; none after the last.
    fn previous(&self, timestep: usize) -> Option<usize> {
        let position = self
            .timesteps
            .iter()
            .position(|&visited| visited == timestep)
            .expect("the timestep is one of the sampler's");
        self.timesteps.get(position + 1).copied()
    }
}

/// The signal that one step keeps, `abar / abar_prev`, rounded to f32 as diffusers does. Between neighboring
/// timesteps near 0 the rounding moves `1 - alpha` by up to 3e-4 of itself and the step's mean by 8e-5 of the image;
/// without it the two would differ by that much.
pub(super) fn alpha(abar: f64, abar_prev: f64) -> f64 {
    f64::from(abar as f32 / abar_prev as f32)
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

    fn value(image: Tensor<4>) -> f32 {
        image.into_scalar()
    }

    /// betas 0.36 and 0.4375: abar = 0.64 and 0.36.
    fn two_steps(variance: Variance, clip: Clip) -> Ddpm {
        let config = SchedulerConfig {
            num_train_timesteps: 2,
            beta_schedule: BetaSchedule::Trained(vec![0.36, 0.4375]),
            prediction: Prediction::Sample,
            clip,
            variance,
            ..SchedulerConfig::default()
        };
        Ddpm::new(&config, 2).unwrap()
    }

    #[test]
    fn a_step_draws_from_the_posterior() {
        // mean = 0.8 * 0.4375 / 0.64 * x0 + 0.75 * 0.36 / 0.64 * x = 0.546875 x0 + 0.421875 x
        // variance = 0.36 / 0.64 * 0.4375 = 0.24609375, or beta = 0.4375
        for (variance, deviation) in [
            (Variance::FixedSmall, 0.496_078_4),
            (Variance::FixedLarge, 0.661_437_8),
        ] {
            let sampler = two_steps(variance, Clip::None);
            let mean = value(sampler.step(pixel(2.0), 1, pixel(1.0), || pixel(0.0)));
            assert!((mean - 1.515_625).abs() < 1e-6, "{mean}");
            let drawn = value(sampler.step(pixel(2.0), 1, pixel(1.0), || pixel(1.0)));
            assert!((drawn - mean - deviation).abs() < 1e-6, "{drawn}");
        }
    }

    #[test]
    fn the_predicted_clean_image_is_clipped() {
        let sampler = two_steps(Variance::FixedSmall, Clip::Range(1.0));
        let stepped = value(sampler.step(pixel(2.0), 1, pixel(1.0), || pixel(0.0)));
        assert!((stepped - 0.96875).abs() < 1e-6, "{stepped}");
    }

    #[test]
    fn the_step_at_timestep_zero_gives_the_clean_image_and_draws_no_noise() {
        let sampler = two_steps(Variance::FixedLarge, Clip::None);
        let stepped = sampler.step(pixel(0.25), 0, pixel(9.0), || panic!("noise was drawn"));
        assert!((value(stepped) - 0.25).abs() < 1e-6);
    }

    #[test]
    #[should_panic(expected = "one of the sampler's")]
    fn a_timestep_that_is_not_visited_is_a_fault_of_the_caller() {
        let sampler = Ddpm::new(&SchedulerConfig::default(), 50).unwrap();
        sampler.step(pixel(0.0), 7, pixel(0.0), || pixel(0.0));
    }
}
