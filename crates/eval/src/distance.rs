//! Distances between images of bytes, over pixels in [0, 1].

use rayon::prelude::*;

/// Euclidean distance over all values of two images.
pub fn euclidean(a: &[u8], b: &[u8]) -> f64 {
    let squares = a.iter().zip(b).map(|(&a, &b)| {
        let difference = i64::from(a) - i64::from(b);
        (difference * difference) as u64
    });
    (squares.sum::<u64>() as f64).sqrt() / 255.0
}

/// Distance of each image to its partner, where both lie one after another.
pub fn pairwise(a: &[u8], b: &[u8], image_len: usize) -> Vec<f64> {
    a.chunks_exact(image_len)
        .zip(b.chunks_exact(image_len))
        .map(|(a, b)| euclidean(a, b))
        .collect()
}

/// Distance of each image to the nearest of `references`.
pub fn to_nearest(images: &[u8], references: &[u8], image_len: usize) -> Vec<f64> {
    images
        .par_chunks_exact(image_len)
        .map(|image| {
            references
                .chunks_exact(image_len)
                .map(|reference| euclidean(image, reference))
                .fold(f64::INFINITY, f64::min)
        })
        .collect()
}

/// Arithmetic mean; NaN of nothing.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_and_black_are_one_apart_per_value() {
        assert_eq!(euclidean(&[255; 4], &[0; 4]), 2.0);
    }

    #[test]
    fn the_nearest_reference_counts() {
        let nearest = to_nearest(&[10, 10], &[0, 0, 10, 11], 2);
        assert!((nearest[0] - 1.0 / 255.0).abs() < 1e-12);
    }
}
