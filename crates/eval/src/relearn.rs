//! Whether a forgotten image comes back when the model is trained further, and after how many steps.
//!
//! A copy of the model is trained with the ordinary loss: on retained images alone, on the forgotten image, and, to compare
//! with, on images that the model never saw, each on itself. On the way it is looked at: an image is back when at least half
//! of [`TRIES`] attempts bring it back from noise. Attempts begin so late in the process that images never seen do not come
//! back before a step is taken.

use std::cell::Cell;

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
use crate::examined::Examined;
use crate::forgotten::Rule;
use crate::images::to_bytes;
use crate::injection::{self, Restored};
use crate::metric::MetricError;
use crate::watch::Task;

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
pub const TRIES: usize = 4;
/// Denoising steps over the whole process. The published attempts take every timestep, which would cost more than the training.
const RESTORING_STEPS: usize = 50;
/// Images never seen that are looked at to find out from where they do not come back.
const STRANGERS: usize = 8;
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
        let (pixels, denoised) = (self.pixels()?, self.denoised()?);
        let images = self.sought();
        let strangers = images
            .iter()
            .enumerate()
            .map(|(number, image)| self.strangers(number, image))
            .collect::<Result<Vec<_>, MetricError>>()?;
        let sampler = injection::sampler(&denoised.model.scheduler, RESTORING_STEPS)?;
        let from = sampler.process().quantile(*FROM.start(), 8);
        let mut looking = Looking {
            examined: self,
            sampler: &sampler,
            from,
        };
        looking.begin(&denoised.network, &strangers)?;

        let most = self.relearn_steps;
        let runs = 1
            + images.len()
            + strangers
                .iter()
                .map(|all| all.len().min(CONTROLS))
                .sum::<usize>();
        let course = Course {
            further: pixels.further,
            most,
            task: self.watch.task("relearning", runs * most, "steps"),
            before: Cell::new(0),
        };
        let mut retained: Vec<Steps> = vec![None; images.len()];
        course.train(Lesson::Retained, &mut |step, network| {
            for (image, back) in images.iter().zip(&mut retained) {
                if back.is_none() && looking.shows(network, image)? {
                    *back = Some(step);
                }
            }
            Ok(retained.iter().all(Option::is_some))
        })?;
        let mut found = Vec::with_capacity(images.len());
        for ((image, strangers), retained) in images.iter().zip(&strangers).zip(retained) {
            let own = course.learn(image, &|network| looking.shows(network, image))?;
            let controls = strangers.iter().take(CONTROLS).map(|stranger| {
                course.learn(stranger, &|network| looking.restores(network, stranger))
            });
            found.push(Returns {
                retained,
                image: own,
                controls: controls.collect::<Result<_, _>>()?,
            });
        }
        Ok(Relearned {
            from: looking.from.value(),
            most,
            images: found,
        })
    }

    /// The first [`IMAGES`] forgotten images.
    fn sought(&self) -> Vec<Sought> {
        let classes = self.pixels.as_ref().and_then(|own| own.classes.as_ref());
        let images = self.subject.images().zip(&self.subject.thresholds);
        let images = images.take(IMAGES).enumerate();
        let sought = images.map(|(place, (image, &threshold))| Sought {
            pixels: image.to_vec(),
            class: classes.map(|classes| classes[place]),
            threshold,
        });
        sought.collect()
    }

    /// Images that the model never saw: [`STRANGERS`] controls, from all over them, where there are any that are
    /// not in the data set; else look-alikes of the image, those first that differ most from it.
    fn strangers(&self, number: usize, image: &Sought) -> Result<Vec<Sought>, MetricError> {
        let subject = self.subject;
        let shape = subject.data.shape();
        let pictures: Vec<(Vec<u8>, Option<i64>)> = match &subject.judges.controls {
            Some(controls) if !controls.are_known() => {
                let (data, rows) = (controls.data(), controls.rows());
                let count = STRANGERS.min(rows.len());
                // Each forgotten image has its own, as far as they reach.
                let place = |at: usize| (at * rows.len() / count + number) % rows.len();
                let rows: Vec<usize> = (0..count).map(|at| rows[place(at)]).collect();
                let classes = self.denoised()?.model.config.num_class_embeds;
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
                let mut all: Vec<&[u8]> = all.chunks_exact(shape.bytes()).take(STRANGERS).collect();
                // A model that knows the image brings back what hardly differs from it.
                let differs = |other: &[u8]| euclidean(other, &image.pixels);
                all.sort_by(|a, b| differs(b).total_cmp(&differs(a)));
                let all = all.into_iter();
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

/// The training of copies, one after another.
struct Course<'a> {
    further: &'a dyn Further,
    /// Steps of each at most.
    most: usize,
    task: Box<dyn Task>,
    /// Steps that the copies before may have taken.
    before: Cell<usize>,
}

impl Course<'_> {
    /// Trains a copy and has it looked at on the way, at last after the last step, until `see` returns that it is enough.
    fn train(
        &self,
        lesson: Lesson,
        see: &mut dyn FnMut(usize, &Network) -> Result<bool, MetricError>,
    ) -> Result<(), MetricError> {
        let before = self.before.get();
        let mut due = 0;
        self.further
            .train(lesson, self.most, &mut |step, network| {
                self.task.reach((before + step) as u64);
                if step < due && step < self.most {
                    return Ok(false);
                }
                due = next(step);
                see(step, &network.valid())
            })?;
        self.before.set(before + self.most);
        self.task.reach(self.before.get() as u64);
        Ok(())
    }

    /// Trains a copy on an image until it is back.
    fn learn(
        &self,
        image: &Sought,
        is_back: &dyn Fn(&Network) -> Result<bool, MetricError>,
    ) -> Result<Steps, MetricError> {
        let lesson = Lesson::Image {
            pixels: &image.pixels,
            class: image.class,
        };
        let mut back = None;
        self.train(lesson, &mut |step, network| {
            back = is_back(network)?.then_some(step);
            Ok(back.is_some())
        })?;
        Ok(back)
    }
}

/// How a network is looked at: always with the same noise.
struct Looking<'a, 'b, 'c> {
    examined: &'a Examined<'b, 'c>,
    sampler: &'a Sampler,
    /// The time from which attempts begin.
    from: Time,
}

