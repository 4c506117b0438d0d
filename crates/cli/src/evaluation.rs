//! What a model still knows of forgotten images, and how good the rest is: the metrics of `evaluate` and `experiment`.
//!
//! This file says what is measured; `examined` measures what a model knows, `quality` how good its samples are,
//! `prompted` what a text-to-image model draws.

mod examined;
mod prompted;
mod quality;

use std::cell::OnceCell;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::Device;
use retrack_eval::clip_iqa::ClipIqa;
use retrack_eval::clusters::Clusters;
use retrack_eval::frechet::FeatureStatistics;
use retrack_eval::frequency::others;
use retrack_eval::inception::{self, Inception};
use retrack_eval::score::Score;
use retrack_eval::sscd::Sscd;
use retrack_networks::schedule::SchedulerKind;
use retrack_unlearn::data::{Dataset, ImageShape, Split};
use serde::{Deserialize, Serialize};

use self::examined::Examined;
pub use self::prompted::{GUIDANCE, Prompts};
use crate::args::{Metric, SamplerName};
use crate::failure::Failure;
use crate::model::{self, Samples};
use crate::progress;

/// What the similarity of copies needs.
const SSCD_LACKS: &str = "give --sscd FILE: sscd_disc_mixup as ONNX, converted from the published \
    sscd_disc_mixup.torchscript.pt";
/// Labels by 2-means on pixels agree with their means nearly always.
const AGREEMENT: f64 = 0.9;

/// What is measured, and how. Everything here decides the numbers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Protocol {
    pub metrics: Vec<Metric>,
    pub samples: usize,
    /// `None`: the model's own.
    pub scheduler: Option<SamplerName>,
    pub sampling_steps: usize,
    /// `None`: frequency and injection are skipped.
    pub threshold: Option<f64>,
    pub inception: Option<PathBuf>,
    pub sscd: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip: Option<PathBuf>,
    pub controls: Option<PathBuf>,
    /// Of text-to-image models.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guidance: Option<f64>,
}

/// The networks that judge images, as far as the metrics need them and their files are there.
#[derive(Debug, Default)]
pub struct Judges {
    sscd: Option<Sscd>,
    clip: Option<ClipIqa>,
    /// With the file that it was read from.
    inception: Option<(Inception, PathBuf)>,
}

/// What a model was to forget, and what it was to keep.
pub struct Subject<'a> {
    pub data: &'a Dataset,
    judges: &'a Judges,
    pub split: Split,
    /// What a text-to-image model is asked to draw.
    prompts: Option<&'a Prompts>,
    /// The forgotten images against all others, where there are prompts.
    pub clusters: Option<Clusters>,
    /// Each forgotten image once, one after another.
    forgotten: Vec<u8>,
    /// Of the retained images, by the digit classifier and by Inception: the same for every model.
    digits: OnceCell<FeatureStatistics>,
    features: OnceCell<FeatureStatistics>,
}

impl<'a> Subject<'a> {
    /// `prompts`: of a text-to-image model.
    ///
    /// # Errors
    /// A selection that means nothing, an image that cannot be read.
    pub fn new(
        data: &'a Dataset,
        forget: &str,
        prompts: Option<&'a Prompts>,
        judges: &'a Judges,
    ) -> Result<Self, Failure> {
        let split = Split::new(data, &model::select(forget, data)?, model::BUDGET)?;
        let len = data.shape().bytes();
        let mut forgotten: Vec<u8> = Vec::new();
        let mut image = vec![0; len];
        for &row in &split.forget {
            data.read(row, &mut image)?;
            if !forgotten.chunks_exact(len).any(|known| known == image) {
                forgotten.extend_from_slice(&image);
            }
        }
        Ok(Self {
            data,
            judges,
            prompts,
            clusters: match prompts {
                Some(_) => Some(clusters(data, &split)?),
                None => None,
            },
            split,
            forgotten,
            digits: OnceCell::new(),
            features: OnceCell::new(),
        })
    }

    fn images(&self) -> impl Iterator<Item = &[u8]> {
        self.forgotten.chunks_exact(self.data.shape().bytes())
    }

