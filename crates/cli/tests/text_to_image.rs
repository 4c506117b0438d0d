//! Text-to-image models from end to end, on the tiny pipelines of `fixtures/parity/pipeline_*` and shipped digits.

mod support;

use std::fs;
use std::path::Path;

use image::{ImageFormat, Rgb, RgbImage};
use retrack_data::{Dataset, OpenOptions};
use serde_json::json;
use support::{Folder, assert_same_files, events};

/// Pixels on a side of the pipelines' images.
const SIDE: usize = 64;
const PICTURES: usize = 12;
const UNLEARN: &str = "unlearn --model model --data digit --neighbors 3 --steps 4 --accumulate 2";

/// With a pipeline as `model` and, in the published layout, digits as `digit`: rows 0, 4 and 8 are its memorized
/// cluster.
fn folder(case: &str) -> Folder {
    let folder = Folder::new();
    folder.model(case, "model");
    for (row, png) in pictures().into_iter().enumerate() {
        folder.write(&format!("digit/images/{row:02}.png"), png);
    }
    let labels: Vec<u8> = (0..PICTURES).map(|row| u8::from(row % 4 == 0)).collect();
    folder.write("digit/kmeans_labels.json", json!(labels).to_string());
    folder.write(
        "original_prompts.json",
        json!({"digit": "a photo of the digit"}).to_string(),
    );
    folder
}

/// Shipped digits, 28 pixels drawn twice as large and framed.
fn pictures() -> Vec<Vec<u8>> {
    let digits = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/digits.parquet");
    let data = Dataset::open(&digits, &OpenOptions::default()).unwrap();
    let shape = data.shape();
    let frame = (SIDE - 2 * shape.width) / 2;
    (0..PICTURES)
        .map(|row| {
            let mut gray = vec![0; shape.bytes()];
            data.read(row, &mut gray).unwrap();
            let image = RgbImage::from_fn(SIDE as u32, SIDE as u32, |x, y| {
                let inside = |at: u32| (at as usize).checked_sub(frame).map(|at| at / 2);
                let value = match (inside(x), inside(y)) {
                    (Some(x), Some(y)) if x < shape.width && y < shape.height => {
                        gray[y * shape.width + x]
                    }
                    _ => 0,
                };
                Rgb([value, value, 255 - value])
            });
            let mut bytes = std::io::Cursor::new(Vec::new());
            image.write_to(&mut bytes, ImageFormat::Png).unwrap();
            bytes.into_inner()
        })
        .collect()
}

/// Words that are one argument cannot be split at spaces.
fn sample(folder: &Folder, prompt: &str, more: &str) -> Vec<u8> {
    sample_words(folder, more, &["--prompt", prompt])
}

/// The same with arguments that a line cannot hold.
fn sample_words(folder: &Folder, more: &str, words: &[&str]) -> Vec<u8> {
    let line = format!("sample --model model --count 2 --steps 3 --out drawn {more}");
    let mut command = folder.command(&line);
    let output = command.args(words).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let images = [
        folder.read("drawn/000000.png"),
        folder.read("drawn/000001.png"),
    ];
    fs::remove_dir_all(folder.path("drawn")).unwrap();
    images.concat()
}

#[test]
fn samples_follow_from_prompt_seed_and_guidance() {
    let folder = folder("pipeline_sd1");
    let drawn = sample(&folder, "a cat on the beach", "");
    assert_eq!(drawn, sample(&folder, "A  CAT on the beach ", ""));
    assert_eq!(
        drawn,
        sample(&folder, "a cat on the beach", "--batch-size 2")
    );
    assert_eq!(
        drawn,
        sample(
            &folder,
            "a cat on the beach",
            "--scheduler pndm --guidance 7.5"
        )
    );
    for (prompt, more) in [
        ("a dog on the beach", ""),
        ("a cat on the beach", "--seed 1"),
        ("a cat on the beach", "--guidance 1"),
        ("a cat on the beach", "--negative-prompt horse"),
        ("a cat on the beach", "--scheduler ddim"),
        ("a cat on the beach", "--scheduler ddpm"),
    ] {
        assert_ne!(drawn, sample(&folder, prompt, more), "{prompt} {more}");
    }
}

