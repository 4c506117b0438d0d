//! Schedules and samplers against diffusers 0.42.1 on torch 2.15: `fixtures/parity/schedule_*`, made by the script
//! in each folder. Images there are `[N, C, H, W]`; samplers do not care.

use burn::tensor::{Device, Tensor, TensorData};
use retrack_networks::process::Process;
use retrack_networks::schedule::{
    Ddim, NoiseSchedule, Prediction, Sampler, SchedulerConfig, SchedulerKind, SigmaSpacing, Walk,
};
use safetensors::SafeTensors;
use std::fs;
use std::path::{Path, PathBuf};

/// Largest difference allowed, as a share of the largest value of diffusers' tensor.
const TOLERANCE: f32 = 2e-6;

/// The same for a whole trajectory. Its network outputs are stored, so no output answers to a difference, and
/// rounding grows by up to `1 / sqrt(abar)` of the first step, 158 times for linear betas: diffusers in f32 is as far
/// as 4e-5 from itself in f64.
const TRAJECTORY_TOLERANCE: f32 = 4e-5;

#[test]
fn every_schedule_and_trajectory_equals_that_of_diffusers() {
    let mut folders: Vec<PathBuf> =
        fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/parity"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| {
                let name = path.file_name().unwrap().to_string_lossy();
                name.starts_with("schedule_") && path.join("case.safetensors").exists()
            })
            .collect();
    folders.sort();
    assert!(folders.len() >= 20, "only {} fixtures found", folders.len());

    let mut failures = Vec::new();
    for folder in &folders {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let differences = Case::read(folder).differences();
        println!("{name}: {differences:?}");
        for (what, difference, allowed) in differences {
            if difference.is_nan() || difference > allowed {
                failures.push(format!(
                    "{name}: {what} differs by {difference:.1e} of its scale"
                ));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn euler(kind: SchedulerKind) -> bool {
    [SchedulerKind::Euler, SchedulerKind::EulerAncestral].contains(&kind)
}

/// One folder of fixtures.
struct Case {
    config: SchedulerConfig,
    bytes: Vec<u8>,
}

impl Case {
    fn read(folder: &Path) -> Self {
        let config = fs::read(folder.join("scheduler_config.json")).unwrap();
        Self {
            config: SchedulerConfig::from_json(&serde_json::from_slice(&config).unwrap()).unwrap(),
            bytes: fs::read(folder.join("case.safetensors")).unwrap(),
        }
    }

    /// Each thing compared, how far it is from diffusers', and how far it may be. What must be equal is asserted.
    fn differences(&self) -> Vec<(&'static str, f32, f32)> {
        let schedule = NoiseSchedule::new(&self.config);
        let abar: Vec<f64> = self
            .floats("alphas_cumprod")
            .into_iter()
            .map(f64::from)
            .collect();
        // PyTorch's square root, used by the rescaling alone, is not always the nearest f32.
        let allowed = if self.config.rescale_betas_zero_snr {
            2.5e-7
        } else {
            0.0
        };
        assert_eq!(schedule.abar.len(), abar.len());
        for (timestep, (ours, theirs)) in schedule.abar.iter().zip(abar).enumerate() {
            assert!(
                (ours - theirs).abs() <= allowed,
                "abar of timestep {timestep}: {ours} is not {theirs}: {:?}",
                self.config
            );
        }

        let levels = self.integers("clean_timestep").into_iter();
        let levels: Vec<f64> = levels.map(|level| level as f64).collect();
        let levels = schedule.check(&levels).unwrap();
        let (clean, noise) = (self.images("clean", None), self.images("clean_noise", None));
        let velocity = NoiseSchedule {
            prediction: Prediction::VPrediction,
            ..schedule.clone()
        };
        let noisy = self.floats("noisy");
        let noisy_difference = difference(
            schedule.add_noise(clean.clone(), noise.clone(), &levels),
            &noisy,
        );
        let velocity_difference = difference(
            velocity.target_of_noise(clean, noise, &levels),
            &self.floats("velocity"),
        );
        let (step, trajectory) = self.sampling();
        // Euler's first step begins at 4,096 times the noise then, and ends a thousand times below: diffusers rounds as much.
        let step_tolerance = match euler(self.config.kind) && self.config.rescale_betas_zero_snr {
            true => TRAJECTORY_TOLERANCE,
            false => TOLERANCE,
        };
        vec![
            ("noisy", noisy_difference, TOLERANCE),
            ("velocity", velocity_difference, TOLERANCE),
            ("step", step, step_tolerance),
            ("trajectory", trajectory, TRAJECTORY_TOLERANCE),
        ]
    }

    /// With the stored outputs and noise, the largest difference of single steps that begin at diffusers' own sample,
    /// and of the whole walk from the stored start.
    fn sampling(&self) -> (f32, f32) {
        // Euler's may lie between two trained ones.
        let expected_timesteps: Vec<f64> = match euler(self.config.kind) {
            true => self
                .floats("timesteps")
                .into_iter()
                .map(f64::from)
                .collect(),
            false => self
                .integers("timesteps")
                .into_iter()
                .map(|t| t as f64)
                .collect(),
        };
        let steps = expected_timesteps.len();
        let sampler = match self.config.kind {
            SchedulerKind::Ddpm => Sampler::new(SchedulerKind::Ddpm, &self.config, steps).unwrap(),
            // The second timestep comes twice.
            SchedulerKind::Pndm => {
                Sampler::new(SchedulerKind::Pndm, &self.config, steps - 1).unwrap()
            }
            SchedulerKind::Ddim => {
                let eta =
                    self.tensor("eta", |bytes| f64::from_le_bytes(bytes.try_into().unwrap()))[0];
                Sampler::Ddim(
                    Ddim::new(&self.config, steps)
                        .unwrap()
                        .with_eta(eta)
                        .unwrap(),
                )
            }
            kind => Sampler::new(kind, &self.config, steps).unwrap(),
        };
        let timesteps: Vec<f64> = sampler.timesteps().iter().map(|t| t.value()).collect();
        assert_eq!(timesteps.len(), expected_timesteps.len());
        for (found, expected) in timesteps.iter().zip(&expected_timesteps) {
            // Those of sigmas that are spaced anew are interpolated between logarithms in f32.
            let allowed = match self.config.sigmas.spacing {
                SigmaSpacing::Timesteps => 0.0,
                _ => 1e-4 * expected.max(1.0),
            };
            assert!(
                (found - expected).abs() <= allowed,
                "{found} is not {expected}"
            );
        }

        // After which steps a sample is stored.
        let kept: Vec<usize> = self
            .integers("step")
            .into_iter()
            .map(|step| step as usize)
            .collect();
        let samples = self.floats("sample");
        let size = samples.len() / kept.len();
        let begin = || sampler.begin(self.images("start", None));
        let mut walked = begin();
        let (mut largest_step, mut largest_walk) = (0.0, 0.0);
        let mut single_steps = 0;
        let mut walk = sampler.walk();
        assert_eq!(walk.timesteps(), sampler.timesteps());
        for (step, timestep) in walk.timesteps().into_iter().enumerate() {
            let advance = |walk: &mut Walk, sample| {
                let output = self.images("model_output", Some(step));
                walk.step(output, timestep, sample, || {
                    self.images("noise", Some(step))
                })
            };
            walked = advance(&mut walk, walked);
            let Ok(index) = kept.binary_search(&step) else {
                continue;
            };
            let expected = &samples[index * size..][..size];
            largest_walk = larger(largest_walk, difference(walked.clone(), expected));
            // A step of PNDM needs those before it.
            let before = match index {
                _ if self.config.kind == SchedulerKind::Pndm => continue,
                0 if step == 0 => begin(),
                _ if index > 0 && kept[index - 1] + 1 == step => {
                    self.images("sample", Some(index - 1))
                }
                _ => continue,
            };
            single_steps += 1;
            largest_step = larger(
                largest_step,
                difference(advance(&mut walk, before), expected),
            );
        }
        let alone = self.config.kind != SchedulerKind::Pndm;
        assert!(!alone || single_steps == steps || kept.len() < steps);
        (largest_step, largest_walk)
    }

    fn tensor<T>(&self, key: &str, read: impl Fn(&[u8]) -> T) -> Vec<T> {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let view = file.tensor(key).unwrap();
        view.data()
            .chunks_exact(view.dtype().bitsize() / 8)
            .map(read)
            .collect()
    }

    fn floats(&self, key: &str) -> Vec<f32> {
        self.tensor(key, |bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
    }

    fn integers(&self, key: &str) -> Vec<i64> {
        self.tensor(key, |bytes| i64::from_le_bytes(bytes.try_into().unwrap()))
    }

    /// `[N, C, H, W]`, or one step of `[steps, N, C, H, W]`.
    fn images(&self, key: &str, step: Option<usize>) -> Tensor<4> {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let shape = file.tensor(key).unwrap().shape().to_vec();
        let image: [usize; 4] = shape[shape.len() - 4..].try_into().unwrap();
        let size = image.iter().product::<usize>();
        let from = step.unwrap_or(0) * size;
        let values = self.floats(key)[from..from + size].to_vec();
        Tensor::from_data(TensorData::new(values, image), &Device::default())
    }
}

#[test]
fn every_walk_of_flow_matching_equals_that_of_diffusers() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/parity");
    let mut seen = 0;
    for entry in fs::read_dir(fixtures).unwrap() {
        let folder = entry.unwrap().path();
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        if !name.starts_with("flow_") {
            continue;
        }
        let case = Case::read(&folder);
        let tokens = case.tensor("tokens", |bytes| {
            f64::from_le_bytes(bytes.try_into().unwrap())
        })[0];
        let config = case.config.clone().for_tokens(tokens as usize);
        let expected = case.floats("timesteps");
        let sampler = Sampler::new(config.kind, &config, expected.len()).unwrap();
        for (found, expected) in sampler.timesteps().iter().zip(&expected) {
            let far = (found.value() - f64::from(*expected)).abs();
            assert!(far <= 2e-4, "{name}: {found} is not {expected}");
        }
        let samples = case.floats("sample");
        let mut walk = sampler.walk();
        let mut x = sampler.begin(case.images("start", None));
        for (step, timestep) in walk.timesteps().into_iter().enumerate() {
            let output = case.images("model_output", Some(step));
            x = walk.step(output, timestep, x, || panic!("noise was drawn"));
            let size = samples.len() / expected.len();
            let far = difference(x.clone(), &samples[step * size..][..size]);
            assert!(far <= TOLERANCE, "{name}: step {step} is off by {far:e}");
        }
        seen += 1;
    }
    assert_eq!(seen, 7);
}

/// `scheduler_classes/classes.json`: every class of diffusers as it saves itself, made anew and from the scheduler of
/// Stable Diffusion, with its `alphas_cumprod` at some timesteps.
#[test]
fn every_scheduler_of_diffusers_is_read_with_its_betas_or_refused_by_name() {
    // Made from Stable Diffusion's, these keep its betas, which nothing else of theirs says.
    const WITHOUT_BETAS: [&str; 3] = [
        "EDMDPMSolverMultistepScheduler",
        "EDMEulerScheduler",
        "IPNDMScheduler",
    ];
    // Their levels are not those of their betas.
    const SHIFTED: [&str; 2] = ["CogVideoXDDIMScheduler", "CogVideoXDPMScheduler"];
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fixtures/parity/scheduler_classes/classes.json");
    let file = retrack_checkpoint::json::parse(&fs::read(path).unwrap()).unwrap();
    let timesteps: Vec<usize> = serde_json::from_value(file["timesteps"].clone()).unwrap();
    let stable_diffusion = &file["classes"]["PNDMScheduler"]["converted"]["abar"];
    let (mut read, mut refused) = (Vec::new(), Vec::new());
    for (name, ways) in file["classes"].as_object().unwrap() {
        for (way, saved) in ways.as_object().unwrap() {
            let Some(config) = saved.get("config") else {
                continue;
            };
            let kept = WITHOUT_BETAS.contains(&name.as_str()) && way == "converted";
            let abar = match kept {
                true => stable_diffusion,
                false => &saved["abar"],
            };
            let found = SchedulerConfig::from_json(config);
            if name == SchedulerKind::FlowMatchEuler.class_name() {
                // Without betas, and computed here.
                assert!(found.unwrap().flow.is_some());
                continue;
            }
            if abar.is_null() || SHIFTED.contains(&name.as_str()) {
                let error = found.expect_err(name).to_string();
                assert!(
                    error.contains(&format!("`_class_name`: \"{name}\" is not supported")),
                    "{error}"
                );
                assert!(!error.contains("not known here"), "{error}");
                refused.push(name.clone());
                continue;
            }
            let found = found.unwrap_or_else(|error| panic!("{name}: {error}"));
            let built = found.kind.class_name() == name;
            assert_eq!(found.foreign, (!built).then_some(name.as_str()));
            let levels = NoiseSchedule::new(&found).abar;
            for (&timestep, expected) in timesteps.iter().zip(abar.as_array().unwrap()) {
                let expected = expected.as_f64().unwrap();
                let far = (levels[timestep] - expected).abs() / expected;
                assert!(
                    far < 1e-5,
                    "{name}, {way}, {timestep}: {} and {expected}",
                    levels[timestep]
                );
            }
            read.push(name.clone());
        }
    }
    read.dedup();
    refused.dedup();
    assert_eq!(
        (read.len(), refused.len()),
        (26, 27),
        "{read:?} {refused:?}"
    );
}

/// The largest difference as a share of the largest expected value; not a number where any value is not.
fn difference(actual: Tensor<4>, expected: &[f32]) -> f32 {
    let actual: Vec<f32> = actual.into_data().try_to_vec().unwrap();
    assert_eq!(actual.len(), expected.len());
    let scale = expected
        .iter()
        .fold(0.0f32, |scale, value| scale.max(value.abs()));
    let differences = actual.iter().zip(expected).map(|(a, e)| (a - e).abs());
    differences.fold(0.0, larger) / scale
}

/// The larger of two, where not a number is larger than any.
fn larger(a: f32, b: f32) -> f32 {
    if a.is_nan() || a > b { a } else { b }
}
