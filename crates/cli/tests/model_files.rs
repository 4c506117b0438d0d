//! Model folders and adapters as people have them: what their libraries write, what training scripts leave, and what
//! only looks like a model that is known.

mod support;

use std::collections::HashMap;
use std::fs;

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use support::{Folder, png};

const INDEX: &str = "model/model_index.json";
const UNET: &str = "model/unet/diffusion_pytorch_model.safetensors";
const SCHEDULER: &str = "model/scheduler/scheduler_config.json";

/// With a tiny text-to-image pipeline as `model`, and pictures of its size as `pictures`.
fn text_to_image() -> Folder {
    let folder = Folder::new();
    folder.model("pipeline_sd1", "model");
    for row in 0..6 {
        let pixels = support::noise(row, 64 * 64);
        folder.write(&format!("pictures/{row}.png"), png(pixels));
    }
    folder
}

fn change(folder: &Folder, file: &str, change: impl FnOnce(&mut Value)) {
    let mut json = folder.read_json(file);
    change(&mut json);
    folder.write(file, json.to_string());
}

/// f32 tensors all of whose elements are the same, or whole numbers.
fn write_tensors(
    folder: &Folder,
    name: &str,
    tensors: &[(&str, Vec<usize>, f32)],
    settings: Option<Value>,
) {
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(name, shape, value)| {
            let count = shape.iter().product();
            match name.contains("timestep") {
                true => (*value as i64).to_le_bytes().repeat(count),
                false => value.to_le_bytes().repeat(count),
            }
        })
        .collect();
    let views = tensors.iter().zip(&bytes).map(|((name, shape, _), bytes)| {
        let dtype = match name.contains("timestep") {
            true => Dtype::I64,
            false => Dtype::F32,
        };
        (*name, TensorView::new(dtype, shape.clone(), bytes).unwrap())
    });
    let metadata = settings.map(|settings| {
        let settings = settings.as_object().unwrap().iter();
        let settings = settings.map(|(key, value)| (format!("unet.{key}"), value.clone()));
        let settings = Value::Object(settings.collect());
        HashMap::from([("lora_adapter_metadata".to_string(), settings.to_string())])
    });
    folder.write(name, safetensors::serialize(views, metadata).unwrap());
}

/// Puts `prefix` before every name of a weight file.
fn wrap(folder: &Folder, file: &str, prefix: &str) {
    let content = folder.read(file);
    let tensors = SafeTensors::deserialize(&content).unwrap();
    let named: Vec<_> = tensors
        .tensors()
        .into_iter()
        .map(|(name, view)| (format!("{prefix}{name}"), view))
        .collect();
    let named = named
        .iter()
        .map(|(name, view)| (name.as_str(), view.clone()));
    folder.write(file, safetensors::serialize(named, None).unwrap());
}

fn names(folder: &Folder, file: &str) -> Vec<String> {
    let content = folder.read(file);
    let tensors = SafeTensors::deserialize(&content).unwrap();
    let mut names: Vec<String> = tensors.names().into_iter().map(str::to_string).collect();
    names.sort();
    names
}

#[test]
fn numbers_that_pythons_json_alone_knows_are_read_where_nobody_needs_them() {
    let folder = text_to_image();
    let line = "sample --model model --prompt x --count 1 --steps 2 --out";
    folder.done(&format!("{line} before.png --scheduler ddim"));
    change(&folder, SCHEDULER, |scheduler| {
        scheduler["_class_name"] = "DPMSolverMultistepScheduler".into();
        scheduler["lambda_min_clipped"] = "-Infinity".into();
        scheduler["solver_p"] = json!(["Infinity", "NaN"]);
    });
    let text = String::from_utf8(folder.read(SCHEDULER)).unwrap();
    let bare = ["-Infinity", "Infinity", "NaN"]
        .iter()
        .fold(text, |text, word| {
            text.replace(&format!("\"{word}\""), word)
        });
    assert!(
        bare.contains(":-Infinity") && bare.contains("[Infinity,NaN]"),
        "{bare}"
    );
    folder.write(SCHEDULER, &bare);
    let facts = folder.done("inspect model --json").json();
    assert_eq!(facts["timesteps"], 1000);
    let said = folder.done(&format!("{line} after.png"));
    assert!(
        said.stderr
            .contains("DPMSolverMultistepScheduler is not built here"),
        "{}",
        said.stderr
    );
    assert_eq!(folder.read("before.png"), folder.read("after.png"));
    // Where a number is needed, none is not one; and nothing else becomes JSON.
    folder.write(
        SCHEDULER,
        bare.replace("\"beta_end\":0.012", "\"beta_end\":NaN"),
    );
    folder.refused("inspect model", &["`beta_end`: \"NaN\" is not valid"]);
    folder.write(SCHEDULER, bare.replace("-Infinity", "-Infinite"));
    folder.refused(
        "inspect model",
        &["scheduler_config.json", "not valid JSON"],
    );
}