#[test]
fn sdxl_tells_no_negative_prompt_from_an_empty_one_and_samples_by_euler() {
    let folder = folder("pipeline_sdxl");
    let prompt = "a cat on the beach";
    let drawn = sample(&folder, prompt, "");
    assert_eq!(drawn, sample(&folder, prompt, "--scheduler euler"));
    for more in [
        "--negative-prompt horse",
        "--scheduler euler-ancestral",
        "--scheduler ddim",
        "--guidance 0",
    ] {
        assert_ne!(drawn, sample(&folder, prompt, more), "{more}");
    }
    let empty = sample_words(&folder, "", &["--negative-prompt", "", "--prompt", prompt]);
    assert_ne!(empty, drawn, "zeros stand for none");
    // A folder that says that the empty text stands for none.
    let mut index = folder.read_json("model/model_index.json");
    index["force_zeros_for_empty_prompt"] = false.into();
    folder.write("model/model_index.json", index.to_string());
    assert_eq!(empty, sample(&folder, prompt, ""));
    index["force_zeros_for_empty_prompt"] = "yes".into();
    folder.write("model/model_index.json", index.to_string());
    folder.refused(
        "sample --model model --prompt x --count 1 --out x.png",
        &["model_index.json", "force_zeros_for_empty_prompt", "yes"],
    );
}

#[test]
fn parts_of_sdxl_that_do_not_belong_together_are_refused_by_name() {
    let folder = folder("pipeline_sdxl");
    let line = "sample --model model --prompt x --count 1 --out x.png";
    let changed = |file: &str, key: &str, value: serde_json::Value, words: &[&str]| {
        let path = format!("model/{file}");
        let before = folder.read_json(&path);
        let mut other = before.clone();
        other[key] = value;
        folder.write(&path, other.to_string());
        folder.refused(line, words);
        folder.write(&path, before.to_string());
    };
    let unet = "unet/config.json";
    let inputs = "projection_class_embeddings_input_dim";
    changed(
        unet,
        "cross_attention_dim",
        json!(12),
        &["cross_attention_dim", "20"],
    );
    changed(
        unet,
        inputs,
        json!(60),
        &[inputs, "12", "projection_dim", "10"],
    );
    changed(unet, inputs, json!(48), &[inputs, "48"]);
    changed(
        "text_encoder_2/config.json",
        "architectures",
        json!(["CLIPTextModel"]),
        &["text_encoder_2", "CLIPTextModelWithProjection"],
    );
    changed(
        "tokenizer_2/tokenizer_config.json",
        "model_max_length",
        json!(70),
        &["model_index.json", "77", "70"],
    );
    changed(
        "model_index.json",
        "text_encoder_2",
        json!(["transformers", "T5EncoderModel"]),
        &["text_encoder_2", "T5EncoderModel"],
    );
    changed(
        "model_index.json",
        "_class_name",
        json!("StableDiffusionPipeline"),
        &["text_encoder_2", "CLIPTextModelWithProjection"],
    );
}

#[test]
fn a_prompt_that_is_too_long_is_cut_with_a_warning() {
    let folder = folder("pipeline_sd2");
    let mut command =
        folder.command("sample --model model --count 1 --steps 1 --out x.png --prompt");
    let prompt = format!("{}the end of it", "1 ".repeat(75));
    let output = command.arg(prompt).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(
        stderr.contains("more than the 77 tokens") && stderr.contains("\"the end of it\""),
        "{stderr}"
    );
}

