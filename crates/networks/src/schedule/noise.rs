//! The forward process, and the conversions between what a network may predict.

use super::ScheduleError;
use super::betas;
use super::config::{Prediction, SchedulerConfig};
use burn::tensor::{Device, Tensor, TensorData};

/// `abar` of every trained timestep, and what the network predicts.
///
/// The methods on tensors take one timestep per image, or a single one for all of them.
///
/// # Panics
///
/// All methods panic on a timestep that the schedule does not have: timesteps from outside go through
/// [`NoiseSchedule::check`] first.
#[derive(Debug, Clone, PartialEq)]
pub struct NoiseSchedule {
    /// Noise that each trained timestep adds, as a share of variance: diffusers' `betas`, linear ones before they are
    /// rounded to f32.
    pub betas: Vec<f64>,
    /// The running product of `1 - beta`, which is the signal's share of a noisy image's variance: diffusers'
    /// `alphas_cumprod`, bit for bit (within 2.5e-7 with `rescale_betas_zero_snr`).
    pub abar: Vec<f64>,
    pub prediction: Prediction,
}

impl NoiseSchedule {
    pub fn new(config: &SchedulerConfig) -> Self {
        let betas = betas::betas(config);
        Self {
            abar: betas::abar(&betas),
            betas: betas::unrounded(config, &betas),
            prediction: config.prediction,
        }
    }

    /// How many timesteps the network was trained with.
    pub fn timesteps(&self) -> usize {
        self.abar.len()
    }

    /// `g = sqrt(abar_t)`.
    pub fn signal(&self, timestep: usize) -> f64 {
        self.abar[timestep].sqrt()
    }

    /// `s = sqrt(1 - abar_t)`.
    pub fn noise(&self, timestep: usize) -> f64 {
        (1.0 - self.abar[timestep]).sqrt()
    }

    /// Timesteps from outside, as indices.
    ///
    /// # Errors
    ///
    /// The first one that is negative or past the last trained timestep.
    pub fn check(&self, timesteps: &[i64]) -> Result<Vec<usize>, ScheduleError> {
        timesteps
            .iter()
            .map(|&timestep| {
                usize::try_from(timestep)
                    .ok()
                    .filter(|&index| index < self.timesteps())
                    .ok_or(ScheduleError::Timestep {
                        timestep,
                        last: self.timesteps() - 1,
                    })
            })
            .collect()
    }

    /// The noisy image `x_t = g * clean + s * noise` (Ho et al. 2020, arXiv 2006.11239, eq. 4).
    ///
    /// # Shapes
    ///
    /// `clean` and `noise`: `[batch, ..]`; `timesteps`: `batch` or 1.
    pub fn add_noise(&self, clean: Tensor<4>, noise: Tensor<4>, timesteps: &[usize]) -> Tensor<4> {
        let (g, s) = self.coefficients(timesteps, &clean.device());
        clean * g + noise * s
    }

    /// What the network is to predict, given the noise that was added.
    ///
    /// # Shapes
    ///
    /// `clean` and `noise`: `[batch, ..]`; `timesteps`: `batch` or 1.
    pub fn target_of_noise(
        &self,
        clean: Tensor<4>,
        noise: Tensor<4>,
        timesteps: &[usize],
    ) -> Tensor<4> {
        match self.prediction {
            Prediction::Epsilon => noise,
            Prediction::Sample => clean,
            Prediction::VPrediction => {
                let (g, s) = self.coefficients(timesteps, &clean.device());
                noise * g - clean * s
            }
        }
    }

    /// What the network would have to predict for `noisy` to come from `clean`, whichever image it was made from.
    /// `v_prediction` is `(g * x_t - x0) / s`, which follows from `g * g + s * s = 1`.
    ///
    /// # Shapes
    ///
    /// `noisy` and `clean`: `[batch, ..]`; `timesteps`: `batch` or 1.
    pub fn target(&self, noisy: Tensor<4>, clean: Tensor<4>, timesteps: &[usize]) -> Tensor<4> {
        match self.prediction {
            Prediction::Epsilon => self.epsilon_of_clean(noisy, clean, timesteps),
            Prediction::Sample => clean,
            Prediction::VPrediction => {
                let (g, s) = self.coefficients(timesteps, &noisy.device());
                (noisy * g - clean) / s
            }
        }
    }

