//! A network's gradient as one vector in many parts.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;
use retrack_kernels as kernels;

use crate::parameters::to_host;

/// The gradient of a loss: for every trained parameter, in the network's own order, its values as a
/// flat tensor in our layout.
#[derive(Debug, Clone)]
pub struct GradientSet(pub Vec<Tensor<1>>);

impl GradientSet {
    /// Runs the backward pass of `loss` (one element) and collects the gradient of `module`.
    ///
    /// A trained parameter that the loss does not depend on gets zeros. A graph serves one backward
    /// pass only.
    pub fn of<M: Module>(module: &M, loss: Tensor<1>) -> Self {
        struct Collector {
            gradients: burn::tensor::Gradients,
            parts: Vec<Tensor<1>>,
        }
        impl ModuleVisitor for Collector {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                let tensor = param.val();
                if !tensor.is_require_grad() {
                    return;
                }
                let part = match tensor.grad_remove(&mut self.gradients) {
                    Some(gradient) => gradient,
                    None => tensor.inner().zeros_like(),
                };
                self.parts.push(part.flatten(0, D - 1));
            }
        }
        let mut collector = Collector {
            gradients: loss.backward(),
            parts: Vec::new(),
        };
        module.visit(&mut collector);
        Self(collector.parts)
    }

    /// `self + factor * other`.
    pub fn add_scaled(self, other: Self, factor: f64) -> Self {
        let pairs = self.0.into_iter().zip(other.0);
        Self(pairs.map(|(a, b)| a + b.mul_scalar(factor)).collect())
    }

    /// `factor * self`.
    pub fn scale(self, factor: f64) -> Self {
        if factor == 1.0 {
            return self;
        }
        Self(self.0.into_iter().map(|g| g.mul_scalar(factor)).collect())
    }

    /// Sum of all squares, in f64.
    pub fn norm_squared(&self) -> f64 {
        self.0
            .iter()
            .map(|part| kernels::sum_squares(part.clone()))
            .sum()
    }

    /// Euclidean norm over all parameters together.
    pub fn norm(&self) -> f64 {
        self.norm_squared().sqrt()
    }

    /// Inner product with another gradient of the same network, in f64.
    pub fn dot(&self, other: &Self) -> f64 {
        let pairs = self.0.iter().zip(&other.0);
        pairs
            .map(|(a, b)| {
                let (a, b) = (to_host(a.clone()), to_host(b.clone()));
                let products = a.iter().zip(&b).map(|(x, y)| f64::from(*x) * f64::from(*y));
                products.sum::<f64>()
            })
            .sum()
    }
}
