//! The data of a run: which images each step sees, with which noise, at which timesteps.
//!
//! Everything follows from the seed and the step's number; a resumed run needs no generator state.

use std::collections::HashMap;
use std::sync::Arc;

use retrack_networks::process::Process;
use retrack_networks::random::{Draw, Random, Stream};

use crate::batch::{Batch, Candidates, Draws, Noised};
use crate::images::{Drawn, Images};
use retrack_data::DataError;

/// How many images a step takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchSize {
    /// Images of each stream in a micro-batch.
    pub images: usize,
    /// Micro-batches in a step.
    pub accumulate: usize,
}

/// Which forgotten images are drawn, and when.
#[derive(Debug, Clone, PartialEq)]
pub struct Focus {
    /// Their rows, of the feed's.
    pub rows: Vec<usize>,
    /// How often a forgotten draw is made in each of as many equal parts of the process: shares of their sum.
    pub shares: Vec<f64>,
}

/// Draws the batches of a run.
pub struct Feed<'a> {
    images: &'a dyn Images,
    retain: &'a [usize],
    forget: &'a [usize],
    /// The neighbors of each forgotten row. Rows, not pixels: a thousand forgotten photos have ten thousand.
    neighbors: Option<&'a HashMap<usize, Vec<usize>>>,
    random: Random,
    size: BatchSize,
    /// Where the times are drawn from.
    process: Arc<dyn Process>,
    /// Whether the network has classes, or its images different texts.
    labels: bool,
}

/// The streams of one kind of image.
struct Streams {
    order: Stream,
    noise: Stream,
    timestep: Stream,
    latent: Stream,
}

const RETAIN: Streams = Streams {
    order: Stream::RetainOrder,
    noise: Stream::RetainNoise,
    timestep: Stream::RetainTimestep,
    latent: Stream::RetainLatent,
};

const FORGET: Streams = Streams {
    order: Stream::ForgetOrder,
    noise: Stream::ForgetNoise,
    timestep: Stream::ForgetTimestep,
    latent: Stream::ForgetLatent,
};

impl<'a> Feed<'a> {
    /// Micro-batches of `images`: `retain` and `forget` are rows that are drawn in an order that `random` shuffles anew for each
    /// pass; `process` says which times there are; `labels`: the network is told a class or a text.
    pub fn new(
        images: &'a dyn Images,
        retain: &'a [usize],
        forget: &'a [usize],
        random: Random,
        size: BatchSize,
        process: Arc<dyn Process>,
        labels: bool,
    ) -> Self {
        Self {
            images,
            retain,
            forget,
            neighbors: None,
            random,
            size,
            process,
            labels,
        }
    }

    /// The feed with these neighbors of each forgotten row, which take the place of all retained ones.
    pub fn with_neighbors(self, neighbors: &'a HashMap<usize, Vec<usize>>) -> Self {
        Self {
            neighbors: Some(neighbors),
            ..self
        }
    }

    /// Micro-batches in a step.
    pub fn accumulate(&self) -> usize {
        self.size.accumulate
    }

    /// What all its random numbers come from.
    pub fn random(&self) -> &Random {
        &self.random
    }

