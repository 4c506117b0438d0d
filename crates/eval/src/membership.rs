//! Whether a network still denoises forgotten images better than images that it has never seen.

use burn::tensor::{Device, Tensor, TensorData};
use retrack_networks::denoiser::{Denoiser, InputError};
use retrack_networks::parameters::to_host;
use retrack_networks::process::{Process, Time};
use retrack_networks::random::{Random, Stream};
use serde::{Deserialize, Serialize};

pub use crate::auc::Scores;
use crate::auc::{Bootstrap, auc, two_sided};
use crate::distance::mean;

/// Scores images by their denoising loss (the loss threshold of Yeom et al. 2018, arXiv 1709.01604, as Carlini et
/// al. 2023, arXiv 2301.13188, section 5.2, use it on diffusion models).
///
/// Draw i is a timestep and a noise, as [`Timesteps`] says: the same ones for every image that is scored with
/// this `random`, in whichever call. What a draw adds to the loss of all images cancels when they are compared.
///
/// The error is one of the noise, whatever the network predicts: for one that predicts the clean image it is
/// `(g / s)^2` times the image's, and the draws at the first timesteps decide.
pub struct Scoring<'a> {
    /// On a device without autodiff.
    pub network: &'a dyn Denoiser,
    /// The network's way to noise.
    pub process: &'a dyn Process,
    /// What the draws come from.
    pub random: Random,
    /// Where the network is.
    pub device: &'a Device,
    /// Height, width, channels.
    pub shape: [usize; 3],
    /// Pairs of timestep and noise for each image.
    pub draws: usize,
    /// Where the timesteps lie.
    pub timesteps: Timesteps,
    /// Pairs that the network looks at together.
    pub batch_size: usize,
}

/// Where the timesteps of [`Scoring`]'s draws lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timesteps {
    /// Each anywhere in the schedule.
    Uniform,
    /// One in each of as many equal parts of the schedule as there are draws: the error changes tenfold along it, and so
    /// few draws cover it.
    Stratified,
}

/// Why images cannot be scored or compared.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum MembershipError {
    /// Images that do not fit the network.
    #[error(transparent)]
    Input(#[from] InputError),
    /// No whole number of images.
    #[error("{found} values are not whole images of {image_len}")]
    Length {
        /// Values of an image.
        image_len: usize,
        /// Values given.
        found: usize,
    },
    /// Not one label an image.
    #[error("{images} images but {labels} class labels")]
    Labels {
        /// Images given.
        images: usize,
        /// Labels given.
        labels: usize,
    },
    /// No draws were asked for.
    #[error("membership is a matter of at least one draw")]
    NoDraws,
    /// A group is empty.
    #[error("there are no {group} images to compare")]
    NoImages {
        /// Which: "forgotten" or "control".
        group: &'static str,
    },
    /// The two groups were scored with different draws.
    #[error("the forgotten images were scored with {forgotten} draws, the controls with {control}")]
    Draws {
        /// Draws of the forgotten images.
        forgotten: usize,
        /// Draws of the controls.
        control: usize,
    },
    /// A loss that is no number.
    #[error("the loss of {group} image {image} is not finite")]
    NotFinite {
        /// Which: "forgotten" or "control".
        group: &'static str,
        /// Its number in the group.
        image: usize,
    },
    /// The network answers with another shape.
    #[error("the network's output has shape {found:?}, its input {expected:?}")]
    Output {
        /// The output's.
        found: [usize; 4],
        /// The input's.
        expected: [usize; 4],
    },
}

struct Drawn {
    number: usize,
    timestep: Time,
    noise: Vec<f32>,
}

