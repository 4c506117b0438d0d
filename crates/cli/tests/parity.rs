//! `retrack predict` and `retrack gradient` against PyTorch 2.15 and diffusers 0.42.1 (`fixtures/parity`), on the
//! device that `RETRACK_DEVICE` names: `scripts/test-vulkan` sets it.

#[path = "../../networks/tests/support/mod.rs"]
mod fixtures;
mod support;

use burn::tensor::Device;
use fixtures::{Case, worst};
use retrack_networks::family::PixelConfig;
use retrack_networks::parameters::{self, Parameter};
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
    write_weights(
        &folder,
        "model/unet/diffusion_pytorch_model.safetensors",
        parameters::list(&case.network(&Device::flex())),
    );
    folder
}

/// The same for a case of a conditional network, which lies alone.
fn conditional_folder_of(case: &Case) -> Folder {
    let folder = Folder::new();
    let files = files_below(&parity().join(&case.name));
    folder.write("case.safetensors", &files["case.safetensors"]);
    folder.write("model/config.json", &files["config.json"]);
    if let Some(scheduler) = files.get("scheduler_config.json") {
        folder.write("model/scheduler_config.json", scheduler);
    }
    let json = case.json("config.json");
    let class = json["_class_name"].as_str().unwrap();
    let config = PixelConfig::from_json(class, &json).unwrap();
    write_weights(
        &folder,
        "model/diffusion_pytorch_model.safetensors",
        parameters::list(&config.init(&Device::flex())),
    );
    folder
}

/// Weights by formula.
fn write_weights(folder: &Folder, path: &str, parameters: Vec<Parameter>) {
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = parameters
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
    folder.write(path, safetensors::serialize(views, None).unwrap());
}

fn floats(tensors: &SafeTensors, key: &str) -> Vec<f32> {
    let view = tensors.tensor(key).unwrap();
    assert_eq!(view.dtype(), Dtype::F32);
    let (words, _) = view.data().as_chunks::<4>();
    words.iter().map(|word| f32::from_le_bytes(*word)).collect()
}

fn assert_predicts(folder: &Folder, case: &Case) {
    let line =
        "predict --model model --force --input case.safetensors --output out.safetensors --device";
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
    for name in [
        "flow",
        "grey28",
        "rgb16",
        "sample",
        "scale_shift",
        "v_prediction",
    ] {
        let case = Case::read(&format!("gradient_{name}"));
        let folder = folder_of(&case);
        for method in ["retrack", "finetune", "neggrad", "erasediff", "siss"] {
            assert_gradients(&folder, &case, method);
        }
    }
}

#[test]
fn predictions_by_a_text_equal_those_of_diffusers() {
    for name in [
        "sd1",
        "sd2",
        "sd_options",
        "sdxl",
        "sdxl_odd",
        "sdxl_options",
        "sdxl_small",
        "sd3",
        "sd3_dual",
        "sd3_large",
        "sd3_one",
    ] {
        let case = Case::read(&format!("predict_{name}"));
        assert_predicts(&conditional_folder_of(&case), &case);
    }
}

#[test]
fn losses_and_gradients_by_a_text_for_each_image_equal_those_of_pytorch() {
    let cases = fixtures::cases("prompted_");
    assert_eq!(cases.len(), 10, "{cases:?}");
    for name in cases {
        let case = Case::read(&name);
        let folder = conditional_folder_of(&case);
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
        "gradient --model model --method {method}{options} --force --input case.safetensors --output out.safetensors \
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
    if case.has(&format!("grad_norm.{method}")) {
        return assert_probed(&tensors, case, method, total);
    }
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

/// Of a large network the norm of each gradient is stored, and its product with a fixed vector.
fn assert_probed(tensors: &SafeTensors, case: &Case, method: &str, total: f64) {
    let names = case.json("parameters.json");
    let names: Vec<String> = serde_json::from_value(names).unwrap();
    let norms = case.doubles(&format!("grad_norm.{method}"));
    let products = case.doubles(&format!("grad_dot.{method}"));
    assert_eq!(tensors.names().len(), names.len() + 1, "{method}");
    let mut worst = (0.0, "");
    for ((name, expected), product) in names.iter().zip(&norms).zip(&products) {
        let found = floats(tensors, name);
        let probe = fixtures::unit(&format!("probe.{name}"), found.len());
        let pairs = found.iter().zip(&probe);
        let dot: f64 = pairs.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
        // Where there is no gradient but for rounding, it is compared with all of them together.
        let scale = if *expected < 1e-7 * total {
            total
        } else {
            *expected
        };
        let errors = [
            (norm(&found) - expected).abs() / scale,
            (dot - product).abs() / (scale * norm(&probe)),
        ];
        for error in errors {
            if error.is_nan() || error > worst.0 {
                worst = (error, name);
            }
        }
    }
    println!(
        "{} {method}: {} is off by {:.1e}",
        case.name, worst.1, worst.0
    );
    assert!(worst.0 < GRADIENT, "{} {method}: {worst:?}", case.name);
}

fn norm(values: &[f32]) -> f64 {
    let squares = values.iter().map(|&v| f64::from(v) * f64::from(v));
    squares.sum::<f64>().sqrt()
}
