//! Random numbers as a function of what they are for.
//!
//! A number is reached by (seed, stream, step, index), never by how many were drawn before it. A run that resumes
//! therefore needs no generator state, every device sees the same noise, and the noise of an image does not depend
//! on the batch that it is in. The generator is ChaCha8, whose blocks can be computed in any order: seed, stream
//! and step form the key, index the nonce.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rand_distr::{Distribution, StandardNormal};
use std::ops::Range;

/// What numbers are drawn for. The codes are part of what makes a run repeatable: add new ones, never renumber.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u64)]
pub enum Stream {
    /// Order of the retained images, one step an epoch.
    RetainOrder = 1,
    /// Noise of the retained images.
    RetainNoise = 2,
    /// Their times.
    RetainTimestep = 3,
    /// Order of the forgotten images, one step an epoch.
    ForgetOrder = 4,
    /// Noise of the forgotten images.
    ForgetNoise = 5,
    /// Their times.
    ForgetTimestep = 6,
    /// EraseDiff's uniform target.
    Uniform = 7,
    /// SISS's choice between the retained and the forgotten image.
    Mixture = 8,
    /// What a training step leaves out.
    Dropout = 9,
    /// A new network's weights.
    Init = 10,
    /// The noise that a sampling starts from.
    SampleStart = 11,
    /// The noise that a sampling adds, one step a timestep.
    SampleNoise = 12,
    /// Noise put on a given image to see what a model makes of it: step 0 for one noise an image, later steps for
    /// noises that all images share.
    Probe = 13,
    /// Timesteps of the noises that all images share, by the same step.
    ProbeTimestep = 15,
    /// The direction along which a divergence is estimated.
    Hutchinson = 16,
    /// What a bootstrap draws again, one step a resample.
    Bootstrap = 17,
    /// A retained image's latent, drawn from what the autoencoder makes of it.
    RetainLatent = 18,
    /// A forgotten image's latent.
    ForgetLatent = 19,
    /// How a look-alike of a forgotten image differs from it, one step an image.
    LookAlike = 20,
}

/// Separates these keys from any other use of ChaCha with the same seed.
const DOMAIN: u64 = u64::from_le_bytes(*b"retrack1");

/// All random numbers of one seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Random {
    seed: u64,
}

impl Random {
    /// Those of this seed.
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// The numbers of one step of a stream, where the whole step shares them. A longer draw begins with the
    /// shorter one.
    pub fn stream(&self, stream: Stream, step: u64) -> Draw {
        self.at(stream, step, 0)
    }

    /// The numbers of one image (or row, or parameter) within a step of a stream.
    pub fn at(&self, stream: Stream, step: u64, index: u64) -> Draw {
        let mut key = [0; 32];
        for (bytes, word) in key
            .chunks_exact_mut(8)
            .zip([self.seed, stream as u64, step, DOMAIN])
        {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        let mut generator = ChaCha8Rng::from_seed(key);
        generator.set_stream(index);
        Draw { generator }
    }

    /// Standard normal noise for the images `images`, `values` each, one after another. Image `i` has the same noise
    /// in whatever range it is asked for.
    pub fn noise(&self, stream: Stream, step: u64, images: Range<u64>, values: usize) -> Vec<f32> {
        let mut noise =
            Vec::with_capacity(images.end.saturating_sub(images.start) as usize * values);
        for image in images {
            self.at(stream, step, image).fill_normal(&mut noise, values);
        }
        noise
    }

    /// An order of the rows `0..rows`, all orders equally likely (Fisher & Yates, in Durstenfeld's form).
    pub fn permutation(&self, stream: Stream, epoch: u64, rows: usize) -> Vec<usize> {
        let mut draw = self.stream(stream, epoch);
        let mut order: Vec<usize> = (0..rows).collect();
        for last in (1..rows).rev() {
            order.swap(last, draw.below(last as u64 + 1) as usize);
        }
        order
    }
}

/// Numbers that come one after another.
#[derive(Debug, Clone)]
pub struct Draw {
    generator: ChaCha8Rng,
}

impl Draw {
    /// From the normal distribution with mean 0 and variance 1.
    pub fn normal(&mut self, n: usize) -> Vec<f32> {
        let mut values = Vec::with_capacity(n);
        self.fill_normal(&mut values, n);
        values
    }