#[test]
fn samplers_that_only_sample_are_read_and_other_trainings_refused_by_name() {
    let folder = text_to_image();
    for class in [
        "LCMScheduler",
        "TCDScheduler",
        "KDPM2AncestralDiscreteScheduler",
        "IPNDMScheduler",
        "EDMEulerScheduler",
        "SASolverScheduler",
    ] {
        change(&folder, SCHEDULER, |scheduler| {
            scheduler["_class_name"] = class.into()
        });
        let said = folder.done("inspect model").stderr;
        let without_betas = class.starts_with("EDM") || class.starts_with("IPNDM");
        assert_eq!(
            said.contains("has no betas of its own"),
            without_betas,
            "{said}"
        );
        let said = folder.done("sample --model model --prompt x --count 1 --steps 2 --out x.png");
        assert!(
            said.stderr.contains(&format!("{class} is not built here")),
            "{}",
            said.stderr
        );
    }
    change(&folder, SCHEDULER, |scheduler| {
        scheduler["use_flow_sigmas"] = true.into()
    });
    folder.refused("inspect model", &["`use_flow_sigmas`", "flow matching"]);
    for (class, why) in [
        ("FlowMatchHeunDiscreteScheduler", "flow matching"),
        ("EDMEulerScheduler", "holds no betas"),
        ("IPNDMScheduler", "holds no betas"),
        ("CMStochasticIterativeScheduler", "consistency models"),
        ("SomeScheduler", "not known here"),
    ] {
        folder.write(SCHEDULER, json!({ "_class_name": class }).to_string());
        for line in [
            "inspect model",
            "sample --model model --prompt x --count 1 --out x.png",
            "unlearn --model model --data pictures --forget row:0 --prompt x --out out",
        ] {
            folder.refused(line, &[class, why]);
        }
    }
}

#[test]
fn a_network_of_latents_is_never_treated_as_one_of_images() {
    let folder = Folder::with_model_and_photos();
    folder.write("input.safetensors", "");
    let lines = [
        "inspect model",
        "sample --model model --count 1 --steps 1 --out x.png",
        "unlearn --model model --data photos --forget row:3 --neighbors 4 --steps 1 --out out",
        "evaluate --model model --data photos --forget row:3 --threshold 1 --out out",
        "predict --model model --input input.safetensors --output y",
    ];
    let index = folder.read_json(INDEX);
    for (pipeline, part, class) in [
        ("LDMPipeline", "vqvae", "VQModel"),
        ("DDPMPipeline", "vae", "AutoencoderKL"),
        ("DDPMPipeline", "movq", "VQModel"),
        ("MyPipeline", "condition_encoder", "MyEncoder"),
        ("DDPMPipeline", "image_encoder", "CLIPVisionModel"),
        ("DDPMPipeline", "text_encoder", "BertModel"),
    ] {
        let mut other = index.clone();
        other["_class_name"] = pipeline.into();
        other[part] = json!(["diffusers", class]);
        folder.write(INDEX, other.to_string());
        for line in lines {
            folder.refused(
                line,
                &["model_index.json", pipeline, part, class, "not supported"],
            );
        }
    }
    // The class alone says so too.
    let mut other = index.clone();
    other["_class_name"] = "LDMPipeline".into();
    other["vqvae"] = json!([null, null]);
    folder.write(INDEX, other.to_string());
    for line in lines {
        folder.refused(line, &["LDMPipeline", "not supported"]);
    }
    // And its network does not denoise images where it is given without the rest.
    for line in &lines[1..4] {
        let line = line.replace("--model model", "--model model/unet");
        folder.refused(
            &line,
            &["model/unet", "LDMPipeline", "does not denoise images"],
        );
    }
    folder.done("inspect model/unet");
    folder.write(INDEX, index.to_string());
    folder.done("sample --model model/unet --count 1 --steps 1 --out x.png");
    // Settings and parts that were left out are no parts.
    change(&folder, INDEX, |index| {
        index["safety_checker"] = json!([null, null]);
        index["requires_safety_checker"] = false.into();
    });
    folder.done("inspect model");
}

