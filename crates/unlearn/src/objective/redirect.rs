//! Where ReTrack leads a noisy forgotten image: to a mean of retained images, each weighed by how likely it is to have
//! led to that x_t.

use std::collections::HashMap;

use burn::tensor::{Device, Tensor, TensorData};
use rayon::prelude::*;
use retrack_kernels as kernels;
use retrack_networks::parameters::to_host;
use retrack_networks::process::Process;

use super::half_square_excess;
use crate::batch::Noised;
use retrack_data::neighbors::squared_distances;
use retrack_data::pixels::{to_byte, to_unit};
use retrack_data::{DataError, Dataset};

/// Where one noisy forgotten image is led.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Redirection {
    /// sum_k p_k n_k
    pub clean: Vec<f32>,
    /// sum_k p_k |target_k - target|^2
    pub spread: f64,
}

impl Redirection {
    /// Leads the image less far, if it is farther: until the noise that the clean image stands for differs from the one
    /// that was added by `level`, a mean square a value. Returns whether it was.
    pub(super) fn stop_at(
        &mut self,
        level: f64,
        process: &dyn Process,
        forget: &Noised,
        image: usize,
    ) -> bool {
        let own = forget.image(&forget.clean, image);
        let squares = own.iter().zip(&self.clean).map(|(&x, &n)| {
            let difference = f64::from(x) - f64::from(n);
            difference * difference
        });
        let ratio = process.ratio(forget.timesteps[image]);
        let error = ratio * ratio * squares.sum::<f64>() / own.len() as f64;
        if error > level {
            let share = (level / error).sqrt() as f32;
            for (n, &x) in self.clean.iter_mut().zip(own) {
                *n = x + share * (*n - x);
            }
        }
        // What was mixed is no target any more.
        self.spread = 0.0;
        error > level
    }
}

/// Weighs the given neighbors of one image of a batch.
pub(super) fn to_nearest<'a>(
    process: &dyn Process,
    forget: &Noised,
    image: usize,
    neighbors: impl Iterator<Item = &'a [f32]> + Clone,
) -> Redirection {
    let len = forget.image_len();
    let clean = forget.image(&forget.clean, image);
    let noise = forget.image(&forget.noise, image);
    let t = forget.timesteps[image];

    // |v_k|^2 / 2 less what all k share, which the softmax does not see.
    let half_squares: Vec<f64> = neighbors
        .clone()
        .map(|neighbor| half_square_excess(process, t, clean, noise, neighbor))
        .collect();
    let p = softmax_of_negative(&half_squares);

    let mut mean = vec![0f64; len];
    for (neighbor, &p) in neighbors.clone().zip(&p) {
        if p > 0.0 {
            for (m, &n) in mean.iter_mut().zip(neighbor) {
                *m += p * f64::from(n);
            }
        }
    }
    let mut variance = 0.0;
    for (neighbor, &p) in neighbors.zip(&p) {
        if p > 0.0 {
            let squares = neighbor.iter().zip(&mean).map(|(&n, m)| {
                let difference = f64::from(n) - m;
                difference * difference
            });
            variance += p * squares.sum::<f64>();
        }
    }
    Redirection {
        spread: variance * process.target_slope(t).powi(2),
        clean: mean.into_iter().map(|m| m as f32).collect(),
    }
}

/// Floats of retained images that are in memory at one time.
const BLOCK: usize = 4 << 20;
/// Bytes that may be decoded at one time.
const DECODED: usize = 64 << 20;
/// Squared distances of bytes to those of pixels in [-1, 1].
const SQUARED_UNIT: f64 = 127.5 * 127.5;

/// The sums over the retained images that were seen so far, relative to the most likely of them.
struct RunningSums {
    /// The least |v_k|^2 / 2, less what all k share.
    least: f64,
    /// sum_k exp(least - |v_k|^2 / 2)
    total: f64,
    /// The same with n_k in each term.
    images: Vec<f64>,
    /// The same with |x - n_k|^2 in each term.
    squares: f64,
}

