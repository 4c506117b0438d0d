//! `retrack evaluate` and `experiment` where something is missing, fails, or is of another kind than the published
//! experiments: what is said, what is counted, and how the command ends.

mod support;

use serde_json::{Value, json};
use support::{Folder, SIDE, noise, png};

const EVALUATE: &str = "evaluate --model model --data photos --samples 4 --steps 2 --out report";

fn scores(report: &Value, model: &str) -> Vec<String> {
    let scores = report[model]["scores"].as_array().unwrap();
    let names = scores.iter().map(|score| score["name"].as_str().unwrap());
    names.map(str::to_string).collect()
}

fn score(report: &Value, model: &str, name: &str) -> f64 {
    let scores = report[model]["scores"].as_array().unwrap();
    let found = scores.iter().find(|score| score["name"] == name);
    found.unwrap_or_else(|| panic!("no {name}: {report}"))["value"]
        .as_f64()
        .unwrap()
}

/// Makes `name` a copy of the tiny model whose scheduler has other values for these keys.
fn with_schedule(folder: &Folder, name: &str, changes: Value) {
    folder.model("folder_pipeline_safetensors", name);
    let path = format!("{name}/scheduler/scheduler_config.json");
    let mut config = folder.read_json(&path);
    let changes = changes.as_object().unwrap().clone();
    config.as_object_mut().unwrap().extend(changes);
    folder.write(&path, config.to_string());
}

/// Makes `name` a model whose weights are finite and whose output is not.
fn broken_model(folder: &Folder, name: &str) {
    folder.model("folder_pipeline_safetensors", name);
    let path = format!("{name}/unet/diffusion_pytorch_model.safetensors");
    let mut bytes = folder.read(&path);
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let tensor = &header["conv_in.weight"];
    assert_eq!(tensor["dtype"], "F32");
    let [start, end] = [0, 1].map(|at| tensor["data_offsets"][at].as_u64().unwrap() as usize);
    for value in bytes[8 + length..][start..end].chunks_exact_mut(4) {
        value.copy_from_slice(&3e38f32.to_le_bytes());
    }
    folder.write(&path, bytes);
}

#[test]
fn a_schedule_of_few_timesteps_is_measured_to_its_own_quarter() {
    let folder = Folder::with_model_and_photos();
    for (timesteps, changes) in [
        (200, json!({ "num_train_timesteps": 200 })),
        (20, json!({ "num_train_timesteps": 20, "steps_offset": 1 })),
        (3, json!({ "num_train_timesteps": 3 })),
        (1, json!({ "num_train_timesteps": 1 })),
        (1000, json!({ "steps_offset": 1 })),
        (
            1000,
            json!({ "rescale_betas_zero_snr": true, "timestep_spacing": "leading" }),
        ),
    ] {
        with_schedule(&folder, "short", changes.clone());
        let said = folder.done(
            "evaluate --model short --data photos --forget row:1 --metrics injection,frequency,nll --samples 2 --force \
             --out report --json",
        );
        folder.done(
            "unlearn --model short --data photos --forget row:1 --neighbors 2 --steps 1 --batch-size 2 --force --out new",
        );
        let report = said.json();
        // Three timesteps are too few for an equation, and enough for all else.
        let expected = if timesteps == 3 { 5 } else { 6 };
        assert_eq!(
            scores(&report, "model").len(),
            expected,
            "{changes}: {report}"
        );
        let steps = report["protocol"]["sampling_steps"].as_u64().unwrap();
        // An offset leaves room for one step less than all.
        let expected = if timesteps == 20 {
            19
        } else {
            timesteps.min(50)
        };
        assert_eq!(steps, expected);
    }
    with_schedule(&folder, "short", json!({ "num_train_timesteps": 20 }));
    folder.done("sample --model short --count 1 --out short.png");
    folder.refused(
        "sample --model short --count 1 --steps 21 --out other.png",
        &["21 sampling steps", "1 to 20"],
    );
    folder.write("small.toml", "neighbors = 2\nsteps = 1\nbatch_size = 2\n");
    let said = folder.done(
        "experiment mnist-tshirt --model short --data photos --forget row:1 --methods finetune --seeds 0 --metrics \
         injection --config small.toml --out all",
    );
    assert!(
        said.stderr.contains("samples are drawn in 20 steps"),
        "{}",
        said.stderr
    );
}

