//! What a metric is: its names and words, what it needs, and how it measures a model.
//!
//! A metric of this crate is a file of [`metrics`](crate::metrics) with two lines in its `mod.rs`, one that names the
//! file and one of [`METRICS`]. From there the command line takes its name and help, README its table, the
//! page its words, an experiment its verdict, and the sentence of what was skipped what was lacking.

use std::error::Error;
use std::fmt;

use retrack_networks::schedule::SchedulerConfig;
use serde::de::{EnumAccess, VariantAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::examined::{Examined, Found};
use crate::metrics::METRICS;
use crate::score::Score;
use crate::subject::Subject;

/// Why a metric has no number. Its words are recorded with the results.
pub type MetricError = Box<dyn Error + Send + Sync>;

/// One metric. It is recorded, typed and compared by its name.
///
/// ```
/// use retrack_eval::examined::{Examined, Found};
/// use retrack_eval::metric::{About, Metric, MetricError, Models, Need, ScoreAbout};
///
/// /// The mean pixel of the samples.
/// struct Brightness;
///
/// const ABOUT: About = About::new("brightness", "how bright samples are", Models::Pixels)
///     .needs(&[Need::Samples])
///     .scores(&[ScoreAbout::new("brightness", "mean pixel of the samples, 0 to 255")]);
///
/// impl Metric for Brightness {
///     fn about(&self) -> &'static About {
///         &ABOUT
///     }
///
///     fn measure(&self, model: &Examined, found: &mut Found) -> Result<(), MetricError> {
///         let samples = model.samples();
///         let sum: f64 = samples.iter().map(|&byte| f64::from(byte)).sum();
///         found.add("brightness", sum / samples.len() as f64, samples.len());
///         Ok(())
///     }
/// }
/// assert_eq!(Brightness.name(), "brightness");
/// ```
pub trait Metric: Sync {
    /// Its names, its words and what it needs.
    fn about(&self) -> &'static About;

    /// Why it cannot be tried of these images and a model of this schedule, where [`About::needs`] does not say it.
    fn lacks(&self, _subject: &Subject, _scheduler: &SchedulerConfig) -> Option<String> {
        None
    }

    /// Adds what it finds of a model to `found`.
    ///
    /// # Errors
    /// It does not work on this model; what was added is dropped then.
    fn measure(&self, model: &Examined, found: &mut Found) -> Result<(), MetricError>;

    /// As it is typed and recorded.
    fn name(&self) -> &'static str {
        self.about().name
    }
}

/// Models that a metric is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Models {
    /// Those that denoise pixels.
    Pixels,
    /// Text-to-image models.
    Prompts,
    /// Both.
    All,
}

impl Models {
    /// Whether a text-to-image model, or one that denoises pixels, is among them.
    pub fn include(self, text_to_image: bool) -> bool {
        match self {
            Self::Pixels => !text_to_image,
            Self::Prompts => text_to_image,
            Self::All => true,
        }
    }
}

/// What has to be there for a metric to be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Samples of a model that denoises pixels. (For others, see `rests_on_samples` of the metric.)
    Samples,
    /// The images as the model's network takes them, pixels or latents, with its derivatives at hand. It is made where it is
    /// needed.
    Denoised,
    /// A distance below which a picture counts as a forgotten image; the data gives one where nobody says it.
    Threshold,
    /// The network of the copy detector.
    Sscd,
    /// CLIP.
    Clip,
    /// Inception's weights.
    Inception,
    /// Images that the model never saw.
    Controls,
}

/// Why a metric is not tried.
#[derive(Debug, Clone, PartialEq)]
pub enum Lack {
    /// The model is of another kind than these.
    Models(Models),
    /// This was not given.
    Need(Need),
    /// The images or the schedule do not fit, in words.
    Other(String),
}

impl dyn Metric + '_ {
    /// What a metric would need to be tried of these images, on a model of this schedule; `None` where it can be.
    pub fn lack(&self, subject: &Subject, scheduler: &SchedulerConfig) -> Option<Lack> {
        let about = self.about();
        if !about.models.include(subject.is_text_to_image()) {
            return Some(Lack::Models(about.models));
        }
        let mut needs = about.needs.iter().copied();
        if let Some(need) = needs.find(|need| !subject.judges.has(*need)) {
            return Some(Lack::Need(need));
        }
        self.lacks(subject, scheduler).map(Lack::Other)
    }

    /// Whether this has to be there.
    pub fn needs(&self, need: Need) -> bool {
        self.about().needs.contains(&need)
    }

    /// Whether samples have to be drawn for it: of a text-to-image model wherever it does not look at the network itself.
    pub fn rests_on_samples(&self, text_to_image: bool) -> bool {
        self.needs(Need::Samples) || (text_to_image && !self.needs(Need::Denoised))
    }

    /// Whether it looks at what the network makes of controls.
    pub fn denoises_controls(&self) -> bool {
        self.needs(Need::Denoised) && self.needs(Need::Controls)
    }

    /// Whether this is of use to it.
    pub fn uses(&self, need: Need) -> bool {
        self.needs(need) || self.about().takes.contains(&need)
    }

    /// Whether it finds a forgotten image or does not.
    pub fn looks_for_the_image(&self) -> bool {
        let scores = self.about().scores;
        scores.iter().any(|score| score.finds.is_some())
    }
}

impl fmt::Debug for dyn Metric + '_ {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl PartialEq for dyn Metric {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Serialize for dyn Metric + '_ {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// One of [`METRICS`] by its name, read as the variant of an enumeration is: an error names all of them.
impl<'de> Deserialize<'de> for &'static dyn Metric {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_enum("Metric", &[], Variant)
    }
}

struct Variant;

