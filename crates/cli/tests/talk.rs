//! What is said on the way: in a log, on terminals of several widths, and with -q and -v.

mod support;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::{Folder, Guard};

const EVALUATE: &str = "evaluate --model model --baseline model --data photos --forget row:3 --threshold 1 \
                        --samples 4 --steps 4 --metrics frequency,injection";

/// What comes to stderr of a run that is stopped after this long.
fn log_of(folder: &Folder, line: &str, seconds: u64) -> String {
    let file = std::fs::File::create(folder.path("log")).unwrap();
    let child = folder
        .command(line)
        .stderr(Stdio::from(file))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut child = Guard(child);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(seconds) && child.0.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(20));
    }
    String::from_utf8(folder.read("log")).unwrap()
}

#[test]
fn a_log_file_says_early_how_far_a_long_run_is() {
    let folder = Folder::with_model_and_photos();
    let line = "unlearn --model model --data photos --forget row:3 --neighbors 4 --steps 1000000 --batch-size 2 \
                --accumulate 1 --out out --no-report";
    let log = log_of(&folder, line, 7);
    let said: Vec<&str> = log
        .lines()
        .filter(|line| line.starts_with("unlearning: "))
        .collect();
    assert_eq!(said.len(), 1, "{log}");
    for part in ["/1000000 steps", "/s", " left", "loss "] {
        assert!(said[0].contains(part), "{log}");
    }
    assert!(!log.contains('\r') && !log.contains('\u{1b}'), "{log}");
    let silent = log_of(&folder, &format!("{line} --force -q"), 6);
    assert_eq!(silent, "");
}

