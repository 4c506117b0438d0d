//! What a model makes of images that it does not know: the error with which it denoises them, along the process.

use std::collections::HashMap;

use retrack_networks::process::Time;

/// The error with which an image that a model does not know is denoised, along the process.
#[derive(Debug, Clone, PartialEq)]
pub struct Level {
    /// Ascending times; mean squared errors of the noise, a value.
    points: Vec<(Time, f64)>,
}

/// What a draw of a forgotten image shows of what the model knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// It is denoised better than an image that the model does not know.
    Known,
    /// As well as one.
    Unknown,
    /// Worse.
    Avoided,
}

/// How far each forgotten image is led.
#[derive(Debug, Clone, PartialEq)]
pub struct Gate {
    /// By row.
    pub levels: HashMap<usize, Level>,
    /// Shares of the level: with an error below the first an image is known, above the second it is avoided.
    pub band: [f64; 2],
    /// Where an image is led that is known: at most to an error of so many times its level.
    pub reach: f64,
    /// The edge below which a draw is led whose neighbors lie within reach, which is late in the process: there a model that
    /// never saw the image would go to them as well, and nothing has to be brought back.
    pub near: f64,
}

impl Gate {
    /// On which side of its level the draw of a forgotten row lies. `error`: mean squared error of the noise, a value.
    /// `near`: its neighbors lie within reach.
    ///
    /// # Panics
    /// The row is not forgotten.
    pub fn side(&self, row: usize, time: Time, error: f64, near: bool) -> Side {
        let level = self.levels[&row].at(time);
        match error {
            error if near && error < self.near * level => Side::Known,
            _ if near => Side::Unknown,
            error if error < self.band[0] * level => Side::Known,
            error if error > self.band[1] * level => Side::Avoided,
            // What is no number, too.
            _ => Side::Unknown,
        }
    }

    /// The error to which a known row is led at most.
    ///
    /// # Panics
    /// As [`side`](Self::side).
    pub fn farthest(&self, row: usize, time: Time) -> f64 {
        self.reach * self.levels[&row].at(time)
    }
}

impl Level {
    /// The level through these errors: mean squared errors of the noise, a value, by ascending time.
    ///
    /// # Panics
    /// There are none.
    pub fn new(points: Vec<(Time, f64)>) -> Self {
        assert!(!points.is_empty());
        Self { points }
    }

    /// The error at a time: between two points on the straight line through their logarithms, beyond the outer ones theirs.
    pub fn at(&self, time: Time) -> f64 {
        let after = self.points.partition_point(|(at, _)| *at < time);
        let [(from, low), (to, high)] = match after {
            0 => return self.points[0].1,
            end if end == self.points.len() => return self.points[end - 1].1,
            after => [self.points[after - 1], self.points[after]],
        };
        let way = (time.value() - from.value()) / (to.value() - from.value());
        (low.ln() * (1.0 - way) + high.ln() * way).exp()
    }

    /// The errors at the times that it was made of.
    pub fn points(&self) -> &[(Time, f64)] {
        &self.points
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_straight_in_the_logarithm_between_its_points() {
        let level = Level::new(vec![(10.into(), 1.0), (20.into(), 0.01)]);
        let found = [0, 10, 15, 20, 30].map(|t| level.at(t.into()));
        for (found, expected) in found.into_iter().zip([1.0, 1.0, 0.1, 0.01, 0.01]) {
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        }
    }

    #[test]
    fn what_is_near_its_level_is_left_alone() {
        let level = Level::new(vec![(0.into(), 0.5)]);
        let gate = Gate {
            levels: HashMap::from([(7, level)]),
            band: [0.8, 1.5],
            reach: 4.0,
            near: 1.3,
        };
        let errors = [0.3, 0.5, 0.7, 0.8, f64::NAN];
        let near = errors.map(|error| gate.side(7, 0.into(), error, true));
        let (known, unknown) = (Side::Known, Side::Unknown);
        assert_eq!(near, [known, known, unknown, unknown, unknown]);
        let sides = errors.map(|error| gate.side(7, 0.into(), error, false));
        assert_eq!(sides, [known, unknown, unknown, Side::Avoided, unknown]);
        assert_eq!(gate.farthest(7, 0.into()), 2.0);
    }
}
