//! An image as it is compared: small, a little blurred, as luma and color.

use std::ops::Range;

use crate::ImageShape;

/// Longest side of what is compared. Larger images are shrunk by a whole factor: what tells two pictures apart is to be
/// seen at this size, and what saving one again changes is not.
const LARGEST: usize = 40;

/// What the eye sees of red, green and blue (ITU-R BT.601, JPEG's weights too).
pub(super) const LUMA: [f32; 3] = [0.299, 0.587, 0.114];

/// Planes of one image, values 0 to 255, row by row, each blurred once.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) luma: Vec<f32>,
    /// Red, green and blue; none of a gray image.
    pub(super) colors: Vec<Vec<f32>>,
}

impl View {
    /// Of an image of this shape. Transparency lies over white.
    pub(super) fn of(shape: ImageShape, image: &[u8]) -> Self {
        let factor = shape.height.max(shape.width).div_ceil(LARGEST).max(1);
        let (height, width) = (shape.height.div_ceil(factor), shape.width.div_ceil(factor));
        let count = if shape.channels < 3 { 1 } else { 3 };
        let mut planes = vec![vec![0.0; height * width]; count];
        for (row, line) in image.chunks_exact(shape.width * shape.channels).enumerate() {
            let row = row / factor * width;
            for (column, pixel) in line.chunks_exact(shape.channels).enumerate() {
                let at = row + column / factor;
                for (plane, &value) in planes.iter_mut().zip(pixel) {
                    plane[at] += match shape.channels {
                        2 | 4 => over_white(value, pixel[shape.channels - 1]),
                        _ => f32::from(value),
                    };
                }
            }
        }
        if factor > 1 {
            for plane in &mut planes {
                for (at, value) in plane.iter_mut().enumerate() {
                    let rows = factor.min(shape.height - at / width * factor);
                    let columns = factor.min(shape.width - at % width * factor);
                    *value /= (rows * columns) as f32;
                }
            }
        }
        let mut planes: Vec<Vec<f32>> = planes
            .iter()
            .map(|plane| blurred(plane, height, width))
            .collect();
        let luma = match &planes[..] {
            [red, green, blue] => (0..red.len())
                .map(|at| LUMA[0] * red[at] + LUMA[1] * green[at] + LUMA[2] * blue[at])
                .collect(),
            _ => planes.swap_remove(0),
        };
        Self {
            height,
            width,
            luma,
            colors: planes,
        }
    }

    /// What a mirror shows.
    pub(super) fn mirrored(&self) -> Self {
        let mirror = |plane: &Vec<f32>| {
            let rows = plane.chunks_exact(self.width);
            rows.flat_map(|row| row.iter().rev().copied()).collect()
        };
        Self {
            luma: mirror(&self.luma),
            colors: self.colors.iter().map(mirror).collect(),
            ..*self
        }
    }

    /// The planes that are compared: of a gray image the luma alone.
    pub(super) fn planes(&self) -> Vec<&[f32]> {
        match self.colors.is_empty() {
            true => vec![&self.luma],
            false => self.colors.iter().map(Vec::as_slice).collect(),
        }
    }
}

fn over_white(value: u8, alpha: u8) -> f32 {
    255.0 + (f32::from(value) - 255.0) * f32::from(alpha) / 255.0
}

/// Each value as a quarter of its two neighbors and half of itself, down and along; the edge goes on outside.
pub(super) fn blurred(plane: &[f32], height: usize, width: usize) -> Vec<f32> {
    let mut along = Vec::with_capacity(plane.len());
    for row in plane.chunks_exact(width) {
        for at in 0..width {
            let (left, right) = (row[at.saturating_sub(1)], row[(at + 1).min(width - 1)]);
            along.push(0.25 * (left + right) + 0.5 * row[at]);
        }
    }
    let mut out = Vec::with_capacity(plane.len());
    for row in 0..height {
        let line = |row: usize| &along[row * width..][..width];
        let (above, own, below) = (
            line(row.saturating_sub(1)),
            line(row),
            line((row + 1).min(height - 1)),
        );
        for at in 0..width {
            out.push(0.25 * (above[at] + below[at]) + 0.5 * own[at]);
        }
    }
    out
}

/// Where a picture lies over another: its size times `scale`, moved by so many pixels down and to the right.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Place {
    pub(super) scale: f32,
    pub(super) shift: [f32; 2],
}

impl Place {
    pub(super) const SAME: Self = Self {
        scale: 1.0,
        shift: [0.0; 2],
    };

    /// The rows and columns in which a picture of this size is then seen, and not what its edge goes on with.
    pub(super) fn covers(self, height: usize, width: usize) -> [Range<usize>; 2] {
        let axis = |side: usize, shift: f32| {
            let center = (side - 1) as f32 / 2.0;
            let [first, last] = [-center, center].map(|end| center + shift + self.scale * end);
            let first = first.ceil().max(0.0) as usize;
            let last = last.floor().min((side - 1) as f32).max(0.0) as usize;
            first.min(last)..last + 1
        };
        [axis(height, self.shift[0]), axis(width, self.shift[1])]
    }

    /// A plane put there; between pixels it is linear, and the edge goes on outside.
    pub(super) fn put(self, plane: &[f32], height: usize, width: usize) -> Vec<f32> {
        if self == Self::SAME {
            return plane.to_vec();
        }
        let axis = |side: usize, shift: f32| -> Vec<(usize, usize, f32)> {
            let last = (side - 1) as f32;
            let center = last / 2.0;
            let from = |at: usize| {
                let from = center + (at as f32 - center - shift) / self.scale;
                let from = from.clamp(0.0, last);
                let low = from as usize;
                (low, (low + 1).min(side - 1), from - low as f32)
            };
            (0..side).map(from).collect()
        };
        let columns = axis(width, self.shift[1]);
        let mut out = Vec::with_capacity(plane.len());
        for (top, bottom, down) in axis(height, self.shift[0]) {
            let (top, bottom) = (
                &plane[top * width..][..width],
                &plane[bottom * width..][..width],
            );
            for &(left, right, along) in &columns {
                let upper = top[left] + along * (top[right] - top[left]);
                let lower = bottom[left] + along * (bottom[right] - bottom[left]);
                out.push(upper + down * (lower - upper));
            }
        }
        out
    }
}
