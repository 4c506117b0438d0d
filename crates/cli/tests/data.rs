//! Data sets as people have them: what is read, which part of it, and what is said of the rest.

mod support;

use std::fs;

use image::{DynamicImage, ImageBuffer, Luma, LumaA};
use support::{Folder, PHOTOS, SIDE, noise, photo_png};

/// Gray photos under noise of alpha.
fn clear(row: usize) -> Vec<u8> {
    let pixels = noise(row, SIDE * SIDE);
    let alpha = noise(row + 100, SIDE * SIDE);
    let both = pixels.iter().zip(&alpha).flat_map(|(&a, &b)| [a, b]);
    let side = SIDE as u32;
    let image: ImageBuffer<LumaA<u8>, _> =
        ImageBuffer::from_raw(side, side, both.collect()).unwrap();
    encoded(image)
}

fn encoded(image: impl Into<DynamicImage>) -> Vec<u8> {
    let mut out = std::io::Cursor::new(Vec::new());
    let image: DynamicImage = image.into();
    image.write_to(&mut out, image::ImageFormat::Png).unwrap();
    out.into_inner()
}

#[test]
fn transparent_pictures_are_read_as_training_scripts_read_them_and_counted() {
    let folder = Folder::new();
    folder.photos("seen");
    for row in 0..PHOTOS {
        let content = if row < 5 { clear(row) } else { photo_png(row) };
        folder.write(&format!("clear/{row:02}.png"), content);
    }
    let line = |data: &str| format!("neighbors --data {data} --forget row:2 --neighbors 3 --json");
    let said = folder.done(&line("clear"));
    assert_eq!(said.json(), folder.done(&line("seen")).json());
    for part in [
        "clear: 5 of 16 images have transparent pixels",
        "--alpha white",
    ] {
        assert!(said.stderr.contains(part), "{}", said.stderr);
    }
    assert!(!folder.done(&line("seen")).stderr.contains("transparent"));
    let white = folder.done(&format!("{} --alpha white", line("clear")));
    assert!(white.stderr.contains("laid over white"), "{}", white.stderr);
    assert_ne!(white.json(), said.json());
    folder.refused(
        &format!("{} --alpha gray", line("clear")),
        &["drop, white or black"],
    );
}

#[test]
fn deep_gray_is_scaled_and_that_is_said() {
    let folder = Folder::new();
    folder.photos("deep");
    let pixels = vec![40_000u16; SIDE * SIDE];
    let side = SIDE as u32;
    let image: ImageBuffer<Luma<u16>, _> = ImageBuffer::from_raw(side, side, pixels).unwrap();
    folder.write("deep/deep.png", encoded(image));
    let said = folder.done("neighbors --data deep --forget row:2 --neighbors 1");
    assert!(
        said.stderr
            .contains("deep: 1 of 17 images has 16 bits of gray"),
        "{}",
        said.stderr
    );
}

#[test]
fn a_run_records_how_transparency_was_read_and_goes_on_only_so() {
    let folder = Folder::new();
    folder.tiny_arch(serde_json::json!({}));
    for row in 0..PHOTOS {
        folder.write(&format!("clear/{row:02}.png"), clear(row));
    }
    let line = "train --data clear --arch tiny.json --out run --steps 4 --batch-size 4 --checkpoint-every 2";
    let digest = |more: &str| {
        let said = folder.done(&format!("{line} --dry-run {more}"));
        let config = said.json();
        assert!(config["alpha"].is_string(), "{config}");
        config["data_digest"].as_str().unwrap().to_owned()
    };
    assert_ne!(digest("--alpha white"), digest("--alpha drop"));
    assert_eq!(digest(""), digest("--alpha drop"));
    folder.kill_after_two_checkpoints(
        &line
            .replace("--steps 4", "--steps 100000")
            .replace("--out run", "--out cut"),
        "cut",
    );
    let again = line
        .replace("--steps 4", "--steps 100000")
        .replace("--out run", "--out cut");
    folder.refused(
        &format!("{again} --resume --alpha black"),
        &["alpha", "\"drop\" then"],
    );
}

