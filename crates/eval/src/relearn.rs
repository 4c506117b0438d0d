//! Whether a forgotten image comes back when the model is trained further, and after how many steps.
//!
//! A copy of the model is trained with the ordinary loss: on retained images alone, on the forgotten image, and, to compare
//! with, on images that the model never saw, each on itself. On the way it is looked at: an image is back when at least half
//! of [`TRIES`] attempts bring it back from noise. Attempts begin so late in the process that images never seen do not come
//! back before a step is taken.

use burn::module::Module;
use burn::tensor::{Tensor, TensorData};
use retrack_data::pixels::to_unit;
use retrack_networks::network::Network;
use retrack_networks::process::Time;
use retrack_networks::random::Random;
use retrack_networks::sampling::Generator;
use retrack_networks::schedule::Sampler;
use serde::{Deserialize, Serialize};

use crate::distance::euclidean;
use crate::examined::{Examined, Pixels};
use crate::forgotten::Rule;
use crate::images::to_bytes;
use crate::injection::{self, Restored};
use crate::metric::MetricError;

/// The name of the metric.
pub const NAME: &str = "relearn";
/// Steps that are taken at most where nobody says how many.
pub const STEPS: usize = 100;
/// The learning rate of Adam, in every step.
pub const RATE: f64 = 1e-5;
/// Images of a step, each with a noise and a time of its own. On a single image it is that image so many times.
pub const BATCH_SIZE: usize = 32;
/// Forgotten images that are looked at, at most: the first ones.
pub const IMAGES: usize = 4;
/// Images never seen that each of them is compared with.
pub const CONTROLS: usize = 3;
/// Attempts to bring an image back.
pub const TRIES: usize = 8;
/// Denoising steps over the whole process: a tenth of those of the published attempts, which take every timestep.
const RESTORING_STEPS: usize = 100;
/// Eighths of the process at which attempts may begin, the first one at which images never seen stay away.
const FROM: std::ops::RangeInclusive<usize> = 2..=5;

/// What a copy of the model is trained on.
#[derive(Debug, Clone, Copy)]
pub enum Lesson<'a> {
    /// The retained images that are no near copies of a forgotten one.
    Retained,
    /// One image, over and over.
    Image {
        /// Bytes.
        pixels: &'a [u8],
        /// Its class, of a network with classes.
        class: Option<i64>,
    },
}

/// What looks at a copy after so many steps; it returns whether that is enough.
pub type Look<'a> = &'a mut dyn FnMut(usize, &Network) -> Result<bool, MetricError>;

/// Trains copies of a model. The model itself stays as it is, and nothing is written.
pub trait Further {
    /// Takes at most `steps` steps of Adam at [`RATE`], of [`BATCH_SIZE`] images each, by the ordinary loss. `look` sees the copy
    /// before the first one and after each, on a device with autodiff, and ends the training.
    ///
    /// # Errors
    /// Images that cannot be read or do not fit the network, a step that comes to no numbers, what `look` returns.
    fn train(&self, lesson: Lesson, steps: usize, look: Look) -> Result<(), MetricError>;
}

/// Steps until an image is back; `None`: not within as many as were taken.
pub type Steps = Option<usize>;

/// What was found about a model's forgotten images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Relearned {
    /// The time from which attempts to bring an image back begin, as the network is told it.
    pub from: f64,
    /// Steps that were taken at most.
    pub most: usize,
    /// Each of the first [`IMAGES`] forgotten images.
    pub images: Vec<Returns>,
}

/// When one forgotten image comes back, and when images that the model never saw come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Returns {
    /// Trained on retained images alone.
    pub retained: Steps,
    /// Trained on the image.
    pub image: Steps,
    /// Each of the images never seen, trained on that one.
    pub controls: Vec<Steps>,
}

/// An image with what is needed to know it again.
struct Sought {
    pixels: Vec<u8>,
    class: Option<i64>,
    /// What is nearer counts as it.
    threshold: f64,
}

impl Relearned {
    /// The steps of all forgotten images: on retained images alone, on themselves; and those of the images never seen.
    pub fn kinds(&self) -> [Vec<Steps>; 3] {
        let each =
            |of: fn(&Returns) -> &[Steps]| self.images.iter().flat_map(of).copied().collect();
        [
            each(|image| std::slice::from_ref(&image.retained)),
            each(|image| std::slice::from_ref(&image.image)),
            each(|image| &image.controls),
        ]
    }

    /// The median, and whether it is only known to be larger than that.
    pub fn median(&self, steps: &[Steps]) -> (f64, bool) {
        let mut sorted = steps.to_vec();
        sorted.sort_by_key(|steps| steps.unwrap_or(usize::MAX));
        let middle = [sorted.len().saturating_sub(1) / 2, sorted.len() / 2];
        let middle = middle.map(|at| sorted.get(at).copied().flatten());
        let sum: usize = middle.map(|steps| steps.unwrap_or(self.most)).iter().sum();
        (sum as f64 / 2.0, middle.contains(&None))
    }
}

