//! The losses of unlearning. Each file is one method; this one says what a method is, and which there are.

mod erasediff;
mod finetune;
mod method;
mod neggrad;
mod redirect;
mod retrack;
mod siss;
mod strengths;

use std::cell::RefCell;
use std::ops;

use burn::tensor::{Device, Tensor, TensorData};
use retrack_networks::denoiser::{Denoiser, InputError};
use retrack_networks::gradients::GradientSet;
use retrack_networks::parameters::to_host;
use retrack_networks::process::{Process, Time};
use retrack_networks::random::Draw;

use crate::batch::{Batch, Draws, Noised};
use crate::level::Side;
use retrack_data::DataError;

pub use erasediff::EraseDiff;
pub use finetune::Finetune;
pub use method::{About, Citation, Method, MethodError};
pub use neggrad::NegGrad;
pub use retrack::ReTrack;
pub use siss::Siss;
pub use strengths::{Parameter, Range, Shared, Strengths, parameters};

pub(crate) use method::NAMES;

/// The methods that files and the command line know, in the order in which these list them; the first one is taken where
/// none is named.
pub const METHODS: &[Method] = &[
    Method::of::<ReTrack>(),
    Method::of::<Finetune>(),
    Method::of::<NegGrad>(),
    Method::of::<EraseDiff>(),
    Method::of::<Siss>(),
];

/// A way to unlearn: what it is called, which numbers it takes, which data it draws, what it minimizes, and how its
/// gradients combine.
///
/// An objective that stands in [`METHODS`] is a `--method` of the command line. Any other runs too, in a
/// [`Trainer`](crate::trainer::Trainer) or as the [`Method::of`] a recipe.
pub trait Objective: std::fmt::Debug {
    /// What it is called, and which parameters it has.
    fn about() -> &'static About
    where
        Self: Sized;

    /// The objective with these strengths. They have every parameter of [`about`](Self::about), each in its range.
    fn new(strengths: &Strengths) -> Self
    where
        Self: Sized;

    /// Which parts of a batch [`backward`](Self::backward) reads.
    fn draws(&self) -> Draws;

    /// Whether it adds to [`Sums::correction`] too: a second gradient, as large as the network.
    fn two_gradients(&self) -> bool {
        false
    }

    /// How many of the streams of images, retained and forgotten, it hands to [`Pass::backward`] together.
    fn streams(&self) -> usize {
        1
    }

    /// Adds the gradient of one micro-batch to `sums` and reports its loss.
    ///
    /// # Errors
    /// An image that does not fit the network, or one that cannot be read.
    fn backward(&self, pass: &Pass, batch: &Batch, sums: &mut Sums) -> Result<Losses, PassError>;

    /// Whether [`Losses::retain`] says how the retained images fare. Where it does not, their loss is watched beside
    /// the steps ([`crate::watch::RetainedWatch`]).
    fn reports_retain(&self) -> bool {
        true
    }

    /// The gradient of a step, from the mean over its micro-batches.
    ///
    /// # Errors
    /// A second gradient that is not finite: what would come of it says nothing of forgetting.
    fn combine(&self, sums: Sums) -> Result<GradientSet, NotFinite> {
        Ok(sums.main.expect("a step has at least one micro-batch"))
    }
}

/// A number of a step that should be finite.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("the {what} is {value}")]
pub struct NotFinite {
    /// What it is, as "loss".
    pub what: &'static str,
    /// NaN or infinity.
    pub value: f64,
}

impl NotFinite {
    /// The value, if it is finite.
    ///
    /// # Errors
    /// It is not.
    pub fn check(what: &'static str, value: f64) -> Result<f64, Self> {
        if value.is_finite() {
            Ok(value)
        } else {
            Err(Self { what, value })
        }
    }
}

/// Why a micro-batch has no gradient.
#[derive(Debug, thiserror::Error)]
pub enum PassError {
    /// Images that do not fit the network.
    #[error(transparent)]
    Input(#[from] InputError),
    /// Retained images that cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
}

/// The gradients that a step's micro-batches add up to.
#[derive(Debug, Default)]
pub struct Sums {
    /// Of what is minimized.
    pub main: Option<GradientSet>,
    /// Of the second loss, where a method has one whose gradient it does not simply add.
    pub correction: Option<GradientSet>,
}

impl Sums {
    /// Divides by the number of micro-batches.
    pub fn divide(self, micro_batches: usize) -> Self {
        let factor = 1.0 / micro_batches as f64;
        Self {
            main: self.main.map(|sum| sum.scale(factor)),
            correction: self.correction.map(|sum| sum.scale(factor)),
        }
    }

