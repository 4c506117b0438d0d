//! The same numbers on every device: `RETRACK_DEVICE=vulkan` (or cuda, metal) with a binary that has it.

mod support;

use std::path::Path;

use safetensors::SafeTensors;
use support::{Folder, parity};

fn device() -> String {
    std::env::var("RETRACK_DEVICE").unwrap_or_else(|_| "cpu".into())
}

fn numbers(file: &[u8], name: &str) -> Vec<f32> {
    let tensors = SafeTensors::deserialize(file).unwrap();
    let (words, _) = tensors.tensor(name).unwrap().data().as_chunks::<4>();
    words.iter().map(|word| f32::from_le_bytes(*word)).collect()
}

/// Length of the difference relative to the expected vector's.
fn apart(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let length = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let pairs = found.iter().zip(expected);
    let difference = length(&mut pairs.map(|(a, b)| f64::from(*a) - f64::from(*b)));
    difference / length(&mut expected.iter().map(|v| f64::from(*v)))
}

fn case(name: &str) -> String {
    let path = parity().join(name).join("case.safetensors");
    path.to_str().unwrap().to_string()
}

#[test]
fn the_prediction_is_that_of_diffusers() {
    let folder = Folder::with_model_and_photos();
    let case = case("folder_pipeline_safetensors");
    folder.done(&format!(
        "predict --model model --input {case} --output out.safetensors --device {}",
        device()
    ));
    let expected = std::fs::read(Path::new(&case)).unwrap();
    let expected = numbers(&expected, "prediction");
    let distance = apart(
        &numbers(&folder.read("out.safetensors"), "prediction"),
        &expected,
    );
    assert!(distance < 1e-4, "{distance}");
}

#[test]
fn loss_and_gradients_are_those_of_the_cpu() {
    let folder = Folder::with_model_and_photos();
    let case = case("gradient_grey28");
    let gradient = |device: &str| {
        folder.done(&format!(
            "gradient --model model --method retrack --lambda 0.3 --input {case} --output {device}.safetensors \
             --device {device}"
        ));
        folder.read(&format!("{device}.safetensors"))
    };
    let expected = gradient("cpu");
    let found = gradient(&device());
    let names = SafeTensors::deserialize(&expected).unwrap();
    let whole = |file: &[u8]| -> Vec<f32> {
        let names = names.names().into_iter();
        let names = names.filter(|name| *name != "loss");
        names.flat_map(|name| numbers(file, name)).collect()
    };
    let distance = apart(&whole(&found), &whole(&expected));
    assert!(distance < 1e-3, "{distance}");
    let loss = apart(&numbers(&found, "loss"), &numbers(&expected, "loss"));
    assert!(loss < 1e-4, "{loss}");
}
