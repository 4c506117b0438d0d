//! CLIP's text encoder against that of transformers on PyTorch 2.15: `fixtures/parity/text_*`, each made by the script
//! in its folder in f64 from weights that both sides compute.

mod support;

use burn::tensor::Device;
use retrack_networks::parameters::{self, to_host};
use retrack_networks::text::TextConfig;
use support::{Case, formula, worst};

/// Largest difference allowed, as a share of the text's largest expected magnitude.
const TOLERANCE: f32 = 1e-5;

fn assert_agrees(name: &str) {
    let case = Case::read(name);
    let config = TextConfig::from_json(&case.json("config.json")).unwrap();
    let network = parameters::fill(config.init(&Device::flex()), |parameter| {
        formula(&parameter.name, &parameter.shape)
    });
    let shape = case.shape("last_hidden_state");
    let ids = case.integers("input_ids");
    let texts: Vec<Vec<i64>> = ids.chunks_exact(shape[1]).map(<[i64]>::to_vec).collect();
    let found = network.forward(&texts).unwrap();
    assert_eq!(found.dims(), shape[..]);
    let far = worst(
        &to_host(found),
        &case.floats("last_hidden_state"),
        texts.len(),
    );
    println!("{name}: {:.1e}", far.error);
    assert!(far.error <= TOLERANCE, "{name}: {far:?}");
}

#[test]
fn hidden_states_with_quick_gelu_equal_those_of_transformers() {
    assert_agrees("text_quick_gelu");
}

#[test]
fn hidden_states_with_gelu_equal_those_of_transformers() {
    assert_agrees("text_gelu");
}

#[test]
fn every_case_has_a_test() {
    assert_eq!(support::cases("text_"), ["text_gelu", "text_quick_gelu"]);
}
