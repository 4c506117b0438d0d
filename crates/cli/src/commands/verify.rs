//! `retrack verify`: computes again what a run's report says, and lists what differs.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use retrack_checkpoint::folder::ModelFolder;
use retrack_checkpoint::written::Written;
use retrack_data::digest::DigestKey;
use retrack_data::{Dataset, NearCopy, Split};
use retrack_eval::report::{FORMAT, FileDigest, Report, Role};
use retrack_networks::conditional::Captioned;
use retrack_networks::denoiser::Denoiser;
use retrack_networks::model::Model;
use retrack_networks::random::Random;
use retrack_networks::schedule::SchedulerConfig;
use retrack_networks::stable_diffusion::StableDiffusion;
use retrack_study::publish;
use retrack_study::run::{RunFolder, State};
use retrack_unlearn::images::Images;
use retrack_unlearn::recipe::Recipe;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::args::VerifyArgs;
use crate::progress;
use crate::progress::say;
use crate::remedy;
use retrack_study::evidence::{
    self, CONTENT, Check, Evidence, Forgotten, Measurement, Numbers, OLD_KEY, PAGE, Private, Probe,
    RowTexts, alike, output_files, output_paths, read_events, record_files,
};
use retrack_study::failure::Failure;
use retrack_study::folders::digests;
use retrack_study::latent::{self, Opened};
use retrack_study::reopened::{self, Reopened, WeightFacts};
use retrack_study::situation::Situation;
use retrack_study::source::{DataSource, Reading};
use retrack_study::task::Task;
use retrack_study::unlearn_text::encode;
use retrack_study::{interrupt, machine, model};

/// Errors and distances may differ by this share: another processor rounds otherwise.
const TOLERANCE: f64 = 1e-2;

/// What was compared, and what differs.
#[derive(Default)]
struct Comparison {
    compared: usize,
    differences: Vec<String>,
    /// What was measured again, as `report.json` records it.
    measured: serde_json::Map<String, Value>,
}

impl Comparison {
    fn differs(&mut self, what: impl Into<String>) {
        self.differences.push(what.into());
    }

    fn equal(&mut self, name: &str, recorded: &str, now: &str) {
        self.compared += 1;
        if recorded != now {
            self.differs(format!("{name}: {recorded} recorded, {now} now"));
        }
    }
}

