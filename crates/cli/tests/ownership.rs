//! Output folders and files that hold what somebody else put there: it stays, whatever the command and its --force.

mod support;

use std::fs;
use std::path::Path;
use std::process::Stdio;

use retrack_checkpoint::written::{NAME as LIST, Written, digest};
use support::{Folder, Guard, assert_same_files, events};

const UNLEARN: &str =
    "unlearn --model model --data photos --forget row:3 --neighbors 4 --batch-size 4 --no-report";
const TRAIN: &str = "train --data photos --arch tiny.json --batch-size 4 --warmup 2";
const WEIGHTS: &str = "unet/diffusion_pytorch_model.safetensors";

#[test]
fn demo_with_force_in_a_folder_that_is_no_demos_leaves_it_as_it_is() {
    let folder = Folder::with_all_to_train();
    folder.write("x/model/weights.bin", "somebody's");
    folder.write("x/report.html", "a thesis");
    folder.write("x/metrics.json", "{}");
    for more in ["", " --force"] {
        folder.refused(&format!("demo --out x{more}"), &["x: ", "choose another"]);
    }
    // Not even where a list lies: this file is not in it.
    folder.write("x/before.png", "an old demo's");
    folder.claim("x", &["before.png"]);
    for file in ["x/metrics.json", "x/report.html"] {
        folder.refused("demo --out x --force", &[file, "not written by retrack"]);
        fs::remove_file(folder.path(file)).unwrap();
    }
    folder.refused("demo --out x --force", &["x/model: ", "not be replaced"]);
    // A file of an old demo that its owner changed.
    fs::remove_dir_all(folder.path("x/model")).unwrap();
    folder.write("x/before.png", "cropped");
    folder.refused("demo --out x --force", &["x/before.png", "changed since"]);
    fs::remove_file(folder.path("x/before.png")).unwrap();
    folder.write("x/base-model/unet/config.json", "somebody's");
    folder.refused(
        "demo --out x --force",
        &["x/base-model/unet/config.json", "not written by retrack"],
    );
    fs::remove_dir_all(folder.path("x/base-model")).unwrap();
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(folder.path("model"), folder.path("x/model")).unwrap();
        folder.refused("demo --out x --force", &["x/model: "]);
    }
}

#[test]
fn force_replaces_what_retrack_wrote_and_nothing_else() {
    let folder = Folder::with_all_to_train();
    for (first, second) in [(UNLEARN, TRAIN), (TRAIN, UNLEARN), (UNLEARN, UNLEARN)] {
        folder.done(&format!("{first} --steps 2 --out out"));
        if first != second {
            folder.make_list_anybodys("out");
        }
        let theirs = [
            (".git/HEAD", "ref: refs/heads/main"),
            (".gitattributes", "*.safetensors filter=lfs"),
            ("README.base.md", "the model that we began with"),
            ("notes/to do.md", "mine"),
            ("run/my notes.txt", "mine"),
            ("run/checkpoint-00000001-copy.safetensors", "a copy"),
            ("unet/diffusion_pytorch_model.bin", "another form"),
            ("vae/config.json", "{}"),
        ];
        for (name, content) in theirs {
            folder.write(&format!("out/{name}"), content);
        }
        folder.refused(
            &format!("{second} --steps 1 --out out"),
            &["out", "--force"],
        );
        let said = folder.done(&format!("{second} --steps 1 --out out --force"));
        assert!(
            said.stderr.contains("out/unet/diffusion_pytorch_model.bin"),
            "{}",
            said.stderr
        );
        for (name, content) in theirs {
            assert_eq!(
                folder.read(&format!("out/{name}")),
                content.as_bytes(),
                "{name}"
            );
            fs::remove_file(folder.path("out").join(name)).unwrap();
        }
        assert_eq!(events(&folder, "out").len(), 1);
        // Nothing of the first run is left: the same as in a new folder.
        folder.done(&format!("{second} --steps 1 --out fresh"));
        let of = |out: &str| {
            let mut files = folder.files(out);
            support::drop_timed(&mut files);
            files.retain(|name, _| !name.ends_with('/'));
            files
        };
        assert_same_files(&of("fresh"), &of("out"), second);
        fs::remove_dir_all(folder.path("out")).unwrap();
        fs::remove_dir_all(folder.path("fresh")).unwrap();
    }
}

