//! The optimizer step and the gradient norm.

use crate::simd::{self, Shared, Simd, Vectorized, for_each, load, store, with_scratch};

/// The numbers of one decoupled-weight-decay Adam step, the same for every parameter (Loshchilov and Hutter 2017,
/// [arXiv 1711.05101](https://arxiv.org/abs/1711.05101), as `torch.optim.AdamW` computes it).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWStep {
    /// Learning rate of this step.
    pub learning_rate: f64,
    /// Decay of the running mean of the gradient.
    pub beta1: f64,
    /// Decay of the running mean of the squared gradient.
    pub beta2: f64,
    /// Added to the square root in the denominator, after the bias correction.
    pub epsilon: f64,
    /// Decoupled weight decay; the parameter shrinks by `learning_rate * weight_decay`.
    pub weight_decay: f64,
    /// Number of this step, from 1.
    pub step: usize,
    /// What the gradient is multiplied by first: the clipping factor, or 1.
    pub gradient_scale: f64,
    /// Which parameter of a network it is: where moments are bf16, it decides their rounding with the step's number.
    pub parameter: usize,
}

impl AdamWStep {
    /// 1 - beta^step for both moments, in f64.
    pub(crate) fn bias_corrections(&self) -> (f64, f64) {
        let step = self.step as f64;
        (1.0 - self.beta1.powf(step), 1.0 - self.beta2.powf(step))
    }
}

/// Elements that one task takes.
const ELEMENTS: usize = 16 * 1024;

/// One step in place. The slices have one length.
pub(crate) fn adamw(
    step: &AdamWStep,
    param: &mut [f32],
    grad: &[f32],
    moment1: &mut [f32],
    moment2: &mut [f32],
) {
    let count = param.len();
    assert!(grad.len() == count && moment1.len() == count && moment2.len() == count);
    let numbers = AdamWNumbers::of(step);
    let [param, moment1, moment2] = [param, moment1, moment2].map(Shared::new);
    for_each(count > ELEMENTS, count.div_ceil(ELEMENTS), |task| {
        let first = task * ELEMENTS;
        let here = &grad[first..count.min(first + ELEMENTS)];
        // SAFETY: the slices have one length, and each task writes its own part of them.
        unsafe {
            simd::run(AdamWPart {
                numbers,
                grad: here.as_ptr(),
                param: param.at(first),
                moment1: moment1.at(first),
                moment2: moment2.at(first),
                count: here.len(),
            });
        }
    });
}

/// The same with moments in bf16, given by their bits: the upper half of an f32's. A second moment grows by a thousandth of the
/// gradient's square, which the eight bits of bf16 do not see; so each is rounded up as often as it lies near the number above, and
/// its mean over steps is right (as in Gupta et al. 2015, [arXiv 1502.02551](https://arxiv.org/abs/1502.02551)).
pub(crate) fn adamw_bf16(
    step: &AdamWStep,
    param: &mut [f32],
    grad: &[f32],
    moment1: &mut [u16],
    moment2: &mut [u16],
) {
    use rayon::prelude::*;
    let count = param.len();
    assert!(grad.len() == count && moment1.len() == count && moment2.len() == count);
    let numbers = AdamWNumbers::of(step);
    let parts = param
        .par_chunks_mut(ELEMENTS)
        .zip(grad.par_chunks(ELEMENTS))
        .zip(moment1.par_chunks_mut(ELEMENTS))
        .zip(moment2.par_chunks_mut(ELEMENTS));
    parts
        .enumerate()
        .for_each(|(part, (((param, grad), moment1), moment2))| {
            let count = param.len();
            with_scratch(2 * ELEMENTS, |scratch| {
                // SAFETY: the scratch memory has room for both moments, which are written before they are read; the slices
                // have one length, and each task has its own part of them.
                let wide = unsafe {
                    widen(moment1, scratch.start());
                    widen(moment2, scratch.at(ELEMENTS));
                    simd::run(AdamWPart {
                        numbers,
                        grad: grad.as_ptr(),
                        param: param.as_mut_ptr(),
                        moment1: scratch.start(),
                        moment2: scratch.at(ELEMENTS),
                        count,
                    });
                    [scratch.start(), scratch.at(ELEMENTS)]
                        .map(|start| std::slice::from_raw_parts(start, count))
                };
                for (which, (wide, narrow)) in wide.into_iter().zip([moment1, moment2]).enumerate()
                {
                    let stream = [step.step, step.parameter, which, part];
                    let seed = stream.iter().fold(0, |seed, &n| mixed(seed ^ n as u32));
                    round(wide, narrow, seed);
                }
            });
        });
}

