//! AdamW over a network's trained parameters, with the gradient clipped by its norm.

use burn::module::Module;
use burn::tensor::{DType, Tensor};
use retrack_kernels::{self as kernels, AdamWStep};
use retrack_networks::gradients::GradientSet;
use retrack_networks::parameters;
use serde::{Deserialize, Serialize};

/// Settings of AdamW (Loshchilov & Hutter 2019) as PyTorch defines it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AdamWConfig {
    /// How much of the first and second moment stays in a step.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Part of a weight that a step takes away, times the learning rate.
    pub weight_decay: f64,
    /// The gradient is scaled down to this norm where it is longer.
    pub max_grad_norm: f64,
    /// What the two moments are kept in: `f32`, or `bf16`, which takes half of the memory and is rounded by chance, so that
    /// the means are right.
    #[serde(default, skip_serializing_if = "State::is_f32")]
    pub state: State,
}

/// What an optimizer keeps its moments in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As weights are.
    #[default]
    F32,
    /// In half of that. On the CPU alone.
    Bf16,
}

impl State {
    fn is_f32(&self) -> bool {
        *self == Self::F32
    }

    /// Bytes of a number.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }

    fn kept(self, tensor: Tensor<1>) -> Tensor<1> {
        match self {
            Self::F32 => tensor,
            Self::Bf16 => tensor.cast(DType::BF16),
        }
    }
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self {
            betas: [0.95, 0.999],
            epsilon: 1e-8,
            weight_decay: 1e-6,
            max_grad_norm: 1.0,
            state: State::F32,
        }
    }
}

/// AdamW and its moments.
#[derive(Debug, Clone)]
pub struct AdamW {
    config: AdamWConfig,
    /// Steps taken.
    step: usize,
    /// First and second moment of each trained parameter, flat, in the network's own order.
    moments: Vec<(Tensor<1>, Tensor<1>)>,
}

impl AdamW {
    /// An optimizer that has taken no step.
    pub fn new(config: AdamWConfig) -> Self {
        Self {
            config,
            step: 0,
            moments: Vec::new(),
        }
    }

    /// An optimizer that has taken `step` steps and reached these moments.
    pub fn resumed(config: AdamWConfig, step: usize, moments: Vec<(Tensor<1>, Tensor<1>)>) -> Self {
        let kept = |(first, second)| (config.state.kept(first), config.state.kept(second));
        let moments = moments.into_iter().map(kept).collect();
        Self {
            config,
            step,
            moments,
        }
    }

    /// First and second moment of each trained parameter, flat, in the network's own order; empty before the first step.
    pub fn moments(&self) -> &[(Tensor<1>, Tensor<1>)] {
        &self.moments
    }

    /// One step along `gradients`, whose Euclidean norm is `norm`.
    pub fn step<M: Module>(
        &mut self,
        network: M,
        gradients: GradientSet,
        norm: f64,
        learning_rate: f64,
    ) -> M {
        self.step += 1;
        let mut step = AdamWStep {
            learning_rate,
            beta1: self.config.betas[0],
            beta2: self.config.betas[1],
            epsilon: self.config.epsilon,
            weight_decay: self.config.weight_decay,
            step: self.step,
            // PyTorch's `clip_grad_norm_` adds the same 1e-6.
            gradient_scale: (self.config.max_grad_norm / (norm + 1e-6)).min(1.0),
            parameter: 0,
        };
        if self.moments.is_empty() {
            let zero = |g: &Tensor<1>| self.config.state.kept(g.zeros_like());
            let zeros = |g: &Tensor<1>| (zero(g), zero(g));
            self.moments = gradients.0.iter().map(zeros).collect();
        }
        let mut moments = std::mem::take(&mut self.moments).into_iter();
        let mut gradients = gradients.0.into_iter();
        let mut updated = Vec::with_capacity(moments.len());
        let network = parameters::map(network, |parameter, tensor| {
            if !parameter.trained {
                return tensor;
            }
            let (first, second) = moments.next().expect("a moment for each parameter");
            let gradient = gradients.next().expect("a gradient for each parameter");
            let (tensor, first, second) =
                kernels::adamw_step(tensor, gradient, first, second, &step);
            step.parameter += 1;
            updated.push((first, second));
            tensor
        });
        self.moments = updated;
        network
    }
}