impl<'de> Visitor<'de> for Variant {
    type Value = &'static dyn Metric;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("the name of a metric")
    }

    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<Self::Value, A::Error> {
        let (Known(metric), variant) = data.variant()?;
        variant.unit_variant()?;
        Ok(metric)
    }
}

struct Known(&'static dyn Metric);

impl<'de> Deserialize<'de> for Known {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let known = METRICS.iter().find(|metric| metric.name() == name);
        known.copied().map(Self).ok_or_else(|| {
            let names = METRICS.iter().map(|metric| format!("`{}`", metric.name()));
            let names: Vec<String> = names.collect();
            let names = names.join(", ");
            serde::de::Error::custom(format!("unknown variant `{name}`, expected one of {names}"))
        })
    }
}

/// What a metric is called, says and needs.
#[derive(Debug, Clone, Copy)]
pub struct About {
    /// As it is typed and recorded.
    pub name: &'static str,
    /// What it says, in half a line that begins with a small letter: the help of the command line.
    pub summary: &'static str,
    /// The same with its unit and how it is found, for README. Empty: the summary says it all.
    pub meaning: &'static str,
    /// Which images or models it is for, in a few words, where [`Metric::lacks`] knows of such.
    pub condition: &'static str,
    /// The models that it is for.
    pub models: Models,
    /// What has to be there.
    pub needs: &'static [Need],
    /// What it takes where it was given.
    pub takes: &'static [Need],
    /// What it adds to the scores.
    pub scores: &'static [ScoreAbout],
}

impl About {
    /// A metric that needs nothing, and whose scores nobody knows yet.
    pub const fn new(name: &'static str, summary: &'static str, models: Models) -> Self {
        Self {
            name,
            summary,
            meaning: "",
            condition: "",
            models,
            needs: &[],
            takes: &[],
            scores: &[],
        }
    }

    /// With README's words.
    pub const fn meaning(self, meaning: &'static str) -> Self {
        Self { meaning, ..self }
    }

    /// With the images or models that it is for.
    pub const fn condition(self, condition: &'static str) -> Self {
        Self { condition, ..self }
    }

    /// With what has to be there.
    pub const fn needs(self, needs: &'static [Need]) -> Self {
        Self { needs, ..self }
    }

    /// With what it takes where it was given.
    pub const fn takes(self, takes: &'static [Need]) -> Self {
        Self { takes, ..self }
    }

    /// With what it finds.
    pub const fn scores(self, scores: &'static [ScoreAbout]) -> Self {
        Self { scores, ..self }
    }
}

/// What a score's value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// So many of the score's count.
    Number,
    /// The part of the score's count, from 0 to 1.
    Share,
    /// Anything else, of the unit that the score's meaning says.
    Other,
}

/// Which end of a score is the good one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Best {
    /// Less of it is better.
    Lowest,
    /// More of it is better.
    Highest,
}

/// How a score above 0 finds a forgotten image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finds {
    /// Samples show one.
    InSamples,
    /// Attempts to bring one back succeed.
    InAttempts,
    /// Samples that were not to show one do: it speaks against the model beside what other scores say.
    InOthers,
}

/// A score of how good a model's samples are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quality {
    /// Among several such scores the one of lowest rank judges.
    pub rank: u8,
    /// The subject of a sentence.
    pub title: &'static str,
}

/// What one score of a metric says.
#[derive(Debug, Clone, Copy)]
pub struct ScoreAbout {
    /// As it is recorded.
    pub name: &'static str,
    /// What it says in plain words, with its unit and its better end: the page's line.
    pub meaning: &'static str,
    /// What its value is.
    pub unit: Unit,
    /// Which end is the good one, where it has one.
    pub best: Option<Best>,
    /// How it finds a forgotten image, where it looks for one.
    pub finds: Option<Finds>,
    /// Whether the rest of the model can be judged by it.
    pub quality: Option<Quality>,
    /// A sentence against the model that the value calls for.
    pub doubt: Option<fn(&Score) -> Option<String>>,
}

impl ScoreAbout {
    /// A score without a good end that no verdict rests on.
    pub const fn new(name: &'static str, meaning: &'static str) -> Self {
        Self {
            name,
            meaning,
            unit: Unit::Other,
            best: None,
            finds: None,
            quality: None,
            doubt: None,
        }
    }

    /// Whose value is a number of its count.
    pub const fn number(self) -> Self {
        let unit = Unit::Number;
        Self { unit, ..self }
    }

    /// Whose value is a part of its count.
    pub const fn share(self) -> Self {
        let unit = Unit::Share;
        Self { unit, ..self }
    }

    /// Which is good when it is low.
    pub const fn lowest(self) -> Self {
        let best = Some(Best::Lowest);
        Self { best, ..self }
    }

    /// Which is good when it is high.
    pub const fn highest(self) -> Self {
        let best = Some(Best::Highest);
        Self { best, ..self }
    }

    /// Which finds a forgotten image where it is above 0.
    pub const fn finds(self, how: Finds) -> Self {
        let finds = Some(how);
        Self { finds, ..self }
    }

    /// By which the rest of the model is judged.
    pub const fn quality(self, rank: u8, title: &'static str) -> Self {
        let quality = Some(Quality { rank, title });
        Self { quality, ..self }
    }

    /// With what speaks against a model.
    pub const fn doubt(self, sentence: fn(&Score) -> Option<String>) -> Self {
        let doubt = Some(sentence);
        Self { doubt, ..self }
    }

    /// How many of the score's count it is.
    pub fn found(&self, score: &Score) -> usize {
        let found = match self.unit {
            Unit::Number => score.value,
            Unit::Share | Unit::Other => score.value * score.count as f64,
        };
        found.round() as usize
    }
}
