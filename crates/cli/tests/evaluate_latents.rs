//! What `evaluate` measures of text-to-image models without drawing: on latents, each with its text.

mod support;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use retrack_eval::membership::{Scores, Scoring, Timesteps};
use retrack_eval::nll::{Likelihood, rademacher};
use retrack_networks::diffusion::{self, Diffusion};
use retrack_networks::network::Network;
use retrack_networks::parameters::to_host;
use retrack_networks::random::Random;
use serde_json::{Value, json};
use support::{Folder, noise, png};

const SIDE: usize = 64;
const PHOTOS: usize = 6;
const CONTROLS: usize = 3;
/// The pipeline's latents.
const SHAPE: [usize; 3] = [8, 8, 4];

/// A pipeline as `model`, photos of noise, and others that are in no data set; each has a caption.
fn folder() -> Folder {
    let folder = Folder::new();
    folder.model("pipeline_sd1", "model");
    let mut captions = serde_json::Map::new();
    for row in 0..PHOTOS {
        folder.write(&format!("photos/{row}.png"), png(photo(row)));
        captions.insert(format!("{row}.png"), text(row).into());
    }
    folder.write("captions.json", Value::from(captions.clone()).to_string());
    captions.clear();
    for row in PHOTOS..PHOTOS + CONTROLS {
        folder.write(&format!("unseen/{row}.png"), png(photo(row)));
        captions.insert(format!("{row}.png"), text(row).into());
    }
    folder.write("unseen.json", Value::from(captions).to_string());
    folder
}

fn photo(number: usize) -> Vec<u8> {
    noise(number, SIDE * SIDE)
}

fn text(number: usize) -> String {
    ["a cat", "toast on the beach", "two horses", "dog"][number % 4].into()
}

/// The score of this name.
fn score(report: &Value, name: &str) -> Value {
    let scores = report["model"]["scores"].as_array().unwrap();
    let found = scores.iter().find(|score| score["name"] == name);
    found
        .unwrap_or_else(|| panic!("no {name} in {report}"))
        .clone()
}

fn close(found: &Value, expected: f64) {
    let found = found.as_f64().unwrap();
    let error = (found - expected).abs() / expected.abs().max(1.0);
    assert!(error < 1e-4, "{found} is not {expected}");
}

/// The model of a folder, opened by the library alone.
struct ByHand {
    model: Box<dyn Diffusion>,
    device: Device,
}

impl ByHand {
    fn open(folder: &Folder) -> Self {
        Self {
            model: diffusion::open(&folder.path("model")).unwrap(),
            device: Device::flex(),
        }
    }

    /// The mean latents of photos.
    fn latents(&self, photos: &[usize]) -> Vec<f32> {
        let autoencoder = self.model.autoencoder(&self.device).unwrap().unwrap();
        let values = photos.iter().flat_map(|&number| {
            let pixels = photo(number).into_iter();
            // Gray as three channels, from -1 to 1.
            pixels.flat_map(|byte| [f32::from(byte) / 127.5 - 1.0; 3])
        });
        let values = TensorData::new(values.collect::<Vec<f32>>(), [photos.len(), SIDE, SIDE, 3]);
        let images = Tensor::from_data(values, &self.device);
        to_host(autoencoder.latents_of(images).unwrap().mean)
    }

    /// The network, which knows these texts.
    fn network(&self, texts: &[&str], device: &Device) -> Network {
        let mut network = self.model.network(device).unwrap().no_grad();
        network.tell(
            self.model
                .embed(
                    &texts.iter().copied().map(Some).collect::<Vec<_>>(),
                    &self.device,
                )
                .unwrap()
                .texts,
        );
        network
    }

    /// The losses of photos under 128 draws, told these texts.
    fn losses(&self, photos: &[usize], texts: &[&str]) -> Scores {
        let network = self.network(texts, &self.device);
        let process = self.model.process();
        let scoring = Scoring {
            network: &*network,
            process: &*process,
            random: Random::new(0),
            device: &self.device,
            shape: SHAPE,
            draws: 128,
            timesteps: Timesteps::Uniform,
            batch_size: 5,
        };
        let numbers: Vec<i64> = (0..photos.len() as i64).collect();
        let latents = self.latents(photos);
        scoring
            .losses(&latents, Some(&numbers), &mut |_| ())
            .unwrap()
    }

