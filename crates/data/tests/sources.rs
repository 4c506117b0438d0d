//! Folders, IDX pairs and CIFAR-10 batches.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use image::{GrayImage, Luma, RgbImage};
use retrack_data::{Alpha, DataError, Dataset, ImageShape, OpenOptions, captions};

fn open(path: &Path) -> Dataset {
    Dataset::open(path, &OpenOptions::default()).unwrap()
}

fn error(path: &Path) -> String {
    Dataset::open(path, &OpenOptions::default())
        .expect_err("must be refused")
        .to_string()
}

fn all(data: &Dataset) -> Vec<Vec<u8>> {
    (0..data.len())
        .map(|row| {
            let mut out = vec![0; data.shape().bytes()];
            data.read(row, &mut out).unwrap();
            out
        })
        .collect()
}

/// Nothing is kept: every read decodes.
const ON_DEMAND: OpenOptions = OpenOptions {
    channels: None,
    memory_budget: 0,
    split: None,
    alpha: Alpha::Drop,
    resize: None,
};

#[test]
fn a_folder_is_read_by_name_with_its_subfolders() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("b")).unwrap();
    fs::create_dir(folder.path().join(".hidden")).unwrap();
    for (value, name) in [
        (1, "b/1.png"),
        (2, "a.png"),
        (3, "c.PNG"),
        (4, "10.png"),
        (5, "9.png"),
        (6, ".hidden/x.png"),
    ] {
        GrayImage::from_pixel(2, 2, image::Luma([value]))
            .save(folder.path().join(name))
            .unwrap();
    }
    fs::write(folder.path().join("captions.txt"), "a cat").unwrap();
    let data = open(folder.path());
    let names: Vec<String> = (0..data.len()).map(|row| data.name(row)).collect();
    assert_eq!(names, ["10.png", "9.png", "a.png", "b/1.png", "c.PNG"]);
    assert_eq!(
        all(&data).concat(),
        [4, 5, 2, 1, 3].map(|value| [value; 4]).concat()
    );
    let on_demand = Dataset::open(folder.path(), &ON_DEMAND).unwrap();
    assert!(on_demand.pixels().is_none() && data.pixels().is_some());
    assert_eq!(all(&on_demand), all(&data));
    assert_eq!(on_demand.digest().unwrap(), data.digest().unwrap());
    assert_eq!(data.label(0), None);
    assert_eq!(data.kind(), "folder of images");
}

#[test]
fn one_color_image_makes_a_gray_folder_color() {
    let folder = tempfile::tempdir().unwrap();
    GrayImage::from_pixel(1, 1, image::Luma([9]))
        .save(folder.path().join("a.png"))
        .unwrap();
    RgbImage::from_pixel(1, 1, image::Rgb([1, 2, 3]))
        .save(folder.path().join("b.png"))
        .unwrap();
    assert_eq!(all(&open(folder.path())), [[9, 9, 9], [1, 2, 3]]);
}

#[test]
fn mixed_sizes_name_both_files_and_sizes() {
    let folder = tempfile::tempdir().unwrap();
    GrayImage::new(4, 3)
        .save(folder.path().join("a.png"))
        .unwrap();
    GrayImage::new(4, 3)
        .save(folder.path().join("b.bmp"))
        .unwrap();
    GrayImage::new(5, 3)
        .save(folder.path().join("c.jpg"))
        .unwrap();
    for options in [OpenOptions::default(), ON_DEMAND] {
        let error = Dataset::open(folder.path(), &options).unwrap_err();
        assert!(matches!(error, DataError::MixedSizes { .. }));
        let error = error.to_string();
        for part in ["a.png", "4 x 3", "c.jpg", "5 x 3"] {
            assert!(error.contains(part), "{error}");
        }
    }
}

#[test]
fn the_digest_follows_the_content_and_not_the_names() {
    let digest = |names: [&str; 2], values: [u8; 2]| {
        let folder = tempfile::tempdir().unwrap();
        for (name, value) in names.iter().zip(values) {
            GrayImage::from_pixel(2, 2, image::Luma([value]))
                .save(folder.path().join(name))
                .unwrap();
        }
        open(folder.path()).digest().unwrap()
    };
    let first = digest(["a.png", "b.png"], [1, 2]);
    assert_eq!(first.len(), 64);
    assert_eq!(first, digest(["c.png", "d.png"], [1, 2]));
    assert_ne!(first, digest(["a.png", "b.png"], [2, 1]));
    assert_ne!(first, digest(["a.png", "b.png"], [1, 3]));
}

