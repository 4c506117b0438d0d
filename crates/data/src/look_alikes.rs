//! Look-alikes: pictures like a given one that nobody has, made of it by small changes.
//!
//! What a model makes of them is what it would make of an image of this kind that it never saw, see the study's
//! calibration.

use crate::ImageShape;

/// A small change of a picture: turned, moved, scaled, sheared, lightened.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Change {
    /// Radians, clockwise.
    pub angle: f64,
    /// Shares of the picture's height and width.
    pub shift: [f64; 2],
    /// 1 keeps the size, more enlarges.
    pub scale: f64,
    /// How far a row moves to the side, times its height.
    pub shear: f64,
    /// The exponent of values from 0 to 1.
    pub gamma: f64,
}

impl Change {
    /// How many numbers [`Change::drawn`] takes.
    pub const NUMBERS: usize = 6;

    /// The change that numbers from [0, 1) stand for: up to 10 degrees, a fifteenth of the picture, 8 percent of its size,
    /// 5 degrees of shear, a gamma of 0.8 to 1.25; all of it `size` times.
    ///
    /// # Panics
    /// There are not [`NUMBERS`](Self::NUMBERS) of them.
    pub fn drawn(numbers: &[f32], size: f64) -> Self {
        let numbers: [f32; Self::NUMBERS] = numbers.try_into().expect("a number for each change");
        let [angle, down, right, scale, shear, gamma] =
            numbers.map(|number| size * (2.0 * f64::from(number) - 1.0));
        Self {
            angle: angle * 10f64.to_radians(),
            shift: [down / 15.0, right / 15.0],
            scale: 1.08f64.powf(scale),
            shear: shear * 5f64.to_radians().tan(),
            gamma: 1.25f64.powf(gamma),
        }
    }

    /// The changed picture. Between pixels it is cubic: linear, it would be blurred, and blurred pictures are easier to denoise.
    /// What comes into view is the background's color where the picture has a background, and the mirrored picture elsewhere.
    ///
    /// # Panics
    /// `image` does not have the bytes of `shape`.
    pub fn apply(&self, shape: ImageShape, image: &[u8]) -> Vec<u8> {
        assert_eq!(image.len(), shape.bytes());
        let background = background(shape, image);
        let side = [shape.height as f64, shape.width as f64];
        let center = side.map(|side| (side - 1.0) / 2.0);
        // Whole pixels: a fraction would only blur.
        let shift = [0, 1].map(|axis| (self.shift[axis] * side[axis]).round());
        let (sin, cos) = self.angle.sin_cos();
        let pixel = |row: i64, column: i64, channel: usize| -> f64 {
            let inside = |at: i64, side: usize| (0..side as i64).contains(&at);
            if let Some(background) = &background
                && !(inside(row, shape.height) && inside(column, shape.width))
            {
                return f64::from(background[channel]);
            }
            let (row, column) = (reflected(row, shape.height), reflected(column, shape.width));
            f64::from(image[(row * shape.width + column) * shape.channels + channel])
        };
        let mut changed = Vec::with_capacity(image.len());
        for row in 0..shape.height {
            for column in 0..shape.width {
                // The way back: shift, scale, rotation, shear.
                let y = (row as f64 - center[0] - shift[0]) / self.scale;
                let x = (column as f64 - center[1] - shift[1]) / self.scale;
                let (y, x) = (cos * y - sin * x, sin * y + cos * x);
                let (y, x) = (y + center[0], x - self.shear * y + center[1]);
                let (top, left) = (y.floor(), x.floor());
                let [down, right] = [y - top, x - left].map(cubic);
                let (top, left) = (top as i64 - 1, left as i64 - 1);
                for channel in 0..shape.channels {
                    let mut value = 0.0;
                    for (row, down) in (top..).zip(down) {
                        for (column, right) in (left..).zip(right) {
                            value += down * right * pixel(row, column, channel);
                        }
                    }
                    let value = (value / 255.0).clamp(0.0, 1.0);
                    changed.push((255.0 * value.powf(self.gamma)).round() as u8);
                }
            }
        }
        changed
    }
}

/// The mirror image, left and right exchanged.
///
/// # Panics
/// `image` does not have the bytes of `shape`.
pub fn mirrored(shape: ImageShape, image: &[u8]) -> Vec<u8> {
    assert_eq!(image.len(), shape.bytes());
    let rows = image.chunks_exact(shape.width * shape.channels);
    rows.flat_map(|row| row.rchunks_exact(shape.channels).flatten())
        .copied()
        .collect()
}

/// What each of four pixels in a row weighs in the value at a place between the two in the middle, at `way` of the way from
/// one to the other (Keys, "Cubic Convolution Interpolation for Digital Image Processing", 1981, with a = -1/2).
fn cubic(way: f64) -> [f64; 4] {
    let back = 1.0 - way;
    let outer = |near: f64, far: f64| -0.5 * near * far * far;
    let inner = |distance: f64| 1.0 + distance * distance * (1.5 * distance - 2.5);
    [outer(way, back), inner(way), inner(back), outer(back, way)]
}

