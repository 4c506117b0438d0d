//! How to unlearn: a preset, a file over it, and the command line over both.

use std::path::Path;

use retrack_checkpoint::files::read_text;
use retrack_data::neighbors::Neighbors;
use retrack_unlearn::objective::Method;
use retrack_unlearn::optimizer::AdamWConfig;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::evaluation::Protocol;
use crate::failure::Failure;
use crate::names::{MethodName, Metric, SamplerName};
use crate::progress;
use crate::task::Task;

/// The published settings and the demo's, by name.
const PRESETS: [(&str, &str); 5] = [
    ("demo", include_str!("../../../presets/demo.toml")),
    (
        "mnist-tshirt",
        include_str!("../../../presets/mnist-tshirt.toml"),
    ),
    ("cifar10", include_str!("../../../presets/cifar10.toml")),
    ("celeba-hq", include_str!("../../../presets/celeba-hq.toml")),
    (
        TEXT_TO_IMAGE,
        include_str!("../../../presets/stable-diffusion.toml"),
    ),
];

/// The preset of text-to-image models.
pub const TEXT_TO_IMAGE: &str = "stable-diffusion";

/// Everything that decides what an unlearning run computes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Settings {
    #[serde(flatten)]
    pub method: Method,
    pub neighbors: Neighbors,
    pub steps: usize,
    pub batch_size: usize,
    pub accumulate: usize,
    pub learning_rate: f64,
    pub adamw: AdamWConfig,
    pub seed: u64,
}

/// A preset, or a file that replaces some of its values.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    method: Option<MethodName>,
    neighbors: Option<Neighbors>,
    steps: Option<usize>,
    batch_size: Option<usize>,
    accumulate: Option<usize>,
    learning_rate: Option<f64>,
    seed: Option<u64>,
    adamw: AdamWFile,
    strength: Strength,
    rate: Rates,
    experiment: ExperimentFile,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct AdamWFile {
    betas: Option<[f64; 2]>,
    epsilon: Option<f64>,
    weight_decay: Option<f64>,
    max_grad_norm: Option<f64>,
}

/// How strongly each method forgets.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Strength {
    retrack_lambda: Option<f64>,
    siss_lambda: Option<f64>,
    siss_rescale: Option<f64>,
    erasediff_eta: Option<f64>,
}

/// The learning rates of methods that need another than the rest.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Rates {
    retrack: Option<f64>,
    finetune: Option<f64>,
    neggrad: Option<f64>,
    erasediff: Option<f64>,
    siss: Option<f64>,
}

impl Rates {
    /// This layer's rates where it has them or one for all methods, else `below`'s.
    fn over(self, all: Option<f64>, below: Self) -> Self {
        Self {
            retrack: self.retrack.or(all).or(below.retrack),
            finetune: self.finetune.or(all).or(below.finetune),
            neggrad: self.neggrad.or(all).or(below.neggrad),
            erasediff: self.erasediff.or(all).or(below.erasediff),
            siss: self.siss.or(all).or(below.siss),
        }
    }

    fn of(&self, method: MethodName) -> Option<f64> {
        match method {
            MethodName::Retrack => self.retrack,
            MethodName::Finetune => self.finetune,
            MethodName::Neggrad => self.neggrad,
            MethodName::Erasediff => self.erasediff,
            MethodName::Siss => self.siss,
        }
    }
}

/// What `retrack experiment` runs and measures.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ExperimentFile {
    forget: Option<Vec<String>>,
    seeds: Option<Vec<u64>>,
    metrics: Option<Vec<Metric>>,
    samples: Option<usize>,
    scheduler: Option<SamplerName>,
    sampling_steps: Option<usize>,
    threshold: Option<f64>,
}

impl ExperimentFile {
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
    pub seeds: Vec<u64>,
    pub protocol: Protocol,
}

impl Experiment {
    /// The experiment of a preset, with a file over it.
    ///
    /// # Errors
    /// An unknown preset, one without an experiment, a file that cannot be read.
    pub fn resolve(preset: &str, config: Option<&Path>) -> Result<Self, Failure> {
        let file = File::layers(preset, "", config)?.experiment;
        let missing = |key: &str| {
            Failure::input(format!(
                "the preset {preset} has no `{key}` in [experiment]; give it in --config"
            ))
        };
        Ok(Self {
            forget: file.forget.unwrap_or_default(),
            seeds: file
                .seeds
                .filter(|seeds| !seeds.is_empty())
                .ok_or_else(|| missing("seeds"))?,
            protocol: Protocol {
                metrics: file.metrics.ok_or_else(|| missing("metrics"))?,
                samples: file.samples.ok_or_else(|| missing("samples"))?,
                scheduler: file.scheduler,
                sampling_steps: file
                    .sampling_steps
                    .ok_or_else(|| missing("sampling_steps"))?,
                threshold: file.threshold,
                inception: None,
                sscd: None,
                clip: None,
                guidance: None,
                controls: None,
                controls_split: None,
                class: None,
            },
        })
    }
}

