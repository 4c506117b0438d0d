//! Valid inputs as real libraries write them, and what must become of each: `fixtures/cases`.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use retrack_checkpoint::folder::read_weight_file;
use serde::Deserialize;
use serde_json::Value;
use support::{Folder, Said, files_below, parity};

#[derive(Deserialize)]
struct Cases {
    /// Folders that begin as a copy of another.
    like: BTreeMap<String, String>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    commands: Vec<Vec<String>>,
    expect: Expect,
}

/// What must hold after the last command.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    exit: Option<i32>,
    #[serde(default)]
    says: Vec<String>,
    #[serde(default)]
    never: Vec<String>,
    most_lines: Option<usize>,
    /// A tensor of `got.safetensors` and the file that holds the right one.
    equals: Option<(String, String)>,
    /// Of the largest value.
    within: Option<f64>,
    /// A folder with one picture and the right one.
    picture: Option<(String, String)>,
    /// Of 255.
    levels: Option<u8>,
    /// All commands print JSON with the same numbers.
    #[serde(default)]
    same_numbers: bool,
}

/// Where the cases are: made anew, or as committed.
fn root() -> PathBuf {
    match std::env::var_os("RETRACK_CASES") {
        Some(made) => made.into(),
        None => parity().join("../cases"),
    }
}

fn copy(from: &Path, folder: &Folder, name: &str) {
    for (path, content) in files_below(from) {
        if !path.ends_with('/') {
            folder.write(&format!("{name}/{path}"), content);
        }
    }
}

/// A fresh folder with all inputs.
fn inputs(cases: &Cases) -> Folder {
    let inputs = root().join("inputs");
    let folder = Folder::new();
    folder.model("pipeline_sd1", "sd1");
    for (name, of) in &cases.like {
        match of.as_str() {
            "sd1" => folder.model("pipeline_sd1", name),
            other => copy(&inputs.join(other), &folder, name),
        }
    }
    for entry in fs::read_dir(&inputs).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        match path.is_dir() {
            true => copy(&path, &folder, name),
            false => folder.write(name, fs::read(&path).unwrap()),
        }
    }
    folder
}

impl Expect {
    /// What is not as it must be.
    fn faults(&self, folder: &Folder, outcomes: &[(Option<i32>, Said)]) -> Vec<String> {
        let mut faults = Vec::new();
        let (code, said) = outcomes.last().unwrap();
        let text = format!("{}{}", said.stdout, said.stderr);
        let lower = text.to_lowercase();
        let holds = |part: &String| lower.contains(&part.to_lowercase());
        if self.exit.is_some() && self.exit != *code {
            faults.push(format!("exit {code:?}"));
        }
        let missing = self.says.iter().filter(|part| !holds(part));
        faults.extend(missing.map(|part| format!("does not say {part:?}")));
        let present = self.never.iter().filter(|part| holds(part));
        faults.extend(present.map(|part| format!("says {part:?}")));
        if self
            .most_lines
            .is_some_and(|most| text.lines().count() > most)
        {
            faults.push(format!("{} lines", text.lines().count()));
        }
        let failed = outcomes.iter().any(|(code, _)| *code != Some(0));
        let made = self.equals.is_some() || self.picture.is_some() || self.same_numbers;
        if made && failed {
            faults.push("failed".into());
        } else {
            faults.extend(self.numbers(folder, outcomes));
        }
        if !faults.is_empty() {
            faults.push(format!("it said:\n{text}"));
        }
        faults
    }

    /// What was computed, against what it must be.
    fn numbers(&self, folder: &Folder, outcomes: &[(Option<i32>, Said)]) -> Option<String> {
        if let Some((key, file)) = &self.equals {
            let [got, want] = ["got.safetensors", file].map(|file| tensor(folder, file, key));
            let far = furthest(&got, &want);
            let most = f64::from(want.iter().fold(0f32, |most, value| most.max(value.abs())));
            if far >= self.within.unwrap() * most {
                return Some(format!("off by {:.1e}", far / most));
            }
        }
        if let Some((drawn, want)) = &self.picture {
            let drawn = fs::read_dir(folder.path(drawn)).unwrap();
            let mut drawn = drawn
                .map(|entry| entry.unwrap().path())
                .filter(|path| path.extension().is_some_and(|extension| extension == "png"));
            let got = pixels(&drawn.next().expect("a picture"));
            assert!(drawn.next().is_none(), "more than one picture");
            let far = furthest(&got, &pixels(&folder.path(want)));
            if far > f64::from(self.levels.unwrap()) {
                return Some(format!("{far} levels off"));
            }
        }
        if self.same_numbers {
            let numbers = outcomes.iter().map(|(_, said)| numbers(&said.json()));
            let numbers: Vec<Vec<f64>> = numbers.collect();
            assert!(numbers.len() > 1 && !numbers[0].is_empty());
            if numbers.iter().any(|other| *other != numbers[0]) {
                return Some("the numbers differ".into());
            }
        }
        None
    }
}

fn tensor(folder: &Folder, file: &str, key: &str) -> Vec<f32> {
    let tensors = read_weight_file(folder.path(file)).unwrap();
    let mut tensors = tensors.into_iter();
    let (_, found) = tensors.find(|(name, _)| name == key).unwrap();
    found.to_f32()
}

fn pixels(path: &Path) -> Vec<f32> {
    let image = image::open(path).unwrap().into_rgb8();
    image.into_raw().into_iter().map(f32::from).collect()
}

/// Infinite where a value is not a number.
fn furthest(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    let apart = got.iter().zip(want).map(|(a, b)| f64::from(a - b).abs());
    let apart = apart.map(|apart| if apart.is_nan() { f64::INFINITY } else { apart });
    apart.fold(0.0, f64::max)
}

/// Every number of a JSON value, in its order.
fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Number(number) => number.as_f64().into_iter().collect(),
        Value::Array(values) => values.iter().flat_map(numbers).collect(),
        Value::Object(values) => values.values().flat_map(numbers).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn every_valid_input_that_was_once_misread_gets_what_it_must() {
    let text = fs::read_to_string(root().join("cases.json")).unwrap();
    let cases: Cases = serde_json::from_str(&text).unwrap();
    assert!(cases.cases.len() >= 17, "cases are missing");
    let mut wrong = Vec::new();
    for case in &cases.cases {
        let folder = inputs(&cases);
        let run = |words: &Vec<String>| folder.outcome(words.iter().map(String::as_str));
        let outcomes: Vec<_> = case.commands.iter().map(run).collect();
        let faults = case.expect.faults(&folder, &outcomes);
        if !faults.is_empty() {
            wrong.push(format!("{}: {}", case.name, faults.join("; ")));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong of {}\n{}",
        wrong.len(),
        cases.cases.len(),
        wrong.join("\n")
    );
}
