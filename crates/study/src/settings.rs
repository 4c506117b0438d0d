//! How to unlearn: a preset, a file over it, and the command line over both.

use std::path::Path;

use retrack_checkpoint::files::read_text;
use retrack_checkpoint::folder::Weights;
use retrack_eval::metric::Metric;
use retrack_unlearn::objective::{Method, ReTrack, parameters};
use retrack_unlearn::recipe::{
    Layer, Overlay, Recipe, RecipeError, TEXT_TO_IMAGE, preset_for, preset_names,
};
use serde::Deserialize;

use crate::calibration::{ROUND, ROUNDS};
use crate::evaluation::Protocol;
use crate::failure::Failure;
use crate::field::Field;
use crate::names::SamplerName;
use crate::progress;
use crate::task::Task;

/// What a preset or a file has.
type File = Layer<ExperimentFile>;

/// What `retrack experiment` runs and measures.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ExperimentFile {
    /// Selections, one run each; where there are none, `--forget` must be given.
    forget: Option<Vec<String>>,
    /// One run of each method for each of them.
    seeds: Option<Vec<u64>>,
    /// What is measured.
    metrics: Option<Vec<&'static dyn Metric>>,
    /// Samples of each model.
    samples: Option<usize>,
    /// The sampler; without it the model's own.
    scheduler: Option<SamplerName>,
    /// Denoising steps of a sample.
    sampling_steps: Option<usize>,
    /// A picture nearer to a forgotten image than this counts as it: Euclidean, pixels in [0, 1]. Without it, half of that image's
    /// distance to its nearest retained image that is no copy.
    threshold: Option<f64>,
}

impl Overlay for ExperimentFile {
    fn over(self, below: Self) -> Self {
        Self {
            forget: self.forget.or(below.forget),
            seeds: self.seeds.or(below.seeds),
            metrics: self.metrics.or(below.metrics),
            samples: self.samples.or(below.samples),
            scheduler: self.scheduler.or(below.scheduler),
            sampling_steps: self.sampling_steps.or(below.sampling_steps),
            threshold: self.threshold.or(below.threshold),
        }
    }
}

/// A preset's experiment.
#[derive(Debug, Clone, PartialEq)]
pub struct Experiment {
    /// One run each; empty where rows depend on how the data set was unpacked.
    pub forget: Vec<String>,
    /// One run of each method for each of them.
    pub seeds: Vec<u64>,
    /// What is measured.
    pub protocol: Protocol,
}

impl Experiment {
    /// The experiment of a preset, with a file over it.
    ///
    /// # Errors
    /// An unknown preset, one without an experiment, a file that cannot be read.
    pub fn resolve(preset: &str, config: Option<&Path>) -> Result<Self, Failure> {
        let (_, file) = layers(preset, "", config)?.split();
        let missing = |key: &str| {
            Failure::input(format!(
                "the preset {preset} has no `{key}` in [experiment]; give it in {}",
                Field::Config
            ))
        };
        Ok(Self {
            forget: file.forget.unwrap_or_default(),
            seeds: file
                .seeds
                .filter(|seeds| !seeds.is_empty())
                .ok_or_else(|| missing("seeds"))?,
            protocol: Protocol {
                scheduler: file.scheduler,
                threshold: file.threshold,
                ..Protocol::new(
                    file.metrics.ok_or_else(|| missing("metrics"))?,
                    file.samples.ok_or_else(|| missing("samples"))?,
                    file.sampling_steps
                        .ok_or_else(|| missing("sampling_steps"))?,
                )
            },
        })
    }
}

/// The preset with this name, and a file over it. `typed`: how the name was given.
fn layers(preset: &str, typed: &str, config: Option<&Path>) -> Result<File, Failure> {
    let file = File::preset(preset).map_err(|error| match error {
        RecipeError::UnknownPreset { .. } => Failure::input(format!("{typed}{error}")),
        _ => Failure::input(format!("{preset}: {error}")),
    })?;
    match config {
        Some(path) => Ok(read(path)?.over(file)),
        None => Ok(file),
    }
}

fn read(path: &Path) -> Result<File, Failure> {
    let text = read_text(path).map_err(|error| Failure::read(path, error))?;
    File::parse(&text).map_err(|error| Failure::input(format!("{}: {error}", path.display())))
}