/// How the learning rate moves over a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "schedule", rename_all = "snake_case")]
pub enum LearningRate {
    /// The same in every step.
    Constant {
        /// The rate.
        rate: f64,
    },
    /// Linear from 0 over `warmup` steps, then half a cosine down to 0 at `steps`.
    Cosine {
        /// The highest.
        rate: f64,
        /// Steps until the highest.
        warmup: usize,
        /// Steps of the run.
        steps: usize,
        /// Steps of the run that this one goes on from, whose rate had come to its end; 0: it goes on from none. From
        /// there the rate rises over `warmup` steps to where a cosine of `steps` steps is by then.
        #[serde(default, skip_serializing_if = "is_zero")]
        ended_at: usize,
    },
    /// From step `from` on: linear from 0 over `warmup` steps, then half a cosine down to 0 `steps` steps after `from`.
    Round {
        /// The highest.
        rate: f64,
        /// Steps of the rise.
        warmup: usize,
        /// Steps before.
        from: usize,
        /// Steps of the rise and the fall.
        steps: usize,
    },
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl LearningRate {
    /// The rate of a step, counted from 0.
    pub fn at(&self, step: usize) -> f64 {
        match *self {
            Self::Constant { rate } => rate,
            Self::Round {
                rate,
                warmup,
                from,
                steps,
            } => {
                // The first step is one already.
                let step = step.saturating_sub(from) + 1;
                let fall = |done: f64| 0.5 * (1.0 + (std::f64::consts::PI * done).cos());
                match step <= warmup {
                    true => rate * step as f64 / warmup as f64,
                    false => rate * fall((step - warmup) as f64 / (steps - warmup + 1) as f64),
                }
            }
            Self::Cosine { rate, warmup, .. } if step < warmup => {
                rate * step as f64 / warmup as f64
            }
            Self::Cosine {
                rate,
                warmup,
                steps,
                ended_at,
            } => {
                let done = (step - warmup) as f64 / steps.saturating_sub(warmup).max(1) as f64;
                let rate = rate * 0.5 * (1.0 + (std::f64::consts::PI * done.min(1.0)).cos());
                match step.checked_sub(ended_at) {
                    Some(since) if ended_at > 0 && since < warmup => {
                        rate * since as f64 / warmup as f64
                    }
                    _ => rate,
                }
            }
        }
    }
}

/// Exponential moving average of a network's trained parameters (diffusers' `EMAModel` with its
/// warm-up).
#[derive(Debug, Clone)]
pub struct Ema {
    config: EmaConfig,
    /// Updates made.
    step: usize,
    /// Flat, in the network's own order.
    averages: Vec<Tensor<1>>,
}

/// How fast an [`Ema`] forgets: after n updates by `1 - (1 + n / inverse_gamma)^-power`, at most
/// `max_decay`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EmaConfig {
    /// Updates after which the average begins to be slower.
    pub inverse_gamma: f64,
    /// How quickly it becomes slow.
    pub power: f64,
    /// What stays of the average in an update, at most.
    pub max_decay: f64,
}

impl Default for EmaConfig {
    fn default() -> Self {
        Self {
            inverse_gamma: 1.0,
            power: 0.75,
            max_decay: 0.9999,
        }
    }
}

impl Ema {
    /// An average that begins with the network as it is.
    pub fn new<M: Module>(config: EmaConfig, network: &M) -> Self {
        Self {
            config,
            step: 0,
            averages: trained(network),
        }
    }

    /// An average that has seen `step` updates.
    pub fn resumed(config: EmaConfig, step: usize, averages: Vec<Tensor<1>>) -> Self {
        Self {
            config,
            step,
            averages,
        }
    }

    /// The average of each trained parameter, flat, in the network's own order.
    pub fn averages(&self) -> &[Tensor<1>] {
        &self.averages
    }

    /// Moves the average towards the network.
    pub fn update<M: Module>(&mut self, network: &M) {
        let n = self.step as f64;
        let decay = if self.step == 0 {
            0.0
        } else {
            1.0 - (1.0 + n / self.config.inverse_gamma).powf(-self.config.power)
        };
        let decay = decay.clamp(0.0, self.config.max_decay);
        self.step += 1;
        let pairs = std::mem::take(&mut self.averages)
            .into_iter()
            .zip(trained(network));
        self.averages = pairs
            .map(|(average, value)| average.mul_scalar(decay) + value.mul_scalar(1.0 - decay))
            .collect();
    }

    /// The network with the average in place of its trained parameters.
    pub fn apply<M: Module>(&self, network: M) -> M {
        let mut averages = self.averages.iter();
        parameters::map(network, |parameter, tensor| {
            if parameter.trained {
                averages.next().expect("an average for each").clone()
            } else {
                tensor
            }
        })
    }
}

fn trained<M: Module>(network: &M) -> Vec<Tensor<1>> {
    let mut all = Vec::new();
    parameters::visit(network, |parameter, tensor| {
        if parameter.trained {
            all.push(tensor);
        }
    });
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cosine_rises_and_falls_to_zero() {
        let rate = LearningRate::Cosine {
            rate: 2.0,
            warmup: 10,
            steps: 110,
            ended_at: 0,
        };
        assert_eq!(rate.at(0), 0.0);
        assert_eq!(rate.at(5), 1.0);
        assert_eq!(rate.at(10), 2.0);
        assert!((rate.at(60) - 1.0).abs() < 1e-12);
        assert!(rate.at(110).abs() < 1e-12);
        assert!(rate.at(500).abs() < 1e-12);
        // A run of 60 steps that goes on to 110: it rises to where the longer one is.
        let longer = LearningRate::Cosine {
            rate: 2.0,
            warmup: 10,
            steps: 110,
            ended_at: 60,
        };
        assert_eq!(longer.at(60), 0.0);
        assert!((longer.at(65) - rate.at(65) / 2.0).abs() < 1e-15);
        assert!((longer.at(70) - rate.at(70)).abs() < 1e-15);
        assert!(longer.at(110).abs() < 1e-12);
    }
}