#[test]
fn parts_of_other_classes_are_refused_by_the_class() {
    let folder = text_to_image();
    let line = "sample --model model --prompt x --count 1 --steps 1 --out x.png";
    let index = folder.read(INDEX);
    for (part, class) in [
        ("vae", "AutoencoderTiny"),
        ("vae", "AsymmetricAutoencoderKL"),
        ("text_encoder", "T5EncoderModel"),
        ("tokenizer", "T5Tokenizer"),
        ("controlnet", "ControlNetModel"),
    ] {
        change(&folder, INDEX, |index| {
            index[part] = json!(["diffusers", class])
        });
        folder.refused(line, &[part, class, "not supported"]);
        folder.write(INDEX, &index);
    }
    // What the index says may be wrong.
    let vae = folder.read("model/vae/config.json");
    change(&folder, "model/vae/config.json", |vae| {
        *vae = json!({ "_class_name": "AutoencoderTiny", "act_fn": "relu", "latent_channels": 4 });
    });
    folder.refused(line, &["model/vae/config.json", "AutoencoderTiny"]);
    folder.write("model/vae/config.json", vae);
    change(&folder, "model/text_encoder/config.json", |text| {
        text["architectures"] = json!(["CLIPTextModelWithProjection"]);
    });
    folder.refused(
        line,
        &["text_encoder/config.json", "CLIPTextModelWithProjection"],
    );
}

#[test]
fn every_layer_of_an_adapter_is_scaled_as_its_patterns_say() {
    let folder = text_to_image();
    let content = folder.read(UNET);
    let base = SafeTensors::deserialize(&content).unwrap();
    let layers: Vec<(String, Vec<usize>)> = base
        .tensors()
        .into_iter()
        .filter(|(name, _)| {
            name.contains(".attn") && name.ends_with("to_q.weight") || name.ends_with("to_k.weight")
        })
        .map(|(name, view)| {
            (
                name.strip_suffix(".weight").unwrap().to_string(),
                view.shape().to_vec(),
            )
        })
        .collect();
    assert!(layers.len() >= 12, "{layers:?}");
    let mut named = Vec::new();
    for (layer, shape) in &layers {
        named.push((format!("unet.{layer}.lora_A.weight"), vec![4, shape[1]]));
        named.push((format!("unet.{layer}.lora_B.weight"), vec![shape[0], 4]));
    }
    let tensors: Vec<_> = named
        .iter()
        .map(|(name, shape)| (name.as_str(), shape.clone(), 0.5f32))
        .collect();
    let settings = json!({
        "peft_type": "LORA", "bias": "none", "init_lora_weights": "gaussian", "r": 4, "lora_alpha": 4, "lora_dropout": 0.1,
        "alpha_pattern": { "^down_blocks.*": 16, r"attn1\.to_[q]": 32, "attn2.to_q|to_k": 2, "to_v": 99 }
    });
    write_tensors(&folder, "adapter.safetensors", &tensors, Some(settings));
    let said = folder.done("merge --model model --adapter adapter.safetensors --out merged");
    // Those of the way down that a later pattern would match too.
    assert!(
        said.stderr.contains("layers match several patterns"),
        "{}",
        said.stderr
    );
    let content = folder.read("merged/unet/diffusion_pytorch_model.safetensors");
    let merged = SafeTensors::deserialize(&content).unwrap();
    let floats = |view: TensorView| -> Vec<f32> {
        let (values, _) = view.data().as_chunks();
        values
            .iter()
            .map(|&value| f32::from_le_bytes(value))
            .collect()
    };
    for (layer, _) in &layers {
        let alpha = match layer.as_str() {
            layer if layer.starts_with("down_blocks") => 16.0,
            layer if layer.ends_with("attn1.to_q") => 32.0,
            _ => 2.0,
        };
        let name = format!("{layer}.weight");
        let (before, after) = (
            floats(base.tensor(&name).unwrap()),
            floats(merged.tensor(&name).unwrap()),
        );
        // B A has 4 times a quarter in every place.
        for (before, after) in before.iter().zip(&after) {
            assert!(
                (after - before - alpha / 4.0).abs() < 1e-5,
                "{layer}: {before} {after}"
            );
        }
    }
}