    /// From [0, 1), multiples of 2^-24: every one of them is exact in f32.
    pub fn uniform(&mut self, n: usize) -> Vec<f32> {
        const UNIT: f32 = 1.0 / (1 << 24) as f32;
        (0..n)
            .map(|_| (self.generator.next_u32() >> 8) as f32 * UNIT)
            .collect()
    }

    /// From `0..below`, all equally likely.
    ///
    /// # Panics
    ///
    /// `below` is 0.
    pub fn integers(&mut self, n: usize, below: usize) -> Vec<usize> {
        (0..n).map(|_| self.below(below as u64) as usize).collect()
    }

    /// True with the given probability: never at 0, always at 1.
    pub fn bernoulli(&mut self, n: usize, probability: f64) -> Vec<bool> {
        const UNIT: f64 = 1.0 / (1u64 << 53) as f64;
        (0..n)
            .map(|_| ((self.generator.next_u64() >> 11) as f64) * UNIT < probability)
            .collect()
    }

    fn fill_normal(&mut self, values: &mut Vec<f32>, n: usize) {
        values.extend((0..n).map(|_| -> f32 { StandardNormal.sample(&mut self.generator) }));
    }

    /// Multiplies a 64-bit number into the range and rejects the few products that would favor some values
    /// (Lemire 2019, arXiv 1805.10941).
    fn below(&mut self, below: u64) -> u64 {
        assert!(below > 0, "an integer is drawn from an empty range");
        let favored = below.wrapping_neg() % below;
        loop {
            let product = u128::from(self.generator.next_u64()) * u128::from(below);
            if product as u64 >= favored {
                return (product >> 64) as u64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean_and_variance(values: &[f32]) -> (f64, f64) {
        let n = values.len() as f64;
        let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
        let variance = values
            .iter()
            .map(|&v| (f64::from(v) - mean).powi(2))
            .sum::<f64>()
            / n;
        (mean, variance)
    }

    #[test]
    fn first_values_never_change() {
        let random = Random::new(42);
        assert_eq!(
            random.stream(Stream::RetainNoise, 3).normal(3),
            [2.1838884, -1.067113, 1.5554551]
        );
        assert_eq!(
            random.at(Stream::SampleStart, 0, 7).normal(2),
            [0.9092929, 1.5084316]
        );
        assert_eq!(
            random.stream(Stream::Uniform, 3).uniform(3),
            [0.73612523, 0.4107144, 0.85083115]
        );
        assert_eq!(
            random.stream(Stream::RetainTimestep, 3).integers(4, 1000),
            [643, 31, 606, 433]
        );
        assert_eq!(
            random.stream(Stream::Mixture, 3).bernoulli(4, 0.5),
            [false, true, true, true]
        );
        assert_eq!(
            random.permutation(Stream::RetainOrder, 0, 8),
            [5, 0, 6, 4, 2, 7, 3, 1]
        );
    }

    #[test]
    fn every_part_of_the_address_changes_the_numbers() {
        let base = Random::new(1).at(Stream::RetainNoise, 2, 3).normal(4);
        assert_eq!(base, Random::new(1).at(Stream::RetainNoise, 2, 3).normal(4));
        for other in [
            Random::new(2).at(Stream::RetainNoise, 2, 3),
            Random::new(1).at(Stream::ForgetNoise, 2, 3),
            Random::new(1).at(Stream::RetainNoise, 3, 3),
            Random::new(1).at(Stream::RetainNoise, 2, 2),
        ] {
            let other = other.clone().normal(4);
            assert!(
                base.iter().zip(&other).all(|(a, b)| a != b),
                "{base:?} {other:?}"
            );
        }
    }

    #[test]
    fn numbers_do_not_depend_on_what_was_drawn_before() {
        let random = Random::new(5);
        let forwards: Vec<_> = (0..4)
            .map(|step| random.stream(Stream::ForgetNoise, step).normal(100))
            .collect();
        let mut backwards: Vec<_> = (0..4)
            .rev()
            .map(|step| random.stream(Stream::ForgetNoise, step).normal(100))
            .collect();
        backwards.reverse();
        assert_eq!(forwards, backwards);
    }

    #[test]
    fn the_noise_of_an_image_does_not_depend_on_its_batch() {
        let random = Random::new(5);
        let four = random.noise(Stream::SampleNoise, 980, 0..4, 50);
        assert_eq!(four.len(), 200);
        assert_eq!(
            four[100..],
            random.noise(Stream::SampleNoise, 980, 2..4, 50)
        );
        assert_eq!(
            four[150..],
            random.at(Stream::SampleNoise, 980, 3).normal(50)
        );
    }

    #[test]
    fn a_longer_draw_begins_with_the_shorter_one() {
        let draw = |n| {
            Random::new(5)
                .stream(Stream::RetainTimestep, 9)
                .integers(n, 1000)
        };
        assert_eq!(draw(128)[..4], draw(4));
    }

    // Bounds are five standard errors of the estimate.
    #[test]
    fn moments_are_those_of_the_distributions() {
        let n = 200_000;
        let root = (n as f64).sqrt();
        let random = Random::new(7);

        let (mean, variance) = mean_and_variance(&random.stream(Stream::RetainNoise, 0).normal(n));
        assert!(mean.abs() < 5.0 / root, "{mean}");
        assert!(
            (variance - 1.0).abs() < 5.0 * 2f64.sqrt() / root,
            "{variance}"
        );

        let uniform = random.stream(Stream::Uniform, 0).uniform(n);
        assert!(uniform.iter().all(|value| (0.0..1.0).contains(value)));
        let (mean, variance) = mean_and_variance(&uniform);
        assert!((mean - 0.5).abs() < 5.0 / 12f64.sqrt() / root, "{mean}");
        assert!(
            (variance - 1.0 / 12.0).abs() < 5.0 / 180f64.sqrt() / root,
            "{variance}"
        );

        let hits = random.stream(Stream::Mixture, 0).bernoulli(n, 0.3);
        let share = hits.iter().filter(|&&hit| hit).count() as f64 / n as f64;
        assert!((share - 0.3).abs() < 5.0 * 0.21f64.sqrt() / root, "{share}");
        let mut draw = random.stream(Stream::Mixture, 1);
        assert!(draw.bernoulli(1000, 1.0).iter().all(|&hit| hit));
        assert!(!draw.bernoulli(1000, 0.0).iter().any(|&hit| hit));
    }

    // Noise of neighboring addresses must be independent: the correlation of n pairs is below 5 / sqrt(n).
    #[test]
    fn neighboring_streams_steps_and_images_are_uncorrelated() {
        let n = 100_000;
        let random = Random::new(0);
        let base = random.at(Stream::RetainNoise, 0, 0).normal(n);
        for other in [
            Random::new(1).at(Stream::RetainNoise, 0, 0),
            random.at(Stream::RetainTimestep, 0, 0),
            random.at(Stream::RetainNoise, 1, 0),
            random.at(Stream::RetainNoise, 0, 1),
        ] {
            let other = other.clone().normal(n);
            let sum: f64 = base.iter().zip(&other).map(|(a, b)| f64::from(a * b)).sum();
            let correlation = sum / n as f64;
            assert!(correlation.abs() < 5.0 / (n as f64).sqrt(), "{correlation}");
        }
    }

    #[test]
    fn integers_fill_their_range_evenly() {
        let n = 70_000;
        let mut counts = [0usize; 7];
        for value in Random::new(3)
            .stream(Stream::RetainTimestep, 0)
            .integers(n, 7)
        {
            counts[value] += 1;
        }
        // Chi-squared with 6 degrees of freedom is above 22.5 once in a thousand.
        let expected = n as f64 / 7.0;
        let chi: f64 = counts
            .iter()
            .map(|&c| (c as f64 - expected).powi(2) / expected)
            .sum();
        assert!(chi < 22.5, "{counts:?}");
    }

    #[test]
    fn a_permutation_holds_every_row_once_and_changes_with_the_epoch() {
        let random = Random::new(11);
        let order = random.permutation(Stream::RetainOrder, 0, 1000);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert!(sorted.into_iter().eq(0..1000));
        assert_eq!(order, random.permutation(Stream::RetainOrder, 0, 1000));
        assert_ne!(order, random.permutation(Stream::RetainOrder, 1, 1000));
        assert!(random.permutation(Stream::RetainOrder, 0, 0).is_empty());
    }

    #[test]
    fn all_six_orders_of_three_rows_are_equally_likely() {
        let mut counts = std::collections::HashMap::new();
        for epoch in 0..6000 {
            let order = Random::new(13).permutation(Stream::RetainOrder, epoch, 3);
            *counts.entry(order).or_insert(0usize) += 1;
        }
        assert_eq!(counts.len(), 6);
        // Five standard deviations of a count with mean 1000.
        assert!(
            counts.values().all(|count| count.abs_diff(1000) < 145),
            "{counts:?}"
        );
    }
}