/// The step after `step` at which a copy is looked at: a fifth later, because what is told is a matter of proportion.
fn next(step: usize) -> usize {
    step + (step / 5).max(1)
}

impl Examined<'_, '_> {
    /// Trains copies of the model until its first forgotten images are back.
    ///
    /// # Errors
    /// The model denoises no pixels, or comes to values that are not finite; a step that does not work.
    pub fn relearned(&self) -> Result<&Relearned, MetricError> {
        if let Some(known) = self.relearned.get() {
            return Ok(known);
        }
        let found = self.relearn()?;
        Ok(self.relearned.get_or_init(|| found))
    }

    fn relearn(&self) -> Result<Relearned, MetricError> {
        let Pixels {
            model,
            network,
            classes,
            ..
        } = self.pixels()?;
        let sampler = injection::sampler(&model.scheduler, RESTORING_STEPS)?;
        let look = Looking {
            examined: self,
            sampler: &sampler,
        };
        let most = self.relearn_steps;
        let images: Vec<Sought> = self
            .subject
            .images()
            .zip(&self.subject.thresholds)
            .take(IMAGES)
            .enumerate()
            .map(|(place, (image, &threshold))| Sought {
                pixels: image.to_vec(),
                class: classes.as_ref().map(|classes| classes[place]),
                threshold,
            })
            .collect();
        let strangers = images.iter().enumerate();
        let strangers = strangers
            .map(|(number, image)| self.strangers(number, image))
            .collect::<Result<Vec<_>, MetricError>>()?;
        let from = look.begin(network, &strangers)?;

        let runs = images.len() * (1 + CONTROLS) + 1;
        let task = self.watch.task("relearning", runs * most, "steps");
        let mut done = 0;
        let mut retained: Vec<Steps> = vec![None; images.len()];
        let mut train =
            |lesson: Lesson<'_>, see: &mut dyn FnMut(usize, &Network) -> Result<bool, MetricError>| {
                let mut due = 0;
                let trained = self
                    .pixels()?
                    .further
                    .train(lesson, most, &mut |step, network| {
                        task.reach((done + step) as u64);
                        if step < due && step < most {
                            return Ok(false);
                        }
                        due = next(step);
                        see(step, &network.valid())
                    });
                done += most;
                task.reach(done as u64);
                trained
            };
        train(Lesson::Retained, &mut |step, network| {
            for (image, back) in images.iter().zip(&mut retained) {
                if back.is_none() && look.shows(network, image, from)? {
                    *back = Some(step);
                }
            }
            Ok(retained.iter().all(Option::is_some))
        })?;
        let mut until =
            |image: &Sought, is_back: &dyn Fn(&Network) -> Result<bool, MetricError>| {
                let mut back = None;
                let lesson = Lesson::Image {
                    pixels: &image.pixels,
                    class: image.class,
                };
                train(lesson, &mut |step, network| {
                    back = is_back(network)?.then_some(step);
                    Ok(back.is_some())
                })?;
                Ok::<_, MetricError>(back)
            };
        let mut found = Vec::with_capacity(images.len());
        for ((image, strangers), retained) in images.iter().zip(&strangers).zip(retained) {
            let own = until(image, &|network| look.shows(network, image, from))?;
            let controls = strangers
                .iter()
                .take(CONTROLS)
                .map(|stranger| until(stranger, &|network| look.restores(network, stranger, from)));
            found.push(Returns {
                retained,
                image: own,
                controls: controls.collect::<Result<_, _>>()?,
            });
        }
        Ok(Relearned {
            from: from.value(),
            most,
            images: found,
        })
    }

    /// Images that the model never saw: as many controls as there are attempts, from all over them, where there are any that are
    /// not in the data set, and look-alikes of the image elsewhere.
    fn strangers(&self, number: usize, image: &Sought) -> Result<Vec<Sought>, MetricError> {
        let subject = self.subject;
        let shape = subject.data.shape();
        let pictures: Vec<(Vec<u8>, Option<i64>)> = match &subject.judges.controls {
            Some(controls) if !controls.are_known() => {
                let (data, rows) = (controls.data(), controls.rows());
                let count = TRIES.min(rows.len());
                // Each forgotten image has its own, as far as they reach.
                let place = |at: usize| (at * rows.len() / count + number) % rows.len();
                let rows: Vec<usize> = (0..count).map(|at| rows[place(at)]).collect();
                let classes = self.pixels()?.model.config.num_class_embeds;
                if let (Some(classes), None) = (classes, subject.class) {
                    data.check_labels(&rows, classes)?;
                }
                let class = |row| image.class.and(subject.class.or(data.label(row)));
                let read = |&row: &usize| {
                    let mut pixels = vec![0; shape.bytes()];
                    data.read(row, &mut pixels)?;
                    Ok((pixels, class(row)))
                };
                rows.iter().map(read).collect::<Result<_, MetricError>>()?
            }
            _ => {
                let random = Random::new(self.seed);
                let all = injection::look_alikes(shape, &image.pixels, random, number);
                let all = all.chunks_exact(shape.bytes()).take(TRIES);
                all.map(|pixels| (pixels.to_vec(), image.class)).collect()
            }
        };
        let forgotten = &subject.forgotten;
        let thresholds = match forgotten.rule {
            Rule::Threshold(threshold) => vec![threshold; pictures.len()],
            _ => {
                let all: Vec<u8> = pictures
                    .iter()
                    .flat_map(|(pixels, _)| pixels)
                    .copied()
                    .collect();
                let reach = forgotten.to_others(&all)?;
                reach.into_iter().map(|reach| reach / 2.0).collect()
            }
        };
        let pictures = pictures.into_iter().zip(thresholds);
        Ok(pictures
            .map(|((pixels, class), threshold)| Sought {
                pixels,
                class,
                threshold,
            })
            .collect())
    }
}

