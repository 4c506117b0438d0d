//! What images are judged by: opened once, for the metrics that need it.

use std::path::{Path, PathBuf};

use burn::tensor::Device;

use crate::clip_iqa::{ClipIqa, ClipIqaError};
use crate::controls::Controls;
use crate::inception::{self, Inception, InceptionError};
use crate::metric::{Metric, MetricError, Need};
use crate::sscd::{Sscd, SscdError};

/// What images are judged by, as far as the metrics need it and it was given.
#[derive(Debug, Default)]
pub struct Judges {
    sscd: Option<Sscd>,
    clip: Option<ClipIqa>,
    /// With the file that it was read from.
    inception: Option<(Inception, PathBuf)>,
    /// Images that forgotten ones are compared with.
    pub controls: Option<Controls>,
    /// Where statistics of many images are kept for the next run.
    pub cache: Option<PathBuf>,
}

/// A file that is no judge.
#[derive(Debug, thiserror::Error)]
pub enum JudgeError {
    /// The copy detector's.
    #[error(transparent)]
    Sscd(#[from] SscdError),
    /// CLIP's folder.
    #[error(transparent)]
    Clip(#[from] ClipIqaError),
    /// Inception's.
    #[error(transparent)]
    Inception(#[from] InceptionError),
}

/// Whether any of the metrics needs this.
pub fn needed(metrics: &[&'static dyn Metric], need: Need) -> bool {
    metrics.iter().any(|metric| metric.needs(need))
}

impl Judges {
    /// Reads what of these files the metrics need. Inception is looked for in PyTorch's cache where it is not given.
    ///
    /// # Errors
    /// A file that holds something else.
    pub fn open(
        metrics: &[&'static dyn Metric],
        sscd: Option<&Path>,
        clip: Option<&Path>,
        inception: Option<&Path>,
        device: &Device,
    ) -> Result<Self, JudgeError> {
        let mut judges = Self::default();
        if needed(metrics, Need::Sscd)
            && let Some(path) = sscd
        {
            judges.sscd = Some(Sscd::open(path)?);
        }
        if needed(metrics, Need::Clip)
            && let Some(path) = clip
        {
            let device = device.clone().without_autodiff();
            judges.clip = Some(ClipIqa::open(path, &device)?);
        }
        if needed(metrics, Need::Inception)
            && let Some(path) = inception.map(Path::to_owned).or_else(inception::find)
        {
            judges.inception = Some((Inception::open(&path, device)?, path));
        }
        Ok(judges)
    }

    /// Whether this is there. Samples are drawn, images encoded and distances found where they are needed.
    pub fn has(&self, need: Need) -> bool {
        match need {
            Need::Samples | Need::Denoised | Need::Threshold => true,
            Need::Sscd => self.sscd.is_some(),
            Need::Clip => self.clip.is_some(),
            Need::Inception => self.inception.is_some(),
            Need::Controls => self.controls.is_some(),
        }
    }

    /// The copy detector.
    ///
    /// # Errors
    /// It was not read.
    pub fn sscd(&self) -> Result<&Sscd, MetricError> {
        self.sscd.as_ref().ok_or("SSCD was not read".into())
    }

    /// CLIP.
    ///
    /// # Errors
    /// It was not read.
    pub fn clip(&self) -> Result<&ClipIqa, MetricError> {
        self.clip.as_ref().ok_or("CLIP was not read".into())
    }

    /// Inception, with the file that it was read from.
    ///
    /// # Errors
    /// It was not read.
    pub fn inception(&self) -> Result<&(Inception, PathBuf), MetricError> {
        self.inception
            .as_ref()
            .ok_or("Inception was not read".into())
    }

    /// Images that forgotten ones are compared with.
    ///
    /// # Errors
    /// They were not read.
    pub fn controls(&self) -> Result<&Controls, MetricError> {
        self.controls
            .as_ref()
            .ok_or("the controls were not read".into())
    }
    /// Whether the model may have seen all controls.
    pub fn knows_controls(&self) -> bool {
        self.controls.as_ref().is_some_and(Controls::are_known)
    }
}
