//! `retrack train`, and models with classes from training to samples.

mod support;

use serde_json::json;
use support::{Folder, PHOTOS, SIDE, events, photo_png};

const TRAIN: &str = "train --data photos --arch tiny.json --batch-size 4 --warmup 2";

#[test]
fn a_trained_model_is_a_pipeline_that_other_commands_take() {
    let folder = Folder::new();
    folder.photos("photos");
    folder.tiny_arch(json!({ "sample_size": null }));
    let said = folder.done(&format!("{TRAIN} --steps 3 --lr 1e-3 --out model"));
    assert_eq!(
        said.stdout,
        "trained on 16 images for 3 steps; model in model\n"
    );
    let files = folder.files("model");
    let names = files.keys().filter(|name| !name.contains("tfevents"));
    assert_eq!(
        names.collect::<Vec<_>>(),
        [
            "model_index.json",
            "run/",
            "run/config.json",
            "run/events.jsonl",
            "scheduler/",
            "scheduler/scheduler_config.json",
            "unet/",
            "unet/config.json",
            "unet/diffusion_pytorch_model.safetensors",
        ]
    );
    let index = folder.read_json("model/model_index.json");
    assert_eq!(index["_class_name"], "DDPMPipeline");
    assert_eq!(index["unet"], json!(["diffusers", "UNet2DModel"]));
    assert_eq!(index["scheduler"], json!(["diffusers", "DDPMScheduler"]));
    // The images' size is written down where the configuration left it open.
    let config = folder.read_json("model/unet/config.json");
    assert_eq!(config["sample_size"], json!([SIDE, SIDE]));
    assert_eq!(config["block_out_channels"], json!([8, 8]));

    let rates: Vec<f64> = events(&folder, "model")
        .iter()
        .map(|event| event["learning_rate"].as_f64().unwrap())
        .collect();
    assert_eq!(rates.len(), 3);
    assert!(
        rates.iter().all(|&rate| rate <= 1e-3) && rates[1] > rates[0],
        "{rates:?}"
    );
    folder.done("sample --model model --count 2 --steps 2 --out samples");
    folder.done("unlearn --model model --data photos --forget row:0 --neighbors 3 --batch-size 2 --steps 1 --out out");
    folder.done("inspect out");
}

#[test]
fn a_seed_decides_the_trained_weights() {
    let folder = Folder::new();
    folder.photos("photos");
    folder.tiny_arch(json!({ "dropout": 0.1 }));
    let weights = |options: &str, out: &str| {
        folder.done(&format!(
            "{TRAIN} --steps 2 --lr 1e-2 {options} --out {out}"
        ));
        folder.read(&format!("{out}/unet/diffusion_pytorch_model.safetensors"))
    };
    let first = weights("", "first");
    assert!(weights("--threads 1", "again") == first);
    assert!(weights("--seed 1", "other") != first);
    assert!(weights("--accumulate 2", "accumulated") != first);
}

#[test]
fn excluded_images_and_their_copies_are_not_trained_on() {
    let folder = Folder::new();
    folder.photos("photos");
    folder.write("photos/copy.png", photo_png(3));
    folder.tiny_arch(json!({}));
    let said = folder.done(&format!(
        "{TRAIN} --steps 1 --exclude photos/03.png --out model"
    ));
    assert!(
        said.stdout.starts_with("trained on 15 images"),
        "{}",
        said.stdout
    );
    assert!(said.stderr.contains("1 exact copy"), "{}", said.stderr);
    // Which images remain decides the run, not how they were left out.
    folder.photos("fewer");
    std::fs::remove_file(folder.path("fewer/03.png")).unwrap();
    let line = TRAIN.replace("photos", "fewer");
    folder.done(&format!("{line} --steps 1 --out fewer-model"));
    let weights =
        |out: &str| folder.read(&format!("{out}/unet/diffusion_pytorch_model.safetensors"));
    assert!(weights("model") == weights("fewer-model"));
    assert_eq!(PHOTOS, 16);
}

#[test]
fn a_model_with_classes_is_trained_unlearned_and_sampled() {
    let folder = Folder::new();
    let images = folder.idx(24, SIDE, 3);
    folder.tiny_arch(json!({ "num_class_embeds": 3 }));
    folder.done(&format!(
        "train --data {images} --arch tiny.json --steps 1 --batch-size 4 --lr 0.1 --warmup 1 --out model"
    ));
    folder.done(&format!(
        "unlearn --model model --data {images} --forget label:1 --neighbors 3 --batch-size 4 --steps 2 --out out"
    ));
    let config = folder.read_json("out/run/config.json");
    assert_eq!(config["forget_rows"].as_array().unwrap().len(), 8);
    let inspected = folder.done("inspect out --json").json();
    assert_eq!(inspected["classes"], 3);

    let sample = "sample --model out --count 2 --steps 2";
    for class in 0..3 {
        folder.done(&format!("{sample} --class {class} --out class-{class}.png"));
    }
    assert_ne!(folder.read("class-0.png"), folder.read("class-1.png"));
    folder.refused(&format!("{sample} --out x.png"), &["3 classes", "--class"]);
    folder.refused(
        &format!("{sample} --class 3 --out x.png"),
        &["label 3", "0 to 2"],
    );
    folder.refused(
        &format!("{sample} --class=-1 --out x.png"),
        &["label -1", "0 to 2"],
    );
}

#[test]
fn labels_that_the_model_does_not_know_are_refused_before_anything_is_written() {
    let folder = Folder::new();
    let images = folder.idx(24, SIDE, 5);
    folder.tiny_arch(json!({ "num_class_embeds": 3 }));
    folder.refused(
        &format!("train --data {images} --arch tiny.json --steps 1 --batch-size 4 --out model"),
        &["label", "0 to 2"],
    );
}

#[test]
fn inspect_counts_images_and_labels() {
    let folder = Folder::new();
    let images = folder.idx(10, SIDE, 3);
    let facts = folder.done(&format!("inspect {images} --json")).json();
    assert_eq!(facts["kind"], "IDX pair");
    assert_eq!(facts["images"], 10);
    assert_eq!(facts["labels"], "0: 4, 1: 3, 2: 3");
    folder.photos("photos");
    let text = folder.done("inspect photos").stdout;
    assert!(
        text.contains("folder of images") && text.contains("none"),
        "{text}"
    );
}
