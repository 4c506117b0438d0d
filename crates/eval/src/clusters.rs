//! Whether a sample belongs with the memorized images of a prompt or with its others.

use crate::distance::mean;

/// The means of two clusters of images, as labels of 2-means give them: where every image is labeled by the nearer
/// mean, these are the centers that 2-means ends at.
#[derive(Debug, Clone)]
pub struct Clusters {
    memorized: Vec<f64>,
    other: Vec<f64>,
    /// Share of the images that lie nearer to their own cluster's mean.
    pub agreement: f64,
}

impl Clusters {
    /// From images of `image_len` bytes, one after another, and which of them are memorized. `None` where one cluster is
    /// empty.
    pub fn of(images: &[u8], image_len: usize, memorized: &[bool]) -> Option<Self> {
        let center = |of: bool| {
            let mut sums = vec![0u64; image_len];
            let mut count = 0;
            let pairs = images.chunks_exact(image_len).zip(memorized);
            for (image, _) in pairs.filter(|(_, own)| **own == of) {
                count += 1;
                for (sum, &value) in sums.iter_mut().zip(image) {
                    *sum += u64::from(value);
                }
            }
            let mean = |sum: u64| sum as f64 / f64::from(count);
            (count > 0).then(|| sums.into_iter().map(mean).collect::<Vec<f64>>())
        };
        let mut clusters = Self {
            memorized: center(true)?,
            other: center(false)?,
            agreement: 0.0,
        };
        let pairs = images.chunks_exact(image_len).zip(memorized);
        let agree: Vec<f64> = pairs
            .map(|(image, own)| f64::from(u8::from(clusters.is_memorized(image) == *own)))
            .collect();
        clusters.agreement = mean(&agree);
        Some(clusters)
    }

    /// Whether an image is nearer to the memorized ones, by Euclidean distance over bytes.
    pub fn is_memorized(&self, image: &[u8]) -> bool {
        let squares = |center: &[f64]| -> f64 {
            let pairs = image.iter().zip(center);
            pairs.map(|(&a, b)| (f64::from(a) - b).powi(2)).sum()
        };
        squares(&self.memorized) < squares(&self.other)
    }

    /// How many of the images are.
    pub fn memorized(&self, images: &[u8]) -> usize {
        let images = images.chunks_exact(self.memorized.len());
        images.filter(|image| self.is_memorized(image)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_belongs_to_the_nearer_mean() {
        let images = [200, 200, 220, 220, 0, 0, 40, 40, 210, 0];
        let labels = [true, true, false, false, false];
        let clusters = Clusters::of(&images, 2, &labels).unwrap();
        assert_eq!(clusters.agreement, 1.0);
        assert!(clusters.is_memorized(&[180, 190]));
        assert!(!clusters.is_memorized(&[180, 20]));
        assert_eq!(clusters.memorized(&[210, 210, 0, 9, 255, 255]), 2);
    }

    /// What 2-means ends at when it starts from the labeled images: its labels, and what it says of others.
    #[test]
    fn with_labels_of_2_means_the_means_are_its_centers() {
        // Two lumps of points that touch: 2-means moves labels that were first drawn by a line elsewhere.
        let points: Vec<[u8; 2]> = (0..60u32)
            .map(|i| {
                let (x, y) = (i * 37 % 53, i * 91 % 47);
                match i % 3 {
                    0 => [120 + x as u8, 100 + y as u8],
                    _ => [60 + x as u8, 70 + y as u8],
                }
            })
            .collect();
        let bytes = points.concat();
        let mut labels: Vec<bool> = points.iter().map(|point| point[0] > 90).collect();
        let mut rounds = 0;
        loop {
            let clusters = Clusters::of(&bytes, 2, &labels).unwrap();
            let moved: Vec<bool> = points.iter().map(|p| clusters.is_memorized(p)).collect();
            if moved == labels {
                assert_eq!(clusters.agreement, 1.0);
                break;
            }
            assert!(clusters.agreement < 1.0);
            labels = moved;
            rounds += 1;
            assert!(rounds < 100);
        }
        assert!(rounds > 0, "the first labels were those of 2-means already");
    }

    #[test]
    fn labels_that_the_pixels_contradict_show_in_the_agreement() {
        let images = [0, 100, 1, 101];
        let clusters = Clusters::of(&images, 1, &[true, true, false, false]).unwrap();
        assert_eq!(clusters.agreement, 0.5);
        assert!(Clusters::of(&images, 1, &[true; 4]).is_none());
    }
}
