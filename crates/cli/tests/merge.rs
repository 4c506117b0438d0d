//! `retrack merge` on a tiny Stable Diffusion pipeline.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use retrack_networks::lora;
use retrack_networks::parameters;
use retrack_networks::random::{Random, Stream};
use retrack_networks::stable_diffusion::ConditionalModel;

fn pipeline() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/parity/pipeline_sd1/model")
}

fn retrack(arguments: &[&str]) -> Command {
    let mut command = Command::cargo_bin("retrack").unwrap();
    command.args(arguments);
    command
}

/// Every file below a folder.
fn content(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_path_buf();
                files.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    files
}

#[test]
fn an_adapter_beside_a_model_becomes_its_weights_and_nothing_else_changes() {
    let base = tempfile::tempdir().unwrap();
    let (beside, merged) = (base.path().join("beside"), base.path().join("merged"));
    let model = ConditionalModel::open(&pipeline()).unwrap();
    let network = model.network(&Device::flex()).unwrap();
    let network = lora::attach(network, 2, &Random::new(5));
    let mut number = 0;
    let network = parameters::map(network, |parameter, tensor| {
        if !parameter.name.ends_with(".lora.b") {
            return tensor;
        }
        number += 1;
        let [count] = tensor.dims();
        let values = Random::new(6).stream(Stream::Init, number).normal(count);
        Tensor::from_data(TensorData::new(values, [count]), &tensor.device())
    });
    let tensors = lora::export(&network).unwrap();
    let folder = &model.folder;
    folder
        .write_beside(&beside, lora::FILE_NAME, &tensors, false)
        .unwrap();
    let mut expected = content(&pipeline());
    let before = content(&beside);
    assert_eq!(before.len(), expected.len() + 1);
    assert!(expected.iter().all(|(name, bytes)| before[name] == *bytes));

    let (from, to) = (beside.to_str().unwrap(), merged.to_str().unwrap());
    retrack(&["merge", "--model", from, "--out", to])
        .assert()
        .code(0);
    let found = content(&merged);
    let unet = Path::new("unet/diffusion_pytorch_model.safetensors");
    assert_ne!(found[unet], expected.remove(unet).unwrap());
    assert_eq!(found.len(), expected.len() + 1);
    assert!(expected.iter().all(|(name, bytes)| found[name] == *bytes));

    let back = ConditionalModel::open(&merged).unwrap();
    let back = parameters::export(&back.network(&Device::flex()).unwrap());
    let folded = parameters::export(&network.materialize());
    for ((parameter, found), (_, expected)) in back.iter().zip(&folded) {
        let far = found.iter().zip(expected).map(|(f, e)| (f - e).abs());
        let far = far.fold(0.0, f32::max);
        assert!(far < 1e-5, "{}: {far}", parameter.name);
    }

    // The adapter is gone with the merge: there is nothing to merge again.
    let again = base.path().join("again");
    let output = retrack(&["merge", "--model", to, "--out", again.to_str().unwrap()]);
    let output = { output }.assert().code(2).get_output().clone();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains("pytorch_lora_weights.safetensors: no such file"),
        "{text}"
    );
    assert!(!again.exists());
}

#[test]
fn another_models_adapter_is_refused_with_the_layer() {
    let base = tempfile::tempdir().unwrap();
    let out = base.path().join("out");
    let parity = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/parity");
    let model = parity.join("folder_pipeline_safetensors/model");
    let adapter = parity.join("lora_sd1/scaled.safetensors");
    let output = retrack(&[
        "merge",
        "--model",
        model.to_str().unwrap(),
        "--adapter",
        adapter.to_str().unwrap(),
        "--out",
        out.to_str().unwrap(),
    ]);
    let output = { output }.assert().code(2).get_output().clone();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains("another model's") && text.contains("attn1"),
        "{text}"
    );
    assert!(!out.exists());
}