/// Weighs every one of `rows` for every image of the batch: the target that K neighbors approximate.
///
/// The images are read in blocks and never all in memory. In a block |x - n|^2 is exact, from bytes, because at small t
/// it is multiplied by thousands; <n, e> and the weighed sums are products of matrices, on `device`. The spread is a
/// difference of sums and at small t only good to a part in a million of them; no gradient depends on it.
///
/// # Errors
/// An image that cannot be read.
pub(super) fn to_all(
    process: &dyn Process,
    forget: &Noised,
    data: &Dataset,
    rows: &[usize],
    device: &Device,
) -> Result<Vec<Redirection>, DataError> {
    let (batch, len) = (forget.len(), forget.image_len());
    let mut place: HashMap<Vec<u8>, usize> = HashMap::new();
    let slots: Vec<usize> = (0..batch)
        .map(|image| {
            let clean = forget.image(&forget.clean, image);
            let next = place.len();
            let bytes = clean.iter().map(|&value| to_byte(value)).collect();
            *place.entry(bytes).or_insert(next)
        })
        .collect();
    let mut unique: Vec<&[u8]> = vec![&[]; place.len()];
    for (bytes, &at) in &place {
        unique[at] = bytes;
    }

    let inner = |a: &[f32], b: &[f32]| -> f64 {
        a.iter()
            .zip(b)
            .map(|(&a, &b)| f64::from(a) * f64::from(b))
            .sum()
    };
    let along: Vec<f64> = (0..batch)
        .map(|image| {
            inner(
                forget.image(&forget.clean, image),
                forget.image(&forget.noise, image),
            )
        })
        .collect();
    let device = device.clone().without_autodiff();
    let matrix = |values: Vec<f32>, rows: usize| {
        let columns = values.len() / rows;
        Tensor::<2>::from_data(TensorData::new(values, [rows, columns]), &device)
    };
    let noise = matrix(forget.noise.clone(), batch);
    let mut running: Vec<RunningSums> = (0..batch)
        .map(|_| RunningSums {
            least: f64::INFINITY,
            total: 0.0,
            images: vec![0.0; len],
            squares: 0.0,
        })
        .collect();

    data.blocks::<DataError>(rows, DECODED, |block| {
        let at_once = (BLOCK / len).max(1);
        for first in (0..block.rows.len()).step_by(at_once) {
            let count = at_once.min(block.rows.len() - first);
            let mut values = vec![0f32; count * len];
            values
                .par_chunks_exact_mut(len)
                .enumerate()
                .for_each(|(index, values)| {
                    let bytes = block.image(first + index);
                    for (value, &byte) in values.iter_mut().zip(bytes) {
                        *value = to_unit(byte);
                    }
                });
            let squared = squared_distances(count, |index| block.image(first + index), &unique);
            let images = matrix(values, count);
            let dots = kernels::linear(noise.clone(), images.clone().transpose(), None);
            let dots = to_host(dots);
            let mut weights = vec![0f32; batch * count];
            running
                .par_iter_mut()
                .zip(weights.par_chunks_exact_mut(count))
                .enumerate()
                .for_each(|(image, (running, weights))| {
                    let t = forget.timesteps[image];
                    let ratio = process.ratio(t);
                    let squared: Vec<f64> = (0..count)
                        .map(|index| {
                            squared[index * unique.len() + slots[image]] as f64 / SQUARED_UNIT
                        })
                        .collect();
                    let dots = &dots[image * count..(image + 1) * count];
                    let half_squares: Vec<f64> = squared
                        .iter()
                        .zip(dots)
                        .map(|(square, &dot)| {
                            0.5 * ratio * ratio * square + ratio * (along[image] - f64::from(dot))
                        })
                        .collect();
                    running.add(&half_squares, &squared, weights);
                });
            let sums = to_host(kernels::linear(matrix(weights, batch), images, None));
            for (running, sums) in running.iter_mut().zip(sums.chunks_exact(len)) {
                for (sum, &value) in running.images.iter_mut().zip(sums) {
                    *sum += f64::from(value);
                }
            }
        }
        Ok(())
    })?;
    Ok(running
        .into_iter()
        .enumerate()
        .map(|(image, running)| {
            let clean = forget.image(&forget.clean, image);
            let slope = process.target_slope(forget.timesteps[image]);
            running.redirection(clean, slope)
        })
        .collect())
}

impl RunningSums {
    /// Adds images by their |v_k|^2 / 2 and |x - n_k|^2, and returns the weights with which their pixels are to be
    /// added.
    fn add(&mut self, half_squares: &[f64], squared: &[f64], weights: &mut [f32]) {
        let least = half_squares.iter().copied().fold(self.least, f64::min);
        // What was seen before is less likely than the best of these: 0 times it before anything was seen.
        let factor = (least - self.least).exp();
        self.least = least;
        self.total *= factor;
        self.squares *= factor;
        for sum in &mut self.images {
            *sum *= factor;
        }
        for ((half_square, square), weight) in half_squares.iter().zip(squared).zip(weights) {
            *weight = (least - half_square).exp() as f32;
            self.total += f64::from(*weight);
            self.squares += f64::from(*weight) * square;
        }
    }

