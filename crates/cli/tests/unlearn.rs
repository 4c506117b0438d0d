//! `retrack unlearn` as a model's owner uses it: what is written, what is recorded, what is left of the image.

mod support;

use retrack_checkpoint::written::NAME as LIST;
use serde_json::Value;
use support::{Folder, PHOTOS, SIDE, events, noise, photo_png, png};

const UNLEARN: &str =
    "unlearn --model model --data photos --forget photos/03.png --neighbors 4 --batch-size 4";
const WEIGHTS: &str = "unet/diffusion_pytorch_model.safetensors";

#[test]
fn the_new_folder_differs_in_the_weights_and_the_card_alone() {
    let folder = Folder::with_model_and_photos();
    folder.write("model/README.md", "A model of mine.\n");
    folder.write("model/unet/notes.txt", "kept");
    let model = folder.files("model");
    for method in ["retrack", "finetune"] {
        let said = folder.done(&format!(
            "{UNLEARN} --method {method} --steps 2 --out {method}"
        ));
        let start = format!("{method}: 1 image unlearned from model in 2 steps");
        assert!(said.stdout.starts_with(&start), "{}", said.stdout);
        // What was done, the verdict, what speaks against it or is to be done, and the page.
        let lines: Vec<&str> = said.stdout.lines().collect();
        assert!(lines.len() > 3, "{}", said.stdout);
        for line in &lines[2..lines.len() - 1] {
            let known = line.starts_with("- ") || line.starts_with("What to do next: ");
            assert!(known, "{line}");
        }
        let last = lines[lines.len() - 1];
        assert_eq!(last, format!("report: {method}/run/report.html"));

        let mut files = folder.files(method);
        let run: Vec<String> = files
            .keys()
            .filter(|name| name.starts_with("run/"))
            .cloned()
            .collect();
        files.retain(|name, _| !name.starts_with("run/"));
        // A card that claims to be the base model's is kept under another name.
        let base = files.remove("README.base.md").unwrap();
        assert!(base == model["README.md"]);
        let ignored = String::from_utf8(files.remove(".gitignore").unwrap()).unwrap();
        assert!(ignored.contains("/run/*"), "{ignored}");
        assert!(files.remove(LIST).is_some());
        assert!(files.remove("retrack.json").is_some());
        assert!(files.keys().eq(model.keys()), "{:?}", files.keys());
        for (name, content) in &model {
            let kept = name != WEIGHTS && name != "README.md";
            assert_eq!(files[name] == *content, kept, "{name}");
        }
        assert_eq!(files[WEIGHTS].len(), model[WEIGHTS].len());
        // No checkpoint, no mark of an unfinished run, nothing temporary.
        let [_, config, lines, tensorboard, page, content] = run.as_slice() else {
            panic!("{run:?}");
        };
        assert_eq!([config, lines], ["run/config.json", "run/events.jsonl"]);
        // The key is outside.
        assert!(folder.path(&format!("{method}.digest-key")).is_file());
        assert_eq!([page, content], ["run/report.html", "run/report.json"]);
        assert!(tensorboard.starts_with("run/events.out.tfevents."));
    }
    assert!(folder.files("model") == model);
}

#[test]
fn each_step_is_recorded_with_its_losses() {
    let folder = Folder::with_model_and_photos();
    folder.done(&format!("{UNLEARN} --steps 3 --lr 1e-4 --out out"));
    let events = events(&folder, "out");
    assert_eq!(events.len(), 3);
    for (i, event) in events.iter().enumerate() {
        assert_eq!(event["step"], i + 1);
        assert_eq!(event["learning_rate"], 1e-4);
        let number = |key: &str| {
            event[key]
                .as_f64()
                .unwrap_or_else(|| panic!("{key}: {event}"))
        };
        for key in [
            "loss",
            "gradient_norm",
            "retain_loss",
            "forget_loss",
            "seconds",
        ] {
            assert!(number(key) > 0.0, "{key}: {event}");
        }
        // The preset's lambda weighs the two.
        let loss = 0.005 * number("forget_loss") + 0.995 * number("retain_loss");
        assert!((number("loss") - loss).abs() < 1e-4 * loss, "{event}");
    }
}

