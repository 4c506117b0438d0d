//! Whether two images show the same picture.

use super::view::{LUMA, Place, View, blurred};

/// Sizes of one picture over the other that are tried: a crop of 95 percent, brought back to the old size, is the larger
/// by a nineteenth.
const SCALES: [f32; 5] = [1.0, 1.0 / 1.035, 1.035, 1.0 / 1.07, 1.07];
/// The same, of what is best of these.
const FINE: [f32; 2] = [1.0 / 1.0175, 1.0175];
/// How much brighter or darker a copy may be.
const GAIN: [f32; 2] = [0.8, 1.25];
/// From here on a value may have been cut off.
const SATURATED: f32 = 250.0;
/// Mean squared differences, as shares of the variance, from which on two pictures are different: where they lie by whole
/// pixels, at their best size, and at their best place.
const DIFFERENT: [f32; 3] = [0.5, 0.25, 0.06];
/// The part of a side in which a difference is looked for.
const WINDOW: f32 = 0.17;
/// How often a plane is blurred to see its details and nothing finer, and to see nothing of them.
const DETAILS: [usize; 2] = [3, 6];

/// How unlike two views are where one lies best over the other, 0 for the same: the larger of two numbers, each the
/// largest mean squared difference in a window of a sixth of the side. One is that of the luma's details, as a share of their mean
/// square: pictures of one kind have the same shape and other details. The other is that of brightness and color, as a share of half
/// the variance.
///
/// Averaged over the whole picture, JPEG's noise would count as much as a hand of a clock.
///
/// `None` where it is plain early that they are different, and of pictures without details.
pub(super) fn difference(a: &View, b: &View) -> Option<f32> {
    let spread = spread(&a.luma).max(spread(&b.luma));
    if spread < 1.0 {
        return None;
    }
    let mut search = Search {
        views: [a, b],
        best: Place::SAME,
        unlike: f32::INFINITY,
    };
    search.offer(Place::SAME);
    search.moves(1.0);
    if search.unlike > DIFFERENT[0] * spread {
        return None;
    }
    search.sizes(&SCALES);
    if search.unlike > DIFFERENT[1] * spread {
        return None;
    }
    search.moves(1.0);
    search.moves(0.5);
    search.sizes(&SCALES);
    if search.unlike > DIFFERENT[2] * spread {
        return None;
    }
    search.moves(0.25);
    search.sizes(&FINE);
    search.moves(0.125);
    let laid = Laid::over(a, b, search.best);
    Some(laid.details()?.max(2.0 * laid.local()))
}

/// For the place where the first view is most like the second, by their luma.
struct Search<'a> {
    views: [&'a View; 2],
    best: Place,
    /// Mean squared difference there.
    unlike: f32,
}

impl Search<'_> {
    fn offer(&mut self, place: Place) {
        let [a, b] = self.views;
        let put = place.put(&a.luma, a.height, a.width);
        let unlike = unlike(&put, &b.luma, b.width);
        if unlike < self.unlike {
            (self.best, self.unlike) = (place, unlike);
        }
    }

    /// By so many pixels to all sides.
    fn moves(&mut self, step: f32) {
        let from = self.best;
        for (down, along) in (-1i8..=1).flat_map(|down| (-1i8..=1).map(move |along| (down, along)))
        {
            if (down, along) != (0, 0) {
                let shift = [
                    from.shift[0] + step * f32::from(down),
                    from.shift[1] + step * f32::from(along),
                ];
                self.offer(Place { shift, ..from });
            }
        }
    }

    /// So many times its size.
    fn sizes(&mut self, scales: &[f32]) {
        let from = self.best;
        for scale in scales.iter().filter(|scale| **scale != 1.0) {
            let scale = from.scale * scale;
            self.offer(Place { scale, ..from });
        }
    }
}

fn spread(plane: &[f32]) -> f32 {
    let count = plane.len() as f32;
    let mean = plane.iter().sum::<f32>() / count;
    plane
        .iter()
        .map(|value| (value - mean).powi(2))
        .sum::<f32>()
        / count
}

/// How much brighter the second of two planes is, by the values that were not cut off.
fn gain<'a>(planes: impl Iterator<Item = (&'a [f32], &'a [f32])>) -> f32 {
    let mut sums = [0.0; 2];
    for (a, b) in planes {
        for (a, b) in a.iter().zip(b) {
            let known = if *b < SATURATED { *a } else { 0.0 };
            sums[0] += known * b;
            sums[1] += known * a;
        }
    }
    match sums[1] > 0.0 {
        true => (sums[0] / sums[1]).clamp(GAIN[0], GAIN[1]),
        false => 1.0,
    }
}

/// Mean squared difference of two planes that may be of different brightness, but for the edge.
fn unlike(a: &[f32], b: &[f32], width: usize) -> f32 {
    let gain = gain([(a, b)].into_iter());
    let rows = a.chunks_exact(width).zip(b.chunks_exact(width));
    let inner = (a.len() / width - 2, width - 2);
    let mut sum = 0.0;
    for (a, b) in rows.skip(1).take(inner.0) {
        for (a, b) in a[1..=inner.1].iter().zip(&b[1..=inner.1]) {
            let apart = b - (gain * a).min(255.0);
            sum += apart * apart;
        }
    }
    sum / (inner.0 * inner.1) as f32
}

/// The part of two views that both show, once the first is put to its place.
struct Laid {
    height: usize,
    width: usize,
    lumas: [Vec<f32>; 2],
    /// Of each the planes that are compared.
    planes: [Vec<Vec<f32>>; 2],
}

