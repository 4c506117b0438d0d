//! `retrack merge`: an adapter folded into the weights it was trained for.

use std::path::Path;

use retrack_networks::folder::{ModelFolder, sha256_file};
use retrack_networks::lora::{self, Adapters};
use retrack_unlearn::run::{RunError, RunFolder};
use serde_json::json;

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
    outside(&args.out, folder.root(), "model")?;
    let mut files = folder.output_files(true)?;
    files.retain(|file| file != Path::new(lora::FILE_NAME));
    let existing = existing(args.force, false);
    RunFolder::check(&args.out, existing, &files).map_err(without_resume)?;

    progress::detail(format_args!(
        "read {}: {layers} adapted layers",
        path.display()
    ));
    let activity = progress::activity("merging");
    let mut weights = folder.weights()?;
    adapters.merge_into(&mut weights)?;
    let config = json!({
        "command": "merge",
        "version": env!("CARGO_PKG_VERSION"),
        "model": args.model.display().to_string(),
        "weights_sha256": digests(&folder)?,
        "adapter": path.display().to_string(),
        "adapter_sha256": sha256_file(path)?,
    });
    let run = RunFolder::begin(&args.out, existing, &config, &files).map_err(without_resume)?;
    folder.write_without(&run.staging()?, &weights, lora::FILE_NAME, false)?;
    interrupt::finish_first("once the model is in its place");
    publish(&run, &args.out, false)?;
    drop(activity);
    progress::note(format!(
        "{layers} adapted layers merged; model in {}",
        args.out.display()
    ));
    Ok(())
}

/// A merge takes seconds and is not resumed.
fn without_resume(error: RunError) -> Failure {
    match error {
        RunError::Interrupted { path } => Failure::input(format!(
            "{}: an interrupted run or merge lies here; give --force to replace it, or choose another output folder",
            path.display()
        )),
        error => error.into(),
    }
}
