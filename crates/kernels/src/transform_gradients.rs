//! The transforms of the gradients of Winograd's F(4x4, 3x3): the transposes of those in [`crate::transform`].

#![allow(
    clippy::needless_range_loop,
    reason = "the indices are those of the matrices in the formulas"
)]

use crate::simd::{Simd, Vectorized, load, store};
use crate::transform::Tiling;

/// A y: the transpose of the transform of the output.
#[inline(always)]
fn gradient_1d<S: Simd>(simd: S, y: [S::f32s; 4]) -> [S::f32s; 6] {
    let f = |v: f32| simd.splat_f32s(v);
    let [y0, y1, y2, y3] = y;
    let (a, b) = (simd.add_f32s(y0, y2), simd.add_f32s(y1, y3));
    let c = simd.mul_add_e_f32s(f(4.0), y2, y0);
    let d = simd.mul_f32s(f(2.0), simd.mul_add_e_f32s(f(4.0), y3, y1));
    [
        y0,
        simd.add_f32s(a, b),
        simd.sub_f32s(a, b),
        simd.add_f32s(c, d),
        simd.sub_f32s(c, d),
        y3,
    ]
}

/// G^T u: the transpose of the transform of the weights.
#[inline(always)]
fn weight_gradient_1d<S: Simd>(simd: S, u: [S::f32s; 6]) -> [S::f32s; 3] {
    let f = |v: f32| simd.splat_f32s(v);
    let [u0, u1, u2, u3, u4, u5] = u;
    let (a, b) = (simd.add_f32s(u1, u2), simd.sub_f32s(u2, u1));
    let (c, d) = (simd.add_f32s(u3, u4), simd.sub_f32s(u3, u4));
    let sixths = simd.mul_f32s(simd.sub_f32s(c, a), f(1.0 / 6.0));
    let first = simd.mul_add_e_f32s(c, f(1.0 / 24.0), simd.mul_f32s(u0, f(0.25)));
    [
        simd.mul_add_e_f32s(a, f(-1.0 / 6.0), first),
        simd.mul_add_e_f32s(d, f(1.0 / 12.0), simd.mul_f32s(b, f(1.0 / 6.0))),
        simd.add_f32s(sixths, u5),
    ]
}

/// Transforms the output gradients of `count` tiles from `first` on into panels `[36][panels][tiles, width]`, as tiles
/// `at..` of them, with `stride` floats from frequency to frequency and `panel_stride` from panel to panel.
///
/// `dy` holds the images, `zeros` a pixel; the panels are writable, as wide as those of `pack_panel`.
pub(crate) struct TransformGradient {
    pub dy: *const f32,
    pub zeros: *const f32,
    pub tiling: Tiling,
    pub channels: usize,
    pub first: usize,
    pub count: usize,
    pub panels: *mut f32,
    pub stride: usize,
    pub panel_stride: usize,
    pub at: usize,
}

impl Vectorized for TransformGradient {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self, simd: S) {
        let Self {
            dy,
            zeros,
            tiling,
            channels,
            first,
            count,
            panels,
            stride,
            panel_stride,
            at,
        } = self;
        let width = 2 * S::F32_LANES;
        for t in 0..count {
            let (image, y0, x0) = tiling.place(first + t);
            // SAFETY: the tile's image exists, and so does each of its pixels that is asked for.
            let image = unsafe { dy.add(image * tiling.height * tiling.width * channels) };
            let mut from = [[zeros; 4]; 4];
            for i in 0..4 {
                for j in 0..4 {
                    if y0 + i < tiling.height && x0 + j < tiling.width {
                        let pixel = (y0 + i) * tiling.width + x0 + j;
                        // SAFETY: as above.
                        from[i][j] = unsafe { image.add(pixel * channels) };
                    }
                }
            }
            let mut c = 0;
            while c < channels {
                let left = channels - c;
                // A last panel of at most one vector is packed that narrow.
                let narrow = channels - c / width * width <= S::F32_LANES;
                let row = if narrow { S::F32_LANES } else { width };
                // SAFETY: `left` channels are left, and the panel has a row of whole vectors for tile `at + t`.
                unsafe {
                    let panel = panels.add(c / width * panel_stride);
                    let to = panel.add((at + t) * row + c % width);
                    if left >= S::F32_LANES {
                        gradient_tile(simd, &from, c, S::F32_LANES, to, stride);
                    } else {
                        gradient_tile(simd, &from, c, left, to, stride);
                    }
                }
                c += S::F32_LANES;
            }
        }
    }
}

/// # Safety
///
/// The 16 pixels have `count` channels from `c` on; a whole vector is writable at `to`, 36 times, `stride` floats apart.
#[inline(always)]
unsafe fn gradient_tile<S: Simd>(
    simd: S,
    from: &[[*const f32; 4]; 4],
    c: usize,
    count: usize,
    to: *mut f32,
    stride: usize,
) {
    let mut columns = [[simd.splat_f32s(0.0); 4]; 6];
    // SAFETY: the caller's.
    unsafe {
        for j in 0..4 {
            let mut d = [simd.splat_f32s(0.0); 4];
            for (i, d) in d.iter_mut().enumerate() {
                *d = load(simd, from[i][j].add(c), count);
            }
            let d = gradient_1d(simd, d);
            for i in 0..6 {
                columns[i][j] = d[i];
            }
        }
        for i in 0..6 {
            let d = gradient_1d(simd, columns[i]);
            for j in 0..6 {
                store(simd, to.add((i * 6 + j) * stride), S::F32_LANES, d[j]);
            }
        }
    }
}

/// Adds the `groups` parts of `u[36][rows, u_row]`, `group` floats apart, in their order and transforms the sum back
/// into `dw[9][rows, outputs]`, `tap` floats from tap to tap.
///
/// The rows of `u` are whole vectors, with `stride` floats from frequency to frequency; `dw` is writable.
pub(crate) struct TransformWeightGradient {
    pub u: *const f32,
    pub groups: usize,
    pub group: usize,
    pub stride: usize,
    pub u_row: usize,
    pub rows: usize,
    pub outputs: usize,
    pub tap: usize,
    pub dw: *mut f32,
}

impl Vectorized for TransformWeightGradient {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self, simd: S) {
        let Self {
            u,
            groups,
            group,
            stride,
            u_row,
            rows,
            outputs,
            tap,
            dw,
        } = self;
        for i in 0..rows {
            let mut c = 0;
            while c < outputs {
                // SAFETY: row `i` of each group's sums has a whole vector at `c`, row `i` of the result has
                // `outputs - c` floats left.
                unsafe {
                    let from = u.add(i * u_row + c);
                    let to = dw.add(i * outputs + c);
                    let mut columns = [[simd.splat_f32s(0.0); 6]; 3];
                    for j in 0..6 {
                        let mut g = [simd.splat_f32s(0.0); 6];
                        for (i, g) in g.iter_mut().enumerate() {
                            let from = from.add((i * 6 + j) * stride);
                            *g = load(simd, from, S::F32_LANES);
                            for n in 1..groups {
                                let part = load(simd, from.add(n * group), S::F32_LANES);
                                *g = simd.add_f32s(*g, part);
                            }
                        }
                        let g = weight_gradient_1d(simd, g);
                        for i in 0..3 {
                            columns[i][j] = g[i];
                        }
                    }
                    for i in 0..3 {
                        let g = weight_gradient_1d(simd, columns[i]);
                        for j in 0..3 {
                            store(simd, to.add((i * 3 + j) * tap), outputs - c, g[j]);
                        }
                    }
                }
                c += S::F32_LANES;
            }
        }
    }
}
