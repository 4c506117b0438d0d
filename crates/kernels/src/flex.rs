//! The kernels on the primitives of Burn's CPU backend: shapes in, slices through, tensors out.

use burn::backend::{BackendTensor, DispatchTensorKind, Flex, TensorMetadata, tensor::FloatTensor};
use burn::tensor::{DType, Shape, TensorData, bf16};

use crate::attention::{self, Attention};
use crate::conv::{self, Window};
use crate::gelu as exact;
use crate::layout;
use crate::linear::{self, Linear};
use crate::norm::{self, Moments, Norm};
use crate::winograd::{self, Addend};
use crate::{AdamWStep, Padding, optim};

pub(crate) type Floats = FloatTensor<Flex>;

/// The elements of a tensor that [`whole`] returned, in row-major order.
pub(crate) fn slice(tensor: &Floats) -> &[f32] {
    tensor.storage::<f32>()
}

/// The tensor with nothing before, after or between its elements; a copy only if it is a view.
pub(crate) fn whole(tensor: Floats) -> Floats {
    tensor.to_contiguous()
}

/// The primitive of a float tensor on the CPU backend, out of its autodiff graph if it is in one.
pub(crate) fn primitive(kind: DispatchTensorKind) -> Floats {
    #[allow(
        unreachable_patterns,
        reason = "with other backends compiled in there are other kinds"
    )]
    match kind {
        DispatchTensorKind::Flex(BackendTensor::Autodiff(tensor)) => tensor.into_primitive(),
        DispatchTensorKind::Flex(tensor) => tensor.float(),
        DispatchTensorKind::Autodiff(inner) => primitive(*inner),
        _ => unreachable!("only tensors of the CPU backend come here"),
    }
}

pub(crate) fn tensor<const D: usize>(values: Vec<f32>, dims: [usize; D]) -> Floats {
    shaped(values, Shape::from(dims))
}

/// Every result of a kernel is made here.
fn shaped(values: Vec<f32>, shape: Shape) -> Floats {
    #[cfg(test)]
    RESULTS.set(RESULTS.get() + 1);
    Floats::from_data(TensorData::new(values, shape))
}