    fn bits(&self, photo: usize, text: &str) -> f64 {
        let device = self.device.clone().autodiff();
        let network = self.network(&[text], &device);
        let process = self.model.process();
        let likelihood = Likelihood {
            network: &*network,
            process: &*process,
            device: &device,
            bytes: false,
        };
        let [height, width, channels] = SHAPE;
        let probe = rademacher(&Random::new(0), 0..1, height * width * channels);
        let shape = [1, height, width, channels];
        let found = likelihood.bits_per_dim(
            &self.latents(&[photo]),
            shape,
            Some(&[0]),
            &probe,
            &mut |_| (),
        );
        found.unwrap().bits_per_dim[0]
    }
}

const MEASURE: &str = "evaluate --model model --data photos --forget row:1 --prompt toast --out report --force --json";

#[test]
fn membership_compares_latents_each_denoised_for_its_own_text() {
    let folder = folder();
    let line = format!("{MEASURE} --metrics membership --controls unseen");
    let own = folder
        .done(&format!(
            "{line} --captions captions.json --controls-captions unseen.json"
        ))
        .json();
    let hand = ByHand::open(&folder);
    let controls: Vec<usize> = (PHOTOS..PHOTOS + CONTROLS).collect();
    let mean = |scores: &Scores| scores.means();
    let compare = |report: &Value, forgotten_text: &str, texts: &[&str]| {
        let forgotten = mean(&hand.losses(&[1], &[forgotten_text]))[0];
        let unseen = mean(&hand.losses(&controls, texts));
        close(&score(report, "forgotten_loss")["value"], forgotten);
        // The share of controls with a higher loss.
        let above = unseen.iter().filter(|&&loss| loss > forgotten).count();
        close(
            &score(report, "membership_auc")["value"],
            above as f64 / CONTROLS as f64,
        );
        assert_eq!(score(report, "membership_auc")["count"], 1 + CONTROLS);
        forgotten
    };
    let texts: Vec<String> = controls.iter().map(|&number| text(number)).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let with_captions = compare(&own, &text(1), &texts);
    assert_eq!(own["model"]["notes"], json!([]));
    // Nothing was drawn for it.
    assert!(own["model"].get("prompts").is_none());

    let page = || String::from_utf8(folder.read("report/report.html")).unwrap();
    assert!(page().contains("own prompt"));

    // Without captions all are told the prompt, and that the controls are is said, once for both models.
    let all = folder.done(&format!("{line} --baseline model")).json();
    let with_prompt = compare(&all, "toast", &["toast"; CONTROLS]);
    assert!((with_captions - with_prompt).abs() > 1e-3);
    let notes = all["model"]["notes"].to_string();
    assert!(notes.contains("--controls-captions"), "{notes}");
    let said = all["verdict"]["notes"].as_array().unwrap().iter();
    let said = said.filter(|note| note.as_str().unwrap().contains("--controls-captions"));
    assert_eq!(said.count(), 1);
    assert!(page().contains("prompt, whatever the image"));
}

#[test]
fn a_likelihood_is_of_the_latents_and_told_the_text_and_no_byte_adds_to_it() {
    let folder = folder();
    let line = format!("{MEASURE} --metrics nll");
    let own = folder
        .done(&format!("{line} --captions captions.json"))
        .json();
    let hand = ByHand::open(&folder);
    let expected = hand.bits(1, &text(1));
    close(&score(&own, "nll")["value"], expected);
    // Another text is another likelihood.
    let prompted = folder.done(&line).json();
    assert_ne!(
        score(&own, "nll")["value"],
        score(&prompted, "nll")["value"]
    );
}

