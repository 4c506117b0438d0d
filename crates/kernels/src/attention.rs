//! softmax(q kᵀ scale) v, a block of queries at a time, so that the scores of 4,096 x 4,096 tokens never
//! exist together. The backward pass computes its scores anew.

use crate::gemm::{Left, Right, Start, matmul, multiply, pack_panel, packed_len, panel_width};
use crate::simd::{self, Shared, filled, for_each, load, padded, store, vectorized, with_scratch};

/// Queries whose scores exist at one time, per thread.
const QUERIES: usize = 96;

/// Sizes of an attention; `heads` counts those of all images.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Attention {
    pub heads: usize,
    pub queries: usize,
    pub keys: usize,
    pub dim: usize,
    pub value_dim: usize,
    pub scale: f64,
}

impl Attention {
    fn work(&self) -> usize {
        self.heads * self.queries * self.keys * (self.dim + self.value_dim)
    }
}

pub(crate) fn forward(a: &Attention, q: &[f32], k: &[f32], v: &[f32]) -> Vec<f32> {
    let Attention {
        heads,
        queries,
        keys,
        dim,
        value_dim,
        scale,
    } = *a;
    let width = panel_width();
    let (key_panels, value_panels) = (keys.div_ceil(width), value_dim.div_ceil(width));
    let k_len = padded(packed_len(dim, keys));
    let head_len = k_len + padded(packed_len(keys, value_dim));
    let blocks = queries.div_ceil(QUERIES);
    let row = padded(keys);
    let parallel = a.work() > 64 * 1024;
    let work = |y: *mut f32| {
        let y = Shared::new(y);
        with_scratch(heads * head_len, |packed| {
            let packed = Shared::new(packed);
            let panels = key_panels + value_panels;
            // SAFETY: each task packs its own panel.
            for_each(parallel, heads * panels, |task| unsafe {
                let (head, panel) = (task / panels, task % panels);
                let to = packed.at(head * head_len);
                if panel < key_panels {
                    let b = Right {
                        pointer: k[head * keys * dim..].as_ptr(),
                        row: 1,
                        column: dim,
                    };
                    pack_panel(dim, keys, panel * width, b, to.add(panel * dim * width));
                } else {
                    let panel = panel - key_panels;
                    let b = Right {
                        pointer: v[head * keys * value_dim..].as_ptr(),
                        row: value_dim,
                        column: 1,
                    };
                    pack_panel(
                        keys,
                        value_dim,
                        panel * width,
                        b,
                        to.add(k_len + panel * keys * width),
                    );
                }
            });
            for_each(parallel, heads * blocks, |task| {
                let (head, first) = (task / blocks, task % blocks * QUERIES);
                let count = QUERIES.min(queries - first);
                // SAFETY: each task writes the results of its own queries.
                with_scratch(count * (row + dim), |scores| unsafe {
                    let from = (head * queries + first) * dim;
                    let scaled = scores.add(count * row);
                    scale_to(&q[from..from + count * dim], scale as f32, scaled);
                    let q = Left {
                        pointer: scaled,
                        row: dim,
                        column: 1,
                    };
                    let packed = packed.at(head * head_len);
                    multiply(
                        count,
                        keys,
                        dim,
                        q,
                        packed,
                        dim * width,
                        scores,
                        row,
                        Start::Zero,
                    );
                    for r in 0..count {
                        softmax(scores.add(r * row), keys);
                    }
                    let p = Left {
                        pointer: scores,
                        row,
                        column: 1,
                    };
                    let to = y.at((head * queries + first) * value_dim);
                    multiply(
                        count,
                        value_dim,
                        keys,
                        p,
                        packed.add(k_len),
                        keys * width,
                        to,
                        value_dim,
                        Start::Zero,
                    );
                });
            });
        });
    };
    // SAFETY: the tasks cover every query.
    unsafe { filled(heads * queries * value_dim, work) }
}

