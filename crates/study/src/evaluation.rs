//! What a model still knows of forgotten images, and how good the rest is: how `evaluate` and `experiment` measure.
//!
//! The metrics are [`retrack_eval::metrics`]. This file says what is measured of a model, opens it and draws from it;
//! `prompted` draws from a text-to-image model, `latents` encodes what such a
//! one is measured by without drawing, and `standings` compares with look-alikes.

mod further;
mod latents;
mod prompted;
mod standings;

use std::fmt::Display;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::Device;
use retrack_checkpoint::folder::Class;
use retrack_checkpoint::words::counted;
use retrack_data::{Dataset, ImageShape, LabelError};
use retrack_eval::denoised::{self, Denoised};
use retrack_eval::examined::{Drawn, Examined, Pixels, each_once};
use retrack_eval::judges::{Judges, needed};
use retrack_eval::metric::{Lack, Metric, MetricError, Models, Need};
use retrack_eval::metrics::METRICS;
use retrack_eval::relearn::{self, Relearned};
use retrack_eval::score::Score;
use retrack_eval::subject::Subject;
use retrack_eval::watch::{Task, Watch};
use retrack_networks::diffusion::{Condition, Diffusion};
use retrack_networks::model::check_class;
use retrack_networks::network::Network;
use retrack_networks::schedule::{SchedulerConfig, SchedulerKind};
use retrack_unlearn::images::Images;
use serde::{Deserialize, Serialize};

use self::further::Copies;
use self::latents::Encoded;
pub use self::prompted::{GUIDANCE, Prompts};
use self::standings::{pictures, standings};
use crate::calibration::{Context, LookAlikes, Standing, Viewer};
use crate::chain::Recorded;
use crate::failure::Failure;
use crate::field::Field;
use crate::model;
use crate::names::SamplerName;
use crate::opened::{self, Opened};
use crate::samples::{Of, Samples};
use crate::situation::{self, Situation};
use crate::{controls, machine, progress};

/// What is measured, and how. Everything here decides the numbers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Protocol {
    /// What is measured.
    pub metrics: Vec<&'static dyn Metric>,
    /// Samples of each model, or of each prompt.
    pub samples: usize,
    /// `None`: the model's own.
    pub scheduler: Option<SamplerName>,
    /// Denoising steps of a sample.
    pub sampling_steps: usize,
    /// `None`: of each forgotten image, half the distance to its nearest retained image that is no copy.
    pub threshold: Option<f64>,
    /// Inception's weights, a file of PyTorch.
    pub inception: Option<PathBuf>,
    /// SSCD's network as ONNX.
    pub sscd: Option<PathBuf>,
    /// A folder of CLIP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip: Option<PathBuf>,
    /// Images like those of the training that the model never saw.
    pub controls: Option<PathBuf>,
    /// Which split of the controls, where they have several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub controls_split: Option<String>,
    /// Of text-to-image models.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guidance: Option<f64>,
    /// Of models with classes. `None`: those of the forgotten images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<i64>,
    /// Steps for which copies of a model are trained to see whether an image comes back, at most. `None`:
    /// [`relearn::STEPS`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relearn_steps: Option<usize>,
}

/// A metric without a number, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Missing {
    /// The metric.
    pub metric: &'static dyn Metric,
    /// Why it has no number.
    pub reason: String,
}

/// What was found about one model.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Evaluation {
    /// What the metrics found.
    pub scores: Vec<Score>,
    /// What was not tried: it needs a file or an option, or another kind of model or data.
    pub skipped: Vec<Missing>,
    /// What was tried and did not work.
    #[serde(default)]
    pub failed: Vec<Missing>,
    /// What a reader of the scores should know.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Where each forgotten image stands among its look-alikes, which no model saw.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub standings: Vec<Standing>,
    /// When forgotten images come back in further training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relearned: Option<Relearned>,
    /// Membership compared with images that the model may have seen, because no others were given.
    #[serde(skip)]
    pub known_controls: bool,
    /// What was drawn: once, or for each prompt.
    #[serde(skip)]
    pub drawn: Vec<Drawn>,
}

