//! What a model still knows of forgotten images, and how good the rest is: the metrics of `evaluate` and `experiment`.
//!
//! This file says what is measured; `subject` is what was to be forgotten and to be kept, `examined` measures what a
//! model knows, `quality` how good its samples are, `prompted` what a text-to-image model draws.

mod examined;
mod prompted;
mod quality;
mod subject;

use std::cell::OnceCell;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::Device;
use retrack_checkpoint::folder::ModelFolder;
use retrack_data::{Dataset, ImageShape, OpenOptions};
use retrack_eval::clip_iqa::ClipIqa;
use retrack_eval::digits::SIDE;
use retrack_eval::frequency::others;
use retrack_eval::inception::{self, Inception};
use retrack_eval::nll;
use retrack_eval::score::Score;
use retrack_eval::sscd::Sscd;
use retrack_networks::model::Model;
use retrack_networks::schedule::{NoiseSchedule, SchedulerConfig, SchedulerKind};
use serde::{Deserialize, Serialize};

use self::examined::Examined;
pub use self::prompted::{GUIDANCE, Prompts};
pub use self::subject::Subject;
use crate::failure::Failure;
use crate::latent::Opened;
use crate::model::{self, Samples};
use crate::names::{Metric, SamplerName};
use crate::progress;

// What metrics need.
const SSCD_LACKS: &str = "give --sscd FILE: sscd_disc_mixup as ONNX, converted from the published \
    sscd_disc_mixup.torchscript.pt";
const CLIP_LACKS: &str = "give --clip DIR: a folder of CLIP as transformers saves it, such as \
    openai/clip-vit-base-patch16";
const INCEPTION_LACKS: &str = "give --inception FILE: pt_inception-2015-12-05-6726825d.pth, as torch-fidelity \
    downloads it";
const CONTROLS_LACK: &str =
    "give --controls SRC: images like the training images that the model never saw";
/// The option that names the split of the controls.
pub const CONTROLS_SPLIT: &str = "--controls-split";
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
    /// `None`: of each forgotten image, half the distance to its nearest retained image that is no copy.
    pub threshold: Option<f64>,
    pub inception: Option<PathBuf>,
    pub sscd: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip: Option<PathBuf>,
    pub controls: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub controls_split: Option<String>,
    /// Of text-to-image models.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guidance: Option<f64>,
    /// Of models with classes. `None`: those of the forgotten images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<i64>,
}

/// What images are judged by, as far as the metrics need it and it was given.
#[derive(Debug, Default)]
pub struct Judges {
    sscd: Option<Sscd>,
    clip: Option<ClipIqa>,
    /// With the file that it was read from.
    inception: Option<(Inception, PathBuf)>,
    controls: Option<Controls>,
}

/// Images like those of the data set, for comparison.
#[derive(Debug)]
pub struct Controls {
    data: Dataset,
    /// Rows of images that are not in the data set, which the model may have seen; where there are none, all.
    rows: Vec<usize>,
    /// How many images are.
    shared: usize,
}

impl Controls {
    /// # Errors
    /// An image that cannot be read.
    fn new(controls: Dataset, data: &Dataset) -> Result<Self, Failure> {
        let _comparing =
            progress::activity("looking for controls among the images of the data set");
        let known = data.digests(&(0..data.len()).collect::<Vec<_>>())?;
        let mut rows = Vec::new();
        for row in 0..controls.len() {
            if controls.digests(&[row])?.is_disjoint(&known) {
                rows.push(row);
            }
        }
        let shared = controls.len() - rows.len();
        if rows.is_empty() {
            rows = (0..controls.len()).collect();
        }
        Ok(Self {
            data: controls,
            rows,
            shared,
        })
    }

    /// All of them are images of the data set.
    fn are_known(&self) -> bool {
        self.shared == self.data.len()
    }

