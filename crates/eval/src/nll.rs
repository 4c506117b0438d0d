//! The negative log-likelihood of images under a network.

use std::f64::consts::{LN_2, PI};
use std::ops::Range;

use burn::tensor::{Device, Tensor, TensorData};
use retrack_networks::denoiser::{Denoiser, InputError};
use retrack_networks::parameters::to_host;
use retrack_networks::process::{Process, Time};
use retrack_networks::random::{Random, Stream};
use retrack_networks::schedule::NoiseSchedule;
use serde::{Deserialize, Serialize};

use crate::ode::{OdeError, Tolerance, rk45};

/// At t = 0 the score is infinite.
const INTERVAL: [f64; 2] = [1e-5, 1.0];
const TOLERANCE: Tolerance = Tolerance {
    relative: 1e-5,
    absolute: 1e-5,
};
/// score_sde's `7 - inverse_scaler(-1)` for pixels in [-1, 1]: from densities of these to those of bytes.
pub const OFFSET: f64 = 7.0;
/// How far the deviation of the equation's noise may be from that of the label's timestep, where noise alone has 1. Of the
/// published 1,000 timesteps it is a hundredth, of Stable Diffusion's 0.03.
const NOISE_TOLERANCE: f64 = 0.05;

/// The likelihood that a network gives to images, as score_sde computes it (Song et al. 2021, arXiv 2011.13456,
/// section 4.3 and appendix D.2), here for a network of whole timesteps.
///
/// The noise of the network's schedule becomes a stochastic differential equation that preserves variance, and the
/// network its score `-eps(x, label) / std(t)`, `std(t)^2 = 1 - exp(-integral of beta from 0 to t)`, with label
/// `trunc((timesteps - 1) t)`. `beta(t)` is `timesteps` times the schedule's own beta at timestep `(timesteps - 1) t`,
/// straight between two of them: `0.1 + 19.9 t` for the published 1,000 linear betas from 1e-4 to 0.02. The equation
/// `dx/dt = -beta x / 2 - beta score / 2` leads from the image at t = 1e-5 to noise z at t = 1 and
///
/// ```text
/// log p(x) = log N(z; 0, I) + integral of div(dx/dt) dt
/// bits/dim = -log p(x) / (ln 2 * dimensions) + 7
/// ```
///
/// The [7](OFFSET) is there of bytes alone. Latents stand for no bytes: theirs is the density of the values as the network
/// takes them, which may be above 1 and the bits below 0. Numbers of bytes and of latents, or of latents of two autoencoders, cannot be
/// compared.
///
/// The divergence is estimated along one `probe` of -1 and 1 (Hutchinson), the same at all t: its error is in the
/// result, so models are compared with the same probe. A higher number means that the image is less likely; no
/// noise is added to the pixels for their discreteness.
pub struct Likelihood<'a> {
    /// Its tensors are on `device`. Only the gradient of its input is used: without the gradients of its
    /// parameters (Burn's `Module::no_grad`) it takes less time and memory.
    pub network: &'a dyn Denoiser,
    /// What the network predicts, and how that becomes noise.
    pub process: &'a dyn Process,
    /// With autodiff.
    pub device: &'a Device,
    /// The values of images are bytes, scaled to [-1, 1].
    pub bytes: bool,
}

/// Negative log-likelihoods.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Nll {
    /// Bits per dimension of each image.
    pub bits_per_dim: Vec<f64>,
    /// How often the network and its derivative were computed.
    pub evaluations: usize,
}

/// Why a likelihood cannot be computed.
#[derive(Debug, thiserror::Error)]
pub enum NllError {
    /// Images that do not fit the network.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The integration failed.
    #[error("the probability flow cannot be followed: {0}")]
    Ode(#[from] OdeError),
    /// No whole number of images.
    #[error("{what} have {found} values; {expected} make images of this shape")]
    Length {
        /// Which: images or probes.
        what: &'static str,
        /// Values given.
        found: usize,
        /// Values that would fit.
        expected: usize,
    },
    /// The network answers with another shape.
    #[error("the network's output has shape {found:?}, its input {expected:?}")]
    Output {
        /// The output's.
        found: [usize; 4],
        /// The input's.
        expected: [usize; 4],
    },
    /// The divergence needs a gradient.
    #[error("the network is on a device without autodiff, which gives no divergence")]
    NoAutodiff,
    /// Another process than discrete betas.
    #[error("the equation is known of processes of discrete betas only")]
    NoBetas,
    /// Too few steps for an equation in continuous time.
    #[error(
        "the schedule's steps are too coarse for an equation in continuous time: at timestep {timestep} the network knows \
         noise of deviation {network:.3}, where the equation has {equation:.3}"
    )]
    Coarse {
        /// Where.
        timestep: usize,
        /// Deviation of the network's noise.
        network: f64,
        /// Deviation of the equation's.
        equation: f64,
    },
}

