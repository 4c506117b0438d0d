//! What a run says of a model is true of the folder that it wrote: in every element type, for every kind of model, and as
//! another process finds it.

mod support;

use std::fs;
use std::path::Path;

use retrack_checkpoint::folder::{Dtype, ModelFolder};
use serde_json::{Value, json};
use support::{Folder, decode_base64, events, noise, png};

const WEIGHTS: &str = "unet/diffusion_pytorch_model.safetensors";

/// Copies a model folder with its weights in another element type.
fn convert(from: &Path, to: &Path, dtype: Dtype) {
    let folder = ModelFolder::open(from).unwrap();
    let mut weights = folder.weights().unwrap();
    weights.write_as(dtype);
    folder.write_with(to, &weights).unwrap();
}

/// Element types of the tensors of a written network.
fn dtypes(folder: &Folder, out: &str) -> Vec<String> {
    let bytes = folder.read(&format!("{out}/{WEIGHTS}"));
    let end = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..end]).unwrap();
    let tensors = header.as_object().unwrap().values();
    let mut names: Vec<String> = tensors
        .filter_map(|tensor| Some(tensor["dtype"].as_str()?.to_string()))
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// What another process measures of the folder, digit for digit what the page, the chart and the events say.
fn agrees(folder: &Folder, out: &str) -> Value {
    let found = folder.done(&format!("verify {out} --json")).json();
    assert_eq!(found["same"], true);
    let report = folder.read_json(&format!("{out}/run/report.json"));
    let (check, measured) = (&report["check"], &found["measured"]);
    for model in ["before", "after"] {
        assert_eq!(check[model], measured[model], "{out}: {model}");
    }
    for count in ["dtype", "count", "changed"] {
        assert_eq!(check["weights"][count], measured["weights"][count], "{out}");
    }
    let mean = |model: &str, of: &str| {
        let values = check[model][of].as_array().unwrap();
        let sum: f64 = values.iter().map(|value| value.as_f64().unwrap()).sum();
        sum / values.len() as f64
    };
    let last = events(folder, out).pop().unwrap();
    for (series, errors, event) in [
        (0, "forgotten_errors", "forgotten_error"),
        (1, "control_errors", "retained_error"),
    ] {
        let row = &report["metrics"][0]["rows"][2 + series]["values"];
        let mut curves = report["curves"].as_array().unwrap().iter();
        let errors_on_the_way = curves.find(|curve| curve["title"] == "Denoising error on the way");
        let points = errors_on_the_way.unwrap()["series"][series]["points"]
            .as_array()
            .unwrap();
        let (first, end) = (&points[0], points.last().unwrap());
        for (model, column, point) in [("before", 0, first), ("after", 1, end)] {
            let score = row[column]["value"].as_f64().unwrap();
            // Numbers are read with their last digit rounded.
            assert!(
                (score / mean(model, errors) - 1.0).abs() < 1e-14,
                "{out}: {model}"
            );
            assert_eq!(point[1].as_f64(), Some(score), "{out}: chart and score");
        }
        assert_eq!(last[event], row[1]["value"], "{out}: event and score");
    }
    report
}