    /// Main gradient and correction of a method that has both.
    ///
    /// # Panics
    /// One of them is missing.
    pub fn both(self) -> (GradientSet, GradientSet) {
        let missing = "a step has at least one micro-batch";
        (self.main.expect(missing), self.correction.expect(missing))
    }
}

/// The squared Euclidean norm of a correction, which must be finite before anything is divided by it: a factor made of
/// a length that is infinite or no number looks like one that has nothing to correct.
fn squared_length_of(correction: &GradientSet) -> Result<f64, NotFinite> {
    let squared = correction.norm_squared();
    NotFinite::check("second gradient's norm", squared.sqrt())?;
    Ok(squared)
}

/// `main + factor * correction`, and `main` alone where the correction has vanished: its length, which
/// the factor was divided by, is then zero or too small for the f32 factor.
fn corrected(main: GradientSet, correction: GradientSet, factor: f64) -> GradientSet {
    if factor == 0.0 || !(factor as f32).is_finite() {
        return main;
    }
    main.add_scaled(correction, factor)
}

/// |e + (g/s)(x - other)|^2 / 2 - |e|^2 / 2 for one noisy image x_t = g x + s e: how much less likely
/// than x another clean image is to have led to it, as the difference of their log densities.
///
/// In f64 and as a difference: at small t the squares are in the millions, where f32 has no digits left.
fn half_square_excess(
    process: &dyn Process,
    t: Time,
    clean: &[f32],
    noise: &[f32],
    other: &[f32],
) -> f64 {
    let ratio = process.ratio(t);
    let mut distance = 0.0;
    let mut along = 0.0;
    for ((&x, &n), &e) in clean.iter().zip(other).zip(noise) {
        let difference = f64::from(x) - f64::from(n);
        distance += difference * difference;
        along += difference * f64::from(e);
    }
    0.5 * ratio * ratio * distance + ratio * along
}

/// The loss of one micro-batch: sums over the pixels of an image, means over images.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Losses {
    /// What is minimized.
    pub loss: f64,
    /// The retained images' own loss, before its weight.
    pub retain: Option<f64>,
    /// The forgotten images' own loss, before its weight.
    pub forget: Option<f64>,
    /// The second loss, whose gradient corrects that of the first.
    pub correction: Option<f64>,
}

impl Losses {
    /// That every loss is finite.
    ///
    /// # Errors
    /// The first one that is not.
    pub fn check(&self) -> Result<(), NotFinite> {
        NotFinite::check("loss", self.loss)?;
        let terms = [
            ("loss of the retained images", self.retain),
            ("loss of the forgotten images", self.forget),
            ("second loss", self.correction),
        ];
        for (what, loss) in terms {
            NotFinite::check(what, loss.unwrap_or(0.0))?;
        }
        Ok(())
    }

    /// Adds `other / count`, to average over micro-batches.
    pub fn accumulate(&mut self, other: &Self, count: usize) {
        let count = count as f64;
        let add = |sum: &mut Option<f64>, term: Option<f64>| {
            if let Some(term) = term {
                *sum = Some(sum.unwrap_or(0.0) + term / count);
            }
        };
        self.loss += other.loss / count;
        add(&mut self.retain, other.retain);
        add(&mut self.forget, other.forget);
        add(&mut self.correction, other.correction);
    }
}

/// What a micro-batch is computed with.
pub struct Pass<'a> {
    /// The network.
    pub network: &'a dyn Denoiser,
    /// Its way to noise.
    pub process: &'a dyn Process,
    /// Where the network's tensors are; with autodiff.
    pub device: &'a Device,
    /// The masks of a training step; `None` drops nothing.
    pub dropout: Option<RefCell<Draw>>,
}