impl Scoring<'_> {
    /// The loss of each image under each draw: the mean over its values of the squared difference between the noise
    /// that was added and the noise that the network's output stands for.
    ///
    /// `images` holds values in [-1, 1], one image after another; `labels` one class for each image of a network
    /// with classes. `progress` is called after each batch with the number of losses known.
    ///
    /// # Errors
    /// [`MembershipError`]: images or labels that do not fit.
    pub fn losses(
        &self,
        images: &[f32],
        labels: Option<&[i64]>,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Scores, MembershipError> {
        let image_len: usize = self.shape.iter().product();
        if image_len == 0 || !images.len().is_multiple_of(image_len) {
            return Err(MembershipError::Length {
                image_len,
                found: images.len(),
            });
        }
        let count = images.len() / image_len;
        if let Some(labels) = labels
            && labels.len() != count
        {
            return Err(MembershipError::Labels {
                images: count,
                labels: labels.len(),
            });
        }
        if self.draws == 0 {
            return Err(MembershipError::NoDraws);
        }
        // Draw by draw, so that one noise serves all images and only one is held.
        let mut drawn = self.draw(0, image_len);
        let mut losses = vec![0.0; count * self.draws];
        let pairs = count * self.draws;
        let batch_size = self.batch_size.max(1);
        for first in (0..pairs).step_by(batch_size) {
            let batch: Vec<usize> = (first..pairs.min(first + batch_size)).collect();
            let mut clean = Vec::with_capacity(batch.len() * image_len);
            let mut noise = Vec::with_capacity(batch.len() * image_len);
            let mut timesteps = Vec::with_capacity(batch.len());
            for pair in &batch {
                let (draw, image) = (pair / count, pair % count);
                if drawn.number != draw {
                    drawn = self.draw(draw, image_len);
                }
                clean.extend_from_slice(&images[image * image_len..][..image_len]);
                noise.extend_from_slice(&drawn.noise);
                timesteps.push(drawn.timestep);
            }
            let labels: Option<Vec<i64>> =
                labels.map(|labels| batch.iter().map(|pair| labels[pair % count]).collect());
            let found = self.batch(clean, noise, &timesteps, labels.as_deref())?;
            for (pair, loss) in batch.iter().zip(found) {
                losses[(pair % count) * self.draws + pair / count] = loss;
            }
            progress(first + batch.len());
        }
        Ok(Scores::new(self.draws, losses))
    }

    /// Scores forgotten images and controls, values in [-1, 1] one image after another, and compares them. `labels`
    /// holds a class for each of both, of a network with classes.
    ///
    /// # Errors
    /// [`MembershipError`]: those of [`Self::losses`] and of [`Membership::of`].
    pub fn compare(
        &self,
        forgotten: &[f32],
        control: &[f32],
        labels: Option<[&[i64]; 2]>,
        bootstrap: &Bootstrap,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Membership, MembershipError> {
        let [of_forgotten, of_control] = [0, 1].map(|group| labels.map(|labels| labels[group]));
        let forgotten = self.losses(forgotten, of_forgotten, progress)?;
        let known = forgotten.images() * forgotten.draws();
        let control = self.losses(control, of_control, &mut |done| progress(known + done))?;
        Membership::of(&forgotten, &control, bootstrap)
    }

    /// Step 0 of the stream belongs to noises that images have for themselves.
    fn draw(&self, number: usize, values: usize) -> Drawn {
        let step = number as u64 + 1;
        let (part, parts) = match self.timesteps {
            Timesteps::Uniform => (0, 1),
            Timesteps::Stratified => (number, self.draws),
        };
        let mut timestep = self.random.stream(Stream::ProbeTimestep, step);
        Drawn {
            number,
            timestep: self.process.draw(part, parts, &mut timestep),
            noise: self.random.stream(Stream::Probe, step).normal(values),
        }
    }

    /// The time of each draw.
    pub fn times(&self) -> Vec<Time> {
        (0..self.draws)
            .map(|number| self.draw(number, 0).timestep)
            .collect()
    }

    fn batch(
        &self,
        clean: Vec<f32>,
        noise: Vec<f32>,
        timesteps: &[Time],
        labels: Option<&[i64]>,
    ) -> Result<Vec<f64>, MembershipError> {
        let [height, width, channels] = self.shape;
        let shape = [timesteps.len(), height, width, channels];
        let tensor = |values| Tensor::<4>::from_data(TensorData::new(values, shape), self.device);
        let noisy = self
            .process
            .add_noise(tensor(clean), tensor(noise.clone()), timesteps);
        let output = self
            .network
            .predict(noisy.clone(), timesteps, labels, None)?;
        if output.dims() != shape {
            return Err(MembershipError::Output {
                found: output.dims(),
                expected: shape,
            });
        }
        let found = to_host(self.process.epsilon(noisy, output, timesteps));
        let image_len = noise.len() / timesteps.len();
        let images = found
            .chunks_exact(image_len)
            .zip(noise.chunks_exact(image_len));
        Ok(images
            .map(|(found, noise)| {
                let squares = found
                    .iter()
                    .zip(noise)
                    .map(|(found, noise)| (f64::from(*found) - f64::from(*noise)).powi(2));
                squares.sum::<f64>() / image_len as f64
            })
            .collect())
    }
}

/// Forgotten images against controls.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Membership {
    /// The probability that a control's mean loss exceeds a forgotten image's. One half: nothing tells them apart.
    /// Above: the network still knows the forgotten images. Below: it shows by high losses which ones it avoids.
    pub auc: f64,
    /// `max(auc, 1 - auc)`: how well somebody tells them apart who knows of both.
    pub two_sided: f64,
    /// Percentile interval of `auc`.
    pub interval: [f64; 2],
    /// The interval's level.
    pub level: f64,
    /// Mean squared error of the noise, over images and draws.
    pub forgotten_loss: f64,
    /// The same of the controls.
    pub control_loss: f64,
    /// Forgotten images.
    pub forgotten_images: usize,
    /// Controls.
    pub control_images: usize,
    /// Pairs of timestep and noise for each image.
    pub draws: usize,
}

