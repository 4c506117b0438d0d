//! Whether a model brings an image back from its noised form: the published "injection" (arXiv 2509.13007).

use burn::tensor::{Tensor, TensorData};
use retrack_data::ImageShape;
use retrack_data::look_alikes::Change;
use retrack_data::pixels::to_unit;
use retrack_networks::denoiser::InputError;
use retrack_networks::process::{Process, Time};
use retrack_networks::random::{Random, Stream};
use retrack_networks::sampling::Generator;
use retrack_networks::schedule::{
    Sampler, ScheduleError, SchedulerConfig, SchedulerKind, TimestepSpacing,
};

use crate::distance::mean;
use crate::frequency::{Frequency, to_nearest_image};

/// How often that is tried with each image. The published number rests on one try.
pub(crate) const REPEATS: usize = 16;

/// Where an image is noised to before the model denoises it again: a quarter of the way, which is timestep 250 of the
/// published 1,000.
pub(crate) fn time(process: &dyn Process) -> Time {
    process.quantile(1, 4)
}

/// Ancestral sampling in so many steps over the whole schedule, or over every timestep, as published, where it has no more.
///
/// The last timestep is left out, which no attempt begins at: where it holds no signal (`rescale_betas_zero_snr`) a
/// walk cannot begin there. What moves or spaces the steps of shorter walks means nothing to one that leaves none out.
///
/// # Errors
/// None that a schedule of at least one timestep has.
pub(crate) fn sampler(config: &SchedulerConfig, most: usize) -> Result<Sampler, ScheduleError> {
    let every = SchedulerConfig {
        timestep_spacing: TimestepSpacing::Leading,
        steps_offset: 0,
        ..config.clone()
    };
    let steps = config
        .num_train_timesteps
        .saturating_sub(1)
        .max(1)
        .min(most);
    Sampler::new(SchedulerKind::Ddpm, &every, steps)
}

/// What a model makes of `images`, [`REPEATS`] of bytes one after another, from noise at [`time`]: values around [-1, 1]. The published measure denoises ancestrally over every timestep; `generator` says how it is done
/// here. `label` is the class, of a network with classes. `progress` is called after each denoising step.
///
/// # Errors
/// An image or label that does not fit the network.
pub(crate) fn restore(
    generator: &Generator,
    images: &[u8],
    label: Option<i64>,
    progress: &mut dyn FnMut(),
) -> Result<Vec<f32>, InputError> {
    let clean: Vec<f32> = images.iter().map(|&byte| to_unit(byte)).collect();
    let [height, width, channels] = generator.shape;
    let clean = TensorData::new(clean, [REPEATS, height, width, channels]);
    let clean = Tensor::from_data(clean, generator.device);
    let from = time(generator.sampler.process());
    let labels = label.map(|label| [label; REPEATS]);
    let labels = labels.as_ref().map(|labels| &labels[..]);
    generator.reconstruct(clean, from, 0..REPEATS as u64, labels, progress)
}

/// [`REPEATS`] look-alikes of an image (bytes), one after another, which no model saw. `random` and the image's number decide
/// them.
pub(crate) fn look_alikes(
    shape: ImageShape,
    image: &[u8],
    random: Random,
    number: usize,
) -> Vec<u8> {
    let one = |place| {
        let mut draw = random.at(Stream::LookAlike, number as u64, place as u64);
        Change::drawn(&draw.uniform(Change::NUMBERS), 1.0).apply(shape, image)
    };
    (0..REPEATS).flat_map(one).collect()
}

/// How near restored images come to forgotten ones.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Restored {
    /// Of the tries: those nearer to any of the images than its threshold.
    pub share: f64,
    /// Mean Euclidean distance to the nearest of the images, pixels in [0, 1].
    pub distance: f64,
    /// How many.
    pub tries: usize,
}

impl Restored {
    /// `restored` holds tries, one after another; all are bytes of one shape. A try that began with one of `images` and
    /// led to another has brought a forgotten image back.
    pub(crate) fn of(images: &[&[u8]], thresholds: &[f64], restored: &[u8]) -> Self {
        let found = Frequency::of_any(restored, images, thresholds);
        Self {
            share: found.repeats as f64 / found.samples as f64,
            distance: mean(&to_nearest_image(restored, images)),
            tries: found.samples,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_that_leads_to_any_of_the_images_counts() {
        let (dark, bright): (&[u8], &[u8]) = (&[0, 0], &[255, 255]);
        let restored = [0, 0, 255, 0, 255, 255, 255, 255];
        for images in [[dark, bright], [bright, dark]] {
            let found = Restored::of(&images, &[0.5; 2], &restored);
            assert_eq!((found.share, found.distance, found.tries), (0.75, 0.25, 4));
        }
        let strict = Restored::of(&[dark, bright], &[0.5, 0.0], &restored);
        assert_eq!(strict.share, 0.25);
    }

    #[test]
    fn every_schedule_has_its_quarter_and_all_timesteps_up_to_it() {
        let published = SchedulerConfig::default().process();
        assert_eq!(time(&*published), 250);
        for (timesteps, offset, zero) in [(1000, 1, true), (200, 0, false), (2, 1, false)] {
            let config = SchedulerConfig {
                num_train_timesteps: timesteps,
                steps_offset: offset,
                rescale_betas_zero_snr: zero,
                timestep_spacing: TimestepSpacing::Trailing,
                ..SchedulerConfig::default()
            };
            let sampler = sampler(&config, usize::MAX).unwrap();
            let walk = sampler.walk_from(time(sampler.process())).timesteps();
            let all: Vec<usize> = (0..=timesteps / 4).rev().collect();
            assert_eq!(walk, all[..], "{timesteps}");
        }
        let one = SchedulerConfig {
            num_train_timesteps: 1,
            ..SchedulerConfig::default()
        };
        let sampler = sampler(&one, usize::MAX).unwrap();
        let walk = sampler.walk_from(time(sampler.process()));
        assert_eq!(walk.timesteps(), [0]);
    }
}
