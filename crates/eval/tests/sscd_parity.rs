//! SSCD against PyTorch, torchvision and ONNX Runtime: `fixtures/parity/sscd_tiny`, and the published network on request.

#[path = "../../networks/tests/support/mod.rs"]
mod support;

use std::path::{Path, PathBuf};

use retrack_eval::sscd::{Sscd, SscdError};
use safetensors::tensor::SafeTensors;
use support::{Case, unit};

const CASE: &str = "sscd_tiny";
const SHAPES: [(&str, [usize; 3]); 3] = [
    ("gray", [28, 28, 1]),
    ("rgb", [64, 48, 3]),
    ("both", [20, 600, 3]),
];

fn file(name: &str) -> PathBuf {
    support::root().join(CASE).join(name)
}

/// The image of the case with this name, which is made by formula and stored too.
fn image(name: &str, shape: [usize; 3]) -> Vec<u8> {
    let values = unit(&format!("sscd_tiny.{name}"), shape.iter().product());
    values.iter().map(|v| ((v + 1.0) * 128.0) as u8).collect()
}

#[test]
fn embeddings_equal_those_of_pytorch() {
    let case = Case::read(CASE);
    let stored = std::fs::read(file("case.safetensors")).unwrap();
    let stored = SafeTensors::deserialize(&stored).unwrap();
    for name in ["model.onnx", "bytes.onnx"] {
        let sscd = Sscd::open(file(name)).unwrap();
        for (set, shape) in SHAPES {
            let image = image(set, shape);
            let view = stored.tensor(&format!("{set}.image")).unwrap();
            assert!(view.data() == image, "{set}");
            let found = sscd.embed(&image, shape).unwrap();
            let expected = case.floats(&format!("{set}.embedding"));
            assert_eq!((found.len(), found[0].values().len()), (1, 24));
            let pairs = found[0].values().iter().zip(&expected);
            let worst = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            println!("{name} {set}: {worst:.1e}");
            assert!(worst < 1e-4, "{name} {set}: {worst:.1e}");
        }
    }
}

#[test]
fn similarities_come_in_the_order_of_the_images_with_their_mean() {
    let sscd = Sscd::open(file("model.onnx")).unwrap();
    let shape = [16, 12, 3];
    let [a, b] = ["a", "b"].map(|name| image(name, shape));
    let dark: Vec<u8> = a.iter().map(|v| v / 4).collect();
    let found = sscd
        .similarities(&a, &[&a[..], &b, &dark].concat(), shape)
        .unwrap();
    assert!((found.all[0] - 1.0).abs() < 1e-6, "{found:?}");
    assert!(found.all[1] < found.all[0] && found.all[2] < found.all[0]);
    let mean = found.all.iter().sum::<f64>() / 3.0;
    assert!((found.mean - mean).abs() < 1e-12);
    let [a, b] = [&a, &b].map(|image| sscd.embed(image, shape).unwrap().remove(0));
    assert_eq!(found.all[1], a.similarity(&b));
    assert!(
        sscd.similarities(&[], &dark, shape)
            .unwrap_err()
            .to_string()
            .contains("no whole images")
    );
    assert!(sscd.similarities(&dark, &[], shape).unwrap().all.is_empty());
    assert!(
        sscd.embed(&dark, [16, 18, 2])
            .unwrap_err()
            .to_string()
            .contains("2 channels")
    );
    assert!(sscd.embed(&dark[1..], shape).is_err());
}

/// The refusal of a file with this content, which must name the file and how to make a right one.
fn refused(folder: &Path, name: &str, content: &[u8]) -> SscdError {
    let path = folder.join(name);
    std::fs::write(&path, content).unwrap();
    let error = Sscd::open(&path).unwrap_err();
    let message = error.to_string();
    assert!(message.contains(name), "{message}");
    assert!(message.contains("torch.onnx.export("), "{message}");
    error
}

#[test]
fn what_is_no_onnx_network_is_refused_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let foreign = refused(folder, "notes.onnx", b"This is no network at all.");
    assert!(matches!(foreign, SscdError::Onnx { .. }), "{foreign}");
    let empty = refused(folder, "empty.onnx", b"");
    assert!(matches!(empty, SscdError::Onnx { .. }), "{empty}");
    let torch = refused(folder, "sscd_disc_mixup.torchscript.pt", b"PK\x03\x04....");
    assert!(matches!(torch, SscdError::PyTorch { .. }), "{torch}");
    let missing = Sscd::open(folder.join("nowhere.onnx")).unwrap_err();
    assert!(missing.to_string().contains("nowhere.onnx"), "{missing}");
    let rank = std::fs::read(file("flat.onnx")).unwrap();
    let rank = refused(folder, "flat.onnx", &rank);
    assert!(matches!(rank, SscdError::Input { .. }), "{rank}");
    assert!(rank.to_string().contains("instead of f32 [N, 3, 288, 288]"));
}