#[test]
fn every_method_runs_and_changes_the_model() {
    let folder = Folder::with_model_and_photos();
    let model = folder.read(&format!("model/{WEIGHTS}"));
    let mut results = vec![model];
    for (method, options) in [
        ("retrack", ""),
        ("finetune", ""),
        ("neggrad", ""),
        // With less the correction is not needed here, and the method is fine-tuning.
        ("erasediff", "--eta 5"),
        ("siss", ""),
    ] {
        let said = folder.done(&format!(
            "{UNLEARN} --method {method} {options} --steps 1 --json --out {method}"
        ));
        let json = said.json();
        assert_eq!(json["method"], method);
        assert_eq!(json["forgotten_rows"], 1);
        assert_eq!(json["retained_rows"], PHOTOS - 1);
        let events = events(&folder, method);
        assert_eq!(events.len(), 1);
        assert_eq!(json["last_loss"], events[0]["loss"]);
        let config = folder.read_json(&format!("{method}/run/config.json"));
        assert_eq!(config["settings"]["method"], method);
        let weights = folder.read(&format!("{method}/{WEIGHTS}"));
        assert!(!results.contains(&weights), "{method}");
        results.push(weights);
    }
}

#[test]
fn the_new_model_can_be_inspected_and_sampled() {
    let folder = Folder::with_model_and_photos();
    folder.done(&format!("{UNLEARN} --steps 1 --out out"));
    let inspect = |name: &str| folder.done(&format!("inspect {name} --json")).json();
    let (before, after) = (inspect("model"), inspect("out"));
    assert_eq!(after["kind"], "DDPMPipeline with a UNet2DModel");
    assert_eq!(after["image"], "8 x 8 x 1");
    for key in ["parameters", "channels", "timesteps", "prediction", "image"] {
        assert_eq!(after[key], before[key], "{key}");
    }
    let text = folder.done("inspect out").stdout;
    assert!(text.contains("DDPMPipeline"), "{text}");

    folder.done("sample --model out --count 4 --steps 3 --out grid.png");
    let grid = image::open(folder.path("grid.png")).unwrap();
    assert!(grid.width() >= 2 * SIDE as u32 && grid.width() == grid.height());
    // A grid and single images are the same samples, in batches of any size.
    for (batch, out) in [(4, "four"), (3, "three")] {
        folder.done(&format!(
            "sample --model out --count 4 --steps 3 --batch-size {batch} --scheduler ddpm --out {out}"
        ));
    }
    let mut singles = folder.files("four");
    assert!(singles.remove(LIST).is_some());
    let names: Vec<&str> = singles.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        ["000000.png", "000001.png", "000002.png", "000003.png"]
    );
    let single = image::load_from_memory(&singles["000002.png"]).unwrap();
    assert_eq!((single.width(), single.height()), (8, 8));
    let bytes = |name: &str| {
        let mut images = folder.files(name);
        images.remove(LIST);
        let images = images
            .into_values()
            .map(|png| image::load_from_memory(&png).unwrap().into_luma8());
        images
            .flat_map(image::GrayImage::into_raw)
            .collect::<Vec<u8>>()
    };
    // A matrix product of another batch size may round otherwise in the last bit.
    let pairs = bytes("four").into_iter().zip(bytes("three"));
    assert!(pairs.into_iter().all(|(a, b)| a.abs_diff(b) <= 1));

    for (options, name) in [("--seed 1", "other"), ("--scheduler ddim", "ddim")] {
        folder.done(&format!(
            "sample --model out --count 4 --steps 3 {options} --out {name}.png"
        ));
        assert_ne!(folder.read(&format!("{name}.png")), folder.read("grid.png"));
    }
    folder.done("sample --model out --count 4 --steps 3 --out again.png");
    assert_eq!(folder.read("again.png"), folder.read("grid.png"));
}

#[test]
fn a_seed_gives_the_same_bytes_on_any_number_of_threads_and_another_seed_does_not() {
    let folder = Folder::new();
    // Large enough for the kernels to share their work among threads.
    folder.tiny_arch(serde_json::json!({
        "sample_size": 28,
        "block_out_channels": [16, 32, 32],
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
        "norm_num_groups": 8,
    }));
    folder.idx(24, 28, 3);
    folder.done("train --data digits --arch tiny.json --steps 1 --batch-size 8 --out model");
    let weights = |options: &str, out: &str| {
        folder.done(&format!(
            "unlearn --model model --data digits --forget row:5 --batch-size 8 --steps 2 {options} --out {out}"
        ));
        folder.read(&format!("{out}/{WEIGHTS}"))
    };
    let one = weights("--seed 7 --threads 1", "one");
    assert!(weights("--seed 7 --threads 1", "again") == one);
    assert!(weights("--seed 7 --threads 2", "two") == one, "threads");
    assert!(weights("--seed 7", "all") == one, "all threads");
    assert!(weights("--seed 8 --threads 1", "other") != one);
}

