//! What can be said of a study, as messages name it.

use std::fmt;

use crate::progress;

macro_rules! fields {
    ($($variant:ident $name:literal),* $(,)?) => {
        /// A field of what a study is asked to do. It is shown as the front end at hand calls it, such as `--forget`, and
        /// without one by its name.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Field {
            $(#[doc = concat!("`", $name, "`")] $variant,)*
            /// A strength of a method, by its name.
            Strength(&'static str),
        }

        impl Field {
            /// All but the strengths.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// As in Rust.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                    Self::Strength(name) => name,
                }
            }
        }
    };
}

fields! {
    Accumulate "accumulate",
    Adapter "adapter",
    Alpha "alpha",
    Baseline "baseline",
    BatchSize "batch_size",
    Bytes "bytes",
    Captions "captions",
    CheckpointEvery "checkpoint_every",
    Class "class",
    Config "config",
    Controls "controls",
    ControlsCaptions "controls_captions",
    ControlsSplit "controls_split",
    Count "count",
    Crop "crop",
    Data "data",
    Device "device",
    Dtype "dtype",
    Force "force",
    Forget "forget",
    ForgetPrompt "forget_prompt",
    Guidance "guidance",
    Interpolation "interpolation",
    KeepSealed "keep_sealed",
    Key "key",
    LearningRate "learning_rate",
    LoraFormat "lora_format",
    Methods "methods",
    Metrics "metrics",
    Model "model",
    ModifiedPrompt "modified_prompt",
    MustLook "must_look",
    Neighbors "neighbors",
    OptimizerState "optimizer_state",
    Preset "preset",
    Prompt "prompt",
    Queries "queries",
    Rank "rank",
    RelearnSteps "relearn_steps",
    Repeat "repeat",
    Resize "resize",
    Resume "resume",
    RetainPrompt "retain_prompt",
    Rows "rows",
    Seeds "seeds",
    Sealed "sealed",
    ShowForgotten "show_forgotten",
    Split "split",
    Steps "steps",
    Threshold "threshold",
    Train "train",
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match progress::front() {
            Some(front) => f.write_str(&front.field(*self)),
            None => write!(f, "`{}`", self.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_front_end_a_field_is_called_as_in_rust() {
        assert_eq!(Field::MustLook.to_string(), "`must_look`");
        assert_eq!(Field::Strength("lambda").to_string(), "`lambda`");
    }
}