    /// The clean image that a network's output stands for.
    ///
    /// # Shapes
    ///
    /// `noisy` and `output`: `[batch, ..]`; `timesteps`: `batch` or 1.
    pub fn clean(&self, noisy: Tensor<4>, output: Tensor<4>, timesteps: &[usize]) -> Tensor<4> {
        let (g, s) = self.coefficients(timesteps, &noisy.device());
        match self.prediction {
            Prediction::Epsilon => (noisy - output * s) / g,
            Prediction::Sample => output,
            Prediction::VPrediction => noisy * g - output * s,
        }
    }

    /// The noise that a network's output stands for.
    ///
    /// # Shapes
    ///
    /// `noisy` and `output`: `[batch, ..]`; `timesteps`: `batch` or 1.
    pub fn epsilon(&self, noisy: Tensor<4>, output: Tensor<4>, timesteps: &[usize]) -> Tensor<4> {
        match self.prediction {
            Prediction::Epsilon => output,
            Prediction::Sample => self.epsilon_of_clean(noisy, output, timesteps),
            Prediction::VPrediction => {
                let (g, s) = self.coefficients(timesteps, &noisy.device());
                output * g + noisy * s
            }
        }
    }

    fn epsilon_of_clean(
        &self,
        noisy: Tensor<4>,
        clean: Tensor<4>,
        timesteps: &[usize],
    ) -> Tensor<4> {
        let (g, s) = self.coefficients(timesteps, &noisy.device());
        (noisy - clean * g) / s
    }