#[test]
fn evaluate_says_which_model_and_which_phases() {
    let folder = Folder::with_model_and_photos();
    let said = folder.done(&format!("{EVALUATE} --out out")).stderr;
    for part in [
        "1/2  baseline model in 3 phases: sampling, frequency, injection",
        "2/2  model model in 3 phases: sampling, frequency, injection",
    ] {
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn an_experiment_says_how_many_runs_there_are_and_how_long_the_rest_takes() {
    let folder = Folder::with_model_and_photos();
    folder.write(
        "short.toml",
        "steps = 2\nbatch_size = 2\naccumulate = 1\nneighbors = 4\n[experiment]\nsampling_steps = 2",
    );
    let line = "experiment demo --model model --data photos --forget row:3 --methods finetune,retrack --seeds 0-1 \
                --samples 2 --metrics frequency --config short.toml --out out";
    let said = folder.done(line).stderr;
    for part in [
        "6 runs\n",
        "1/6  original-seed0-forget0\n",
        "6/6  retrack-seed1-forget0, about ",
        " left for all",
    ] {
        assert!(said.contains(part), "without {part}: {said}");
    }
    let again = folder.done(line).stderr;
    assert!(
        again.contains("6 runs, 6 of them complete already"),
        "{again}"
    );
    assert!(
        again.contains("6/6  retrack-seed1-forget0 is complete"),
        "{again}"
    );
}

#[test]
fn what_verbose_commands_name_is_there_and_as_their_options_have_it() {
    let folder = Folder::with_model_and_photos();
    let line = "unlearn --model model --data photos --forget row:3 --neighbors 4 --steps 1 --batch-size 2 \
                --accumulate 1 --out out -v";
    let said = folder.done(line).stderr;
    let mut written = Vec::new();
    for name in said.lines().filter_map(|line| line.split_once("  wrote ")) {
        let (name, _) = name.1.rsplit_once(" (").unwrap();
        assert!(folder.path(name).exists(), "{name}: {said}");
        written.push(name);
    }
    assert!(written.contains(&"out/README.md"), "{said}");
    let sample = "sample --model model --count 1 --steps 2 --out a.png -v";
    for (more, class) in [
        ("", "DDPMScheduler"),
        (" --scheduler ddim", "DDIMScheduler"),
    ] {
        let said = folder.done(&format!("{sample}{more}")).stderr;
        assert!(
            said.contains(&format!("1 images by {class} in 2 steps")),
            "{said}"
        );
    }
    let nll = EVALUATE.replace("frequency,injection", "nll");
    let said = folder.done(&format!("{nll} --out nll -v")).stderr;
    assert!(
        said.contains("likelihood (1/1): 1000 timesteps in "),
        "{said}"
    );
}

#[test]
fn every_command_can_be_quiet_and_tell_more() {
    let folder = Folder::with_model_and_photos();
    folder.done("unlearn --model model --data photos --forget row:3 --neighbors 4 --steps 2 --batch-size 2 --accumulate 1 --out made");
    let unlearn = "unlearn --model model --data photos --forget row:3 --neighbors 4 --steps 2 --batch-size 2 --accumulate 1";
    folder.tiny_arch(serde_json::json!({}));
    for (line, tells) in [
        (format!("{unlearn} --out a"), "settings {"),
        (
            "sample --model model --count 2 --steps 2 --out a.png".into(),
            "read",
        ),
        (format!("{EVALUATE} --out b"), "frequency (2/3)"),
        ("verify made".into(), "restoring"),
        (
            "neighbors --data photos --forget row:3 --neighbors 2 --out n.png".into(),
            "wrote n.png",
        ),
        ("inspect photos".into(), "read photos: "),
        ("inspect model".into(), "reading model/"),
        (
            "train --data photos --arch tiny.json --steps 2 --batch-size 2 --out t".into(),
            "training: 2 steps in ",
        ),
        (
            "bench neighbors --rows 10 --bytes 10 --repeat 1".into(),
            "threads",
        ),
    ] {
        let quiet = folder.done(&format!("{line} -q")).stderr;
        let notes = quiet.lines().filter(|line| !line.starts_with("warning: "));
        assert_eq!(notes.collect::<Vec<_>>(), Vec::<&str>::new(), "{line}");
        let more = match line.contains("--out") {
            true => " --force -v",
            false => " --verbose",
        };
        let verbose = folder.done(&format!("{line}{more}")).stderr;
        for part in [tells, " s  retrack ", " s  done after "] {
            assert!(verbose.contains(part), "{line}\nwithout {part}: {verbose}");
        }
    }
    folder.refused("inspect model -q -v", &["--quiet", "--verbose"]);
}

/// What a terminal of this width shows of a command, as bytes; `None` where there is no `script` to make one.
fn in_terminal(folder: &Folder, line: &str, columns: usize) -> Option<String> {
    let retrack = env!("CARGO_BIN_EXE_retrack");
    let program = format!("stty cols {columns} rows 30; exec '{retrack}' {line}");
    let output = Command::new("script")
        .args(["-qec", &program, "/dev/null"])
        .current_dir(folder.path(""))
        .env("XDG_CACHE_HOME", folder.path("cache"))
        .env("TERM", "xterm")
        .stdin(Stdio::null())
        .output();
    let Ok(output) = output else {
        println!("skipped, there is no `script` here");
        return None;
    };
    Some(String::from_utf8(output.stdout).unwrap())
}

/// The lines of a terminal, each state of the last one too, without what colours them.
fn lines(shown: &str) -> Vec<String> {
    let mut plain = String::new();
    let mut rest = shown;
    while let Some(at) = rest.find('\u{1b}') {
        plain.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let end = after
            .find(|c: char| c.is_ascii_alphabetic())
            .map_or(after.len(), |end| end + 1);
        rest = &after[end..];
    }
    plain.push_str(rest);
    plain
        .split(['\r', '\n'])
        .map(String::from)
        .filter(|line| !line.is_empty())
        .collect()
}

#[test]
fn on_a_terminal_no_bar_wraps_and_none_begins_with_the_time_left() {
    let folder = Folder::with_model_and_photos();
    for columns in [40, 60, 80, 120] {
        let line = format!(
            "unlearn --model model --data photos --forget row:3 --neighbors 4 --steps 150 --batch-size 2 --accumulate 1 \
             --out out-{columns}"
        );
        let Some(shown) = in_terminal(&folder, &line, columns) else {
            return;
        };
        let all = lines(&shown);
        let bars: Vec<&String> = all
            .iter()
            .filter(|line| line.starts_with("unlearning"))
            .collect();
        assert!(!bars.is_empty(), "{shown}");
        for line in &all {
            assert!(line.chars().count() <= columns, "{columns}: {line}");
            assert!(!line.contains(" 0 s left"), "{line}");
        }
        // Ctrl-C writes two characters behind it.
        let widest = bars
            .iter()
            .map(|line| line.trim_end().chars().count())
            .max();
        assert!(widest.unwrap() + 2 < columns, "{bars:?}");
        for line in bars.iter().filter(|line| line.contains(" 0/150 ")) {
            assert!(!line.contains("left"), "{line}");
        }
    }
}

#[test]
fn on_a_terminal_errors_break_between_words_and_in_a_file_not_at_all() {
    let folder = Folder::with_model_and_photos();
    let line = "unlearn --model model --data photos --forget photos/there-is-no-photo-of-that-name.png --out out";
    let said = folder.command(line).output().unwrap().stderr;
    let plain = String::from_utf8(said).unwrap();
    let errors = plain.lines().filter(|line| line.starts_with("error: "));
    assert_eq!(errors.count(), 1, "{plain}");
    assert!(
        plain
            .lines()
            .last()
            .unwrap()
            .ends_with("the path of an image"),
        "{plain}"
    );
    for columns in [60, 80] {
        let Some(shown) = in_terminal(&folder, line, columns) else {
            return;
        };
        let all = lines(&shown);
        assert!(all.len() > 1, "{all:?}");
        for line in &all {
            let words = line.split_whitespace().count();
            assert!(
                line.chars().count() <= columns || words == 1,
                "{columns}: {line}"
            );
        }
        let words = |text: &str| {
            text.split_whitespace()
                .map(String::from)
                .collect::<Vec<_>>()
        };
        assert_eq!(words(&all.join(" ")), words(&plain));
    }
    // Usage errors come from clap.
    let shown = in_terminal(&folder, "evaluate --metrics nonsense", 60).unwrap();
    for line in lines(&shown) {
        assert!(line.chars().count() <= 60, "{line}");
    }
}

#[test]
fn on_a_narrow_terminal_the_help_breaks_between_words() {
    let folder = Folder::new();
    for columns in [50, 80] {
        for line in ["experiment --help", "gradient --help", "unlearn --help-all"] {
            let Some(shown) = in_terminal(&folder, line, columns) else {
                return;
            };
            for line in lines(&shown) {
                assert!(line.chars().count() <= columns, "{columns}: {line}");
            }
        }
    }
}
