//! Whole text-to-image pipelines against diffusers 0.42.1: `fixtures/parity/pipeline_*`, each made by the script in its
//! folder, in f64 from the folder's weights.

mod support;

use std::cell::RefCell;

use burn::tensor::{Device, Tensor, TensorData};
use retrack_networks::captioned::Guided;
use retrack_networks::denoiser::{Denoiser, Embeddings};
use retrack_networks::diffusion::Diffusion;
use retrack_networks::parameters::to_host;
use retrack_networks::schedule::{Sampler, SchedulerKind};
use retrack_networks::stable_diffusion::StableDiffusion;
use support::{Case, channel_last, worst};

const PROMPT: &str = "A photo of the cat, on the beach";
const NEGATIVE: &str = "portrait of an old man";
/// Largest difference allowed, as a share of the largest expected magnitude.
const STATES: f32 = 1e-5;
const TRAJECTORY: f32 = 3e-5;
const IMAGES: f32 = 1e-4;

fn open(name: &str) -> StableDiffusion {
    StableDiffusion::open(&support::root().join(name).join("model")).unwrap()
}

fn assert_agrees(name: &str) {
    let case = Case::read(name);
    let device = Device::flex();
    let opened = open(name);
    let texts = opened.embed(&[Some(PROMPT), None], &device).unwrap();
    let states = texts.texts.states;
    assert_eq!(texts.cut, [None, None]);
    let ids = case.integers("input_ids");
    assert_eq!(opened.tokenizer().encode(PROMPT).unwrap().ids, ids[..77]);
    let far = worst(&to_host(states.clone()), &case.floats("states"), 2);
    println!("{name} states: {:.1e}", far.error);
    assert!(far.error <= STATES, "{name}: {far:?}");

    let network = opened.network(&device).unwrap();
    let autoencoder = opened.autoencoder(&device).unwrap();
    let negative = opened
        .embed(&[Some(NEGATIVE)], &device)
        .unwrap()
        .texts
        .states;
    let empty = states.clone().narrow(0, 1, 1);
    for (run, kind, guidance, negative) in [
        ("pndm", SchedulerKind::Pndm, 7.5, &empty),
        ("ddim", SchedulerKind::Ddim, 7.5, &empty),
        ("ddpm", SchedulerKind::Ddpm, 7.5, &empty),
        ("plain", SchedulerKind::Ddim, 1.0, &empty),
        ("negative", SchedulerKind::Pndm, 3.0, &negative),
    ] {
        let prompt = states.clone().narrow(0, 0, 1);
        let told = Embeddings::from(Tensor::cat(vec![prompt, negative.clone()], 0));
        let guided = Guided::new(&network, told, guidance);
        let sampler = Sampler::new(kind, &opened.model.scheduler, 6).unwrap();
        let mut walk = sampler.walk();
        let timesteps = walk.timesteps();
        let expected: Vec<i64> = timesteps.iter().map(|&t| t.value() as i64).collect();
        assert_eq!(
            expected,
            case.integers(&format!("{run}.timesteps")),
            "{name} {run}"
        );
        let noises = RefCell::new(draws(&case, "noise", &device).into_iter());
        let mut x = case.image_tensor("latents", &device);
        let trajectory = draws(&case, &format!("{run}.trajectory"), &device);
        assert_eq!(trajectory.len(), timesteps.len());
        for (&t, expected) in timesteps.iter().zip(trajectory) {
            let output = guided.predict(x.clone(), &[t, t], None, None).unwrap();
            x = walk.step(output, t, x, || noises.borrow_mut().next().unwrap());
            let far = worst(&to_host(x.clone()), &to_host(expected), 2);
            assert!(far.error <= TRAJECTORY, "{name} {run} at {t}: {far:?}");
        }
        let images = to_host(autoencoder.to_images(x).unwrap());
        let images: Vec<f32> = images
            .iter()
            .map(|v| (v / 2.0 + 0.5).clamp(0.0, 1.0))
            .collect();
        let (_, expected) = case.images(&format!("{run}.images"));
        let far = worst(&images, &expected, 2);
        println!("{name} {run}: {:.1e}", far.error);
        assert!(far.error <= IMAGES, "{name} {run}: {far:?}");
    }
}

/// A run of SDXL or Stable Diffusion 3: its name, the sampler in place of the folder's own, guidance, negative prompt.
type Run<'a> = (&'a str, Option<SchedulerKind>, f64, Option<&'a str>);