#[test]
fn the_page_speaks_of_the_folder_that_was_written_in_f32_f16_and_bf16() {
    let folder = Folder::with_model_and_photos();
    let run = format!("{TINY} --steps 3 --lr 3e-5");
    for (name, dtype) in [
        ("F32", Dtype::F32),
        ("F16", Dtype::F16),
        ("BF16", Dtype::BF16),
    ] {
        convert(&folder.path("model"), &folder.path(name), dtype);
        let out = format!("out-{name}");
        let said = folder.done(&format!("unlearn --model {name} {run} --json --out {out}"));
        assert_eq!(dtypes(&folder, &out), [name]);
        let report = agrees(&folder, &out);
        let weights = &report["check"]["weights"];
        assert_eq!(weights["dtype"], name);
        assert_eq!(said.json()["weights"], *weights);
        let number = |key: &str| weights[key].as_u64().unwrap();
        let (moved, back) = (number("moved"), number("rounded_back"));
        assert!(moved > number("count") / 2, "{weights}");
        assert_eq!(number("changed"), moved - back, "{weights}");
        // Three steps of 3e-5 are below half a step of bf16 at all but the smaller weights, and of f16 at few.
        let mostly_lost = 2 * back > moved;
        assert_eq!(mostly_lost, name == "BF16", "{name}: {weights}");
        let notes = report["verdict"]["notes"].to_string();
        let reserved =
            notes.contains("rounded back to what they were, since the folder holds BF16");
        assert_eq!(reserved, mostly_lost, "{notes}");
        assert_eq!(notes.contains("--dtype f32"), mostly_lost);
        let page = String::from_utf8(folder.read(&format!("{out}/run/report.html"))).unwrap();
        let share = format!(
            "{} of {} differ from the base&#39;s",
            number("changed"),
            number("count")
        );
        assert!(page.contains(&share), "{share}");
    }
    // The remedy that is named.
    folder.done(&format!(
        "unlearn --model BF16 {run} --dtype f32 --out kept"
    ));
    assert_eq!(dtypes(&folder, "kept"), ["F32"]);
    let weights = agrees(&folder, "kept")["check"]["weights"].clone();
    assert_eq!(weights["rounded_back"], 0);
    assert_eq!(weights["changed"], weights["moved"]);
    folder.done("sample --model kept --count 1 --steps 2 --out kept.png");
    // A narrower type than the base's is measured as narrow as it is.
    folder.done(&format!(
        "unlearn --model F32 {run} --dtype bf16 --out narrow"
    ));
    assert_eq!(dtypes(&folder, "narrow"), ["BF16"]);
    agrees(&folder, "narrow");
}

const TINY: &str = "--data photos --forget photos/03.png --neighbors 4 --batch-size 4";

#[test]
fn the_written_type_is_refused_where_the_files_cannot_take_it() {
    let folder = Folder::with_model_and_photos();
    folder.model("folder_f16_bin", "bin");
    folder.model("folder_sharded", "shards");
    for (model, other, own) in [("bin", "f32", "f16"), ("shards", "bf16", "f32")] {
        folder.refused(
            &format!("unlearn --model {model} {TINY} --dtype {other} --out out"),
            &[model, "--dtype", "one .safetensors file"],
        );
        // In the type that they have there is nothing to convert.
        folder.done(&format!(
            "unlearn --model {model} {TINY} --steps 1 --dtype {own} --out out-{model}"
        ));
        agrees(&folder, &format!("out-{model}"));
    }
}

#[test]
fn a_value_that_the_type_cannot_hold_ends_the_run_and_keeps_it_for_a_wider_one() {
    let folder = Folder::with_model_and_photos();
    convert(&folder.path("model"), &folder.path("half"), Dtype::F16);
    // AdamW's first step is as long as the rate: beyond 65504.
    let line = format!("unlearn --model half {TINY} --steps 1 --lr 66000 --out out");
    let said = folder.command(&line).output().unwrap();
    let stderr = String::from_utf8_lossy(&said.stderr);
    assert_eq!(said.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("beyond what F16 can hold"), "{stderr}");
    assert!(
        stderr.contains("--resume and --dtype bf16 or --dtype f32"),
        "{stderr}"
    );
    assert!(!folder.path("out/model_index.json").exists());
    folder.done(&format!("{line} --resume --dtype bf16"));
    assert_eq!(dtypes(&folder, "out"), ["BF16"]);
}

