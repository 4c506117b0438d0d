//! Pseudo linear multistep sampling.

use super::config::SchedulerConfig;
use super::timesteps::{check_signal, timesteps};
use super::{NoiseSchedule, Prediction, ScheduleError};
use burn::tensor::Tensor;

/// diffusers' `PNDMScheduler` with `skip_prk_steps` and its timesteps set: Stable Diffusion's own.
///
/// A step uses the network's last outputs, so a walk has a [`PndmState`].
#[derive(Debug, Clone)]
pub struct Pndm {
    schedule: NoiseSchedule,
    /// `abar` where a step ends before timestep 0.
    last_abar: f64,
    stride: usize,
    timesteps: Vec<usize>,
}

/// What a walk remembers of its steps.
#[derive(Debug, Clone, Default)]
pub struct PndmState {
    /// The network's outputs, newest last, four at most.
    outputs: Vec<Tensor<4>>,
    /// Where the first step began: the second one begins there too.
    start: Option<Tensor<4>>,
    steps: usize,
}

impl Pndm {
    /// # Errors
    ///
    /// `skip_prk_steps` is false, the network predicts the clean image, or `inference_steps` is 0 or above the trained
    /// timesteps.
    pub fn new(config: &SchedulerConfig, inference_steps: usize) -> Result<Self, ScheduleError> {
        if !config.skip_prk_steps {
            return Err(ScheduleError::Unsupported {
                key: "skip_prk_steps",
                // Its default too.
                value: "false, or no such key,".into(),
                supported: "true (without Runge-Kutta steps), or sampling by DDIM or DDPM",
            });
        }
        if config.prediction == Prediction::Sample {
            return Err(ScheduleError::Unsupported {
                key: "prediction_type",
                value: "\"sample\"".into(),
                supported: "epsilon and v_prediction with PNDM; DDIM and DDPM take sample too",
            });
        }
        let schedule = NoiseSchedule::new(config);
        let timesteps = timesteps(config, inference_steps)?;
        check_signal(config, &schedule, &timesteps, true)?;
        Ok(Self {
            last_abar: if config.set_alpha_to_one {
                1.0
            } else {
                schedule.abar[0]
            },
            stride: config.num_train_timesteps / inference_steps,
            timesteps: warmed_up(timesteps),
            schedule,
        })
    }

    /// The forward process that it undoes.
    pub fn schedule(&self) -> &NoiseSchedule {
        &self.schedule
    }

    /// The timesteps to visit, from noise to image; the second one comes twice.
    pub fn timesteps(&self) -> &[usize] {
        &self.timesteps
    }

    /// The timesteps of a walk that begins at `first` or the highest below it.
    pub(super) fn timesteps_from(&self, first: usize) -> Vec<usize> {
        let mut below: Vec<usize> = self.timesteps.clone();
        below.dedup();
        below.retain(|&timestep| timestep <= first);
        warmed_up(below)
    }

    /// One step from `timestep` (Liu et al. 2022, arXiv 2202.09778, eqs. 9 and 12): along an average of the last
    /// outputs, of rising order in the first steps. The second step takes the first again, along the mean of
    /// the outputs at both its ends.
    ///
    /// # Shapes
    ///
    /// `output` (the network's) and `sample`: `[batch, ..]`, alike; so is the result.
    pub fn step(
        &self,
        state: &mut PndmState,
        output: Tensor<4>,
        timestep: usize,
        sample: Tensor<4>,
    ) -> Tensor<4> {
        let again = state.steps == 1;
        state.steps += 1;
        let (from, to, sample, output) = if again {
            let before = state.outputs.last().expect("the first step kept it");
            let mean = (output + before.clone()).div_scalar(2.0);
            let start = state.start.take().expect("the first step kept it");
            (timestep + self.stride, Some(timestep), start, mean)
        } else {
            if state.steps == 1 {
                state.start = Some(sample.clone());
            }
            if state.outputs.len() == 4 {
                state.outputs.remove(0);
            }
            state.outputs.push(output);
            let weights: &[f64] = match state.outputs.len() {
                1 => &[1.0],
                2 => &[-1.0 / 2.0, 3.0 / 2.0],
                3 => &[5.0 / 12.0, -16.0 / 12.0, 23.0 / 12.0],
                _ => &[-9.0 / 24.0, 37.0 / 24.0, -59.0 / 24.0, 55.0 / 24.0],
            };
            let terms = state.outputs.iter().zip(weights);
            let average = terms
                .map(|(output, &weight)| output.clone().mul_scalar(weight))
                .reduce(|sum, term| sum + term)
                .expect("one output at least");
            (timestep, timestep.checked_sub(self.stride), sample, average)
        };
        self.advance(sample, from, to, output)
    }

    /// From one timestep to another (none: past 0) with the given output.
    fn advance(
        &self,
        sample: Tensor<4>,
        from: usize,
        to: Option<usize>,
        output: Tensor<4>,
    ) -> Tensor<4> {
        // Where the first timestep is the last trained one, diffusers indexes past the end; there is nothing above.
        let abar = self.schedule.abar[from.min(self.schedule.timesteps() - 1)];
        let abar_to = to.map_or(self.last_abar, |timestep| self.schedule.abar[timestep]);
        let epsilon = match self.schedule.prediction {
            Prediction::VPrediction => {
                output.mul_scalar(abar.sqrt()) + sample.clone().mul_scalar((1.0 - abar).sqrt())
            }
            _ => output,
        };
        let scale = (abar_to / abar).sqrt();
        let slope = (abar_to - abar)
            / (abar * (1.0 - abar_to).sqrt() + (abar * (1.0 - abar) * abar_to).sqrt());
        sample.mul_scalar(scale) - epsilon.mul_scalar(slope)
    }
}

/// The second timestep a second time, if there is one.
fn warmed_up(mut timesteps: Vec<usize>) -> Vec<usize> {
    if let Some(&second) = timesteps.get(1) {
        timesteps.insert(1, second);
    }
    timesteps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> SchedulerConfig {
        SchedulerConfig {
            skip_prk_steps: true,
            set_alpha_to_one: false,
            ..SchedulerConfig::default()
        }
    }

    #[test]
    fn the_second_timestep_comes_twice_wherever_a_walk_begins() {
        let pndm = Pndm::new(&config(), 4).unwrap();
        assert_eq!(pndm.timesteps(), [750, 500, 500, 250, 0]);
        assert_eq!(pndm.timesteps_from(600), [500, 250, 250, 0]);
        assert_eq!(pndm.timesteps_from(0), [0]);
        assert_eq!(Pndm::new(&config(), 1).unwrap().timesteps(), [0]);
    }

    #[test]
    fn what_it_cannot_do_is_refused_by_name() {
        let runge_kutta = SchedulerConfig::default();
        let text = Pndm::new(&runge_kutta, 4).unwrap_err().to_string();
        assert!(text.contains("skip_prk_steps"), "{text}");
        let sample = SchedulerConfig {
            prediction: Prediction::Sample,
            ..config()
        };
        let text = Pndm::new(&sample, 4).unwrap_err().to_string();
        assert!(text.contains("prediction_type"), "{text}");
    }
}