#[test]
fn a_file_that_was_changed_since_is_refused_by_name_before_any_work() {
    let folder = Folder::with_all_to_train();
    folder.done(&format!("{UNLEARN} --steps 2 --out out"));
    folder.make_list_anybodys("out");
    for name in ["README.md", WEIGHTS, "run/config.json", "run/events.jsonl"] {
        let before = folder.read(&format!("out/{name}"));
        folder.write(&format!("out/{name}"), [&before[..], b" "].concat());
        for line in [UNLEARN, TRAIN] {
            // A training writes no card.
            if line == TRAIN && name == "README.md" {
                continue;
            }
            folder.refused(
                &format!("{line} --steps 1 --out out --force"),
                &[&format!("out/{name}: "), "changed since", "move it away"],
            );
        }
        folder.write(&format!("out/{name}"), before);
    }
    folder.done(&format!("{UNLEARN} --steps 1 --out out --force"));
}

#[test]
fn what_has_a_name_of_a_run_in_a_finished_one_and_is_not_its_own_is_refused_before_any_work() {
    let folder = Folder::with_all_to_train();
    folder.done(&format!("{TRAIN} --steps 2 --out out"));
    folder.make_list_anybodys("out");
    let lines = [
        format!("{TRAIN} --steps 1 --out out --force"),
        format!("{UNLEARN} --steps 1 --out out --force"),
        format!("{TRAIN} --steps 4 --out out --resume"),
    ];
    let refused = |name: &str| {
        for line in &lines {
            folder.refused(
                line,
                &[
                    &format!("out/run/{name}: "),
                    "changed since",
                    "move it away",
                ],
            );
        }
    };
    for name in [
        "samples-00000400.png",
        "checkpoint-00000500.safetensors",
        "checkpoint-00000500.sha256",
        "events.out.tfevents.1.retrack.2.3",
        "report.html",
        "earlier.json",
    ] {
        folder.write(&format!("out/run/{name}"), "mine");
        refused(name);
        fs::remove_file(folder.path("out/run").join(name)).unwrap();
    }
    let ours = ["loss.svg", "events.jsonl", "checkpoint-00000002.sha256"];
    for name in ours {
        let before = folder.read(&format!("out/run/{name}"));
        folder.write(&format!("out/run/{name}"), [&before[..], b" "].concat());
        refused(name);
        folder.write(&format!("out/run/{name}"), before);
    }
    // A copy of a model where a run writes its own.
    folder.model("folder_pipeline_safetensors", "out/run/model");
    refused("model");
    fs::remove_dir_all(folder.path("out/run/model")).unwrap();
    fs::create_dir(folder.path("out/run/checkpoint-00000003.safetensors")).unwrap();
    refused("checkpoint-00000003.safetensors");
    fs::remove_dir(folder.path("out/run/checkpoint-00000003.safetensors")).unwrap();
    folder.done(&lines[2]);
    folder.done(&lines[0]);
}

#[test]
fn a_model_that_retrack_did_not_write_is_not_replaced() {
    let folder = Folder::with_all_to_train();
    folder.model("folder_f16_bin", "cloned");
    folder.write("cloned/.git/HEAD", "ref: refs/heads/main");
    for line in [UNLEARN, TRAIN] {
        folder.refused(
            &format!("{line} --steps 1 --out cloned --force"),
            &["cloned", "not be replaced", LIST, "choose another"],
        );
    }
    // What an older version wrote has no list.
    folder.done(&format!("{UNLEARN} --steps 1 --out old"));
    fs::remove_file(folder.path("old").join(LIST)).unwrap();
    folder.refused(
        &format!("{UNLEARN} --steps 1 --out old --force"),
        &["old", "not be replaced"],
    );
    folder.write(
        &format!("old/{LIST}"),
        "{\"files\": {\"../model/unet/config.json\": []}}",
    );
    folder.refused(
        &format!("{UNLEARN} --steps 1 --out old --force"),
        &["not retrack's list", "move it away"],
    );
    // A repository that is empty yet takes a model.
    folder.write("empty/.git/HEAD", "ref: refs/heads/main");
    folder.write("empty/.gitattributes", "theirs");
    folder.refused(
        &format!("{UNLEARN} --steps 1 --out empty"),
        &["empty", "--force"],
    );
    folder.done(&format!("{UNLEARN} --steps 1 --out empty --force"));
    assert_eq!(folder.read("empty/.gitattributes"), b"theirs");
    assert!(folder.path("empty/.git/HEAD").exists());
}