impl Evaluation {
    /// Keeps what a metric found, or why it found nothing.
    fn keep(&mut self, metric: &'static dyn Metric, measured: Result<Vec<Score>, MetricError>) {
        match measured {
            Ok(scores) => self.scores.extend(scores),
            Err(error) => {
                let reason = match error.downcast::<LabelError>() {
                    Ok(error) => Failure::from(*error).message,
                    Err(error) => error.to_string(),
                };
                self.failed.push(Missing { metric, reason });
            }
        }
    }

    /// What was to be drawn was not, so these metrics have nothing to rest on.
    fn lose(&mut self, metrics: Vec<&'static dyn Metric>, reason: &str) {
        self.failed
            .extend(metrics.into_iter().map(|metric| Missing {
                metric,
                reason: reason.into(),
            }));
    }
}

impl Protocol {
    /// So many samples in so many steps of the model's own sampler, with a threshold that the data gives, and without any
    /// of the files that some metrics need.
    pub fn new(metrics: Vec<&'static dyn Metric>, samples: usize, sampling_steps: usize) -> Self {
        Self {
            metrics,
            samples,
            scheduler: None,
            sampling_steps,
            threshold: None,
            inception: None,
            sscd: None,
            clip: None,
            controls: None,
            controls_split: None,
            guidance: None,
            class: None,
            relearn_steps: None,
        }
    }