#[test]
fn a_dry_run_prints_the_configuration_and_writes_nothing() {
    let folder = Folder::with_model_and_photos();
    let before = folder.files("");
    let said = folder.done(&format!("{UNLEARN} --no-calibrate --dry-run --out out"));
    let mut config = said.json();
    assert_eq!(config["command"], "unlearn");
    let needs = config.as_object_mut().unwrap().remove("needs").unwrap();
    for key in [
        "disk_bytes",
        "memory_bytes",
        "free_disk_bytes",
        "available_memory_bytes",
    ] {
        assert!(needs[key].as_u64().unwrap() > 0, "{needs}");
    }
    let text = &said.stderr;
    assert!(
        text.contains("of disk") && text.contains("of memory"),
        "{text}"
    );
    assert_eq!(config["forget_rows"], serde_json::json!([3]));
    assert_eq!(config["retained"], PHOTOS - 1);
    let settings = &config["settings"];
    for (key, value) in [
        ("method", "retrack".into()),
        ("steps", Value::from(50)),
        ("neighbors", 4.into()),
    ] {
        assert_eq!(settings[key], value, "{key}");
    }
    assert!(config["weights_sha256"][WEIGHTS].is_string(), "{config}");
    support::assert_same_files(&before, &folder.files(""), "a dry run");
    // The real run records the same.
    folder.done(&format!("{UNLEARN} --steps 1 --out out"));
    let mut recorded = folder.read_json("out/run/config.json");
    recorded["settings"]["steps"] = 50.into();
    assert_eq!(recorded, config);
}

#[test]
fn the_command_line_replaces_the_file_and_the_file_the_preset() {
    let folder = Folder::with_model_and_photos();
    folder.write(
        "mine.toml",
        "steps = 7\nlearning_rate = 3e-4\nseed = 11\n[adamw]\nweight_decay = 0.5\n[strength]\nretrack_lambda = 0.25\n",
    );
    let settings = |options: &str| {
        let line = "unlearn --model model --data photos --forget row:3 --out out --dry-run";
        folder.done(&format!("{line} {options}")).json()["settings"].clone()
    };
    let preset = settings("--preset cifar10");
    assert_eq!(preset["steps"], 60);
    assert_eq!(preset["lambda"], 0.02);
    for (method, option, published) in [
        ("retrack", "lambda", 0.5),
        ("siss", "rescale", 750.0),
        ("erasediff", "eta", 1e-2),
    ] {
        let latent = settings(&format!("--preset stable-diffusion --method {method}"));
        assert_eq!(latent[option], published);
        assert_eq!(latent["batch_size"], 1);
        assert_eq!(latent["accumulate"], 16);
        assert_eq!(latent["steps"], 30);
        assert_eq!(latent["learning_rate"], 1e-5);
        assert_eq!(latent["adamw"]["weight_decay"], 1e-2);
    }
    let file = settings("--preset cifar10 --config mine.toml");
    assert_eq!(file["steps"], 7);
    assert_eq!(file["seed"], 11);
    assert_eq!(file["lambda"], 0.25);
    assert_eq!(file["adamw"]["weight_decay"], 0.5);
    assert_eq!(file["adamw"]["betas"], preset["adamw"]["betas"]);
    assert_eq!(file["batch_size"], preset["batch_size"]);
    let typed = settings("--preset cifar10 --config mine.toml --steps 3 --lambda 1 --seed 2");
    assert_eq!(typed["steps"], 3);
    assert_eq!(typed["seed"], 2);
    assert_eq!(typed["lambda"], 1.0);
    assert_eq!(typed["learning_rate"], 3e-4);
}

