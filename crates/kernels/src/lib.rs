#![doc = include_str!("../README.md")]
#![warn(unreachable_pub)]
#![cfg_attr(
    not(test),
    warn(clippy::disallowed_methods, clippy::print_stderr, clippy::print_stdout)
)]
#![allow(
    unsafe_code,
    reason = "vector instructions, and tasks that share a result of which each writes its own part"
)]

pub mod plain;

mod attention;
mod conv;
mod extension;
mod flex;
mod gelu;
mod gemm;
mod layout;
mod linear;
mod norm;
mod optim;
mod simd;
#[cfg(test)]
mod small;
mod transform;
mod transform_gradients;
mod winograd;

use burn::backend::{Dispatch, DispatchTensorKind};
use burn::tensor::{DType, Tensor};

use extension::DiffusionKernels;

pub use conv::Padding;
pub use optim::AdamWStep;
pub use simd::simd_name;

/// 3x3 convolution, stride 1, zero padding 1, plus bias and an optional residual.
///
/// # Shapes
///
/// - `x`: `[batch, height, width, inputs]`
/// - `weight`: `[3, 3, inputs, outputs]`
/// - `bias`: `[1 or batch, outputs]`; a row per image carries that image's time embedding
/// - `residual` and result: `[batch, height, width, outputs]`
///
/// # Panics
///
/// If the shapes do not fit each other.
pub fn conv3x3(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Tensor<2>,
    residual: Option<Tensor<4>>,
) -> Tensor<4> {
    let [batch, height, width, inputs] = x.dims();
    let outputs = weight.dims()[3];
    assert_eq!(weight.dims(), [3, 3, inputs, outputs], "conv3x3: weight");
    check_rows("conv3x3: bias", bias.dims(), batch, outputs);
    if let Some(residual) = &residual {
        let expected = [batch, height, width, outputs];
        assert_eq!(residual.dims(), expected, "conv3x3: residual");
    }
    if !is_fast(&x) {
        return plain::conv3x3(x, weight, bias, residual);
    }
    let [x, weight, bias] = [
        x.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
    ];
    Tensor::from_dispatch(match residual {
        None => Dispatch::conv3x3(x, weight, bias),
        Some(residual) => Dispatch::conv3x3_residual(x, weight, bias, residual.into_dispatch()),
    })
}

/// 3x3 convolution of stride 2 plus bias.
///
/// # Shapes
///
/// - `x`: `[batch, height, width, inputs]`
/// - `weight`: `[3, 3, inputs, outputs]`
/// - `bias`: `[outputs]`
/// - result: `[batch, h, w, outputs]`, h = (height + 1) / 2 rounded down with [`Padding::Symmetric`],
///   (height - 2) / 2 + 1 rounded down with [`Padding::BottomRight`]; w likewise
///
/// # Panics
///
/// If the shapes do not fit each other, and for less than 2 x 2 pixels with [`Padding::BottomRight`].
pub fn conv3x3_stride2(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Tensor<1>,
    padding: Padding,
) -> Tensor<4> {
    let [_, height, width, inputs] = x.dims();
    let outputs = weight.dims()[3];
    assert_eq!(
        weight.dims(),
        [3, 3, inputs, outputs],
        "conv3x3_stride2: weight"
    );
    assert_eq!(bias.dims(), [outputs], "conv3x3_stride2: bias");
    assert!(
        padding == Padding::Symmetric || (height >= 2 && width >= 2),
        "conv3x3_stride2: {height} x {width} pixels are fewer than the filter covers"
    );
    if !is_fast(&x) {
        return plain::conv3x3_stride2(x, weight, bias, padding);
    }
    Tensor::from_dispatch(Dispatch::conv3x3_stride2(
        x.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
        padding,
    ))
}

/// Matrix product plus bias; a 1x1 convolution is this on rows of pixels.
///
/// # Shapes
///
/// - `x`: `[rows, inputs]`
/// - `weight`: `[inputs, outputs]`
/// - `bias`: `[outputs]`
/// - result: `[rows, outputs]`
///
/// # Panics
///
/// If the shapes do not fit each other.
pub fn linear(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    let inputs = x.dims()[1];
    let outputs = weight.dims()[1];
    assert_eq!(weight.dims(), [inputs, outputs], "linear: weight");
    if let Some(bias) = &bias {
        assert_eq!(bias.dims(), [outputs], "linear: bias");
    }
    if !is_fast(&x) {
        return plain::linear(x, weight, bias);
    }
    let [x, weight] = [x.into_dispatch(), weight.into_dispatch()];
    Tensor::from_dispatch(match bias {
        None => Dispatch::linear(x, weight),
        Some(bias) => Dispatch::linear_bias(x, weight, bias.into_dispatch()),
    })
}

