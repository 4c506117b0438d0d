//! The model card of a run: what it says of each kind of model, and how that is to be loaded.

mod support;

use serde_json::json;
use support::{Folder, noise, png};

const RUN: &str = "--forget row:0 --neighbors 3 --batch-size 2 --steps 1";

fn card(folder: &Folder, line: &str) -> String {
    folder.done(&format!("unlearn {line} --out out"));
    let card = String::from_utf8(folder.read("out/README.md")).unwrap();
    folder.done(&format!("unlearn {line} --out out --force --no-report"));
    let untested = String::from_utf8(folder.read("out/README.md")).unwrap();
    // Without tests nothing is said of any.
    assert!(
        card.contains("tests found:") && card.contains("its report"),
        "{card}"
    );
    assert!(
        !untested.contains("tests found") && untested.contains("tested nothing"),
        "{untested}"
    );
    assert_eq!(script(&card), script(&untested));
    card
}

/// The code that draws an image.
fn script(card: &str) -> &str {
    let after = card.split("```python\n").nth(1).unwrap();
    after.split("```").next().unwrap()
}

fn text_to_image() -> Folder {
    let folder = Folder::new();
    folder.model("pipeline_sd1", "model");
    for row in 0..6 {
        folder.write(&format!("photos/{row}.png"), png(noise(row, 64 * 64)));
    }
    folder
}

#[test]
fn the_card_of_a_pixel_pipeline_loads_it() {
    let folder = Folder::with_model_and_photos();
    let card = card(&folder, &format!("--model model --data photos {RUN}"));
    assert!(
        card.contains("pipeline_tag: unconditional-image-generation\n"),
        "{card}"
    );
    assert!(
        card.contains("| trained | all weights of the denoiser |"),
        "{card}"
    );
    assert!(
        !card.contains("lora") && !card.contains("adapter"),
        "{card}"
    );
    assert_eq!(
        script(&card),
        "from diffusers import DiffusionPipeline\n\npipeline = DiffusionPipeline.from_pretrained(\"this folder\")\n\
         image = pipeline().images[0]\n"
    );
}

#[test]
fn the_card_of_a_bare_network_names_no_pipeline_that_is_not_there() {
    let folder = Folder::new();
    folder.model("folder_bare_unet", "model");
    folder.photos("photos");
    let card = card(&folder, &format!("--model model --data photos {RUN}"));
    let script = script(&card);
    for part in [
        "unet = UNet2DModel.from_pretrained(\"this folder\")\n",
        "image = DDPMPipeline(unet=unet, scheduler=scheduler)().images[0]\n",
    ] {
        assert!(script.contains(part), "{script}");
    }
    let has = folder.path("model/scheduler_config.json").exists();
    let scheduler = match has {
        true => "scheduler = DDPMScheduler.from_pretrained(\"this folder\")\n",
        false => "scheduler = DDPMScheduler()\n",
    };
    assert!(script.contains(scheduler), "{script}");
    assert!(!script.contains("DiffusionPipeline"), "{script}");
}

#[test]
fn the_card_of_a_network_with_classes_says_which_class() {
    let folder = Folder::new();
    folder.tiny_arch(json!({"num_class_embeds": 3}));
    let data = folder.idx(24, support::SIDE, 3);
    folder.done(&format!(
        "train --data {data} --arch tiny.json --batch-size 4 --steps 1 --out model"
    ));
    let card = card(&folder, &format!("--model model --data {data} {RUN}"));
    let script = script(&card);
    assert!(script.contains("class_labels=label"), "{script}");
    assert!(script.contains("torch.randn(1, 1, 8, 8)"), "{script}");
    assert!(!script.contains("pipeline()"), "{script}");
}

#[test]
fn the_card_of_a_text_to_image_model_speaks_of_an_adapter_only_where_there_is_one() {
    let folder = text_to_image();
    let line = format!("--model model --data photos --prompt toast {RUN} --batch-size 1");
    let line = line.replacen(" --batch-size 2", "", 1);
    let opened = "import torch\nfrom diffusers import DiffusionPipeline\n\npipeline = \
                  DiffusionPipeline.from_pretrained(\"this folder\", torch_dtype=torch.float32)\n";
    let drawn = "image = pipeline(\"a prompt\").images[0]\n";
    for train in ["", " --train all"] {
        let card = card(&folder, &format!("{line}{train}"));
        assert!(card.contains("pipeline_tag: text-to-image\n"), "{card}");
        assert!(
            !card.contains("lora") && !card.contains("adapter"),
            "{card}"
        );
        assert_eq!(script(&card), format!("{opened}{drawn}"));
        std::fs::remove_dir_all(folder.path("out")).unwrap();
    }
    let card = card(&folder, &format!("{line} --train lora --rank 2"));
    assert!(
        card.contains("tags: [diffusion, machine-unlearning, retrack, lora]\n"),
        "{card}"
    );
    assert!(card.contains("attention layers, rank 2 |"), "{card}");
    assert!(
        card.contains("`pytorch_lora_weights.safetensors`: take both together"),
        "{card}"
    );
    let script = script(&card);
    let load = "pipeline.load_lora_weights(\"this folder\")  # without it the model has forgotten nothing\n";
    assert_eq!(script, format!("{opened}{load}{drawn}"));
}

#[test]
fn the_card_says_the_verdict_with_its_reservations() {
    let folder = Folder::with_model_and_photos();
    folder.done(&format!(
        "unlearn --model model --data photos {RUN} --out out"
    ));
    let card = String::from_utf8(folder.read("out/README.md")).unwrap();
    let verdict = folder.read_json("out/run/report.json")["verdict"].clone();
    let headline = verdict["headline"].as_str().unwrap();
    assert!(card.contains(&format!("**{headline}.** ")), "{card}");
    let notes = verdict["notes"].as_array().unwrap();
    assert!(!notes.is_empty());
    for note in notes {
        assert!(
            card.contains(&format!("\n- {}\n", note.as_str().unwrap())),
            "{card}"
        );
    }
}
