//! What a folder holds: a model or a data set.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::Module;
use burn::tensor::Device;
use retrack_checkpoint::folder::{Kind, training_checkpoint};
use retrack_networks::lora;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::model;
use crate::opened;
use crate::situation::{self, Situation};
use crate::source::{DataSource, Reading};

/// Names and values, in the order in which they are worth reading.
pub type Facts = serde_json::Map<String, Value>;

/// What a model folder or a data set holds. `reading`: of a data set.
///
/// # Errors
/// A path with neither, which is named where it is known; what cannot be read.
pub fn inspect(path: &Path, reading: &Reading) -> Result<Facts, Failure> {
    if !path.exists() {
        return Err(Failure::input(format!(
            "{}: no such file or folder",
            path.display()
        )));
    }
    check_weight_file(path)?;
    if path.join("model_index.json").is_file() || path.join("config.json").is_file() {
        return model_facts(path);
    }
    check_training(path)?;
    data_facts(path, reading)
}

/// Names what training scripts leave that is neither a model nor data.
fn check_training(path: &Path) -> Result<(), Failure> {
    let adapter = path.join(lora::FILE_NAME);
    // A training's checkpoint may hold one, which is what can be used of it.
    let what = if adapter.is_file() {
        format!(
            "a folder with an adapter ({}) and no model; {}",
            lora::FILE_NAME,
            situation::advice_on(Situation::LoneAdapter, adapter.display())
        )
    } else if let Some(what) = training_checkpoint(path) {
        what
    } else if let Some((folder, class)) = other_network(path) {
        format!(
            "a folder with a {class} ({folder}), which is not read; UNet2DModel and UNet2DConditionModel are"
        )
    } else {
        return Ok(());
    };
    Err(Failure::input(format!("{}: {what}", path.display())))
}

/// The first part with another network's configuration, and the class that it names.
fn other_network(path: &Path) -> Option<(String, String)> {
    const PARTS: [&str; 6] = [
        "transformer",
        "transformer_ema",
        "controlnet",
        "prior",
        "decoder",
        "vae",
    ];
    PARTS.iter().find_map(|part| {
        let folder = path.join(part);
        let config = std::fs::read(folder.join("config.json")).ok()?;
        let config = retrack_checkpoint::json::parse(&config).ok()?;
        let class: String = config["_class_name"].as_str()?.chars().take(80).collect();
        let is_name = class.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        is_name.then(|| (folder.display().to_string(), class))
    })
}

/// Names files of weights, which are neither a model nor data.
fn check_weight_file(path: &Path) -> Result<(), Failure> {
    const WEIGHTS: [&str; 5] = ["safetensors", "bin", "ckpt", "pt", "pth"];
    let extension = path
        .extension()
        .map(|own| own.to_string_lossy().to_lowercase());
    // What a training goes on from is named with the data that it is not.
    let state = ["optimizer", "scheduler", "scaler"]
        .iter()
        .any(|name| path.file_stem().is_some_and(|own| own == *name));
    let is_weights = !state && extension.is_some_and(|own| WEIGHTS.contains(&own.as_str()));
    match is_weights && path.is_file() {
        true => Err(Failure::input(format!(
            "{}: a file of weights; {}",
            path.display(),
            situation::advice(Situation::WeightsAlone)
        ))),
        false => Ok(()),
    }
}

fn model_facts(path: &Path) -> Result<Facts, Failure> {
    let opened = opened::open(path)?;
    let (folder, scheduler) = (opened.folder(), opened.scheduler());
    let config = &opened.denoiser().config;
    let class = &folder.class_name;
    let files = folder.weight_files();
    let files: Vec<String> = files
        .iter()
        .map(|file| file.display().to_string())
        .collect();
    let sized = |size: Option<[usize; 2]>, channels: usize| match size {
        Some([height, width]) => format!("{height} x {width} x {channels}"),
        None => format!("{channels} channels"),
    };
    let mut facts = Facts::new();
    let mut add = |key: &str, value: Value| facts.insert(key.to_owned(), value);
    let kind = match &folder.kind {
        Kind::Pipeline { class_name } => format!("{class_name} with a {class}"),
        Kind::Bare => class.clone(),
    };
    add("kind", kind.into());
    let network = opened.network(&Device::flex())?;
    add("parameters", network.num_params().into());
    drop(network);
    for (part, parameters) in opened.other_parameters()? {
        add(&format!("{part}_parameters"), parameters.into());
    }
    add(
        "image",
        sized(opened.image_size(), opened.channels()).into(),
    );
    if opened.latent_factor().is_some() {
        add(
            "latent",
            sized(config.sample_size, config.in_channels).into(),
        );
    }
    for (key, value) in config.architecture.facts() {
        add(key, value);
    }
    match opened.prompt_tokens() {
        Some(most) => add("prompt_tokens", most.into()),
        None => add("classes", json!(opened.condition().classes())),
    };
    let prediction = match scheduler.flow {
        Some(_) => "Flow".into(),
        None => format!("{:?}", scheduler.prediction),
    };
    add("prediction", prediction.into());
    add("timesteps", scheduler.num_train_timesteps.into());
    add("weight_files", files.join(", ").into());
    Ok(facts)
}

fn data_facts(path: &Path, reading: &Reading) -> Result<Facts, Failure> {
    let source = DataSource {
        reading: reading.clone(),
        ..DataSource::at(path)
    };
    let data = model::open_images(&source, None)?;
    let mut counts: BTreeMap<i64, usize> = BTreeMap::new();
    for label in (0..data.len()).filter_map(|row| data.label(row)) {
        *counts.entry(label).or_default() += 1;
    }
    let labels = if counts.is_empty() {
        Value::from("none")
    } else {
        let listed = counts
            .iter()
            .take(20)
            .map(|(&label, n)| match data.label_name(label) {
                Some(name) => format!("{label} ({name}): {n}"),
                None => format!("{label}: {n}"),
            });
        let mut listed = listed.collect::<Vec<_>>().join(", ");
        if counts.len() > 20 {
            listed += &format!(", and {} more", counts.len() - 20);
        }
        listed.into()
    };
    let facts = json!({
        "kind": data.kind(),
        "images": data.len(),
        "image": data.shape().to_string(),
        "labels": labels,
        "digest": data.digest()?,
    });
    let Value::Object(facts) = facts else {
        unreachable!("written as an object")
    };
    Ok(facts)
}
