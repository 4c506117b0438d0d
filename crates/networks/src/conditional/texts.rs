//! A conditional network with the texts of a run.

use burn::module::{Devices, Module, ModuleMapper, ModuleVisitor};
use burn::tensor::{Device, Int, Tensor, TensorData};

use super::unet::UNet2DConditionModel;
use crate::denoiser::{Denoiser, Embeddings, InputError};
use crate::gradients::GradientSet;
use crate::network::Network;
use crate::process::Time;
use crate::random::Draw;

/// A conditional network in training: every image has one of a few texts, whose number is its label. As a
/// module it is the network alone, so that names and gradients are the network's.
#[derive(Debug, Clone)]
pub struct Captioned {
    /// The denoiser.
    pub network: UNet2DConditionModel,
    /// The text encoder's hidden states, `[texts, tokens, cross_attention_dim]`, without autodiff; none of a network that
    /// is not told any yet.
    texts: Option<Tensor<3>>,
}

impl Captioned {
    /// A network that is told its texts later: [`Denoiser::tell`].
    pub fn untold(network: UNet2DConditionModel) -> Self {
        Self {
            network,
            texts: None,
        }
    }

    /// One that is told them now.
    pub fn new(network: UNet2DConditionModel, texts: Embeddings) -> Self {
        let mut captioned = Self::untold(network);
        captioned.tell(texts);
        captioned
    }

    /// The texts of images with these labels.
    fn states(&self, labels: Option<&[i64]>) -> Result<Tensor<3>, InputError> {
        let Some(texts) = &self.texts else {
            return Err(InputError::Text { label: 0, count: 0 });
        };
        let count = texts.dims()[0];
        Ok(match labels {
            Some(labels) => {
                let known = |label: &&i64| (0..count as i64).contains(*label);
                if let Some(&label) = labels.iter().find(|label| !known(label)) {
                    return Err(InputError::Text { label, count });
                }
                let numbers = TensorData::new(labels.to_vec(), [labels.len()]);
                let numbers = Tensor::<1, Int>::from_data(numbers, &texts.device());
                texts.clone().select(0, numbers)
            }
            None => texts.clone().narrow(0, 0, 1),
        })
    }
}

impl Denoiser for Captioned {
    /// Images without labels have the first text.
    fn predict(
        &self,
        x: Tensor<4>,
        times: &[Time],
        labels: Option<&[i64]>,
        dropout: Option<&mut Draw>,
    ) -> Result<Tensor<4>, InputError> {
        let states = self.states(labels)?;
        let states = if x.is_autodiff() {
            states.autodiff()
        } else {
            states
        };
        let timesteps = Time::embedded(times);
        self.network.forward(x, &timesteps, states, dropout)
    }

    fn tell(&mut self, texts: Embeddings) {
        self.texts = Some(texts.states.inner());
    }

    fn gradients(&self, loss: Tensor<1>) -> GradientSet {
        GradientSet::of(&self.network, loss)
    }

    fn at_once(&self, size: [usize; 2]) -> usize {
        self.network.at_once(size)
    }

    fn looks_at_once(&self, size: [usize; 2]) -> usize {
        self.network.looks_at_once(size)
    }

    fn backward(
        &self,
        x: Tensor<4>,
        times: &[Time],
        labels: Option<&[i64]>,
        dropout: Option<&mut Draw>,
        loss: &mut dyn FnMut(Tensor<4>) -> Tensor<1>,
        sum: &mut Option<GradientSet>,
    ) -> Result<(), InputError> {
        let states = self.states(labels)?.autodiff();
        let timesteps = Time::embedded(times);
        self.network
            .backward(x, &timesteps, states, dropout, loss, sum)
    }
}

impl Module for Captioned {
    fn collect_devices(&self, devices: Devices) -> Devices {
        self.network.collect_devices(devices)
    }

    fn fork(self, device: &Device) -> Self {
        Self {
            network: self.network.fork(device),
            texts: self.texts.map(|texts| texts.to_device(device)),
        }
    }

    fn to_device(self, device: &Device) -> Self {
        Self {
            network: self.network.to_device(device),
            texts: self.texts.map(|texts| texts.to_device(device)),
        }
    }

    fn train(self) -> Self {
        Self {
            network: self.network.train(),
            texts: self.texts,
        }
    }

    fn valid(&self) -> Self {
        Self {
            network: self.network.valid(),
            texts: self.texts.clone(),
        }
    }

    fn materialize(self) -> Self {
        Self {
            network: self.network.materialize(),
            texts: self.texts,
        }
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        self.network.visit(visitor);
    }

    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        Self {
            network: self.network.map(mapper),
            texts: self.texts,
        }
    }
}

/// A conditional network that samples with classifier-free guidance (Ho & Salimans 2022, arXiv 2207.12598): away
/// from one text, towards another.
#[derive(Debug, Clone)]
pub struct Guided {
    /// Told what is asked for (0) and what is avoided (1).
    network: Network,
    /// How far to go; at 1 or below only the prompt counts, as in diffusers.
    guidance: f64,
}

impl Guided {
    /// A copy of `network` that shares its weights. `texts`: what is asked for, and what is avoided, often the empty text.
    pub fn new(network: &Network, texts: Embeddings, guidance: f64) -> Self {
        let mut network = network.clone();
        network.tell(texts);
        Self { network, guidance }
    }
}

impl Denoiser for Guided {
    fn predict(
        &self,
        x: Tensor<4>,
        times: &[Time],
        labels: Option<&[i64]>,
        dropout: Option<&mut Draw>,
    ) -> Result<Tensor<4>, InputError> {
        if labels.is_some() {
            return Err(InputError::LabelsUnexpected);
        }
        if self.guidance <= 1.0 {
            return self.network.predict(x, times, None, dropout);
        }
        let batch = x.dims()[0];
        let texts = [vec![1; batch], vec![0; batch]].concat();
        let (twice, times) = (Tensor::cat(vec![x.clone(), x], 0), times.repeat(2));
        let both = self.network.predict(twice, &times, Some(&texts), dropout)?;
        let negative = both.clone().narrow(0, 0, batch);
        let prompted = both.narrow(0, batch, batch);
        Ok(negative.clone() + (prompted - negative).mul_scalar(self.guidance))
    }

    fn gradients(&self, loss: Tensor<1>) -> GradientSet {
        self.network.gradients(loss)
    }
}
