//! What is said of how to measure, before preset and model have said the rest.

use std::path::{Path, PathBuf};

use retrack_eval::metric::Metric;

use crate::evaluation::Protocol;

/// How models are to be measured. `None`: as the preset or the model says.
#[derive(Debug, Clone, Default)]
pub struct Measuring {
    /// What is measured.
    pub metrics: Option<Vec<&'static dyn Metric>>,
    /// Samples of each model, of each prompt.
    pub samples: Option<usize>,
    /// A picture nearer to a forgotten image than this counts as it: Euclidean, pixels in [0, 1].
    pub threshold: Option<f64>,
    /// Inception's weights, a file of PyTorch.
    pub inception: Option<PathBuf>,
    /// SSCD's network as ONNX.
    pub sscd: Option<PathBuf>,
    /// A folder of CLIP.
    pub clip: Option<PathBuf>,
    /// Images like those of the training that the model never saw.
    pub controls: Option<PathBuf>,
    /// Which split of the controls, where they have several.
    pub controls_split: Option<String>,
    /// Class of all samples and attempts, of a model with classes.
    pub class: Option<i64>,
    /// Steps for which copies of a model are trained to see whether an image comes back, at most.
    pub relearn_steps: Option<usize>,
}

impl Measuring {
    /// The files and folders that it reads, with what each is.
    pub fn inputs(&self) -> [(&'static str, Option<&Path>); 4] {
        [
            ("Inception", self.inception.as_deref()),
            ("SSCD", self.sscd.as_deref()),
            ("CLIP", self.clip.as_deref()),
            ("controls", self.controls.as_deref()),
        ]
    }

    /// This over a preset's protocol.
    pub fn over(&self, preset: Protocol) -> Protocol {
        Protocol {
            metrics: self.metrics.clone().unwrap_or(preset.metrics),
            samples: self.samples.unwrap_or(preset.samples),
            threshold: self.threshold.or(preset.threshold),
            inception: self.inception.clone(),
            sscd: self.sscd.clone(),
            clip: self.clip.clone(),
            controls: self.controls.clone(),
            controls_split: self.controls_split.clone(),
            class: self.class,
            relearn_steps: self.relearn_steps,
            ..preset
        }
    }
}