    /// # Errors
    /// Numbers that make no sense.
    pub fn check(&self) -> Result<(), Failure> {
        if self.metrics.is_empty() {
            return Err(Failure::input(format!(
                "{} names nothing to measure",
                Field::Metrics
            )));
        }
        once(Field::Metrics, &self.metrics, |metric| metric.name().into())?;
        if self.samples == 0 || self.sampling_steps == 0 {
            return Err(Failure::input(
                "the numbers of samples and of sampling steps need to be at least 1",
            ));
        }
        match self.relearn_steps {
            Some(0) => {
                return Err(Failure::input(format!(
                    "{} is 0; give at least 1",
                    Field::RelearnSteps
                )));
            }
            Some(_)
                if !self
                    .metrics
                    .iter()
                    .any(|metric| metric.name() == relearn::NAME) =>
            {
                return Err(Failure::input(format!(
                    "{} is for the metric `{}`, which is not among {}; add it there, or leave {0} out",
                    Field::RelearnSteps,
                    relearn::NAME,
                    Field::Metrics
                )));
            }
            _ => {}
        }
        if let Some(guidance) = self.guidance.filter(|guidance| !guidance.is_finite()) {
            return Err(Failure::input(format!(
                "{} is {guidance}; give a number",
                Field::Guidance
            )));
        }
        match self.threshold {
            Some(threshold) if !(threshold > 0.0 && threshold.is_finite()) => Err(Failure::input(
                format!("{} is {threshold}; give a number above 0", Field::Threshold),
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
        let mut judges = Judges::open(
            &self.metrics,
            self.sscd.as_deref(),
            self.clip.as_deref(),
            self.inception.as_deref(),
            device,
        )
        .map_err(Failure::input)?;
        judges.cache = machine::cache_folder();
        if self
            .metrics
            .iter()
            .any(|metric| metric.uses(Need::Controls))
            && let Some(path) = &self.controls
        {
            let controls = controls::open(path, self.controls_split.clone(), data)?;
            if controls.are_known() {
                let note = controls.note().unwrap_or_default();
                progress::warn(format!("{}: {note}", path.display()));
            }
            judges.controls = Some(controls);
        }
        Ok(judges)
    }

    /// What was to be forgotten by a model, of text where there are prompts, and what was to be kept: not what the requests of
    /// `recorded` forgot.
    ///
    /// # Errors
    /// A selection that means nothing, an image that cannot be read, no images that would give a threshold.
    pub fn subject<'a>(
        &self,
        data: &'a Dataset,
        forget: &[String],
        prompts: Option<&Prompts>,
        judges: &'a Judges,
        recorded: Option<&Recorded>,
    ) -> Result<Subject<'a>, Failure> {
        let rows = model::select(forget, data)?;
        let apart = match recorded {
            Some(recorded) => recorded.apart(data, &rows)?,
            None => Vec::new(),
        };
        let text = prompts.is_some();
        let subject = Subject::new(data, &rows, &apart, text, judges, self.threshold)?;
        if let earlier @ 1.. = subject.split.earlier.len() {
            progress::note(format!(
                "{} of images that the model's other requests forgot: kept out of what is retained",
                counted(earlier, "row")
            ));
        }
        Ok(subject.of_class(self.class))
    }

    /// The metrics that cannot be tried on a model with this schedule, each with what it would need.
    pub fn lacks(&self, subject: &Subject, scheduler: &SchedulerConfig) -> Vec<Missing> {
        let lacks = self.metrics.iter().filter_map(|&metric| {
            let lack = metric.lack(subject, scheduler)?;
            let reason = reason(&lack);
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
    ) -> Result<Vec<&'static dyn Metric>, Failure> {
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
            return Err(Failure::input(format!(
                "{} needs a metric that looks for the image: {}",
                Field::MustLook,
                looking()
            )));
        }
        Ok(tried)
    }

    /// Whether samples are drawn, as the protocol says it, for any of these metrics.
    pub fn draws(&self, metrics: &[&'static dyn Metric]) -> bool {
        draws(metrics, self.guidance.is_some())
    }

    fn without(&self, lacks: &[Missing]) -> Vec<&'static dyn Metric> {
        let lacking = |metric: &'static dyn Metric| lacks.iter().any(|lack| lack.metric == metric);
        let metrics = self.metrics.iter().copied();
        metrics.filter(|metric| !lacking(*metric)).collect()
    }

    /// The class of each forgotten image, of a network with classes: as typed, or its own.
    ///
    /// # Errors
    /// A class for a network without any, one that it does not have, an image without a class.
    pub fn classes(&self, opened: &Opened, subject: &Subject) -> Result<Option<Vec<i64>>, Failure> {
        let path = opened.folder().root().display();
        let rows = &subject.forgotten.rows;
        match (opened.condition().classes(), self.class) {
            (None, None) => Ok(None),
            (None, Some(_)) => Err(Failure::input(format!(
                "{path}: this model has no classes; leave {} out",
                Field::Class
            ))),
            (Some(classes), Some(class)) if !(0..classes as i64).contains(&class) => {
                Err(Failure::input(format!(
                    "{path}: {} {class} is not among the model's 0 to {}",
                    Field::Class,
                    classes - 1
                )))
            }
            (Some(_), Some(class)) => Ok(Some(vec![class; rows.len()])),
            (Some(_), None) => {
                model::check_labels(subject.data, rows, &opened.denoiser().config)?;
                let labels = rows.iter().filter_map(|&row| subject.data.label(row));
                Ok(Some(labels.collect()))
            }
        }
    }

    /// Measures the model in `path`, a text-to-image model where there are prompts, and looks where the forgotten images stand,
    /// unless no metric looks for them. Models that are measured with the same seed draw the same noise.
    ///
    /// # Errors
    /// A model that cannot be read or does not fit the data. What a metric lacks is no error, it is skipped; one that
    /// does not work is none either, it is listed as failed.
    pub fn evaluate(
        &self,
        path: &Path,
        subject: &Subject,
        prompts: Option<&Prompts>,
        seed: u64,
        device: &Device,
    ) -> Result<Evaluation, Failure> {
        self.examine(path, subject, prompts, true, seed, device)
    }

    /// The same by the metrics alone.
    ///
    /// # Errors
    /// As [`evaluate`](Self::evaluate).
    pub fn scores(
        &self,
        path: &Path,
        subject: &Subject,
        prompts: Option<&Prompts>,
        seed: u64,
        device: &Device,
    ) -> Result<Evaluation, Failure> {
        self.examine(path, subject, prompts, false, seed, device)
    }

    fn examine(
        &self,
        path: &Path,
        subject: &Subject,
        prompts: Option<&Prompts>,
        stands: bool,
        seed: u64,
        device: &Device,
    ) -> Result<Evaluation, Failure> {
        let opened = opened::open(path)?;
        match (prompts, opened.condition()) {
            (Some(_), Condition::Text) => {}
            (Some(_), _) => {
                return Err(Failure::input(format!(
                    "{}: not a text-to-image model, as {} is",
                    path.display(),
                    Field::Model
                )));
            }
            (None, _) => check_class(opened.folder(), Class::Unconditional)?,
        }
        let classes = self.classes(&opened, subject)?;
        let skipped = self.lacks(subject, opened.scheduler());
        let metrics = self.without(&skipped);
        let looks = stands && metrics.iter().any(|metric| metric.looks_for_the_image());
        let pictures = pictures(subject, looks, seed)?;
        // Text encoder, autoencoder and denoiser are in memory one after another.
        let encoded = match prompts {
            Some(prompts) if looks || needed(&metrics, Need::Denoised) => {
                let pictures = pictures.clone();
                let opened = &*opened;
                let encoded =
                    Encoded::new(opened, subject, prompts, pictures, &metrics, seed, device);
                Some(encoded?)
            }
            _ => None,
        };
        let network = opened.network(device)?;
        let drawing = Drawing {
            protocol: self,
            path,
            data: subject.data,
            phases: phases(&metrics, prompts).len(),
            seed,
            device,
        };
        let drawn = match prompts {
            _ if !draws(&metrics, prompts.is_some()) => Ok(Vec::new()),
            Some(prompts) => drawing.prompts(prompts, &*opened, &network),
            None => drawing.pixels(&*opened, &network, classes.as_deref()),
        };
        let mut valid = network.valid();
        if let Some(encoded) = &encoded {
            valid.tell(encoded.texts.clone());
        }
        let images: Option<Box<dyn denoised::Images>> = match (&encoded, prompts) {
            (Some(encoded), _) => Some(Box::new(encoded.images()?)),
            (None, Some(_)) => None,
            (None, None) => Some(Box::new(denoised::Pixels {
                subject,
                known: opened.denoiser().config.num_class_embeds,
                classes: classes.clone(),
            })),
        };
        let denoised = images.map(|images| Denoised {
            model: opened.denoiser(),
            network: valid,
            images,
        });
        let standings = match &denoised {
            Some(denoised) if looks => {
                let recorded = Recorded::of(path).ok().flatten();
                let of_pixels;
                let (images, look_alikes): (&dyn Images, &LookAlikes) = match &encoded {
                    Some(encoded) => (&encoded.latents, &encoded.look_alikes),
                    None => {
                        of_pixels = pictures.as_pixels()?;
                        (subject.data, &of_pixels)
                    }
                };
                let context = Context {
                    process: opened.scheduler().process(),
                    device: device.clone().without_autodiff(),
                    batch_size: denoised.together(),
                    seed,
                };
                let labels = opened.condition() != Condition::Nothing;
                let viewer = Viewer::new(look_alikes, images, labels, &[], context);
                let viewer = viewer.of_class(self.class);
                standings(&viewer, &*denoised.network, subject.data, recorded.as_ref())?
            }
            _ => Vec::new(),
        };
        let further = Copies {
            model: opened.denoiser(),
            data: subject.data,
            retained: &subject.forgotten.others,
            seed,
            device,
        };
        let pixels = prompts.is_none().then_some(Pixels {
            classes,
            further: &further,
        });
        let mut examined = Examined::new(subject, denoised, pixels, device, seed, &Listener);
        examined.relearn_steps = self.relearn_steps.unwrap_or(relearn::STEPS);
        let found = Evaluation {
            skipped,
            standings,
            notes: encoded.map_or_else(Vec::new, |encoded| encoded.notes),
            ..Evaluation::default()
        };
        measure(examined, drawn, metrics, drawing.phases, found)
    }
}

/// What drawing from a model takes.
struct Drawing<'a> {
    protocol: &'a Protocol,
    /// Of the model.
    path: &'a Path,
    data: &'a Dataset,
    /// Of the whole measurement.
    phases: usize,
    seed: u64,
    device: &'a Device,
}