#[test]
fn the_digest_finds_a_file_that_was_cut_after_opening() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.png");
    GrayImage::new(30, 30).save(&path).unwrap();
    let data = Dataset::open(folder.path(), &ON_DEMAND).unwrap();
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 5]).unwrap();
    assert!(data.digest().unwrap_err().to_string().contains("truncated"));
}

#[test]
fn reading_checks_the_row_and_the_buffer() {
    let shape = ImageShape {
        height: 1,
        width: 2,
        channels: 1,
    };
    let data = Dataset::from_pixels(shape, vec![1, 2, 3, 4], vec![7, 8]).unwrap();
    assert_eq!((data.len(), data.label(1)), (2, Some(8)));
    assert!(matches!(
        data.read(2, &mut [0; 2]),
        Err(DataError::Row { row: 2, len: 2 })
    ));
    assert!(matches!(
        data.read(0, &mut [0; 3]),
        Err(DataError::Length {
            expected: 2,
            found: 3,
            ..
        })
    ));
    assert!(Dataset::from_pixels(shape, vec![1, 2, 3], vec![]).is_err());
    assert!(Dataset::from_pixels(shape, vec![1, 2, 3, 4], vec![1]).is_err());
}

#[test]
fn what_is_no_data_set_is_refused_with_what_was_expected() {
    let folder = tempfile::tempdir().unwrap();
    assert!(error(&folder.path().join("nowhere")).contains("no such file or folder"));
    assert!(error(folder.path()).contains("holds no files"));
    let note = folder.path().join("note.txt");
    fs::write(&note, "x").unwrap();
    assert!(error(folder.path()).contains("expected a folder of images"));
    assert!(error(&note).contains("expected a folder of images"));
    GrayImage::new(2, 2)
        .save(folder.path().join("a.png"))
        .unwrap();
    assert!(error(&folder.path().join("a.png")).contains("name the folder"));
    fs::write(folder.path().join("b.heic"), "x").unwrap();
    assert!(error(folder.path()).contains("b.heic"));
    let options = OpenOptions {
        channels: Some(5),
        ..OpenOptions::default()
    };
    assert!(matches!(
        Dataset::open(folder.path(), &options),
        Err(DataError::Channels { channels: 5 })
    ));
}

fn idx(dimensions: &[u32], content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, dimensions.len() as u8];
    dimensions
        .iter()
        .for_each(|number| bytes.extend_from_slice(&number.to_be_bytes()));
    bytes.extend_from_slice(content);
    bytes
}

fn gz(path: &Path, bytes: &[u8]) {
    let mut encoder = GzEncoder::new(File::create(path).unwrap(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap();
}

#[test]
fn an_idx_pair_is_read_packed_and_plain_from_the_file_or_its_folder() {
    let pixels: Vec<u8> = (0..24).collect();
    let (images, labels) = (idx(&[4, 2, 3], &pixels), idx(&[4], &[5, 6, 7, 8]));
    let mut digests = Vec::new();
    for packed in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let end = if packed { ".gz" } else { "" };
        let path = folder.path().join(format!("train-images-idx3-ubyte{end}"));
        let labels_path = folder.path().join(format!("train-labels-idx1-ubyte{end}"));
        if packed {
            gz(&path, &images);
            gz(&labels_path, &labels);
        } else {
            fs::write(&path, &images).unwrap();
            fs::write(&labels_path, &labels).unwrap();
        }
        for source in [path.as_path(), folder.path()] {
            let data = open(source);
            assert_eq!(
                data.shape(),
                ImageShape {
                    height: 2,
                    width: 3,
                    channels: 1
                }
            );
            assert_eq!(all(&data).concat(), pixels);
            assert_eq!(
                (data.label(0), data.label(3), data.name(2)),
                (Some(5), Some(8), "row 2".into())
            );
            digests.push(data.digest().unwrap());
        }
        let on_demand = Dataset::open(&path, &ON_DEMAND);
        if packed {
            let error = on_demand.unwrap_err().to_string();
            assert!(error.contains("gunzip"), "{error}");
        } else {
            let on_demand = on_demand.unwrap();
            assert!(on_demand.pixels().is_none());
            assert_eq!(all(&on_demand).concat(), pixels);
            digests.push(on_demand.digest().unwrap());
        }
        let color = OpenOptions {
            channels: Some(3),
            ..OpenOptions::default()
        };
        let color = Dataset::open(&path, &color).unwrap();
        assert_eq!(all(&color)[0][..6], [0, 0, 0, 1, 1, 1]);
        fs::remove_file(&labels_path).unwrap();
        assert_eq!(open(&path).label(0), None);
    }
    digests.dedup();
    assert_eq!(digests.len(), 1);
}

#[test]
fn two_idx_pairs_in_a_folder_are_ambiguous_and_a_packed_copy_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let images = idx(&[1, 1, 1], &[9]);
    fs::write(folder.path().join("train-images-idx3-ubyte"), &images).unwrap();
    gz(&folder.path().join("train-images-idx3-ubyte.gz"), &images);
    assert_eq!(open(folder.path()).len(), 1);
    gz(&folder.path().join("t10k-images-idx3-ubyte.gz"), &images);
    let error = error(folder.path());
    assert!(
        error.contains("train-images-idx3-ubyte") && error.contains("t10k-images-idx3-ubyte.gz"),
        "{error}"
    );
}