#[test]
fn an_unlearning_run_knows_its_split_and_verify_reads_the_same() {
    let folder = Folder::with_model_and_photos();
    for row in 0..PHOTOS {
        folder.write(&format!("splits/train/{row:02}.png"), photo_png(row));
        folder.write(&format!("splits/test/{row:02}.png"), photo_png(row + 50));
    }
    let line = "unlearn --model model --data splits --forget row:3 --out run --steps 2 --batch-size 2 --neighbors 2";
    let asks = ["test (16 images", "train (16 images", "--split"];
    for command in [
        line,
        "neighbors --data splits --forget row:3",
        "inspect splits",
        "experiment demo --model model --data splits --forget row:3 --out e",
    ] {
        folder.refused(command, &asks);
    }
    // The output folder's lock was there for a moment.
    folder.refused_anyhow(
        "evaluate --model model --data splits --forget row:3 --threshold 1 --out e",
        &asks,
    );
    folder.tiny_arch(serde_json::json!({}));
    folder.refused("train --data splits --arch tiny.json --out t", &asks);
    folder.refused(
        &format!("{line} --split dev"),
        &["no split called \"dev\"", "train (16 images"],
    );
    folder.refused(
        &line.replace("splits", "photos --split train"),
        &["photos: has no splits", "leave --split out"],
    );
    folder.done(&format!("{line} --split train"));
    let config = folder.read_json("run/run/config.json");
    assert_eq!(
        (&config["split"], &config["alpha"]),
        (&"train".into(), &"drop".into())
    );
    let said = folder.done("verify run");
    assert!(said.stdout.starts_with("same"), "{}", said.stdout);
    // The split's folder, moved away from the other.
    for row in 0..PHOTOS {
        folder.write(&format!("moved/{row:02}.png"), photo_png(row));
    }
    let said = folder.done("verify run --data moved");
    assert!(said.stdout.starts_with("same"), "{}", said.stdout);
    assert!(
        said.stderr.contains("no split \"train\" there"),
        "{}",
        said.stderr
    );
    folder.write("moved/00.png", photo_png(90));
    let said = folder.ends("verify run --data moved", 1);
    assert!(
        said.stdout.contains("data set's SHA-256"),
        "{}",
        said.stdout
    );
    // The folder of the split alone is the same data under other names.
    folder.done("verify run --data splits --split train");
    let inspected = folder.done("inspect splits --split all --json").json();
    assert_eq!(inspected["images"], 2 * PHOTOS);
}

