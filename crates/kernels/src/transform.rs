//! The transforms of Winograd's F(4x4, 3x3), vectorised over channels. Those of the gradients are their transposes
//! ([`crate::transform_gradients`]).
//!
//! `B`, `G` and `A` are the matrices of Lavin and Gray (arXiv 1509.09308) for the points 0, 1, -1, 2, -2.

#![allow(
    clippy::needless_range_loop,
    reason = "the indices are those of the matrices in the formulas"
)]

use crate::simd::{Simd, Vectorized, load, store};
use crate::winograd::Shape;

/// How an image is cut into tiles.
#[derive(Clone, Copy)]
pub(crate) struct Tiling {
    pub height: usize,
    pub width: usize,
    down: usize,
    across: usize,
}

impl Tiling {
    pub(crate) fn new(shape: &Shape) -> Self {
        let (down, across) = (shape.height.div_ceil(4), shape.width.div_ceil(4));
        Self {
            height: shape.height,
            width: shape.width,
            down,
            across,
        }
    }

    /// Image, first row and first column of a tile's output.
    #[inline(always)]
    pub(crate) fn place(&self, tile: usize) -> (usize, usize, usize) {
        let row = tile / self.across;
        (row / self.down, row % self.down * 4, tile % self.across * 4)
    }
}

/// B^T d: six values of the input along one direction.
#[inline(always)]
fn input_1d<S: Simd>(simd: S, d: [S::f32s; 6]) -> [S::f32s; 6] {
    let f = |v: f32| simd.splat_f32s(v);
    let [d0, d1, d2, d3, d4, d5] = d;
    let a = simd.mul_add_e_f32s(f(-4.0), d2, d4);
    let b = simd.mul_add_e_f32s(f(-4.0), d1, d3);
    let c = simd.sub_f32s(d4, d2);
    let e = simd.mul_f32s(f(2.0), simd.sub_f32s(d3, d1));
    [
        simd.mul_add_e_f32s(f(4.0), d0, simd.mul_add_e_f32s(f(-5.0), d2, d4)),
        simd.add_f32s(a, b),
        simd.sub_f32s(a, b),
        simd.add_f32s(c, e),
        simd.sub_f32s(c, e),
        simd.mul_add_e_f32s(f(4.0), d1, simd.mul_add_e_f32s(f(-5.0), d3, d5)),
    ]
}

/// A^T m: four values of the output along one direction.
#[inline(always)]
fn output_1d<S: Simd>(simd: S, m: [S::f32s; 6]) -> [S::f32s; 4] {
    let f = |v: f32| simd.splat_f32s(v);
    let [m0, m1, m2, m3, m4, m5] = m;
    let (a, b) = (simd.add_f32s(m1, m2), simd.sub_f32s(m1, m2));
    let (c, d) = (simd.add_f32s(m3, m4), simd.sub_f32s(m3, m4));
    [
        simd.add_f32s(m0, simd.add_f32s(a, c)),
        simd.mul_add_e_f32s(f(2.0), d, b),
        simd.mul_add_e_f32s(f(4.0), c, a),
        simd.add_f32s(simd.mul_add_e_f32s(f(8.0), d, b), m5),
    ]
}

/// G g: three weights along one direction.
#[inline(always)]
fn weight_1d<S: Simd>(simd: S, g: [S::f32s; 3]) -> [S::f32s; 6] {
    let f = |v: f32| simd.splat_f32s(v);
    let [g0, g1, g2] = g;
    let a = simd.mul_f32s(simd.add_f32s(g0, g2), f(-1.0 / 6.0));
    let b = simd.mul_f32s(g1, f(1.0 / 6.0));
    let c = simd.mul_add_e_f32s(g2, f(1.0 / 6.0), simd.mul_f32s(g0, f(1.0 / 24.0)));
    let d = simd.mul_f32s(g1, f(1.0 / 12.0));
    [
        simd.mul_f32s(g0, f(0.25)),
        simd.sub_f32s(a, b),
        simd.add_f32s(a, b),
        simd.add_f32s(c, d),
        simd.sub_f32s(c, d),
        g2,
    ]
}

/// Transforms the inputs of `count` tiles from `first` on into `to[36][count, row]`, `stride` floats from frequency to
/// frequency.
///
/// `x` holds the images, `zeros` a pixel; `to` is writable, rows being whole vectors.
pub(crate) struct TransformInput {
    pub x: *const f32,
    pub zeros: *const f32,
    pub tiling: Tiling,
    pub channels: usize,
    pub first: usize,
    pub count: usize,
    pub to: *mut f32,
    pub stride: usize,
    pub row: usize,
}

