//! Bilinear resizing as TensorFlow 1 does it (`tf.image.resize_bilinear`, `align_corners=False`), which Inception's
//! published weights and every published FID assume: pixel i of the result lies at i * (size / new size) of the image,
//! without the half-pixel centres of later versions, and nothing is smoothed when it shrinks.

/// Where each pixel of the result lies: the pixel before, the one after, and the share of the latter.
fn positions(size: usize, new_size: usize) -> Vec<(usize, usize, f32)> {
    // In f32, as TensorFlow and torch-fidelity have it.
    let scale = (size as f64 / new_size as f64) as f32;
    (0..new_size)
        .map(|i| {
            let position = i as f32 * scale;
            let before = (position as usize).min(size - 1);
            let after = (before + 1).min(size - 1);
            (before, after, position - before as f32)
        })
        .collect()
}

/// Resizes one image of bytes to `side` x `side` pixels, scales byte b to (b - 128) / 128, and gives it as
/// `[3, side, side]`. A single channel is repeated.
///
/// `shape` is height, width and channels (1 or 3), none of them zero.
pub(crate) fn to_planes(image: &[u8], shape: [usize; 3], side: usize) -> Vec<f32> {
    let [height, width, channels] = shape;
    let (rows, columns) = (positions(height, side), positions(width, side));
    let mut planes = Vec::with_capacity(3 * side * side);
    let mut wide = vec![0.0; height * side];
    for channel in 0..channels {
        for (line, pixels) in wide
            .chunks_exact_mut(side)
            .zip(image.chunks_exact(width * channels))
        {
            let at = |x: usize| f32::from(pixels[x * channels + channel]);
            for (value, &(before, after, share)) in line.iter_mut().zip(&columns) {
                *value = at(before) + (at(after) - at(before)) * share;
            }
        }
        for &(before, after, share) in &rows {
            let line = |y: usize| &wide[y * side..][..side];
            let pairs = line(before).iter().zip(line(after));
            planes.extend(pairs.map(|(a, b)| (a + (b - a) * share - 128.0) / 128.0));
        }
    }
    if channels == 1 {
        planes.extend_from_within(..);
        planes.extend_from_within(..side * side);
    }
    planes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubling_puts_the_original_at_even_pixels_and_repeats_the_last() {
        let planes = to_planes(&[0, 128, 64, 192], [2, 2, 1], 4);
        let row = |y: usize| planes[y * 4..][..4].iter().map(|v| v * 128.0 + 128.0);
        assert!(row(0).eq([0.0, 64.0, 128.0, 128.0]));
        assert!(row(1).eq([32.0, 96.0, 160.0, 160.0]));
        assert!(row(3).eq([64.0, 128.0, 192.0, 192.0]));
        assert_eq!(planes.len(), 48);
        assert!(planes[..16] == planes[16..32] && planes[..16] == planes[32..]);
    }

    #[test]
    fn the_same_size_changes_nothing() {
        let bytes: Vec<u8> = (0..27).map(|i| i * 9).collect();
        let planes = to_planes(&bytes, [3, 3, 3], 3);
        for (pixel, rgb) in bytes.chunks_exact(3).enumerate() {
            for (channel, &byte) in rgb.iter().enumerate() {
                assert_eq!(
                    planes[channel * 9 + pixel],
                    (f32::from(byte) - 128.0) / 128.0
                );
            }
        }
    }

    /// Rows 0, 1, 150, 297 and 298 of 32 x 32 and 20 x 331 pixels, the latter growing one way and shrinking the other.
    #[test]
    fn rows_equal_those_of_torch_fidelity() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../fixtures/parity/inception_random_weights/case.safetensors"
        );
        let file = std::fs::read(path).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
        for name in ["up", "both"] {
            let images = tensors.tensor(&format!("{name}.images")).unwrap();
            let shape: [usize; 3] = images.shape()[1..].try_into().unwrap();
            let planes = to_planes(images.data(), shape, 299);
            let found = planes
                .chunks_exact(299 * 299)
                .flat_map(|plane| [0, 1, 150, 297, 298].map(|row| &plane[row * 299..][..299]));
            let expected = tensors.tensor(&format!("{name}.rows")).unwrap();
            let (expected, _) = expected.data().as_chunks::<4>();
            let expected = expected.iter().map(|&bytes| f32::from_le_bytes(bytes));
            let pairs = found.flatten().zip(expected);
            let worst = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 1e-6, "{name}: {worst}");
        }
    }
}
