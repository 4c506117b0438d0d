//! Runs that end at any moment, by `kill -9` or a full disk, and go on as if nothing had happened; two runs on one
//! folder. RETRACK_KILLS=20 kills as often as SECURITY.md records.

#![cfg(unix)]

mod support;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use burn::tensor::Device;
use retrack_networks::lora;
use retrack_networks::model::Model;
use retrack_networks::random::Random;
use support::{Folder, Guard, assert_same_files};

/// Whether a run has come to where it is to be killed.
type Moment = fn(&Path) -> bool;

const UNLEARN: &str = "unlearn --model model --data photos --forget row:3 --neighbors 4 --batch-size 4 --steps 30 --checkpoint-every 1";
const TRAIN: &str = "train --data photos --arch tiny.json --batch-size 4 --warmup 5 --steps 30 --checkpoint-every 1";
const WEIGHTS: &str = "unet/diffusion_pytorch_model.safetensors";

/// Starts `line` and kills it when `moment` says so; whether it was killed before its end.
fn kill_when(folder: &Folder, line: &str, mut moment: impl FnMut() -> bool) -> bool {
    let mut child = Guard(folder.command(line).stderr(Stdio::null()).spawn().unwrap());
    loop {
        if child.0.try_wait().unwrap().is_some() {
            return false;
        }
        if moment() {
            child.0.kill().unwrap();
            child.0.wait().unwrap();
            return true;
        }
    }
}

/// Brings a killed run to its end, as its user would.
fn finish(folder: &Folder, line: &str, out: &str) {
    let begun = folder.path(out).join("run/unfinished").exists();
    let resume = if begun { " --resume" } else { "" };
    folder.done(&format!("{line} --out {out}{resume}"));
}

/// Kills at random moments of the whole run's time, and resumes.
fn killed_at_random(line: &str) {
    let folder = Folder::with_all_to_train();
    let start = Instant::now();
    folder.done(&format!("{line} --out whole"));
    let whole_time = start.elapsed();
    let expected = folder.read(&format!("whole/{WEIGHTS}"));
    let kills: usize = std::env::var("RETRACK_KILLS").map_or(3, |text| text.parse().unwrap());
    let (mut killed, mut state, mut before, mut moving) = (0, 1u64, 0, 0);
    while killed < kills {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        let part = (state >> 40) as f64 / (1u64 << 24) as f64;
        let after = whole_time.mul_f64(part);
        let out = format!("parts{killed}");
        let start = Instant::now();
        let was_killed = kill_when(&folder, &format!("{line} --out {out}"), || {
            start.elapsed() >= after
        });
        let run = folder.path(&out).join("run");
        if was_killed && (run.join("unfinished").exists() || !run.join("events.jsonl").exists()) {
            before += usize::from(!run.join("unfinished").exists());
            moving += usize::from(run.join("model").exists() || run.join("moving").exists());
            finish(&folder, line, &out);
            let weights = folder.read(&format!("{out}/{WEIGHTS}"));
            assert!(
                weights == expected,
                "killed after {after:?} of {whole_time:?}"
            );
            killed += 1;
        }
        let _ = fs::remove_dir_all(folder.path(&out));
    }
    println!(
        "{killed} kills within {whole_time:.1?}, {before} before the run had begun, {moving} while the model was \
         written: the same weights each time"
    );
}

#[test]
fn unlearning_that_is_killed_at_random_moments_ends_with_the_same_weights() {
    killed_at_random(UNLEARN);
}

#[test]
fn training_that_is_killed_at_random_moments_ends_with_the_same_weights() {
    killed_at_random(TRAIN);
}

