//! No command loses its own input or what somebody else wrote, and what a kill left holds nobody up.

mod support;

use std::fs::{self, OpenOptions};
use std::io::Write;

use burn::tensor::Device;
use retrack_checkpoint::written::{NAME as LIST, digest};
use retrack_networks::lora;
use retrack_networks::model::Model;
use retrack_networks::random::Random;
use support::Folder;

const UNLEARN: &str =
    "unlearn --model model --forget row:3 --neighbors 4 --batch-size 4 --no-report";
const TRAIN: &str = "train --arch tiny.json --batch-size 4 --warmup 2";
const MEASURE: &str = "--data photos --forget row:3 --threshold 1 --samples 2 --metrics frequency";

#[test]
fn an_input_in_the_output_folder_is_not_replaced_by_what_is_made_of_it() {
    let folder = Folder::with_all_to_train();
    let images = folder.idx(8, 8, 2);
    let name = images.strip_prefix("digits/").unwrap();
    folder.claim("digits", &[name, "train-labels-idx1-ubyte"]);
    folder.write("out/settings.toml", "steps = 2");
    folder.write("out/adapter.safetensors", "weights");
    folder.write("out/captions.json", "{}");
    fs::copy(folder.path("tiny.json"), folder.path("out/tiny.json")).unwrap();
    folder.photos("out/controls");
    let ours = [
        "settings.toml",
        "adapter.safetensors",
        "captions.json",
        "tiny.json",
    ];
    folder.claim("out", &ours);
    folder.model("folder_pipeline_safetensors", "out/retrained");
    let unlearn = format!("{UNLEARN} --steps 1 --out out --data photos");
    let experiment =
        format!("experiment demo --model model {MEASURE} --methods finetune --seeds 0");
    for (line, input) in [
        (format!("{UNLEARN} --data {images} --out digits"), name),
        (
            format!("{UNLEARN} --data ./out/../{images} --out ./digits"),
            name,
        ),
        (
            format!("{TRAIN} --steps 1 --data {images} --out digits"),
            name,
        ),
        (
            "train --arch out/tiny.json --data photos --steps 1 --out out".into(),
            "tiny.json",
        ),
        (
            format!("{unlearn} --config out/settings.toml"),
            "settings.toml",
        ),
        (
            format!("{unlearn} --captions out/captions.json"),
            "captions.json",
        ),
        (
            format!("evaluate --model model {MEASURE} --controls out/controls --out out"),
            "controls",
        ),
        (
            format!("evaluate --model model {MEASURE} --sscd out/settings.toml --out out"),
            "settings",
        ),
        (
            "merge --model model --adapter out/adapter.safetensors --out out".into(),
            "adapter",
        ),
        (
            "merge --model model --adapter out/adapter.safetensors --out out/adapter.safetensors"
                .into(),
            "adapter",
        ),
    ] {
        for more in [" --force", ""] {
            folder.refused(
                &format!("{line}{more}"),
                &[input, "output folder", "choose"],
            );
        }
    }
    for (more, input) in [
        ("--config out/settings.toml", "settings"),
        ("--retrained out/retrained", "out/retrained"),
        ("--controls out/controls", "out/controls"),
    ] {
        folder.refused(
            &format!("{experiment} {more} --out out"),
            &[input, "output folder", "choose"],
        );
    }
    // Beside them all is well.
    folder.done(&format!(
        "{UNLEARN} --steps 1 --data photos --config out/settings.toml --out other"
    ));
}

#[test]
fn a_configuration_of_somebody_else_makes_no_run_of_a_folder() {
    let folder = Folder::with_all_to_train();
    for config in [
        r#"{"command": "make all"}"#,
        r#"{"command": "train"}"#,
        r#"{"command": "unlearn", "version": 3}"#,
        r#"{"command": "deploy", "version": "1.0", "data_digest": ""}"#,
        r#"{"command": "train", "version": "1.0"}"#,
    ] {
        for mark in [false, true] {
            folder.write("out/run/config.json", config);
            if mark {
                folder.write("out/run/unfinished", "");
            }
            for line in [UNLEARN, TRAIN] {
                for more in ["", " --force", " --resume"] {
                    let line = format!("{line} --steps 1 --data photos --out out{more}");
                    folder.refused(&line, &["out: "]);
                }
            }
            fs::remove_dir_all(folder.path("out")).unwrap();
        }
    }
}