impl Looking<'_, '_, '_> {
    /// Has attempts begin at the first of [`FROM`] at which the network does not bring images back that it never saw.
    fn begin(&mut self, network: &Network, strangers: &[Vec<Sought>]) -> Result<(), MetricError> {
        for eighths in FROM {
            self.from = self.sampler.process().quantile(eighths, 8);
            let mut back = 0;
            for strangers in strangers {
                let start: Vec<&Sought> = strangers.iter().cycle().take(STRANGERS).collect();
                let ends = self.attempts(network, &start)?;
                let ends = ends.chunks_exact(ends.len() / STRANGERS).zip(start);
                back += ends
                    .filter(|(end, start)| self.is_stranger(end, start))
                    .count();
            }
            if back <= STRANGERS * strangers.len() / 8 {
                break;
            }
        }
        Ok(())
    }

    /// Whether the network brings this forgotten image back, or another, or a near copy of one.
    fn shows(&self, network: &Network, image: &Sought) -> Result<bool, MetricError> {
        let (images, thresholds) = self.examined.subject.shown();
        let ends = self.attempts(network, &[image; TRIES])?;
        Ok(Restored::of(&images, &thresholds, &ends).share >= 0.5)
    }

    /// Whether the network brings an image back that is no forgotten one.
    fn restores(&self, network: &Network, image: &Sought) -> Result<bool, MetricError> {
        let ends = self.attempts(network, &[image; TRIES])?;
        let ends = ends.chunks_exact(image.pixels.len());
        let back = ends.filter(|end| self.is_stranger(end, image));
        Ok(2 * back.count() >= TRIES)
    }

    /// Whether a picture shows an image that is no forgotten one. A look-alike is so near to a forgotten image that this would count
    /// as it, where a model knows it.
    fn is_stranger(&self, picture: &[u8], image: &Sought) -> bool {
        let distance = euclidean(picture, &image.pixels);
        let mut shown = self.examined.subject.forgotten.shown();
        let is_nearer = shown.all(|(other, _)| distance < euclidean(picture, other));
        distance < image.threshold && is_nearer
    }

    /// What the network makes from noise of images, each as often as it is given: bytes.
    fn attempts(&self, network: &Network, start: &[&Sought]) -> Result<Vec<u8>, MetricError> {
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
        let values =
            generator.reconstruct(clean, self.from, numbers, classes.as_deref(), &mut || ())?;
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
