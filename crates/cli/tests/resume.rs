//! Runs that are killed and resumed, and output folders that hold something already.

mod support;

use retrack_checkpoint::written::NAME as LIST;
use support::{Folder, assert_same_files, events};

const UNLEARN: &str =
    "unlearn --model model --data photos --forget row:3 --neighbors 4 --batch-size 4 --steps 30";
const TRAIN: &str = "train --data photos --arch tiny.json --batch-size 4 --warmup 5 --steps 30";
const WEIGHTS: &str = "unet/diffusion_pytorch_model.safetensors";

/// Runs `line` to its end, then once more with a kill and a resumption on the way: all files must be equal.
fn assert_resumes(folder: &Folder, line: &str, damage: impl FnOnce()) -> String {
    folder.done(&format!("{line} --out whole"));
    let interrupted = format!("{line} --checkpoint-every 1 --out parts");
    folder.kill_after_two_checkpoints(&interrupted, "parts");
    assert!(!folder.path("parts/model_index.json").exists());
    damage();
    let said = folder.done(&format!("{interrupted} --resume"));
    assert!(
        said.stderr.contains("resuming after step "),
        "{}",
        said.stderr
    );

    let (mut whole, mut parts) = (folder.files("whole"), folder.files("parts"));
    let steps = |out: &str| -> Vec<u64> {
        let events = events(folder, out).into_iter();
        events
            .map(|event| event["step"].as_u64().unwrap())
            .collect()
    };
    assert_eq!(steps("parts"), (1..=30).collect::<Vec<u64>>());
    let losses = |out: &str| -> Vec<f64> {
        let events = events(folder, out).into_iter();
        events
            .map(|event| event["loss"].as_f64().unwrap())
            .collect()
    };
    assert_eq!(losses("parts"), losses("whole"));
    support::drop_timed(&mut whole);
    support::drop_timed(&mut parts);
    assert_same_files(&whole, &parts, line);
    said.stderr
}

fn newest_checkpoint(folder: &Folder) -> String {
    let files = folder.files("parts/run");
    let newest = files
        .keys()
        .rfind(|name| name.starts_with("checkpoint-") && name.ends_with(".safetensors"));
    format!("parts/run/{}", newest.unwrap())
}

#[test]
fn unlearning_that_was_killed_and_resumed_was_never_interrupted() {
    let folder = Folder::with_model_and_photos();
    let stderr = assert_resumes(&folder, UNLEARN, || {});
    assert!(!stderr.contains("resuming after step 0"), "{stderr}");
}

