//! How an image becomes noise, and what a network is to predict on the way.
//!
//! At a [`Time`] a noisy image is `x_t = g * x + s * e` with a clean image `x` and `e ~ N(0, I)`, and the network's target is
//! `a * x + b * e`. A [`Process`] says what `g`, `s`, `a` and `b` are; every conversion between noisy images, clean images,
//! noise and targets is the solution of these two equations, and stands here once for all processes and prediction types.

use std::fmt;

use burn::tensor::{Device, Tensor, TensorData};

use crate::random::Draw;
use crate::schedule::{NoiseSchedule, ScheduleError};

/// How far an image is on the way to noise, as the number that its network is told. Of discrete betas it is a trained
/// timestep, a whole number.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
pub struct Time(f64);

impl Time {
    /// The time of which a network is told `value`.
    pub const fn new(value: f64) -> Self {
        Self(value)
    }

    /// The trained timestep with this number.
    pub const fn timestep(number: usize) -> Self {
        // Exact: schedules have far fewer timesteps than f64 has whole numbers.
        Self(number as f64)
    }

    /// What a network is told.
    pub fn value(self) -> f64 {
        self.0
    }

    /// The same as networks embed it, in f32; whole timesteps keep their value.
    pub fn embedded(times: &[Self]) -> Vec<f32> {
        times.iter().map(|time| time.0 as f32).collect()
    }

    /// What tells the random numbers of one time from those of another: a timestep's own number, the bits of any other.
    pub fn code(self) -> u64 {
        match self.0.fract() == 0.0 {
            true => self.0 as u64,
            false => self.0.to_bits(),
        }
    }
}

impl From<usize> for Time {
    fn from(timestep: usize) -> Self {
        Self::timestep(timestep)
    }
}

