//! What Inception v3 is made of: convolutions with their normalisation folded in, and blocks of parallel branches.

use burn::tensor::activation::relu;
use burn::tensor::module::{avg_pool2d, conv2d, max_pool2d};
use burn::tensor::ops::{AvgPoolOptions, ConvOptions, MaxPoolOptions};
use burn::tensor::{Device, Tensor, TensorData};

/// Of the batch normalisations, as TensorFlow's Inception has it.
const EPS: f64 = 0.001;

/// Gives a tensor's values by name and shape, or says what is wrong with it.
pub(crate) type Take<'a> = dyn FnMut(&str, &[usize]) -> Result<Vec<f32>, String> + 'a;

/// Builds layers from a checkpoint and collects what is wrong with it.
pub(crate) struct Parts<'a> {
    pub take: &'a mut Take<'a>,
    pub problems: Vec<String>,
    pub device: Device,
}

impl Parts<'_> {
    /// A tensor's values; zeros after a problem.
    pub(crate) fn values(&mut self, name: &str, shape: &[usize]) -> Vec<f32> {
        let count = shape.iter().product();
        match (self.take)(name, shape) {
            Ok(values) if values.len() == count => values,
            Ok(values) => {
                let problem = format!("{name} has {} values instead of {count}", values.len());
                self.problems.push(problem);
                vec![0.0; count]
            }
            Err(problem) => {
                self.problems.push(problem);
                vec![0.0; count]
            }
        }
    }

    /// The convolution NAME.conv with its batch normalisation NAME.bn.
    pub(crate) fn conv(
        &mut self,
        name: &str,
        inputs: usize,
        outputs: usize,
        window: Window,
    ) -> Conv {
        let [height, width] = window.kernel;
        let shape = [outputs, inputs, height, width];
        let mut weight = self.values(&format!("{name}.conv.weight"), &shape);
        let mut norm = |leaf: &str| self.values(&format!("{name}.bn.{leaf}"), &[outputs]);
        let (gamma, beta) = (norm("weight"), norm("bias"));
        let (mean, variance) = (norm("running_mean"), norm("running_var"));
        if variance.iter().any(|&v| v < 0.0) {
            let problem = format!("{name}.bn.running_var holds a negative variance");
            self.problems.push(problem);
        }
        let mut bias = Vec::with_capacity(outputs);
        for (o, filter) in weight.chunks_exact_mut(inputs * height * width).enumerate() {
            let factor = f64::from(gamma[o]) / (f64::from(variance[o]) + EPS).sqrt();
            for value in filter {
                *value = (f64::from(*value) * factor) as f32;
            }
            bias.push((f64::from(beta[o]) - f64::from(mean[o]) * factor) as f32);
        }
        Conv {
            weight: Tensor::from_data(TensorData::new(weight, shape), &self.device),
            bias: Tensor::from_data(TensorData::new(bias, [outputs]), &self.device),
            window,
        }
    }

    /// Convolutions one after another: the name of each, its outputs and its window.
    fn chain(&mut self, block: &str, inputs: usize, convs: &[(&str, usize, Window)]) -> Vec<Conv> {
        let mut inputs = inputs;
        convs
            .iter()
            .map(|&(name, outputs, window)| {
                let conv = self.conv(&format!("{block}.{name}"), inputs, outputs, window);
                inputs = outputs;
                conv
            })
            .collect()
    }
}

/// How a convolution's filter moves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    kernel: [usize; 2],
    stride: usize,
    padding: [usize; 2],
}

/// Stride 1, padded so that the size stays.
pub(crate) const fn same(height: usize, width: usize) -> Window {
    Window {
        kernel: [height, width],
        stride: 1,
        padding: [height / 2, width / 2],
    }
}

/// A square without padding.
pub(crate) const fn valid(side: usize, stride: usize) -> Window {
    Window {
        kernel: [side, side],
        stride,
        padding: [0, 0],
    }
}

