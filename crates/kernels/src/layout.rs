//! Moves of whole pixels: joining and splitting channels, doubling an image, and SiLU on its own.

use crate::simd::{self, Shared, filled, for_each, load, store, vectorized};

/// Pixels or lines that one task moves, in floats.
const FLOATS: usize = 32 * 1024;

/// `[rows, m]` and `[rows, n]` side by side.
pub(crate) fn concat(a: &[f32], b: &[f32], m: usize, n: usize) -> Vec<f32> {
    let width = m + n;
    let rows = (a.len() + b.len()) / width;
    let work = |y: *mut f32| {
        let y = Shared::new(y);
        for_each_rows(rows, width, |first, end| {
            for r in first..end {
                // SAFETY: each task writes its own rows.
                unsafe {
                    std::ptr::copy_nonoverlapping(
                        a[r * m..(r + 1) * m].as_ptr(),
                        y.at(r * width),
                        m,
                    );
                    std::ptr::copy_nonoverlapping(
                        b[r * n..(r + 1) * n].as_ptr(),
                        y.at(r * width + m),
                        n,
                    );
                }
            }
        });
    };
    // SAFETY: every row is written.
    unsafe { filled(a.len() + b.len(), work) }
}

/// `count` columns from `first` on of `[rows, width]`.
pub(crate) fn columns(x: &[f32], width: usize, first: usize, count: usize) -> Vec<f32> {
    let rows = x.len() / width;
    let work = |y: *mut f32| {
        let y = Shared::new(y);
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
    let work = |y: *mut f32| {
        let y = Shared::new(y);
        for_each_rows(x.len() / line, 4 * line, |first, end| {
            for r in first..end {
                for (p, x) in x[r * line..(r + 1) * line]
                    .chunks_exact(channels)
                    .enumerate()
                {
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
    let work = |dx: *mut f32| {
        let dx = Shared::new(dx);
        for_each_rows(dy.len() / (4 * line), 4 * line, |first, end| {
            for r in first..end {
                let dy = &dy[4 * r * line..][..4 * line];
                // SAFETY: each task writes its own lines.
                unsafe { add_squares(dy.as_ptr(), width, channels, dx.at(r * line)) };
            }
        });
    };
    // SAFETY: every pixel is written.
    unsafe { filled(dy.len() / 4, work) }
}

vectorized! {
    unsafe fn add_squares(simd; dy: *const f32, width: usize, channels: usize, dx: *mut f32) {
        let below = 2 * width * channels;
        for p in 0..width {
            let (dy, dx) = (dy.add(2 * p * channels), dx.add(p * channels));
            let mut c = 0;
            while c < channels {
                let lanes = (channels - c).min(S::F32_LANES);
                let a = load(simd, dy.add(c), lanes);
let b = load(simd, dy.add(channels + c), lanes);
let d = load(simd, dy.add(below + c), lanes);
let e = load(simd, dy.add(below + channels + c), lanes);
                store(simd, dx.add(c), lanes, simd.add_f32s(simd.add_f32s(a, b), simd.add_f32s(d, e)));
                c += S::F32_LANES;
            }
        }
    }
}

/// x sigmoid(x).
pub(crate) fn silu(x: &[f32]) -> Vec<f32> {
    let work = |y: *mut f32| {
        let y = Shared::new(y);
        for_each_rows(x.len(), 1, |first, end| {
            // SAFETY: each task writes its own elements.
            unsafe { silu_part(x[first..end].as_ptr(), end - first, y.at(first)) };
        });
    };
    // SAFETY: every element is written.
    unsafe { filled(x.len(), work) }
}

/// dy times the derivative of [`silu`] at x.
pub(crate) fn silu_gradient(x: &[f32], dy: &[f32]) -> Vec<f32> {
    let work = |dx: *mut f32| {
        let dx = Shared::new(dx);
        for_each_rows(x.len(), 1, |first, end| {
            // SAFETY: each task writes its own elements.
            unsafe {
                silu_gradient_part(
                    x[first..end].as_ptr(),
                    dy[first..end].as_ptr(),
                    end - first,
                    dx.at(first),
                )
            };
        });
    };
    // SAFETY: every element is written.
    unsafe { filled(x.len(), work) }
}

vectorized! {
    unsafe fn silu_part(simd; x: *const f32, count: usize, y: *mut f32) {
        let mut i = 0;
        while i < count {
            let v = load(simd, x.add(i), count - i);
            store(simd, y.add(i), count - i, simd.mul_f32s(v, simd::sigmoid(simd, v)));
            i += S::F32_LANES;
        }
    }
}

vectorized! {
    unsafe fn silu_gradient_part(simd; x: *const f32, dy: *const f32, count: usize, dx: *mut f32) {
        let mut i = 0;
        while i < count {
            let v = load(simd, x.add(i), count - i);
            let s = simd::sigmoid(simd, v);
            let rest = simd.mul_f32s(v, simd.sub_f32s(simd.splat_f32s(1.0), s));
            let slope = simd.mul_add_e_f32s(s, rest, s);
            store(simd, dx.add(i), count - i, simd.mul_f32s(load(simd, dy.add(i), count - i), slope));
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
