//! Conditional networks against those of diffusers 0.42.1 on PyTorch 2.15: `fixtures/parity/predict_sd*`, SDXL's among them, each made by
//! the script in its folder in f64 from weights that both sides compute. Predictions, and the gradient of every parameter.

mod support;

use burn::tensor::{Device, Tensor, TensorData};
use retrack_networks::captioned::Captioned;
use retrack_networks::conditional::{UNet2DConditionConfig, UNet2DConditionModel};
use retrack_networks::denoiser::{Denoiser, Embeddings, Sizes};
use retrack_networks::gradients::GradientSet;
use retrack_networks::parameters::{self, to_host};
use retrack_networks::process::Time;
use retrack_networks::random::{Random, Stream};
use support::{Case, formula, unit, worst};

/// Largest difference of a prediction, as a share of the image's largest expected magnitude.
const TOLERANCE: f32 = 1e-5;
/// Largest relative error of the loss and of any parameter's gradient. PyTorch's own f32 is up to 5e-6 away.
const GRADIENT_TOLERANCE: f64 = 1e-4;

struct Forward {
    network: UNet2DConditionModel,
    prediction: Tensor<4>,
}

fn network(case: &Case, device: &Device) -> UNet2DConditionModel {
    let config = UNet2DConditionConfig::from_json(&case.json("config.json")).unwrap();
    assert!(config.unknown_keys.is_empty(), "{:?}", config.unknown_keys);
    parameters::fill(config.init(device), |parameter| {
        formula(&parameter.name, &parameter.shape)
    })
}

fn states(case: &Case, device: &Device) -> Tensor<3> {
    let shape: [usize; 3] = case.shape("encoder_hidden_states").try_into().unwrap();
    let values = case.floats("encoder_hidden_states");
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// The hidden states, and what else SDXL's networks are told.
fn texts(case: &Case, device: &Device) -> Embeddings {
    if !case.has("time_ids") {
        return states(case, device).into();
    }
    let shape: [usize; 2] = case.shape("text_embeds").try_into().unwrap();
    let pooled = TensorData::new(case.floats("text_embeds"), shape);
    let sizes = case.floats("time_ids");
    Embeddings {
        states: states(case, device),
        pooled: Some(Tensor::from_data(pooled, device)),
        sizes: Some(Sizes::Each(sizes.as_chunks::<6>().0.to_vec())),
    }
}

fn forward(case: &Case, device: &Device) -> Forward {
    let network = network(case, device);
    let timesteps: Vec<f32> = case
        .integers("timestep")
        .iter()
        .map(|&t| t as f32)
        .collect();
    let sample = case.image_tensor("sample", device);
    let prediction = network
        .forward(sample, &timesteps, texts(case, device), None)
        .unwrap();
    Forward {
        network,
        prediction,
    }
}

/// Euclidean norm.
fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|v| v * v).sum::<f64>().sqrt()
}

fn assert_agrees(name: &str) {
    let case = Case::read(name);
    let device = Device::flex().autodiff();
    let Forward {
        network,
        prediction,
    } = forward(&case, &device);

    let (shape, expected) = case.images("prediction");
    assert_eq!(prediction.dims(), shape);
    let far = worst(&to_host(prediction.clone().inner()), &expected, shape[0]);
    println!("{name}: prediction {:.1e}", far.error);
    assert!(far.error <= TOLERANCE, "{name}: {far:?}");

    let target = case.image_tensor("target", &device);
    let loss = (prediction - target).square().sum() / shape[0] as f64;
    let found = f64::from(to_host(loss.clone().inner())[0]);
    let expected = case.scalar("loss");
    assert!((found / expected - 1.0).abs() <= GRADIENT_TOLERANCE);

    let gradient = GradientSet::of(&network, loss);
    let listed = parameters::list(&network);
    assert!(listed.iter().all(|parameter| parameter.trained));
    assert_eq!(gradient.0.len(), listed.len());
    let stored = |prefix: &str| {
        let keys = case.keys().into_iter();
        keys.filter(|key| key.starts_with(prefix)).count()
    };
    let probes = stored("grad_norm.") > 0;
    let count = if probes {
        stored("grad_norm.")
    } else {
        stored("grad.")
    };
    assert_eq!(count, listed.len(), "every parameter has its numbers");

    let mut errors: Vec<(f64, &str)> = Vec::new();
    for (parameter, part) in listed.iter().zip(gradient.0) {
        let values: Vec<f64> = parameter
            .export(to_host(part))
            .into_iter()
            .map(f64::from)
            .collect();
        let name = parameter.name.as_str();
        let error = if probes {
            let expected = case.scalar(&format!("grad_norm.{name}"));
            let probe = unit(&format!("probe.{name}"), values.len());
            let products = values.iter().zip(&probe).map(|(v, p)| v * f64::from(*p));
            let dot = products.sum::<f64>() - case.scalar(&format!("grad_dot.{name}"));
            let far = norm(values.iter().copied()) - expected;
            // A vector's product with the probe is at most its norm times the probe's.
            let length = norm(probe.iter().map(|p| f64::from(*p)));
            (far / expected).abs().max(dot.abs() / (expected * length))
        } else {
            let expected = case.floats(&format!("grad.{name}"));
            assert_eq!(case.shape(&format!("grad.{name}")), parameter.shape);
            let pairs = values.iter().zip(&expected);
            let far = norm(pairs.map(|(v, e)| v - f64::from(*e)));
            far / norm(expected.iter().map(|e| f64::from(*e)))
        };
        errors.push((if error.is_nan() { f64::INFINITY } else { error }, name));
    }
    errors.sort_by(|a, b| b.0.total_cmp(&a.0));
    println!(
        "{name}: gradients of {} parameters, worst {:?}",
        errors.len(),
        &errors[..3]
    );
    assert!(
        errors[0].0 <= GRADIENT_TOLERANCE,
        "{name}: {:?}",
        &errors[..10]
    );
}