/// Convolution, batch normalisation and ReLU.
#[derive(Debug)]
pub(crate) struct Conv {
    /// `[out, in, kh, kw]`.
    weight: Tensor<4>,
    /// `[out]`.
    bias: Tensor<1>,
    window: Window,
}

impl Conv {
    /// # Shapes
    /// `[batch, in, height, width]` to `[batch, out, ..]`.
    pub(crate) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let Window {
            stride, padding, ..
        } = self.window;
        let options = ConvOptions::new([stride, stride], padding, [1, 1], 1);
        relu(conv2d(
            x,
            self.weight.clone(),
            Some(self.bias.clone()),
            options,
        ))
    }
}

/// 3 x 3 pools.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pool {
    /// Stride 1; the mean of the pixels inside the image, as TensorFlow has it.
    Average,
    /// Stride 1.
    Max,
    /// Stride 2, no padding.
    MaxHalve,
}

impl Pool {
    pub(crate) fn forward(self, x: Tensor<4>) -> Tensor<4> {
        let max = MaxPoolOptions::new([3, 3]);
        match self {
            Self::Average => {
                let options = AvgPoolOptions::new([3, 3])
                    .with_stride([1, 1])
                    .with_padding([1, 1])
                    .with_count_include_pad(false);
                avg_pool2d(x, options)
            }
            Self::Max => max_pool2d(x, max.with_stride([1, 1]).with_padding([1, 1])),
            Self::MaxHalve => max_pool2d(x, max.with_stride([2, 2])),
        }
    }
}

/// A pool, then convolutions one after another, then convolutions side by side; any of these may be absent.
#[derive(Debug)]
struct Branch {
    pool: Option<Pool>,
    chain: Vec<Conv>,
    fork: Vec<Conv>,
}

impl Branch {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = self
            .pool
            .map_or_else(|| x.clone(), |pool| pool.forward(x.clone()));
        let x = self.chain.iter().fold(x, |x, conv| conv.forward(x));
        if self.fork.is_empty() {
            return x;
        }
        let sides = self.fork.iter().map(|conv| conv.forward(x.clone()));
        Tensor::cat(sides.collect(), 1)
    }
}

/// Branches over the same input, their channels joined in order.
#[derive(Debug)]
pub(crate) struct Block(Vec<Branch>);

