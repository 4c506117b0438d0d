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
            ".retrack-files.json",
            "model_index.json",
            "run/",
            // From here the run can go on to more steps.
            "run/checkpoint-00000003.safetensors",
            "run/checkpoint-00000003.sha256",
            "run/config.json",
            "run/events.jsonl",
            "run/loss.svg",
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

#[test]
fn networks_are_known_by_name_and_take_size_and_channels_from_the_data() {
    let folder = Folder::new();
    folder.photos("gray");
    for row in 0..4 {
        folder.write(&format!("color/{row}.png"), color_png(row, 32, 3));
        folder.write(&format!("glass/{row}.png"), color_png(row, 32, 4));
    }
    for (name, parameters) in [("small", 1.8), ("mnist", 14.7), ("ddpm-cifar10-32", 35.7)] {
        let line = format!("train --arch {name} --batch-size 1 --dry-run --out out");
        for (data, channels, side) in [("gray", 1, SIDE), ("color", 3, 32)] {
            // The shape of CIFAR-10's network halves three times.
            let plan = folder.done(&format!("{line} --data {data}")).json();
            let arch = &plan["arch"];
            assert_eq!(arch["in_channels"], channels, "{name}");
            assert_eq!(arch["out_channels"], channels, "{name}");
            assert_eq!(arch["sample_size"], json!([side, side]), "{name}");
            let config = retrack_networks::config::UNet2DConfig::from_json(arch).unwrap();
            let millions = config.cost(side, side).parameters as f64 / 1e6;
            assert!((millions - parameters).abs() < 0.06, "{name}: {millions}");
        }
    }
    let plan = folder
        .done("train --arch small --data glass --dry-run --out out")
        .json();
    assert_eq!(plan["arch"]["in_channels"], 3);
    // Sides that the network cannot halve so often.
    folder.refused(
        "train --arch ddpm-celebahq-256 --data gray --out out",
        &["ddpm-celebahq-256: ", "8 x 8", "32"],
    );
    folder.refused(
        "train --arch smal --data gray --out out",
        &["smal: neither a file nor a network known by name (small, mnist,"],
    );
    folder.done("train --arch small --data gray --steps 1 --batch-size 2 --out out");
    assert_eq!(folder.read_json("out/unet/config.json")["in_channels"], 1);
    folder.done("sample --model out --count 1 --steps 1 --out x.png");
}

#[test]
fn the_networks_known_by_name_are_the_published_ones() {
    let root = support::parity().join("../..");
    let read = |path: &str| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(root.join(path)).unwrap()).unwrap()
    };
    for (name, published) in [
        ("small", "assets/base-arch.json"),
        ("mnist", "benchmarks/arch/mnist-tshirt.json"),
        ("ddpm-cifar10-32", "benchmarks/arch/ddpm-cifar10-32.json"),
        (
            "ddpm-celebahq-256",
            "benchmarks/arch/ddpm-ema-celebahq-256.json",
        ),
    ] {
        let mut arch = read(&format!("crates/study/presets/arch/{name}.json"));
        let published = read(published);
        for key in ["sample_size", "in_channels", "out_channels"] {
            assert!(arch.get(key).is_none(), "{name}: {key}");
            arch[key] = published[key].clone();
        }
        assert_eq!(arch, published, "{name}");
    }
}

#[test]
fn a_configuration_without_sizes_is_refused_with_what_is_missing() {
    let folder = Folder::new();
    folder.photos("photos");
    let line = "train --data photos --arch tiny.json --steps 1 --out out";
    let required = ["block_out_channels", "down_block_types", "up_block_types"];
    folder.write("tiny.json", "{}");
    folder.refused(
        line,
        &[
            "tiny.json: `block_out_channels`, `down_block_types` and `up_block_types` are missing",
            "docs/train.md",
            "--arch small",
        ],
    );
    for key in required {
        folder.tiny_arch(json!({ key: null }));
        folder.refused(line, &[&format!("tiny.json: `{key}` is missing")]);
    }
    folder.write("tiny.json", "[]");
    folder.refused(line, &["tiny.json", "not a JSON object"]);
    // Size and channels may be left to the data.
    folder.tiny_arch(json!({}));
    let mut arch = folder.read_json("tiny.json");
    for key in ["sample_size", "in_channels", "out_channels"] {
        arch.as_object_mut().unwrap().remove(key);
    }
    folder.write("tiny.json", arch.to_string());
    folder.done(&format!("{line} --batch-size 2"));
    assert_eq!(folder.read_json("out/unet/config.json")["out_channels"], 1);
}

