//! Adapters against those of PEFT as diffusers 0.42.1 uses and saves them: `fixtures/parity/lora_sd1`.

mod support;

use std::path::Path;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use retrack_checkpoint::folder::{ModelFolder, read_weight_file};
use retrack_networks::captioned::Captioned;
use retrack_networks::conditional::{UNet2DConditionConfig, UNet2DConditionModel};
use retrack_networks::denoiser::Denoiser;
use retrack_networks::lora::{self, AdapterFile, Adapters, Component, Layers};
use retrack_networks::parameters::{self, to_host};
use retrack_networks::process::Time;
use retrack_networks::random::Random;
use support::{Case, formula, root, worst};

const RANK: usize = 3;

/// What a file of the fixture adds to its network.
fn adapters(case: &Case, file: &Path) -> Adapters {
    let parameters = parameters::list(&base(case, &Device::flex())).into_iter();
    let parameters = parameters.map(|parameter| (parameter.name, parameter.shape));
    let layers = Layers::new(Component::Network, parameters);
    let file = AdapterFile::open(file).unwrap();
    let mut found = file.resolve(Path::new("model"), &[layers]).unwrap();
    found.remove(&Component::Network).unwrap()
}

fn base(case: &Case, device: &Device) -> UNet2DConditionModel {
    let config = UNet2DConditionConfig::from_json(&case.json("config.json")).unwrap();
    parameters::fill(config.init(device), |parameter| {
        formula(&parameter.name, &parameter.shape)
    })
}

/// The name of a parameter of ours in an adapter file.
fn key(name: &str) -> Option<String> {
    let (layer, factor) = name.split_once(".weight.lora.")?;
    Some(format!(
        "unet.{layer}.lora_{}.weight",
        factor.to_uppercase()
    ))
}

/// With the fixture's adapters.
fn adapted(case: &Case, device: &Device) -> UNet2DConditionModel {
    let network = lora::attach(base(case, device), RANK, &Random::new(0));
    parameters::fill(network, |parameter| {
        let name = key(&parameter.name).unwrap_or_else(|| parameter.name.clone());
        formula(&name, &parameter.shape)
    })
}

/// Each image has a text of its own.
const TEXTS: Option<&[i64]> = Some(&[0, 1]);

fn captioned(
    case: &Case,
    network: UNet2DConditionModel,
    device: &Device,
) -> Captioned<UNet2DConditionModel> {
    let states = states(case, device);
    Captioned::new(network, states.into())
}

fn states(case: &Case, device: &Device) -> Tensor<3> {
    let shape: [usize; 3] = case.shape("encoder_hidden_states").try_into().unwrap();
    let values = case.floats("encoder_hidden_states");
    Tensor::from_data(TensorData::new(values, shape), device)
}

fn predict(case: &Case, network: UNet2DConditionModel, device: &Device) -> Tensor<4> {
    let sample = case.image_tensor("sample", device);
    let captioned = captioned(case, network, device);
    captioned
        .predict(sample, &[10, 700].map(Time::timestep), TEXTS, None)
        .unwrap()
}

#[test]
fn an_adapted_network_predicts_what_pefts_does() {
    let case = Case::read("lora_sd1");
    let device = Device::flex();
    let (shape, expected) = case.images("prediction");
    let found = to_host(predict(&case, adapted(&case, &device), &device));
    let far = worst(&found, &expected, shape[0]);
    assert!(far.error < 1e-5, "{far:?}");
    // And without them another one.
    let found = to_host(predict(&case, base(&case, &device), &device));
    assert!(worst(&found, &expected, shape[0]).error > 0.05);
}

#[test]
fn adapters_are_written_as_diffusers_writes_them() {
    let case = Case::read("lora_sd1");
    let network = adapted(&case, &Device::flex());
    let mut found = lora::export(&network).unwrap();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    let file = root().join("lora_sd1").join(lora::FILE_NAME);
    let mut expected = read_weight_file(file).unwrap();
    expected.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(found.len(), 96);
    assert!(found == expected);
}