#[test]
fn the_memorized_cluster_of_a_published_prompt_is_unlearned_and_nothing_else_changes() {
    for case in [
        "pipeline_sd1",
        "pipeline_sd2",
        "pipeline_sdxl",
        "pipeline_sd3",
        "pipeline_sd3_without_t5",
    ] {
        let folder = folder(case);
        let said = folder.done(&format!("{UNLEARN} --lr 1e-3 --out new --json"));
        let result = said.json();
        assert_eq!(result["forgotten_rows"], 3);
        assert_eq!(result["retained_rows"], 9);
        let config = folder.read_json("new/run/config.json");
        assert_eq!(config["forget_rows"], json!([0, 4, 8]));
        let kept = |texts: &str| {
            let key = String::from_utf8(folder.read("new.digest-key")).unwrap();
            key.lines().any(|line| line.starts_with(texts))
        };
        assert!(kept("{\"0\":\"a photo of the digit\",\"1\":"));
        assert_eq!(config["settings"]["lambda"], 0.5);
        assert_eq!(events(&folder, "new").len(), 4);

        let network = match folder.path("model/transformer").exists() {
            true => "transformer/diffusion_pytorch_model.safetensors",
            false => "unet/diffusion_pytorch_model.safetensors",
        };
        let (mut before, mut after) = (folder.files("model"), folder.files("new"));
        after.retain(|name, _| !name.starts_with("run/"));
        assert!(after.remove(".gitignore").is_some());
        assert!(after.remove(retrack_checkpoint::written::NAME).is_some());
        assert!(after.remove(retrack_checkpoint::chain::NAME).is_some());
        let card = String::from_utf8(after.remove("README.md").unwrap()).unwrap();
        assert!(card.contains("pipeline_tag: text-to-image\n"), "{card}");
        let [old, new] = [&mut before, &mut after].map(|files| files.remove(network).unwrap());
        assert_same_files(&before, &after, case);
        // The same header: names, shapes and element types.
        let end = 8 + u64::from_le_bytes(old[..8].try_into().unwrap()) as usize;
        assert_eq!((old.len(), &old[..end]), (new.len(), &new[..end]));
        assert_ne!(old[end..], new[end..]);
        // What is measured without drawing, and what of it is computed again.
        let report = folder.read_json("new/run/report.json");
        let sentence = report["verdict"]["sentence"].as_str().unwrap();
        assert!(
            sentence.contains("denoised with an error of") && sentence.contains("retrack evaluate"),
            "{sentence}"
        );
        assert!(report.get("pictures").is_none());
        assert!(
            report["comparisons"][0]["rows"][0]["values"][0]
                .as_f64()
                .unwrap()
                > 0.0
        );
        assert!(folder.done("verify new").stdout.starts_with("same: "));
        let vae = folder.read("new/vae/config.json");
        folder.write("new/vae/config.json", "{}");
        let said = folder.command("verify new").output().unwrap();
        assert_eq!(said.status.code(), Some(1));
        let stdout = String::from_utf8_lossy(&said.stdout);
        assert!(stdout.contains("vae/config.json: SHA-256"), "{stdout}");
        folder.write("new/vae/config.json", vae);
        // Latents are as good as the images.
        assert!(!folder.path("cache").exists(), "something was kept");
        folder.done("sample --model new --prompt x --count 1 --steps 2 --out after.png");
    }
}

#[test]
fn near_copies_among_a_prompts_images_are_set_aside_or_forgotten_too() {
    let folder = folder("pipeline_sd1");
    let picture = image::load_from_memory(&pictures()[4]).unwrap();
    let mut mirrored = std::io::Cursor::new(Vec::new());
    let copy = picture.fliph();
    copy.write_to(&mut mirrored, ImageFormat::Png).unwrap();
    folder.write("digit/images/99.png", mirrored.into_inner());
    let labels: Vec<u8> = (0..=PICTURES)
        .map(|row| u8::from(row % 4 == 0 && row < PICTURES))
        .collect();
    folder.write("digit/kmeans_labels.json", json!(labels).to_string());
    for (more, forgotten) in [("", 3), ("--with-copies", 4), ("--train lora --lr 1e-4", 3)] {
        let said = folder.done(&format!("{UNLEARN} {more} --force --out new --json"));
        let near = said
            .stderr
            .lines()
            .find(|line| line.contains("is nearly a copy of"));
        let near = near.unwrap();
        assert!(
            near.contains("99.png") && near.contains("04.png (mirrored)"),
            "{near}"
        );
        let said = said.json();
        assert_eq!(said["near_copies"], 1);
        assert_eq!(
            (&said["forgotten_rows"], &said["retained_rows"]),
            (&json!(forgotten), &json!(9))
        );
        assert!(folder.done("verify new").stdout.starts_with("same: "));
    }
}

