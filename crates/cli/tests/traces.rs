//! Nothing that a run leaves behind shows what it was to forget: model, records, checkpoints, reports, cache.

mod support;
#[path = "support/traces.rs"]
mod traces;

use image::{GrayImage, ImageFormat, imageops};
use retrack_study::tensorboard::EventWriter;
use support::{Folder, SIDE, noise, photo_png, png};
use traces::Traces;

const UNLEARN: &str =
    "unlearn --model model --data photos --forget row:3 --neighbors 4 --batch-size 4";

fn forgotten() -> Traces {
    Traces::of(&noise(3, SIDE * SIDE), SIDE, &photo_png(3))
}

#[test]
fn nothing_that_is_left_shows_the_forgotten_image() {
    let folder = Folder::with_model_and_photos();
    let traces = forgotten();
    // A killed run leaves its checkpoints too.
    let line = format!("{UNLEARN} --steps 40 --checkpoint-every 1 --out killed");
    folder.kill_after_two_checkpoints(&line, "killed");
    for method in ["retrack", "finetune", "neggrad", "erasediff", "siss"] {
        folder.done(&format!(
            "{UNLEARN} --steps 2 --method {method} --out {method}"
        ));
    }
    folder.done(
        &format!("{UNLEARN} --steps 2 --neighbors all --out all").replace("--neighbors 4 ", ""),
    );
    folder.done("neighbors --data photos --forget row:3 --neighbors 5");
    folder.done(
        "evaluate --model retrack --baseline model --data photos --forget row:3 --threshold 0.1 --samples 4 \
         --steps 2 --metrics frequency --out measured",
    );
    let left = without_traces(&folder, &traces);
    // Seven runs with their models and records, two checkpoints, an evaluation.
    assert!(left.len() > 40, "{left:?}");
    assert!(left.iter().any(|name| name.starts_with("cache/")));
}

#[test]
fn nothing_that_is_left_of_a_text_to_image_model_shows_the_forgotten_image() {
    const SIDE: usize = 64;
    let folder = Folder::new();
    folder.model("pipeline_sd1", "model");
    for row in 0..8 {
        let picture = png(noise(row, SIDE * SIDE));
        folder.write(&format!("photos/{row:02}.png"), picture);
    }
    let traces = Traces::of(&noise(3, SIDE * SIDE), SIDE, &folder.read("photos/03.png"));
    let line = "--data photos --forget row:3 --prompt x";
    let short = "neighbors = 3\nsteps = 2\naccumulate = 1\n[experiment]\nsampling_steps = 2\n";
    folder.write("short.toml", short);
    folder.done(&format!(
        "unlearn --model model {line} --config short.toml --checkpoint-every 1 --out new"
    ));
    folder.done(&format!(
        "evaluate --model new --baseline model {line} --modified-prompt y --samples 2 --steps 2 --metrics cluster \
         --out measured"
    ));
    folder.done(&format!(
        "experiment stable-diffusion --model model {line} --config short.toml --methods retrack --seeds 0 --samples 2 \
         --metrics cluster --out compared"
    ));
    let left = without_traces(&folder, &traces);
    for name in [
        "new/run/report.html",
        "measured/report.html",
        "measured/model-00.png",
        "compared/report.html",
    ] {
        assert!(left.iter().any(|left| left == name), "{name} is missing");
    }
}

/// The names of all files that are no input and not empty, none of which shows the image; its own does.
fn without_traces(folder: &Folder, traces: &Traces) -> Vec<String> {
    let files = folder.files("").into_iter();
    let left = files.filter_map(|(name, content)| {
        let is_it = name == "photos/03.png";
        assert_eq!(traces.found_in(&content), is_it, "{name}");
        (!name.starts_with("photos/") && !content.is_empty()).then_some(name)
    });
    left.collect()
}

#[test]
fn an_image_is_found_in_every_form_in_which_it_could_be_left() {
    let traces = forgotten();
    let pixels = noise(3, SIDE * SIDE);
    let floats: Vec<u8> = pixels
        .iter()
        .flat_map(|&byte| (f32::from(byte) / 127.5 - 1.0).to_le_bytes())
        .collect();
    let unit: Vec<u8> = pixels
        .iter()
        .flat_map(|&byte| (f32::from(byte) / 255.0).to_le_bytes())
        .collect();
    // In a grid, enlarged three times, with others around it.
    let image = GrayImage::from_raw(SIDE as u32, SIDE as u32, pixels.clone()).unwrap();
    let large = imageops::resize(
        &image,
        3 * SIDE as u32,
        3 * SIDE as u32,
        imageops::FilterType::Nearest,
    );
    let mut grid = GrayImage::new(100, 60);
    imageops::replace(&mut grid, &large, 31, 7);
    let mut picture = std::io::Cursor::new(Vec::new());
    grid.write_to(&mut picture, ImageFormat::Png).unwrap();
    let picture = picture.into_inner();
    let page = format!("<img src=\"data:image/png;base64,{}\">", base64(&picture));
    let events = tempfile::tempdir().unwrap();
    let mut writer = EventWriter::create(events.path()).unwrap();
    writer.image(1, "samples", &picture).unwrap();
    writer.flush().unwrap();
    let event_file = std::fs::read_dir(events.path()).unwrap().next().unwrap();
    let event_file = std::fs::read(event_file.unwrap().path()).unwrap();
    for (form, content) in [
        ("bytes", pixels.clone()),
        ("numbers of the network", floats),
        ("numbers of the metrics", unit),
        ("its file", photo_png(3)),
        ("a list", format!("{pixels:?}").into_bytes()),
        ("a grid", picture),
        ("a page", page.into_bytes()),
        ("an event", event_file),
    ] {
        let content = [b"before", &content[..], b"after"].concat();
        assert!(traces.found_in(&content), "{form}");
    }
    assert!(!traces.found_in(&photo_png(4)));
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for part in bytes.chunks(3) {
        let mut word = [0; 4];
        word[1..1 + part.len()].copy_from_slice(part);
        let word = u32::from_be_bytes(word);
        for place in 0..=part.len() {
            text.push(LETTERS[(word >> (18 - 6 * place) & 63) as usize] as char);
        }
    }
    text
}
