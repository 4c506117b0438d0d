//! The autoencoder against that of diffusers 0.42.1 on PyTorch 2.15: `fixtures/parity/vae_tiny`, made by the script in
//! its folder in f64 from weights that both sides compute.

mod support;

use burn::tensor::{Device, Tensor};
use retrack_checkpoint::folder::{Dtype, RawTensor};
use retrack_networks::parameters::{self, to_host};
use retrack_networks::vae::{AutoencoderConfig, AutoencoderKL};
use support::{Case, formula, worst};

/// Largest difference allowed, as a share of the image's largest expected magnitude.
const TOLERANCE: f32 = 1e-5;

fn config(case: &Case) -> AutoencoderConfig {
    let config = AutoencoderConfig::from_json(&case.json("config.json")).unwrap();
    assert!(config.unknown_keys.is_empty(), "{:?}", config.unknown_keys);
    config
}

fn network(case: &Case, device: &Device) -> AutoencoderKL {
    parameters::fill(config(case).init(device), |parameter| {
        formula(&parameter.name, &parameter.shape)
    })
}

fn assert_equal(case: &Case, key: &str, found: Tensor<4>) {
    let (shape, expected) = case.images(key);
    assert_eq!(found.dims(), shape, "{key}");
    let far = worst(&to_host(found), &expected, shape[0]);
    println!("{key}: {:.1e}", far.error);
    assert!(far.error <= TOLERANCE, "{key}: {far:?}");
}

#[test]
fn means_variances_and_samples_equal_those_of_diffusers() {
    let case = Case::read("vae_tiny");
    let device = Device::flex();
    let network = network(&case, &device);
    let sample = case.image_tensor("sample", &device);
    let encoded = network.encode(sample.clone()).unwrap();
    assert_equal(&case, "mean", encoded.mean.clone());
    assert_equal(&case, "log_variance", encoded.log_variance.clone());
    let noise = case.image_tensor("noise", &device);
    assert_equal(&case, "latent", encoded.sample(noise.clone()).unwrap());

    let scaled = network.to_latents(sample, noise).unwrap();
    assert_equal(&case, "latent", scaled / 0.18215);
}

#[test]
fn decoded_images_equal_those_of_diffusers() {
    let case = Case::read("vae_tiny");
    let device = Device::flex();
    let network = network(&case, &device);
    let z = case.image_tensor("z", &device);
    assert_equal(&case, "decoded", network.decode(z.clone()).unwrap());
    assert_equal(&case, "decoded", network.to_images(z * 0.18215).unwrap());
}

/// A checkpoint's tensors as old files name them.
fn old_checkpoint(case: &Case) -> Vec<(String, RawTensor)> {
    let parameters = parameters::list(&config(case).init(&Device::flex()));
    let tensors = parameters.into_iter().map(|parameter| {
        let old = [
            ("to_q", "query"),
            ("to_k", "key"),
            ("to_v", "value"),
            ("to_out.0", "proj_attn"),
        ];
        let values = formula(&parameter.name, &parameter.shape);
        let name = old.iter().fold(parameter.name, |name, (new, old)| {
            name.replace(&format!(".{new}."), &format!(".{old}."))
        });
        let bytes = values.into_iter().flat_map(f32::to_le_bytes).collect();
        let tensor = RawTensor::new(Dtype::F32, parameter.shape, bytes).unwrap();
        (name, tensor)
    });
    tensors.collect()
}

#[test]
fn a_checkpoint_with_the_old_names_of_attention_is_the_same_network() {
    let case = Case::read("vae_tiny");
    let device = Device::flex();
    let tensors = old_checkpoint(&case);
    let renamed = |name: &str| tensors.iter().any(|(key, _)| key == name);
    assert!(renamed("encoder.mid_block.attentions.0.query.weight"));
    assert!(renamed("decoder.mid_block.attentions.0.proj_attn.bias"));
    let network = parameters::load(config(&case).init(&device), tensors).unwrap();
    let z = case.image_tensor("z", &device);
    assert_equal(&case, "decoded", network.decode(z).unwrap());
}

#[test]
fn a_checkpoint_that_does_not_fit_is_refused_with_every_name() {
    let case = Case::read("vae_tiny");
    let device = Device::flex();
    let mut tensors = old_checkpoint(&case);
    let (name, tensor) = tensors.pop().unwrap();
    let (twice, again) = tensors[0].clone();
    tensors.push((twice.clone(), again));
    tensors.push(("other".into(), tensor));
    let mismatch = parameters::load(config(&case).init(&device), tensors).unwrap_err();
    assert_eq!(mismatch.missing, [name]);
    assert_eq!(mismatch.unexpected, ["other".to_string(), twice]);
    assert!(mismatch.misshapen.is_empty());
}
