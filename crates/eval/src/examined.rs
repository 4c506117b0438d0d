//! A model that is measured: what its metrics share, each thing made once.

use std::cell::OnceCell;

use burn::tensor::Device;
use retrack_networks::random::Random;
use retrack_networks::sampling::Generator;

use crate::denoised::Denoised;
use crate::distance::mean;
use crate::frequency::{others, to_nearest_image};
use crate::images::to_bytes;
use crate::injection;
use crate::metric::{Metric, MetricError};
use crate::relearn::{self, Further, Relearned};
use crate::score::Score;
use crate::subject::Subject;
use crate::watch::Watch;

/// Forgotten images that are looked at one by one, at most.
pub const LOOKED_AT: usize = 64;

/// Samples of one model, drawn alike.
#[derive(Debug, Clone, Default)]
pub struct Drawn {
    /// Of a text-to-image model.
    pub prompt: Option<String>,
    /// Whether it is the prompt of the forgotten images.
    pub forgotten: bool,
    /// Bytes, one image after another.
    pub samples: Vec<u8>,
}

/// What more can be done with a model that denoises pixels.
pub struct Pixels<'a> {
    /// Of each forgotten image, of a network with classes.
    pub classes: Option<Vec<i64>>,
    /// Trains copies of it.
    pub further: &'a dyn Further,
}

/// A model that is measured, and what was drawn from it.
pub struct Examined<'a, 'b> {
    /// What it was to forget and to keep.
    pub subject: &'a Subject<'b>,
    /// Its network and what that denoises, where a metric needs it.
    pub denoised: Option<Denoised<'a>>,
    /// The model, if it denoises pixels.
    pub pixels: Option<Pixels<'a>>,
    /// Where it computes.
    pub device: &'a Device,
    /// Decides all random numbers.
    pub seed: u64,
    /// How many steps copies of the model are trained at most.
    pub relearn_steps: usize,
    /// What was drawn: once, or for each prompt.
    pub drawn: Vec<Drawn>,
    /// Whom to tell how far it is.
    pub watch: &'a dyn Watch,
    others: OnceCell<Vec<u8>>,
    injected: OnceCell<Vec<u8>>,
    pub(crate) relearned: OnceCell<Relearned>,
}

impl<'a, 'b> Examined<'a, 'b> {
    /// A model, `pixels` if it denoises those, of which nothing was drawn yet.
    pub fn new(
        subject: &'a Subject<'b>,
        denoised: Option<Denoised<'a>>,
        pixels: Option<Pixels<'a>>,
        device: &'a Device,
        seed: u64,
        watch: &'a dyn Watch,
    ) -> Self {
        Self {
            subject,
            denoised,
            pixels,
            device,
            seed,
            relearn_steps: relearn::STEPS,
            drawn: Vec::new(),
            watch,
            others: OnceCell::new(),
            injected: OnceCell::new(),
            relearned: OnceCell::new(),
        }
    }

