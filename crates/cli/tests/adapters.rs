//! Adapters on tiny Stable Diffusion pipelines: trained, merged, refused.

mod support;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use retrack_checkpoint::folder::{Dtype, RawTensor, read_weight_file};
use retrack_networks::conditional::UNet2DConditionConfig;
use retrack_networks::lora;
use retrack_networks::model::Model;
use retrack_networks::parameters;
use retrack_networks::random::{Random, Stream};
use support::{Folder, noise, parity, png};

const UNET: &str = "unet/diffusion_pytorch_model.safetensors";

fn with_model() -> Folder {
    let folder = Folder::new();
    folder.model("pipeline_sd1", "model");
    folder
}

#[test]
fn an_adapter_beside_a_model_becomes_its_weights_and_nothing_else_changes() {
    let folder = with_model();
    let model = Model::open(&folder.path("model")).unwrap();
    let network = model.network(&Device::flex()).unwrap();
    let mut number = 0;
    let network = parameters::map(
        lora::attach(network, 2, &Random::new(5)),
        |parameter, tensor| {
            if !parameter.name.ends_with(".lora.b") {
                return tensor;
            }
            number += 1;
            let [count] = tensor.dims();
            let values = Random::new(6).stream(Stream::Init, number).normal(count);
            Tensor::from_data(TensorData::new(values, [count]), &tensor.device())
        },
    );
    let tensors = lora::export(&network).unwrap();
    model
        .folder
        .write_beside(&folder.path("beside"), lora::FILE_NAME, &tensors)
        .unwrap();
    let mut beside = folder.files("beside");
    assert!(beside.remove(lora::FILE_NAME).is_some());
    support::assert_same_files(&folder.files("model"), &beside, "beside");

    folder.done("merge --model beside --out merged");
    let mut merged = folder.files("merged");
    // The record of the merge, and the list of what it wrote.
    let record = folder.read_json("merged/run/config.json");
    assert_eq!(record["command"], "merge");
    for name in ["run/", "run/config.json", retrack_checkpoint::written::NAME] {
        assert!(merged.remove(name).is_some(), "{name}");
    }
    assert_ne!(merged[UNET], beside[UNET]);
    merged.insert(UNET.into(), beside[UNET].clone());
    support::assert_same_files(&beside, &merged, "merged");
    let back = Model::open(&folder.path("merged")).unwrap();
    let back = parameters::export(&back.network(&Device::flex()).unwrap());
    let folded = parameters::export(&network.materialize());
    for ((parameter, found), (_, expected)) in back.iter().zip(&folded) {
        let far = found.iter().zip(expected).map(|(f, e)| (f - e).abs());
        let far = far.fold(0.0, f32::max);
        assert!(far < 1e-5, "{}: {far}", parameter.name);
    }
    // The adapter went into the weights: there is nothing to merge again.
    folder.refused(
        "merge --model merged --out again",
        &["merged/pytorch_lora_weights.safetensors: no such file"],
    );
}

#[test]
fn another_models_adapter_is_refused_with_the_layer() {
    let folder = with_model();
    folder.model("folder_pipeline_safetensors", "other");
    let adapter = parity().join("lora_sd1/scaled.safetensors");
    folder.write("adapter.safetensors", std::fs::read(adapter).unwrap());
    folder.refused(
        "merge --model other --adapter adapter.safetensors --out out",
        &["adapter.safetensors", "attn1", "another model's"],
    );
    folder.refused(
        "merge --model model --adapter model/unet/diffusion_pytorch_model.safetensors --out out",
        &["is not supported", "no name in it is an adapter's"],
    );
}

