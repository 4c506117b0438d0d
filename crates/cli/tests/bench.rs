//! `retrack bench` as a script calls it: one JSON line, with the documented keys.

use std::path::{Path, PathBuf};

use assert_cmd::Command;
use serde_json::{Value, json};

/// A network that a test build runs in a moment.
fn tiny_arch(folder: &Path, more: Value) -> PathBuf {
    let mut arch = json!({
        "_class_name": "UNet2DModel",
        "sample_size": 8,
        "in_channels": 1,
        "out_channels": 1,
        "block_out_channels": [8, 8],
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
        "layers_per_block": 1,
        "norm_num_groups": 4,
    });
    arch.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let path = folder.join("config.json");
    std::fs::write(&path, arch.to_string()).unwrap();
    path
}

fn retrack(args: &[&str]) -> std::process::Output {
    Command::cargo_bin("retrack")
        .unwrap()
        .args(args)
        .output()
        .unwrap()
}

/// The one line that a successful call prints.
fn line(args: &[&str]) -> Value {
    let output = retrack(args);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {errors}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.ends_with('\n'));
    serde_json::from_str(&text).unwrap()
}

fn check_times(times: &Value) {
    let best = times["best"].as_f64().unwrap();
    let median = times["median"].as_f64().unwrap();
    assert!(best > 0.0 && median >= best && median < 60.0, "{times}");
}

fn check_network_line(line: &Value) {
    check_times(&line["seconds_per_image"]);
    assert_eq!(line["batch_size"], 3);
    assert_eq!(line["threads"], 2);
    let simd = line["simd"].as_str().unwrap();
    assert!(["avx512", "avx2", "neon", "scalar"].contains(&simd));
    assert!(line["parameters"].as_u64().unwrap() > 1_000);
    if cfg!(target_os = "linux") {
        let peak = line["peak_rss_bytes"].as_u64().unwrap();
        assert!((1 << 20..1 << 33).contains(&peak), "{peak} bytes");
    }
}

#[test]
fn step_predict_and_sample_print_one_line_with_their_times() {
    let folder = tempfile::tempdir().unwrap();
    let arch = tiny_arch(folder.path(), json!({}));
    let arch = arch.to_str().unwrap();
    let common = ["--arch", arch, "--batch-size", "3", "--repeat", "2"];
    let call = |work: &str, more: &[&str]| {
        let args = [&["bench", work], &common[..], &["--threads", "2"], more].concat();
        let line = line(&args);
        assert_eq!(line["work"], work);
        check_network_line(&line);
        line
    };
    assert_eq!(call("step", &[])["neighbors"], 10);
    let predicted = call("predict", &[]);
    let sampled = call("sample", &["--steps", "4"]);
    assert_eq!(sampled["steps"], 4);
    assert_eq!(sampled["parameters"], predicted["parameters"]);
}

#[test]
fn a_network_with_classes_runs_and_so_does_a_batch_of_one() {
    let folder = tempfile::tempdir().unwrap();
    let arch = tiny_arch(folder.path(), json!({ "num_class_embeds": 3 }));
    let arch = arch.to_str().unwrap();
    for work in ["step", "predict", "sample"] {
        let args = [
            "bench",
            work,
            "--arch",
            arch,
            "--batch-size",
            "1",
            "--repeat",
            "1",
        ];
        check_times(&line(&args)["seconds_per_image"]);
    }
}

#[test]
fn neighbors_prints_one_line_with_its_time() {
    let args =
        "bench neighbors --rows 300 --bytes 50 --queries 2 --neighbors 4 --repeat 3 --threads 2";
    let line = line(&args.split(' ').collect::<Vec<_>>());
    check_times(&line["seconds_per_query"]);
    for (key, value) in [
        ("rows", 300),
        ("bytes", 50),
        ("queries", 2),
        ("neighbors", 4),
        ("threads", 2),
    ] {
        assert_eq!(line[key], value, "{key}");
    }
}

#[test]
fn what_cannot_be_timed_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let no_size = tiny_arch(folder.path(), json!({ "sample_size": null }));
    let no_size = no_size.to_str().unwrap();
    let missing = folder.path().join("none.json");
    let missing = missing.to_str().unwrap();
    for (args, said) in [
        (
            vec!["step", "--arch", no_size, "--batch-size", "1"],
            "`sample_size` is missing",
        ),
        (
            vec!["step", "--arch", no_size, "--batch-size", "0"],
            "--batch-size is 0",
        ),
        (
            vec!["predict", "--arch", missing, "--batch-size", "1"],
            "none.json: cannot read",
        ),
        (
            vec!["neighbors", "--rows", "5", "--bytes", "0"],
            "--bytes is 0",
        ),
        (
            vec![
                "neighbors",
                "--rows",
                "5",
                "--bytes",
                "4",
                "--neighbors",
                "6",
            ],
            "only 5 images",
        ),
        (
            vec![
                "neighbors",
                "--rows",
                "18446744073709551615",
                "--bytes",
                "4",
            ],
            "do not fit into memory",
        ),
    ] {
        let output = retrack(&[&["bench"], &args[..]].concat());
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {errors}");
        assert!(errors.contains(said), "{args:?}: {errors}");
        assert!(output.stdout.is_empty());
    }
}
