//! Help, usage errors and exit codes.

mod support;

use support::Folder;

#[test]
fn every_command_explains_itself() {
    let folder = Folder::new();
    let all = folder.done("--help").stdout;
    assert!(
        all.contains("retrack unlearn --model") && all.contains("Exit codes"),
        "{all}"
    );
    for (command, example) in [
        ("demo", None),
        ("train", Some("retrack train --data")),
        ("unlearn", Some("retrack unlearn --model")),
        ("neighbors", Some("retrack neighbors --data")),
        ("sample", Some("retrack sample --model")),
        ("evaluate", Some("retrack evaluate --model")),
        ("experiment", Some("retrack experiment mnist-tshirt")),
        ("verify", Some("retrack verify forgotten")),
        ("merge", Some("retrack merge --model")),
        ("completions", Some("retrack completions bash")),
        ("inspect", None),
        ("predict", Some("timestep [N] i64")),
        ("gradient", Some("mixture_mask [N]")),
        ("bench", Some("retrack bench step")),
        ("bench step", None),
        ("bench predict", None),
        ("bench sample", None),
        ("bench neighbors", None),
    ] {
        let said = folder.done(&format!("{command} --help-all"));
        assert!(said.stdout.contains("Usage: retrack "), "{}", said.stdout);
        assert!(said.stderr.is_empty(), "{}", said.stderr);
        if let Some(example) = example {
            assert!(said.stdout.contains(example), "{command}: {}", said.stdout);
            // What a file of tensors holds is no matter of every day.
            if !["predict", "gradient"].contains(&command) {
                let short = folder.done(&format!("{command} --help")).stdout;
                assert!(short.contains(example), "{command}: {short}");
            }
        }
        let word = command.split(' ').next().unwrap();
        assert!(
            all.contains(&format!("\n  {word} ")),
            "{word} is not listed"
        );
    }
    let version = folder.done("--version").stdout;
    assert_eq!(version, format!("retrack {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn usage_errors_exit_with_2() {
    let folder = Folder::new();
    for (line, says) in [
        ("forget", "forget"),
        ("unlearn", "--model <DIR>"),
        ("unlearn --model m --data d --forget row:1", "--out <DIR>"),
        ("sample --model m --count many --out o", "many"),
        (
            "sample --model m --count 1 --out o --colour red",
            "--colour",
        ),
        ("predict --model m --input i", "--output"),
    ] {
        folder.refused(line, &[says, "--help"]);
    }
}

#[test]
fn without_a_command_the_help_is_shown_and_the_exit_code_is_2() {
    let folder = Folder::new();
    let output = folder.command("").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains("Usage: retrack [OPTIONS] <COMMAND>") && text.contains("unlearn"),
        "{text}"
    );
    assert!(output.stdout.is_empty());
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let folder = Folder::with_model_and_photos();
    let mut command = folder.command("inspect model");
    command.stdout(std::process::Stdio::piped());
    command.stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && stderr.is_empty(), "{stderr}");
}

#[test]
fn a_strength_of_another_method_is_named() {
    let folder = Folder::with_model_and_photos();
    let line = "unlearn --model model --data photos --forget row:3 --out out --dry-run";
    let said = folder.done(&format!("{line} --method finetune --lambda 0.5 --eta 1"));
    for option in ["--lambda", "--eta"] {
        let says = format!("warning: {option} means nothing to this method");
        assert!(said.stderr.contains(&says), "{}", said.stderr);
    }
    let said = folder.done(&format!("{line} --method siss --lambda 0.5 --rescale 2"));
    assert!(!said.stderr.contains("warning"), "{}", said.stderr);
}
