//! Frechet distance between two sets of features, each taken as a Gaussian: FID where the features are Inception's.
//!
//! d^2 = |m1 - m2|^2 + tr(S1) + tr(S2) - 2 tr((S1 S2)^(1/2)), with means m and unbiased covariances S (divided by
//! n - 1), in f64. Heusel et al. 2017, arXiv 1706.08500, equation 6; the number that is reported as FID is d^2.
//!
//! No square root of a matrix is taken. With S1 = L1 L1^T and S2 = L2 L2^T the eigenvalues of S1 S2 are the squares of
//! the singular values of L1^T L2, so that the last trace is the sum of these. The factors come from a Cholesky
//! decomposition with pivots, which ends at the rank of a singular covariance (fewer samples than features). Square roots
//! of the eigenvalues of S1 S2, which other implementations add up, turn rounding noise of 1e-16 into 1e-8 for every
//! missing rank.

use nalgebra::{DMatrix, DVector};

/// Why there is no distance.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum FrechetError {
    /// Fewer than two samples.
    #[error("{count} samples: a covariance needs at least 2")]
    TooFew {
        /// How many.
        count: u64,
    },
    /// Features of two kinds.
    #[error("features of {left} and of {right} dimensions cannot be compared")]
    Dimensions {
        /// Features of one.
        left: usize,
        /// Features of the other.
        right: usize,
    },
    /// A feature that is no number.
    #[error("a feature is NaN or infinite: the network or its input is broken")]
    NonFinite,
    /// The singular values were not found.
    #[error("the singular values were not found: the features may be beyond the range of numbers")]
    NoConvergence,
}

/// Samples for each feature below which a distance is mostly bias: the 10,000 that Heusel et al. recommend for the
/// 2,048 of Inception are five.
pub const SAMPLES_A_FEATURE: u64 = 4;

/// Mean and covariance of features that come in batches.
#[derive(Debug, Clone)]
pub struct FeatureStatistics {
    count: u64,
    mean: DVector<f64>,
    /// Sum of (x - mean)(x - mean)^T.
    scatter: DMatrix<f64>,
}

impl FeatureStatistics {
    /// Of no samples yet. Takes `8 * dimensions^2` bytes: 32 MiB for Inception's 2048.
    pub fn new(dimensions: usize) -> Self {
        Self {
            count: 0,
            mean: DVector::zeros(dimensions),
            scatter: DMatrix::zeros(dimensions, dimensions),
        }
    }

    /// Of these samples, the features of one after another.
    ///
    /// # Panics
    /// If `features` is not a whole number of samples.
    pub fn of(dimensions: usize, features: &[f32]) -> Self {
        let mut statistics = Self::new(dimensions);
        statistics.add(features);
        statistics
    }

    pub(crate) fn from_parts(count: u64, mean: Vec<f64>, scatter: Vec<f64>) -> Self {
        let dimensions = mean.len();
        Self {
            count,
            mean: DVector::from_vec(mean),
            scatter: DMatrix::from_vec(dimensions, dimensions, scatter),
        }
    }

    /// Column by column.
    pub(crate) fn scatter(&self) -> &[f64] {
        self.scatter.as_slice()
    }

    /// Features of a sample.
    pub fn dimensions(&self) -> usize {
        self.mean.len()
    }

    /// Whether a distance of these samples is mostly bias; see [`SAMPLES_A_FEATURE`].
    pub fn is_small(&self) -> bool {
        self.count < SAMPLES_A_FEATURE * self.dimensions() as u64
    }

    /// Samples so far.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Takes in a batch: the features of one sample after another. Costs one pass over the covariance, so batches of
    /// some dozens are better than single samples.
    ///
    /// # Panics
    /// If `features` is not a whole number of samples.
    pub fn add(&mut self, features: &[f32]) {
        let dimensions = self.dimensions();
        assert!(
            dimensions > 0 && features.len().is_multiple_of(dimensions),
            "{} numbers are no whole samples of {dimensions} features",
            features.len()
        );
        let count = features.len() / dimensions;
        if count == 0 {
            return;
        }
        let values = features.iter().map(|&value| f64::from(value));
        // A column each.
        let mut samples = DMatrix::from_iterator(dimensions, count, values);
        let mean = samples.column_mean();
        for mut sample in samples.column_iter_mut() {
            sample -= &mean;
        }
        let scatter = &mut self.scatter;
        scatter.gemm(1.0, &samples, &samples.transpose(), 1.0);
        self.shift(count as u64, &mean);
    }

    /// Takes in the samples of `other`, as if they had been added here.
    ///
    /// # Panics
    /// If the dimensions differ.
    pub fn merge(&mut self, other: &Self) {
        assert_eq!(self.dimensions(), other.dimensions(), "dimensions differ");
        if other.count > 0 {
            self.scatter += &other.scatter;
            self.shift(other.count, &other.mean);
        }
    }