#[test]
fn a_run_that_was_kept_for_a_wider_type_records_the_errors_of_its_last_step() {
    let folder = Folder::with_model_and_photos();
    convert(&folder.path("model"), &folder.path("half"), Dtype::F16);
    // One layer stands at the end of what f16 can hold, and the first step leads beyond.
    let path = format!("half/{WEIGHTS}");
    let mut bytes = folder.read(&path);
    let end = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..end]).unwrap();
    let place = &header["conv_in.bias"]["data_offsets"];
    let [from, to] = [0, 1].map(|at| end + place[at].as_u64().unwrap() as usize);
    for value in bytes[from..to].chunks_exact_mut(2) {
        value.copy_from_slice(&0x7bff_u16.to_le_bytes());
    }
    folder.write(&path, bytes);
    let line = format!("unlearn --model half {TINY} --steps 1 --lr 100 --out out");
    let said = folder.ends(&line, 1);
    assert!(
        said.stderr.contains("beyond what F16 can hold"),
        "{}",
        said.stderr
    );
    let before = events(&folder, "out");
    assert!(before[0].get("forgotten_error").is_none(), "{before:?}");
    folder.done(&format!("{line} --resume --dtype bf16"));
    // As a run that was not interrupted.
    agrees(&folder, "out");
    let after = events(&folder, "out");
    assert_eq!(after.len(), 1, "{after:?}");
    assert_eq!(after[0]["loss"], before[0]["loss"]);
}

#[test]
fn a_model_whose_samples_are_no_images_is_delivered_and_said_to_be_broken() {
    let folder = Folder::with_model_and_photos();
    // AdamW's first step is as long as the rate: what the network computes then overflows.
    folder.done(&format!(
        "unlearn --model model {TINY} --steps 1 --lr 1e30 --out out"
    ));
    assert!(folder.path("out/model_index.json").exists());
    let report = folder.read_json("out/run/report.json");
    let verdict = &report["verdict"];
    assert_eq!(verdict["outcome"], "inconclusive", "{verdict}");
    assert!(
        verdict["headline"].as_str().unwrap().contains("is broken"),
        "{verdict}"
    );
    assert!(
        verdict["next"].as_str().unwrap().contains("lower --lr"),
        "{verdict}"
    );
    let after = &report["check"]["after"];
    assert_eq!(after["samples"], 0, "{after}");
    let (before, plan) = (&report["check"]["before"], &report["check"]["plan"]);
    let drawn = plan["samples"].as_u64().unwrap() + plan["tries"].as_u64().unwrap();
    assert_eq!(after["broken"], drawn, "{after}");
    assert_eq!(before.get("broken"), None);
    assert!(
        report["samples"]["note"]
            .as_str()
            .unwrap()
            .contains("Crossed out are samples"),
        "{report}"
    );
    // None of them is black.
    let shown = report["pictures"]["samples-after"]["png"].as_str().unwrap();
    let shown = image::load_from_memory(&decode_base64(shown)).unwrap();
    let shown = tiles(&shown.into_luma8());
    assert!(shown.iter().all(|&pixel| pixel > 0), "{shown:?}");
    let said = folder.done("verify out");
    assert!(said.stdout.starts_with("same: "), "{}", said.stdout);
}

#[test]
fn verify_says_same_of_a_model_whose_base_has_cards() {
    let folder = Folder::with_model_and_photos();
    folder.write("model/README.md", "---\nlicense: mit\n---\n# The first\n");
    let line = format!("{TINY} --steps 1");
    folder.done(&format!("unlearn --model model {line} --out one"));
    folder.done(&format!("unlearn --model one {line} --always --out two"));
    for (out, cards) in [
        ("one", &["README.base.md"][..]),
        ("two", &["README.base.md", "README.base2.md"]),
    ] {
        let said = folder.done(&format!("verify {out}"));
        assert!(said.stdout.starts_with("same: "), "{}", said.stdout);
        let report = folder.read_json(&format!("{out}/run/report.json"));
        let files = report["provenance"]["files"].to_string();
        for card in cards {
            assert!(files.contains(card), "{out}: {files}");
        }
    }
    folder.write("one/README.base.md", "another");
    let said = folder.ends("verify one", 1);
    assert!(said.stdout.contains("README.base.md: SHA-256"), "{said:?}");
}