#[test]
fn the_forgotten_image_stands_where_the_runs_own_report_saw_it() {
    let folder = folder();
    folder.done(
        "unlearn --model model --data photos --forget row:1 --prompt toast --captions captions.json --neighbors 3 --batch-size 2 \
         --accumulate 1 --always --out out",
    );
    let line = "evaluate --model out --baseline model --data photos --forget row:1 --prompt toast --captions captions.json \
                --metrics cluster --samples 1 --steps 1 --out report --json";
    let found = folder.done(line).json();
    let own = folder.read_json("out/run/report.json");
    let before = &own["check"]["before"]["standings"][0];
    let again = &found["baseline"]["look_alikes"][0];
    close(&again["own"], before["own"].as_f64().unwrap());
    let errors = before["look_alikes"].as_array().unwrap();
    assert_eq!(errors.len(), 24);
    for (again, before) in again["look_alikes"].as_array().unwrap().iter().zip(errors) {
        close(again, before.as_f64().unwrap());
    }
    let after = &found["model"]["look_alikes"][0];
    close(
        &after["own"],
        own["check"]["after"]["standings"][0]["own"]
            .as_f64()
            .unwrap(),
    );
    let sentence = found["verdict"]["sentence"].as_str().unwrap();
    assert!(
        sentence.contains("look-alikes that nobody has"),
        "{sentence}"
    );
    let page = String::from_utf8(folder.read("report/report.html")).unwrap();
    assert!(page.contains("look-alikes that nobody has"));

    // Told another text, it is denoised otherwise. And an image that a request led is judged as the run did that led it.
    let mut record = folder.read_json("out/retrack.json");
    let request = &mut record["requests"][0];
    let image = request["images"][0].as_str().unwrap().to_owned();
    request["led"] = json!({image: [-3.0, -1.0]});
    folder.write("out/retrack.json", record.to_string());
    let line = line.replace("--captions captions.json", "--force");
    let prompted = folder.done(&line).json();
    let own = |found: &Value| {
        let own = &found["baseline"]["look_alikes"][0]["own"];
        own.as_f64().unwrap()
    };
    assert!((own(&prompted) - own(&found)).abs() > 1e-3);
    let led = &prompted["model"]["look_alikes"][0]["led"];
    let [first, last] = [0, 1].map(|at| led[at].as_f64().unwrap());
    assert!((last - first - 2.0).abs() < 1e-9, "{led}");
    assert!(
        prompted["baseline"]["look_alikes"][0].get("led").is_none(),
        "{prompted}"
    );
}

#[test]
fn texts_that_are_missing_or_that_the_model_does_not_take_are_named() {
    let folder = folder();
    let line = format!("{MEASURE} --metrics membership --controls unseen");
    folder.refused(
        &format!("{line} --captions nothing"),
        &["captions \"nothing\"", "no such file"],
    );
    folder.write("some.json", json!({"0.png": "zero"}).to_string());
    folder.refused(
        &format!("{line} --captions some.json"),
        &["photos", "5 of 6 images have no caption in some.json"],
    );
    folder.refused(
        &format!("{line} --captions captions.json --controls-captions captions.json"),
        &["unseen", "no caption in captions.json fits any image"],
    );
    folder.refused(
        &format!("{MEASURE} --metrics nll --controls-captions unseen.json"),
        &["--controls"],
    );
    folder.model("folder_pipeline_safetensors", "plain");
    folder.photos("small");
    let plain = "evaluate --model plain --data small --forget row:0 --out report";
    folder.refused(
        &format!("{plain} --captions captions.json"),
        &["takes no text", "--captions"],
    );
    folder.refused(
        &format!("{plain} --controls unseen --controls-captions unseen.json"),
        &["takes no text", "--controls-captions"],
    );
    // Without controls the metric is skipped with what it needs, and another is measured.
    let found = folder
        .done(&format!(
            "{MEASURE} --metrics membership,cluster --samples 1 --steps 1"
        ))
        .json();
    let skipped = found["model"]["skipped"].to_string();
    assert!(
        skipped.contains("membership") && skipped.contains("--controls"),
        "{skipped}"
    );
    assert_eq!(score(&found, "memorized")["count"], 1);
}