    /// The model's network and what it denoises.
    ///
    /// # Errors
    /// No metric said that it [needs](crate::metric::Need::Denoised) it.
    pub fn denoised(&self) -> Result<&Denoised<'a>, MetricError> {
        let denoised = self.denoised.as_ref();
        denoised.ok_or("what its network denoises was not made".into())
    }

    /// The model as one that denoises pixels.
    ///
    /// # Errors
    /// It is a text-to-image model.
    pub fn pixels(&self) -> Result<&Pixels<'a>, MetricError> {
        self.pixels.as_ref().ok_or("it denoises no pixels".into())
    }

    /// Height, width and channels of every image.
    pub fn shape(&self) -> [usize; 3] {
        self.subject.shape()
    }

    /// The samples of a model that denoises pixels: bytes, one after another.
    pub fn samples(&self) -> &[u8] {
        self.drawn.first().map_or(&[], |drawn| &drawn.samples)
    }

    /// Those of its samples that quality is judged by: all that are not a forgotten image.
    ///
    /// # Errors
    /// None is left.
    pub fn others(&self) -> Result<&[u8], MetricError> {
        let others = self.others.get_or_init(|| {
            let (images, thresholds) = self.subject.shown();
            others(self.samples(), &images, &thresholds)
        });
        if others.is_empty() {
            return Err(
                "every sample counts as a forgotten image, and none is left to judge".into(),
            );
        }
        Ok(others)
    }

    /// The classes that samples are of, ascending; none of a network without classes.
    pub fn drawn_classes(&self) -> Vec<i64> {
        let classes = self.pixels.as_ref().and_then(|own| own.classes.as_deref());
        classes.map_or_else(Vec::new, each_once)
    }

    /// What [`relearned`](Self::relearned) found, where it was asked.
    pub fn take_relearned(&mut self) -> Option<Relearned> {
        self.relearned.take()
    }

    /// The forgotten images that are looked at one by one.
    fn looked_at(&self) -> impl Iterator<Item = &[u8]> {
        self.subject.images().take(LOOKED_AT)
    }

    /// Attempts to bring back, from their noised form, each of the first [`LOOKED_AT`] forgotten images, bytes one after another.
    ///
    /// # Errors
    /// The model denoises no pixels, or comes to values that are not finite.
    pub fn injected(&self) -> Result<&[u8], MetricError> {
        if let Some(injected) = self.injected.get() {
            return Ok(injected);
        }
        let repeated = |_, image: &[u8]| image.repeat(injection::REPEATS);
        let injected = self.restored("injection", &repeated)?;
        Ok(self.injected.get_or_init(|| injected))
    }

    /// How many attempts with look-alikes bring these back, and of how many: as [`injected`](Self::injected), with a look-alike
    /// of the image in each attempt.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn injected_look_alikes(&self) -> Result<(usize, usize), MetricError> {
        let shape = self.subject.data.shape();
        let random = Random::new(self.seed);
        let changed = |number, image: &[u8]| injection::look_alikes(shape, image, random, number);
        let restored = self.restored("injection of look-alikes", &changed)?;
        let began: Vec<u8> = self
            .looked_at()
            .enumerate()
            .flat_map(|(number, image)| changed(number, image))
            .collect();
        let pairs = began
            .chunks_exact(shape.bytes())
            .zip(restored.chunks_exact(shape.bytes()));
        let found = pairs.enumerate().filter(|(attempt, (start, end))| {
            let threshold = self.subject.thresholds[attempt / injection::REPEATS];
            to_nearest_image(end, &[start])[0] < threshold
        });
        Ok((found.count(), restored.len() / shape.bytes()))
    }

    /// What the model makes from noise of what `start` makes of each forgotten image, given with its number.
    fn restored(
        &self,
        task: &str,
        start: &dyn Fn(usize, &[u8]) -> Vec<u8>,
    ) -> Result<Vec<u8>, MetricError> {
        let Pixels { classes, .. } = self.pixels()?;
        let Denoised { model, network, .. } = self.denoised()?;
        let sampler = injection::sampler(&model.scheduler, usize::MAX)?;
        let generator = Generator {
            network: &**network,
            sampler: &sampler,
            random: Random::new(self.seed),
            shape: self.shape(),
            device: self.device,
        };
        let walk = sampler.walk_from(injection::time(sampler.process()));
        let steps = walk.timesteps().len();
        let steps = self.looked_at().count() * steps;
        let task = self.watch.task(task, steps, "steps");
        let mut restored = Vec::new();
        for (place, image) in self.looked_at().enumerate() {
            let label = classes.as_ref().map(|classes| classes[place]);
            let start = start(place, image);
            let values = injection::restore(&generator, &start, label, &mut || task.advance(1))?;
            restored.extend(to_bytes(&values, "attempts to restore an image")?);
        }
        Ok(restored)
    }

    /// A number of each sample of a text-to-image model: of the forgotten images' prompt, and of all others.
    ///
    /// # Errors
    /// The first of `each`.
    pub fn of_prompts(
        &self,
        mut each: impl FnMut(&[u8]) -> Result<Vec<f64>, MetricError>,
    ) -> Result<[Vec<f64>; 2], MetricError> {
        let mut own = Vec::new();
        let mut others = Vec::new();
        for one in &self.drawn {
            let part = if one.forgotten { &mut own } else { &mut others };
            part.extend(each(&one.samples)?);
        }
        Ok([own, others])
    }

    /// What a metric finds. Half a metric is none, and what is no number could not be written or read again.
    ///
    /// # Errors
    /// The metric does not work, or came to something else than a number; `notes` are kept.
    pub fn measure(
        &self,
        metric: &dyn Metric,
        notes: &mut Vec<String>,
    ) -> Result<Vec<Score>, MetricError> {
        let mut found = Found::default();
        let measured = metric.measure(self, &mut found);
        notes.append(&mut found.notes);
        measured?;
        match found.scores.iter().find(|score| !score.value.is_finite()) {
            Some(score) => Err(format!("{} came out as {}", score.name, score.value).into()),
            None => Ok(found.scores),
        }
    }
}