#[test]
fn a_truncated_file_is_refused_and_a_damaged_one_panics_nowhere() {
    let whole = std::fs::read(file("model.onnx")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sscd.onnx");
    for len in (0..whole.len() - 64).step_by(97) {
        let error = refused(folder.path(), "sscd.onnx", &whole[..len]);
        assert!(!error.to_string().contains("contradict"), "{len}: {error}");
    }
    for position in (0..whole.len()).step_by(101) {
        let mut damaged = whole.clone();
        damaged[position] ^= 0x55;
        std::fs::write(&path, damaged).unwrap();
        // Damaged weights are weights.
        if let Ok(sscd) = Sscd::open(&path) {
            let _ = sscd.embed(&[9; 64 * 3], [8, 8, 3]);
        }
    }
}

/// A published network on real pictures, on request:
/// `RETRACK_SSCD=sscd.onnx RETRACK_SSCD_PICTURES=folder RETRACK_SSCD_TOLERANCE=1e-5 cargo test -- --ignored --nocapture
/// published`. The folder holds PNG files of 320 x 320 RGB pixels, and beside each `NAME.png` ONNX Runtime's embedding of
/// it as `NAME.f32`.
#[test]
#[ignore = "needs a network in RETRACK_SSCD and pictures in RETRACK_SSCD_PICTURES"]
fn the_published_network_tells_copies_from_others() {
    const SIDE: u32 = 320;
    let variable = |name| PathBuf::from(std::env::var(name).unwrap());
    let start = std::time::Instant::now();
    let sscd = Sscd::open(variable("RETRACK_SSCD")).unwrap();
    println!("opened in {:?}", start.elapsed());
    let files = std::fs::read_dir(variable("RETRACK_SSCD_PICTURES")).unwrap();
    let mut files: Vec<PathBuf> = files.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|ending| ending == "png"));
    files.sort();
    assert!(files.len() > 3);
    let embed = |image: &[u8], side: u32| {
        let shape = [side as usize, side as usize, 3];
        sscd.embed(image, shape).unwrap().remove(0)
    };
    let start = std::time::Instant::now();
    let pictures: Vec<_> = files
        .iter()
        .map(|path| {
            let picture = image::open(path).unwrap().into_rgb8();
            assert_eq!(picture.dimensions(), (SIDE, SIDE));
            // A twentieth off each edge.
            let edge = SIDE / 20;
            let side = SIDE - 2 * edge;
            let cropped = image::imageops::crop_imm(&picture, edge, edge, side, side).to_image();
            (embed(&picture, SIDE), embed(&cropped, side))
        })
        .collect();
    println!("{:?} an image", start.elapsed() / (2 * files.len() as u32));
    let mut furthest = 0f32;
    for (path, (whole, cropped)) in files.iter().zip(&pictures) {
        let expected = std::fs::read(path.with_extension("f32")).unwrap();
        let (values, _) = expected.as_chunks::<4>();
        let values = values.iter().map(|&bytes| f32::from_le_bytes(bytes));
        let pairs = values.zip(whole.values());
        let apart = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        furthest = furthest.max(apart);
        let same = whole.similarity(whole);
        let copy = whole.similarity(cropped);
        let others = pictures.iter().filter(|(other, _)| other != whole);
        let nearest = others
            .map(|(other, _)| whole.similarity(other))
            .fold(-1.0, f64::max);
        println!(
            "{}: itself {same:.6}, cropped {copy:.3}, nearest other {nearest:.3}, {apart:.1e} from ONNX Runtime",
            path.display()
        );
        assert!((same - 1.0).abs() < 1e-6 && copy > 0.75 && nearest < 0.5);
    }
    // Where weights and activations are whole numbers, ONNX Runtime is 6.5e-3 from itself with other optimizations.
    let tolerance = std::env::var("RETRACK_SSCD_TOLERANCE").unwrap();
    let tolerance: f32 = tolerance.parse().unwrap();
    assert!(furthest < tolerance, "{furthest}");
}
