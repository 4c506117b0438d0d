//! Captions that lie in a folder of images without being named.

use std::fs;
use std::path::Path;

use image::GrayImage;
use retrack_data::{Captions, Dataset, OpenOptions, captions, own_captions};

fn folder(images: &[&str], files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    };
    for name in images {
        GrayImage::new(1, 1).save(put(name)).unwrap();
    }
    for (name, content) in files {
        fs::write(put(name), content).unwrap();
    }
    folder
}

fn found(folder: &Path) -> Result<Option<(Captions, String)>, String> {
    let data = Dataset::open(folder, &OpenOptions::default()).unwrap();
    own_captions(&data).map_err(|error| error.to_string())
}

/// The texts, in the order of the names, and the name of what they are from.
fn texts(images: &[&str], files: &[(&str, &str)]) -> Result<Option<(String, String)>, String> {
    let folder = folder(images, files);
    let found = found(folder.path())?;
    Ok(found.map(|(captions, from)| {
        let from = from.replace(&folder.path().display().to_string(), ".");
        (captions.texts.join("|"), from)
    }))
}

fn read(texts: &str, from: &str) -> Result<Option<(String, String)>, String> {
    Ok(Some((texts.into(), from.into())))
}

#[test]
fn a_table_called_metadata_is_found_and_names_images_from_where_it_lies() {
    let images = ["a.png", "b/c.png", "b/d.png"];
    let lines = "\u{feff}{\"file_name\": \"./b/c.png\", \"text\": \"two\"}\n{\"file_name\": \"a.png\", \"text\": \"one\"}\n\
                 {\"file_name\": \"b\\\\d.png\", \"text\": \"three\"}\n";
    assert_eq!(
        texts(&images, &[("metadata.jsonl", lines)]),
        read("one|two|three", "./metadata.jsonl")
    );
    let table = "\u{feff}file_name,width,text\r\na.png,1,\"one, or 1\"\r\nb/c.png,1,two\r\nb/d.png,1,three\r\n";
    assert_eq!(
        texts(&images, &[("metadata.csv", table)]),
        read("one, or 1|two|three", "./metadata.csv")
    );
    // The nearest counts, alone.
    let below = "file_name,text\nc.png,deep\nd.png,deeper\n";
    assert_eq!(
        texts(
            &images,
            &[("metadata.jsonl", lines), ("b/metadata.csv", below)]
        ),
        read("one|deep|deeper", "./metadata.jsonl and 1 more like it")
    );
    let error = texts(
        &images,
        &[
            ("metadata.jsonl", lines),
            ("b/metadata.csv", "file_name,text\nc.png,deep\n"),
        ],
    );
    let error = error.unwrap_err();
    assert!(error.contains("1 of 3 images has no caption"), "{error}");
    assert!(error.contains("b/d.png"), "{error}");
    let error = texts(
        &images,
        &[("metadata.jsonl", lines), ("metadata.csv", table)],
    )
    .unwrap_err();
    assert!(
        error.contains("metadata.jsonl: both it and") && error.contains("metadata.csv say"),
        "{error}"
    );
    // A table of other things is no captions.
    let labels = "file_name,label\na.png,1\n";
    assert_eq!(texts(&images, &[("metadata.csv", labels)]), Ok(None));
}

#[test]
fn a_parquet_table_of_names_and_texts_is_captions_found_or_named() {
    let images = ["a.png", "b/c.png", "b/d.png", "caf\u{e9}.png"];
    let folder = folder(&images, &[]);
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files");
    let table = folder.path().join("metadata.parquet");
    fs::copy(files.join("metadata.parquet"), &table).unwrap();
    let (own, from) = found(folder.path()).unwrap().unwrap();
    assert_eq!(from, table.display().to_string());
    assert_eq!(own.texts, ["one", "two", "four", "five"]);
    assert_eq!(own.several, 1);
    let data = Dataset::open(folder.path(), &OpenOptions::default()).unwrap();
    assert_eq!(captions(&data, table.to_str().unwrap()).unwrap(), own);
    let named = |name: &str| {
        let path = files.join(name);
        let error = captions(&data, path.to_str().unwrap()).unwrap_err();
        error.to_string()
    };
    let error = named("no_text.parquet");
    assert!(error.contains("entry 1: its `text` is null"), "{error}");
    let error = named("hugging_face.parquet");
    for part in ["no column of texts", "file_name", "`label` (whole numbers)"] {
        assert!(error.contains(part), "{error}");
    }
    let whole = fs::read(files.join("metadata.parquet")).unwrap();
    for length in (0..whole.len()).step_by(37) {
        fs::write(&table, &whole[..length]).unwrap();
        let error = found(folder.path()).unwrap_err();
        assert!(error.contains("metadata.parquet"), "{error}");
    }
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 1 << (at % 8);
        fs::write(&table, damaged).unwrap();
        let _ = found(folder.path());
    }
}

#[test]
fn text_files_beside_the_images_are_captions_if_every_image_has_one() {
    let images = ["a.png", "b/c.png"];
    assert_eq!(
        texts(&images, &[("a.txt", "one\n"), ("b/c.txt", "two")]),
        read("one|two", "the text files beside the images of .")
    );
    let error = texts(&images, &[("a.txt", "one\n")]).unwrap_err();
    assert!(error.contains("1 of 2 images has no caption"), "{error}");
    assert_eq!(texts(&images, &[("README.txt", "pictures")]), Ok(None));
    assert_eq!(texts(&images, &[]), Ok(None));
    // Tables go before them.
    let lines = "{\"file_name\": \"a.png\", \"text\": \"x\"}\n{\"file_name\": \"b/c.png\", \"text\": \"y\"}\n";
    let both = [
        ("metadata.jsonl", lines),
        ("a.txt", "one"),
        ("b/c.txt", "two"),
    ];
    assert_eq!(texts(&images, &both), read("x|y", "./metadata.jsonl"));
}

#[test]
fn names_of_files_match_however_their_letters_are_composed() {
    let (composed, decomposed) = ("caf\u{e9}", "cafe\u{301}");
    for (file, entry) in [(composed, decomposed), (decomposed, composed)] {
        let image = format!("{file}.png");
        let lines = format!("{{\"file_name\": \"{entry}.png\", \"text\": \"x\"}}\n");
        assert_eq!(
            texts(&[&image], &[("metadata.jsonl", &lines)]),
            read("x", "./metadata.jsonl")
        );
        let text = format!("{entry}.txt");
        assert_eq!(
            texts(&[&image], &[(&text, "x")]),
            read("x", "the text files beside the images of .")
        );
        let folder = folder(&[&image], &[("other.jsonl", &lines)]);
        let data = Dataset::open(folder.path(), &OpenOptions::default()).unwrap();
        let named = folder.path().join("other.jsonl");
        let found = captions(&data, named.to_str().unwrap()).unwrap();
        assert_eq!(found.texts, ["x"]);
    }
}
