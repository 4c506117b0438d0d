//! softmax(q kᵀ scale) v, a block of queries at a time, so that the scores of 4,096 x 4,096 tokens never
//! exist together. The backward pass computes its scores anew.

use crate::gemm::{
    Left, Panels, Product, Right, Start, matmul, pack_panel, packed_len, panel_width,
};
use crate::simd::{
    self, Shared, Simd, Vectorized, filled, for_each, load, padded, store, with_scratch,
};

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

    /// What the pointers below rely on.
    fn check(&self, q: &[f32], k: &[f32], v: &[f32]) {
        assert_eq!(q.len(), self.heads * self.queries * self.dim, "queries");
        assert_eq!(k.len(), self.heads * self.keys * self.dim, "keys");
        assert_eq!(v.len(), self.heads * self.keys * self.value_dim, "values");
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
    a.check(q, k, v);
    let width = panel_width();
    let (key_panels, value_panels) = (keys.div_ceil(width), value_dim.div_ceil(width));
    let k_len = padded(packed_len(dim, keys));
    let head_len = k_len + padded(packed_len(keys, value_dim));
    let blocks = queries.div_ceil(QUERIES);
    let row = padded(keys);
    let parallel = a.work() > 64 * 1024;
    let work = |y: Shared| {
        with_scratch(heads * head_len, |packed| {
            let panels = key_panels + value_panels;
            for_each(parallel, heads * panels, |task| {
                let (head, panel) = (task / panels, task % panels);
                // SAFETY: each task packs its own panel of a head's keys or values, for which `head_len` has room.
                unsafe {
                    let to = packed.at(head * head_len);
                    if panel < key_panels {
                        let b = Right::turned(k[head * keys * dim..].as_ptr(), dim);
                        let to = to.add(panel * dim * width);
                        pack_panel(dim, keys, panel * width, b, to);
                    } else {
                        let panel = panel - key_panels;
                        let b = Right::plain(v[head * keys * value_dim..].as_ptr(), value_dim);
                        let to = to.add(k_len + panel * keys * width);
                        pack_panel(keys, value_dim, panel * width, b, to);
                    }
                }
            });
            for_each(parallel, heads * blocks, |task| {
                let (head, first) = (task / blocks, task % blocks * QUERIES);
                let count = QUERIES.min(queries - first);
                let from = (head * queries + first) * dim;
                let q = &q[from..from + count * dim];
                with_scratch(count * (row + dim), |scores| {
                    // SAFETY: the scratch memory holds `count` rows of scores and then as many scaled queries, the
                    // panels are packed, and each task writes the results of its own queries.
                    unsafe {
                        let scaled = scores.at(count * row);
                        let scores = scores.start();
                        scale_to(q, scale as f32, scaled);
                        let packed = packed.at(head * head_len);
                        simd::run(Product {
                            rows: count,
                            columns: keys,
                            inner: dim,
                            a: Left::plain(scaled, dim),
                            b: Panels {
                                pointer: packed,
                                stride: dim * width,
                                then: packed.wrapping_add(k_len),
                            },
                            c: scores,
                            c_row: row,
                            start: Start::Zero,
                        });
                        for r in 0..count {
                            simd::run(Softmax {
                                x: scores.add(r * row),
                                count: keys,
                            });
                        }
                        simd::run(Product {
                            rows: count,
                            columns: value_dim,
                            inner: keys,
                            a: Left::plain(scores, row),
                            b: Panels {
                                pointer: packed.add(k_len),
                                stride: keys * width,
                                then: packed,
                            },
                            c: y.at((head * queries + first) * value_dim),
                            c_row: value_dim,
                            start: Start::Zero,
                        });
                    }
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
    a.check(q, k, v);
    assert_eq!(
        dy.len(),
        heads * queries * value_dim,
        "the result's gradient"
    );
    let mut dq = vec![0.0f32; q.len()];
    let mut dk = vec![0.0f32; k.len()];
    let mut dv = vec![0.0f32; v.len()];
    let row = padded(keys);
    let block = QUERIES.min(queries);
    let [to_q, to_k, to_v] = [&mut dq, &mut dk, &mut dv].map(|d| Shared::new(d));
    let side_by_side = heads >= rayon::current_num_threads();
    let worth = a.work() > 64 * 1024;
    for_each(worth && side_by_side, heads, |head| {
        let parallel = worth && !side_by_side;
        let k = &k[head * keys * dim..(head + 1) * keys * dim];
        let v = &v[head * keys * value_dim..(head + 1) * keys * value_dim];
        with_scratch(block * (2 * row + dim), |scratch| {
            for first in (0..queries).step_by(block) {
                let count = block.min(queries - first);
                let at = head * queries + first;
                let q = &q[at * dim..(at + count) * dim];
                let dy = &dy[at * value_dim..(at + count) * value_dim];
                // SAFETY: the scratch memory holds a block's probabilities, their gradients and scaled queries. Each head
                // has its own gradients, and the matrices have the sizes given.
                unsafe {
                    let p = scratch.start();
                    let ds = scratch.at(block * row);
                    let scaled = scratch.at(2 * block * row);
                    scale_to(q, scale as f32, scaled);
                    let scores = |a: Left, inner: usize, b: Right, c: *mut f32| Product {
                        rows: count,
                        columns: keys,
                        inner,
                        a,
                        b,
                        c,
                        c_row: row,
                        start: Start::Zero,
                    };
                    let (left, right) = (Left::plain(scaled, dim), Right::turned(k.as_ptr(), dim));
                    matmul(parallel, scores(left, dim, right, p));
                    let left = Left::plain(dy.as_ptr(), value_dim);
                    let right = Right::turned(v.as_ptr(), value_dim);
                    matmul(parallel, scores(left, value_dim, right, ds));
                    for r in 0..count {
                        let (p, d) = (p.add(r * row), ds.add(r * row));
                        simd::run(Softmax { x: p, count: keys });
                        simd::run(SoftmaxGradient {
                            p,
                            d,
                            count: keys,
                            scale: scale as f32,
                        });
                    }
                    // Of all queries of a head, block after block.
                    let over_queries =
                        |a: *const f32, b: &[f32], columns: usize, c: Shared| Product {
                            rows: keys,
                            columns,
                            inner: count,
                            a: Left::turned(a, row),
                            b: Right::plain(b.as_ptr(), columns),
                            c: c.at(head * keys * columns),
                            c_row: columns,
                            start: Start::Result,
                        };
                    matmul(parallel, over_queries(p, dy, value_dim, to_v));
                    matmul(parallel, over_queries(ds, q, dim, to_k));
                    let over_keys = Product {
                        rows: count,
                        columns: dim,
                        inner: keys,
                        a: Left::plain(ds, row),
                        b: Right::plain(k.as_ptr(), dim),
                        c: to_q.at(at * dim),
                        c_row: dim,
                        start: Start::Zero,
                    };
                    matmul(parallel, over_keys);
                }
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

/// x = softmax(x), in place. A row with a NaN or with positive infinity is all NaN: whatever the maximum made of
/// NaN, its exponential is NaN, and so is the sum.
///
/// `count` floats at `x` are writable.
struct Softmax {
    x: *mut f32,
    count: usize,
}

impl Vectorized for Softmax {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self, simd: S) {
        let Self { x, count } = self;
        let whole = count - count % S::F32_LANES;
        // SAFETY: every place is below `count`, and as many floats are loaded and stored as are left.
        unsafe {
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
                let above = simd.sub_f32s(load(simd, x.add(i), S::F32_LANES), most);
                let e = simd::exp(simd, above);
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
                let e = load(simd, x.add(i), count - i);
                store(simd, x.add(i), count - i, simd.mul_f32s(e, share));
                i += S::F32_LANES;
            }
        }
    }
}

/// d = p (d - <p, d>) scale, in place: from the gradient of softmax's result to that of the scores.
///
/// `count` floats at `p` are readable, as many at `d` writable.
struct SoftmaxGradient {
    p: *const f32,
    d: *mut f32,
    count: usize,
    scale: f32,
}

impl Vectorized for SoftmaxGradient {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self, simd: S) {
        let Self { p, d, count, scale } = self;
        // SAFETY: as many floats are loaded and stored as are left.
        unsafe {
            let mut sum = simd.splat_f32s(0.0);
            let mut i = 0;
            while i < count {
                let (p, d) = (
                    load(simd, p.add(i), count - i),
                    load(simd, d.add(i), count - i),
                );
                sum = simd.mul_add_e_f32s(p, d, sum);
                i += S::F32_LANES;
            }
            let mean = simd.splat_f32s(simd.reduce_sum_f32s(sum));
            let scale = simd.splat_f32s(scale);
            let mut i = 0;
            while i < count {
                let rest = simd.sub_f32s(load(simd, d.add(i), count - i), mean);
                let scaled = simd.mul_f32s(load(simd, p.add(i), count - i), scale);
                store(simd, d.add(i), count - i, simd.mul_f32s(scaled, rest));
                i += S::F32_LANES;
            }
        }
    }
}