macro_rules! agree {
    ($($case:ident)*) => {
        mod predictions_and_gradients_equal_those_of_diffusers {
            $(#[test]
            fn $case() {
                super::assert_agrees(concat!("predict_", stringify!($case)));
            })*
        }

        #[test]
        fn every_case_has_a_test() {
            // Those of Stable Diffusion 3's transformer are tested through the command, in the program's own parity tests.
            let mut cases = support::cases("predict_sd");
            cases.retain(|name| !name.starts_with("predict_sd3"));
            assert_eq!(cases, [$(concat!("predict_", stringify!($case))),*]);
        }
    };
}

agree! {
    sd1
    sd2
    sd_odd
    sd_options
    sdxl
    sdxl_odd
    sdxl_options
    sdxl_small
}

/// The gradients of a loss with the forward pass in one graph and computed twice, stage by stage.
fn both_ways(case: &Case, dropout: f64) -> [Vec<Vec<f32>>; 2] {
    let device = Device::flex().autodiff();
    let mut json = case.json("config.json");
    json["dropout"] = dropout.into();
    let config = UNet2DConditionConfig::from_json(&json).unwrap();
    let network = parameters::fill(config.init(&device), |parameter| {
        formula(&parameter.name, &parameter.shape)
    });
    let timesteps: Vec<f32> = case
        .integers("timestep")
        .iter()
        .map(|&t| t as f32)
        .collect();
    let sample = || case.image_tensor("sample", &device);
    let mut loss = |prediction: Tensor<4>| {
        let target = case.image_tensor("target", &device);
        (prediction - target).square().sum()
    };
    let draw = || Random::new(3).stream(Stream::Dropout, 5);
    let prediction = network.forward(
        sample(),
        &timesteps,
        texts(case, &device),
        Some(&mut draw()),
    );
    let whole = GradientSet::of(&network, loss(prediction.unwrap()));
    // A sum that holds something already.
    let mut sum = Some(whole.clone());
    network
        .backward_by_stages(
            sample(),
            &timesteps,
            texts(case, &device),
            Some(&mut draw()),
            &mut loss,
            &mut sum,
        )
        .unwrap();
    let by_stages = sum.unwrap().add_scaled(whole.clone(), -1.0);
    [whole, by_stages].map(|set| set.0.into_iter().map(to_host).collect())
}

#[test]
fn gradients_by_stages_are_those_of_one_graph() {
    for (name, dropout) in [
        ("predict_sd1", 0.0),
        ("predict_sd2", 0.25),
        ("predict_sd_odd", 0.0),
        ("predict_sd_options", 0.0),
        ("predict_sdxl", 0.25),
    ] {
        let [whole, by_stages] = both_ways(&Case::read(name), dropout);
        assert_eq!(whole.len(), by_stages.len());
        let square = |values: &[f32]| -> f64 { values.iter().map(|v| f64::from(*v).powi(2)).sum() };
        let (mut worst, mut far, mut length) = (0f64, 0.0, 0.0);
        for (a, b) in whole.iter().zip(&by_stages) {
            let difference: Vec<f32> = a.iter().zip(b).map(|(a, b)| a - b).collect();
            worst = worst.max((square(&difference) / square(a)).sqrt());
            far += square(&difference);
            length += square(a);
        }
        let whole = (far / length).sqrt();
        println!("{name}: {whole:.1e} over all, {worst:.1e} at most");
        assert!(whole < 1e-6, "{name}: {whole:e}");
        // Of one parameter, as far as PyTorch's own f32 is away: sums of skips come in another order.
        assert!(worst < 2e-5, "{name}: {worst:e}");
    }
}

#[test]
fn one_text_serves_all_images() {
    let case = Case::read("predict_sd1");
    let device = Device::flex();
    let network = network(&case, &device);
    let sample = case.image_tensor("sample", &device);
    let shared = states(&case, &device).narrow(0, 1, 1);
    let each = network
        .forward(
            sample.clone(),
            &[3.0, 4.0, 5.0],
            shared.clone().repeat_dim(0, 3).into(),
            None,
        )
        .unwrap();
    let together = Captioned::new(network, shared.into())
        .predict(sample, &[3, 4, 5].map(Time::timestep), None, None)
        .unwrap();
    assert_eq!(to_host(together), to_host(each));
}