#[test]
fn verify_says_same_beside_what_somebody_keeps_in_the_folder() {
    let folder = Folder::with_model_and_photos();
    let line = format!("unlearn --model model {TINY} --steps 1 --out out");
    folder.done(&line);
    folder.write("out/notes/to do.md", "mine");
    folder.write("out/notes/old.safetensors", "far from the network");
    folder.write("out/letter.txt", "mine too");
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(".", folder.path("out/notes/circle")).unwrap();
        std::os::unix::fs::symlink("nowhere", folder.path("out/notes/gone")).unwrap();
    }
    folder.done(&format!("{line} --force"));
    let said = folder.done("verify out");
    assert!(said.stdout.starts_with("same: "), "{}", said.stdout);
    for part in ["out: ", "beside the model", "letter.txt"] {
        assert!(said.stderr.contains(part), "{part}: {}", said.stderr);
    }
    // A program may read these in place of the network's own.
    for name in [
        "unet/diffusion_pytorch_model.bin",
        "pytorch_lora_weights.safetensors",
        "unet/model_index.json",
    ] {
        folder.write(&format!("out/{name}"), "somebody's");
        let said = folder.ends("verify out", 1);
        assert!(
            said.stdout
                .contains(&format!("{name}: was not written by retrack")),
            "{said:?}"
        );
        fs::remove_file(folder.path(&format!("out/{name}"))).unwrap();
    }
    // Nor may the list claim what the report does not know.
    let list: Value = folder.read_json("out/.retrack-files.json");
    let mut more = list.clone();
    more["files"]["letter.txt"] = json!([retrack_checkpoint::written::digest(b"mine too")]);
    folder.write("out/.retrack-files.json", more.to_string());
    let said = folder.ends("verify out", 1);
    assert!(
        said.stdout.contains("letter.txt: was not there"),
        "{said:?}"
    );
}

/// A text-to-image pipeline as `model`, and photos of noise that suit it.
fn text_to_image() -> Folder {
    let folder = Folder::new();
    folder.model("pipeline_sd1", "model");
    for row in 0..6 {
        folder.write(&format!("photos/{row:02}.png"), png(noise(row, 64 * 64)));
    }
    folder
}

#[test]
fn a_text_to_image_run_is_measured_again_with_its_texts_and_latents() {
    let folder = text_to_image();
    convert(&folder.path("model"), &folder.path("half"), Dtype::BF16);
    let line = "--data photos --forget row:3 --forget-prompt jane --retain-prompt others --neighbors 3 --steps 3 \
                --accumulate 1 --batch-size 2 --lr 1e-3";
    for (model, more, out) in [
        ("model", "", "all"),
        ("half", "", "rounded"),
        ("model", "--train lora", "adapter"),
    ] {
        folder.done(&format!(
            "unlearn --model {model} {line} {more} --out {out}"
        ));
        let report = agrees(&folder, out);
        let weights = &report["check"]["weights"];
        assert_eq!(weights.get("adapter").is_some(), out == "adapter");
        let number = |key: &str| weights[key].as_u64().unwrap();
        assert!(number("changed") > 0, "{weights}");
        assert_eq!(
            number("changed") < number("count") / 2,
            out == "adapter",
            "{weights}"
        );
        // The adapter, too, changed what is measured.
        assert_ne!(report["check"]["before"], report["check"]["after"], "{out}");
    }
    // What was claimed and is not so is found.
    let mut report = folder.read_json("all/run/report.json");
    report["check"]["after"]["forgotten_errors"][0] = json!(1e-3);
    folder.write("all/run/report.json", report.to_string());
    let said = folder.command("verify all").output().unwrap();
    let stdout = String::from_utf8_lossy(&said.stdout);
    assert_eq!(said.status.code(), Some(1), "{stdout}");
    assert!(
        stdout.contains("after: denoising errors of forgotten images"),
        "{stdout}"
    );
    // The texts are where the key is.
    fs::rename(folder.path("adapter.digest-key"), folder.path("moved")).unwrap();
    folder.refused("verify adapter", &["adapter.digest-key", "--key"]);
    folder.done("verify adapter --key moved");
    folder.refused(
        "verify adapter --key all.digest-key",
        &["all.digest-key", "texts"],
    );
}

