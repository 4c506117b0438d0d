//! `retrack unlearn` without settings: how far it goes, when it goes nowhere, and what it and `retrack evaluate` say of it.

mod support;

use serde_json::Value;
use support::Folder;

/// Two data sets with one image in them twenty times, and models with and without it: see make.py there.
const RETRAINED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/retrained");
const SETS: [&str; 2] = ["digits", "emoji"];
const WEIGHTS: &str = "unet/diffusion_pytorch_model.safetensors";

fn unlearn(set: &str, model: &str, more: &str) -> String {
    format!(
        "unlearn --model {RETRAINED}/{set}/{model} --data {RETRAINED}/{set}/data.parquet --forget label:1 --json {more}"
    )
}

fn evaluate(set: &str, model: &str, more: &str) -> String {
    format!(
        "evaluate --model {RETRAINED}/{set}/{model} --data {RETRAINED}/{set}/data.parquet --forget label:1 --json \
         --samples 16 --steps 20 {more}"
    )
}

fn headline(said: &Value) -> &str {
    said["verdict"]["headline"].as_str().unwrap()
}

#[test]
fn a_memorized_image_is_led_to_unknown_and_no_farther() {
    for set in SETS {
        let folder = Folder::new();
        let said = folder.done(&unlearn(set, "with", "--out out")).json();
        assert_eq!(
            headline(&said),
            "Unknown: the forgotten image is no longer found",
            "{said:#}"
        );
        let ended = &folder.read_json("out/run/calibration.json")["ended"];
        assert_eq!(*ended, serde_json::json!([said["steps"], "unknown"]));
        // Not farther than the model that was trained without the image.
        folder.done(&unlearn(set, "without", "--out retrained"));
        let own = |folder_of: &str, model: &str| {
            let report = folder.read_json(&format!("{folder_of}/run/report.json"));
            let standing = &report["check"][model]["standings"][0];
            standing["own"].as_f64().unwrap()
        };
        let beside = |model: &str| (own("out", model) - own("retrained", "before")).exp();
        assert!(beside("before") < 0.7, "{set}: {}", beside("before"));
        assert!(
            (0.7..1.4).contains(&beside("after")),
            "{set}: {}",
            beside("after")
        );
        folder.done("verify out/run");
    }
}

#[test]
fn a_model_is_measured_as_it_was_led() {
    let folder = Folder::new();
    folder.done(&unlearn("emoji", "with", "--out out"));
    let looked = |out: &str| {
        let said = folder.done(&format!(
            "evaluate --model out --data {RETRAINED}/emoji/data.parquet --forget label:1 --json --samples 8 --steps 10 \
             --metrics injection --out {out}"
        ));
        let verdict = headline(&said.json()).to_owned();
        let standing = &folder.read_json(&format!("{out}/metrics.json"))["model"]["look_alikes"][0];
        (verdict, standing["led"].clone(), said.stderr)
    };
    let (verdict, led, said) = looked("with-key");
    assert_eq!(verdict, "Unknown: no such image is known");
    let chain = folder.read_json("out/retrack.json");
    let recorded = chain["requests"][0]["led"].as_object().unwrap();
    let [before, after] = [0, 1].map(|at| led[at].as_f64().unwrap());
    assert!(after > before + 0.3, "{led}");
    // By other noise; what lies between is the same.
    let [recorded] = recorded.values().collect::<Vec<_>>()[..] else {
        panic!("{chain}");
    };
    let between = recorded[1].as_f64().unwrap() - recorded[0].as_f64().unwrap();
    assert!((after - before - between).abs() < 1e-6, "{led} {recorded}");
    assert!(!said.contains("digest-key"), "{said}");
    // Without the key nobody can tell that the image was led.
    std::fs::remove_file(folder.path("out.digest-key")).unwrap();
    let (_, led, said) = looked("without-key");
    assert!(led.is_null(), "{led}");
    assert!(said.contains("out.digest-key"), "{said}");
}

#[test]
fn a_model_that_never_saw_the_image_stays_as_it_is() {
    for set in SETS {
        let folder = Folder::new();
        let said = folder.done(&unlearn(set, "without", "--out out")).json();
        assert_eq!(
            headline(&said),
            "The forgotten image was not shown to be memorized",
            "{said:#}"
        );
        assert_eq!(said["steps"], 0);
        let before = std::fs::read(format!("{RETRAINED}/{set}/without/{WEIGHTS}")).unwrap();
        assert!(folder.read(&format!("out/{WEIGHTS}")) == before);
        let record = folder.read_json("out/run/calibration.json");
        assert_eq!(record["ended"], serde_json::json!([0, "nothing_to_do"]));
    }
}

