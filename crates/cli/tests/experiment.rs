//! `retrack evaluate` and `retrack experiment`: what is measured, what is kept, and what goes on after an interruption.

mod support;

use std::time::Duration;

use support::Folder;

const EXPERIMENT: &str = "experiment mnist-tshirt --model model --data photos --forget photos/03.png --methods \
                          retrack,neggrad --seeds 0-1 --metrics frequency --threshold 3 --samples 4 --config \
                          small.toml --out out";
const SMALL: &str = "neighbors = 2\nsteps = 2\nbatch_size = 2\nlearning_rate = 1e-3\n\n[rate]\nneggrad = 1e-5\n\n\
                     [experiment]\nsampling_steps = 2\n";

fn folder() -> Folder {
    let folder = Folder::with_model_and_photos();
    folder.write("small.toml", SMALL);
    folder
}

#[test]
fn an_experiment_compares_every_method_with_the_original() {
    let folder = folder();
    let said = folder.done(EXPERIMENT);
    let lines: Vec<&str> = said.stdout.lines().collect();
    assert_eq!(
        lines[0].split_whitespace().collect::<Vec<_>>(),
        ["method", "repeats", "nearest_sample", "runs"]
    );
    for (line, name) in lines[1..4].iter().zip(["original", "retrack", "neggrad"]) {
        assert!(line.starts_with(name) && line.ends_with(" 2"), "{line}");
    }
    assert!(
        lines[4].contains("seeds 0, 1") && lines[4].contains("4 samples"),
        "{}",
        lines[4]
    );

    let files = folder.files("out");
    for line in ["original", "retrack", "neggrad"] {
        for seed in 0..2 {
            let result = folder.read_json(&format!("out/results/{line}-seed{seed}-forget0.json"));
            assert_eq!(result["scores"][0]["count"], 4);
            let model = format!("models/{line}-seed{seed}-forget0/model_index.json");
            assert_eq!(files.contains_key(&model), line != "original");
            // A method's own rate, and the file's rate for the others.
            match line {
                "neggrad" => assert_eq!(result["settings"]["learning_rate"], 1e-5),
                "retrack" => assert_eq!(result["settings"]["learning_rate"], 1e-3),
                _ => assert!(result["settings"].is_null()),
            }
        }
    }
    let summary = folder.read_json("out/summary.json");
    assert_eq!(summary["lines"][1]["scores"]["nearest_sample"]["count"], 2);
    let markdown = String::from_utf8(folder.read("out/summary.md")).unwrap();
    assert!(markdown.starts_with("| method | repeats | nearest_sample | runs |\n"));

    // Everything is there: nothing is made again.
    let again = folder.done(EXPERIMENT);
    assert_eq!(again.stdout, said.stdout);
    let results = |mut files: std::collections::BTreeMap<String, Vec<u8>>| {
        // The report is dated.
        let list = retrack_checkpoint::written::NAME;
        files.retain(|name, _| !name.starts_with("report.") && name != list);
        files
    };
    assert!(results(folder.files("out")) == results(files));
    // A method more: the others stay.
    let more = EXPERIMENT.replace("retrack,neggrad", "retrack,neggrad,finetune");
    assert!(folder.done(&more).stdout.contains("\nfinetune"));
}

#[test]
fn a_dry_run_says_which_runs_are_missing_and_what_they_need() {
    let folder = folder();
    let plan = folder.done(&format!("{EXPERIMENT} --dry-run")).json();
    assert_eq!(plan["runs"]["missing"].as_array().unwrap().len(), 6);
    assert!(plan["needs"]["memory_bytes"].as_u64().unwrap() > 64_000_000);
    assert!(!folder.path("out").exists(), "a dry run wrote something");
    folder.done(EXPERIMENT);
    std::fs::remove_file(folder.path("out/results/neggrad-seed1-forget0.json")).unwrap();
    let plan = folder.done(&format!("{EXPERIMENT} --dry-run")).json();
    assert_eq!(
        plan["runs"]["missing"],
        serde_json::json!(["neggrad-seed1-forget0"])
    );
}

