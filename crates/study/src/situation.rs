//! What a user may find themselves in, and what to do about it. A front end knows its own way out and what it calls things
//! ([`crate::progress::Front`]); the words here fit anywhere.

use std::fmt::Display;
use std::path::Path;

use retrack_eval::metric::Need;

use crate::progress;

/// What a user may find themselves in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Situation {
    /// Losses grow, or are no numbers any more.
    Diverged,
    /// A training step needs more memory than there is.
    StepTooLarge,
    /// Samples that are drawn need more memory than there is.
    SamplesTooLarge,
    /// The disk took no more of a run.
    DiskFull,
    /// The output folder holds something.
    NotEmpty,
    /// The output folder holds a run that was interrupted.
    HoldsInterrupted,
    /// The output folder holds no run that could go on.
    NothingToResume,
    /// The output folder holds a run that came to its end.
    NothingLeft,
    /// The run that is to be verified was interrupted.
    Unfinished,
    /// The run in a model's folder was interrupted before it wrote one.
    NoModelYet,
    /// A folder holds no run that could be verified.
    NothingToVerify,
    /// A folder holds an adapter, in the file `{}`, and no model.
    LoneAdapter,
    /// A file of weights was given where a model is asked for.
    WeightsAlone,
    /// A file of tensors lacks one.
    MissingTensor,
    /// Weights are to be written in another type, in a form that keeps theirs.
    FixedTypes,
    /// A file of a network's configuration does not say how large it is.
    NoSizes,
    /// A run was to say whether the image is found no more, and nothing of it looks.
    NothingLooks,
    /// The network has classes and none was named.
    NoClass,
    /// The network has classes and an image has no label.
    NoLabel,
    /// The model's own scheduler is not built here.
    ForeignScheduler,
    /// Images are nearly copies of one that leaves.
    NearCopy,
    /// Images have transparent pixels, and nothing said what becomes of them.
    Transparent,
    /// Images are of several sizes, or of one that the model does not take. `{}`: what their shorter side could be.
    Sizes,
    /// Images are not of the model's size, `{}`.
    OtherSize,
    /// More neighbors are asked for than images are retained.
    TooManyNeighbors,
    /// A metric needs this, which was not given.
    Lacks(Need),
    /// A trained weight is beyond f16, in which the folder's are written.
    BeyondHalf,
    /// A trained weight is beyond another type.
    BeyondItsType,
    /// A trained weight is beyond the type of files that keep theirs.
    BeyondFixedType,
    /// The record of a model's requests is damaged, or its requests do not fit each other.
    BrokenChain,
    /// A model has no record of requests.
    NoHistory,
    /// What a model's last request forgot, it forgets with an adapter alone.
    ForgetsByAdapter,
    /// Everything selected was forgotten before.
    Repeated,
    /// Sealed copies of images that left the data lie beside the model, and no key was given.
    SealedApart,
}

/// What to do, as the end of a sentence.
pub fn advice(situation: Situation) -> &'static str {
    progress::front()
        .and_then(|front| front.advice(situation))
        .unwrap_or_else(|| situation.advice())
}

/// The same, where `{}` in it stands for `what`.
pub fn advice_on(situation: Situation, what: impl Display) -> String {
    advice(situation).replace("{}", &what.to_string())
}

/// What may have been advised to whoever had an unlearning run made.
pub fn advised_by_runs(situation: Situation) -> Vec<&'static str> {
    match progress::front() {
        Some(front) => front.advised_by_runs(situation),
        None => vec![situation.advice()],
    }
}

/// What to do where samples need more memory than there is. A single one is as large as the model's `config` says.
pub fn smaller_samples(count: usize, config: &Path) -> String {
    if count > 1 {
        return advice(Situation::SamplesTooLarge).into();
    }
    format!(
        "its size is `sample_size` in {}; use a machine with more, or a model of smaller images",
        config.display()
    )
}

impl Situation {
    /// Words that name no option.
    pub fn advice(self) -> &'static str {
        match self {
            Self::Diverged => "train with a lower learning rate or fewer steps",
            Self::StepTooLarge => "close other programs, or use a machine with more",
            Self::SamplesTooLarge => "use a machine with more",
            Self::DiskFull => "free some space, or choose a folder on another disk",
            Self::NotEmpty | Self::HoldsInterrupted | Self::NothingToResume | Self::NothingLeft => {
                "choose another"
            }
            Self::Unfinished | Self::NoModelYet => "finish it first",
            Self::NothingToVerify => "give the folder that an unlearning run wrote",
            Self::LoneAdapter => "it belongs to the model that it was trained for",
            Self::WeightsAlone => "give the model's folder",
            Self::MissingTensor => "give it",
            Self::FixedTypes => "save the model as one .safetensors file first",
            Self::NoSizes => "one that is built in needs no file",
            Self::NothingLooks => "evaluate the model afterwards",
            Self::NoClass => "name one of its classes",
            Self::NoLabel => {
                "give images with labels, such as a folder for each class or a Parquet file with a `label` column"
            }
            Self::ForeignScheduler => "another can be chosen",
            Self::NearCopy => "they can leave too, or stay",
            Self::Transparent => "the model may have seen them otherwise",
            Self::Sizes => "crop or resize them first",
            Self::OtherSize => "give the data it was trained on, scaled as it was",
            Self::TooManyNeighbors => "ask for fewer",
            Self::Lacks(Need::Samples | Need::Denoised | Need::Threshold) => "draw samples first",
            Self::Lacks(Need::Sscd) => "SSCD as ONNX was not given",
            Self::Lacks(Need::Clip) => "a folder of CLIP was not given",
            Self::Lacks(Need::Inception) => "Inception's weights were not given",
            Self::Lacks(Need::Controls) => "images that the model never saw were not given",
            Self::BeyondHalf | Self::BeyondItsType | Self::BeyondFixedType => "f32 can hold it",
            Self::BrokenChain => {
                "put back the file as it was, or move it away, which begins a new record: images of earlier requests are then \
                 retained where they still lie in the data, unless they are selected again"
            }
            Self::NoHistory => "`retrack unlearn` keeps one in the folder that it writes",
            Self::ForgetsByAdapter => "merge it into the weights first",
            Self::Repeated => "whether it is back can be measured",
            Self::SealedApart => "`retrack unlearn` can measure by them",
        }
    }
}