impl Drawing<'_> {
    /// Draws from a model that denoises pixels, in the first of the phases.
    fn pixels(
        &self,
        opened: &dyn Diffusion,
        network: &Network,
        classes: Option<&[i64]>,
    ) -> Result<Vec<Drawn>, Failure> {
        let _phase = progress::phase(1, self.phases);
        let samples = Samples {
            count: self.protocol.samples,
            steps: self.protocol.sampling_steps,
            scheduler: self.protocol.scheduler.map(SchedulerKind::from),
            seed: self.seed,
            batch_size: 64,
            of: Of::Classes(classes.map_or_else(Vec::new, each_once)),
        };
        let (samples, shape) = samples.draw(opened, network, self.device, "sampling")?;
        check_shape(shape, self.data, self.path)?;
        Ok(vec![Drawn {
            samples,
            ..Drawn::default()
        }])
    }
}

/// Measures by the metrics, in the last of so many phases, what was drawn. What rests on samples, and only that, fails
/// with them.
fn measure(
    mut examined: Examined,
    drawn: Result<Vec<Drawn>, Failure>,
    mut metrics: Vec<&'static dyn Metric>,
    phases: usize,
    mut found: Evaluation,
) -> Result<Evaluation, Failure> {
    let first = 1 + phases - metrics.len();
    match drawn {
        Ok(drawn) => examined.drawn = drawn,
        Err(failure) if failure.is_failed() => {
            let text_to_image = examined.subject.is_text_to_image();
            let rests = |metric: &&'static dyn Metric| metric.rests_on_samples(text_to_image);
            let (lost, left) = metrics.into_iter().partition(rests);
            metrics = left;
            found.lose(lost, &failure.message);
        }
        Err(failure) => return Err(failure),
    }
    for (number, metric) in metrics.into_iter().enumerate() {
        let _phase = progress::phase(first + number, phases);
        let _activity = progress::activity(metric.name());
        let measured = examined.measure(metric, &mut found.notes);
        found.keep(metric, measured);
    }
    found.known_controls = examined.subject.judges.knows_controls();
    found.relearned = examined.take_relearned();
    found.drawn = examined.drawn;
    Ok(found)
}

