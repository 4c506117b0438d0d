//! Losses and gradients of the five methods against PyTorch 2.15 and diffusers 0.42.1: `fixtures/parity/gradient_*`,
//! each made by the script in its folder, in f64.

#[path = "../../networks/tests/support/mod.rs"]
mod support;

use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use retrack_networks::denoiser::{Denoiser, InputError};
use retrack_networks::gradients::GradientSet;
use retrack_networks::parameters::{self, Parameter, to_host};
use retrack_networks::process::{Process, Time};
use retrack_networks::random::Draw;
use retrack_networks::schedule::SchedulerConfig;
use retrack_networks::unet2d::UNet2DModel;
use retrack_unlearn::batch::{Batch, Candidates, Noised};
use retrack_unlearn::objective::{
    EraseDiff, Finetune, Losses, NegGrad, Objective, Pass, ReTrack, Siss, Sums,
};
use support::{Case, channel_last, unit};

/// Largest relative error of a loss, of the gradient's norm and of any parameter's gradient. PyTorch's own f32 is up
/// to 6e-6 away.
const TOLERANCE: f64 = 1e-4;

/// The same where the schedule is diffusers', whose f32 table has relative errors of up to 5e-4 in 1 - abar at the
/// first timesteps: noise that is derived from an image at t = 0 is off by half of that.
const TABLE_TOLERANCE: f64 = 1e-3;

macro_rules! gradients {
    ($($case:ident)*) => {
        mod losses_and_gradients_equal_those_of_pytorch {
            $(#[test]
            fn $case() {
                super::assert_agrees(concat!("gradient_", stringify!($case)));
            })*
        }

        #[test]
        fn every_case_has_a_test() {
            assert_eq!(support::cases("gradient_"), [$(concat!("gradient_", stringify!($case))),*]);
        }
    };
}

gradients! {
    flow
    grey28
    mnist_tshirt
    rgb16
    sample
    scale_shift
    v_prediction
}

fn assert_agrees(name: &str) {
    let case = Case::read(name);
    let device = Device::flex().autodiff();
    let network = case.network(&device);
    let batch = batch(&case);
    let config = SchedulerConfig::from_json(&case.json("scheduler_config.json")).unwrap();
    let mut schedules: Vec<(Arc<dyn Process>, &str, f64)> = Vec::new();
    if config.flow.is_some() {
        schedules.push((config.process(), "straight lines", TOLERANCE));
    } else {
        let (table, exact) = case.schedules();
        schedules.push((Arc::new(exact), "f64 schedule", TOLERANCE));
        // What the schedule's rounding does shows in a small network as well.
        if case.has("grad.finetune.conv_in.weight") {
            schedules.push((Arc::new(table), "diffusers' schedule", TABLE_TOLERANCE));
        }
    }
    let mut failures = Vec::new();
    for (method, objective) in objectives(&case) {
        // One image a pass, passes that cut a stream in two, all together.
        let ways = schedules
            .iter()
            .flat_map(|schedule| [1, 3, usize::MAX].map(|at_once| (schedule, at_once)));
        for ((schedule, what, tolerance), at_once) in ways {
            let passing = Passing {
                network: &network,
                at_once,
            };
            let (losses, gradient) = run(&*objective, &passing, &**schedule, &device, &batch);
            let errors = compare(&case, method, &network, &losses, &gradient);
            let far = |a: &&Compared, b: &&Compared| a.error.total_cmp(&b.error);
            let worst = errors.iter().max_by(far).unwrap();
            let run = format!("{name} {method} with {what}, at most {at_once} images a pass");
            println!("{run}: {worst}");
            let wrong = errors
                .iter()
                .filter(|e| e.error.is_nan() || e.error > *tolerance);
            failures.extend(wrong.map(|e| format!("{run}: {e}")));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// A network that takes so many images at once.
struct Passing<'a> {
    network: &'a UNet2DModel,
    at_once: usize,
}

impl Denoiser for Passing<'_> {
    fn predict(
        &self,
        x: Tensor<4>,
        times: &[Time],
        labels: Option<&[i64]>,
        dropout: Option<&mut Draw>,
    ) -> Result<Tensor<4>, InputError> {
        self.network.predict(x, times, labels, dropout)
    }

    fn gradients(&self, loss: Tensor<1>) -> GradientSet {
        self.network.gradients(loss)
    }

    fn at_once(&self, _: [usize; 2]) -> usize {
        self.at_once
    }
}

/// Each method's objective, with its name in the fixtures.
fn objectives(case: &Case) -> [(&'static str, Box<dyn Objective>); 5] {
    let option = |name: &str| case.scalar(&format!("option.{name}"));
    let retrack = ReTrack {
        lambda: option("retrack.lambda"),
        gate: None,
    };
    let erasediff = EraseDiff {
        eta: option("erasediff.eta"),
    };
    let siss = Siss {
        lambda: option("siss.lambda"),
        rescale: option("siss.rescale"),
    };
    [
        ("retrack", Box::new(retrack)),
        ("finetune", Box::new(Finetune)),
        ("neggrad", Box::new(NegGrad)),
        ("erasediff", Box::new(erasediff)),
        ("siss", Box::new(siss)),
    ]
}

fn batch(case: &Case) -> Batch<'static> {
    let noised = |stream: &str| {
        let (shape, clean) = case.images(stream);
        let timesteps = case.integers(&format!("{stream}_timestep")).into_iter();
        Some(Noised {
            shape,
            clean,
            noise: case.images(&format!("{stream}_noise")).1,
            timesteps: timesteps.map(|t| Time::new(t as f64)).collect(),
            labels: None,
        })
    };
    let [_, k, c, h, w] = case.shape("neighbors").try_into().unwrap();
    let neighbors = case.floats("neighbors");
    let mask = case.doubles("mixture_mask").into_iter();
    Batch {
        retain: noised("retain"),
        forget: noised("forget"),
        neighbors: Some(Candidates::Nearest(
            neighbors
                .chunks_exact(k * c * h * w)
                .map(|images| channel_last(images, c, h * w).into())
                .collect(),
        )),
        uniform: Some(case.images("uniform").1),
        mixture_mask: Some(mask.map(|retained| retained == 1.0).collect()),
        ..Batch::default()
    }
}

fn run(
    objective: &dyn Objective,
    network: &dyn Denoiser,
    process: &dyn Process,
    device: &Device,
    batch: &Batch,
) -> (Losses, GradientSet) {
    let pass = Pass {
        network,
        process,
        device,
        dropout: None,
    };
    let mut sums = Sums::default();
    let losses = objective.backward(&pass, batch, &mut sums).unwrap();
    (losses, objective.combine(sums.divide(1)).unwrap())
}

/// How far one number or gradient is from PyTorch's, relative to its own size.
struct Compared {
    what: String,
    error: f64,
}

impl std::fmt::Display for Compared {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{} is off by {:.1e}", self.what, self.error)
    }
}

