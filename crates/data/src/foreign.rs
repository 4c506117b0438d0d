//! Formats that people keep images in and that are not read here, each with what it is and a way out.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use retrack_checkpoint::files::open_regular;
use retrack_checkpoint::folder::{is_training_state, training_checkpoint};

use super::sources::published::read_json;

/// What to do with most of them.
const SAVE: &str = "save its images as PNG files and name their folder, or as a Parquet file with a Hugging Face image \
                    column";

/// What to do with models.
const IMAGES: &str =
    "name the images that it was trained on, a folder of PNG files or Parquet files";
/// Files whose first bytes are looked at.
const MOST_OPENED: usize = 1000;

/// What a folder is whose files, in it and some way below, are called so; `None`: nothing known.
pub(crate) fn folder(path: &Path, names: &[String]) -> Option<String> {
    // What lies in the folder itself says more than what lies below.
    let (here, below): (Vec<_>, Vec<_>) = names.iter().partition(|name| !name.contains('/'));
    let nearest: Vec<&String> = here.into_iter().chain(below).collect();
    let has = |wanted: &str| names.iter().any(|name| name == wanted);
    if let Some(checkpoint) = training_checkpoint(path) {
        return Some(checkpoint);
    }
    if has("model_index.json") || (has("config.json") && names.iter().any(|name| is_weights(name)))
    {
        return Some(format!(
            "this is the folder of a model, and no data set; {IMAGES}"
        ));
    }
    if has("dataset_dict.json") {
        let splits = read_json(&path.join("dataset_dict.json")).ok();
        let splits = splits
            .as_ref()
            .and_then(|json| json.get("splits")?.as_array());
        let first = splits.and_then(|splits| splits.first()?.as_str());
        return Some(arrow_folder(path, Some(first.unwrap_or("train"))));
    }
    if let Some(arrow) = names.iter().find(|name| name.ends_with(".arrow")) {
        return match has("state.json") {
            true => Some(arrow_folder(path, None)),
            false => file(&path.join(arrow)),
        };
    }
    if let Some(batch) = names.iter().find(|name| {
        let plain = name.rsplit('/').next().unwrap_or(name);
        plain == "batches.meta" || is_python_batch(plain)
    }) {
        return Some(python_version(batch.starts_with("cifar-100")));
    }
    let hundred = |name: &String| name.starts_with("cifar-100-python/");
    if (has("meta") && has("train") && has("test")) || names.iter().any(hundred) {
        return Some(python_version(true));
    }
    if has("data.mdb") || has("lock.mdb") || names.iter().any(|name| name.ends_with("/data.mdb")) {
        return Some(format!(
            "this is an LMDB database, which is not read; {SAVE}"
        ));
    }
    if let Some(tar) = nearest.iter().find(|name| name.ends_with(".tar")) {
        return Some(format!(
            "tar archives (such as {tar}; ImageNet's, or WebDataset's shards) are not read; unpack each into a folder of \
             its own, where they lie: for f in *.tar; do mkdir \"${{f%.tar}}\"; tar xf \"$f\" -C \"${{f%.tar}}\"; done"
        ));
    }
    let mut known = nearest.into_iter().take(MOST_OPENED);
    known.find_map(|name| Some(format!("it holds {name}: {}", file(&path.join(name))?)))
}

/// Whether a file is called as weights of a network are.
fn is_weights(name: &str) -> bool {
    let name = name.rsplit('/').next().unwrap_or(name).to_lowercase();
    let whose = ["pytorch_model", "diffusion_pytorch_model", "model-"];
    let ends = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
    ends(&[".safetensors", ".ckpt", ".gguf", ".onnx"])
        || (ends(&[".bin", ".pt", ".pth"]) && whose.iter().any(|start| name.starts_with(start)))
}

/// `data_batch_1` without an ending, and CIFAR-10's other pickled files.
fn is_python_batch(name: &str) -> bool {
    let number = name.strip_prefix("data_batch_");
    name == "test_batch" || number.is_some_and(|number| number.parse::<u8>().is_ok())
}

fn python_version(hundred: bool) -> String {
    let of = if hundred { "100" } else { "10" };
    format!(
        "this is of CIFAR-{of} in its Python version, without its batches; fetch cifar-{of}-python.tar.gz from \
         https://www.cs.toronto.edu/~kriz/cifar.html, unpack it and name its folder"
    )
}

fn arrow_folder(path: &Path, split: Option<&str>) -> String {
    let split = split.map_or(String::new(), |split| format!("['{split}']"));
    format!(
        "this is a data set that Hugging Face's save_to_disk wrote (Arrow files), which is not read; write it as Parquet: \
         python -c \"from datasets import load_from_disk; \
         load_from_disk('{}'){split}.to_parquet('images.parquet')\"",
        typed(path)
    )
}