fn assert_folder_agrees(name: &str, runs: &[Run]) {
    const STEPS: usize = 4;
    println!("{name}");
    let case = Case::read(name);
    let device = Device::flex();
    let opened = open(name);
    let texts = opened.embed(&[Some(PROMPT), None], &device).unwrap().texts;
    let pooled = texts.pooled.clone().unwrap();
    for (found, keys) in [
        (to_host(texts.states), ["states", "negative_states"]),
        (to_host(pooled), ["pooled", "negative_pooled"]),
    ] {
        for (found, key) in found.chunks_exact(found.len() / 2).zip(keys) {
            let expected = case.floats(key);
            if expected.iter().all(|&value| value == 0.0) {
                assert_eq!(found, expected, "{name} {key}");
                continue;
            }
            let far = worst(found, &expected, 1);
            println!("{name} {key}: {:.1e}", far.error);
            assert!(far.error <= STATES, "{name} {key}: {far:?}");
        }
    }

    let network = opened.network(&device).unwrap();
    let autoencoder = opened.autoencoder(&device).unwrap();
    for &(run, other, guidance, negative) in runs {
        let told = opened.embed(&[Some(PROMPT), negative], &device).unwrap();
        let guided = Guided::new(&network, told.texts, guidance);
        let (kind, config) = opened.sampling(other);
        let sampler = Sampler::new(kind, config, STEPS).unwrap();
        let mut walk = sampler.walk();
        let timesteps = walk.timesteps();
        let found: Vec<f32> = timesteps.iter().map(|t| t.value() as f32).collect();
        let expected = case.floats(&format!("{run}.timesteps"));
        assert_eq!(found.len(), expected.len(), "{run}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(
                (found - expected).abs() <= 2e-4,
                "{run}: {found} is not {expected}"
            );
        }
        let noises = match case.has("noise") {
            true => draws(&case, "noise", &device),
            false => Vec::new(),
        };
        let noises = RefCell::new(noises.into_iter());
        let mut x = sampler.begin(case.image_tensor("latents", &device));
        for &t in &timesteps {
            let output = guided.predict(x.clone(), &[t, t], None, None).unwrap();
            x = walk.step(output, t, x, || noises.borrow_mut().next().unwrap());
        }
        let images = to_host(autoencoder.to_images(x).unwrap());
        let images: Vec<f32> = images
            .iter()
            .map(|v| (v / 2.0 + 0.5).clamp(0.0, 1.0))
            .collect();
        let (_, expected) = case.images(&format!("{run}.images"));
        let far = worst(&images, &expected, 2);
        println!("{name} {run}: {:.1e}", far.error);
        assert!(far.error <= IMAGES, "{name} {run}: {far:?}");
    }
}

#[test]
fn images_of_sdxl_equal_those_of_diffusers() {
    let ddim = Some(SchedulerKind::Ddim);
    assert_folder_agrees(
        "pipeline_sdxl",
        &[
            ("euler", None, 5.0, None),
            ("negative", None, 5.0, Some(NEGATIVE)),
            ("empty", None, 5.0, Some("")),
            ("ddim", ddim, 3.0, None),
            ("plain", None, 1.0, None),
        ],
    );
}

#[test]
fn images_of_a_turbo_version_of_sdxl_equal_those_of_diffusers() {
    assert_folder_agrees(
        "pipeline_sdxl_turbo",
        &[("turbo", None, 0.0, None), ("guided", None, 3.0, None)],
    );
}

#[test]
fn images_of_stable_diffusion_3_equal_those_of_diffusers() {
    assert_folder_agrees(
        "pipeline_sd3",
        &[
            ("own", None, 5.0, None),
            ("negative", None, 4.0, Some(NEGATIVE)),
            ("plain", None, 1.0, None),
        ],
    );
}

#[test]
fn images_of_stable_diffusion_3_without_t5_equal_those_of_diffusers() {
    assert_folder_agrees("pipeline_sd3_without_t5", &[("own", None, 5.0, None)]);
}

/// Each of `[S, N, C, H, W]`.
fn draws(case: &Case, key: &str, device: &Device) -> Vec<Tensor<4>> {
    let [steps, n, c, h, w] = case.shape(key).try_into().unwrap();
    let values = channel_last(&case.floats(key), c, h * w);
    let each = values.chunks_exact(values.len() / steps);
    each.map(|values| Tensor::from_data(TensorData::new(values.to_vec(), [n, h, w, c]), device))
        .collect()
}

#[test]
fn images_of_stable_diffusion_1_equal_those_of_diffusers() {
    assert_agrees("pipeline_sd1");
}

#[test]
fn images_of_stable_diffusion_2_equal_those_of_diffusers() {
    assert_agrees("pipeline_sd2");
}

#[test]
fn every_case_has_a_test() {
    assert_eq!(
        support::cases("pipeline_"),
        [
            "pipeline_sd1",
            "pipeline_sd2",
            "pipeline_sd3",
            "pipeline_sd3_without_t5",
            "pipeline_sdxl",
            "pipeline_sdxl_turbo"
        ]
    );
}
