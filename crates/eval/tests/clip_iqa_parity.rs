//! CLIP and CLIP-IQA against transformers and torchmetrics: `fixtures/parity/clip_tiny`, and folders that are none.

#[path = "../../networks/tests/support/mod.rs"]
mod support;

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use retrack_eval::clip_iqa::{ClipIqa, ClipIqaError};
use retrack_networks::clip::Clip;
use retrack_networks::model::ModelError;
use retrack_networks::parameters::to_host;
use serde_json::{Value, json};
use support::{Case, picture, worst};

const CASE: &str = "clip_tiny";
const SHAPES: [(&str, [usize; 3]); 5] = [
    ("gray", [28, 28, 1]),
    ("rgb", [64, 48, 3]),
    ("large", [300, 457, 3]),
    ("both", [20, 600, 3]),
    ("square", [224, 224, 3]),
];

fn folder(name: &str) -> PathBuf {
    support::root().join(CASE).join(name)
}

/// The case's image of this name.
fn image(name: &str, shape: [usize; 3]) -> Vec<u8> {
    picture(&format!("{CASE}.{name}"), shape)
}

#[test]
fn features_of_texts_equal_those_of_transformers() {
    let case = Case::read(CASE);
    let texts: Vec<String> = serde_json::from_value(case.json("texts.json")).unwrap();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    for (name, prefix) in [("model", ""), ("old", "old.")] {
        let clip = Clip::open(&folder(name), &Device::flex()).unwrap();
        let found = clip.text_features(&texts).unwrap();
        let expected = case.floats(&format!("{prefix}text_features"));
        let far = worst(&to_host(found), &expected, texts.len());
        println!("{name}: {:.1e}", far.error);
        assert!(far.error < 1e-5, "{name}: {far:?}");
    }
}

#[test]
fn features_of_an_image_equal_those_of_transformers() {
    let case = Case::read(CASE);
    let (set, shape) = SHAPES[4];
    for (name, prefix) in [("model", ""), ("old", "old.")] {
        let clip = Clip::open(&folder(name), &Device::flex()).unwrap();
        let (mean, sd) = (clip.preprocessing.mean, clip.preprocessing.sd);
        let bytes = image(set, shape).into_iter().enumerate();
        let pixels = bytes.map(|(i, byte)| (f32::from(byte) / 255.0 - mean[i % 3]) / sd[i % 3]);
        let pixels = TensorData::new(pixels.collect::<Vec<f32>>(), [1, 224, 224, 3]);
        let found = clip.image_features(Tensor::from_data(pixels, &Device::flex()));
        let expected = case.floats(&format!("{prefix}square.features"));
        let far = worst(&to_host(found), &expected, 1);
        println!("{name}: {:.1e}", far.error);
        assert!(far.error < 1e-5, "{name}: {far:?}");
    }
}

#[test]
fn scores_equal_those_of_transformers_from_a_saved_and_from_a_published_folder() {
    let case = Case::read(CASE);
    for (name, prefix) in [("model", ""), ("old", "old.")] {
        let iqa = ClipIqa::open(folder(name), &Device::flex()).unwrap();
        for (set, shape) in SHAPES {
            let found = iqa.scores(&image(set, shape), shape).unwrap();
            let expected = case.scalar(&format!("{prefix}{set}.score"));
            let error = (found[0] - expected).abs();
            println!("{name} {set}: {:.4}, {error:.1e} apart", found[0]);
            assert!(found.len() == 1 && error < 1e-4, "{name} {set}: {error}");
        }
    }
}

#[test]
fn a_score_equals_that_of_torchmetrics_where_nothing_is_resized() {
    let case = Case::read(CASE);
    let iqa = ClipIqa::open(folder("model"), &Device::flex()).unwrap();
    let (set, shape) = SHAPES[4];
    let found = iqa.scores(&image(set, shape), shape).unwrap()[0];
    let error = (found - case.scalar("square.torchmetrics")).abs();
    assert!(error < 1e-4, "{error}");
}

#[test]
fn images_are_judged_one_by_one_in_their_order_however_many() {
    let iqa = ClipIqa::open(folder("model"), &Device::flex()).unwrap();
    let shape = [30, 40, 3];
    let images: Vec<Vec<u8>> = (0..11).map(|i| image(&format!("{i}"), shape)).collect();
    let found = iqa.scores(&images.concat(), shape).unwrap();
    assert_eq!(found.len(), 11);
    for (image, found) in images.iter().zip(&found) {
        let alone = iqa.scores(image, shape).unwrap();
        assert!((alone[0] - found).abs() < 1e-6, "{alone:?}, {found}");
        assert!((0.0..=1.0).contains(found));
    }
    assert!(found.iter().any(|score| (score - found[0]).abs() > 1e-3));
    assert!(iqa.scores(&[], shape).unwrap().is_empty());
    // Nine million columns at the network's height.
    let thin = vec![77; 40_000];
    assert_eq!(iqa.scores(&thin, [1, 40_000, 1]).unwrap().len(), 1);
}

