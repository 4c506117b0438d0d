//! The modules of `retrack-kernels` that know slices only, with their tests.
#![allow(dead_code, reason = "what only tensors call is not called here")]

#[path = "../../src/attention.rs"]
mod attention;
#[path = "../../src/conv.rs"]
mod conv;
#[path = "../../src/gelu.rs"]
mod gelu;
#[path = "../../src/gemm.rs"]
mod gemm;
#[path = "../../src/layout.rs"]
mod layout;
#[path = "../../src/linear.rs"]
mod linear;
#[path = "../../src/norm.rs"]
mod norm;
#[path = "../../src/optim.rs"]
mod optim;
#[path = "../../src/simd.rs"]
mod simd;
#[cfg(test)]
#[path = "../../src/small.rs"]
mod small;
#[path = "../../src/transform.rs"]
mod transform;
#[path = "../../src/transform_gradients.rs"]
mod transform_gradients;
#[path = "../../src/winograd.rs"]
mod winograd;
