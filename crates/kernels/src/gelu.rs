//! The exact GELU, x times the normal distribution's cumulative probability at x, alone and as a gate.
//!
//! With a = |x| and t = 1 / (1 + 0.26 a), the probability of less than -a is exp(-a²/2) t P(t), P being the
//! polynomial of degree 8 whose largest relative error, 2e-8 for a up to 13.5, is the least (found by a
//! weighted least-squares fit to erfc(a/√2) exp(a²/2) / 2). Unlike 1 + erf it keeps its digits in the tail,
//! and its exponential is the density that the derivative needs.

use crate::simd::{self, Shared, Simd, filled, for_each, load, store, vectorized};

/// Elements that one task handles.
const ELEMENTS: usize = 16 * 1024;

const P: [f32; 9] = [
    0.103_761_26,
    0.102_980_22,
    0.103_285_39,
    0.050_047_055,
    0.163_220_26,
    -0.154_206_23,
    0.254_317_7,
    -0.154_189_23,
    0.030_783_575,
];

/// The probability of less than -|x|, and exp(-x²/2).
#[inline(always)]
fn tail<S: Simd>(simd: S, x: S::f32s) -> (S::f32s, S::f32s) {
    let f = |value: f32| simd.splat_f32s(value);
    let a = simd.abs_f32s(x);
    let t = simd.div_f32s(f(1.0), simd.mul_add_e_f32s(a, f(0.26), f(1.0)));
    let mut p = f(P[8]);
    for c in P[..8].iter().rev() {
        p = simd.mul_add_e_f32s(p, t, f(*c));
    }
    let bell = simd::exp(simd, simd.mul_f32s(simd.mul_f32s(a, a), f(-0.5)));
    (simd.mul_f32s(bell, simd.mul_f32s(p, t)), bell)
}

/// The cumulative probability at x, and exp(-x²/2).
#[inline(always)]
fn cumulative<S: Simd>(simd: S, x: S::f32s) -> (S::f32s, S::f32s) {
    let (tail, bell) = tail(simd, x);
    let below = simd.less_than_f32s(x, simd.splat_f32s(0.0));
    let above = simd.sub_f32s(simd.splat_f32s(1.0), tail);
    (simd.select_f32s(below, tail, above), bell)
}

/// As a product, infinity stays infinity, and its negative times 0 is NaN, as in PyTorch.
#[inline(always)]
fn gelu_of<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    simd.mul_f32s(x, cumulative(simd, x).0)
}

/// GELU and its derivative, the cumulative probability plus x times the density.
#[inline(always)]
fn gelu_and_slope<S: Simd>(simd: S, x: S::f32s) -> (S::f32s, S::f32s) {
    let (cumulative, bell) = cumulative(simd, x);
    let density = simd.mul_f32s(bell, simd.splat_f32s(0.398_942_3));
    let value = simd.mul_f32s(x, cumulative);
    (value, simd.mul_add_e_f32s(x, density, cumulative))
}

/// GELU of every element.
pub(crate) fn gelu(x: &[f32]) -> Vec<f32> {
    let work = |y: *mut f32| {
        let y = Shared::new(y);
        // SAFETY: each task writes its own elements.
        shares(x.len(), |first, count| unsafe {
            gelu_part(x[first..].as_ptr(), count, y.at(first));
        });
    };
    // SAFETY: every element is written.
    unsafe { filled(x.len(), work) }
}

/// dy times the derivative of [`gelu`] at x.
pub(crate) fn gelu_gradient(x: &[f32], dy: &[f32]) -> Vec<f32> {
    let work = |dx: *mut f32| {
        let dx = Shared::new(dx);
        // SAFETY: each task writes its own elements.
        shares(x.len(), |first, count| unsafe {
            gelu_gradient_part(
                x[first..].as_ptr(),
                dy[first..].as_ptr(),
                count,
                dx.at(first),
            );
        });
    };
    // SAFETY: every element is written.
    unsafe { filled(x.len(), work) }
}

/// The first half of each row of `[rows, 2 width]` times GELU of the second: `[rows, width]`.
pub(crate) fn geglu(x: &[f32], width: usize) -> Vec<f32> {
    let work = |y: *mut f32| {
        let y = Shared::new(y);
        // SAFETY: each task writes its own part of a row.
        row_shares(x.len() / (2 * width), width, |row, first, count| unsafe {
            let x = x[2 * row * width + first..].as_ptr();
            geglu_part(x, x.add(width), count, y.at(row * width + first));
        });
    };
    // SAFETY: every row is written.
    unsafe { filled(x.len() / 2, work) }
}

