//! Parquet files. `files/make.py` made the ones that are read here.

use std::fs;
use std::path::{Path, PathBuf};

use retrack_data::{Alpha, Dataset, ImageShape, OpenOptions, Selection, captions};

const ON_DEMAND: OpenOptions = OpenOptions {
    channels: None,
    memory_budget: 0,
    split: None,
    alpha: Alpha::Drop,
    resize: None,
};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/files")
        .join(name)
}

/// What `make.py` put into a row.
fn expected(row: usize) -> Vec<u8> {
    (0..30)
        .map(|i| (row * 7 + 3 * (i / 6) + i % 6) as u8)
        .collect()
}

fn read(data: &Dataset, row: usize) -> Vec<u8> {
    let mut out = vec![0; data.shape().bytes()];
    data.read(row, &mut out).unwrap();
    out
}

#[test]
fn images_and_labels_are_read_in_any_order() {
    for (name, label_of_3, label_of_49) in [
        ("hugging_face.parquet", Some(3), Some(4)),
        ("plain_zstd.parquet", Some(3), Some(4)),
        ("binary.parquet", None, Some(49)),
    ] {
        for options in [OpenOptions::default(), ON_DEMAND] {
            let data = Dataset::open(&file(name), &options).unwrap();
            assert_eq!(data.len(), 50);
            assert_eq!(
                data.shape(),
                ImageShape {
                    height: 5,
                    width: 6,
                    channels: 1
                }
            );
            assert_eq!(
                (data.label(3), data.label(49)),
                (label_of_3, label_of_49),
                "{name}"
            );
            assert_eq!(data.name(5), "row 5");
            for row in (0..50).chain([17, 3, 49, 20, 19, 0]) {
                assert_eq!(read(&data, row), expected(row), "{name} row {row}");
            }
        }
    }
}

#[test]
fn a_folder_of_shards_is_one_data_set_and_two_splits_are_not() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("data")).unwrap();
    let copy = |name: &str| {
        fs::copy(
            file("hugging_face.parquet"),
            folder.path().join("data").join(name),
        )
        .unwrap()
    };
    let error = || {
        Dataset::open(folder.path(), &OpenOptions::default())
            .unwrap_err()
            .to_string()
    };
    copy("train-00001-of-00002.parquet");
    assert!(
        error().contains("train-00000-of-00002.parquet"),
        "{}",
        error()
    );
    copy("train-00000-of-00002.parquet");
    let data = Dataset::open(folder.path(), &ON_DEMAND).unwrap();
    assert_eq!(data.len(), 100);
    assert_eq!((read(&data, 73), data.label(73)), (expected(23), Some(3)));
    let one = Dataset::open(&file("hugging_face.parquet"), &ON_DEMAND).unwrap();
    assert_ne!(one.digest().unwrap(), data.digest().unwrap());
    copy("test-00000-of-00001.parquet");
    assert!(
        error().contains("more than one data set")
            && error().contains("test-00000-of-00001.parquet")
    );
}

#[test]
fn every_codec_that_writers_offer_is_read() {
    for codec in ["brotli", "lz4", "snappy", "gzip", "none"] {
        for options in [OpenOptions::default(), ON_DEMAND] {
            let data = Dataset::open(&file(&format!("{codec}.parquet")), &options).unwrap();
            assert_eq!((data.len(), data.label(7)), (10, Some(2)), "{codec}");
            for row in 0..10 {
                assert_eq!(read(&data, row), expected(row), "{codec} {row}");
            }
        }
    }
}

#[test]
fn a_codec_that_is_not_built_in_is_named_and_not_called_damage() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lzo.parquet");
    // In the footer a column's codec is a varint after its path; gzip is 2, LZO is 3 (6 in zigzag).
    let whole = fs::read(file("gzip.parquet")).unwrap();
    let mut named = 0;
    for at in whole.len() - 1200..whole.len() {
        let mut bytes = whole.clone();
        if bytes[at] != 4 {
            continue;
        }
        bytes[at] = 6;
        fs::write(&path, bytes).unwrap();
        if let Err(error) = Dataset::open(&path, &OpenOptions::default()) {
            let error = error.to_string();
            if error.contains("LZO") {
                assert!(
                    error.contains("lzo.parquet") && error.contains("write it again"),
                    "{error}"
                );
                assert!(!error.contains("damaged"), "{error}");
                named += 1;
            }
        }
    }
    assert!(named > 0);
    fs::write(
        &path,
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
    )
    .unwrap();
    let error = Dataset::open(&path, &OpenOptions::default()).unwrap_err();
    assert!(error.to_string().contains("git lfs pull"), "{error}");
}

