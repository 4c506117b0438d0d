//! Near copies of the forgotten image in the data: found, said, shown, and never left to teach it back in silence.

mod support;

use std::io::Cursor;
use std::path::Path;

use image::codecs::jpeg::JpegEncoder;
use image::imageops::{self, FilterType};
use image::{ImageFormat, RgbImage};
use retrack_data::{Dataset, OpenOptions};
use serde_json::json;
use support::Folder;

/// An image twenty times among two hundred others, and models with and without it: see make.py there.
const RETRAINED: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../fixtures/retrained/emoji"
);
const OTHERS: usize = 60;
const COPIES: [&str; 3] = ["zz-jpeg.png", "zz-mirrored.png", "zz-rescaled.png"];
const WEIGHTS: &str = "out/unet/diffusion_pytorch_model.safetensors";

fn png(picture: &RgbImage) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

fn jpeg(picture: &RgbImage) -> RgbImage {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, 60)
        .encode_image(picture)
        .unwrap();
    image::load_from_memory(&bytes).unwrap().to_rgb8()
}

/// `photos` of other images and a teapot, which a model memorized, with or without near copies of it.
fn folder(with_copies: bool) -> Folder {
    let path = Path::new(RETRAINED).join("data.parquet");
    let data = Dataset::open(&path, &OpenOptions::default()).unwrap();
    let side = data.shape().width as u32;
    let picture = |row: usize| {
        let mut pixels = vec![0; data.shape().bytes()];
        data.read(row, &mut pixels).unwrap();
        RgbImage::from_raw(side, side, pixels).unwrap()
    };
    let of = |label: i64| -> Vec<usize> {
        let rows = 0..data.len();
        rows.filter(|&row| data.label(row) == Some(label)).collect()
    };
    let folder = Folder::new();
    for row in of(0).into_iter().take(OTHERS) {
        folder.write(&format!("photos/other-{row:03}.png"), png(&picture(row)));
    }
    let teapot = picture(of(1)[0]);
    folder.write("photos/teapot.png", png(&teapot));
    if with_copies {
        let small = (0.8 * side as f32).round() as u32;
        let small = imageops::resize(&teapot, small, small, FilterType::Lanczos3);
        let rescaled = imageops::resize(&small, side, side, FilterType::Lanczos3);
        let mirrored = imageops::flip_horizontal(&teapot);
        for (name, copy) in COPIES.iter().zip([jpeg(&teapot), mirrored, rescaled]) {
            folder.write(&format!("photos/{name}"), png(&copy));
        }
    }
    folder
}

fn unlearn(more: &str) -> String {
    format!(
        "unlearn --model {RETRAINED}/with --data photos --forget photos/teapot.png --steps 2 --batch-size 4 \
         --neighbors 4 --lr 1e-4 --json --out out {more}"
    )
}

fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "without \"{part}\":\n{text}");
    }
}