#[test]
fn an_adapter_is_trained_resumed_and_written_beside_the_untouched_model() {
    const RUN: &str = "unlearn --model model --data photos --forget row:0 --prompt toast --neighbors 3 --batch-size 1 \
                       --accumulate 2 --lr 0.01 --train lora --rank 2 --checkpoint-every 1";
    let folder = with_model();
    for row in 0..6 {
        folder.write(&format!("photos/{row}.png"), png(noise(row, 64 * 64)));
    }
    folder.done(&format!("{RUN} --steps 3 --out out"));
    let mut out = folder.files("out");
    out.retain(|name, _| !name.starts_with("run/"));
    assert!(out.remove(retrack_checkpoint::written::NAME).is_some());
    assert!(out.remove(retrack_checkpoint::chain::NAME).is_some());
    let adapter = out.remove(lora::FILE_NAME).unwrap();
    let card = String::from_utf8(out.remove("README.md").unwrap()).unwrap();
    assert!(card.contains("pipeline.load_lora_weights("), "{card}");
    assert!(out.remove(".gitignore").is_some());
    support::assert_same_files(&folder.files("model"), &out, "out");

    let tensors = read_weight_file(folder.path("out").join(lora::FILE_NAME)).unwrap();
    assert!(tensors.len() > 8 && tensors.len().is_multiple_of(2));
    for (key, tensor) in &tensors {
        let rank = tensor.shape()[usize::from(key.contains(".lora_B."))];
        assert_eq!(rank, 2, "{key}");
        assert!(tensor.to_f32().iter().any(|value| *value != 0.0), "{key}");
    }
    folder.done("merge --model out --out merged");
    assert_ne!(folder.files("merged")[UNET], out[UNET]);

    let long = format!("{RUN} --steps 40 --out long");
    folder.kill_after_two_checkpoints(&long, "long");
    folder.done(&format!("{long} --resume"));
    folder.done(&format!("{RUN} --steps 40 --out whole"));
    let name = lora::FILE_NAME;
    let whole = folder.read(&format!("whole/{name}"));
    assert!(folder.read(&format!("long/{name}")) == whole);
    assert!(whole != adapter);
}

#[test]
fn ranks_and_adapters_that_mean_nothing_are_refused() {
    let folder = Folder::with_model_and_photos();
    const RUN: &str = "unlearn --data photos --forget row:0 --out out";
    folder.refused(
        &format!("{RUN} --model model --train lora"),
        &["text-to-image", "--train"],
    );
    folder.model("pipeline_sd1", "text");
    folder.refused(
        &format!("{RUN} --model text --prompt toast --rank 2"),
        &["--train lora"],
    );
    folder.refused(
        &format!("{RUN} --model text --prompt toast --train lora --rank 0"),
        &["--rank is 0"],
    );
}

#[test]
#[ignore = "needs Python with torch, diffusers and PEFT: set RETRACK_PYTHON to its interpreter"]
fn diffusers_predicts_with_a_trained_adapter_what_the_merged_model_predicts() {
    let python = std::env::var_os("RETRACK_PYTHON").expect("RETRACK_PYTHON is not set");
    // The second is stored in half precision, to which merged weights are rounded.
    for (pipeline, farthest, format) in [
        ("pipeline_sd1", "1e-4", "diffusers"),
        ("pipeline_sd1", "1e-4", "kohya"),
        ("pipeline_sd2", "1e-3", "diffusers"),
        ("pipeline_sdxl", "1e-4", "diffusers"),
        ("pipeline_sdxl", "1e-4", "kohya"),
        ("pipeline_sd3", "1e-4", "diffusers"),
    ] {
        let folder = Folder::new();
        folder.model(pipeline, "model");
        for row in 0..6 {
            folder.write(&format!("photos/{row}.png"), png(noise(row, 64 * 64)));
        }
        folder.done(&format!(
            "unlearn --model model --data photos --forget row:0 --prompt toast --neighbors 3 --batch-size 1 --lr 0.01 \
             --train lora --rank 2 --steps 5 --lora-format {format} --no-report --out out"
        ));
        folder.done("merge --model out --out merged");
        let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let status = std::process::Command::new(&python)
            .arg(script.join("tests/files/load_adapter.py"))
            .arg(folder.path("model"))
            .arg(folder.path("out").join(lora::FILE_NAME))
            .arg(folder.path("merged"))
            .arg(farthest)
            .status()
            .unwrap();
        assert!(status.success(), "{pipeline}");
    }
}

/// The folder `model` as `name`, with an adapter beside it whose second factors have this standard deviation.
fn beside(folder: &Folder, name: &str, deviation: f32) {
    let model = Model::open(&folder.path("model")).unwrap();
    let network = model.network(&Device::flex()).unwrap();
    let mut number = 0;
    let network = parameters::map(
        lora::attach(network, 2, &Random::new(5)),
        |parameter, tensor| {
            if !parameter.name.ends_with(".lora.b") {
                return tensor;
            }
            number += 1;
            let [count] = tensor.dims();
            let values = Random::new(6).stream(Stream::Init, number).normal(count);
            let values: Vec<f32> = values.into_iter().map(|value| value * deviation).collect();
            Tensor::from_data(TensorData::new(values, [count]), &tensor.device())
        },
    );
    let tensors = lora::export(&network).unwrap();
    model
        .folder
        .write_beside(&folder.path(name), lora::FILE_NAME, &tensors)
        .unwrap();
}

