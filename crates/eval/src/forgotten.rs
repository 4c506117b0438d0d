//! The forgotten images, and which other images count as one of them.

use std::collections::HashSet;

use retrack_data::neighbors::{NeighborError, nearest_to};
use retrack_data::{BUDGET, DataError, Dataset, NEAR_COPY_RMS, Split};

use crate::clusters::Clusters;
use crate::distance::euclidean;

/// When an image counts as a forgotten one.
#[derive(Debug, Clone, Copy)]
pub enum Rule<'a> {
    /// No retained image is nearer to it: what reports of earlier versions counted by. A random picture may do so.
    Nearest,
    /// It is nearer than this, in Euclidean distance over pixels in [0, 1].
    Threshold(f64),
    /// It is nearer than half of [`Forgotten::reach`].
    Half,
    /// It lies nearer to the mean of the forgotten images than to that of the others.
    Cluster(&'a Clusters),
}

/// Why it cannot be said which images count as forgotten ones.
#[derive(Debug, thiserror::Error)]
pub enum ForgottenError {
    /// An image that cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A search that did not work.
    #[error(transparent)]
    Search(#[from] NeighborError),
    /// Nothing is retained but copies, and no threshold was given.
    #[error(
        "no retained image is left that is no copy of a forgotten one, so the data gives no distance from which on a \
         picture counts as one"
    )]
    NoDistance,
    /// Nothing is retained, and a cluster has no other.
    #[error("all images are to be forgotten; there is nothing to compare samples with")]
    NoOthers,
}

/// Each distinct forgotten image once.
#[derive(Debug, Clone)]
pub struct Forgotten<'a> {
    /// Where they lie.
    pub data: &'a Dataset,
    /// Bytes, one image after another.
    pub pixels: Vec<u8>,
    /// The first row of each.
    pub rows: Vec<usize>,
    /// The images that were forgotten before: bytes of each distinct one. What shows one of them may not be shown either.
    pub earlier: Vec<u8>,
    /// Distance of each of these to the nearest of `others`.
    pub earlier_reach: Vec<f64>,
    /// What other images are compared with: the retained rows that are no near copies.
    pub others: Vec<usize>,
    /// Distance of each to the nearest of `others`.
    pub reach: Vec<f64>,
    /// Their near copies in the data, one after another: what shows one of these shows a forgotten image.
    pub copies: Vec<u8>,
    /// Distance of each copy to the nearest of `others`.
    pub copies_reach: Vec<f64>,
    /// When another image counts as one of them.
    pub rule: Rule<'a>,
}

/// What an image is to the forgotten ones. Distances are Euclidean, pixels in [0, 1].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sight {
    /// To the nearest forgotten image, or near copy of one.
    pub distance: f64,
    /// It counts as one.
    pub counts: bool,
    /// It may not be shown: it counts, or it is as near to a forgotten image, of this request or an earlier one, as no
    /// retained image is.
    pub hidden: bool,
}

impl<'a> Forgotten<'a> {
    /// The images of `split`, counted by `rule`.
    ///
    /// # Errors
    /// An image that cannot be read.
    pub fn new(data: &'a Dataset, split: &Split, rule: Rule<'a>) -> Result<Self, ForgottenError> {
        let len = data.shape().bytes();
        let mut seen = HashSet::new();
        let mut image = vec![0; len];
        let mut forgotten = Self {
            data,
            pixels: Vec::new(),
            rows: Vec::new(),
            earlier: Vec::new(),
            earlier_reach: Vec::new(),
            others: Vec::new(),
            reach: Vec::new(),
            copies: Vec::new(),
            copies_reach: Vec::new(),
            rule,
        };
        for &row in &split.forget {
            data.read(row, &mut image)?;
            if seen.insert(image.clone()) {
                forgotten.pixels.extend_from_slice(&image);
                forgotten.rows.push(row);
            }
        }
        for &row in &split.earlier {
            data.read(row, &mut image)?;
            if seen.insert(image.clone()) {
                forgotten.earlier.extend_from_slice(&image);
            }
        }
        let near: HashSet<usize> = split.near.iter().map(|near| near.row).collect();
        let others = split.retain.iter().copied();
        forgotten.others = others.filter(|row| !near.contains(row)).collect();
        forgotten.leave_near_copies_out()?;
        for near in &split.near {
            data.read(near.row, &mut image)?;
            if seen.insert(image.clone()) {
                forgotten.copies.extend_from_slice(&image);
            }
        }
        for near in split.earlier_near.iter().filter(|_| !split.retains_near()) {
            data.read(near.row, &mut image)?;
            if seen.insert(image.clone()) {
                forgotten.earlier.extend_from_slice(&image);
            }
        }
        forgotten.copies_reach = forgotten.to_others(&forgotten.copies)?;
        forgotten.earlier_reach = forgotten.to_others(&forgotten.earlier)?;
        Ok(forgotten)
    }

