//! Every option that a message names is one that the command at hand has.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use retrack_cli::{advice, command_line, option};
use retrack_eval::metric::Need;
use retrack_study::field::Field;
use retrack_study::situation::Situation;

const SITUATIONS: [Situation; 37] = [
    Situation::Diverged,
    Situation::StepTooLarge,
    Situation::SamplesTooLarge,
    Situation::DiskFull,
    Situation::NotEmpty,
    Situation::HoldsInterrupted,
    Situation::NothingToResume,
    Situation::NothingLeft,
    Situation::Unfinished,
    Situation::NoModelYet,
    Situation::NothingToVerify,
    Situation::LoneAdapter,
    Situation::WeightsAlone,
    Situation::MissingTensor,
    Situation::FixedTypes,
    Situation::NoSizes,
    Situation::NothingLooks,
    Situation::NoClass,
    Situation::NoLabel,
    Situation::ForeignScheduler,
    Situation::NearCopy,
    Situation::Transparent,
    Situation::Sizes,
    Situation::OtherSize,
    Situation::TooManyNeighbors,
    Situation::Lacks(Need::Sscd),
    Situation::Lacks(Need::Clip),
    Situation::Lacks(Need::Inception),
    Situation::Lacks(Need::Controls),
    Situation::BeyondHalf,
    Situation::BeyondItsType,
    Situation::BeyondFixedType,
    Situation::BrokenChain,
    Situation::NoHistory,
    Situation::ForgetsByAdapter,
    Situation::Repeated,
    Situation::SealedApart,
];

/// The commands that advise something of their own.
const SPEAKERS: [&str; 10] = [
    "train",
    "unlearn",
    "experiment",
    "demo",
    "merge",
    "evaluate",
    "sample",
    "neighbors",
    "inspect",
    "history",
];

/// Files whose messages several commands show, or one that their name does not say. The longest path that fits counts.
const SHOWN_BY: &[(&str, &[&str])] = &[
    ("study/src/captions.rs", &["unlearn"]),
    ("study/src/chain", &["unlearn", "experiment"]),
    ("study/src/chain/history.rs", &["history"]),
    ("study/src/sealed", &["unlearn", "verify", "evaluate"]),
    ("study/src/sealed/planned.rs", &["unlearn"]),
    ("study/src/tensors/predict.rs", &["predict"]),
    ("study/src/tensors/gradient.rs", &["gradient"]),
    ("study/src/tensors", &["predict", "gradient"]),
    ("study/src/bench.rs", &["bench"]),
    ("cli/src/metric_words.rs", &["evaluate", "experiment"]),
    (
        "study/src/controls.rs",
        &["unlearn", "evaluate", "experiment"],
    ),
    ("study/src/evaluation", &["evaluate", "experiment"]),
    ("study/src/evidence/comparison.rs", &["evaluate"]),
    ("study/src/evidence/compared.rs", &["experiment"]),
    // A demo says itself what to do next.
    ("study/src/evidence/advice.rs", &["unlearn"]),
    ("study/src/evidence", &["unlearn"]),
    (
        "study/src/opened.rs",
        &["unlearn", "evaluate", "experiment"],
    ),
    (
        "study/src/machine.rs",
        &[
            "train",
            "unlearn",
            "sample",
            "evaluate",
            "experiment",
            "demo",
        ],
    ),
    ("study/src/arch.rs", &["train"]),
    // What says which option was typed.
    ("study/src/source.rs", &["evaluate"]),
    ("study/src/task.rs", &["unlearn"]),
    (
        "study/src/folders.rs",
        &["sample", "neighbors", "predict", "gradient"],
    ),
    ("study/src/settings.rs", &["unlearn"]),
    // What it says in a report, which only `unlearn` makes of a base that rounds.
    ("study/src/reopened.rs", &["unlearn"]),
    (
        "data/src",
        &[
            "unlearn",
            "train",
            "neighbors",
            "evaluate",
            "experiment",
            "inspect",
            "verify",
        ],
    ),
    ("unlearn/src", &["unlearn", "train", "experiment", "demo"]),
    (
        "networks/src",
        &[
            "unlearn", "sample", "evaluate", "inspect", "merge", "predict",
        ],
    ),
    ("eval/src", &["unlearn", "evaluate", "experiment", "demo"]),
    (
        "cli/src",
        &[
            "unlearn",
            "train",
            "experiment",
            "demo",
            "sample",
            "evaluate",
        ],
    ),
    (
        "study/src",
        &[
            "unlearn",
            "train",
            "experiment",
            "demo",
            "sample",
            "evaluate",
        ],
    ),
];

