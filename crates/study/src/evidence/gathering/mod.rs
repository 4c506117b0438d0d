//! The evidence of an unlearning run: looked for before, now and then on the way, and after.

mod again;
mod findings;
mod parts;
mod shown;

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use burn::module::Module;
use burn::tensor::Device;
use retrack_checkpoint::folder::ModelFolder;
use retrack_checkpoint::words::counted;
use retrack_data::neighbors::Neighbor;
use retrack_data::{Dataset, NearCopy, Split};
use retrack_eval::report::{FORMAT, Report, Verdict};
use retrack_networks::network::Network;
use retrack_networks::schedule::SchedulerConfig;
use retrack_unlearn::images::Images;
use retrack_unlearn::recipe::Recipe;
use retrack_unlearn::texts::Texts;
use retrack_unlearn::trainer::Trainer;
use serde_json::Value;

pub use self::again::alike;
use self::findings::findings;
use super::advice::Advice;
use super::check::rest_digests;
use super::curves::read_events;
use super::forgotten::Forgotten;
use super::machine_facts::now;
use super::probe::{Measurement, Numbers, Plan, Probe};
use super::verdict::Findings;
use super::{Check, Private, RowTexts, card};
use crate::calibration::{LookAlikes, Ordinary, ROUND};
use crate::failure::Failure;
use crate::progress;
use crate::reopened::{Reopened, WeightFacts};
use crate::run::{EventLog, RunFolder};
use crate::task::Task;

/// What a run is about.
#[derive(Clone, Copy)]
pub struct Run<'a> {
    /// What was asked.
    pub args: &'a Task,
    /// The recipe.
    pub settings: &'a Recipe,
    /// The model's.
    pub folder: &'a ModelFolder,
    /// The model's schedule.
    pub scheduler: &'a SchedulerConfig,
    /// What the network sees of the data set.
    pub images: &'a dyn Images,
    /// What it sees of look-alikes of the forgotten ones.
    pub look_alikes: &'a LookAlikes<'a>,
    /// The network has classes or texts.
    pub labels: bool,
    /// A text-to-image model: it is looked at without drawing.
    pub text_to_image: bool,
    /// Its images' texts.
    pub texts: Option<&'a Texts>,
    /// What stays outside of the folder; not of a run that is looked at again.
    pub private: Option<&'a Private>,
    /// The images.
    pub data: &'a Dataset,
    /// Forgotten rows that are looked at before all others.
    pub first: &'a [usize],
    /// How many of the images the run's calibration, where it has one, found known by the model of before, and of how many: by
    /// other look-alikes and noise than the report's.
    pub found_known: Option<[usize; 2]>,
    /// What that found ordinary among retained images, as the report would.
    pub ordinary: Option<Ordinary>,
    /// Of images that earlier requests led, by row: the mean logarithm of their error before and after.
    pub led: &'a BTreeMap<usize, [f64; 2]>,
    /// The forgotten and the retained rows.
    pub split: &'a Split,
    /// Of each forgotten row, where the method has any.
    pub neighbors: Option<&'a [Vec<Neighbor>]>,
    /// As `run/config.json` holds it.
    pub config: &'a Value,
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
        // A calibrated run mostly ends after its first round.
        let steps = match run.found_known {
            Some(_) => settings.steps.min(ROUND),
            None => settings.steps,
        };
        // A step runs two streams of images forward and backward, and backward is worth two forward.
        let work = steps * settings.batch_size * settings.accumulate * 6;
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
        let plan = Plan {
            first: run.first.to_vec(),
            kept: run.look_alikes.kept.iter().map(|kept| kept.row).collect(),
            led: run.led.clone(),
            ..plan
        };
        let probe = Probe {
            plan,
            forgotten,
            images: run.images,
            look_alikes: run.look_alikes,
            scheduler: run.scheduler,
            device: device.clone().without_autodiff(),
            labels: run.labels,
            ordinary: run.ordinary.map_or_else(OnceCell::new, OnceCell::from),
        };
        let network = network.valid();
        let (probe, before) = probe.begin(&*network)?;
        Ok(Self {
            run,
            every: steps.div_ceil(probe.plan.glances(work)).max(1),
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
    ///
    /// `about`: the run with the settings that it came to.
    pub fn finish(
        mut self,
        about: &'a Run<'a>,
        staged: &Path,
        run: &RunFolder,
    ) -> Result<Report, Failure> {
        self.run = about;
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
            resize: self.run.data.resize(),
            data_digest: self.run.data.digest()?,
            rest_digests: rest_digests(self.run.data, self.run.split)?,
            forget_rows: self.run.split.forget.clone(),
            earlier_rows: self.run.split.earlier.clone(),
            earlier_near_rows: rows_of(&self.run.split.earlier_near),
            near_rows: rows_of(&self.run.split.near),
            near_count: true,
            mirrored_rows: self.run.split.mirrored(),
            retains_near: self.run.split.retains_near(),
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
            curves: self.curves(&events, &after.numbers),
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
        let images = self.probe.forgotten.len();
        let mut findings = Findings {
            advice: Advice::of_unlearning(self.run.args, self.run.settings),
            found_known: self.run.found_known.map(|[known, _]| known > 0),
            ..findings(
                &self.before.numbers,
                after,
                images,
                // As the run had them: whoever verifies it may put back others.
                self.run.config.get("sealed_rows").is_some(),
            )
        };
        findings
            .doubts
            .extend(weights.and_then(WeightFacts::reservation));
        findings.verdict()
    }

    /// What the tests of the written folder come to, in a line; nothing before they were made.
    pub fn headline(&self) -> Option<String> {
        let (after, weights) = self.after.as_ref()?;
        Some(self.verdict(&after.numbers, Some(weights)).headline)
    }

    /// Puts the texts of the measured images where the key is. Returns their keyed digest.
    fn keep_texts(&self) -> Result<Option<String>, Failure> {
        let (Some(texts), Some(private)) = (self.run.texts, self.run.private) else {
            return Ok(None);
        };
        let rows = self.probe.looked_at().concat().into_iter();
        let rows = rows.chain(self.probe.plan.kept.iter().copied());
        let rows = rows.chain(self.run.split.earlier.iter().copied());
        let text = |row: usize| texts.known[texts.of_row[row] as usize].clone();
        let of_rows: RowTexts = rows.map(|row| (row, text(row))).collect();
        private.keep(&of_rows).map(Some)
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
        is_last: bool,
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
        if is_last && self.after.is_none() {
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

fn rows_of(near: &[NearCopy]) -> Vec<usize> {
    near.iter().map(|near| near.row).collect()
}
