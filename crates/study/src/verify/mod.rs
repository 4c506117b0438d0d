//! Computes again what a run's report says, and lists what differs.

mod again;
mod files;
mod key;
mod left;
mod verification;

use std::fs;
use std::path::{Path, PathBuf};

use retrack_data::{Dataset, NearCopy, Split};
use retrack_eval::report::{FORMAT, Report};
use retrack_networks::diffusion::Condition;

use self::again::Again;
pub use self::verification::{Measured, Verification};
use crate::evidence::{CONTENT, Check, Forgotten, PAGE};
use crate::failure::Failure;
use crate::field::Field;
use crate::opened::{self, Opened};
use crate::run::{RunFolder, State};
use crate::situation::{self, Situation};
use crate::source::{DataSource, Reading};
use crate::{interrupt, machine, model, progress};

/// A run, and where what it read is now. `None`: where it was.
#[derive(Debug, Clone)]
pub struct Verify {
    /// What the run wrote.
    pub run: PathBuf,
    /// The base model.
    pub model: Option<PathBuf>,
    /// The data set.
    pub data: Option<PathBuf>,
    /// The split's name in `data`.
    pub split: Option<String>,
    /// The run's key.
    pub key: Option<PathBuf>,
    /// The file of keys that opens the sealed images beside `run`. `None`: the data set is taken as it is.
    pub sealed: Option<PathBuf>,
    /// `cpu`, or `cuda`, `vulkan`, `metal` with an optional `:NUMBER`.
    pub device: String,
}

/// Compares a run with its record: its files, its forgotten images, and its scores, measured again.
///
/// # Errors
/// A folder without a run that can be verified, a model or images that cannot be read. What differs is none.
pub fn verify(args: &Verify) -> Result<Verification, Failure> {
    interrupt::kept("nothing was changed");
    let device = machine::device(&args.device)?;
    let folder = run_folder(&args.run)?;
    let path = folder.join(CONTENT);
    let (report, check) = read(&path)?;
    let out = folder
        .parent()
        .filter(|parent| *parent != Path::new(""))
        .unwrap_or(Path::new("."));

    let input = moved(args.model.as_ref(), &check.model, Field::Model)?;
    let source = moved(args.data.as_ref(), &check.data, Field::Data)?;
    let mut found = Verification::of(folder.clone());
    let version = env!("CARGO_PKG_VERSION");
    found.equal("version of retrack", &report.version, version);
    let base = opened::open(&input)?;
    let data = open_data(args, &base, source, &check)?;
    files::files(&report, out, &folder, base.folder(), &mut found)?;
    if report.version == version {
        let page = fs::read_to_string(folder.join(PAGE)).unwrap_or_default();
        found.compared += 1;
        if page != report.html() {
            found.differs(format!("run/{PAGE}: not the page of run/{CONTENT}"));
        }
        files::record(&report, &check, &folder, &mut found)?;
    }
    let adapted = report
        .provenance
        .configuration
        .get("adapter_rank")
        .is_some();
    let private = || key::key(args.key.as_deref(), out, &folder);
    let data = match &args.sealed {
        Some(key) => left::put_back(data, key, out, &check)?,
        None => data,
    };
    let again = Again {
        device_name: &args.device,
        report: (report.version == version).then_some(&report),
        check: &check,
        folder: base.folder(),
        data: &data,
        out,
        run: &folder,
        device: &device,
    };
    let digest = data.digest()?;
    if digest == check.data_digest {
        found.compared += 1;
        let private = private()?;
        key::images(&report, &check, &data, private.as_ref(), &mut found)?;
        let texts = match base.condition() {
            Condition::Text => key::texts(&check, private.as_ref(), out)?,
            Condition::Nothing | Condition::Class(_) => None,
        };
        if base.condition() == Condition::Text && texts.is_none() {
            progress::warn(
                "this run, of an earlier version, did not keep its texts: its denoising errors are not measured again",
            );
        } else {
            again.model(&*base, texts.as_ref(), adapted, &mut found)?;
        }
    } else if let Some(images) = left::images(&report, &check, &data, private()?.as_ref(), out)? {
        found.compared += 1;
        again.weights_alone(&*base, adapted, &mut found)?;
        found.not_measured = left::not_measured(&images, &check, out);
    } else {
        found.equal("data set's SHA-256", &check.data_digest, &digest);
        progress::warn("with another data set the images and scores are not compared");
    }
    Ok(found)
}

/// Opens the images of the run. Where they were moved, their split may have become a folder of its own: one without
/// splits is opened as it is, and its digest says whether it is the one.
fn open_data(
    args: &Verify,
    base: &Opened,
    path: PathBuf,
    check: &Check,
) -> Result<Dataset, Failure> {
    let open = |split: Option<String>| {
        let (alpha, resize) = (check.alpha, check.resize);
        base.open_data(&DataSource {
            reading: Reading {
                split,
                alpha,
                resize,
            },
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
            "{}: the run there was interrupted; {}",
            given.display(),
            situation::advice(Situation::Unfinished)
        )));
    }
    found.ok_or_else(|| {
        Failure::input(format!(
            "{}: no unlearning run with a report; {}",
            given.display(),
            situation::advice(Situation::NothingToVerify)
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
fn moved(given: Option<&PathBuf>, recorded: &Path, field: Field) -> Result<PathBuf, Failure> {
    match given {
        Some(path) => Ok(path.clone()),
        None if recorded.exists() => Ok(recorded.to_path_buf()),
        None => Err(Failure::input(format!(
            "{}: not found from here; say with {field} where it is now",
            recorded.display()
        ))),
    }
}

/// What a run's rows were.
fn split(check: &Check, data: &Dataset) -> Result<Split, Failure> {
    let leaving = [&check.forget_rows[..], &check.earlier_rows].concat();
    let split = Split::new(data, &leaving, model::BUDGET)?;
    // Of which of them is not recorded, and does not matter here.
    let near = |rows: &[usize], of: &[usize]| -> Vec<NearCopy> {
        let pairs = rows.iter().zip(of.iter().cycle());
        let near = |(&row, &of): (&usize, &usize)| NearCopy {
            row,
            of,
            distance: 0.0,
            mirrored: false,
        };
        pairs.map(near).collect()
    };
    let mut near = [
        near(&check.near_rows, &check.forget_rows),
        near(&check.earlier_near_rows, &check.earlier_rows),
    ]
    .concat();
    near.sort_by_key(|near| near.row);
    let mut split = split.with_near(near, check.retains_near);
    split.set_apart(&check.earlier_rows);
    Ok(split)
}

/// What counted as a forgotten image.
fn forgotten<'a>(
    check: &Check,
    data: &'a Dataset,
    split: &Split,
) -> Result<Forgotten<'a>, Failure> {
    let forgotten = Forgotten::new(data, split, check.rule())?;
    Ok(match check.near_count {
        true => forgotten,
        false => forgotten.without_copies(),
    })
}
