//! The evidence of an unlearning run: looked for before, now and then on the way, and after.

mod again;
mod shown;

use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::run::{EventLog, RunFolder, Spent};
use burn::module::Module;
use burn::tensor::Device;
use retrack_checkpoint::folder::ModelFolder;
use retrack_checkpoint::words::counted;
use retrack_data::neighbors::Neighbor;
use retrack_data::{Alpha, Dataset, Split};
use retrack_eval::report::*;
use retrack_networks::network::Network;
use retrack_networks::schedule::SchedulerConfig;
use retrack_unlearn::images::Images;
use retrack_unlearn::recipe::Recipe;
use retrack_unlearn::texts::Texts;
use retrack_unlearn::trainer::Trainer;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::again::alike;
use super::curves::{curves, read_events};
use super::files::{output_files, output_paths, record_files};
use super::forgotten::{Forgotten, Rule};
use super::machine_facts::{machine, now, peak_memory_bytes};
use super::probe::{Measurement, Numbers, Plan, Probe};
use super::verdict::{Advice, Findings, Tally};
use super::{Private, RowTexts, card, selected};
use crate::failure::Failure;
use crate::progress;
use crate::reopened::{Reopened, WeightFacts};
use crate::settings;
use crate::task::Task;

/// What a run is about.
pub struct Run<'a> {
    pub args: &'a Task,
    pub settings: &'a Recipe,
    /// The model's.
    pub folder: &'a ModelFolder,
    pub scheduler: &'a SchedulerConfig,
    /// What the network sees of the data set.
    pub images: &'a dyn Images,
    /// The network has classes or texts.
    pub labels: bool,
    /// A text-to-image model: it is looked at without drawing.
    pub text_to_image: bool,
    /// Its images' texts.
    pub texts: Option<&'a Texts>,
    /// What stays outside of the folder; unless `--no-report`.
    pub private: Option<&'a Private>,
    pub data: &'a Dataset,
    pub split: &'a Split,
    /// Of each forgotten row, where the method has any.
    pub neighbors: Option<&'a [Vec<Neighbor>]>,
    /// As `run/config.json` holds it.
    pub config: &'a Value,
}

/// What `retrack verify` computes again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// As typed.
    pub model: PathBuf,
    pub data: PathBuf,
    #[serde(default)]
    pub split: Option<String>,
    #[serde(default)]
    pub alpha: Alpha,
    pub data_digest: String,
    pub forget_rows: Vec<usize>,
    /// Retained rows that are nearly copies.
    pub near_rows: Vec<usize>,
    /// Pictures were counted by [`Rule::Half`], in earlier versions by [`Rule::Nearest`].
    #[serde(default)]
    pub half_way: bool,
    pub plan: Plan,
    pub before: Numbers,
    /// Of the folder as it was written.
    pub after: Numbers,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<WeightFacts>,
    /// The keyed digest of the texts of the images that were measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub texts: Option<String>,
}

impl Check {
    /// What counted as a forgotten image.
    pub fn rule(&self) -> Rule<'static> {
        match self.half_way {
            true => Rule::Half,
            false => Rule::Nearest,
        }
    }
}

/// Evidence being gathered.
pub struct Evidence<'a> {
    run: &'a Run<'a>,
    probe: Probe<'a>,
    before: Measurement,
    /// What the written folder was found to be.
    after: Option<(Measurement, WeightFacts)>,
    /// Steps between two looks at the errors.
    every: usize,
    /// Seconds spent on evidence.
    seconds: f64,
}