    /// Accounts for `count` further samples around `mean`, whose scatter around it was added already (Chan, Golub,
    /// LeVeque 1979): sums of squares around a far origin would cancel.
    fn shift(&mut self, count: u64, mean: &DVector<f64>) {
        let (before, added) = (self.count as f64, count as f64);
        let after = before + added;
        let shift = mean - &self.mean;
        self.scatter
            .ger(before * added / after, &shift, &shift, 1.0);
        self.mean.axpy(added / after, &shift, 1.0);
        self.count += count;
    }

    /// The mean of each feature.
    pub fn mean(&self) -> &[f64] {
        self.mean.as_slice()
    }

    /// Unbiased variance of each feature. NaN of fewer than two samples.
    pub fn variances(&self) -> Vec<f64> {
        let freedom = self.freedom();
        self.scatter
            .diagonal()
            .iter()
            .map(|v| v / freedom)
            .collect()
    }

    fn freedom(&self) -> f64 {
        if self.count < 2 {
            f64::NAN
        } else {
            (self.count - 1) as f64
        }
    }

    fn check(&self) -> Result<(), FrechetError> {
        if self.count < 2 {
            return Err(FrechetError::TooFew { count: self.count });
        }
        let numbers = self.mean.iter().chain(self.scatter.iter());
        if numbers.copied().all(f64::is_finite) {
            Ok(())
        } else {
            Err(FrechetError::NonFinite)
        }
    }

    /// L with covariance = L L^T: as many columns as the covariance has rank.
    fn factor(&self) -> DMatrix<f64> {
        let most = usize::try_from(self.count - 1).unwrap_or(usize::MAX);
        let rank = most.min(self.dimensions());
        pivoted_cholesky(&self.scatter / self.freedom(), rank)
    }
}

/// The squared Frechet distance d^2, what is called FID. Never below zero.
///
/// The number depends on the counts: with few samples it is biased upwards, so compare only distances of equal counts.
///
/// # Errors
/// Fewer than two samples on a side, other dimensions on the other side, features that are no numbers.
pub fn frechet_distance(a: &FeatureStatistics, b: &FeatureStatistics) -> Result<f64, FrechetError> {
    if a.dimensions() != b.dimensions() {
        return Err(FrechetError::Dimensions {
            left: a.dimensions(),
            right: b.dimensions(),
        });
    }
    a.check()?;
    b.check()?;
    let between = (&a.mean - &b.mean).norm_squared();
    let spread = a.scatter.trace() / a.freedom() + b.scatter.trace() / b.freedom();
    let shared = singular_value_sum(a.factor().transpose() * b.factor())?;
    Ok((between + spread - 2.0 * shared).max(0.0))
}

/// By how much the distance of these samples to `b` is too large, about, for being of few samples: to first order the
/// bias is inverse to their number (Chong and Forsyth 2020, arXiv 1911.07023), and so it is what the distances of both
/// halves exceed `distance`, that of all samples, by. `features` is [`FeatureStatistics::add`]'s.
///
/// # Errors
/// Those of [`frechet_distance`] for a half of the samples.
///
/// # Panics
/// If `features` is not a whole number of samples.
pub fn small_sample_bias(
    features: &[f32],
    b: &FeatureStatistics,
    distance: f64,
) -> Result<f64, FrechetError> {
    let dimensions = b.dimensions();
    let half = features.len() / dimensions / 2 * dimensions;
    let of = |part: &[f32]| frechet_distance(&FeatureStatistics::of(dimensions, part), b);
    let halves = (of(&features[..half])? + of(&features[features.len() - half..])?) / 2.0;
    Ok((halves - distance).max(0.0))
}

fn singular_value_sum(matrix: DMatrix<f64>) -> Result<f64, FrechetError> {
    if matrix.is_empty() {
        return Ok(0.0);
    }
    // Thirty iterations a value are usual in LAPACK.
    let most = 30 * (matrix.nrows() + matrix.ncols());
    let found = matrix.try_svd_unordered(false, false, f64::EPSILON, most);
    let found = found.ok_or(FrechetError::NoConvergence)?;
    Ok(found.singular_values.sum())
}

/// Columns that are found before what they leave of the matrix is computed as one product.
const BLOCK: usize = 64;