/// -1 or 1 with equal probability for each of `values` values of the images with these numbers: a probe. An image
/// has the same probe in whatever range it is asked for.
pub fn rademacher(random: &Random, images: Range<u64>, values: usize) -> Vec<f32> {
    images
        .flat_map(|image| {
            let signs = random
                .at(Stream::Hutchinson, 0, image)
                .bernoulli(values, 0.5);
            signs.into_iter().map(|up| if up { 1.0 } else { -1.0 })
        })
        .collect()
}

impl Likelihood<'_> {
    /// Bits per dimension of `images`, values in [-1, 1] where they are bytes, along `probe`, both of `shape`
    /// `[batch, height, width, channels]`, one image after another.
    ///
    /// As in score_sde, the batch is one equation whose steps all its images share: an image's result depends on
    /// its batch within the solver's tolerance. `labels` holds one class for each image of a network with classes.
    /// `progress` is called with the time in (0, 1] that each step reached.
    ///
    /// # Errors
    /// [`NllError`]: input that does not fit, or a network whose output is not finite (one with Fourier time
    /// embedding has no timestep 0, where the equation begins).
    pub fn bits_per_dim(
        &self,
        images: &[f32],
        shape: [usize; 4],
        labels: Option<&[i64]>,
        probe: &[f32],
        progress: &mut dyn FnMut(f64),
    ) -> Result<Nll, NllError> {
        let expected = shape.iter().product();
        for (what, values) in [("images", images), ("the probe's signs", probe)] {
            if values.len() != expected {
                return Err(NllError::Length {
                    what,
                    found: values.len(),
                    expected,
                });
            }
        }
        if !self.device.is_autodiff() {
            return Err(NllError::NoAutodiff);
        }
        let betas = Betas::of(self.process)?;
        let [batch, ..] = shape;
        if expected == 0 {
            return Ok(Nll {
                bits_per_dim: vec![],
                evaluations: 0,
            });
        }
        let dimensions = expected / batch;
        let offset = if self.bytes { OFFSET } else { 0.0 };

        // Every pixel, then for each image the change of its log density.
        let mut state: Vec<f64> = images.iter().map(|&pixel| f64::from(pixel)).collect();
        state.resize(expected + batch, 0.0);
        let solution = rk45(
            |t, state| self.flow(&betas, t, &state[..expected], shape, labels, probe),
            INTERVAL,
            state,
            TOLERANCE,
            progress,
        )?;
        let (noise, change) = solution.state.split_at(expected);
        let bits_per_dim = noise
            .chunks_exact(dimensions)
            .zip(change)
            .map(|(noise, change)| {
                let squares: f64 = noise.iter().map(|z| z * z).sum();
                let prior = -0.5 * (dimensions as f64 * (2.0 * PI).ln() + squares);
                -(prior + change) / LN_2 / dimensions as f64 + offset
            })
            .collect();
        Ok(Nll {
            bits_per_dim,
            evaluations: solution.evaluations,
        })
    }

    /// `dx/dt`, and for each image the estimate `<probe, d(dx/dt)/dx probe>` of its divergence.
    fn flow(
        &self,
        betas: &Betas,
        t: f64,
        x: &[f64],
        shape: [usize; 4],
        labels: Option<&[i64]>,
        probe: &[f32],
    ) -> Result<Vec<f64>, NllError> {
        let (beta, std) = betas.at(t);
        let (noise, gradient) = self.noise_and_gradient(betas, t, x, shape, labels, probe)?;

        // -beta x / 2 + beta eps / (2 std), of which the network gives eps.
        let factor = 0.5 * beta / std;
        let mut flow: Vec<f64> = x
            .iter()
            .zip(&noise)
            .map(|(x, noise)| -0.5 * beta * x + factor * f64::from(*noise))
            .collect();
        let dimensions = x.len() / shape[0];
        let images = probe
            .chunks_exact(dimensions)
            .zip(gradient.chunks_exact(dimensions));
        flow.extend(images.map(|(probe, gradient)| {
            let products = probe.iter().zip(gradient).map(|(&probe, &gradient)| {
                let (probe, gradient) = (f64::from(probe), f64::from(gradient));
                -0.5 * beta * probe * probe + factor * probe * gradient
            });
            products.sum::<f64>()
        }));
        Ok(flow)
    }

    /// The noise eps that the network sees in `x` at time `t`, and the gradient of `<eps, probe>` with respect to
    /// `x`: one pass forwards and one backwards, in f32, as precise as the network.
    fn noise_and_gradient(
        &self,
        betas: &Betas,
        t: f64,
        x: &[f64],
        shape: [usize; 4],
        labels: Option<&[i64]>,
        probe: &[f32],
    ) -> Result<(Vec<f32>, Vec<f32>), NllError> {
        let label = label(t, betas.rates.len());
        let x: Vec<f32> = x.iter().map(|&x| x as f32).collect();
        let x = Tensor::<4>::from_data(TensorData::new(x, shape), self.device).require_grad();
        let output = self
            .network
            .predict(x.clone(), &vec![label; shape[0]], labels, None)?;
        if output.dims() != shape {
            return Err(NllError::Output {
                found: output.dims(),
                expected: shape,
            });
        }
        let noise = self.process.epsilon(x.clone(), output, &[label]);
        let probe = Tensor::from_data(TensorData::new(probe.to_vec(), shape), self.device);
        let mut gradients = (noise.clone() * probe).sum().backward();
        // A network that does not look at its input has no gradient.
        let gradient = x
            .grad_remove(&mut gradients)
            .unwrap_or_else(|| x.inner().zeros_like());
        Ok((to_host(noise.inner()), to_host(gradient)))
    }
}

