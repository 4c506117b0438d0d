//! What a run that was interrupted still knows: what its losses began with, what it warned of, how long it took.

mod support;

use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use support::{Folder, Guard, events};

const LOSES: &str = "the loss of the retained images is";

/// The shipped model and data: a random network has nothing to lose.
fn shipped() -> String {
    let assets = support::parity()
        .join("../../assets")
        .canonicalize()
        .unwrap();
    format!(
        "unlearn --model {0}/base-model --data {0}/digits.parquet --forget label:10 --preset demo --batch-size 4 \
         --no-report",
        assets.display()
    )
}

/// Runs until `steps` steps are recorded, then asks it to stop. What it said.
fn stop_after(folder: &Folder, line: &str, out: &str, steps: usize) -> String {
    let child = folder.command(line).stderr(Stdio::piped()).spawn().unwrap();
    let mut child = Guard(child);
    while recorded(folder, out) < steps {
        let ended = child.0.try_wait().unwrap();
        assert!(ended.is_none(), "{line}\nended before it could be stopped");
        std::thread::sleep(Duration::from_millis(1));
    }
    let pid = child.0.id().to_string();
    let kill = std::process::Command::new("kill")
        .args(["-INT", &pid])
        .status();
    assert!(kill.unwrap().success());
    let mut said = String::new();
    let mut pipe = child.0.stderr.take().unwrap();
    std::io::Read::read_to_string(&mut pipe, &mut said).unwrap();
    assert_eq!(child.0.wait().unwrap().code(), Some(130), "{said}");
    said
}

/// Steps in a run's record, which it may be writing.
fn recorded(folder: &Folder, out: &str) -> usize {
    let text = std::fs::read_to_string(folder.path(out).join("run/events.jsonl"));
    text.map_or(0, |text| text.matches('\n').count())
}

/// What was seen of the retained images' loss, step by step.
fn collapses(folder: &Folder, out: &str) -> Vec<(Value, Value)> {
    let events = events(folder, out).into_iter();
    events
        .map(|event| (event["step"].clone(), event["collapse_factor"].clone()))
        .collect()
}

#[cfg(unix)]
#[test]
fn a_run_that_is_interrupted_again_and_again_compares_with_its_own_start_and_warns_once() {
    for (method, collapses_at, steps) in [
        ("retrack --lambda 1 --lr 5e-4", Some(15), 20),
        ("erasediff --eta 50 --lr 3e-4", Some(15), 20),
        ("finetune --lr 1e-3", None, 14),
        ("neggrad --lr 5e-3", Some(5), 14),
        ("siss --lr 5e-3", Some(5), 14),
    ] {
        let folder = Folder::new();
        let line = format!("{} --steps {steps} --method {method}", shipped());
        let whole = folder.done(&format!("{line} --out whole"));
        let expected = collapses(&folder, "whole");
        let warned = expected.iter().find(|(_, factor)| factor.is_f64());
        let warned = warned.and_then(|(step, _)| step.as_u64());
        assert_eq!(warned, collapses_at, "{method}: {}", whole.stderr);

        // In the middle of the start, around the first look at watched images, between, and after every warning.
        let parts = format!("{line} --out parts");
        let mut said = vec![stop_after(&folder, &parts, "parts", 2)];
        let resumed = format!("{parts} --resume");
        for stop in [6, 11, 17] {
            // Some steps are left while it is asked to stop.
            if stop + 3 <= steps && stop > recorded(&folder, "parts") {
                said.push(stop_after(&folder, &resumed, "parts", stop));
            }
        }
        said.push(folder.done(&resumed).stderr);
        assert_eq!(collapses(&folder, "parts"), expected, "{method}");
        let of = |what: &str| -> usize {
            let line = |said: &String| {
                said.lines()
                    .filter(|line| line.contains(LOSES) && line.contains(what))
                    .count()
            };
            said.iter().map(line).sum()
        };
        assert_eq!(
            of("step "),
            usize::from(warned.is_some()),
            "{method}: {said:?}"
        );
        // Who sees only the last part is told as well.
        let first = said.iter().position(|said| said.contains(LOSES));
        let again = first.map_or(0, |first| said.len() - 1 - first);
        assert_eq!(of("before it was interrupted"), again, "{method}: {said:?}");
    }
}