    /// What a reader of the score should know.
    fn note(&self) -> Option<String> {
        match self.shared {
            0 => None,
            _ if self.are_known() => Some(
                "the controls are images of the data set itself, which the model may have seen: membership then tells \
                 nothing; give images that it never saw, such as the test split"
                    .into(),
            ),
            shared => Some(format!(
                "{shared} of {} controls {} of the data set, which the model may have seen: membership leaves them out",
                self.data.len(),
                if shared == 1 { "is an image" } else { "are images" }
            )),
        }
    }
}

/// A metric without a number, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Missing {
    pub metric: Metric,
    pub reason: String,
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
    /// What was not tried: it needs a file or an option, or another kind of model or data.
    pub skipped: Vec<Missing>,
    /// What was tried and did not work.
    #[serde(default)]
    pub failed: Vec<Missing>,
    /// What a reader of the scores should know.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Membership compared with images that the model may have seen, because no others were given.
    #[serde(skip)]
    pub known_controls: bool,
    /// What was drawn: once, or for each prompt.
    #[serde(skip)]
    pub drawn: Vec<Drawn>,
}

impl Evaluation {
    fn add(&mut self, name: &str, value: f64, count: usize) {
        self.scores.push(Score::new(name, value, count));
    }

    /// Keeps what a metric found since there were `known` scores, or why it found nothing. Half a metric is none, and
    /// what is no number could not be written or read again.
    fn keep(&mut self, metric: Metric, measured: Result<(), Failure>, known: usize) {
        let found = &self.scores[known..];
        let reason = match measured {
            Err(failure) => failure.message,
            Ok(()) => match found.iter().find(|score| !score.value.is_finite()) {
                Some(score) => format!("{} came out as {}", score.name, score.value),
                None => return,
            },
        };
        self.scores.truncate(known);
        self.failed.push(Missing { metric, reason });
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

    /// Reads what the metrics need: before the first long computation, so that a wrong file costs none. What was not
    /// given is no error: its metrics are skipped.
    ///
    /// # Errors
    /// A file that holds something else, controls that are not like `data`.
    pub fn judges(&self, data: &Dataset, device: &Device) -> Result<Judges, Failure> {
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
        if needs(&[Metric::Membership])
            && let Some(path) = &self.controls
        {
            let options = OpenOptions {
                channels: Some(data.shape().channels),
                memory_budget: 4 * model::BUDGET as u64,
                split: self.controls_split.clone(),
                alpha: data.alpha(),
            };
            let controls = model::read_data(path, &options, CONTROLS_SPLIT)?;
            check_shape(controls.shape(), data, path)?;
            let controls = Controls::new(controls, data)?;
            if controls.are_known() {
                let note = controls.note().unwrap_or_default();
                progress::warn(format!("{}: {note}", path.display()));
            }
            judges.controls = Some(controls);
        }
        Ok(judges)
    }

    /// The metrics that cannot be tried on a model with this schedule, each with what it would need.
    pub fn lacks(&self, subject: &Subject, scheduler: &SchedulerConfig) -> Vec<Missing> {
        let lacks = self.metrics.iter().filter_map(|&metric| {
            let reason = subject.lacks(metric, scheduler)?;
            Some(Missing { metric, reason })
        });
        lacks.collect()
    }

    /// The metrics that lack nothing.
    ///
    /// # Errors
    /// All lack something; or none that is left looks for the image, where that is what is asked (`must_look`).
    pub fn tried(
        &self,
        subject: &Subject,
        scheduler: &SchedulerConfig,
        must_look: bool,
    ) -> Result<Vec<Metric>, Failure> {
        let lacks = self.lacks(subject, scheduler);
        let tried = self.without(&lacks);
        if tried.is_empty() {
            let said = sentences(&lacks, "was skipped");
            return Err(Failure::input(format!(
                "nothing can be measured: {}",
                said.join("; ")
            )));
        }
        if must_look && !tried.iter().any(|metric| metric.looks_for_the_image()) {
            return Err(Failure::input(
                "--fail-if-found needs a metric that looks for the image: frequency, injection or copies, of a \
                 text-to-image model cluster",
            ));
        }
        Ok(tried)
    }

    /// Whether samples are drawn, as the protocol says it, for any of these metrics: of prompts for all.
    pub fn draws(&self, metrics: &[Metric]) -> bool {
        self.guidance.is_some() || metrics.iter().any(|metric| metric.draws_samples())
    }

    fn without(&self, lacks: &[Missing]) -> Vec<Metric> {
        let lacking = |metric| lacks.iter().any(|lack| lack.metric == metric);
        let metrics = self.metrics.iter().copied();
        metrics.filter(|metric| !lacking(*metric)).collect()
    }

    /// The class of each forgotten image, of a network with classes: as typed, or its own.
    ///
    /// # Errors
    /// A class for a network without any, one that it does not have, an image without a class.
    pub fn classes(&self, opened: &Opened, subject: &Subject) -> Result<Option<Vec<i64>>, Failure> {
        match opened {
            Opened::Image(model) => self.classes_of(model, subject),
            Opened::Text(_) if self.class.is_none() => Ok(None),
            Opened::Text(model) => Err(no_classes(&model.model.folder)),
        }
    }

    fn classes_of(&self, model: &Model, subject: &Subject) -> Result<Option<Vec<i64>>, Failure> {
        let (config, path) = (&model.config, model.folder.root().display());
        let rows = &subject.forgotten.rows;
        match (config.num_class_embeds, self.class) {
            (None, None) => Ok(None),
            (None, Some(_)) => Err(no_classes(&model.folder)),
            (Some(classes), Some(class)) if !(0..classes as i64).contains(&class) => {
                Err(Failure::input(format!(
                    "{path}: --class {class} is not among the model's 0 to {}",
                    classes - 1
                )))
            }
            (Some(_), Some(class)) => Ok(Some(vec![class; rows.len()])),
            (Some(_), None) => {
                model::check_labels(subject.data, rows, config)?;
                let labels = rows.iter().filter_map(|&row| subject.data.label(row));
                Ok(Some(labels.collect()))
            }
        }
    }

    /// Measures the model in `path`. Models that are measured with the same seed draw the same noise.
    ///
    /// # Errors
    /// A model that cannot be read or does not fit the data. What a metric lacks is no error, it is skipped; one that
    /// does not work is none either, it is listed as failed.
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
        let classes = self.classes_of(&opened, subject)?;
        let network = opened.network(device)?;
        let skipped = self.lacks(subject, &opened.scheduler);
        let mut metrics = self.without(&skipped);
        let mut found = Evaluation {
            skipped,
            ..Evaluation::default()
        };
        let phases = phases(&metrics, None).len();
        let first = 1 + phases - metrics.len();
        let mut samples = Vec::new();
        if metrics.iter().any(|metric| metric.draws_samples()) {
            let _phase = progress::phase(1, phases);
            let drawing = Samples {
                count: self.samples,
                steps: self.sampling_steps,
                scheduler: self.scheduler.map(SchedulerKind::from),
                seed,
                batch_size: 64,
                classes: classes.as_deref().map_or_else(Vec::new, each_once),
            };
            match drawing.draw(&opened, &network, device, "sampling") {
                Ok((drawn, shape)) => {
                    check_shape(shape, subject.data, path)?;
                    samples = drawn;
                }
                // What rests on them, and only that, has failed with them.
                Err(failure) if failure.is_failed() => {
                    let (lost, left) = metrics.into_iter().partition(|one| one.draws_samples());
                    metrics = left;
                    let lost: Vec<Metric> = lost;
                    found.failed.extend(lost.into_iter().map(|metric| Missing {
                        metric,
                        reason: failure.message.clone(),
                    }));
                }
                Err(failure) => return Err(failure),
            }
        }
        let images: Vec<&[u8]> = subject.images().collect();
        let mut examined = Examined {
            protocol: self,
            subject,
            model: &opened,
            network: network.valid(),
            device,
            seed,
            classes,
            others: others(&samples, &images, &subject.thresholds),
            injected: OnceCell::new(),
            samples,
            found,
        };
        for (number, metric) in metrics.into_iter().enumerate() {
            let _phase = progress::phase(first + number, phases);
            let _activity = progress::activity(&metric.name());
            let known = examined.found.scores.len();
            let measured = examined.measure(metric);
            examined.found.keep(metric, measured, known);
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

impl Subject<'_> {
    /// What a metric would need to be tried; `None` where it can be.
    fn lacks(&self, metric: Metric, scheduler: &SchedulerConfig) -> Option<String> {
        let judges = self.judges;
        let needs = |given: bool, reason: &str| (!given).then(|| reason.to_string());
        if self.prompts.is_some() != metric.is_of_prompts() && metric != Metric::Sscd {
            let kind = match metric.is_of_prompts() {
                true => "for text-to-image models",
                false => "not for text-to-image models",
            };
            return Some(kind.into());
        }
        match metric {
            Metric::Frequency | Metric::Injection | Metric::Cluster => None,
            Metric::Sscd => needs(judges.sscd.is_some(), SSCD_LACKS),
            Metric::ClipIqa => needs(judges.clip.is_some(), CLIP_LACKS),
            Metric::Fid | Metric::Is => needs(judges.inception.is_some(), INCEPTION_LACKS),
            Metric::Membership => needs(judges.controls.is_some(), CONTROLS_LACK),
            Metric::Nll => nll::check(&NoiseSchedule::new(scheduler))
                .err()
                .map(|error| error.to_string()),
            Metric::Copies => self.too_few_for_copies(),
            Metric::Digits => {
                let shape = self.data.shape();
                let fits = [shape.height, shape.width, shape.channels] == [SIDE, SIDE, 1];
                needs(fits, &format!("made for {SIDE} x {SIDE} gray digits"))
            }
        }
    }
}

fn no_classes(folder: &ModelFolder) -> Failure {
    Failure::input(format!(
        "{}: this model has no classes; leave --class out",
        folder.root().display()
    ))
}

/// What a measurement goes through, in this order, by name.
pub fn phases(metrics: &[Metric], prompts: Option<&Prompts>) -> Vec<String> {
    let drawn = match prompts {
        Some(prompts) => prompted::drawn(prompts),
        None if metrics.iter().any(|metric| metric.draws_samples()) => vec!["sampling".into()],
        None => Vec::new(),
    };
    let measured = metrics.iter().map(|metric| metric.name());
    drawn.into_iter().chain(measured).collect()
}

/// Metrics without a number as sentences: "fid was skipped: give --inception FILE".
pub fn sentences(missing: &[Missing], what: &str) -> Vec<String> {
    let sentence =
        |Missing { metric, reason }: &Missing| format!("{} {what}: {reason}", metric.name());
    missing.iter().map(sentence).collect()
}

/// The classes among these, ascending.
pub fn each_once(classes: &[i64]) -> Vec<i64> {
    let mut classes = classes.to_vec();
    classes.sort_unstable();
    classes.dedup();
    classes
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

    /// Whether it is measured of text-to-image models; SSCD is of others too.
    fn is_of_prompts(self) -> bool {
        matches!(self, Self::Cluster | Self::Sscd | Self::ClipIqa)
    }

    /// Whether it finds the forgotten image or does not.
    pub fn looks_for_the_image(self) -> bool {
        matches!(
            self,
            Self::Frequency | Self::Injection | Self::Copies | Self::Cluster
        )
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_kept_with_its_reason_and_half_of_it_is_not_kept_as_a_score() {
        let mut found = Evaluation::default();
        found.add("repeats", 1.0, 4);
        found.keep(Metric::Frequency, Ok(()), 0);

        // Data that cannot be read, after a first number.
        found.add("copies", 0.5, 4);
        let unreadable = Failure::input("photos/03.png: cannot read");
        found.keep(Metric::Copies, Err(unreadable), 1);
        // What is no number could not be written.
        found.add("nll", f64::NAN, 4);
        found.keep(Metric::Nll, Ok(()), 1);

        assert_eq!(found.scores, [Score::new("repeats", 1.0, 4)]);
        assert_eq!(
            sentences(&found.failed, "failed"),
            [
                "copies failed: photos/03.png: cannot read",
                "nll failed: nll came out as NaN"
            ]
        );
    }
}