    fn read(&self, rows: &[usize]) -> Result<Vec<u8>, Failure> {
        let mut image = vec![0; self.data.shape().bytes()];
        let mut pixels = Vec::with_capacity(rows.len() * image.len());
        for &row in rows {
            self.data.read(row, &mut image)?;
            pixels.extend_from_slice(&image);
        }
        Ok(pixels)
    }
}

/// A metric that could not be computed, and what it lacks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Skipped {
    pub metric: Metric,
    pub reason: String,
}

/// The forgotten images and their copies against all others.
fn clusters(data: &Dataset, split: &Split) -> Result<Clusters, Failure> {
    let mut memorized = vec![false; data.len()];
    for &row in split.forget.iter().chain(&split.duplicates) {
        memorized[row] = true;
    }
    let clusters = Clusters::of(&memorized, data.shape().bytes(), |row, image| {
        data.read(row, image)
    })?;
    clusters.ok_or_else(|| {
        Failure::input("all images are to be forgotten; there is nothing to compare samples with")
    })
}

/// Samples of one model, drawn alike.
#[derive(Debug, Clone, Default)]
pub struct Drawn {
    /// Of a text-to-image model.
    pub prompt: Option<String>,
    /// Whether it is the prompt of the forgotten images.
    pub forgotten: bool,
    /// Bytes, one image after another.
    pub samples: Vec<u8>,
}

/// What was found about one model.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Evaluation {
    pub scores: Vec<Score>,
    pub skipped: Vec<Skipped>,
    /// What a reader of the scores should know.
    #[serde(default)]
    pub notes: Vec<String>,
    /// What was drawn: once, or for each prompt.
    #[serde(skip)]
    pub drawn: Vec<Drawn>,
}

impl Evaluation {
    fn add(&mut self, name: &str, value: f64, count: usize) {
        self.scores.push(Score::new(name, value, count));
    }
}

impl Protocol {
    /// # Errors
    /// Numbers that make no sense.
    pub fn check(&self) -> Result<(), Failure> {
        if self.metrics.is_empty() {
            return Err(Failure::input("--metrics names nothing to measure"));
        }
        once("--metrics", &self.metrics, |metric| metric.name())?;
        if self.samples == 0 || self.sampling_steps == 0 {
            return Err(Failure::input(
                "the numbers of samples and of sampling steps need to be at least 1",
            ));
        }
        if let Some(guidance) = self.guidance.filter(|guidance| !guidance.is_finite()) {
            return Err(Failure::input(format!(
                "--guidance is {guidance}; give a number"
            )));
        }
        match self.threshold {
            Some(threshold) if !(threshold > 0.0 && threshold.is_finite()) => Err(Failure::input(
                format!("--threshold is {threshold}; give a number above 0"),
            )),
            _ => Ok(()),
        }
    }

    /// Reads the networks that the metrics need: before the first long computation, so that a wrong file costs none. A
    /// file that is not there is no error: its metrics are skipped.
    ///
    /// # Errors
    /// A file that holds something else.
    pub fn judges(&self, device: &Device) -> Result<Judges, Failure> {
        let needs = |metrics: &[Metric]| self.metrics.iter().any(|metric| metrics.contains(metric));
        let mut judges = Judges::default();
        if needs(&[Metric::Sscd])
            && let Some(path) = &self.sscd
        {
            judges.sscd = Some(Sscd::open(path).map_err(Failure::input)?);
        }
        if needs(&[Metric::ClipIqa])
            && let Some(path) = &self.clip
        {
            let device = device.clone().without_autodiff();
            judges.clip = Some(ClipIqa::open(path, &device).map_err(Failure::input)?);
        }
        if needs(&[Metric::Fid, Metric::Is])
            && let Some(path) = self.inception.clone().or_else(inception::find)
        {
            let opened = Inception::open(&path, device).map_err(Failure::input)?;
            judges.inception = Some((opened, path));
        }
        Ok(judges)
    }

    /// What a measurement goes through, in this order, by name.
    pub fn phases(&self, prompts: Option<&Prompts>) -> Vec<String> {
        let drawn = match prompts {
            Some(prompts) => prompted::drawn(self, prompts),
            None if self.draws_samples() => vec!["sampling".into()],
            None => Vec::new(),
        };
        let measured = self.metrics.iter().map(|metric| metric.name());
        drawn.into_iter().chain(measured).collect()
    }