/// dq, dk and dv for the result's gradient `dy`.
pub(crate) fn backward(
    a: &Attention,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    dy: &[f32],
) -> [Vec<f32>; 3] {
    let Attention {
        heads,
        queries,
        keys,
        dim,
        value_dim,
        scale,
    } = *a;
    let mut dq = vec![0.0f32; q.len()];
    let mut dk = vec![0.0f32; k.len()];
    let mut dv = vec![0.0f32; v.len()];
    let row = padded(keys);
    let block = QUERIES.min(queries);
    let [to_q, to_k, to_v] = [&mut dq, &mut dk, &mut dv].map(|d| Shared::new(d.as_mut_ptr()));
    let side_by_side = heads >= rayon::current_num_threads();
    let worth = a.work() > 64 * 1024;
    let plain = |slice: &[f32], row: usize| Right {
        pointer: slice.as_ptr(),
        row,
        column: 1,
    };
    let turned = |slice: &[f32], column: usize| Right {
        pointer: slice.as_ptr(),
        row: 1,
        column,
    };
    for_each(worth && side_by_side, heads, |head| {
        let parallel = worth && !side_by_side;
        let k = &k[head * keys * dim..(head + 1) * keys * dim];
        let v = &v[head * keys * value_dim..(head + 1) * keys * value_dim];
        // SAFETY: each head has its own gradients; the matrices have the sizes given.
        with_scratch(block * (2 * row + dim), |p| unsafe {
            let ds = p.add(block * row);
            let scaled = ds.add(block * row);
            let dk = to_k.at(head * keys * dim);
            let dv = to_v.at(head * keys * value_dim);
            for first in (0..queries).step_by(block) {
                let count = block.min(queries - first);
                let at = head * queries + first;
                let q = &q[at * dim..(at + count) * dim];
                let dy = &dy[at * value_dim..(at + count) * value_dim];
                let left = |slice: &[f32], row: usize| Left {
                    pointer: slice.as_ptr(),
                    row,
                    column: 1,
                };
                scale_to(q, scale as f32, scaled);
                let scaled = std::slice::from_raw_parts(scaled, count * dim);
                matmul(
                    parallel,
                    count,
                    keys,
                    dim,
                    left(scaled, dim),
                    turned(k, dim),
                    p,
                    row,
                    Start::Zero,
                );
                matmul(
                    parallel,
                    count,
                    keys,
                    value_dim,
                    left(dy, value_dim),
                    turned(v, value_dim),
                    ds,
                    row,
                    Start::Zero,
                );
                for r in 0..count {
                    softmax(p.add(r * row), keys);
                    softmax_gradient(p.add(r * row), ds.add(r * row), keys, scale as f32);
                }
                let [p_turned, ds_turned] = [p, ds].map(|m| Left {
                    pointer: m,
                    row: 1,
                    column: row,
                });
                let ds = Left {
                    pointer: ds,
                    row,
                    column: 1,
                };
                matmul(
                    parallel,
                    keys,
                    value_dim,
                    count,
                    p_turned,
                    plain(dy, value_dim),
                    dv,
                    value_dim,
                    Start::Result,
                );
                matmul(
                    parallel,
                    keys,
                    dim,
                    count,
                    ds_turned,
                    plain(q, dim),
                    dk,
                    dim,
                    Start::Result,
                );
                matmul(
                    parallel,
                    count,
                    dim,
                    keys,
                    ds,
                    plain(k, dim),
                    to_q.at(at * dim),
                    dim,
                    Start::Zero,
                );
            }
        });
    });
    [dq, dk, dv]
}

/// The queries times the scale: scaled before the product, as the plain form does, scores overflow where its own do.
///
/// # Safety
///
/// `to` is writable for as many floats.
unsafe fn scale_to(queries: &[f32], scale: f32, to: *mut f32) {
    for (i, query) in queries.iter().enumerate() {
        // SAFETY: the caller's.
        unsafe { *to.add(i) = query * scale };
    }
}

vectorized! {
    /// x = softmax(x), in place. A row with a NaN or with positive infinity is all NaN: whatever the maximum made of
    /// NaN, its exponential is NaN, and so is the sum.
    unsafe fn softmax(simd; x: *mut f32, count: usize) {
        let whole = count - count % S::F32_LANES;
        let mut largest = f32::NEG_INFINITY;
        if whole > 0 {
            let mut most = simd.splat_f32s(f32::NEG_INFINITY);
            let mut i = 0;
            while i < whole {
                most = simd.max_f32s(most, load(simd, x.add(i), S::F32_LANES));
                i += S::F32_LANES;
            }
            largest = simd.reduce_max_f32s(most);
        }
        for i in whole..count {
            largest = largest.max(*x.add(i));
        }
        let most = simd.splat_f32s(largest);
        let mut sum = simd.splat_f32s(0.0);
        let mut i = 0;
        while i < whole {
            let e = simd::exp(simd, simd.sub_f32s(load(simd, x.add(i), S::F32_LANES), most));
            sum = simd.add_f32s(sum, e);
            store(simd, x.add(i), S::F32_LANES, e);
            i += S::F32_LANES;
        }
        let mut total = simd.reduce_sum_f32s(sum);
        for i in whole..count {
            let e = (*x.add(i) - largest).exp();
            total += e;
            *x.add(i) = e;
        }
        let share = simd.splat_f32s(1.0 / total);
        let mut i = 0;
        while i < count {
            store(simd, x.add(i), count - i, simd.mul_f32s(load(simd, x.add(i), count - i), share));
            i += S::F32_LANES;
        }
    }
}

vectorized! {
    /// d = p (d - <p, d>) scale, in place: from the gradient of softmax's result to that of the scores.
    unsafe fn softmax_gradient(simd; p: *const f32, d: *mut f32, count: usize, scale: f32) {
        let mut sum = simd.splat_f32s(0.0);
        let mut i = 0;
        while i < count {
            sum = simd.mul_add_e_f32s(load(simd, p.add(i), count - i), load(simd, d.add(i), count - i), sum);
            i += S::F32_LANES;
        }
        let mean = simd.splat_f32s(simd.reduce_sum_f32s(sum));
        let scale = simd.splat_f32s(scale);
        let mut i = 0;
        while i < count {
            let rest = simd.sub_f32s(load(simd, d.add(i), count - i), mean);
            let value = simd.mul_f32s(simd.mul_f32s(load(simd, p.add(i), count - i), scale), rest);
            store(simd, d.add(i), count - i, value);
            i += S::F32_LANES;
        }
    }
}
