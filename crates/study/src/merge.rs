//! An adapter folded into the weights it was trained for.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use retrack_checkpoint::chain;
use retrack_checkpoint::folder::{
    Dtype, FolderError, Kind, Library, ModelFolder, Part, TensorError, Weights, sha256_file,
};
use retrack_checkpoint::leftovers::Leftover;
use retrack_checkpoint::written::Command;
use retrack_networks::changes::Changes;
use retrack_networks::lora::{self, AdapterFile, Adapters, Component, Layers};
use retrack_networks::model::check_size;
use serde_json::{Value, json};

use crate::chain::Merged;
use crate::execution::publish;
use crate::failure::Failure;
use crate::field::Field;
use crate::folders::{digests, existing, outside, outside_all};
use crate::names::DtypeName;
use crate::run::{BUILDING, Existing, RunFolder};
use crate::{interrupt, model, progress, reopened};

/// Which adapter, and into what.
#[derive(Debug, Clone)]
pub struct Merge {
    /// The model folder that the adapter belongs to.
    pub model: PathBuf,
    /// The adapter's file, or its folder. `None`: it lies in the model's.
    pub adapter: Option<PathBuf>,
    /// Where the new model folder goes.
    pub out: PathBuf,
    /// Replaces what retrack wrote in `out`.
    pub force: bool,
    /// Element type of the written weights. `None`: the model's own.
    pub dtype: Option<DtypeName>,
}

/// Writes the model with the adapter in its weights, and says how much of it their element type took away.
///
/// # Errors
/// A model or an adapter that cannot be read or that do not belong together, files that cannot be written.
pub fn merge(asked: &Merge) -> Result<(), Failure> {
    outside_all(&asked.out, [("adapter", asked.adapter.as_deref())])?;
    let folder = ModelFolder::open(&asked.model)?;
    model::say_weights(&folder);
    let path = &adapter_file(asked)?;
    let adapters = AdapterFile::open(path)?;
    let layers = adapters.len();
    let settings_file = adapters.settings_file();
    if adapters.hang_on_order() > 0 {
        progress::warn(format!(
            "{}: {} layers match several patterns of `alpha_pattern`; the first in the file counts, but diffusers sorts \
             patterns where it saves them, so the training may have gone by another",
            path.display(),
            adapters.hang_on_order()
        ));
    }
    if adapters.other_alphas() > 0 {
        progress::warn(format!(
            "{}: {} layers get the alpha that most of its layers have, as in diffusers 0.42.1, which does not find \
             the own alpha of attention layers and of most layers of text encoders in such a file; ComfyUI takes that",
            path.display(),
            adapters.other_alphas()
        ));
    }
    outside(&asked.out, folder.root(), "model")?;
    let mut weights = folder.weights()?;
    check_size(&folder, &weights)?;
    let texts = texts(&folder, &adapters)?;
    let networks = texts
        .iter()
        .map(|one| Layers::of(one.component, &one.weights));
    let own = Layers::of(Component::Network, &weights);
    let networks: Vec<Layers> = [own].into_iter().chain(networks).collect();
    let found = adapters.resolve(folder.root(), &networks)?;
    drop(networks);
    let mut parts = Vec::new();
    for text in texts {
        let Some(adapters) = found.get(&text.component) else {
            continue;
        };
        let mut weights = text.weights;
        adapters.merge_into(&mut weights)?;
        if let Some(dtype) = asked.dtype {
            weights.write_as(dtype.into());
            folder.check_part_types(&text.part, &weights)?;
        }
        parts.push((text.part, weights));
    }
    let renewed: Vec<&Part> = parts.iter().map(|(part, _)| part).collect();
    let mut files = folder.output_files(true, &renewed)?;
    files.retain(|file| file != Path::new(lora::FILE_NAME));
    let chain = Merged::open(&folder, path)?;
    if chain.is_some() && !files.iter().any(|file| file == Path::new(chain::NAME)) {
        files.push(chain::NAME.into());
    }
    let existing = existing(asked.force, false);
    RunFolder::check(&asked.out, Command::Merge, existing, &files)?;

    progress::detail(format_args!(
        "read {}: {layers} adapted layers",
        path.display()
    ));
    let activity = progress::activity("merging");
    model::note_wrapping(&folder.config_path().with_file_name(""), weights.wrapping());
    if let Some(adapters) = found.get(&Component::Network) {
        adapters.merge_into(&mut weights)?;
    }
    if let Some(dtype) = asked.dtype {
        weights.write_as(dtype.into());
        folder.check_types(&weights)?;
    }
    let mut config = json!({
        "command": "merge",
        "version": env!("CARGO_PKG_VERSION"),
        "model": asked.model.display().to_string(),
        "weights_sha256": digests(&folder)?,
        "adapter": path.display().to_string(),
        "adapter_sha256": sha256_file(path)?,
        "dtype": asked.dtype.map(|dtype| Dtype::from(dtype).to_string()),
    });
    if let Some(file) = settings_file {
        config["adapter_settings_sha256"] = json!(sha256_file(&file)?);
    }
    // Whole before the output folder changes.
    let aside = aside(&asked.out)?;
    let leftover = Leftover::whole(&aside);
    let written = folder.write_merged(&aside, &weights, &parts, lora::FILE_NAME);
    written.map_err(|error| beyond(error, path, folder.can_convert()))?;
    let changes = counted(&folder, &ModelFolder::open(&aside)?, &found)?;
    if let Some(chain) = chain {
        chain.add(&aside, &asked.out)?;
    }
    interrupt::finish_first("once the model is in its place");
    let placed = place(asked, existing, &config, &files, (&aside, leftover));
    if placed.is_err() {
        #[expect(clippy::disallowed_methods, reason = "this run made it")]
        let _ = fs::remove_dir_all(&aside);
    }
    placed?;
    drop(activity);
    progress::note(format!(
        "{layers} adapted layers merged; model in {}",
        asked.out.display()
    ));
    say_rounded(&changes, folder.can_convert());
    Ok(())
}