#[test]
fn what_is_no_image_is_refused_with_the_numbers() {
    let iqa = ClipIqa::open(folder("model"), &Device::flex()).unwrap();
    let channels = iqa.scores(&[0; 32], [4, 4, 2]).unwrap_err();
    assert!(channels.to_string().contains("2 channels"), "{channels}");
    for (bytes, shape) in [(47, [4, 4, 3]), (0, [0, 4, 3])] {
        let size = iqa.scores(&vec![0; bytes], shape).unwrap_err();
        assert!(size.to_string().contains("no whole images"), "{size}");
    }
}

/// A copy of the case's folder `from`, which `change` then changes.
fn changed(from: &str, change: impl FnOnce(&Path)) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(folder(from)).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
    }
    change(copy.path());
    copy
}

fn change_json(path: PathBuf, change: impl FnOnce(&mut Value)) {
    let mut json = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut json);
    fs::write(path, json.to_string()).unwrap();
}

/// What is said of the case's folder `from` after `change`; it must name the folder and each of `words`.
fn assert_refused(from: &str, change: impl FnOnce(&Path), words: &[&str]) -> ModelError {
    let copy = changed(from, change);
    let error = match ClipIqa::open(copy.path(), &Device::flex()) {
        Err(ClipIqaError::Model(error)) => error,
        other => panic!("{words:?}: {other:?}"),
    };
    let message = error.to_string();
    let place = copy.path().display().to_string();
    for word in words.iter().chain([&place.as_str()]) {
        assert!(message.contains(word), "{word}: {message}");
    }
    println!("{}", message.replace(&place, "DIR"));
    error
}

#[test]
fn folders_of_something_else_are_refused_with_the_remedy() {
    let remedy = "hf download openai/clip-vit-base-patch16 --local-dir DIR";
    let config =
        |change: fn(&mut Value)| move |dir: &Path| change_json(dir.join("config.json"), change);
    let text = config(|json| {
        *json = json["text_config"].take();
    });
    let error = assert_refused("model", text, &["a text encoder alone", remedy]);
    assert!(matches!(error, ModelError::NotClip { .. }));
    let vision = config(|json| *json = json["vision_config"].take());
    assert_refused("model", vision, &["an image encoder alone", remedy]);
    let unet = config(|json| *json = json!({ "_class_name": "UNet2DModel" }));
    assert_refused("model", unet, &["UNet2DModel", remedy]);
    let other = config(|json| json["model_type"] = "siglip".into());
    assert_refused("model", other, &["siglip", remedy]);
    let nameless = config(|json| json["model_type"] = Value::Null);
    assert_refused("model", nameless, &["without `model_type`", remedy]);
    let none = |dir: &Path| fs::remove_file(dir.join("config.json")).unwrap();
    assert_refused("model", none, &["no config.json", remedy]);
    let pipeline =
        |dir: &Path| fs::rename(dir.join("config.json"), dir.join("model_index.json")).unwrap();
    assert_refused("model", pipeline, &["a pipeline of diffusers", remedy]);
    let missing = ClipIqa::open("/nowhere/clip", &Device::flex()).unwrap_err();
    assert!(
        missing
            .to_string()
            .contains("/nowhere/clip: no such folder")
    );
}

#[test]
fn a_configuration_that_cannot_be_computed_is_refused_by_its_key() {
    let config =
        |change: fn(&mut Value)| move |dir: &Path| change_json(dir.join("config.json"), change);
    for (change, word) in [
        (
            (|json| json["vision_config"] = Value::Null) as fn(&mut Value),
            "`vision_config` is missing",
        ),
        (
            |json| json["vision_config"]["patch_size"] = 15.into(),
            "in `vision_config`, `image_size` = 224 does not split",
        ),
        (
            |json| json["vision_config"]["patch_size"] = 0.into(),
            "`vision_config.patch_size` is 0",
        ),
        (
            |json| json["vision_config"]["hidden_act"] = "silu".into(),
            "`vision_config.hidden_act` is silu",
        ),
        (
            |json| json["text_config"]["eos_token_id"] = 5.into(),
            "the tokenizer ends a text with token 633",
        ),
        // Of tensors larger than any memory, and far from what the weights have.
        (
            |json| {
                json["vision_config"]["hidden_size"] = (1 << 20).into();
                json["vision_config"]["intermediate_size"] = (1 << 20).into();
            },
            "they do not belong together",
        ),
        (
            |json| json["text_config"]["vocab_size"] = 633.into(),
            "token 633 of text 0",
        ),
    ] {
        assert_refused("model", config(change), &[word]);
    }
    let processor = |dir: &Path| {
        change_json(dir.join("processor_config.json"), |json| {
            json["image_processor"]["resample"] = 2.into();
        });
    };
    assert_refused(
        "model",
        processor,
        &["processor_config.json", "`resample` is 2"],
    );
    let processor = |dir: &Path| {
        change_json(dir.join("preprocessor_config.json"), |json| {
            json["size"] = 336.into();
        });
    };
    assert_refused(
        "old",
        processor,
        &["preprocessor_config.json", "`size` is 336"],
    );
}