#[test]
fn a_schedule_too_coarse_for_a_likelihood_is_named_and_nothing_else_is_lost() {
    let folder = Folder::with_model_and_photos();
    let betas = json!({ "num_train_timesteps": 4, "trained_betas": [0.1, 0.4, 0.6, 0.9] });
    with_schedule(&folder, "coarse", betas);
    let line = "evaluate --model coarse --data photos --forget row:1 --samples 2 --out report";
    let said = folder.done(&format!("{line} --metrics nll,frequency"));
    assert!(
        said.stderr
            .contains("nll was skipped: the schedule's steps are too coarse"),
        "{}",
        said.stderr
    );
    let found = folder.read_json("report/metrics.json");
    assert_eq!(scores(&found, "model"), ["repeats", "nearest_sample"]);
    assert_eq!(found["model"]["skipped"][0]["metric"], "nll");
    folder.refused(
        &format!("{} --metrics nll", line.replace("report", "other")),
        &["nothing can be measured: nll was skipped", "at timestep 0"],
    );
}

#[test]
fn half_the_way_to_the_nearest_retained_image_counts_where_no_threshold_was_given() {
    let folder = Folder::with_model_and_photos();
    // A near copy of row 3 among the retained ones says nothing about how far others are.
    let mut near = noise(3, SIDE * SIDE);
    near[0] ^= 1;
    folder.write("photos/99.png", png(near));
    let said = folder.done(&format!("{EVALUATE} --forget photos/03.png"));
    let distance = |a: usize, b: usize| {
        let (a, b) = (noise(a, SIDE * SIDE), noise(b, SIDE * SIDE));
        let squares = a
            .iter()
            .zip(b)
            .map(|(a, b)| f64::from(a.abs_diff(b)).powi(2));
        squares.sum::<f64>().sqrt() / 255.0
    };
    let others = (0..support::PHOTOS).filter(|row| *row != 3);
    let nearest = others.map(|row| distance(3, row)).fold(f64::MAX, f64::min);
    let report = folder.read_json("report/metrics.json");
    let threshold = report["thresholds"][0].as_f64().unwrap();
    assert!(
        (threshold - nearest / 2.0).abs() < 1e-9,
        "{threshold} {nearest}"
    );
    let says = format!("no copy: {threshold:.3}, Euclidean");
    assert!(said.stdout.contains(&says), "{}", said.stdout);
    let page = String::from_utf8(folder.read("report/report.html")).unwrap();
    assert!(page.contains(&format!("no copy: {threshold:.3}")));
    assert!(page.contains("Samples are drawn by") && page.contains("DDPM in "));

    // Nothing to compare with: a number is asked for before anything is done.
    folder.refused(
        "evaluate --model model --data photos --forget rows:0-15 --samples 4 --steps 2 --out other",
        &["no retained image is left", "--threshold"],
    );
}

#[test]
fn samples_that_show_any_of_several_images_count_whichever_they_show() {
    let folder = Folder::with_model_and_photos();
    folder.done(&format!(
        "{EVALUATE} --forget rows:0-3 --threshold 1000 --metrics frequency,injection"
    ));
    let report = folder.read_json("report/metrics.json");
    assert_eq!(
        scores(&report, "model"),
        [
            "repeats",
            "repeats_of_one",
            "nearest_sample",
            "restored",
            "restored_distance",
            "restored_look_alikes"
        ]
    );
    assert_eq!(score(&report, "model", "repeats"), 4.0);
    let together = score(&report, "model", "nearest_sample");
    let alone = (0..4).map(|row| {
        folder.done(&format!(
            "{EVALUATE} --forget row:{row} --threshold 1000 --metrics frequency --force"
        ));
        score(
            &folder.read_json("report/metrics.json"),
            "model",
            "nearest_sample",
        )
    });
    assert_eq!(together, alone.fold(f64::MAX, f64::min));
}