/// Whether likelihoods can be computed of networks with this process.
///
/// # Errors
/// [`NllError::NoBetas`], [`NllError::Coarse`]
pub fn check(process: &dyn Process) -> Result<(), NllError> {
    Betas::of(process).map(|_| ())
}

/// A schedule in continuous time.
#[derive(Debug)]
struct Betas {
    /// `beta` at the times `k / (timesteps - 1)`.
    rates: Vec<f64>,
    /// Its integral from 0 to each of these.
    integrals: Vec<f64>,
}

impl Betas {
    fn of(process: &dyn Process) -> Result<Self, NllError> {
        Self::new(process.discrete().ok_or(NllError::NoBetas)?)
    }

    fn new(schedule: &NoiseSchedule) -> Result<Self, NllError> {
        let count = schedule.timesteps() as f64;
        let rates: Vec<f64> = schedule.betas.iter().map(|beta| count * beta).collect();
        let mut integrals = vec![0.0];
        for pair in rates.windows(2) {
            let last = integrals[integrals.len() - 1];
            integrals.push(last + (pair[0] + pair[1]) / 2.0 / (count - 1.0));
        }
        let betas = Self { rates, integrals };
        betas.compare(schedule)?;
        Ok(betas)
    }

    /// Looks for a timestep that the network is asked for at a time when the equation's noise is another than its own.
    fn compare(&self, schedule: &NoiseSchedule) -> Result<(), NllError> {
        let last = (schedule.timesteps() - 1).max(1) as f64;
        for timestep in 0..schedule.timesteps() {
            let network = schedule.noise(Time::timestep(timestep));
            for time in [timestep as f64 / last, (timestep as f64 + 1.0) / last] {
                let (_, equation) = self.at(time.min(1.0));
                if (network - equation).abs() > NOISE_TOLERANCE {
                    return Err(NllError::Coarse {
                        timestep,
                        network,
                        equation,
                    });
                }
            }
        }
        Ok(())
    }

    /// `beta` and `std` at time `t`. A schedule of one timestep has the same beta at all times.
    fn at(&self, t: f64) -> (f64, f64) {
        let last = self.rates.len() - 1;
        let (beta, integral) = if last == 0 {
            (self.rates[0], t * self.rates[0])
        } else {
            let place = t * last as f64;
            let below = (place as usize).min(last - 1);
            let part = place - below as f64;
            let slope = self.rates[below + 1] - self.rates[below];
            let area = part * self.rates[below] + part * part / 2.0 * slope;
            (
                self.rates[below] + part * slope,
                self.integrals[below] + area / last as f64,
            )
        };
        // Exact near t = 0 as well.
        (beta, (-(-integral).exp_m1()).sqrt())
    }
}

/// The trained timestep at time `t` in [0, 1]. A stage of a step that ends at 1 may lie past it by a rounding.
fn label(t: f64, timesteps: usize) -> Time {
    let last = timesteps.saturating_sub(1);
    Time::timestep(((last as f64 * t) as usize).min(last))
}

