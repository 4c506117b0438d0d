//! The scores of a run, measured again on both models as they lie in their folders.

use std::cell::OnceCell;
use std::path::Path;

use burn::tensor::Device;
use retrack_checkpoint::folder::ModelFolder;
use retrack_data::{Dataset, Split};
use retrack_eval::report::Report;
use retrack_networks::denoiser::Denoiser;
use retrack_networks::diffusion::{Condition, Diffusion};
use retrack_networks::random::Random;
use retrack_networks::schedule::SchedulerConfig;
use retrack_unlearn::images::Images;
use retrack_unlearn::recipe::Recipe;
use serde::Deserialize;

use super::{Verification, forgotten, split};
use crate::calibration::{self, LookAlikes, Pictures, Purpose, Record, with_first};
use crate::encoded::encode;
use crate::evidence::{self, CONTENT, Check, Evidence, Measurement, Probe, RowTexts, read_events};
use crate::failure::Failure;
use crate::reopened::{self, Base, Reopened, WeightFacts};
use crate::situation::{self, Situation};
use crate::source::DataSource;
use crate::task::Task;
use crate::{model, opened, progress};

/// The scores, measured again on both models as they lie in their folders.
pub(super) struct Again<'a> {
    /// As it is called.
    pub device_name: &'a str,
    /// Of this version, which would write it again in the same words.
    pub report: Option<&'a Report>,
    pub check: &'a Check,
    /// The model's before.
    pub folder: &'a ModelFolder,
    pub data: &'a Dataset,
    pub out: &'a Path,
    /// The run's own folder.
    pub run: &'a Path,
    pub device: &'a Device,
}