#[test]
fn a_pair_further_down_is_found_and_its_splits_are_chosen() {
    let folder = tempfile::tempdir().unwrap();
    let raw = folder.path().join("MNIST/raw");
    fs::create_dir_all(&raw).unwrap();
    fs::write(
        raw.join("train-images-idx3-ubyte"),
        idx(&[3, 1, 1], &[7; 3]),
    )
    .unwrap();
    gz(
        &raw.join("train-images-idx3-ubyte.gz"),
        &idx(&[3, 1, 1], &[7; 3]),
    );
    fs::write(raw.join("train-labels-idx1-ubyte"), idx(&[3], &[1, 2, 3])).unwrap();
    let open = |split: Option<&str>| {
        let options = OpenOptions {
            split: split.map(str::to_owned),
            ..OpenOptions::default()
        };
        Dataset::open(folder.path(), &options).map_err(|error| error.to_string())
    };
    let data = open(None).unwrap();
    assert_eq!((data.len(), data.label(2)), (3, Some(3)));
    gz(
        &raw.join("t10k-images-idx3-ubyte.gz"),
        &idx(&[2, 1, 1], &[8; 2]),
    );
    let error = open(None).unwrap_err();
    assert!(
        error.contains("t10k (2 images") && error.contains("train (3 images"),
        "{error}"
    );
    for (split, rows) in [("train", 3), ("test", 2), ("t10k", 2)] {
        assert_eq!(open(Some(split)).unwrap().len(), rows, "{split}");
    }
    // Two pairs have no order to be read in.
    assert!(open(Some("all")).is_err());
    let other = folder.path().join("FashionMNIST/raw");
    fs::create_dir_all(&other).unwrap();
    fs::write(other.join("train-images-idx3-ubyte"), idx(&[1, 1, 1], &[1])).unwrap();
    let error = open(Some("train")).unwrap_err();
    assert!(
        error.contains("FashionMNIST/raw") && error.contains("MNIST/raw/t"),
        "{error}"
    );
}

#[test]
fn folders_called_like_splits_are_not_one_data_set() {
    let folder = tempfile::tempdir().unwrap();
    let save = |name: &str, value: u8| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        GrayImage::from_pixel(2, 2, image::Luma([value]))
            .save(path)
            .unwrap();
    };
    let open = |split: Option<&str>| {
        let options = OpenOptions {
            split: split.map(str::to_owned),
            ..OpenOptions::default()
        };
        let data = Dataset::open(folder.path(), &options).map_err(|error| error.to_string())?;
        Ok::<_, String>(
            (0..data.len())
                .map(|row| data.name(row))
                .collect::<Vec<_>>(),
        )
    };
    save("pictures/train/cat/0.png", 1);
    save("pictures/train/dog/1.png", 2);
    assert_eq!(open(None).unwrap().len(), 2);
    assert!(open(Some("test")).unwrap_err().contains("no split called"));
    save("pictures/val/cat/2.png", 3);
    let error = open(None).unwrap_err();
    assert!(
        error.contains("train (2 images") && error.contains("val (1 image,"),
        "{error}"
    );
    assert_eq!(
        open(Some("validation")).unwrap(),
        ["pictures/val/cat/2.png"]
    );
    assert_eq!(open(Some("train")).unwrap().len(), 2);
    assert_eq!(open(Some("all")).unwrap().len(), 3);
    let images = Dataset::open(&folder.path().join("pictures/val"), &OpenOptions::default());
    assert_eq!(images.unwrap().len(), 1);
}

