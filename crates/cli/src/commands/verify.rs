//! `retrack verify`: computes again what a run's report says, and lists what differs.

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use retrack_eval::report::{FORMAT, FileDigest, Report, Role};
use retrack_networks::folder::ModelFolder;
use retrack_networks::model::Model;
use retrack_unlearn::data::{Dataset, NearCopy, Split};
use retrack_unlearn::digest::DigestKey;
use serde_json::json;

use crate::args::VerifyArgs;
use crate::evidence::{
    CONTENT, Check, Forgotten, KEY, Numbers, PAGE, Probe, Rule, output_files, record_files,
};
use crate::failure::Failure;
use crate::folders::digests;
use crate::latent::{self, Opened};
use crate::progress::say;
use crate::{interrupt, machine, model, progress};

/// Errors and distances may differ by this share: another processor rounds otherwise.
const TOLERANCE: f64 = 1e-2;

/// What was compared, and what differs.
#[derive(Default)]
struct Comparison {
    compared: usize,
    differences: Vec<String>,
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
    let data = base.open_data(&source)?;
    files(&report, out, &folder, base.folder(), &mut found)?;
    if report.version == version {
        let page = fs::read_to_string(folder.join(PAGE)).unwrap_or_default();
        found.compared += 1;
        if page != report.html() {
            found.differs(format!("run/{PAGE}: not the page of run/{CONTENT}"));
        }
    }
    let before = found.differences.len();
    found.equal("data set's SHA-256", &check.data_digest, &data.digest()?);
    if found.differences.len() == before {
        images(&report, &check, &data, &folder, &mut found)?;
        match &base {
            Opened::Image(base) => scores(&check, &data, base, out, &device, &mut found)?,
            Opened::Text(_) => {
                progress::note("the errors of a text-to-image model are not measured again");
            }
        }
    } else {
        progress::warn("with another data set the images and scores are not compared");
    }

    let same = found.differences.is_empty();
    if args.json {
        say!(
            "{}",
            json!({"same": same, "compared": found.compared, "differences": found.differences})
        );
    } else if same {
        progress::tell(format_args!(
            "same: {} files, numbers and digests of {} are as recorded",
            found.compared,
            folder.display()
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

/// The run's own folder, whether it or the model's is given.
fn run_folder(given: &Path) -> Result<PathBuf, Failure> {
    let candidates = [given.join("run"), given.to_path_buf()];
    let found = candidates
        .into_iter()
        .find(|folder| folder.join(CONTENT).is_file() && folder.join("config.json").is_file());
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
    now.extend(output_files(out)?);
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

/// The keyed digests of the forgotten images.
fn images(
    report: &Report,
    check: &Check,
    data: &Dataset,
    folder: &Path,
    found: &mut Comparison,
) -> Result<(), Failure> {
    let path = folder.join(KEY);
    let recorded = report
        .request
        .as_ref()
        .map_or(&[][..], |request| &request.keyed_digests);
    match DigestKey::open(&path) {
        Ok(key) => {
            let forgotten = Forgotten::new(data, &split(check, data)?, Rule::Nearest)?;
            let now: Vec<String> = forgotten
                .images()
                .map(|image| key.of(data.shape(), image))
                .collect();
            found.compared += recorded.len();
            if now != recorded {
                found
                    .differs("keyed digests of the forgotten images: other images, or another key");
            }
        }
        Err(error) => progress::warn(format!(
            "{}: {error}; the keyed digests of the forgotten images are not compared",
            path.display()
        )),
    }
    Ok(())
}

/// The scores, measured again on both models.
fn scores(
    check: &Check,
    data: &Dataset,
    base: &Model,
    out: &Path,
    device: &Device,
    found: &mut Comparison,
) -> Result<(), Failure> {
    let forgotten = Forgotten::new(data, &split(check, data)?, Rule::Nearest)?;
    let known = |row: &usize| *row < data.len();
    if !check.plan.controls.iter().all(known) {
        found.differs("the controls' rows are not in the data set");
        return Ok(());
    }
    let mut again = |name: &str, model: &Model, recorded: &Numbers| -> Result<(), Failure> {
        progress::note(format!("measuring the model {name} again"));
        let number = if name == "before" { 1 } else { 2 };
        let _stage = progress::stage(number, 2);
        let probe = Probe {
            plan: check.plan.clone(),
            forgotten: &forgotten,
            images: data,
            scheduler: &model.scheduler,
            device: device.clone(),
            labels: model.config.num_class_embeds.is_some(),
        };
        let now = probe.measure(&model.network(device)?)?.numbers;
        compare(name, recorded, &now, found);
        Ok(())
    };
    again("before", base, &check.before)?;
    // A file that was tampered with may be no model any more.
    match Model::open(out) {
        Ok(model) => match again("after", &model, &check.after) {
            Err(failure) if failure.code == 2 => found.differs(failure.message),
            other => other?,
        },
        Err(error) => found.differs(error.to_string()),
    }
    Ok(())
}

fn compare(name: &str, recorded: &Numbers, now: &Numbers, found: &mut Comparison) {
    for (what, then, now) in [
        (
            "samples that show a forgotten image",
            recorded.copies,
            now.copies,
        ),
        (
            "attempts that restored one",
            recorded.restored,
            now.restored,
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
        // Not a number is as far as can be.
        let apart = |pair| Some(apart(pair)).filter(|apart| !apart.is_nan());
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
