//! What training and sampling ask of a network, whatever its kind.

use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::gradients::GradientSet;
use crate::process::Time;
use crate::random::Draw;
use crate::unet2d::UNet2DModel;

/// Why a network cannot take an input.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum InputError {
    /// A network with classes, and no labels.
    #[error("the network has {classes} classes: each image needs a class label")]
    LabelsMissing {
        /// The network's classes.
        classes: usize,
    },
    /// Labels, and a network without classes.
    #[error("the network has no classes, but class labels were given")]
    LabelsUnexpected,
    /// A class that the network does not have.
    #[error("class label {label} of image {image} is not among the network's 0 to {last}")]
    LabelOutOfRange {
        /// The label.
        label: i64,
        /// The image's place in the batch.
        image: usize,
        /// The last class.
        last: usize,
    },
    /// The number of a text that nobody encoded.
    #[error("text {label} is not among the run's {count}")]
    Text {
        /// The label.
        label: i64,
        /// How many texts there are.
        count: usize,
    },
    /// Images of other channels than the network takes.
    #[error("images have {found} channels, the network takes {expected}")]
    Channels {
        /// The images'.
        found: usize,
        /// The network's.
        expected: usize,
    },
    /// A size that the network does not give back.
    #[error(
        "images of {height} x {width} pixels do not survive the way down and up: {side} pixels halve to \
         {half} and double to {back}; a multiple of {multiple} does"
    )]
    Size {
        /// Pixels from top to bottom.
        height: usize,
        /// Pixels from left to right.
        width: usize,
        /// The side that changes.
        side: usize,
        /// What it halves to.
        half: usize,
        /// What that doubles to.
        back: usize,
        /// Sides that are a multiple of it survive.
        multiple: usize,
    },
    /// A size that is not of whole patches, or of too many.
    #[error(
        "{height} x {width} do not split into patches of {patch} x {patch}, or are larger than {most} x {most}, for which the \
         network has places"
    )]
    Patches {
        /// From top to bottom.
        height: usize,
        /// From left to right.
        width: usize,
        /// Of a patch, each way.
        patch: usize,
        /// The largest size, each way.
        most: usize,
    },
    /// Not one time an image.
    #[error("{images} images but {timesteps} timesteps")]
    Timesteps {
        /// Images in the batch.
        images: usize,
        /// Times given.
        timesteps: usize,
    },
    /// A network that is told more of a text than hidden states, and was not.
    #[error("the network also takes {what}, of which there is none")]
    ToldTooLittle {
        /// What.
        what: &'static str,
    },
    /// That of another shape than the network takes.
    #[error("{what} have shape {found:?}, the network takes {expected:?}")]
    Told {
        /// Which.
        what: &'static str,
        /// Their shape.
        found: [usize; 2],
        /// What it would have to be.
        expected: [usize; 2],
    },
    /// Hidden states of another shape than the network takes.
    #[error(
        "encoder hidden states have shape {found:?}, the network takes [1 or {images}, tokens, {width}]"
    )]
    EncoderHiddenStates {
        /// Their shape.
        found: [usize; 3],
        /// Images in the batch.
        images: usize,
        /// Numbers of a token.
        width: usize,
    },
}

/// What texts say to a network, as text encoders put it.
#[derive(Debug, Clone)]
pub struct Embeddings {
    /// Hidden states, `[texts, tokens, width]`.
    pub states: Tensor<3>,
    /// Each text as one vector, `[texts, width]`: of SDXL and Stable Diffusion 3.
    pub pooled: Option<Tensor<2>>,
    /// How the image of a text was cut out of its original: of SDXL.
    pub sizes: Option<Sizes>,
}

/// Sizes in pixels: of the original image, of the corner that is cut off above and on the left, and of what was cut out; of
/// each height, then width (Podell et al. 2023, arXiv 2307.01952).
#[derive(Debug, Clone, PartialEq)]
pub enum Sizes {
    /// Whole images: so many pixels for each that the network sees, both ways.
    Whole(usize),
    /// One for each text.
    Each(Vec<[f32; 6]>),
}

impl From<Tensor<3>> for Embeddings {
    /// Hidden states, and nothing else.
    fn from(states: Tensor<3>) -> Self {
        Self {
            states,
            pooled: None,
            sizes: None,
        }
    }
}

impl Embeddings {
    /// Those of a few of the texts, by number, each as often as it comes.
    pub fn select(&self, texts: &[i64]) -> Self {
        let numbers = TensorData::new(texts.to_vec(), [texts.len()]);
        let numbers = Tensor::<1, Int>::from_data(numbers, &self.states.device());
        let states = self.states.clone().select(0, numbers.clone());
        let pooled = self.pooled.clone();
        Self {
            states,
            pooled: pooled.map(|pooled| pooled.select(0, numbers)),
            sizes: self.sizes.as_ref().map(|sizes| match sizes {
                Sizes::Whole(factor) => Sizes::Whole(*factor),
                Sizes::Each(all) => Sizes::Each(texts.iter().map(|&t| all[t as usize]).collect()),
            }),
        }
    }

