//! Images of any size, resized as training scripts do it.

use std::fs;
use std::path::{Path, PathBuf};

use image::{GrayImage, Luma, RgbImage};
use retrack_checkpoint::hex::hex;
use retrack_data::neighbors::prepare;
use retrack_data::resample::Filter;
use retrack_data::{
    BUDGET, Crop, DataError, Dataset, ImageShape, Lossy, OpenOptions, Resize, Selection, Split,
};
use serde_json::Value;
use sha2::{Digest, Sha256};

fn to(side: usize, crop: Crop) -> Option<Resize> {
    let interpolation = Filter::Bicubic;
    Some(Resize {
        side,
        crop,
        interpolation,
    })
}

fn open(path: &Path, resize: Option<Resize>, memory_budget: u64) -> Result<Dataset, DataError> {
    let options = OpenOptions {
        resize,
        memory_budget,
        ..OpenOptions::default()
    };
    Dataset::open(path, &options)
}

fn all(data: &Dataset) -> Vec<Vec<u8>> {
    let read = |row| {
        let mut out = vec![0; data.shape().bytes()];
        data.read(row, &mut out).unwrap();
        out
    };
    (0..data.len()).map(read).collect()
}

/// 384 resized pictures of gray, color and both with alpha, larger and smaller than before, cut and whole.
#[test]
fn resized_pictures_are_those_of_pillow_byte_for_byte() {
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files/resized");
    let expected = fs::read_to_string(files.join("expected.json")).unwrap();
    let expected: Vec<Value> = serde_json::from_str(&expected).unwrap();
    assert_eq!(expected.len(), 384);
    for one in &expected {
        let folder = tempfile::tempdir().unwrap();
        let file = one["file"].as_str().unwrap();
        fs::copy(files.join(file), folder.path().join(file)).unwrap();
        let number = |key: &str| one[key].as_u64().unwrap() as usize;
        let options = OpenOptions {
            channels: Some(number("channels")),
            resize: Some(Resize {
                side: number("side"),
                crop: one["crop"].as_str().unwrap().parse().unwrap(),
                interpolation: one["interpolation"].as_str().unwrap().parse().unwrap(),
            }),
            ..OpenOptions::default()
        };
        let data = Dataset::open(folder.path(), &options).unwrap();
        let shape = data.shape();
        assert_eq!(one["size"], serde_json::json!([shape.width, shape.height]));
        assert_eq!(one["sha256"], hex(&Sha256::digest(&all(&data)[0])), "{one}");
    }
}

/// Images of 3 sizes, of which rows 0 and 3 are one picture of another size than the rest.
fn mixed() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let picture = |width, height, first: u8| {
        RgbImage::from_fn(width, height, |x, y| {
            let value = |by: u32| (u32::from(first) + by * x + 3 * y) as u8;
            image::Rgb([value(2), value(5), value(7)])
        })
    };
    for (name, width, height, first) in [
        ("a.png", 20, 30, 0),
        ("b.png", 16, 16, 90),
        ("c.png", 40, 17, 10),
        ("d.png", 20, 30, 0),
        ("e.png", 16, 16, 200),
    ] {
        let path: PathBuf = folder.path().join(name);
        picture(width, height, first).save(path).unwrap();
    }
    folder
}

#[test]
fn a_folder_of_mixed_sizes_is_read_searched_and_counted_as_it_is_resized() {
    let folder = mixed();
    assert!(matches!(
        open(folder.path(), None, 1 << 20).unwrap_err(),
        DataError::MixedSizes { resized: false, .. }
    ));
    let error = open(folder.path(), to(16, Crop::None), 1 << 20).unwrap_err();
    assert!(matches!(error, DataError::MixedSizes { resized: true, .. }));
    for part in [
        "a.png is 16 x 24",
        "b.png is 16 x 16 pixels when it is resized",
    ] {
        assert!(error.to_string().contains(part), "{error}");
    }
    let kept = open(folder.path(), to(16, Crop::Center), 1 << 20).unwrap();
    let decoded = open(folder.path(), to(16, Crop::Center), 0).unwrap();
    let shape = ImageShape {
        height: 16,
        width: 16,
        channels: 3,
    };
    assert_eq!((kept.shape(), decoded.pixels()), (shape, None));
    assert_eq!(all(&kept), all(&decoded));
    let resized = Lossy {
        resized: 3,
        ..Lossy::default()
    };
    for data in [&kept, &decoded] {
        assert_eq!(data.lossy().unwrap(), resized);
        // Copies and neighbors are those of the resized pixels.
        let selected = Selection::parse("a.png").unwrap().resolve(data).unwrap();
        let split = Split::new(data, &selected.rows, BUDGET).unwrap();
        let found = prepare(data, split, 2, BUDGET, None).unwrap();
        assert_eq!(found.split.duplicates, [3]);
        let plain = Dataset::from_pixels(shape, all(&kept).concat(), Vec::new()).unwrap();
        let split = Split::new(&plain, &[0], BUDGET).unwrap();
        let same = prepare(&plain, split, 2, BUDGET, None).unwrap();
        assert_eq!(found.neighbors, same.neighbors);
        // A file that lies elsewhere is resized as well.
        let file = folder.path().join("c.png");
        assert_eq!(data.read_file(&file).unwrap(), all(data)[2]);
    }
    assert_eq!(kept.digest().unwrap(), decoded.digest().unwrap());
}

