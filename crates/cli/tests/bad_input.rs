//! What is refused: exit code 2, one error that names the file and the remedy, nothing written.

mod support;

use serde_json::{Value, json};
use support::{Folder, png};

const UNLEARN: &str = "unlearn --model model --data photos --forget row:3 --neighbors 4 --batch-size 4 --steps 1 --out out";

fn unlearn_with(change: &str, to: &str) -> String {
    assert!(UNLEARN.contains(change));
    UNLEARN.replace(change, to)
}

#[test]
fn a_missing_model_or_data_set_is_named() {
    let folder = Folder::with_model_and_photos();
    folder.refused(
        &unlearn_with("--model model", "--model nowhere"),
        &["nowhere", "no such folder", "hf download"],
    );
    folder.refused(
        &unlearn_with("--data photos", "--data nowhere"),
        &["nowhere", "no such"],
    );
}

#[test]
fn an_unknown_block_type_is_refused_by_name() {
    let folder = Folder::with_model_and_photos();
    let mut config = folder.read_json("model/unet/config.json");
    config["down_block_types"][0] = "SkipDownBlock2D".into();
    folder.write("model/unet/config.json", config.to_string());
    folder.refused(
        UNLEARN,
        &[
            "unet/config.json",
            "down_block_types",
            "SkipDownBlock2D",
            "AttnDownBlock2D",
        ],
    );
}

#[test]
fn all_missing_and_unexpected_tensors_are_listed() {
    let folder = Folder::with_model_and_photos();
    let path = "model/unet/diffusion_pytorch_model.safetensors";
    let weights = String::from_utf8_lossy(&folder.read(path)).into_owned();
    assert!(weights.contains("\"conv_in.bias\"") && weights.contains("\"conv_out.bias\""));
    // Names of the same length, so that the header keeps its own.
    let mut bytes = folder.read(path);
    for (old, new) in [
        ("\"conv_in.bias\"", "\"conv_in.bise\""),
        ("\"conv_out.bias\"", "\"conv_out.bise\""),
    ] {
        let at = bytes
            .windows(old.len())
            .position(|w| w == old.as_bytes())
            .unwrap();
        bytes[at..at + old.len()].copy_from_slice(new.as_bytes());
    }
    folder.write(path, bytes);
    folder.refused(
        UNLEARN,
        &[
            "missing tensor conv_in.bias",
            "missing tensor conv_out.bias",
            "unexpected tensor conv_in.bise",
            "unexpected tensor conv_out.bise",
        ],
    );
}

#[test]
fn a_selector_that_matches_nothing_or_everything_is_explained() {
    let folder = Folder::with_model_and_photos();
    let forget = |selector: &str| unlearn_with("--forget row:3", &format!("--forget {selector}"));
    folder.refused(&forget("row:16"), &["row:16", "16 rows", "0 to 15"]);
    folder.refused(&forget("label:3"), &["label 3"]);
    folder.refused(
        &forget("rows:0-15"),
        &["all 16 images", "nothing would be retained"],
    );
    folder.refused(&forget("nowhere.png"), &["nowhere.png"]);
    folder.refused(&forget("rows:9-3"), &["rows:3-9"]);
    folder.write("stranger.png", png(vec![7; 64]));
    folder.refused(
        &forget("stranger.png"),
        &["stranger.png", "the nearest is row"],
    );
    folder.refused(
        &unlearn_with("--neighbors 4", "--neighbors 16"),
        &["16 neighbors", "only 15 images"],
    );
}

#[test]
fn images_of_another_size_are_refused() {
    let folder = Folder::with_model_and_photos();
    folder.write("large/a.png", png(vec![0; 256]));
    folder.write("large/b.png", png(vec![9; 256]));
    folder.refused(
        &unlearn_with("--data photos", "--data large"),
        &["large", "16 x 16", "8 x 8"],
    );
}

#[test]
fn options_that_make_no_sense_are_named() {
    let folder = Folder::with_model_and_photos();
    let with = |more: &str| format!("{UNLEARN} {more}");
    folder.refused(
        &with("--preset imagenet"),
        &["imagenet", "mnist-tshirt", "celeba-hq"],
    );
    folder.refused(&with("--method magic"), &["magic", "retrack", "erasediff"]);
    folder.refused(&with("--lambda 1.5"), &["lambda", "1.5"]);
    folder.refused(&with("--lr 0"), &["learning rate", "0"]);
    folder.refused(&with("--threads 0"), &["--threads"]);
    folder.refused(
        &with("--device cuda"),
        &["--device cuda", "--features cuda"],
    );
    folder.refused(&with("--device abacus"), &["--device abacus", "cpu"]);
    folder.write("mine.toml", "stepz = 3\n");
    folder.refused(&with("--config mine.toml"), &["mine.toml", "stepz"]);
    folder.refused(&with("--config nowhere.toml"), &["nowhere.toml"]);
}

#[test]
fn tensors_that_are_missing_or_misshapen_are_named() {
    let folder = Folder::with_model_and_photos();
    folder.write(
        "in.safetensors",
        safetensors(
            &json!({
                "sample": {"dtype": "F32", "shape": [1, 1, 8, 8], "data_offsets": [0, 256]}
            }),
            256,
        ),
    );
    let predict = "predict --model model --input in.safetensors --output out.safetensors";
    folder.refused(predict, &["in.safetensors", "`timestep`"]);
    folder.write(
        "in.safetensors",
        safetensors(
            &json!({
                "sample": {"dtype": "F32", "shape": [1, 8, 8], "data_offsets": [0, 256]}
            }),
            256,
        ),
    );
    folder.refused(predict, &["in.safetensors", "`sample`", "[1, 8, 8]"]);
    folder.write("in.safetensors", "not tensors");
    folder.refused(predict, &["in.safetensors"]);
    folder.refused(
        "gradient --model model --method retrack --input nowhere.safetensors --output out.safetensors",
        &["nowhere.safetensors"],
    );
}

#[test]
fn a_network_without_timestep_zero_is_refused_where_it_would_be_met() {
    let folder = Folder::new();
    folder.photos("photos");
    folder.tiny_arch(json!({ "time_embedding_type": "fourier" }));
    folder.refused(
        "train --data photos --arch tiny.json --steps 1 --out out",
        &["tiny.json", "fourier", "timestep 0"],
    );
}

#[test]
fn without_a_command_the_usage_is_shown() {
    let folder = Folder::new();
    let output = folder.command("").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("Usage"));
}

#[test]
fn every_command_explains_itself() {
    let folder = Folder::new();
    for command in [
        "demo",
        "train",
        "unlearn",
        "neighbors",
        "sample",
        "inspect",
        "predict",
        "gradient",
        "bench",
    ] {
        let said = folder.done(&format!("{command} --help"));
        assert!(said.stdout.contains("Usage: retrack"), "{command}");
    }
}

/// A file with this header and `length` bytes of zeros.
fn safetensors(header: &Value, length: usize) -> Vec<u8> {
    let header = header.to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + length, 0);
    bytes
}
