//! CIFAR's batches in their Python version.

use std::fs;
use std::path::Path;

use retrack_data::{Dataset, OpenOptions};

/// A batch as Python 2's cPickle wrote it, whose image of row i is all of i and has this label.
fn batch(labels: &[u8], key: &str) -> Vec<u8> {
    let short = |text: &str| [b"U", &[text.len() as u8][..], text.as_bytes()].concat();
    let rows = labels.len() as u16;
    let mut out = b"\x80\x02}q\x01(".to_vec();
    out.extend(short("batch_label"));
    out.extend(b"q\x02");
    out.extend(short("training batch 1 of 5"));
    out.extend(b"q\x03");
    out.extend(short(key));
    out.extend(b"q\x04]q\x05(");
    out.extend(labels.iter().flat_map(|&label| [b'K', label]));
    out.extend(b"e");
    out.extend(short("data"));
    out.extend(b"q\x06cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\0\x85q\tU\x01bq\n\x87q\x0bRq\x0c(K\x01M");
    out.extend(rows.to_le_bytes());
    out.extend(b"M\0\x0c\x86q\rcnumpy\ndtype\nq\x0eU\x02u1q\x0fK\0K\x01\x87q\x10Rq\x11(K\x03U\x01|q\x12NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tq\x13b\x89T");
    out.extend((u32::from(rows) * 3072).to_le_bytes());
    out.extend((0..rows).flat_map(|row| [row as u8; 3072]));
    out.extend(b"q\x14tq\x15b");
    out.extend(short("filenames"));
    out.extend(b"q\x16]q\x17(");
    out.extend(labels.iter().flat_map(|_| short("a.png")));
    out.extend(b"eu.");
    out
}

fn open(path: &Path, split: Option<&str>, memory_budget: u64) -> Result<Dataset, String> {
    let options = OpenOptions {
        split: split.map(str::to_owned),
        memory_budget,
        ..OpenOptions::default()
    };
    Dataset::open(path, &options).map_err(|error| error.to_string())
}

fn binary(labels: &[u8]) -> Vec<u8> {
    let image = |(row, &label): (usize, &u8)| [&[label][..], &[row as u8; 3072]].concat();
    labels.iter().enumerate().flat_map(image).collect()
}

#[test]
fn python_batches_are_those_of_the_binary_version() {
    let folder = tempfile::tempdir().unwrap();
    let [python, plain] =
        ["x/cifar-10-batches-py", "cifar-10-batches-bin"].map(|name| folder.path().join(name));
    for place in [&python, &plain] {
        fs::create_dir_all(place).unwrap();
    }
    for number in 1..=5u8 {
        let labels = [number, 9 - number, 3];
        fs::write(
            python.join(format!("data_batch_{number}")),
            batch(&labels, "labels"),
        )
        .unwrap();
        fs::write(
            plain.join(format!("data_batch_{number}.bin")),
            binary(&labels),
        )
        .unwrap();
    }
    fs::write(python.join("test_batch"), batch(&[7, 7], "labels")).unwrap();
    fs::write(python.join("batches.meta"), b"\x80\x02}.").unwrap();
    for budget in [0, 1 << 20] {
        let expected = open(&plain, None, budget).unwrap();
        for place in [&python, &folder.path().join("x")] {
            let data = open(place, None, budget).unwrap();
            assert_eq!((data.kind(), data.len()), ("CIFAR-10 batches", 15));
            assert_eq!(data.digest().unwrap(), expected.digest().unwrap());
        }
        assert_eq!(open(&python, Some("test"), budget).unwrap().len(), 2);
        let one = open(&python.join("data_batch_2"), None, budget).unwrap();
        let mut image = vec![0; 3072];
        one.read(1, &mut image).unwrap();
        assert_eq!((image, one.label(1)), (vec![1; 3072], Some(7)));
    }
    fs::remove_file(python.join("data_batch_4")).unwrap();
    let error = open(&python, None, 0).unwrap_err();
    assert!(
        error.contains("data_batch_4: this batch is missing"),
        "{error}"
    );

    let hundred = folder.path().join("cifar-100-python");
    fs::create_dir(&hundred).unwrap();
    for (name, content) in [
        ("meta", b"\x80\x02}.".to_vec()),
        ("train", batch(&[99, 0], "fine_labels")),
        ("test", batch(&[5], "fine_labels")),
    ] {
        fs::write(hundred.join(name), content).unwrap();
    }
    let data = open(&hundred, Some("train"), 0).unwrap();
    assert_eq!(
        (data.kind(), data.label(0)),
        ("CIFAR-100 batches", Some(99))
    );
    let error = open(&hundred, None, 0).unwrap_err();
    assert!(
        error.contains("test (1 image") && error.contains("train (2 images"),
        "{error}"
    );
}

/// As Python 3 and NumPy 2 write it, protocol 4.
#[test]
fn a_batch_that_was_pickled_again_is_read() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files/cifar_protocol_4");
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("data_batch_1");
    fs::copy(path, &copy).unwrap();
    let data = open(&copy, None, 0).unwrap();
    let mut image = vec![0; 3072];
    data.read(1, &mut image).unwrap();
    assert_eq!(data.label(1), Some(8));
    // (row * 5 + place) % 7, red plane first.
    for (pixel, rgb) in image.chunks_exact(3).enumerate() {
        let expected = [0, 1, 2].map(|channel| ((5 + channel * 1024 + pixel) % 7) as u8);
        assert_eq!(rgb, expected);
    }
}

#[test]
fn a_pickle_that_asks_for_anything_else_is_refused_by_name_and_not_run() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data_batch_1");
    let whole = batch(&[1, 2, 3], "labels");
    let error = |content: &[u8]| {
        fs::write(&path, content).unwrap();
        open(&path, None, 0).unwrap_err()
    };
    for (content, says) in [
        (
            &b"\x80\x02cos\nsystem\n(U\x04true\x85R."[..],
            "os.system, as no batch of CIFAR does; nothing of it was run",
        ),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "os.system"),
        (b"\x80\x02]q\x01.", "something else than a batch of CIFAR"),
        (b"\x80\x02}q\x01.", "without the array `data`"),
        (b"\x80\x02}q\x01h\x02.", "recalled that was never kept"),
        (b"\x80\x02(lp0\n.", "opcode 0x6c"),
        (b"\x80\x02", "ends too early"),
        (
            b"\x80\x02\x8e\xff\xff\xff\xff\xff\xff\xff\xff",
            "ends too early",
        ),
        (&batch(&[1, 10], "labels"), "row 1 has label 10, not 0 to 9"),
        (&batch(&[], "labels"), "0 labels"),
        (&batch(&[1], "other"), "without the list `labels`"),
    ] {
        let error = error(content);
        assert!(error.contains(says), "{says}: {error}");
    }
    for length in (0..whole.len()).step_by(101) {
        error(&whole[..length]);
    }
    for at in 0..whole.len().min(400) {
        for bit in 0..8 {
            let mut damaged = whole.clone();
            damaged[at] ^= 1 << bit;
            fs::write(&path, damaged).unwrap();
            let _ = open(&path, None, 0);
        }
    }
}
