//! A network's gradient as one vector in many parts.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Gradients, Tensor};
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
        let mut sum = GradientSum::new(None);
        sum.backward(module, loss);
        sum.finish(module)
    }

    /// Adds a gradient of the same network to `sum`.
    pub fn add_to(sum: &mut Option<Self>, gradient: Self) {
        *sum = Some(match sum.take() {
            Some(sum) => sum.add_scaled(gradient, 1.0),
            None => gradient,
        });
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

/// The sum of the gradients of several losses, each of which need depend on a few parameters only.
#[derive(Debug)]
pub(crate) struct GradientSum {
    /// For every trained parameter, in the network's own order; beyond the end none was reached yet.
    parts: Vec<Option<Tensor<1>>>,
}

impl GradientSum {
    pub(crate) fn new(start: Option<GradientSet>) -> Self {
        let parts = start.map_or_else(Vec::new, |set| set.0.into_iter().map(Some).collect());
        Self { parts }
    }

    /// Runs the backward pass of `loss` (one element) and adds what reaches the parameters of `module`.
    /// Returns the gradients of other leaves.
    pub(crate) fn backward<M: Module>(&mut self, module: &M, loss: Tensor<1>) -> Gradients {
        struct Adder<'a> {
            parts: &'a mut Vec<Option<Tensor<1>>>,
            index: usize,
            gradients: Gradients,
        }
        impl ModuleVisitor for Adder<'_> {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                let tensor = param.val();
                if !tensor.is_require_grad() {
                    return;
                }
                if self.parts.len() == self.index {
                    self.parts.push(None);
                }
                if let Some(gradient) = tensor.grad_remove(&mut self.gradients) {
                    let gradient = gradient.flatten(0, D - 1);
                    let sum = &mut self.parts[self.index];
                    *sum = Some(match sum.take() {
                        Some(sum) => sum + gradient,
                        None => gradient,
                    });
                }
                self.index += 1;
            }
        }
        let mut adder = Adder {
            parts: &mut self.parts,
            index: 0,
            gradients: loss.backward(),
        };
        module.visit(&mut adder);
        adder.gradients
    }

    /// The sum, zero where no loss reached.
    pub(crate) fn finish<M: Module>(self, module: &M) -> GradientSet {
        struct Collector {
            parts: std::vec::IntoIter<Option<Tensor<1>>>,
            set: Vec<Tensor<1>>,
        }
        impl ModuleVisitor for Collector {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                let tensor = param.val();
                if !tensor.is_require_grad() {
                    return;
                }
                let part = self.parts.next().flatten();
                self.set
                    .push(part.unwrap_or_else(|| tensor.inner().zeros_like().flatten(0, D - 1)));
            }
        }
        let mut collector = Collector {
            parts: self.parts.into_iter(),
            set: Vec::new(),
        };
        module.visit(&mut collector);
        GradientSet(collector.set)
    }
}
