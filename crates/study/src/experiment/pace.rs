//! How long the rest of an experiment takes.

use std::time::Duration;

use retrack_checkpoint::words::duration;

/// What the runs took that were made here. A run that trains takes longer than a reference, which is only measured.
#[derive(Debug, Default)]
pub(super) struct Pace {
    trained: Vec<Duration>,
    measured: Vec<Duration>,
}

impl Pace {
    /// A run is complete.
    pub(super) fn add(&mut self, trains: bool, took: Duration) {
        let runs = if trains {
            &mut self.trained
        } else {
            &mut self.measured
        };
        runs.push(took);
    }

    /// Time for the runs that are missing, which train or do not; `None` before one that trains is complete.
    fn left(&self, missing: &[bool]) -> Option<Duration> {
        let mean = |runs: &[Duration]| {
            let count = u32::try_from(runs.len()).ok().filter(|count| *count > 0)?;
            Some(runs.iter().sum::<Duration>() / count)
        };
        let trained = mean(&self.trained);
        let measured = mean(&self.measured).or(trained);
        let each = missing
            .iter()
            .map(|&trains| if trains { trained } else { measured });
        each.sum()
    }

    /// What is left, in words; nothing where nobody knows.
    pub(super) fn text(&self, missing: &[bool]) -> String {
        let left = self.left(missing).map(duration);
        left.map_or(String::new(), |left| format!(", about {left} left for all"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_that_train_and_references_have_a_pace_each() {
        let seconds = Duration::from_secs;
        let mut pace = Pace::default();
        assert_eq!(pace.text(&[true]), "");
        pace.add(false, seconds(10));
        assert_eq!(pace.left(&[true, false]), None);
        assert_eq!(pace.left(&[false, false]), Some(seconds(20)));
        pace.add(true, seconds(100));
        pace.add(true, seconds(120));
        assert_eq!(pace.left(&[true, false]), Some(seconds(120)));
        assert_eq!(pace.text(&[true; 10]), ", about 18 min left for all");
    }
}