#[test]
fn the_example_in_the_documentation_trains() {
    let root = support::parity().join("../..");
    let page = std::fs::read_to_string(root.join("docs/train.md")).unwrap();
    let (_, rest) = page.split_once("```json\n").unwrap();
    let (example, _) = rest.split_once("```").unwrap();
    let folder = Folder::new();
    folder.photos("photos");
    folder.write("my-network.json", example);
    folder.done("train --data photos --arch my-network.json --steps 1 --batch-size 2 --out out");
    // Every key that the reader knows is on the page.
    let keys = [
        "act_fn",
        "add_attention",
        "attention_head_dim",
        "attn_norm_num_groups",
        "block_out_channels",
        "center_input_sample",
        "down_block_types",
        "downsample_padding",
        "downsample_type",
        "dropout",
        "flip_sin_to_cos",
        "freq_shift",
        "in_channels",
        "layers_per_block",
        "mid_block_scale_factor",
        "norm_eps",
        "norm_num_groups",
        "num_class_embeds",
        "out_channels",
        "resnet_time_scale_shift",
        "sample_size",
        "time_embedding_type",
        "up_block_types",
        "upsample_type",
    ];
    for key in keys {
        assert!(page.contains(&format!("`{key}`")), "{key}");
    }
}

/// Noise of three or four channels.
fn color_png(row: usize, side: usize, channels: usize) -> Vec<u8> {
    let pixels = support::noise(row, side * side * channels);
    let color = match channels {
        3 => image::ExtendedColorType::Rgb8,
        _ => image::ExtendedColorType::Rgba8,
    };
    let mut png = Vec::new();
    let encoder = image::codecs::png::PngEncoder::new(&mut png);
    let side = side as u32;
    image::ImageEncoder::write_image(encoder, &pixels, side, side, color).unwrap();
    png
}

#[test]
fn samples_and_the_loss_are_drawn_on_the_way_within_a_twentieth_of_the_run() {
    let folder = Folder::new();
    folder.photos("photos");
    folder.tiny_arch(json!({}));
    let line = format!("{TRAIN} --checkpoint-every 50");
    let said = folder.done(&format!("{line} --steps 400 --out whole"));
    assert!(
        said.stderr.contains("whole/run/samples-*.png"),
        "{}",
        said.stderr
    );
    let pictures = |out: &str| -> Vec<String> {
        let names = folder.files(&format!("{out}/run")).into_keys();
        names.filter(|name| name.starts_with("samples-")).collect()
    };
    // 5% of 400 steps of 4 images, three predictions each: 4 samples of 50 predictions, once.
    assert_eq!(pictures("whole"), ["samples-00000400.png"]);
    let picture = image::load_from_memory(&folder.read("whole/run/samples-00000400.png")).unwrap();
    assert!(picture.width() > 2 * SIDE as u32);
    let curve = String::from_utf8(folder.read("whole/run/loss.svg")).unwrap();
    assert!(curve.starts_with("<svg") && curve.contains("xmlns=\"http://www.w3.org/2000/svg\""));
    let tensorboard = folder.files("whole/run").into_iter();
    let tensorboard = tensorboard.filter(|(name, _)| name.contains("tfevents"));
    let tag = b"samples";
    assert!(
        tensorboard
            .into_iter()
            .any(|(_, bytes)| { bytes.windows(tag.len()).any(|window| window == tag) })
    );
    // Of a run that is too short for it nothing but the curve.
    folder.done(&format!("{line} --steps 20 --out short"));
    assert!(pictures("short").is_empty());
    assert!(folder.path("short/run/loss.svg").exists());
}

#[test]
fn samples_that_are_no_images_are_named_and_the_model_is_kept() {
    let folder = Folder::new();
    folder.photos("photos");
    folder.tiny_arch(json!({}));
    let said = folder.done(
        "train --data photos --arch tiny.json --batch-size 16 --accumulate 100 --steps 1 --warmup 0 --lr 1e30 --out out",
    );
    assert!(folder.path("out/model_index.json").exists());
    assert!(
        said.stderr
            .contains("step 1: the model's samples hold values that are not finite"),
        "{}",
        said.stderr
    );
    assert!(!folder.path("out/run/samples-00000001.png").exists());
}

