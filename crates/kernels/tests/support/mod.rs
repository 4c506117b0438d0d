//! The kernels as functions of several inputs, computed both ways: fast and plain.
#![allow(dead_code, reason = "each test file uses some of it")]

use burn::tensor::{Device, Tensor, TensorData};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rand_distr::{Distribution, StandardNormal};
use retrack_kernels::{self as kernels, Padding, plain};

pub struct Source(ChaCha8Rng);

impl Source {
    pub fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    pub fn normal(&mut self, count: usize) -> Vec<f32> {
        (0..count)
            .map(|_| StandardNormal.sample(&mut self.0))
            .collect()
    }

    pub fn pick(&mut self, choices: &[usize]) -> usize {
        choices[self.0.next_u32() as usize % choices.len()]
    }
}

/// An input: values and shape.
pub struct Input(pub Vec<f32>, pub Vec<usize>);

impl Input {
    pub fn new(source: &mut Source, dims: &[usize]) -> Self {
        Self(source.normal(dims.iter().product()), dims.to_vec())
    }

    pub fn tensor<const D: usize>(&self, device: &Device) -> Tensor<D> {
        Tensor::from_data(TensorData::new(self.0.clone(), self.1.clone()), device)
    }
}

pub fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().unwrap()
}

/// A function of several tensors of ranks up to 4, given and returned as rank 4 or less by closures below.
pub trait Case {
    /// Result, then the gradient of each input.
    fn run(&self, fast: bool, wanted: &[bool]) -> Vec<Option<Vec<f32>>>;
    fn inputs(&self) -> usize;
}

macro_rules! case {
    ($name:ident { $($field:ident: $rank:literal),+ } ($($setting:ident: $type:ty),*) |$s:ident| -> $out:literal $fast:expr, $plain:expr) => {
        pub struct $name { $(pub $field: Input,)+ $(pub $setting: $type,)* pub dy: Vec<f32> }
        impl Case for $name {
            fn inputs(&self) -> usize { [$(stringify!($field)),+].len() }
            fn run(&self, fast: bool, wanted: &[bool]) -> Vec<Option<Vec<f32>>> {
                let device = Device::default().autodiff();
                let mut wants = wanted.iter();
                $(let $field: Tensor<$rank> = self.$field.tensor(&device);
                  let $field = if *wants.next().unwrap() { $field.require_grad() } else { $field };)+
                let y: Tensor<$out> = {
                    $(let $field = $field.clone();)+
                    let $s = self;
                    if fast { $fast } else { $plain }
                };
                let dims = y.dims();
                let mut found = vec![Some(values(y.clone()))];
                if wanted.contains(&true) {
                    let dy = Tensor::<$out>::from_data(TensorData::new(self.dy.clone(), dims.to_vec()), &device);
                    let grads = (y * dy).sum().backward();
                    $(found.push($field.grad(&grads).map(values));)+
                }
                found
            }
        }
    };
}

case! { Conv { x: 4, w: 4, b: 2, r: 4 } (residual: bool) |s| -> 4
kernels::conv3x3(x, w, b, s.residual.then_some(r)),
plain::conv3x3(x, w, b, s.residual.then_some(r)) }
case! { Stride2 { x: 4, w: 4, b: 1 } (padding: Padding) |s| -> 4
kernels::conv3x3_stride2(x, w, b, s.padding),
plain::conv3x3_stride2(x, w, b, s.padding) }
case! { Linear { x: 2, w: 2, b: 1 } (bias: bool) |s| -> 2
kernels::linear(x, w, s.bias.then_some(b)),
plain::linear(x, w, s.bias.then_some(b)) }
case! { Norm { x: 4, gamma: 2, beta: 2 } (groups: usize, silu: bool) |s| -> 4
kernels::group_norm(x, gamma, beta, s.groups, 1e-5, s.silu),
plain::group_norm(x, gamma, beta, s.groups, 1e-5, s.silu) }
case! { Upsample { x: 4 } () |_s| -> 4 kernels::upsample_nearest2x(x), plain::upsample_nearest2x(x) }
case! { Concat { a: 4, b: 4 } () |_s| -> 4 kernels::concat_channels(a, b), plain::concat_channels(a, b) }
case! { Attention { q: 3, k: 3, v: 3 } (scale: f64) |s| -> 3
kernels::attention(q, k, v, s.scale),
plain::attention(q, k, v, s.scale) }
case! { Silu { x: 3 } () |_s| -> 3 kernels::silu(x), plain::silu(x) }
case! { Gelu { x: 3 } () |_s| -> 3 kernels::gelu(x), plain::gelu(x) }
case! { Geglu { x: 2 } () |_s| -> 2 kernels::geglu(x), plain::geglu(x) }