#[test]
fn labels_that_are_words_are_numbered_and_selected_by_name() {
    let data = Dataset::open(&file("words.parquet"), &ON_DEMAND).unwrap();
    let labels: Vec<Option<i64>> = (0..4).map(|row| data.label(row)).collect();
    assert_eq!(labels, [2, 1, 0, 2].map(Some));
    assert_eq!(data.label_name(2), Some("dog"));
    let rows = |text: &str| Selection::parse(text).unwrap().resolve(&data).unwrap().rows;
    assert_eq!(rows("label:dog"), [0, 3, 6, 9]);
    assert_eq!(rows("label:1"), [1, 4, 7]);
    let error = Selection::parse("label:cow")
        .unwrap()
        .resolve(&data)
        .unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("no row has label cow") && error.contains("0 (ant), 1 (cat), 2 (dog)"),
        "{error}"
    );
    // The file's own metadata names them, and the column.
    let data = Dataset::open(&file("classes.parquet"), &ON_DEMAND).unwrap();
    assert_eq!((data.label(3), data.label_name(1)), (Some(1), Some("yak")));
    let zebras = Selection::parse("label:zebra")
        .unwrap()
        .resolve(&data)
        .unwrap();
    assert_eq!(zebras.rows, [0, 2, 4, 6, 8]);
}

#[test]
fn captions_in_a_column_may_be_lists() {
    let data = Dataset::open(&file("words.parquet"), &ON_DEMAND).unwrap();
    let found = captions(&data, "text").unwrap();
    assert_eq!((found.texts[3].as_str(), found.several), ("one 3", 5));
    let names = captions(&data, "label").unwrap();
    assert_eq!((names.texts[1].as_str(), names.several), ("cat", 0));
    let error = captions(&data, "caption").unwrap_err().to_string();
    assert!(
        error.contains("the columns are image, label, text"),
        "{error}"
    );
}

#[test]
fn labels_of_every_whole_type_are_read_and_of_the_others_it_is_said() {
    let open = |name: &str| Dataset::open(&file(name), &ON_DEMAND).unwrap();
    let labels =
        |data: &Dataset| -> Vec<Option<i64>> { (0..3).map(|row| data.label(row)).collect() };
    let unsigned = open("unsigned.parquet");
    assert_eq!(labels(&unsigned)[0], Some(4_294_967_295));
    assert_eq!(labels(&open("float_labels.parquet")), [None, None, Some(0)]);
    let binary = open("binary_labels.parquet");
    assert_eq!(labels(&binary), [2, 1, 0].map(Some));
    assert_eq!(binary.label_name(2), Some("dog"));
    let fine = open("fine_labels.parquet");
    assert_eq!(labels(&fine), [0, 1, 2].map(Some));
    assert!(fine.label_note().unwrap().contains("column `fine_label`"));
    for (name, says) in [
        (
            "huge_labels.parquet",
            "`label` holds numbers such as 18446744073709551615",
        ),
        ("score_labels.parquet", "`label` holds numbers such as 0.25"),
        (
            "coarse_labels.parquet",
            "`coarse_label` is not read as labels",
        ),
    ] {
        let data = open(name);
        assert_eq!(labels(&data), [None; 3], "{name}");
        assert!(
            data.label_note().unwrap().contains(says),
            "{:?}",
            data.label_note()
        );
        let error = Selection::parse("label:0")
            .unwrap()
            .resolve(&data)
            .unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
    }
    assert_eq!(open("hugging_face.parquet").label_note(), None);
}

#[test]
fn a_number_that_names_one_label_and_numbers_another_selects_neither() {
    let data = Dataset::open(&file("number_names.parquet"), &ON_DEMAND).unwrap();
    let select = |data: &Dataset, text: &str| {
        let resolved = Selection::parse(text).unwrap().resolve(data);
        resolved
            .map(|resolved| resolved.rows)
            .map_err(|error| error.to_string())
    };
    let error = select(&data, "label:2").unwrap_err();
    for says in [
        "called \"2\", with number 1 (its first row is 1)",
        "number 2, called \"cat\" (its first row is 2)",
    ] {
        assert!(error.contains(says), "{error}");
    }
    assert_eq!(select(&data, "label:cat").unwrap(), [2, 5, 8]);
    assert!(select(&data, "label:0").unwrap() == [0, 3, 6, 9]);
    let padded = Dataset::open(&file("padded_names.parquet"), &ON_DEMAND).unwrap();
    assert_eq!(select(&padded, "label:7").unwrap(), [0, 2, 4, 6, 8]);
    assert_eq!(select(&padded, "label:07").unwrap(), [1, 3, 5, 7, 9]);
}