#[test]
fn what_cannot_be_measured_at_all_is_refused_with_all_its_reasons() {
    let folder = Folder::with_model_and_photos();
    let line = format!("{EVALUATE} --forget row:3");
    for (metrics, says) in [
        ("sscd", &["nothing can be measured", "--sscd FILE"][..]),
        (
            "copies",
            &["50 nearest training images", "only 16 different ones"],
        ),
        (
            "fid,is,membership",
            &["fid was skipped", "is was skipped", "--controls SRC"],
        ),
        ("cluster", &["for text-to-image models"]),
        ("digits", &["28 x 28"]),
    ] {
        folder.refused(&format!("{line} --metrics {metrics}"), says);
    }
    let experiment = "experiment mnist-tshirt --model model --data photos --forget row:3 --seeds 0 --metrics fid --out all";
    folder.refused(experiment, &["nothing can be measured", "--inception FILE"]);
}

#[test]
fn a_metric_that_fails_is_named_and_the_exit_is_1_and_the_others_stay() {
    let folder = Folder::with_model_and_photos();
    broken_model(&folder, "broken");
    let line = "evaluate --model broken --baseline model --data photos --forget row:3 --samples 2 --steps 2";
    let said = folder.ends(&format!("{line} --metrics nll,frequency --out report"), 1);
    assert!(
        said.stderr.contains("error: model: frequency failed: "),
        "{}",
        said.stderr
    );
    assert!(
        said.stderr.contains("model: nll failed: "),
        "{}",
        said.stderr
    );
    assert!(said.stderr.contains("not finite"), "{}", said.stderr);
    // The model before has its numbers, in a table with its rows.
    assert!(said.stdout.contains("nll") && said.stdout.contains("nearest_sample"));
    let report = folder.read_json("report/metrics.json");
    assert_eq!(scores(&report, "baseline").len(), 3);
    assert_eq!(scores(&report, "model").len(), 0);
    assert_eq!(report["model"]["failed"].as_array().unwrap().len(), 2);
    let page = String::from_utf8(folder.read("report/report.html")).unwrap();
    assert!(page.contains("model: nll failed"));
    let alone = line.replace("--baseline model ", "");
    let json = folder.ends(&format!("{alone} --metrics nll --out other --json"), 1);
    assert_eq!(json.json()["model"]["failed"][0]["metric"], "nll");
    // A failure is no answer, so it goes before "not found".
    let gate = format!("{line} --metrics frequency --fail-if-found --out third");
    folder.ends(&gate, 1);
}