impl<'a> Evidence<'a> {
    /// Looks at the model before it changes.
    ///
    /// # Errors
    /// Data that cannot be read, a network that does not fit.
    pub fn begin(
        run: &'a Run<'a>,
        forgotten: &'a Forgotten<'a>,
        network: &Network,
        device: &Device,
    ) -> Result<Self, Failure> {
        progress::note("looking at the model before it changes");
        let start = Instant::now();
        let settings = run.settings;
        // A step runs two streams of images forward and backward, and backward is worth two forward.
        let work = settings.steps * settings.batch_size * settings.accumulate * 6;
        let plan = Plan::new(
            settings.seed,
            work,
            run.scheduler,
            forgotten,
            settings.batch_size,
        );
        let plan = match run.text_to_image {
            true => plan.without_pictures(),
            false => plan,
        };
        let probe = Probe {
            plan,
            forgotten,
            images: run.images,
            scheduler: run.scheduler,
            device: device.clone().without_autodiff(),
            labels: run.labels,
        };
        let network = network.valid();
        let before = probe.measure(&*network)?;
        Ok(Self {
            run,
            every: settings.steps.div_ceil(probe.plan.glances(work)).max(1),
            probe,
            before,
            after: None,
            seconds: start.elapsed().as_secs_f64(),
        })
    }

    /// The report of the finished `run`. `staged`: the complete model, not yet in its place.
    ///
    /// # Errors
    /// Files that cannot be read or written.
    pub fn finish(mut self, staged: &Path, run: &RunFolder) -> Result<Report, Failure> {
        let folder = &run.folder();
        let (after, weights) = self.after.take().expect("the last step was looked at");
        let args = self.run.args;
        let events = read_events(&folder.join("events.jsonl"))?;
        let before = &self.before.numbers;
        let verdict = self.verdict(&after.numbers, Some(&weights));
        let check = Check {
            model: args.model.clone(),
            data: args.data.path.clone(),
            split: args.data.reading.split.clone(),
            alpha: self.run.data.alpha(),
            data_digest: self.run.data.digest()?,
            forget_rows: self.run.split.forget.clone(),
            near_rows: self.run.split.near.iter().map(|near| near.row).collect(),
            half_way: true,
            plan: self.probe.plan.clone(),
            before: before.clone(),
            after: after.numbers.clone(),
            weights: Some(weights.clone()),
            texts: self.keep_texts()?,
        };
        let mut report = Report {
            format: FORMAT,
            command: "unlearn".into(),
            title: self.title(),
            made: now(),
            version: env!("CARGO_PKG_VERSION").into(),
            verdict,
            request: Some(self.request()?),
            samples: None,
            restoration: Vec::new(),
            metrics: vec![self.scores(&after.numbers)],
            comparisons: vec![self.errors(&after.numbers)],
            curves: curves(&events, before.mean_errors()),
            neighbors: self.neighbors(),
            cost: self.cost(&events, run),
            provenance: self.provenance(staged, folder, &weights)?,
            check: Some(serde_json::to_value(check).expect("plain data")),
            pictures: Default::default(),
        };
        self.show(&mut report, &after)?;
        Ok(report)
    }

    fn title(&self) -> String {
        let split = self.run.split;
        format!(
            "Forgetting {} with {}",
            counted(split.forget.len() + split.duplicates.len(), "image"),
            card::method_name(self.run.settings)
        )
    }

    fn verdict(&self, after: &Numbers, weights: Option<&WeightFacts>) -> Verdict {
        let several = self.probe.forgotten.len() > 1;
        let mut findings = Findings {
            advice: Advice::of_unlearning(self.run.args, self.run.settings),
            ..findings(&self.before.numbers, after, several)
        };
        findings
            .doubts
            .extend(weights.and_then(WeightFacts::reservation));
        findings.verdict()
    }

    /// How many images leave and how many stay.
    fn counts(&self) -> Vec<Fact> {
        let split = self.run.split;
        vec![
            Fact::new(
                "To be forgotten",
                format!(
                    "{}, {} distinct",
                    counted(split.forget.len(), "row"),
                    self.probe.forgotten.len()
                ),
            ),
            Fact::new("Exact copies that left too", split.duplicates.len()),
            Fact::new("Retained", counted(split.retain.len(), "image")),
        ]
    }

    /// Puts the texts of the measured images where the key is. Returns their keyed digest.
    fn keep_texts(&self) -> Result<Option<String>, Failure> {
        let (Some(texts), Some(private)) = (self.run.texts, self.run.private) else {
            return Ok(None);
        };
        let rows = self.probe.looked_at().concat().into_iter();
        let text = |row: usize| texts.known[texts.of_row[row] as usize].clone();
        let of_rows: RowTexts = rows.map(|row| (row, text(row))).collect();
        private.keep(&of_rows).map(Some)
    }

