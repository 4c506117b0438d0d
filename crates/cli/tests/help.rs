//! What the help says: the common options on one screen, all of them on demand, and to a shell that completes them.

mod support;

use std::process::Command;

use support::Folder;

/// Every command, as it is typed.
const COMMANDS: [&str; 18] = [
    "demo",
    "train",
    "unlearn",
    "neighbors",
    "merge",
    "sample",
    "evaluate",
    "experiment",
    "verify",
    "inspect",
    "predict",
    "gradient",
    "bench",
    "bench step",
    "bench predict",
    "bench sample",
    "bench neighbors",
    "completions",
];

fn help(folder: &Folder, line: &str, columns: usize) -> String {
    let output = folder
        .command(line)
        .env("COLUMNS", columns.to_string())
        .output()
        .unwrap();
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{line}"
    );
    String::from_utf8(output.stdout).unwrap()
}

/// What a text names as options.
fn options_in(text: &str) -> Vec<String> {
    let mut options: Vec<String> = text
        .split(|c: char| c.is_whitespace() || "`'\"()[],;:=".contains(c))
        .filter(|word| word.starts_with("--") && word.len() > 2)
        .map(|word| word.trim_end_matches('.').to_string())
        .collect();
    options.sort();
    options.dedup();
    options
}

#[test]
fn help_is_one_screen_and_fits_eighty_columns() {
    let folder = Folder::new();
    for command in COMMANDS.iter().chain(&[""]) {
        let text = help(&folder, &format!("{command} --help"), 80);
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines.len() <= 42,
            "{command}: {} lines\n{text}",
            lines.len()
        );
        for line in lines {
            assert!(line.chars().count() <= 80, "{command}: {line}");
        }
        assert!(text.contains("--help-all"), "{text}");
        assert_eq!(text, help(&folder, &format!("{command} -h"), 80));
    }
}

#[test]
fn help_all_names_every_option_that_a_shell_completes() {
    let folder = Folder::new();
    let script = folder.done("completions bash").stdout;
    for command in COMMANDS {
        let all = help(&folder, &format!("{command} --help-all"), 100);
        // The script knows all that clap does.
        let named = options_of(&script, command);
        assert!(named.len() >= 4, "{command}: {named:?}");
        for option in &named {
            let shown = all.lines().any(|line| {
                let line = line.trim_start();
                let is_spec = line.starts_with('-');
                is_spec && line.split([' ', ',', '=']).any(|word| word == option)
            });
            assert!(shown, "{command} --help-all does not name {option}\n{all}");
        }
        // What --help shows is part of it.
        for option in options_in(&help(&folder, &format!("{command} --help"), 100)) {
            assert!(all.contains(&option), "{command}: {option}");
        }
    }
    let unlearn = options_of(&script, "unlearn");
    for option in [
        "--model",
        "--accumulate",
        "--no-report",
        "--quiet",
        "--threads",
    ] {
        assert!(unlearn.contains(&option.to_string()), "{unlearn:?}");
    }
}

/// The long options that the bash script offers after a command.
fn options_of(script: &str, command: &str) -> Vec<String> {
    let words: Vec<&str> = std::iter::once("retrack")
        .chain(command.split(' '))
        .collect();
    complete(script, &words, "--")
}

/// What a real bash completes after these words.
fn complete(script: &str, words: &[&str], current: &str) -> Vec<String> {
    let typed: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    let previous = words.last().unwrap();
    let program = format!(
        "{script}\nCOMP_WORDS=({} '{current}'); COMP_CWORD={}; COMPREPLY=()\n_retrack retrack '{current}' \
         '{previous}'\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"\n",
        typed.join(" "),
        words.len()
    );
    let output = Command::new("bash")
        .arg("-c")
        .arg(program)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.is_empty(), "{stderr}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .map(String::from)
        .filter(|word| !word.is_empty())
        .collect()
}

#[test]
fn a_real_bash_completes_commands_options_and_values() {
    let folder = Folder::new();
    let script = folder.done("completions bash").stdout;
    assert_eq!(complete(&script, &["retrack"], "unl"), ["unlearn"]);
    assert_eq!(
        complete(&script, &["retrack", "unlearn"], "--neigh"),
        ["--neighbors"]
    );
    assert_eq!(
        complete(&script, &["retrack", "unlearn", "--method"], "er"),
        ["erasediff"]
    );
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        let script = folder.done(&format!("completions {shell}")).stdout;
        assert!(
            script.contains("erasediff") && script.contains("accumulate"),
            "{shell}"
        );
    }
    folder.refused("completions csh", &["csh", "bash", "zsh", "fish"]);
}