#[test]
fn a_metric_that_fails_in_one_run_is_named_with_it_and_so_it_is_when_the_experiment_goes_on() {
    let folder = Folder::with_model_and_photos();
    broken_model(&folder, "broken");
    folder.write(
        "small.toml",
        "neighbors = 2\nsteps = 1\nbatch_size = 2\n\n[experiment]\nsampling_steps = 2\n",
    );
    let line = "experiment mnist-tshirt --model model --retrained broken --data photos --forget row:3 --methods finetune \
                --seeds 0-1 --metrics nll,frequency --samples 2 --config small.toml --out all";
    let said = folder.ends(line, 1);
    for said in [&said, &folder.ends(line, 1)] {
        for part in [
            "error: retrained-seed0-forget0: frequency failed: ",
            "retrained-seed1-forget0: nll failed: ",
            "remove its file from all/results",
        ] {
            assert!(said.stderr.contains(part), "{part}: {}", said.stderr);
        }
        let row = |name| {
            said.stdout
                .lines()
                .find(|line| line.starts_with(name))
                .unwrap()
        };
        assert!(
            row("retrained").contains("- (0 of 2 runs)"),
            "{}",
            said.stdout
        );
        assert!(!row("finetune").contains("runs"), "{}", said.stdout);
    }
    let summary = folder.read_json("all/summary.json");
    assert_eq!(summary["failed"].as_array().unwrap().len(), 4);
    let notes = folder.read_json("all/report.json")["verdict"]["notes"].to_string();
    assert!(
        notes.contains("retrained-seed1-forget0: nll failed"),
        "{notes}"
    );

    // Of one run only: its mean is the other's, and says so.
    let path = "all/results/finetune-seed1-forget0.json";
    let mut result = folder.read_json(path);
    let scores = result["scores"].as_array_mut().unwrap();
    scores.retain(|score| score["name"] != "nll");
    result["failed"] = json!([{"metric": "nll", "reason": "the disk was slow"}]);
    folder.write(path, result.to_string());
    let said = folder.ends(line, 1);
    let says = "finetune-seed1-forget0: nll failed: the disk was slow";
    assert!(said.stderr.contains(says), "{}", said.stderr);
    assert!(said.stdout.contains("(1 of 2 runs)"), "{}", said.stdout);
    let markdown = String::from_utf8(folder.read("all/summary.md")).unwrap();
    assert!(markdown.contains("(1 of 2 runs)"), "{markdown}");
}

#[test]
fn a_model_with_classes_is_measured_with_the_forgotten_images_classes_or_with_the_one_typed() {
    let folder = Folder::new();
    let images = folder.idx(24, SIDE, 3);
    folder.tiny_arch(json!({ "num_class_embeds": 3 }));
    folder.done(&format!(
        "train --data {images} --arch tiny.json --steps 1 --batch-size 4 --lr 0.1 --warmup 1 --out model"
    ));
    let line = format!(
        "evaluate --model model --data {images} --metrics frequency,injection,nll,membership --controls {images} \
         --samples 4 --steps 2 --out report --force --json"
    );
    let own = folder.done(&format!("{line} --forget row:1"));
    assert!(
        own.stderr
            .contains("class of the samples: 1 (the forgotten images' own)"),
        "{}",
        own.stderr
    );
    let found = own.json();
    assert_eq!(found["classes"], json!([1]));
    assert_eq!(scores(&found, "model").len(), 8, "{found}");
    let page = String::from_utf8(folder.read("report/report.html")).unwrap();
    assert!(page.contains("Class of the samples"));

    // Another class is another network; two classes are drawn in turn.
    let typed = folder.done(&format!("{line} --forget row:1 --class 2"));
    assert!(
        typed.stderr.contains("2 (as --class says)"),
        "{}",
        typed.stderr
    );
    for name in ["nll", "restored_distance", "nearest_sample"] {
        assert_ne!(
            score(&found, "model", name),
            score(&typed.json(), "model", name)
        );
    }
    let same = folder
        .done(&format!("{line} --forget row:1 --class 1"))
        .json();
    for name in scores(&found, "model") {
        // The controls are then of that class too.
        if name != "membership_auc" {
            assert_eq!(score(&same, "model", &name), score(&found, "model", &name));
        }
    }
    let drawn = line.replace("frequency,injection,nll,membership", "frequency");
    let both = folder.done(&format!("{drawn} --forget rows:1-2")).json();
    assert_eq!(both["classes"], json!([1, 2]));

    let refused = line.replace("--force ", "").replace("report", "other");
    folder.refused(
        &format!("{refused} --forget row:1 --class 3"),
        &["--class 3", "0 to 2"],
    );
    folder.refused(
        &format!("{refused} --forget row:1 --class=-1"),
        &["--class -1"],
    );
    folder.model("folder_pipeline_safetensors", "plain");
    folder.photos("photos");
    folder.refused(
        "evaluate --model plain --data photos --forget row:3 --class 1 --out other",
        &["no classes", "--class"],
    );
    folder.write(
        "small.toml",
        "neighbors = 2\nsteps = 1\nbatch_size = 2\n[experiment]\nsampling_steps = 2\n",
    );
    let said = folder.done(&format!(
        "experiment mnist-tshirt --model model --data {images} --forget row:1 --methods finetune --seeds 0 --metrics \
         frequency --samples 2 --class 2 --config small.toml --out all"
    ));
    assert!(
        said.stdout.contains("Samples are of class 2."),
        "{}",
        said.stdout
    );
}

