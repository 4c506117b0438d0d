//! `retrack merge`: an adapter folded into the weights it was trained for.

use std::fs;
use std::path::{Path, PathBuf};

use retrack_networks::folder::{ModelFolder, sha256_file};
use retrack_networks::leftovers::Leftover;
use retrack_networks::lora::{self, Adapters};
use retrack_networks::model::check_size;
use retrack_unlearn::run::{BUILDING, Existing, RunFolder};
use serde_json::{Value, json};

use crate::args::MergeArgs;
use crate::failure::Failure;
use crate::folders::{digests, existing, outside};
use crate::unlearning::publish;
use crate::{interrupt, model, progress};

pub fn run(args: &MergeArgs) -> Result<(), Failure> {
    let folder = ModelFolder::open(&args.model)?;
    model::say_weights(&folder);
    let own = args.model.join(lora::FILE_NAME);
    let path = args.adapter.as_ref().unwrap_or(&own);
    let adapters = Adapters::open(path)?;
    let layers = adapters.len();
    if adapters.hang_on_order() > 0 {
        progress::warn(format!(
            "{}: {} layers match several patterns of `alpha_pattern`; the first in the file counts, but diffusers sorts \
             patterns where it saves them, so the training may have gone by another",
            path.display(),
            adapters.hang_on_order()
        ));
    }
    outside(&args.out, folder.root(), "model")?;
    let mut files = folder.output_files(true)?;
    files.retain(|file| file != Path::new(lora::FILE_NAME));
    let existing = existing(args.force, false);
    RunFolder::check(&args.out, existing, &files)?;

    progress::detail(format_args!(
        "read {}: {layers} adapted layers",
        path.display()
    ));
    let activity = progress::activity("merging");
    let mut weights = folder.weights()?;
    check_size(&folder, &weights)?;
    model::note_wrapping(&folder.config_path().with_file_name(""), weights.wrapping());
    adapters.merge_into(&mut weights)?;
    let config = json!({
        "command": "merge",
        "version": env!("CARGO_PKG_VERSION"),
        "model": args.model.display().to_string(),
        "weights_sha256": digests(&folder)?,
        "adapter": path.display().to_string(),
        "adapter_sha256": sha256_file(path)?,
    });
    // Whole before the output folder changes.
    let aside = aside(&args.out)?;
    let leftover = Leftover::whole(&aside);
    folder.write_without(&aside, &weights, lora::FILE_NAME)?;
    interrupt::finish_first("once the model is in its place");
    let placed = place(args, existing, &config, &files, (&aside, leftover));
    if placed.is_err() {
        let _ = fs::remove_dir_all(&aside);
    }
    placed?;
    drop(activity);
    progress::note(format!(
        "{layers} adapted layers merged; model in {}",
        args.out.display()
    ));
    Ok(())
}

/// Puts the merged folder into the output folder.
fn place(
    args: &MergeArgs,
    existing: Existing,
    config: &Value,
    files: &[PathBuf],
    (aside, leftover): (&Path, Leftover),
) -> Result<(), Failure> {
    let run = RunFolder::begin(&args.out, existing, config, files)?;
    let staged = run.staging()?;
    leftover
        .keep(|| fs::rename(aside, &staged))
        .map_err(|error| Failure::write(&staged, error))?;
    publish(&run, &args.out, false)
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