/// Group normalisation over pixels and the channels of a group, then scale and shift, then with `silu` [`silu()`]
/// (Wu and He 2018, [arXiv 1803.08494](https://arxiv.org/abs/1803.08494)).
///
/// `eps` is added to the variance, which is that of the population, as in PyTorch.
///
/// # Shapes
///
/// - `x` and result: `[batch, height, width, channels]`
/// - `gamma`, `beta`: `[1 or batch, channels]`; a row per image serves networks whose time embedding
///   scales and shifts
///
/// # Panics
///
/// If the shapes do not fit each other, or the channels do not split into `groups`.
pub fn group_norm(
    x: Tensor<4>,
    gamma: Tensor<2>,
    beta: Tensor<2>,
    groups: usize,
    eps: f64,
    silu: bool,
) -> Tensor<4> {
    let [batch, _, _, channels] = x.dims();
    assert!(
        groups > 0 && channels % groups == 0,
        "group_norm: {channels} channels do not split into {groups} groups"
    );
    check_rows("group_norm: gamma", gamma.dims(), batch, channels);
    check_rows("group_norm: beta", beta.dims(), batch, channels);
    if !is_fast(&x) {
        return plain::group_norm(x, gamma, beta, groups, eps, silu);
    }
    Tensor::from_dispatch(Dispatch::group_norm(
        x.into_dispatch(),
        gamma.into_dispatch(),
        beta.into_dispatch(),
        groups,
        eps,
        silu,
    ))
}

/// Doubles height and width, each pixel becoming a square of four.
///
/// # Shapes
///
/// - `x`: `[batch, height, width, channels]`
/// - result: `[batch, 2 height, 2 width, channels]`
pub fn upsample_nearest2x(x: Tensor<4>) -> Tensor<4> {
    if !is_fast(&x) {
        return plain::upsample_nearest2x(x);
    }
    Tensor::from_dispatch(Dispatch::upsample_nearest2x(x.into_dispatch()))
}

/// Joins two images along their channels, `a`'s first.
///
/// # Shapes
///
/// - `a`: `[batch, height, width, m]`
/// - `b`: `[batch, height, width, n]`
/// - result: `[batch, height, width, m + n]`
///
/// # Panics
///
/// If batch or pixels differ.
pub fn concat_channels(a: Tensor<4>, b: Tensor<4>) -> Tensor<4> {
    assert_eq!(
        a.dims()[..3],
        b.dims()[..3],
        "concat_channels: batch and pixels"
    );
    if !is_fast(&a) {
        return plain::concat_channels(a, b);
    }
    Tensor::from_dispatch(Dispatch::concat_channels(
        a.into_dispatch(),
        b.into_dispatch(),
    ))
}

/// softmax(q kᵀ scale) v (Vaswani et al. 2017, [arXiv 1706.03762](https://arxiv.org/abs/1706.03762)), a block of queries
/// at a time, so that the scores never exist together.
///
/// `scale` is usually 1/√dim. The queries are scaled before the product.
///
/// # Shapes
///
/// - `q`: `[batch * heads, queries, dim]`
/// - `k`: `[batch * heads, keys, dim]`
/// - `v`: `[batch * heads, keys, value dim]`
/// - result: `[batch * heads, queries, value dim]`
///
/// # Panics
///
/// If the shapes do not fit each other.
pub fn attention(q: Tensor<3>, k: Tensor<3>, v: Tensor<3>, scale: f64) -> Tensor<3> {
    let [heads, _, dim] = q.dims();
    let keys = k.dims()[1];
    assert_eq!(k.dims(), [heads, keys, dim], "attention: keys");
    assert_eq!(v.dims()[..2], [heads, keys], "attention: values");
    if !is_fast(&q) {
        return plain::attention(q, k, v, scale);
    }
    Tensor::from_dispatch(Dispatch::attention(
        q.into_dispatch(),
        k.into_dispatch(),
        v.into_dispatch(),
        scale,
    ))
}

/// x / (1 + e⁻ˣ), element by element (Elfwing et al. 2017, [arXiv 1702.03118](https://arxiv.org/abs/1702.03118)).
pub fn silu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if !is_fast(&x) {
        return plain::silu(x);
    }
    Tensor::from_dispatch(Dispatch::silu(x.into_dispatch()))
}