    fn request(&self) -> Result<Request, Failure> {
        let (run, forgotten) = (self.run, self.probe.forgotten);
        let key = &run.private.expect("there is a report").key;
        let split = run.split;
        let selection = match run.args.show_forgotten {
            true => run.args.forget.join(", "),
            // Names of files say whose picture it was.
            false => selected(&run.args.forget, &split.forget),
        };
        let mut facts = vec![Fact::new("Selected by", selection)];
        facts.extend(self.counts());
        if run.neighbors.is_some() {
            facts.push(Fact::new(
                "Near copies among the retained",
                split.near.len(),
            ));
        }
        if let Some(texts) = run.texts.filter(|_| run.args.show_forgotten) {
            let prompts = texts.of(&split.forget).join("\n");
            facts.push(Fact::new("Prompts of the forgotten", prompts));
        }
        facts.push(Fact::new("Model", run.args.model.display()));
        facts.push(Fact::new(
            "Data set",
            format!(
                "{} ({}, {})",
                run.args.data.path.display(),
                run.data.kind(),
                counted(run.data.len(), "image")
            ),
        ));
        facts.push(Fact::new("Method", card::method_name(run.settings)));
        let shape = run.data.shape();
        let source = settings::source(run.args, run.text_to_image, shape.height, shape.width);
        facts.push(Fact::new("Settings", source));
        Ok(Request {
            facts,
            keyed_digests: forgotten
                .images()
                .map(|image| key.of(run.data.shape(), image))
                .collect(),
            digests_note: "Each is the HMAC-SHA-256 of an image's height, width and channels (8 bytes each, lowest \
                           first) and its pixels, under a random key that whoever made this run keeps outside of its \
                           folder. Who has the key can show which image was meant; nobody else can test an image \
                           against these digests."
                .into(),
            picture: None,
        })
    }

    /// The numbers behind the verdict, side by side.
    fn scores(&self, after: &Numbers) -> MetricTable {
        let before = &self.before.numbers;
        let pair = |of: &dyn Fn(&Numbers) -> (f64, usize)| {
            [before, after].map(|numbers| {
                let (value, count) = of(numbers);
                (count > 0 && value.is_finite()).then_some(MetricValue {
                    value,
                    count,
                    interval: None,
                    deviation: None,
                })
            })
        };
        let mean = |values: &[f64]| (retrack_eval::distance::mean(values), values.len());
        let row = |name: &str, meaning: &str, values: [Option<MetricValue>; 2]| MetricRow {
            name: name.into(),
            meaning: meaning.into(),
            values: values.into(),
        };
        MetricTable {
            caption: "Before and after, with the same seeds and images".into(),
            note: format!(
                "Before is the model that was given, after the folder that was written, opened again. Denoising error: \
                 mean squared error of the predicted noise, a value, over {} timesteps, one in each of as many equal \
                 parts of the schedule, and noises that all images share. The controls are retained images: they \
                 show what the model knows and keeps, not what an unseen image would score.",
                self.probe.plan.draws
            ),
            columns: vec!["before".into(), "after".into()],
            rows: vec![
                row(
                    "Attempts that restored a forgotten image",
                    "lower is better",
                    pair(&|n| (n.restored as f64, n.distances.len())),
                ),
                row(
                    "Samples that show a forgotten image",
                    "lower is better",
                    pair(&|n| (n.copies as f64, n.samples)),
                ),
                row(
                    "Denoising error, forgotten",
                    "higher: less well known; far above the controls: avoided",
                    pair(&|n| mean(&n.forgotten_errors)),
                ),
                row(
                    "Denoising error, retained controls",
                    "should stay as it was",
                    pair(&|n| mean(&n.control_errors)),
                ),
            ],
        }
    }

