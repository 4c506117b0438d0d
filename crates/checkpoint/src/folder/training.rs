//! What training scripts leave to go on from, which is easily taken for a model or for data.

use std::fs;
use std::path::Path;

use super::{CONFIG, MODEL_INDEX};
use crate::words::listed;

/// Files that accelerate's `save_state` and trainers of its kind leave beside a model.
const STATE_FILES: [&str; 10] = [
    "optimizer.bin",
    "scheduler.bin",
    "sampler.bin",
    "optimizer.pt",
    "scheduler.pt",
    "scaler.pt",
    "rng_state.pth",
    "trainer_state.json",
    "optimizer.safetensors",
    "dl_state_dict.bin",
];
/// State files that are named in a message.
const MOST: usize = 3;
/// An adapter as diffusers keeps it.
const ADAPTER: &str = "pytorch_lora_weights.safetensors";
/// The network as it is trained, and averaged over the training.
const NETWORKS: [&str; 2] = ["unet", "unet_ema"];

/// Whether a training goes on from a file of this name.
pub fn is_training_state(name: &str) -> bool {
    let numbered = ["random_states_", "custom_checkpoint_"];
    STATE_FILES.contains(&name)
        || (numbered.iter().any(|start| name.starts_with(start)) && name.ends_with(".pkl"))
}

/// What a folder is that a training goes on from, and where its model is; `None` for every other folder.
pub fn training_checkpoint(folder: &Path) -> Option<String> {
    let entries = fs::read_dir(folder).ok()?.filter_map(Result::ok);
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort_unstable();
    let state: Vec<&String> = names
        .iter()
        .filter(|name| is_training_state(name))
        .collect();
    let has_network = |name: &&str| folder.join(name).join(CONFIG).is_file();
    let mut networks: Vec<&str> = NETWORKS.into_iter().filter(has_network).collect();
    if state.is_empty() && (networks.is_empty() || folder.join(MODEL_INDEX).is_file()) {
        return None;
    }
    if networks.is_empty() {
        networks = names
            .iter()
            .map(String::as_str)
            .filter(has_network)
            .collect();
    }
    let path = |name: &str| folder.join(name).display().to_string();
    let adapter = names.iter().find(|name| *name == ADAPTER);
    let model = match networks.as_slice() {
        [] if adapter.is_some() => format!(
            "it holds an adapter: `retrack merge --model DIR --adapter {} --out DIR` folds that into the model that it \
             was trained for",
            path(ADAPTER)
        ),
        [] => "its model is what the training script wrote with save_pretrained".to_owned(),
        [one] if NETWORKS.contains(one) => format!(
            "its network, which can be given as a model, is in {}",
            path(one)
        ),
        &[trained, averaged] if networks == NETWORKS => format!(
            "its network is in {}, and averaged over the training in {}: either can be given as a model",
            path(trained),
            path(averaged)
        ),
        several => format!(
            "what it holds of models is in {}",
            listed(several.iter().map(|one| path(one)))
        ),
    };
    let what = match state.as_slice() {
        [] => "the folder holds a network and no model_index.json, as a training's checkpoint does, and is".to_owned(),
        some => format!(
            "the folder is a training's checkpoint ({}; accelerate's save_state writes such),",
            listed(&some[..some.len().min(MOST)])
        ),
    };
    Some(format!("{what} no model folder and no data set; {model}"))
}
