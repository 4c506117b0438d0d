//! How well a score tells two groups apart, and how sure that is.

use rayon::prelude::*;
use retrack_networks::random::{Draw, Random, Stream};

/// The probability that a score of `higher` exceeds one of `lower`, ties counted one half: the area under the
/// receiver operating characteristic, the Mann-Whitney U divided by the number of pairs. NaN of an empty group.
pub(crate) fn auc(lower: &[f64], higher: &[f64]) -> f64 {
    let mut sorted = lower.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let wins: f64 = higher
        .iter()
        .map(|score| {
            let below = sorted.partition_point(|other| other < score);
            let not_above = sorted.partition_point(|other| other <= score);
            below as f64 + 0.5 * (not_above - below) as f64
        })
        .sum();
    wins / (lower.len() as f64 * higher.len() as f64)
}

/// The same for a watcher who may take high scores for either sign: at least one half.
pub(crate) fn two_sided(auc: f64) -> f64 {
    auc.max(1.0 - auc)
}

/// Scores of several images under several draws that all images share.
#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    draws: usize,
    /// Image by image.
    values: Vec<f64>,
}

impl Scores {
    /// `values` holds `draws` scores of each image, one image after another.
    ///
    /// # Panics
    ///
    /// `values` are not whole images.
    pub fn new(draws: usize, values: Vec<f64>) -> Self {
        assert!(
            draws > 0 && values.len().is_multiple_of(draws),
            "{} scores are not whole images of {draws}",
            values.len()
        );
        Self { draws, values }
    }

    /// Number of images.
    pub fn images(&self) -> usize {
        self.values.len() / self.draws
    }

    /// Scores of each image.
    pub fn draws(&self) -> usize {
        self.draws
    }

    /// The scores of one image.
    pub fn of(&self, image: usize) -> &[f64] {
        &self.values[image * self.draws..][..self.draws]
    }

    /// The mean over draws of each image's scores.
    pub fn means(&self) -> Vec<f64> {
        self.means_of(&vec![1; self.draws])
    }

    /// The same where each draw counts `weights` times.
    fn means_of(&self, weights: &[u32]) -> Vec<f64> {
        self.values
            .chunks_exact(self.draws)
            .map(|scores| {
                let weighted = scores.iter().zip(weights);
                weighted
                    .map(|(score, &w)| score * f64::from(w))
                    .sum::<f64>()
                    / self.draws as f64
            })
            .collect()
    }
}

/// How an interval is found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bootstrap {
    /// How many.
    pub resamples: usize,
    /// The share of resamples in the interval, such as 0.95.
    pub level: f64,
    /// What they are drawn with.
    pub random: Random,
}

impl Bootstrap {
    /// The interval that holds the middle `level` of the AUC of resampled scores (Efron's percentile bootstrap).
    ///
    /// Each resample draws, with replacement, the images of either group and the draws. These stay paired: all
    /// images lose and repeat the same ones. A group of one image is always that image, and the interval then says
    /// nothing about others. Both ends are NaN without resamples or of an empty group.
    ///
    /// # Panics
    ///
    /// The groups have different numbers of draws.
    pub fn interval(&self, lower: &Scores, higher: &Scores) -> [f64; 2] {
        assert_eq!(
            lower.draws, higher.draws,
            "scores under different draws are no pairs"
        );
        if lower.images() == 0 || higher.images() == 0 {
            return [f64::NAN; 2];
        }
        let mut areas: Vec<f64> = (0..self.resamples as u64)
            .into_par_iter()
            .map(|resample| {
                let mut draw = self.random.stream(Stream::Bootstrap, resample);
                let mut weights = vec![0; lower.draws];
                for index in draw.integers(lower.draws, lower.draws) {
                    weights[index] += 1;
                }
                let lower = again(&mut draw, &lower.means_of(&weights));
                let higher = again(&mut draw, &higher.means_of(&weights));
                auc(&lower, &higher)
            })
            .collect();
        areas.sort_unstable_by(f64::total_cmp);
        let outside = (1.0 - self.level) / 2.0;
        [quantile(&areas, outside), quantile(&areas, 1.0 - outside)]
    }
}

/// As many of `values`, drawn with replacement.
fn again(draw: &mut Draw, values: &[f64]) -> Vec<f64> {
    let drawn = draw.integers(values.len(), values.len()).into_iter();
    drawn.map(|index| values[index]).collect()
}

