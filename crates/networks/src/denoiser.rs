//! What training and sampling ask of a network, whatever its kind.

use burn::tensor::Tensor;

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
    /// Not one time an image.
    #[error("{images} images but {timesteps} timesteps")]
    Timesteps {
        /// Images in the batch.
        images: usize,
        /// Times given.
        timesteps: usize,
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
    /// Hidden states, `[texts, tokens, width]`, on a device without autodiff.
    pub states: Tensor<3>,
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