/// The exact GELU: x times the normal distribution's cumulative probability at x, element by element (Hendrycks and
/// Gimpel 2016, [arXiv 1606.08415](https://arxiv.org/abs/1606.08415)).
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if !is_fast(&x) {
        return plain::gelu(x);
    }
    Tensor::from_dispatch(Dispatch::gelu(x.into_dispatch()))
}

/// The first half of each row times [`gelu`] of the second (Shazeer 2020, "GLU variants improve transformer",
/// [arXiv 2002.05202](https://arxiv.org/abs/2002.05202)).
///
/// # Shapes
///
/// - `x`: `[rows, 2 width]`
/// - result: `[rows, width]`
///
/// # Panics
///
/// If the columns do not split in two.
pub fn geglu(x: Tensor<2>) -> Tensor<2> {
    let columns = x.dims()[1];
    assert!(
        columns > 0 && columns.is_multiple_of(2),
        "geglu: {columns} columns do not split in two"
    );
    if !is_fast(&x) {
        return plain::geglu(x);
    }
    Tensor::from_dispatch(Dispatch::geglu(x.into_dispatch()))
}

/// One AdamW step; returns the new parameter and both moments, outside any autodiff graph of theirs.
///
/// The four tensors have one shape; both moments may be bf16, which are rounded so that their mean over steps is right (on the
/// CPU alone). In place when nothing else holds the tensors' storage. The source of the formula is named at [`AdamWStep`].
///
/// # Panics
///
/// If the shapes differ, or the step's number is 0.
pub fn adamw_step<const D: usize>(
    param: Tensor<D>,
    grad: Tensor<D>,
    moment1: Tensor<D>,
    moment2: Tensor<D>,
    step: &AdamWStep,
) -> (Tensor<D>, Tensor<D>, Tensor<D>) {
    assert_eq!(grad.dims(), param.dims(), "adamw_step: gradient");
    assert_eq!(moment1.dims(), param.dims(), "adamw_step: first moment");
    assert_eq!(moment2.dims(), param.dims(), "adamw_step: second moment");
    assert!(step.step > 0, "adamw_step: steps count from 1");
    if !is_fast(&param) {
        return plain::adamw_step(param, grad, moment1, moment2, step);
    }
    let (param, moment1, moment2) = Dispatch::adamw_step(
        param.into_dispatch(),
        grad.into_dispatch(),
        moment1.into_dispatch(),
        moment2.into_dispatch(),
        *step,
    );
    (
        Tensor::from_dispatch(param),
        Tensor::from_dispatch(moment1),
        Tensor::from_dispatch(moment2),
    )
}

/// Sum of the squares of all elements, accumulated in f64; for the gradient norm.
pub fn sum_squares<const D: usize>(x: Tensor<D>) -> f64 {
    if !is_fast(&x) {
        return plain::sum_squares(x);
    }
    let primitive = flex::primitive(x.into_dispatch().kind);
    optim::sum_squares(flex::slice(&flex::whole(primitive)))
}

/// Whether a tensor's operations take the fast path: f32 on the CPU backend, with or without autodiff.
fn is_fast<const D: usize>(tensor: &Tensor<D>) -> bool {
    fn is_flex(kind: &DispatchTensorKind) -> bool {
        #[allow(
            unreachable_patterns,
            reason = "with other backends compiled in there are other kinds"
        )]
        match kind {
            DispatchTensorKind::Flex(_) => true,
            DispatchTensorKind::Autodiff(inner) => is_flex(inner),
            _ => false,
        }
    }
    tensor.dtype() == DType::F32 && is_flex(&tensor.clone().into_dispatch().kind)
}

