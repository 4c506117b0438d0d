//! Nothing that a run leaves behind shows what it was to forget: model, records, checkpoints, reports, cache.

mod support;
#[path = "support/traces.rs"]
mod traces;

use image::{GrayImage, ImageFormat, imageops};
use retrack_unlearn::tensorboard::EventWriter;
use support::{Folder, SIDE, noise, photo_png};
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
    let (mut seen, mut cached) = (0, 0);
    for (name, content) in folder.files("") {
        let is_input = name.starts_with("photos/");
        let shows = traces.found_in(&content);
        let is_it = name == "photos/03.png";
        assert_eq!(shows, is_it, "{name}");
        seen += usize::from(!is_input && !content.is_empty());
        cached += usize::from(name.starts_with("cache/") && !content.is_empty());
    }
    // Seven runs with their models and records, two checkpoints, an evaluation.
    assert!(seen > 40, "{seen} files");
    assert!(cached > 0);
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