impl File {
    /// The preset with this name, and a file over it. `typed`: how the name was given.
    fn layers(preset: &str, typed: &str, config: Option<&Path>) -> Result<Self, Failure> {
        let Some((name, text)) = PRESETS.iter().find(|(name, _)| *name == preset) else {
            let names: Vec<&str> = PRESETS.iter().map(|(name, _)| *name).collect();
            return Err(Failure::input(format!(
                "{typed}{preset}: unknown; the presets are {}",
                names.join(", ")
            )));
        };
        let file = Self::parse(name, text)?;
        match config {
            Some(path) => Ok(Self::read(path)?.over(file)),
            None => Ok(file),
        }
    }

    fn read(path: &Path) -> Result<Self, Failure> {
        let text = read_text(path).map_err(|error| Failure::read(path, error))?;
        Self::parse(&path.display().to_string(), &text)
    }

    fn parse(name: &str, text: &str) -> Result<Self, Failure> {
        toml::from_str(text).map_err(|error| Failure::input(format!("{name}: {error}")))
    }

    /// This file's values where it has them, else `below`'s.
    fn over(self, below: Self) -> Self {
        Self {
            method: self.method.or(below.method),
            neighbors: self.neighbors.or(below.neighbors),
            steps: self.steps.or(below.steps),
            batch_size: self.batch_size.or(below.batch_size),
            accumulate: self.accumulate.or(below.accumulate),
            learning_rate: self.learning_rate.or(below.learning_rate),
            seed: self.seed.or(below.seed),
            adamw: AdamWFile {
                betas: self.adamw.betas.or(below.adamw.betas),
                epsilon: self.adamw.epsilon.or(below.adamw.epsilon),
                weight_decay: self.adamw.weight_decay.or(below.adamw.weight_decay),
                max_grad_norm: self.adamw.max_grad_norm.or(below.adamw.max_grad_norm),
            },
            strength: Strength {
                retrack_lambda: self
                    .strength
                    .retrack_lambda
                    .or(below.strength.retrack_lambda),
                siss_lambda: self.strength.siss_lambda.or(below.strength.siss_lambda),
                siss_rescale: self.strength.siss_rescale.or(below.strength.siss_rescale),
                erasediff_eta: self.strength.erasediff_eta.or(below.strength.erasediff_eta),
            },
            rate: self.rate.over(self.learning_rate, below.rate),
            experiment: self.experiment.over(below.experiment),
        }
    }
}

/// Reads a settings file, and everything that can be made of it.
pub fn check_file(path: &Path) -> Result<(), Failure> {
    let (name, preset) = PRESETS[0];
    let file = File::read(path)?.over(File::parse(name, preset)?);
    Settings::from_file(file)?;
    Experiment::resolve(name, Some(path))?.protocol.check()
}

/// A typed option that changes nothing may be a misunderstanding.
fn warn_of_strengths_of_others(args: &Task, method: MethodName) {
    use MethodName::{Erasediff, Retrack, Siss};
    let options = [
        ("--lambda", args.lambda, &[Retrack, Siss][..]),
        ("--rescale", args.rescale, &[Siss]),
        ("--eta", args.eta, &[Erasediff]),
    ];
    for (option, typed, methods) in options {
        if typed.is_some() && !methods.contains(&method) {
            progress::warn(format!(
                "{option} means nothing to this method and is ignored"
            ));
        }
    }
}

/// The preset for images of this size: the published system that is most like them.
fn preset_for(height: usize, width: usize) -> &'static str {
    match height.max(width) {
        ..=28 => "mnist-tshirt",
        29..=64 => "cifar10",
        _ => "celeba-hq",
    }
}

