//! A linear layer's product and its gradients, on row-major slices.

use crate::gemm::{Left, Product, Right, Start, matmul};
use crate::simd::{Shared, filled};

/// Sizes of a linear layer's input `[rows, inputs]` and result `[rows, outputs]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Linear {
    pub rows: usize,
    pub inputs: usize,
    pub outputs: usize,
}

impl Linear {
    fn check_x(&self, x: &[f32]) {
        assert_eq!(x.len(), self.rows * self.inputs, "linear: rows");
    }

    fn check_weight(&self, weight: &[f32]) {
        assert_eq!(weight.len(), self.inputs * self.outputs, "linear: weights");
    }

    fn check_dy(&self, dy: &[f32]) {
        assert_eq!(dy.len(), self.rows * self.outputs, "linear: gradient");
    }
}

/// x w + bias.
pub(crate) fn forward(sizes: Linear, x: &[f32], weight: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
    let Linear {
        rows,
        inputs,
        outputs,
    } = sizes;
    sizes.check_x(x);
    sizes.check_weight(weight);
    let start = bias.map_or(Start::Zero, |bias| {
        assert_eq!(bias.len(), outputs, "linear: bias");
        Start::Row(bias.as_ptr())
    });
    let left = Left::plain(x.as_ptr(), inputs);
    let right = Right::plain(weight.as_ptr(), outputs);
    // SAFETY: the slices have these sizes.
    unsafe { product([rows, outputs, inputs], left, right, start) }
}

/// dx = dy wᵀ.
pub(crate) fn input_gradient(sizes: Linear, weight: &[f32], dy: &[f32]) -> Vec<f32> {
    let Linear {
        rows,
        inputs,
        outputs,
    } = sizes;
    sizes.check_weight(weight);
    sizes.check_dy(dy);
    let left = Left::plain(dy.as_ptr(), outputs);
    let right = Right::turned(weight.as_ptr(), outputs);
    // SAFETY: the slices have these sizes.
    unsafe { product([rows, inputs, outputs], left, right, Start::Zero) }
}

/// dw = xᵀ dy.
pub(crate) fn weight_gradient(sizes: Linear, x: &[f32], dy: &[f32]) -> Vec<f32> {
    let Linear {
        rows,
        inputs,
        outputs,
    } = sizes;
    sizes.check_x(x);
    sizes.check_dy(dy);
    let left = Left::turned(x.as_ptr(), inputs);
    let right = Right::plain(dy.as_ptr(), outputs);
    // SAFETY: the slices have these sizes.
    unsafe { product([inputs, outputs, rows], left, right, Start::Zero) }
}

/// start + a b, `[rows, columns]` summed over `inner`.
///
/// # Safety
///
/// The factors have these sizes and `start` is not [`Start::Result`].
unsafe fn product([rows, columns, inner]: [usize; 3], a: Left, b: Right, start: Start) -> Vec<f32> {
    let work = |y: Shared| {
        let product = Product {
            rows,
            columns,
            inner,
            a,
            b,
            c: y.start(),
            c_row: columns,
            start,
        };
        // SAFETY: the factors are the caller's, and the result has room for them.
        unsafe { matmul(true, product) };
    };
    // SAFETY: a product is written whole.
    unsafe { filled(rows * columns, work) }
}