const EXPERIMENT: &str = "experiment demo --model model --data photos --forget row:3 --methods finetune --seeds 0 \
                          --samples 2 --metrics frequency --config short.toml --out out";

fn short(folder: &Folder) {
    folder.write(
        "short.toml",
        "steps = 2\nbatch_size = 2\naccumulate = 1\nneighbors = 4\n[experiment]\nsampling_steps = 2",
    );
}

#[test]
fn no_command_replaces_what_another_one_wrote() {
    let folder = Folder::with_all_to_train();
    short(&folder);
    folder.model("pipeline_sd1", "adapted");
    let model = Model::open(&folder.path("adapted")).unwrap();
    let network = lora::attach(model.network(&Device::flex()).unwrap(), 2, &Random::new(5));
    let tensors = lora::export(&network).unwrap();
    let adapter = folder.path("adapter");
    let written = model
        .folder
        .write_beside(&adapter, lora::FILE_NAME, &tensors);
    written.unwrap();
    let commands = [
        ("demo", "demo --out".to_string()),
        (
            "evaluate",
            format!("evaluate --model model {MEASURE} --steps 2 --out"),
        ),
        (
            "merge",
            "merge --model adapted --adapter adapter --out".into(),
        ),
        (
            "sample",
            "sample --model model --count 1 --steps 2 --out".into(),
        ),
        ("train", format!("{TRAIN} --steps 1 --data photos --out")),
        (
            "unlearn",
            format!("{UNLEARN} --steps 1 --data photos --out"),
        ),
    ];
    let experiment = |out: &str| EXPERIMENT.replace("--out out", &format!("--out {out}"));
    for (writer, line) in &commands[1..] {
        folder.done(&format!("{line} {writer}"));
    }
    folder.done(&experiment("experiment"));
    // A demo takes long.
    folder.write("demo/before.png", "pixels");
    let list = format!(
        r#"{{"command": "demo", "files": {{"before.png": ["{}"]}}}}"#,
        digest(b"pixels")
    );
    folder.write(&format!("demo/{LIST}"), list);
    let writers = commands.iter().map(|(writer, _)| *writer);
    for writer in writers.chain(["experiment"]) {
        for (command, line) in commands.iter().filter(|(command, _)| *command != writer) {
            let says = match *command {
                "sample" => format!("{writer}: holds something else than samples"),
                _ => format!("{writer}: holds what `retrack {writer}` wrote"),
            };
            for more in ["", " --force"] {
                let line = format!("{line} {writer}{more}");
                folder.refused(&line, &[&says, "choose another"]);
            }
        }
        if writer != "experiment" {
            folder.refused(
                &experiment(writer),
                &[writer, "no experiment", "choose another"],
            );
        }
    }
    // Each its own.
    for (writer, line) in &commands[1..] {
        folder.done(&format!("{line} {writer} --force"));
    }
    folder.done(&experiment("experiment"));
    // `rm -r unlearn/*` leaves what begins with a dot.
    for name in folder.files("unlearn").into_keys() {
        if !name.starts_with('.') && !name.ends_with('/') {
            fs::remove_file(folder.path("unlearn").join(name)).unwrap();
        }
    }
    assert!(folder.path("unlearn/.gitignore").exists());
    folder.done(&format!("{} unlearn", commands[1].1));
    folder.refused(
        &format!("{} unlearn --force", commands[5].1),
        &["`retrack evaluate`"],
    );
}

#[test]
fn an_interrupted_run_is_not_replaced_by_another_command() {
    let folder = Folder::with_all_to_train();
    let long = format!("{TRAIN} --data photos --checkpoint-every 1 --out out");
    folder.kill_after_two_checkpoints(&format!("{long} --steps 500"), "out");
    let line = format!("{UNLEARN} --steps 1 --data photos --out out");
    for more in ["", " --force"] {
        folder.refused(
            &format!("{line}{more}"),
            &["out: holds what `retrack train` wrote", "choose another"],
        );
    }
    folder.done(&format!("{long} --steps 1 --force"));
}