#[test]
fn cifar_100_is_read_in_its_binary_version_and_tests_are_a_split() {
    let folder = tempfile::tempdir().unwrap();
    let open = |split: Option<&str>| {
        let options = OpenOptions {
            split: split.map(str::to_owned),
            ..OpenOptions::default()
        };
        Dataset::open(folder.path(), &options).map_err(|error| error.to_string())
    };
    let hundred = folder.path().join("cifar-100-binary");
    fs::create_dir(&hundred).unwrap();
    let record = |fine: u8| [vec![3, fine], vec![fine; 3072]].concat();
    fs::write(hundred.join("train.bin"), [record(40), record(99)].concat()).unwrap();
    fs::write(hundred.join("test.bin"), record(7)).unwrap();
    let error = open(None).unwrap_err();
    assert!(
        error.contains("test (1 image,") && error.contains("train (2 images"),
        "{error}"
    );
    let data = open(Some("train")).unwrap();
    assert_eq!(
        (data.len(), data.label(1), all(&data)[1][0]),
        (2, Some(99), 99)
    );
    assert_eq!(data.kind(), "CIFAR-100 batches");
    fs::write(hundred.join("test.bin"), record(100)).unwrap();
    assert!(
        open(Some("test"))
            .unwrap_err()
            .contains("label 100, not 0 to 99")
    );
    fs::remove_dir_all(&hundred).unwrap();
    for n in 1..=5u8 {
        fs::write(
            folder.path().join(format!("data_batch_{n}.bin")),
            batch(2, n),
        )
        .unwrap();
    }
    fs::write(folder.path().join("test_batch.bin"), batch(3, 9)).unwrap();
    for (split, rows) in [
        (None, 10),
        (Some("train"), 10),
        (Some("test"), 3),
        (Some("all"), 13),
    ] {
        assert_eq!(open(split).unwrap().len(), rows, "{split:?}");
    }
}

#[test]
fn a_split_that_is_not_there_is_refused_whatever_the_data_is() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let open = |name: &str, split: &str| {
        let options = OpenOptions {
            split: Some(split.to_owned()),
            ..OpenOptions::default()
        };
        let data = Dataset::open(&at(name), &options).map_err(|error| error.to_string())?;
        Ok::<_, String>(data.len())
    };
    for name in ["images.parquet", "my_train.parquet"] {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files/hugging_face.parquet");
        fs::copy(from, at(name)).unwrap();
    }
    for name in ["idx", "plain", "cifar", "published/images"] {
        fs::create_dir_all(at(name)).unwrap();
    }
    for name in ["plain", "published/images"] {
        GrayImage::new(2, 2).save(at(name).join("0.png")).unwrap();
    }
    fs::write(at("published/kmeans_labels.json"), "[1]").unwrap();
    for name in [
        "idx/train-images-idx3-ubyte",
        "t10k-images-idx3-ubyte",
        "images-idx3-ubyte",
    ] {
        fs::write(at(name), idx(&[1, 1, 1], &[9])).unwrap();
    }
    for n in 1..=5u8 {
        fs::write(at(&format!("cifar/data_batch_{n}.bin")), batch(1, n)).unwrap();
    }
    fs::write(at("test_batch.bin"), batch(1, 9)).unwrap();
    let none = "has no splits";
    for (name, own, found) in [
        ("images.parquet", None, none),
        (
            "my_train.parquet",
            Some("train"),
            "there is train (50 images",
        ),
        ("idx", Some("train"), "there is train (1 image,"),
        (
            "idx/train-images-idx3-ubyte",
            Some("train"),
            "there is train (1 image,",
        ),
        (
            "t10k-images-idx3-ubyte",
            Some("test"),
            "there is t10k (1 image,",
        ),
        ("images-idx3-ubyte", None, none),
        ("plain", None, none),
        ("published", None, none),
        ("cifar", Some("train"), "there is train (5 images"),
        (
            "cifar/data_batch_3.bin",
            Some("train"),
            "there is train (1 image,",
        ),
        ("test_batch.bin", Some("test"), "there is test (1 image,"),
    ] {
        let rows = open(name, "all").unwrap();
        if let Some(own) = own {
            assert_eq!(open(name, own).unwrap(), rows, "{name}");
        }
        for wanted in ["train", "test", "validation", "tset"] {
            if own == Some(wanted) {
                continue;
            }
            let error = open(name, wanted).expect_err(name);
            assert!(
                error.contains(name) && error.contains(wanted) && error.contains(found),
                "{error}"
            );
        }
    }
}

