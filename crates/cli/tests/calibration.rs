//! `retrack unlearn --calibrate`: what it refuses, and when it goes nowhere.

mod support;

use support::Folder;

const PHOTOS: &str =
    "unlearn --model model --data photos --forget photos/03.png --neighbors 4 --out out";

#[test]
fn an_image_that_is_not_memorized_leaves_the_model_as_it_is() {
    let assets = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets");
    let folder = Folder::new();
    let said = folder.done(&format!(
        "unlearn --calibrate --no-report --model {assets}/base-model --data {assets}/digits.parquet --forget row:8115 \
         --out out --json"
    ));
    assert!(said.stderr.contains("no step is taken"), "{}", said.stderr);
    assert_eq!(said.json()["steps"], 0);
    let record = folder.read_json("out/run/calibration.json");
    assert_eq!(record["ended"], serde_json::json!([0, "nothing_to_do"]));
    let weights = "unet/diffusion_pytorch_model.safetensors";
    let before = std::fs::read(format!("{assets}/base-model/{weights}")).unwrap();
    assert!(folder.read(&format!("out/{weights}")) == before);
}

#[test]
fn an_interrupted_run_ends_where_it_would_have_ended() {
    let folder = Folder::with_model_and_photos();
    let command = format!("{PHOTOS} --calibrate --always --batch-size 4 --no-report");
    folder.kill_after_two_checkpoints(&format!("{command} --checkpoint-every 10"), "out");
    folder.done(&format!("{command} --checkpoint-every 10 --resume"));
    let resumed = folder.files("out");
    folder.done(&format!("{command} --checkpoint-every 10 --force"));
    let whole = folder.files("out");
    let weights = "unet/diffusion_pytorch_model.safetensors";
    assert!(resumed[weights] == whole[weights]);
    let record = folder.read_json("out/run/calibration.json");
    assert_eq!(record["rounds"][0]["from"], 0);
    assert!(
        record["ended"][0].as_u64().unwrap().is_multiple_of(40),
        "{record}"
    );
}

#[test]
fn a_calibrated_run_says_so_and_takes_no_settings_that_say_how_far_to_go() {
    let folder = Folder::with_model_and_photos();
    let plan = folder
        .done(&format!("{PHOTOS} --calibrate --dry-run --json"))
        .json();
    assert_eq!(plan["calibrated"], "where_known");
    assert_eq!(plan["settings"]["steps"], 160);
    let published = folder.done(&format!("{PHOTOS} --dry-run --json")).json();
    assert!(published.get("calibrated").is_none());
    for more in [
        "--steps 3",
        "--lambda 0.1",
        "--preset cifar10",
        "--method siss",
    ] {
        folder.refused(&format!("{PHOTOS} --calibrate {more}"), &["--calibrate"]);
    }
    folder.refused(&format!("{PHOTOS} --always"), &["--calibrate"]);
}