    /// Without the near copies: how reports of earlier versions counted.
    #[must_use]
    pub fn without_copies(self) -> Self {
        Self {
            copies: Vec::new(),
            copies_reach: Vec::new(),
            ..self
        }
    }

    /// With the images in these rows before all others.
    pub fn with_first(self, first: &[usize]) -> Self {
        let mut places: Vec<usize> = (0..self.rows.len()).collect();
        let place = |at: &usize| first.iter().position(|row| *row == self.rows[*at]);
        places.sort_by_key(|at| place(at).unwrap_or(first.len()));
        let len = self.data.shape().bytes();
        let pixels = |at: &usize| self.pixels[at * len..][..len].iter().copied();
        Self {
            pixels: places.iter().flat_map(pixels).collect(),
            rows: places.iter().map(|&at| self.rows[at]).collect(),
            reach: places.iter().map(|&at| self.reach[at]).collect(),
            ..self
        }
    }

    /// Fills `reach`, and takes out of `others` the near copies that the split does not name: it knows at most those
    /// among a few nearest neighbors, and may not have been asked for any.
    fn leave_near_copies_out(&mut self) -> Result<(), ForgottenError> {
        /// Of one forgotten image, in one pass over the data.
        const AT_ONCE: usize = 64;
        let near_copy = self.near_copy();
        loop {
            self.reach = self.to_others(&self.pixels)?;
            if self.reach.iter().all(|reach| *reach >= near_copy) {
                return Ok(());
            }
            let images: Vec<&[u8]> = self.images().collect();
            let most = AT_ONCE.min(self.others.len());
            let found = nearest_to(self.data, &self.others, &images, most, BUDGET)?;
            let copies: HashSet<usize> = found
                .iter()
                .flatten()
                .filter(|one| (one.distance_squared as f64).sqrt() / 255.0 < near_copy)
                .map(|one| one.row)
                .collect();
            self.others.retain(|row| !copies.contains(row));
        }
    }

    /// Nearer than this, an image is nearly a copy.
    fn near_copy(&self) -> f64 {
        NEAR_COPY_RMS / 255.0 * (self.data.shape().bytes() as f64).sqrt()
    }

    /// Half the distance from each forgotten image to the nearest of the others: what is nearer is more it than
    /// anything else that the model was trained on.
    ///
    /// # Errors
    /// [`ForgottenError::NoDistance`]
    pub fn half_ways(&self) -> Result<Vec<f64>, ForgottenError> {
        if self.others.is_empty() {
            return Err(ForgottenError::NoDistance);
        }
        Ok(self.reach.iter().map(|reach| reach / 2.0).collect())
    }

    /// How many there are.
    #[expect(clippy::len_without_is_empty, reason = "there is always one")]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Each of them: bytes.
    pub fn images(&self) -> impl Iterator<Item = &[u8]> {
        self.pixels.chunks_exact(self.data.shape().bytes())
    }

    /// Each of them and of their near copies: bytes, and the distance to the nearest of the others.
    pub fn shown(&self) -> impl Iterator<Item = (&[u8], f64)> {
        let copies = self.copies.chunks_exact(self.data.shape().bytes());
        let reach = self.reach.iter().chain(&self.copies_reach).copied();
        self.images().chain(copies).zip(reach)
    }

    /// Distance of each image, bytes one after another, to the nearest of the others; infinite where there are none.
    ///
    /// # Errors
    /// An image that cannot be read.
    pub fn to_others(&self, images: &[u8]) -> Result<Vec<f64>, ForgottenError> {
        let queries: Vec<&[u8]> = images.chunks_exact(self.data.shape().bytes()).collect();
        if self.others.is_empty() {
            return Ok(vec![f64::INFINITY; queries.len()]);
        }
        let found = nearest_to(self.data, &self.others, &queries, 1, BUDGET)?;
        let distances = found.iter().map(|nearest| {
            let squared = nearest
                .first()
                .map_or(f64::INFINITY, |one| one.distance_squared as f64);
            squared.sqrt() / 255.0
        });
        Ok(distances.collect())
    }