#[cfg(test)]
thread_local! {
    /// Results that kernels made on this thread: how tests see that a fast path was taken.
    pub(crate) static RESULTS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

pub(crate) fn dims<const D: usize>(tensor: &Floats) -> [usize; D] {
    tensor.shape().dims()
}

fn conv_shape(x: &Floats, weight: &Floats) -> winograd::Shape {
    let [batch, height, width, inputs] = dims(x);
    let [_, _, _, outputs] = dims(weight);
    winograd::Shape {
        batch,
        height,
        width,
        inputs,
        outputs,
    }
}

pub(crate) fn conv3x3(x: Floats, weight: Floats, bias: Floats, residual: Option<Floats>) -> Floats {
    let (x, weight, bias) = (whole(x), whole(weight), whole(bias));
    let residual = residual.map(whole);
    let shape = conv_shape(&x, &weight);
    let addend = Addend {
        bias: slice(&bias),
        per_image: dims::<2>(&bias)[0] != 1,
        residual: residual.as_ref().map(slice),
    };
    let y = conv::convolve(&shape, slice(&x), slice(&weight), addend);
    tensor(y, [shape.batch, shape.height, shape.width, shape.outputs])
}

pub(crate) fn conv3x3_dx(weight: Floats, dy: &Floats, inputs: usize) -> Floats {
    let weight = whole(weight);
    let [batch, height, width, outputs] = dims(dy);
    let shape = winograd::Shape {
        batch,
        height,
        width,
        inputs,
        outputs,
    };
    let dx = conv::input_gradient(&shape, slice(&weight), slice(dy));
    tensor(dx, [batch, height, width, inputs])
}

pub(crate) fn conv3x3_dw(x: Floats, dy: &Floats) -> Floats {
    let x = whole(x);
    let [batch, height, width, inputs] = dims(&x);
    let [_, _, _, outputs] = dims(dy);
    let shape = winograd::Shape {
        batch,
        height,
        width,
        inputs,
        outputs,
    };
    let dw = conv::weight_gradient(&shape, slice(&x), slice(dy));
    tensor(dw, [3, 3, inputs, outputs])
}

/// The gradient of a bias of `rows` rows, 1 or one per image.
pub(crate) fn bias_gradient(dy: &Floats, rows: usize) -> Vec<f32> {
    let shape = dy.shape();
    conv::bias_gradient(slice(dy), rows, shape[shape.num_dims() - 1])
}

pub(crate) fn conv3x3_stride2(x: Floats, weight: Floats, bias: Floats, padding: Padding) -> Floats {
    let (x, weight, bias) = (whole(x), whole(weight), whole(bias));
    let window = Window::stride2(dims(&x), dims::<4>(&weight)[3], padding);
    let addend = Addend {
        bias: slice(&bias),
        per_image: false,
        residual: None,
    };
    let y = conv::convolve_columns(&window, slice(&x), slice(&weight), addend);
    tensor(
        y,
        [window.batch, window.down, window.across, window.outputs],
    )
}

pub(crate) fn conv3x3_stride2_dx(window: &Window, weight: Floats, dy: &Floats) -> Floats {
    let weight = whole(weight);
    let dx = conv::input_gradient_columns(window, slice(&weight), slice(dy));
    tensor(
        dx,
        [window.batch, window.height, window.width, window.inputs],
    )
}

pub(crate) fn conv3x3_stride2_dw(window: &Window, x: Floats, dy: &Floats) -> Floats {
    let x = whole(x);
    let dw = conv::weight_gradient_columns(window, slice(&x), slice(dy));
    tensor(dw, [3, 3, window.inputs, window.outputs])
}

pub(crate) fn linear(x: Floats, weight: Floats, bias: Option<Floats>) -> Floats {
    let (x, weight, bias) = (whole(x), whole(weight), bias.map(whole));
    let ([rows, inputs], [_, outputs]) = (dims(&x), dims(&weight));
    let sizes = Linear {
        rows,
        inputs,
        outputs,
    };
    let bias = bias.as_ref().map(slice);
    let y = linear::forward(sizes, slice(&x), slice(&weight), bias);
    tensor(y, [rows, outputs])
}

pub(crate) fn linear_dx(weight: Floats, dy: &Floats) -> Floats {
    let weight = whole(weight);
    let ([rows, outputs], [inputs, _]) = (dims(dy), dims(&weight));
    let sizes = Linear {
        rows,
        inputs,
        outputs,
    };
    let dx = linear::input_gradient(sizes, slice(&weight), slice(dy));
    tensor(dx, [rows, inputs])
}

pub(crate) fn linear_dw(x: Floats, dy: &Floats) -> Floats {
    let x = whole(x);
    let ([rows, inputs], [_, outputs]) = (dims(&x), dims(dy));
    let sizes = Linear {
        rows,
        inputs,
        outputs,
    };
    let dw = linear::weight_gradient(sizes, slice(&x), slice(dy));
    tensor(dw, [inputs, outputs])
}

/// Settings of a group normalisation of tensors of these shapes.
pub(crate) fn norm(
    x: &Floats,
    gamma: &Floats,
    beta: &Floats,
    groups: usize,
    eps: f64,
    silu: bool,
) -> Norm {
    let [batch, height, width, channels] = dims(x);
    Norm {
        batch,
        pixels: height * width,
        channels,
        groups,
        eps,
        silu,
        gamma_per_image: dims::<2>(gamma)[0] != 1,
        beta_per_image: dims::<2>(beta)[0] != 1,
    }
}

pub(crate) fn group_norm(norm: &Norm, x: Floats, gamma: Floats, beta: Floats) -> (Floats, Moments) {
    let (x, gamma, beta) = (whole(x), whole(gamma), whole(beta));
    let (y, moments) = norm::forward(norm, slice(&x), slice(&gamma), slice(&beta));
    (tensor(y, dims::<4>(&x)), moments)
}

/// Gradients of x, gamma and beta.
pub(crate) fn group_norm_gradients(
    norm: &Norm,
    moments: &Moments,
    x: Floats,
    gamma: Floats,
    beta: Floats,
    dy: &Floats,
) -> [Floats; 3] {
    let (x, gamma, beta) = (whole(x), whole(gamma), whole(beta));
    let gradients = norm::backward(
        norm,
        slice(&x),
        slice(&gamma),
        slice(&beta),
        moments,
        slice(dy),
    );
    [
        tensor(gradients.dx, dims::<4>(&x)),
        tensor(gradients.dgamma, dims::<2>(&gamma)),
        tensor(gradients.dbeta, dims::<2>(&beta)),
    ]
}

pub(crate) fn upsample(x: Floats) -> Floats {
    let x = whole(x);
    let [batch, height, width, channels] = dims(&x);
    tensor(
        layout::double(slice(&x), width, channels),
        [batch, 2 * height, 2 * width, channels],
    )
}

pub(crate) fn upsample_dx(dy: &Floats) -> Floats {
    let [batch, height, width, channels] = dims(dy);
    let dx = layout::double_gradient(slice(dy), width / 2, channels);
    tensor(dx, [batch, height / 2, width / 2, channels])
}

pub(crate) fn concat(a: Floats, b: Floats) -> Floats {
    let (a, b) = (whole(a), whole(b));
    let ([batch, height, width, m], [_, _, _, n]) = (dims(&a), dims(&b));
    tensor(
        layout::concat(slice(&a), slice(&b), m, n),
        [batch, height, width, m + n],
    )
}

/// Channels `first..first + count`.
pub(crate) fn channels(x: &Floats, first: usize, count: usize) -> Floats {
    let [batch, height, width, channels] = dims(x);
    tensor(
        layout::columns(slice(x), channels, first, count),
        [batch, height, width, count],
    )
}

pub(crate) fn attention_sizes(q: &Floats, v: &Floats, scale: f64) -> Attention {
    let ([heads, queries, dim], [_, keys, value_dim]) = (dims(q), dims(v));
    Attention {
        heads,
        queries,
        keys,
        dim,
        value_dim,
        scale,
    }
}

pub(crate) fn attention(sizes: &Attention, q: Floats, k: Floats, v: Floats) -> Floats {
    let (q, k, v) = (whole(q), whole(k), whole(v));
    let y = attention::forward(sizes, slice(&q), slice(&k), slice(&v));
    tensor(y, [sizes.heads, sizes.queries, sizes.value_dim])
}

/// Gradients of q, k and v.
pub(crate) fn attention_gradients(
    sizes: &Attention,
    q: Floats,
    k: Floats,
    v: Floats,
    dy: &Floats,
) -> [Floats; 3] {
    let (q, k, v) = (whole(q), whole(k), whole(v));
    let [dq, dk, dv] = attention::backward(sizes, slice(&q), slice(&k), slice(&v), slice(dy));
    [
        tensor(dq, dims::<3>(&q)),
        tensor(dk, dims::<3>(&k)),
        tensor(dv, dims::<3>(&v)),
    ]
}

pub(crate) fn silu(x: Floats) -> Floats {
    let x = whole(x);
    shaped(layout::silu(slice(&x)), x.shape())
}

pub(crate) fn silu_dx(x: Floats, dy: &Floats) -> Floats {
    let x = whole(x);
    shaped(layout::silu_gradient(slice(&x), slice(dy)), x.shape())
}

pub(crate) fn gelu(x: Floats) -> Floats {
    let x = whole(x);
    shaped(exact::gelu(slice(&x)), x.shape())
}

pub(crate) fn gelu_dx(x: Floats, dy: &Floats) -> Floats {
    let x = whole(x);
    shaped(exact::gelu_gradient(slice(&x), slice(dy)), x.shape())
}

pub(crate) fn geglu(x: Floats) -> Floats {
    let x = whole(x);
    let [rows, columns] = dims(&x);
    tensor(exact::geglu(slice(&x), columns / 2), [rows, columns / 2])
}

pub(crate) fn geglu_dx(x: Floats, dy: &Floats) -> Floats {
    let x = whole(x);
    let [rows, columns] = dims(&x);
    let dx = exact::geglu_gradient(slice(&x), slice(dy), columns / 2);
    tensor(dx, [rows, columns])
}

pub(crate) fn adamw(
    step: &AdamWStep,
    param: Floats,
    grad: Floats,
    moment1: Floats,
    moment2: Floats,
) -> (Floats, Floats, Floats) {
    let grad = whole(grad);
    let [mut param, mut moment1, mut moment2] = [param, moment1, moment2].map(whole_owned);
    let (param_values, grad) = (param.storage_mut(), slice(&grad));
    match moment1.dtype() {
        DType::BF16 => optim::adamw_bf16(
            step,
            param_values,
            grad,
            bits(moment1.storage_mut()),
            bits(moment2.storage_mut()),
        ),
        _ => optim::adamw(
            step,
            param_values,
            grad,
            moment1.storage_mut(),
            moment2.storage_mut(),
        ),
    }
    (param, moment1, moment2)
}

fn bits(values: &mut [bf16]) -> &mut [u16] {
    // SAFETY: a bf16 is its bits and nothing else (`repr(transparent)`), and all bits are one.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), values.len()) }
}

/// Like [`whole`], but a tensor that is whole already stays the only holder of its storage.
fn whole_owned(tensor: Floats) -> Floats {
    let elements = tensor.shape().num_elements();
    let is_whole = tensor.is_contiguous() && tensor.layout().start_offset() == 0;
    if is_whole && tensor.bytes().len() == tensor.dtype().size() * elements {
        tensor
    } else {
        whole(tensor)
    }
}