#[test]
fn an_adapter_that_is_more_than_its_factors_is_refused_by_name_without_bad_advice() {
    let folder = text_to_image();
    let tensors = [
        ("unet.x.to_q.lora_A.weight", vec![4, 8], 1.0),
        ("unet.x.to_q.lora_B.weight", vec![8, 4], 1.0),
    ];
    for (key, value, says) in [
        ("init_lora_weights", json!("pissa"), "pissa"),
        ("init_lora_weights", json!("pissa_niter_4"), "pissa_niter_4"),
        ("init_lora_weights", json!("olora"), "olora"),
        ("init_lora_weights", json!("corda"), "corda"),
        ("init_lora_weights", json!("lora_ga"), "lora_ga"),
        ("init_lora_weights", json!("loftq"), "loftq"),
        ("use_dora", json!(true), "use_dora"),
        ("modules_to_save", json!(["conv_in"]), "modules_to_save"),
        ("bias", json!("all"), "bias"),
        ("rank_pattern", json!({ "to_q": 2 }), "rank_pattern"),
        ("alpha_pattern", json!({ "to_(": 2 }), "to_("),
    ] {
        let mut settings = json!({ "r": 4, "lora_alpha": 4 });
        settings[key] = value;
        write_tensors(&folder, "adapter.safetensors", &tensors, Some(settings));
        let line = "merge --model model --adapter adapter.safetensors --out merged";
        folder.refused(line, &["adapter.safetensors", says]);
        let output = folder.command(line).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!said.contains("save_lora_weights"), "{said}");
    }
    write_tensors(
        &folder,
        "adapter.safetensors",
        &[("lora_unet_x.alpha", vec![1], 1.0)],
        None,
    );
    let output = folder
        .command("merge --model model --adapter adapter.safetensors --out merged")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("adapter.safetensors: x has one factor only"),
        "{said}"
    );
    assert!(!said.contains("save_lora_weights"), "{said}");
}

#[test]
fn wrapped_weights_are_read_with_a_note_and_written_as_diffusers_finds_them() {
    let folder = Folder::with_model_and_photos();
    let line = "sample --model model --count 1 --steps 2 --seed 1 --out";
    folder.done(&format!("{line} before.png"));
    let plain = names(&folder, UNET);
    wrap(&folder, UNET, "_orig_mod.module.");
    let said = folder.done("inspect model");
    assert!(
        said.stderr.contains("\"_orig_mod.module.\""),
        "{}",
        said.stderr
    );
    assert!(said.stdout.lines().count() + said.stderr.lines().count() <= 12);
    folder.done(&format!("{line} after.png"));
    assert_eq!(folder.read("before.png"), folder.read("after.png"));
    folder.done(
        "unlearn --model model --data photos --forget row:3 --neighbors 4 --steps 1 --no-report --out out",
    );
    assert_eq!(
        names(&folder, "out/unet/diffusion_pytorch_model.safetensors"),
        plain
    );
    // Half of the names are another matter: they are listed, the first of them.
    let content = folder.read("out/unet/diffusion_pytorch_model.safetensors");
    folder.write(UNET, content);
    wrap(&folder, UNET, "model.");
    let (missing, line) = (plain.len(), "inspect model");
    folder.refused(
        line,
        &[
            "missing tensor ",
            &format!("and {} more missing tensors, {missing} in all", missing - 8),
            &format!("{missing} in all"),
            "unexpected tensor model.",
        ],
    );
    let output = folder.command(line).output().unwrap();
    let lines = String::from_utf8(output.stderr).unwrap().lines().count();
    assert!(lines < 24, "{lines} lines");
}