#[test]
fn samples_are_drawn_as_the_command_sample_draws_them() {
    for (class, name) in [
        ("DDPMScheduler", "DDPM"),
        ("DDIMScheduler", "DDIM"),
        ("PNDMScheduler", "PNDM"),
    ] {
        let folder = Folder::with_model_and_photos();
        let mut config = folder.read_json("model/scheduler/scheduler_config.json");
        config["_class_name"] = class.into();
        config["num_train_timesteps"] = 1000.into();
        config["skip_prk_steps"] = true.into();
        folder.write("model/scheduler/scheduler_config.json", config.to_string());
        folder.done(&format!(
            "unlearn --model model {TINY} --steps 1 --seed 7 --show-forgotten --out out"
        ));
        let report = folder.read_json("out/run/report.json");
        let note = report["samples"]["note"].as_str().unwrap();
        assert!(
            note.contains(&format!("drawn by {name} in 50 steps")),
            "{note}"
        );
        for (model, picture) in [("model", "samples-before"), ("out", "samples-after")] {
            folder.done(&format!(
                "sample --model {model} --seed 7 --count 4 --force --out {model}.png"
            ));
            let shown = report["pictures"][picture]["png"].as_str().unwrap();
            let shown = image::load_from_memory(&decode_base64(shown))
                .unwrap()
                .into_luma8();
            let drawn = image::open(folder.path(&format!("{model}.png")))
                .unwrap()
                .into_luma8();
            assert_eq!(tiles(&shown), tiles(&drawn), "{class} {model}");
        }
    }
}

/// The images of a grid of two by two with a gap of one pixel of the enlarged grid or none.
fn tiles(grid: &image::GrayImage) -> Vec<u8> {
    const SIDE: u32 = support::SIDE as u32;
    let zoom = grid.width() / (2 * SIDE);
    let gap = grid.width() - 2 * SIDE * zoom;
    let place = |index: u32| {
        let (tile, within) = (index / SIDE, index % SIDE);
        tile * (SIDE * zoom + gap / 3) + gap / 3 + within * zoom
    };
    let mut pixels = Vec::new();
    for y in 0..2 * SIDE {
        for x in 0..2 * SIDE {
            pixels.push(grid.get_pixel(place(x), place(y)).0[0]);
        }
    }
    pixels
}

#[test]
fn a_scheduler_that_is_not_built_is_replaced_and_the_page_says_so() {
    // Runge-Kutta steps are not built; `sample` asks for another scheduler.
    for (key, value) in [
        ("_class_name", json!("PNDMScheduler")),
        ("_class_name", json!("HeunDiscreteScheduler")),
    ] {
        let folder = Folder::with_model_and_photos();
        let mut config = folder.read_json("model/scheduler/scheduler_config.json");
        config[key] = value;
        folder.write("model/scheduler/scheduler_config.json", config.to_string());
        folder.done(&format!("unlearn --model model {TINY} --steps 1 --out out"));
        let note = folder.read_json("out/run/report.json")["samples"]["note"].to_string();
        assert!(note.contains("drawn by DDIM in"), "{note}");
        assert!(
            note.contains("scheduler, which is not built here"),
            "{note}"
        );
        folder.done("verify out");
    }
}

#[test]
fn few_draws_still_cover_the_whole_schedule() {
    let folder = Folder::with_model_and_photos();
    folder.done(&format!("unlearn --model model {TINY} --steps 2 --out out"));
    let report = agrees(&folder, "out");
    let plan = &report["check"]["plan"];
    assert_eq!(plan["stratified"], true);
    assert!(plan["draws"].as_u64().unwrap() >= 8, "{plan}");
    let note = report["metrics"][0]["note"].as_str().unwrap();
    assert!(
        note.contains("one in each of as many equal parts"),
        "{note}"
    );
}

/// A run that forgets a picture whose file is named, with a near copy among the retained; nothing else holds the name.
fn of_jane(more: &str) -> Folder {
    let folder = Folder::with_model_and_photos();
    fs::rename(folder.path("photos/03.png"), folder.path("photos/jane.png")).unwrap();
    let mut near = noise(3, support::SIDE * support::SIDE);
    near[0] ^= 1;
    folder.write("photos/jane-again.png", png(near));
    folder.write("jane.txt", "jane.png\n");
    folder.done(&format!(
        "unlearn --model model --data photos --neighbors 4 --batch-size 4 --steps 2 --out out {more}"
    ));
    folder
}