#[test]
fn a_folder_called_like_a_split_beside_loose_images_is_asked_about() {
    let folder = tempfile::tempdir().unwrap();
    let save = |name: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        GrayImage::new(2, 2).save(path).unwrap();
    };
    let open = |split: Option<&str>| {
        let options = OpenOptions {
            split: split.map(str::to_owned),
            ..OpenOptions::default()
        };
        let data = Dataset::open(folder.path(), &options).map_err(|error| error.to_string())?;
        Ok::<_, String>(data.len())
    };
    save("a.png");
    save("b.png");
    save("cats/c.png");
    assert_eq!(open(None).unwrap(), 3);
    save("val/d.png");
    let error = open(None).unwrap_err();
    assert!(
        error.contains("one without a name (3 images, the first file a.png)")
            && error.contains("val (1 image, the first file val/d.png)"),
        "{error}"
    );
    assert_eq!(open(Some("all")).unwrap(), 4);
    assert_eq!(open(Some("validation")).unwrap(), 1);
}

#[test]
fn a_file_that_is_called_like_a_batch_is_none_of_the_five() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["data_batch_7.bin", "data_batch_01.bin"] {
        let path = folder.path().join(name);
        fs::write(&path, batch(1, 1)).unwrap();
        let error = error(folder.path());
        assert!(
            error.contains("no file in it belongs to a data set") && error.contains(name),
            "{error}"
        );
        assert_eq!(open(&path).len(), 1);
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn idx_counts_are_checked_before_memory_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("train-images-idx3-ubyte");
    for bytes in [
        idx(&[4, 2, 3], &[0; 23]),
        idx(&[4, 2, 3], &[0; 25]),
        idx(&[u32::MAX, u32::MAX, u32::MAX], &[0; 24]),
        idx(&[0, 2, 3], &[]),
        idx(&[24], &[0; 24]),
        vec![0, 0, 8, 3, 0],
        vec![0, 0, 13, 3, 0, 0, 0, 1],
        vec![],
        b"<html>".to_vec(),
    ] {
        fs::write(&path, &bytes).unwrap();
        assert!(error(&path).contains("train-images-idx3-ubyte"));
        let packed = path.with_file_name("t10k-images-idx3-ubyte.gz");
        gz(&packed, &bytes);
        assert!(error(&packed).contains("t10k-images-idx3-ubyte.gz"));
    }
    // The header and the file's length agree no more once the stream is cut.
    let packed = path.with_file_name("t10k-images-idx3-ubyte.gz");
    let noise: Vec<u8> = (0..10_000u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    gz(&packed, &idx(&[100, 10, 10], &noise));
    let bytes = fs::read(&packed).unwrap();
    fs::write(&packed, &bytes[..bytes.len() / 2]).unwrap();
    assert!(error(&packed).contains("follow"), "{}", error(&packed));
    fs::write(&path, idx(&[2, 1, 1], &[1, 2])).unwrap();
    fs::write(
        path.with_file_name("train-labels-idx1-ubyte"),
        idx(&[3], &[1, 2, 3]),
    )
    .unwrap();
    assert!(error(&path).contains("do not belong together"));
}

fn batch(rows: usize, first: u8) -> Vec<u8> {
    (0..rows)
        .flat_map(|row| {
            let mut record = vec![(row % 10) as u8];
            record.extend([first; 1024]);
            record.extend((0..1024).map(|i| (i / 32) as u8));
            record.extend([row as u8; 1024]);
            record
        })
        .collect()
}

#[test]
fn cifar_batches_are_read_in_order_and_as_pixels() {
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("cifar-10-batches-bin");
    fs::create_dir(&inside).unwrap();
    for n in 1..=5u8 {
        fs::write(inside.join(format!("data_batch_{n}.bin")), batch(2, n)).unwrap();
    }
    fs::write(inside.join("test_batch.bin"), batch(3, 9)).unwrap();
    for (source, rows) in [
        (inside.as_path(), 10),
        (folder.path(), 10),
        (&inside.join("test_batch.bin"), 3),
    ] {
        let (memory, on_demand) = (open(source), Dataset::open(source, &ON_DEMAND).unwrap());
        assert_eq!(memory.len(), rows);
        assert_eq!(
            memory.shape(),
            ImageShape {
                height: 32,
                width: 32,
                channels: 3
            }
        );
        assert!(memory.pixels().is_some() && on_demand.pixels().is_none());
        assert_eq!(all(&memory), all(&on_demand));
        assert_eq!(memory.digest().unwrap(), on_demand.digest().unwrap());
    }
    let data = open(&inside);
    let images = all(&data);
    assert_eq!(images[7][3 * 33..3 * 34], [4, 1, 1]);
    assert_eq!((data.label(6), data.label(7)), (Some(0), Some(1)));
    let gray = OpenOptions {
        channels: Some(1),
        memory_budget: 0,
        ..OpenOptions::default()
    };
    let gray = all(&Dataset::open(&inside, &gray).unwrap());
    assert_eq!((gray[0].len(), gray[8][0]), (1024, 1));
    fs::remove_file(inside.join("data_batch_3.bin")).unwrap();
    assert!(error(&inside).contains("data_batch_3.bin"));
}

#[test]
fn cifar_lengths_and_labels_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data_batch_1.bin");
    let mut wrong = batch(2, 1);
    wrong[3073] = 10;
    for (bytes, message) in [
        (batch(2, 1)[..6000].to_vec(), "3073"),
        (vec![], "3073"),
        (wrong, "record 1 has label 10"),
    ] {
        fs::write(&path, bytes).unwrap();
        assert!(error(&path).contains(message), "{}", error(&path));
    }
}