/// # Safety
///
/// `to` is writable for as many floats.
unsafe fn widen(from: &[u16], to: *mut f32) {
    for (i, &bits) in from.iter().enumerate() {
        // SAFETY: the caller's.
        unsafe { *to.add(i) = wide(bits) };
    }
}

fn wide(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// Rounds to one of the two neighboring numbers, to each as often as it is near. Infinity and NaN stay.
fn round(from: &[f32], to: &mut [u16], seed: u32) {
    for (i, (value, to)) in from.iter().zip(to).enumerate() {
        let bits = value.to_bits();
        let chance = mixed(seed ^ i as u32) & 0xffff;
        let rounded = match value.is_finite() {
            true => bits + chance,
            false => bits,
        };
        *to = (rounded >> 16) as u16;
    }
}

/// A number that looks as if drawn by chance, another one for each (MurmurHash3's last step).
fn mixed(n: u32) -> u32 {
    let n = (n ^ (n >> 16)).wrapping_mul(0x85eb_ca6b);
    let n = (n ^ (n >> 13)).wrapping_mul(0xc2b2_ae35);
    n ^ (n >> 16)
}

/// [`AdamWStep`] as the vector code wants it.
#[derive(Clone, Copy)]
struct AdamWNumbers {
    gradient_scale: f32,
    beta1: f32,
    rest1: f32,
    beta2: f32,
    rest2: f32,
    root_scale: f32,
    epsilon: f32,
    decay: f32,
    rate: f32,
}

impl AdamWNumbers {
    fn of(step: &AdamWStep) -> Self {
        let (correction1, correction2) = step.bias_corrections();
        Self {
            gradient_scale: step.gradient_scale as f32,
            beta1: step.beta1 as f32,
            rest1: (1.0 - step.beta1) as f32,
            beta2: step.beta2 as f32,
            rest2: (1.0 - step.beta2) as f32,
            root_scale: (1.0 / correction2.sqrt()) as f32,
            epsilon: step.epsilon as f32,
            decay: (1.0 - step.learning_rate * step.weight_decay) as f32,
            rate: (step.learning_rate / correction1) as f32,
        }
    }
}

/// Of `count` floats each; all but `grad` are writable.
struct AdamWPart {
    numbers: AdamWNumbers,
    grad: *const f32,
    param: *mut f32,
    moment1: *mut f32,
    moment2: *mut f32,
    count: usize,
}

impl Vectorized for AdamWPart {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self, simd: S) {
        let Self {
            numbers,
            grad,
            param,
            moment1,
            moment2,
            count,
        } = self;
        let f = |v: f32| simd.splat_f32s(v);
        let mut i = 0;
        while i < count {
            let left = count - i;
            // SAFETY: `left` floats are left.
            unsafe {
                let g = simd.mul_f32s(load(simd, grad.add(i), left), f(numbers.gradient_scale));
                let m = simd.mul_f32s(load(simd, moment1.add(i), left), f(numbers.beta1));
                let m = simd.mul_add_e_f32s(g, f(numbers.rest1), m);
                let v = simd.mul_f32s(load(simd, moment2.add(i), left), f(numbers.beta2));
                let v = simd.mul_add_e_f32s(simd.mul_f32s(g, g), f(numbers.rest2), v);
                let root = simd.sqrt_f32s(v);
                let root = simd.mul_add_e_f32s(root, f(numbers.root_scale), f(numbers.epsilon));
                let p = simd.mul_f32s(load(simd, param.add(i), left), f(numbers.decay));
                let p = simd.mul_add_e_f32s(simd.div_f32s(m, root), f(-numbers.rate), p);
                store(simd, param.add(i), left, p);
                store(simd, moment1.add(i), left, m);
                store(simd, moment2.add(i), left, v);
            }
            i += S::F32_LANES;
        }
    }
}