impl PartialEq<usize> for Time {
    fn eq(&self, timestep: &usize) -> bool {
        *self == Self::timestep(*timestep)
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a network is to predict at one time: `clean * x + noise * e`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Target {
    /// The weight of the clean image.
    pub clean: f64,
    /// The weight of the noise.
    pub noise: f64,
}

/// The way from images to noise on which a network was trained.
///
/// The methods on tensors take one time for each image, or a single one for all of them; `[batch, ..]` is any layout of
/// images. They compute in f32, as precise as the tensors; the weights are f64 until then.
///
/// # Panics
///
/// All methods panic on a time that the process does not have: what comes from outside goes through [`Process::check`].
pub trait Process: fmt::Debug + Send + Sync {
    /// `g`: what is left of the image.
    fn signal(&self, time: Time) -> f64;

    /// `s`: the deviation of the noise.
    fn noise(&self, time: Time) -> f64;

    /// What the network predicts.
    fn target(&self, time: Time) -> Target;

    /// Numbers from outside, as times.
    ///
    /// # Errors
    ///
    /// The first one that is no time of this process.
    fn check(&self, timesteps: &[f64]) -> Result<Vec<Time>, ScheduleError>;

    /// A time drawn as training draws it, within part `part` of `parts` equal ones, counted from the images' end. Training
    /// itself draws from part 0 of 1.
    fn draw(&self, part: usize, parts: usize, draw: &mut Draw) -> Time;

    /// The time below which `part` of `parts` equal shares of training's draws lie. `part` is less than `parts`.
    fn quantile(&self, part: usize, parts: usize) -> Time;

    /// The process as a chain of discrete betas, where it is one: what is defined for these alone asks for it.
    fn discrete(&self) -> Option<&NoiseSchedule> {
        None
    }

    /// `g / s`.
    fn ratio(&self, time: Time) -> f64 {
        self.signal(time) / self.noise(time)
    }

    /// How far the target moves when the clean image that it belongs to moves by one, at fixed `x_t`.
    fn target_slope(&self, time: Time) -> f64 {
        (determinant(self, time) / self.noise(time)).abs()
    }

    /// How far the noise that an output stands for moves when the output moves by one, at fixed `x_t`.
    fn noise_slope(&self, time: Time) -> f64 {
        (self.signal(time) / determinant(self, time)).abs()
    }

    /// The noisy image `x_t = g * clean + s * noise` (Ho et al. 2020, arXiv 2006.11239, eq. 4).
    ///
    /// # Shapes
    ///
    /// `clean` and `noise`: `[batch, ..]`; `times`: `batch` or 1.
    fn add_noise(&self, clean: Tensor<4>, noise: Tensor<4>, times: &[Time]) -> Tensor<4> {
        let (g, s) = (
            each(times, |t| self.signal(t)),
            each(times, |t| self.noise(t)),
        );
        weighed(clean, &g) + weighed(noise, &s)
    }

    /// What the network is to predict, given the noise that was added.
    ///
    /// # Shapes
    ///
    /// `clean` and `noise`: `[batch, ..]`; `times`: `batch` or 1.
    fn target_of_noise(&self, clean: Tensor<4>, noise: Tensor<4>, times: &[Time]) -> Tensor<4> {
        let [a, b] = targets(self, times);
        match (vanishes(&a), vanishes(&b)) {
            (true, _) => weighed(noise, &b),
            (_, true) => weighed(clean, &a),
            _ => weighed(noise, &b) + weighed(clean, &a),
        }
    }

    /// What the network would have to predict for `noisy` to come from `clean`, whichever image it was made from:
    /// `(b x_t - (b g - a s) x) / s`.
    ///
    /// # Shapes
    ///
    /// `noisy` and `clean`: `[batch, ..]`; `times`: `batch` or 1.
    fn target_of_clean(&self, noisy: Tensor<4>, clean: Tensor<4>, times: &[Time]) -> Tensor<4> {
        let [a, b] = targets(self, times);
        if vanishes(&b) {
            return weighed(clean, &a);
        }
        let determinants = each(times, |t| determinant(self, t));
        let noise = each(times, |t| self.noise(t));
        divided(weighed(noisy, &b) - weighed(clean, &determinants), &noise)
    }

    /// The clean image that a network's output stands for: `(b x_t - s output) / (b g - a s)`.
    ///
    /// # Shapes
    ///
    /// `noisy` and `output`: `[batch, ..]`; `times`: `batch` or 1.
    fn clean(&self, noisy: Tensor<4>, output: Tensor<4>, times: &[Time]) -> Tensor<4> {
        let [a, b] = targets(self, times);
        if vanishes(&b) {
            return divided(output, &a);
        }
        let determinants = each(times, |t| determinant(self, t));
        let noise = each(times, |t| self.noise(t));
        divided(weighed(noisy, &b) - weighed(output, &noise), &determinants)
    }

    /// The noise that a network's output stands for: `(g output - a x_t) / (b g - a s)`.
    ///
    /// # Shapes
    ///
    /// `noisy` and `output`: `[batch, ..]`; `times`: `batch` or 1.
    fn epsilon(&self, noisy: Tensor<4>, output: Tensor<4>, times: &[Time]) -> Tensor<4> {
        let [a, b] = targets(self, times);
        if vanishes(&a) {
            return divided(output, &b);
        }
        let determinants = each(times, |t| determinant(self, t));
        let signs = determinants.iter().map(|d| d.signum());
        let of_output = each(times, |t| self.signal(t) * determinant(self, t).signum());
        let of_noisy: Vec<f64> = a.iter().zip(signs).map(|(a, sign)| -a * sign).collect();
        let sum = weighed(output, &of_output) + weighed(noisy, &of_noisy);
        let lengths: Vec<f64> = determinants.iter().map(|d| d.abs()).collect();
        divided(sum, &lengths)
    }
}

/// `b g - a s`, of the two equations.
fn determinant(process: &(impl Process + ?Sized), time: Time) -> f64 {
    let Target { clean, noise } = process.target(time);
    let determinant = noise * process.signal(time) - clean * process.noise(time);
    // g^2 + s^2 of v_prediction is 1 but for its last digit.
    match (determinant - 1.0).abs() < 4.0 * f64::EPSILON {
        true => 1.0,
        false => determinant,
    }
}

/// The targets' weights of clean images, and of noise.
fn targets(process: &(impl Process + ?Sized), times: &[Time]) -> [Vec<f64>; 2] {
    let targets = times.iter().map(|&time| process.target(time));
    let (clean, noise) = targets.map(|target| (target.clean, target.noise)).unzip();
    [clean, noise]
}

fn each(times: &[Time], of: impl Fn(Time) -> f64) -> Vec<f64> {
    times.iter().map(|&time| of(time)).collect()
}

fn vanishes(weights: &[f64]) -> bool {
    weights.iter().all(|&weight| weight == 0.0)
}

/// Each image times its weight, or all times the only one.
fn weighed(images: Tensor<4>, weights: &[f64]) -> Tensor<4> {
    match column(weights, &images.device()) {
        Some(weights) => images * weights,
        None => images,
    }
}

/// Each image divided by its weight, or all by the only one.
fn divided(images: Tensor<4>, weights: &[f64]) -> Tensor<4> {
    match column(weights, &images.device()) {
        Some(weights) => images / weights,
        None => images,
    }
}

/// `[weights, 1, 1, 1]`; `None` where all are 1. Here f64 becomes f32, as precise as the tensors that they scale.
fn column(weights: &[f64], device: &Device) -> Option<Tensor<4>> {
    let values: Vec<f32> = weights.iter().map(|&weight| weight as f32).collect();
    if values.iter().all(|&value| value == 1.0) {
        return None;
    }
    let shape = [values.len(), 1, 1, 1];
    Some(Tensor::from_data(TensorData::new(values, shape), device))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Random, Stream};
    use crate::schedule::{Prediction, SchedulerConfig};

    fn process(prediction: Prediction) -> std::sync::Arc<dyn Process> {
        let config = SchedulerConfig {
            prediction,
            ..SchedulerConfig::default()
        };
        config.process()
    }

    #[test]
    fn the_slope_of_the_target_is_that_of_its_own_conversion() {
        let time = Time::timestep(400);
        for (prediction, expected) in [
            (
                Prediction::Epsilon,
                process(Prediction::Epsilon).ratio(time),
            ),
            (Prediction::Sample, 1.0),
            (
                Prediction::VPrediction,
                1.0 / process(Prediction::Epsilon).noise(time),
            ),
        ] {
            assert_eq!(process(prediction).target_slope(time), expected);
        }
    }

    #[test]
    fn times_are_drawn_within_their_part() {
        let process = process(Prediction::Epsilon);
        let random = Random::new(2);
        for (part, range) in [(0, 0..333), (1, 333..666), (2, 666..1000)] {
            let range = Time::timestep(range.start)..Time::timestep(range.end);
            let mut draw = random.stream(Stream::ProbeTimestep, part as u64);
            let mut times = (0..50).map(|_| process.draw(part, 3, &mut draw));
            assert!(times.all(|time| range.contains(&time)));
            assert_eq!(process.quantile(part, 3), range.start);
        }
    }

    #[test]
    fn a_time_is_the_number_that_networks_embed() {
        assert_eq!(
            Time::embedded(&[Time::timestep(999), Time::new(0.25)]),
            [999.0, 0.25]
        );
        assert_eq!(Time::timestep(250).to_string(), "250");
        assert_eq!(Time::timestep(250).code(), 250);
        assert_ne!(Time::new(0.25).code(), Time::new(0.5).code());
    }

    #[test]
    #[should_panic(expected = "is no timestep of a schedule of 1000")]
    fn between_two_timesteps_a_schedule_has_no_time() {
        process(Prediction::Epsilon).signal(Time::new(0.5));
    }
}