#[test]
fn train_and_test_are_not_joined_however_their_folders_are_called() {
    for names in [
        ["trainA", "testA"],
        ["trainB", "testA"],
        ["trainSet", "valSet"],
        ["trainset", "testset"],
        ["imagestrain", "imagestest"],
        ["imagesTrain", "imagesTest"],
        ["trainHR", "testHR"],
        ["train", "testSet"],
    ] {
        let folder = tempfile::tempdir().unwrap();
        for (value, name) in names.iter().enumerate() {
            let below = folder.path().join(name);
            fs::create_dir(&below).unwrap();
            GrayImage::from_pixel(2, 2, image::Luma([value as u8]))
                .save(below.join("a.png"))
                .unwrap();
        }
        let error = error(folder.path());
        for name in names {
            assert!(error.contains(&format!("{name} (1 image")), "{error}");
            let options = OpenOptions {
                split: Some(name.to_owned()),
                ..OpenOptions::default()
            };
            assert_eq!(Dataset::open(folder.path(), &options).unwrap().len(), 1);
        }
        let train = OpenOptions {
            split: Some("train".to_owned()),
            ..OpenOptions::default()
        };
        let data = Dataset::open(folder.path(), &train).unwrap();
        assert_eq!(data.name(0), format!("{}/a.png", names[0]));
    }
    // Ordinary words that begin alike.
    let folder = tempfile::tempdir().unwrap();
    for name in ["training-shoes", "testimonials", "trainers", "valley"] {
        let below = folder.path().join(name);
        fs::create_dir(&below).unwrap();
        GrayImage::new(2, 2).save(below.join("a.png")).unwrap();
    }
    assert_eq!(open(folder.path()).len(), 4);
}

fn gray(path: &Path) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    GrayImage::new(2, 2).save(path).unwrap();
}

fn of_split(folder: &Path, split: &str) -> Result<usize, String> {
    let options = OpenOptions {
        split: Some(split.to_owned()),
        ..OpenOptions::default()
    };
    let data = Dataset::open(folder, &options);
    data.map(|data| data.len())
        .map_err(|error| error.to_string())
}

#[test]
fn a_split_of_images_beside_another_of_tables_or_pairs_is_not_left_out_in_silence() {
    let parquet = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files/none.parquet");
    let table = fs::read(parquet).unwrap();
    let mut pixels = vec![0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 2];
    pixels.extend([0; 4]);
    for (name, content) in [
        ("test.parquet", &table),
        ("data/test-00000-of-00001.parquet", &table),
        ("t10k-images-idx3-ubyte", &pixels),
        ("data_batch_1.bin", &batch(2, 1)),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        let first = name.rsplit_once('/').map_or(name, |(_, plain)| plain);
        let alone = Dataset::open(folder.path(), &OpenOptions::default());
        let alone = alone.map(|data| data.beside().map(str::to_owned));
        // A picture of something else is named, and no reason not to read the data.
        gray(&folder.path().join("assets/a.png"));
        if let Ok(beside) = alone {
            assert_eq!(beside, None);
            let data = open(folder.path());
            let beside = data.beside().unwrap();
            assert!(
                beside.contains("1 image beside it (assets/a.png) is not read"),
                "{beside}"
            );
        }
        gray(&folder.path().join("train/a.png"));
        let error = error(folder.path());
        assert!(
            error.contains("more than one data set, train and ") && error.contains(first),
            "{error}"
        );
    }
}

