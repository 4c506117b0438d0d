//! The exact GELU, x times the normal distribution's cumulative probability at x, alone and as a gate.
//!
//! With a = |x| and t = 1 / (1 + 0.26 a), the probability of less than -a is exp(-a²/2) t P(t), P being the
//! polynomial of degree 8 whose largest relative error, 2e-8 for a up to 13.5, is the least (found by a
//! weighted least-squares fit to erfc(a/√2) exp(a²/2) / 2). Unlike 1 + erf it keeps its digits in the tail,
//! and its exponential is the density that the derivative needs.

use crate::simd::{self, Shared, Simd, Vectorized, filled, for_each, load, store};

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
    let work = |y: Shared| {
        shares(x.len(), |first, count| {
            // SAFETY: each task writes its own elements.
            unsafe {
                simd::run(Gelu {
                    x: x[first..].as_ptr(),
                    count,
                    y: y.at(first),
                });
            }
        });
    };
    // SAFETY: every element is written.
    unsafe { filled(x.len(), work) }
}

/// dy times the derivative of [`gelu`] at x.
pub(crate) fn gelu_gradient(x: &[f32], dy: &[f32]) -> Vec<f32> {
    assert_eq!(x.len(), dy.len(), "gelu: the result's gradient");
    let work = |dx: Shared| {
        shares(x.len(), |first, count| {
            // SAFETY: each task writes its own elements.
            unsafe {
                simd::run(GeluGradient {
                    x: x[first..].as_ptr(),
                    dy: dy[first..].as_ptr(),
                    count,
                    dx: dx.at(first),
                });
            }
        });
    };
    // SAFETY: every element is written.
    unsafe { filled(x.len(), work) }
}

/// The first half of each row of `[rows, 2 width]` times GELU of the second: `[rows, width]`.
pub(crate) fn geglu(x: &[f32], width: usize) -> Vec<f32> {
    assert!(
        x.len().is_multiple_of(2 * width),
        "geglu: rows of 2 x {width}"
    );
    let work = |y: Shared| {
        row_shares(x.len() / (2 * width), width, |row, first, count| {
            let value = x[2 * row * width + first..].as_ptr();
            // SAFETY: the gates are `width` floats behind the values; each task writes its own part of a row.
            unsafe {
                simd::run(Geglu {
                    value,
                    gate: value.add(width),
                    count,
                    y: y.at(row * width + first),
                });
            }
        });
    };
    // SAFETY: every row is written.
    unsafe { filled(x.len() / 2, work) }
}

/// The gradient of [`geglu`]'s x for its result's, `dy`.
pub(crate) fn geglu_gradient(x: &[f32], dy: &[f32], width: usize) -> Vec<f32> {
    assert!(
        x.len() == 2 * dy.len() && dy.len().is_multiple_of(width),
        "geglu: the result's gradient"
    );
    let work = |dx: Shared| {
        row_shares(dy.len() / width, width, |row, first, count| {
            let at = 2 * row * width + first;
            let value = x[at..].as_ptr();
            // SAFETY: the gates are `width` floats behind the values; each task writes its own parts of a row.
            unsafe {
                let dvalue = dx.at(at);
                simd::run(GegluGradient {
                    value,
                    gate: value.add(width),
                    dy: dy[row * width + first..].as_ptr(),
                    count,
                    dvalue,
                    dgate: dvalue.add(width),
                });
            }
        });
    };
    // SAFETY: both halves of every row are written.
    unsafe { filled(x.len(), work) }
}

/// Of `count` floats each; `y` is writable.
struct Gelu {
    x: *const f32,
    count: usize,
    y: *mut f32,
}

impl Vectorized for Gelu {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self, simd: S) {
        let Self { x, count, y } = self;
        let mut i = 0;
        while i < count {
            // SAFETY: `count - i` floats are left.
            unsafe {
                let value = gelu_of(simd, load(simd, x.add(i), count - i));
                store(simd, y.add(i), count - i, value);
            }
            i += S::F32_LANES;
        }
    }
}

/// Of `count` floats each; `dx` is writable.
struct GeluGradient {
    x: *const f32,
    dy: *const f32,
    count: usize,
    dx: *mut f32,
}

impl Vectorized for GeluGradient {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self, simd: S) {
        let Self { x, dy, count, dx } = self;
        let mut i = 0;
        while i < count {
            // SAFETY: `count - i` floats are left.
            unsafe {
                let (_, slope) = gelu_and_slope(simd, load(simd, x.add(i), count - i));
                let dy = load(simd, dy.add(i), count - i);
                store(simd, dx.add(i), count - i, simd.mul_f32s(dy, slope));
            }
            i += S::F32_LANES;
        }
    }
}

/// Of `count` floats each; `y` is writable.
struct Geglu {
    value: *const f32,
    gate: *const f32,
    count: usize,
    y: *mut f32,
}

impl Vectorized for Geglu {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self, simd: S) {
        let Self {
            value,
            gate,
            count,
            y,
        } = self;
        let mut i = 0;
        while i < count {
            // SAFETY: `count - i` floats are left.
            unsafe {
                let gate = gelu_of(simd, load(simd, gate.add(i), count - i));
                let value = load(simd, value.add(i), count - i);
                store(simd, y.add(i), count - i, simd.mul_f32s(value, gate));
            }
            i += S::F32_LANES;
        }
    }
}

/// Of `count` floats each; `dvalue` and `dgate` are writable.
struct GegluGradient {
    value: *const f32,
    gate: *const f32,
    dy: *const f32,
    count: usize,
    dvalue: *mut f32,
    dgate: *mut f32,
}

impl Vectorized for GegluGradient {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self, simd: S) {
        let Self {
            value,
            gate,
            dy,
            count,
            dvalue,
            dgate,
        } = self;
        let mut i = 0;
        while i < count {
            let rest = count - i;
            // SAFETY: `rest` floats are left.
            unsafe {
                let (gate, slope) = gelu_and_slope(simd, load(simd, gate.add(i), rest));
                let dy = load(simd, dy.add(i), rest);
                store(simd, dvalue.add(i), rest, simd.mul_f32s(dy, gate));
                let weighted = simd.mul_f32s(dy, load(simd, value.add(i), rest));
                store(simd, dgate.add(i), rest, simd.mul_f32s(weighted, slope));
            }
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