/// Where the settings of an unlearning run come from, for people: "preset cifar10, chosen for images of 32 x 32".
pub fn source(args: &Task, text_to_image: bool, height: usize, width: usize) -> String {
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

/// Says where settings come from that nobody typed.
pub fn note_source(args: &Task, text_to_image: bool, height: usize, width: usize) {
    if args.preset.is_none() {
        let source = source(args, text_to_image, height, width);
        progress::note(format!("settings: {source} (--preset names another)"));
    }
}

impl Settings {
    /// Those that a run recorded; nothing where that is no record of any.
    pub fn recorded(record: &Value) -> Option<Self> {
        fn take<T: DeserializeOwned>(all: &mut Map<String, Value>, key: &str) -> Option<T> {
            serde_json::from_value(all.shift_remove(key)?).ok()
        }
        let mut all = record.as_object()?.clone();
        Some(Self {
            neighbors: take(&mut all, "neighbors")?,
            steps: take(&mut all, "steps")?,
            batch_size: take(&mut all, "batch_size")?,
            accumulate: take(&mut all, "accumulate")?,
            learning_rate: take(&mut all, "learning_rate")?,
            adamw: take(&mut all, "adamw")?,
            seed: take(&mut all, "seed")?,
            // What is left.
            method: serde_json::from_value(Value::Object(all)).ok()?,
        })
    }

    /// Resolves preset, file and command line for images of this size.
    ///
    /// # Errors
    /// An unknown preset, a file that cannot be read, a value that makes no sense.
    pub fn resolve(args: &Task, height: usize, width: usize) -> Result<Self, Failure> {
        let preset = args
            .preset
            .as_deref()
            .unwrap_or_else(|| preset_for(height, width));
        let file = File::layers(preset, "--preset ", args.config.as_deref())?;
        let method = args.method.or(file.method).unwrap_or(MethodName::Retrack);
        warn_of_strengths_of_others(args, method);
        let flags = File {
            method: args.method,
            neighbors: args.neighbors,
            steps: args.steps,
            batch_size: args.batch_size,
            accumulate: args.accumulate,
            learning_rate: args.lr,
            seed: args.seed,
            strength: Strength {
                retrack_lambda: args.lambda,
                siss_lambda: args.lambda,
                siss_rescale: args.rescale,
                erasediff_eta: args.eta,
            },
            ..File::default()
        };
        Self::from_file(flags.over(file))
    }

    fn from_file(file: File) -> Result<Self, Failure> {
        let default = AdamWConfig::default();
        let strength = file.strength;
        let known = "every preset says so";
        let method = file.method.unwrap_or(MethodName::Retrack);
        let learning_rate = file.rate.of(method).or(file.learning_rate);
        let settings = Self {
            method: match method {
                MethodName::Retrack => Method::Retrack {
                    lambda: strength.retrack_lambda.expect(known),
                },
                MethodName::Finetune => Method::Finetune,
                MethodName::Neggrad => Method::Neggrad,
                MethodName::Erasediff => Method::Erasediff {
                    eta: strength.erasediff_eta.expect(known),
                },
                MethodName::Siss => Method::Siss {
                    lambda: strength.siss_lambda.expect(known),
                    rescale: strength.siss_rescale.expect(known),
                },
            },
            neighbors: file.neighbors.expect(known),
            steps: file.steps.expect(known),
            batch_size: file.batch_size.expect(known),
            accumulate: file.accumulate.expect(known),
            learning_rate: learning_rate.expect(known),
            seed: file.seed.unwrap_or(0),
            adamw: AdamWConfig {
                betas: file.adamw.betas.unwrap_or(default.betas),
                epsilon: file.adamw.epsilon.unwrap_or(default.epsilon),
                weight_decay: file.adamw.weight_decay.unwrap_or(default.weight_decay),
                max_grad_norm: file.adamw.max_grad_norm.unwrap_or(default.max_grad_norm),
            },
        };
        settings.check()?;
        Ok(settings)
    }

    fn check(&self) -> Result<(), Failure> {
        let neighbors = match self.neighbors {
            Neighbors::Nearest(k) => k,
            Neighbors::All => 1,
        };
        for (name, value) in [
            ("number of neighbors", neighbors),
            ("number of steps", self.steps),
            ("batch size", self.batch_size),
            ("accumulation", self.accumulate),
        ] {
            if value == 0 {
                return Err(Failure::input(format!("the {name} is 0; give at least 1")));
            }
        }
        if !(self.learning_rate > 0.0 && self.learning_rate.is_finite()) {
            return Err(Failure::input(format!(
                "the learning rate is {}; give a number above 0",
                self.learning_rate
            )));
        }
        self.method.check().map_err(Failure::input)?;
        let adamw = &self.adamw;
        let below_one = |x: f64| (0.0..1.0).contains(&x);
        let known = [
            ("betas", adamw.betas.iter().all(|beta| below_one(*beta))),
            ("epsilon", adamw.epsilon > 0.0 && adamw.epsilon.is_finite()),
            (
                "weight_decay",
                adamw.weight_decay >= 0.0 && adamw.weight_decay.is_finite(),
            ),
            ("max_grad_norm", adamw.max_grad_norm > 0.0),
        ];
        for (key, holds) in known {
            if !holds {
                return Err(Failure::input(format!(
                    "`{key}` of [adamw] is out of range: betas lie from 0 to below 1, epsilon and max_grad_norm \
                     above 0, weight_decay at 0 or above"
                )));
            }
        }
        Ok(())
    }
}
