//! Model folders, read and written as a user has them. The folders under `fixtures/parity/folder_*` were written by
//! diffusers 0.42.1 with torch 2.15.0 (the `make.py` beside each).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use retrack_checkpoint::folder::{
    Dtype, FolderError, Kind, ModelFolder, RawTensor, StoredTensor, Weights, sha256_file,
};
use serde_json::{Value, json};

fn fixture(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fixtures/parity")
        .join(case)
        .join("model")
}

/// Every fixture that loads, with its element type and the number of weight files.
const FIXTURES: [(&str, Dtype, usize); 8] = [
    ("folder_pipeline_safetensors", Dtype::F32, 1),
    ("folder_bare_unet", Dtype::F32, 1),
    ("folder_bf16", Dtype::BF16, 1),
    ("folder_f16_bin", Dtype::F16, 1),
    ("folder_old_names_bin", Dtype::F32, 1),
    ("folder_old_names_safetensors", Dtype::F32, 1),
    ("folder_sharded", Dtype::F32, 3),
    ("folder_sharded_bin", Dtype::F32, 3),
];

/// All files below a folder with their content.
fn content(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(current) = folders.pop() {
        for entry in fs::read_dir(&current).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.insert(
                    path.strip_prefix(folder).unwrap().to_path_buf(),
                    fs::read(&path).unwrap(),
                );
            }
        }
    }
    files
}