#[test]
fn all_methods_unlearn_on_latents_each_image_by_its_caption() {
    let folder = folder("pipeline_sd1");
    let captions: serde_json::Map<_, _> = (0..PICTURES)
        .map(|row| (format!("{row:02}.png"), json!(format!("digit {}", row % 5))))
        .collect();
    folder.write("captions.json", json!(captions).to_string());
    let mut weights = Vec::new();
    for method in ["retrack", "finetune", "neggrad", "erasediff", "siss"] {
        // Both gradients of a random network point the same way: at the usual eta there is nothing to correct.
        let eta = if method == "erasediff" { "--eta 5" } else { "" };
        folder.done(&format!(
            "{UNLEARN} --method {method} {eta} --captions captions.json --forget-prompt forgotten --lr 1e-4 --out {method}"
        ));
        let config = folder.read_json(&format!("{method}/run/config.json"));
        let key = String::from_utf8(folder.read(&format!("{method}.digest-key"))).unwrap();
        for row in [0, 4, 8] {
            let text = format!("\"{row}\":\"forgotten\"");
            assert!(key.contains(&text), "{key}");
        }
        assert_eq!(config["prompts"], 6);
        weights.push(folder.read(&format!(
            "{method}/unet/diffusion_pytorch_model.safetensors"
        )));
    }
    weights.sort();
    weights.dedup();
    assert_eq!(weights.len(), 5);
}

#[test]
fn captions_beside_the_images_are_found_where_an_image_would_have_no_text() {
    let folder = folder("pipeline_sd1");
    let line = "unlearn --model model --data digit/images --forget row:0 --neighbors 3 --steps 4 --accumulate 2 --out new \
                --dry-run";
    folder.refused(line, &["00.png has no prompt", "--captions"]);
    let lines = (0..PICTURES).map(|row| {
        let entry =
            json!({"file_name": format!("{row:02}.png"), "text": format!("digit {}", row % 5)});
        format!("{entry}\n")
    });
    folder.write("digit/images/metadata.jsonl", lines.collect::<String>());
    let said = folder.done(line);
    assert_eq!(said.json()["prompts"], 5);
    assert!(
        said.stderr
            .contains("the images' texts are those of digit/images/metadata.jsonl"),
        "{}",
        said.stderr
    );
    let named = folder.done(&format!("{line} --captions digit/images/metadata.jsonl"));
    assert_eq!(
        named.json()["prompts_digest"],
        said.json()["prompts_digest"]
    );
    // What is said of all images goes before them.
    let said = folder.done(&format!("{line} --prompt x"));
    assert_eq!(said.json()["prompts"], 1);
    assert!(!said.stderr.contains("metadata.jsonl"), "{}", said.stderr);
}

#[test]
fn a_run_that_cannot_fit_is_refused_before_it_begins() {
    let folder = folder("pipeline_sd1");
    let plan = folder
        .done(&format!("{UNLEARN} --out new --dry-run"))
        .json();
    let memory = plan["needs"]["memory_bytes"].as_u64().unwrap();
    assert!((64_000_000..1_000_000_000).contains(&memory), "{memory}");
    assert!(plan["needs"]["disk_bytes"].as_u64().unwrap() > 100_000);
    let line = format!("{UNLEARN} --out new --batch-size 1000000000");
    folder.refused(&line, &["of memory", "available", "--batch-size"]);
    assert!(!folder.path("new").exists());
}

#[test]
fn latents_of_an_odd_height_and_width_are_unlearned() {
    let folder = folder("pipeline_sd1");
    for row in 0..6 {
        folder.write(
            &format!("forty/{row}.png"),
            support::png(support::noise(row, 40 * 40)),
        );
    }
    let said = folder.done(
        "unlearn --model model --data forty --forget row:2 --prompt x --neighbors 2 --steps 1 --accumulate 1 --out new",
    );
    assert!(
        said.stderr
            .contains("40 x 40 pixels, but the model was made for 64 x 64"),
        "{}",
        said.stderr
    );
    assert_eq!(events(&folder, "new").len(), 1);
}

#[test]
fn a_run_that_was_killed_and_resumed_ends_as_if_it_had_not_been() {
    let folder = folder("pipeline_sd1");
    let line = "unlearn --model model --data digit --neighbors 3 --steps 60 --accumulate 2 --checkpoint-every 2";
    folder.done(&format!("{line} --out whole"));
    folder.kill_after_two_checkpoints(&format!("{line} --out broken"), "broken");
    folder.done(&format!("{line} --out broken --resume"));
    let models = ["whole", "broken"].map(|out| {
        let mut files = folder.files(out);
        files.retain(|name, _| !name.starts_with("run/"));
        support::drop_timed(&mut files);
        files
    });
    assert_same_files(&models[0], &models[1], "resumed");
}

