//! Ctrl-C and SIGTERM: real signals to the real binary.
#![cfg(unix)]

mod support;

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use burn::tensor::Device;
use retrack_networks::lora;
use retrack_networks::model::Model;
use retrack_networks::random::Random;
use support::{Folder, Guard};

/// Starts a command, sends it a signal once `ready`, and returns its exit code and what it said.
fn interrupted(
    folder: &Folder,
    line: &str,
    signal: &str,
    ready: &dyn Fn() -> bool,
) -> (Option<i32>, String) {
    let child = folder
        .command(line)
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut child = Guard(child);
    let start = Instant::now();
    while !ready() {
        assert!(
            child.0.try_wait().unwrap().is_none(),
            "{line}: ended too early"
        );
        assert!(
            start.elapsed() < Duration::from_secs(600),
            "{line}: never ready"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    send(&child, signal);
    let asked = Instant::now();
    let mut stderr = String::new();
    let mut pipe = child.0.stderr.take().unwrap();
    std::io::Read::read_to_string(&mut pipe, &mut stderr).unwrap();
    let status = child.0.wait().unwrap();
    assert!(
        asked.elapsed() < Duration::from_secs(20),
        "{line}: {:?}",
        asked.elapsed()
    );
    assert!(!stderr.contains("panicked"), "{stderr}");
    (status.code(), stderr)
}

fn send(child: &Guard, signal: &str) {
    let id = child.0.id().to_string();
    let status = Command::new("kill")
        .args([&format!("-{signal}"), &id])
        .status();
    assert!(status.unwrap().success());
}

/// Waits a little: the command has begun and is at work.
fn after(time: Duration) -> impl Fn() -> bool {
    let start = Instant::now();
    move || start.elapsed() >= time
}

/// Refuses what a command that was stopped must not leave anywhere.
fn assert_clean(folder: &Folder, line: &str) {
    for name in folder.files("").keys() {
        let name = name.trim_end_matches('/');
        let last = name.rsplit('/').next().unwrap();
        let leftover = last == "lock"
            || last.starts_with(".writing-")
            || last.contains(".partial-")
            || last.starts_with(".tmp");
        assert!(!leftover, "{line} left {name}");
    }
    assert!(
        !folder.path("out/lock").exists() && !folder.path("out/run/lock").exists(),
        "{line}"
    );
}

#[test]
fn commands_that_only_look_or_draw_stop_at_once_and_say_what_there_is() {
    let folder = Folder::with_model_and_photos();
    let long = "--model model --data photos --forget row:3 --samples 100000 --steps 1000";
    for (line, says) in [
        (
            "sample --model model --count 100000 --steps 1000 --out out".to_string(),
            "nothing was written",
        ),
        (
            format!("evaluate {long} --metrics frequency --out out"),
            "nothing is kept: the same command starts again",
        ),
    ] {
        for (signal, code) in [("INT", 130), ("TERM", 143)] {
            let (ended, said) =
                interrupted(&folder, &line, signal, &after(Duration::from_millis(1500)));
            assert_eq!(ended, Some(code), "{line}: {said}");
            let last = said.trim_end().lines().last().unwrap();
            assert_eq!(last, format!("error: interrupted; {says}"), "{line}");
            assert_clean(&folder, &line);
            assert!(!folder.path("out").exists(), "{line}");
        }
    }
}

#[test]
fn an_experiment_keeps_its_complete_runs_and_goes_on() {
    let folder = Folder::with_model_and_photos();
    folder.write(
        "long.toml",
        "steps = 100000\nbatch_size = 2\naccumulate = 1\nneighbors = 4\n[experiment]\nsampling_steps = 2",
    );
    let line = "experiment demo --model model --data photos --forget row:3 --methods finetune --seeds 0 --samples 2 \
                --metrics frequency --config long.toml --out out";
    let trained = folder.path("out/models/finetune-seed0-forget0/run/events.jsonl");
    let (code, said) = interrupted(&folder, line, "INT", &|| {
        fs::metadata(&trained).is_ok_and(|file| file.len() > 0)
    });
    assert_eq!(code, Some(130), "{said}");
    assert!(
        said.contains("which is kept: the same command goes on"),
        "{said}"
    );
    assert_clean(&folder, line);
    assert!(
        folder
            .path("out/results/original-seed0-forget0.json")
            .exists()
    );
    // While it samples, too.
    let sampling = line
        .replace("--samples 2", "--samples 100000")
        .replace("--out out", "--out other");
    let begun = folder.path("other/experiment.json");
    let (code, said) = interrupted(&folder, &sampling, "TERM", &|| begun.exists());
    assert_eq!(code, Some(143), "{said}");
    assert!(
        said.contains("the runs that are complete are kept: the same command goes on"),
        "{said}"
    );
    assert_clean(&folder, &sampling);
    // It goes on from the step that it had.
    let (code, said) = interrupted(&folder, line, "INT", &after(Duration::from_secs(3)));
    assert_eq!(code, Some(130), "{said}");
    assert!(
        said.contains("resuming after step") && !said.contains("after step 0\n"),
        "{said}"
    );
}

#[test]
fn training_keeps_its_step_and_a_second_signal_ends_it_at_once() {
    let folder = Folder::with_model_and_photos();
    folder.tiny_arch(serde_json::json!({}));
    for (line, begun) in [
        (
            "train --data photos --arch tiny.json --steps 100000 --batch-size 2 --out out",
            "out/run/events.jsonl",
        ),
        (
            "unlearn --model model --data photos --forget row:3 --neighbors 4 --steps 100000 --batch-size 2 \
             --accumulate 1 --no-report --out out",
            "out/run/events.jsonl",
        ),
    ] {
        let events = folder.path(begun);
        let begun = || fs::metadata(&events).is_ok_and(|file| file.len() > 0);
        let (code, said) = interrupted(&folder, line, "TERM", &begun);
        assert_eq!(code, Some(143), "{said}");
        assert!(
            said.contains("is kept: the same command with --resume goes on"),
            "{said}"
        );
        assert_clean(&folder, line);
        fs::remove_dir_all(folder.path("out")).unwrap();
    }
    // One step that takes very long: the first signal waits for it, the second one does not.
    let line = "unlearn --model model --data photos --forget row:3 --neighbors 4 --steps 10 --batch-size 16 \
                --accumulate 100000 --no-report --out out";
    let child = folder.command(line).stderr(Stdio::piped()).spawn().unwrap();
    let mut child = Guard(child);
    let mut pipe = child.0.stderr.take().unwrap();
    while !folder.path("out/run/unfinished").exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(1500));
    send(&child, "INT");
    std::thread::sleep(Duration::from_millis(500));
    assert!(
        child.0.try_wait().unwrap().is_none(),
        "did not finish its step"
    );
    send(&child, "INT");
    let status = child.0.wait().unwrap();
    assert_eq!(status.code(), Some(130));
    let mut said = String::new();
    std::io::Read::read_to_string(&mut pipe, &mut said).unwrap();
    let told = "stopping after this step, which is kept; a second signal ends it at once";
    assert!(said.contains(told), "{said}");
    let ended = "interrupted a second time and ended at once, without what was not written yet; the same command with \
                 --resume goes on";
    assert!(said.contains(ended), "{said}");
    assert_clean(&folder, line);
    folder.done("unlearn --model model --data photos --forget row:3 --neighbors 4 --steps 1 --batch-size 2 --accumulate 1 --no-report --out out --force");
}

#[test]
fn a_second_signal_while_the_result_is_looked_at_costs_no_step() {
    let folder = Folder::new();
    let assets = support::parity().join("../../assets");
    let line = format!(
        "unlearn --model {0}/base-model --data {0}/digits.parquet --forget label:10 --preset demo --batch-size 4 \
         --steps 3",
        assets.canonicalize().unwrap().display()
    );
    folder.done(&format!("{line} --out whole"));
    let line = format!("{line} --out out");
    let child = folder
        .command(&line)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut child = Guard(child);
    let mut pipe = child.0.stderr.take().unwrap();
    // The folder is written and opened again.
    while !folder.path("out/run/model/model_index.json").exists() {
        assert!(child.0.try_wait().unwrap().is_none(), "ended too early");
        std::thread::sleep(Duration::from_millis(1));
    }
    send(&child, "INT");
    std::thread::sleep(Duration::from_millis(400));
    send(&child, "INT");
    let status = child.0.wait().unwrap();
    let mut said = String::new();
    std::io::Read::read_to_string(&mut pipe, &mut said).unwrap();
    assert_eq!(status.code(), Some(130), "{said}");
    for part in [
        "stopping once the result is written",
        "interrupted a second time",
        "the same command with --resume goes on",
    ] {
        assert!(said.contains(part), "{said}");
    }
    assert_clean(&folder, &line);
    assert!(!folder.path("out/model_index.json").exists());
    let said = folder.done(&format!("{line} --resume")).stderr;
    assert!(said.contains("resuming after step 3"), "{said}");
    let events = |out: &str| support::events(&folder, out);
    let errors = |out: &str| events(out).last().unwrap()["forgotten_error"].clone();
    assert_eq!(events("out").len(), 3);
    assert!(errors("out").is_f64());
    assert_eq!(errors("out"), errors("whole"));
    let (mut whole, mut resumed) = (folder.files("whole"), folder.files("out"));
    support::drop_timed(&mut whole);
    support::drop_timed(&mut resumed);
    support::assert_same_files(&whole, &resumed, "resumed");
}

#[test]
fn one_signal_that_is_sent_twice_keeps_the_step() {
    let folder = Folder::with_model_and_photos();
    folder.tiny_arch(serde_json::json!({}));
    let line = "train --data photos --arch tiny.json --steps 100000 --batch-size 2 --out out";
    let child = folder.command(line).stderr(Stdio::piped()).spawn().unwrap();
    let mut child = Guard(child);
    let events = folder.path("out/run/events.jsonl");
    while !fs::metadata(&events).is_ok_and(|file| file.len() > 0) {
        assert!(child.0.try_wait().unwrap().is_none(), "ended too early");
        std::thread::sleep(Duration::from_millis(1));
    }
    send(&child, "TERM");
    std::thread::sleep(Duration::from_millis(10));
    send(&child, "TERM");
    let mut said = String::new();
    let mut pipe = child.0.stderr.take().unwrap();
    std::io::Read::read_to_string(&mut pipe, &mut said).unwrap();
    assert_eq!(child.0.wait().unwrap().code(), Some(143), "{said}");
    assert!(
        said.contains("is kept: the same command with --resume goes on"),
        "{said}"
    );
    assert_clean(&folder, line);
}

#[test]
fn a_demo_says_how_to_start_again() {
    let folder = Folder::new();
    let (code, said) = interrupted(
        &folder,
        "demo --out out",
        "INT",
        &after(Duration::from_secs(3)),
    );
    assert_eq!(code, Some(130), "{said}");
    assert!(
        said.contains("out is not complete: the same command with --force starts again"),
        "{said}"
    );
    assert_clean(&folder, "demo");
    // While it unlearns too: what is kept then is of no use to anybody.
    let steps = folder.path("again/model/run/events.jsonl");
    let (code, said) = interrupted(&folder, "demo --count 4 --out again", "INT", &|| {
        fs::metadata(&steps).is_ok_and(|file| file.len() > 0)
    });
    assert_eq!(code, Some(130), "{said}");
    assert!(
        said.contains(": the same command with --force starts again") && !said.contains("kept"),
        "{said}"
    );
    folder.refused("demo --count 4 --out again", &["again", "--force"]);
}

#[test]
fn verify_says_that_it_stopped_and_changes_nothing() {
    let folder = Folder::with_model_and_photos();
    folder.done("unlearn --model model --data photos --forget row:3 --neighbors 4 --steps 2 --batch-size 2 --accumulate 1 --out made");
    // A plan that takes long to measure again.
    let path = "made/run/report.json";
    let report = String::from_utf8(folder.read(path)).unwrap();
    let mut report: serde_json::Value = serde_json::from_str(&report).unwrap();
    report["check"]["plan"]["samples"] = 1024.into();
    report["check"]["plan"]["sampling_steps"] = 1000.into();
    folder.write(path, report.to_string());
    let before = folder.files("made");
    let (code, said) = interrupted(
        &folder,
        "verify made",
        "INT",
        &after(Duration::from_millis(1500)),
    );
    assert_eq!(code, Some(130), "{said}");
    assert!(
        said.contains("error: interrupted; nothing was changed"),
        "{said}"
    );
    support::assert_same_files(&before, &folder.files("made"), "verify");
}

#[test]
fn a_search_for_neighbors_stops_at_once() {
    let folder = Folder::new();
    let images = folder.idx(20_000, 32, 10);
    let line =
        format!("neighbors --data {images} --forget rows:0-9999 --neighbors 10 --out out.png");
    let (code, said) = interrupted(&folder, &line, "INT", &after(Duration::from_millis(1500)));
    assert_eq!(code, Some(130), "{said}");
    assert!(
        said.contains("error: interrupted; nothing was written"),
        "{said}"
    );
    assert_clean(&folder, &line);
    assert!(!folder.path("out.png").exists());
}

#[test]
fn a_merge_that_is_stopped_leaves_nothing_behind() {
    let folder = Folder::new();
    folder.model("pipeline_sd1", "plain");
    let model = Model::open(&folder.path("plain")).unwrap();
    let network = lora::attach(model.network(&Device::flex()).unwrap(), 2, &Random::new(5));
    let tensors = lora::export(&network).unwrap();
    let beside = folder.path("model");
    let written = model
        .folder
        .write_beside(&beside, lora::FILE_NAME, &tensors);
    written.unwrap();
    // What takes long to copy.
    let large = fs::File::create(folder.path("model/vae/large.bin")).unwrap();
    large.set_len(3 << 30).unwrap();
    folder.write(
        "out/model_index.json",
        folder.read("model/model_index.json"),
    );
    // Written by an earlier command, so that --force may replace it.
    let mut list = retrack_checkpoint::written::Written::default();
    let index = folder.read("out/model_index.json");
    let digest = retrack_checkpoint::written::digest(&index);
    list.add(std::path::Path::new("model_index.json"), digest);
    list.save(&folder.path("out")).unwrap();
    let before = folder.files("out");
    let copying = || {
        // Beside a new folder, and in one that is there.
        let entries = [folder.path(""), folder.path("out")]
            .map(|path| fs::read_dir(path).unwrap().flatten())
            .into_iter()
            .flatten();
        let partial =
            entries.filter(|entry| entry.file_name().to_string_lossy().contains(".partial-"));
        partial
            .into_iter()
            .any(|entry| entry.path().join("vae/large.bin").exists())
    };
    for (line, signal, code) in [
        ("merge --model model --out new/merged", "INT", 130),
        ("merge --model model --out out --force", "TERM", 143),
    ] {
        let nested = || {
            let entries = fs::read_dir(folder.path("new"))
                .into_iter()
                .flatten()
                .flatten();
            let mut partial = entries.filter(|entry| entry.path().join("vae/large.bin").exists());
            partial.next().is_some()
        };
        let (ended, said) = interrupted(&folder, line, signal, &|| copying() || nested());
        assert_eq!(ended, Some(code), "{said}");
        assert!(
            said.contains("error: interrupted; nothing was written"),
            "{said}"
        );
        fs::rename(folder.path("model/vae/large.bin"), folder.path("large")).unwrap();
        fs::remove_file(folder.path("large")).unwrap();
        assert_clean(&folder, line);
        assert!(!folder.path("new").exists(), "{line}");
        support::assert_same_files(&before, &folder.files("out"), line);
        let large = fs::File::create(folder.path("model/vae/large.bin")).unwrap();
        large.set_len(3 << 30).unwrap();
    }
}