#[cfg(test)]
mod tests {
    use super::*;
    use retrack_networks::gradients::GradientSet;
    use retrack_networks::random::Draw;
    use retrack_networks::schedule::{Prediction, SchedulerConfig};

    /// The exact denoiser of images from N(0, variance I), of which everything is known: with the schedule's own
    /// g and s, eps = s x / (g^2 variance + s^2).
    struct Gaussian {
        schedule: NoiseSchedule,
        variance: f64,
    }

    impl Gaussian {
        fn new(variance: f64, prediction: Prediction) -> Self {
            let schedule = NoiseSchedule::new(&SchedulerConfig {
                prediction,
                ..SchedulerConfig::default()
            });
            Self { schedule, variance }
        }

        fn nll(&self, image: [f32; 4], probe: &[f32]) -> Result<Nll, NllError> {
            let device = Device::flex().autodiff();
            let likelihood = Likelihood {
                network: self,
                process: &self.schedule,
                device: &device,
                bytes: true,
            };
            let mut reached = 0.0;
            let nll = likelihood.bits_per_dim(&image, [2, 1, 2, 1], None, probe, &mut |t| {
                assert!(t > reached);
                reached = t;
            })?;
            assert_eq!(reached, 1.0);
            Ok(nll)
        }
    }

    impl Denoiser for Gaussian {
        fn predict(
            &self,
            x: Tensor<4>,
            timesteps: &[Time],
            _: Option<&[i64]>,
            _: Option<&mut Draw>,
        ) -> Result<Tensor<4>, InputError> {
            let t = timesteps[0];
            let (g, s) = (self.schedule.signal(t), self.schedule.noise(t));
            let total = g * g * self.variance + s * s;
            Ok(match self.schedule.prediction {
                Prediction::Epsilon => x * (s / total),
                Prediction::Sample => x * (g * self.variance / total),
                Prediction::VPrediction => x * (g * s * (1.0 - self.variance) / total),
            })
        }

        fn gradients(&self, _: Tensor<1>) -> GradientSet {
            unreachable!("no parameters")
        }
    }

    const PROBE: [f32; 4] = [1.0, -1.0, -1.0, -1.0];

    #[test]
    fn a_normal_distribution_has_its_own_likelihood_whatever_the_network_predicts() {
        let image = [0.5, -0.25, 0.0, 1.0];
        // The noise of whole timesteps is not quite that of the equation; with variance 1 both are the same but for
        // timestep 0, whose noise is a hundredth where the equation begins with a thousandth.
        for prediction in [
            Prediction::Epsilon,
            Prediction::Sample,
            Prediction::VPrediction,
        ] {
            let nll = Gaussian::new(1.0, prediction).nll(image, &PROBE).unwrap();
            for (found, image) in nll.bits_per_dim.iter().zip(image.chunks(2)) {
                let square = f64::from(image[0] * image[0] + image[1] * image[1]);
                let expected = ((2.0 * PI).ln() + square / 2.0) / 2.0 / LN_2 + OFFSET;
                assert!(
                    (found - expected).abs() < 0.02,
                    "{prediction:?}: {found} {expected}"
                );
            }
        }
    }

    #[test]
    fn the_parametrisations_agree() {
        let image = [0.5, -0.25, 0.0, 1.0];
        let of = |prediction| {
            Gaussian::new(0.25, prediction)
                .nll(image, &PROBE)
                .unwrap()
                .bits_per_dim
        };
        let epsilon = of(Prediction::Epsilon);
        for other in [of(Prediction::Sample), of(Prediction::VPrediction)] {
            for (a, b) in epsilon.iter().zip(other) {
                assert!((a - b).abs() < 1e-3, "{a} {b}");
            }
        }
    }

    #[test]
    fn input_that_does_not_fit_is_refused() {
        let gaussian = Gaussian::new(1.0, Prediction::Epsilon);
        let error = gaussian.nll([0.0; 4], &PROBE[1..]).unwrap_err();
        assert!(matches!(error, NllError::Length { found: 3, .. }));
        let device = Device::flex();
        let likelihood = Likelihood {
            network: &gaussian,
            process: &gaussian.schedule,
            device: &device,
            bytes: true,
        };
        let nll = likelihood.bits_per_dim(&[0.0; 4], [2, 1, 2, 1], None, &PROBE, &mut |_| ());
        assert!(matches!(nll, Err(NllError::NoAutodiff)));
        let error = gaussian.nll([f32::NAN; 4], &PROBE).unwrap_err();
        assert!(matches!(error, NllError::Ode(OdeError::NotFinite { .. })));
    }