/// The model in half precision.
fn with_half_model() -> Folder {
    let folder = Folder::new();
    folder.model("pipeline_sd1", "whole");
    let model = Model::open(&folder.path("whole")).unwrap();
    let mut weights = model.folder.weights().unwrap();
    weights.write_as(Dtype::F16);
    model
        .folder
        .write_with(&folder.path("model"), &weights)
        .unwrap();
    folder
}

#[test]
fn a_merge_says_what_half_precision_takes_of_a_small_adapter_and_dtype_keeps_all_of_it() {
    let folder = with_half_model();
    beside(&folder, "small", 1e-4);
    let said = folder.done("merge --model small --out merged").stderr;
    assert!(
        said.contains("rounded back to what they were; with --dtype f32 nothing rounds back"),
        "{said}"
    );
    let said = folder
        .done("merge --model small --out wide --dtype f32")
        .stderr;
    assert!(!said.contains("rounded back"), "{said}");
    let wide = Model::open(&folder.path("wide")).unwrap();
    let weights = wide.weights();
    assert!(
        weights
            .iter()
            .all(|(_, tensor)| tensor.dtype() == Dtype::F32)
    );
    assert_eq!(folder.read_json("wide/run/config.json")["dtype"], "F32");
}

#[test]
fn an_adapter_that_goes_beyond_half_precision_is_named_with_the_way_out() {
    let folder = with_half_model();
    beside(&folder, "large", 1e6);
    folder.refused(
        "merge --model large --out merged",
        &[
            "large/pytorch_lora_weights.safetensors",
            "beyond",
            "give --dtype f32",
        ],
    );
    folder.done("merge --model large --out merged --dtype f32");
}

#[test]
fn an_adapters_folder_may_be_given_for_its_file() {
    let folder = with_model();
    beside(&folder, "beside", 1.0);
    folder.write(
        "adapter/pytorch_lora_weights.safetensors",
        folder.read(&format!("beside/{}", lora::FILE_NAME)),
    );
    folder.done("merge --model model --adapter adapter --out merged");
    folder.done("merge --model beside --out same");
    assert!(folder.read(&format!("merged/{UNET}")) == folder.read(&format!("same/{UNET}")));
    folder.refused(
        "merge --model model --out out",
        &[
            "model/pytorch_lora_weights.safetensors: no such file",
            "--adapter",
        ],
    );
    folder.write("peft/adapter_config.json", "{}");
    folder.refused(
        "merge --model model --adapter peft --out out",
        &["peft: a folder without pytorch_lora_weights.safetensors or adapter_model.safetensors"],
    );
    folder.write("other/notes.txt", "nothing");
    folder.refused(
        "merge --model model --adapter other --out out",
        &[
            "other: a folder without pytorch_lora_weights.safetensors",
            "--adapter",
        ],
    );
}

#[test]
fn pefts_folder_or_its_file_merges_with_the_settings_beside_it_and_not_without() {
    let folder = with_model();
    let peft = parity().join("lora_forms/peft");
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        folder.write(
            &format!("peft/{name}"),
            std::fs::read(peft.join(name)).unwrap(),
        );
    }
    folder.done("merge --model model --adapter peft --out merged");
    folder.done("merge --model model --adapter peft/adapter_model.safetensors --out same");
    assert!(folder.read(&format!("merged/{UNET}")) == folder.read(&format!("same/{UNET}")));
    assert!(folder.read(&format!("merged/{UNET}")) != folder.read(&format!("model/{UNET}")));
    let settings = String::from_utf8(folder.read("peft/adapter_config.json")).unwrap();
    for (from, to, expected) in [
        (
            "\"r\": 2",
            "\"r\": 4",
            "has factors of rank 2, but its adapter_config.json says 4",
        ),
        (
            "\"bias\": \"none\"",
            "\"bias\": \"all\"",
            "`bias` is \"all\"",
        ),
        (
            "\"use_dora\": false",
            "\"use_dora\": true",
            "has no magnitude",
        ),
    ] {
        assert!(settings.contains(from), "{from}");
        folder.write("peft/adapter_config.json", settings.replace(from, to));
        folder.refused(
            "merge --model model --adapter peft --out out",
            &["peft/", expected],
        );
    }
    folder.write(
        "alone.safetensors",
        folder.read("peft/adapter_model.safetensors"),
    );
    folder.refused(
        "merge --model model --adapter alone.safetensors --out out",
        &["alone.safetensors", "adapter_config.json", "put it there"],
    );
}