/// The gradient of [`geglu`]'s x for its result's, `dy`.
pub(crate) fn geglu_gradient(x: &[f32], dy: &[f32], width: usize) -> Vec<f32> {
    let work = |dx: *mut f32| {
        let dx = Shared::new(dx);
        // SAFETY: each task writes its own parts of a row.
        row_shares(dy.len() / width, width, |row, first, count| unsafe {
            let at = 2 * row * width + first;
            let x = x[at..].as_ptr();
            let dy = dy[row * width + first..].as_ptr();
            let dx = dx.at(at);
            geglu_gradient_part(x, x.add(width), dy, count, dx, dx.add(width));
        });
    };
    // SAFETY: both halves of every row are written.
    unsafe { filled(x.len(), work) }
}

vectorized! {
    unsafe fn gelu_part(simd; x: *const f32, count: usize, y: *mut f32) {
        let mut i = 0;
        while i < count {
            store(simd, y.add(i), count - i, gelu_of(simd, load(simd, x.add(i), count - i)));
            i += S::F32_LANES;
        }
    }
}

vectorized! {
    unsafe fn gelu_gradient_part(simd; x: *const f32, dy: *const f32, count: usize, dx: *mut f32) {
        let mut i = 0;
        while i < count {
            let (_, slope) = gelu_and_slope(simd, load(simd, x.add(i), count - i));
            store(simd, dx.add(i), count - i, simd.mul_f32s(load(simd, dy.add(i), count - i), slope));
            i += S::F32_LANES;
        }
    }
}

vectorized! {
    unsafe fn geglu_part(simd; value: *const f32, gate: *const f32, count: usize, y: *mut f32) {
        let mut i = 0;
        while i < count {
            let gate = gelu_of(simd, load(simd, gate.add(i), count - i));
            store(simd, y.add(i), count - i, simd.mul_f32s(load(simd, value.add(i), count - i), gate));
            i += S::F32_LANES;
        }
    }
}

vectorized! {
    unsafe fn geglu_gradient_part(
        simd; value: *const f32, gate: *const f32, dy: *const f32, count: usize, dvalue: *mut f32, dgate: *mut f32
    ) {
        let mut i = 0;
        while i < count {
            let rest = count - i;
            let (gate, slope) = gelu_and_slope(simd, load(simd, gate.add(i), rest));
            let dy = load(simd, dy.add(i), rest);
            store(simd, dvalue.add(i), rest, simd.mul_f32s(dy, gate));
            let dgate_of = simd.mul_f32s(simd.mul_f32s(dy, load(simd, value.add(i), rest)), slope);
            store(simd, dgate.add(i), rest, dgate_of);
            i += S::F32_LANES;
        }
    }
}

/// Runs `task(first, count)` over shares of `count` elements.
fn shares(count: usize, task: impl Fn(usize, usize) + Sync + Send) {
    for_each(count > ELEMENTS, count.div_ceil(ELEMENTS), |share| {
        let first = share * ELEMENTS;
        task(first, ELEMENTS.min(count - first));
    });
}

/// Runs `task(row, first, count)` over parts of rows.
fn row_shares(rows: usize, width: usize, task: impl Fn(usize, usize, usize) + Sync + Send) {
    let parts = width.div_ceil(ELEMENTS);
    let together = (ELEMENTS / width.max(1)).max(1);
    let groups = rows.div_ceil(together);
    for_each(rows * width > ELEMENTS, groups * parts, |share| {
        let (group, first) = (share / parts, share % parts * ELEMENTS);
        for row in group * together..rows.min((group + 1) * together) {
            task(row, first, ELEMENTS.min(width - first));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// scipy.special.ndtr in f64.
    const CUMULATIVE: [(f32, f64); 9] = [
        (-12.0, 1.776482112077679e-33),
        (-6.0, 9.865876450376946e-10),
        (-3.0, 0.0013498980316300933),
        (-1.0, 0.15865525393145707),
        (-0.25, 0.4012936743170763),
        (0.0, 0.5),
        (0.5, 0.6914624612740131),
        (2.0, 0.9772498680518208),
        (40.0, 1.0),
    ];

    #[test]
    fn values_have_full_precision_in_the_tails_too() {
        let x: Vec<f32> = CUMULATIVE.iter().map(|(x, _)| *x).collect();
        for (found, (x, cumulative)) in gelu(&x).into_iter().zip(CUMULATIVE) {
            let exact = f64::from(x) * cumulative;
            let error = (f64::from(found) - exact).abs();
            // exp(-x²/2) magnifies the rounding of x² far out.
            let bound = exact.abs() * (4.0 + f64::from(x * x)) * f64::from(f32::EPSILON);
            assert!(error <= bound, "gelu({x}) = {found:e}, {exact:e}");
        }
    }

    #[test]
    fn slopes_are_those_of_the_values() {
        for (x, cumulative) in CUMULATIVE {
            let wide = f64::from(x);
            let density = (-0.5 * wide * wide).exp() / (2.0 * std::f64::consts::PI).sqrt();
            let exact = cumulative + wide * density;
            let found = f64::from(gelu_gradient(&[x], &[1.0])[0]);
            assert!((found - exact).abs() < 5e-7, "at {x}: {found} {exact}");
        }
    }
}