impl Membership {
    /// Compares the mean losses of forgotten images with those of controls, images of the same kind that were never
    /// trained on.
    ///
    /// # Errors
    /// [`MembershipError`]: no images, different draws, or a loss that is not finite.
    pub fn of(
        forgotten: &Scores,
        control: &Scores,
        bootstrap: &Bootstrap,
    ) -> Result<Self, MembershipError> {
        if forgotten.draws() != control.draws() {
            return Err(MembershipError::Draws {
                forgotten: forgotten.draws(),
                control: control.draws(),
            });
        }
        let means = |scores: &Scores, group| {
            let means = scores.means();
            if means.is_empty() {
                return Err(MembershipError::NoImages { group });
            }
            match means.iter().position(|mean| !mean.is_finite()) {
                Some(image) => Err(MembershipError::NotFinite { group, image }),
                None => Ok(means),
            }
        };
        let forgotten_means = means(forgotten, "forgotten")?;
        let control_means = means(control, "control")?;
        let auc = auc(&forgotten_means, &control_means);
        Ok(Self {
            auc,
            two_sided: two_sided(auc),
            interval: bootstrap.interval(forgotten, control),
            level: bootstrap.level,
            forgotten_loss: mean(&forgotten_means),
            control_loss: mean(&control_means),
            forgotten_images: forgotten.images(),
            control_images: control.images(),
            draws: forgotten.draws(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use retrack_networks::gradients::GradientSet;
    use retrack_networks::random::Draw;
    use retrack_networks::schedule::{NoiseSchedule, Prediction, SchedulerConfig};

    /// Knows one image, which it takes all its input for; a class label is added to each value of it.
    struct OneImage {
        schedule: NoiseSchedule,
        image: Vec<f32>,
    }

    const SHAPE: [usize; 3] = [2, 1, 1];

    fn bootstrap() -> Bootstrap {
        Bootstrap {
            resamples: 100,
            level: 0.9,
            random: Random::new(1),
        }
    }

    impl OneImage {
        fn new(prediction: Prediction) -> Self {
            let schedule = NoiseSchedule::new(&SchedulerConfig {
                prediction,
                ..SchedulerConfig::default()
            });
            let image = vec![0.5, -0.5];
            Self { schedule, image }
        }

        fn losses(
            &self,
            images: &[f32],
            labels: Option<&[i64]>,
            batch_size: usize,
        ) -> Result<Scores, MembershipError> {
            let scoring = Scoring {
                network: self,
                process: &self.schedule,
                random: Random::new(1),
                device: &Device::flex(),
                shape: SHAPE,
                draws: 7,
                timesteps: Timesteps::Uniform,
                batch_size,
            };
            scoring.losses(images, labels, &mut |_| ())
        }
    }

    impl Denoiser for OneImage {
        fn predict(
            &self,
            x: Tensor<4>,
            timesteps: &[Time],
            labels: Option<&[i64]>,
            _: Option<&mut Draw>,
        ) -> Result<Tensor<4>, InputError> {
            let shape = x.dims();
            let clean = (0..shape[0]).flat_map(|index| {
                let label = labels.map_or(0.0, |labels| labels[index] as f32);
                self.image.iter().map(move |value| value + label)
            });
            let clean = TensorData::new(clean.collect::<Vec<f32>>(), shape);
            let clean = Tensor::from_data(clean, &x.device());
            Ok(self.schedule.target_of_clean(x, clean, timesteps))
        }

        fn gradients(&self, _: Tensor<1>) -> GradientSet {
            unreachable!("nothing is trained here")
        }
    }

    #[test]
    fn the_loss_is_the_squared_error_of_the_noise_whatever_is_predicted() {
        let images = [0.5, -0.5, 0.0, 0.5];
        for prediction in [
            Prediction::Epsilon,
            Prediction::Sample,
            Prediction::VPrediction,
        ] {
            let network = OneImage::new(prediction);
            let losses = network.losses(&images, None, 4).unwrap();
            assert_eq!((losses.images(), losses.draws()), (2, 7));
            for draw in 0..7 {
                let mut timestep = Random::new(1).stream(Stream::ProbeTimestep, draw as u64 + 1);
                let t = Time::timestep(timestep.integers(1, 1000)[0]);
                // eps - e = (g / s) (image - known image)
                let ratio = network.schedule.signal(t) / network.schedule.noise(t);
                assert!(losses.of(0)[draw] < 1e-6 * ratio * ratio + 1e-9);
                let expected = ratio * ratio * (0.25 + 1.0) / 2.0;
                let found = losses.of(1)[draw];
                assert!(
                    (found / expected - 1.0).abs() < 1e-2,
                    "{prediction:?} {t}: {found} {expected}"
                );
            }
        }
    }

    #[test]
    fn losses_depend_neither_on_the_batch_nor_on_the_other_images() {
        let network = OneImage::new(Prediction::Epsilon);
        let images = [0.1, -0.3, 0.0, 0.5, 0.9, 0.2];
        let all = network.losses(&images, None, 5).unwrap();
        assert_eq!(all, network.losses(&images, None, 100).unwrap());
        assert_eq!(all, network.losses(&images, None, 0).unwrap());
        let last = network.losses(&images[4..], None, 2).unwrap();
        assert_eq!(all.of(2), last.of(0));
        assert!(all.of(0).windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn stratified_draws_lie_one_in_each_part_of_the_schedule() {
        let network = OneImage::new(Prediction::Epsilon);
        for draws in [1, 3, 7, 1000, 1500] {
            let scoring = Scoring {
                network: &network,
                process: &network.schedule,
                random: Random::new(5),
                device: &Device::flex(),
                shape: SHAPE,
                draws,
                timesteps: Timesteps::Stratified,
                batch_size: 1,
            };
            for number in 0..draws {
                let drawn = scoring.draw(number, 1);
                let [low, high] = [number, number + 1].map(|part| part * 1000 / draws);
                let part = Time::timestep(low)..Time::timestep(high.max(low + 1));
                assert!(part.contains(&drawn.timestep), "{draws}");
            }
        }
    }

    #[test]
    fn labels_reach_their_images() {
        let network = OneImage::new(Prediction::Epsilon);
        let images = [0.5, -0.5, 1.5, 0.5, 0.5, -0.5];
        let scores = network.losses(&images, Some(&[0, 1, 1]), 4);
        let means = scores.unwrap().means();
        assert!(means[2] > 1e3 * means[0].max(means[1]), "{means:?}");
    }

    #[test]
    fn a_known_image_is_told_from_controls() {
        let network = OneImage::new(Prediction::Epsilon);
        let forgotten = network.losses(&[0.5, -0.5], None, 4).unwrap();
        let control = network.losses(&[0.4, -0.5, 0.5, 0.0, 0.0, 0.0], None, 4);
        let found = Membership::of(&forgotten, &control.unwrap(), &bootstrap()).unwrap();
        assert_eq!((found.auc, found.interval), (1.0, [1.0, 1.0]));
        assert!(found.forgotten_loss < found.control_loss);
        let sizes = (found.forgotten_images, found.control_images, found.draws);
        assert_eq!(sizes, (1, 3, 7));
    }

    #[test]
    fn input_that_does_not_fit_is_refused() {
        let network = OneImage::new(Prediction::Epsilon);
        let error = |values, labels| network.losses(values, labels, 1).unwrap_err().to_string();
        assert!(error(&[0.0; 3], None).starts_with("3 values"));
        assert!(error(&[0.0; 4], Some(&[1])).starts_with("2 images but 1"));

        let of = |a: &[f64], b: &[f64], draws| {
            let scores = |draws, values: &[f64]| Scores::new(draws, values.to_vec());
            Membership::of(&scores(1, a), &scores(draws, b), &bootstrap())
        };
        let none = MembershipError::NoImages { group: "control" };
        assert_eq!(of(&[1.0], &[], 1), Err(none));
        let draws = of(&[1.0], &[1.0, 2.0], 2);
        assert!(matches!(draws, Err(MembershipError::Draws { .. })));
        let group = "forgotten";
        let not_finite = MembershipError::NotFinite { group, image: 1 };
        assert_eq!(of(&[1.0, f64::NAN], &[1.0], 1), Err(not_finite));
    }
}