fn copy(from: &Path, to: &Path) {
    for (relative, bytes) in content(from) {
        let path = to.join(relative);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

/// A copy of a fixture in a fresh folder, to be damaged.
fn copy_of(case: &str) -> (tempfile::TempDir, PathBuf) {
    let base = tempfile::tempdir().unwrap();
    let model = base.path().join("model");
    copy(&fixture(case), &model);
    (base, model)
}

fn error_of(folder: &Path) -> FolderError {
    match ModelFolder::open(folder) {
        Err(error) => error,
        Ok(folder) => folder.weights().expect_err("the folder was read"),
    }
}

/// Every tensor with its values.
fn loaded(weights: &Weights) -> Vec<(String, RawTensor)> {
    let read = |(name, tensor): (&str, &StoredTensor)| {
        let tensor = tensor.read().unwrap().into_owned();
        (name.to_string(), tensor)
    };
    weights.iter().map(read).collect()
}

/// Doubles every weight: exact in every element type.
fn double(weights: &mut Weights) {
    let names: Vec<_> = weights.names().map(str::to_string).collect();
    for name in names {
        let values: Vec<_> = weights
            .get(&name)
            .unwrap()
            .read()
            .unwrap()
            .to_f32()
            .iter()
            .map(|value| value * 2.0)
            .collect();
        weights.set_f32(&name, &values).unwrap();
    }
}

#[test]
fn every_kind_of_folder_is_read_under_the_present_names() {
    for (case, dtype, files) in FIXTURES {
        let folder = ModelFolder::open(fixture(case)).unwrap();
        assert_eq!(folder.config["_class_name"], "UNet2DModel", "{case}");
        assert_eq!(folder.weight_files().len(), files, "{case}");
        match &folder.kind {
            Kind::Pipeline { class_name } => {
                assert_eq!(class_name, "DDPMPipeline", "{case}");
                let scheduler = folder.scheduler.as_ref().unwrap();
                assert!(scheduler["_class_name"].is_string(), "{case}");
            }
            Kind::Bare => assert!(folder.scheduler.is_none(), "{case}"),
        }
        let weights = folder.weights().unwrap();
        assert!(
            weights.iter().all(|(_, tensor)| tensor.dtype() == dtype),
            "{case}"
        );
        for name in [
            "conv_in.weight",
            "mid_block.attentions.0.to_q.weight",
            "mid_block.attentions.0.to_out.0.bias",
            "down_blocks.1.attentions.0.to_k.weight",
            "up_blocks.0.attentions.1.to_v.bias",
        ] {
            assert!(weights.get(name).is_some(), "{case}: {name}");
        }
        assert!(
            weights
                .names()
                .all(|name| !name.contains("query") && !name.contains("proj_attn")),
            "{case}"
        );
        let origin = weights
            .origin("mid_block.attentions.0.to_q.weight")
            .unwrap();
        let expected = if case.contains("old_names") {
            "mid_block.attentions.0.query.weight"
        } else {
            "mid_block.attentions.0.to_q.weight"
        };
        assert_eq!(origin.name, expected, "{case}");
        assert!(fixture(case).join(&origin.file).is_file(), "{case}");
    }
}

#[test]
fn an_unchanged_folder_is_written_byte_for_byte() {
    for (case, _, _) in FIXTURES {
        let (base, model) = copy_of(case);
        fs::create_dir_all(model.join("notes/deep")).unwrap();
        fs::write(model.join("notes/deep/read me.md"), "text").unwrap();
        fs::write(model.join(".gitattributes"), "").unwrap();
        let folder = ModelFolder::open(&model).unwrap();
        let weights = folder.weights().unwrap();
        let out = base.path().join("new/parent/out");
        let written = folder.write_with(&out, &weights).unwrap();
        assert!(content(&out) == content(&model), "{case}");
        assert!(
            written.changed.is_empty() && written.left_out.is_empty(),
            "{case}"
        );
        assert_eq!(written.copied.len(), content(&model).len(), "{case}");
    }
}

#[test]
fn a_changed_folder_differs_in_the_values_only() {
    for (case, _, files) in FIXTURES {
        let (base, model) = copy_of(case);
        let folder = ModelFolder::open(&model).unwrap();
        let mut weights = folder.weights().unwrap();
        double(&mut weights);
        let out = base.path().join("out");
        let written = folder.write_with(&out, &weights).unwrap();
        assert_eq!(written.changed.len(), files, "{case}");

        let (old, new) = (content(&model), content(&out));
        assert!(old.keys().eq(new.keys()), "{case}");
        for (file, bytes) in &old {
            let is_changed = written.changed.contains(file);
            assert_eq!(
                *bytes != new[file],
                is_changed,
                "{case}: {}",
                file.display()
            );
            assert_eq!(bytes.len(), new[file].len(), "{case}: {}", file.display());
        }
        let back = ModelFolder::open(&out).unwrap().weights().unwrap();
        assert!(back.names().eq(weights.names()), "{case}");
        for (name, tensor) in weights.iter() {
            let found = back.get(name).unwrap().read().unwrap();
            assert_eq!(found, tensor.read().unwrap(), "{case}: {name}");
            assert_eq!(back.origin(name), weights.origin(name), "{case}: {name}");
        }
        // Setting the old values again gives the old folder, in every byte.
        let folder = ModelFolder::open(&out).unwrap();
        let mut weights = folder.weights().unwrap();
        let original = ModelFolder::open(&model).unwrap().weights().unwrap();
        for (name, tensor) in original.iter() {
            weights
                .set_f32(name, &tensor.read().unwrap().to_f32())
                .unwrap();
        }
        let again = base.path().join("again");
        folder.write_with(&again, &weights).unwrap();
        assert!(content(&again) == old, "{case}");
    }
}

#[test]
fn only_the_shard_with_a_changed_tensor_is_written_anew() {
    let (base, model) = copy_of("folder_sharded");
    let folder = ModelFolder::open(&model).unwrap();
    let mut weights = folder.weights().unwrap();
    let count = weights.get("conv_in.bias").unwrap().count();
    weights.set_f32("conv_in.bias", &vec![0.25; count]).unwrap();
    let written = folder
        .write_with(&base.path().join("out"), &weights)
        .unwrap();
    assert_eq!(
        written.changed,
        [weights.origin("conv_in.bias").unwrap().file.clone()]
    );
}

#[test]
fn values_made_while_writing_are_those_that_were_set_before() {
    for case in ["folder_f16_bin", "folder_sharded"] {
        let folder = ModelFolder::open(fixture(case)).unwrap();
        let base = tempfile::tempdir().unwrap();
        let [now, later] = ["now", "later"].map(|name| base.path().join(name));
        let mut weights = folder.weights().unwrap();
        double(&mut weights);
        folder.write_with(&now, &weights).unwrap();
        let mut weights = folder.weights().unwrap();
        for (name, tensor) in loaded(&weights) {
            let values = move || Ok(tensor.to_f32().iter().map(|value| 2.0 * value).collect());
            weights.set_later(&name, values).unwrap();
        }
        folder.write_with(&later, &weights).unwrap();
        assert!(content(&now) == content(&later), "{case}");

        weights
            .set_later("conv_in.bias", || Ok(vec![f32::NAN]))
            .unwrap();
        let out = base.path().join("refused");
        let error = folder.write_with(&out, &weights).unwrap_err();
        assert!(error.to_string().contains("conv_in.bias"), "{error}");
        assert!(!out.exists());
    }
}

#[test]
fn a_file_cut_short_after_it_was_opened_is_an_error() {
    let (_base, model) = copy_of("folder_pipeline_safetensors");
    let folder = ModelFolder::open(&model).unwrap();
    let weights = folder.weights().unwrap();
    let path = &folder.weight_files()[0];
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    let errors = weights.iter().filter_map(|(_, tensor)| tensor.read().err());
    let error = errors.last().unwrap().to_string();
    assert!(error.contains("cannot read"), "{error}");
}

#[test]
fn a_new_folder_reads_back() {
    let given = ModelFolder::open(fixture("folder_pipeline_safetensors")).unwrap();
    let weights = given.weights().unwrap();
    let base = tempfile::tempdir().unwrap();
    let out = base.path().join("out");
    let scheduler = given.scheduler.clone().unwrap();
    ModelFolder::create(
        &out,
        "DDPMPipeline",
        &given.config,
        &scheduler,
        loaded(&weights).iter().map(|(name, t)| (name.as_str(), t)),
    )
    .unwrap();
    // diffusers wrote the fixture in the same way: the weights agree in every byte.
    let file = "unet/diffusion_pytorch_model.safetensors";
    assert_eq!(
        sha256_file(&out.join(file)).unwrap(),
        sha256_file(&fixture("folder_pipeline_safetensors").join(file)).unwrap()
    );
    let back = ModelFolder::open(&out).unwrap();
    assert_eq!(back.config, given.config);
    assert_eq!(back.scheduler, given.scheduler);
    assert_eq!(back.kind, given.kind);
    let index: Value =
        serde_json::from_slice(&fs::read(out.join("model_index.json")).unwrap()).unwrap();
    assert_eq!(
        index,
        json!({
            "_class_name": "DDPMPipeline",
            "_diffusers_version": "0.42.1",
            "scheduler": ["diffusers", "DDPMScheduler"],
            "unet": ["diffusers", "UNet2DModel"],
        })
    );
    // The files are like diffusers' own: sorted keys, two spaces.
    let index_text = fs::read_to_string(out.join("model_index.json")).unwrap();
    assert_eq!(
        index_text,
        fs::read_to_string(fixture("folder_pipeline_safetensors").join("model_index.json"))
            .unwrap()
    );

    let error = ModelFolder::create(
        &out,
        "DDPMPipeline",
        &given.config,
        &scheduler,
        loaded(&weights).iter().map(|(name, t)| (name.as_str(), t)),
    );
    assert!(matches!(error, Err(FolderError::OutputNotEmpty { .. })));
    assert_eq!(fs::read_dir(base.path()).unwrap().count(), 1);
}

#[test]
fn the_weights_are_chosen_as_diffusers_does() {
    let (_base, model) = copy_of("folder_sharded");
    let unet = model.join("unet");
    let single =
        fixture("folder_pipeline_safetensors").join("unet/diffusion_pytorch_model.safetensors");
    let chosen = || {
        let files = ModelFolder::open(&model).unwrap().weight_files();
        files
            .iter()
            .map(|file| file.file_name().unwrap().to_str().unwrap().to_string())
            .collect::<Vec<_>>()
    };
    fs::copy(&single, unet.join("diffusion_pytorch_model.safetensors")).unwrap();
    fs::copy(
        &single,
        unet.join("diffusion_pytorch_model.fp16.safetensors"),
    )
    .unwrap();
    let bin = fixture("folder_old_names_bin").join("unet/diffusion_pytorch_model.bin");
    fs::copy(bin, unet.join("diffusion_pytorch_model.bin")).unwrap();
    assert_eq!(chosen().len(), 3);
    fs::remove_file(unet.join("diffusion_pytorch_model.safetensors.index.json")).unwrap();
    assert_eq!(chosen(), ["diffusion_pytorch_model.safetensors"]);
    fs::remove_file(unet.join("diffusion_pytorch_model.safetensors")).unwrap();
    assert_eq!(chosen(), ["diffusion_pytorch_model.bin"]);
    fs::remove_file(unet.join("diffusion_pytorch_model.bin")).unwrap();
    assert!(matches!(error_of(&model), FolderError::OnlyVariant { .. }));
}

#[test]
fn other_forms_of_the_same_network_do_not_survive_a_change() {
    let (base, model) = copy_of("folder_pipeline_safetensors");
    let unet = model.join("unet");
    let main = unet.join("diffusion_pytorch_model.safetensors");
    fs::copy(&main, unet.join("diffusion_pytorch_model.fp16.safetensors")).unwrap();
    fs::copy(&main, unet.join("diffusion_pytorch_model.bin")).unwrap();
    fs::create_dir_all(model.join("unet_ema")).unwrap();
    fs::copy(
        &main,
        model.join("unet_ema/diffusion_pytorch_model.safetensors"),
    )
    .unwrap();
    for folder in [".git/objects", ".cache/huggingface/download"] {
        fs::create_dir_all(model.join(folder)).unwrap();
        fs::write(model.join(folder).join("x"), "x").unwrap();
    }
    let folder = ModelFolder::open(&model).unwrap();
    let mut weights = folder.weights().unwrap();
    let written = folder
        .write_with(&base.path().join("same"), &weights)
        .unwrap();
    assert_eq!(
        written.left_out,
        [Path::new(".git"), Path::new(".cache/huggingface")]
    );
    double(&mut weights);
    let out = base.path().join("out");
    let written = folder.write_with(&out, &weights).unwrap();
    let mut left_out = written.left_out.clone();
    left_out.sort();
    assert_eq!(
        left_out,
        [
            Path::new(".cache/huggingface"),
            Path::new(".git"),
            Path::new("unet/diffusion_pytorch_model.bin"),
            Path::new("unet/diffusion_pytorch_model.fp16.safetensors"),
        ]
    );
    assert!(left_out.iter().all(|path| !out.join(path).exists()));
    // Another network is copied, and named as weights that were not changed.
    let copied: Vec<_> = written.copied_weights().collect();
    assert_eq!(
        copied,
        [Path::new("unet_ema/diffusion_pytorch_model.safetensors")]
    );
}

#[test]
fn a_flat_pipeline_is_read_and_written() {
    // As google/ddpm-cifar10-32 lies on the Hub: everything beside model_index.json.
    let (base, model) = copy_of("folder_pipeline_safetensors");
    let flat = base.path().join("flat");
    fs::create_dir(&flat).unwrap();
    for file in [
        "model_index.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "scheduler/scheduler_config.json",
    ] {
        let name = Path::new(file).file_name().unwrap();
        fs::copy(model.join(file), flat.join(name)).unwrap();
    }
    let folder = ModelFolder::open(&flat).unwrap();
    assert_eq!(
        folder.scheduler.as_ref().unwrap()["_class_name"],
        "DDPMScheduler"
    );
    let mut weights = folder.weights().unwrap();
    double(&mut weights);
    let out = base.path().join("out");
    let written = folder.write_with(&out, &weights).unwrap();
    assert_eq!(
        written.changed,
        [Path::new("diffusion_pytorch_model.safetensors")]
    );
    assert!(content(&out).keys().eq(content(&flat).keys()));
}

#[test]
fn folders_that_are_no_model_are_refused_with_a_remedy() {
    let message = |folder: &Path| error_of(folder).to_string();
    let base = tempfile::tempdir().unwrap();
    let absent = message(&base.path().join("absent"));
    assert!(
        absent.contains("absent: no such folder") && absent.contains("hf download"),
        "{absent}"
    );
    let empty = message(base.path());
    assert!(
        empty.contains("config.json: no such file; give the folder that holds"),
        "{empty}"
    );
    fs::create_dir(base.path().join("unet")).unwrap();
    fs::write(base.path().join("unet/config.json"), "{}").unwrap();
    let pointed = message(base.path());
    let place = base.path().join("unet").display().to_string();
    for part in ["can be given as a model, is in", &place] {
        assert!(pointed.contains(part), "{pointed}");
    }
    let file = base.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(message(&file).contains("file: not a folder"));

    let (_base, model) = copy_of("folder_pipeline_safetensors");
    fs::write(model.join("unet/config.json"), "{\"_class_name\": ").unwrap();
    let broken = message(&model);
    assert!(
        broken.contains("unet/config.json: not valid JSON"),
        "{broken}"
    );
    fs::write(model.join("unet/config.json"), "[]").unwrap();
    assert!(message(&model).contains("unet/config.json: not a JSON object"));
    fs::write(
        model.join("unet/config.json"),
        r#"{"_class_name": "UNet3DConditionModel"}"#,
    )
    .unwrap();
    let other = message(&model);
    assert!(
        other.contains(
            r#"the class "UNet3DConditionModel" is not supported; supported here: UNet2DModel"#
        ),
        "{other}"
    );
    fs::write(
        model.join("unet/config.json"),
        r#"{"_class_name": "UNet2DConditionModel"}"#,
    )
    .unwrap();
    let other = message(&model);
    assert!(
        other.contains(
            r#"the pipeline "DDPMPipeline" around a UNet2DConditionModel is not supported; supported here: StableDiffusionPipeline"#
        ),
        "{other}"
    );
    fs::write(model.join("unet/config.json"), r#"{"_class_name": 3}"#).unwrap();
    assert!(message(&model).contains("`_class_name` is not a string"));
    fs::write(
        model.join("model_index.json"),
        r#"{"_class_name": "DiTPipeline", "transformer": ["diffusers", "X"]}"#,
    )
    .unwrap();
    let said = message(&model);
    assert!(
        said.contains(
            r#"the pipeline "DiTPipeline" with a transformer of the class "X" is not supported"#
        ),
        "{said}"
    );

    let (_base, model) = copy_of("folder_bare_unet");
    fs::write(model.join("config.json"), r#"{"model_type": "bert"}"#).unwrap();
    assert!(message(&model).contains("no `_class_name`; is this a model of diffusers?"));
    let (_base, model) = copy_of("folder_pipeline_safetensors");
    fs::remove_file(model.join("scheduler/scheduler_config.json")).unwrap();
    assert!(
        message(&model)
            .contains("scheduler_config.json: no such file; the model folder is incomplete")
    );
    let (_base, model) = copy_of("folder_pipeline_safetensors");
    fs::write(model.join("model_index.json"), " ".repeat(2 << 20)).unwrap();
    assert!(message(&model).contains("model_index.json: larger than 1048576 bytes"));
}

#[test]
fn failed_downloads_are_named_as_such() {
    let (_base, model) = copy_of("folder_pipeline_safetensors");
    let weights = model.join("unet/diffusion_pytorch_model.safetensors");
    let message = || error_of(&model).to_string();
    fs::write(
        &weights,
        "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n",
    )
    .unwrap();
    let pointer = message();
    assert!(
        pointer.contains("model.safetensors") && pointer.contains("run `git lfs pull`"),
        "{pointer}"
    );
    fs::write(&weights, "").unwrap();
    assert!(message().contains("model.safetensors: the file is empty"));
    fs::write(&weights, "\n<!DOCTYPE html><html>").unwrap();
    assert!(message().contains("a web page (HTML)"));
    fs::remove_file(&weights).unwrap();
    let none = message();
    assert!(
        none.contains("unet: no weights; expected one of diffusion_pytorch_model.safetensors"),
        "{none}"
    );
    fs::write(model.join("unet/diffusion_flax_model.msgpack"), "x").unwrap();
    assert!(message().contains("found diffusion_flax_model.msgpack, which cannot be read"));
    fs::create_dir(&weights).unwrap();
    assert!(message().contains("not a regular file"));
}

#[test]
fn a_variant_alone_is_refused_with_the_file_to_rename() {
    let error = error_of(&fixture("folder_f16_variant")).to_string();
    assert!(
        error.contains(
            "rename diffusion_pytorch_model.fp16.safetensors to diffusion_pytorch_model.safetensors"
        ),
        "{error}"
    );
}

#[test]
fn a_variant_in_shards_is_refused_with_the_index_to_rename_and_is_then_read() {
    let (_base, model) = copy_of("folder_sharded");
    let unet = model.join("unet");
    let index = unet.join("diffusion_pytorch_model.safetensors.index.json");
    let mut text = fs::read_to_string(&index).unwrap();
    for entry in fs::read_dir(&unet).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if let Some(number) = name.strip_prefix("diffusion_pytorch_model-") {
            let of_variant = format!("diffusion_pytorch_model.fp16-{number}");
            fs::rename(unet.join(&name), unet.join(&of_variant)).unwrap();
            text = text.replace(&name, &of_variant);
        }
    }
    fs::remove_file(&index).unwrap();
    let none = error_of(&model).to_string();
    assert!(
        none.contains("diffusion_pytorch_model.safetensors.index.fp16.json")
            && !none.contains("rename"),
        "{none}"
    );
    let of_variant = unet.join("diffusion_pytorch_model.safetensors.index.fp16.json");
    fs::write(&of_variant, text).unwrap();
    let message = error_of(&model).to_string();
    assert!(
        message.contains(
            "rename diffusion_pytorch_model.safetensors.index.fp16.json to \
             diffusion_pytorch_model.safetensors.index.json"
        ),
        "{message}"
    );
    fs::rename(&of_variant, &index).unwrap();
    ModelFolder::open(&model).unwrap().weights().unwrap();
}

#[test]
fn a_change_leaves_no_index_of_shards_that_it_left_out() {
    let (base, model) = copy_of("folder_pipeline_safetensors");
    let index = "unet/diffusion_pytorch_model.safetensors.index.fp16.json";
    let shard = "unet/diffusion_pytorch_model.fp16-00001-of-00001.safetensors";
    for (name, content) in [(index, "{}"), (shard, "x"), ("ema.pkl", "x")] {
        fs::write(model.join(name), content).unwrap();
    }
    let folder = ModelFolder::open(&model).unwrap();
    let mut weights = folder.weights().unwrap();
    double(&mut weights);
    let written = folder
        .write_with(&base.path().join("out"), &weights)
        .unwrap();
    let mut left_out = written.left_out.clone();
    left_out.sort();
    assert_eq!(left_out, [Path::new(shard), Path::new(index)]);
    let copied: Vec<_> = written.copied_weights().collect();
    assert_eq!(copied, [Path::new("ema.pkl")]);
}

#[test]
fn nan_and_infinity_are_refused_with_every_tensor_that_has_them() {
    let (_base, model) = copy_of("folder_bare_unet");
    let file = model.join("diffusion_pytorch_model.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    // The data begins with conv_in.bias; the last tensor is the last by name.
    bytes[8 + header..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NEG_INFINITY.to_le_bytes());
    fs::write(&file, bytes).unwrap();
    let error = error_of(&model);
    let FolderError::NonFinite { names, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(names.len(), 2);
    assert!(
        error
            .to_string()
            .contains("NaN or infinity in \"conv_in.bias\", \"up_blocks."),
        "{error}"
    );
}

#[test]
fn an_index_that_does_not_fit_its_shards_lists_every_difference() {
    let (_base, model) = copy_of("folder_sharded");
    let index = model.join("unet/diffusion_pytorch_model.safetensors.index.json");
    let original: Value = serde_json::from_slice(&fs::read(&index).unwrap()).unwrap();
    let problems = |value: &Value| {
        fs::write(&index, value.to_string()).unwrap();
        let error = error_of(&model);
        assert!(
            error
                .to_string()
                .contains("index.json: the index does not fit the files\n  - "),
            "{error}"
        );
        let FolderError::Index { problems, .. } = error else {
            panic!("{error}")
        };
        problems
    };
    let mut changed = original.clone();
    let map = changed["weight_map"].as_object_mut().unwrap();
    let first_shard = map["conv_in.weight"].clone();
    map.remove("conv_in.bias");
    map.insert("ghost".into(), first_shard.clone());
    let other = map
        .values()
        .find(|shard| **shard != first_shard)
        .unwrap()
        .clone();
    map.insert("conv_in.weight".into(), other);
    let found = problems(&changed);
    assert_eq!(found.len(), 4, "{found:?}");
    for expected in [
        "\"ghost\" is not in",
        "\"conv_in.weight\" is not in",
        "\"conv_in.bias\" is in",
        "\"conv_in.weight\" is in",
    ] {
        assert!(
            found.iter().any(|problem| problem.starts_with(expected)),
            "{expected}: {found:?}"
        );
    }

    for shard in [
        "../model.safetensors",
        "/etc/passwd",
        "absent.safetensors",
        "sub/x.safetensors",
        "..",
    ] {
        let mut changed = original.clone();
        changed["weight_map"]["conv_in.weight"] = shard.into();
        let found = problems(&changed);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains(shard), "{found:?}");
    }
    let found = problems(&json!({"metadata": {}, "weight_map": {}}));
    assert_eq!(found, ["it lists no tensors"]);
    fs::write(&index, r#"{"weight_map": {"a": "x", "a": "y"}}"#).unwrap();
    assert!(
        error_of(&model)
            .to_string()
            .contains("\"a\" is there twice")
    );
    fs::write(&index, r#"{"metadata": {}}"#).unwrap();
    assert!(
        error_of(&model)
            .to_string()
            .contains("missing field `weight_map`")
    );
}

#[cfg(unix)]
#[test]
fn links_out_of_the_folder_are_refused_when_read_and_when_copied() {
    use std::os::unix::fs::symlink;
    let (base, model) = copy_of("folder_sharded");
    let shard = model.join("unet/diffusion_pytorch_model-00002-of-00003.safetensors");
    let elsewhere = base.path().join("elsewhere");
    fs::rename(&shard, &elsewhere).unwrap();
    symlink(&elsewhere, &shard).unwrap();
    let error = error_of(&model).to_string();
    assert!(
        error.contains("00002-of-00003.safetensors: a link to") && error.contains("outside"),
        "{error}"
    );

    let (base, model) = copy_of("folder_bare_unet");
    fs::write(base.path().join("secret"), "secret").unwrap();
    symlink("../secret", model.join("README.md")).unwrap();
    let folder = ModelFolder::open(&model).unwrap();
    let weights = folder.weights().unwrap();
    let out = base.path().join("out");
    let error = folder.write_with(&out, &weights).unwrap_err();
    assert!(matches!(error, FolderError::LinkOutside { .. }), "{error}");
    assert_eq!(
        fs::read_dir(base.path()).unwrap().count(),
        2,
        "something is left of the output"
    );
    fs::remove_file(model.join("README.md")).unwrap();
    symlink(".", model.join("circle")).unwrap();
    let error = folder.write_with(&out, &weights).unwrap_err();
    assert!(
        error.to_string().contains("circle: not a regular file"),
        "{error}"
    );
}

#[cfg(unix)]
#[test]
fn a_snapshot_of_the_hub_cache_is_read_and_written_as_plain_files() {
    use std::os::unix::fs::symlink;
    let base = tempfile::tempdir().unwrap();
    let repository = base.path().join("models--owner--name");
    let snapshot = repository.join("snapshots/0123abc");
    fs::create_dir_all(repository.join("blobs")).unwrap();
    let case = fixture("folder_pipeline_safetensors");
    for (index, (file, bytes)) in content(&case).into_iter().enumerate() {
        let blob = repository.join("blobs").join(index.to_string());
        fs::write(&blob, bytes).unwrap();
        let link = snapshot.join(&file);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        let up = if file.components().count() == 1 {
            "../../blobs"
        } else {
            "../../../blobs"
        };
        symlink(Path::new(up).join(index.to_string()), link).unwrap();
    }
    let folder = ModelFolder::open(&snapshot).unwrap();
    let mut weights = folder.weights().unwrap();
    double(&mut weights);
    let out = base.path().join("out");
    folder.write_with(&out, &weights).unwrap();
    for file in content(&out).keys() {
        assert!(!fs::symlink_metadata(out.join(file)).unwrap().is_symlink());
    }
    assert!(
        content(&snapshot) == content(&case),
        "the cache was changed"
    );
    assert_eq!(
        fs::read(out.join("model_index.json")).unwrap(),
        fs::read(case.join("model_index.json")).unwrap()
    );
}

#[test]
fn the_output_may_not_touch_the_input_or_other_files() {
    let (base, model) = copy_of("folder_pipeline_safetensors");
    let before = content(base.path());
    let folder = ModelFolder::open(&model).unwrap();
    let weights = folder.weights().unwrap();
    let refused = |out: &Path| folder.write_with(out, &weights).unwrap_err();
    let unet = model.join("unet");
    assert!(matches!(refused(&model), FolderError::OutputIsInput { .. }));
    assert!(matches!(
        refused(&unet.join("..")),
        FolderError::OutputIsInput { .. }
    ));
    assert!(matches!(
        refused(&unet),
        FolderError::OutputInsideInput { .. }
    ));
    assert!(matches!(
        refused(&model.join("a/b")),
        FolderError::OutputInsideInput { .. }
    ));
    assert!(matches!(
        refused(base.path()),
        FolderError::OutputContainsInput { .. }
    ));
    #[cfg(unix)]
    {
        let link = base.path().join("link");
        std::os::unix::fs::symlink(&model, &link).unwrap();
        assert!(matches!(refused(&link), FolderError::OutputIsInput { .. }));
        assert!(matches!(
            refused(&link.join("x")),
            FolderError::OutputInsideInput { .. }
        ));
        fs::remove_file(link).unwrap();
    }
    let other = tempfile::tempdir().unwrap();
    fs::write(other.path().join("letter"), "dear").unwrap();
    assert!(matches!(
        refused(other.path()),
        FolderError::OutputNotEmpty { .. }
    ));
    assert!(content(base.path()) == before);
    // An empty folder is as good as none.
    let empty = tempfile::tempdir().unwrap();
    folder.write_with(empty.path(), &weights).unwrap();
    assert!(content(empty.path()) == content(&model));
    // A model folder is not.
    assert!(matches!(
        refused(empty.path()),
        FolderError::OutputNotEmpty { .. }
    ));
    assert!(content(empty.path()) == content(&model));
}

#[test]
fn weights_take_only_values_that_fit() {
    let folder = ModelFolder::open(fixture("folder_f16_bin")).unwrap();
    let mut weights = folder.weights().unwrap();
    let read = |weights: &Weights| {
        weights
            .get("conv_in.bias")
            .unwrap()
            .read()
            .unwrap()
            .into_owned()
    };
    let before = read(&weights);
    let count = before.count();
    let mut refused =
        |name: &str, values: &[f32]| weights.set_f32(name, values).unwrap_err().to_string();
    assert!(refused("conv_in.ghost", &[1.0]).contains("tensor \"conv_in.ghost\": no such tensor"));
    assert!(refused("conv_in.bias", &[1.0]).contains("needs 8 values, 1 given"));
    let large = refused("conv_in.bias", &vec![1e6; count]);
    assert!(
        large.contains(
            "model.bin: tensor \"conv_in.bias\": value 0 is 1000000, beyond what F16 can hold"
        ),
        "{large}"
    );
    assert!(refused("conv_in.bias", &vec![f32::NAN; count]).contains("not a finite number"));
    assert_eq!(read(&weights), before);
}

#[test]
fn weights_of_another_folder_are_refused() {
    let weights = ModelFolder::open(fixture("folder_bare_unet"))
        .unwrap()
        .weights()
        .unwrap();
    let folder = ModelFolder::open(fixture("folder_pipeline_safetensors")).unwrap();
    let base = tempfile::tempdir().unwrap();
    let error = folder
        .write_with(&base.path().join("out"), &weights)
        .unwrap_err();
    assert!(
        matches!(error, FolderError::ForeignWeights { .. }),
        "{error}"
    );
}

#[test]
fn a_file_that_changes_under_the_writer_leaves_no_output() {
    let (base, model) = copy_of("folder_bare_unet");
    let folder = ModelFolder::open(&model).unwrap();
    let mut weights = folder.weights().unwrap();
    double(&mut weights);
    fs::copy(
        fixture("folder_bf16").join("diffusion_pytorch_model.safetensors"),
        model.join("diffusion_pytorch_model.safetensors"),
    )
    .unwrap();
    let error = folder
        .write_with(&base.path().join("a/out"), &weights)
        .unwrap_err();
    assert!(matches!(error, FolderError::ChangedSince { .. }), "{error}");
    assert_eq!(fs::read_dir(base.path()).unwrap().count(), 1);
}

#[test]
fn one_parameter_under_two_names_is_refused() {
    let (base, _) = copy_of("folder_bare_unet");
    let model = base.path().join("made");
    let tensor = RawTensor::from_f32(&[1.0], vec![1], Dtype::F32).unwrap();
    let tensors = [
        ("mid_block.attentions.0.query.weight", &tensor),
        ("mid_block.attentions.0.to_q.weight", &tensor),
    ];
    let (unet, scheduler) = (
        json!({"_class_name": "UNet2DModel"}),
        json!({"_class_name": "DDPMScheduler"}),
    );
    ModelFolder::create(&model, "DDPMPipeline", &unet, &scheduler, tensors).unwrap();
    let error = error_of(&model).to_string();
    assert!(
        error.contains(
            "query.weight\" and \"mid_block.attentions.0.to_q.weight\" are the same parameter"
        ),
        "{error}"
    );
}

#[test]
#[ignore = "needs Python with torch and diffusers: set RETRACK_PYTHON to its interpreter"]
fn what_is_written_loads_in_diffusers() {
    let python = std::env::var_os("RETRACK_PYTHON").expect("RETRACK_PYTHON is not set");
    let base = tempfile::tempdir().unwrap();
    let mut pairs = Vec::new();
    for (case, _, _) in FIXTURES {
        let folder = ModelFolder::open(fixture(case)).unwrap();
        let mut weights = folder.weights().unwrap();
        double(&mut weights);
        let out = base.path().join(case);
        folder.write_with(&out, &weights).unwrap();
        pairs.extend([fixture(case), out]);
        if let (Some(scheduler), false) = (&folder.scheduler, case.contains("bin")) {
            let out = base.path().join(format!("{case}_created"));
            ModelFolder::create(
                &out,
                "DDPMPipeline",
                &folder.config,
                scheduler,
                loaded(&weights).iter().map(|(name, t)| (name.as_str(), t)),
            )
            .unwrap();
            pairs.extend([fixture(case), out]);
        }
    }
    let script =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../checkpoint/tests/files/load_written.py");
    let status = std::process::Command::new(python)
        .arg(script)
        .arg("2")
        .args(pairs)
        .status()
        .unwrap();
    assert!(status.success());
}

/// Puts `prefix` before every name of a safetensors file.
fn wrap(path: &Path, prefix: &str) {
    let content = fs::read(path).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&content).unwrap();
    let named: Vec<_> = tensors
        .tensors()
        .into_iter()
        .map(|(name, view)| (format!("{prefix}{name}"), view))
        .collect();
    let named = named
        .iter()
        .map(|(name, view)| (name.as_str(), view.clone()));
    fs::write(path, safetensors::serialize(named, None).unwrap()).unwrap();
}

/// The names in a safetensors file.
fn names_in(path: &Path) -> Vec<String> {
    let content = fs::read(path).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&content).unwrap();
    let mut names: Vec<String> = tensors.names().into_iter().map(str::to_string).collect();
    names.sort();
    names
}

#[test]
fn names_that_a_wrapper_changed_are_read_and_written_without_it() {
    const FILE: &str = "unet/diffusion_pytorch_model.safetensors";
    let plain = fixture("folder_pipeline_safetensors");
    let expected = loaded(&ModelFolder::open(&plain).unwrap().weights().unwrap());
    for prefix in [
        "module.",
        "_orig_mod.",
        "module._orig_mod.",
        "_orig_mod.module.",
    ] {
        let (base, model) = copy_of("folder_pipeline_safetensors");
        wrap(&model.join(FILE), prefix);
        let folder = ModelFolder::open(&model).unwrap();
        let mut weights = folder.weights().unwrap();
        assert_eq!(weights.wrapping(), prefix);
        let mut found = loaded(&weights);
        found.sort_by(|a, b| a.0.cmp(&b.0));
        let mut sorted = expected.clone();
        sorted.sort_by(|a, b| a.0.cmp(&b.0));
        assert!(found == sorted, "{prefix}");
        // With other values, with the same, and beside an adapter.
        let (same, doubled) = (base.path().join("same"), base.path().join("doubled"));
        folder.write_with(&same, &weights).unwrap();
        folder
            .write_beside(&base.path().join("beside"), "x.safetensors", &expected[..1])
            .unwrap();
        double(&mut weights);
        folder.write_with(&doubled, &weights).unwrap();
        for name in ["same", "doubled", "beside"] {
            let out = base.path().join(name);
            assert_eq!(
                names_in(&out.join(FILE)),
                names_in(&plain.join(FILE)),
                "{prefix} {name}"
            );
            let back = ModelFolder::open(&out).unwrap().weights().unwrap();
            assert_eq!(back.wrapping(), "");
            let factor = if name == "doubled" { 2.0 } else { 1.0 };
            for (name, tensor) in &expected {
                let values = back.get(name).unwrap().read().unwrap().to_f32();
                let wanted = tensor.to_f32().into_iter().map(|value| value * factor);
                assert!(values.into_iter().eq(wanted), "{name}");
            }
        }
    }
}

#[test]
fn wrapped_shards_are_all_written_anew_with_their_index() {
    let (base, model) = copy_of("folder_sharded");
    let shards = ModelFolder::open(&model).unwrap().weight_files();
    for shard in &shards {
        wrap(shard, "module.");
    }
    let index = shards[0].with_file_name("diffusion_pytorch_model.safetensors.index.json");
    let mut json: Value = serde_json::from_slice(&fs::read(&index).unwrap()).unwrap();
    let map = json["weight_map"].as_object().unwrap().clone();
    let wrapped = map
        .iter()
        .map(|(name, shard)| (format!("module.{name}"), shard.clone()));
    json["weight_map"] = Value::Object(wrapped.collect());
    fs::write(&index, json.to_string()).unwrap();
    let folder = ModelFolder::open(&model).unwrap();
    let mut weights = folder.weights().unwrap();
    let name = weights.names().next().unwrap().to_string();
    let count = weights.get(&name).unwrap().count();
    weights.set_f32(&name, &vec![1.0; count]).unwrap();
    let out = base.path().join("out");
    let written = folder.write_with(&out, &weights).unwrap();
    assert_eq!(written.changed.len(), shards.len() + 1);
    let back = ModelFolder::open(&out).unwrap().weights().unwrap();
    assert_eq!(back.wrapping(), "");
    assert_eq!(back.len(), map.len());
    assert_eq!(
        back.get(&name).unwrap().read().unwrap().to_f32(),
        vec![1.0; count]
    );
    let relative = index.strip_prefix(&model).unwrap();
    let json: Value = serde_json::from_slice(&fs::read(out.join(relative)).unwrap()).unwrap();
    assert_eq!(json["weight_map"].as_object().unwrap(), &map);
}

#[test]
fn a_wrapped_bin_becomes_a_safetensors_file() {
    let (base, model) = copy_of("folder_f16_bin");
    let bin = ModelFolder::open(&model).unwrap().weight_files().remove(0);
    let made = Path::new(env!("CARGO_MANIFEST_DIR")).join("../checkpoint/tests/files/wrapped.bin");
    fs::copy(made, &bin).unwrap();
    let folder = ModelFolder::open(&model).unwrap();
    let mut weights = folder.weights().unwrap();
    assert_eq!(weights.wrapping(), "module.");
    weights.set_f32("conv_in.bias", &[1.0, 2.0]).unwrap();
    let out = base.path().join("out");
    let written = folder.write_with(&out, &weights).unwrap();
    let new = bin.with_extension("safetensors");
    let (new, old): (&Path, &Path) = [&new, &bin]
        .map(|file| file.strip_prefix(&model).unwrap())
        .into();
    assert_eq!(written.changed, [new]);
    assert!(!out.join(old).exists());
    assert_eq!(names_in(&out.join(new)), ["conv_in.bias", "conv_in.weight"]);
    let back = ModelFolder::open(&out).unwrap().weights().unwrap();
    let values =
        |name: &str, weights: &Weights| weights.get(name).unwrap().read().unwrap().to_f32();
    assert_eq!(values("conv_in.bias", &back), [1.0, 2.0]);
    assert_eq!(
        values("conv_in.weight", &back),
        values("conv_in.weight", &weights)
    );
}
