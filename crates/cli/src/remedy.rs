//! What a message advises, in words that fit the command at whose terminal it is shown: the same trouble has another way
//! out in each, and none may name an option that the command lacks.

use std::path::Path;
use std::sync::OnceLock;

use crate::args::Command;

/// The commands that share code whose messages advise something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaker {
    Train,
    Unlearn,
    Experiment,
    Demo,
    Merge,
    Evaluate,
    Sample,
    /// None of the situations below is one of theirs.
    Other,
}

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
    /// The network has classes and none was named.
    NoClass,
    /// The network has classes and an image has no label.
    NoLabel,
    /// The model's own scheduler is not built here.
    ForeignScheduler,
    /// A retained image is nearly a copy of one that leaves.
    NearCopy,
    /// Images have transparent pixels, and nothing said what becomes of them.
    Transparent,
    /// More neighbors are asked for than images are retained.
    TooManyNeighbors,
    /// A trained weight is beyond f16, in which the folder's are written.
    BeyondHalf,
    /// A trained weight is beyond another type.
    BeyondItsType,
    /// A trained weight is beyond the type of files that keep theirs.
    BeyondFixedType,
}

static SPEAKER: OnceLock<Speaker> = OnceLock::new();

/// Says once, at the start, which command speaks.
pub fn speak_for(command: &Command) {
    let speaker = match command {
        Command::Train(_) => Speaker::Train,
        Command::Unlearn(_) => Speaker::Unlearn,
        Command::Experiment(_) => Speaker::Experiment,
        Command::Demo(_) => Speaker::Demo,
        Command::Merge(_) => Speaker::Merge,
        Command::Evaluate(_) => Speaker::Evaluate,
        Command::Sample(_) => Speaker::Sample,
        _ => Speaker::Other,
    };
    let _ = SPEAKER.set(speaker);
}

/// What to do, as the end of a sentence.
pub fn advice(situation: Situation) -> &'static str {
    situation.advice_of(SPEAKER.get().copied().unwrap_or(Speaker::Other))
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
    fn advice_of(self, speaker: Speaker) -> &'static str {
        use Speaker::{Demo, Evaluate, Experiment, Merge, Sample, Train, Unlearn};
        match (self, speaker) {
            (Self::Diverged, Train | Unlearn) => "start again with a lower --lr or fewer --steps",
            (Self::Diverged, Experiment) => {
                "start again in another folder, with a lower learning_rate or fewer steps in a TOML file that --config \
                 names"
            }
            (Self::Diverged, _) => "train with a lower learning rate or fewer steps",

            (Self::StepTooLarge, Train | Unlearn) => {
                "give a smaller --batch-size and a larger --accumulate, whose product decides the result"
            }
            (Self::StepTooLarge, Experiment) => {
                "give --config a TOML file with a smaller batch_size and a larger accumulate, whose product decides the \
                 result"
            }
            (Self::StepTooLarge, _) => "close other programs, or use a machine with more",

            (Self::SamplesTooLarge, Sample) => "give a smaller --count or --batch-size",
            (Self::SamplesTooLarge, Evaluate | Experiment) => "give a smaller --samples",
            (Self::SamplesTooLarge, Demo) => "give a smaller --count",
            (Self::SamplesTooLarge, _) => "use a machine with more",

            (Self::DiskFull, Train | Unlearn) => {
                "free some space, or copy the output folder to another disk and go on there with --resume"
            }
            (Self::DiskFull, Experiment) => {
                "free some space, or copy the output folder to another disk and start the same command with that --out"
            }
            (Self::DiskFull, _) => "free some space, or choose a folder on another disk",

            (Self::NotEmpty, Train | Unlearn | Demo | Merge) => {
                "choose another, or give --force to replace what retrack wrote there"
            }
            (Self::NotEmpty, _) => "choose another",

            (Self::HoldsInterrupted, Train | Unlearn) => {
                "give --resume to continue it or --force to replace it"
            }
            (Self::HoldsInterrupted, Merge) => {
                "give --force to replace it, or choose another output folder"
            }
            (Self::HoldsInterrupted, _) => "choose another",

            (Self::NothingToResume, Train | Unlearn) => "leave --resume out",
            (Self::NothingToResume, _) => "choose another",

            (Self::NoClass, Sample) => "say which with --class",
            (Self::NoClass, _) => "`retrack sample --class` draws them one class at a time",

            (Self::NoLabel, Evaluate) => {
                "say with --class which one all samples and attempts are of"
            }
            (Self::NoLabel, _) => {
                "give images with labels, such as a Parquet file with a `label` column"
            }

            (Self::ForeignScheduler, Sample | Evaluate) => "--scheduler chooses another",
            (Self::ForeignScheduler, Experiment) => {
                "`scheduler` under [experiment] in a TOML file that --config names chooses another"
            }
            (Self::ForeignScheduler, _) => "`retrack sample --scheduler` can choose another",

            (Self::NearCopy, Train) => "add it to --exclude if it is the same",
            (Self::NearCopy, Unlearn) => "add it to --forget if it is the same",
            (Self::NearCopy, Experiment) => {
                "if it is the same, list both in a file and give it as --forget @list.txt"
            }
            (Self::NearCopy, _) => "it should leave with it if it is the same",

            (Self::Transparent, Train) => {
                "to train on them over white or black, give --alpha white or --alpha black"
            }
            (Self::Transparent, Demo | Merge | Sample) => "the model may have seen them otherwise",
            (Self::Transparent, _) => {
                "if the model was trained on them over white or black, give --alpha white or --alpha black"
            }

            (Self::TooManyNeighbors, Experiment) => {
                "ask for fewer by a smaller `neighbors` in a TOML file that --config names"
            }
            (Self::TooManyNeighbors, _) => "ask for fewer",

            (Self::BeyondHalf | Self::BeyondItsType | Self::BeyondFixedType, Experiment) => {
                "start again in another folder, with a base model that is saved in f32 or with a lower learning_rate in a \
                 TOML file that --config names"
            }
            (Self::BeyondHalf, Unlearn) => {
                "the trained network is kept: give the same command with --resume and --dtype bf16 or --dtype f32"
            }
            (Self::BeyondItsType, Unlearn) => {
                "the trained network is kept: give the same command with --resume and --dtype f32"
            }
            (Self::BeyondFixedType, Unlearn) => {
                "save the base model as one .safetensors file and start again with --dtype f32, or with a lower --lr"
            }
            (Self::BeyondHalf | Self::BeyondItsType | Self::BeyondFixedType, _) => {
                "`retrack unlearn --dtype f32` can hold it"
            }
        }
    }
}

#[cfg(test)]
mod tests;
