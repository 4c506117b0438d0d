//! The kernels written with ordinary Burn operations.
//!
//! This is what every device but the f32 CPU runs, and the reference that the fast paths are tested
//! against. Arguments, shapes and results are those of the functions of the same name in the crate root.

use burn::tensor::{Tensor, activation, module, ops::ConvOptions};

use crate::{AdamWStep, Padding};

/// How many squares [`sum_squares`] lets the device add up in f32 before the host goes on in f64.
const SQUARES_PER_SUM: usize = 1024;

/// See [`crate::conv3x3`].
pub fn conv3x3(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Tensor<2>,
    residual: Option<Tensor<4>>,
) -> Tensor<4> {
    let [bias_rows, outputs] = bias.dims();
    let y = convolve(x, weight, 1, 1) + bias.reshape([bias_rows, 1, 1, outputs]);
    match residual {
        Some(residual) => y + residual,
        None => y,
    }
}

/// See [`crate::conv3x3_stride2`].
pub fn conv3x3_stride2(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Tensor<1>,
    padding: Padding,
) -> Tensor<4> {
    let outputs = bias.dims()[0];
    let y = match padding {
        Padding::Symmetric => convolve(x, weight, 2, 1),
        Padding::BottomRight => {
            let [batch, height, width, channels] = x.dims();
            let options = (&x.device(), x.dtype());
            let right = Tensor::zeros([batch, height, 1, channels], options);
            let bottom = Tensor::zeros([batch, 1, width + 1, channels], options);
            let x = Tensor::cat(vec![Tensor::cat(vec![x, right], 2), bottom], 1);
            convolve(x, weight, 2, 0)
        }
    };
    y + bias.reshape([1, 1, 1, outputs])
}

/// Burn convolves channel-first; the permutations are views.
fn convolve(x: Tensor<4>, weight: Tensor<4>, stride: usize, padding: usize) -> Tensor<4> {
    let options = ConvOptions::new([stride, stride], [padding, padding], [1, 1], 1);
    let y = module::conv2d(
        x.permute([0, 3, 1, 2]),
        weight.permute([3, 2, 0, 1]),
        None,
        options,
    );
    y.permute([0, 2, 3, 1])
}

/// See [`crate::linear`].
pub fn linear(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    let y = x.matmul(weight);
    match bias {
        Some(bias) => y + bias.unsqueeze(),
        None => y,
    }
}

/// See [`crate::group_norm`].
pub fn group_norm(
    x: Tensor<4>,
    gamma: Tensor<2>,
    beta: Tensor<2>,
    groups: usize,
    eps: f64,
    silu: bool,
) -> Tensor<4> {
    let [batch, height, width, channels] = x.dims();
    let ([gamma_rows, _], [beta_rows, _]) = (gamma.dims(), beta.dims());
    let x = x.reshape([batch, height * width, groups, channels / groups]);
    let mean = x.clone().mean_dim(1).mean_dim(3);
    let centred = x - mean;
    let variance = centred.clone().square().mean_dim(1).mean_dim(3);
    let normal = (centred / (variance + eps).sqrt()).reshape([batch, height, width, channels]);
    let y = normal * gamma.reshape([gamma_rows, 1, 1, channels])
        + beta.reshape([beta_rows, 1, 1, channels]);
    if silu { activation::silu(y) } else { y }
}

/// See [`crate::upsample_nearest2x`].
pub fn upsample_nearest2x(x: Tensor<4>) -> Tensor<4> {
    let [batch, height, width, channels] = x.dims();
    x.reshape([batch, height, 1, width, 1, channels])
        .expand([batch, height, 2, width, 2, channels])
        .reshape([batch, 2 * height, 2 * width, channels])
}

/// See [`crate::concat_channels`].
pub fn concat_channels(a: Tensor<4>, b: Tensor<4>) -> Tensor<4> {
    Tensor::cat(vec![a, b], 3)
}

/// See [`crate::attention`].
pub fn attention(q: Tensor<3>, k: Tensor<3>, v: Tensor<3>, scale: f64) -> Tensor<3> {
    let scores = (q * scale).matmul(k.swap_dims(1, 2));
    activation::softmax(scores, 2).matmul(v)
}

/// See [`crate::silu`].
pub fn silu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    activation::silu(x)
}

/// See [`crate::gelu`].
///
/// Written out because `activation::gelu`'s backward pass is that of an approximation by tanh on all
/// devices but the CPU.
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let twice = (x.clone() * std::f64::consts::FRAC_1_SQRT_2).erf() + 1.0;
    x * twice * 0.5
}

/// See [`crate::geglu`].
pub fn geglu(x: Tensor<2>) -> Tensor<2> {
    let width = x.dims()[1] / 2;
    x.clone().narrow(1, 0, width) * gelu(x.narrow(1, width, width))
}

/// See [`crate::adamw_step`].
pub fn adamw_step<const D: usize>(
    param: Tensor<D>,
    grad: Tensor<D>,
    moment1: Tensor<D>,
    moment2: Tensor<D>,
    step: &AdamWStep,
) -> (Tensor<D>, Tensor<D>, Tensor<D>) {
    let grad = grad * step.gradient_scale;
    let moment1 = moment1 * step.beta1 + grad.clone() * (1.0 - step.beta1);
    let moment2 = moment2 * step.beta2 + grad.square() * (1.0 - step.beta2);
    let (correction1, correction2) = step.bias_corrections();
    let denominator = (moment2.clone() / correction2).sqrt() + step.epsilon;
    let update = moment1.clone() / denominator * (step.learning_rate / correction1);
    let param = param * (1.0 - step.learning_rate * step.weight_decay) - update;
    (param, moment1, moment2)
}

/// See [`crate::sum_squares`].
pub fn sum_squares<const D: usize>(x: Tensor<D>) -> f64 {
    let count = x.shape().num_elements();
    let squares = x.square().reshape([count]);
    let whole = count - count % SQUARES_PER_SUM;
    let mut parts = Vec::new();
    if whole > 0 {
        let rows = squares.clone().narrow(0, 0, whole);
        let rows = rows.reshape([whole / SQUARES_PER_SUM, SQUARES_PER_SUM]);
        parts.push(rows.sum_dim(1).reshape([whole / SQUARES_PER_SUM]));
    }
    if whole < count {
        parts.push(squares.narrow(0, whole, count - whole));
    }
    let sums = parts.into_iter().map(|part| {
        let values = part.into_data().convert::<f64>();
        values.iter::<f64>().sum::<f64>()
    });
    sums.sum()
}