/// Who listens to the study hears of metrics too.
struct Listener;

impl Watch for Listener {
    fn task(&self, title: &str, steps: usize, unit: &'static str) -> Box<dyn Task> {
        Box::new(progress::bar(title, steps, unit))
    }

    fn warn(&self, text: &str) {
        progress::warn(text);
    }
}

impl Task for progress::Bar {
    fn reach(&self, done: u64) {
        self.set_position(done);
    }

    fn advance(&self, steps: u64) {
        self.inc(steps);
    }
}

/// Why a metric is skipped.
fn reason(lack: &Lack) -> String {
    match lack {
        Lack::Models(Models::Prompts) => "for text-to-image models".into(),
        Lack::Models(_) => "not for text-to-image models".into(),
        Lack::Need(need) => situation::advice(Situation::Lacks(*need)).into(),
        Lack::Other(reason) => reason.clone(),
    }
}

/// The metrics that look for the forgotten image: "a, b or c, of a text-to-image model d".
fn looking() -> String {
    let [pixels, prompts] = [false, true].map(|text_to_image| {
        let looks = |metric: &&&dyn Metric| {
            metric.looks_for_the_image() && metric.about().models.include(text_to_image)
        };
        let names = METRICS.iter().filter(looks).map(|metric| metric.name());
        either(&names.collect::<Vec<_>>())
    });
    format!("{pixels}, of a text-to-image model {prompts}")
}