impl Pass<'_> {
    /// Mean over images of the squared distance between prediction and what a network predicts that reconstructs
    /// them, without a gradient.
    pub(crate) fn error(&self, images: &Noised) -> Result<f64, PassError> {
        let prediction = self.network.predict(
            images.noisy(self.process, self.device),
            &images.timesteps,
            images.labels.as_deref(),
            None,
        )?;
        let difference = prediction - images.target(self.process, self.device);
        let squares = (difference.clone() * difference).sum();
        Ok(f64::from(squares.into_scalar::<f32>()) / images.len() as f64)
    }

    /// Adds the gradient of the sum of these terms to `sum`, and returns the number of each. As many images pass through the
    /// network together, whichever term they are of, as [it takes at once](Denoiser::at_once), in passes as equal as can be.
    ///
    /// # Errors
    /// Images that do not fit the network.
    pub fn backward<const N: usize>(
        &self,
        terms: [Term; N],
        sum: &mut Option<GradientSet>,
    ) -> Result<[f64; N], PassError> {
        let mut values = [0.0; N];
        let images: usize = terms.iter().map(|term| term.images.len()).sum();
        // All are of one data set.
        let [_, height, width, _] = terms[0].images.shape;
        let passes = images.div_ceil(self.network.at_once([height, width]));
        // Once, however many passes take a part of it.
        let noisy = terms
            .each_ref()
            .map(|term| term.images.noisy(self.process, self.device));
        let mut done = 0;
        for pass in 0..passes {
            let count = (images - done).div_ceil(passes - pass);
            let mut parts = Vec::with_capacity(N);
            let mut first = 0;
            for ((term, noisy), value) in terms.iter().zip(&noisy).zip(&mut values) {
                let last = first + term.images.len();
                let (from, to) = (first.max(done), last.min(done + count));
                if from < to {
                    let images = from - first..to - first;
                    parts.push(Part {
                        term,
                        noisy: narrowed(noisy.clone(), &images),
                        images,
                        value,
                    });
                }
                first = last;
            }
            self.one_pass(parts, sum)?;
            done += count;
        }
        Ok(values)
    }

    fn one_pass(
        &self,
        mut parts: Vec<Part>,
        sum: &mut Option<GradientSet>,
    ) -> Result<(), PassError> {
        let noisy: Vec<Tensor<4>> = parts.iter().map(|part| part.noisy.clone()).collect();
        let times = parts
            .iter()
            .map(|Part { term, images, .. }| &term.images.timesteps[images.clone()]);
        let times = times.collect::<Vec<_>>().concat();
        let labels = parts.iter().map(|Part { term, images, .. }| {
            let labels = term.images.labels.as_deref()?;
            Some(&labels[images.clone()])
        });
        let labels: Option<Vec<&[i64]>> = labels.collect();
        let labels = labels.map(|labels| labels.concat());
        let mut loss = |prediction: Tensor<4>| {
            let mut first = 0;
            let mut losses = parts.iter_mut().map(|part| {
                let own = first..first + part.images.len();
                first = own.end;
                let own = narrowed(prediction.clone(), &own);
                let (loss, reported) = (part.term.loss)(own, part.images.clone());
                *part.value += reported;
                loss
            });
            let one = losses.next().expect("a part");
            losses.fold(one, |sum, loss| sum + loss)
        };
        let mut draw = self.dropout.as_ref().map(|draw| draw.borrow_mut());
        self.network.backward(
            Tensor::cat(noisy, 0),
            &times,
            labels.as_deref(),
            draw.as_deref_mut(),
            &mut loss,
            sum,
        )?;
        Ok(())
    }

    /// Leads each image where its own prediction says: to `target` if it is known, to what reconstructs it if it is avoided,
    /// nowhere else. `side` is told which image of the batch and the mean squared error of the noise, a value, that its
    /// prediction stands for. What is minimized is `factor` times the mean over images of the squared distances to where they
    /// are led; the term's number is that mean of the distances between prediction and what reconstructs them.
    ///
    /// # Shapes
    /// `target` has that of `images`.
    pub fn gated_error<'a>(
        &'a self,
        images: &'a Noised,
        target: Tensor<4>,
        side: impl Fn(usize, f64) -> Side + 'a,
        factor: f64,
    ) -> Term<'a> {
        let all = images.len();
        let own = images.target(self.process, self.device);
        let loss = move |prediction: Tensor<4>, part: ops::Range<usize>| {
            let count = part.len();
            let own = narrowed(own.clone(), &part);
            let target = narrowed(target.clone(), &part);
            let away = prediction.clone().detach() - own.clone();
            let squares = (away.clone() * away).reshape([count, images.image_len()]);
            let errors = to_host(squares.sum_dim(1));
            let value = errors.iter().map(|&error| f64::from(error)).sum::<f64>() / all as f64;
            let sides: Vec<Side> = part
                .zip(&errors)
                .map(|(image, &error)| {
                    let slope = self.process.noise_slope(images.timesteps[image]);
                    let mean = f64::from(error) / images.image_len() as f64;
                    side(image, mean * slope * slope)
                })
                .collect();
            let weights = |wanted: Side| {
                let weights = sides
                    .iter()
                    .map(|&side| f32::from(u8::from(side == wanted)));
                let weights = TensorData::new(weights.collect(), [count, 1, 1, 1]);
                Tensor::<4>::from_data(weights, self.device)
            };
            let lead = prediction.clone() - target;
            let back = prediction - own;
            let squares = lead.clone() * lead * weights(Side::Known)
                + back.clone() * back * weights(Side::Avoided);
            (squares.sum().mul_scalar(factor / all as f64), value)
        };
        Term {
            images,
            loss: Box::new(loss),
        }
    }

    /// Mean over images of the squared distance between prediction and `target`, each image's times its
    /// own constant of `weights`: the term's number. What is minimized is `factor` times that.
    ///
    /// # Shapes
    /// `target` has that of `images`; `weights` has one number for each image.
    pub fn squared_error<'a>(
        &'a self,
        images: &'a Noised,
        target: Tensor<4>,
        weights: Option<&'a [f64]>,
        factor: f64,
    ) -> Term<'a> {
        let loss = move |prediction: Tensor<4>, part: ops::Range<usize>| {
            let difference = prediction - narrowed(target.clone(), &part);
            let mut squares = difference.clone() * difference;
            if let Some(weights) = weights {
                let weights = &weights[part];
                let weights: Vec<f32> = weights.iter().map(|&weight| weight as f32).collect();
                let weights = TensorData::new(weights, [squares.dims()[0], 1, 1, 1]);
                squares = squares * Tensor::from_data(weights, self.device);
            }
            let error = squares.sum().div_scalar(images.len() as f64);
            let value = f64::from(error.clone().into_scalar::<f32>());
            (error.mul_scalar(factor), value)
        };
        Term {
            images,
            loss: Box::new(loss),
        }
    }
}

