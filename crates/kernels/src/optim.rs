//! The optimizer step and the gradient norm.

use crate::simd::{self, Shared, Simd, Vectorized, for_each, load, store};

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
    let (correction1, correction2) = step.bias_corrections();
    let numbers = AdamWNumbers {
        gradient_scale: step.gradient_scale as f32,
        beta1: step.beta1 as f32,
        rest1: (1.0 - step.beta1) as f32,
        beta2: step.beta2 as f32,
        rest2: (1.0 - step.beta2) as f32,
        root_scale: (1.0 / correction2.sqrt()) as f32,
        epsilon: step.epsilon as f32,
        decay: (1.0 - step.learning_rate * step.weight_decay) as f32,
        rate: (step.learning_rate / correction1) as f32,
    };
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
