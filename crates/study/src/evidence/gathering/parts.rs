//! The parts of an unlearning run's report that are words and numbers.

use std::path::Path;

use retrack_checkpoint::words::counted;
use retrack_eval::report::*;
use serde_json::Value;

use super::Evidence;
use crate::calibration::{Standing, TABLE};
use crate::evidence::curves::curves;
use crate::evidence::files::{output_files, output_paths, record_files};
use crate::evidence::machine_facts::{machine, peak_memory_bytes};
use crate::evidence::probe::Numbers;
use crate::evidence::{card, selected};
use crate::failure::Failure;
use crate::near_copies;
use crate::reopened::WeightFacts;
use crate::run::{RunFolder, Spent};
use crate::settings;

impl Evidence<'_> {
    /// How many images leave and how many stay.
    pub(super) fn counts(&self) -> Vec<Fact> {
        let split = self.run.split;
        let earlier = (!split.earlier.is_empty()).then(|| {
            let rows = counted(split.earlier.len(), "row");
            Fact::new("Forgotten by earlier requests and kept out", rows)
        });
        let counts = [
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
            Fact::new("Near copies", near_copies::fact(split)),
        ];
        counts.into_iter().chain(earlier).collect()
    }

    /// What happened along the process, and over the steps.
    pub(super) fn curves(&self, events: &[Value], after: &Numbers) -> Vec<LineChart> {
        let before = &self.before.numbers;
        let steps = curves(events, before.mean_errors());
        let [before_each, after_each] = [before, after].map(|numbers| {
            let standings = &numbers.standings;
            &standings[..self.probe.forgotten.len().min(standings.len())]
        });
        profile(before_each, after_each)
            .into_iter()
            .chain(steps)
            .collect()
    }

    pub(super) fn request(&self) -> Result<Request, Failure> {
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
        if let Some(texts) = run.texts.filter(|_| run.args.show_forgotten) {
            let prompts = texts.of(&split.forget).join("\n");
            facts.push(Fact::new("Prompts of the forgotten", prompts));
        }
        facts.push(Fact::new("Model", run.args.model.display()));
        let size = run.data.shape();
        let resized = match run.data.resize() {
            None => String::new(),
            Some(resize) => format!(
                ", {} of them resized to {} x {}, {}",
                run.data.lossy()?.resized,
                size.height,
                size.width,
                resize.interpolation
            ),
        };
        facts.push(Fact::new(
            "Data set",
            format!(
                "{} ({}, {}{resized})",
                run.args.data.path.display(),
                run.data.kind(),
                counted(run.data.len(), "image")
            ),
        ));
        facts.push(Fact::new("Method", card::method_name(run.settings)));
        let shape = run.data.shape();
        let source = settings::source(run.args, run.text_to_image, shape.height, shape.width);
        facts.push(Fact::new("Settings", source));
        if let Some([known, of]) = run.found_known.filter(|_| !run.first.is_empty()) {
            facts.push(Fact::new(
                "Known by the model before",
                format!("{known} of {of} distinct images; {TABLE} beside this page lists them all"),
            ));
        }
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
    pub(super) fn scores(&self, after: &Numbers) -> MetricTable {
        let before = &self.before.numbers;
        let pair = |of: &dyn Fn(&Numbers) -> (f64, usize)| {
            [before, after].map(|numbers| {
                let (value, count) = of(numbers);
                (count > 0 && value.is_finite()).then_some(MetricValue {
                    at_least: false,
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

    pub(super) fn errors(&self, after: &Numbers) -> DotChart {
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

    pub(super) fn neighbors(&self) -> Option<Neighbors> {
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

    pub(super) fn cost(&self, events: &[Value], run: &RunFolder) -> Vec<Fact> {
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

    pub(super) fn provenance(
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

/// How the forgotten images are denoised along the process, beside look-alikes that nobody has.
fn profile(before: &[Standing], after: &[Standing]) -> Option<LineChart> {
    let parts = before.first()?.profile.len();
    // Of several images the geometric mean.
    let series = |name: &str, standings: &[Standing], error: &dyn Fn(&Standing, usize) -> f64| {
        let point = |part: usize| {
            let logs: Vec<f64> = standings.iter().map(|one| error(one, part).ln()).collect();
            let middle = (part as f64 + 0.5) / parts as f64;
            [middle, retrack_eval::distance::mean(&logs).exp()]
        };
        let points = (0..parts).map(point);
        Series {
            name: name.into(),
            points: points.filter(|[_, error]| error.is_finite()).collect(),
        }
    };
    Some(LineChart {
        title: "Denoising error along the process".into(),
        note: "From the images (0) to pure noise (1), in tenths. Look-alikes are the forgotten image, turned, moved, scaled \
               and lightened a little: what the model of before makes of them is what it makes of an image that it does \
               not know. Above their highest the image is avoided, below their lowest it is known."
            .into(),
        x: Axis::linear("share of the process"),
        y: Axis::log("mean squared error of the noise, a value"),
        series: vec![
            series("forgotten, before", before, &|one, part| one.profile[part]),
            series("forgotten, after", after, &|one, part| one.profile[part]),
            series("look-alikes", before, &|one, part| one.levels[part][0]),
            series("the lowest of them", before, &|one, part| one.levels[part][1]),
            series("the highest of them", before, &|one, part| one.levels[part][2]),
        ],
    })
}
