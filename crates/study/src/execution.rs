//! An unlearning run from its first step to its last file, whatever kind of network it trains.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use crate::run::{EventLog, RunFolder};
use burn::module::Module;
use burn::tensor::Device;
use retrack_checkpoint::chain::{self, Chain, Request};
use retrack_checkpoint::folder::ModelFolder;
use retrack_checkpoint::words::counted;
use retrack_checkpoint::written::Command;
use retrack_data::{BUDGET, Split};
use retrack_eval::report::Report;
use retrack_networks::lora;
use retrack_networks::network::Network;
use retrack_networks::random::Random;
use retrack_unlearn::feed::{BatchSize, Feed};
use retrack_unlearn::objective::Pass;
use retrack_unlearn::optimizer::{AdamW, LearningRate};
use retrack_unlearn::recipe::Recipe;
use retrack_unlearn::trainer::{StepReport, Trainer};
use retrack_unlearn::watch::RetainedWatch;
use serde_json::{Value, json};

use crate::calibration::{Calibrated, Context, REPORTED, Record, Requests, Viewer};
use crate::chain::{Earlier, Past};
use crate::delivery::Delivery;
use crate::evidence::{self, Evidence, Forgotten, Rule};
use crate::failure::Failure;
use crate::observer::Observer;
use crate::progress;
use crate::session::{Course, Look, Session, Steps, Unobserved, keep};
use crate::situation::{self, Situation};
use crate::space::{self, Needs};
use crate::task::Task;

/// A run whose data is read and whose folder has begun.
pub struct Unlearning<'a> {
    /// The run.
    pub about: &'a evidence::Run<'a>,
    /// Its output folder.
    pub folder: &'a RunFolder,
    /// Where it is computed.
    pub device: &'a Device,
    /// It goes on until the forgotten images are known no better and no worse than their look-alikes.
    pub calibrates: bool,
    /// The requests that made the model, to which this one is added.
    pub past: &'a Past,
    /// What lies in the data of images that these forgot.
    pub earlier: &'a Earlier,
}

/// Evidence that sees the written folder after the last step.
struct Delivering<'a, 'b> {
    evidence: &'a mut Evidence<'b>,
    delivery: &'a Delivery<'a>,
    folder: &'a RunFolder,
}

impl Look for Delivering<'_, '_> {
    fn look(
        &mut self,
        trainer: &Trainer,
        is_last: bool,
        log: &mut EventLog,
    ) -> Result<Vec<(&'static str, f64)>, Failure> {
        let (delivery, folder) = (self.delivery, self.folder);
        let mut deliver = |network: &Network| {
            let staged = folder.staging()?;
            let writing = progress::activity("writing the model");
            delivery.write(network, &staged)?;
            drop(writing);
            delivery.reopen(network, &staged)
        };
        self.evidence.look(trainer, is_last, log, &mut deliver)
    }
}

/// What a run came to.
pub struct Summary {
    /// For people.
    pub text: String,
    /// For programs.
    pub json: Value,
    /// What the run took, in all its parts.
    pub seconds: f64,
    /// The rows that were selected.
    pub forget: Vec<usize>,
    /// What `run/report.json` holds, unless `--no-report`.
    pub report: Option<Report>,
}