pub fn run(args: &VerifyArgs) -> Result<(), Failure> {
    interrupt::kept("nothing was changed");
    let device = machine::device(&args.machine.device)?;
    let folder = run_folder(&args.run)?;
    let path = folder.join(CONTENT);
    let (report, check) = read(&path)?;
    let out = folder
        .parent()
        .filter(|parent| *parent != Path::new(""))
        .unwrap_or(Path::new("."));

    let input = moved(args.model.as_ref(), &check.model, "--model")?;
    let source = moved(args.data.as_ref(), &check.data, "--data")?;
    let mut found = Comparison::default();
    let version = env!("CARGO_PKG_VERSION");
    found.equal("version of retrack", &report.version, version);
    let base = latent::open(&input)?;
    let data = open_data(args, &base, source, &check)?;
    files(&report, out, &folder, base.folder(), &mut found)?;
    if report.version == version {
        let page = fs::read_to_string(folder.join(PAGE)).unwrap_or_default();
        found.compared += 1;
        if page != report.html() {
            found.differs(format!("run/{PAGE}: not the page of run/{CONTENT}"));
        }
        record(&report, &check, &folder, &mut found)?;
    }
    let before = found.differences.len();
    found.equal("data set's SHA-256", &check.data_digest, &data.digest()?);
    if found.differences.len() == before {
        let private = key(args.key.as_deref(), out, &folder)?;
        images(&report, &check, &data, private.as_ref(), &mut found)?;
        let again = Again {
            args,
            report: (report.version == version).then_some(&report),
            check: &check,
            folder: base.folder(),
            data: &data,
            out,
            run: &folder,
            device: &device,
        };
        match (base.as_pixels(), base.as_latents()) {
            (Some(base), _) => again.image(base, &mut found)?,
            (_, None) => unreachable!("a model is of one of these kinds"),
            (_, Some(base)) => {
                let adapted = report
                    .provenance
                    .configuration
                    .get("adapter_rank")
                    .is_some();
                match texts(&check, private.as_ref(), out)? {
                    Some(texts) => again.text(base, &texts, adapted, &mut found)?,
                    None => progress::warn(
                        "this run, of an earlier version, did not keep its texts: its denoising errors are not \
                         measured again",
                    ),
                }
            }
        }
    } else {
        progress::warn("with another data set the images and scores are not compared");
    }

    let same = found.differences.is_empty();
    if args.json {
        say!(
            "{}",
            json!({
                "same": same,
                "compared": found.compared,
                "differences": found.differences,
                "measured": found.measured,
            })
        );
    } else if same {
        progress::tell(format_args!(
            "same: {} files, numbers and digests of {} are as recorded{}",
            found.compared,
            folder.display(),
            match found.measured.is_empty() {
                true => "; no score was measured again",
                false => "",
            }
        ));
    } else {
        for difference in &found.differences {
            progress::tell(difference);
        }
    }
    match found.differences.len() {
        0 => Ok(()),
        1 => Err(Failure::failed(format!(
            "{}: 1 difference",
            args.run.display()
        ))),
        many => Err(Failure::failed(format!(
            "{}: {many} differences",
            args.run.display()
        ))),
    }
}

/// Opens the images of the run. Where they were moved, their split may have become a folder of its own: one without
/// splits is opened as it is, and its digest says whether it is the one.
fn open_data(
    args: &VerifyArgs,
    base: &Opened,
    path: PathBuf,
    check: &Check,
) -> Result<Dataset, Failure> {
    let open = |split: Option<String>| {
        let alpha = check.alpha;
        base.open_data(&DataSource {
            reading: Reading { split, alpha },
            ..DataSource::at(&path)
        })
    };
    let recorded = match (&args.split, &check.split) {
        (None, Some(recorded)) if args.data.is_some() => recorded,
        (typed, recorded) => return open(typed.clone().or(recorded.clone())),
    };
    open(Some(recorded.clone())).or_else(|failure| {
        let data = match failure.code {
            2 => open(None).map_err(|_| failure)?,
            _ => return Err(failure),
        };
        progress::note(format!(
            "{}: no split \"{recorded}\" there, in which the run's images were; all of it is compared",
            path.display()
        ));
        Ok(data)
    })
}

/// The run's own folder, whether it or the model's is given.
fn run_folder(given: &Path) -> Result<PathBuf, Failure> {
    let candidates = [given.join("run"), given.to_path_buf()];
    let found = candidates
        .into_iter()
        .find(|folder| folder.join(CONTENT).is_file() && folder.join("config.json").is_file());
    if found.is_none() && RunFolder::state(given) == State::Interrupted {
        return Err(Failure::input(format!(
            "{}: the run there was interrupted; finish it with `retrack unlearn --resume` and the options that began it",
            given.display()
        )));
    }
    found.ok_or_else(|| {
        Failure::input(format!(
            "{}: no unlearning run with a report; give the folder that `retrack unlearn` wrote (of a demo, its model \
             folder). Runs of `retrack unlearn --no-report` cannot be verified",
            given.display()
        ))
    })
}