fn names(folder: &Folder, name: &str, out: &str) -> Vec<String> {
    let files = folder.files(out).into_iter();
    let of = files.filter(|(_, content)| {
        content
            .windows(name.len())
            .any(|part| part == name.as_bytes())
    });
    of.map(|(file, _)| file).collect()
}

#[test]
fn the_folder_names_no_file_of_the_data_unless_it_may_be_shown() {
    for forget in ["photos/jane.png", "jane.png", "@jane.txt"] {
        let folder = of_jane(&format!("--forget {forget}"));
        assert_eq!(
            names(&folder, "jane", "out"),
            Vec::<String>::new(),
            "{forget}"
        );
        let config = folder.read_json("out/run/config.json");
        assert_eq!(config["forget_rows"].as_array().unwrap().len(), 1);
        folder.done("verify out");
    }
    let folder = of_jane("--forget photos/jane.png --show-forgotten");
    assert_eq!(
        names(&folder, "jane", "out"),
        ["run/report.html", "run/report.json"]
    );
    // Nor do evaluations and experiments.
    let measure =
        "--data photos --forget photos/jane.png --metrics frequency --threshold 2 --samples 2";
    folder.done(&format!(
        "evaluate --model out {measure} --steps 2 --out measured"
    ));
    folder.write(
        "small.toml",
        "neighbors = 2\nsteps = 1\nbatch_size = 2\n\n[experiment]\nsampling_steps = 2\n",
    );
    folder.done(&format!(
        "experiment mnist-tshirt --model model {measure} --methods retrack --seeds 0 --config small.toml --out compared"
    ));
    folder.tiny_arch(json!({}));
    folder.done(
        "train --data photos --arch tiny.json --exclude photos/jane.png --steps 1 --batch-size 2 --out trained",
    );
    for out in ["measured", "compared", "trained"] {
        assert_eq!(names(&folder, "jane", out), Vec::<String>::new());
    }
    folder.done(&format!(
        "evaluate --model out {measure} --steps 2 --show-forgotten --out shown"
    ));
    assert!(names(&folder, "jane", "shown").contains(&"report.html".into()));
}

#[test]
fn the_folder_holds_no_prompt_of_a_forgotten_image() {
    let folder = text_to_image();
    let line = "unlearn --model model --data photos --forget row:3 --forget-prompt jane-doe --retain-prompt others \
                --neighbors 3 --steps 1 --accumulate 1 --batch-size 2";
    folder.done(&format!("{line} --out out"));
    assert_eq!(names(&folder, "jane", "out"), Vec::<String>::new());
    let key = String::from_utf8(folder.read("out.digest-key")).unwrap();
    assert!(key.contains("\"3\":\"jane-doe\""), "{key}");
    folder.done(&format!("{line} --show-forgotten --out shown"));
    assert_eq!(
        names(&folder, "jane", "shown"),
        ["run/report.html", "run/report.json"]
    );
}