#[test]
fn columns_that_hold_no_texts_are_no_captions_and_not_called_damage() {
    let data = Dataset::open(&file("captions.parquet"), &ON_DEMAND).unwrap();
    for (column, says) in [
        ("map", "its column `map` holds maps, not texts"),
        ("struct", "its column `struct` holds structs, not texts"),
        ("label", "its column `label` holds whole numbers, not texts"),
        (
            "raw",
            "its column `raw` holds binary values that are no text",
        ),
    ] {
        let error = captions(&data, column).unwrap_err().to_string();
        assert!(
            error.contains(says) && error.contains("captions.parquet"),
            "{error}"
        );
        assert!(!error.contains("damaged"), "{error}");
    }
}

#[test]
fn a_hub_layout_is_found_further_down_and_configurations_are_not_mixed() {
    let folder = tempfile::tempdir().unwrap();
    let copy = |name: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::copy(file("none.parquet"), path).unwrap();
    };
    let open = |split: Option<&str>| {
        let options = OpenOptions {
            split: split.map(str::to_owned),
            ..OpenOptions::default()
        };
        let data = Dataset::open(folder.path(), &options);
        data.map(|data| data.len())
            .map_err(|error| error.to_string())
    };
    copy("plain_text/train-00000-of-00001.parquet");
    fs::write(folder.path().join("README.md"), "a card").unwrap();
    assert_eq!(open(None).unwrap(), 10);
    assert_eq!(open(Some("train")).unwrap(), 10);
    copy("plain_text/test-00000-of-00002.parquet");
    copy("plain_text/test-00001-of-00002.parquet");
    let error = open(None).unwrap_err();
    for says in ["test (20 images", "train (10 images", "splits"] {
        assert!(error.contains(says), "{error}");
    }
    assert_eq!(open(Some("test")).unwrap(), 20);
    assert_eq!(open(Some("all")).unwrap(), 30);
    let error = open(Some("validation")).unwrap_err();
    assert!(error.contains("no split called \"validation\""), "{error}");
    copy("other/train-00000-of-00001.parquet");
    let error = open(Some("train")).unwrap_err();
    assert!(
        error.contains("other and plain_text; name one of them"),
        "{error}"
    );
    fs::remove_dir_all(folder.path().join("other")).unwrap();
    // As the hub's own conversion to Parquet keeps them, and under plain names.
    fs::remove_dir_all(folder.path().join("plain_text")).unwrap();
    copy("default/train/0000.parquet");
    copy("default/train/0001.parquet");
    assert_eq!(open(None).unwrap(), 20);
    copy("default/validation/0000.parquet");
    assert!(open(None).unwrap_err().contains("validation (10 images"));
    assert_eq!(open(Some("val")).unwrap(), 10);
    fs::remove_dir_all(folder.path().join("default")).unwrap();
    copy("my_train.parquet");
    copy("my_test.parquet");
    assert!(open(None).unwrap_err().contains("test (10 images"));
    assert_eq!(open(Some("test")).unwrap(), 10);
}

#[test]
fn the_digest_does_not_depend_on_how_the_file_was_packed() {
    let digest = |name| {
        Dataset::open(&file(name), &OpenOptions::default())
            .unwrap()
            .digest()
            .unwrap()
    };
    assert_eq!(digest("hugging_face.parquet"), digest("plain_zstd.parquet"));
    assert_ne!(digest("hugging_face.parquet"), digest("binary.parquet"));
}

#[test]
fn files_without_images_are_refused() {
    for (name, message) in [
        ("no_images.parquet", "text, number"),
        ("paths_only.parquet", "row 0: the row has no image"),
        (
            "path_texts.parquet",
            "its `image` column holds paths, not images; open the folder",
        ),
        (
            "addresses.parquet",
            "its `url` column holds addresses (\"https://example.org/0.png\"), not images; fetch the images",
        ),
        (
            "base64.parquet",
            "its `image` column holds images as Base64 texts, which are not read; write them as bytes: python -c",
        ),
        (
            "sentences.parquet",
            "its `image` column holds texts (\"a cat\"), not images",
        ),
    ] {
        let error = Dataset::open(&file(name), &OpenOptions::default())
            .unwrap_err()
            .to_string();
        assert!(error.contains(name) && error.contains(message), "{error}");
    }
}