impl Unlearning<'_> {
    /// Takes the steps that are left, and puts model, report and card in their place.
    ///
    /// # Errors
    /// Data that cannot be read, a step that did not happen, a signal, files that cannot be written.
    pub fn run(
        self,
        network: Network,
        delivery: &Delivery,
        observer: &mut dyn Observer,
    ) -> Result<Summary, Failure> {
        let Self { about, device, .. } = self;
        let evidence::Run {
            args,
            settings,
            split,
            ..
        } = *about;
        let process = about.scheduler.process();
        let size = BatchSize {
            images: settings.batch_size,
            accumulate: settings.accumulate,
        };
        let viewer = self.calibrates.then(|| {
            Viewer::new(
                about.look_alikes,
                about.images,
                about.labels,
                &split.retain,
                Context {
                    process: process.clone(),
                    device: device.clone().without_autodiff(),
                    batch_size: settings.batch_size.clamp(1, 64),
                    seed: settings.seed,
                },
            )
        });
        let mut calibrated = match &viewer {
            Some(viewer) => Some(Calibrated::begin(
                viewer,
                &*network.valid(),
                self.folder.folder(),
                Requests {
                    always: match args.always {
                        true => requested(viewer, split),
                        false => 0,
                    },
                    led: &self.earlier.led,
                    damage: self.past.damage(),
                },
            )?),
            None => None,
        };
        let first = match &calibrated {
            Some(calibrated) if calibrated.record.rows.len() > REPORTED => {
                let record = &calibrated.record;
                let rows = record.worst_first().into_iter();
                let mut rows: Vec<usize> = rows.map(|image| record.rows[image]).collect();
                // A report is about what was requested; images of earlier requests come behind it.
                rows.retain(|row| split.forget.binary_search(row).is_ok());
                rows.truncate(REPORTED);
                rows
            }
            _ => Vec::new(),
        };
        let ordered = match first.is_empty() || args.no_report {
            true => None,
            false => about.look_alikes.reported_first(&first)?,
        };
        let known = calibrated.as_ref();
        let looked_at = evidence::Run {
            found_known: known.map(|calibrated| calibrated.record.known(&split.forget)),
            ordinary: known.and_then(|calibrated| calibrated.ordinary),
            ..*about
        };
        let looked_at = match &ordered {
            Some(look_alikes) => evidence::Run {
                look_alikes,
                first: &first,
                ..looked_at
            },
            None => looked_at,
        };
        let forgotten = match args.no_report {
            true => None,
            false => {
                Some(Forgotten::new(about.data, split, Rule::Half)?.with_first(looked_at.first))
            }
        };
        let mut evidence = match &forgotten {
            Some(forgotten) => Some(Evidence::begin(&looked_at, forgotten, &network, device)?),
            None => None,
        };
        let forget = match &calibrated {
            Some(calibrated) => {
                progress::note(calibrated.outlook());
                calibrated.rows()
            }
            None => split.forget.clone(),
        };
        let private = about.private.expect("every run has a key");
        let is_earlier = |row: &&usize| split.earlier.binary_search(row).is_ok();
        let again: Vec<usize> = forget.iter().filter(is_earlier).copied().collect();
        let again = private.key.distinct(about.data, &again, BUDGET)?;
        if calibrated.is_some() && self.earlier.images > 0 {
            progress::note(match again.len() {
                0 => "no image of an earlier request had come back".to_owned(),
                some => format!(
                    "{} of earlier requests had come back and will be forgotten again",
                    counted(some, "image")
                ),
            });
        }
        let mut feed = Feed::new(
            about.images,
            &split.retain,
            &forget,
            Random::new(settings.seed),
            size,
            process.clone(),
            about.labels,
        );
        let neighbors: Option<HashMap<usize, Vec<usize>>> = about.neighbors.map(|found| {
            let found = split.leaving().into_iter().zip(found);
            found
                .map(|(row, found)| (row, found.iter().map(|one| one.row).collect()))
                .collect()
        });
        if let Some(neighbors) = &neighbors {
            feed = feed.with_neighbors(neighbors);
        }
        let with_autodiff = device.clone().autodiff();
        let objective = match &mut calibrated {
            Some(calibrated) => {
                let pass = Pass {
                    network: &*network,
                    process: &*process,
                    device: &with_autodiff,
                    dropout: None,
                };
                calibrated.objective(&pass, &feed, settings.learning_rate)?
            }
            None => settings.objective(),
        };
        let mut trainer = Trainer::new(
            network,
            process,
            with_autodiff,
            objective,
            AdamW::new(settings.adamw.clone()),
            LearningRate::Constant {
                rate: settings.learning_rate,
            },
        );
        let session = Session {
            run: self.folder,
            title: "unlearning",
            steps: calibrated
                .as_ref()
                .map_or(settings.steps, Calibrated::steps),
            checkpoint_every: args.checkpoint_every,
        };
        if args.resume {
            session.resume(&mut trainer, &settings.adamw, None)?;
        }
        let watch = RetainedWatch::begin(&mut trainer, &feed)?;
        let mut fixed = Steps(settings.steps);
        let course: &mut dyn Course = match &mut calibrated {
            Some(calibrated) => calibrated,
            None => &mut fixed,
        };
        let last = match &mut evidence {
            Some(evidence) => {
                let mut look = Delivering {
                    evidence,
                    delivery,
                    folder: self.folder,
                };
                session.train(&mut trainer, &feed, course, watch, &mut look, observer)?
            }
            None => {
                let last = session.train(
                    &mut trainer,
                    &feed,
                    course,
                    watch,
                    &mut Unobserved,
                    observer,
                )?;
                let staged = self.folder.staging()?;
                let _writing = progress::activity("writing the model");
                delivery
                    .write(trainer.network(), &staged)
                    .inspect_err(|_| keep(&trainer, self.folder))?;
                last
            }
        };
        let settings = &match &calibrated {
            Some(calibrated) => calibrated.record.taken(settings, trainer.step),
            None => settings.clone(),
        };
        drop(trainer);
        let staged = self.folder.staged();
        let about = &evidence::Run {
            settings,
            ..looked_at
        };
        let came_back = self.calibrates.then_some(again.len());
        let record = calibrated.as_ref().map(|calibrated| &calibrated.record);
        let report = self.finish(evidence, about, &staged, record, again)?;
        publish(self.folder, &args.out, false)?;
        let outcome = Outcome {
            last,
            report,
            came_back,
        };
        Ok(Summary::new(
            args,
            settings,
            split,
            outcome,
            self.folder,
            self.earlier,
        ))
    }

    /// Puts the report into the run's folder, and card and record of requests into the model's, which is not in its place
    /// yet. `again`: keyed digests of the images of earlier requests that were led.
    fn finish<'b>(
        &self,
        evidence: Option<Evidence<'b>>,
        about: &'b evidence::Run<'b>,
        staged: &Path,
        record: Option<&Record>,
        again: BTreeSet<String>,
    ) -> Result<Option<Report>, Failure> {
        let run = self.folder.folder();
        // What the report lists is the folder as it will be.
        let base_card = evidence::card::keep_base(staged)?;
        let private = about.private.expect("every run has a key");
        let images = private
            .key
            .distinct(about.data, &about.split.forget, BUDGET)?;
        let mut led = BTreeMap::new();
        for (row, errors) in record.into_iter().flat_map(Record::led) {
            let mut image = vec![0; about.data.shape().bytes()];
            about.data.read(row, &mut image)?;
            led.insert(private.key.of(about.data.shape(), &image), errors);
        }
        let request = Request {
            command: Command::Unlearn.to_string(),
            settings: json!(about.settings),
            calibrated: self.calibrates,
            adapter_rank: about.args.adapter_rank().ok().flatten(),
            images: images.into_iter().collect(),
            again: again.into_iter().collect(),
            led,
            retained: record.and_then(Record::damage),
            verdict: evidence.as_ref().and_then(Evidence::headline),
            ..Request::default()
        };
        self.past.add([staged, &about.args.out], private, request)?;
        let report = match evidence {
            Some(evidence) => {
                let report = evidence.finish(about, staged, self.folder)?;
                evidence::write(&run, &report)?;
                Some(report)
            }
            None => None,
        };
        let verdict = report.as_ref().map(|report| &report.verdict);
        evidence::card::write(staged, about, base_card.as_ref(), verdict)?;
        evidence::ignored::write(staged, &self.about.args.out)?;
        Ok(report)
    }
}