#[test]
fn what_does_not_fit_a_text_to_image_model_is_refused_with_the_remedy() {
    let folder = folder("pipeline_sd1");
    folder.model("folder_pipeline_safetensors", "plain");
    folder.photos("photos");
    let sample = "sample --count 1 --steps 1 --out x.png";
    folder.refused(&format!("{sample} --model model"), &["--prompt"]);
    folder.refused(
        &format!("{sample} --model plain --prompt x"),
        &["takes no text", "--prompt"],
    );
    folder.refused(
        &format!("{sample} --model model --prompt x --class 1"),
        &["--class"],
    );
    folder.refused(
        &format!("{sample} --model plain --negative-prompt x"),
        &["--prompt"],
    );
    folder.refused("neighbors --data digit --forget nothing", &["nothing"]);
    folder.refused(
        "evaluate --model model --data digit/images --forget row:0 --out report",
        &["--prompt"],
    );
    folder.refused(
        "evaluate --model model --data digit --modified-prompt x --modified-prompt y --modified-prompt x --out report",
        &["--modified-prompt: x is listed twice"],
    );
    folder.refused(
        "evaluate --model plain --data photos --forget row:0 --prompt x --out report",
        &["takes no text", "--prompt"],
    );
    folder.refused(
        "evaluate --model plain --data photos --out report",
        &["--forget is missing"],
    );
    let unlearn = "unlearn --model model --out new --data";
    folder.refused(
        "unlearn --model plain --data photos --forget row:0 --prompt x --out new",
        &["takes no text", "--prompt"],
    );
    folder.refused(
        "unlearn --model plain --data photos --out new",
        &["--forget is missing"],
    );
    folder.refused(
        &format!("{unlearn} digit/images --prompt x"),
        &["--forget is missing"],
    );
    for name in ["a", "b"] {
        folder.write(&format!("odd/{name}.png"), support::png(vec![0; 100]));
    }
    folder.refused(
        &format!("{unlearn} odd --forget row:0 --prompt x"),
        &["10 x 10 pixels", "multiples of 8"],
    );
    folder.refused(
        &format!("{unlearn} digit/images --forget row:0"),
        &["00.png has no prompt", "--captions"],
    );
    folder.write(
        "captions.jsonl",
        "{\"file_name\": \"00.png\", \"text\": \"zero\"}\n",
    );
    folder.refused(
        &format!("{unlearn} digit --neighbors 3 --captions captions.jsonl"),
        &["11 of 12 images have no caption", "01.png"],
    );
    folder.refused(
        &format!("{unlearn} digit --neighbors 3 --captions nothing"),
        &["no such file"],
    );
    folder.refused(
        &format!("{unlearn} digit --neighbors 10"),
        &["10 neighbors", "9 images"],
    );
    folder.write("digit/kmeans_labels.json", "[1, 0]");
    folder.refused(
        &format!("{unlearn} digit"),
        &["kmeans_labels.json", "2 labels for 12 images"],
    );
    folder.write("mixed/a.png", support::png(vec![0; SIDE * SIDE]));
    folder.write("mixed/b.png", support::png(vec![0; 32 * 32]));
    folder.refused(
        &format!("{unlearn} mixed --forget row:0 --prompt x"),
        &["64 x 64", "32 x 32"],
    );
}

#[test]
fn pipelines_that_are_incomplete_or_of_another_kind_are_refused_by_name() {
    let folder = folder("pipeline_sd1");
    let line = "sample --model model --prompt x --count 1 --out x.png";
    let index = folder.read_json("model/model_index.json");
    for class in [
        "StableDiffusionXLImg2ImgPipeline",
        "StableDiffusionInpaintPipeline",
    ] {
        let mut other = index.clone();
        other["_class_name"] = class.into();
        folder.write("model/model_index.json", other.to_string());
        folder.refused(line, &["model_index.json", class, "not supported"]);
    }
    let mut other = index.clone();
    other["_class_name"] = "StableDiffusionXLPipeline".into();
    folder.write("model/model_index.json", other.to_string());
    folder.refused(line, &["text_encoder_2", "no text encoder"]);
    folder.write("model/model_index.json", index.to_string());
    for (part, what) in [
        ("text_encoder", "no text encoder"),
        ("tokenizer", "no tokenizer"),
        ("vae", "no autoencoder"),
    ] {
        let hidden = folder.path("hidden");
        fs::rename(folder.path("model").join(part), &hidden).unwrap();
        folder.refused(line, &[part, what]);
        fs::rename(&hidden, folder.path("model").join(part)).unwrap();
    }
    let files = folder.files("model/unet");
    for (name, content) in files {
        folder.write(&format!("alone/{name}"), content);
    }
    folder.refused(
        "sample --model alone --prompt x --count 1 --out x.png",
        &["without text encoder", "model_index.json"],
    );
    let merges = folder.read("model/tokenizer/merges.txt");
    folder.write("model/tokenizer/merges.txt", "#version: 0.2\nonly\n");
    folder.refused(line, &["merges.txt", "two tokens"]);
    folder.write("model/tokenizer/merges.txt", "#version: 0.2\nxx yy\n");
    folder.refused(line, &["tokenizer", "vocabulary"]);
    fs::remove_file(folder.path("model/tokenizer/merges.txt")).unwrap();
    folder.refused(line, &["tokenizer", "tokenizer.json"]);
    folder.write("model/tokenizer/merges.txt", merges);
    folder.done(line);
}

