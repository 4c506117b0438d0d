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
        ("inspect", None),
        ("predict", Some("timestep [N] i64")),
        ("gradient", Some("mixture_mask [N]")),
        ("bench", Some("retrack bench step")),
        ("bench step", None),
        ("bench predict", None),
        ("bench sample", None),
        ("bench neighbors", None),
    ] {
        let said = folder.done(&format!("{command} --help"));
        assert!(said.stdout.contains("Usage: retrack "), "{}", said.stdout);
        assert!(said.stderr.is_empty(), "{}", said.stderr);
        if let Some(example) = example {
            assert!(said.stdout.contains(example), "{command}: {}", said.stdout);
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
        text.contains("Usage: retrack <COMMAND>") && text.contains("unlearn"),
        "{text}"
    );
    assert!(output.stdout.is_empty());
}