/// The commands that are told how images are to be read.
const DATA: &[&str] = &[
    "unlearn",
    "train",
    "neighbors",
    "evaluate",
    "experiment",
    "inspect",
];

/// Messages of a file that only some of its commands show, by a part of them.
const ONLY: [(&str, &[&str]); 4] = [
    ("--fail-if-found", &["unlearn", "evaluate", "demo"]),
    ("draw more with a larger --samples", &["evaluate"]),
    ("Without --baseline", &["evaluate"]),
    // It speaks of `retrack unlearn`, which it names.
    ("with this model as its --model", &["unlearn"]),
];

/// Fields that a file names to some of its commands only.
const ONLY_FIELDS: &[(&str, Field, &[&str])] = &[
    ("study/src/model.rs", Field::Split, DATA),
    ("study/src/model.rs", Field::Alpha, DATA),
    ("study/src/failure.rs", Field::Split, DATA),
    ("study/src/failure.rs", Field::Crop, DATA),
    (
        "study/src/failure.rs",
        Field::ControlsSplit,
        &["evaluate", "experiment"],
    ),
    (
        "study/src/failure.rs",
        Field::Threshold,
        &["evaluate", "experiment"],
    ),
    // Of folders that hold no run.
    (
        "study/src/failure.rs",
        Field::Force,
        &["sample", "evaluate", "demo"],
    ),
    (
        "study/src/samples.rs",
        Field::Guidance,
        &["sample", "evaluate", "experiment"],
    ),
    (
        "study/src/failure.rs",
        Field::Prompt,
        &["unlearn", "evaluate", "experiment"],
    ),
    ("study/src/evaluation", Field::MustLook, &["evaluate"]),
    ("study/src/settings.rs", Field::Config, &["experiment"]),
    (
        "study/src/evidence/verdict.rs",
        Field::MustLook,
        &["unlearn", "evaluate", "demo"],
    ),
];

/// The long options of a command and of those below it; `bench step` is one below another.
fn options(name: &str) -> BTreeSet<String> {
    let mut command = command_line();
    command.build();
    let mut found = &command;
    for part in name.split(' ') {
        found = found
            .find_subcommand(part)
            .unwrap_or_else(|| panic!("no command {name}"));
    }
    let below = found
        .get_subcommands()
        .filter(|one| one.get_name() != "help");
    std::iter::once(found)
        .chain(below)
        .flat_map(clap::Command::get_arguments)
        .filter_map(|one| one.get_long())
        .chain(["help"])
        .map(|option| format!("--{option}"))
        .collect()
}

fn is_command(name: &str) -> bool {
    command_line().find_subcommand(name).is_some()
}

/// The options that a text names, each with the command that the text itself says has it: `retrack CMD --option` and
/// `CMD --option` in backticks. Those of other programs are left out.
fn named(text: &str) -> Vec<(String, Option<String>)> {
    let mut found = Vec::new();
    for (place, part) in text.split('`').enumerate() {
        let code = place % 2 == 1;
        let mut words = part.split_whitespace();
        let first = words.next().unwrap_or_default();
        let command = match first {
            "retrack" if code => words.next().map(String::from),
            first if code && is_command(first) => Some(first.to_string()),
            first if code && !first.starts_with("--") => continue,
            _ => None,
        };
        for option in options_in(part) {
            found.push((option, command.clone()));
        }
    }
    found
}

/// The commands in backticks that a text gives to be run, as they are: with a value for an option that they require. Each with
/// the required options that the text nowhere names.
fn incomplete(text: &str) -> Vec<(String, Vec<String>)> {
    let mut all = command_line();
    all.build();
    let given = options_in(text);
    let code = text.split('`').skip(1).step_by(2);
    code.filter_map(|code| {
        let mut words = code.strip_prefix("retrack ")?.split_whitespace();
        let command = all.find_subcommand(words.next()?)?;
        let required: Vec<String> = command
            .get_arguments()
            .filter(|one| one.is_required_set())
            .filter_map(|one| Some(format!("--{}", one.get_long()?)))
            .collect();
        let words: Vec<&str> = words.collect();
        let has_value = |pair: &[&str]| {
            required.iter().any(|option| *option == pair[0]) && !pair[1].starts_with("--")
        };
        if !words.windows(2).any(has_value) {
            return None;
        }
        let missing = required.into_iter().filter(|one| !given.contains(one));
        Some((code.to_string(), missing.collect()))
    })
    .collect()
}

