//! What is usual among retained images, which are not known: they say what a change of a picture costs.

use serde::{Deserialize, Serialize};

/// How retained images are denoised beside what is made of them: logarithms of the ratio of errors. Medians all of it: the few
/// images that are repeated in the data, and known, count little.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Usual {
    /// The median.
    pub median: f64,
    /// What lies below it does not belong to them.
    pub least: f64,
}

impl Usual {
    /// What lies so many standard deviations below the median does not belong to them, nor, of images that are all alike, what
    /// lies nearer than a least distance does.
    fn of(mut logs: Vec<f64>, far: f64, near: f64) -> Self {
        logs.retain(|log| log.is_finite());
        if logs.is_empty() {
            return unchanged();
        }
        let middle = median(logs.clone());
        Self {
            median: middle,
            least: middle - (far * deviation(&logs, middle)).max(near),
        }
    }

    /// How retained images stand beside their look-alikes.
    pub(super) fn of_look_alikes(logs: Vec<f64>) -> Self {
        Self::of(logs, 3.0, CHANGE)
    }

    /// How retained images stand beside their mirror images. Nothing where there are too few of them, or where mirror images are
    /// images of another kind to the model, as those of digits are.
    pub(super) fn of_mirrors(logs: Vec<f64>) -> Option<Self> {
        /// Images.
        const FEW: usize = 10;
        /// The median lies no farther from none, nor do images from the median, mostly.
        const ALIKE: f64 = 0.05;
        let far = 4.0;
        let enough = logs.len() >= FEW;
        let usual = Self::of(logs, far, 0.05);
        let alike = usual.median.abs() < ALIKE && usual.median - usual.least < far * ALIKE;
        (enough && alike).then_some(usual)
    }
}

/// What is ordinary among retained images.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ordinary {
    /// How they stand beside their look-alikes, over the process and early in it.
    pub(super) look_alikes: [Usual; 2],
    /// How they stand beside their mirror images.
    pub(super) mirror: Option<Usual>,
}

impl Ordinary {
    /// Images that were never changed are compared.
    pub const UNCHANGED: Self = Self {
        look_alikes: unchanged_all(),
        mirror: None,
    };
}

/// How far an image has to lie below what is usual, a logarithm: 15 percent.
pub(super) const CHANGE: f64 = 0.14;

/// Of reports that did not look at retained images, and of images that were not changed.
const fn unchanged() -> Usual {
    Usual {
        median: 0.0,
        least: -CHANGE,
    }
}

pub(super) const fn unchanged_all() -> [Usual; 2] {
    [unchanged(), unchanged()]
}

/// The standard deviation, by the median distance from the median: a few that are far away do not count. 1.4826 makes a normal
/// distribution's of it.
pub(super) fn deviation(values: &[f64], median_of_all: f64) -> f64 {
    let distances = values.iter().map(|value| (value - median_of_all).abs());
    1.4826 * median(distances.collect())
}

pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() % 2 {
        1 => values[middle],
        _ => (values[middle - 1] + values[middle]) / 2.0,
    }
}
