//! A picture of forgotten images and their near copies, each with its row.

use std::collections::BTreeMap;

use retrack_data::{Dataset, ImageShape, Split};
use retrack_eval::pictures::Grid;

use crate::evidence::shrunk;
use crate::failure::Failure;

/// Forgotten images, and near copies of each, that have a place.
const MOST: [usize; 2] = [32, 12];
/// Width of a cell, at least: a number of eleven digits has a place below it.
const WIDTH: usize = 96;
/// Pixels on a side of a digit's dots.
const DOT: usize = 2;
/// Height of the strip that a row's number stands in.
const STRIP: usize = 7 * DOT;
const DARK: u8 = 40;
const GRAY: u8 = 128;
const LIGHT: u8 = 245;

/// The dots of the digits, five lines of three each, the highest bit on the left.
const DIGITS: [[u8; 5]; 10] = [
    [7, 5, 5, 5, 7],
    [2, 6, 2, 2, 7],
    [7, 1, 7, 4, 7],
    [7, 1, 7, 1, 7],
    [5, 5, 7, 1, 1],
    [7, 4, 7, 1, 7],
    [7, 4, 7, 5, 7],
    [7, 1, 1, 2, 2],
    [7, 5, 7, 5, 7],
    [7, 5, 7, 1, 7],
];

/// The picture, of 1 or 3 channels: in each line a forgotten image, its row on white, and its near copies; of one that was put back from a sealed copy only a gray field. Also how many copies have no
/// place.
///
/// # Errors
/// An image that cannot be read.
pub(super) fn png(split: &Split, data: &Dataset) -> Result<(Vec<u8>, usize), Failure> {
    let mut lines: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for near in &split.near {
        lines.entry(near.of).or_default().push(near.row);
    }
    let shown: Vec<(usize, &[usize])> = lines
        .iter()
        .take(MOST[0])
        .map(|(of, rows)| (*of, &rows[..rows.len().min(MOST[1])]))
        .collect();
    let count: usize = shown.iter().map(|(_, rows)| rows.len()).sum();
    let columns = 1 + shown.iter().map(|(_, rows)| rows.len()).max().unwrap_or(0);
    let mut image = vec![0; data.shape().bytes()];
    let mut cells = Vec::new();
    let mut shape = [0; 3];
    for (of, rows) in shown {
        for (place, &row) in [of].iter().chain(rows).enumerate() {
            match data.returned().binary_search(&row) {
                // What was sealed does not come onto the disk; its near copies show it.
                Ok(_) => image.fill(GRAY),
                Err(_) => data.read(row, &mut image)?,
            }
            let (small, small_shape) = shrunk(&image, data.shape());
            let (cell, of_cell) = cell(&small, small_shape, row, place == 0);
            shape = of_cell;
            cells.extend(cell);
        }
        for _ in rows.len() + 1..columns {
            cells.extend(vec![DARK; shape.iter().product()]);
        }
    }
    let grid = Grid {
        shape,
        columns,
        zoom: 1,
    };
    Ok((grid.png(&cells)?, split.near.len() - count))
}

/// An image above its row's number, and height, width and channels of both.
fn cell(image: &[u8], shape: ImageShape, row: usize, forgotten: bool) -> (Vec<u8>, [usize; 3]) {
    let channels = shape.channels;
    let zoom = (WIDTH / shape.width.max(1)).clamp(1, 8);
    let digits: Vec<usize> = row
        .to_string()
        .bytes()
        .map(|digit| usize::from(digit - b'0'))
        .collect();
    let width = (shape.width * zoom).max(WIDTH);
    let height = shape.height * zoom + STRIP;
    let (ground, ink) = match forgotten {
        true => (LIGHT, DARK),
        false => (DARK, LIGHT),
    };
    let mut pixels = vec![DARK; height * width * channels];
    for y in 0..shape.height * zoom {
        for x in 0..shape.width * zoom {
            let from = (y / zoom * shape.width + x / zoom) * channels;
            let to = (y * width + x) * channels;
            pixels[to..to + channels].copy_from_slice(&image[from..from + channels]);
        }
    }
    let strip = shape.height * zoom * width * channels;
    pixels[strip..].fill(ground);
    for (place, digit) in digits.into_iter().enumerate() {
        for y in 0..5 * DOT {
            for x in 0..3 * DOT {
                if DIGITS[digit][y / DOT] >> (2 - x / DOT) & 1 == 1 {
                    let left = DOT * (1 + 4 * place) + x;
                    let to = strip + ((y + DOT) * width + left) * channels;
                    pixels[to..to + channels].fill(ink);
                }
            }
        }
    }
    (pixels, [height, width, channels])
}