    #[test]
    fn of_latents_the_density_itself_is_told() {
        let gaussian = Gaussian::new(1.0, Prediction::Epsilon);
        let device = Device::flex().autodiff();
        let [of_bytes, of_latents] = [true, false].map(|bytes| {
            let likelihood = Likelihood {
                network: &gaussian,
                process: &gaussian.schedule,
                device: &device,
                bytes,
            };
            let image = [0.5, -0.25];
            let nll = likelihood.bits_per_dim(&image, [1, 1, 2, 1], None, &PROBE[..2], &mut |_| ());
            nll.unwrap().bits_per_dim[0]
        });
        assert_eq!(of_bytes - of_latents, 7.0);
        // The normal distribution's own, in bits: no byte has part in it.
        let square = 0.5f64.powi(2) + 0.25f64.powi(2);
        let expected = ((2.0 * PI).ln() + square / 2.0) / 2.0 / LN_2;
        assert!(
            (of_latents - expected).abs() < 2e-2,
            "{of_latents} {expected}"
        );
    }

    #[test]
    fn labels_are_whole_timesteps_rounded_down() {
        let labels = [1e-5, 0.5, 0.999999, 1.0, 1.0 + 1e-15].map(|t| label(t, 1000));
        assert_eq!(labels, [0, 499, 998, 999, 999]);
    }

    #[test]
    fn the_noise_of_the_equation_is_nearly_the_schedules() {
        let schedule = NoiseSchedule::new(&SchedulerConfig::default());
        let betas = Betas::new(&schedule).unwrap();
        for t in [100, 500, 900] {
            let time = (t as f64 + 1.0) / 1000.0;
            assert!(
                (betas.at(time).1 - schedule.noise(Time::timestep(t))).abs() < 2e-3,
                "{t}"
            );
        }
        assert!((betas.at(1e-5).1 - 1e-3).abs() < 1e-5);
    }

    #[test]
    fn the_published_schedule_has_the_published_equation() {
        let betas = Betas::new(&NoiseSchedule::new(&SchedulerConfig::default())).unwrap();
        for t in [1e-5, 0.01, 0.3, 0.77, 1.0, 1.0 + 1e-15] {
            let (beta, std) = betas.at(t);
            let published = 0.1 + 19.9 * t;
            assert!((beta / published - 1.0).abs() < 1e-6, "{t}: {beta}");
            let expected = (-(-19.9 * t * t / 2.0 - 0.1 * t).exp_m1()).sqrt();
            assert!((std / expected - 1.0).abs() < 1e-6, "{t}: {std}");
        }
    }

    #[test]
    fn every_usual_schedule_has_an_equation_and_a_coarse_one_is_named() {
        use retrack_networks::schedule::BetaSchedule;
        let linear = |start, end| BetaSchedule::Linear { start, end };
        let of = |num_train_timesteps, beta_schedule, rescale_betas_zero_snr| {
            check(&NoiseSchedule::new(&SchedulerConfig {
                num_train_timesteps,
                beta_schedule,
                rescale_betas_zero_snr,
                ..SchedulerConfig::default()
            }))
        };
        let scaled = BetaSchedule::ScaledLinear {
            start: 0.00085,
            end: 0.012,
        };
        for zero in [false, true] {
            of(1000, linear(1e-4, 0.02), zero).unwrap();
            of(1000, scaled.clone(), zero).unwrap();
            of(1000, BetaSchedule::SquaredCosCapV2, zero).unwrap();
        }
        of(100, linear(1e-3, 0.2), false).unwrap();
        of(1, linear(1e-4, 1e-4), false).unwrap();
        let coarse = of(4, linear(0.1, 0.9), false).unwrap_err();
        assert!(matches!(coarse, NllError::Coarse { .. }), "{coarse}");
    }

    #[test]
    fn a_probe_belongs_to_its_image() {
        let random = Random::new(3);
        let three = rademacher(&random, 0..3, 100);
        assert!(three.iter().all(|&sign| sign == 1.0 || sign == -1.0));
        assert_eq!(three[200..], rademacher(&random, 2..3, 100));
        let sum: f32 = rademacher(&random, 0..1, 10_000).iter().sum();
        assert!(sum.abs() < 500.0, "{sum}");
    }
}