#[test]
fn wrapped_parts_of_a_text_to_image_model_are_read_and_written_too() {
    let folder = text_to_image();
    const VAE: &str = "vae/diffusion_pytorch_model.safetensors";
    const TEXT: &str = "text_encoder/model.safetensors";
    let line = "sample --model model --prompt x --count 1 --steps 2 --out";
    folder.done(&format!("{line} before.png"));
    let files = [VAE, TEXT, "unet/diffusion_pytorch_model.safetensors"];
    let plain = files.map(|file| names(&folder, &format!("model/{file}")));
    for file in files {
        wrap(&folder, &format!("model/{file}"), "module.");
    }
    let said = folder.done(&format!("{line} after.png"));
    assert_eq!(
        said.stderr.matches("\"module.\"").count(),
        3,
        "{}",
        said.stderr
    );
    assert_eq!(folder.read("before.png"), folder.read("after.png"));
    for (rank, out) in [("", "whole"), ("--train lora --rank 2", "adapter")] {
        folder.done(&format!(
            "unlearn --model model --data pictures --forget row:0 --prompt x --neighbors 3 --batch-size 1 --steps 1 \
             --no-report {rank} --out {out}"
        ));
        for (file, plain) in files.iter().zip(&plain) {
            assert_eq!(
                &names(&folder, &format!("{out}/{file}")),
                plain,
                "{out}/{file}"
            );
        }
    }
}

#[test]
fn a_pipeline_of_a_variant_alone_is_refused_with_all_that_is_to_be_renamed() {
    let folder = text_to_image();
    let parts = [
        ("unet", "diffusion_pytorch_model"),
        ("text_encoder", "model"),
        ("vae", "diffusion_pytorch_model"),
    ];
    let paths = |part: &str, stem: &str| {
        ["", ".fp16"].map(|variant| format!("model/{part}/{stem}{variant}.safetensors"))
    };
    for (part, stem) in parts {
        let [main, of_variant] = paths(part, stem);
        fs::rename(folder.path(&main), folder.path(&of_variant)).unwrap();
    }
    let said = folder.ends("inspect model", 2).stderr;
    for (part, stem) in &parts[1..] {
        let [main, of_variant] = paths(part, stem);
        assert!(said.contains(&format!("{of_variant} to {main}")), "{said}");
    }
    for (at, (part, stem)) in parts.into_iter().enumerate() {
        let said = folder.ends("inspect model", 2).stderr;
        let says = format!("rename {stem}.fp16.safetensors to {stem}.safetensors");
        assert!(said.contains(part) && said.contains(&says), "{said}");
        assert!(!said.contains("cannot be read"), "{said}");
        assert_eq!(said.contains(", model/"), at < 2, "{said}");
        let [main, of_variant] = paths(part, stem);
        fs::rename(folder.path(&of_variant), folder.path(&main)).unwrap();
    }
    folder.done("inspect model");
}