/// An adapter of `fixtures/parity/lora_forms`, as `name` in the folder.
fn with_form(folder: &Folder, form: &str, name: &str) {
    let file = parity().join("lora_forms").join(form);
    folder.write(name, std::fs::read(file).unwrap());
}

#[test]
fn an_adapter_of_text_encoders_changes_their_weights_and_leaves_out_other_forms_of_them() {
    const TEXT: &str = "text_encoder/model.safetensors";
    const TEXT2: &str = "text_encoder_2/model.safetensors";
    let folder = Folder::new();
    folder.model("pipeline_sdxl", "model");
    // Another variant of the same network, which would still be the old one; the second encoder's folder has none.
    let old = folder.read(&format!("model/{TEXT}"));
    folder.write("model/text_encoder/model.fp16.safetensors", &old);
    with_form(&folder, "kohya_text_xl.safetensors", "style.safetensors");
    let said = folder.done("merge --model model --adapter style.safetensors --out merged");
    let warned = "layers get the alpha that most of its layers have, as in diffusers 0.42.1";
    assert!(said.stderr.contains(warned), "{}", said.stderr);
    let (before, mut after) = (folder.files("model"), folder.files("merged"));
    for name in [UNET, TEXT, TEXT2] {
        assert!(after[name] != before[name], "{name}");
        assert_eq!(after[name].len(), before[name].len(), "{name}");
        after.insert(name.into(), before[name].clone());
    }
    for name in ["run/", "run/config.json", retrack_checkpoint::written::NAME] {
        assert!(after.remove(name).is_some(), "{name}");
    }
    let mut kept = before.clone();
    assert!(kept.remove("text_encoder/model.fp16.safetensors").is_some());
    support::assert_same_files(&kept, &after, "merged");

    // One of the text encoder alone, in half precision and whole.
    folder.model("pipeline_sd1", "small");
    with_form(&folder, "text_processors.safetensors", "text.safetensors");
    folder.done("merge --model small --adapter text.safetensors --out text --dtype bf16");
    let types = |name: &str| {
        let tensors = read_weight_file(folder.path(&format!("text/{name}"))).unwrap();
        tensors
            .iter()
            .all(|(_, tensor)| tensor.dtype() == Dtype::BF16)
    };
    assert!(types(TEXT) && types(UNET));
    folder.refused(
        "merge --model small --adapter style.safetensors --out out",
        &["style.safetensors: the adapter changes", "another model's"],
    );
}

