//! Inception Score: whether a classifier is sure of each image, and sees all classes among them.
//!
//! IS = exp(E_x KL(p(y|x) || p(y))), p(y) the mean of p(y|x). Salimans et al. 2016, arXiv 1606.03498, section 4. It lies
//! between 1 and the number of classes; in natural logarithms, without unit.
//!
//! As torch-fidelity 0.4 defines it: the images are cut into `splits` parts in their order, part i being images
//! `i n / splits` to `(i + 1) n / splits` (rounded down), each part has its own p(y), and mean and population standard
//! deviation of the parts' scores are reported. Two things differ from what others do by default: torch-fidelity shuffles
//! the images before (`samples_shuffle=False` turns it off), torchmetrics too (without a seed of its own, with parts of
//! rounded-up length and the deviation divided by `splits - 1`). Here the order is the caller's, and samples drawn
//! independently need no shuffle; images sorted by class do.

use serde::{Deserialize, Serialize};

/// Parts that published scores use.
pub const SPLITS: usize = 10;

/// Mean and spread over the parts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct InceptionScore {
    /// The score: the mean over the parts.
    pub mean: f64,
    /// Population standard deviation over the parts; 0 of one part.
    pub sd: f64,
    /// Parts.
    pub splits: usize,
    /// Images looked at.
    pub samples: usize,
}

/// Why there is no score.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ScoreError {
    /// No whole number of samples.
    #[error("{numbers} numbers are no whole samples of {classes} classes")]
    Shape {
        /// Numbers given.
        numbers: usize,
        /// Numbers of a sample.
        classes: usize,
    },
    /// Fewer samples than parts.
    #[error("{samples} samples do not fill {splits} parts; take more samples or fewer parts")]
    TooFew {
        /// Samples given.
        samples: usize,
        /// Parts asked for.
        splits: usize,
    },
    /// A sample whose probabilities are none.
    #[error("sample {sample} has a number that is NaN, infinite or no probability")]
    NoNumber {
        /// The sample, counted from 0.
        sample: usize,
    },
}

impl InceptionScore {
    /// From unnormalised log-probabilities, `classes` for each image, one image after another. For the score of the
    /// literature these are Inception's without the bias of its last layer ([`crate::inception::Description::logits`]).
    ///
    /// # Errors
    /// Fewer images than parts, no whole number of images, NaN or infinity.
    pub fn of_logits(logits: &[f32], classes: usize, splits: usize) -> Result<Self, ScoreError> {
        Self::of(logits, classes, splits, |row| {
            let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let shifted = row.iter().map(|&x| f64::from(x) - f64::from(largest));
            let log_sum = shifted.clone().map(f64::exp).sum::<f64>().ln();
            row.iter()
                .all(|x| x.is_finite())
                .then(|| shifted.map(|x| x - log_sum).map(|l| (l.exp(), l)).collect())
        })
    }

    /// From probabilities, `classes` for each image, one image after another; they are taken as they are.
    ///
    /// # Errors
    /// As [`InceptionScore::of_logits`]; also numbers outside 0 to 1.
    pub fn of_probabilities(
        probabilities: &[f32],
        classes: usize,
        splits: usize,
    ) -> Result<Self, ScoreError> {
        Self::of(probabilities, classes, splits, |row| {
            let valid = row.iter().all(|p| (0.0..=1.0).contains(p));
            let pairs = row.iter().map(|&p| f64::from(p)).map(|p| (p, p.ln()));
            valid.then(|| pairs.collect())
        })
    }

    /// `row_of` gives probabilities with their logarithms.
    fn of(
        numbers: &[f32],
        classes: usize,
        splits: usize,
        row_of: impl Fn(&[f32]) -> Option<Vec<(f64, f64)>>,
    ) -> Result<Self, ScoreError> {
        if classes == 0 || !numbers.len().is_multiple_of(classes) {
            return Err(ScoreError::Shape {
                numbers: numbers.len(),
                classes,
            });
        }
        let samples = numbers.len() / classes;
        if splits == 0 || samples < splits {
            return Err(ScoreError::TooFew { samples, splits });
        }
        let rows = numbers.chunks_exact(classes).enumerate();
        let rows = rows.map(|(sample, row)| row_of(row).ok_or(ScoreError::NoNumber { sample }));
        let rows = rows.collect::<Result<Vec<_>, _>>()?;
        let scores: Vec<f64> = (0..splits)
            .map(|part| &rows[part * samples / splits..(part + 1) * samples / splits])
            .map(|part| score(part, classes))
            .collect();
        let mean = scores.iter().sum::<f64>() / splits as f64;
        let squares = scores.iter().map(|score| (score - mean).powi(2));
        Ok(Self {
            mean,
            sd: (squares.sum::<f64>() / splits as f64).sqrt(),
            splits,
            samples,
        })
    }
}

fn score(rows: &[Vec<(f64, f64)>], classes: usize) -> f64 {
    let count = rows.len() as f64;
    let marginal: Vec<f64> = (0..classes)
        .map(|class| (rows.iter().map(|row| row[class].0).sum::<f64>() / count).ln())
        .collect();
    let divergence = |row: &Vec<(f64, f64)>| {
        let terms = row.iter().zip(&marginal);
        // p ln p is 0 for p = 0, where the logarithm is not a number.
        let terms = terms.filter(|((p, _), _)| *p > 0.0);
        terms
            .map(|((p, log_p), log_q)| p * (log_p - log_q))
            .sum::<f64>()
    };
    (rows.iter().map(divergence).sum::<f64>() / count).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sure_answers_evenly_over_all_classes_score_the_number_of_classes() {
        let mut logits = vec![0.0; 40 * 4];
        for sample in 0..40 {
            logits[sample * 4 + sample % 4] = 2000.0;
        }
        let score = InceptionScore::of_logits(&logits, 4, 10).unwrap();
        assert!((score.mean - 4.0).abs() < 1e-12 && score.sd < 1e-12);
        let sure: Vec<f32> = logits.iter().map(|l| l / 2000.0).collect();
        let score = InceptionScore::of_probabilities(&sure, 4, 1).unwrap();
        assert!((score.mean - 4.0).abs() < 1e-12);
    }

    #[test]
    fn the_same_answer_to_every_image_scores_one() {
        let row = [0.3, -1.0, 2.0];
        let score = InceptionScore::of_logits(&row.repeat(7), 3, 2).unwrap();
        assert!((score.mean - 1.0).abs() < 1e-12);
    }

    #[test]
    fn what_has_no_score_is_refused() {
        let of = InceptionScore::of_logits;
        assert!(matches!(of(&[0.0; 7], 3, 1), Err(ScoreError::Shape { .. })));
        assert!(matches!(of(&[], 3, 1), Err(ScoreError::TooFew { .. })));
        assert!(matches!(
            of(&[0.0; 6], 3, 0),
            Err(ScoreError::TooFew { .. })
        ));
        assert!(matches!(
            of(&[0.0; 6], 3, 3),
            Err(ScoreError::TooFew { .. })
        ));
        let broken = of(&[0.0, 0.0, 0.0, f32::NAN], 2, 1);
        assert_eq!(broken, Err(ScoreError::NoNumber { sample: 1 }));
        let broken = InceptionScore::of_probabilities(&[0.5, 1.5], 2, 1);
        assert_eq!(broken, Err(ScoreError::NoNumber { sample: 0 }));
    }
}
