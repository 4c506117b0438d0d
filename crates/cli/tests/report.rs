//! The report of every command that ends with one, and `retrack verify`.

mod support;

use std::process::Command;

use serde_json::{Value, json};
use support::{Folder, PHOTOS, SIDE, decode_base64, events, noise, photo_png};

const UNLEARN: &str = "unlearn --model model --data photos --forget photos/03.png --neighbors 4 --batch-size 4 \
                       --steps 4 --lr 1e-4 --out out";
const WEIGHTS: &str = "out/unet/diffusion_pytorch_model.safetensors";

fn unlearned(options: &str) -> Folder {
    let folder = Folder::with_model_and_photos();
    folder.done(&format!("{UNLEARN} {options}"));
    folder
}

fn page(folder: &Folder, name: &str) -> String {
    String::from_utf8(folder.read(name)).unwrap()
}

fn run(mut command: Command) -> (Option<i32>, String, String) {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// Every PNG file that lies anywhere in `bytes`.
fn pngs(bytes: &[u8]) -> Vec<&[u8]> {
    const START: &[u8] = b"\x89PNG\r\n\x1a\n";
    const END: &[u8] = b"IEND\xae\x42\x60\x82";
    let find = |from: usize, what: &[u8]| {
        let found = bytes[from..]
            .windows(what.len())
            .position(|window| window == what);
        found.map(|at| from + at)
    };
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(start) = find(from, START) {
        let end = find(start, END).expect("a whole picture") + END.len();
        found.push(&bytes[start..end]);
        from = end;
    }
    found
}

/// Whether a picture shows a row of these pixels, as large as it is or up to four times.
fn shows(png: &[u8], pixels: &[u8]) -> bool {
    let picture = image::load_from_memory(png).unwrap().into_luma8();
    let row = &pixels[..SIDE];
    picture.rows().any(|line| {
        let line: Vec<u8> = line.map(|pixel| pixel.0[0]).collect();
        (1..=4).any(|zoom| {
            (0..zoom).any(|offset| {
                let thin: Vec<u8> = line[offset..].iter().copied().step_by(zoom).collect();
                thin.windows(SIDE).any(|window| window == row)
            })
        })
    })
}

#[test]
fn a_run_ends_with_a_page_and_the_same_as_json() {
    let folder = unlearned("");
    let page = page(&folder, "out/run/report.html");
    let content = folder.read_json("out/run/report.json");
    assert_eq!(content["command"], "unlearn");
    let sentence = content["verdict"]["sentence"].as_str().unwrap();
    assert!(page.contains(sentence), "{sentence}");
    for id in [
        "request",
        "samples",
        "restoration",
        "metrics",
        "curves",
        "neighbors",
        "cost",
        "provenance",
    ] {
        assert!(page.contains(&format!("<section id=\"{id}\"")), "{id}");
    }
    // Every picture of the JSON is in the page, and no other.
    let pictures = content["pictures"].as_object().unwrap();
    assert!(pictures.len() >= 2);
    for picture in pictures.values() {
        assert!(page.contains(picture["png"].as_str().unwrap()));
    }
    assert_eq!(page.matches("<img ").count(), pictures.len());
    // Nothing is loaded from elsewhere, and the head forbids it.
    assert!(page.contains("default-src &#39;none&#39;; img-src data:;"));
    for call in [
        "http://", "https://", "url(", "@import", " src=\"/", "fetch(",
    ] {
        assert!(!page.contains(call), "{call}");
    }
    // What is seen on the way is recorded.
    let events = events(&folder, "out");
    assert!(
        events
            .iter()
            .all(|event| event["forgotten_error"].as_f64().unwrap() > 0.0)
    );
    let curves = content["curves"].as_array().unwrap();
    let points = |chart: usize| {
        curves[chart]["series"][0]["points"]
            .as_array()
            .unwrap()
            .len()
    };
    // Along the process, and on the way.
    assert_eq!([points(0), points(1)], [10, 5]);
}

#[test]
fn without_a_report_nothing_is_measured() {
    let folder = unlearned("--no-report");
    let files = folder.files("out");
    assert!(
        !files
            .keys()
            .any(|name| name.contains("report") || name.contains("key"))
    );
    assert!(files.contains_key("README.md"));
    folder.refused(
        "verify out",
        &["out", "`retrack unlearn --no-report` cannot be verified"],
    );
}

#[test]
fn the_report_changes_nothing_in_the_model() {
    let with = unlearned("");
    let without = unlearned("--no-report");
    assert!(with.read(WEIGHTS) == without.read(WEIGHTS));
}

#[test]
fn the_forgotten_image_is_nowhere_unless_it_may_be_shown() {
    let forgotten = noise(3, SIDE * SIDE);
    let seen = |folder: &Folder| {
        let mut pictures = 0;
        let mut seen = Vec::new();
        for (name, content) in folder.files("out") {
            if content
                .windows(forgotten.len())
                .any(|window| window == forgotten)
                || content
                    .windows(photo_png(3).len())
                    .any(|window| window == photo_png(3))
            {
                seen.push(name.clone());
            }
            let mut found: Vec<Vec<u8>> = pngs(&content).into_iter().map(<[u8]>::to_vec).collect();
            if name == "run/report.json" {
                let report: Value = serde_json::from_slice(&content).unwrap();
                for picture in report["pictures"].as_object().unwrap().values() {
                    found.push(decode_base64(picture["png"].as_str().unwrap()));
                }
            }
            pictures += found.len();
            if found.iter().any(|png| shows(png, &forgotten)) {
                seen.push(name);
            }
        }
        // Two grids in the report, the same two for TensorBoard.
        assert!(pictures >= 4, "{pictures}");
        seen
    };
    assert_eq!(seen(&unlearned("")), Vec::<String>::new());
    assert_eq!(seen(&unlearned("--show-forgotten")), ["run/report.json"]);
}

#[test]
fn verify_says_same_and_notices_what_differs() {
    let folder = unlearned("");
    let said = folder.done("verify out");
    assert!(said.stdout.starts_with("same: "), "{}", said.stdout);
    folder.done("verify out/run");

    let differs = |what: &str, change: &dyn Fn(), says: &[&str]| {
        let files = folder.files("");
        change();
        let (code, stdout, stderr) = run(folder.command("verify out --json"));
        assert_eq!(code, Some(1), "{what}\n{stdout}{stderr}");
        let found: Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!(found["same"], false, "{what}");
        for says in says {
            let differences = found["differences"].as_array().unwrap();
            let said = differences
                .iter()
                .any(|one| one.as_str().unwrap().contains(says));
            assert!(said, "{what}: without {says}: {stdout}");
        }
        for (name, content) in &files {
            if !name.ends_with('/') && folder.path(name).is_file() {
                folder.write(name, content);
            }
        }
    };
    let flip = |name: &str, from_end: usize| {
        let mut bytes = folder.read(name);
        let at = bytes.len() - from_end;
        bytes[at] ^= 1;
        folder.write(name, bytes);
    };
    differs(
        "one bit of the weights",
        &|| flip(WEIGHTS, 100),
        &["unet/diffusion_pytorch_model.safetensors: SHA-256"],
    );
    differs(
        "weights that are none",
        &|| folder.write(WEIGHTS, "gone"),
        &["unet/"],
    );
    differs(
        "one bit of the base model",
        &|| flip("model/unet/diffusion_pytorch_model.safetensors", 100),
        &["base model, unet/"],
    );
    differs(
        "another data set",
        &|| folder.write("photos/05.png", photo_png(PHOTOS + 5)),
        &["data set's SHA-256"],
    );
    differs(
        "the record",
        &|| flip("out/run/events.jsonl", 5),
        &["run/events.jsonl"],
    );
    differs(
        "the page",
        &|| flip("out/run/report.html", 500),
        &["run/report.html: not the page"],
    );
    let edit = |change: &dyn Fn(&mut Value)| {
        let mut report = folder.read_json("out/run/report.json");
        change(&mut report);
        folder.write("out/run/report.json", report.to_string());
    };
    differs(
        "another version",
        &|| edit(&|report| report["version"] = "9.9.9".into()),
        &["version of retrack: 9.9.9 recorded"],
    );
    differs(
        "a better score than was measured",
        &|| edit(&|report| report["check"]["after"]["restored"] = json!(77)),
        &["after: attempts that restored one: 77 recorded"],
    );
    differs(
        "an error that was not measured",
        &|| edit(&|report| report["check"]["after"]["control_errors"][0] = json!(1e-3)),
        &["after: denoising errors of controls"],
    );
    folder.done("verify out");

    // The card may be edited, and the key kept elsewhere.
    folder.write("out/README.md", "Mine.");
    std::fs::rename(folder.path("out.digest-key"), folder.path("key")).unwrap();
    let said = folder.done("verify out");
    assert!(said.stderr.contains("are not compared"), "{}", said.stderr);
    folder.write("out.digest-key", "0".repeat(64));
    let (code, stdout, _) = run(folder.command("verify out"));
    assert_eq!(code, Some(1));
    assert!(stdout.contains("keyed digests"), "{stdout}");
}

#[test]
fn verify_asks_where_things_went() {
    let folder = unlearned("");
    std::fs::rename(folder.path("model"), folder.path("moved")).unwrap();
    folder.refused("verify out", &["model: not found", "--model"]);
    folder.done("verify out --model moved");
    folder.refused(
        "verify photos",
        &["photos", "give the folder that `retrack unlearn` wrote"],
    );
    folder.write("out/run/report.json", "{}");
    folder.refused("verify out --model moved", &["report.json", "not a report"]);
}

#[test]
fn names_cannot_bring_markup_into_the_page_or_the_card() {
    let folder = Folder::new();
    let model = "mo`del\"<b onclick=alert(1)>";
    folder.model("folder_pipeline_safetensors", model);
    folder.write(
        &format!("{model}/README.md"),
        "---\nlicense: \"x\\n---\"\ndatasets: ['<img src=x onerror=alert(1)>']\n---\n",
    );
    folder.photos("photos");
    let photo = "<img src=x onerror=alert(1)>\"'&.png";
    std::fs::rename(
        folder.path("photos/03.png"),
        folder.path(&format!("photos/{photo}")),
    )
    .unwrap();
    let data = "<";
    std::fs::create_dir(folder.path("<")).unwrap();
    std::fs::rename(folder.path("photos"), folder.path("</script>")).unwrap();
    let mut command = folder.command(&format!(
        "unlearn --data {data}/script> --neighbors 4 --steps 1 --batch-size 4 --show-forgotten --out out"
    ));
    command.args(["--model", model]);
    command.args(["--forget", &format!("</script>/{photo}")]);
    let (code, _, stderr) = run(command);
    assert_eq!(code, Some(0), "{stderr}");
    let page = page(&folder, "out/run/report.html");
    assert!(
        page.contains("&lt;/script&gt;/&lt;img src=x onerror=alert(1)&gt;&quot;&#39;&amp;.png")
    );
    assert!(!page.contains("<img src=x") && !page.contains("<b onclick"));
    assert_eq!(page.matches("</script>").count(), 1);
    let card = String::from_utf8(folder.read("out/README.md")).unwrap();
    assert!(!card.contains("license:"), "{card}");
    assert!(
        card.contains("datasets: [") || !card.contains("datasets"),
        "{card}"
    );
    // One head, and code that nothing ends.
    assert_eq!(
        card.lines().filter(|line| *line == "---").count(),
        2,
        "{card}"
    );
    assert!(card.contains("`mo'del\"<b onclick=alert(1)>`"), "{card}");
}

#[test]
fn evaluations_and_experiments_end_with_a_report() {
    let folder = unlearned("--no-report");
    folder.done(
        "evaluate --model out --baseline model --data photos --forget photos/03.png --metrics \
         frequency,injection,copies,fid --threshold 2 --samples 4 --steps 3 --out found",
    );
    let report = folder.read_json("found/report.json");
    assert_eq!(
        report["metrics"][0]["columns"],
        json!(["baseline", "model"])
    );
    let notes = report["verdict"]["notes"].to_string();
    assert!(notes.contains("fid was skipped"), "{notes}");
    let html = page(&folder, "found/report.html");
    assert!(html.contains(report["verdict"]["headline"].as_str().unwrap()));
    assert!(html.contains("data-compare"));

    folder.write(
        "small.toml",
        "neighbors = 2\nsteps = 2\nbatch_size = 2\n\n[experiment]\nsampling_steps = 2\n",
    );
    folder.done(
        "experiment mnist-tshirt --model model --data photos --forget photos/03.png --methods retrack,neggrad --seeds \
         0-1 --metrics frequency --threshold 3 --samples 4 --config small.toml --out all",
    );
    let report = folder.read_json("all/report.json");
    assert_eq!(
        report["metrics"][0]["columns"],
        json!(["original", "retrack", "neggrad"])
    );
    assert_eq!(
        report["comparisons"][0]["rows"][1]["values"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    assert!(page(&folder, "all/report.html").contains("2 methods compared over 2 seeds"));
}

#[test]
fn samples_that_may_be_the_forgotten_image_are_covered_in_evaluations_too() {
    let folder = unlearned("--no-report");
    // Whatever is drawn is nearer than this to anything.
    let line = "evaluate --model out --data photos --forget photos/03.png --metrics frequency --threshold 1000 \
                --samples 4 --steps 3 --out";
    folder.done(&format!("{line} covered"));
    folder.done(&format!("{line} shown --show-forgotten"));
    let tiles = |name: &str| {
        let picture = image::load_from_memory(&folder.read(name))
            .unwrap()
            .into_luma8();
        let mut grays: Vec<u8> = picture.pixels().map(|pixel| pixel.0[0]).collect();
        grays.sort_unstable();
        grays.dedup();
        grays.len()
    };
    assert!(tiles("covered/model.png") <= 3);
    assert!(tiles("shown/model.png") > 3);
    let report = folder.read_json("covered/report.json");
    let note = report["samples"]["note"].as_str().unwrap();
    assert!(note.contains("4 are covered"), "{note}");
}

#[test]
fn verify_makes_the_verdict_the_tables_and_the_pictures_of_a_report_again() {
    let folder = unlearned("--show-forgotten");
    assert!(folder.done("verify out").stdout.starts_with("same: "));
    let original = folder.read("out/run/report.json");
    let differs = |what: &str, change: &dyn Fn(&mut Value)| {
        let mut report: Value = serde_json::from_slice(&original).unwrap();
        change(&mut report);
        folder.write("out/run/report.json", report.to_string());
        // The page says the same: whoever edits one edits both.
        let report: retrack_eval::report::Report = serde_json::from_value(report).unwrap();
        folder.write("out/run/report.html", report.html());
        let (code, stdout, stderr) = run(folder.command("verify out --json"));
        assert_eq!(code, Some(1), "{what}\n{stdout}{stderr}");
        let found: Value = serde_json::from_str(&stdout).unwrap();
        let differences = found["differences"].as_array().unwrap();
        assert_eq!(differences.len(), 1, "{what}: {stdout}");
        let said = differences[0].as_str().unwrap();
        assert!(said.contains(what), "{what}: {said}");
    };
    differs("the verdict", &|report| {
        report["verdict"]["outcome"] = "not_found".into();
        report["verdict"]["headline"] = "The forgotten image is no longer found".into();
        report["verdict"]["next"] = "".into();
    });
    differs("the verdict", &|report| {
        report["verdict"]["notes"] = json!([]);
    });
    differs("the title", &|report| {
        report["title"] = "Forgetting 9 images with SISS".into();
    });
    differs("the table of scores", &|report| {
        report["metrics"][0]["rows"][3]["values"][1]["value"] = json!(0.001);
    });
    differs("the chart of the errors", &|report| {
        report["comparisons"][0]["rows"][0]["values"][0] = json!(0.001);
    });
    differs("what came back from noise", &|report| {
        report["restoration"][0]["attempts"][1]["restored"] = json!(77);
    });
    differs("a curve over the steps", &|report| {
        report["curves"][1]["series"][0]["points"][0][1] = json!(0.001);
    });
    differs("what is said of the samples", &|report| {
        report["samples"]["note"] = "A thousand samples of each model.".into();
    });
    differs("\"Retained\" is not \"15 images\"", &|report| {
        report["request"]["facts"][3]["value"] = "15000 images".into();
    });
    differs(
        "its configuration is not that of run/config.json",
        &|report| {
            report["provenance"]["configuration"]["retained"] = json!(15_000);
        },
    );
    for name in ["samples-after", "restored", "forgotten"] {
        let what = format!("the picture {name} is not what the models draw");
        differs(&what, &|report| {
            report["pictures"][name]["png"] = report["pictures"]["neighbors"]["png"].clone();
        });
    }
    differs("the caption of samples-before", &|report| {
        report["pictures"]["samples-before"]["caption"] = "Before: 16 of 16".into();
    });
    folder.write("out/run/report.json", &original);
    let report: retrack_eval::report::Report = serde_json::from_slice(&original).unwrap();
    folder.write("out/run/report.html", report.html());
    folder.done("verify out");
}

#[test]
fn a_folder_whose_run_was_interrupted_says_so_to_whoever_wants_its_model() {
    let folder = Folder::with_model_and_photos();
    let line = UNLEARN.replace("--steps 4", "--steps 30");
    folder.kill_after_two_checkpoints(&format!("{line} --checkpoint-every 1"), "out");
    let says = ["out: the run there was interrupted", "--resume"];
    folder.refused("verify out", &says);
    folder.refused("sample --model out --count 1 --out new.png", &says);
    folder.refused(
        "evaluate --model out --data photos --forget row:3 --out found",
        &says,
    );
}

#[test]
fn the_page_of_a_model_with_classes_says_which_its_samples_are_of() {
    let folder = Folder::new();
    let images = folder.idx(12, SIDE, 3);
    folder.tiny_arch(json!({ "num_class_embeds": 3 }));
    folder.done(&format!(
        "train --data {images} --arch tiny.json --steps 1 --batch-size 4 --out model"
    ));
    folder.done(&format!(
        "unlearn --model model --data {images} --forget row:4 --neighbors 2 --batch-size 2 --steps 1 --out out"
    ));
    let report = folder.read_json("out/run/report.json");
    let note = report["samples"]["note"].as_str().unwrap();
    assert!(note.contains("They are of class 1,"), "{note}");
    folder.done("verify out");
}

#[test]
fn verify_says_same_however_the_folder_is_written() {
    let folder = Folder::with_model_and_photos();
    folder.done(&UNLEARN.replace("--out out", "--out ./a"));
    for path in ["a", "./a", "a/run"] {
        let said = folder.done(&format!("verify {path}"));
        assert!(said.stdout.starts_with("same: "), "{}", said.stdout);
    }
}
