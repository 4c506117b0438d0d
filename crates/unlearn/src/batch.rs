//! What one micro-batch holds, on the host: the same numbers whatever the device.

use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use retrack_networks::process::{Process, Time};

use retrack_data::Dataset;

/// Clean images with the noise and the timesteps that a step draws for them.
#[derive(Debug, Clone)]
pub struct Noised {
    /// `[batch, height, width, channels]`.
    pub shape: [usize; 4],
    /// Pixels in [-1, 1].
    pub clean: Vec<f32>,
    /// Standard normal.
    pub noise: Vec<f32>,
    /// One for each image.
    pub timesteps: Vec<Time>,
    /// One for each image, where the network has classes.
    pub labels: Option<Vec<i64>>,
}

impl Noised {
    /// Number of images.
    pub fn len(&self) -> usize {
        self.shape[0]
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.shape[0] == 0
    }

    /// Numbers in one image.
    pub fn image_len(&self) -> usize {
        self.shape[1..].iter().product()
    }

    /// The numbers of one image among `values` of this batch's shape.
    pub fn image<'a>(&self, values: &'a [f32], image: usize) -> &'a [f32] {
        debug_assert_eq!(values.len(), self.clean.len());
        let len = self.image_len();
        &values[image * len..(image + 1) * len]
    }

    /// A tensor of this batch's shape.
    pub fn tensor(&self, values: Vec<f32>, device: &Device) -> Tensor<4> {
        Tensor::from_data(TensorData::new(values, self.shape), device)
    }

    /// The clean images, as the network takes them: `[batch, height, width, channels]`.
    pub fn clean(&self, device: &Device) -> Tensor<4> {
        self.tensor(self.clean.clone(), device)
    }

    /// The noise, of the same shape.
    pub fn noise(&self, device: &Device) -> Tensor<4> {
        self.tensor(self.noise.clone(), device)
    }

    /// The noisy images x_t.
    pub fn noisy(&self, process: &dyn Process, device: &Device) -> Tensor<4> {
        process.add_noise(self.clean(device), self.noise(device), &self.timesteps)
    }

    /// What a network that reconstructs these images predicts.
    pub fn target(&self, process: &dyn Process, device: &Device) -> Tensor<4> {
        process.target_of_noise(self.clean(device), self.noise(device), &self.timesteps)
    }
}

/// The retained images that may take a forgotten one's place.
#[derive(Debug, Clone)]
pub enum Candidates<'a> {
    /// For each image of `forget`, its nearest ones one after another, pixels in [-1, 1].
    Nearest(Vec<Arc<[f32]>>),
    /// All of these rows, for every image of `forget`.
    All {
        /// Where they are read.
        data: &'a Dataset,
        /// Which.
        rows: &'a [usize],
    },
    /// The same of images that are in memory: where they lie, because together they are as large as the data.
    InMemory(Vec<&'a [f32]>),
}

/// One micro-batch. What an objective did not ask for is absent.
#[derive(Debug, Clone, Default)]
pub struct Batch<'a> {
    /// Retained images.
    pub retain: Option<Noised>,
    /// Forgotten images.
    pub forget: Option<Noised>,
    /// The row of each image of `forget`.
    pub forget_rows: Vec<usize>,
    /// What may take the place of each image of `forget`.
    pub neighbors: Option<Candidates<'a>>,
    /// From [0, 1), of `forget`'s shape.
    pub uniform: Option<Vec<f32>>,
    /// For each image of `forget`, whether the image of `retain` takes its place.
    pub mixture_mask: Option<Vec<bool>>,
}

/// Which parts of a [`Batch`] an objective reads.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Draws {
    /// Retained images.
    pub retain: bool,
    /// Forgotten images.
    pub forget: bool,
    /// The images that may take a forgotten one's place.
    pub neighbors: bool,
    /// Uniform random numbers.
    pub uniform: bool,
    /// The probability that a slot of the mixture holds the retained image.
    pub mixture: Option<f64>,
}