impl Vectorized for TransformInput {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self, simd: S) {
        let Self {
            x,
            zeros,
            tiling,
            channels,
            first,
            count,
            to,
            stride,
            row,
        } = self;
        for t in 0..count {
            let (image, y0, x0) = tiling.place(first + t);
            // SAFETY: the tile's image exists, and so does each of its pixels that is asked for.
            let image = unsafe { x.add(image * tiling.height * tiling.width * channels) };
            // Pixels outside the image are read from a row of zeros; the offset -1 is added last.
            let mut from = [[zeros; 6]; 6];
            for i in 0..6 {
                let y = y0 + i;
                if y == 0 || y > tiling.height {
                    continue;
                }
                for j in 0..6 {
                    let x = x0 + j;
                    if x > 0 && x <= tiling.width {
                        let pixel = (y - 1) * tiling.width + x - 1;
                        // SAFETY: as above.
                        from[i][j] = unsafe { image.add(pixel * channels) };
                    }
                }
            }
            let mut c = 0;
            // SAFETY: so many channels are left, of each pixel and of the tile's row.
            unsafe {
                let to = to.add(t * row);
                while c + S::F32_LANES <= channels {
                    input_tile(simd, &from, c, S::F32_LANES, to.add(c), stride);
                    c += S::F32_LANES;
                }
                if c < channels {
                    input_tile(simd, &from, c, channels - c, to.add(c), stride);
                }
            }
        }
    }
}

/// # Safety
///
/// The 36 pixels have `count` channels from `c` on; a whole vector is writable at `to`, 36 times, `stride` floats apart.
#[inline(always)]
unsafe fn input_tile<S: Simd>(
    simd: S,
    from: &[[*const f32; 6]; 6],
    c: usize,
    count: usize,
    to: *mut f32,
    stride: usize,
) {
    let mut columns = [[simd.splat_f32s(0.0); 6]; 6];
    // SAFETY: the caller's.
    unsafe {
        for j in 0..6 {
            let mut d = [simd.splat_f32s(0.0); 6];
            for (i, d) in d.iter_mut().enumerate() {
                *d = load(simd, from[i][j].add(c), count);
            }
            let d = input_1d(simd, d);
            for i in 0..6 {
                columns[i][j] = d[i];
            }
        }
        for i in 0..6 {
            let d = input_1d(simd, columns[i]);
            for j in 0..6 {
                // Rows are padded to whole vectors.
                store(simd, to.add((i * 6 + j) * stride), S::F32_LANES, d[j]);
            }
        }
    }
}

/// Transforms the products `m[36][count, row]`, `stride` floats from frequency to frequency, back into the pixels of
/// `count` tiles from `first` on, and adds bias and residual.
///
/// The rows of `m` are whole vectors. `bias` has `bias_row` floats from image to image, 0 where all share them;
/// `residual` is null or as `y`, which holds the images and is writable.
pub(crate) struct TransformOutput {
    pub m: *const f32,
    pub stride: usize,
    pub row: usize,
    pub tiling: Tiling,
    pub channels: usize,
    pub first: usize,
    pub count: usize,
    pub bias: *const f32,
    pub bias_row: usize,
    pub residual: *const f32,
    pub y: *mut f32,
}

impl Vectorized for TransformOutput {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self, simd: S) {
        let Self {
            m,
            stride,
            row,
            tiling,
            channels,
            first,
            count,
            bias,
            bias_row,
            residual,
            y,
        } = self;
        for t in 0..count {
            let (image, y0, x0) = tiling.place(first + t);
            let origin = ((image * tiling.height + y0) * tiling.width + x0) * channels;
            let place = OutputPlace {
                down: (tiling.height - y0).min(4),
                across: (tiling.width - x0).min(4),
                line: tiling.width * channels,
                channels,
            };
            // SAFETY: the image, its tile and so many channels of each pixel exist.
            unsafe {
                let tile = OutputTile {
                    m: m.add(t * row),
                    stride,
                    place,
                    bias: bias.add(image * bias_row),
                    residual: if residual.is_null() {
                        residual
                    } else {
                        residual.add(origin)
                    },
                    y: y.add(origin),
                };
                let mut c = 0;
                while c + S::F32_LANES <= channels {
                    tile.channels(simd, c, S::F32_LANES);
                    c += S::F32_LANES;
                }
                if c < channels {
                    tile.channels(simd, c, channels - c);
                }
            }
        }
    }
}

/// The part of a tile that exists, and the distances between its pixels.
#[derive(Clone, Copy)]
struct OutputPlace {
    down: usize,
    across: usize,
    line: usize,
    channels: usize,
}

/// What [`TransformOutput`] reads and writes for one tile, from its first channel and pixel on.
#[derive(Clone, Copy)]
struct OutputTile {
    m: *const f32,
    stride: usize,
    place: OutputPlace,
    bias: *const f32,
    residual: *const f32,
    y: *mut f32,
}