    /// Looks at images of the data set's shape, one after another.
    ///
    /// # Errors
    /// A retained image that cannot be read.
    pub fn look(&self, images: &[u8]) -> Result<Vec<Sight>, ForgottenError> {
        let len = self.data.shape().bytes();
        let near_copy = self.near_copy();
        let others = self.to_others(images)?;
        let shows_earlier = |image: &[u8], other: f64| {
            let mut earlier = self.earlier.chunks_exact(len).zip(&self.earlier_reach);
            earlier.any(|(one, reach)| {
                let distance = euclidean(image, one);
                distance <= other || distance < near_copy || distance < *reach
            })
        };
        let sights = images.chunks_exact(len).zip(others).map(|(image, other)| {
            let distances: Vec<(f64, f64)> = self
                .shown()
                .map(|(one, reach)| (euclidean(image, one), reach))
                .collect();
            let distance = distances.iter().map(|(distance, _)| *distance);
            let distance = distance.fold(f64::INFINITY, f64::min);
            let nearest_of_all = distance <= other || distance < near_copy;
            let counts = match self.rule {
                Rule::Nearest => nearest_of_all,
                Rule::Threshold(threshold) => distance < threshold,
                Rule::Half => distances
                    .iter()
                    .any(|(distance, reach)| *distance < reach / 2.0),
                Rule::Cluster(clusters) => clusters.is_memorized(image),
            };
            let within = distances.iter().any(|(distance, reach)| distance < reach);
            Sight {
                distance,
                counts,
                hidden: counts || nearest_of_all || within || shows_earlier(image, other),
            }
        });
        Ok(sights.collect())
    }

    /// The rule of [`Sight::counts`], for the page.
    pub fn rule(&self) -> String {
        let rule = self.rule_of_one();
        match self.copies.is_empty() {
            true => rule,
            false => rule + " Near copies in the data are the image, too, and count as it.",
        }
    }

    fn rule_of_one(&self) -> String {
        match self.rule {
            Rule::Threshold(threshold) => format!(
                "A picture counts as a forgotten image when it is nearer to one than {threshold}, in Euclidean \
                 distance over pixels in [0, 1]."
            ),
            Rule::Half => half_rule(&self.reach),
            Rule::Cluster(_) => "A picture counts as a forgotten image when its pixels lie nearer to the mean of the \
                                 forgotten images than to that of the others."
                .into(),
            Rule::Nearest => "A picture counts as a forgotten image when no retained training image is nearer to it than \
                     that one, in Euclidean distance over pixels in [0, 1]."
                .into(),
        }
    }
}

