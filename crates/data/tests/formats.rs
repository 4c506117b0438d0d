//! Which of several formats a folder is, and sources that are none of them.

use std::borrow::Cow;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use image::GrayImage;
use retrack_data::{
    DataError, Dataset, Form, ImageShape, OpenOptions, Source, formats, formats_at_length,
};

/// One record of CIFAR-10 in each of the five files.
fn batches(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    for number in 1..=5 {
        let record = [vec![number], vec![0; 3072]].concat();
        fs::write(folder.join(format!("data_batch_{number}.bin")), record).unwrap();
    }
}

/// One image of a pixel, without labels.
fn pair(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    let file = [0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 7];
    fs::write(folder.join("train-images-idx3-ubyte"), file).unwrap();
}

fn table(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files/hugging_face.parquet");
    fs::copy(own, folder.join("train.parquet")).unwrap();
}

fn kind(folder: &Path) -> Result<&'static str, String> {
    let data = Dataset::open(folder, &OpenOptions::default());
    data.map(|data| data.kind())
        .map_err(|error| error.to_string())
}

#[test]
fn what_lies_at_hand_goes_before_what_lies_below_and_the_surest_first() {
    let folder = tempfile::tempdir().unwrap();
    pair(folder.path());
    batches(&folder.path().join("below"));
    assert_eq!(kind(folder.path()).unwrap(), "IDX pair");
    batches(&folder.path().join("cifar-10-batches-bin"));
    assert_eq!(kind(folder.path()).unwrap(), "CIFAR-10 batches");
    batches(folder.path());
    assert_eq!(kind(folder.path()).unwrap(), "CIFAR-10 batches");
    table(&folder.path().join("data"));
    assert_eq!(kind(folder.path()).unwrap(), "Parquet");
}

#[test]
fn of_two_data_sets_below_a_folder_both_are_named_in_one_order() {
    let folder = tempfile::tempdir().unwrap();
    let named = || kind(folder.path()).unwrap_err();
    batches(&folder.path().join("a"));
    pair(&folder.path().join("b"));
    assert!(
        named().contains("b/train-images-idx3-ubyte and a;"),
        "{}",
        named()
    );
    table(&folder.path().join("c"));
    assert!(
        named().contains("c and b/train-images-idx3-ubyte;"),
        "{}",
        named()
    );
    let image = folder.path().join("d/1.png");
    fs::create_dir(folder.path().join("d")).unwrap();
    GrayImage::new(2, 2).save(image).unwrap();
    assert!(named().contains(" d and c;"), "{}", named());
}

#[test]
fn the_formats_are_named_by_help_and_messages_as_they_always_were() {
    assert_eq!(
        formats(),
        "a folder, Parquet, an IDX pair or CIFAR-10 batches"
    );
    assert_eq!(
        formats_at_length(),
        "a folder, a Parquet file or folder (Hugging Face image column), an IDX pair (*-images-idx3-ubyte[.gz]), or \
         CIFAR-10 or CIFAR-100 in the binary or Python version"
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = kind(file.path()).unwrap_err();
    let expected = "no data set has a file of this name; expected a folder of images, a Parquet file or folder, an IDX \
                    pair (*-images-idx3-ubyte[.gz]) or CIFAR-10 batches";
    assert_eq!(error, format!("{}: {expected}", file.path().display()));
}

/// Rows of so many bytes each, which are to be images of 2 x 2 grays.
struct Grays(Vec<usize>);

impl Source for Grays {
    fn kind(&self) -> &'static str {
        "grays"
    }

    fn form(&self) -> Form {
        Form::Pixels(ImageShape {
            height: 2,
            width: 2,
            channels: 1,
        })
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn label(&self, row: usize) -> Option<i64> {
        Some(row as i64)
    }

    fn stored(&self, row: usize) -> Result<Cow<'_, [u8]>, DataError> {
        Ok(Cow::Owned(vec![row as u8; self.0[row]]))
    }
}

fn of(source: Grays, options: &OpenOptions) -> Result<Dataset, String> {
    let data = Dataset::from_source(Path::new("computed"), Arc::new(source), options);
    data.map_err(|error| error.to_string())
}

#[test]
fn a_source_of_ones_own_is_read_like_any_other() {
    for memory_budget in [0, 1 << 20] {
        let options = OpenOptions {
            channels: Some(3),
            memory_budget,
            ..OpenOptions::default()
        };
        let data = of(Grays(vec![4; 3]), &options).unwrap();
        let mut image = [0; 12];
        data.read(2, &mut image).unwrap();
        assert_eq!(image, [2; 12]);
        assert_eq!((data.kind(), data.label(2)), ("grays", Some(2)));
        assert_eq!(data.path(), Path::new("computed"));
        assert_eq!(data.beside(), None);
        assert_eq!(data.digest().unwrap().len(), 64);
    }
}

#[test]
fn a_source_that_breaks_its_word_is_refused() {
    let options = OpenOptions::default();
    let error = of(Grays(Vec::new()), &options).unwrap_err();
    assert_eq!(error, "computed: it holds no rows");
    let error = of(Grays(vec![4, 3]), &options).unwrap_err();
    assert_eq!(error, "expected 4 bytes of pixels for 2 x 2 x 1, not 3");
    let five = OpenOptions {
        channels: Some(5),
        ..options
    };
    assert!(of(Grays(vec![4]), &five).unwrap_err().contains("not 5"));
}