#[test]
fn kills_while_a_checkpoint_or_the_model_is_written_cost_nothing() {
    let folder = Folder::with_all_to_train();
    for (line, name) in [(UNLEARN, "unlearn"), (TRAIN, "train")] {
        folder.done(&format!("{line} --out {name}"));
        let mut whole = folder.files(name);
        support::drop_timed(&mut whole);
        let moments: [(&str, Moment); 4] = [
            ("a file is written", |run| {
                let names = fs::read_dir(run).into_iter().flatten().flatten();
                names
                    .filter(|entry| entry.file_name().to_string_lossy().starts_with(".writing-"))
                    .count()
                    > 0
            }),
            ("the digest is there and its checkpoint is not", |run| {
                let names = fs::read_dir(run).into_iter().flatten().flatten();
                let digests = names.map(|entry| entry.path());
                let mut digests =
                    digests.filter(|path| path.extension() == Some("sha256".as_ref()));
                digests.any(|path| !path.with_extension("safetensors").exists())
            }),
            ("the model is written", |run| run.join("model").exists()),
            ("the model moves", |run| run.join("moving").exists()),
        ];
        for (what, moment) in moments {
            // The shortest of these moments may be missed.
            for attempt in 0..5 {
                let out = format!("{name}-parts");
                let run = folder.path(&out).join("run");
                let killed = kill_when(&folder, &format!("{line} --out {out}"), || moment(&run));
                if killed && run.join("unfinished").exists() {
                    finish(&folder, line, &out);
                } else if attempt < 4 {
                    let _ = fs::remove_dir_all(folder.path(&out));
                    continue;
                } else {
                    println!("{name}: missed the moment when {what}");
                    break;
                }
                let mut parts = folder.files(&out);
                support::drop_timed(&mut parts);
                assert_same_files(&whole, &parts, what);
                fs::remove_dir_all(folder.path(&out)).unwrap();
                break;
            }
        }
    }
}

#[test]
fn a_run_with_force_that_is_killed_at_any_moment_loses_nothing() {
    let folder = Folder::with_all_to_train();
    for line in [UNLEARN, TRAIN] {
        let forced = format!("{line} --seed 1");
        folder.done(&format!("{line} --out old"));
        folder.done(&format!("{forced} --out whole"));
        let expected = folder.read(&format!("whole/{WEIGHTS}"));
        let before = folder.read(&format!("old/{WEIGHTS}"));
        let theirs = ["notes.md", "unet/notes.md", "run/notes.md"];
        for name in theirs {
            folder.write(&format!("old/{name}"), "mine");
        }
        let moments: [(&str, Moment); 5] = [
            ("the mark is there", |run| run.join("unfinished").exists()),
            ("the old record is gone", |run| {
                run.join("unfinished").exists() && !run.join("events.jsonl").exists()
            }),
            ("the run goes on", |run| {
                run.join("checkpoint-00000004.safetensors").exists()
            }),
            ("the model is written", |run| run.join("model").exists()),
            ("the model moves", |run| run.join("moving").exists()),
        ];
        let mut hit = 0;
        for (what, moment) in moments {
            let copied = Command::new("cp")
                .arg("-r")
                .args([folder.path("old"), folder.path("out")])
                .status();
            assert!(copied.unwrap().success());
            let run = folder.path("out/run");
            let line = format!("{forced} --out out");
            let killed = kill_when(&folder, &format!("{line} --force"), || moment(&run));
            match killed && run.join("unfinished").exists() {
                true => hit += 1,
                false => println!("missed the moment when {what}"),
            }
            for name in theirs {
                assert_eq!(folder.read(&format!("out/{name}")), b"mine", "{what}");
            }
            // The old model until the new one moves.
            if run.join("unfinished").exists() && !run.join("moving").exists() {
                assert!(folder.read(&format!("out/{WEIGHTS}")) == before, "{what}");
            }
            if run.join("unfinished").exists() {
                let between =
                    folder.read("out/run/config.json") == folder.read("old/run/config.json");
                let resumed = folder
                    .command(&format!("{line} --resume"))
                    .output()
                    .unwrap();
                // The mark comes before the new configuration: in between there is no step of the new run to lose, and
                // only then it may not be resumed.
                let said = String::from_utf8_lossy(&resumed.stderr);
                if between {
                    assert_eq!(resumed.status.code(), Some(2), "{what}: {said}");
                    assert!(said.contains("seed: 0 then, 1 now"), "{what}: {said}");
                    folder.done(&format!("{line} --force"));
                } else {
                    assert!(resumed.status.success(), "{what}: {said}");
                }
            }
            assert!(folder.read(&format!("out/{WEIGHTS}")) == expected, "{what}");
            for name in theirs {
                assert_eq!(folder.read(&format!("out/{name}")), b"mine", "{what}");
            }
            folder.done(&format!("{line} --force"));
            fs::remove_dir_all(folder.path("out")).unwrap();
        }
        assert!(hit > 0, "{line}: every moment was missed");
        fs::remove_dir_all(folder.path("old")).unwrap();
        fs::remove_dir_all(folder.path("whole")).unwrap();
    }
}

