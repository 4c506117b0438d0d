//! `retrack merge`: an adapter folded into the weights it was trained for.

use retrack_networks::folder::ModelFolder;
use retrack_networks::lora::{self, Adapters};
use retrack_networks::model::check_size;

use crate::args::MergeArgs;
use crate::failure::Failure;
use crate::{model, progress};

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
    progress::detail(format_args!(
        "read {}: {layers} adapted layers",
        path.display()
    ));
    let activity = progress::activity("merging");
    let mut weights = folder.weights()?;
    check_size(&folder, &weights)?;
    model::note_wrapping(&folder.config_path().with_file_name(""), weights.wrapping());
    adapters.merge_into(&mut weights)?;
    folder.write_without(&args.out, &weights, lora::FILE_NAME, args.force)?;
    drop(activity);
    progress::note(format!(
        "{layers} adapted layers merged; model in {}",
        args.out.display()
    ));
    Ok(())
}