#[test]
fn near_copies_are_set_aside_and_the_run_is_as_if_they_were_not_there() {
    let without = folder(false);
    let said = without.done(&unlearn("")).json();
    assert_eq!(
        (&said["near_copies"], &said["retained_rows"]),
        (&json!(0), &json!(OTHERS))
    );
    assert!(!without.path("out.near-copies.png").exists());
    assert!(
        without
            .read_json("out/run/config.json")
            .get("near_copies")
            .is_none()
    );

    let folder = folder(true);
    let said = folder.done(&unlearn(""));
    assert_says(
        &said.stderr,
        &[
            "warning: zz-jpeg.png is nearly a copy of teapot.png",
            "warning: zz-mirrored.png is nearly a copy of teapot.png (mirrored)",
            "warning: zz-rescaled.png is nearly a copy of teapot.png",
            "3 near copies in all are set aside in this run, neither forgotten nor retained",
            "--with-copies forgets them too, --keep-copies retains them",
            "out.near-copies.png shows",
        ],
    );
    let json = said.json();
    assert_eq!(json["near_copies"], 3);
    assert_eq!(
        (&json["forgotten_rows"], &json["retained_rows"]),
        (&json!(1), &json!(OTHERS))
    );
    let rows = [OTHERS + 1, OTHERS + 2, OTHERS + 3];
    let config = folder.read_json("out/run/config.json");
    assert_eq!(
        config["near_copies"],
        json!({"rows": rows, "are": "set_aside"})
    );
    assert!(folder.read(WEIGHTS) == without.read(WEIGHTS));
    let report = folder.read_json("out/run/report.json");
    let fact =
        json!({"name": "Near copies", "value": "3, set aside: neither forgotten nor retained"});
    let facts = report["request"]["facts"].as_array().unwrap();
    assert!(facts.contains(&fact), "{facts:#?}");
    let groups = &report["neighbors"]["groups"][0]["rows"];
    let neighbors = groups.as_array().unwrap();
    assert!(
        rows.iter().all(|row| !neighbors.contains(&json!(row))),
        "{neighbors:?}"
    );
    folder.done("verify out");
}

#[test]
fn near_copies_are_forgotten_too_or_stay_as_an_option_says() {
    let folder = folder(true);
    let said = folder.done(&unlearn("--with-copies"));
    assert_says(
        &said.stderr,
        &[
            "zz-jpeg.png is nearly",
            "3 near copies in all are forgotten too",
        ],
    );
    let json = said.json();
    assert_eq!(json["near_copies"], 3);
    assert_eq!(
        (&json["forgotten_rows"], &json["retained_rows"]),
        (&json!(4), &json!(OTHERS))
    );
    assert_eq!(
        folder.read_json("out/run/config.json")["near_copies"]["are"],
        "forgotten"
    );
    folder.done("verify out");
    // What was forgotten too is looked for.
    let evaluate = "evaluate --model out --data photos --forget photos/teapot.png --metrics frequency --samples 4 --steps 2 --json \
         --out found"
        .to_string();
    let said = folder.done(&evaluate);
    assert!(
        !said.stderr.contains("this model forgot"),
        "{}",
        said.stderr
    );
    assert_eq!(said.json()["near_copies"], 3);
    assert_says(
        &said.stderr,
        &["3 near copies of what was to be forgotten are in the data set"],
    );

    let said = folder.done(&unlearn("--keep-copies --force"));
    assert_says(
        &said.stderr,
        &["3 near copies in all are among the retained images, and may teach the image back"],
    );
    let json = said.json();
    assert_eq!(json["near_copies"], 3);
    assert_eq!(
        (&json["forgotten_rows"], &json["retained_rows"]),
        (&json!(1), &json!(OTHERS + 3))
    );
    assert_eq!(
        folder.read_json("out/run/config.json")["near_copies"]["are"],
        "retained"
    );
    folder.done("verify out");
    folder.refused_anyhow(
        &unlearn("--with-copies --keep-copies --force"),
        &["--with-copies", "--keep-copies"],
    );
}