/// Sum of squares: in f32 over short runs of each lane, then in f64 in the order of the elements.
pub(crate) fn sum_squares(x: &[f32]) -> f64 {
    let mut parts = vec![0.0f32; x.len().div_ceil(RUN)];
    let shared = Shared::new(&mut parts);
    for_each(x.len() > ELEMENTS, x.len().div_ceil(ELEMENTS), |task| {
        let here = &x[task * ELEMENTS..x.len().min((task + 1) * ELEMENTS)];
        for (r, run) in here.chunks(RUN).enumerate() {
            // SAFETY: each run has its own part.
            unsafe {
                *shared.at(task * (ELEMENTS / RUN) + r) = simd::run(SumOfSquares {
                    x: run.as_ptr(),
                    count: run.len(),
                });
            }
        }
    });
    parts.iter().map(|part| *part as f64).sum()
}

/// Elements that [`sum_squares`] adds in f32.
const RUN: usize = 256;

/// Of `count` floats.
struct SumOfSquares {
    x: *const f32,
    count: usize,
}

impl Vectorized for SumOfSquares {
    type Output = f32;

    #[inline(always)]
    unsafe fn run<S: Simd>(self, simd: S) -> f32 {
        let Self { x, count } = self;
        let mut sum = simd.splat_f32s(0.0);
        let mut i = 0;
        while i < count {
            // SAFETY: `count - i` floats are left.
            let v = unsafe { load(simd, x.add(i), count - i) };
            sum = simd.mul_add_e_f32s(v, v, sum);
            i += S::F32_LANES;
        }
        simd.reduce_sum_f32s(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_right_on_average_and_keeps_what_bf16_has() {
        // A quarter of the way between two neighbors.
        let (below, above) = (1.0f32, 1.0 + 1.0 / 128.0);
        let count = if cfg!(miri) { 400 } else { 40_000 };
        let values = vec![below + 0.25 * (above - below); count];
        let mut rounded = vec![0; values.len()];
        round(&values, &mut rounded, 7);
        let up = rounded.iter().filter(|r| wide(**r) == above).count();
        let down = rounded.iter().filter(|r| wide(**r) == below).count();
        assert_eq!(up + down, values.len());
        assert!(
            (up as f64 / values.len() as f64 - 0.25).abs() < 0.01,
            "{up}"
        );
        let same = [0.0, -2.5, f32::INFINITY, f32::NEG_INFINITY];
        let mut rounded = [1; 4];
        for seed in 0..100 {
            round(&same, &mut rounded, seed);
            assert_eq!(rounded.map(wide), same);
        }
        let mut rounded = [1];
        round(&[f32::NAN], &mut rounded, 1);
        assert!(wide(rounded[0]).is_nan());
    }

    #[test]
    fn moments_in_bf16_follow_those_in_f32() {
        // Miri is a thousand times slower.
        let (count, steps, near) = if cfg!(miri) {
            (40, 3, 0.05)
        } else {
            (ELEMENTS + 33, 300, 1e-3)
        };
        let gradient = |step: usize, i: usize| ((i * 31 + step * 17) % 101) as f32 / 101.0 - 0.3;
        let (mut a, mut b) = (vec![1.0f32; count], vec![1.0f32; count]);
        let (mut m, mut v) = (vec![0.0f32; count], vec![0.0f32; count]);
        let (mut m16, mut v16) = (vec![0; count], vec![0; count]);
        for number in 1..=steps {
            let step = AdamWStep {
                learning_rate: 1e-3,
                beta1: 0.95,
                beta2: 0.999,
                epsilon: 1e-8,
                weight_decay: 0.0,
                step: number,
                gradient_scale: 1.0,
                parameter: 3,
            };
            let grad: Vec<f32> = (0..count).map(|i| gradient(number, i)).collect();
            adamw(&step, &mut a, &grad, &mut m, &mut v);
            adamw_bf16(&step, &mut b, &grad, &mut m16, &mut v16);
        }
        let moved = a
            .iter()
            .map(|a| f64::from(a - 1.0).powi(2))
            .sum::<f64>()
            .sqrt();
        let apart = a.iter().zip(&b).map(|(a, b)| f64::from(a - b).powi(2));
        let apart = apart.sum::<f64>().sqrt();
        assert!(apart < 10.0 * near * moved, "{apart} of {moved}");
        // To the nearest it would stay at what the first steps left: a thousandth is less than half of bf16's steps.
        let mean = |v: &[f32]| v.iter().map(|v| f64::from(*v)).sum::<f64>() / count as f64;
        let v16: Vec<f32> = v16.into_iter().map(wide).collect();
        assert!(
            (mean(&v16) / mean(&v) - 1.0).abs() < near,
            "{} {}",
            mean(&v16),
            mean(&v)
        );
    }
}