/// L with at most `rank` columns and L L^T = `rest`, which is symmetric and positive semi-definite up to rounding. Ends
/// early where nothing but rounding is left.
fn pivoted_cholesky(mut rest: DMatrix<f64>, rank: usize) -> DMatrix<f64> {
    let dimensions = rest.nrows();
    let tolerance = 10.0 * f64::EPSILON * rest.diagonal().max();
    let mut factor = DMatrix::zeros(dimensions, rank);
    let mut taken = vec![false; dimensions];
    let mut found = 0;
    'blocks: while found < rank {
        let start = found;
        let mut left = rest.diagonal();
        while found < rank.min(start + BLOCK) {
            let free = (0..dimensions).filter(|&row| !taken[row]);
            let Some(pivot) = free.max_by(|&a, &b| left[a].total_cmp(&left[b])) else {
                break 'blocks;
            };
            if left[pivot] <= tolerance {
                break 'blocks;
            }
            let mut column = rest.column(pivot).clone_owned();
            if found > start {
                let earlier = factor.columns(start, found - start);
                let weights = earlier.row(pivot).transpose();
                column.gemv(-1.0, &earlier, &weights, 1.0);
            }
            column /= left[pivot].sqrt();
            taken[pivot] = true;
            for row in 0..dimensions {
                // A pivot's row is complete once it was taken.
                if taken[row] && row != pivot {
                    column[row] = 0.0;
                }
                left[row] -= column[row] * column[row];
            }
            factor.set_column(found, &column);
            found += 1;
        }
        let block = factor.columns(start, found - start);
        rest.gemm(-1.0, &block, &block.transpose(), 1.0);
    }
    factor.resize_horizontally(found, 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statistics(features: &[f32], dimensions: usize) -> FeatureStatistics {
        let mut statistics = FeatureStatistics::new(dimensions);
        statistics.add(features);
        statistics
    }

    /// Deterministic, of full rank, not centred.
    fn numbers(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        (0..count)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 24) as f32 + 3.0
            })
            .collect()
    }

    #[test]
    fn one_dimension_gives_the_distance_of_means_and_deviations() {
        // Means 2 and 5, deviations 1 and 3.
        let a = statistics(&[1.0, 2.0, 3.0], 1);
        let b = statistics(&[2.0, 5.0, 8.0], 1);
        let distance = frechet_distance(&a, &b).unwrap();
        assert!((distance - (9.0 + 4.0)).abs() < 1e-12, "{distance}");
    }

    #[test]
    fn batches_and_merged_parts_give_what_all_samples_at_once_give() {
        let features = numbers(5 * 31, 1);
        let whole = statistics(&features, 5);
        let mut parts = FeatureStatistics::new(5);
        for batch in features[..20 * 5].chunks(5 * 7) {
            parts.add(batch);
        }
        parts.merge(&statistics(&features[20 * 5..], 5));
        parts.merge(&FeatureStatistics::new(5));
        assert_eq!(parts.count(), 31);
        assert!((&parts.mean - &whole.mean).norm() < 1e-12);
        assert!((&parts.scatter - &whole.scatter).norm() < 1e-12);
    }

    #[test]
    fn the_bias_of_few_samples_is_about_what_the_distance_to_their_own_distribution_is() {
        // Both sides from one distribution: all of the distance is bias, that of 4,000 samples being small.
        let dimensions = 12;
        let reference = statistics(&numbers(dimensions * 4000, 5), dimensions);
        let few = numbers(dimensions * 60, 77);
        let small = statistics(&few, dimensions);
        assert!(!small.is_small() && !reference.is_small());
        assert!(statistics(&few[..dimensions * 47], dimensions).is_small());
        let distance = frechet_distance(&small, &reference).unwrap();
        let bias = small_sample_bias(&few, &reference, distance).unwrap();
        assert!((bias / distance - 1.0).abs() < 0.3, "{bias} of {distance}");
        let three = &few[..dimensions * 3];
        let error = small_sample_bias(three, &reference, distance).unwrap_err();
        assert_eq!(error, FrechetError::TooFew { count: 1 });
    }

    #[test]
    fn a_set_is_at_no_distance_from_itself_whatever_its_rank() {
        for count in [3, 12, 40] {
            let a = statistics(&numbers(12 * count, 7), 12);
            let distance = frechet_distance(&a, &a).unwrap();
            assert!(distance < 1e-13 * a.variances().iter().sum::<f64>() * 10.0);
        }
    }

    #[test]
    fn the_factor_has_the_rank_of_the_covariance_and_gives_it_back() {
        // More columns than a block; constant and repeated features.
        for (dimensions, count) in [(150, 400), (150, 90), (6, 40)] {
            let mut features = numbers(dimensions * count, 3);
            for sample in features.chunks_mut(dimensions) {
                sample[1] = 0.25;
                sample[4] = sample[2];
            }
            let a = statistics(&features, dimensions);
            let factor = a.factor();
            assert_eq!(factor.ncols(), (dimensions - 2).min(count - 1));
            let covariance = &a.scatter / a.freedom();
            let error = (&factor * factor.transpose() - &covariance).amax();
            assert!(error < 1e-13, "{error}");
        }
    }

    #[test]
    fn what_has_no_distance_is_refused() {
        let two = statistics(&[1.0, 2.0, 3.0, 4.0], 2);
        let one = statistics(&[1.0, 2.0], 2);
        let error = frechet_distance(&two, &one).unwrap_err();
        assert_eq!(error, FrechetError::TooFew { count: 1 });
        let wide = statistics(&[1.0; 6], 3);
        assert!(frechet_distance(&two, &wide).is_err());
        let broken = statistics(&[1.0, 2.0, f32::NAN, 4.0], 2);
        let error = frechet_distance(&two, &broken).unwrap_err();
        assert_eq!(error, FrechetError::NonFinite);
        // Equal samples: no spread at all.
        assert_eq!(frechet_distance(&wide, &statistics(&[3.0; 6], 3)), Ok(12.0));
    }
}
