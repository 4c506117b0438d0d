//! Times every kernel and its plain reference, forward and with gradients; one JSON line each.
//!
//!     cargo run --release -p retrack-kernels --example kernel_times

use std::time::Instant;

use burn::tensor::{Device, Distribution, Tensor};
use retrack_kernels::{self as kernels, Padding, plain};

/// Best of several runs, in milliseconds.
fn best(work: &dyn Fn()) -> f64 {
    let once = || {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64() * 1e3
    };
    once();
    (0..5).map(|_| once()).fold(f64::INFINITY, f64::min)
}

/// Times `fast` and `plain` on the same inputs.
fn report<const D: usize, const N: usize>(
    name: &str,
    inputs: [Tensor<4>; N],
    fast: impl Fn([Tensor<4>; N]) -> Tensor<D>,
    plain: impl Fn([Tensor<4>; N]) -> Tensor<D>,
) {
    let tracked = || inputs.clone().map(|input| input.detach().require_grad());
    let ways: [&dyn Fn([Tensor<4>; N]) -> Tensor<D>; 2] = [&fast, &plain];
    let forward = ways.map(|way| best(&|| drop(way(inputs.clone()))));
    let both = ways.map(|way| best(&|| drop(way(tracked()).sum().backward())));
    println!(
        "{{\"kernel\":\"{name}\",\"simd\":\"{}\",\"threads\":{},\"forward_ms\":{:.3},\"plain_forward_ms\":{:.3},\"gradients_ms\":{:.3},\"plain_gradients_ms\":{:.3}}}",
        kernels::simd_name(),
        rayon::current_num_threads(),
        forward[0],
        forward[1],
        both[0],
        both[1],
    );
}

fn main() {
    let device = Device::default().autodiff();
    let random =
        |dims: [usize; 4]| Tensor::<4>::random(dims, Distribution::Normal(0.0, 1.0), &device);
    let row = |t: Tensor<4>| {
        let channels = t.dims()[3];
        t.reshape([1, channels])
    };
    let flat = |t: Tensor<4>| {
        let [batch, height, width, channels] = t.dims();
        t.reshape([batch, height * width, channels])
    };
    for (batch, size, ci, co) in [
        (16, 32, 128, 128),
        (16, 16, 256, 256),
        (16, 8, 256, 256),
        (16, 4, 256, 256),
        (128, 28, 32, 32),
        (128, 14, 64, 64),
        (128, 28, 1, 32),
        (16, 32, 128, 3),
    ] {
        report(
            &format!("conv3x3 {batch}x{size}x{size} {ci}->{co}"),
            [
                random([batch, size, size, ci]),
                random([3, 3, ci, co]),
                random([1, 1, 1, co]),
            ],
            |[x, w, b]| kernels::conv3x3(x, w, row(b), None),
            |[x, w, b]| plain::conv3x3(x, w, row(b), None),
        );
    }
    for (batch, size, channels) in [(16, 32, 128), (16, 16, 256), (128, 28, 32)] {
        let x = || random([batch, size, size, channels]);
        let shape = format!("{batch}x{size}x{size}x{channels}");
        report(
            &format!("conv3x3_stride2 {shape}"),
            [
                x(),
                random([3, 3, channels, channels]),
                random([1, 1, 1, channels]),
            ],
            |[x, w, b]| kernels::conv3x3_stride2(x, w, b.reshape([channels]), Padding::BottomRight),
            |[x, w, b]| plain::conv3x3_stride2(x, w, b.reshape([channels]), Padding::BottomRight),
        );
        report(
            &format!("group_norm+silu {shape}"),
            [
                x(),
                random([1, 1, 1, channels]),
                random([1, 1, 1, channels]),
            ],
            |[x, g, b]| kernels::group_norm(x, row(g), row(b), 32, 1e-6, true),
            |[x, g, b]| plain::group_norm(x, row(g), row(b), 32, 1e-6, true),
        );
        report(
            &format!("upsample_nearest2x {shape}"),
            [x()],
            |[x]| kernels::upsample_nearest2x(x),
            |[x]| plain::upsample_nearest2x(x),
        );
        report(
            &format!("concat_channels {shape}"),
            [x(), x()],
            |[a, b]| kernels::concat_channels(a, b),
            |[a, b]| plain::concat_channels(a, b),
        );
        report(
            &format!("linear {} {channels}->{channels}", batch * size * size),
            [
                x(),
                random([1, 1, channels, channels]),
                random([1, 1, 1, channels]),
            ],
            |[x, w, b]| {
                kernels::linear(
                    x.reshape([-1, channels as i32]),
                    w.reshape([channels, channels]),
                    Some(b.reshape([channels])),
                )
            },
            |[x, w, b]| {
                plain::linear(
                    x.reshape([-1, channels as i32]),
                    w.reshape([channels, channels]),
                    Some(b.reshape([channels])),
                )
            },
        );
        report(
            &format!("silu {shape}"),
            [x()],
            |[x]| kernels::silu(x),
            |[x]| plain::silu(x),
        );
    }
    for (heads, side, dim) in [(16, 16, 256), (128, 7, 64), (8, 32, 40)] {
        let x = || random([heads, side, side, dim]);
        report(
            &format!("attention {heads}x{} dim {dim}", side * side),
            [x(), x(), x()],
            |[q, k, v]| kernels::attention(flat(q), flat(k), flat(v), 0.1),
            |[q, k, v]| plain::attention(flat(q), flat(k), flat(v), 0.1),
        );
    }
}
