//! Trains the digit classifier that scores MNIST samples, on the demo's digits, and measures it on digits that it
//! never saw.
//!
//!     cargo run --release --example train_digit_classifier [OUT.safetensors]
//!
//! Of each digit's 1,000 images every tenth is held out. The others are shown moved by up to two pixels.

use std::path::Path;

use burn::tensor::{Device, Int, Tensor, TensorData, activation::log_softmax};
use retrack_data::pixels::to_unit;
use retrack_data::{Dataset, OpenOptions};
use retrack_eval::digits::{DIGITS, DigitClassifier, SIDE};
use retrack_networks::gradients::GradientSet;
use retrack_networks::parameters;
use retrack_networks::random::{Random, Stream};
use retrack_unlearn::optimizer::{AdamW, AdamWConfig, LearningRate};

const BATCH: usize = 128;
const EPOCHS: usize = 16;
/// Pixels that an image is moved by at most.
const MOVE: i64 = 2;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let out = std::env::args().nth(1).map_or_else(
        || root.join("crates/eval/assets/digit-classifier.safetensors"),
        std::path::PathBuf::from,
    );
    let options = OpenOptions {
        channels: Some(1),
        ..OpenOptions::default()
    };
    let data = Dataset::open(&root.join("assets/digits.parquet"), &options)?;
    let digits = (0..data.len()).filter(|&row| matches!(data.label(row), Some(0..=9)));
    let (held_out, seen): (Vec<usize>, Vec<usize>) = digits.partition(|row| row % 10 == 9);

    let device = Device::flex();
    let tracked = device.clone().autodiff();
    let random = Random::new(0);
    let mut network = parameters::initialize(DigitClassifier::new(&tracked), &random);
    let mut optimizer = AdamW::new(AdamWConfig {
        betas: [0.9, 0.999],
        weight_decay: 1e-2,
        ..AdamWConfig::default()
    });
    let steps = EPOCHS * (seen.len() / BATCH);
    let rate = LearningRate::Cosine {
        rate: 3e-3,
        warmup: 50,
        steps,
        ended_at: 0,
    };
    let mut step = 0;
    for epoch in 0..EPOCHS {
        let order = random.permutation(Stream::RetainOrder, epoch as u64, seen.len());
        let mut sum = 0.0;
        for batch in order.chunks_exact(BATCH) {
            let mut moves = random.stream(Stream::RetainNoise, step as u64);
            let mut values = Vec::with_capacity(BATCH * SIDE * SIDE);
            let mut labels = Vec::with_capacity(BATCH);
            for &place in batch {
                let row = seen[place];
                let by = moves.integers(2, 2 * MOVE as usize + 1);
                values.extend(moved(
                    &read(&data, row)?,
                    by[0] as i64 - MOVE,
                    by[1] as i64 - MOVE,
                ));
                labels.push(data.label(row).expect("chosen by label"));
            }
            let x = TensorData::new(values, [BATCH, SIDE, SIDE, 1]);
            let (_, logits) = network.forward(Tensor::from_data(x, &tracked));
            let labels = Tensor::<1, Int>::from_ints(&labels[..], &tracked);
            let chosen = log_softmax(logits, 1).gather(1, labels.reshape([BATCH, 1]));
            let loss = chosen.sum().div_scalar(-(BATCH as f64));
            sum += loss.clone().into_scalar::<f32>();
            let gradients = GradientSet::of(&network, loss);
            let norm = gradients.norm();
            network = optimizer.step(network, gradients, norm, rate.at(step));
            step += 1;
        }
        println!(
            "epoch {:2}: loss {:.4}",
            epoch + 1,
            sum * BATCH as f32 / seen.len() as f32
        );
    }

    let network = DigitClassifier::read(&network.write(), &device)?;
    let mut right = 0;
    let mut by_digit = [0; DIGITS];
    for &row in &held_out {
        let label = data.label(row).expect("chosen by label") as usize;
        if network.digits(&read(&data, row)?, &device).labels()[0] == label {
            right += 1;
            by_digit[label] += 1;
        }
    }
    println!(
        "{right} of {} held-out digits right ({:.2}%), by digit {by_digit:?}; trained on {}",
        held_out.len(),
        100.0 * right as f64 / held_out.len() as f64,
        seen.len()
    );
    std::fs::write(&out, network.write())?;
    println!("{}", out.display());
    Ok(())
}

fn read(data: &Dataset, row: usize) -> Result<Vec<u8>, retrack_data::DataError> {
    let mut image = vec![0; SIDE * SIDE];
    data.read(row, &mut image)?;
    Ok(image)
}

/// The image `down` and `right` by some pixels, black where nothing comes in.
fn moved(image: &[u8], down: i64, right: i64) -> Vec<f32> {
    let side = SIDE as i64;
    let mut values = vec![-1.0; image.len()];
    for y in 0..side {
        for x in 0..side {
            let (from_y, from_x) = (y - down, x - right);
            if (0..side).contains(&from_y) && (0..side).contains(&from_x) {
                values[(y * side + x) as usize] = to_unit(image[(from_y * side + from_x) as usize]);
            }
        }
    }
    values
}