fn copy(folder: &Folder, from: &str, to: &str) {
    let copied = Command::new("cp")
        .arg("-r")
        .args([folder.path(from), folder.path(to)])
        .status();
    assert!(copied.unwrap().success());
}

#[test]
fn a_finished_run_that_is_killed_as_it_begins_to_go_on_still_goes_on() {
    let folder = Folder::with_all_to_train();
    let line = TRAIN.replace(" --steps 30", "");
    folder.done(&format!("{line} --steps 10 --out old"));
    copy(&folder, "old", "whole");
    folder.done(&format!("{line} --steps 30 --out whole --resume"));
    let expected = folder.read(&format!("whole/{WEIGHTS}"));
    let list = retrack_checkpoint::written::NAME;
    let steps = |out: &str| folder.read_json(&format!("{out}/run/config.json"))["steps"].clone();
    let moments: [(&str, Moment); 2] = [
        ("the configuration is the new one", |run| {
            let text = fs::read_to_string(run.join("config.json")).unwrap_or_default();
            text.contains("\"steps\": 30")
        }),
        ("the mark is there", |run| run.join("unfinished").exists()),
    ];
    for (what, moment) in moments {
        copy(&folder, "old", "out");
        let run = folder.path("out/run");
        let again = format!("{line} --steps 30 --out out --resume");
        assert!(kill_when(&folder, &again, || moment(&run)), "{what}");
        // In this order, so that the mark is never one of the run before.
        assert_eq!(steps("out"), 30, "{what}");
        // What a kill between any two of the writes leaves: the list, the configuration, the mark.
        copy(&folder, "old", "listed");
        copy(&folder, "old", "between");
        for (name, to) in [
            (list, "listed"),
            (list, "between"),
            ("run/config.json", "between"),
        ] {
            folder.write(&format!("{to}/{name}"), folder.read(&format!("out/{name}")));
        }
        copy(&folder, "between", "further");
        copy(&folder, "between", "forced");
        for out in ["out", "listed", "between"] {
            folder.done(&format!("{line} --steps 30 --out {out} --resume"));
            assert!(
                folder.read(&format!("{out}/{WEIGHTS}")) == expected,
                "{what}: {out}"
            );
        }
        folder.refused(
            &format!("{line} --steps 10 --out further --resume"),
            &["ended after 10 steps"],
        );
        folder.done(&format!("{line} --steps 35 --out further --resume"));
        let config = folder.read_json("further/run/config.json");
        assert_eq!(config["ended_at"], serde_json::json!([10]));
        folder.done(&format!("{line} --steps 10 --out forced --force"));
        for out in ["out", "listed", "between", "further", "forced"] {
            fs::remove_dir_all(folder.path(out)).unwrap();
        }
    }
}

#[test]
fn a_disk_that_takes_no_more_costs_no_checkpoint() {
    let folder = Folder::with_all_to_train();
    folder.done(&format!("{UNLEARN} --out whole"));
    let line = format!("{UNLEARN} --out parts");
    folder.kill_after_two_checkpoints(&line, "parts");
    let before = checkpoints(&folder.path("parts"));
    // Files of 100 kB at most, in blocks of 512 bytes: a checkpoint is larger. The signal that comes with it is ignored,
    // so that the write fails as it does on a full disk.
    let shell = format!(
        "ulimit -f 200; trap '' XFSZ; exec {} {line} --resume",
        env!("CARGO_BIN_EXE_retrack")
    );
    let mut command = Command::new("sh");
    command
        .args(["-c", &shell])
        .current_dir(folder.path(""))
        .env("XDG_CACHE_HOME", folder.path("cache"));
    assert_full(&command.output().unwrap());
    assert_eq!(checkpoints(&folder.path("parts")), before);
    assert_no_leftovers(&folder.path("parts"));
    goes_on_elsewhere(&folder, &folder.path("parts"));
}

