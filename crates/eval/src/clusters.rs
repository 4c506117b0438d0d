//! Whether a sample belongs with the memorized images of a prompt or with its others.

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
    /// From images of `image_len` bytes, one for each of `memorized`, which says whether it is. `read` writes the image
    /// of a place into the bytes that it is given; each is read twice, and one is held at a time. `None` where one
    /// cluster is empty.
    ///
    /// # Errors
    /// The first of `read`.
    pub fn of<E>(
        memorized: &[bool],
        image_len: usize,
        mut read: impl FnMut(usize, &mut [u8]) -> Result<(), E>,
    ) -> Result<Option<Self>, E> {
        let counts = [true, false].map(|of| memorized.iter().filter(|own| **own == of).count());
        if counts.contains(&0) {
            return Ok(None);
        }
        let mut image = vec![0; image_len];
        let mut sums = [vec![0u64; image_len], vec![0u64; image_len]];
        for (place, &own) in memorized.iter().enumerate() {
            read(place, &mut image)?;
            for (sum, &value) in sums[usize::from(!own)].iter_mut().zip(&image) {
                *sum += u64::from(value);
            }
        }
        let center = |of: usize| {
            let sums = sums[of].iter();
            sums.map(|&sum| sum as f64 / counts[of] as f64).collect()
        };
        let mut clusters = Self {
            memorized: center(0),
            other: center(1),
            agreement: 0.0,
        };
        let mut agree = 0;
        for (place, &own) in memorized.iter().enumerate() {
            read(place, &mut image)?;
            agree += usize::from(clusters.is_memorized(&image) == own);
        }
        clusters.agreement = agree as f64 / memorized.len() as f64;
        Ok(Some(clusters))
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
    use std::convert::Infallible;

    use super::*;

    fn clusters(images: &[u8], image_len: usize, memorized: &[bool]) -> Option<Clusters> {
        let read = |place: usize, image: &mut [u8]| {
            image.copy_from_slice(&images[place * image_len..][..image_len]);
            Ok::<(), Infallible>(())
        };
        let Ok(found) = Clusters::of(memorized, image_len, read);
        found
    }

    #[test]
    fn a_sample_belongs_to_the_nearer_mean() {
        let images = [200, 200, 220, 220, 0, 0, 40, 40, 210, 0];
        let labels = [true, true, false, false, false];
        let clusters = clusters(&images, 2, &labels).unwrap();
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
            let clusters = clusters(&bytes, 2, &labels).unwrap();
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
        let halves = clusters(&images, 1, &[true, true, false, false]).unwrap();
        assert_eq!(halves.agreement, 0.5);
        assert!(clusters(&images, 1, &[true; 4]).is_none());
    }
}
