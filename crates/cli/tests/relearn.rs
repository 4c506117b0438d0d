//! `retrack evaluate --metrics relearn`: after how many steps of further training an image is back.

mod support;

use serde_json::{Value, json};
use support::{Folder, SIDE};

/// Two data sets with one image in them twenty times, and models with and without it: see make.py there.
const RETRAINED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/retrained");

fn evaluate(model: &str, more: &str) -> String {
    format!(
        "evaluate --model {RETRAINED}/digits/{model} --data {RETRAINED}/digits/data.parquet --forget label:1 --json \
         --metrics relearn {more}"
    )
}

/// The tiny model, which knows nothing.
const TINY: &str = "evaluate --model model --data photos --metrics relearn --out report --json";

fn relearned(found: &Value) -> &Value {
    &found["model"]["relearned"]
}

fn score<'a>(found: &'a Value, name: &str) -> &'a Value {
    let scores = found["model"]["scores"].as_array().unwrap();
    let mut scores = scores.iter();
    scores.find(|score| score["name"] == name).unwrap()
}

#[test]
fn a_model_that_knows_the_image_brings_it_back_before_any_step() {
    let folder = Folder::new();
    let found = folder
        .done(&evaluate("with", "--relearn-steps 1 --out out"))
        .json();
    let image = &relearned(&found)["images"][0];
    assert_eq!([&image["retained"], &image["image"]], [&json!(0); 2]);
    // What it never saw does not come back before it learns.
    let unseen = json!([null, null, null]);
    assert_eq!(image["controls"], unseen, "{found:#}");
    assert_eq!(score(&found, "relearn_image")["value"], 0.0);
    let bound = score(&found, "relearn_unseen");
    assert_eq!(
        [&bound["value"], &bound["at_least"]],
        [&json!(1.0), &json!(true)]
    );
}

#[test]
fn a_model_that_never_saw_the_image_learns_it_from_the_image_and_not_from_retained_ones() {
    let folder = Folder::new();
    // Noise, which it does not learn in so few steps. A network so small learns slowly: what counts as the image is farther
    // away than usual.
    for row in 0..8 {
        let pixels = support::noise(row, 16 * 16);
        folder.write(&format!("noise/{row}.png"), support::png(pixels));
    }
    let line = evaluate(
        "without",
        "--controls noise --threshold 5.6 --relearn-steps 8 --out out",
    );
    let found = folder.done(&line).json();
    let image = &relearned(&found)["images"][0];
    assert_eq!(image["retained"], Value::Null, "{found:#}");
    let steps = image["image"].as_u64().unwrap();
    assert!(steps > 1, "{steps}");
    let bound = score(&found, "relearn_retained");
    assert_eq!(
        [&bound["value"], &bound["at_least"]],
        [&json!(8.0), &json!(true)]
    );
    assert_eq!(score(&found, "relearn_image")["value"], json!(steps as f64));
    assert_eq!(image["controls"], json!([null, null, null]), "{found:#}");
    let sentence = found["verdict"]["sentence"].as_str().unwrap();
    let says = format!("Steps of further training until the image is back: {steps} on it, ");
    assert!(sentence.starts_with(&says), "{sentence}");
    let says = "and more than 8 on retained images alone.";
    assert!(sentence.ends_with(says), "{sentence}");
    let page = String::from_utf8(folder.read("out/report.html")).unwrap();
    assert!(page.contains("Does it come back?") && page.contains("&gt; 8"));
    assert!(page.contains("model, on retained images (not within 8)"));
}

#[test]
fn the_model_that_is_measured_stays_as_it_is_and_equal_seeds_answer_alike() {
    let folder = Folder::with_model_and_photos();
    let before = folder.files("model");
    let line = format!("{TINY} --forget row:1 --relearn-steps 3");
    let first = folder.done(&line.replace("relearn ", "relearn,injection "));
    support::assert_same_files(&before, &folder.files("model"), &line);
    let first = first.json();
    // What is measured after it is what is measured without it.
    let alone = line.replace("relearn ", "injection ");
    let alone = alone.replace("--relearn-steps 3", "--force");
    let alone = folder.done(&alone).json();
    assert_eq!(
        score(&first, "restored_distance"),
        score(&alone, "restored_distance")
    );
    let again = folder.done(&format!("{line} --force")).json();
    assert_eq!(relearned(&again), relearned(&first));
    assert_eq!(relearned(&again)["most"], 3);
    assert_eq!(again["protocol"]["relearn_steps"], 3);
}