    /// Those of `others` after these.
    ///
    /// # Panics
    /// They are told to different networks.
    pub fn joined(self, others: Self) -> Self {
        let pooled = match (self.pooled, others.pooled) {
            (None, None) => None,
            (Some(own), Some(other)) => Some(Tensor::cat(vec![own, other], 0)),
            _ => panic!("texts of different networks"),
        };
        let sizes = match (self.sizes, others.sizes) {
            (Some(Sizes::Each(own)), Some(Sizes::Each(other))) => {
                Some(Sizes::Each([own, other].concat()))
            }
            (own, other) => {
                assert_eq!(own, other, "texts of different networks");
                own
            }
        };
        Self {
            states: Tensor::cat(vec![self.states, others.states], 0),
            pooled,
            sizes,
        }
    }

    /// How many texts.
    pub fn len(&self) -> usize {
        self.states.dims()[0]
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The same for every tensor of these.
    fn map(
        self,
        states: impl FnOnce(Tensor<3>) -> Tensor<3>,
        pooled: impl FnOnce(Tensor<2>) -> Tensor<2>,
    ) -> Self {
        Self {
            states: states(self.states),
            pooled: self.pooled.map(pooled),
            sizes: self.sizes,
        }
    }

    /// Without autodiff.
    pub fn inner(self) -> Self {
        self.map(Tensor::inner, Tensor::inner)
    }

    /// On a device with autodiff.
    pub fn autodiff(self) -> Self {
        self.map(Tensor::autodiff, Tensor::autodiff)
    }

    /// On another device.
    pub fn to_device(self, device: &Device) -> Self {
        self.map(
            |states| states.to_device(device),
            |pooled| pooled.to_device(device),
        )
    }
}

/// Images that a network looks at together, at most, where their number does not matter.
pub const AT_ONCE: usize = 64;

/// A network that looks at a noisy image and predicts what the schedule's prediction type says.
pub trait Denoiser {
    /// The network's output at these times.
    ///
    /// # Shapes
    /// `x`: `[batch, height, width, channels]`; a time for each image (and a label: its class,
    /// or the number of its text, where the network has either); result: `[batch, height, width, channels]`.
    ///
    /// # Errors
    /// An input that does not fit the network.
    fn predict(
        &self,
        x: Tensor<4>,
        times: &[Time],
        labels: Option<&[i64]>,
        dropout: Option<&mut Draw>,
    ) -> Result<Tensor<4>, InputError>;

    /// Gives a network that looks at texts those that labels from now on are the numbers of; nothing to any other.
    fn tell(&mut self, texts: Embeddings) {
        let _ = texts;
    }

    /// The backward pass of a loss (one element) made from this network's predictions.
    fn gradients(&self, loss: Tensor<1>) -> GradientSet;

    /// How many images of this height and width pass through [`backward`](Self::backward) at once, at most, and one at least.
    /// Each pass prepares the weights anew, which of a few images is most of the work; and what they leave in memory is to be no
    /// more than what a training holds for the weights.
    fn at_once(&self, size: [usize; 2]) -> usize {
        let _ = size;
        usize::MAX
    }

    /// How many images of this height and width [`predict`](Self::predict) takes at once where their number does not
    /// matter, derivatives by them included.
    fn looks_at_once(&self, size: [usize; 2]) -> usize {
        let _ = size;
        AT_ONCE
    }

    /// [`predict`](Self::predict)s, and adds the gradient of what `loss` (one element) makes of the
    /// prediction to `sum`. A network that would keep too much for that keeps less, in its own way.
    ///
    /// # Errors
    /// As `predict`.
    fn backward(
        &self,
        x: Tensor<4>,
        times: &[Time],
        labels: Option<&[i64]>,
        dropout: Option<&mut Draw>,
        loss: &mut dyn FnMut(Tensor<4>) -> Tensor<1>,
        sum: &mut Option<GradientSet>,
    ) -> Result<(), InputError> {
        let prediction = self.predict(x, times, labels, dropout)?;
        GradientSet::add_to(sum, self.gradients(loss(prediction)));
        Ok(())
    }
}

impl Denoiser for UNet2DModel {
    fn predict(
        &self,
        x: Tensor<4>,
        times: &[Time],
        labels: Option<&[i64]>,
        dropout: Option<&mut Draw>,
    ) -> Result<Tensor<4>, InputError> {
        let timesteps = Time::embedded(times);
        self.forward(x, &timesteps, labels, dropout)
    }

    fn gradients(&self, loss: Tensor<1>) -> GradientSet {
        GradientSet::of(self, loss)
    }

    fn at_once(&self, [height, width]: [usize; 2]) -> usize {
        self.config.cost(height, width).at_once()
    }
}