fn compare(
    case: &Case,
    name: &str,
    network: &UNet2DModel,
    losses: &Losses,
    gradient: &GradientSet,
) -> Vec<Compared> {
    let total = case.scalar(&format!("gradient_norm.{name}"));
    let mut errors = Vec::new();
    let mut number = |what: &str, found: f64, expected: f64| {
        errors.push(Compared {
            what: what.into(),
            error: ((found - expected) / expected).abs(),
        });
    };
    number("loss", losses.loss, case.scalar(&format!("loss.{name}")));
    number("norm", gradient.norm(), total);
    let details = [
        (losses.correction, format!("detail.{name}.correction")),
        (losses.retain, format!("detail.{name}.retain_loss")),
        (losses.forget, format!("detail.{name}.forget_loss")),
    ];
    for (found, key) in details.iter().filter(|(_, key)| case.has(key)) {
        number(key, found.unwrap(), case.scalar(key));
    }
    assert_eq!(losses.correction.is_some(), case.has(&details[0].1));

    let trained: Vec<Parameter> = parameters::list(network)
        .into_iter()
        .filter(|parameter| parameter.trained)
        .collect();
    assert_eq!(gradient.0.len(), trained.len());
    let parts = trained.iter().zip(&gradient.0);
    let parts = parts.map(|(p, part)| (p.name.as_str(), p.export(to_host(part.clone()))));
    if case.has(&format!("grad_norm.{name}")) {
        errors.extend(compare_probes(case, name, total, parts));
    } else {
        let prefix = format!("grad.{name}.");
        let expected = case.keys().into_iter().filter(|k| k.starts_with(&prefix));
        assert_eq!(expected.count(), trained.len());
        errors.extend(parts.map(|(parameter, found)| {
            let expected = case.floats(&format!("{prefix}{parameter}"));
            assert_eq!(found.len(), expected.len());
            let difference: Vec<f32> = found.iter().zip(&expected).map(|(a, b)| a - b).collect();
            Compared {
                what: parameter.into(),
                error: norm(&difference) / scale(norm(&expected), total),
            }
        }));
    }
    errors
}

/// Compares each parameter's gradient by its norm and its product with a fixed vector.
fn compare_probes<'a>(
    case: &'a Case,
    method: &str,
    total: f64,
    parts: impl Iterator<Item = (&'a str, Vec<f32>)>,
) -> Vec<Compared> {
    let names = case.json("parameters.json");
    let names: Vec<&str> = names
        .as_array()
        .unwrap()
        .iter()
        .map(|name| name.as_str().unwrap())
        .collect();
    let norms = case.doubles(&format!("grad_norm.{method}"));
    let products = case.doubles(&format!("grad_dot.{method}"));
    let mut errors = Vec::new();
    for (parameter, found) in parts {
        let place = names.iter().position(|name| *name == parameter).unwrap();
        let probe = unit(&format!("probe.{parameter}"), found.len());
        let terms = found.iter().zip(&probe);
        let product: f64 = terms.map(|(&g, &u)| f64::from(g) * f64::from(u)).sum();
        let scale = scale(norms[place], total);
        let difference = (norm(&found) - norms[place])
            .abs()
            .max((product - products[place]).abs());
        errors.push(Compared {
            what: parameter.into(),
            error: difference / scale,
        });
    }
    assert_eq!(errors.len(), names.len());
    errors
}

fn norm(values: &[f32]) -> f64 {
    let squares = values.iter().map(|&v| f64::from(v) * f64::from(v));
    squares.sum::<f64>().sqrt()
}

/// What an error is compared with: the gradient of a `to_k.bias` is zero, that of others far above this share.
fn scale(norm: f64, total: f64) -> f64 {
    if norm < 1e-7 * total { total } else { norm }
}
