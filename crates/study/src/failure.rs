//! What ends a command early: a message and an exit code.

use std::fmt::Display;
use std::io;

use crate::run::{RunError, RunFolder};
use crate::tensorboard::TensorboardError;
use retrack_checkpoint::durable;
use retrack_checkpoint::folder::FolderError;
use retrack_checkpoint::lock::LockError;
use retrack_checkpoint::written::{OutputError, WrittenError};
use retrack_data::neighbors::NeighborError;
use retrack_data::{DataError, Found, LabelError, SelectionError};
use retrack_eval::forgotten::ForgottenError;
use retrack_eval::pictures::PictureError;
use retrack_networks::config::ConfigError;
use retrack_networks::denoiser::InputError;
use retrack_networks::lora::LoraError;
use retrack_networks::model::ModelError;
use retrack_networks::schedule::ScheduleError;
use retrack_unlearn::checkpoint::CheckpointError;
use retrack_unlearn::objective::PassError;
use retrack_unlearn::trainer::TrainError;

use crate::field::Field;
use crate::situation::{self, Situation};

/// The command did not do what was asked.
#[derive(Debug)]
pub struct Failure {
    /// 1: it failed. 2: the input or the usage is wrong. 3: the image is still found, which it was to say. 130, 143: interrupted.
    pub code: u8,
    /// A sentence for people, with what to do.
    pub message: String,
    /// A training came to nothing by its own settings: one with others may not.
    pub diverged: bool,
}

impl Failure {
    /// Something went wrong on the way.
    pub fn failed(message: impl Display) -> Self {
        Self {
            code: 1,
            message: message.to_string(),
            diverged: false,
        }
    }

    /// The forgotten image is still found, and the exit code is to say so.
    pub fn found(message: impl Display) -> Self {
        Self {
            code: 3,
            message: message.to_string(),
            diverged: false,
        }
    }

    /// A training whose numbers left what can be computed or written.
    pub fn diverged(message: impl Display) -> Self {
        Self {
            diverged: true,
            ..Self::failed(message)
        }
    }

    /// Whether something failed, rather than was refused or interrupted.
    pub fn is_failed(&self) -> bool {
        self.code == 1
    }

    /// What was given cannot be used.
    pub fn input(message: impl Display) -> Self {
        Self {
            code: 2,
            message: message.to_string(),
            diverged: false,
        }
    }

    /// A data set that cannot be read; `split`: the field that names its split.
    pub fn of_data(error: DataError, split: Field) -> Self {
        let remedy = match &error {
            DataError::Splits {
                found, together, ..
            } => remedy_of_splits(found, *together, split),
            DataError::NoPrompt { .. } => format!("; give {}", Field::Prompt),
            DataError::MixedSizes { resized: false, .. } => {
                format!("; {}", situation::advice_on(Situation::Sizes, "N"))
            }
            DataError::MixedSizes { resized: true, .. } => {
                format!(
                    "; leave {} out, which keeps the middle of each",
                    Field::Crop
                )
            }
            _ => String::new(),
        };
        Self::input(format!("{error}{remedy}"))
    }

    /// A file that cannot be written.
    pub fn write(path: &std::path::Path, error: impl Display) -> Self {
        Self::failed(format!("{}: cannot write: {error}", path.display()))
    }

    /// As [`write`](Self::write), with what to do where the disk was full.
    pub fn writing(path: &std::path::Path, error: io::Error) -> Self {
        Self::failed(of_disk(
            &format!("{}: cannot write: {error}", path.display()),
            &error,
        ))
    }

    /// A file that cannot be read.
    pub fn read(path: &std::path::Path, error: impl Display) -> Self {
        Self::input(format!("{}: cannot read: {error}", path.display()))
    }
}

/// Which of these splits to give. `split`: the field.
fn remedy_of_splits(found: &[Found], together: bool, split: Field) -> String {
    let named: Vec<&Found> = found.iter().filter(|one| !one.name.is_empty()).collect();
    let meaning = |means: &str| named.iter().find(|one| one.means == Some(means));
    if split == Field::ControlsSplit {
        // Controls are what the model never saw.
        let unseen = meaning("test").or_else(|| meaning("validation"));
        return match (unseen, named.as_slice()) {
            (_, []) => format!("; leave {split} out"),
            (Some(one), _) => format!(
                "; give {split} with one that the model was not trained on, such as {split} {}",
                one.name
            ),
            (None, _) => format!("; give {split} with one that the model was not trained on"),
        };
    }
    // Beside a test split alone, what lies in no split is what was trained on.
    let unnamed = found.iter().any(|one| one.name.is_empty()) && !named.is_empty();
    let trained = meaning("train").or(named.first().filter(|_| !unnamed));
    match (trained, found) {
        (None, _) if unnamed => format!(
            "; give {split} with the one that the model was trained on, such as {split} \"\"{}",
            match together {
                true => format!(", or {split} all to read them as one"),
                false => String::new(),
            }
        ),
        (None, _) => format!("; leave {split} out"),
        (Some(one), [_]) => format!("; give {split} {}, or leave {split} out", one.name),
        (Some(one), _) => {
            let all = match together {
                true => format!(", or {split} all to read them as one"),
                false => String::new(),
            };
            format!(
                "; give {split} with the one that the model was trained on, such as {split} {}{all}",
                one.name
            )
        }
    }
}