#[test]
fn a_format_that_is_not_read_matters_only_in_the_split_that_is() {
    let folder = tempfile::tempdir().unwrap();
    gray(&folder.path().join("train/a.png"));
    gray(&folder.path().join("test/a.png"));
    fs::write(folder.path().join("test/b.heic"), "x").unwrap();
    assert_eq!(of_split(folder.path(), "train").unwrap(), 1);
    for split in ["test", "all"] {
        let error = of_split(folder.path(), split).unwrap_err();
        assert!(
            error.contains("b.heic: this is HEIC, which is not read"),
            "{error}"
        );
    }
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.heic"), "x").unwrap();
    assert!(error(folder.path()).contains("this is HEIC, which is not read"));
}

#[test]
fn files_far_below_a_folder_are_not_denied() {
    let folder = tempfile::tempdir().unwrap();
    let deep = folder.path().join("a/b/c/d/e");
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("x.npz"), "PK").unwrap();
    let error = error(folder.path());
    assert!(
        !error.contains("holds no files") && error.contains("name the folder that holds the files"),
        "{error}"
    );
}

/// The captions of images of these names from a file of these names, each of which is its own caption.
fn named(images: &[&str], entries: &[&str]) -> Result<Vec<String>, String> {
    let folder = tempfile::tempdir().unwrap();
    for (row, name) in images.iter().enumerate() {
        let path = folder.path().join("data").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        GrayImage::from_pixel(2, 2, Luma([row as u8]))
            .save(path)
            .unwrap();
    }
    let data = open(&folder.path().join("data"));
    let lines: Vec<String> = entries
        .iter()
        .map(|name| format!("{{\"file_name\": {name:?}, \"text\": {name:?}}}"))
        .collect();
    let path = folder.path().join("captions.jsonl");
    fs::write(&path, lines.join("\n")).unwrap();
    captions(&data, path.to_str().unwrap())
        .map(|found| found.texts)
        .map_err(|error| error.to_string())
}

#[test]
fn a_caption_belongs_to_an_image_only_if_one_name_is_the_end_of_the_other() {
    let (two, flat) = (["train/cat/0.png", "train/dog/1.png"], ["0.png", "1.png"]);
    for (images, entries) in [
        (two, ["cat/0.png", "dog/1.png"]),
        (two, ["0.png", "1.png"]),
        (two, ["/other/data/train/cat/0.png", "./train/dog/1.png"]),
        (two, ["cat\\0.png", "dog\\1"]),
        (flat, ["cat/0.png", "dog/1.png"]),
        (flat, ["cat/0.jpg", "1"]),
    ] {
        assert_eq!(named(&images, &entries).unwrap(), entries);
    }
    for (images, entries) in [
        (
            two.as_slice(),
            ["test/cat/0.png", "train/dog/1.png"].as_slice(),
        ),
        (&two, &["cow/0.png", "dog/1.png"]),
        // Of two entries, or of two images, neither is the one.
        (&two, &["a/train/cat/0.png", "b/train/cat/0.png", "1.png"]),
        (
            &["cat/0.png", "dog/0.png", "dog/1.png"],
            &["0.png", "1.png"],
        ),
    ] {
        let error = named(images, entries).unwrap_err();
        assert!(error.contains("no caption"), "{entries:?}: {error}");
    }
    let whole = ["0.png", "cat/0.png"];
    assert_eq!(named(&whole, &["cat/0.png", "0.png"]).unwrap(), whole);
    let error = named(&two, &["test/cat/0.png", "test/cat/1.png"]).unwrap_err();
    for says in ["\"test/cat/0.png\"", "\"train/cat/0.png\""] {
        assert!(error.contains(says), "{error}");
    }
    let error = named(&two, &["cat/0.png"]).unwrap_err();
    assert!(error.contains("1 of 2 images has no caption"), "{error}");
}

#[test]
fn captions_of_one_split_are_not_those_of_another() {
    let folder = tempfile::tempdir().unwrap();
    for split in ["train", "test"] {
        let cats = folder.path().join(split).join("cat");
        fs::create_dir_all(&cats).unwrap();
        GrayImage::new(2, 2).save(cats.join("0.png")).unwrap();
        let line = format!("{{\"file_name\": \"cat/0.png\", \"text\": \"{split}\"}}");
        fs::write(folder.path().join(split).join("metadata.jsonl"), line).unwrap();
        let texts = folder.path().join("texts").join(split);
        fs::create_dir_all(&texts).unwrap();
        fs::write(texts.join("0.txt"), split).unwrap();
    }
    let open = |split: &str| {
        let options = OpenOptions {
            split: Some(split.into()),
            ..OpenOptions::default()
        };
        Dataset::open(folder.path(), &options).unwrap()
    };
    let found = |split: &str, from: &str| {
        let path = folder.path().join(from);
        captions(&open(split), path.to_str().unwrap()).map(|found| found.texts)
    };
    for split in ["train", "test"] {
        let own = found(split, &format!("{split}/metadata.jsonl")).unwrap();
        assert_eq!(own, [split]);
        assert_eq!(found(split, &format!("texts/{split}")).unwrap(), [split]);
    }
    assert!(found("train", "test/metadata.jsonl").is_err());
    // One text beside two images is neither's.
    assert!(found("all", "texts/test").is_err());
}