fn check_rows(what: &str, dims: [usize; 2], batch: usize, channels: usize) {
    assert!(
        (dims[0] == 1 || dims[0] == batch) && dims[1] == channels,
        "{what} has shape {dims:?}, expected [1 or {batch}, {channels}]"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    /// Kernel results made while `work` runs.
    fn results<R>(work: impl FnOnce() -> R) -> usize {
        let before = flex::RESULTS.get();
        work();
        flex::RESULTS.get() - before
    }

    #[test]
    fn f32_tensors_on_the_cpu_are_fast_with_and_without_autodiff() {
        let device = Device::default();
        let x = Tensor::<2>::ones([2, 2], &device);
        assert!(is_fast(&x));
        assert!(is_fast(&x.clone().cast(DType::F32)));
        assert!(!is_fast(&x.cast(DType::F64)));
        let tracked = Tensor::<2>::ones([2, 2], &device.autodiff());
        assert!(is_fast(&tracked));
        assert!(is_fast(&tracked.require_grad()));
    }

    #[test]
    fn every_operation_takes_its_fast_path_once_forward_and_once_for_each_gradient() {
        let device = Device::default().autodiff();
        let ones4 = |dims: [usize; 4]| Tensor::<4>::ones(dims, &device).require_grad();
        let ones3 = |dims: [usize; 3]| Tensor::<3>::ones(dims, &device).require_grad();
        let ones2 = |dims: [usize; 2]| Tensor::<2>::ones(dims, &device).require_grad();
        let ones1 = |n: usize| Tensor::<1>::ones([n], &device).require_grad();
        let x = || ones4([2, 8, 8, 8]);
        let weight = || ones4([3, 3, 8, 8]);
        // The result and dx, dw, db; the residual's gradient is the one that arrived.
        let conv = || {
            conv3x3(x(), weight(), ones2([1, 8]), Some(x()))
                .sum()
                .backward()
        };
        assert_eq!(results(conv), 4);
        let conv = || {
            conv3x3_stride2(x(), weight(), ones1(8), Padding::Symmetric)
                .sum()
                .backward()
        };
        assert_eq!(results(conv), 4);
        let product = || {
            linear(ones2([5, 8]), ones2([8, 3]), Some(ones1(3)))
                .sum()
                .backward()
        };
        assert_eq!(results(product), 4);
        let norm = || {
            group_norm(x(), ones2([1, 8]), ones2([1, 8]), 4, 1e-5, true)
                .sum()
                .backward()
        };
        assert_eq!(results(norm), 4);
        assert_eq!(results(|| upsample_nearest2x(x()).sum().backward()), 2);
        assert_eq!(results(|| concat_channels(x(), x()).sum().backward()), 3);
        let attend = || {
            attention(ones3([2, 5, 4]), ones3([2, 7, 4]), ones3([2, 7, 4]), 0.5)
                .sum()
                .backward()
        };
        assert_eq!(results(attend), 4);
        assert_eq!(results(|| silu(ones3([2, 3, 4])).sum().backward()), 2);
        assert_eq!(results(|| gelu(ones3([2, 3, 4])).sum().backward()), 2);
        assert_eq!(results(|| geglu(ones2([3, 4])).sum().backward()), 2);
        // Only what is wanted: the weights alone, then nothing.
        let frozen = |t: Tensor<4>| t.set_require_grad(false);
        let conv = || {
            conv3x3(
                frozen(x()),
                weight(),
                ones2([1, 8]).set_require_grad(false),
                None,
            )
            .sum()
            .backward()
        };
        assert_eq!(results(conv), 2);
        let conv = || {
            conv3x3(
                frozen(x()),
                frozen(weight()),
                ones2([1, 8]).set_require_grad(false),
                None,
            )
        };
        assert_eq!(results(conv), 1);
        let plain = || {
            conv3x3(
                x().cast(DType::F64),
                weight().cast(DType::F64),
                ones2([1, 8]).cast(DType::F64),
                None,
            )
        };
        assert_eq!(results(plain), 0);
    }

    #[test]
    fn an_optimizer_step_reuses_storage_that_nothing_else_holds() {
        let device = Device::default();
        let tensor = |value: f32| Tensor::<1>::full([1000], value, &device);
        let address = |t: &Tensor<1>| {
            flex::slice(&flex::primitive(t.clone().into_dispatch().kind)).as_ptr() as usize
        };
        let step = AdamWStep {
            learning_rate: 0.1,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.0,
            step: 1,
            gradient_scale: 1.0,
            parameter: 0,
        };
        let (param, grad, m, v) = (tensor(1.0), tensor(1.0), tensor(0.0), tensor(0.0));
        let before = [&param, &m, &v].map(address);
        let kept = param.clone();
        let (param, m, v) = adamw_step(param, grad.clone(), m, v, &step);
        // A parameter that somebody else still holds is left as it was.
        assert_ne!(address(&param), before[0]);
        assert_eq!([&m, &v].map(address), before[1..]);
        assert_eq!(kept.max().into_scalar::<f32>(), 1.0);
        let before = [&param, &m, &v].map(address);
        let (param, m, v) = adamw_step(param, grad, m, v, &step);
        assert_eq!([&param, &m, &v].map(address), before);
    }
}