#[test]
fn merged_weights_are_those_that_diffusers_fuses() {
    let case = Case::read("lora_sd1");
    let open = |file: &str| adapters(&case, &root().join("lora_sd1").join(file));
    // With an alpha of twice the rank and one layer's own.
    let scaled = open("scaled.safetensors");
    assert_eq!(scaled.len(), 48);
    let fused = case.keys().into_iter();
    let fused: Vec<String> = fused.filter(|key| key.starts_with("fused.")).collect();
    assert_eq!(fused.len(), 48);
    for key in fused {
        let name = key.strip_prefix("fused.").unwrap();
        let values = formula(name, &case.shape(&key));
        let found = scaled.added_to(name, values.clone());
        let expected = case.floats(&key);
        let far = found.iter().zip(&expected).map(|(f, e)| (f - e).abs());
        let far = far.fold(0.0, f32::max);
        assert!(far < 1e-6, "{name}: {far}");
        assert_ne!(found, values, "{name}");
    }
    // Two names for the same, and what the network itself folds in.
    let (plain, renamed) = (open(lora::FILE_NAME), open("renamed.safetensors"));
    let folded = adapted(&case, &Device::flex()).materialize();
    let mut changed = 0;
    for (parameter, expected) in parameters::export(&folded) {
        let values = formula(&parameter.name, &parameter.shape);
        let found = plain.added_to(&parameter.name, values.clone());
        assert_eq!(found, renamed.added_to(&parameter.name, values.clone()));
        let far = found.iter().zip(&expected).map(|(f, e)| (f - e).abs());
        assert!(far.fold(0.0, f32::max) < 1e-6, "{}", parameter.name);
        changed += usize::from(found != values);
    }
    assert_eq!(changed, 48);
}

#[test]
fn new_adapters_change_nothing_and_are_all_that_is_trained() {
    let case = Case::read("lora_sd1");
    let device = Device::flex().autodiff();
    let network = lora::attach(base(&case, &device), RANK, &Random::new(7));
    let found = to_host(predict(&case, network.clone(), &device).inner());
    let expected = to_host(predict(&case, base(&case, &device), &device).inner());
    assert_eq!(found, expected);

    let trained = parameters::list(&network).into_iter();
    let trained: Vec<_> = trained.filter(|parameter| parameter.trained).collect();
    assert_eq!(trained.len(), 96);
    assert!(trained.iter().all(|p| p.name.contains(".weight.lora.")));
    let states = states(&case, &device);
    let captioned = captioned(&case, network, &device);
    let (mut whole, mut by_stages) = (None, None);
    let mut loss = |prediction: Tensor<4>| prediction.square().sum();
    let sample = || case.image_tensor("sample", &device);
    let timesteps = [10, 700].map(Time::timestep);
    captioned
        .backward(sample(), &timesteps, TEXTS, None, &mut loss, &mut whole)
        .unwrap();
    captioned
        .network
        .backward_by_stages(
            sample(),
            &[10.0, 700.0],
            states.into(),
            None,
            &mut loss,
            &mut by_stages,
        )
        .unwrap();
    let pairs = whole.unwrap().0.into_iter().zip(by_stages.unwrap().0);
    let mut reached = 0;
    for ((a, b), parameter) in pairs.zip(&trained) {
        let (a, b) = (to_host(a), to_host(b));
        let length = a.iter().map(|v| v * v).sum::<f32>().sqrt();
        let far = a.iter().zip(&b).map(|(a, b)| (a - b).powi(2)).sum::<f32>();
        assert!(far.sqrt() <= 1e-5 * length, "{}", parameter.name);
        // With B zero, the loss depends on B alone at first.
        assert_eq!(
            length > 0.0,
            parameter.name.ends_with(".b"),
            "{}",
            parameter.name
        );
        reached += usize::from(length > 0.0);
    }
    assert_eq!(reached, 48);
}

