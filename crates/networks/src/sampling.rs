//! From noise to images.

use std::ops::Range;

use burn::tensor::{Device, Tensor, TensorData};

use crate::denoiser::{Denoiser, InputError};
use crate::parameters::to_host;
use crate::process::Time;
use crate::random::{Random, Stream};
use crate::schedule::{Sampler, Walk};

/// A network with the sampler and the random numbers that turn noise into its images.
pub struct Generator<'a> {
    /// On a device without autodiff.
    pub network: &'a dyn Denoiser,
    /// The way from noise to an image.
    pub sampler: &'a Sampler,
    /// Where noise comes from.
    pub random: Random,
    /// Height, width, channels.
    pub shape: [usize; 3],
    /// Where the network is.
    pub device: &'a Device,
}

impl Generator<'_> {
    /// The images with these numbers, one after another, values around [-1, 1]. Image i is the same
    /// in whatever range it is asked for.
    ///
    /// `labels` holds one label for each image of a network with classes. `progress` is called after
    /// each denoising step.
    ///
    /// # Errors
    /// Labels that do not fit the network.
    pub fn images(
        &self,
        images: Range<u64>,
        labels: Option<&[i64]>,
        progress: &mut dyn FnMut(),
    ) -> Result<Vec<f32>, InputError> {
        let noise = self.noise(Stream::SampleStart, 0, images.clone());
        let start = self.sampler.begin(noise);
        self.denoise(start, images, self.sampler.walk(), labels, progress)
    }

    /// Noises `clean` (`[batch, height, width, channels]`) to time `t` and denoises it again, with
    /// the random numbers of `images`, one for each of the batch.
    ///
    /// # Errors
    /// Labels that do not fit the network.
    pub fn reconstruct(
        &self,
        clean: Tensor<4>,
        t: Time,
        images: Range<u64>,
        labels: Option<&[i64]>,
        progress: &mut dyn FnMut(),
    ) -> Result<Vec<f32>, InputError> {
        let noise = self.noise(Stream::Probe, 0, images.clone());
        let noisy = self.sampler.process().add_noise(clean, noise, &[t]);
        let walk = self.sampler.walk_from(t);
        self.denoise(noisy, images, walk, labels, progress)
    }

    /// Denoises along `walk`.
    fn denoise(
        &self,
        mut x: Tensor<4>,
        images: Range<u64>,
        mut walk: Walk,
        labels: Option<&[i64]>,
        progress: &mut dyn FnMut(),
    ) -> Result<Vec<f32>, InputError> {
        let batch = x.dims()[0];
        for t in walk.timesteps() {
            let output = self
                .network
                .predict(x.clone(), &vec![t; batch], labels, None)?;
            x = walk.step(output, t, x, || {
                self.noise(Stream::SampleNoise, t.code(), images.clone())
            });
            progress();
        }
        Ok(to_host(x))
    }

    fn noise(&self, stream: Stream, step: u64, images: Range<u64>) -> Tensor<4> {
        let [height, width, channels] = self.shape;
        let batch = (images.end - images.start) as usize;
        let noise = self
            .random
            .noise(stream, step, images, height * width * channels);
        let shape = [batch, height, width, channels];
        Tensor::from_data(TensorData::new(noise, shape), self.device)
    }
}
