//! Moves of whole pixels: joining and splitting channels, doubling an image, and SiLU on its own.

use crate::simd::{self, Shared, Simd, Vectorized, filled, for_each, load, store};

/// Pixels or lines that one task moves, in floats.
const FLOATS: usize = 32 * 1024;

/// `[rows, m]` and `[rows, n]` side by side.
pub(crate) fn concat(a: &[f32], b: &[f32], m: usize, n: usize) -> Vec<f32> {
    let width = m + n;
    let rows = (a.len() + b.len()) / width;
    assert!(a.len() == rows * m && b.len() == rows * n, "concat: rows");
    let work = |y: Shared| {
        for_each_rows(rows, width, |first, end| {
            for r in first..end {
                let (a, b) = (&a[r * m..(r + 1) * m], &b[r * n..(r + 1) * n]);
                // SAFETY: each task writes its own rows.
                unsafe {
                    std::ptr::copy_nonoverlapping(a.as_ptr(), y.at(r * width), m);
                    std::ptr::copy_nonoverlapping(b.as_ptr(), y.at(r * width + m), n);
                }
            }
        });
    };
    // SAFETY: every row is written.
    unsafe { filled(rows * width, work) }
}

/// `count` columns from `first` on of `[rows, width]`.
pub(crate) fn columns(x: &[f32], width: usize, first: usize, count: usize) -> Vec<f32> {
    let rows = x.len() / width;
    let work = |y: Shared| {
        for_each_rows(rows, count, |from, end| {
            for r in from..end {
                let x = &x[r * width + first..][..count];
                // SAFETY: each task writes its own rows.
                unsafe { std::ptr::copy_nonoverlapping(x.as_ptr(), y.at(r * count), count) };
            }
        });
    };
    // SAFETY: every row is written.
    unsafe { filled(rows * count, work) }
}

/// Each pixel of `[lines, width, channels]` four times: `[2 lines, 2 width, channels]`.
pub(crate) fn double(x: &[f32], width: usize, channels: usize) -> Vec<f32> {
    let line = width * channels;
    assert!(x.len().is_multiple_of(line), "upsample: lines of {line}");
    let work = |y: Shared| {
        for_each_rows(x.len() / line, 4 * line, |first, end| {
            for r in first..end {
                let pixels = x[r * line..(r + 1) * line].chunks_exact(channels);
                for (p, x) in pixels.enumerate() {
                    for to in [4 * r * line, (4 * r + 2) * line] {
                        for copy in 0..2 {
                            // SAFETY: each task writes the lines that its own become.
                            unsafe {
                                let to = y.at(to + (2 * p + copy) * channels);
                                std::ptr::copy_nonoverlapping(x.as_ptr(), to, channels);
                            }
                        }
                    }
                }
            }
        });
    };
    // SAFETY: every pixel is written.
    unsafe { filled(4 * x.len(), work) }
}

/// The transpose of [`double`]: sums of four pixels, `dy` having `width` of them in a line of the result.
pub(crate) fn double_gradient(dy: &[f32], width: usize, channels: usize) -> Vec<f32> {
    let line = width * channels;
    assert!(
        dy.len().is_multiple_of(4 * line),
        "upsample: pairs of lines of 2 x {line}"
    );
    let work = |dx: Shared| {
        for_each_rows(dy.len() / (4 * line), 4 * line, |first, end| {
            for r in first..end {
                let dy = &dy[4 * r * line..][..4 * line];
                // SAFETY: each task writes its own lines.
                unsafe {
                    simd::run(AddSquares {
                        dy: dy.as_ptr(),
                        width,
                        channels,
                        dx: dx.at(r * line),
                    });
                }
            }
        });
    };
    // SAFETY: every pixel is written.
    unsafe { filled(dy.len() / 4, work) }
}

/// Sums the squares of four pixels in two lines of `dy` to one line of `dx`, `[width, channels]`, which is writable.
struct AddSquares {
    dy: *const f32,
    width: usize,
    channels: usize,
    dx: *mut f32,
}