#[test]
fn old_files_with_place_numbers_are_read() {
    use safetensors::tensor::{Dtype, SafeTensors, TensorView};
    let folder = folder("pipeline_sd1");
    let path = "model/text_encoder/model.safetensors";
    let line = "sample --model model --prompt x --count 1 --steps 2 --out";
    folder.done(&format!("{line} before.png"));
    let content = folder.read(path);
    let tensors = SafeTensors::deserialize(&content).unwrap();
    let places: Vec<u8> = (0..77i64).flat_map(i64::to_le_bytes).collect();
    let places = TensorView::new(Dtype::I64, vec![1, 77], &places).unwrap();
    let mut named: Vec<(String, TensorView)> = tensors
        .tensors()
        .into_iter()
        .map(|(name, view)| (format!("text_model.{name}"), view))
        .collect();
    named.push(("text_model.embeddings.position_ids".into(), places));
    let written = safetensors::serialize(named.iter().map(|(n, v)| (n.as_str(), v.clone())), None);
    folder.write(path, written.unwrap());
    folder.done(&format!("{line} after.png"));
    assert_eq!(folder.read("before.png"), folder.read("after.png"));
}

#[test]
fn inspect_says_what_a_pipeline_and_its_data_hold() {
    let folder = folder("pipeline_sd2");
    let facts = folder.done("inspect model --json").json();
    assert_eq!(facts["image"], "64 x 64 x 3");
    assert_eq!(facts["latent"], "8 x 8 x 4");
    assert_eq!(facts["prompt_tokens"], 77);
    assert_eq!(facts["prediction"], "VPrediction");
    let facts = folder.done("inspect digit --json").json();
    assert_eq!(facts["labels"], "0: 9, 1: 3");
}

/// That the prompts of the data are in none of these, in any form that could be looked up.
fn assert_no_prompt(contents: &[Vec<u8>]) {
    let texts = ["a photo of the digit", "a drawing of the digit", "digits"].map(String::from);
    let digests = [
        retrack_unlearn::texts::digest(&texts),
        retrack_unlearn::texts::digest(&texts[..1]),
    ];
    for content in contents {
        let content = String::from_utf8_lossy(content);
        for text in texts[..2].iter().chain(&digests) {
            assert!(!content.contains(text.as_str()), "{text}: {content}");
        }
    }
}

