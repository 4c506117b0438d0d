//! What a text-to-image model of full size takes: memory and time of loading it, of a prediction, of ReTrack's
//! steps, and of its autoencoder. Prints JSON lines; run it once for each part, so that the peak is its own.
//!
//!     cargo run --release --example full_size -- MODEL PART
//!
//! PART: `load`, `predict`, `step`, `whole-graph` (a step without recomputing), `lora`, `write`, `encode`,
//! `decode`.

use std::path::Path;
use std::time::Instant;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use retrack_networks::denoiser::Embeddings;
use retrack_networks::gradients::GradientSet;
use retrack_networks::lora;
use retrack_networks::network::Network;
use retrack_networks::process::Time;
use retrack_networks::random::{Random, Stream};
use retrack_networks::stable_diffusion::StableDiffusion;
use retrack_unlearn::optimizer::{AdamW, AdamWConfig};

/// As in the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// Standard normal numbers.
fn normal<const D: usize>(shape: [usize; D], index: u64, device: &Device) -> Tensor<D> {
    let mut draw = Random::new(0).stream(Stream::Init, index);
    let values = draw.normal(shape.iter().product());
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// Gigabytes (10^9) that the process holds and has held at most.
fn memory(name: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok());
    kibibytes.unwrap_or(f64::NAN) * 1024.0 / 1e9
}

fn report(part: &str, start: Instant) {
    println!(
        "{{\"part\":\"{part}\",\"seconds\":{:.2},\"gigabytes\":{:.3},\"peak_gigabytes\":{:.3}}}",
        start.elapsed().as_secs_f64(),
        memory("VmRSS:"),
        memory("VmHWM:")
    );
}

/// What a step does for one image: its loss, whose gradient joins `sum`.
fn pass(
    network: &Network,
    device: &Device,
    image: u64,
    whole: bool,
    sum: &mut Option<GradientSet>,
) {
    let sample = normal([1, 64, 64, 4], image, device);
    let target = normal([1, 64, 64, 4], image + 20, device);
    let times = [Time::timestep(500)];
    let mut loss = |prediction: Tensor<4>| (prediction - target.clone()).square().sum() * 0.5;
    if whole {
        let prediction = network.predict(sample, &times, None, None);
        let loss = loss(prediction.expect("it fits"));
        GradientSet::add_to(sum, network.gradients(loss));
    } else {
        let done = network.backward(sample, &times, None, None, &mut loss, sum);
        done.expect("it fits");
    }
}

/// Two steps of a forgotten and a retained image each, the second with all memory in place.
fn steps(part: &str, mut network: Network, device: &Device) {
    let mut optimizer = AdamW::new(AdamWConfig::default());
    for _ in 0..2 {
        let start = Instant::now();
        let mut sum = None;
        for image in 0..2 {
            let whole = part == "whole-graph";
            pass(&network, device, image, whole, &mut sum);
            report("one image", start);
        }
        let gradient = sum.expect("two passes");
        let norm = gradient.norm();
        network = optimizer.step(network, gradient, norm, 1e-5);
        report(part, start);
        println!("{{\"gradient_norm\":{norm}}}");
    }
}

fn main() {
    // SAFETY: an option that exists, set before there are other threads.
    #[expect(unsafe_code, reason = "the allocator is a C library")]
    unsafe {
        libmimalloc_sys::mi_option_set(PURGE_DELAY, -1)
    };
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, part] = arguments.as_slice() else {
        eprintln!("usage: full_size MODEL PART");
        std::process::exit(2);
    };
    let start = Instant::now();
    let model = StableDiffusion::open(Path::new(model)).expect("a pipeline's folder");
    report("open", start);
    let plain = Device::flex();
    let device = Device::flex().autodiff();
    let (_, width) = model.told.states;
    let load = |device: &Device| {
        let start = Instant::now();
        let mut network = model.model.network(device).expect("weights that fit");
        network.tell(Embeddings::from(normal([1, 77, width], 1, &plain)));
        report("load", start);
        network
    };
    match part.as_str() {
        "load" => drop(load(&plain)),
        "predict" => {
            let network = load(&plain).valid();
            for _ in 0..2 {
                let start = Instant::now();
                let sample = normal([1, 64, 64, 4], 0, &plain);
                let prediction = network.predict(sample, &[Time::timestep(500)], None, None);
                drop(prediction.expect("it fits"));
                report("predict", start);
            }
        }
        "step" | "whole-graph" => {
            steps(part, load(&device), &device);
        }
        "lora" => {
            let network = lora::attach(load(&device), 4, &Random::new(0));
            steps(part, network, &device);
        }
        "write" => {
            let network = load(&plain);
            let folder = tempfile::tempdir().expect("a temporary folder");
            let start = Instant::now();
            let out = folder.path().join("out");
            let written = model.model.write(&network, &out);
            drop(written.expect("room for it"));
            report("write", start);
        }
        "encode" | "decode" => {
            let vae = model.autoencoder(&plain).expect("weights that fit");
            report("load the autoencoder", start);
            let start = Instant::now();
            if part == "encode" {
                let image = normal([1, 512, 512, 3], 0, &plain);
                drop(vae.encode(image).expect("it fits"));
            } else {
                let latents = normal([1, 64, 64, 4], 0, &plain);
                drop(vae.decode(latents).expect("it fits"));
            }
            report(part, start);
        }
        other => {
            eprintln!("{other}: no such part");
            std::process::exit(2);
        }
    }
}