#[test]
fn moments_in_half_the_memory_resume_as_exactly() {
    let folder = Folder::with_model_and_photos();
    assert_resumes(&folder, &format!("{UNLEARN} --optimizer-state bf16"), || {});
    let config = std::fs::read_to_string(folder.path("whole/run/config.json")).unwrap();
    assert!(config.contains(r#""state": "bf16""#), "{config}");
    // As they are by default they come to something else.
    folder.done(&format!("{UNLEARN} --out wide"));
    let weights = |out: &str| std::fs::read(folder.path(&format!("{out}/{WEIGHTS}"))).unwrap();
    assert!(weights("wide") != weights("whole"));
}

#[test]
fn a_method_whose_retained_images_are_watched_resumes_as_exactly() {
    let folder = Folder::with_model_and_photos();
    // At this rate the loss multiplies: the start is that of the model before the run.
    let line = format!("{UNLEARN} --method neggrad --lr 1e-2");
    let stderr = assert_resumes(&folder, &line, || {});
    assert!(
        stderr.contains("the loss of the retained images is"),
        "{stderr}"
    );
    let watched = |out: &str| -> Vec<Option<f64>> {
        let events = events(&folder, out).into_iter();
        events
            .map(|event| event["watched_retain_loss"].as_f64())
            .collect()
    };
    assert_eq!(watched("parts"), watched("whole"));
}

#[test]
fn training_that_was_killed_and_resumed_was_never_interrupted() {
    let folder = Folder::new();
    folder.photos("photos");
    folder.tiny_arch(serde_json::json!({ "dropout": 0.2 }));
    let stderr = assert_resumes(&folder, TRAIN, || {});
    assert!(!stderr.contains("resuming after step 0"), "{stderr}");
}

#[cfg(unix)]
#[test]
fn a_signal_ends_the_run_after_its_step_and_keeps_it() {
    let folder = Folder::with_model_and_photos();
    folder.done(&format!("{UNLEARN} --out whole"));
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let out = signal.to_lowercase();
        let line = format!("{UNLEARN} --out {out}");
        let mut child = folder.command(&line);
        let mut child = child.stderr(std::process::Stdio::piped()).spawn().unwrap();
        let events = folder.path(&out).join("run/events.jsonl");
        while std::fs::read(&events).map_or(0, |lines| lines.len()) == 0 {
            assert!(
                child.try_wait().unwrap().is_none(),
                "ended before the signal"
            );
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        let pid = child.id().to_string();
        let kill = std::process::Command::new("kill")
            .args([&format!("-{signal}"), &pid])
            .status();
        assert!(kill.unwrap().success());
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{stderr}");
        assert!(stderr.contains("interrupted after step"), "{stderr}");
        assert!(folder.path(&out).join("run/unfinished").exists());
        folder.done(&format!("{line} --resume"));
        let weights = |out: &str| folder.read(&format!("{out}/{WEIGHTS}"));
        assert!(weights("whole") == weights(&out));
    }
}

#[test]
fn a_run_that_destroys_what_it_should_keep_says_so() {
    // A trained model: a random one has nothing to lose.
    let assets = support::parity()
        .join("../../assets")
        .canonicalize()
        .unwrap();
    let folder = Folder::new();
    let line = format!(
        "unlearn --model {0}/base-model --data {0}/digits.parquet --forget label:10 --preset demo --batch-size 4 \
         --steps 25",
        assets.display()
    );
    let loses = "the loss of the retained images is";
    let said = folder.done(&format!("{line} --lambda 1 --lr 5e-4 --out lost"));
    assert_eq!(said.stderr.matches(loses).count(), 1, "{}", said.stderr);
    // The watch is the step's: the other runs need no report, which takes longer than their steps.
    let line = format!("{line} --no-report");
    let said = folder.done(&format!("{line} --out kept"));
    assert!(!said.stderr.contains(loses), "{}", said.stderr);
    // Their own losses say nothing of the retained images, which are watched beside the steps.
    for method in ["neggrad", "siss"] {
        let line = line.replace("--steps 25", &format!("--steps 10 --method {method}"));
        let said = folder.done(&format!("{line} --lr 5e-3 --out {method}-lost"));
        assert_eq!(said.stderr.matches(loses).count(), 1, "{}", said.stderr);
        let said = folder.done(&format!("{line} --lr 1e-6 --out {method}-kept"));
        assert!(!said.stderr.contains(loses), "{}", said.stderr);
        let watched: Vec<u64> = events(&folder, &format!("{method}-kept"))
            .iter()
            .filter(|event| event["watched_retain_loss"].is_f64())
            .map(|event| event["step"].as_u64().unwrap())
            .collect();
        assert_eq!(watched, [5, 10], "{method}");
    }
}

#[test]
fn a_run_that_was_killed_while_its_model_moved_into_place_only_moves_the_rest() {
    let folder = Folder::with_model_and_photos();
    folder.done(&format!("{UNLEARN} --out out"));
    let whole = folder.files("out");
    // As the kill leaves it: the index still staged, a checkpoint not yet removed.
    folder.write("out/run/unfinished", "");
    let mut mark = folder.read_json(&format!("out/{LIST}"));
    let files = mark["files"].as_object_mut().unwrap();
    files.retain(|name, _| !name.starts_with("run/"));
    folder.write("out/run/moving", mark.to_string());
    folder.write(
        "out/run/model/model_index.json",
        folder.read("out/model_index.json"),
    );
    folder.write("out/run/checkpoint-00000020.safetensors", "old");
    folder.write("out/run/.writing-abc123", "half");
    std::fs::remove_file(folder.path("out/model_index.json")).unwrap();
    folder.refused(&format!("{UNLEARN} --out out"), &["out", "--resume"]);
    let said = folder.done(&format!("{UNLEARN} --out out --resume"));
    assert!(!said.stderr.contains("resuming"), "{}", said.stderr);
    assert_same_files(&whole, &folder.files("out"), "moved");
}

#[test]
fn a_damaged_checkpoint_costs_the_steps_since_the_one_before() {
    let folder = Folder::with_model_and_photos();
    let stderr = assert_resumes(&folder, UNLEARN, || {
        let newest = newest_checkpoint(&folder);
        let mut content = folder.read(&newest);
        content.truncate(content.len() / 2);
        folder.write(&newest, content);
    });
    assert!(stderr.contains("damaged checkpoint"), "{stderr}");
    assert!(!stderr.contains("resuming after step 0"), "{stderr}");
}

#[test]
fn an_interrupted_run_resumes_only_as_it_was_started() {
    let folder = Folder::with_model_and_photos();
    let line = format!("{UNLEARN} --checkpoint-every 1 --out parts");
    folder.kill_after_two_checkpoints(&line, "parts");
    folder.refused(&line, &["parts", "--resume", "--force"]);
    folder.refused(
        &format!("{line} --resume --force"),
        &["--resume", "--force"],
    );
    for (old, new, says) in [
        (
            "--steps 30",
            "--steps 31",
            "another settings.steps: 30 then, 31 now",
        ),
        ("--steps 30", "--steps 30 --lr 0.5", "then, 0.5 now"),
        (
            "--steps 30",
            "--steps 30 --seed 1",
            "another settings.seed: 0 then, 1 now",
        ),
        (
            "--steps 30",
            "--steps 30 --lambda 1",
            "another settings.lambda: 0.005 then, 1.0 now",
        ),
        (
            "--steps 30",
            "--steps 30 --method finetune",
            "another settings.method: \"retrack\" then, \"finetune\" now",
        ),
        (
            "row:3",
            "row:4",
            "another forget: \"row:3\" then, \"row:4\" now",
        ),
    ] {
        let changed = line.replace(old, new);
        folder.refused(
            &format!("{changed} --resume"),
            &["parts: ", "started with another", says],
        );
    }
    // Other data and another base model under the same names.
    let (photo, weights) = (
        folder.read("photos/05.png"),
        folder.read(&format!("model/{WEIGHTS}")),
    );
    folder.write("photos/05.png", support::photo_png(99));
    folder.refused(
        &format!("{line} --resume"),
        &["the images have changed since", "data_digest"],
    );
    folder.write("photos/05.png", photo);
    let mut other = weights.clone();
    let last = other.len() - 4;
    other[last..].copy_from_slice(&0.25f32.to_le_bytes());
    folder.write(&format!("model/{WEIGHTS}"), other);
    folder.refused(&format!("{line} --resume"), &["another weights_sha256"]);
    folder.write(&format!("model/{WEIGHTS}"), weights);
    folder.done(&format!("{line} --resume"));
    // What is finished cannot be resumed.
    folder.refused(
        &format!("{line} --resume"),
        &[
            "parts: ",
            "the run there is finished",
            "another --out",
            "--force",
        ],
    );
}

#[test]
fn a_resumed_training_names_what_differs() {
    let folder = Folder::new();
    folder.photos("photos");
    folder.tiny_arch(serde_json::json!({}));
    let line = format!("{TRAIN} --checkpoint-every 1 --out parts");
    folder.kill_after_two_checkpoints(&line, "parts");
    for (more, says) in [
        ("--seed 1", "another seed: 0 then, 1 now"),
        ("--accumulate 2", "another accumulate: 1 then, 2 now"),
        ("--exclude row:1", "another exclude"),
    ] {
        folder.refused(&format!("{line} --resume {more}"), &["parts: ", says]);
    }
    folder.tiny_arch(serde_json::json!({ "block_out_channels": [8, 16] }));
    folder.refused(&format!("{line} --resume"), &["another arch"]);
}

#[test]
fn a_folder_without_a_run_has_nothing_to_resume() {
    let folder = Folder::with_model_and_photos();
    folder.tiny_arch(serde_json::json!({}));
    for line in [UNLEARN, TRAIN] {
        folder.refused(
            &format!("{line} --out none --resume"),
            &["none: ", "no interrupted run", "leave --resume out"],
        );
    }
}

#[test]
fn an_output_folder_that_is_not_empty_is_refused_with_a_remedy() {
    let folder = Folder::with_model_and_photos();
    folder.tiny_arch(serde_json::json!({}));
    folder.write("letters/dear.txt", "Dear all");
    folder.write("file", "not a folder");
    for line in [UNLEARN, TRAIN] {
        folder.refused(
            &format!("{line} --out letters"),
            &["letters: ", "not empty", "choose another"],
        );
        // Nor is it replaced: it holds neither a model nor a run.
        folder.refused(
            &format!("{line} --out letters --force"),
            &["letters: ", "not be replaced"],
        );
        folder.refused(&format!("{line} --out file"), &["file: "]);
    }
}

#[test]
fn an_output_folder_that_overlaps_the_model_is_refused() {
    let folder = Folder::with_model_and_photos();
    folder.model("folder_pipeline_safetensors", "outer/inner");
    for (model, out, more) in [
        ("model", "model", " --force"),
        ("model", "./model/../model", " --force"),
        ("model", "model/new", ""),
        ("model", "model/far/new", ""),
        ("model", "model/unet", " --force"),
        ("outer/inner", "outer", " --force"),
    ] {
        let line = UNLEARN.replace("--model model", &format!("--model {model}"));
        folder.refused(&format!("{line} --out {out}{more}"), &[out, "choose"]);
    }
    let absolute = folder.path("model/new");
    folder.refused(
        &format!("{UNLEARN} --out {}", absolute.display()),
        &["choose one elsewhere"],
    );
    // Without --force it is simply not empty.
    folder.refused(&format!("{UNLEARN} --out model"), &["model: "]);
}

#[cfg(unix)]
#[test]
fn a_link_to_the_model_is_the_model() {
    let folder = Folder::with_model_and_photos();
    std::os::unix::fs::symlink(folder.path("model"), folder.path("link")).unwrap();
    folder.refused(&format!("{UNLEARN} --out link --force"), &["link: "]);
    folder.refused(&format!("{UNLEARN} --out link/new"), &["link/new: "]);
}

#[test]
fn force_replaces_a_model_folder_that_retrack_wrote_as_a_whole() {
    let folder = Folder::with_model_and_photos();
    folder.tiny_arch(serde_json::json!({}));
    // Of other files and of a base model in another form.
    folder.model("folder_f16_bin", "model16");
    folder.write("model16/vae/notes.txt", "copied");
    let short = |line: &str| line.replace("--steps 30", "--steps 1");
    let line16 = short(UNLEARN).replace("--model model", "--model model16");
    folder.done(&format!("{} --out fresh", short(UNLEARN)));
    folder.done(&format!("{line16} --out old"));
    folder.done(&format!("{} --out old --force", short(UNLEARN)));
    let names = |out: &str| {
        let files = folder.files(out).into_keys();
        files
            .filter(|name| !name.starts_with("run/events.out."))
            .collect::<Vec<_>>()
    };
    assert_eq!(names("old"), names("fresh"));
    assert!(folder.read(&format!("old/{WEIGHTS}")) == folder.read(&format!("fresh/{WEIGHTS}")));
    // A finished run is a model folder too, where no list says whose.
    folder.make_list_anybodys("fresh");
    folder.done(&format!("{} --out fresh --force", short(TRAIN)));
    assert_eq!(events(&folder, "fresh").len(), 1);
    assert_eq!(
        folder.read_json("fresh/run/config.json")["command"],
        "train"
    );
}

#[test]
fn an_empty_output_folder_and_missing_parents_are_fine() {
    let folder = Folder::with_model_and_photos();
    std::fs::create_dir(folder.path("empty")).unwrap();
    for out in ["empty", "some/where/new"] {
        let line = UNLEARN.replace("--steps 30", "--steps 1");
        folder.done(&format!("{line} --out {out}"));
        assert!(folder.path(out).join("model_index.json").exists());
    }
}

#[test]
fn a_folder_that_only_looks_like_a_model_or_a_run_is_not_replaced() {
    let folder = Folder::with_model_and_photos();
    folder.write("letters/run/dear.txt", "Dear all");
    folder.write("program/config.json", r#"{"color": "green"}"#);
    for out in ["letters", "program"] {
        folder.refused(
            &format!("{UNLEARN} --out {out} --force"),
            &[out, "not be replaced"],
        );
    }
}

#[test]
fn a_loss_that_is_not_finite_ends_the_run_and_leaves_no_model() {
    let folder = Folder::with_model_and_photos();
    let line = format!("{UNLEARN} --lr 1e30 --out out");
    let output = folder.command(&line).output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{message}");
    for part in ["NaN", "at step 2", "--lr"] {
        assert!(message.contains(part), "{message}");
    }
    assert!(output.stdout.is_empty());
    assert!(!folder.path("out/model_index.json").exists());
    assert_eq!(events(&folder, "out").len(), 1);
    // The state before the step that failed is kept.
    assert!(
        folder
            .path("out/run/checkpoint-00000001.safetensors")
            .exists()
    );
}

#[test]
fn a_cache_that_cannot_be_written_costs_a_warning() {
    let folder = Folder::with_model_and_photos();
    folder.write("cache", "a file where the folder should be");
    let said = folder.done(&format!(
        "{} --out out",
        UNLEARN.replace("--steps 30", "--steps 1")
    ));
    assert!(said.stderr.contains("warning: "), "{}", said.stderr);
    assert!(
        said.stderr.contains("cache/retrack/neighbors-"),
        "{}",
        said.stderr
    );
    assert!(folder.path("out/model_index.json").exists());
}

#[test]
fn a_model_that_waited_is_published_with_what_its_run_found() {
    let folder = Folder::with_model_and_photos();
    let line = format!("{} --out out", UNLEARN.replace("--no-report", ""));
    let first = folder.done(&line);
    folder.write("out/run/unfinished", "");
    let mut mark = folder.read_json(&format!("out/{LIST}"));
    let files = mark["files"].as_object_mut().unwrap();
    files.retain(|name, _| !name.starts_with("run/"));
    folder.write("out/run/moving", mark.to_string());
    let index = folder.read("out/model_index.json");
    folder.write("out/run/model/model_index.json", index);
    std::fs::remove_file(folder.path("out/model_index.json")).unwrap();
    let said = folder.done(&format!("{line} --resume"));
    let found = |stdout: &str| stdout.split_once('\n').unwrap().1.to_string();
    assert!(
        said.stdout.contains("\nreport: out/run/report.html"),
        "{}",
        said.stdout
    );
    assert_eq!(found(&said.stdout), found(&first.stdout));
}

#[test]
fn a_finished_run_is_said_to_be_finished_where_it_is_to_be_resumed() {
    let folder = Folder::with_model_and_photos();
    let line = format!("{UNLEARN} --out out");
    folder.done(&line);
    let says = ["out: the run there is finished", "another --out", "--force"];
    folder.refused(&format!("{line} --resume"), &says);
}