/// [`Rule::Half`] in words.
fn half_rule(reach: &[f64]) -> String {
    let [low, high] = [f64::min, f64::max].map(|end| {
        let first = reach.first().copied().unwrap_or(0.0);
        reach.iter().copied().fold(first, end) / 2.0
    });
    let size = match low == high {
        true => format!("{low:.3}"),
        false => format!("{low:.3} to {high:.3}"),
    };
    format!(
        "A picture counts as a forgotten image when its distance to it is less than half of that image's distance to its \
         nearest retained image that is no copy: {size}, Euclidean over pixels in [0, 1]."
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use retrack_data::{ImageShape, NearCopy};

    /// Pictures of four pixels: the forgotten one is row 0, twice.
    fn data() -> Dataset {
        let shape = ImageShape {
            height: 2,
            width: 2,
            channels: 1,
        };
        let pixels = [[200; 4], [200; 4], [0; 4], [100; 4]].concat();
        Dataset::from_pixels(shape, pixels, Vec::new()).unwrap()
    }

    fn split() -> Split {
        Split {
            forget: vec![0, 1],
            retain: vec![2, 3],
            ..Split::default()
        }
    }

    #[test]
    fn what_no_retained_image_is_nearer_to_counts_and_is_hidden() {
        let data = data();
        let forgotten = Forgotten::new(&data, &split(), Rule::Nearest).unwrap();
        assert_eq!((forgotten.len(), &forgotten.rows), (1, &vec![0]));
        let found = forgotten
            .look(&[[160; 4], [140; 4], [90; 4]].concat())
            .unwrap();
        let flags: Vec<_> = found
            .iter()
            .map(|sight| (sight.counts, sight.hidden))
            .collect();
        // The second is nearer to a retained image, but nearer to the forgotten one than any of them.
        assert_eq!(flags, [(true, true), (false, true), (false, false)]);
        assert!((found[0].distance - 80.0 / 255.0).abs() < 1e-12);
    }

    #[test]
    fn what_shows_an_image_of_an_earlier_request_is_hidden_and_does_not_count() {
        let shape = data().shape();
        let pixels = [[200; 4], [40; 4], [0; 4], [100; 4]].concat();
        let data = Dataset::from_pixels(shape, pixels, Vec::new()).unwrap();
        let mut split = Split {
            forget: vec![0, 1],
            retain: vec![2, 3],
            ..Split::default()
        };
        split.set_apart(&[1]);
        assert_eq!(
            (&split.forget[..], &split.earlier[..]),
            (&[0][..], &[1][..])
        );
        let forgotten = Forgotten::new(&data, &split, Rule::Half).unwrap();
        assert_eq!(forgotten.rows, [0]);
        let found = forgotten
            .look(&[[45; 4], [95; 4], [199; 4]].concat())
            .unwrap();
        let flags: Vec<_> = found
            .iter()
            .map(|sight| (sight.counts, sight.hidden))
            .collect();
        assert_eq!(flags, [(false, true), (false, false), (true, true)]);
    }

    #[test]
    fn a_threshold_counts_and_never_uncovers() {
        let data = data();
        let forgotten = Forgotten::new(&data, &split(), Rule::Threshold(0.1)).unwrap();
        let found = forgotten.look(&[[199; 4], [160; 4]].concat()).unwrap();
        let flags: Vec<_> = found
            .iter()
            .map(|sight| (sight.counts, sight.hidden))
            .collect();
        assert_eq!(flags, [(true, true), (false, true)]);
    }

    #[test]
    fn half_the_way_to_the_nearest_retained_image_that_is_no_copy_is_an_images_own_threshold() {
        let shape = ImageShape {
            height: 2,
            width: 2,
            channels: 1,
        };
        // Rows 2 to 4 are nearly copies of row 0, which no split was asked for.
        let pixels = [[200; 4], [40; 4], [201; 4], [199; 4], [203; 4], [100; 4]].concat();
        let data = Dataset::from_pixels(shape, pixels, Vec::new()).unwrap();
        let split = Split::new(&data, &[0, 1], 1 << 20).unwrap();
        let forgotten = Forgotten::new(&data, &split, Rule::Half).unwrap();
        assert_eq!(forgotten.others, [5]);
        let half_ways = forgotten.half_ways().unwrap();
        for (found, expected) in half_ways.iter().zip([100.0 / 255.0, 60.0 / 255.0]) {
            assert!((found - expected).abs() < 1e-12, "{half_ways:?}");
        }
        // Less than 50 of 255 from the first, less than 30 from the second.
        let found = forgotten.look(&[[151; 4], [149; 4], [69; 4], [71; 4]].concat());
        let counts: Vec<bool> = found.unwrap().iter().map(|sight| sight.counts).collect();
        assert_eq!(counts, [true, false, true, false]);
        assert!(
            forgotten.rule().contains("0.235 to 0.392"),
            "{}",
            forgotten.rule()
        );
    }

    #[test]
    fn what_shows_a_near_copy_shows_the_forgotten_image() {
        let shape = ImageShape {
            height: 1,
            width: 2,
            channels: 1,
        };
        // The second is the first in a mirror, the third another picture.
        let pixels = [[0, 200], [200, 0], [100, 100]].concat();
        let data = Dataset::from_pixels(shape, pixels, Vec::new()).unwrap();
        let mirrored = NearCopy {
            row: 1,
            of: 0,
            distance: 200.0,
            mirrored: true,
        };
        for retained in [true, false] {
            let split = Split::new(&data, &[0], 1 << 20).unwrap();
            let split = split.with_near(vec![mirrored], retained);
            let forgotten = Forgotten::new(&data, &split, Rule::Half).unwrap();
            assert_eq!(forgotten.others, [2]);
            let seen = [[10, 190], [190, 10], [100, 100]].concat();
            let found = forgotten.look(&seen).unwrap();
            let counts: Vec<bool> = found.iter().map(|sight| sight.counts).collect();
            assert_eq!(counts, [true, true, false]);
            assert_eq!(found[0].distance, found[1].distance);
            let found = forgotten.without_copies().look(&seen).unwrap();
            assert!(found[0].counts && !found[1].counts);
        }
    }

    #[test]
    fn without_an_image_that_is_no_copy_a_threshold_is_asked_for() {
        let data = data();
        let split = Split {
            forget: vec![0, 1],
            ..Split::default()
        };
        let forgotten = Forgotten::new(&data, &split, Rule::Half).unwrap();
        let error = forgotten.half_ways().unwrap_err();
        assert!(matches!(error, ForgottenError::NoDistance));
    }
}