    fn errors(&self, after: &Numbers) -> DotChart {
        let row = |name: &str, kind, values: &[f64]| DotRow {
            name: name.into(),
            kind,
            values: values.iter().copied().filter(|v| v.is_finite()).collect(),
        };
        let before = &self.before.numbers;
        DotChart {
            title: "Denoising error, image by image".into(),
            note: "A well known image is denoised with a small error. Far to the right of all controls, an image is \
                   avoided."
                .into(),
            x: Axis::log("mean squared error of the noise, a value"),
            rows: vec![
                row("forgotten, before", Kind::Before, &before.forgotten_errors),
                row("forgotten, after", Kind::After, &after.forgotten_errors),
                row("retained controls, before", Kind::Control, &before.control_errors),
                row("retained controls, after", Kind::Control, &after.control_errors),
            ],
            marks: Vec::new(),
        }
    }

    fn neighbors(&self) -> Option<Neighbors> {
        let found = self.run.neighbors?;
        let split = self.run.split;
        let place = |row: usize| split.forget.binary_search(&row).ok();
        let groups: Vec<NeighborGroup> = self
            .probe
            .forgotten
            .rows
            .iter()
            .take(64)
            .filter_map(|&row| Some((row, &found[place(row)?])))
            .map(|(of, found)| NeighborGroup {
                of,
                rows: found.iter().map(|one| one.row).collect(),
                distances: found
                    .iter()
                    .map(|one| (one.distance_squared as f64).sqrt() / 255.0)
                    .collect(),
            })
            .collect();
        let left_out = self.probe.forgotten.len() - groups.len();
        let mut note = "The retained images that are nearest to each forgotten one: its noisy form is led to them \
                        instead. Rows count from 0 in the order of the data set."
            .to_string();
        if left_out > 0 {
            note.push_str(&format!(
                " The first 64 are listed; {left_out} more are left out."
            ));
        }
        if !self.run.args.show_forgotten {
            note.push_str(
                " Being the images most like the forgotten one, they are not shown without --show-forgotten.",
            );
        }
        Some(Neighbors {
            note,
            groups,
            picture: None,
        })
    }

    fn cost(&self, events: &[Value], run: &RunFolder) -> Vec<Fact> {
        let settings = self.run.settings;
        let seconds: f64 = events
            .iter()
            .filter_map(|event| event["seconds"].as_f64())
            .sum();
        let draws = settings.objective().draws();
        let streams = usize::from(draws.retain) + usize::from(draws.forget);
        let mut facts = vec![
            Fact::new("Steps", format!("{} in {seconds:.1} s", settings.steps)),
            Fact::new(
                "Images trained on",
                format!(
                    "{} ({streams} x {} x {} a step)",
                    settings.steps * settings.batch_size * settings.accumulate * streams,
                    settings.batch_size,
                    settings.accumulate
                ),
            ),
            Fact::new(
                "This evidence",
                match run.spent().resumptions {
                    0 => format!("{:.1} s", self.seconds),
                    _ => format!("{:.1} s since the run was resumed last", self.seconds),
                },
            ),
            Fact::new("Until the report", format!("{:.1} s", run.seconds())),
        ];
        let Spent {
            resumptions,
            repeated_steps,
            ..
        } = run.spent();
        if resumptions > 0 {
            facts.push(Fact::new(
                "Resumed",
                format!(
                    "{}; {} taken again. The seconds of the steps are those of the steps that count; the time until \
                     the report is that of all parts",
                    counted(resumptions, "time"),
                    counted(repeated_steps, "step"),
                ),
            ));
        }
        if let Some(bytes) = peak_memory_bytes() {
            facts.push(Fact::new(
                "Peak memory",
                format!("{:.0} MB", bytes as f64 / 1e6),
            ));
        }
        facts
    }