#[cfg(unix)]
#[test]
fn links_in_an_output_folder_are_not_followed() {
    let folder = Folder::with_all_to_train();
    folder.done(&format!("{UNLEARN} --steps 1 --out out"));
    fs::rename(folder.path("out/unet"), folder.path("elsewhere")).unwrap();
    std::os::unix::fs::symlink(folder.path("elsewhere"), folder.path("out/unet")).unwrap();
    folder.refused(
        &format!("{UNLEARN} --steps 1 --out out --force"),
        &["out/unet: "],
    );
    fs::remove_file(folder.path("out/unet")).unwrap();
    // In nobody's way it stays, and so does what it leads to.
    std::os::unix::fs::symlink(folder.path("elsewhere"), folder.path("out/link")).unwrap();
    let before = folder.files("elsewhere");
    folder.done(&format!("{UNLEARN} --steps 1 --out out --force"));
    assert!(folder.path("out/link").is_symlink());
    assert_same_files(&before, &folder.files("elsewhere"), "elsewhere");
}

/// Starts a run, and calls `meanwhile` once it has recorded a step.
fn during(folder: &Folder, line: &str, out: &str, meanwhile: impl FnOnce()) -> (i32, String) {
    let mut child = folder.command(line);
    let child = child.stderr(Stdio::piped()).stdout(Stdio::null()).spawn();
    let mut child = Guard(child.unwrap());
    let events = folder.path(out).join("run/events.jsonl");
    while fs::read(&events).map_or(0, |lines| lines.len()) == 0 {
        assert!(child.0.try_wait().unwrap().is_none(), "ended too early");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    meanwhile();
    let mut stderr = String::new();
    let mut pipe = child.0.stderr.take().unwrap();
    std::io::Read::read_to_string(&mut pipe, &mut stderr).unwrap();
    (child.0.wait().unwrap().code().unwrap(), stderr)
}

#[test]
fn what_comes_into_the_folder_during_a_run_stays() {
    let folder = Folder::with_all_to_train();
    for line in [UNLEARN, TRAIN] {
        let line = format!("{line} --steps 60 --out out");
        let theirs = [
            "notes.md",
            "unet/notes.md",
            "run/notes.md",
            "run/.writing-notes.md",
            "run/checkpoint-00000005-copy.safetensors",
        ];
        let (code, stderr) = during(&folder, &line, "out", || {
            theirs
                .iter()
                .for_each(|name| folder.write(&format!("out/{name}"), "mine"));
        });
        assert_eq!(code, 0, "{stderr}");
        for name in theirs {
            assert_eq!(folder.read(&format!("out/{name}")), b"mine", "{name}");
        }
        assert!(folder.path("out/model_index.json").exists());
        fs::remove_dir_all(folder.path("out")).unwrap();
    }
}

#[test]
fn what_comes_in_the_models_place_during_a_run_stops_it_and_the_model_waits() {
    let folder = Folder::with_all_to_train();
    for line in [UNLEARN, TRAIN] {
        folder.done(&format!("{line} --steps 60 --out whole"));
        let line = format!("{line} --steps 60 --out out");
        let (code, stderr) = during(&folder, &line, "out", || {
            folder.write("out/model_index.json", "mine");
        });
        assert_eq!(code, 1, "{stderr}");
        for part in ["out/model_index.json", "move it away", "out/run/model"] {
            assert!(stderr.contains(part), "{stderr}");
        }
        assert_eq!(folder.read("out/model_index.json"), b"mine");
        fs::rename(
            folder.path("out/model_index.json"),
            folder.path("mine.json"),
        )
        .unwrap();
        let said = folder.done(&format!("{line} --resume"));
        assert!(!said.stderr.contains("resuming"), "{}", said.stderr);
        assert!(folder.read(&format!("out/{WEIGHTS}")) == folder.read(&format!("whole/{WEIGHTS}")));
        fs::remove_dir_all(folder.path("out")).unwrap();
        fs::remove_dir_all(folder.path("whole")).unwrap();
    }
}

#[test]
fn force_over_an_interrupted_run_leaves_what_is_not_its_own() {
    let folder = Folder::with_all_to_train();
    for line in [UNLEARN, TRAIN] {
        folder.kill_after_two_checkpoints(
            &format!("{line} --steps 500 --checkpoint-every 1 --out out"),
            "out",
        );
        let theirs = [
            "notes.md",
            "run/notes.md",
            "run/checkpoint-2.safetensors.bak",
        ];
        theirs
            .iter()
            .for_each(|name| folder.write(&format!("out/{name}"), "mine"));
        folder.done(&format!("{line} --steps 1 --out out --force"));
        for name in theirs {
            assert_eq!(folder.read(&format!("out/{name}")), b"mine", "{name}");
        }
        assert_eq!(events(&folder, "out").len(), 1);
        fs::remove_dir_all(folder.path("out")).unwrap();
    }
}

#[test]
fn a_lock_file_of_somebody_else_is_not_emptied() {
    let folder = Folder::with_all_to_train();
    folder.write("out/run/lock", "the number of my bicycle");
    folder.refused(
        &format!("{UNLEARN} --steps 1 --out out"),
        &["out/run/lock", "not a lock"],
    );
    // Digits alone are not a lock's either.
    folder.write("out/run/lock", "4711");
    folder.refused(
        &format!("{UNLEARN} --steps 1 --out out"),
        &["out/run/lock", "not a lock", "move it away"],
    );
    folder.write("report/lock", "the number of my bicycle");
    folder.refused(
        "evaluate --model model --data photos --forget row:3 --threshold 1 --samples 2 --metrics frequency --steps 2 \
         --out report",
        &["report/lock", "not a lock"],
    );
}

#[test]
fn samples_of_two_models_do_not_mix_and_no_picture_is_written_over() {
    let folder = Folder::with_all_to_train();
    let sample = "sample --model model --steps 1";
    folder.done(&format!("{sample} --count 3 --out samples"));
    let again = format!("{sample} --count 2 --seed 1 --out samples");
    folder.refused(&again, &["samples/00000", "--force", "choose another"]);
    folder.done(&format!("{again} --force"));
    let names: Vec<String> = folder.files("samples").into_keys().collect();
    assert_eq!(names, [LIST, "000000.png", "000001.png"]);
    // They are a data set like any other.
    let said = folder.done("inspect samples --json").json();
    assert_eq!(said["images"], 2);

    // A data set with such names was never sampled, whatever is said.
    for row in 0..3 {
        folder.write(&format!("numbered/{row:06}.png"), support::photo_png(row));
    }
    for more in ["", " --force"] {
        let line = format!("{sample} --count 2 --out numbered{more}");
        folder.refused(&line, &["numbered/00000", "not written by retrack"]);
    }
    // One of ours that was painted over is not ours.
    folder.write("samples/000001.png", support::photo_png(5));
    folder.refused(
        &format!("{again} --force"),
        &["samples/000001.png", "changed since"],
    );
    // More samples than before meet a picture that came since.
    fs::remove_file(folder.path("samples/000001.png")).unwrap();
    folder.write("samples/000002.png", support::photo_png(5));
    folder.refused(
        &format!("{sample} --count 3 --out samples --force"),
        &["samples/000002.png"],
    );
}

#[test]
fn a_file_that_is_there_is_written_over_only_by_force() {
    let folder = Folder::with_all_to_train();
    folder.write("precious", "mine");
    folder.write("grid.png", "mine");
    let input = format!(
        "{}",
        support::parity()
            .join("folder_pipeline_safetensors/case.safetensors")
            .display()
    );
    let sample = "sample --model model --steps 1 --count 1 --out grid.png";
    let neighbors = "neighbors --data photos --forget row:1 --neighbors 2 --out grid.png";
    for line in [
        sample,
        neighbors,
        &format!("predict --model model --input {input} --output precious"),
        &format!("gradient --model model --method finetune --input {input} --output precious"),
    ] {
        folder.refused(line, &["there already", "--force"]);
    }
    for line in [sample, neighbors] {
        folder.done(&format!("{line} --force"));
        assert_ne!(folder.read("grid.png"), b"mine");
        // What is its own is written again, as often as one likes.
        folder.done(sample);
        folder.done(neighbors);
        folder.write("grid.png", "mine");
    }
    let predict = format!("predict --model model --input {input} --output own.safetensors");
    folder.done(&predict);
    folder.done(&predict);
    // An input is not replaced by force.
    folder.refused(
        &format!("{} --force", neighbors.replace("grid.png", "photos/03.png")),
        &["photos/03.png", "data folder"],
    );
    folder.write("in.safetensors", "x");
    for line in [
        "predict --model model",
        "gradient --model model --method finetune",
    ] {
        folder.refused(
            &format!("{line} --input in.safetensors --output ./in.safetensors --force"),
            &["the input itself"],
        );
        folder.refused(
            &format!("{line} --input in.safetensors --output model/{WEIGHTS} --force"),
            &["model folder"],
        );
    }
}

#[test]
fn an_evaluation_replaces_only_an_evaluation() {
    let folder = Folder::with_all_to_train();
    let line = "evaluate --model model --data photos --forget row:3 --threshold 1 --samples 2 \
                --metrics frequency --steps 2 --out report";
    folder.write("report/report.html", "a thesis");
    for more in ["", " --force"] {
        folder.refused(
            &format!("{line}{more}"),
            &[
                "report/report.html",
                "not written by retrack",
                "move it away",
            ],
        );
    }
    fs::remove_file(folder.path("report/report.html")).unwrap();
    folder.write("report/notes.md", "mine");
    folder.write("report/model-portrait.png", "mine");
    folder.done(&format!("{line} --baseline model"));
    assert!(folder.path("report/baseline.png").exists());
    folder.refused(line, &["report/", "--force"]);
    folder.done(&format!("{line} --force"));
    assert!(!folder.path("report/baseline.png").exists());
    assert_eq!(folder.read("report/notes.md"), b"mine");
    assert_eq!(folder.read("report/model-portrait.png"), b"mine");
    folder.write("report/model.png", "retouched");
    folder.refused(
        &format!("{line} --force"),
        &["report/model.png", "changed since"],
    );
}

#[test]
fn an_experiment_does_not_write_over_a_summary_that_was_edited() {
    let folder = Folder::with_all_to_train();
    folder.write(
        "small.toml",
        "neighbors = 2\nsteps = 1\nbatch_size = 2\n\n[experiment]\nsampling_steps = 2\n",
    );
    let line = "experiment mnist-tshirt --model model --data photos --forget row:3 --methods finetune --seeds 0 \
                --metrics frequency --threshold 3 --samples 2 --config small.toml --out out";
    folder.done(line);
    let summary = folder.read("out/summary.md");
    folder.write(
        "out/summary.md",
        [&summary[..], b"\nWhat I make of it: ...\n"].concat(),
    );
    folder.refused(line, &["out/summary.md", "changed since", "move it away"]);
    folder.write("out/summary.md", summary);
    folder.done(line);
}

#[test]
fn every_file_that_an_experiment_wrote_is_in_a_list() {
    let folder = Folder::with_all_to_train();
    folder.write(
        "small.toml",
        "neighbors = 2\nsteps = 1\nbatch_size = 2\n\n[experiment]\nsampling_steps = 2\n",
    );
    let line = "experiment mnist-tshirt --model model --data photos --forget row:3 --methods finetune,neggrad \
                --seeds 0 --metrics frequency --threshold 3 --samples 2 --config small.toml --out out";
    folder.done(line);
    let check = || {
        let list = Written::read(&folder.path("out")).unwrap().unwrap();
        let mut results = 0;
        for (name, content) in folder.files("out") {
            let path = Path::new(&name);
            let (list, path, below) = match path.strip_prefix("models") {
                Ok(below) if below.iter().count() > 1 => {
                    let run = below.iter().next().unwrap();
                    let root = folder.path("out/models").join(run);
                    let list = Written::read(&root).unwrap().unwrap();
                    (list, below.strip_prefix(run).unwrap().to_path_buf(), root)
                }
                _ => (list.clone(), path.to_path_buf(), folder.path("out")),
            };
            if !name.ends_with('/') && path != Path::new(LIST) {
                let mut one = Written::default();
                one.add(&path, digest(&content));
                let owner = |list: &Written| list.owner(&below, &path).unwrap();
                assert_eq!(owner(&list), owner(&one), "{name}");
                results += usize::from(name.starts_with("results/"));
            }
        }
        assert_eq!(results, 3);
    };
    check();
    // A result that is measured again too.
    fs::remove_file(folder.path("out/results/finetune-seed0-forget0.json")).unwrap();
    folder.done(line);
    check();
}

#[test]
fn merge_replaces_only_what_retrack_wrote() {
    let folder = Folder::with_all_to_train();
    folder.model("folder_f16_bin", "cloned");
    // Whether or not there is an adapter, nothing is removed.
    let before = folder.files("cloned");
    let output = folder
        .command("merge --model model --out cloned --force")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_same_files(&before, &folder.files("cloned"), "cloned");
}

#[test]
fn the_card_of_the_first_base_model_is_not_lost_when_its_offspring_is_a_base() {
    let folder = Folder::with_all_to_train();
    folder.write("model/README.md", "the first");
    folder.done(&format!("{UNLEARN} --steps 1 --out second"));
    assert_eq!(folder.read("second/README.base.md"), b"the first");
    let line = UNLEARN.replace("--model model", "--model second");
    folder.done(&format!("{line} --steps 1 --always --out third"));
    assert_eq!(folder.read("third/README.base.md"), b"the first");
    assert_eq!(
        folder.read("third/README.base2.md"),
        folder.read("second/README.md")
    );
    let card = String::from_utf8(folder.read("third/README.md")).unwrap();
    assert!(card.contains("README.base2.md"), "{card}");
    // The record and the list of the second are not the third's.
    let list = Written::read(&folder.path("third")).unwrap().unwrap();
    assert!(list.has(Path::new("README.base2.md")) && list.has(Path::new("run/config.json")));
}