/// Images of a micro-batch with what is minimized of them: see [`Pass::backward`].
pub struct Term<'a> {
    images: &'a Noised,
    /// What is minimized, one element, and the number that is reported, both of the network's prediction for a part of the
    /// images. Those of all parts add up.
    loss: Box<Loss<'a>>,
}

type Loss<'a> = dyn Fn(Tensor<4>, ops::Range<usize>) -> (Tensor<1>, f64) + 'a;

/// Images of a term that pass together, and the term's number.
struct Part<'a, 't> {
    term: &'a Term<'t>,
    /// As the network takes these images.
    noisy: Tensor<4>,
    images: ops::Range<usize>,
    value: &'a mut f64,
}

/// Some of the images in a tensor.
fn narrowed(all: Tensor<4>, images: &ops::Range<usize>) -> Tensor<4> {
    match images.len() == all.dims()[0] {
        true => all,
        false => all.narrow(0, images.start, images.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gradient(values: [f32; 2]) -> GradientSet {
        GradientSet(vec![Tensor::from_floats(values, &Device::flex())])
    }

    fn combined(objective: &dyn Objective, main: [f32; 2], correction: [f32; 2]) -> Vec<f32> {
        let mut sums = Sums::default();
        GradientSet::add_to(&mut sums.main, gradient(main));
        GradientSet::add_to(&mut sums.correction, gradient(correction));
        let combined = objective.combine(sums.divide(1)).unwrap();
        retrack_networks::parameters::to_host(combined.0[0].clone())
    }

    #[test]
    fn erasediff_corrects_just_enough_to_lower_the_second_loss() {
        // Opposite by -1/2 of the correction's square: the factor is eta + 1/2.
        let step = combined(&EraseDiff { eta: 0.25 }, [-1.0, 3.0], [2.0, 0.0]);
        assert_eq!(step, [0.5, 3.0]);
        // Already along the correction by more than eta.
        let step = combined(&EraseDiff { eta: 0.25 }, [1.0, 3.0], [2.0, 0.0]);
        assert_eq!(step, [1.0, 3.0]);
    }

    #[test]
    fn siss_subtracts_a_correction_of_fixed_length() {
        let siss = Siss {
            lambda: 0.5,
            rescale: 10.0,
        };
        assert_eq!(combined(&siss, [1.0, 1.0], [0.3, -0.4]), [-5.0, 9.0]);
    }

    #[test]
    fn a_correction_that_has_vanished_corrects_nothing() {
        let methods: [&dyn Objective; 2] = [
            &EraseDiff { eta: 0.25 },
            &Siss {
                lambda: 0.5,
                rescale: 750.0,
            },
        ];
        for method in methods {
            for correction in [[0.0, 0.0], [1e-45, -1e-45]] {
                let step = combined(method, [1.0, -2.0], correction);
                assert_eq!(step, [1.0, -2.0], "{method:?}");
            }
        }
    }

    #[test]
    fn a_correction_that_is_not_finite_is_no_fine_tuning() {
        let siss = |rescale| Siss {
            lambda: 0.5,
            rescale,
        };
        // Without a length and without eta the correction would be left out whatever it is.
        let methods: [&dyn Objective; 4] = [
            &EraseDiff { eta: 0.25 },
            &EraseDiff { eta: 0.0 },
            &siss(750.0),
            &siss(0.0),
        ];
        let (nan, inf) = (f32::NAN, f32::INFINITY);
        // The last one's squares overflow.
        for correction in [[nan, 1.0], [0.0, inf], [-inf, nan], [inf, inf], [3e38, 0.0]] {
            for method in methods {
                let mut sums = Sums::default();
                GradientSet::add_to(&mut sums.main, gradient([1.0, -2.0]));
                GradientSet::add_to(&mut sums.correction, gradient(correction));
                let error = method.combine(sums.divide(1)).unwrap_err();
                assert_eq!(error.what, "second gradient's norm", "{method:?}");
                assert!(!error.value.is_finite(), "{method:?}");
            }
        }
    }

    #[test]
    fn a_loss_that_is_not_finite_is_named() {
        let losses = |retain, forget, correction| Losses {
            loss: 1.0,
            retain,
            forget,
            correction,
        };
        let inf = Some(f64::INFINITY);
        for (losses, named) in [
            (
                losses(inf, None, None),
                "the loss of the retained images is inf",
            ),
            (
                losses(None, inf, None),
                "the loss of the forgotten images is inf",
            ),
            (losses(None, None, Some(f64::NAN)), "the second loss is NaN"),
        ] {
            assert_eq!(losses.check().unwrap_err().to_string(), named);
        }
        assert_eq!(losses(Some(1.0), None, Some(2.0)).check(), Ok(()));
    }

    #[test]
    fn micro_batches_average_before_they_combine() {
        let mut sums = Sums::default();
        for (main, correction) in [([1.0, 2.0], [1.0, 0.0]), ([3.0, 6.0], [5.0, 0.0])] {
            GradientSet::add_to(&mut sums.main, gradient(main));
            GradientSet::add_to(&mut sums.correction, gradient(correction));
        }
        let siss = Siss {
            lambda: 0.5,
            rescale: 0.5,
        };
        let combined = siss.combine(sums.divide(2)).unwrap();
        let step = retrack_networks::parameters::to_host(combined.0[0].clone());
        assert_eq!(step, [1.5, 4.0]);
    }

    #[test]
    fn losses_average_over_micro_batches_where_a_method_reports_them() {
        let part = |loss| Losses {
            loss,
            correction: Some(2.0 * loss),
            ..Losses::default()
        };
        let mut losses = Losses::default();
        losses.accumulate(&part(1.0), 2);
        losses.accumulate(&part(4.0), 2);
        assert_eq!(losses.loss, 2.5);
        assert_eq!(losses.correction, Some(5.0));
        assert_eq!(losses.retain, None);
    }
}
