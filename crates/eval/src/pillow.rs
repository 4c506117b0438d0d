//! Resizing of bytes as Pillow does it, and torchvision with it for its images: where an image shrinks, every pixel that
//! a new one covers counts.
//!
//! The weights are whole numbers, and bytes are rounded between columns and rows too. `image::imageops::resize` with
//! its triangle, which rounds once, differs by 1 in a fifth of the bytes, and SSCD's embeddings of noise by 4e-4.

use std::ops::Range;

/// Binary digits of a weight.
const DIGITS: u32 = 22;

/// How much an old pixel counts by its distance, in pixels of the coarser of both images.
#[derive(Debug, Clone, Copy)]
enum Filter {
    Bilinear,
    /// Keys's cubic with a = -1/2.
    Bicubic,
}

impl Filter {
    /// Where it ends.
    fn support(self) -> f64 {
        match self {
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
        }
    }

    fn at(self, apart: f64) -> f64 {
        const A: f64 = -0.5;
        let x = apart.abs();
        match self {
            Self::Bilinear => (1.0 - x).max(0.0),
            Self::Bicubic if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
            Self::Bicubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
            Self::Bicubic => 0.0,
        }
    }
}

/// One axis of an image: its size, the size that it is to have, and which of the new pixels are wanted.
struct Axis {
    size: usize,
    new_size: usize,
    wanted: Range<usize>,
}

impl Axis {
    fn whole(size: usize, new_size: usize) -> Self {
        Self {
            size,
            new_size,
            wanted: 0..new_size,
        }
    }

    /// The middle of an axis that is resized with another, whose size `shorter` becomes `side`.
    fn middle(size: usize, shorter: usize, side: usize) -> Self {
        let new_size = side * size / shorter;
        let first = (new_size - side) / 2;
        Self {
            size,
            new_size,
            wanted: first..first + side,
        }
    }

    /// For each wanted pixel, the first of the old ones that make it up, and the weights from there on.
    fn weights(&self, filter: Filter) -> Vec<(usize, Vec<i32>)> {
        let scale = self.size as f64 / self.new_size as f64;
        let stretch = scale.max(1.0);
        let support = filter.support() * stretch;
        let wanted = self.wanted.clone();
        wanted
            .map(|i| {
                let center = (i as f64 + 0.5) * scale;
                // A cast of what is below 0 gives 0.
                let first = (center - support + 0.5) as usize;
                let end = ((center + support + 0.5) as usize).min(self.size);
                let share = |old: usize| filter.at((old as f64 - center + 0.5) * (1.0 / stretch));
                let shares: Vec<f64> = (first..end).map(share).collect();
                let sum: f64 = shares.iter().sum();
                // Rounded to the nearest, halves away from zero.
                let whole = |share: &f64| (share / sum * f64::from(1 << DIGITS)).round() as i32;
                (first, shares.iter().map(whole).collect())
            })
            .collect()
    }
}

/// The weighted sum of the bytes that `at` gives, as a byte.
fn weigh(weights: &[i32], at: impl Fn(usize) -> u8) -> u8 {
    let terms = weights.iter().enumerate();
    let sum: i32 = terms.map(|(i, weight)| weight * i32::from(at(i))).sum();
    ((sum + (1 << (DIGITS - 1))) >> DIGITS).clamp(0, 255) as u8
}

/// Resizes one image of bytes to `[side, side, channels]`, bilinear, whatever its shape.
///
/// `shape` is height, width and channels, none of them zero.
pub(crate) fn resize(image: &[u8], shape: [usize; 3], side: usize) -> Vec<u8> {
    let [height, width, channels] = shape;
    let (rows, columns) = (Axis::whole(height, side), Axis::whole(width, side));
    resample(image, &rows, &columns, channels, Filter::Bilinear)
}

/// Resizes one image of bytes, bicubic, so that its shorter side has `side` pixels, and cuts `[side, side, channels]` out
/// of the middle. Only these are computed, so that a thin image takes no more memory than another.
///
/// `shape` is height, width and channels, none of them zero.
pub(crate) fn resize_and_crop(image: &[u8], shape: [usize; 3], side: usize) -> Vec<u8> {
    let [height, width, channels] = shape;
    let shorter = height.min(width);
    let rows = Axis::middle(height, shorter, side);
    let columns = Axis::middle(width, shorter, side);
    resample(image, &rows, &columns, channels, Filter::Bicubic)
}

fn resample(image: &[u8], rows: &Axis, columns: &Axis, channels: usize, filter: Filter) -> Vec<u8> {
    let (height, width) = (rows.size, columns.size);
    let (rows, columns) = (rows.weights(filter), columns.weights(filter));
    let mut wide = Vec::with_capacity(height * columns.len() * channels);
    for line in image.chunks_exact(width * channels) {
        for (first, weights) in &columns {
            let from = &line[first * channels..];
            wide.extend((0..channels).map(|c| weigh(weights, |i| from[i * channels + c])));
        }
    }
    let len = columns.len() * channels;
    let mut resized = Vec::with_capacity(rows.len() * len);
    for (first, weights) in &rows {
        let from = &wide[first * len..];
        resized.extend((0..len).map(|x| weigh(weights, |i| from[i * len + x])));
    }
    resized
}

#[cfg(test)]
#[path = "../../networks/tests/support/mod.rs"]
mod support;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_size_changes_nothing() {
        let bytes: Vec<u8> = (0..27).map(|i| i * 9).collect();
        assert_eq!(resize(&bytes, [3, 3, 3], 3), bytes);
        assert_eq!(resize_and_crop(&bytes, [3, 3, 3], 3), bytes);
        assert_eq!(resize_and_crop(&bytes, [1, 3, 9], 1), bytes[9..18]);
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

    /// Rows 0, 1, 112, 222 and 223 of gray 28 x 28 pixels, of 64 x 48 (growing), of 300 x 457 (shrinking), and of 20 x 600
    /// (growing to more than is kept).
    #[test]
    fn rows_equal_those_of_pillow_cut_by_transformers() {
        let file = std::fs::read(support::root().join("clip_tiny/case.safetensors")).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
        for (name, shape) in [
            ("gray", [28, 28, 1]),
            ("rgb", [64, 48, 3]),
            ("large", [300, 457, 3]),
            ("both", [20, 600, 3]),
        ] {
            let image = support::picture(&format!("clip_tiny.{name}"), shape);
            let resized = resize_and_crop(&image, shape, 224);
            let channels = shape[2];
            let found = (0..3).flat_map(|channel| {
                let plane = resized.iter().skip(channel % channels).step_by(channels);
                let plane: Vec<u8> = plane.copied().collect();
                [0, 1, 112, 222, 223].map(|row| plane[row * 224..][..224].to_vec())
            });
            let rows = tensors.tensor(&format!("{name}.rows")).unwrap();
            assert!(found.flatten().eq(rows.data().iter().copied()), "{name}");
        }
    }
}
