//! What is left of an image in 64 numbers: a perceptual hash that is not rounded to bits.

use super::view::{Place, View};

/// Cells on a side.
const SIDE: usize = 8;
/// Numbers of a thumb.
pub(super) const CELLS: usize = SIDE * SIDE;

/// The mean of each of 8 x 8 parts of an image.
#[derive(Clone, Copy, Debug)]
pub(super) struct Thumb(pub(super) [f32; CELLS]);

impl Thumb {
    /// Of a view whose picture is put somewhere.
    pub(super) fn of(view: &View, place: Place) -> Self {
        let plane = place.put(&view.luma, view.height, view.width);
        let columns = shares(view.width);
        let mut cells = [0.0; CELLS];
        for (row, weights) in shares(view.height).iter().enumerate() {
            for &(line, down) in weights {
                let line = &plane[line * view.width..][..view.width];
                for (column, weights) in columns.iter().enumerate() {
                    let sum: f32 = weights.iter().map(|&(at, along)| along * line[at]).sum();
                    cells[row * SIDE + column] += down * sum;
                }
            }
        }
        Self(cells)
    }

    /// Less its mean and of length 1, so that brightness and contrast mean nothing; 0 of an image of one color.
    pub(super) fn normalized(&self) -> Self {
        let mean = self.0.iter().sum::<f32>() / CELLS as f32;
        let cells = self.0.map(|value| value - mean);
        let length = cells.iter().map(|value| value * value).sum::<f32>().sqrt();
        Self(match length > 1e-3 {
            true => cells.map(|value| value / length),
            false => [0.0; CELLS],
        })
    }

    /// The correlation of two that are normalized.
    pub(super) fn correlation(&self, other: &Self) -> f32 {
        let mut sums = [0.0; 8];
        for (a, b) in self.0.chunks_exact(8).zip(other.0.chunks_exact(8)) {
            for at in 0..8 {
                sums[at] += a[at] * b[at];
            }
        }
        sums.iter().sum()
    }

    /// Root of the mean squared difference of two that are not.
    pub(super) fn distance(&self, other: &Self) -> f32 {
        let squares = self.0.iter().zip(&other.0).map(|(a, b)| (a - b) * (a - b));
        (squares.sum::<f32>() / CELLS as f32).sqrt()
    }
}

/// For each of the parts of a side the pixels in it, and what share of the part each is.
fn shares(side: usize) -> Vec<Vec<(usize, f32)>> {
    let part = side as f32 / SIDE as f32;
    let shares = |number: usize| {
        let (from, to) = (number as f32 * part, (number + 1) as f32 * part);
        let pixels = from as usize..(to.ceil() as usize).min(side);
        let share = |at: usize| {
            let covered = to.min((at + 1) as f32) - from.max(at as f32);
            (at, covered / part)
        };
        pixels
            .map(share)
            .filter(|(_, share)| *share > 0.0)
            .collect()
    };
    (0..SIDE).map(shares).collect()
}