/// A text encoder of the model that an adapter may change.
struct Text {
    component: Component,
    part: Part,
    weights: Weights,
}

/// The text encoders that an adapter changes, as far as the model has them.
fn texts(folder: &ModelFolder, adapters: &AdapterFile) -> Result<Vec<Text>, Failure> {
    let asked = adapters.text_encoders();
    let is_asked = |of: &Component| asked.as_ref().is_none_or(|asked| asked.contains(of));
    let all = Component::ALL.into_iter().filter(is_asked);
    let mut texts = Vec::new();
    for component in all.filter(|&of| of != Component::Network) {
        // One that the model has not is what the adapter's layers are missed in.
        let is_there = folder.root().join(component.folder()).is_dir();
        if folder.kind == Kind::Bare || !is_there {
            continue;
        }
        let part = folder.part(component.folder(), "text encoder")?;
        let weights = part.weights(Library::Transformers)?;
        texts.push(Text {
            component,
            part,
            weights,
        });
    }
    Ok(texts)
}

/// What of the adapter's changes the written folder holds.
fn counted(
    base: &ModelFolder,
    written: &ModelFolder,
    found: &BTreeMap<Component, Adapters>,
) -> Result<Changes, Failure> {
    let mut all = Changes::default();
    for (component, adapters) in found {
        let weights = |folder: &ModelFolder| match component {
            Component::Network => folder.weights(),
            text => {
                let part = folder.part(text.folder(), "text encoder")?;
                part.weights(Library::Transformers)
            }
        };
        all += Changes::by_merging(&weights(base)?, adapters, &weights(written)?)?;
    }
    Ok(all)
}

/// Says how much of the adapter the element type of the merged weights took away.
fn say_rounded(changes: &Changes, convertible: bool) {
    if changes.rounded_back == 0 {
        return;
    }
    let share = reopened::percent(changes.rounded_back, changes.moved);
    let way = match convertible {
        true => format!("; with {} f32 nothing rounds back", Field::Dtype),
        false => String::new(),
    };
    let text = format!(
        "{} of the {} weights that the adapter changes ({share}) rounded back to what they were{way}",
        changes.rounded_back, changes.moved
    );
    // As for a model that was trained: most of the changes are lost.
    match 2 * changes.rounded_back > changes.moved {
        true => progress::warn(text),
        false => progress::note(text),
    }
}

/// Names the adapter where a merged weight is more than its element type holds.
fn beyond(error: FolderError, adapter: &Path, convertible: bool) -> Failure {
    let FolderError::Tensor {
        source: TensorError::OutOfRange { .. },
        ..
    } = &error
    else {
        return error.into();
    };
    let way = match convertible {
        true => format!("; give {} f32", Field::Dtype),
        false => String::new(),
    };
    Failure::input(format!(
        "{}: added to the model's weights it goes beyond their element type: {error}{way}",
        adapter.display()
    ))
}

/// The adapter's file: what was given, or what lies in the folder that was given, or in the model's.
fn adapter_file(asked: &Merge) -> Result<PathBuf, Failure> {
    let Some(path) = &asked.adapter else {
        let own = asked.model.join(lora::FILE_NAME);
        return match own.exists() {
            true => Ok(own),
            false => Err(Failure::input(format!(
                "{}: no such file; name the adapter with {}",
                own.display(),
                Field::Adapter
            ))),
        };
    };
    if !path.is_dir() {
        return Ok(path.clone());
    }
    let names = [lora::FILE_NAME].into_iter().chain(lora::PEFT_FILE_NAMES);
    let mut inside = names.map(|name| path.join(name));
    if let Some(file) = inside.find(|file| file.exists()) {
        return Ok(file);
    }
    Err(Failure::input(format!(
        "{}: a folder without {} or {}; name the adapter's file with {}",
        path.display(),
        lora::FILE_NAME,
        lora::PEFT_FILE_NAMES[0],
        Field::Adapter
    )))
}

/// Puts the merged folder into the output folder.
#[expect(
    clippy::disallowed_methods,
    reason = "the staged folder is looked for after a kill"
)]
fn place(
    asked: &Merge,
    existing: Existing,
    config: &Value,
    files: &[PathBuf],
    (aside, leftover): (&Path, Leftover),
) -> Result<(), Failure> {
    let run = RunFolder::begin(&asked.out, existing, config, files)?;
    let staged = run.staging()?;
    leftover
        .keep(|| fs::rename(aside, &staged))
        .map_err(|error| Failure::write(&staged, error))?;
    publish(&run, &asked.out, false)
}

/// A name of this process's own from which the folder can be renamed into the output folder: in that, which may be a link
/// or a mount point, or where it will be.
fn aside(out: &Path) -> Result<PathBuf, Failure> {
    let name = format!("{BUILDING}{}", std::process::id());
    if out.is_dir() {
        return Ok(out.join(name));
    }
    let path = std::path::absolute(out).map_err(|error| Failure::write(out, error))?;
    let of = path.file_name().unwrap_or_default().to_string_lossy();
    Ok(path.with_file_name(format!(".{of}{name}")))
}
