//! CLIP's tokenizer against that of transformers 5.23: `fixtures/parity/tokenizer_*`, each made by the script in its
//! folder.

mod support;

use retrack_checkpoint::folder::Part;
use retrack_networks::tokenizer::ClipTokenizer;
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

#[test]
fn the_part_of_a_prompt_that_does_not_fit_is_known() {
    let tokenizer = read("tokenizer_sd1");
    let fits = "1 ".repeat(75);
    let tokens = tokenizer.encode(&fits).unwrap();
    assert_eq!((tokens.ids.len(), tokens.cut), (77, None));
    let tokens = tokenizer.encode(&format!("{fits} too much")).unwrap();
    assert_eq!(tokens.cut.as_deref(), Some("too much"));
}