/// Reads a settings file, and everything that can be made of it.
///
/// # Errors
/// The first thing that is wrong, with the file's name.
pub fn check_file(path: &Path) -> Result<(), Failure> {
    let preset = preset_names().next().expect("there are presets");
    let file = layers(preset, "", Some(path))?;
    file.recipe().map_err(Failure::input)?;
    Experiment::resolve(preset, Some(path))?.protocol.check()
}

/// A typed option that changes nothing may be a misunderstanding.
fn warn_of_strengths_of_others(typed: &Layer, method: Method) {
    for shared in parameters() {
        let name = shared.parameter.name;
        if typed.has_strength(name) && !shared.methods.contains(&method) {
            progress::warn(format!(
                "{} means nothing to this method and is ignored",
                Field::Strength(name)
            ));
        }
    }
}

/// Where the settings of an unlearning run come from, for people: "preset cifar10, chosen for images of 32 x 32".
pub fn source(args: &Task, text_to_image: bool, height: usize, width: usize) -> String {
    match calibrates(args) {
        true if args.controls.is_some() => {
            return "calibrated on images that the model never saw".into();
        }
        true => return "calibrated on look-alikes of the image".into(),
        false => (),
    }
    let preset = match &args.preset {
        Some(preset) => format!("preset {preset}"),
        None if text_to_image => {
            format!("preset {TEXT_TO_IMAGE}, chosen for a text-to-image model")
        }
        None => format!(
            "preset {}, chosen for images of {height} x {width}",
            preset_for(height, width)
        ),
    };
    match &args.config {
        Some(path) => format!("{preset}, and {} over it", path.display()),
        None => preset,
    }
}

/// Whether a run is calibrated: nothing else says how far to go.
pub fn calibrates(args: &Task) -> bool {
    let typed = &args.recipe;
    !args.no_calibrate
        && args.preset.is_none()
        && args.config.is_none()
        && typed.steps.is_none()
        && !typed.has_strength("lambda")
        && typed.method.unwrap_or_default() == Method::of::<ReTrack>()
}

/// The settings of a calibrated run over those for its images' size or, of a text-to-image model, its kind. `adapted`: an
/// adapter is trained.
pub fn calibrated(settings: Recipe, args: &Task, weights: &Weights, adapted: bool) -> Recipe {
    /// The rate of a network of two million parameters. The published rates fall with the square root of their number, too.
    /// A small one has a rate at most so many times as high.
    const MOST: f64 = 5.0;
    const RATE: f64 = 1e-4;
    /// How much higher an adapter's rate is than its network's: it has few parameters, half of which begin at 0. Measured on a
    /// network of 1.8 million parameters whose image the whole network's rate leads to its level in one round: an adapter of
    /// rank 4 takes two rounds at 30 times that rate, three at 10 times, and does not arrive at its own. For a network of 860
    /// million it makes 1.4e-4; 1e-4 is usual.
    const ADAPTED: f64 = 30.0;
    /// Images of a micro-batch.
    const IMAGES: usize = 64;
    let typed = &args.recipe;
    let parameters: usize = weights.iter().map(|(_, tensor)| tensor.count()).sum();
    let rate = RATE * (2e6 / parameters as f64).sqrt().min(MOST);
    let rate = if adapted { ADAPTED * rate } else { rate };
    Recipe {
        steps: ROUND * ROUNDS,
        learning_rate: typed.learning_rate.unwrap_or(rate),
        batch_size: typed.batch_size.unwrap_or(settings.batch_size.min(IMAGES)),
        ..settings
    }
}

/// Says where settings come from that nobody typed.
pub fn note_source(args: &Task, text_to_image: bool, height: usize, width: usize) {
    if args.preset.is_none() {
        let source = source(args, text_to_image, height, width);
        progress::note(format!(
            "settings: {source} ({} names another)",
            Field::Preset
        ));
    }
}

/// Resolves preset, file and what is typed over them for images of this size.
///
/// # Errors
/// An unknown preset, a file that cannot be read, a value that makes no sense.
pub fn resolve(args: &Task, height: usize, width: usize) -> Result<Recipe, Failure> {
    let preset = args.preset.as_deref();
    let preset = preset.unwrap_or_else(|| preset_for(height, width));
    let (file, _) = layers(
        preset,
        &format!("{} ", Field::Preset),
        args.config.as_deref(),
    )?
    .split();
    let typed = &args.recipe;
    let layers = typed.clone().over(file);
    warn_of_strengths_of_others(typed, layers.method.unwrap_or_default());
    layers.recipe().map_err(Failure::input)
}
