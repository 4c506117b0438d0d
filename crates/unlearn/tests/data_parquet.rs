//! Parquet files. `files/make.py` made the ones that are read here.

use std::fs;
use std::path::{Path, PathBuf};

use retrack_unlearn::data::{Dataset, ImageShape, OpenOptions};

const ON_DEMAND: OpenOptions = OpenOptions {
    channels: None,
    memory_budget: 0,
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