#[test]
fn the_published_settings_lead_to_avoided() {
    let folder = Folder::new();
    let command = unlearn(
        "digits",
        "with",
        "--out out --no-calibrate --lambda 0.1 --lr 1e-3",
    );
    let said = folder.done(&command).json();
    let headline = headline(&said);
    assert!(headline.starts_with("Avoided: "), "{said:#}");
}

#[test]
fn a_retrained_model_knows_no_such_image_and_the_one_before_does() {
    for set in SETS {
        let folder = Folder::new();
        let known = folder.done(&evaluate(set, "with", "--out known")).json();
        assert!(headline(&known).starts_with("Known: "), "{known:#}");
        let alone = folder.done(&evaluate(set, "without", "--out alone")).json();
        assert_eq!(
            headline(&alone),
            "Unknown: no such image is known",
            "{alone:#}"
        );
        let baseline = format!("--baseline {RETRAINED}/{set}/with --out beside");
        let beside = folder.done(&evaluate(set, "without", &baseline)).json();
        assert_eq!(
            headline(&beside),
            "Unknown: the forgotten image is no longer found",
            "{beside:#}"
        );
    }
}

#[test]
fn an_untrained_model_knows_no_such_image() {
    let folder = Folder::with_model_and_photos();
    let said = folder
        .done("evaluate --model model --data photos --forget photos/03.png --samples 4 --steps 5 --out out --json")
        .json();
    assert_eq!(
        headline(&said),
        "Unknown: no such image is known",
        "{said:#}"
    );
}

#[test]
fn an_interrupted_run_ends_where_it_would_have_ended() {
    let folder = Folder::with_model_and_photos();
    let command = "unlearn --model model --data photos --forget photos/03.png --neighbors 4 --out out --always \
                   --batch-size 4 --no-report --checkpoint-every 10";
    folder.kill_after_two_checkpoints(command, "out");
    folder.done(&format!("{command} --resume"));
    let resumed = folder.files("out");
    folder.done(&format!("{command} --force"));
    let whole = folder.files("out");
    assert!(resumed[WEIGHTS] == whole[WEIGHTS]);
    let record = folder.read_json("out/run/calibration.json");
    assert_eq!(record["rounds"][0]["from"], 0);
    let steps = record["ended"][0].as_u64().unwrap();
    assert!(steps.is_multiple_of(40), "{record}");
}

#[test]
fn what_says_how_far_to_go_is_the_published_method() {
    let folder = Folder::with_model_and_photos();
    let command =
        "unlearn --model model --data photos --forget photos/03.png --neighbors 4 --out out";
    let plan = |more: &str| -> Value {
        folder
            .done(&format!("{command} --dry-run --json {more}"))
            .json()
    };
    let calibrated = plan("");
    assert_eq!(calibrated["calibrated"], "where_known");
    assert_eq!(plan("--always")["calibrated"], "always");
    assert_eq!(calibrated["settings"]["steps"], 160);
    let published = plan("--no-calibrate");
    assert!(published.get("calibrated").is_none());
    for more in [
        "--preset cifar10",
        "--steps 60",
        "--lambda 0.02",
        "--method siss",
    ] {
        let found = plan(more);
        assert!(found.get("calibrated").is_none(), "{more}");
    }
    folder.refused(
        &format!("{command} --always --no-calibrate"),
        &["--always", "--no-calibrate"],
    );
}

#[test]
fn images_that_nobody_saw_lead_in_the_place_of_look_alikes() {
    let folder = Folder::with_model_and_photos();
    for row in 0..39 {
        folder.write(&format!("unseen/{row}.png"), support::photo_png(100 + row));
    }
    folder.write("unseen/known.png", folder.read("photos/05.png"));
    let command =
        "unlearn --model model --data photos --forget photos/03.png --neighbors 4 --batch-size 4";
    let said = folder.done(&format!("{command} --controls unseen --out led"));
    assert!(
        said.stderr
            .contains("unseen: 1 image is also in the data set and left out"),
        "{}",
        said.stderr
    );
    folder.done(&format!("{command} --out own"));
    let [led, own] =
        ["led", "own"].map(|out| folder.read_json(&format!("{out}/run/calibration.json")));
    assert_ne!(led["before"], own["before"]);
    assert_eq!(
        led["before"][0]["look_alikes"].as_array().unwrap().len(),
        19
    );
    let config = folder.read_json("led/run/config.json");
    assert!(config["controls_digest"].is_string(), "{config}");
    folder.done("verify led/run");

    let refused = format!("{command} --out refused");
    folder.refused(
        &format!("{refused} --controls photos"),
        &[
            "photos: 0 of its",
            "not in the data set, and 38 are needed",
            "--controls",
        ],
    );
    folder.refused(
        &format!("{refused} --controls unseen --steps 3"),
        &["--controls", "leave one of them out"],
    );
    folder.refused(
        &format!("{refused} --controls model/model_index.json"),
        &["model_index.json"],
    );
}