#[test]
fn steps_for_a_metric_that_is_not_asked_for_and_no_steps_are_refused() {
    let folder = Folder::with_model_and_photos();
    let line = "--model model --data photos --forget row:1 --out report";
    folder.refused(
        &format!("evaluate {line} --metrics injection --relearn-steps 5"),
        &["--relearn-steps", "`relearn`", "--metrics"],
    );
    folder.refused(
        &format!("evaluate {line} --relearn-steps 5"),
        &["--relearn-steps", "`relearn`", "--metrics"],
    );
    folder.refused(
        &format!("evaluate {line} --metrics relearn --relearn-steps 0"),
        &["--relearn-steps is 0", "at least 1"],
    );
    folder.refused(
        &format!("experiment mnist-tshirt {line} --metrics relearn --relearn-steps 0"),
        &["--relearn-steps is 0", "at least 1"],
    );
}

#[test]
fn of_several_images_the_first_ones_have_a_row_each() {
    let folder = Folder::with_model_and_photos();
    let found = folder
        .done(&format!("{TINY} --forget rows:0-4 --relearn-steps 1"))
        .json();
    assert_eq!(relearned(&found)["images"].as_array().unwrap().len(), 4);
    assert_eq!(score(&found, "relearn_image")["count"], 4);
    assert_eq!(score(&found, "relearn_unseen")["count"], 12);
    let notes = found["model"]["notes"].to_string();
    let says = "relearn rests on the first 4 of 5 forgotten images";
    assert!(notes.contains(says), "{notes}");
    let page = String::from_utf8(folder.read("report/report.html")).unwrap();
    assert!(page.contains("image 4, on the image") && !page.contains("image 5,"));
}

#[test]
fn controls_that_are_given_are_the_images_never_seen() {
    let folder = Folder::with_model_and_photos();
    for row in 40..44 {
        folder.write(&format!("unseen/{row}.png"), support::photo_png(row));
    }
    let line = format!("{TINY} --forget row:1 --relearn-steps 2 --threshold 3 --force");
    // Of a look-alike the tiny model's noise is nearer than of the image itself.
    let own = folder.done(&line).json();
    let given = folder.done(&format!("{line} --controls unseen")).json();
    assert_eq!(given["protocol"]["controls"], "unseen");
    assert_ne!(relearned(&given), &Value::Null);
    assert_eq!(
        relearned(&given)["images"][0]["image"],
        relearned(&own)["images"][0]["image"]
    );
    // Those of the data set itself may be known.
    let known = folder.done(&format!("{line} --controls photos")).json();
    assert_eq!(relearned(&known), relearned(&own));
    // Where everything counts as an image, those never seen come back at once, too.
    let line = line.replace("--threshold 3", "--threshold 1000");
    let all = folder.done(&format!("{line} --controls unseen")).json();
    assert_eq!(relearned(&all)["images"][0]["controls"], json!([0, 0, 0]));
    let notes = all["model"]["notes"].to_string();
    assert!(
        notes.contains("so the steps of relearn say nothing"),
        "{notes}"
    );
}

#[test]
fn a_model_with_classes_learns_each_image_as_of_its_class() {
    let folder = Folder::new();
    let images = folder.idx(24, SIDE, 3);
    folder.tiny_arch(json!({ "num_class_embeds": 3 }));
    folder.done(&format!(
        "train --data {images} --arch tiny.json --steps 1 --batch-size 4 --lr 0.1 --warmup 1 --out model"
    ));
    let line = format!(
        "evaluate --model model --data {images} --forget row:1 --metrics relearn --relearn-steps 2 --out report --json"
    );
    let found = folder.done(&line).json();
    assert_eq!(relearned(&found)["images"].as_array().unwrap().len(), 1);
    let found = folder.done(&format!("{line} --class 2 --force")).json();
    assert_eq!(found["classes"], json!([2]));
}

#[test]
fn an_experiment_shows_of_each_method_after_how_many_steps_the_image_is_back() {
    let folder = Folder::with_model_and_photos();
    folder.write("small.toml", "neighbors = 2\nsteps = 1\nbatch_size = 2\n");
    let said = folder.done(
        "experiment mnist-tshirt --model model --data photos --forget row:1 --methods finetune --seeds 0 --threshold 0.5 \
         --metrics relearn --relearn-steps 2 --config small.toml --out all",
    );
    assert!(said.stdout.contains("relearn_image"), "{}", said.stdout);
    assert!(said.stdout.contains("> 2.000"), "{}", said.stdout);
    let summary = folder.read_json("all/summary.json");
    assert!(
        summary.to_string().contains("\"at_least\":true"),
        "{summary}"
    );
}