#[test]
fn what_to_forget_can_be_said_in_five_ways() {
    let folder = Folder::with_model_and_photos();
    folder.write("list.txt", "# two photos\n03.png\nrow:5\n");
    // A copy from elsewhere is found by its pixels.
    folder.write("elsewhere/me.png", photo_png(9));
    let images = folder.idx(12, SIDE, 3);
    for (data, selection, rows) in [
        ("photos", "photos/03.png", vec![3]),
        ("photos", "elsewhere/me.png", vec![9]),
        ("photos", "row:0", vec![0]),
        ("photos", "rows:10-12", vec![10, 11, 12]),
        ("photos", "@list.txt", vec![3, 5]),
        (&images, "label:2", vec![2, 5, 8, 11]),
    ] {
        let line = format!(
            "unlearn --model model --data {data} --forget {selection} --neighbors 3 --out out --dry-run"
        );
        let config = folder.done(&line).json();
        assert_eq!(config["forget_rows"], Value::from(rows), "{selection}");
    }
}

#[test]
fn folders_of_every_layout_come_back_in_their_own() {
    for case in [
        "folder_bare_unet",
        "folder_bf16",
        "folder_f16_bin",
        "folder_old_names_bin",
        "folder_sharded",
        "folder_sharded_bin",
    ] {
        let folder = Folder::new();
        folder.model(case, "model");
        folder.photos("photos");
        folder.done(&format!("{UNLEARN} --steps 1 --lr 0.1 --out out"));
        let model = folder.files("model");
        let mut out = folder.files("out");
        assert!(out.remove(".gitignore").is_some());
        assert!(out.remove(LIST).is_some());
        assert!(out.remove("retrack.json").is_some());
        out.retain(|name, _| !name.starts_with("run/") && name != "README.md");
        assert!(out.keys().eq(model.keys()), "{case}: {:?}", out.keys());
        for (name, content) in &model {
            let weights = name.ends_with(".bin") || name.ends_with(".safetensors");
            assert_eq!(out[name] == *content, !weights, "{case}: {name}");
        }
        folder.done("inspect out");
    }
}

#[test]
fn exact_copies_leave_with_the_image_and_near_ones_are_named() {
    let folder = Folder::with_model_and_photos();
    folder.write("photos/copy-of-03.png", photo_png(3));
    let mut near = noise(3, SIDE * SIDE);
    near[0] ^= 1;
    folder.write("photos/near-03.png", png(near));
    let said = folder.done(&format!("{UNLEARN} --steps 1 --json --out out"));
    assert!(
        said.stderr
            .contains("1 exact copy of what is to be forgotten leaves"),
        "{}",
        said.stderr
    );
    assert!(
        said.stderr
            .contains("near-03.png is nearly a copy of 03.png"),
        "{}",
        said.stderr
    );
    let json = said.json();
    assert_eq!(json["duplicate_rows"], 1);
    assert_eq!(json["near_copies"], 1);
    assert_eq!(json["retained_rows"], PHOTOS - 1);
    let config = folder.read_json("out/run/config.json");
    assert_eq!(config["duplicate_rows"], serde_json::json!([PHOTOS]));
    // They teach the image back whatever the method does with neighbors.
    for other in [
        UNLEARN.replace("--neighbors 4", "--neighbors all"),
        format!("{UNLEARN} --method finetune"),
    ] {
        let said = folder.done(&format!("{other} --steps 1 --json --force --out out"));
        let near = "near-03.png is nearly a copy of 03.png";
        assert!(said.stderr.contains(near), "{other}: {}", said.stderr);
        assert_eq!(said.json()["near_copies"], 1);
    }
}

#[test]
fn all_retained_images_can_take_the_neighbors_place() {
    let folder = Folder::with_model_and_photos();
    let all = UNLEARN.replace("--neighbors 4", "--neighbors all");
    folder.done(&format!("{all} --steps 2 --out all"));
    let settings = &folder.read_json("all/run/config.json")["settings"];
    assert_eq!(settings["neighbors"], "all");
    // All 15 retained photos as the nearest 15 are the same target.
    let fifteen = UNLEARN.replace("--neighbors 4", "--neighbors 15");
    folder.done(&format!("{fifteen} --steps 2 --out fifteen"));
    let losses = |out| {
        let events = events(&folder, out);
        let losses = events.iter().map(|event| event["forget_loss"].as_f64());
        losses.map(Option::unwrap).collect::<Vec<f64>>()
    };
    for (all, fifteen) in losses("all").iter().zip(losses("fifteen")) {
        assert!((all - fifteen).abs() < 1e-4 * fifteen, "{all} {fifteen}");
    }
    folder.refused(
        &UNLEARN.replace("--neighbors 4", "--neighbors some --out no"),
        &["--neighbors", "expected a number, or all"],
    );
}