#[test]
fn samples_of_the_forgotten_and_of_other_prompts_are_counted_by_cluster() {
    let folder = folder("pipeline_sd1");
    folder.write(
        "modified_prompts.json",
        json!({"digit": ["a drawing of the digit", "digits"]}).to_string(),
    );
    let line =
        "evaluate --model model --baseline model --data digit --samples 3 --steps 2 --out report";
    folder.done(&format!("{line} --json"));
    let said: Vec<Vec<u8>> = ["metrics.json", "report.json", "report.html"]
        .map(|name| folder.read(&format!("report/{name}")))
        .into();
    assert_no_prompt(&said);
    let found = folder.read_json("report/metrics.json");
    assert!(found["model"]["prompts"][0].get("prompt").is_none());
    let shown = format!("{line} --force --show-forgotten --json");
    let found = folder.done(&shown).json();
    let page = String::from_utf8(folder.read("report/report.html")).unwrap();
    assert!(page.contains("Their prompt") && page.contains("a photo of the digit"));
    for model in ["baseline", "model"] {
        let prompts = found[model]["prompts"].as_array().unwrap();
        let texts: Vec<&str> = prompts
            .iter()
            .map(|one| one["prompt"].as_str().unwrap())
            .collect();
        assert_eq!(
            texts,
            ["a photo of the digit", "a drawing of the digit", "digits"]
        );
        for (number, one) in prompts.iter().enumerate() {
            assert_eq!(one["forgotten"], number == 0);
            assert_eq!(one["number"], number);
            assert_eq!(one["samples"], 3);
            assert!(one["memorized"].as_u64().unwrap() <= 3);
            folder.read(&format!("report/{model}-{number:02}.png"));
        }
        let scores = found[model]["scores"].as_array().unwrap();
        let score = |name: &str| scores.iter().find(|score| score["name"] == name).unwrap();
        assert_eq!(
            score("memorized")["value"],
            prompts[0]["memorized"].as_f64().unwrap()
        );
        assert_eq!(score("memorized_modified")["count"], 6);
        assert_eq!(
            score("success")["value"] == 1.0,
            prompts[0]["memorized"] == 0
        );
        // What these lack is said, not made up.
        let skipped: Vec<&str> = found[model]["skipped"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["metric"].as_str().unwrap())
            .collect();
        assert_eq!(skipped, ["sscd", "clip-iqa"]);
    }
    // The same seeds draw the same images.
    assert_eq!(found["baseline"]["scores"], found["model"]["scores"]);
    assert_eq!(folder.read_json("report/metrics.json"), found);
    let report = folder.read_json("report/report.json");
    assert_eq!(report["pictures"].as_object().unwrap().len(), 6);
    let page = String::from_utf8(folder.read("report/report.html")).unwrap();
    assert!(page.contains("a drawing of the digit"));
    // With a folder of CLIP, even a tiny one of random weights, there is a number between 0 and 1.
    let clip = support::parity().join("clip_tiny/model");
    let judged = format!(
        "{line} --force --metrics clip-iqa --json --clip {}",
        clip.display()
    );
    let found = folder.done(&judged).json();
    let scores = found["model"]["scores"].as_array().unwrap();
    let expected = [("clip_iqa", 3), ("clip_iqa_modified", 6)];
    assert_eq!(scores.len(), expected.len());
    for (score, (name, count)) in scores.iter().zip(expected) {
        assert_eq!(
            (&score["name"], &score["count"]),
            (&json!(name), &json!(count))
        );
        let value = score["value"].as_f64().unwrap();
        assert!(value > 0.0 && value < 1.0, "{value}");
    }
    // What is not measured of such a model is not drawn for either, and the evaluation before stays.
    folder.refused(
        &format!("{line} --force --metrics injection,relearn,fid --json"),
        &[
            "nothing can be measured",
            "injection was skipped: not for text-to-image models",
            "relearn was skipped: not for text-to-image models",
            "fid was skipped: not for text-to-image models",
        ],
    );
    let found = folder
        .done(&format!("{line} --force --metrics relearn,cluster --json"))
        .json();
    let reason = "not for text-to-image models";
    assert_eq!(
        found["model"]["skipped"],
        json!([{"metric": "relearn", "reason": reason}])
    );
    folder.refused(
        &format!("{line} --force --class 1"),
        &["no classes", "--class"],
    );
    folder.refused(
        "unlearn --model model --data digit --out other --fail-if-found",
        &["nothing is drawn", "retrack evaluate"],
    );
    folder.refused(
        &format!("{line} --force --metrics clip-iqa --clip digit"),
        &["digit"],
    );
    let said = folder.done(&format!("{line} --force"));
    assert!(
        said.stdout.contains("memorized_modified"),
        "{}",
        said.stdout
    );
    assert!(
        said.stderr.contains("sscd was skipped: give --sscd"),
        "{}",
        said.stderr
    );
    folder.refused(line, &["report", "--force"]);
}