#[test]
fn an_experiment_that_was_killed_while_a_run_began_goes_on() {
    let folder = Folder::with_all_to_train();
    short(&folder);
    // Before it had written what is compared.
    folder.write(
        &format!("out/{LIST}"),
        r#"{"files": {"experiment.json": ["00"]}}"#,
    );
    folder.write("out/lock", "retrack 1\n");
    folder.write("out/.writing-aB3xYz", "{");
    folder.done(EXPERIMENT);
    assert!(!folder.path("out/.writing-aB3xYz").exists());
    let (run, result) = (
        "out/models/finetune-seed0-forget0",
        "out/results/finetune-seed0-forget0.json",
    );
    let config = folder.read(&format!("{run}/run/config.json"));
    for state in 0..5 {
        fs::remove_dir_all(folder.path(run)).unwrap();
        fs::remove_file(folder.path(result)).unwrap();
        match state {
            0 => fs::create_dir_all(folder.path(run)).unwrap(),
            1 => fs::create_dir_all(folder.path(run).join("run")).unwrap(),
            2 => folder.write(&format!("{run}/run/lock"), "retrack 1\n"),
            3 => folder.write(&format!("{run}/run/config.json"), &config),
            _ => folder.write(&format!("{run}/run/.writing-aB3xYz"), "{"),
        }
        folder.done(EXPERIMENT);
        assert!(
            folder.path(run).join("model_index.json").exists(),
            "{state}"
        );
    }
    // A result that was damaged says what to do, and that helps.
    folder.write(result, "{");
    folder.refused(EXPERIMENT, &[result, "remove it"]);
    fs::remove_file(folder.path(result)).unwrap();
    folder.done(EXPERIMENT);
}

#[test]
fn files_that_a_kill_left_incomplete_hold_nobody_up_and_go() {
    let folder = Folder::with_all_to_train();
    let sample = "sample --model model --count 1 --steps 2 --out out";
    let unlearn = format!("{UNLEARN} --steps 1 --data photos --out out");
    for line in [sample.to_string(), unlearn] {
        for more in ["", " --force"] {
            folder.write("out/.writing-aB3xYz", "half");
            folder.done(&format!("{line}{more}"));
            assert!(!folder.path("out/.writing-aB3xYz").exists(), "{line}");
            if more.is_empty() {
                folder.write("out/.writing-aB3xYz", "half");
                folder.refused(&line, &["--force"]);
            }
        }
        fs::remove_dir_all(folder.path("out")).unwrap();
    }
    // Only by the exact form of the name.
    folder.write("out/.writing-notes.md", "mine");
    folder.refused(sample, &["out: ", "something else"]);
}

#[test]
fn two_commands_never_draw_into_one_folder() {
    let folder = Folder::with_all_to_train();
    folder.write("out/lock", "retrack 4321\n");
    let file = fs::File::open(folder.path("out/lock")).unwrap();
    file.lock().unwrap();
    let line = "sample --model model --count 1 --steps 2 --out out";
    for more in ["", " --force"] {
        folder.refused(
            &format!("{line}{more}"),
            &["out", "process 4321 is writing here"],
        );
    }
    file.unlock().unwrap();
    folder.done(line);
    assert!(!folder.path("out/lock").exists());
}

#[test]
fn a_run_goes_on_whatever_its_inputs_are_called() {
    let folder = Folder::with_all_to_train();
    for line in [UNLEARN, TRAIN] {
        let line = format!("{line} --steps 200 --checkpoint-every 1 --data photos --out out");
        folder.kill_after_two_checkpoints(&line, "out");
        let photos = folder.path("photos");
        let line = line.replace("--model model", "--model ./model/");
        let line = line.replace("--data photos", &format!("--data {}", photos.display()));
        let said = folder.done(&format!("{line} --resume"));
        assert!(
            said.stderr.contains("resuming after step"),
            "{}",
            said.stderr
        );
        fs::remove_dir_all(folder.path("out")).unwrap();
    }
}

#[test]
fn a_training_that_ended_stays_ended_where_its_checkpoint_was_damaged() {
    let folder = Folder::with_all_to_train();
    let line = format!("{TRAIN} --data photos --out out");
    folder.done(&format!("{line} --steps 4"));
    let path = folder.path("out/run/checkpoint-00000004.safetensors");
    let mut file = OpenOptions::new().append(true).open(path).unwrap();
    file.write_all(b"x").unwrap();
    folder.refused(
        &format!("{line} --steps 6 --resume"),
        &[
            "checkpoint-00000004",
            "damaged",
            "ended after 4 steps",
            "choose another output folder",
        ],
    );
    // One that was killed before its first step has not ended.
    let config = folder.read("out/run/config.json");
    fs::remove_dir_all(folder.path("out")).unwrap();
    folder.write("out/run/config.json", config);
    folder.refused(
        &format!("{line} --steps 4 --resume"),
        &["no interrupted run"],
    );
    folder.done(&format!("{line} --steps 4"));
}
