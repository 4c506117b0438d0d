//! Frechet distance, Inception Score and Inception itself against torch-fidelity 0.4, torchmetrics 1.9 and scipy 1.17:
//! `fixtures/parity/{frechet_distance,inception_score,inception_random_weights}`.

#[path = "../../networks/tests/support/mod.rs"]
mod support;

use std::sync::OnceLock;

use burn::tensor::Device;
use retrack_eval::frechet::{FeatureStatistics, frechet_distance};
use retrack_eval::inception::{CLASSES, Description, FEATURES, Inception, InceptionError};
use retrack_eval::inception_score::InceptionScore;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use support::{Case, formula, worst};

fn close(found: f64, expected: f64, tolerance: f64) {
    let error = (found - expected).abs() / expected.abs();
    println!("{found} for {expected}: {error:.1e}");
    assert!(error < tolerance, "{found} for {expected}: {error:.1e}");
}

fn distance(a: &[f32], b: &[f32], dimensions: usize) -> f64 {
    let [a, b] = [a, b].map(|features| {
        let mut statistics = FeatureStatistics::new(dimensions);
        // In two batches.
        let cut = features.len() / dimensions / 3 * dimensions;
        statistics.add(&features[..cut]);
        statistics.add(&features[cut..]);
        statistics
    });
    let there = frechet_distance(&a, &b).unwrap();
    close(frechet_distance(&b, &a).unwrap(), there, 1e-9);
    there
}

#[test]
fn frechet_distances_equal_those_of_scipy_torch_fidelity_and_torchmetrics() {
    let case = Case::read("frechet_distance");
    for set in ["full", "one_deficient", "deficient"] {
        let of = |key: &str| case.floats(&format!("{set}.{key}"));
        let found = distance(&of("a"), &of("b"), 16);
        for other in ["scipy", "torch_fidelity", "torchmetrics"] {
            close(found, case.scalar(&format!("{set}.{other}")), 1e-6);
        }
        close(found, case.scalar(&format!("{set}.singular_values")), 1e-12);
    }
}

#[test]
fn inception_scores_equal_those_of_torch_fidelity() {
    let case = Case::read("inception_score");
    let logits = case.floats("logits");
    for splits in [1, 4, 10] {
        let found = InceptionScore::of_logits(&logits, 12, splits).unwrap();
        close(found.mean, case.scalar(&format!("mean.{splits}")), 1e-12);
        let sd = case.scalar(&format!("sd.{splits}"));
        assert!((found.sd - sd).abs() < 1e-12, "{} for {sd}", found.sd);
    }
}

/// The bytes of a key of element type U8.
fn bytes(case: &str, key: &str) -> ([usize; 3], Vec<u8>) {
    let path = support::root().join(case).join("case.safetensors");
    let file = std::fs::read(path).unwrap();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let view = tensors.tensor(key).unwrap();
    assert_eq!(view.dtype(), Dtype::U8);
    let shape = view.shape()[1..].try_into().unwrap();
    (shape, view.data().to_vec())
}

const CASE: &str = "inception_random_weights";

/// What the network with weights by formula says of the two sets of images.
fn described() -> &'static [Description; 2] {
    static DESCRIBED: OnceLock<[Description; 2]> = OnceLock::new();
    DESCRIBED.get_or_init(|| {
        let network =
            Inception::with_tensors(|name, shape| Ok(formula(name, shape)), &Device::flex());
        let network = network.unwrap();
        ["a", "b"].map(|set| {
            let (shape, images) = bytes(CASE, &format!("{set}.images"));
            let start = std::time::Instant::now();
            let description = network.describe(&images, shape).unwrap();
            println!("{set}: {:?}", start.elapsed());
            description
        })
    })
}

#[test]
fn features_and_logits_equal_those_of_torch_fidelity() {
    let case = Case::read(CASE);
    for (set, found) in ["a", "b"].into_iter().zip(described()) {
        for (key, found, len) in [
            ("features", &found.features, FEATURES),
            ("logits_unbiased", &found.logits, CLASSES),
        ] {
            let expected = case.floats(&format!("{set}.{key}"));
            let worst = worst(found, &expected, expected.len() / len);
            println!("{set}.{key}: {worst:?}");
            assert!(worst.error < 1e-4, "{set}.{key}: {worst:?}");
        }
    }
}

