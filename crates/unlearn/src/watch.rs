//! Whether training destroys what it should keep, while every number is still finite.

use std::collections::VecDeque;

/// Steps whose mean is the start: few, because a collapse may begin with the first.
const START: usize = 5;
/// Steps whose mean is compared with it: one step's loss is mostly the luck of its timesteps.
const STEPS: usize = 10;
/// How many times its start the loss of the retained images may reach. Four images a step reach 3.2 by luck alone; a
/// rate ten times too high reaches 17 within 25 steps (the demo's network).
const FACTOR: f64 = 5.0;

/// Watches the loss of the retained images against its own start.
#[derive(Debug, Clone, Default)]
pub struct CollapseWatch {
    start: Vec<f64>,
    recent: VecDeque<f64>,
    warned: bool,
}

impl CollapseWatch {
    /// Takes the loss of the next step. Returns how many times its start the loss has reached, once, where that is
    /// too much: the mean of the last ten steps more than five times that of the first five.
    pub fn see(&mut self, retain_loss: f64) -> Option<f64> {
        if self.start.len() < START {
            self.start.push(retain_loss);
            return None;
        }
        self.recent.push_back(retain_loss);
        if self.recent.len() > STEPS {
            self.recent.pop_front();
        }
        let mean = |sum: f64, count: usize| sum / count as f64;
        let start = mean(self.start.iter().sum(), START);
        let recent = mean(self.recent.iter().sum(), self.recent.len());
        let factor = recent / start;
        let collapsed = self.recent.len() == STEPS && factor > FACTOR && !self.warned;
        self.warned |= collapsed;
        collapsed.then_some(factor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_that_multiplies_is_seen_once() {
        let mut watch = CollapseWatch::default();
        let growing = (0..60).map(|i| 20.0 + 4.0 * f64::from(i));
        let losses = std::iter::repeat_n(20.0, START).chain(growing);
        let seen: Vec<f64> = losses.filter_map(|loss| watch.see(loss)).collect();
        assert_eq!(seen.len(), 1);
        assert!((seen[0] - 5.1).abs() < 1e-9, "{seen:?}");
    }

    #[test]
    fn luck_is_no_collapse() {
        let mut watch = CollapseWatch::default();
        let losses = (0..200).map(|i| if i % 7 == 0 { 90.0 } else { 15.0 });
        assert_eq!(losses.filter_map(|loss| watch.see(loss)).count(), 0);
    }
}