impl Vectorized for AddSquares {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self, simd: S) {
        let Self {
            dy,
            width,
            channels,
            dx,
        } = self;
        let below = 2 * width * channels;
        for p in 0..width {
            let mut c = 0;
            while c < channels {
                let lanes = (channels - c).min(S::F32_LANES);
                // SAFETY: `lanes` channels of pixel `p` are left, in the result and in each of the four.
                unsafe {
                    let (dy, dx) = (dy.add(2 * p * channels + c), dx.add(p * channels + c));
                    let a = load(simd, dy, lanes);
                    let b = load(simd, dy.add(channels), lanes);
                    let d = load(simd, dy.add(below), lanes);
                    let e = load(simd, dy.add(below + channels), lanes);
                    let sum = simd.add_f32s(simd.add_f32s(a, b), simd.add_f32s(d, e));
                    store(simd, dx, lanes, sum);
                }
                c += S::F32_LANES;
            }
        }
    }
}

/// x sigmoid(x).
pub(crate) fn silu(x: &[f32]) -> Vec<f32> {
    let work = |y: Shared| {
        for_each_rows(x.len(), 1, |first, end| {
            // SAFETY: each task writes its own elements.
            unsafe {
                simd::run(Silu {
                    x: x[first..end].as_ptr(),
                    count: end - first,
                    y: y.at(first),
                });
            }
        });
    };
    // SAFETY: every element is written.
    unsafe { filled(x.len(), work) }
}

/// dy times the derivative of [`silu`] at x.
pub(crate) fn silu_gradient(x: &[f32], dy: &[f32]) -> Vec<f32> {
    assert_eq!(x.len(), dy.len(), "silu: the result's gradient");
    let work = |dx: Shared| {
        for_each_rows(x.len(), 1, |first, end| {
            // SAFETY: each task writes its own elements.
            unsafe {
                simd::run(SiluGradient {
                    x: x[first..end].as_ptr(),
                    dy: dy[first..end].as_ptr(),
                    count: end - first,
                    dx: dx.at(first),
                });
            }
        });
    };
    // SAFETY: every element is written.
    unsafe { filled(x.len(), work) }
}

/// Of `count` floats each; `y` is writable.
struct Silu {
    x: *const f32,
    count: usize,
    y: *mut f32,
}

impl Vectorized for Silu {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self, simd: S) {
        let Self { x, count, y } = self;
        let mut i = 0;
        while i < count {
            // SAFETY: `count - i` floats are left.
            unsafe {
                let v = load(simd, x.add(i), count - i);
                let value = simd.mul_f32s(v, simd::sigmoid(simd, v));
                store(simd, y.add(i), count - i, value);
            }
            i += S::F32_LANES;
        }
    }
}

/// Of `count` floats each; `dx` is writable.
struct SiluGradient {
    x: *const f32,
    dy: *const f32,
    count: usize,
    dx: *mut f32,
}

impl Vectorized for SiluGradient {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self, simd: S) {
        let Self { x, dy, count, dx } = self;
        let mut i = 0;
        while i < count {
            // SAFETY: `count - i` floats are left.
            unsafe {
                let v = load(simd, x.add(i), count - i);
                let s = simd::sigmoid(simd, v);
                let rest = simd.mul_f32s(v, simd.sub_f32s(simd.splat_f32s(1.0), s));
                let slope = simd.mul_add_e_f32s(s, rest, s);
                let dy = load(simd, dy.add(i), count - i);
                store(simd, dx.add(i), count - i, simd.mul_f32s(dy, slope));
            }
            i += S::F32_LANES;
        }
    }
}

/// Runs `task(first, end)` over rows of `width` floats.
fn for_each_rows(rows: usize, width: usize, task: impl Fn(usize, usize) + Sync + Send) {
    let share = (FLOATS / width.max(1)).max(1);
    for_each(rows > share, rows.div_ceil(share), |s| {
        task(s * share, rows.min((s + 1) * share))
    });
}