fn options_in(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("--") {
        let before = text[..at].chars().next_back();
        let name: String = text[at + 2..]
            .chars()
            .take_while(|letter| {
                letter.is_ascii_lowercase() || letter.is_ascii_digit() || *letter == '-'
            })
            .collect();
        let begins = before.is_none_or(|letter| !letter.is_alphanumeric() && letter != '-');
        if begins && name.starts_with(|letter: char| letter.is_ascii_lowercase()) {
            found.push(format!("--{}", name.trim_end_matches('-')));
        }
    }
    found
}

fn without_tests(source: &str) -> &str {
    source.split("#[cfg(test)]\nmod").next().unwrap_or_default()
}

/// The fields that a source file names, outside of comments and tests.
fn fields(source: &str) -> Vec<Field> {
    let code = without_tests(source)
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    code.flat_map(|line| line.split("Field::").skip(1))
        .filter_map(|rest| {
            let is_name = |letter: &char| letter.is_ascii_alphanumeric();
            let name: String = rest.chars().take_while(is_name).collect();
            let mut all = Field::ALL.iter();
            all.find(|field| format!("{field:?}") == name).copied()
        })
        .collect()
}

/// The commands that show the messages of a file: by its own name, or as [`SHOWN_BY`] says.
fn shown_by(path: &str) -> Vec<&str> {
    let by_name = ["cli/src/commands/", "study/src/"]
        .iter()
        .find_map(|above| path.strip_prefix(above))
        .map(|rest| rest.split(['/', '.']).next().unwrap_or_default())
        .filter(|name| is_command(name) && *name != "bench");
    if let Some(name) = by_name {
        return vec![name];
    }
    let fits = SHOWN_BY.iter().filter(|(start, _)| path.starts_with(start));
    let best = fits.max_by_key(|(start, _)| start.len());
    best.map_or(Vec::new(), |(_, commands)| commands.to_vec())
}

/// The text literals of a source file, without comments and tests.
fn literals(source: &str) -> Vec<String> {
    let source = without_tests(source);
    let letters: Vec<char> = source.chars().collect();
    let (mut found, mut at) = (Vec::new(), 0);
    while at < letters.len() {
        match (letters[at], letters.get(at + 1)) {
            ('/', Some('/')) => {
                while at < letters.len() && letters[at] != '\n' {
                    at += 1;
                }
            }
            // A character, and not a lifetime.
            ('\'', Some('\\')) => {
                at += 3;
                while letters[at] != '\'' {
                    at += 1;
                }
            }
            ('\'', _) if letters.get(at + 2) == Some(&'\'') => at += 2,
            ('"', _) => {
                let raw = at > 0 && letters[at - 1] == '#';
                let mut text = String::new();
                at += 1;
                while letters[at] != '"' || (raw && letters.get(at + 1) != Some(&'#')) {
                    if letters[at] == '\\' && !raw {
                        at += 1;
                    }
                    text.push(letters[at]);
                    at += 1;
                }
                found.push(text);
            }
            _ => {}
        }
        at += 1;
    }
    found
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            sources(&path, found);
        } else if name.ends_with(".rs") && !name.ends_with("tests.rs") {
            found.push(path);
        }
    }
}

#[test]
fn advice_names_only_options_of_the_command_that_gives_it() {
    for command in SPEAKERS {
        let has = options(command);
        for situation in SITUATIONS {
            let text = advice(command, situation).unwrap_or_else(|| situation.advice());
            assert!(!text.is_empty() && !text.ends_with('.'), "{text}");
            for (option, of) in named(text) {
                let has = of.map_or_else(|| has.clone(), |of| options(&of));
                assert!(has.contains(&option), "{command}: {text}");
            }
        }
    }
}

