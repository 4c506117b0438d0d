//! `retrack neighbors`: what would take a forgotten image's place.

mod support;

use serde_json::Value;
use support::{Folder, PHOTOS, SIDE, noise, photo_png, png};

fn distance(a: &[u8], b: &[u8]) -> f64 {
    let squares = a
        .iter()
        .zip(b)
        .map(|(&a, &b)| f64::from(a.abs_diff(b)).powi(2));
    squares.sum::<f64>().sqrt() / 255.0
}

#[test]
fn neighbors_are_the_nearest_in_order() {
    let folder = Folder::new();
    folder.photos("photos");
    let image = |row: usize| noise(row, SIDE * SIDE);
    let json = folder
        .done("neighbors --data photos --forget rows:2-3 --neighbors 5 --json")
        .json();
    assert_eq!(json["retained"], PHOTOS - 2);
    assert_eq!(json["duplicates"], serde_json::json!([]));
    let images = json["images"].as_array().unwrap();
    assert_eq!(images.len(), 2);
    for (of, found) in [2, 3].into_iter().zip(images) {
        assert_eq!(found["row"], of);
        let others = (0..PHOTOS).filter(|row| ![2, 3].contains(row));
        let mut expected: Vec<(f64, usize)> = others
            .map(|row| (distance(&image(of), &image(row)), row))
            .collect();
        expected.sort_by(|a, b| a.partial_cmp(b).unwrap());
        let neighbors = found["neighbors"].as_array().unwrap();
        assert_eq!(neighbors.len(), 5);
        for (found, (distance, row)) in neighbors.iter().zip(expected) {
            assert_eq!(found["row"], row);
            assert!((found["distance"].as_f64().unwrap() - distance).abs() < 1e-9);
            let rms = distance * 255.0 / SIDE as f64;
            assert!((found["rms"].as_f64().unwrap() - rms).abs() < 1e-9);
        }
    }
    // The second search is answered from the cache, and the same.
    assert!(!folder.files("cache").is_empty());
    let again = folder.done("neighbors --data photos --forget rows:2-3 --neighbors 5 --json");
    assert_eq!(again.json(), json);
    let text = folder
        .done("neighbors --data photos --forget rows:2-3 --neighbors 5")
        .stdout;
    assert!(
        text.starts_with("02.png\n  ") && text.lines().count() == 12,
        "{text}"
    );
}

#[test]
fn the_picture_shows_each_forgotten_image_before_its_neighbors() {
    let folder = Folder::new();
    folder.photos("photos");
    let said = folder
        .done("neighbors --data photos --forget rows:2-3 --neighbors 4 --out some/grid.png --json");
    assert!(said.stderr.contains("some/grid.png"), "{}", said.stderr);
    let grid = image::open(folder.path("some/grid.png"))
        .unwrap()
        .into_luma8();
    let json = said.json();
    // Each pixel of a photo is found at the middle of its square in the grid.
    let at = |place: u32, count: u32, length: u32, i: usize| {
        (length / count) * place + (length / count) * (2 * i as u32 + 1) / (2 * SIDE as u32)
    };
    for (line, found) in json["images"].as_array().unwrap().iter().enumerate() {
        let neighbors = found["neighbors"].as_array().unwrap().iter();
        let rows = std::iter::once(&found["row"]).chain(neighbors.map(|one| &one["row"]));
        for (column, row) in rows.map(|row: &Value| row.as_u64().unwrap()).enumerate() {
            let pixels = noise(row as usize, SIDE * SIDE);
            let shown: Vec<u8> = (0..SIDE * SIDE)
                .map(|i| {
                    let x = at(column as u32, 5, grid.width(), i % SIDE);
                    let y = at(line as u32, 2, grid.height(), i / SIDE);
                    grid.get_pixel(x, y).0[0]
                })
                .collect();
            assert_eq!(shown, pixels, "line {line}, column {column}");
        }
    }
}

#[test]
fn copies_under_other_names_leave_with_the_image() {
    let folder = Folder::new();
    folder.photos("photos");
    folder.write("photos/a/copy.png", photo_png(3));
    folder.write("photos/zz.png", photo_png(3));
    let mut near = noise(3, SIDE * SIDE);
    near[5] = near[5].wrapping_add(3);
    folder.write("photos/near.png", png(near));
    let line = "neighbors --data photos --forget photos/03.png --neighbors 2";
    let said = folder.done(&format!("{line} --json"));
    let json = said.json();
    // 16 photos, then a/copy.png, near.png, zz.png.
    assert_eq!(json["duplicates"], serde_json::json!([16, 18]));
    assert_eq!(json["near_copies"][0]["row"], 17);
    assert_eq!(json["retained"], PHOTOS - 1);
    let neighbors = json["images"][0]["neighbors"].as_array().unwrap();
    assert!(neighbors.iter().all(|one| one["row"] != 17));
    for part in [
        "2 exact copies",
        "warning: near.png is nearly a copy of 03.png",
    ] {
        assert!(said.stderr.contains(part), "{}", said.stderr);
    }
    // The same from the cache.
    assert_eq!(folder.done(line).stderr, said.stderr);
}

#[test]
fn what_cannot_be_searched_is_refused() {
    let folder = Folder::new();
    folder.photos("photos");
    for (options, says) in [
        ("--forget row:3 --neighbors 0", "--neighbors is 0"),
        (
            "--forget row:3 --neighbors 16",
            "only 15 images are retained; give a smaller --neighbors",
        ),
        ("--forget row:16", "0 to 15"),
        ("--forget row:3 --threads 0", "--threads is 0"),
    ] {
        folder.refused(&format!("neighbors --data photos {options}"), &[says]);
    }
    folder.refused(
        "neighbors --data absent --forget row:3",
        &["absent: no such"],
    );
}