impl Laid {
    fn over(a: &View, b: &View, place: Place) -> Self {
        let [rows, columns] = place.covers(a.height, a.width);
        let cut = |plane: &[f32]| -> Vec<f32> {
            let rows = plane.chunks_exact(a.width).take(rows.end).skip(rows.start);
            rows.flat_map(|row| &row[columns.clone()])
                .copied()
                .collect()
        };
        let put = |plane: &[f32]| cut(&place.put(plane, a.height, a.width));
        Self {
            height: rows.len(),
            width: columns.len(),
            lumas: [put(&a.luma), cut(&b.luma)],
            planes: [
                a.planes().into_iter().map(put).collect(),
                b.planes().into_iter().map(cut).collect(),
            ],
        }
    }

    fn blur(&self, plane: &[f32], times: usize) -> Vec<f32> {
        let blur = |plane: Vec<f32>, _| blurred(&plane, self.height, self.width);
        (0..times).fold(plane.to_vec(), blur)
    }

    /// The first number of [`difference`]; `None` of pictures without details.
    fn details(&self) -> Option<f32> {
        /// How much stronger the details of one may be: a picture that was made smaller and larger again has lost some.
        const GAIN: [f32; 2] = [0.5, 2.0];
        let [a, b] = [0, 1].map(|which| {
            // A view is blurred once.
            let fine = self.blur(&self.lumas[which], DETAILS[0] - 1);
            let coarse = self.blur(&fine, DETAILS[1] - DETAILS[0]);
            let details = fine.iter().zip(&coarse).map(|(fine, coarse)| fine - coarse);
            details.collect::<Vec<f32>>()
        });
        let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        let gain = (product(&a, &b) / product(&a, &a).max(1e-6)).clamp(GAIN[0], GAIN[1]);
        let apart = a.iter().zip(&b).map(|(a, b)| (b - gain * a).powi(2));
        let apart: Vec<f32> = apart.collect();
        let mean = product(&b, &b).max(gain * gain * product(&a, &a)) / b.len() as f32;
        (mean > 0.1).then(|| largest(&apart, self.height, self.width) / mean)
    }

    /// The second number of [`difference`], but for the half.
    fn local(&self) -> f32 {
        let [put, other] = &self.planes;
        let variance = |planes: &[Vec<f32>]| planes.iter().map(|plane| spread(plane)).sum::<f32>();
        let pairs = put.iter().zip(other);
        let gain = gain(pairs.map(|(a, b)| (a.as_slice(), b.as_slice())));
        let bright = |plane: &Vec<f32>| {
            plane
                .iter()
                .map(|value| (gain * value).min(255.0))
                .collect()
        };
        let put: Vec<Vec<f32>> = put.iter().map(bright).collect();
        // One of them may have been made smaller and larger again, which blurs it.
        let blur = |planes: &[Vec<f32>]| -> Vec<Vec<f32>> {
            planes.iter().map(|plane| self.blur(plane, 1)).collect()
        };
        let (put_once, other_once) = (blur(&put), blur(other));
        let (put_twice, other_twice) = (blur(&put_once), blur(&other_once));
        let pairs = [
            (&put, other),
            (&put_once, other),
            (&put_twice, other),
            (&put, &other_once),
            (&put, &other_twice),
        ];
        let least = pairs
            .map(|(a, b)| {
                let squares = squares(a, b, self.height, self.width);
                largest(&squares, self.height, self.width)
            })
            .into_iter()
            .fold(f32::INFINITY, f32::min);
        least / variance(&self.planes[0]).max(variance(other)).max(1.0)
    }
}

/// Squared differences of two images, pixel by pixel, the sum over their planes. Color is compared more coarsely than
/// luma, as JPEG keeps it.
fn squares(a: &[Vec<f32>], b: &[Vec<f32>], height: usize, width: usize) -> Vec<f32> {
    let minus = |(a, b): (&Vec<f32>, &Vec<f32>)| -> Vec<f32> {
        a.iter().zip(b).map(|(a, b)| b - a).collect()
    };
    let planes: Vec<Vec<f32>> = a.iter().zip(b).map(minus).collect();
    let [red, green, blue] = &planes[..] else {
        return planes[0].iter().map(|value| value * value).collect();
    };
    let luma: Vec<f32> = (0..red.len())
        .map(|at| LUMA[0] * red[at] + LUMA[1] * green[at] + LUMA[2] * blue[at])
        .collect();
    let mut sums: Vec<f32> = luma.iter().map(|value| 3.0 * value * value).collect();
    for plane in &planes {
        let color: Vec<f32> = plane.iter().zip(&luma).map(|(a, b)| a - b).collect();
        let color = blurred(&blurred(&color, height, width), height, width);
        for (sum, value) in sums.iter_mut().zip(color) {
            *sum += value * value;
        }
    }
    sums
}

/// The largest mean over a window, but for the edge.
fn largest(values: &[f32], height: usize, width: usize) -> f32 {
    let side = ((WINDOW * height.min(width) as f32).round() as usize).max(3);
    let (inner_height, inner_width) = (height - 2, width - 2);
    let side = side.min(inner_height).min(inner_width);
    // Of each column the sum over the window's rows.
    let mut largest = 0.0f32;
    for top in 1..=inner_height + 1 - side {
        let columns: Vec<f32> = (1..=inner_width)
            .map(|column| {
                (top..top + side)
                    .map(|row| values[row * width + column])
                    .sum()
            })
            .collect();
        for window in columns.windows(side) {
            largest = largest.max(window.iter().sum::<f32>());
        }
    }
    largest / (side * side) as f32
}
