//! Calibrated runs of text-to-image models, whose look-alikes are encoded like their images.

mod support;

use support::{Folder, noise, png};

const RUN: &str = "unlearn --model model --data photos --forget row:0 --prompt toast --neighbors 3 --batch-size 2 \
                   --accumulate 1 --always --json";

/// A pipeline as `model`, and photos of noise that suit it.
fn folder() -> Folder {
    let folder = Folder::new();
    folder.model("pipeline_sd1", "model");
    for row in 0..6 {
        folder.write(&format!("photos/{row}.png"), png(noise(row, 64 * 64)));
    }
    folder
}

/// Takes the run's rounds, and measures its report again.
fn is_led(folder: &Folder, more: &str) {
    let said = folder.done(&format!("{RUN} {more} --out out")).json();
    let record = folder.read_json("out/run/calibration.json");
    assert_eq!(record["rows"], serde_json::json!([0]));
    let steps = record["ended"][0].as_u64().unwrap();
    assert!(steps > 0 && steps.is_multiple_of(40), "{record}");
    assert_eq!(said["steps"], steps);
    let report = folder.read_json("out/run/report.json");
    for model in ["before", "after"] {
        let standings = report["check"][model]["standings"].as_array().unwrap();
        assert_eq!(standings.len(), 1, "{model}");
        let errors = standings[0]["look_alikes"].as_array().unwrap();
        assert!((19..=24).contains(&errors.len()), "{model}: {errors:?}");
    }
    // What a report looks at serves no other purpose.
    assert_ne!(
        record["before"][0],
        report["check"]["before"]["standings"][0]
    );
    assert!(folder.done("verify out").stdout.starts_with("same: "));
}

#[test]
fn a_text_to_image_model_is_led_as_far_as_its_look_alikes() {
    let folder = folder();
    is_led(&folder, "");
    let weights = "unet/diffusion_pytorch_model.safetensors";
    assert!(folder.read(&format!("out/{weights}")) != folder.read(&format!("model/{weights}")));
    let vae = "vae/diffusion_pytorch_model.safetensors";
    assert!(folder.read(&format!("out/{vae}")) == folder.read(&format!("model/{vae}")));
}

#[test]
fn an_adapter_is_led_as_far_as_the_look_alikes_at_a_rate_of_its_own() {
    let folder = folder();
    let rate = |more: &str| {
        let plan = folder.done(&format!("{RUN} {more} --dry-run --out out"));
        plan.json()["settings"]["learning_rate"].as_f64().unwrap()
    };
    assert!(rate("--train lora") > rate(""));
    assert_eq!(rate("--train lora --lr 0.5"), 0.5);
    is_led(&folder, "--train lora --rank 2");
    let weights = "unet/diffusion_pytorch_model.safetensors";
    assert!(folder.read(&format!("out/{weights}")) == folder.read(&format!("model/{weights}")));
    assert!(
        folder
            .path("out/pytorch_lora_weights.safetensors")
            .is_file()
    );
}