/// A file system of 20 MB, unmounted at the end.
struct Small(PathBuf);

impl Small {
    /// `None`, with the reason, where this user may not mount.
    fn mount(path: PathBuf) -> Option<Self> {
        fs::create_dir_all(&path).unwrap();
        let output = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=20m", "tmpfs"])
            .arg(&path)
            .output();
        match output {
            Ok(output) if output.status.success() => Some(Self(path)),
            Ok(output) => {
                let why = String::from_utf8_lossy(&output.stderr);
                println!(
                    "skipped, no file system can be mounted here: {}",
                    why.trim()
                );
                None
            }
            Err(error) => {
                println!("skipped, no file system can be mounted here: {error}");
                None
            }
        }
    }

    /// Takes what is free there, and what becomes free until the child ends.
    fn fill_until_end(&self, child: &mut Guard) {
        let mut ballast = fs::File::create(self.0.join("ballast")).unwrap();
        while child.0.try_wait().unwrap().is_none() {
            while ballast.write_all(&[1; 16 << 10]).is_ok() {}
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn merging_into_a_link_or_a_mount_point_replaces_the_model_there() {
    let folder = Folder::new();
    folder.model("pipeline_sd1", "plain");
    let model = Model::open(&folder.path("plain")).unwrap();
    let network = lora::attach(model.network(&Device::flex()).unwrap(), 2, &Random::new(5));
    let tensors = lora::export(&network).unwrap();
    let with_adapter = folder.path("model");
    let written = model
        .folder
        .write_beside(&with_adapter, lora::FILE_NAME, &tensors);
    written.unwrap();
    let merge = |out: &str| format!("merge --model model --out {out}");
    folder.done(&merge("plainly"));
    let mut expected = folder.files("plainly");
    expected.remove(retrack_checkpoint::written::NAME);
    let check = |out: &str| {
        let mut found = folder.files(out);
        found.remove(retrack_checkpoint::written::NAME);
        assert_same_files(&expected, &found, out);
    };
    // What a killed merge left in a folder that was there is in nobody's way.
    folder.write("killed/..merging-77.partial-abcdef/unet/config.json", "{}");
    folder.write("killed/.merging-77/unet/config.json", "{}");
    folder.done(&merge("killed"));
    for name in ["..merging-77.partial-abcdef", ".merging-77"] {
        fs::remove_dir_all(folder.path("killed").join(name)).unwrap();
    }
    check("killed");
    folder.write("killed/run/unfinished", "");
    folder.refused(
        &merge("killed"),
        &["killed: ", "interrupted run", "give --force to replace it"],
    );
    let Some(small) = Small::mount(folder.path("small")) else {
        return;
    };
    folder.done(&merge("small"));
    fs::create_dir(small.0.join("linked")).unwrap();
    std::os::unix::fs::symlink(small.0.join("linked"), folder.path("link")).unwrap();
    folder.done(&merge("link"));
    for out in ["link", "small/linked"] {
        folder.done(&format!("{} --force", merge(out)));
        check("small/linked");
    }
    fs::remove_dir_all(small.0.join("linked")).unwrap();
    folder.done(&format!("{} --force", merge("small")));
    check("small");
}

#[test]
fn a_full_file_system_in_the_middle_of_a_checkpoint_costs_no_checkpoint() {
    let folder = Folder::with_all_to_train();
    folder.done(&format!("{UNLEARN} --out whole"));
    let Some(small) = Small::mount(folder.path("small")) else {
        return;
    };
    let out = small.0.join("parts");
    let line = format!("{UNLEARN} --out small/parts");
    let mut child = folder.command(&line);
    let child = child.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = Guard(child.unwrap());
    while checkpoints(&out).len() < 2 {
        assert!(child.0.try_wait().unwrap().is_none(), "ended too early");
        std::thread::sleep(Duration::from_millis(1));
    }
    small.fill_until_end(&mut child);
    let status = child.0.wait().unwrap();
    let mut stderr = Vec::new();
    let mut pipe = child.0.stderr.take().unwrap();
    std::io::Read::read_to_end(&mut pipe, &mut stderr).unwrap();
    assert_full(&Output {
        status,
        stdout: Vec::new(),
        stderr,
    });
    assert!(!checkpoints(&out).is_empty());
    assert_no_leftovers(&out);
    // Neither goes it on there, nor does another run begin.
    folder.refused_anyhow(
        "unlearn --model model --data photos --forget row:3 --neighbors 4 --out small/new",
        &["small/new", "of disk", "free", "another disk"],
    );
    goes_on_elsewhere(&folder, &out);
}

fn assert_full(output: &Output) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    for part in ["run/", "free some space", "another disk", "--resume"] {
        assert!(stderr.contains(part), "without \"{part}\": {stderr}");
    }
}

fn checkpoints(out: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(out.join("run"))
        .into_iter()
        .flatten()
        .flatten();
    let mut found: Vec<_> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("checkpoint-") && name.ends_with(".safetensors"))
        .filter_map(|name| Some((name.clone(), fs::read(out.join("run").join(&name)).ok()?)))
        .collect();
    found.sort();
    found
}

fn assert_no_leftovers(out: &Path) {
    for entry in fs::read_dir(out.join("run")).unwrap() {
        let name = entry.unwrap().file_name();
        let name = name.to_string_lossy();
        assert!(!name.starts_with(".writing-") && name != "lock", "{name}");
    }
}

/// Copies a run that its disk ended to another folder, where it goes on to the uninterrupted run's weights.
fn goes_on_elsewhere(folder: &Folder, out: &Path) {
    let copied = Command::new("cp")
        .arg("-r")
        .arg(out)
        .arg(folder.path("elsewhere"))
        .status();
    assert!(copied.unwrap().success());
    let said = folder.done(&format!("{UNLEARN} --out elsewhere --resume"));
    assert!(
        said.stderr.contains("resuming after step"),
        "{}",
        said.stderr
    );
    assert!(!said.stderr.contains("after step 0"), "{}", said.stderr);
    let weights = |out: &str| folder.read(&format!("{out}/{WEIGHTS}"));
    assert!(weights("elsewhere") == weights("whole"));
}

#[test]
fn two_runs_never_write_to_one_folder() {
    let folder = Folder::with_all_to_train();
    for line in [UNLEARN, TRAIN] {
        let line = line.replace("--steps 30", "--steps 100000");
        let line = format!("{line} --out out");
        let child = folder.command(&line).stderr(Stdio::null()).spawn().unwrap();
        let child = Guard(child);
        let unfinished = folder.path("out/run/unfinished");
        while !unfinished.exists() {
            std::thread::sleep(Duration::from_millis(1));
        }
        let holder = format!("process {} is writing here", child.0.id());
        for more in ["", " --resume", " --force"] {
            // Its own files change while it goes on.
            folder.refused_anyhow(
                &format!("{line}{more}"),
                &["out", &holder, "choose another"],
            );
        }
        // A dead process holds nothing, though its file is there.
        drop(child);
        assert!(folder.path("out/run/lock").exists());
        let short = line.replace("--steps 100000", "--steps 1");
        folder.done(&format!("{short} --force"));
        assert!(!folder.path("out/run/lock").exists());
        fs::remove_dir_all(folder.path("out")).unwrap();
    }
    for line in [
        "evaluate --model model --data photos --forget row:3 --threshold 1 --samples 2 --metrics frequency --steps 2",
        "experiment demo --model model --data photos --forget row:3 --methods finetune --seeds 0 --samples 2 --metrics frequency",
    ] {
        let line = format!("{line} --out out");
        folder.write("out/lock", "retrack 4321\n");
        let file = fs::File::open(folder.path("out/lock")).unwrap();
        file.lock().unwrap();
        folder.refused(&line, &["out", "process 4321 is writing here"]);
        file.unlock().unwrap();
        if line.starts_with("evaluate") {
            folder.done(&line);
            assert!(!folder.path("out/lock").exists());
        }
        fs::remove_dir_all(folder.path("out")).unwrap();
    }
}