/// Between the two values around the place, as numpy's default has it. NaN of nothing.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else {
        return f64::NAN;
    };
    let place = share.clamp(0.0, 1.0) * last as f64;
    let (below, above) = (
        sorted[place.floor() as usize],
        sorted[place.ceil() as usize],
    );
    below + (above - below) * place.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOWER: [f64; 4] = [0.31, 0.5, 0.12, 0.77];
    const HIGHER: [f64; 8] = [0.5, 0.33, 0.9, 0.12, 0.4, 0.6, 0.5, 0.05];

    #[test]
    fn the_area_is_that_of_scikit_learn() {
        // scikit-learn 1.9.1: roc_auc_score([0] * 4 + [1] * 8, LOWER + HIGHER), and of the first of LOWER alone.
        assert!((auc(&LOWER, &HIGHER) - 0.515625).abs() < 1e-15);
        assert!((auc(&LOWER[..1], &HIGHER) - 0.75).abs() < 1e-15);
    }

    #[test]
    fn ties_count_one_half() {
        assert_eq!(auc(&[1.0, 1.0], &[1.0]), 0.5);
        assert_eq!(auc(&[0.0, 1.0], &[1.0]), 0.75);
        assert_eq!(auc(&[0.0], &[1.0, 2.0]), 1.0);
        assert_eq!(auc(&[3.0], &[1.0, 2.0]), 0.0);
        assert!(auc(&[], &[1.0]).is_nan());
        assert_eq!(two_sided(0.25), 0.75);
        assert_eq!(two_sided(0.75), 0.75);
    }

    #[test]
    fn quantiles_are_those_of_numpy() {
        // numpy.percentile([1, 1.5, 2.6, 3, 4, 9], [2.5, 97.5, 50])
        let sorted = [1.0, 1.5, 2.6, 3.0, 4.0, 9.0];
        for (share, expected) in [(0.025, 1.0625), (0.975, 8.375), (0.5, 2.8)] {
            assert!((quantile(&sorted, share) - expected).abs() < 1e-12);
        }
        assert!(quantile(&[], 0.5).is_nan());
    }

    fn bootstrap(seed: u64) -> Bootstrap {
        Bootstrap {
            resamples: 1000,
            level: 0.95,
            random: Random::new(seed),
        }
    }

    /// `images` scores under `draws`, normal around `mean`, with the draws' own common part.
    fn scores(seed: u64, images: u64, draws: usize, mean: f64) -> Scores {
        let common = Random::new(99).stream(Stream::RetainNoise, 0).normal(draws);
        let values = (0..images).flat_map(|image| {
            let own = Random::new(seed).at(Stream::RetainNoise, 1, image);
            let own = own.clone().normal(draws);
            let both: Vec<f64> = own
                .iter()
                .zip(&common)
                .map(|(own, common)| mean + f64::from(own + 10.0 * common))
                .collect();
            both
        });
        Scores::new(draws, values.collect())
    }

    #[test]
    fn the_interval_holds_the_area_and_belongs_to_the_seed() {
        let (lower, higher) = (scores(1, 12, 20, 0.0), scores(2, 40, 20, 0.1));
        let area = auc(&lower.means(), &higher.means());
        let [low, high] = bootstrap(5).interval(&lower, &higher);
        assert!(low < area && area < high, "{low} {area} {high}");
        assert!(high - low > 0.1, "{low} {high}");
        assert_eq!([low, high], bootstrap(5).interval(&lower, &higher));
        assert_ne!([low, high], bootstrap(6).interval(&lower, &higher));
    }

    #[test]
    fn what_all_images_share_does_not_widen_the_interval() {
        // A common part ten times the images' own: unpaired draws would drown a difference of 3.
        let (lower, higher) = (scores(1, 1, 30, 0.0), scores(2, 30, 30, 3.0));
        assert_eq!(bootstrap(1).interval(&lower, &higher), [1.0, 1.0]);
    }

    #[test]
    fn the_interval_covers_the_truth_about_as_often_as_it_says() {
        // Two groups of one distribution: the true area is one half. 90 % of 200 intervals, within five standard
        // deviations (0.1), and a little less for the small groups.
        let covered = (0..200)
            .filter(|&run| {
                let (lower, higher) = (
                    scores(1000 + 2 * run, 20, 1, 0.0),
                    scores(1001 + 2 * run, 20, 1, 0.0),
                );
                let [low, high] = Bootstrap {
                    resamples: 200,
                    level: 0.9,
                    random: Random::new(run),
                }
                .interval(&lower, &higher);
                low <= 0.5 && 0.5 <= high
            })
            .count();
        assert!((150..=198).contains(&covered), "{covered}");
    }

    #[test]
    fn nothing_gives_no_number() {
        let none = Scores::new(3, vec![]);
        let some = scores(1, 2, 3, 0.0);
        assert!(bootstrap(1).interval(&none, &some)[0].is_nan());
        assert_eq!(some.images(), 2);
        assert_eq!(some.of(1).len(), 3);
    }
}