#[test]
fn the_key_lies_beside_the_folder_and_is_never_overwritten() {
    let folder = Folder::with_model_and_photos();
    let line = format!("unlearn --model model {TINY} --steps 1");
    folder.done(&format!("{line} --out made/one"));
    folder.done(&format!("{line} --out made/two/"));
    let [one, two] = ["one", "two"].map(|name| folder.read(&format!("made/{name}.digest-key")));
    assert!(one != two && one.len() == 65);
    assert!(
        folder
            .files("made/one")
            .keys()
            .all(|name| !name.contains("key"))
    );
    for name in ["made/one", "made/two"] {
        assert!(names(&folder, std::str::from_utf8(&one[..64]).unwrap(), name).is_empty());
    }
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::MetadataExt::mode(
            &folder.path("made/one.digest-key").metadata().unwrap(),
        );
        assert_eq!(mode & 0o777, 0o600);
    }
    folder.done(&format!("{line} --out made/one --force"));
    assert!(folder.read("made/one.digest-key") == one);
    folder.done("verify made/one");

    // Where it is asked for.
    folder.done(&format!("{line} --out three --key my.key"));
    assert!(!folder.path("three.digest-key").exists());
    let said = folder.done("verify three");
    assert!(
        said.stderr.contains("three.digest-key: not found"),
        "{}",
        said.stderr
    );
    assert!(said.stderr.contains("--key"), "{}", said.stderr);
    folder.done("verify three --key my.key");
    let said = folder
        .command("verify three --key made/one.digest-key")
        .output()
        .unwrap();
    assert_eq!(said.status.code(), Some(1));
    // Runs of earlier versions had it in their folder.
    fs::rename(folder.path("my.key"), folder.path("three/run/digest-key")).unwrap();
    let said = folder.done("verify three");
    assert!(!said.stderr.contains("not compared"), "{}", said.stderr);

    for (key, says) in [
        ("four/key", "the output folder"),
        ("four/run/digest-key", "the output folder"),
        ("model/key", "the model's folder"),
        ("photos/key", "the data set"),
        ("photos/00.png", "the data set"),
        ("nowhere/key", "does not exist"),
        ("made", "four"),
    ] {
        let refused = format!("{line} --out four --key {key}");
        if key == "made" {
            folder.refused(&refused, &["made", "--key"]);
        } else {
            folder.refused(&refused, &[key, says, "--key"]);
        }
    }
    folder.write("letter.txt", "dear");
    folder.refused(
        &format!("{line} --out four --key letter.txt"),
        &["letter.txt", "none", "--key"],
    );
    assert_eq!(folder.read("letter.txt"), b"dear");
    folder.write("four.digest-key", "taken");
    folder.refused(&format!("{line} --out four"), &["four.digest-key", "--key"]);
}

#[test]
fn what_is_not_for_others_is_ignored_by_git_and_by_uploads() {
    let folder = Folder::with_model_and_photos();
    let line = format!("unlearn --model model {TINY} --steps 1");
    folder.done(&format!("{line} --out out"));
    let ignored = String::from_utf8(folder.read("out/.gitignore")).unwrap();
    assert!(
        ignored.contains("\n/run/*\n!/run/report.html\n"),
        "{ignored}"
    );
    folder.done("verify out");
    // One that came with the model stays as it is.
    folder.write("model/.gitignore", "mine\n");
    folder.done(&format!("{line} --no-report --out other"));
    assert_eq!(folder.read("other/.gitignore"), b"mine\n");
}

#[test]
fn runs_of_earlier_versions_are_measured_as_they_were() {
    let folder = Folder::with_model_and_photos();
    folder.done(&format!("unlearn --model model {TINY} --steps 2 --out out"));
    // They sampled by DDIM, drew timesteps anywhere, counted no weights, and kept the key in their folder.
    let mut report = folder.read_json("out/run/report.json");
    for key in ["sampler", "stratified"] {
        report["check"]["plan"].as_object_mut().unwrap().remove(key);
    }
    report["check"].as_object_mut().unwrap().remove("weights");
    // Their words are not made again: they were others.
    report["version"] = "0.0.9".into();
    let write = |report: &Value| folder.write("out/run/report.json", report.to_string());
    write(&report);
    fs::rename(
        folder.path("out.digest-key"),
        folder.path("out/run/digest-key"),
    )
    .unwrap();
    let verify = || -> Value {
        let said = folder.command("verify out --json").output().unwrap();
        serde_json::from_slice(&said.stdout).unwrap()
    };
    let measured = verify()["measured"].clone();
    assert_ne!(measured["before"], report["check"]["before"]);
    for model in ["before", "after"] {
        report["check"][model] = measured[model].clone();
    }
    write(&report);
    let version = format!(
        "version of retrack: 0.0.9 recorded, {} now",
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(verify()["differences"], json!([version]));
}