#[test]
fn messages_name_only_options_of_the_commands_that_show_them() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .unwrap();
    let mut files = Vec::new();
    for part in [
        "checkpoint",
        "cli",
        "data",
        "eval",
        "kernels",
        "networks",
        "study",
        "unlearn",
    ] {
        sources(&crates.join(part).join("src"), &mut files);
    }
    let (mut wrong, mut seen, mut lines) = (Vec::new(), 0, 0);
    for file in files {
        let path = file.strip_prefix(&crates).unwrap().display().to_string();
        if path == "cli/src/remedy.rs" || path == "study/src/field.rs" || path == "cli/src/args.rs"
        {
            continue;
        }
        let source = fs::read_to_string(&file).unwrap();
        for field in fields(&source) {
            seen += 1;
            let is_only =
                |(start, of, _): &&(&str, Field, _)| path.starts_with(start) && *of == field;
            let commands = match ONLY_FIELDS.iter().find(is_only) {
                Some((_, _, commands)) => commands.to_vec(),
                None => shown_by(&path),
            };
            if commands.is_empty() {
                wrong.push(format!(
                    "{path}: which commands show {field:?}? say so in SHOWN_BY"
                ));
            }
            for command in commands {
                if !options(command).contains(&option(field)) {
                    wrong.push(format!("{path}: `{command}` has no {field:?}"));
                }
            }
        }
        for text in literals(&source) {
            let only = ONLY.iter().find(|(part, _)| text.contains(part));
            let shown = match only {
                Some((_, commands)) => commands.to_vec(),
                None => shown_by(&path),
            };
            for (line, missing) in incomplete(&text) {
                lines += 1;
                if !missing.is_empty() {
                    wrong.push(format!(
                        "{path}: `{line}` cannot be run without {missing:?}"
                    ));
                }
            }
            for (option, of) in named(&text) {
                seen += 1;
                // Help is looked at command by command below; here its parts, of which some are put together later.
                if path.starts_with("cli/src/args/") {
                    let mut all = command_line();
                    all.build();
                    let has = |one: &clap::Command| options(one.get_name()).contains(&option);
                    if !all.get_subcommands().any(has) {
                        wrong.push(format!("{path}: no command has {option}: {text:?}"));
                    }
                    continue;
                }
                let commands = of.as_deref().map_or(shown.clone(), |of| vec![of]);
                if commands.is_empty() {
                    wrong.push(format!(
                        "{path}: which commands show {text:?}? say so in SHOWN_BY"
                    ));
                }
                for command in commands {
                    if !options(command).contains(&option) {
                        wrong.push(format!("{path}: `{command}` has no {option}: {text:?}"));
                    }
                }
            }
        }
    }
    assert!(seen > 50, "only {seen} options were found");
    assert!(lines > 1, "only {lines} whole commands were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn help_names_only_options_of_its_command() {
    let mut all = command_line();
    all.build();
    let mut seen = 0;
    for command in all.get_subcommands().filter(|one| one.get_name() != "help") {
        let of_command = [command.get_about(), command.get_long_about()];
        let after = [command.get_after_help(), command.get_after_long_help()];
        let of_options = command
            .get_arguments()
            .flat_map(|one| [one.get_help(), one.get_long_help()]);
        let texts = of_command.into_iter().chain(after).chain(of_options);
        for text in texts.flatten() {
            // A line of an example may go on in the next one.
            let text = text.to_string().replace("\\\n", " ");
            for line in text.lines() {
                let example = line.trim_start().strip_prefix("retrack ");
                let of_example = example.and_then(|rest| rest.split_whitespace().next());
                for (option, of) in named(line) {
                    seen += 1;
                    let name = command.get_name();
                    let of = of.as_deref().or(of_example).unwrap_or(name);
                    assert!(options(of).contains(&option), "{name}: {line}");
                }
            }
        }
    }
    assert!(seen > 50, "only {seen} options were found");
}

#[test]
fn a_scan_sees_what_it_should() {
    let source = "// \"--not-this\"\nlet a = \"give --lr\"; let b = '\"'; let c = r#\"say \"--seed\"\"#;\nlet d = \"x \\\"--out\\\"\";\n\
                  #[cfg(test)]\nmod tests { \"--nor-this\" }";
    let found = fields("// Field::Model\nif a { Field::Forget } else { Field::Alpha };\n");
    assert_eq!(found, [Field::Forget, Field::Alpha]);
    let found: Vec<String> = literals(source)
        .iter()
        .flat_map(|text| options_in(text))
        .collect();
    assert_eq!(found, ["--lr", "--seed", "--out"]);
    assert_eq!(
        named("try `retrack sample --class`, `hf download --local-dir` or --lr, not a---b"),
        [
            ("--class".into(), Some("sample".into())),
            ("--lr".into(), None)
        ]
    );
    let typed: Vec<String> = [Field::BatchSize, Field::LearningRate].map(option).to_vec();
    assert_eq!(typed, ["--batch-size", "--lr"]);
    let line = "run `retrack evaluate --model {} --samples 9`, not `retrack evaluate --metrics`";
    let found = incomplete(line);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].1.contains(&"--data".into()), "{found:?}");
    let complete = format!("{line}, with its --data, --forget and --out");
    assert_eq!(incomplete(&complete)[0].1, Vec::<String>::new());
}