#[test]
fn an_experiment_that_was_killed_goes_on() {
    let whole = folder();
    whole.done(EXPERIMENT);
    let folder = folder();
    let mut child = folder.command(EXPERIMENT).spawn().unwrap();
    let results = folder.path("out/results");
    let count = || std::fs::read_dir(&results).map_or(0, Iterator::count);
    while count() < 2 {
        assert!(
            child.try_wait().unwrap().is_none(),
            "ended before it could be killed"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    folder.done(EXPERIMENT);
    assert!(folder.read("out/summary.json") == whole.read("out/summary.json"));
}

#[test]
fn the_seconds_of_an_experiment_are_those_of_all_its_runs_whenever_they_were_made() {
    let folder = folder();
    folder.done(EXPERIMENT);
    let result = || folder.read_json("out/results/retrack-seed0-forget0.json");
    let time = || {
        let report = folder.read_json("out/report.json");
        let cost = report["cost"].as_array().unwrap().clone();
        let time = cost.iter().find(|fact| fact["name"] == "Time").unwrap()["value"].clone();
        let seconds = time.as_str().unwrap().trim_end_matches(" s").parse::<f64>();
        seconds.unwrap()
    };
    let (seconds, whole) = (result()["seconds"].as_f64().unwrap(), time());
    assert!(result()["measuring_seconds"].as_f64().unwrap() > 0.0);
    // Nothing is made again, and what it took is still said.
    folder.done(EXPERIMENT);
    assert_eq!(time(), whole);
    // As a kill leaves it: made, and not measured. The model's own record knows how long it took.
    std::fs::remove_file(folder.path("out/results/retrack-seed0-forget0.json")).unwrap();
    folder.done(EXPERIMENT);
    let recorded = result()["seconds"].as_f64().unwrap();
    assert!(
        recorded > 0.0 && recorded <= seconds,
        "{recorded} of {seconds}"
    );
}

#[test]
fn another_experiment_in_the_same_folder_is_refused() {
    let folder = folder();
    folder.done(EXPERIMENT);
    let samples = EXPERIMENT.replace("--samples 4", "--samples 5");
    folder.refused(&samples, &["out", "another protocol.samples"]);
    let dry = format!("{samples} --dry-run");
    folder.refused(&dry, &["out", "another protocol.samples"]);
    folder.write(
        "small.toml",
        SMALL
            .replace("steps = 2\n", "steps = 3\n")
            .replace("sampling_steps = 3", "sampling_steps = 2"),
    );
    folder.refused(EXPERIMENT, &["results", "another settings.steps"]);
    folder.write("small.toml", SMALL);
    // A model that was never measured is no other settings' model either.
    std::fs::remove_file(folder.path("out/results/neggrad-seed1-forget0.json")).unwrap();
    folder.write(
        "small.toml",
        SMALL.replace("neggrad = 1e-5", "neggrad = 2e-5"),
    );
    let alone = EXPERIMENT
        .replace("retrack,neggrad", "neggrad")
        .replace("0-1", "1");
    folder.refused(&alone, &["models", "another settings.learning_rate"]);
    folder.write("small.toml", SMALL);
    folder.done(EXPERIMENT);
    let unknown = EXPERIMENT.replace("mnist-tshirt", "mnist");
    folder.refused(&unknown, &["mnist: unknown", "mnist-tshirt, cifar10"]);
    let seeds = EXPERIMENT.replace("0-1", "1-0");
    folder.refused(&seeds, &["--seeds 1-0"]);
    for (listed, twice, says) in [
        (
            "--seeds 0-1",
            "--seeds 3,0-2,1",
            "--seeds: 1 is listed twice",
        ),
        (
            "--methods retrack,neggrad",
            "--methods retrack,neggrad,retrack",
            "--methods: retrack is listed twice",
        ),
        (
            "--metrics frequency",
            "--metrics frequency,frequency",
            "--metrics: frequency is listed twice",
        ),
        (
            "--forget photos/03.png",
            "--forget photos/03.png --forget photos/03.png",
            "--forget: photos/03.png is listed twice",
        ),
    ] {
        folder.refused(&EXPERIMENT.replace(listed, twice), &[says]);
    }
    folder.write(
        "small.toml",
        SMALL.replace("[experiment]", "[experiment]\nseeds = [4, 4]"),
    );
    let preset = EXPERIMENT.replace("--seeds 0-1 ", "");
    folder.refused(&preset, &["--seeds: 4 is listed twice"]);
    folder.write("small.toml", SMALL);
    let unknown = EXPERIMENT.replace("retrack,neggrad", "retrack,negrad");
    folder.refused(
        &unknown,
        &["negrad", "retrack, finetune, neggrad, erasediff, siss"],
    );
    let unknown = EXPERIMENT.replace("--metrics frequency", "--metrics fidd");
    folder.refused(
        &unknown,
        &[
            "fidd",
            "frequency, injection, sscd, nll, membership, relearn, copies, digits, fid, is",
        ],
    );
    folder.write("taken/something", "else");
    let elsewhere = EXPERIMENT.replace("--out out", "--out taken");
    folder.refused(&elsewhere, &["taken: not empty"]);
}

#[test]
fn what_a_preset_or_a_file_forgets_and_the_data_lacks_is_not_said_to_be_typed() {
    let folder = folder();
    let line = EXPERIMENT.replace("--forget photos/03.png ", "");
    // 16 photos without labels.
    let rows = line.replace("mnist-tshirt", "cifar10");
    folder.refused(
        &rows,
        &[
            "the preset cifar10 has row:10000",
            "give --forget for what this data set has",
        ],
    );
    folder.refused(
        &line,
        &["the preset mnist-tshirt has label:10", "give --forget"],
    );
    let listing = |forget: &str| {
        let said = format!("[experiment]\nforget = [{forget}]");
        folder.write("small.toml", SMALL.replace("[experiment]", &said));
    };
    listing("\"row:99\"");
    folder.refused(&line, &["small.toml has row:99", "give --forget"]);
    listing("\"row:3\", \"photos/03.png\"");
    folder.refused(
        &line,
        &["`forget` of small.toml: photos/03.png is the same as row:3"],
    );
    listing("\"row:3\", \"row:3\"");
    folder.refused(&line, &["`forget` of small.toml: row:3 is listed twice"]);
    folder.write("small.toml", SMALL);
    // Typed, it is the user's own; and the remedy works.
    folder.refused(
        &format!("{rows} --forget row:99"),
        &["error: \"row:99\" selects row 99"],
    );
    folder.done(&format!("{rows} --forget row:3 --dry-run"));
}

#[test]
fn an_experiment_writes_its_models_in_the_type_that_was_asked_for_and_goes_on_with_the_same() {
    let folder = folder();
    let line = EXPERIMENT
        .replace("retrack,neggrad", "neggrad")
        .replace("0-1", "0")
        .replace("--metrics frequency", "--metrics nll");
    let narrow = format!("{line} --dtype bf16");
    let said = folder.done(&narrow);
    assert!(!said.stdout.contains("samples a run"), "{}", said.stdout);
    assert_eq!(folder.read_json("out/experiment.json")["dtype"], "BF16");
    let weights =
        folder.read("out/models/neggrad-seed0-forget0/unet/diffusion_pytorch_model.safetensors");
    let header = String::from_utf8_lossy(&weights[8..600]);
    assert!(
        header.contains("BF16") && !header.contains("\"F32\""),
        "{header}"
    );
    folder.done(&narrow);
    for other in [line.clone(), format!("{line} --dtype f32")] {
        folder.refused(&other, &["out", "another dtype"]);
    }
    let plain = line.replace("--out out", "--out plain");
    folder.done(&plain);
    assert!(
        folder
            .read_json("plain/experiment.json")
            .get("dtype")
            .is_none()
    );
}

#[test]
fn what_a_metric_needs_is_said_and_used_when_it_is_given() {
    let folder = folder();
    let evaluate = "evaluate --model model --data photos --forget photos/03.png --metrics \
                    membership,nll,copies,fid,is --samples 4 --steps 2 --json --out report";
    let without = folder.done(evaluate);
    for says in [
        "membership was skipped: give --controls",
        "copies was skipped: a sample is measured by its 50 nearest training images, and this data set has only 16",
        "fid was skipped: give --inception FILE: pt_inception-2015-12-05-6726825d.pth",
        "is was skipped: give --inception",
    ] {
        assert!(without.stderr.contains(says), "{says}: {}", without.stderr);
    }
    let scores = &without.json()["model"]["scores"];
    assert_eq!(scores[0]["name"], "nll");
    assert!(scores[0]["value"].as_f64().unwrap().is_finite());

    let with = folder.done(&format!("{evaluate} --force --controls photos"));
    let scores = &with.json()["model"]["scores"];
    assert_eq!(scores[0]["name"], "membership_auc");
    let auc = scores[0]["value"].as_f64().unwrap();
    let [low, high] = [0, 1].map(|end| scores[0]["interval"][end].as_f64().unwrap());
    assert!(
        0.0 <= low && low <= auc && auc <= high && high <= 1.0,
        "{auc}"
    );
    folder.write("broken.pth", "no weights");
    let broken = evaluate.replace("report", "other");
    folder.refused(&format!("{broken} --inception broken.pth"), &["broken.pth"]);
}

#[test]
fn few_samples_are_said_with_the_bias_that_they_bring() {
    let assets = support::parity()
        .join("../../assets")
        .canonicalize()
        .unwrap();
    let folder = Folder::new();
    let said = folder.done(&format!(
        // All samples are judged, though what two steps draw is often the T-shirt.
        "evaluate --model {0}/base-model --data {0}/digits.parquet --forget label:10 --metrics digits --samples 40 \
         --steps 2 --threshold 0.001 --out report",
        assets.display()
    ));
    let says = "warning: model: digit_frechet is of 40 samples against ";
    let after = said.stderr.split_once(says);
    let (_, note) = after.unwrap_or_else(|| panic!("{}", said.stderr));
    let bias = note.split_once("too large by about ").unwrap().1;
    let bias: f64 = bias.split(',').next().unwrap().parse().unwrap();
    let json = folder.read_json("report/metrics.json");
    let distance = json["model"]["scores"][0]["value"].as_f64().unwrap();
    assert!(0.0 < bias && bias < distance, "{bias} of {distance}");
    assert!(
        json["model"]["notes"][0]
            .as_str()
            .unwrap()
            .contains("from 192 on")
    );
}

#[test]
fn evaluate_puts_a_model_beside_the_one_before() {
    let folder = folder();
    let evaluate = "evaluate --model model --baseline model --data photos --forget photos/03.png --threshold 3 \
                    --metrics frequency,injection,digits --samples 4 --steps 2 --out report";
    let said = folder.done(evaluate);
    let lines: Vec<Vec<&str>> = said
        .stdout
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(lines[0], ["score", "baseline", "model", "of"]);
    assert!(lines[6].is_empty(), "{}", said.stdout);
    assert_eq!(
        lines.last().unwrap().join(" "),
        "report: report/report.html"
    );
    for line in &lines[1..6] {
        assert_eq!(line[1], line[2], "the same model and the same seed");
    }
    // What does not fit says why, and makes no number up.
    assert!(
        said.stderr.contains("digits was skipped: made for 28 x 28"),
        "{}",
        said.stderr
    );
    let json = folder.read_json("report/metrics.json");
    assert_eq!(json["model"]["scores"], json["baseline"]["scores"]);
    assert_eq!(json["model"]["skipped"][0]["metric"], "digits");
    assert!(folder.files("report").contains_key("model.png"));
    folder.refused(evaluate, &["report", "--force"]);
    folder.done(&format!("{evaluate} --force"));

    let no_threshold = evaluate
        .replace("--threshold 3 ", "")
        .replace("report", "other");
    let said = folder.done(&no_threshold);
    assert!(
        said.stdout
            .contains("less than half of that image's distance to its nearest retained image"),
        "{}",
        said.stdout
    );
    let json = folder.read_json("other/metrics.json");
    assert!(json["protocol"]["threshold"].is_null());
    assert_eq!(json["model"]["scores"][0]["name"], "repeats");
    let sscd = evaluate
        .replace("frequency,injection,digits", "injection,sscd")
        .replace("report", "similar");
    let said = folder.done(&sscd);
    let lacks = "sscd was skipped: give --sscd FILE: sscd_disc_mixup";
    assert!(said.stderr.contains(lacks), "{}", said.stderr);
    let network = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../fixtures/parity/sscd_tiny/model.onnx"
    );
    folder.done(&format!("{sscd} --force --sscd {network}"));
    let json = folder.read_json("similar/metrics.json");
    let score = &json["model"]["scores"][3];
    assert_eq!(score["name"], "sscd");
    assert_eq!(score["count"], 16);
    let similarity = score["value"].as_f64().unwrap();
    assert!(similarity > 0.0 && similarity <= 1.0, "{similarity}");
    let foreign = format!("{sscd} --force --sscd photos/03.png");
    folder.refused(
        &foreign,
        &["photos/03.png: no whole ONNX", "torch.onnx.export"],
    );

    // Before anything is measured: at once, and nothing is left.
    folder.write("taken", "a file");
    let out = |path: &str| evaluate.replace("--out report", &format!("--out {path}"));
    folder.refused(&out("taken"), &["taken: not a folder", "choose another"]);
    folder.refused(
        &out("taken/below"),
        &["taken/below: cannot be the output folder"],
    );
    if cfg!(target_os = "linux") {
        folder.refused(
            &out("/proc/retrack"),
            &["/proc/retrack: cannot be the output folder"],
        );
        folder.refused(
            &out("/proc"),
            &["/proc: cannot be the output folder", "choose another"],
        );
    }
    let wrong = evaluate.replace("report", "third");
    folder.refused(&wrong.replace("--samples 4", "--samples 0"), &["samples"]);
    folder.refused(
        &wrong.replace("--threshold 3", "--threshold 0"),
        &["--threshold"],
    );
}

#[test]
fn more_neighbors_than_retained_images_are_refused_before_the_original_is_measured() {
    let folder = Folder::new();
    folder.model("folder_pipeline_safetensors", "model");
    for row in 0..6 {
        folder.write(&format!("photos/{row}.png"), support::photo_png(row));
    }
    let line = "experiment mnist-tshirt --model model --data photos --forget row:3 --forget row:4 --seeds 0 --metrics \
                frequency --threshold 3 --samples 4 --out out";
    let says = [
        "only 5 images are retained",
        "`neighbors` in a TOML file that --config names",
    ];
    let retrack = format!("{line} --methods retrack");
    folder.refused(&format!("{retrack} --dry-run"), &says);
    folder.refused(&retrack, &says);
    // The remedy works, and a method without neighbors needs none.
    folder.write("small.toml", SMALL);
    folder.done(&format!("{retrack} --config small.toml --dry-run"));
    folder.done(&format!("{line} --methods finetune --dry-run"));
    // Copies of the forgotten image are not retained either.
    for row in 0..5 {
        folder.write(&format!("photos/{row}.png"), support::photo_png(7));
    }
    folder.write("photos/5.png", support::photo_png(8));
    let line = retrack.replace("--forget row:4", "--forget row:5");
    folder.refused(
        &format!("{line} --config small.toml --dry-run"),
        &["2 neighbors were asked for, but only 1 image is retained"],
    );
    folder.write("photos/5.png", support::photo_png(7));
    let line = retrack.replace(" --forget row:4", "");
    folder.refused(
        &format!("{line} --config small.toml --dry-run"),
        &["nothing would be retained"],
    );
}

#[test]
fn one_image_that_is_named_in_two_ways_is_not_forgotten_twice() {
    let folder = folder();
    let twice = EXPERIMENT.replace(
        "--forget photos/03.png",
        "--forget photos/03.png --forget row:3",
    );
    folder.refused(&twice, &["row:3 is the same as photos/03.png"]);
    // Nor is a copy of it.
    folder.write("photos/copy.png", support::photo_png(3));
    let twice = twice.replace("row:3", "row:16");
    folder.refused(&twice, &["row:16 is the same as photos/03.png"]);
}

#[test]
fn a_run_that_diverges_is_named_and_the_others_go_on() {
    let folder = folder();
    folder.write(
        "small.toml",
        SMALL
            .replace("neggrad = 1e-5", "neggrad = 1e30")
            .replace("steps = 2\n", "steps = 4\n"),
    );
    let said = folder.ends(
        &EXPERIMENT.replace("retrack,neggrad", "neggrad,finetune"),
        1,
    );
    let named = "neggrad-seed0-forget0: unlearning failed: the loss is ";
    assert!(said.stderr.contains(named), "{}", said.stderr);
    let finetune = said
        .stdout
        .lines()
        .find(|line| line.starts_with("finetune"));
    assert!(
        finetune.is_some_and(|line| line.ends_with(" 2")),
        "{}",
        said.stdout
    );
    let summary = folder.read_json("out/summary.json");
    assert!(
        summary["failed"][0].as_str().unwrap().starts_with(named),
        "{summary}"
    );
    let page = String::from_utf8(folder.read("out/report.html")).unwrap();
    assert!(page.contains(named) && page.contains("Of neggrad it is not known"));
    let result = folder.read_json("out/results/neggrad-seed0-forget0.json");
    assert_eq!(result["scores"], serde_json::json!([]));
    // The same command does not train it again.
    let again = folder.ends(
        &EXPERIMENT.replace("retrack,neggrad", "neggrad,finetune"),
        1,
    );
    assert!(
        again.stderr.contains("neggrad-seed0-forget0 is complete"),
        "{}",
        again.stderr
    );
    assert_eq!(again.stdout, said.stdout);
}

#[test]
fn a_model_that_lost_what_it_should_keep_is_named_in_result_and_verdict() {
    let assets = support::parity()
        .join("../../assets")
        .canonicalize()
        .unwrap();
    let folder = Folder::new();
    folder.write(
        "wild.toml",
        "steps = 8\nbatch_size = 4\naccumulate = 1\n[rate]\nneggrad = 5e-3\n[experiment]\nsampling_steps = 2\n",
    );
    let said = folder.done(&format!(
        "experiment demo --model {0}/base-model --data {0}/digits.parquet --forget label:10 --methods neggrad,finetune \
         --seeds 0 --metrics frequency --threshold 0.001 --samples 4 --config wild.toml --out out",
        assets.display()
    ));
    let lost = "neggrad lost what it should keep in neggrad-seed0-forget0";
    assert!(said.stdout.contains(lost), "{}", said.stdout);
    assert!(!said.stdout.contains("finetune lost"), "{}", said.stdout);
    let result = folder.read_json("out/results/neggrad-seed0-forget0.json");
    let collapse = result["collapse"].as_str().unwrap();
    assert!(
        collapse.contains("the loss of the retained images"),
        "{collapse}"
    );
    let summary = folder.read_json("out/summary.json");
    assert_eq!(
        summary["collapsed"].as_array().unwrap().len(),
        1,
        "{summary}"
    );
}

#[test]
fn controls_that_are_images_of_the_data_set_are_left_out_and_counted() {
    let folder = folder();
    for row in 0..6 {
        // Rows 2 and 3 are photos of the data set, the second of them the forgotten one.
        let photo = if (2..4).contains(&row) {
            row
        } else {
            100 + row
        };
        folder.write(&format!("controls/{row}.png"), support::photo_png(photo));
    }
    let line = "evaluate --model model --data photos --forget photos/03.png --metrics membership --json --out";
    let said = folder.done(&format!("{line} some --controls controls"));
    let note = "2 of 6 controls are images of the data set, which the model may have seen: membership leaves them out";
    assert!(said.stderr.contains(note), "{}", said.stderr);
    let json = said.json();
    assert_eq!(json["model"]["scores"][0]["count"], 1 + 4);
    assert!(
        json["verdict"]["notes"].to_string().contains(note),
        "{json}"
    );
    for name in ["2.png", "3.png"] {
        std::fs::remove_file(folder.path(&format!("controls/{name}"))).unwrap();
    }
    let alone = folder.done(&format!("{line} alone --controls controls"));
    assert_eq!(alone.json()["model"]["scores"], json["model"]["scores"]);
    assert!(
        !alone.stderr.contains("of the data set"),
        "{}",
        alone.stderr
    );
    // Some of its images alone are no others than all of them.
    folder.write("seen/a.png", support::photo_png(3));
    folder.write("seen/b.png", support::photo_png(7));
    let known = folder.done(&format!("{line} known --controls seen"));
    let known = known.json();
    let notes = known["verdict"]["notes"].to_string();
    assert!(notes.contains("membership then tells nothing"), "{notes}");
    assert!(!notes.contains("never seen"), "{notes}");
}

#[test]
fn without_a_baseline_no_image_is_said_to_be_found_no_longer() {
    let folder = folder();
    let line = "evaluate --model model --data photos --forget photos/03.png --threshold 0.001 --metrics frequency \
                --samples 2 --steps 2 --json";
    let verdict = folder.done(&format!("{line} --out alone")).json()["verdict"].clone();
    assert_eq!(verdict["headline"], "Unknown: no such image is known");
    assert!(
        verdict["notes"].to_string().contains("Without --baseline"),
        "{verdict}"
    );
    let beside = folder
        .done(&format!("{line} --baseline model --out beside"))
        .json();
    assert!(
        !beside["verdict"]["notes"]
            .to_string()
            .contains("--baseline nothing")
    );
}