#[test]
fn a_trainings_checkpoint_is_pointed_out_of() {
    let folder = Folder::with_model_and_photos();
    for (name, content) in folder.files("model/unet") {
        folder.write(&format!("checkpoint-500/unet_ema/{name}"), &content);
        folder.write(&format!("both/unet_ema/{name}"), &content);
        folder.write(&format!("both/unet/{name}"), &content);
    }
    folder.refused(
        "inspect checkpoint-500",
        &["checkpoint-500/unet_ema", "checkpoint"],
    );
    folder.refused("inspect both", &["both/unet,", "both/unet_ema"]);
    folder.refused(
        "sample --model both --count 1 --out x.png",
        &["unet_ema", "checkpoint"],
    );
    folder.refused(
        "neighbors --data both --forget row:1",
        &["both/unet,", "both/unet_ema", "no data set"],
    );
    folder.done("inspect both/unet");
    fs::create_dir(folder.path("state")).unwrap();
    folder.write("state/optimizer.bin", "x");
    folder.write("state/model.safetensors", "x");
    folder.refused("inspect state", &["accelerate"]);
    folder.write("lora/pytorch_lora_weights.safetensors", "x");
    folder.refused(
        "inspect lora",
        &["lora/pytorch_lora_weights.safetensors", "merge"],
    );
    folder.write("lora/optimizer.bin", "x");
    folder.refused(
        "inspect lora",
        &["lora/pytorch_lora_weights.safetensors", "merge"],
    );
    folder.refused(
        "sample --model state --count 1 --out x.png",
        &["checkpoint", "save_pretrained"],
    );
    let merge =
        "`retrack merge --model DIR --adapter lora/pytorch_lora_weights.safetensors --out DIR`";
    folder.refused("sample --model lora --count 1 --out x.png", &[merge]);
    folder.refused("neighbors --data lora --forget row:1", &[merge]);
}

#[test]
fn an_absurd_network_of_any_family_is_refused_before_it_takes_memory() {
    let folder = text_to_image();
    write_tensors(
        &folder,
        "input.safetensors",
        &[
            ("sample", vec![1, 4, 8, 8], 0.5),
            ("timestep", vec![1], 3.0),
            ("encoder_hidden_states", vec![1, 5, 16], 0.5),
        ],
        None,
    );
    folder.write(
        "adapter.safetensors",
        fs::read(support::parity().join("lora_sd1/scaled.safetensors")).unwrap(),
    );
    let whole = [
        "inspect model",
        "sample --model model --prompt x --count 1 --steps 1 --out x.png",
        "unlearn --model model --data pictures --forget row:0 --prompt x --neighbors 3 --steps 1 --out out",
        "evaluate --model model --data pictures --forget row:0 --prompt x --threshold 1 --out out",
    ];
    let network = [
        "predict --model model --input input.safetensors --output y",
        "gradient --model model --method finetune --input input.safetensors --output y",
        "merge --model model --adapter adapter.safetensors --out out",
    ];
    for (part, changes) in [
        ("unet", json!({ "block_out_channels": [1 << 20, 1 << 20] })),
        ("unet", json!({ "cross_attention_dim": 1 << 20 })),
        ("unet", json!({ "block_out_channels": vec![8; 40] })),
        (
            "vae",
            json!({ "block_out_channels": [1 << 20, 1 << 20, 1 << 20, 1 << 20] }),
        ),
        ("vae", json!({ "layers_per_block": 1 << 20 })),
        (
            "text_encoder",
            json!({ "intermediate_size": 1 << 20, "num_hidden_layers": 1000 }),
        ),
        (
            "text_encoder",
            json!({ "hidden_size": 1 << 20, "num_hidden_layers": 1000 }),
        ),
    ] {
        let path = format!("model/{part}/config.json");
        let before = folder.read(&path);
        change(&folder, &path, |config| {
            let config = config.as_object_mut().unwrap();
            config.extend(changes.as_object().unwrap().clone());
        });
        let of_network = network.iter().filter(|_| part == "unet");
        for line in whole.iter().chain(of_network) {
            folder.refused(line, &[&path]);
        }
        folder.write(&path, before);
    }
    // The largest latents that a file may ask for.
    let path = "model/unet/config.json";
    change(&folder, path, |config| {
        config["sample_size"] = (1 << 16).into()
    });
    folder.refused(whole[1], &["1 sample, 1 at a time", "`sample_size`"]);
}

#[test]
fn a_scheduler_that_is_not_read_is_named_by_its_file() {
    let folder = Folder::with_model_and_photos();
    let mut config = folder.read_json(SCHEDULER);
    config["_class_name"] = "FlowMatchHeunDiscreteScheduler".into();
    folder.write(SCHEDULER, config.to_string());
    let says = format!("{SCHEDULER}: scheduler config: `_class_name`");
    folder.refused("inspect model", &[&says]);
}