#[test]
fn a_finished_run_goes_on_to_more_steps() {
    let folder = Folder::new();
    folder.photos("photos");
    folder.tiny_arch(json!({ "dropout": 0.2 }));
    let line = TRAIN.replace("--warmup 2", "--warmup 4");
    folder.done(&format!("{line} --steps 10 --out out"));
    let first = folder.files("out");
    folder.refused(
        &format!("{line} --steps 10 --out out --resume"),
        &["out: ", "ended after 10 steps", "larger --steps"],
    );
    folder.refused(
        &format!("{line} --steps 9 --out out --resume"),
        &["ended after 10 steps"],
    );
    folder.refused(
        &format!("{line} --steps 30 --lr 0.5 --out out --resume"),
        &["another learning_rate.rate"],
    );
    folder.refused(&format!("{line} --steps 30 --out out"), &["out", "--force"]);
    let said = folder.done(&format!("{line} --steps 30 --out out --resume"));
    for part in ["resuming after step 10", "goes on to 30", "another model"] {
        assert!(said.stderr.contains(part), "{}", said.stderr);
    }
    let recorded = events(&folder, "out");
    assert_eq!(recorded.len(), 30);
    let rate = |step: usize| recorded[step - 1]["learning_rate"].as_f64().unwrap();
    // Down to 0, up again to where a run of 30 steps would be, and down to 0.
    assert!(rate(10) < 2e-5, "{}", rate(10));
    assert_eq!(rate(11), 0.0);
    let cosine =
        |step: f64| 1e-4 * 0.5 * (1.0 + (std::f64::consts::PI * (step - 4.0) / 26.0).cos());
    assert!((rate(15) - cosine(14.0)).abs() < 1e-10);
    assert!(rate(30) < 1e-6);
    let config = folder.read_json("out/run/config.json");
    assert_eq!(
        (&config["steps"], &config["ended_at"]),
        (&json!(30), &json!([10]))
    );
    let weights = "unet/diffusion_pytorch_model.safetensors";
    assert_ne!(folder.read(&format!("out/{weights}")), first[weights]);

    // Interrupted on its second stretch, it ends with the same bytes.
    folder.done(&format!("{line} --steps 10 --out parts"));
    let again = format!("{line} --steps 30 --checkpoint-every 1 --out parts --resume");
    folder.kill_after_two_checkpoints(&again, "parts");
    folder.done(&again);
    let (mut whole, mut parts) = (folder.files("out"), folder.files("parts"));
    support::drop_timed(&mut whole);
    support::drop_timed(&mut parts);
    support::assert_same_files(&whole, &parts, "on to more steps");
    // And once more.
    folder.done(&format!("{line} --steps 35 --out out --resume"));
    let config = folder.read_json("out/run/config.json");
    assert_eq!(config["ended_at"], json!([10, 30]));

    // Without the checkpoint there is nothing to go on from.
    std::fs::remove_file(folder.path("out/run/checkpoint-00000035.safetensors")).unwrap();
    folder.refused(
        &format!("{line} --steps 40 --out out --resume"),
        &["its last checkpoint is gone"],
    );
}

#[test]
fn a_short_run_reaches_its_rate_and_one_that_cannot_says_so() {
    let folder = Folder::new();
    folder.photos("photos");
    folder.tiny_arch(json!({}));
    let line = "train --data photos --arch tiny.json --batch-size 4";
    let said = folder.done(&format!("{line} --steps 20 --out out"));
    assert!(!said.stderr.contains("never reaches"), "{}", said.stderr);
    let highest = |out: &str| {
        let rates = events(&folder, out).into_iter();
        rates
            .map(|event| event["learning_rate"].as_f64().unwrap())
            .fold(0.0, f64::max)
    };
    assert!((highest("out") - 1e-4).abs() < 1e-12, "{}", highest("out"));
    let warmup = |out: &str| {
        folder.read_json(&format!("{out}/run/config.json"))["learning_rate"]["warmup"].clone()
    };
    assert_eq!(warmup("out"), 2);
    let said = folder.done(&format!("{line} --steps 10 --warmup 500 --out cold"));
    let says = "warning: the learning rate rises over 500 steps and only 10 are left: it never reaches 1e-4";
    assert!(said.stderr.contains(says), "{}", said.stderr);
    // What a run began with it keeps, whatever is usual now.
    let said = folder.done(&format!("{line} --steps 17 --out cold --resume"));
    assert!(said.stderr.contains("only 7 are left"), "{}", said.stderr);
    assert!(
        !said.stderr.contains("rises over 500 steps to where"),
        "{}",
        said.stderr
    );
    assert_eq!(warmup("cold"), 500);
    folder.done(&format!("{line} --steps 60 --out out --resume"));
    assert_eq!(warmup("out"), 2);
}
