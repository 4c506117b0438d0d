//! What the demo measures: how often the T-shirt is found, and what became of the digits.

use retrack_eval::distance::{mean, pairwise, to_nearest};
use retrack_eval::frequency::Frequency;
use serde_json::{Value, json};

use super::{HALF_WAY, STEPS, THRESHOLD};

/// What became of the digits. Euclidean distances over pixels in [0, 1].
#[derive(Debug)]
pub struct Digits {
    /// Between the two samples of a seed, where the first was no T-shirt.
    pub moved: f64,
    /// Between samples of different seeds, for comparison.
    pub apart: f64,
    /// From a sample to the nearest real digit.
    pub real_before: f64,
    /// The same after.
    pub real_after: f64,
}

impl Digits {
    pub(super) fn of(before: &[u8], after: &[u8], shirt: &[u8], digits: &[u8]) -> Self {
        let len = shirt.len();
        let is_shirt = pairwise(before, &shirt.repeat(before.len() / len), len);
        let keep = |images: &[u8]| -> Vec<u8> {
            let kept = images.chunks_exact(len).zip(&is_shirt);
            let kept = kept.filter(|(_, distance)| **distance >= THRESHOLD);
            kept.flat_map(|(image, _)| image.iter().copied()).collect()
        };
        let (before, after) = (keep(before), keep(after));
        let shifted = before.get(len..).unwrap_or_default();
        Self {
            moved: mean(&pairwise(&before, &after, len)),
            apart: mean(&pairwise(&before, shifted, len)),
            real_before: mean(&to_nearest(&before, digits, len)),
            real_after: mean(&to_nearest(&after, digits, len)),
        }
    }
}

/// What the demo found.
#[derive(Debug)]
pub struct Outcome {
    /// The T-shirt among the samples.
    pub before: Frequency,
    /// The same after.
    pub after: Frequency,
    /// The T-shirt among the attempts to restore it.
    pub restored_before: Frequency,
    /// The same after.
    pub restored_after: Frequency,
    /// How far the samples moved.
    pub digits: Digits,
    /// Distances of the half-way attempts to the T-shirt, before and after.
    pub(super) half_way: [Vec<f64>; 2],
    /// What all of it took.
    pub seconds: f64,
}

impl Outcome {
    /// For programs. `unlearning`: what the run says of itself.
    pub(super) fn json(&self, seed: u64, unlearning: &Value) -> Value {
        let share = |frequency: &Frequency| {
            json!({
                "t_shirts": frequency.repeats,
                "samples": frequency.samples,
                "share": frequency.share(),
                "nearest_distance": frequency.nearest,
            })
        };
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "seed": seed,
            "threshold": THRESHOLD,
            "scheduler": "ddim",
            "sampling_steps": STEPS,
            "before": share(&self.before),
            "after": share(&self.after),
            "half_way_timestep": HALF_WAY.code(),
            "half_way_before": share(&self.restored_before),
            "half_way_after": share(&self.restored_after),
            "digits": {
                "moved": self.digits.moved,
                "different_seeds_apart": self.digits.apart,
                "to_nearest_real_before": self.digits.real_before,
                "to_nearest_real_after": self.digits.real_after,
            },
            "unlearning": unlearning,
            "seconds": self.seconds,
        })
    }
}