/// "a", "a or b", "a, b or c".
fn either(names: &[&str]) -> String {
    match names {
        [before @ .., last] if !before.is_empty() => format!("{} or {last}", before.join(", ")),
        names => names.concat(),
    }
}

/// Whether any of these metrics rests on samples.
fn draws(metrics: &[&'static dyn Metric], text_to_image: bool) -> bool {
    let mut metrics = metrics.iter();
    metrics.any(|metric| metric.rests_on_samples(text_to_image))
}

/// What a measurement goes through, in this order, by name.
pub fn phases(metrics: &[&'static dyn Metric], prompts: Option<&Prompts>) -> Vec<String> {
    let drawn = match prompts {
        _ if !draws(metrics, prompts.is_some()) => Vec::new(),
        Some(prompts) => prompted::drawn(prompts),
        None => vec!["sampling".into()],
    };
    let measured = metrics.iter().map(|metric| metric.name().to_string());
    drawn.into_iter().chain(measured).collect()
}

/// Metrics without a number as sentences: "fid was skipped: give --inception FILE".
pub fn sentences(missing: &[Missing], what: &str) -> Vec<String> {
    let sentence =
        |Missing { metric, reason }: &Missing| format!("{} {what}: {reason}", metric.name());
    missing.iter().map(sentence).collect()
}

/// Refuses a list that holds something twice: its runs or numbers would count double. `field`: where it was given.
///
/// # Errors
/// The first that is listed again.
pub fn once<T: PartialEq>(
    field: impl Display,
    list: &[T],
    name: impl Fn(&T) -> String,
) -> Result<(), Failure> {
    for (place, one) in list.iter().enumerate() {
        if list[..place].contains(one) {
            return Err(Failure::input(format!(
                "{field}: {} is listed twice; list it once",
                name(one)
            )));
        }
    }
    Ok(())
}

/// That images are like those of `data`.
///
/// # Errors
/// They are not.
pub(crate) fn check_shape(shape: ImageShape, data: &Dataset, path: &Path) -> Result<(), Failure> {
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

impl From<SamplerName> for SchedulerKind {
    fn from(name: SamplerName) -> Self {
        match name {
            SamplerName::Ddpm => Self::Ddpm,
            SamplerName::Ddim => Self::Ddim,
            SamplerName::Pndm => Self::Pndm,
            SamplerName::Euler => Self::Euler,
            SamplerName::EulerAncestral => Self::EulerAncestral,
            SamplerName::FlowMatchEuler => Self::FlowMatchEuler,
        }
    }
}

#[cfg(test)]
mod tests {
    use retrack_eval::metrics::named;

    use super::*;

    #[test]
    fn what_fails_is_kept_with_its_reason() {
        let metric = |name| named(name).unwrap();
        let score = Score::new("repeats", 1.0, 4);
        let mut found = Evaluation::default();
        found.keep(metric("frequency"), Ok(vec![score.clone()]));
        // Data that cannot be read.
        let unreadable = "photos/03.png: cannot read".into();
        found.keep(metric("copies"), Err(unreadable));
        assert_eq!(found.scores, [score]);
        assert_eq!(
            sentences(&found.failed, "failed"),
            ["copies failed: photos/03.png: cannot read"]
        );
    }
    #[test]
    fn the_metrics_that_look_for_the_image_are_listed() {
        assert_eq!(
            looking(),
            "frequency, injection or copies, of a text-to-image model cluster"
        );
    }
}