#[test]
fn adapters_merge_into_a_model_folder_and_lie_beside_one() {
    let device = Device::flex();
    let folder = ModelFolder::open(root().join("folder_pipeline_safetensors/model")).unwrap();
    let config = retrack_networks::config::UNet2DConfig::from_json(&folder.config).unwrap();
    let weights = folder.weights().unwrap();
    let network = parameters::fill(config.init(&device), |parameter| {
        let stored = weights.get(&parameter.name).unwrap().read().unwrap();
        stored.to_f32()
    });
    let network = parameters::fill(
        lora::attach(network, 2, &Random::new(1)),
        |parameter| match key(&parameter.name) {
            Some(key) => formula(&key, &parameter.shape),
            None => weights
                .get(&parameter.name)
                .unwrap()
                .read()
                .unwrap()
                .to_f32(),
        },
    );
    let base = tempfile::tempdir().unwrap();
    let (beside, merged) = (base.path().join("beside"), base.path().join("merged"));
    let tensors = lora::export(&network).unwrap();
    assert!(!tensors.is_empty());
    let written = folder
        .write_beside(&beside, lora::FILE_NAME, &tensors)
        .unwrap();
    assert_eq!(written.changed, [std::path::Path::new(lora::FILE_NAME)]);
    assert!(written.left_out.is_empty());

    let layers = [Layers::of(Component::Network, &weights)];
    let file = AdapterFile::open(&beside.join(lora::FILE_NAME)).unwrap();
    let adapters = file.resolve(folder.root(), &layers).unwrap();
    let mut changed = weights.clone();
    adapters[&Component::Network]
        .merge_into(&mut changed)
        .unwrap();
    folder.write_with(&merged, &changed).unwrap();
    let back = ModelFolder::open(&merged).unwrap().weights().unwrap();
    for (parameter, expected) in parameters::export(&network.materialize()) {
        let found = back.get(&parameter.name).unwrap().read().unwrap().to_f32();
        let far = found.iter().zip(&expected).map(|(f, e)| (f - e).abs());
        assert!(far.fold(0.0, f32::max) < 1e-6, "{}", parameter.name);
    }

    let other = AdapterFile::open(&root().join("lora_sd1/scaled.safetensors")).unwrap();
    let error = other.resolve(folder.root(), &layers).unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("scaled.safetensors") && error.contains("another model's"),
        "{error}"
    );
}

#[test]
fn what_is_no_adapter_of_a_unet_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let error = |tensors: &[(&str, Vec<usize>)]| {
        let path = folder.path().join("x.safetensors");
        let data = vec![0u8; 4096];
        let views = tensors.iter().map(|(name, shape)| {
            let len = 4 * shape.iter().product::<usize>();
            let view = safetensors::tensor::TensorView::new(
                safetensors::Dtype::F32,
                shape.clone(),
                &data[..len],
            );
            (*name, view.unwrap())
        });
        std::fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
        AdapterFile::open(&path).unwrap_err().to_string()
    };
    let text = error(&[("lora_unet_mid.lora_mid.weight", vec![1])]);
    assert!(
        text.contains("lora_unet_mid.lora_mid.weight is not supported: it is a third factor"),
        "{text}"
    );
    let text = error(&[("lora_unet_mid.alpha", vec![1])]);
    assert!(text.contains("mid has one factor only"), "{text}");
    let text = error(&[
        ("lora_unet_mid.alpha", vec![2]),
        ("lora_unet_mid.lora_down.weight", vec![2, 4]),
        ("lora_unet_mid.lora_up.weight", vec![4, 2]),
    ]);
    assert!(text.contains("the alpha of mid has shape [2]"), "{text}");
    let text = error(&[
        ("lora_unet_mid_block_a.alpha", vec![]),
        ("lora_unet_input_blocks_1_0_a.alpha", vec![]),
    ]);
    assert!(text.contains("keep the ones or the others"), "{text}");
    let text = error(&[
        ("unet.x.to_q.lora_A.weight", vec![2, 4]),
        ("unet.x.to_q.lora.down.weight", vec![2, 4]),
    ]);
    assert!(
        text.contains("is there under another name as well"),
        "{text}"
    );
    // Of which diffusers takes the second layer alone.
    let text = error(&[
        ("lora_te_text_model_a_q_proj.lora_down.weight", vec![2, 4]),
        ("lora_te_text_model_a_q_proj.lora_up.weight", vec![4, 2]),
        ("lora_te_text_model_a_fc1.lora_down.weight", vec![2, 4]),
        ("lora_te_text_model_a_fc1.lora_up.weight", vec![4, 2]),
    ]);
    assert!(
        text.contains("takes nothing of text_model_a_q_proj"),
        "{text}"
    );
    let text = error(&[
        ("text_encoder.a.to_q_lora.down.weight", vec![2, 4]),
        ("text_encoder.a.to_q_lora.up.weight", vec![4, 2]),
    ]);
    assert!(text.contains("takes nothing of a.q_proj"), "{text}");
    let text = error(&[("unet.x.to_q.lora_A.weight", vec![2, 4])]);
    assert!(text.contains("x.to_q has one factor only"), "{text}");
    let text = error(&[
        ("unet.x.to_q.lora_A.weight", vec![2, 4]),
        ("unet.x.to_q.lora_B.weight", vec![4, 3]),
    ]);
    assert!(text.contains("[2, 4] and [4, 3]"), "{text}");
}