    fn provenance(
        &self,
        staged: &Path,
        folder: &Path,
        weights: &WeightFacts,
    ) -> Result<Provenance, Failure> {
        let run = self.run;
        let mut files = Vec::new();
        if let Some(Value::Object(inputs)) = run.config.get("weights_sha256") {
            files.extend(inputs.iter().map(|(path, digest)| FileDigest {
                role: Role::Input,
                path: path.clone(),
                sha256: digest.as_str().unwrap_or_default().into(),
            }));
        }
        files.extend(output_files(staged, &output_paths(staged)?)?);
        files.extend(record_files(folder)?);
        let mut facts = vec![
            Fact::new("Version", format!("retrack {}", env!("CARGO_PKG_VERSION"))),
            Fact::new("Seed", run.settings.seed),
            Fact::new("Data set, SHA-256", run.data.digest()?),
            Fact::new("Weights", weights.sentence()),
        ];
        facts.extend(machine(&run.args.device));
        let mut configuration = run.config.clone();
        if let Value::Object(keys) = &mut configuration {
            // Who guesses a prompt could test it.
            keys.remove("prompts_digest");
        }
        Ok(Provenance {
            facts,
            files,
            configuration,
        })
    }
}

impl Evidence<'_> {
    /// Looks at the network after `step` steps, and after the last one at the folder that `deliver` makes of it and
    /// opens again. Returns what belongs into the step's record.
    ///
    /// # Errors
    /// Data that cannot be read, a network that does not fit, what `deliver` returns.
    pub fn look(
        &mut self,
        trainer: &Trainer,
        log: &mut EventLog,
        deliver: &mut dyn FnMut(&Network) -> Result<Reopened, Failure>,
    ) -> Result<Vec<(&'static str, f64)>, Failure> {
        let (step, network) = (trainer.step, trainer.network());
        let start = Instant::now();
        if step == 0
            && let Some(png) = self.picture(&self.before)?
        {
            log.picture(0, "samples", &png)?;
        }
        let mut errors = None;
        if step == self.run.settings.steps && self.after.is_none() {
            let written = deliver(network)?;
            progress::note("looking at the folder that was written");
            let after = self.probe.measure(&*written.network)?;
            if let Some(png) = self.picture(&after)? {
                log.picture(step, "samples", &png)?;
            }
            errors = Some(after.numbers.mean_errors());
            self.after = Some((after, written.weights));
        } else if step > 0 && step.is_multiple_of(self.every) {
            errors = Some(self.probe.glance(&*network.valid())?);
        }
        self.seconds += start.elapsed().as_secs_f64();
        Ok(errors.map_or_else(Vec::new, |[forgotten, retained]| {
            vec![("forgotten_error", forgotten), ("retained_error", retained)]
        }))
    }
}

fn findings(before: &Numbers, after: &Numbers, several: bool) -> Findings {
    let tally = |found, of| Tally { found, of };
    let mean = retrack_eval::distance::mean;
    let mut quality = Vec::new();
    // Of an image model something was drawn, whatever became of it.
    let drawn = |of: &dyn Fn(&Numbers) -> usize| of(before) + of(after) > 0;
    let attempts = drawn(&|numbers| numbers.distances.len());
    let samples = drawn(&|numbers| numbers.samples);
    if !samples && !drawn(&|numbers| numbers.broken) {
        let image = if several {
            "Forgotten images are"
        } else {
            "The forgotten image is"
        };
        quality.push(format!(
            "{image} denoised with an error of {:.4} before and {:.4} after. Nothing was drawn for this report: \
             `retrack evaluate` does that.",
            mean(&before.forgotten_errors),
            mean(&after.forgotten_errors)
        ));
    }
    Findings {
        several,
        restored: attempts.then(|| {
            (
                Some(tally(before.restored, before.distances.len())),
                tally(after.restored, after.distances.len()),
            )
        }),
        copies: samples.then(|| {
            (
                Some(tally(before.copies, before.samples)),
                tally(after.copies, after.samples),
            )
        }),
        errors: Some((after.forgotten_errors.clone(), after.control_errors.clone())),
        not_finite: [before.not_finite(), after.not_finite()],
        retained: (!before.control_errors.is_empty())
            .then(|| [mean(&before.control_errors), mean(&after.control_errors)]),
        quality,
        ..Findings::default()
    }
}