/// Labels by row with their names, of images of these names.
fn labels(images: &[&str], split: Option<&str>) -> Vec<(i64, String)> {
    let folder = tempfile::tempdir().unwrap();
    for name in images {
        gray(&folder.path().join(name));
    }
    let options = OpenOptions {
        split: split.map(str::to_owned),
        ..OpenOptions::default()
    };
    let data = Dataset::open(folder.path(), &options).unwrap();
    let label = |row| {
        let label = data.label(row)?;
        Some((label, data.label_name(label)?.to_owned()))
    };
    (0..data.len()).filter_map(label).collect()
}

#[test]
fn folders_of_classes_label_their_images_in_the_order_of_their_names() {
    let named = |expected: &[(i64, &str)]| -> Vec<(i64, String)> {
        let own = |&(label, name): &(i64, &str)| (label, name.to_owned());
        expected.iter().map(own).collect()
    };
    // Capitals go first, as Python sorts them; by path "a b/" goes before "a/".
    assert_eq!(
        labels(
            &[
                "cat/1.png",
                "Dog/1.png",
                "cat/2.png",
                "a/1.png",
                "a b/1.png"
            ],
            None
        ),
        named(&[(0, "Dog"), (2, "a b"), (1, "a"), (3, "cat"), (3, "cat")])
    );
    let split = [
        "train/b/1.png",
        "train/a/1.png",
        "test/a/1.png",
        "test/c/1.png",
    ];
    assert_eq!(labels(&split, Some("train")), named(&[(0, "a"), (1, "b")]));
    assert_eq!(labels(&split, Some("test")), named(&[(0, "a"), (1, "c")]));
    assert_eq!(
        labels(&split, Some("all")),
        named(&[(0, "a"), (2, "c"), (0, "a"), (1, "b")])
    );
    // A class may be called like a split, if not all are.
    assert_eq!(
        labels(&["car/1.png", "train/1.png"], None),
        named(&[(0, "car"), (1, "train")])
    );
    for (none, split) in [
        (&["1.png", "2.png"][..], None),
        (&["a/1.png", "2.png"], Some("")),
        (&["only/1.png", "only/2.png"], None),
        (&["a/x/1.png", "b/y/1.png"], None),
        (&["a/x/1.png", "b/1.png"], None),
        (&["train/1.png", "test/1.png"], Some("all")),
    ] {
        let split = split.filter(|split| !split.is_empty());
        assert_eq!(labels(none, split), [], "{none:?}");
    }
}

#[test]
fn labels_of_folders_have_a_digest_of_their_own() {
    let digests = |images: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        for name in images {
            gray(&folder.path().join(name));
        }
        let data = Dataset::open(folder.path(), &OpenOptions::default()).unwrap();
        (data.digest().unwrap(), data.labels_digest())
    };
    let (flat, none) = digests(&["1.png", "2.png"]);
    let (classes, first) = digests(&["a/1.png", "b/2.png"]);
    let (others, second) = digests(&["a/1.png", "c/2.png"]);
    // What is kept under the digest of a folder of classes is that of the same images.
    assert_eq!((&flat, &flat, none), (&classes, &others, None));
    assert!(first.is_some() && second.is_some() && first != second);
    let selected = |text: &str| {
        let folder = tempfile::tempdir().unwrap();
        for name in ["cat/1.png", "dog/1.png", "cat/2.png"] {
            gray(&folder.path().join(name));
        }
        let data = Dataset::open(folder.path(), &OpenOptions::default()).unwrap();
        let selection = retrack_data::Selection::parse(text).unwrap();
        selection
            .resolve(&data)
            .map(|found| found.rows)
            .map_err(|error| error.to_string())
    };
    assert_eq!(selected("label:cat"), Ok(vec![0, 1]));
    assert_eq!(selected("label:1"), Ok(vec![2]));
    assert!(
        selected("label:cow")
            .unwrap_err()
            .contains("0 (cat), 1 (dog)")
    );
}