/// A path inside quotes inside quotes of a shell.
pub(crate) fn typed(path: &Path) -> String {
    let shown = path.display().to_string();
    match shown.contains(['\'', '"', '$', '`', '\\', '!']) {
        true => "PATH".into(),
        false => shown,
    }
}

/// What a file is, by its name, and by its first bytes where the name says little; `None`: nothing known.
pub(crate) fn file(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let lower = name.to_lowercase();
    let shown = typed(path);
    let ends = |endings: &[&str]| endings.iter().any(|ending| lower.ends_with(ending));
    let not_read = |what: &str| Some(format!("{what} is not read; {SAVE}"));
    if is_training_state(name) {
        return Some(
            "this is part of a training's checkpoint (accelerate's save_state writes such), and no data set".into(),
        );
    }
    if is_weights(name) {
        return Some(format!(
            "this is a file of a model's weights, and no data set; {IMAGES}"
        ));
    }
    if ends(&[".npz"]) {
        // Labels often lie before the images, and are rows of single numbers.
        return Some(numpy(&format!(
            "(lambda z: max((z[k] for k in z), key=lambda a: (a.ndim > 2, a.size)))(numpy.load('{shown}'))"
        )));
    }
    if ends(&[".npy"]) {
        return Some(numpy(&format!("numpy.load('{shown}')")));
    }
    if ends(&[".arrow"]) {
        return Some(format!(
            "Arrow files are not read; write it as Parquet: python -c \"from datasets import Dataset; \
             Dataset.from_file('{shown}').to_parquet('images.parquet')\""
        ));
    }
    if ends(&[
        ".tar", ".tgz", ".tar.gz", ".tar.xz", ".tar.bz2", ".tar.zst", ".zip", ".7z", ".rar",
    ]) {
        return Some("this is an archive; unpack it and name the folder".into());
    }
    if is_python_batch(name) || name == "batches.meta" {
        return Some(python_version(false));
    }
    for (endings, what) in [
        (&[".mat"][..], "a MATLAB file (as SVHN's)"),
        (&[".h5", ".hdf5", ".he5"], "an HDF5 file"),
        (&[".mdb", ".lmdb"], "an LMDB database"),
        (&[".beton"], "an FFCV file"),
        (&[".mds"], "a MosaicML shard"),
        (&[".feather"], "a Feather file"),
        (&[".pt", ".pth"], "a PyTorch file"),
        (&[".pkl", ".pickle"], "a pickled file"),
        (&[".csv", ".tsv"], "a table of text"),
    ] {
        if ends(endings) {
            return not_read(what);
        }
    }
    // Also train.tfrecord-00000-of-00010.
    if lower.contains("tfrecord") {
        return not_read("a TFRecord file");
    }
    let mut start = [0; 8];
    let mut opened: File = open_regular(path).ok()?;
    let length = opened.read(&mut start).ok()?;
    match &start[..length] {
        // Protocols 2 to 5 of pickle.
        [0x80, 2..=5, ..] if matches!(name, "train" | "test" | "meta") => {
            Some(python_version(true))
        }
        [0x80, 2..=5, ..] => not_read("a pickled file"),
        [b'P', b'K', 3, 4, ..] => not_read("a PyTorch or zip file"),
        [0x89, b'H', b'D', b'F', ..] => not_read("an HDF5 file"),
        start if start.starts_with(b"ARROW1") => not_read("an Arrow file"),
        start if start.starts_with(b"\x93NUMPY") => Some(numpy(&format!("numpy.load('{shown}')"))),
        [0x1f, 0x8b, ..] => Some("this is packed with gzip; unpack it and name the folder".into()),
        _ => None,
    }
}

fn numpy(array: &str) -> String {
    format!(
        "NumPy arrays are not read; save the images (here those of [N, height, width, channels] bytes) as PNG files and \
         name their folder: python -c \"import numpy, os; from PIL import Image; os.makedirs('images'); \
         [Image.fromarray(x.squeeze()).save(f'images/{{i:06}}.png') for i, x in enumerate({array})]\""
    )
}

/// What lies in a folder, for people: a few names.
pub(crate) fn listing(names: &[String]) -> String {
    let here: std::collections::BTreeSet<String> = names
        .iter()
        .map(|name| match name.split_once('/') {
            Some((folder, _)) => format!("{folder}/"),
            None => name.clone(),
        })
        .collect();
    let shown: Vec<&str> = here.iter().take(5).map(String::as_str).collect();
    match here.len() {
        0 => "nothing".into(),
        1..=5 => shown.join(", "),
        more => format!("{} and {} more", shown.join(", "), more - 5),
    }
}