    fn draws_samples(&self) -> bool {
        self.metrics.iter().any(|metric| metric.draws_samples())
    }

    /// Measures the model in `path`. Models that are measured with the same seed draw the same noise.
    ///
    /// # Errors
    /// A model that cannot be read or does not fit the data. What a metric lacks is no error: it is skipped.
    pub fn evaluate(
        &self,
        path: &Path,
        subject: &Subject,
        seed: u64,
        device: &Device,
    ) -> Result<Evaluation, Failure> {
        if let Some(prompts) = subject.prompts {
            return prompted::evaluate(self, prompts, path, subject, seed, device);
        }
        let opened = model::open(path)?;
        let network = opened.network(device)?;
        let phases = self.phases(None).len();
        let first = 1 + phases - self.metrics.len();
        let samples = if self.draws_samples() {
            let _phase = progress::phase(1, phases);
            let samples = Samples {
                count: self.samples,
                steps: self.sampling_steps,
                scheduler: self.scheduler.map(SchedulerKind::from),
                seed,
                batch_size: 64,
                class: None,
            };
            let (samples, shape) = samples.draw(&opened, &network, device, "sampling")?;
            check_shape(shape, subject.data, path)?;
            samples
        } else {
            Vec::new()
        };
        let others = match self.threshold {
            Some(threshold) => {
                let images: Vec<&[u8]> = subject.images().collect();
                others(&samples, &images, subject.data.shape().bytes(), threshold)
            }
            None => samples.clone(),
        };
        let mut examined = Examined {
            protocol: self,
            subject,
            model: &opened,
            network: network.valid(),
            device,
            seed,
            others,
            injected: OnceCell::new(),
            samples,
            found: Evaluation::default(),
        };
        for (number, &metric) in self.metrics.iter().enumerate() {
            let _phase = progress::phase(first + number, phases);
            let _activity = progress::activity(&metric.name());
            if let Err(reason) = examined.measure(metric)? {
                examined.found.skipped.push(Skipped { metric, reason });
            }
        }
        let Examined {
            mut found, samples, ..
        } = examined;
        found.drawn.push(Drawn {
            samples,
            ..Drawn::default()
        });
        Ok(found)
    }
}

/// Refuses a list that holds something twice: its runs or numbers would count double.
///
/// # Errors
/// The first that is listed again.
pub fn once<T: PartialEq>(
    option: &str,
    list: &[T],
    name: impl Fn(&T) -> String,
) -> Result<(), Failure> {
    for (place, one) in list.iter().enumerate() {
        if list[..place].contains(one) {
            return Err(Failure::input(format!(
                "{option}: {} is listed twice; list it once",
                name(one)
            )));
        }
    }
    Ok(())
}

fn check_shape(shape: ImageShape, data: &Dataset, path: &Path) -> Result<(), Failure> {
    if shape == data.shape() {
        return Ok(());
    }
    Err(Failure::input(format!(
        "{}: its images are {} x {} x {}, the data's {} x {} x {}",
        path.display(),
        shape.height,
        shape.width,
        shape.channels,
        data.shape().height,
        data.shape().width,
        data.shape().channels
    )))
}

impl Metric {
    /// As the command line spells it.
    pub fn name(self) -> String {
        let name = serde_json::to_value(self).expect("a name");
        name.as_str().unwrap_or_default().to_string()
    }

    /// Whether it can be measured of a text-to-image model.
    fn is_of_prompts(self) -> bool {
        matches!(self, Self::Cluster | Self::Sscd | Self::ClipIqa)
    }

    fn draws_samples(self) -> bool {
        !matches!(
            self,
            Self::Injection
                | Self::Sscd
                | Self::Nll
                | Self::Membership
                | Self::Cluster
                | Self::ClipIqa
        )
    }
}

impl From<SamplerName> for SchedulerKind {
    fn from(name: SamplerName) -> Self {
        match name {
            SamplerName::Ddpm => Self::Ddpm,
            SamplerName::Ddim => Self::Ddim,
            SamplerName::Pndm => Self::Pndm,
        }
    }
}