#[test]
fn weights_that_do_not_fit_are_refused_by_name() {
    let config =
        |change: fn(&mut Value)| move |dir: &Path| change_json(dir.join("config.json"), change);
    let shape = config(|json| json["projection_dim"] = 11.into());
    let words = ["text_projection.weight", "[10, 12]", "[11, 12]"];
    assert_refused("model", shape, &words);
    let deeper = config(|json| json["text_config"]["num_hidden_layers"] = 3.into());
    let word = "missing tensor text_model.encoder.layers.2.mlp.fc1.weight";
    assert_refused("model", deeper, &[word]);
    let shallower = config(|json| json["vision_config"]["num_hidden_layers"] = 1.into());
    let word = "unexpected tensor vision_model.encoder.layers.1.mlp.fc1.weight";
    assert_refused("model", shallower, &[word]);
    let text = |dir: &Path| {
        let path = dir.join("model.safetensors");
        let bytes = fs::read(&path).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let mut kept = tensors.tensors();
        kept.retain(|(name, _)| name.starts_with("text_model."));
        fs::write(&path, safetensors::serialize(kept, None).unwrap()).unwrap();
    };
    assert_refused("model", text, &["weights without an image encoder"]);
    let none = |dir: &Path| fs::remove_file(dir.join("model.safetensors")).unwrap();
    assert_refused("model", none, &["no weights", "pytorch_model.bin"]);
    let no_words = |dir: &Path| fs::remove_file(dir.join("tokenizer.json")).unwrap();
    assert_refused(
        "model",
        no_words,
        &["neither vocab.json with merges.txt nor"],
    );
}

#[test]
fn truncated_files_are_refused_and_damaged_ones_panic_nowhere() {
    for (from, file) in [
        ("model", "model.safetensors"),
        ("old", "pytorch_model.bin"),
        ("model", "config.json"),
        ("model", "tokenizer.json"),
        ("model", "processor_config.json"),
        ("old", "merges.txt"),
    ] {
        let copy = changed(from, |_| {});
        let path = copy.path().join(file);
        let whole = fs::read(&path).unwrap();
        for part in 0..12 {
            let len = whole.len() * part / 12;
            fs::write(&path, &whole[..len]).unwrap();
            let opened = ClipIqa::open(copy.path(), &Device::flex());
            // The merges of a text are cut at any line.
            if file != "merges.txt" {
                let error = opened
                    .expect_err(&format!("{file} of {len} bytes"))
                    .to_string();
                assert!(error.contains(file), "{error}");
            }
        }
        for step in 0..12 {
            let mut damaged = whole.clone();
            let place = whole.len() * step / 12 + 5;
            damaged[place] ^= 0x15;
            fs::write(&path, damaged).unwrap();
            // Damaged weights are weights.
            if let Ok(iqa) = ClipIqa::open(copy.path(), &Device::flex()) {
                let _ = iqa.scores(&[9; 64 * 3], [8, 8, 3]);
            }
        }
    }
}

/// A whole network, on request: `RETRACK_CLIP=folder RETRACK_CLIP_PICTURES=folder cargo test -- --ignored --nocapture
/// published`. The folder of pictures holds PNG files, and beside each `NAME.png` the score that transformers gives it as
/// a number in `NAME.txt`.
#[test]
#[ignore = "needs a network in RETRACK_CLIP and pictures in RETRACK_CLIP_PICTURES"]
fn a_published_network_gives_the_scores_of_transformers() {
    let variable = |name| PathBuf::from(std::env::var(name).unwrap());
    let start = std::time::Instant::now();
    let iqa = ClipIqa::open(variable("RETRACK_CLIP"), &Device::flex()).unwrap();
    println!("opened in {:?}", start.elapsed());
    let files = fs::read_dir(variable("RETRACK_CLIP_PICTURES")).unwrap();
    let mut files: Vec<PathBuf> = files.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|ending| ending == "png"));
    files.sort();
    assert!(!files.is_empty());
    for path in files {
        let picture = image::open(&path).unwrap().into_rgb8();
        let (width, height) = picture.dimensions();
        let shape = [height as usize, width as usize, 3];
        let start = std::time::Instant::now();
        let found = iqa.scores(picture.as_raw(), shape).unwrap()[0];
        let took = start.elapsed();
        let expected = fs::read_to_string(path.with_extension("txt")).unwrap();
        let expected: f64 = expected.trim().parse().unwrap();
        let apart = (found - expected).abs();
        println!(
            "{}: {found:.6}, {apart:.1e} apart, {took:?}",
            path.display()
        );
        assert!(apart < 1e-4, "{apart}");
    }
}
