//! The files of a run, by their digests.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use retrack_checkpoint::folder::ModelFolder;
use retrack_checkpoint::written::Written;
use retrack_eval::report::{FileDigest, Report, Role};
use serde_json::{Value, json};

use super::Verification;
use crate::evidence::{CONTENT, Check, alike, output_files, output_paths, record_files};
use crate::failure::Failure;
use crate::folders::digests;
use crate::{progress, publish};

/// The run's configuration is in its record and in its report, and says what was to be forgotten.
pub(super) fn record(
    report: &Report,
    check: &Check,
    folder: &Path,
    found: &mut Verification,
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

/// The files of the base model, of the written one in `out` and of the run's record in `folder`.
pub(super) fn files(
    report: &Report,
    out: &Path,
    folder: &Path,
    base: &ModelFolder,
    found: &mut Verification,
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