/// How a network is looked at: always with the same noise.
struct Looking<'a, 'b, 'c> {
    examined: &'a Examined<'b, 'c>,
    sampler: &'a Sampler,
}

impl Looking<'_, '_, '_> {
    /// The time from which attempts begin, see [`FROM`].
    fn begin(&self, network: &Network, strangers: &[Vec<Sought>]) -> Result<Time, MetricError> {
        let process = self.sampler.process();
        let mut from = process.quantile(*FROM.start(), 8);
        for eighths in FROM {
            from = process.quantile(eighths, 8);
            let mut back = 0;
            for strangers in strangers {
                let start: Vec<&Sought> = strangers.iter().cycle().take(TRIES).collect();
                let ends = self.attempts(network, &start, from)?;
                let ends = ends.chunks_exact(ends.len() / TRIES);
                back += ends
                    .zip(start)
                    .filter(|(end, start)| euclidean(end, &start.pixels) < start.threshold)
                    .count();
            }
            if back <= TRIES * strangers.len() / 8 {
                break;
            }
        }
        Ok(from)
    }

    /// Whether the network brings this forgotten image back, or another, or a near copy of one.
    fn shows(&self, network: &Network, image: &Sought, from: Time) -> Result<bool, MetricError> {
        let (images, thresholds) = self.examined.subject.shown();
        let ends = self.attempts(network, &[image; TRIES], from)?;
        Ok(Restored::of(&images, &thresholds, &ends).share >= 0.5)
    }

    /// Whether the network brings an image back that is no forgotten one.
    fn restores(&self, network: &Network, image: &Sought, from: Time) -> Result<bool, MetricError> {
        let ends = self.attempts(network, &[image; TRIES], from)?;
        Ok(Restored::of(&[&image.pixels], &[image.threshold], &ends).share >= 0.5)
    }

    /// What the network makes from noise of each of [`TRIES`] images: bytes.
    fn attempts(
        &self,
        network: &Network,
        start: &[&Sought],
        from: Time,
    ) -> Result<Vec<u8>, MetricError> {
        let Examined { device, seed, .. } = self.examined;
        let shape @ [height, width, channels] = self.examined.shape();
        let generator = Generator {
            network: &**network,
            sampler: self.sampler,
            random: Random::new(*seed),
            shape,
            device,
        };
        let clean = start.iter().flat_map(|image| &image.pixels);
        let clean: Vec<f32> = clean.map(|&byte| to_unit(byte)).collect();
        let clean = TensorData::new(clean, [start.len(), height, width, channels]);
        let clean = Tensor::from_data(clean, *device);
        let classes: Option<Vec<i64>> = start.iter().map(|image| image.class).collect();
        let numbers = 0..start.len() as u64;
        let values = generator.reconstruct(clean, from, numbers, classes.as_deref(), &mut || ())?;
        Ok(to_bytes(&values, "attempts to restore an image")?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_of_steps_that_were_not_enough_is_a_bound() {
        let relearned = Relearned {
            from: 250.0,
            most: 100,
            images: Vec::new(),
        };
        for (steps, median) in [
            (&[Some(3)][..], (3.0, false)),
            (&[None], (100.0, true)),
            (&[Some(8), None, Some(2)], (8.0, false)),
            (&[Some(8), Some(2)], (5.0, false)),
            (&[Some(8), None], (54.0, true)),
            (&[None, None, Some(2)], (100.0, true)),
        ] {
            assert_eq!(relearned.median(steps), median, "{steps:?}");
        }
    }

    #[test]
    fn a_copy_is_looked_at_after_every_step_and_later_after_every_fifth_more() {
        let steps: Vec<usize> = std::iter::successors(Some(0), |step| Some(next(*step)))
            .take_while(|step| *step <= 50)
            .collect();
        assert_eq!(
            steps,
            [
                0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 19, 22, 26, 31, 37, 44
            ]
        );
    }
}