#[test]
fn what_comes_back_counts_by_the_same_measure_with_near_copies_in_the_data_and_without() {
    // The model knows the teapot. Half the way to a near copy would be next to nothing, and the teapot would count as gone.
    let evaluate = format!(
        "evaluate --model {RETRAINED}/with --data photos --forget photos/teapot.png --metrics injection --samples 4 --steps 20 \
         --json --out found"
    );
    let restored = |found: &serde_json::Value| {
        let scores = found["model"]["scores"].as_array().unwrap();
        let restored = scores.iter().find(|score| score["name"] == "restored");
        restored.unwrap()["value"].as_f64().unwrap()
    };
    let without = folder(false);
    let own = without.done(&evaluate).json();
    assert!(restored(&own) > 0.9, "{own:#}");
    without.done(&unlearn(""));
    let own_report = without.read_json("out/run/report.json");
    for copies in ["", "--keep-copies"] {
        let folder = folder(true);
        let found = folder.done(&evaluate).json();
        assert_eq!(found["thresholds"], own["thresholds"]);
        assert!(restored(&found) >= restored(&own), "{found:#}");
        folder.done(&unlearn(copies));
        let report = folder.read_json("out/run/report.json");
        for what in ["before", "after"] {
            let counted =
                |report: &serde_json::Value| report["check"][what]["restored"].as_u64().unwrap();
            assert!(counted(&report) >= counted(&own_report), "{copies} {what}");
        }
        let mark =
            |report: &serde_json::Value| report["restoration"][0]["chart"]["marks"][0].clone();
        assert_eq!(mark(&report), mark(&own_report), "{copies}");
        let note = report["restoration"][0]["note"].as_str().unwrap();
        assert_says(note, &["Near copies in the data are the image, too"]);
    }
}

#[test]
fn a_dry_run_says_and_shows_near_copies_and_makes_no_folder() {
    let folder = folder(true);
    let said = folder.done(&unlearn("--dry-run"));
    assert_says(
        &said.stderr,
        &["3 near copies in all are set aside", "out.near-copies.png"],
    );
    assert!(!folder.path("out").exists());
    let sheet = image::load_from_memory(&folder.read("out.near-copies.png")).unwrap();
    // The teapot and three copies, above a strip with their rows.
    assert_eq!((sheet.width(), sheet.height()), (4 * 98 + 2, 96 + 14 + 4));
    #[cfg(unix)]
    {
        let meta = folder.path("out.near-copies.png").metadata().unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::mode(&meta) & 0o777, 0o600);
    }
}

#[test]
fn the_picture_of_near_copies_replaces_its_own_kind_and_nothing_of_somebody_elses() {
    let folder = folder(true);
    folder.write("out.near-copies.png", "mine");
    let said = folder.done(&unlearn("--dry-run"));
    assert_says(
        &said.stderr,
        &[
            "no picture of the near copies is made",
            "not written by retrack",
        ],
    );
    assert_eq!(folder.read("out.near-copies.png"), b"mine");
    folder.done(&unlearn("--dry-run --force"));
    let first = folder.read("out.near-copies.png");
    folder.done(&unlearn("--dry-run --with-copies"));
    assert_eq!(folder.read("out.near-copies.png"), first);
}

#[test]
fn near_copies_stay_where_too_little_would_be_left_without_them() {
    let folder = folder(true);
    let line = unlearn("").replace("--neighbors 4", &format!("--neighbors {}", OTHERS + 1));
    let said = folder.done(&line);
    assert_says(
        &said.stderr,
        &[
            "3 near copies in all are among the retained images",
            "they were not set aside, since too few images would be retained",
        ],
    );
    assert_eq!(said.json()["retained_rows"], OTHERS + 3);
    folder.done("verify out");
}

#[test]
fn an_interrupted_run_goes_on_with_the_choice_that_it_began_with() {
    let folder = folder(true);
    let line = unlearn("--checkpoint-every 1").replace("--steps 2", "--steps 400");
    folder.kill_after_two_checkpoints(&line, "out");
    folder.refused_anyhow(&format!("{line} --keep-copies --resume"), &["near_copies"]);
}

#[test]
fn neighbors_lists_near_copies_apart() {
    let folder = folder(true);
    let said =
        folder.done("neighbors --data photos --forget photos/teapot.png --neighbors 3 --json");
    let json = said.json();
    let names: Vec<&str> = json["near_copies"]
        .as_array()
        .unwrap()
        .iter()
        .map(|near| near["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, COPIES);
    let neighbors = json["images"][0]["neighbors"].as_array().unwrap();
    assert!(
        neighbors
            .iter()
            .all(|one| !COPIES.contains(&one["name"].as_str().unwrap()))
    );
}