    /// `g` and `s` as `[timesteps, 1, 1, 1]`. Here f64 becomes f32, as precise as the tensors that they scale.
    fn coefficients(&self, timesteps: &[usize], device: &Device) -> (Tensor<4>, Tensor<4>) {
        let column = |of: &dyn Fn(usize) -> f64| {
            let values: Vec<f32> = timesteps
                .iter()
                .map(|&timestep| of(timestep) as f32)
                .collect();
            Tensor::from_data(TensorData::new(values, [timesteps.len(), 1, 1, 1]), device)
        };
        (column(&|t| self.signal(t)), column(&|t| self.noise(t)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::BetaSchedule;
    use super::*;

    const STABLE_DIFFUSION: BetaSchedule = BetaSchedule::ScaledLinear {
        start: 0.00085,
        end: 0.012,
    };
    const PREDICTIONS: [Prediction; 3] = [
        Prediction::Epsilon,
        Prediction::Sample,
        Prediction::VPrediction,
    ];

    fn images(values: [f32; 4]) -> Tensor<4> {
        Tensor::from_data(
            TensorData::new(values.to_vec(), [2, 1, 2, 1]),
            &Device::default(),
        )
    }

    fn values(images: Tensor<4>) -> Vec<f32> {
        images.into_data().try_to_vec().unwrap()
    }

    fn assert_close(actual: Tensor<4>, expected: [f32; 4]) {
        let actual = values(actual);
        for (a, e) in actual.iter().zip(expected) {
            assert!((a - e).abs() < 1e-5, "{actual:?} is not {expected:?}");
        }
    }

    /// abar = 0.64 and 0.36: (g, s) = (0.8, 0.6) and (0.6, 0.8).
    fn pythagorean(prediction: Prediction) -> NoiseSchedule {
        NoiseSchedule::new(&SchedulerConfig {
            num_train_timesteps: 2,
            beta_schedule: BetaSchedule::Trained(vec![0.36, 0.4375]),
            prediction,
            ..SchedulerConfig::default()
        })
    }

    // The numbers of the next two tests: alphas_cumprod of diffusers 0.42.1 on torch 2.15 (CPU).

    #[test]
    fn abar_is_bit_for_bit_that_of_diffusers() {
        let check = |beta_schedule: BetaSchedule, expected: [f64; 4]| {
            let schedule = NoiseSchedule::new(&SchedulerConfig {
                beta_schedule,
                ..SchedulerConfig::default()
            });
            assert_eq!(
                [0, 250, 500, 999].map(|timestep| schedule.abar[timestep]),
                expected
            );
        };
        check(
            SchedulerConfig::default().beta_schedule,
            [
                0.9998999834060669,
                0.5214229822158813,
                0.07779665291309357,
                4.035830352222547e-05,
            ],
        );
        check(
            STABLE_DIFFUSION,
            [
                0.9991499781608582,
                0.67379230260849,
                0.27633246779441833,
                0.00466009508818388,
            ],
        );
        check(
            BetaSchedule::SquaredCosCapV2,
            [
                0.9999586939811707,
                0.8458880186080933,
                0.4922850430011749,
                2.4287349909002387e-09,
            ],
        );
    }

    #[test]
    fn zero_terminal_snr_ends_without_any_signal() {
        let schedule = NoiseSchedule::new(&SchedulerConfig {
            beta_schedule: STABLE_DIFFUSION,
            rescale_betas_zero_snr: true,
            ..SchedulerConfig::default()
        });
        assert_eq!(schedule.abar[999], 0.0);
        for (timestep, abar) in [
            (0, 0.9991499781608582),
            (250, 0.6524567604064941),
            (500, 0.2410186380147934),
            (998, 1.9679633567193378e-07),
        ] {
            assert!(
                (schedule.abar[timestep] - abar).abs() < 2.5e-7,
                "{timestep}"
            );
        }
    }

    #[test]
    fn two_step_schedule_has_the_signal_and_noise_of_right_triangles() {
        let schedule = pythagorean(Prediction::Epsilon);
        for (timestep, g, s) in [(0, 0.8, 0.6), (1, 0.6, 0.8)] {
            assert!((schedule.signal(timestep) - g).abs() < 1e-7);
            assert!((schedule.noise(timestep) - s).abs() < 1e-7);
        }
    }

    #[test]
    fn each_image_has_its_own_timestep() {
        let schedule = pythagorean(Prediction::VPrediction);
        let (clean, noise) = (images([1.0, 0.0, 1.0, -1.0]), images([0.5, 1.0, 0.5, 2.0]));
        let noisy = schedule.add_noise(clean.clone(), noise.clone(), &[0, 1]);
        assert_close(noisy, [1.1, 0.6, 1.0, 1.0]);
        // g * e - s * x0
        let velocity = schedule.target_of_noise(clean, noise, &[0, 1]);
        assert_close(velocity, [-0.2, 0.8, -0.5, 2.0]);
    }

    #[test]
    fn the_target_of_the_added_noise_is_the_target_of_the_true_clean_image() {
        let (clean, noise) = (images([1.0, 0.0, 1.0, -1.0]), images([0.5, 1.0, 0.5, 2.0]));
        for prediction in PREDICTIONS {
            let schedule = pythagorean(prediction);
            let noisy = schedule.add_noise(clean.clone(), noise.clone(), &[1, 0]);
            let expected = schedule.target_of_noise(clean.clone(), noise.clone(), &[1, 0]);
            let expected = values(expected).try_into().unwrap();
            assert_close(schedule.target(noisy, clean.clone(), &[1, 0]), expected);
        }
    }

    #[test]
    fn an_output_equal_to_the_target_gives_back_the_clean_image_and_the_noise() {
        let (clean, noise) = (images([1.0, 0.0, 1.0, -1.0]), images([0.5, 1.0, 0.5, 2.0]));
        for prediction in PREDICTIONS {
            let schedule = pythagorean(prediction);
            let noisy = schedule.add_noise(clean.clone(), noise.clone(), &[0, 1]);
            let output = schedule.target_of_noise(clean.clone(), noise.clone(), &[0, 1]);
            assert_close(
                schedule.clean(noisy.clone(), output.clone(), &[0, 1]),
                [1.0, 0.0, 1.0, -1.0],
            );
            assert_close(
                schedule.epsilon(noisy, output, &[0, 1]),
                [0.5, 1.0, 0.5, 2.0],
            );
        }
    }

    #[test]
    fn one_timestep_serves_the_whole_batch() {
        let schedule = pythagorean(Prediction::Epsilon);
        let noisy = schedule.add_noise(images([1.0; 4]), images([0.5; 4]), &[0]);
        assert_close(noisy, [1.1; 4]);
    }

    #[test]
    fn timesteps_from_outside_are_checked() {
        let schedule = pythagorean(Prediction::Epsilon);
        assert_eq!(schedule.check(&[1, 0]).unwrap(), [1, 0]);
        for timestep in [-1, 2] {
            let error = schedule.check(&[0, timestep]).unwrap_err();
            assert_eq!(error, ScheduleError::Timestep { timestep, last: 1 });
        }
    }
}
