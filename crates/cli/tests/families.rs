//! Every family of text-to-image models through every command that takes it, on the tiny pipelines of `fixtures/parity`. What
//! each computes, the parity tests say; here it is seen that the parts of a command know all families.

mod support;

use retrack_networks::lora;
use support::{Folder, noise, png};

const SIDE: usize = 64;

fn folder(case: &str) -> Folder {
    let folder = Folder::new();
    folder.model(case, "model");
    for row in 0..6 {
        folder.write(&format!("photos/{row}.png"), png(noise(row, SIDE * SIDE)));
        let unseen = png(noise(100 + row, SIDE * SIDE));
        folder.write(&format!("unseen/{row}.png"), unseen);
    }
    folder
}

const UNLEARN: &str = "unlearn --model model --data photos --forget row:0 --prompt toast --neighbors 3 --batch-size 1 --lr 0.01";

fn adapts(case: &str, network: &str, prefix: &str) {
    let folder = folder(case);
    folder.done(&format!(
        "{UNLEARN} --train lora --rank 2 --steps 2 --no-report --out out"
    ));
    let adapter = folder.read(&format!("out/{}", lora::FILE_NAME));
    let tensors = safetensors::SafeTensors::deserialize(&adapter).unwrap();
    assert!(!tensors.names().is_empty());
    for name in tensors.names() {
        assert!(name.starts_with(prefix), "{name}");
    }
    folder.done("merge --model out --out merged");
    let [before, after] = ["model", "merged"].map(|of| folder.read(&format!("{of}/{network}")));
    assert_ne!(before, after, "{case}");
    folder.done("sample --model merged --prompt toast --count 1 --steps 2 --out x.png");
}

fn measures(case: &str) {
    let folder = folder(case);
    folder.done(&format!("{UNLEARN} --steps 2 --no-report --out out"));
    folder.done(
        "evaluate --model out --baseline model --data photos --forget row:0 --prompt toast --metrics cluster,membership \
         --controls unseen --samples 2 --steps 2 --out report",
    );
    let metrics = folder.read_json("report/metrics.json").to_string();
    assert!(metrics.contains("membership"), "{metrics}");
}

#[test]
fn sdxl_is_adapted_and_merged() {
    let network = "unet/diffusion_pytorch_model.safetensors";
    adapts("pipeline_sdxl", network, "unet.");
}

#[test]
fn stable_diffusion_3_is_adapted_and_merged() {
    let network = "transformer/diffusion_pytorch_model.safetensors";
    adapts("pipeline_sd3", network, "transformer.");
    let folder = folder("pipeline_sd3");
    folder.refused(
        &format!("{UNLEARN} --train lora --lora-format kohya --out out"),
        &["--lora-format kohya", "SD3Transformer2DModel"],
    );
}

#[test]
fn sdxl_is_measured() {
    measures("pipeline_sdxl");
}

#[test]
fn stable_diffusion_3_is_measured() {
    measures("pipeline_sd3");
}