/// Errors that speak of what the user gave.
macro_rules! input {
    ($($error:ty),*) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::input(error)
            }
        })*
    };
}

input!(ConfigError, InputError, PictureError, ScheduleError);

impl From<SelectionError> for Failure {
    fn from(error: SelectionError) -> Self {
        match error {
            SelectionError::Data(error) => error.into(),
            error => Self::input(error),
        }
    }
}

impl From<DataError> for Failure {
    fn from(error: DataError) -> Self {
        Self::of_data(error, Field::Split)
    }
}

impl From<NeighborError> for Failure {
    fn from(error: NeighborError) -> Self {
        match error {
            // Where nothing is retained, asking for fewer would not help.
            NeighborError::TooFew { retained: 1.., .. } => Self::input(format!(
                "{error}; {}",
                situation::advice(Situation::TooManyNeighbors)
            )),
            NeighborError::Data(error) => error.into(),
            error => Self::input(error),
        }
    }
}

impl From<LabelError> for Failure {
    fn from(error: LabelError) -> Self {
        match error {
            LabelError::Unknown { .. } => Self::input(error),
            LabelError::Missing { .. } | LabelError::NoLabels { .. } => Self::input(format!(
                "{error}; {}",
                situation::advice(Situation::NoLabel)
            )),
        }
    }
}

impl From<ForgottenError> for Failure {
    fn from(error: ForgottenError) -> Self {
        match error {
            ForgottenError::Data(error) => error.into(),
            ForgottenError::Search(error) => error.into(),
            ForgottenError::NoDistance => {
                Self::input(format!("{error}; give {}", Field::Threshold))
            }
            ForgottenError::NoOthers => Self::input(error),
        }
    }
}

impl From<FolderError> for Failure {
    fn from(error: FolderError) -> Self {
        match error {
            FolderError::FixedTypes { .. } => Self::input(format!(
                "{error}; {}",
                situation::advice(Situation::FixedTypes)
            )),
            error if error.is_environment() => Self::failed(error),
            error => Self::input(error),
        }
    }
}

impl From<ModelError> for Failure {
    fn from(error: ModelError) -> Self {
        match error {
            ModelError::Folder(error) => error.into(),
            error => Self::input(error),
        }
    }
}

impl From<LoraError> for Failure {
    fn from(error: LoraError) -> Self {
        match error {
            LoraError::Folder(error) => error.into(),
            error => Self::input(error),
        }
    }
}

impl From<PassError> for Failure {
    fn from(error: PassError) -> Self {
        match error {
            PassError::Input(error) => error.into(),
            PassError::Data(error) => error.into(),
        }
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        let error = match error {
            RunError::Written(error) => return error.into(),
            error => error,
        };
        let advised = |situation| Self::input(format!("{error}; {}", situation::advice(situation)));
        match &error {
            RunError::NotEmpty { .. } => advised(Situation::NotEmpty),
            RunError::Interrupted { .. } => advised(Situation::HoldsInterrupted),
            // It need not be resumed, and without --resume its folder would be refused.
            RunError::NothingToResume { path }
                if RunFolder::recorded(path).is_some_and(|(_, ended)| ended) =>
            {
                Self::input(format!(
                    "{}: the run there is finished; {}",
                    path.display(),
                    situation::advice(Situation::NothingLeft)
                ))
            }
            RunError::NothingToResume { .. } => advised(Situation::NothingToResume),
            RunError::Io { source, .. }
            | RunError::Tensorboard(TensorboardError::Io { source, .. }) => {
                Self::failed(of_disk(&error, source))
            }
            RunError::CameInTheWay { .. } | RunError::Tensorboard(_) => Self::failed(error),
            _ => Self::input(error),
        }
    }
}

/// An error of a run's files, with what to do where the disk was full.
fn of_disk(error: &dyn Display, source: &io::Error) -> String {
    match durable::is_full(source) {
        true => format!("{error}; {}", situation::advice(Situation::DiskFull)),
        false => error.to_string(),
    }
}

impl From<WrittenError> for Failure {
    fn from(error: WrittenError) -> Self {
        match &error {
            WrittenError::Io { source, .. } => Self::failed(of_disk(&error, source)),
            _ => Self::input(error),
        }
    }
}

impl From<OutputError> for Failure {
    fn from(error: OutputError) -> Self {
        match error {
            OutputError::Earlier { .. } => Self::input(format!(
                "{error}; choose another folder, or give {} to replace it",
                Field::Force
            )),
            OutputError::Written(error) => error.into(),
        }
    }
}

impl From<LockError> for Failure {
    fn from(error: LockError) -> Self {
        Self::input(error)
    }
}

impl From<CheckpointError> for Failure {
    fn from(error: CheckpointError) -> Self {
        match &error {
            CheckpointError::Io { source, .. } if durable::is_full(source) => {
                let before = "the checkpoint before it is as it was";
                Self::failed(of_disk(&format!("{error}; {before}"), source))
            }
            _ => Self::failed(error),
        }
    }
}

impl From<TrainError> for Failure {
    fn from(error: TrainError) -> Self {
        match error {
            TrainError::NotFinite { .. } => Self::diverged(format!(
                "{error}; {}",
                situation::advice(Situation::Diverged)
            )),
            error => Self::input(error),
        }
    }
}
