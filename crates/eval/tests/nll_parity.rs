//! Likelihoods against PyTorch 2.15, diffusers 0.42.1 and scipy 1.17: `fixtures/parity/nll_*`, each made by the script
//! in its folder, with the network in f64.

#[path = "../../networks/tests/support/mod.rs"]
mod support;

use burn::module::Module;
use burn::tensor::Device;
use retrack_eval::nll::Likelihood;
use retrack_networks::config::UNet2DConfig;
use retrack_networks::parameters;
use retrack_networks::schedule::SchedulerConfig;
use retrack_networks::unet2d::UNet2DModel;
use support::{Case, formula};

/// In bits per dimension.
const TOLERANCE: f64 = 1e-3;

/// The case's network, whose last convolution is scaled.
fn network(case: &Case, device: &Device) -> UNet2DModel {
    let config = UNet2DConfig::from_json(&case.json("config.json")).unwrap();
    let scale = case.scalar("output_scale") as f32;
    let network = parameters::fill(config.init(device), |parameter| {
        let mut values = formula(&parameter.name, &parameter.shape);
        if parameter.name.starts_with("conv_out.") {
            values.iter_mut().for_each(|value| *value *= scale);
        }
        values
    });
    network.no_grad()
}

fn assert_agrees(name: &str) {
    let case = Case::read(name);
    let device = Device::flex().autodiff();
    let network = network(&case, &device);
    let scheduler = SchedulerConfig::from_json(&case.json("scheduler_config.json")).unwrap();
    let process = scheduler.process();
    let (shape, images) = case.images("image");
    let (_, probe) = case.images("probe");
    let likelihood = Likelihood {
        network: &network,
        process: &*process,
        device: &device,
        bytes: true,
    };
    let found = likelihood
        .bits_per_dim(&images, shape, None, &probe, &mut |_| ())
        .unwrap();
    let expected = case.doubles("bits_per_dim");
    let evaluations = case.scalar("evaluations");
    println!("{name}: {found:?}, expected {expected:?} after {evaluations}");
    assert_eq!(found.bits_per_dim.len(), expected.len());
    for (found, expected) in found.bits_per_dim.iter().zip(&expected) {
        assert!((found - expected).abs() <= TOLERANCE, "{found} {expected}");
    }
    // Rounding decides now and then whether a step is taken.
    let ratio = found.evaluations as f64 / evaluations;
    assert!((0.9..1.1).contains(&ratio), "{found:?}, not {evaluations}");
}

#[test]
fn the_likelihood_is_that_of_pytorch_and_scipy() {
    assert_agrees("nll_rgb8");
}

#[test]
fn a_network_that_predicts_velocity_has_the_likelihood_of_its_noise() {
    assert_agrees("nll_v_prediction");
}

#[test]
fn every_schedule_has_the_likelihood_of_its_own_betas() {
    for name in ["nll_scaled_linear", "nll_cosine", "nll_short"] {
        assert_agrees(name);
    }
}

#[test]
fn every_case_has_a_test() {
    let tested = [
        "nll_cosine",
        "nll_rgb8",
        "nll_scaled_linear",
        "nll_short",
        "nll_v_prediction",
    ];
    assert_eq!(support::cases("nll_"), tested);
}