impl Block {
    /// # Shapes
    /// `[batch, in, height, width]` to `[batch, sum of the branches' out, ..]`.
    pub(crate) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let branches = self.0.iter().map(|branch| branch.forward(x.clone()));
        Tensor::cat(branches.collect(), 1)
    }

    fn with(mut self, chain: Vec<Conv>) -> Self {
        self.0.push(Branch {
            pool: None,
            chain,
            fork: Vec::new(),
        });
        self
    }

    fn with_fork(mut self, chain: Vec<Conv>, fork: [Conv; 2]) -> Self {
        self.0.push(Branch {
            pool: None,
            chain,
            fork: fork.into(),
        });
        self
    }

    fn with_pool(mut self, pool: Pool, chain: Vec<Conv>) -> Self {
        self.0.push(Branch {
            pool: Some(pool),
            chain,
            fork: Vec::new(),
        });
        self
    }

    /// Mixed_5b to Mixed_5d: 1x1, 5x5, two 3x3, average pool.
    pub(crate) fn a(parts: &mut Parts, name: &str, inputs: usize, pooled: usize) -> Self {
        let one = same(1, 1);
        let three = same(3, 3);
        let mut chain = |convs: &[_]| parts.chain(name, inputs, convs);
        Self(Vec::new())
            .with(chain(&[("branch1x1", 64, one)]))
            .with(chain(&[
                ("branch5x5_1", 48, one),
                ("branch5x5_2", 64, same(5, 5)),
            ]))
            .with(chain(&[
                ("branch3x3dbl_1", 64, one),
                ("branch3x3dbl_2", 96, three),
                ("branch3x3dbl_3", 96, three),
            ]))
            .with_pool(Pool::Average, chain(&[("branch_pool", pooled, one)]))
    }

    /// Mixed_6a: halves the size.
    pub(crate) fn b(parts: &mut Parts, name: &str, inputs: usize) -> Self {
        let halve = valid(3, 2);
        let mut chain = |convs: &[_]| parts.chain(name, inputs, convs);
        Self(Vec::new())
            .with(chain(&[("branch3x3", 384, halve)]))
            .with(chain(&[
                ("branch3x3dbl_1", 64, same(1, 1)),
                ("branch3x3dbl_2", 96, same(3, 3)),
                ("branch3x3dbl_3", 96, halve),
            ]))
            .with_pool(Pool::MaxHalve, Vec::new())
    }

    /// Mixed_6b to Mixed_6e: 1x1, 7x7 in two steps, twice that, average pool. `c` channels between.
    pub(crate) fn c(parts: &mut Parts, name: &str, inputs: usize, c: usize) -> Self {
        let one = same(1, 1);
        let (wide, high) = (same(1, 7), same(7, 1));
        let mut chain = |convs: &[_]| parts.chain(name, inputs, convs);
        Self(Vec::new())
            .with(chain(&[("branch1x1", 192, one)]))
            .with(chain(&[
                ("branch7x7_1", c, one),
                ("branch7x7_2", c, wide),
                ("branch7x7_3", 192, high),
            ]))
            .with(chain(&[
                ("branch7x7dbl_1", c, one),
                ("branch7x7dbl_2", c, high),
                ("branch7x7dbl_3", c, wide),
                ("branch7x7dbl_4", c, high),
                ("branch7x7dbl_5", 192, wide),
            ]))
            .with_pool(Pool::Average, chain(&[("branch_pool", 192, one)]))
    }

    /// Mixed_7a: halves the size.
    pub(crate) fn d(parts: &mut Parts, name: &str, inputs: usize) -> Self {
        let one = same(1, 1);
        let halve = valid(3, 2);
        let mut chain = |convs: &[_]| parts.chain(name, inputs, convs);
        Self(Vec::new())
            .with(chain(&[
                ("branch3x3_1", 192, one),
                ("branch3x3_2", 320, halve),
            ]))
            .with(chain(&[
                ("branch7x7x3_1", 192, one),
                ("branch7x7x3_2", 192, same(1, 7)),
                ("branch7x7x3_3", 192, same(7, 1)),
                ("branch7x7x3_4", 192, halve),
            ]))
            .with_pool(Pool::MaxHalve, Vec::new())
    }

    /// Mixed_7b with an average pool and Mixed_7c with a maximum pool, a slip of the original that its features have.
    pub(crate) fn e(parts: &mut Parts, name: &str, inputs: usize, pool: Pool) -> Self {
        let one = same(1, 1);
        let fork = |parts: &mut Parts, stem: &str| {
            let (wide, high) = (format!("{name}.{stem}a"), format!("{name}.{stem}b"));
            [
                parts.conv(&wide, 384, 384, same(1, 3)),
                parts.conv(&high, 384, 384, same(3, 1)),
            ]
        };
        let single = parts.chain(name, inputs, &[("branch1x1", 320, one)]);
        let short = parts.chain(name, inputs, &[("branch3x3_1", 384, one)]);
        let short_fork = fork(parts, "branch3x3_2");
        let long = [
            ("branch3x3dbl_1", 448, one),
            ("branch3x3dbl_2", 384, same(3, 3)),
        ];
        let long = parts.chain(name, inputs, &long);
        let long_fork = fork(parts, "branch3x3dbl_3");
        let pooled = parts.chain(name, inputs, &[("branch_pool", 192, one)]);
        Self(Vec::new())
            .with(single)
            .with_fork(short, short_fork)
            .with_fork(long, long_fork)
            .with_pool(pool, pooled)
    }
}
