//! ReTrack (arXiv 2509.13007): the trajectory of a forgotten image is led to its neighbors.

use retrack_networks::schedule::{NoiseSchedule, Prediction};
use retrack_networks::unet2d::InputError;

use super::{Losses, Objective, Pass, Sums, half_square_excess};
use crate::batch::{Batch, Draws, Noised};

/// lambda E_forget[ sum_k p_k |e_theta(x_t) - v_k|^2 ] + (1 - lambda) E_retain[ |e_theta(x_t) - e|^2 ]
///
/// with v_k = (x_t - g n_k) / s over the nearest retained neighbors n_k of the forgotten image and
/// p = softmax_k(-|v_k|^2 / 2).
///
/// The sum over k is never built. Its gradient is that of |e_theta - sum_k p_k v_k|^2, and v is affine
/// in n, so the target is the one that belongs to the clean image sum_k p_k n_k, for every prediction
/// type; the rest, sum_k p_k |v_k - mean|^2, is a constant that the reported loss includes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReTrack {
    /// Weight of forgetting, from 0 to 1.
    pub lambda: f64,
}

impl Objective for ReTrack {
    fn draws(&self) -> Draws {
        Draws {
            retain: true,
            forget: true,
            neighbors: true,
            ..Draws::default()
        }
    }

    fn backward(&self, pass: &Pass, batch: &Batch, sums: &mut Sums) -> Result<Losses, InputError> {
        let forget = batch.forget.as_ref().expect("drawn");
        let neighbors = batch.neighbors.as_ref().expect("drawn");
        let mut clean = Vec::with_capacity(forget.clean.len());
        let mut spread = 0.0;
        for (image, neighbors) in neighbors.iter().enumerate() {
            let redirection = redirect(pass.schedule, forget, image, neighbors);
            clean.extend(redirection.clean);
            spread += redirection.spread / forget.len() as f64;
        }
        let clean = forget.tensor(clean, pass.device);
        let noisy = forget.noisy(pass.schedule, pass.device);
        let target = pass.schedule.target(noisy, clean, &forget.timesteps);
        let (error, gradient) = pass.squared_error(forget, target, None, self.lambda)?;
        sums.add(gradient);
        let forget_loss = error + spread;

        let retain = batch.retain.as_ref().expect("drawn");
        let target = retain.target(pass.schedule, pass.device);
        let (retain_loss, gradient) =
            pass.squared_error(retain, target, None, 1.0 - self.lambda)?;
        sums.add(gradient);

        Ok(Losses {
            loss: self.lambda * forget_loss + (1.0 - self.lambda) * retain_loss,
            retain: Some(retain_loss),
            forget: Some(forget_loss),
            ..Losses::default()
        })
    }
}

/// Where one noisy forgotten image is led.
struct Redirection {
    /// sum_k p_k n_k
    clean: Vec<f32>,
    /// sum_k p_k |target_k - target|^2
    spread: f64,
}

/// Weighs the neighbors of one image of a batch by how likely each is to have led to its x_t.
fn redirect(
    schedule: &NoiseSchedule,
    forget: &Noised,
    image: usize,
    neighbors: &[f32],
) -> Redirection {
    let len = forget.image_len();
    let clean = forget.image(&forget.clean, image);
    let noise = forget.image(&forget.noise, image);
    let t = forget.timesteps[image];

    // |v_k|^2 / 2 less what all k share, which the softmax does not see.
    let half_squares: Vec<f64> = neighbors
        .chunks_exact(len)
        .map(|neighbor| half_square_excess(schedule, t, clean, noise, neighbor))
        .collect();
    let p = softmax_of_negative(&half_squares);

    let mut mean = vec![0f64; len];
    for (neighbor, &p) in neighbors.chunks_exact(len).zip(&p) {
        if p > 0.0 {
            for (m, &n) in mean.iter_mut().zip(neighbor) {
                *m += p * f64::from(n);
            }
        }
    }
    let mut variance = 0.0;
    for (neighbor, &p) in neighbors.chunks_exact(len).zip(&p) {
        if p > 0.0 {
            let squares = neighbor.iter().zip(&mean).map(|(&n, m)| {
                let difference = f64::from(n) - m;
                difference * difference
            });
            variance += p * squares.sum::<f64>();
        }
    }
    Redirection {
        spread: variance * target_slope(schedule, t).powi(2),
        clean: mean.into_iter().map(|m| m as f32).collect(),
    }
}

/// How far the target moves when the clean image that it belongs to moves by one, at fixed x_t.
fn target_slope(schedule: &NoiseSchedule, t: usize) -> f64 {
    match schedule.prediction {
        Prediction::Epsilon => schedule.signal(t) / schedule.noise(t),
        Prediction::Sample => 1.0,
        Prediction::VPrediction => 1.0 / schedule.noise(t),
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
    use super::softmax_of_negative;

    #[test]
    fn distances_in_the_millions_keep_their_differences() {
        let p = softmax_of_negative(&[3e6, 3e6 + 1.0, 5e6]);
        let second = (-1f64).exp() / (1.0 + (-1f64).exp());
        assert!((p[1] - second).abs() < 1e-12);
        assert_eq!(p[2], 0.0);
        assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-15);
    }
}