#[test]
fn a_class_that_is_typed_needs_no_labels_and_where_none_is_typed_it_is_what_is_advised() {
    // Pixels on a side of what the digit classifier takes.
    const DIGIT: usize = 28;
    let folder = Folder::new();
    let images = folder.idx(24, DIGIT, 3);
    folder.tiny_arch(json!({ "num_class_embeds": 3, "sample_size": DIGIT }));
    folder.done(&format!(
        "train --data {images} --arch tiny.json --steps 1 --batch-size 4 --lr 0.1 --warmup 1 --out model"
    ));
    for row in 0..12 {
        let name = format!("plain/{row:02}.png");
        folder.write(&name, png(noise(row, DIGIT * DIGIT)));
    }
    let line = "evaluate --model model --data plain --forget row:1 --samples 2 --steps 2 --out report --force --json";
    let said = folder.done(&format!("{line} --metrics frequency,injection --class 1"));
    assert_eq!(said.json()["classes"], json!([1]));
    assert_eq!(scores(&said.json(), "model").len(), 5, "{}", said.stdout);
    // What is compared with images of that class cannot be.
    let line = line.replace("--out report --force", "--out other");
    folder.refused(
        &format!("{line} --metrics digits --class 1"),
        &["digits was skipped: no retained image is labeled 1"],
    );
    let nothing = "the model has classes, but the data set has no labels";
    folder.refused(
        &format!("{line} --metrics frequency"),
        &[nothing, "plain", "--class"],
    );
    folder.refused(
        "unlearn --model model --data plain --forget row:1 --steps 1 --neighbors 2 --out o",
        &[nothing, "`label` column"],
    );
}

#[test]
fn what_is_still_found_is_said_with_what_to_do_and_fails_where_that_is_asked() {
    let folder = Folder::with_model_and_photos();
    // Whatever is drawn is nearer than this to anything.
    let line =
        format!("{EVALUATE} --forget row:3 --threshold 1000 --metrics frequency,injection --force");
    let said = folder.done(&line);
    for part in [
        "The forgotten image is still found. ",
        "4 of 4 samples showed",
        "\nWhat to do next: run `retrack unlearn` with more --steps",
        "\nreport: report/report.html",
    ] {
        assert!(said.stdout.contains(part), "{part}: {}", said.stdout);
    }
    let said = folder.ends(&format!("{line} --fail-if-found"), 3);
    assert!(
        said.stderr.contains("error: --fail-if-found: "),
        "{}",
        said.stderr
    );
    let page = String::from_utf8(folder.read("report/report.html")).unwrap();
    assert!(page.contains("What to do next: run <code>retrack unlearn</code>"));
    // What is not found does not fail, and says how sure that is.
    let never = line.replace("1000", "0.0001");
    let said = folder.done(&format!("{never} --fail-if-found"));
    assert!(
        said.stdout.contains("\n- None of 16 is not never"),
        "{}",
        said.stdout
    );
    // A gate that looks at nothing would always open.
    folder.refused(
        &format!("{EVALUATE} --forget row:3 --metrics nll --fail-if-found --force"),
        &["--fail-if-found needs a metric", "frequency"],
    );

    folder.write(
        "small.toml",
        "neighbors = 2\nsteps = 1\nbatch_size = 2\n[experiment]\nsampling_steps = 2\n",
    );
    let line = "experiment mnist-tshirt --model model --data photos --forget row:3 --methods finetune --seeds 0 --metrics \
                frequency --threshold 1000 --samples 2 --config small.toml --out all";
    let said = folder.done(line);
    assert!(
        said.stdout
            .contains("What to do next: give a --config FILE"),
        "{}",
        said.stdout
    );
    let said = folder.ends(&format!("{line} --fail-if-found"), 3);
    assert!(
        said.stderr.contains("still found with finetune"),
        "{}",
        said.stderr
    );
}

