//! CLIP's tokenizer against that of transformers 5.23: `fixtures/parity/tokenizer_*`, each made by the script in its
//! folder.

mod support;

use std::fs;

use retrack_checkpoint::folder::Part;
use retrack_networks::tokenizer::ClipTokenizer;
use serde_json::{Value, json};
use support::Case;

fn read(name: &str) -> ClipTokenizer {
    let part = Part::at(support::root().join(name).join("model")).unwrap();
    ClipTokenizer::read(&part, 77).unwrap()
}

fn assert_agrees(name: &str) {
    let case = Case::read(name);
    let tokenizer = read(name);
    let texts = case.json("texts.json");
    let texts = texts.as_array().unwrap();
    let expected = case.integers("input_ids");
    let lengths = case.integers("length");
    assert_eq!(expected.len(), 77 * texts.len());
    for ((text, expected), length) in texts.iter().zip(expected.chunks_exact(77)).zip(lengths) {
        let text = text.as_str().unwrap();
        let tokens = tokenizer.encode(text).unwrap();
        assert_eq!(tokens.ids, expected, "{name}: {text:?}");
        assert_eq!(tokens.cut.is_some(), length > 77, "{name}: {text:?}");
    }
}

#[test]
fn tokens_of_stable_diffusion_1_are_those_of_transformers() {
    assert_agrees("tokenizer_sd1");
}

#[test]
fn tokens_of_stable_diffusion_2_with_its_own_padding_are_those_of_transformers() {
    assert_agrees("tokenizer_sd2");
}

#[test]
fn tokens_by_a_tokenizer_json_are_those_of_transformers() {
    assert_agrees("tokenizer_saved");
}

#[test]
fn words_of_several_vectors_become_all_of_them_as_diffusers_makes_them() {
    assert_agrees("tokenizer_words");
}

#[test]
fn words_of_several_vectors_are_found_in_the_files_of_older_releases() {
    assert_agrees("tokenizer_words_numbers");
    assert_agrees("tokenizer_words_decoder");
}

#[test]
fn every_case_has_a_test() {
    assert_eq!(
        support::cases("tokenizer_"),
        [
            "tokenizer_saved",
            "tokenizer_sd1",
            "tokenizer_sd2",
            "tokenizer_words",
            "tokenizer_words_decoder",
            "tokenizer_words_numbers"
        ]
    );
}

/// A copy of the folder of a case with other files, and what reading it says.
fn changed(name: &str, files: &[(&str, String)]) -> Result<ClipTokenizer, String> {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(support::root().join(name).join("model")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    for (file, content) in files {
        fs::write(folder.path().join(file), content).unwrap();
    }
    let part = Part::at(folder.path()).unwrap();
    ClipTokenizer::read(&part, 77).map_err(|error| error.to_string())
}

fn file(name: &str, file: &str) -> String {
    fs::read_to_string(support::root().join(name).join("model").join(file)).unwrap()
}

fn edited(name: &str, of: &str, edit: impl FnOnce(&mut Value)) -> String {
    let mut json = serde_json::from_str(&file(name, of)).unwrap();
    edit(&mut json);
    json.to_string()
}

#[test]
fn settings_that_cut_or_pad_otherwise_are_refused_by_name() {
    const CONFIG: &str = "tokenizer_config.json";
    const WHOLE: &str = "tokenizer.json";
    let saved = |file: &str, key: &str, value: Value| {
        let content = edited("tokenizer_saved", file, |json| json[key] = value);
        (file.to_owned(), content)
    };
    let said = |files: &[(String, String)]| {
        let files: Vec<(&str, String)> = files
            .iter()
            .map(|(file, content)| (file.as_str(), content.clone()))
            .collect();
        changed("tokenizer_saved", &files).map(drop)
    };
    let left = json!({ "direction": "Left" });
    for (file, key, value, named) in [
        (CONFIG, "padding_side", json!("left"), "`padding_side`"),
        (
            CONFIG,
            "truncation_side",
            json!("left"),
            "`truncation_side`",
        ),
        (
            CONFIG,
            "split_special_tokens",
            json!(true),
            "`split_special_tokens`",
        ),
        (WHOLE, "padding", left.clone(), "`padding.direction`"),
        (WHOLE, "truncation", left.clone(), "`truncation.direction`"),
    ] {
        let error = said(&[saved(file, key, value)]).unwrap_err();
        assert!(error.contains(named) && error.contains(file), "{error}");
    }
    let map = (
        "special_tokens_map.json".to_owned(),
        r#"{"padding_side":"left"}"#.to_owned(),
    );
    let error = said(&[map]).unwrap_err();
    assert!(error.contains("special_tokens_map.json"), "{error}");
    // What is said of itself, and what the configuration overrules, as transformers 5.24 has it.
    for files in [
        vec![saved(CONFIG, "padding_side", json!("right"))],
        vec![saved(CONFIG, "split_special_tokens", json!(false))],
        vec![saved(WHOLE, "padding", json!({ "direction": "Right" }))],
        vec![
            saved(WHOLE, "padding", left),
            saved(CONFIG, "padding_side", json!("right")),
        ],
    ] {
        said(&files).unwrap();
    }
}

#[test]
fn a_vocabulary_beside_another_one_is_refused_and_beside_its_own_is_read() {
    let vocab = ("vocab.json", file("tokenizer_sd1", "vocab.json"));
    let merges = ("merges.txt", file("tokenizer_sd1", "merges.txt"));
    let beside = |files: &[(&str, String)]| changed("tokenizer_saved", files);
    let both = beside(&[vocab.clone(), merges.clone()]).unwrap();
    let alone = read("tokenizer_saved");
    assert_eq!(
        both.encode("a cat").unwrap(),
        alone.encode("a cat").unwrap()
    );
    let few: Vec<&str> = merges.1.lines().take(4).collect();
    let error = beside(&[vocab.clone(), ("merges.txt", few.join("\n"))]).unwrap_err();
    assert!(
        error.contains("merges.txt") && error.contains("remove tokenizer.json"),
        "{error}"
    );
    let swapped = edited("tokenizer_sd1", "vocab.json", |vocab| {
        let (a, b) = (vocab["a</w>"].clone(), vocab["b</w>"].clone());
        (vocab["a</w>"], vocab["b</w>"]) = (b, a);
    });
    let error = beside(&[("vocab.json", swapped), merges]).unwrap_err();
    assert!(
        error.contains("vocab.json") && error.contains("remove tokenizer.json"),
        "{error}"
    );
}

#[test]
fn the_part_of_a_prompt_that_does_not_fit_is_known() {
    let tokenizer = read("tokenizer_sd1");
    let fits = "1 ".repeat(75);
    let tokens = tokenizer.encode(&fits).unwrap();
    assert_eq!((tokens.ids.len(), tokens.cut), (77, None));
    let tokens = tokenizer.encode(&format!("{fits} too much")).unwrap();
    assert_eq!(tokens.cut.as_deref(), Some("too much"));
}