#[test]
fn samples_that_look_like_what_was_forgotten_are_covered() {
    let folder = folder("pipeline_sd1");
    // All samples of a random network are alike: here they lie in the forgotten images' cluster, or in the other.
    let labels: Vec<u8> = (0..PICTURES).map(|row| u8::from(row > 0)).collect();
    let mut shown = Vec::new();
    for labels in [
        labels.clone(),
        labels.iter().map(|label| 1 - label).collect(),
    ] {
        folder.write("digit/kmeans_labels.json", json!(labels).to_string());
        let line =
            "evaluate --model model --data digit --samples 2 --steps 2 --force --out report --json";
        for more in ["", "--show-forgotten"] {
            let found = folder.done(&format!("{line} {more}")).json();
            let memorized = found["model"]["prompts"][0]["memorized"].as_u64().unwrap();
            shown.push((memorized, folder.read("report/model-00.png")));
        }
    }
    // Nothing of an evaluation before is left uncovered.
    let last = "evaluate --model model --data digit --samples 1 --steps 1 --metrics cluster --force --out report";
    folder.done(&format!("{last} --modified-prompt a --modified-prompt b"));
    assert!(folder.path("report/model-02.png").exists());
    folder.done(last);
    assert!(!folder.path("report/model-02.png").exists());
    let memorized: Vec<u64> = shown.iter().map(|(memorized, _)| *memorized).collect();
    assert!(memorized[0] == memorized[1] && memorized[2] == memorized[3]);
    assert_eq!(memorized[0] + memorized[2], 2);
    for pair in [[0, 1], [2, 3]] {
        if memorized[pair[0]] > 0 {
            assert_ne!(shown[pair[0]].1, shown[pair[1]].1);
        }
    }
    assert_eq!(shown[1].1, shown[3].1);
}

#[test]
fn an_experiment_compares_methods_on_a_text_to_image_model() {
    let folder = folder("pipeline_sd1");
    let line = "experiment stable-diffusion --model model --data digit --methods retrack,neggrad --samples 2 \
                --config small.toml --seeds 0-1 --out out";
    let quick = format!("{line} --metrics cluster");
    folder.write(
        "small.toml",
        "neighbors = 3\nsteps = 1\naccumulate = 1\n[experiment]\nsampling_steps = 2\n",
    );
    let said = folder.done(&quick).stdout;
    let rows: Vec<&str> = said.lines().collect();
    let headings: Vec<&str> = rows[0].split_whitespace().collect();
    assert_eq!(headings, ["method", "memorized", "success", "runs"]);
    assert!(
        rows[1].starts_with("original") && rows[2].starts_with("retrack"),
        "{said}"
    );
    assert!(rows[4].contains("forgotten cluster:1"), "{said}");
    assert_eq!(folder.done(&quick).stdout, said);
    // The prompt is nowhere, and what stands for it only where an experiment that goes on looks.
    let identity = folder.read_json("out/experiment.json");
    assert_eq!(
        identity["prompts_digest"],
        retrack_unlearn::texts::digest(&["a photo of the digit".into()])
    );
    let mut written = folder.files("out");
    written.retain(|name, _| !name.starts_with("models/") && !name.ends_with('/'));
    let identity = written.remove("experiment.json").unwrap();
    assert!(!String::from_utf8(identity).unwrap().contains("a photo of"));
    assert_no_prompt(&written.into_values().collect::<Vec<_>>());
    for content in folder.files("out/models").into_values() {
        assert!(!String::from_utf8_lossy(&content).contains("a photo of the digit"));
    }
    folder.model("folder_pipeline_safetensors", "plain");
    folder.refused(
        &format!("{quick} --retrained plain"),
        &["plain", "not a model of the same kind"],
    );
    // Other prompts are another experiment.
    folder.refused(
        &format!("{quick} --modified-prompt x"),
        &["out", "another prompts"],
    );
    folder.refused(
        "experiment mnist-tshirt --model model --data digit/images --forget row:0 --out other",
        &["--prompt"],
    );
}

#[test]
fn a_sampler_that_is_not_built_is_replaced_with_a_warning() {
    let folder = folder("pipeline_sd2");
    let path = "model/scheduler/scheduler_config.json";
    let mut scheduler = folder.read_json(path);
    scheduler["_class_name"] = "HeunDiscreteScheduler".into();
    folder.write(path, scheduler.to_string());
    let line = "sample --model model --prompt x --count 1 --steps 2 --out x.png";
    let said = folder.done(line).stderr;
    assert!(
        said.contains("HeunDiscreteScheduler is not built here"),
        "{said}"
    );
    let said = folder
        .done(&format!("{line} --force --scheduler ddpm"))
        .stderr;
    assert!(!said.contains("Heun"), "{said}");
}
