//! The forward process of discrete betas.

use super::ScheduleError;
use super::betas;
use super::config::{Prediction, SchedulerConfig};
use crate::process::{Process, Target, Time};
use crate::random::Draw;

/// `abar` of every trained timestep, and what the network predicts: `x_t = sqrt(abar_t) * x + sqrt(1 - abar_t) * e`.
#[derive(Debug, Clone, PartialEq)]
pub struct NoiseSchedule {
    /// Noise that each trained timestep adds, as a share of variance: diffusers' `betas`, linear ones before they are
    /// rounded to f32.
    pub betas: Vec<f64>,
    /// The running product of `1 - beta`, which is the signal's share of a noisy image's variance: diffusers'
    /// `alphas_cumprod`, bit for bit (within 2.5e-7 with `rescale_betas_zero_snr`).
    pub abar: Vec<f64>,
    /// What the network predicts.
    pub prediction: Prediction,
}

impl NoiseSchedule {
    /// The schedule of this configuration.
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

    /// The number of a trained timestep.
    ///
    /// # Panics
    ///
    /// The time is none.
    pub(super) fn index(&self, time: Time) -> usize {
        let index = time.value() as usize;
        assert!(
            time == index && index < self.timesteps(),
            "{time} is no timestep of a schedule of {}",
            self.timesteps()
        );
        index
    }

    /// `abar` at a trained timestep.
    pub(super) fn abar_at(&self, time: Time) -> f64 {
        self.abar[self.index(time)]
    }
}

impl Process for NoiseSchedule {
    /// `g = sqrt(abar_t)`.
    fn signal(&self, time: Time) -> f64 {
        self.abar_at(time).sqrt()
    }

    /// `s = sqrt(1 - abar_t)`.
    fn noise(&self, time: Time) -> f64 {
        (1.0 - self.abar_at(time)).sqrt()
    }

    fn target(&self, time: Time) -> Target {
        let (clean, noise) = match self.prediction {
            Prediction::Epsilon => (0.0, 1.0),
            Prediction::Sample => (1.0, 0.0),
            Prediction::VPrediction => (-self.noise(time), self.signal(time)),
        };
        Target { clean, noise }
    }

    fn check(&self, timesteps: &[f64]) -> Result<Vec<Time>, ScheduleError> {
        let last = self.timesteps() - 1;
        let checked = timesteps.iter().map(|&timestep| {
            let whole = timestep.fract() == 0.0 && (0.0..=last as f64).contains(&timestep);
            match whole {
                true => Ok(Time::new(timestep)),
                false => Err(ScheduleError::Timestep { timestep, last }),
            }
        });
        checked.collect()
    }

    /// All timesteps are as likely.
    fn draw(&self, part: usize, parts: usize, draw: &mut Draw) -> Time {
        let edge = |part: usize| part * self.timesteps() / parts;
        // With more parts than timesteps some are empty.
        let width = (edge(part + 1) - edge(part)).max(1);
        Time::timestep(edge(part) + draw.integers(1, width)[0])
    }

    fn quantile(&self, part: usize, parts: usize) -> Time {
        Time::timestep(part * self.timesteps() / parts)
    }

    fn discrete(&self) -> Option<&NoiseSchedule> {
        Some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::super::BetaSchedule;
    use super::*;
    use burn::tensor::{Device, Tensor, TensorData};

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

    fn times<const N: usize>(timesteps: [usize; N]) -> [Time; N] {
        timesteps.map(Time::timestep)
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
            let time = Time::timestep(timestep);
            assert!((schedule.signal(time) - g).abs() < 1e-7);
            assert!((schedule.noise(time) - s).abs() < 1e-7);
        }
    }

    #[test]
    fn each_image_has_its_own_timestep() {
        let schedule = pythagorean(Prediction::VPrediction);
        let (clean, noise) = (images([1.0, 0.0, 1.0, -1.0]), images([0.5, 1.0, 0.5, 2.0]));
        let noisy = schedule.add_noise(clean.clone(), noise.clone(), &times([0, 1]));
        assert_close(noisy, [1.1, 0.6, 1.0, 1.0]);
        // g * e - s * x0
        let velocity = schedule.target_of_noise(clean, noise, &times([0, 1]));
        assert_close(velocity, [-0.2, 0.8, -0.5, 2.0]);
    }

    #[test]
    fn the_target_of_the_added_noise_is_the_target_of_the_true_clean_image() {
        let (clean, noise) = (images([1.0, 0.0, 1.0, -1.0]), images([0.5, 1.0, 0.5, 2.0]));
        for prediction in PREDICTIONS {
            let schedule = pythagorean(prediction);
            let noisy = schedule.add_noise(clean.clone(), noise.clone(), &times([1, 0]));
            let expected = schedule.target_of_noise(clean.clone(), noise.clone(), &times([1, 0]));
            let expected = values(expected).try_into().unwrap();
            assert_close(
                schedule.target_of_clean(noisy, clean.clone(), &times([1, 0])),
                expected,
            );
        }
    }

    #[test]
    fn an_output_equal_to_the_target_gives_back_the_clean_image_and_the_noise() {
        let (clean, noise) = (images([1.0, 0.0, 1.0, -1.0]), images([0.5, 1.0, 0.5, 2.0]));
        for prediction in PREDICTIONS {
            let schedule = pythagorean(prediction);
            let noisy = schedule.add_noise(clean.clone(), noise.clone(), &times([0, 1]));
            let output = schedule.target_of_noise(clean.clone(), noise.clone(), &times([0, 1]));
            assert_close(
                schedule.clean(noisy.clone(), output.clone(), &times([0, 1])),
                [1.0, 0.0, 1.0, -1.0],
            );
            assert_close(
                schedule.epsilon(noisy, output, &times([0, 1])),
                [0.5, 1.0, 0.5, 2.0],
            );
        }
    }

    #[test]
    fn one_timestep_serves_the_whole_batch() {
        let schedule = pythagorean(Prediction::Epsilon);
        let noisy = schedule.add_noise(images([1.0; 4]), images([0.5; 4]), &times([0]));
        assert_close(noisy, [1.1; 4]);
    }

    #[test]
    fn timesteps_from_outside_are_checked() {
        let schedule = pythagorean(Prediction::Epsilon);
        assert_eq!(schedule.check(&[1.0, 0.0]).unwrap(), [1, 0]);
        for timestep in [-1.0, 2.0, 0.5, f64::NAN] {
            let error = schedule.check(&[0.0, timestep]).unwrap_err();
            assert!(error.to_string().contains(&timestep.to_string()), "{error}");
        }
    }
}