#[test]
fn the_frechet_distance_of_images_equals_that_of_torch_fidelity_and_torchmetrics() {
    let case = Case::read(CASE);
    let [a, b] = described();
    let found = distance(&a.features, &b.features, FEATURES);
    for other in ["torch_fidelity", "torchmetrics", "scipy", "singular_values"] {
        close(found, case.scalar(&format!("distance.{other}")), 1e-3);
    }
}

#[test]
fn weights_that_are_not_inceptions_are_listed_in_one_message() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    let zeros = vec![0; 32 * 3 * 9 * 4];
    let tensors = [
        ("Conv2d_1a_3x3.conv.weight", vec![32, 3, 3, 3]),
        ("Conv2d_1a_3x3.bn.weight", vec![16]),
        ("AuxLogits.conv0.conv.weight", vec![2, 2]),
    ];
    let views = tensors.map(|(name, shape)| {
        let len = shape.iter().product::<usize>() * 4;
        (
            name,
            TensorView::new(Dtype::F32, shape, &zeros[..len]).unwrap(),
        )
    });
    safetensors::serialize_to_file(views, None, &path).unwrap();
    let error = Inception::open(&path, &Device::flex()).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("weights.safetensors: not the Inception v3 of FID"));
    assert!(message.contains("Conv2d_1a_3x3.bn.weight is [16] instead of [32]"));
    assert!(message.contains("Conv2d_1a_3x3.bn.bias [32] is missing"));
    assert!(!message.contains("Conv2d_1a_3x3.conv.weight"), "{message}");
    let InceptionError::Weights { problems, .. } = error else {
        panic!("{message}");
    };
    // 94 convolutions of five tensors and the last layer, of which one is right.
    assert_eq!(problems.len(), 94 * 5 + 1 - 1);
}

#[test]
fn a_whole_file_of_weights_loads_and_gray_images_are_repeated_to_colour() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    let mut tensors = Vec::new();
    let collect = |name: &str, shape: &[usize]| {
        let values = formula(name, shape);
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        tensors.push((name.to_owned(), shape.to_vec(), bytes));
        Ok(values)
    };
    let device = Device::flex();
    let built = Inception::with_tensors(collect, &device).unwrap();
    let views = tensors.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes);
        (name.as_str(), view.unwrap())
    });
    safetensors::serialize_to_file(views, None, &path).unwrap();
    let opened = Inception::open(&path, &device).unwrap();
    let gray: Vec<u8> = (0..28 * 28).map(|i| (i * 7 % 256) as u8).collect();
    let colour: Vec<u8> = gray.iter().flat_map(|&v| [v; 3]).collect();
    let found = opened.describe(&gray, [28, 28, 1]).unwrap();
    assert_eq!(found, built.describe(&colour, [28, 28, 3]).unwrap());
    assert!(opened.describe(&gray, [28, 14, 2]).is_err());
    assert!(opened.describe(&gray[1..], [28, 28, 1]).is_err());
    assert_eq!(
        opened.describe(&[], [28, 28, 1]).unwrap(),
        Description::default()
    );
}

/// FID and Inception Score of what `scripts/quality_parity.py` makes, on request: minutes.
#[test]
#[ignore = "needs the folder of scripts/quality_parity.py in RETRACK_QUALITY"]
fn scores_of_2000_pictures_equal_those_of_torchmetrics() {
    let folder = std::path::PathBuf::from(std::env::var("RETRACK_QUALITY").unwrap());
    let network = Inception::open(folder.join("inception.pth"), &Device::flex()).unwrap();
    let file = std::fs::read(folder.join("expected.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let mut logits = Vec::new();
    let [a, b] = ["a", "b"].map(|set| {
        let view = tensors.tensor(set).unwrap();
        let [count, shape @ ..]: [usize; 4] = view.shape().try_into().unwrap();
        assert_eq!(view.dtype(), Dtype::U8);
        println!("{set}: {count} pictures");
        let found = network.describe(view.data(), shape).unwrap();
        logits.extend(found.logits);
        FeatureStatistics::of(FEATURES, &found.features)
    });
    let expected = |key| {
        let view = tensors.tensor(key).unwrap();
        f64::from_le_bytes(view.data().try_into().unwrap())
    };
    close(frechet_distance(&a, &b).unwrap(), expected("fid"), 1e-2);
    let score = InceptionScore::of_logits(&logits, CLASSES, 1).unwrap();
    close(score.mean, expected("inception_score"), 1e-2);
}