#[test]
fn kohyas_files_of_other_kinds_are_refused_by_name() {
    let folder = with_model();
    let tensor = |count: usize| {
        let shape = vec![count, 1];
        RawTensor::from_f32(&vec![0.5; count], shape, Dtype::F32).unwrap()
    };
    let model = Model::open(&folder.path("model")).unwrap();
    const LAYER: &str = "lora_unet_mid_block_attentions_0_proj_in";
    for (number, (end, expected)) in [
        ("dora_scale", "DoRA"),
        ("hada_w1_a", "LoHa"),
        ("lokr_w1", "LoKr"),
        ("lora_mid.weight", "Tucker"),
        (
            "lora_down.weight",
            "attentions_0_proj_in has one factor only",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("other{number}");
        let tensors = [
            (format!("{LAYER}.{end}"), tensor(4)),
            (format!("{LAYER}.alpha"), tensor(1)),
        ];
        model
            .folder
            .write_beside(&folder.path(&name), lora::FILE_NAME, &tensors)
            .unwrap();
        let file = format!("{name}/{}", lora::FILE_NAME);
        let command = format!("merge --model model --adapter {file} --out out");
        folder.refused(&command, &[&file, expected]);
    }
}

#[test]
fn a_kohya_file_of_a_run_merges_to_the_weights_that_diffusers_file_merges_to() {
    for pipeline in ["pipeline_sd1", "pipeline_sdxl"] {
        let folder = Folder::new();
        folder.model(pipeline, "model");
        for row in 0..6 {
            folder.write(&format!("photos/{row}.png"), png(noise(row, 64 * 64)));
        }
        const RUN: &str = "unlearn --model model --data photos --forget row:0 --prompt toast --neighbors 3 --batch-size 1 \
                           --lr 0.01 --train lora --rank 2 --steps 2 --no-report";
        for (format, more) in [
            ("plain", ""),
            ("diffusers", "--lora-format diffusers"),
            ("kohya", "--lora-format kohya"),
        ] {
            folder.done(&format!("{RUN} {more} --out {format}"));
            folder.done(&format!("merge --model {format} --out merged-{format}"));
        }
        let file = |of: &str| folder.read(&format!("{of}/{}", lora::FILE_NAME));
        assert!(file("plain") == file("diffusers"));
        let merged = |of: &str| folder.read(&format!("merged-{of}/{UNET}"));
        assert!(
            merged("kohya") == merged("plain")
                && merged("plain") != folder.read(&format!("model/{UNET}"))
        );
        let tensors = read_weight_file(folder.path("kohya").join(lora::FILE_NAME)).unwrap();
        let original = pipeline == "pipeline_sdxl";
        for (key, tensor) in &tensors {
            assert!(key.starts_with("lora_unet_"), "{key}");
            assert_eq!(
                key.contains("_block_1_") || key.contains("put_blocks_"),
                original,
                "{key}"
            );
            if key.ends_with(".alpha") {
                assert_eq!(
                    (tensor.shape(), tensor.to_f32()),
                    (&[][..], vec![2.0]),
                    "{key}"
                );
            }
        }
        let of = |end: &str| tensors.iter().filter(|(key, _)| key.ends_with(end)).count();
        let counts = [of(".lora_down.weight"), of(".lora_up.weight"), of(".alpha")];
        assert_eq!(counts, [tensors.len() / 3; 3]);
        folder.refused(
            "unlearn --model model --data photos --forget row:0 --prompt toast --out out --lora-format kohya",
            &["--lora-format", "--train lora"],
        );
    }
}

#[test]
fn predict_says_that_a_folders_adapter_is_not_applied() {
    let folder = with_model();
    beside(&folder, "beside", 1.0);
    let opened = Model::open(&folder.path("model")).unwrap();
    let config = UNet2DConditionConfig::from_json(&opened.folder.config).unwrap();
    let (channels, width) = (config.in_channels, config.cross_attention_dim);
    let zeros = |shape: Vec<usize>| {
        let values = vec![0.0; shape.iter().product()];
        RawTensor::from_f32(&values, shape, Dtype::F32).unwrap()
    };
    let timestep = RawTensor::new(Dtype::I64, vec![1], 7i64.to_le_bytes().to_vec()).unwrap();
    let query = [
        ("sample".to_string(), zeros(vec![1, channels, 8, 8])),
        ("timestep".into(), timestep),
        ("encoder_hidden_states".into(), zeros(vec![1, 3, width])),
    ];
    opened
        .folder
        .write_beside(&folder.path("written"), "query.safetensors", &query)
        .unwrap();
    folder.write(
        "query.safetensors",
        folder.read("written/query.safetensors"),
    );
    for model in ["model", "beside"] {
        let said = folder.done(&format!(
            "predict --model {model} --input query.safetensors --output out-{model}.safetensors"
        ));
        let warned = said
            .stderr
            .contains("its adapter pytorch_lora_weights.safetensors is not applied");
        assert_eq!(warned, model == "beside", "{}", said.stderr);
    }
}

#[test]
fn inspect_names_files_of_weights_and_networks_of_other_classes() {
    let folder = with_model();
    beside(&folder, "beside", 1.0);
    folder.refused(
        &format!("inspect beside/{}", lora::FILE_NAME),
        &[
            "a file of weights; give the model's folder",
            "retrack merge",
        ],
    );
    folder.write(
        "other/transformer/config.json",
        r#"{"_class_name": "FluxTransformer2DModel"}"#,
    );
    folder.refused(
        "inspect other",
        &["other: a folder with a FluxTransformer2DModel (other/transformer), which is not read"],
    );
    folder.write("part/unet/config.json", "{}");
    folder.refused("inspect part", &["no model_index.json", "is in part/unet"]);
    folder.write("part/optimizer.bin", "");
    folder.refused(
        "inspect part",
        &["a training's checkpoint (optimizer.bin", "is in part/unet"],
    );
}