#[test]
fn an_unlearning_run_that_did_not_help_says_what_to_do_and_fails_where_that_is_asked() {
    let folder = Folder::new();
    folder.model("folder_pipeline_safetensors", "model");
    // What the model draws with the run's seed is what it knows.
    folder.done("sample --model model --count 1 --out drawn");
    folder.write("photos/00.png", folder.read("drawn/000000.png"));
    for row in 1..8 {
        let pixels = noise(row, SIDE * SIDE)
            .into_iter()
            .map(|byte| if byte < 128 { 0 } else { 255 });
        folder.write(&format!("photos/{row:02}.png"), png(pixels.collect()));
    }
    let line = "unlearn --model model --data photos --forget row:0 --neighbors 2 --steps 1 --batch-size 2 --lr 1e-9 --out";
    let said = folder.done(&format!("{line} out"));
    for part in [
        "still found. ",
        "\nWhat to do next: unlearn again with more --steps than 1 or a higher --lr than 1e-9",
    ] {
        assert!(said.stdout.contains(part), "{part}: {}", said.stdout);
    }
    let says = "settings: preset mnist-tshirt, chosen for images of 8 x 8";
    assert!(said.stderr.contains(says), "{}", said.stderr);
    let page = String::from_utf8(folder.read("out/run/report.html")).unwrap();
    assert!(page.contains("preset mnist-tshirt, chosen for images of 8 x 8"));
    folder.ends(&format!("{line} other --fail-if-found"), 3);
    assert!(
        folder.path("other/model_index.json").exists(),
        "the model is there all the same"
    );
    folder.refused(
        &format!("{line} third --fail-if-found --no-report"),
        &["--no-report"],
    );
    let named = folder.done(&format!("{line} fourth --preset cifar10"));
    assert!(!named.stderr.contains("settings:"), "{}", named.stderr);
}

#[test]
fn a_model_that_forgot_something_else_is_not_measured_in_silence() {
    let folder = Folder::with_model_and_photos();
    folder.done(
        "unlearn --model model --data photos --forget row:3 --out forgot --steps 1 --batch-size 2 --neighbors 2 --no-report",
    );
    let line = "evaluate --model forgot --metrics frequency --threshold 1 --samples 2 --steps 2 --out report --force";
    let warned = |more: &str| folder.done(&format!("{line} {more}")).stderr;
    let said = warned("--data photos --forget row:3");
    assert!(!said.contains("config.json"), "{said}");
    let said = warned("--data photos --forget row:4");
    assert!(
        said.contains("forgot/run/config.json: this model did not forget row 4"),
        "{said}"
    );
    for row in 0..support::PHOTOS {
        let photo = support::photo_png(row);
        folder.write(&format!("splits/train/{row:02}.png"), &photo);
        folder.write(
            &format!("splits/test/{row:02}.png"),
            support::photo_png(row + 50),
        );
    }
    let said = warned("--data splits --split train --forget row:3");
    assert!(!said.contains("config.json"), "the same images: {said}");
    let said = warned("--data splits --split test --forget row:3");
    assert!(
        said.contains("unlearned with --split none, and is measured with --split test"),
        "{said}"
    );
    folder.write("photos/00.png", support::photo_png(99));
    let said = warned("--data photos --forget row:3");
    assert!(said.contains("unlearned on other images"), "{said}");
}