fn read(path: &Path) -> Result<(Report, Check), Failure> {
    let wrong = |why: &dyn std::fmt::Display| {
        Failure::input(format!(
            "{}: not a report that can be verified: {why}",
            path.display()
        ))
    };
    let text = fs::read_to_string(path).map_err(|error| Failure::read(path, error))?;
    let report: Report = serde_json::from_str(&text).map_err(|error| wrong(&error))?;
    if report.format != FORMAT {
        return Err(wrong(&format!(
            "its format is {}, this version reads {FORMAT}",
            report.format
        )));
    }
    let check = report
        .check
        .clone()
        .ok_or_else(|| wrong(&"it holds nothing to compute again"))?;
    let check: Check = serde_json::from_value(check).map_err(|error| wrong(&error))?;
    let plan = &check.plan;
    let sane = plan.samples <= 1024
        && plan.tries <= 1024
        && plan.draws <= 1024
        && plan.controls.len() <= 65_536;
    if !sane || check.forget_rows.is_empty() || plan.batch_size == 0 {
        return Err(wrong(&"its plan makes no sense"));
    }
    Ok((report, check))
}

/// The run's configuration is in its record and in its report, and says what was to be forgotten.
fn record(
    report: &Report,
    check: &Check,
    folder: &Path,
    found: &mut Comparison,
) -> Result<(), Failure> {
    let path = folder.join("config.json");
    let text = fs::read_to_string(&path).map_err(|error| Failure::read(&path, error))?;
    let mut config: Value = serde_json::from_str(&text).unwrap_or_default();
    let of_check = [json!(check.forget_rows), json!(check.data_digest)];
    let of_config = [&config["forget_rows"], &config["data_digest"]];
    found.compared += 1;
    if of_check.iter().collect::<Vec<_>>() != of_config {
        found.differs(format!(
            "run/{CONTENT}: what is computed again is about other images than run/config.json"
        ));
    }
    if let Value::Object(keys) = &mut config {
        // As the report leaves it out.
        keys.remove("prompts_digest");
    }
    if !alike(&report.provenance.configuration, &config) {
        found.differs(format!(
            "run/{CONTENT}: its configuration is not that of run/config.json"
        ));
    }
    Ok(())
}

/// Where something is now.
fn moved(given: Option<&PathBuf>, recorded: &Path, option: &str) -> Result<PathBuf, Failure> {
    match given {
        Some(path) => Ok(path.clone()),
        None if recorded.exists() => Ok(recorded.to_path_buf()),
        None => Err(Failure::input(format!(
            "{}: not found from here; say with {option} where it is now",
            recorded.display()
        ))),
    }
}

fn files(
    report: &Report,
    out: &Path,
    folder: &Path,
    base: &ModelFolder,
    found: &mut Comparison,
) -> Result<(), Failure> {
    let inputs = digests(base)?.into_iter().map(|(path, digest)| FileDigest {
        role: Role::Input,
        path,
        sha256: digest.as_str().unwrap_or_default().into(),
    });
    let mut now: Vec<FileDigest> = inputs.collect();
    let recorded = report.provenance.files.iter();
    let recorded = recorded.filter(|file| file.role == Role::Output);
    let recorded: BTreeSet<PathBuf> = recorded.map(|file| PathBuf::from(&file.path)).collect();
    let listed = Written::read(out).ok().flatten().unwrap_or_default();
    let there = output_paths(out)?.into_iter();
    let (mut outputs, others): (Vec<PathBuf>, Vec<PathBuf>) = there
        .filter(|path| !recorded.contains(path))
        .partition(|path| listed.has(path));
    outputs.extend(recorded.into_iter().filter(|path| out.join(path).is_file()));
    now.extend(output_files(out, &outputs)?);
    now.extend(record_files(folder)?);
    let name = |file: &FileDigest| match file.role {
        Role::Input => format!("base model, {}", file.path),
        Role::Output => file.path.clone(),
        Role::Record => format!("run/{}", file.path),
    };
    for recorded in &report.provenance.files {
        found.compared += 1;
        match now
            .iter()
            .find(|file| file.role == recorded.role && file.path == recorded.path)
        {
            None => found.differs(format!("{}: missing", name(recorded))),
            Some(file) if file.sha256 != recorded.sha256 => found.differs(format!(
                "{}: SHA-256 {} recorded, {} now",
                name(recorded),
                recorded.sha256,
                file.sha256
            )),
            Some(_) => {}
        }
    }
    for file in &now {
        let known = report
            .provenance
            .files
            .iter()
            .any(|one| one.role == file.role && one.path == file.path);
        if !known {
            found.differs(format!("{}: was not there", name(file)));
        }
    }
    // Of somebody else, which `--force` leaves where it is: no difference, unless a program could take it for the model.
    let folders: BTreeSet<&Path> = outputs.iter().filter_map(|path| path.parent()).collect();
    let (beside, others): (Vec<PathBuf>, Vec<PathBuf>) = others.into_iter().partition(|path| {
        let beside = path.parent().is_some_and(|parent| folders.contains(parent));
        beside && (publish::is_weights(path) || publish::is_index(path))
    });
    for path in beside {
        found.differs(format!(
            "{}: was not written by retrack; a program may read it in place of the model's own",
            path.display()
        ));
    }
    if !others.is_empty() {
        let names = others.iter().take(3).map(|path| path.display().to_string());
        let names: Vec<String> = names.collect();
        progress::warn(format!(
            "{}: {} not of this run and not looked at: {}{}",
            out.display(),
            match others.len() {
                1 => "1 file beside the model is".to_owned(),
                many => format!("{many} files beside the model are"),
            },
            names.join(", "),
            if others.len() > names.len() {
                ", ..."
            } else {
                ""
            }
        ));
    }
    Ok(())
}