#[test]
fn a_cut_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let whole = fs::read(file("hugging_face.parquet")).unwrap();
    let path = folder.path().join("cut.parquet");
    for percent in [0, 10, 50, 99] {
        fs::write(&path, &whole[..whole.len() * percent / 100]).unwrap();
        let error = Dataset::open(&path, &OpenOptions::default())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("cut.parquet") && error.contains("damaged"),
            "{error}"
        );
    }
}

#[test]
fn flipped_bits_give_an_error_or_data_and_never_a_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flipped.parquet");
    for name in ["hugging_face.parquet", "binary.parquet"] {
        let whole = fs::read(file(name)).unwrap();
        let mut refused = 0;
        for at in (0..whole.len()).step_by(3) {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            fs::write(&path, &bytes).unwrap();
            if let Err(error) = Dataset::open(&path, &OpenOptions::default()) {
                refused += 1;
                assert!(error.to_string().contains("flipped.parquet"), "{error}");
            }
        }
        assert!(refused > whole.len() / 12, "{refused} of {}", whole.len());
    }
}

#[test]
fn a_table_beside_the_images_is_none_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let put = |from: &str, name: &str| fs::copy(file(from), folder.path().join(name)).unwrap();
    let open = || Dataset::open(folder.path(), &ON_DEMAND).map_err(|error| error.to_string());
    put("no_images.parquet", "captions.parquet");
    // Alone it is what was meant.
    assert!(open().unwrap_err().contains("no image column"));
    put("none.parquet", "pictures.parquet");
    assert_eq!(open().unwrap().len(), 10);
    fs::remove_file(folder.path().join("pictures.parquet")).unwrap();
    image::GrayImage::new(2, 2)
        .save(folder.path().join("a.png"))
        .unwrap();
    let data = open().unwrap();
    assert_eq!((data.len(), data.kind()), (1, "folder of images"));
    // What cannot be read may be images.
    let bytes = fs::read(file("none.parquet")).unwrap();
    fs::write(folder.path().join("cut.parquet"), &bytes[..bytes.len() / 2]).unwrap();
    assert!(open().unwrap_err().contains("cut.parquet"));
}

#[test]
fn one_shard_of_two_uploads_is_not_read_twice() {
    let folder = tempfile::tempdir().unwrap();
    let copy = |name: &str| fs::copy(file("none.parquet"), folder.path().join(name)).unwrap();
    let error = || {
        let opened = Dataset::open(folder.path(), &ON_DEMAND);
        opened.unwrap_err().to_string()
    };
    copy("train-00000-of-00001.parquet");
    copy("train-00000-of-00001-a09b.parquet");
    assert!(
        error().contains(
            "the same shard twice, train-00000-of-00001-a09b.parquet and train-00000-of-00001.parquet"
        ),
        "{}",
        error()
    );
    // Shards of another number: no single one is a data set.
    fs::remove_file(folder.path().join("train-00000-of-00001-a09b.parquet")).unwrap();
    copy("train-00000-of-00002.parquet");
    copy("train-00001-of-00002.parquet");
    assert!(
        error().contains("two uploads") && !error().contains("name one of them"),
        "{}",
        error()
    );
}

#[test]
fn train_and_test_tables_are_not_joined_however_they_are_called() {
    for names in [
        ["trainset", "testset"],
        ["trainA", "testA"],
        ["imagestrain", "imagestest"],
    ] {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            let path = folder.path().join(format!("{name}.parquet"));
            fs::copy(file("none.parquet"), path).unwrap();
        }
        let open = |split: Option<&str>| {
            let options = OpenOptions {
                split: split.map(str::to_owned),
                ..OpenOptions::default()
            };
            let data = Dataset::open(folder.path(), &options);
            data.map(|data| data.len())
                .map_err(|error| error.to_string())
        };
        assert!(open(None).unwrap_err().contains("more than one data set"));
        assert_eq!(open(Some("test")).unwrap(), 10);
        assert_eq!(open(Some("all")).unwrap(), 20);
    }
}