/// The place in `0..side` that a place outside is the mirror image of; the edge itself is not repeated.
fn reflected(at: i64, side: usize) -> usize {
    let last = side as i64 - 1;
    if last == 0 {
        return 0;
    }
    let at = at.rem_euclid(2 * last);
    at.min(2 * last - at) as usize
}

/// The color that at least half of the picture's edge has, but for noise.
fn background(shape: ImageShape, image: &[u8]) -> Option<Vec<u8>> {
    /// How far apart two values of one color are, at most.
    const NOISE: u8 = 8;
    let (last_row, last_column) = (shape.height - 1, shape.width - 1);
    let edge: Vec<&[u8]> = image
        .chunks_exact(shape.channels)
        .enumerate()
        .filter(|(at, _)| {
            let (row, column) = (at / shape.width, at % shape.width);
            row == 0 || row == last_row || column == 0 || column == last_column
        })
        .map(|(_, pixel)| pixel)
        .collect();
    let median: Vec<u8> = (0..shape.channels)
        .map(|channel| {
            let mut values: Vec<u8> = edge.iter().map(|pixel| pixel[channel]).collect();
            values.sort_unstable();
            values[values.len() / 2]
        })
        .collect();
    let alike = |pixel: &&&[u8]| {
        let mut pairs = pixel.iter().zip(&median);
        pairs.all(|(a, b)| a.abs_diff(*b) <= NOISE)
    };
    (2 * edge.iter().filter(alike).count() >= edge.len()).then_some(median)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STILL: Change = Change {
        angle: 0.0,
        shift: [0.0, 0.0],
        scale: 1.0,
        shear: 0.0,
        gamma: 1.0,
    };

    fn shape(height: usize, width: usize, channels: usize) -> ImageShape {
        ImageShape {
            height,
            width,
            channels,
        }
    }

    #[test]
    fn no_change_changes_nothing() {
        let image: Vec<u8> = (0..5 * 7 * 3).map(|i| (i * 37 % 251) as u8).collect();
        assert_eq!(STILL.apply(shape(5, 7, 3), &image), image);
    }

    #[test]
    fn a_picture_moves_by_whole_pixels_and_its_background_follows() {
        let mut image = vec![9; 16];
        image[5] = 200;
        let down = Change {
            shift: [0.25, 0.0],
            ..STILL
        };
        let mut moved = vec![9; 16];
        moved[9] = 200;
        assert_eq!(down.apply(shape(4, 4, 1), &image), moved);
    }

    #[test]
    fn a_picture_without_a_background_is_mirrored_at_its_edge() {
        let image: Vec<u8> = (0..16).map(|i| 16 * i as u8).collect();
        let down = Change {
            shift: [0.25, 0.0],
            ..STILL
        };
        let moved = down.apply(shape(4, 4, 1), &image);
        assert_eq!(moved[4..], image[..12]);
        assert_eq!(moved[..4], image[4..8]);
    }

    #[test]
    fn a_mirror_image_has_left_and_right_exchanged() {
        let image: Vec<u8> = (0..12).collect();
        let mirror = mirrored(shape(2, 2, 3), &image);
        assert_eq!(mirror, [3, 4, 5, 0, 1, 2, 9, 10, 11, 6, 7, 8]);
    }

    #[test]
    fn a_quarter_turn_is_one() {
        let image: Vec<u8> = (0..9).collect();
        let turned = Change {
            angle: std::f64::consts::FRAC_PI_2,
            ..STILL
        };
        let turned = turned.apply(shape(3, 3, 1), &image);
        assert_eq!(turned, [6, 3, 0, 7, 4, 1, 8, 5, 2]);
    }

    #[test]
    fn between_pixels_a_slope_stays_a_slope_and_all_weights_are_one() {
        for way in [0.0, 0.25, 0.5, 0.9] {
            let weights = cubic(way);
            assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            let slope: f64 = weights
                .iter()
                .zip([-1.0, 0.0, 1.0, 2.0])
                .map(|(a, b)| a * b)
                .sum();
            assert!((slope - way).abs() < 1e-12, "{way} {slope}");
        }
        let halved = [-0.0625, 0.5625, 0.5625, -0.0625];
        assert_eq!(cubic(0.5), halved);
    }

    #[test]
    fn drawn_changes_are_small_and_alike_on_both_sides() {
        let low = Change::drawn(&[0.0; 6], 1.0);
        let high = Change::drawn(&[1.0; 6], 1.0);
        assert_eq!(low.angle, -high.angle);
        assert!((low.scale * high.scale - 1.0).abs() < 1e-12);
        assert_eq!(Change::drawn(&[0.5; 6], 1.0), STILL);
    }
}