fn split(check: &Check, data: &Dataset) -> Result<Split, Failure> {
    let mut split = Split::new(data, &check.forget_rows, model::BUDGET)?;
    let near = |&row: &usize| NearCopy {
        row,
        of: check.forget_rows[0],
        distance: 0.0,
    };
    split.near = check.near_rows.iter().map(near).collect();
    Ok(split)
}

/// The run's key: where it is said to be, beside the output folder, or in the run's own, where earlier versions put it.
fn key(given: Option<&Path>, out: &Path, folder: &Path) -> Result<Option<Private>, Failure> {
    let places = match given {
        Some(path) => vec![path.to_path_buf()],
        None => vec![Private::place(out)?, folder.join(OLD_KEY)],
    };
    for path in &places {
        match DigestKey::open(path) {
            Ok(key) => {
                return Ok(Some(Private {
                    path: path.clone(),
                    key,
                }));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && given.is_none() => {}
            Err(error) => return Err(Failure::read(path, error)),
        }
    }
    progress::warn(format!(
        "{}: not found, so the keyed digests of the forgotten images are not compared; --key says where the key is now",
        places[0].display()
    ));
    Ok(None)
}

/// The keyed digests of the forgotten images.
fn images(
    report: &Report,
    check: &Check,
    data: &Dataset,
    private: Option<&Private>,
    found: &mut Comparison,
) -> Result<(), Failure> {
    let recorded = report
        .request
        .as_ref()
        .map_or(&[][..], |request| &request.keyed_digests);
    let Some(private) = private else {
        return Ok(());
    };
    let forgotten = Forgotten::new(data, &split(check, data)?, check.rule())?;
    let now: Vec<String> = forgotten
        .images()
        .map(|image| private.key.of(data.shape(), image))
        .collect();
    found.compared += recorded.len();
    if now != recorded {
        found.differs("keyed digests of the forgotten images: other images, or another key");
    }
    Ok(())
}

/// The texts of the measured images; nothing of a run that did not keep them.
fn texts(
    check: &Check,
    private: Option<&Private>,
    out: &Path,
) -> Result<Option<RowTexts>, Failure> {
    let Some(digest) = &check.texts else {
        return Ok(None);
    };
    let missing = |path: &Path| {
        Failure::input(format!(
            "{}: the texts of the measured images are kept with the run's key, and are not found there; say with --key \
             where that is now",
            path.display()
        ))
    };
    let Some(private) = private else {
        return Err(missing(&Private::place(out)?));
    };
    let texts = private.texts(digest)?;
    texts.map(Some).ok_or_else(|| missing(&private.path))
}

/// The scores, measured again on both models as they lie in their folders.
struct Again<'a> {
    args: &'a VerifyArgs,
    /// Of this version, which would write it again in the same words.
    report: Option<&'a Report>,
    check: &'a Check,
    /// The model's before.
    folder: &'a ModelFolder,
    data: &'a Dataset,
    out: &'a Path,
    /// The run's own folder.
    run: &'a Path,
    device: &'a Device,
}

