//! What a network makes of an image and of its look-alikes, draw by draw.

use retrack_eval::distance::mean;
use retrack_networks::process::Time;
use retrack_unlearn::level::Level;

use super::standing::{Mirror, PARTS, Standing};
use super::usual::{Ordinary, deviation, median};

/// The errors of an image and of its look-alikes, draw by draw.
pub(super) struct Errors {
    pub(super) times: Vec<Time>,
    pub(super) own: Vec<f64>,
    pub(super) look_alikes: Vec<Vec<f64>>,
    pub(super) mirror: Option<Vec<f64>>,
}

impl Errors {
    /// The look-alikes that the model does not know. One that it knows, because training moved or turned its images, is
    /// denoised far better than the others.
    fn unknown(&self) -> impl Iterator<Item = &Vec<f64>> {
        /// Deviations below the median, from the median deviation.
        const FAR: f64 = 3.0;
        let logs: Vec<f64> = self.look_alikes.iter().map(|errors| log(errors)).collect();
        let middle = median(logs.clone());
        let least = middle - FAR * deviation(&logs, middle).max(0.075);
        let pairs = self.look_alikes.iter().zip(logs);
        pairs
            .filter(move |(_, log)| *log >= least)
            .map(|(errors, _)| errors)
    }

    /// The level that look-alikes by changes of so many sizes show, which take turns, the largest last. From a quarter of the process on noise hides
    /// small changes, and a model that memorized an image half knows what differs so little: there the largest ones count alone.
    ///
    /// A mirror image that is denoised worse than they are shows the level better: nothing of it was blurred, and nothing is
    /// remembered.
    pub(super) fn level(&self, sizes: usize, ordinary: &Ordinary) -> Level {
        const FROM: f64 = 0.25;
        let larger = Self {
            look_alikes: self
                .look_alikes
                .iter()
                .skip(sizes - 1)
                .step_by(sizes)
                .cloned()
                .collect(),
            times: Vec::new(),
            own: Vec::new(),
            mirror: None,
        };
        let late = (FROM * self.times.len() as f64) as usize;
        let at = |draw: usize| {
            let of = if draw < late { self } else { &larger };
            let errors: Vec<f64> = of.unknown().map(|errors| errors[draw]).collect();
            log(&errors).exp()
        };
        let mut errors: Vec<f64> = (0..self.times.len()).map(at).collect();
        if let (Some(mirror), Some(usual)) = (&self.mirror, ordinary.mirror) {
            let as_usual = usual.median.exp();
            let mirror: Vec<f64> = mirror.iter().map(|error| error * as_usual).collect();
            if log(&mirror) > log(&errors) {
                errors = mirror;
            }
        }
        let times = self.times.iter().copied();
        let mut points: Vec<(Time, f64)> = times.zip(errors).collect();
        // A schedule of few timesteps has several draws at one.
        points.dedup_by_key(|(time, _)| *time);
        Level::new(points)
    }

    /// Where the image stands.
    pub(super) fn standing(&self, ordinary: &Ordinary) -> Standing {
        let profiles: Vec<Vec<f64>> = self.unknown().map(|errors| profile(errors)).collect();
        let levels = (0..PARTS).map(|part| {
            let errors = || profiles.iter().map(|profile| profile[part]);
            let logs: Vec<f64> = errors().map(f64::ln).collect();
            let low = errors().fold(f64::INFINITY, f64::min);
            let high = errors().fold(f64::NEG_INFINITY, f64::max);
            [mean(&logs).exp(), low, high]
        });
        Standing {
            own: log(&self.own),
            look_alikes: self.unknown().map(|errors| log(errors)).collect(),
            profile: profile(&self.own),
            levels: levels.collect(),
            usual: ordinary.look_alikes,
            led: None,
            mirror: self
                .mirror
                .as_ref()
                .zip(ordinary.mirror)
                .map(|(mirror, usual)| Mirror {
                    error: log(mirror),
                    usual,
                }),
        }
    }
}

/// The geometric mean of the errors in each part of the process.
pub(super) fn profile(errors: &[f64]) -> Vec<f64> {
    let edge = |part: usize| part * errors.len() / PARTS;
    let part = |part: usize| log(&errors[edge(part)..edge(part + 1)]).exp();
    (0..PARTS).map(part).collect()
}

/// The mean logarithm. Errors that are 0, of a model that predicts without any, count as the least positive ones.
pub(super) fn log(errors: &[f64]) -> f64 {
    let logs: Vec<f64> = errors
        .iter()
        .map(|error| match *error {
            0.0 => f64::MIN_POSITIVE.ln(),
            error => error.ln(),
        })
        .collect();
    mean(&logs)
}

#[cfg(test)]
mod tests {
    use super::super::usual::Usual;
    use super::super::viewer::DRAWS;
    use super::*;

    #[test]
    fn look_alikes_that_the_model_knows_are_left_out() {
        let mut errors = Errors {
            times: (0..DRAWS).map(|draw| Time::timestep(50 * draw)).collect(),
            own: vec![0.01; DRAWS],
            look_alikes: vec![vec![0.1; DRAWS]; 20],
            mirror: None,
        };
        let ordinary = Ordinary::UNCHANGED;
        errors.look_alikes.extend(vec![vec![0.01; DRAWS]; 4]);
        assert_eq!(errors.standing(&ordinary).look_alikes.len(), 20);
        assert!((errors.level(1, &ordinary).at(0.into()) - 0.1).abs() < 1e-12);
        // Larger changes, in turns, count alone late in the process.
        let turns = errors.look_alikes.iter_mut().skip(1).step_by(2);
        turns.for_each(|errors| errors.fill(0.4));
        assert!((errors.level(2, &ordinary).at(900.into()) - 0.4).abs() < 1e-12);
        assert!(errors.level(2, &ordinary).at(0.into()) < 0.4);
    }

    #[test]
    fn a_mirror_image_that_is_denoised_worse_than_look_alikes_is_the_level() {
        let mut errors = Errors {
            times: (0..DRAWS).map(|draw| Time::timestep(50 * draw)).collect(),
            own: vec![0.05; DRAWS],
            look_alikes: vec![vec![0.1; DRAWS]; 20],
            mirror: Some(vec![0.15; DRAWS]),
        };
        let ordinary = Ordinary {
            mirror: Usual::of_mirrors(vec![0.0; 20]),
            ..Ordinary::UNCHANGED
        };
        let level = |errors: &Errors, ordinary: &Ordinary| errors.level(1, ordinary).at(0.into());
        assert!((level(&errors, &ordinary) - 0.15).abs() < 2e-3);
        assert!((level(&errors, &Ordinary::UNCHANGED) - 0.1).abs() < 1e-9);
        // Trained on from both sides.
        errors.mirror = Some(vec![0.05; DRAWS]);
        assert!((level(&errors, &ordinary) - 0.1).abs() < 1e-9);
    }
}