#[test]
fn the_digest_follows_the_pixels_that_resizing_makes() {
    let folder = mixed();
    let digest = |resize| {
        open(folder.path(), Some(resize), 0)
            .unwrap()
            .digest()
            .unwrap()
    };
    let Some(bicubic) = to(16, Crop::Center) else {
        unreachable!()
    };
    let [bilinear, larger] = [
        Resize {
            interpolation: Filter::Bilinear,
            ..bicubic
        },
        Resize {
            side: 17,
            ..bicubic
        },
    ];
    assert_eq!(digest(bicubic), digest(bicubic));
    assert_ne!(digest(bicubic), digest(bilinear));
    assert_ne!(digest(bicubic), digest(larger));
    // What changes nothing is no other data set.
    for name in ["a.png", "c.png", "d.png"] {
        fs::remove_file(folder.path().join(name)).unwrap();
    }
    let same = open(folder.path(), None, 0).unwrap();
    for resize in [bicubic, bilinear] {
        let data = open(folder.path(), Some(resize), 0).unwrap();
        assert_eq!(data.digest().unwrap(), same.digest().unwrap());
        assert_eq!(all(&data), all(&same));
        assert_eq!(data.lossy().unwrap(), Lossy::default());
    }
}

#[test]
fn plain_pixels_are_resized_too_and_what_is_put_back_is() {
    let folder = mixed();
    let data = open(folder.path(), to(8, Crop::Center), 0).unwrap();
    let (digest, images) = (data.digest().unwrap(), all(&data));
    let (file, _) = data.file(2).unwrap();
    assert_eq!(file, fs::read(folder.path().join("c.png")).unwrap());
    struct Files(Vec<u8>);
    impl retrack_data::KeptFiles for Files {
        fn file(&self, _: usize) -> Result<Vec<u8>, DataError> {
            Ok(self.0.clone())
        }
    }
    let row = retrack_data::KeptRow {
        file: 0,
        name: Some("c.png".into()),
        label: None,
        text: None,
    };
    fs::remove_file(folder.path().join("c.png")).unwrap();
    let left = open(folder.path(), to(8, Crop::Center), 0).unwrap();
    let files = std::sync::Arc::new(Files(file));
    let again = left.put_back(vec![(2, row)], files, 0).unwrap();
    assert_eq!((again.digest().unwrap(), all(&again)), (digest, images));

    let idx = folder.path().join("images-idx3-ubyte");
    let header = [0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 6, 0, 0, 0, 4];
    let pixels: Vec<u8> = (0..48).map(|value| value * 5).collect();
    fs::write(&idx, [&header[..], &pixels].concat()).unwrap();
    for budget in [0, 1 << 20] {
        let data = open(&idx, to(8, Crop::Center), budget).unwrap();
        assert_eq!(data.lossy().unwrap().resized, 2);
        let png = tempfile::tempdir().unwrap();
        let image = GrayImage::from_raw(4, 6, pixels[24..].to_vec()).unwrap();
        image.save(png.path().join("a.png")).unwrap();
        let same = open(png.path(), to(8, Crop::Center), budget).unwrap();
        assert_eq!(all(&data)[1], all(&same)[0]);
    }
}

#[test]
fn sizes_that_no_image_may_have_are_refused_before_they_take_memory() {
    let folder = tempfile::tempdir().unwrap();
    for side in [0, Resize::MOST + 1] {
        let error = open(folder.path(), to(side, Crop::Center), 0).unwrap_err();
        assert!(matches!(error, DataError::Side { .. }), "{error}");
    }
    GrayImage::from_pixel(1, 40_000, Luma([9]))
        .save(folder.path().join("thin.png"))
        .unwrap();
    let data = open(folder.path(), to(4096, Crop::Center), 0).unwrap();
    let mut out = vec![0; data.shape().bytes()];
    data.read(0, &mut out).unwrap();
    assert!(out.iter().all(|&value| value == 9));
    let error = open(folder.path(), to(4096, Crop::None), 0).unwrap_err();
    let error = error.to_string();
    for part in ["thin.png", "4096 x 163840000 pixels"] {
        assert!(error.contains(part), "{error}");
    }
    // A photo of 24 million pixels is larger than what is read as it is, and not too large to be resized.
    fs::remove_file(folder.path().join("thin.png")).unwrap();
    RgbImage::from_pixel(6000, 4000, image::Rgb([1, 2, 3]))
        .save(folder.path().join("photo.png"))
        .unwrap();
    let error = open(folder.path(), None, 0).unwrap_err().to_string();
    assert!(
        error.contains("6000 x 4000 pixels are more than"),
        "{error}"
    );
    let data = open(folder.path(), to(4, Crop::Center), 0).unwrap();
    assert_eq!(all(&data)[0], [1, 2, 3].repeat(16));
}
