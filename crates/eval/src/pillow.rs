//! Bilinear resizing of bytes as Pillow does it, and torchvision with it for its images: where an image shrinks, every
//! pixel that a new one covers counts.
//!
//! The weights are whole numbers, and bytes are rounded between columns and rows too. `image::imageops::resize` with
//! its triangle, which rounds once, differs by 1 in a fifth of the bytes, and SSCD's embeddings of noise by 4e-4.

/// Binary digits of a weight.
const DIGITS: u32 = 22;

/// The first of the old pixels that make up each new one, and the weights from there on.
fn weights(size: usize, new_size: usize) -> Vec<(usize, Vec<i32>)> {
    let scale = size as f64 / new_size as f64;
    let support = scale.max(1.0);
    (0..new_size)
        .map(|i| {
            let center = (i as f64 + 0.5) * scale;
            // A cast of what is below 0 gives 0.
            let first = (center - support + 0.5) as usize;
            let end = ((center + support + 0.5) as usize).min(size);
            let triangle = |old: usize| {
                let apart = (old as f64 - center + 0.5) / support;
                (1.0 - apart.abs()).max(0.0)
            };
            let shares: Vec<f64> = (first..end).map(triangle).collect();
            let sum: f64 = shares.iter().sum();
            let whole = |share: &f64| (share / sum * f64::from(1 << DIGITS) + 0.5) as i32;
            (first, shares.iter().map(whole).collect())
        })
        .collect()
}

/// The weighted sum of the bytes that `at` gives, as a byte.
fn weigh(weights: &[i32], at: impl Fn(usize) -> u8) -> u8 {
    let terms = weights.iter().enumerate();
    let sum: i32 = terms.map(|(i, weight)| weight * i32::from(at(i))).sum();
    ((sum + (1 << (DIGITS - 1))) >> DIGITS).clamp(0, 255) as u8
}

/// Resizes one image of bytes to `[side, side, channels]`.
///
/// `shape` is height, width and channels, none of them zero.
pub(crate) fn resize(image: &[u8], shape: [usize; 3], side: usize) -> Vec<u8> {
    let [height, width, channels] = shape;
    let (rows, columns) = (weights(height, side), weights(width, side));
    let mut wide = Vec::with_capacity(height * side * channels);
    for line in image.chunks_exact(width * channels) {
        for (first, weights) in &columns {
            let from = &line[first * channels..];
            wide.extend((0..channels).map(|c| weigh(weights, |i| from[i * channels + c])));
        }
    }
    let len = side * channels;
    let mut resized = Vec::with_capacity(side * len);
    for (first, weights) in &rows {
        let from = &wide[first * len..];
        resized.extend((0..len).map(|x| weigh(weights, |i| from[i * len + x])));
    }
    resized
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_size_changes_nothing() {
        let bytes: Vec<u8> = (0..27).map(|i| i * 9).collect();
        assert_eq!(resize(&bytes, [3, 3, 3], 3), bytes);
    }

    /// Rows 0, 1, 143, 286 and 287 of gray 28 x 28, of 64 x 48, and of 20 x 600 pixels, the latter growing one way and
    /// shrinking the other.
    #[test]
    fn rows_equal_those_of_torchvision() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../fixtures/parity/sscd_tiny/case.safetensors"
        );
        let file = std::fs::read(path).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
        for name in ["gray", "rgb", "both"] {
            let image = tensors.tensor(&format!("{name}.image")).unwrap();
            let shape: [usize; 3] = image.shape()[1..].try_into().unwrap();
            let resized = resize(image.data(), shape, 288);
            let channels = shape[2];
            let found = (0..3).flat_map(|channel| {
                let plane = resized.iter().skip(channel % channels).step_by(channels);
                let plane: Vec<u8> = plane.copied().collect();
                [0, 1, 143, 286, 287].map(|row| plane[row * 288..][..288].to_vec())
            });
            let rows = tensors.tensor(&format!("{name}.rows")).unwrap();
            assert!(found.flatten().eq(rows.data().iter().copied()), "{name}");
        }
    }
}
