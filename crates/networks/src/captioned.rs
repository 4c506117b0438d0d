//! Networks that look at texts, with the texts of a run.

use burn::module::{Devices, Module, ModuleMapper, ModuleVisitor};
use burn::tensor::{Device, Tensor};

use crate::denoiser::{Denoiser, Embeddings, InputError};
use crate::gradients::GradientSet;
use crate::network::Network;
use crate::process::Time;
use crate::random::Draw;

/// A network that looks at a text beside a noisy image and its time.
pub trait Conditional: Module {
    /// What the network predicts.
    ///
    /// # Shapes
    /// `x`: `[batch, height, width, in]`; a timestep and a text for each image, or one text for all; result: `[batch, height,
    /// width, out]`.
    ///
    /// # Errors
    /// An input that does not fit the network.
    fn forward(
        &self,
        x: Tensor<4>,
        timesteps: &[f32],
        texts: Embeddings,
        dropout: Option<&mut Draw>,
    ) -> Result<Tensor<4>, InputError>;

    /// As [`forward`](Self::forward), then the backward pass of what `loss` (one element) makes of the prediction; the gradient
    /// of every trained parameter is added to `sum`. Images that would keep too much keep less, and are computed twice.
    ///
    /// # Errors
    /// As `forward`.
    fn backward(
        &self,
        x: Tensor<4>,
        timesteps: &[f32],
        texts: Embeddings,
        dropout: Option<&mut Draw>,
        loss: &mut dyn FnMut(Tensor<4>) -> Tensor<1>,
        sum: &mut Option<GradientSet>,
    ) -> Result<(), InputError>;

    /// See [`Denoiser::at_once`].
    fn at_once(&self, size: [usize; 2]) -> usize;

    /// See [`Denoiser::looks_at_once`].
    fn looks_at_once(&self, size: [usize; 2]) -> usize;
}

/// A conditional network in training: every image has one of a few texts, whose number is its label. As a
/// module it is the network alone, so that names and gradients are the network's.
#[derive(Debug, Clone)]
pub struct Captioned<N> {
    /// The denoiser.
    pub network: N,
    /// Without autodiff; none of a network that is not told any yet.
    texts: Option<Embeddings>,
}

impl<N: Conditional> Captioned<N> {
    /// A network that is told its texts later: [`Denoiser::tell`].
    pub fn untold(network: N) -> Self {
        Self {
            network,
            texts: None,
        }
    }

    /// One that is told them now.
    pub fn new(network: N, texts: Embeddings) -> Self {
        let mut captioned = Self::untold(network);
        captioned.tell(texts);
        captioned
    }

    /// The texts of images with these labels.
    fn embeddings(&self, labels: Option<&[i64]>) -> Result<Embeddings, InputError> {
        let Some(texts) = &self.texts else {
            return Err(InputError::Text { label: 0, count: 0 });
        };
        let count = texts.len();
        let labels = labels.unwrap_or(&[0]);
        let known = |label: &&i64| (0..count as i64).contains(*label);
        match labels.iter().find(|label| !known(label)) {
            Some(&label) => Err(InputError::Text { label, count }),
            None => Ok(texts.select(labels)),
        }
    }
}

impl<N: Conditional> Denoiser for Captioned<N> {
    /// Images without labels have the first text.
    fn predict(
        &self,
        x: Tensor<4>,
        times: &[Time],
        labels: Option<&[i64]>,
        dropout: Option<&mut Draw>,
    ) -> Result<Tensor<4>, InputError> {
        let texts = self.embeddings(labels)?;
        let texts = if x.is_autodiff() {
            texts.autodiff()
        } else {
            texts
        };
        let timesteps = Time::embedded(times);
        self.network.forward(x, &timesteps, texts, dropout)
    }

    fn tell(&mut self, texts: Embeddings) {
        self.texts = Some(texts.inner());
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
        let texts = self.embeddings(labels)?.autodiff();
        let timesteps = Time::embedded(times);
        self.network
            .backward(x, &timesteps, texts, dropout, loss, sum)
    }
}

impl<N: Conditional> Module for Captioned<N> {
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
