//! `retrack predict` and `retrack gradient` against PyTorch 2.15 and diffusers 0.42.1 (`fixtures/parity`), on the
//! device that `RETRACK_DEVICE` names: `scripts/test-vulkan` sets it.

#[path = "../../networks/tests/support/mod.rs"]
mod fixtures;
mod support;

use burn::tensor::Device;
use fixtures::{Case, worst};
use retrack_networks::parameters;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use support::{Folder, files_below, parity};

/// Largest error of a prediction, on the scale of each image.
const PREDICTION: f32 = 1e-4;
/// Largest relative error of a loss and of any parameter's gradient.
const GRADIENT: f64 = 1e-3;

fn device() -> String {
    std::env::var("RETRACK_DEVICE").unwrap_or_else(|_| "cpu".into())
}

/// A folder with the case's `model`, weights by formula, and its numbers as `case.safetensors`.
fn folder_of(case: &Case) -> Folder {
    let folder = Folder::new();
    let made = parity().join(&case.name);
    let files = files_below(&made);
    folder.write("case.safetensors", &files["case.safetensors"]);
    folder.write("model/unet/config.json", &files["config.json"]);
    let scheduler = files.get("scheduler_config.json").cloned();
    let ddpm = br#"{"_class_name": "DDPMScheduler", "num_train_timesteps": 1000}"#.to_vec();
    folder.write(
        "model/scheduler/scheduler_config.json",
        scheduler.unwrap_or(ddpm),
    );
    folder.write(
        "model/model_index.json",
        r#"{"_class_name": "DDPMPipeline", "scheduler": ["diffusers", "DDPMScheduler"], "unet": ["diffusers", "UNet2DModel"]}"#,
    );
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> =
        parameters::list(&case.network(&Device::flex()))
            .into_iter()
            .map(|parameter| {
                let values = fixtures::formula(&parameter.name, &parameter.shape);
                let bytes = values.into_iter().flat_map(f32::to_le_bytes).collect();
                (parameter.name, parameter.shape, bytes)
            })
            .collect();
    let views = tensors.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes);
        (name.as_str(), view.unwrap())
    });
    folder.write(
        "model/unet/diffusion_pytorch_model.safetensors",
        safetensors::serialize(views, None).unwrap(),
    );
    folder
}

fn floats(tensors: &SafeTensors, key: &str) -> Vec<f32> {
    let view = tensors.tensor(key).unwrap();
    assert_eq!(view.dtype(), Dtype::F32);
    let (words, _) = view.data().as_chunks::<4>();
    words.iter().map(|word| f32::from_le_bytes(*word)).collect()
}

fn assert_predicts(folder: &Folder, case: &Case) {
    let line = "predict --model model --input case.safetensors --output out.safetensors --device";
    folder.done(&format!("{line} {}", device()));
    let content = folder.read("out.safetensors");
    let tensors = SafeTensors::deserialize(&content).unwrap();
    assert_eq!(tensors.names(), ["prediction"]);
    let shape = case.shape("prediction");
    assert_eq!(tensors.tensor("prediction").unwrap().shape(), shape);
    let found = floats(&tensors, "prediction");
    let worst = worst(&found, &case.floats("prediction"), shape[0]);
    println!("{}: {:.1e}", case.name, worst.error);
    assert!(worst.error < PREDICTION, "{}: {worst:?}", case.name);
}

#[test]
fn predictions_of_networks_of_all_kinds_equal_those_of_diffusers() {
    for name in [
        "attention_everywhere",
        "center_input",
        "class_table",
        "demo",
        "fourier_scale_shift_sqrt2",
        "groups_8_of_24",
        "head_dim_uneven",
        "no_mid_block",
        "out_channels_6",
        "padding_0",
        "rectangle",
        "scale_shift",
        "upsample_resnet",
    ] {
        let case = Case::read(&format!("predict_{name}"));
        assert_predicts(&folder_of(&case), &case);
    }
}

#[test]
fn predictions_of_saved_folders_equal_those_of_diffusers() {
    for name in fixtures::cases("folder_") {
        if name == "folder_f16_variant" {
            continue; // its only weights are a variant, which is refused
        }
        let case = Case::read(&name);
        let folder = Folder::new();
        folder.model(&name, "model");
        folder.write(
            "case.safetensors",
            &files_below(&parity().join(&name))["case.safetensors"],
        );
        assert_predicts(&folder, &case);
    }
}

#[test]
fn losses_and_gradients_of_all_methods_equal_those_of_pytorch() {
    for name in ["grey28", "rgb16", "sample", "scale_shift", "v_prediction"] {
        let case = Case::read(&format!("gradient_{name}"));
        let folder = folder_of(&case);
        for method in ["retrack", "finetune", "neggrad", "erasediff", "siss"] {
            assert_gradients(&folder, &case, method);
        }
    }
}

fn assert_gradients(folder: &Folder, case: &Case, method: &str) {
    let options: String = ["lambda", "eta", "rescale"]
        .into_iter()
        .filter(|option| case.has(&format!("option.{method}.{option}")))
        .map(|option| {
            let value = case.scalar(&format!("option.{method}.{option}"));
            format!(" --{option} {value}")
        })
        .collect();
    folder.done(&format!(
        "gradient --model model --method {method}{options} --input case.safetensors --output out.safetensors \
         --device {}",
        device()
    ));
    let content = folder.read("out.safetensors");
    let tensors = SafeTensors::deserialize(&content).unwrap();
    let what = format!("{} {method}", case.name);
    let loss = f64::from(floats(&tensors, "loss")[0]);
    let expected = case.scalar(&format!("loss.{method}"));
    assert!(
        (loss - expected).abs() < GRADIENT * expected.abs(),
        "{what}: {loss} for {expected}"
    );

    let total = case.scalar(&format!("gradient_norm.{method}"));
    let prefix = format!("grad.{method}.");
    let keys = case
        .keys()
        .into_iter()
        .filter(|key| key.starts_with(&prefix));
    let keys: Vec<String> = keys.collect();
    assert_eq!(tensors.names().len(), keys.len() + 1, "{what}");
    let mut worst = (0.0, "");
    for key in &keys {
        let name = &key[prefix.len()..];
        assert_eq!(
            tensors.tensor(name).unwrap().shape(),
            case.shape(key),
            "{what}: {name}"
        );
        let expected = case.floats(key);
        let found = floats(&tensors, name);
        let difference: Vec<f32> = found.iter().zip(&expected).map(|(a, b)| a - b).collect();
        // The gradient of a `to_k.bias` is zero but for rounding.
        let own = norm(&expected);
        let error = norm(&difference) / if own < 1e-7 * total { total } else { own };
        if error.is_nan() || error > worst.0 {
            worst = (error, name);
        }
    }
    println!("{what}: {} is off by {:.1e}", worst.1, worst.0);
    assert!(
        worst.0 < GRADIENT,
        "{what}: {} is off by {:.1e}",
        worst.1,
        worst.0
    );
}

fn norm(values: &[f32]) -> f64 {
    let squares = values.iter().map(|&v| f64::from(v) * f64::from(v));
    squares.sum::<f64>().sqrt()
}