/// What a metric found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Found {
    /// Its numbers.
    pub scores: Vec<Score>,
    /// What a reader of them should know.
    pub notes: Vec<String>,
}

impl Found {
    /// A number, of so many samples, images or draws.
    pub fn add(&mut self, name: &str, value: f64, count: usize) {
        self.scores.push(Score::new(name, value, count));
    }

    /// The means of numbers of each sample: of the forgotten images' prompt under the name, of the others under
    /// `{name}_modified`.
    pub fn add_means(&mut self, name: &str, [own, others]: &[Vec<f64>; 2]) {
        self.add(name, mean(own), own.len());
        if !others.is_empty() {
            let name = format!("{name}_modified");
            self.add(&name, mean(others), others.len());
        }
    }

    /// A sentence that a reader should know, if there is one.
    pub fn note(&mut self, note: Option<String>) {
        self.notes.extend(note);
    }
}

/// The classes among these, ascending.
pub fn each_once(classes: &[i64]) -> Vec<i64> {
    let mut classes = classes.to_vec();
    classes.sort_unstable();
    classes.dedup();
    classes
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use retrack_data::{Dataset, ImageShape};

    use super::*;
    use crate::judges::Judges;
    use crate::metric::{About, Lack, Models, Need, ScoreAbout};
    use crate::watch::Nobody;

    /// A metric that nobody else knows of.
    struct Halves(f64);

    const ABOUT: About = About::new("halves", "two numbers and a note", Models::Pixels)
        .needs(&[Need::Samples, Need::Controls])
        .scores(&[
            ScoreAbout::new("half", "the first of them"),
            ScoreAbout::new("other", "the second of them"),
        ]);

    impl Metric for Halves {
        fn about(&self) -> &'static About {
            &ABOUT
        }

        fn measure(&self, model: &Examined, found: &mut Found) -> Result<(), MetricError> {
            found.add("half", 1.0, model.samples().len());
            found.note(Some("noted".into()));
            if self.0 < 0.0 {
                return Err("photos/03.png: cannot read".into());
            }
            found.add("other", self.0, 1);
            Ok(())
        }
    }

    #[test]
    fn half_a_metric_is_none_and_neither_is_what_is_no_number() {
        let shape = ImageShape {
            height: 1,
            width: 1,
            channels: 1,
        };
        let data = Dataset::from_pixels(shape, vec![0, 100, 200], Vec::new()).unwrap();
        let judges = Judges::default();
        let subject = Subject::new(&data, &[0], &[], false, &judges, Some(0.1)).unwrap();
        let device = Device::flex();
        let mut examined = Examined::new(&subject, None, None, &device, 0, &Nobody);
        examined.drawn.push(Drawn {
            samples: vec![3, 5],
            ..Drawn::default()
        });

        let mut notes = Vec::new();
        let found = examined.measure(&Halves(0.5), &mut notes).unwrap();
        let half = Score::new("half", 1.0, 2);
        assert_eq!(found, [half, Score::new("other", 0.5, 1)]);
        let failed = examined.measure(&Halves(-1.0), &mut notes).unwrap_err();
        assert_eq!(failed.to_string(), "photos/03.png: cannot read");
        let failed = examined.measure(&Halves(f64::NAN), &mut notes).unwrap_err();
        assert_eq!(failed.to_string(), "other came out as NaN");
        assert_eq!(notes, ["noted"; 3]);

        let metric: &dyn Metric = &Halves(0.5);
        let lack = metric.lack(&subject, &Default::default());
        assert_eq!(lack, Some(Lack::Need(Need::Controls)));
        // Of 3 and 5 of 255 the forgotten black image is nearer than its threshold.
        assert!(examined.others().is_err());
        // What is the same for every model is made once.
        let made: Result<_, MetricError> = subject.once("halves", || Ok(2u8));
        assert_eq!(*made.unwrap(), 2);
        let kept: Result<_, MetricError> = subject.once("halves", || Ok(3u8));
        assert_eq!(*kept.unwrap(), 2);
    }
}
