//! Resizing as torchvision and transformers do it for the images that a network judges, with [Pillow's](retrack_data::resample)
//! arithmetic.

use retrack_data::resample::{Axis, Filter, Order, resample};

/// Resizes one image of bytes to `[side, side, channels]`, bilinear, whatever its shape.
///
/// `shape` is height, width and channels, none of them zero.
pub(crate) fn resize(image: &[u8], shape: [usize; 3], side: usize) -> Vec<u8> {
    let [height, width, channels] = shape;
    let (rows, columns) = (Axis::whole(height, side), Axis::whole(width, side));
    resample(
        image,
        &rows,
        &columns,
        channels,
        Filter::Bilinear,
        Order::Across,
    )
}

/// Resizes one image of bytes, bicubic, so that its shorter side has `side` pixels, and cuts `[side, side, channels]` out
/// of the middle, as transformers does, which rounds down. Only these are computed.
///
/// `shape` is height, width and channels, none of them zero.
pub(crate) fn resize_and_crop(image: &[u8], shape: [usize; 3], side: usize) -> Vec<u8> {
    let [height, width, channels] = shape;
    let shorter = height.min(width);
    let [rows, columns] =
        [height, width].map(|size| Axis::part(size, shorter, side, |rest| rest / 2));
    resample(
        image,
        &rows,
        &columns,
        channels,
        Filter::Bicubic,
        Order::Across,
    )
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