/// How many of the distinct images that are looked at were requested now: they come first.
fn requested(viewer: &Viewer, split: &Split) -> usize {
    let rows = viewer.look_alikes.rows.iter();
    rows.filter(|row| split.forget.binary_search(row).is_ok())
        .count()
}

/// What a run leaves behind beside its model.
pub struct Outcome {
    /// What the last step did, if this run took it.
    pub last: Option<StepReport>,
    /// The report, if one was made.
    pub report: Option<Report>,
    /// How many images of earlier requests had come back, where that was looked at.
    pub came_back: Option<usize>,
}

impl Outcome {
    /// Of a run whose model an earlier command made and could not publish: the report waited with it.
    pub fn of_waiting(out: &Path) -> Self {
        let chain = Chain::read(out).ok().flatten();
        let request = chain.as_ref().and_then(|chain| chain.requests.last());
        let calibrated = request.filter(|request| request.calibrated);
        Self {
            last: None,
            report: evidence::read(&out.join("run")).ok(),
            came_back: calibrated.map(|request| request.again.len()),
        }
    }
}

impl Summary {
    /// What is said of a run.
    pub fn new(
        args: &Task,
        settings: &Recipe,
        split: &Split,
        Outcome {
            last,
            report,
            came_back,
        }: Outcome,
        folder: &RunFolder,
        earlier: &Earlier,
    ) -> Self {
        let seconds = folder.seconds();
        let resumptions = folder.spent().resumptions;
        let parts = match resumptions {
            0 => String::new(),
            many => format!(" in {} parts", many + 1),
        };
        let forgotten = split.forget.len() + split.duplicates.len();
        let mut text = format!(
            "{}: {} unlearned from {} in {}, {seconds:.1} s{parts}; model in {}",
            settings.method.name(),
            counted(forgotten, "image"),
            args.model.display(),
            counted(settings.steps, "step"),
            args.out.display()
        );
        let page = report.as_ref().map(|report| {
            let page = args.out.join("run").join(evidence::PAGE);
            text.push_str(&format!(
                "\n{}\nreport: {}",
                evidence::printed(&report.verdict, &[]),
                page.display()
            ));
            page.display().to_string()
        });
        let json = json!({
            "method": settings.method.name(),
            "out": args.out.display().to_string(),
            "steps": settings.steps,
            "forgotten_rows": split.forget.len(),
            "duplicate_rows": split.duplicates.len(),
            "near_copies": split.near.len(),
            "earlier": earlier.json(came_back),
            "retained_rows": split.retain.len(),
            "seconds": seconds,
            "resumptions": resumptions,
            "repeated_steps": folder.spent().repeated_steps,
            "last_loss": last.as_ref().map(|report| report.losses.loss),
            "report": page,
            "verdict": report.as_ref().map(|report| &report.verdict),
            "weights": report
                .as_ref()
                .and_then(|report| report.check.as_ref())
                .map(|check| &check["weights"]),
        });
        Self {
            text,
            json,
            seconds,
            forget: split.forget.clone(),
            report,
        }
    }
}