    /// The micro-batch `micro` of step `step`, both counted from 0.
    ///
    /// # Errors
    /// An image that cannot be read.
    pub fn batch(&self, step: usize, micro: usize, draws: Draws) -> Result<Batch<'a>, DataError> {
        self.drawn(self.forget, &[1.0], step, micro, draws)
    }

    /// The same, with the forgotten images drawn as `focus` says.
    ///
    /// # Errors
    /// As [`batch`](Self::batch).
    pub fn focused(
        &self,
        focus: &Focus,
        step: usize,
        micro: usize,
        draws: Draws,
    ) -> Result<Batch<'a>, DataError> {
        self.drawn(&focus.rows, &focus.shares, step, micro, draws)
    }

    fn drawn(
        &self,
        forget: &[usize],
        shares: &[f64],
        step: usize,
        micro: usize,
        draws: Draws,
    ) -> Result<Batch<'a>, DataError> {
        let first = (step * self.size.accumulate + micro) * self.size.images;
        let forget_rows = self.rows(forget, &FORGET, first);
        let neighbors = if draws.neighbors {
            Some(self.candidates(&forget_rows)?)
        } else {
            None
        };
        let retain = if draws.retain {
            let rows = self.rows(self.retain, &RETAIN, first);
            Some(self.noised(&rows, &RETAIN, first, &[1.0])?)
        } else {
            None
        };
        let forget = if draws.forget {
            Some(self.noised(&forget_rows, &FORGET, first, shares)?)
        } else {
            None
        };
        let indices = || (0..self.size.images).map(|place| (first + place) as u64);
        let uniform = draws.uniform.then(|| {
            let image_len = self.images.shape().iter().product();
            indices()
                .flat_map(|index| self.random.at(Stream::Uniform, 0, index).uniform(image_len))
                .collect()
        });
        let mixture_mask = draws.mixture.map(|retained| {
            indices()
                .flat_map(|index| {
                    self.random
                        .at(Stream::Mixture, 0, index)
                        .bernoulli(1, retained)
                })
                .collect()
        });
        Ok(Batch {
            retain,
            forget,
            forget_rows,
            neighbors,
            uniform,
            mixture_mask,
        })
    }

    /// Retained images to look at again and again: the same ones with the same noise at every call, times spread
    /// evenly over the process, in micro-batches of the run's size.
    ///
    /// # Errors
    /// An image that cannot be read.
    pub fn watched(&self, count: usize) -> Result<Vec<Noised>, DataError> {
        let mut batches = Vec::new();
        for first in (0..count).step_by(self.size.images.max(1)) {
            let mut rows = self.rows(self.retain, &RETAIN, first);
            rows.truncate(count - first);
            let mut noised = self.noised(&rows, &RETAIN, first, &[1.0])?;
            for (place, timestep) in noised.timesteps.iter_mut().enumerate() {
                // The middle of the image's own share.
                *timestep = self.process.quantile(2 * (first + place) + 1, 2 * count);
            }
            batches.push(noised);
        }
        Ok(batches)
    }

    fn candidates(&self, forget: &[usize]) -> Result<Candidates<'a>, DataError> {
        let Some(neighbors) = self.neighbors else {
            if let Some(data) = self.images.as_bytes() {
                return Ok(Candidates::All {
                    data,
                    rows: self.retain,
                });
            }
            let lies = |&row: &usize| {
                let image = self.images.in_memory(row);
                image.expect("what is no bytes lies in memory")
            };
            return Ok(Candidates::InMemory(self.retain.iter().map(lies).collect()));
        };
        // A row that is in the batch several times is read once.
        let mut read: HashMap<usize, Arc<[f32]>> = HashMap::new();
        let mut found = Vec::with_capacity(forget.len());
        for row in forget {
            if !read.contains_key(row) {
                read.insert(*row, self.averages(&neighbors[row])?.into());
            }
            found.push(read[row].clone());
        }
        Ok(Candidates::Nearest(found))
    }

    /// Rows `first ..` of an endless sequence of shuffled passes over `rows`.
    fn rows(&self, rows: &[usize], streams: &Streams, first: usize) -> Vec<usize> {
        if rows.is_empty() {
            return Vec::new();
        }
        let mut pass: Option<(usize, Vec<usize>)> = None;
        (first..first + self.size.images)
            .map(|position| {
                let (epoch, place) = (position / rows.len(), position % rows.len());
                let order = match pass.take() {
                    Some((e, order)) if e == epoch => order,
                    _ => self
                        .random
                        .permutation(streams.order, epoch as u64, rows.len()),
                };
                let row = rows[order[place]];
                pass = Some((epoch, order));
                row
            })
            .collect()
    }

    fn noised(
        &self,
        rows: &[usize],
        streams: &Streams,
        first: usize,
        shares: &[f64],
    ) -> Result<Noised, DataError> {
        let [height, width, channels] = self.images.shape();
        let image_len = height * width * channels;
        let mut clean = Vec::with_capacity(rows.len() * image_len);
        let mut noise = Vec::with_capacity(rows.len() * image_len);
        let mut timesteps = Vec::with_capacity(rows.len());
        for (place, &row) in rows.iter().enumerate() {
            let index = (first + place) as u64;
            let stream = streams.latent;
            self.images
                .clean(row, Drawn { stream, index }, &mut clean)?;
            noise.extend(self.random.at(streams.noise, 0, index).normal(image_len));
            let mut draw = self.random.at(streams.timestep, 0, index);
            let part = part(shares, &mut draw);
            timesteps.push(self.process.draw(part, shares.len(), &mut draw));
        }
        let labels = self.labels.then(|| {
            rows.iter()
                .map(|&row| self.images.label(row).unwrap_or(0))
                .collect()
        });
        Ok(Noised {
            shape: [rows.len(), height, width, channels],
            clean,
            noise,
            timesteps,
            labels,
        })
    }

    /// The images of `rows`, one after another, none of them drawn.
    fn averages(&self, rows: &[usize]) -> Result<Vec<f32>, DataError> {
        let image_len: usize = self.images.shape().iter().product();
        let mut values = Vec::with_capacity(rows.len() * image_len);
        for &row in rows {
            self.images.average(row, &mut values)?;
        }
        Ok(values)
    }
}