impl OutputTile {
    /// `count` channels from `c` on.
    ///
    /// # Safety
    ///
    /// They exist.
    #[inline(always)]
    unsafe fn channels<S: Simd>(self, simd: S, c: usize, count: usize) {
        let Self { m, stride, .. } = self;
        let mut columns = [[simd.splat_f32s(0.0); 6]; 4];
        // SAFETY: the caller's, for the pixels that `place` lets through; the rows of `m` are whole vectors.
        unsafe {
            let bias = load(simd, self.bias.add(c), count);
            for j in 0..6 {
                let mut d = [simd.splat_f32s(0.0); 6];
                for (i, d) in d.iter_mut().enumerate() {
                    *d = load(simd, m.add((i * 6 + j) * stride + c), S::F32_LANES);
                }
                let d = output_1d(simd, d);
                for i in 0..4 {
                    columns[i][j] = d[i];
                }
            }
            for i in 0..4 {
                if i >= self.place.down {
                    break;
                }
                let d = output_1d(simd, columns[i]);
                for j in 0..4 {
                    if j >= self.place.across {
                        break;
                    }
                    let offset = i * self.place.line + j * self.place.channels + c;
                    let mut value = simd.add_f32s(d[j], bias);
                    if !self.residual.is_null() {
                        let residual = load(simd, self.residual.add(offset), count);
                        value = simd.add_f32s(value, residual);
                    }
                    store(simd, self.y.add(offset), count, value);
                }
            }
        }
    }
}

/// Transforms `count` inputs' weights for one panel of `columns` outputs, with `stride` floats from frequency to
/// frequency.
///
/// `from` has `tap` floats from tap to tap and `row` from input to input, `columns` of them in a row; the panel is
/// writable, as wide as those of `pack_panel`.
pub(crate) struct TransformWeights {
    pub from: *const f32,
    pub tap: usize,
    pub row: usize,
    pub count: usize,
    pub columns: usize,
    pub panel: *mut f32,
    pub stride: usize,
}

impl Vectorized for TransformWeights {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self, simd: S) {
        let Self {
            from,
            tap,
            row,
            count,
            columns,
            panel,
            stride,
        } = self;
        let vectors = columns.div_ceil(S::F32_LANES);
        for i in 0..count {
            for v in 0..vectors {
                let left = columns - v * S::F32_LANES;
                // SAFETY: `left` outputs of input `i` are left, and the panel has `vectors` for each input.
                unsafe {
                    let from = from.add(i * row + v * S::F32_LANES);
                    let to = panel.add((i * vectors + v) * S::F32_LANES);
                    if left >= S::F32_LANES {
                        weight_tile(simd, from, tap, S::F32_LANES, to, stride);
                    } else {
                        weight_tile(simd, from, tap, left, to, stride);
                    }
                }
            }
        }
    }
}

/// # Safety
///
/// `count` floats are readable at `from`, 9 times, `tap` floats apart; a whole vector is writable at `to`, 36 times,
/// `stride` floats apart.
#[inline(always)]
unsafe fn weight_tile<S: Simd>(
    simd: S,
    from: *const f32,
    tap: usize,
    count: usize,
    to: *mut f32,
    stride: usize,
) {
    let mut columns = [[simd.splat_f32s(0.0); 3]; 6];
    // SAFETY: the caller's.
    unsafe {
        for j in 0..3 {
            let mut g = [simd.splat_f32s(0.0); 3];
            for (i, g) in g.iter_mut().enumerate() {
                *g = load(simd, from.add((i * 3 + j) * tap), count);
            }
            let g = weight_1d(simd, g);
            for i in 0..6 {
                columns[i][j] = g[i];
            }
        }
        for i in 0..6 {
            let g = weight_1d(simd, columns[i]);
            for j in 0..6 {
                store(simd, to.add((i * 6 + j) * stride), S::F32_LANES, g[j]);
            }
        }
    }
}

/// `to[count, to_row]` = the transpose of `from[columns, from_row]`'s first `count` columns; `to` is writable.
pub(crate) struct TurnBlock {
    pub from: *const f32,
    pub from_row: usize,
    pub columns: usize,
    pub count: usize,
    pub to: *mut f32,
    pub to_row: usize,
}

impl Vectorized for TurnBlock {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self, _: S) {
        const SIDE: usize = 8;
        let Self {
            from,
            from_row,
            columns,
            count,
            to,
            to_row,
        } = self;
        let (whole_columns, whole_count) = (columns - columns % SIDE, count - count % SIDE);
        // SAFETY: rows `j..j + SIDE` and `j` of the first matrix exist, and so do places `i..i + SIDE` and `i` in them;
        // the second is its transpose. An array of floats is aligned as a float.
        unsafe {
            for j in (0..whole_columns).step_by(SIDE) {
                for i in (0..whole_count).step_by(SIDE) {
                    let mut square = [[0.0f32; SIDE]; SIDE];
                    for (r, line) in square.iter_mut().enumerate() {
                        let from = from.add((j + r) * from_row + i);
                        *line = from.cast::<[f32; SIDE]>().read();
                    }
                    for c in 0..SIDE {
                        let mut line = [0.0f32; SIDE];
                        for r in 0..SIDE {
                            line[r] = square[r][c];
                        }
                        let to = to.add((i + c) * to_row + j);
                        to.cast::<[f32; SIDE]>().write(line);
                    }
                }
            }
            for j in 0..columns {
                let start = if j < whole_columns { whole_count } else { 0 };
                for i in start..count {
                    *to.add(i * to_row + j) = *from.add(j * from_row + i);
                }
            }
        }
    }
}