#[cfg(unix)]
#[test]
fn the_seconds_of_a_run_are_those_of_all_its_parts() {
    const RUN: &str = "unlearn --model model --data photos --forget row:3 --neighbors 4 --batch-size 4 --steps 60 \
                       --checkpoint-every 7 --out out";
    let folder = Folder::with_model_and_photos();
    let elapsed = || {
        let events = events(&folder, "out");
        let all: Vec<f64> = events
            .iter()
            .map(|event| event["elapsed_seconds"].as_f64().unwrap())
            .collect();
        assert!(all.is_sorted(), "{all:?}");
        (*all.last().unwrap(), events.len())
    };
    // Killed: the steps since the last checkpoint are taken again.
    folder.kill_after_two_checkpoints(RUN, "out");
    let (first, steps) = elapsed();
    let newest = folder.files("out/run").into_keys().filter_map(|name| {
        name.strip_prefix("checkpoint-")?
            .strip_suffix(".safetensors")?
            .parse::<usize>()
            .ok()
    });
    let repeated = steps - newest.max().unwrap();
    let resumed = format!("{RUN} --resume");
    stop_after(&folder, &resumed, "out", steps + 3);
    let (second, _) = elapsed();
    assert!(second > first, "{second} after {first}");
    // Nothing of it is lost where a part ends before its first step.
    std::fs::remove_file(folder.path("out/run/events.jsonl")).unwrap();
    std::thread::sleep(Duration::from_millis(5));
    let result = folder.done(&format!("{resumed} --json")).json();
    assert!(result["seconds"].as_f64().unwrap() > first, "{result}");
    assert_eq!(result["resumptions"], 2);
    assert_eq!(result["repeated_steps"], repeated);
    let cost = folder.read_json("out/run/report.json")["cost"].to_string();
    assert!(
        cost.contains("2 times") && cost.contains(&format!("{repeated} step")),
        "{cost}"
    );
}

/// Before checkpoints were read tensor by tensor, resuming took 1.7 networks more (here 23%; of `train` 3.5).
#[cfg(target_os = "linux")]
#[test]
fn a_resumed_run_takes_no_more_memory_than_one_that_never_stopped() {
    let folder = Folder::new();
    folder.photos("photos");
    folder.tiny_arch(serde_json::json!({"block_out_channels": [128, 256], "norm_num_groups": 32}));
    folder.done("train --data photos --arch tiny.json --batch-size 1 --steps 1 --out model");
    let line = "unlearn --model model --data photos --forget row:3 --neighbors 4 --batch-size 1 --steps 8 \
                --checkpoint-every 1";
    let peak = |out: &str| -> f64 {
        let report = folder.read_json(&format!("{out}/run/report.json"));
        let cost = report["cost"].as_array().unwrap().clone();
        let peak = cost
            .iter()
            .find(|fact| fact["name"] == "Peak memory")
            .unwrap();
        let text = peak["value"].as_str().unwrap();
        text.trim_end_matches(" MB").parse().unwrap()
    };
    folder.done(&format!("{line} --out whole"));
    folder.kill_after_two_checkpoints(&format!("{line} --out parts"), "parts");
    folder.done(&format!("{line} --out parts --resume"));
    let (whole, parts) = (peak("whole"), peak("parts"));
    assert!(parts < 1.08 * whole, "{parts} MB after {whole} MB");
}

#[cfg(unix)]
#[test]
fn what_is_interrupted_says_how_its_own_command_goes_on() {
    let folder = Folder::with_model_and_photos();
    folder.write(
        "long.toml",
        "neighbors = 2\nsteps = 300\nbatch_size = 2\n\n[experiment]\nsampling_steps = 2\n",
    );
    let experiment = "experiment mnist-tshirt --model model --data photos --forget photos/03.png --methods finetune \
                      --seeds 0 --metrics frequency --threshold 3 --samples 2 --config long.toml --out out";
    let said = stop_after(&folder, experiment, "out/models/finetune-seed0-forget0", 2);
    assert!(
        said.contains("which is kept: the same command goes on"),
        "{said}"
    );
    assert!(!said.contains("--resume"), "{said}");
    let said = folder.done(experiment);
    assert!(
        said.stderr.contains("resuming after step"),
        "{}",
        said.stderr
    );

    let said = stop_after(&folder, "demo --count 1 --out demo", "demo/model", 1);
    assert!(
        said.contains("--force") && !said.contains("--resume"),
        "{said}"
    );
}

#[test]
fn a_checkpoint_of_an_earlier_version_is_refused_by_name() {
    const RUN: &str = "unlearn --model model --data photos --forget row:3 --neighbors 4 --batch-size 4 --steps 30 \
                       --checkpoint-every 1 --out out";
    let folder = Folder::with_model_and_photos();
    folder.kill_after_two_checkpoints(RUN, "out");
    for name in folder.files("out/run").into_keys() {
        let Some(stem) = name.strip_suffix(".safetensors") else {
            continue;
        };
        let content = folder.read(&format!("out/run/{name}"));
        let end = 8 + u64::from_le_bytes(content[..8].try_into().unwrap()) as usize;
        let mut header: Value = serde_json::from_slice(&content[8..end]).unwrap();
        header["__metadata__"] = serde_json::json!({"step": "7"});
        let header = header.to_string();
        let mut old = (header.len() as u64).to_le_bytes().to_vec();
        old.extend(header.as_bytes());
        old.extend(&content[end..]);
        folder.write(&format!("out/run/{name}"), old);
        let digest =
            retrack_checkpoint::folder::sha256_file(&folder.path(&format!("out/run/{name}")));
        folder.write(&format!("out/run/{stem}.sha256"), digest.unwrap());
    }
    let output = folder.command(&format!("{RUN} --resume")).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in ["out/run/checkpoint-", "an earlier version", "start it anew"] {
        assert!(said.contains(part), "{said}");
    }
}