/// One of the parts, each as likely as its share. A single part takes no random number.
fn part(shares: &[f64], draw: &mut Draw) -> usize {
    let last = shares.len() - 1;
    if last == 0 {
        return 0;
    }
    let mut left = f64::from(draw.uniform(1)[0]) * shares.iter().sum::<f64>();
    for (part, share) in shares.iter().enumerate() {
        left -= share;
        if left < 0.0 {
            return part;
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;
    use retrack_data::{Dataset, ImageShape};
    use retrack_networks::process::Time;
    use retrack_networks::schedule::SchedulerConfig;

    fn feed(dataset: &Dataset, images: usize, accumulate: usize) -> Feed<'_> {
        let size = BatchSize { images, accumulate };
        let random = Random::new(3);
        let process = SchedulerConfig::default().process();
        Feed::new(dataset, &[0, 2, 3], &[1, 4], random, size, process, false)
    }

    fn dataset() -> Dataset {
        let shape = ImageShape {
            height: 2,
            width: 3,
            channels: 1,
        };
        Dataset::from_pixels(shape, (0..30).collect(), Vec::new()).unwrap()
    }

    const EVERYTHING_BUT_NEIGHBORS: Draws = Draws {
        retain: true,
        forget: true,
        neighbors: false,
        uniform: true,
        mixture: Some(0.5),
    };

    #[test]
    fn forgotten_draws_are_made_where_their_shares_lie() {
        let dataset = dataset();
        let draws = EVERYTHING_BUT_NEIGHBORS;
        let feed = feed(&dataset, 400, 1);
        let plain = feed.batch(0, 0, draws).unwrap();
        let focus = Focus {
            rows: vec![4],
            shares: vec![0.0, 3.0, 1.0, 0.0],
        };
        let shared = feed.focused(&focus, 0, 0, draws).unwrap();
        assert!(shared.forget_rows.iter().all(|row| *row == 4));
        let (plain_forget, forget) = (plain.forget.unwrap(), shared.forget.unwrap());
        assert_eq!(forget.noise, plain_forget.noise);
        let of = |part: usize| {
            let range = Time::timestep(250 * part)..Time::timestep(250 * (part + 1));
            forget
                .timesteps
                .iter()
                .filter(|time| range.contains(time))
                .count()
        };
        assert_eq!(of(1) + of(2), 400);
        assert!((260..340).contains(&of(1)), "{}", of(1));
        assert_eq!(
            shared.retain.unwrap().timesteps,
            plain.retain.unwrap().timesteps
        );
    }

    #[test]
    fn what_an_image_sees_does_not_depend_on_the_batch_it_is_in() {
        let dataset = dataset();
        let draws = EVERYTHING_BUT_NEIGHBORS;
        let whole = feed(&dataset, 8, 1).batch(1, 0, draws).unwrap();
        let half = feed(&dataset, 4, 2).batch(1, 1, draws).unwrap();
        let (whole_uniform, half_uniform) = (whole.uniform.unwrap(), half.uniform.unwrap());
        assert_eq!(whole_uniform.len(), 8 * 6);
        assert_eq!(whole_uniform[4 * 6..], half_uniform);
        assert!(whole_uniform.iter().all(|u| (0.0..1.0).contains(u)));
        assert_eq!(whole.mixture_mask.unwrap()[4..], half.mixture_mask.unwrap());
        for (whole, half) in [(whole.retain, half.retain), (whole.forget, half.forget)] {
            let (whole, half) = (whole.unwrap(), half.unwrap());
            assert_eq!(whole.clean[4 * 6..], half.clean);
            assert_eq!(whole.noise[4 * 6..], half.noise);
            assert_eq!(whole.timesteps[4..], half.timesteps);
        }
    }

    #[test]
    fn watched_images_are_the_same_at_every_call_and_cover_the_schedule() {
        let dataset = dataset();
        let of = |images| feed(&dataset, images, 1).watched(5).unwrap();
        let (small, large) = (of(2), of(128));
        let lens = |batches: &[Noised]| batches.iter().map(Noised::len).collect::<Vec<_>>();
        assert_eq!((lens(&small), lens(&large)), (vec![2, 2, 1], vec![5]));
        let all = |part: fn(&Noised) -> &[f32]| {
            let parts = small.iter().flat_map(part).copied();
            assert!(parts.eq(part(&large[0]).iter().copied()));
        };
        all(|noised| &noised.clean);
        all(|noised| &noised.noise);
        let timesteps = small.iter().flat_map(|noised| noised.timesteps.clone());
        assert!(timesteps.eq([100, 300, 500, 700, 900]));
        assert_eq!(large[0].timesteps, [100, 300, 500, 700, 900]);
    }

    #[test]
    fn the_mixture_holds_retained_images_as_often_as_asked() {
        let dataset = dataset();
        let share = |retained| {
            let draws = Draws {
                mixture: Some(retained),
                ..Draws::default()
            };
            let batch = feed(&dataset, 4000, 1).batch(0, 0, draws).unwrap();
            let mask = batch.mixture_mask.unwrap();
            mask.iter().filter(|retained| **retained).count() as f64 / 4000.0
        };
        // Five standard errors.
        assert!((share(0.75) - 0.75).abs() < 0.035, "{}", share(0.75));
        assert_eq!(share(1.0), 1.0);
    }

    #[test]
    fn what_is_not_asked_for_is_absent() {
        let dataset = dataset();
        let batch = feed(&dataset, 4, 1).batch(0, 0, Draws::default()).unwrap();
        assert!(batch.retain.is_none() && batch.forget.is_none());
        assert!(batch.uniform.is_none() && batch.mixture_mask.is_none());
    }
}