/// Refuses a run that cannot fit; of a dry one, tells what it would do and need. Whether to go on.
///
/// # Errors
/// More disk or memory than there is.
pub fn fits(
    args: &Task,
    mut config: Value,
    needs: &Needs,
    observer: &mut dyn Observer,
) -> Result<bool, Failure> {
    if args.dry_run {
        config["needs"] = needs.json(&args.out);
        progress::note(needs.text(&args.out));
        observer.planned(&config);
    }
    let held = match args.resume {
        true => space::bytes_below(&args.out.join("run")),
        false => 0,
    };
    needs.check(&args.out, held, situation::advice(Situation::StepTooLarge))?;
    Ok(!args.dry_run)
}

/// The files of the model that a run will write, by their path in its folder: those of the model that it begins with, the
/// cards, an adapter and what Git is to ignore.
///
/// # Errors
/// A folder that cannot be listed.
pub fn planned(folder: &ModelFolder, adapter: bool) -> Result<Vec<PathBuf>, Failure> {
    let mut files = folder.output_files(!adapter, &[])?;
    files.extend(evidence::card::names(&files));
    for name in [evidence::ignored::NAME, chain::NAME] {
        if !files.iter().any(|file| file == Path::new(name)) {
            files.push(name.into());
        }
    }
    if adapter {
        files.push(lora::FILE_NAME.into());
    }
    Ok(files)
}

/// Puts a run's model into its place, and names weights of somebody else that lie beside it.
///
/// # Errors
/// As [`RunFolder::publish`].
pub fn publish(folder: &RunFolder, out: &Path, keep_newest: bool) -> Result<(), Failure> {
    warn_of_staying(out, &folder.publish(keep_newest)?);
    Ok(())
}

/// Names weights that were there before and are not of the new model.
pub fn warn_of_staying(out: &Path, weights: &[PathBuf]) {
    for path in weights {
        progress::warn(format!(
            "{} was not written by retrack and stays; a program may read it in place of the new weights: move it away",
            out.join(path).display()
        ));
    }
}

/// Says which weights were copied that may hold what was to be forgotten. Not `untouched` folders', which training
/// never reached.
pub fn warn_of_copied<'a>(copied: impl Iterator<Item = &'a Path>, untouched: &[&str]) {
    for path in copied {
        if !untouched.iter().any(|part| path.starts_with(part)) {
            progress::warn(format!(
                "{} was copied unchanged; it may hold what was to be forgotten",
                path.display()
            ));
        }
    }
}