    fn redirection(self, x: &[f32], slope: f64) -> Redirection {
        let clean: Vec<f32> = self
            .images
            .iter()
            .map(|sum| (sum / self.total) as f32)
            .collect();
        let away = x.iter().zip(&self.images).map(|(&x, sum)| {
            let difference = f64::from(x) - sum / self.total;
            difference * difference
        });
        let variance = (self.squares / self.total - away.sum::<f64>()).max(0.0);
        Redirection {
            clean,
            spread: variance * slope.powi(2),
        }
    }
}

/// exp(-x_k) / sum_j exp(-x_j)
fn softmax_of_negative(x: &[f64]) -> Vec<f64> {
    let least = x.iter().copied().fold(f64::INFINITY, f64::min);
    let weights: Vec<f64> = x.iter().map(|x| (least - x).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|w| w / sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use retrack_data::ImageShape;
    use retrack_networks::process::Time;
    use retrack_networks::random::{Random, Stream};
    use retrack_networks::schedule::SchedulerConfig;

    #[test]
    fn distances_in_the_millions_keep_their_differences() {
        let p = softmax_of_negative(&[3e6, 3e6 + 1.0, 5e6]);
        let second = (-1f64).exp() / (1.0 + (-1f64).exp());
        assert!((p[1] - second).abs() < 1e-12);
        assert_eq!(p[2], 0.0);
        assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-15);
    }

    #[test]
    fn all_images_as_given_neighbors_lead_to_the_same_place() {
        let shape = ImageShape {
            height: 4,
            width: 4,
            channels: 1,
        };
        let len = shape.bytes();
        // Near one another, so that several have weight at every timestep.
        let pixels: Vec<u8> = (0..40 * len).map(|i| 120 + (i * 7919 % 17) as u8).collect();
        let data = Dataset::from_pixels(shape, pixels.clone(), Vec::new()).unwrap();
        let unit = |bytes: &[u8]| {
            bytes
                .iter()
                .map(|&byte| to_unit(byte))
                .collect::<Vec<f32>>()
        };
        let timesteps = [0, 3, 250, 999].map(Time::timestep).to_vec();
        let random = Random::new(5);
        let forget = Noised {
            shape: [4, 4, 4, 1],
            clean: [&pixels[..len], &pixels[len..2 * len]]
                .map(unit)
                .concat()
                .repeat(2),
            noise: random.noise(Stream::ForgetNoise, 0, 0..4, len),
            timesteps,
            labels: None,
        };
        let rows: Vec<usize> = (2..40).collect();
        let process = SchedulerConfig::default().process();
        let device = Device::flex();
        let all = to_all(&*process, &forget, &data, &rows, &device).unwrap();
        let neighbors = unit(&pixels[2 * len..]);
        for (image, all) in all.iter().enumerate() {
            let one = to_nearest(&*process, &forget, image, neighbors.chunks_exact(len));
            for (a, b) in all.clean.iter().zip(&one.clean) {
                assert!((a - b).abs() < 1e-5, "{image}: {a} {b}");
            }
            let error = (all.spread - one.spread).abs();
            assert!(error < 1e-3 * one.spread + 1e-2, "{image}: {error}");
        }
    }

    #[test]
    fn blocks_add_up_to_the_whole() {
        let squared = [3.0, 1.0, 2.0, 8.0];
        let half_squares = [500.0, 2.0, 3.0, 1.5];
        let weigh = |parts: &[std::ops::Range<usize>]| {
            let mut running = RunningSums {
                least: f64::INFINITY,
                total: 0.0,
                images: Vec::new(),
                squares: 0.0,
            };
            for part in parts {
                let mut weights = vec![0.0; part.len()];
                running.add(
                    &half_squares[part.clone()],
                    &squared[part.clone()],
                    &mut weights,
                );
            }
            running.squares / running.total
        };
        let whole = weigh(std::slice::from_ref(&(0..4)));
        let parts = weigh(&[0..1, 1..3, 3..4]);
        assert!((whole - parts).abs() < 1e-6, "{whole} {parts}");
    }
}