impl Again<'_> {
    fn image(&self, base: &Model, found: &mut Comparison) -> Result<(), Failure> {
        let written = || reopened::image(base, self.out, None, self.device);
        let labels = base.config.num_class_embeds.is_some();
        let measured = [&self.check.forget_rows, &self.check.plan.controls];
        let measured = measured.into_iter().flatten().copied();
        // Those beyond the data are reported below.
        let there: Vec<usize> = measured.filter(|&row| row < self.data.len()).collect();
        model::check_labels(self.data, &there, &base.config)?;
        let network = base.network(self.device)?;
        let scheduler = &base.scheduler;
        self.measure(
            &network,
            written,
            (self.data, None),
            scheduler,
            labels,
            found,
        )
    }

    fn text(
        &self,
        base: &StableDiffusion,
        texts: &RowTexts,
        adapted: bool,
        found: &mut Comparison,
    ) -> Result<(), Failure> {
        let mut known: Vec<&str> = Vec::new();
        let mut of_row = vec![0; self.data.len()];
        for (&row, text) in texts {
            let number = known.iter().position(|known| known == text);
            let number = number.unwrap_or_else(|| {
                known.push(text);
                known.len() - 1
            });
            if let Some(place) = of_row.get_mut(row) {
                *place = number as i64;
            }
        }
        let rows: Vec<usize> = texts
            .keys()
            .copied()
            .filter(|&row| row < self.data.len())
            .collect();
        let states = latent::embed(base, &known, self.device)?;
        let random = Random::new(self.check.plan.seed);
        let latents = encode(base, self.data, &rows, of_row, random, self.device)?;
        let written = || {
            let states = states.clone();
            reopened::conditional(&base.model, self.out, None, adapted, states, self.device)
        };
        let network = base
            .model
            .network(&self.device.clone().without_autodiff())?;
        let network = Captioned::new(network, states.clone());
        let images: (&dyn Images, _) = (&latents, Some(texts));
        let scheduler = &base.model.scheduler;
        self.measure(&network, written, images, scheduler, true, found)
    }

    /// `written`: opens what the run made. A file that was tampered with may be no model any more. `texts`: those that
    /// the images have, where they need any.
    fn measure(
        &self,
        base: &dyn Denoiser,
        written: impl FnOnce() -> Result<Reopened, Failure>,
        (images, texts): (&dyn Images, Option<&RowTexts>),
        scheduler: &SchedulerConfig,
        labels: bool,
        found: &mut Comparison,
    ) -> Result<(), Failure> {
        let split = split(self.check, self.data)?;
        let forgotten = Forgotten::new(self.data, &split, self.check.rule())?;
        let plan = &self.check.plan;
        if plan.controls.iter().any(|&row| row >= self.data.len()) {
            found.differs("the controls' rows are not in the data set");
            return Ok(());
        }
        let probe = Probe {
            plan: plan.clone(),
            forgotten: &forgotten,
            images,
            scheduler,
            device: self.device.clone().without_autodiff(),
            labels,
        };
        let rows = probe.looked_at().concat();
        if texts.is_some_and(|texts| rows.iter().any(|row| !texts.contains_key(row))) {
            found.differs("images were measured whose texts were not kept");
            return Ok(());
        }
        progress::note("measuring the model before again");
        let stage = retrack_study::progress::stage(1, 2);
        let before = probe.measure(base)?;
        drop(stage);
        compare("before", &self.check.before, &before.numbers, found);
        found
            .measured
            .insert("before".into(), json!(before.numbers));
        let after = written().and_then(|written| {
            progress::note("measuring the model after again");
            let _stage = retrack_study::progress::stage(2, 2);
            Ok((probe.measure(&*written.network)?, written.weights))
        });
        match after {
            Ok((after, weights)) => {
                compare("after", &self.check.after, &after.numbers, found);
                found.measured.insert("after".into(), json!(after.numbers));
                self.weights(&weights, found);
                found.measured.insert("weights".into(), json!(weights));
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
        found: &mut Comparison,
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
        let check = self.check;
        let shown = ["forgotten", "restored"];
        let args = Task {
            show_forgotten: shown.iter().any(|name| report.pictures.contains_key(*name)),
            ..Task::new(
                &check.model,
                &DataSource::at(&check.data),
                "",
                self.out,
                &self.args.machine.device,
            )
        };
        let run = evidence::Run {
            args: &args,
            settings: &settings,
            folder: self.folder,
            scheduler: probe.scheduler,
            images: probe.images,
            labels: probe.labels,
            text_to_image,
            texts: None,
            private: None,
            data: self.data,
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
        let advised = remedy::advised_by_runs(Situation::Diverged);
        let differences = evidence.differences(report, &after, weights, &events, &advised)?;
        found.compared += 1 + report.pictures.len();
        found.differences.extend(differences);
        Ok(())
    }

    fn weights(&self, now: &WeightFacts, found: &mut Comparison) {
        let Some(then) = &self.check.weights else {
            return;
        };
        let count = |of: &WeightFacts| format!("{} of {}", of.changed, of.count);
        found.equal("weights that are not the base's", &count(then), &count(now));
        found.equal("the weights' type", &then.dtype, &now.dtype);
    }
}

fn compare(name: &str, recorded: &Numbers, now: &Numbers, found: &mut Comparison) {
    for (what, then, now) in [
        (
            "samples that show a forgotten image",
            recorded.copies,
            now.copies,
        ),
        ("samples", recorded.samples, now.samples),
        (
            "attempts that restored one",
            recorded.restored,
            now.restored,
        ),
        (
            "samples and attempts that are not finite",
            recorded.broken,
            now.broken,
        ),
    ] {
        found.equal(
            &format!("{name}: {what}"),
            &then.to_string(),
            &now.to_string(),
        );
    }
    for (what, then, now) in [
        (
            "distances of the attempts",
            &recorded.distances,
            &now.distances,
        ),
        (
            "denoising errors of forgotten images",
            &recorded.forgotten_errors,
            &now.forgotten_errors,
        ),
        (
            "denoising errors of controls",
            &recorded.control_errors,
            &now.control_errors,
        ),
    ] {
        found.compared += now.len();
        let apart = |(then, now): (&f64, &f64)| (then - now).abs() / then.abs().max(1e-9);
        // Not a number is as far as can be from a number, and is itself again.
        let apart = |pair: (&f64, &f64)| match (pair.0.is_finite(), pair.1.is_finite()) {
            (false, false) => Some(0.0),
            _ => Some(apart(pair)).filter(|apart| !apart.is_nan()),
        };
        let furthest = then
            .iter()
            .zip(now)
            .map(|pair| apart(pair).unwrap_or(f64::INFINITY))
            .fold(0.0, f64::max);
        if then.len() != now.len() {
            found.differs(format!(
                "{name}: {what}: {} recorded, {} now",
                then.len(),
                now.len()
            ));
        } else if furthest > TOLERANCE {
            found.differs(format!(
                "{name}: {what}: up to {:.1}% apart",
                100.0 * furthest
            ));
        }
    }
}