#[test]
fn forget_may_be_repeated_and_what_is_named_twice_is_said() {
    let folder = Folder::new();
    folder.photos("photos");
    let line = "neighbors --data photos --forget rows:2-3 --forget photos/05.png --neighbors 2";
    let json = folder.done(&format!("{line} --json")).json();
    let images = json["images"].as_array().unwrap();
    let names: Vec<_> = images
        .iter()
        .map(|image| image["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["02.png", "03.png", "05.png"]);
    for neighbor in images[0]["neighbors"].as_array().unwrap() {
        let name = format!("{:02}.png", neighbor["row"].as_u64().unwrap());
        assert_eq!(neighbor["name"], name.as_str());
    }
    let said = folder.done(&format!("{line} --forget row:3"));
    assert!(
        said.stderr.contains("row 3 is selected more than once"),
        "{}",
        said.stderr
    );
    folder.refused(
        "neighbors --data photos --forget rows:0-9 --forget rows:10-15",
        &["covers all 16 images"],
    );
    folder.tiny_arch(serde_json::json!({}));
    let said = folder.done(
        "train --data photos --arch tiny.json --out t --exclude row:1 --exclude row:2 --steps 1 --batch-size 2 --dry-run",
    );
    let config = said.json();
    assert_eq!(config["rows"], PHOTOS - 2);
    assert_eq!(config["exclude"], serde_json::json!(["row:1", "row:2"]));
}

#[test]
fn an_unlearning_run_takes_several_selections() {
    let folder = Folder::with_model_and_photos();
    let line = "unlearn --model model --data photos --out run --steps 1 --batch-size 2 --neighbors 2 --dry-run";
    let config = folder
        .done(&format!("{line} --forget row:3 --forget row:7"))
        .json();
    assert_eq!(config["forget"], "row:3, row:7");
    assert_eq!(config["forget_rows"], serde_json::json!([3, 7]));
    let one = folder.done(&format!("{line} --forget row:3")).json();
    assert_eq!(one["forget"], "row:3");
}

#[test]
fn formats_that_are_not_read_are_named_with_a_way_out() {
    let folder = Folder::new();
    let pickle = b"\x80\x04\x95rest".as_slice();
    let files: [(&str, &[u8]); 29] = [
        ("cifar-10-batches-py/data_batch_1", pickle),
        ("cifar-10-batches-py/batches.meta", pickle),
        ("cifar-100-python/train", pickle),
        ("cifar-100-python/test", pickle),
        ("cifar-100-python/meta", pickle),
        (
            "pictures.npz",
            b"PK\x03\x04\x14\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x0c\0\0\0train_im.npyrest",
        ),
        ("pictures.npy", b"\x93NUMPY"),
        ("saved/data-00000-of-00001.arrow", b"x"),
        ("saved/state.json", b"{}"),
        ("saved/dataset_info.json", b"{}"),
        (
            "dict/dataset_dict.json",
            b"{\"splits\": [\"train\", \"test\"]}",
        ),
        ("dict/train/data-00000-of-00001.arrow", b"x"),
        ("imagenet/n01440764.tar", b"x"),
        ("shards/train-000000.tar", b"x"),
        ("train_32x32.mat", b"x"),
        ("x.h5", b"x"),
        ("tf/train.tfrecord-00000-of-00002", b"x"),
        ("lmdb/data.mdb", b"x"),
        ("checkpoint-500/optimizer.bin", b"PK\x03\x04"),
        ("checkpoint-500/random_states_0.pkl", pickle),
        ("checkpoint-500/unet/config.json", b"{}"),
        // The first array's name is no plain word.
        (
            "spaced.npz",
            b"PK\x03\x04\x14\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x0c\0\0\0train im.npyrest",
        ),
        ("below/tar/train/0.tar", b"x"),
        ("below/tf/train/a.tfrecord", b"x"),
        ("below/npz/train/a.npz", b"x"),
        ("below/zip/train/a.zip", b"x"),
        ("below/pt/train/a.pt", b"x"),
        ("pipeline/model_index.json", b"{}"),
        ("pipeline/unet/diffusion_pytorch_model.safetensors", b"x"),
    ];
    for (name, content) in files {
        folder.write(name, content);
    }
    folder.write("weights.bin", b"PK\x03\x04rest");
    folder.write("stuff/a.txt", "x");
    folder.write("stuff/b/c.md", "x");
    fs::create_dir(folder.path("empty")).unwrap();
    for (source, says) in [
        (
            "cifar-10-batches-py",
            &["data_batch_2", "missing beside the others"][..],
        ),
        (
            "cifar-10-batches-py/data_batch_1",
            &["damaged pickle", "fetch it again"],
        ),
        (
            "cifar-10-batches-py/batches.meta",
            &["CIFAR-10 in its Python version", "cifar-10-python.tar.gz"],
        ),
        (
            "cifar-100-python",
            &["cifar-100-python/test: damaged pickle"],
        ),
        ("cifar-100-python/train", &["damaged pickle"]),
        ("cifar-100-python/meta", &["cifar-100-python.tar.gz"]),
        (
            "pictures.npz",
            &[
                "NumPy",
                "(a.ndim > 2, a.size)))(numpy.load('pictures.npz'))",
            ],
        ),
        ("pictures.npy", &["NumPy", "numpy.load('pictures.npy')"]),
        (
            "saved",
            &["save_to_disk", "load_from_disk('saved').to_parquet"],
        ),
        (
            "dict",
            &["save_to_disk", "load_from_disk('dict')['train'].to_parquet"],
        ),
        ("saved/data-00000-of-00001.arrow", &["Dataset.from_file"]),
        ("imagenet", &["n01440764.tar", "tar xf"]),
        ("shards", &["WebDataset", "tar xf"]),
        ("imagenet/n01440764.tar", &["archive", "unpack"]),
        ("train_32x32.mat", &["MATLAB", "PNG files"]),
        ("x.h5", &["HDF5", "PNG files"]),
        ("tf", &["TFRecord", "PNG files"]),
        ("lmdb", &["LMDB", "PNG files"]),
        ("weights.bin", &["PyTorch", "PNG files"]),
        (
            "checkpoint-500",
            &["optimizer.bin", "no data set", "checkpoint-500/unet"],
        ),
        (
            "checkpoint-500/optimizer.bin",
            &["save_state", "no data set"],
        ),
        (
            "spaced.npz",
            &[
                "(a.ndim > 2, a.size)))(numpy.load('spaced.npz'))",
                "x.squeeze()",
            ],
        ),
        ("below/tar", &["train/0.tar", "tar xf"]),
        ("below/tf", &["train/a.tfrecord", "TFRecord"]),
        ("below/npz", &["train/a.npz", "NumPy"]),
        ("below/zip", &["train/a.zip", "archive"]),
        ("below/pt", &["train/a.pt", "PyTorch"]),
        ("pipeline", &["the folder of a model", "no data set"]),
        (
            "pipeline/unet/diffusion_pytorch_model.safetensors",
            &["a model's weights", "no data set"],
        ),
        ("stuff", &["it holds a.txt, b/"]),
        ("empty", &["holds no files"]),
    ] {
        folder.refused(&format!("neighbors --data {source} --forget row:1"), says);
    }
}

#[test]
fn captions_with_a_mark_at_the_start_and_lists_are_read_and_lists_are_said() {
    let folder = Folder::new();
    folder.photos("photos");
    let data = retrack_data::Dataset::open(
        &folder.path("photos"),
        &retrack_data::OpenOptions::default(),
    )
    .unwrap();
    let read = |name: &str| {
        let path = folder.path(name);
        let found = retrack_data::captions(&data, path.to_str().unwrap());
        found.map_err(|error| error.to_string())
    };
    let lines = |text: &dyn Fn(usize) -> String| -> String {
        (0..PHOTOS).map(|row| text(row) + "\n").collect()
    };
    let plain =
        lines(&|row| format!("{{\"file_name\": \"{row:02}.png\", \"text\": \"photo {row}\"}}"));
    folder.write("bom.jsonl", format!("\u{feff}{plain}"));
    let lists = plain
        .replace("\"photo", "[\"photo")
        .replace("\"}", "\", \"more\"]}");
    folder.write("lists.jsonl", lists);
    folder.write(
        "below.csv",
        lines(&|row| format!("elsewhere/{row:02}.png,photo {row}")),
    );
    let table =
        String::from("path,caption\n") + &lines(&|row| format!("/data/x/{row:02}.png,photo {row}"));
    folder.write("table.csv", format!("\u{feff}{table}"));
    for row in 0..PHOTOS {
        folder.write(&format!("beside/{row:02}.txt"), format!("photo {row}\n"));
    }
    for (name, several) in [
        ("bom.jsonl", 0),
        ("lists.jsonl", PHOTOS),
        ("table.csv", 0),
        ("beside", 0),
    ] {
        let found = read(name).unwrap();
        assert_eq!(
            (found.texts[7].as_str(), found.several),
            ("photo 7", several),
            "{name}"
        );
    }
    let error = read("below.csv").unwrap_err();
    assert!(error.contains("entry 1 has the keys"), "{error}");
    folder.write("wrong.json", "[{\"image_id\": 3, \"sentence\": \"x\"}]");
    let error = read("wrong.json").unwrap_err();
    assert!(
        error.contains("wrong.json") && error.contains("image_id, sentence"),
        "{error}"
    );
}

#[test]
fn the_split_that_is_suggested_is_the_one_that_was_trained_on_and_for_controls_another() {
    let folder = Folder::with_model_and_photos();
    for (at, split) in ["test", "train", "val"].into_iter().enumerate() {
        for row in 0..PHOTOS {
            let name = format!("splits/{split}/{row:02}.png");
            folder.write(&name, photo_png(row + 50 * (at + 1)));
        }
    }
    folder.refused(
        "neighbors --data splits --forget row:3",
        &["such as --split train, or --split all"],
    );
    let evaluate = "evaluate --model model --data photos --forget row:3 --metrics membership --samples 4 --steps 2 \
                    --out e --force";
    let line = format!("{evaluate} --controls splits");
    let refusal = folder.ends(&line, 2).stderr;
    assert!(
        refusal.contains("not trained on, such as --controls-split test")
            && !refusal.contains("all to read"),
        "{refusal}"
    );
    // Where there is but one split, it cannot be read with others.
    folder.write("one/train/a.png", photo_png(0));
    folder.write("one/train/b.png", photo_png(1));
    let refusal = folder
        .ends("neighbors --data one --split test --forget row:0", 2)
        .stderr;
    assert!(
        refusal.contains("give --split train, or leave --split out")
            && !refusal.contains("--split all"),
        "{refusal}"
    );
    let said = folder.done(&format!("{evaluate} --controls photos"));
    assert!(
        said.stderr
            .contains("the controls are images of the data set itself"),
        "{}",
        said.stderr
    );
    let said = folder.done(&format!("{line} --controls-split test"));
    assert!(!said.stderr.contains("the controls are"), "{}", said.stderr);
}

#[test]
fn what_lies_in_no_split_is_chosen_as_the_refusal_says() {
    let folder = Folder::new();
    for row in 0..PHOTOS {
        folder.write(&format!("bare/{row:02}.png"), photo_png(row));
        folder.write(&format!("bare/test/{row:02}.png"), photo_png(row + 50));
        for (at, part) in ["test", "train", "unsup"].into_iter().enumerate() {
            let name = format!("three/{part}/{row:02}.png");
            folder.write(&name, photo_png(row + 100 * at));
        }
    }
    let refusal = folder
        .ends("neighbors --data bare --forget row:3", 2)
        .stderr;
    assert!(
        refusal.contains("such as --split \"\", or --split all"),
        "{refusal}"
    );
    let chosen = |data: &str, split: &str| {
        let words = ["inspect", data, "--split", split];
        let (code, said) = folder.outcome(words.into_iter());
        assert_eq!(code, Some(0), "{}", said.stderr);
        said.stdout
    };
    let has = |said: &str, count: usize| said.contains(&format!("images  {count}\n"));
    assert!(has(&chosen("bare", ""), PHOTOS));
    assert!(has(&chosen("bare", "all"), 2 * PHOTOS));
    let refusal = folder.ends("inspect three --split none", 2).stderr;
    assert!(refusal.contains("unsup (16 images"), "{refusal}");
    assert!(has(&chosen("three", "unsup"), PHOTOS));
}

#[test]
fn what_training_says_of_transparency_is_of_a_model_that_is_yet_to_be_trained() {
    let folder = Folder::new();
    folder.tiny_arch(serde_json::json!({}));
    for row in 0..PHOTOS {
        folder.write(&format!("clear/{row:02}.png"), clear(row));
    }
    let said = folder
        .done("train --data clear --arch tiny.json --out t --steps 1 --batch-size 2 --dry-run");
    assert!(
        said.stderr
            .contains("to train on them over white or black, give --alpha white")
            && !said.stderr.contains("was trained"),
        "{}",
        said.stderr
    );
}

/// Photos of three sizes, wider, higher and square, none of them the tiny model's.
fn mixed(folder: &Folder, at: &str) {
    for row in 0..PHOTOS {
        let (width, height) = [(13, 10), (11, 17), (9, 9)][row % 3];
        let pixels = noise(row / 2, width * height);
        let image: ImageBuffer<Luma<u8>, _> =
            ImageBuffer::from_raw(width as u32, height as u32, pixels).unwrap();
        folder.write(&format!("{at}/{row:02}.png"), encoded(image));
    }
}

#[test]
fn images_of_mixed_sizes_are_resized_where_that_is_asked_for_and_a_run_says_how() {
    let folder = Folder::with_all_to_train();
    mixed(&folder, "mixed");
    let unlearn =
        "unlearn --model model --data mixed --forget row:3 --steps 2 --batch-size 2 --neighbors 2";
    let train =
        "train --data mixed --arch tiny.json --steps 100000 --batch-size 4 --checkpoint-every 2";
    // Every command that reads images says what to do.
    for line in [
        format!("{unlearn} --out run"),
        format!("{train} --out cut"),
        "neighbors --data mixed --forget row:3 --neighbors 2".to_owned(),
        "inspect mixed".to_owned(),
        "experiment demo --model model --data mixed --forget row:3 --out e".to_owned(),
    ] {
        folder.refused(&line, &["01.png is 11 x 17 pixels", "--resize N"]);
    }
    folder.refused(
        &format!("{unlearn} --out run --resize 8 --crop none"),
        &[
            "01.png is 8 x 12 pixels when it is resized",
            "leave --crop out",
        ],
    );
    folder.refused(
        &format!("{unlearn} --out run --resize 16"),
        &["images of 16 x 16", "--resize 8"],
    );
    for wrong in [
        "--resize 0",
        "--resize 5000",
        "--crop center",
        "--resize 8 --crop middle",
    ] {
        folder.refused(&format!("{unlearn} --out run {wrong}"), &["--"]);
    }
    let resized =
        "mixed: 16 of 16 images resized to 8 x 8 pixels (bicubic, of which the middle is kept)";
    let said = folder.done(&format!("{unlearn} --out run --resize 8"));
    assert!(said.stderr.contains(resized), "{}", said.stderr);
    let config = folder.read_json("run/run/config.json");
    let how = ["resize", "crop", "interpolation"].map(|key| config[key].clone());
    assert_eq!(
        serde_json::json!(how),
        serde_json::json!([8, "center", "bicubic"])
    );
    let report = String::from_utf8(folder.read("run/run/report.json")).unwrap();
    assert!(
        report.contains("16 of them resized to 8 x 8, bicubic"),
        "{report}"
    );
    let said = folder.done("verify run");
    assert!(said.stdout.starts_with("same"), "{}", said.stdout);
    // The digest follows the way, and other ways are named.
    let measure = "evaluate --model run --data mixed --forget row:3 --metrics injection --samples 2 --steps 2";
    let said = folder.done(&format!(
        "{measure} --out e --resize 8 --interpolation bilinear"
    ));
    assert!(
        said.stderr
            .contains("--interpolation bicubic, and is measured with --interpolation bilinear"),
        "{}",
        said.stderr
    );
    let said = folder.done(&format!("{measure} --out f --resize 8"));
    assert!(!said.stderr.contains("is measured with"), "{}", said.stderr);
    folder.kill_after_two_checkpoints(&format!("{train} --out cut --resize 8"), "cut");
    folder.refused(
        &format!("{train} --out cut --resume --resize 8 --interpolation lanczos"),
        &["another interpolation", "\"bicubic\" then"],
    );
    // A file that is named lies elsewhere and is resized as well.
    folder.write("elsewhere/copy.png", folder.read("mixed/03.png"));
    let line = "neighbors --data mixed --resize 8 --neighbors 2 --json --forget";
    let by_row = folder.done(&format!("{line} row:3")).json();
    assert_eq!(
        folder.done(&format!("{line} elsewhere/copy.png")).json(),
        by_row
    );
}

#[test]
fn a_network_with_classes_is_trained_on_folders_of_classes_and_a_run_knows_them() {
    let folder = Folder::new();
    folder.tiny_arch(serde_json::json!({"num_class_embeds": 2}));
    for row in 0..PHOTOS {
        let class = ["cat", "dog"][row % 2];
        folder.write(&format!("animals/{class}/{row:02}.png"), photo_png(row));
    }
    folder.photos("flat");
    let train = "train --arch tiny.json --steps 100000 --batch-size 4 --checkpoint-every 2 --out cut --data";
    folder.refused(&format!("{train} flat"), &["has no labels"]);
    let config = folder.done(&format!("{train} animals --dry-run")).json();
    assert!(config["labels_digest"].is_string(), "{config}");
    folder.kill_after_two_checkpoints(&format!("{train} animals"), "cut");
    fs::rename(folder.path("animals/dog"), folder.path("animals/elk")).unwrap();
    folder.refused(
        &format!("{train} animals --resume"),
        &["other labels", "folders that name the classes"],
    );
    let said = folder.done("neighbors --data animals --forget label:elk --neighbors 1 --json");
    assert_eq!(said.json()["images"].as_array().unwrap().len(), PHOTOS / 2);
    folder.refused(
        "neighbors --data animals --forget label:dog --neighbors 1",
        &["0 (cat), 1 (elk)"],
    );
}