impl Again<'_> {
    /// Measures the model before and the model after. `texts`: those that the measured images had, of a network that is
    /// told any; `adapted`: an adapter was trained.
    pub(super) fn model(
        &self,
        base: &dyn Diffusion,
        texts: Option<&RowTexts>,
        adapted: bool,
        found: &mut Verification,
    ) -> Result<(), Failure> {
        let device = self.device.clone().without_autodiff();
        let plan = &self.check.plan;
        let check = self.check;
        let measured = [
            &check.forget_rows,
            &check.earlier_rows,
            &plan.controls,
            &plan.kept,
        ];
        let measured: Vec<usize> = match texts {
            Some(texts) => texts.keys().copied().collect(),
            None => measured.into_iter().flatten().copied().collect(),
        };
        // Those beyond the data are reported below.
        let there = measured.into_iter().filter(|&row| row < self.data.len());
        let there: Vec<usize> = there.collect();
        model::check_labels(self.data, &there, &base.denoiser().config)?;
        let (known, of_row) = numbered(texts, self.data.len());
        let told = match texts {
            Some(_) => Some(opened::embed(base, &known, &device)?),
            None => None,
        };
        let random = Random::new(self.check.plan.seed);
        let purposes: &[Purpose] = match plan.look_alikes {
            true => &[Purpose::Report],
            false => &[],
        };
        let forgotten = check.forget_rows.iter().chain(&check.earlier_rows).copied();
        let forgotten: Vec<usize> = forgotten.filter(|&row| row < self.data.len()).collect();
        let first = plan.first.iter().filter(|row| forgotten.contains(row));
        let forgotten = with_first(&first.copied().collect::<Vec<_>>(), &forgotten);
        let kept = plan.kept.iter().copied();
        let kept = kept.filter(|&row| row < self.data.len());
        let pictures = Pictures::read(self.data, &forgotten, kept.collect(), purposes, plan.seed)?;
        let pictures = pictures.without_mirrors_of(&self.check.mirrored_rows);
        let (latents, look_alikes) =
            encode(base, self.data, &there, of_row, random, pictures, &device)?;
        let written = || {
            let base = Base {
                model: base,
                adapted,
                texts: told.as_ref(),
            };
            reopened::reopen(&base, self.out, None, &device)
        };
        let mut network = base.network(&device)?;
        if let Some(told) = &told {
            network.tell(told.clone());
        }
        let images: &dyn Images = match &latents {
            Some(latents) => latents,
            None => self.data,
        };
        let labels = base.condition() != Condition::Nothing;
        let scheduler = base.scheduler();
        self.measure(
            &*network,
            written,
            (images, &look_alikes, texts),
            scheduler,
            labels,
            found,
        )
    }

    /// `written`: opens what the run made. A file that was tampered with may be no model any more. `texts`: those that
    /// the images have, where they need any.
    fn measure(
        &self,
        base: &dyn Denoiser,
        written: impl FnOnce() -> Result<Reopened, Failure>,
        (images, look_alikes, texts): (&dyn Images, &LookAlikes, Option<&RowTexts>),
        scheduler: &SchedulerConfig,
        labels: bool,
        found: &mut Verification,
    ) -> Result<(), Failure> {
        let split = split(self.check, self.data)?;
        let forgotten = forgotten(self.check, self.data, &split)?;
        let forgotten = forgotten.with_first(&self.check.plan.first);
        let plan = &self.check.plan;
        if plan.controls.iter().any(|&row| row >= self.data.len()) {
            found.differs("the controls' rows are not in the data set");
            return Ok(());
        }
        let probe = Probe {
            plan: plan.clone(),
            forgotten: &forgotten,
            images,
            look_alikes,
            scheduler,
            device: self.device.clone().without_autodiff(),
            labels,
            ordinary: OnceCell::new(),
        };
        let rows = probe.looked_at().concat();
        if texts.is_some_and(|texts| rows.iter().any(|row| !texts.contains_key(row))) {
            found.differs("images were measured whose texts were not kept");
            return Ok(());
        }
        progress::note("measuring the model before again");
        let stage = progress::stage(1, 2);
        let before = probe.measure(base)?;
        drop(stage);
        found.numbers("before", &self.check.before, &before.numbers);
        found.measured.before = Some(before.numbers.clone());
        let after = written().and_then(|written| {
            progress::note("measuring the model after again");
            let _stage = progress::stage(2, 2);
            Ok((probe.measure(&*written.network)?, written.weights))
        });
        match after {
            Ok((after, weights)) => {
                found.numbers("after", &self.check.after, &after.numbers);
                found.measured.after = Some(after.numbers.clone());
                self.weights(&weights, found);
                found.measured.weights = Some(weights.clone());
                let text_to_image = texts.is_some();
                self.page(&split, probe, text_to_image, [before, after], found)?;
            }
            Err(failure) if failure.code == 2 => found.differs(failure.message),
            Err(failure) => return Err(failure),
        }
        Ok(())
    }

    /// Makes the parts of the report again that follow from its numbers and from what both models draw.
    fn page(
        &self,
        split: &Split,
        probe: Probe,
        text_to_image: bool,
        measured: [Measurement; 2],
        found: &mut Verification,
    ) -> Result<(), Failure> {
        let Some(report) = self.report else {
            return Ok(());
        };
        let config = &report.provenance.configuration;
        let Ok(settings) = Recipe::deserialize(&config["settings"]) else {
            found.differs(format!(
                "run/{CONTENT}: its configuration has no settings that make sense"
            ));
            return Ok(());
        };
        let calibrated = self.run.join(calibration::FILE).is_file();
        let record = calibrated.then(|| Record::read(self.run)).transpose()?;
        let settings = match &record {
            // What they came to.
            Some(record) => record.came_to(&settings),
            None => settings,
        };
        let check = self.check;
        let shown = ["forgotten", "restored"];
        let args = Task {
            show_forgotten: shown.iter().any(|name| report.pictures.contains_key(*name)),
            no_calibrate: !calibrated,
            ..Task::new(
                &check.model,
                &DataSource::at(&check.data),
                "",
                self.out,
                self.device_name,
            )
        };
        let run = evidence::Run {
            args: &args,
            settings: &settings,
            folder: self.folder,
            scheduler: probe.scheduler,
            images: probe.images,
            look_alikes: probe.look_alikes,
            labels: probe.labels,
            text_to_image,
            texts: None,
            private: None,
            data: self.data,
            first: &self.check.plan.first,
            found_known: record.map(|record| record.known(&check.forget_rows)),
            ordinary: None,
            led: &check.plan.led,
            split,
            neighbors: None,
            config,
        };
        // What is measured again was compared; the report speaks of what was recorded.
        let [before, after] = measured;
        let before = Measurement {
            numbers: check.before.clone(),
            ..before
        };
        let after = Measurement {
            numbers: check.after.clone(),
            ..after
        };
        let events = self.run.join("events.jsonl");
        let events = match events.is_file() {
            true => read_events(&events)?,
            false => Vec::new(),
        };
        let evidence = Evidence::again(&run, probe, before);
        let weights = check.weights.as_ref();
        let advised = situation::advised_by_runs(Situation::Diverged);
        let differences = evidence.differences(report, &after, weights, &events, &advised)?;
        found.compared += 1 + report.pictures.len();
        found.differences.extend(differences);
        Ok(())
    }

    /// Compares what needs no image: how many weights of the written model are not the base's. `adapted`: as above.
    pub(super) fn weights_alone(
        &self,
        base: &dyn Diffusion,
        adapted: bool,
        found: &mut Verification,
    ) -> Result<(), Failure> {
        let base = Base {
            model: base,
            adapted,
            texts: None,
        };
        match reopened::reopen(&base, self.out, None, self.device) {
            Ok(written) => {
                self.weights(&written.weights, found);
                found.measured.weights = Some(written.weights);
            }
            Err(failure) if failure.code == 2 => found.differs(failure.message),
            Err(failure) => return Err(failure),
        }
        Ok(())
    }

    fn weights(&self, now: &WeightFacts, found: &mut Verification) {
        let Some(then) = &self.check.weights else {
            return;
        };
        let count = |of: &WeightFacts| format!("{} of {}", of.changed, of.count);
        found.equal("weights that are not the base's", &count(then), &count(now));
        found.equal("the weights' type", &then.dtype, &now.dtype);
    }
}

/// Different texts, and the number of each row's; all 0 where none are given.
fn numbered(texts: Option<&RowTexts>, rows: usize) -> (Vec<&str>, Vec<i64>) {
    let mut known: Vec<&str> = Vec::new();
    let mut of_row = vec![0; rows];
    for (&row, text) in texts.into_iter().flatten() {
        let number = known.iter().position(|known| known == text);
        let number = number.unwrap_or_else(|| {
            known.push(text);
            known.len() - 1
        });
        if let Some(place) = of_row.get_mut(row) {
            *place = number as i64;
        }
    }
    (known, of_row)
}
