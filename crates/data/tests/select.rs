//! Selections, exact duplicates and near copies.

use std::fs;
use std::path::Path;

use image::GrayImage;
use retrack_data::near_copies::near_copies;
use retrack_data::{
    Dataset, ImageShape, OpenOptions, Selection, SelectionError, SelectionWarning, Split,
};

const SHAPE: ImageShape = ImageShape {
    height: 2,
    width: 2,
    channels: 1,
};

/// Row i is four times its value; rows with one value are copies.
fn data(values: &[u8]) -> Dataset {
    let pixels = values.iter().flat_map(|&value| [value; 4]).collect();
    let labels = (0..values.len()).map(|row| row as i64 % 3).collect();
    Dataset::from_pixels(SHAPE, pixels, labels).unwrap()
}

fn rows(text: &str, data: &Dataset) -> Vec<usize> {
    Selection::parse(text).unwrap().resolve(data).unwrap().rows
}

fn refusal(text: &str, data: &Dataset) -> String {
    Selection::parse(text)
        .and_then(|selection| selection.resolve(data))
        .expect_err(text)
        .to_string()
}

fn save(folder: &Path, name: &str, value: u8) -> String {
    let path = folder.join(name);
    GrayImage::from_pixel(2, 2, image::Luma([value]))
        .save(&path)
        .unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn rows_ranges_and_labels_are_selected() {
    let data = data(&[10, 20, 30, 40, 50, 60]);
    assert_eq!(rows("row:5", &data), [5]);
    assert_eq!(rows("rows:1-3", &data), [1, 2, 3]);
    assert_eq!(rows("rows:2-2", &data), [2]);
    assert_eq!(rows("label:1", &data), [1, 4]);
}

#[test]
fn what_does_not_exist_is_said_with_what_does() {
    let data = data(&[10, 20, 30, 40]);
    for (text, message) in [
        ("row:4", "4 rows, 0 to 3"),
        ("rows:2-9", "selects row 4"),
        ("rows:7-9", "selects row 7"),
        ("rows:3-1", "did you mean rows:1-3"),
        ("row:", "not a row number"),
        ("row:-1", "not a row number"),
        ("row:+1", "not a row number"),
        ("row:99999999999999999999", "not a row number"),
        ("rows:5", "FIRST-LAST"),
        ("label:x", "whole number"),
        ("label:10", "its labels are 0, 1, 2"),
        ("", "empty"),
        ("@", "path is missing"),
        ("@/nowhere/list.txt", "no such file"),
        ("/nowhere/cat.png", "row:5, rows:10-19, label:10"),
        ("rows:0-3", "all 4 images"),
    ] {
        let error = refusal(text, &data);
        assert!(error.contains(message), "{text}: {error}");
    }
    // One remedy, which works.
    assert!(!refusal("rows:3-1", &data).contains("write row:5"));
    let unlabeled = Dataset::from_pixels(SHAPE, vec![0; 8], vec![]).unwrap();
    assert!(refusal("label:1", &unlabeled).contains("no labels"));
}

#[test]
fn a_list_mixes_selectors_and_reports_what_it_names_twice() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(&[10, 20, 30, 40, 50, 60, 70, 80]);
    save(folder.path(), "like row 7.png", 80);
    let list = folder.path().join("list.txt");
    let selector = format!("@{}", list.display());
    fs::write(
        &list,
        "\u{feff}# to forget\r\n5\n\nrow:1 # the second\nrows:1-2\n  5\nlike row 7.png\n",
    )
    .unwrap();
    let resolved = Selection::parse(&selector).unwrap().resolve(&data).unwrap();
    assert_eq!(resolved.rows, [1, 2, 5, 7]);
    assert_eq!(
        resolved.warnings,
        [SelectionWarning::Repeated { rows: vec![1, 5] }]
    );
    assert!(
        resolved.warnings[0]
            .to_string()
            .contains("2 rows are selected more than once")
    );
    for (content, message) in [
        ("# nothing\n\n", "selects nothing"),
        ("", "selects nothing"),
        ("1\n9\n", "line 2: \"9\" selects row 9"),
        ("@other.txt\n", "line 1"),
        ("missing.png", "missing.png"),
    ] {
        fs::write(&list, content).unwrap();
        let error = refusal(&selector, &data);
        assert!(
            error.contains(message) && error.contains("list.txt"),
            "{error}"
        );
    }
    fs::write(&list, [0xFF, 0xFE, 0]).unwrap();
    assert!(refusal(&selector, &data).contains("not a text file"));
}

#[test]
fn an_image_is_found_by_its_exact_pixels() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(&[10, 20, 30, 20, 50]);
    assert_eq!(rows(&save(folder.path(), "twenty.png", 20), &data), [1, 3]);
    let error = Selection::parse(&save(folder.path(), "near.png", 33))
        .unwrap()
        .resolve(&data)
        .unwrap_err();
    assert!(
        matches!(error, SelectionError::NoExactMatch { row: 2, distance_squared: 36, rms, .. } if rms == 3.0)
    );
    let error = error.to_string();
    assert!(
        error.contains("near.png") && error.contains("row 2") && error.contains("3.00"),
        "{error}"
    );
    let wide = folder.path().join("wide.png");
    GrayImage::new(3, 2).save(&wide).unwrap();
    let error = refusal(wide.to_str().unwrap(), &data);
    assert!(
        error.contains("3 x 2") && error.contains("2 x 2"),
        "{error}"
    );
    fs::write(&wide, "<html>").unwrap();
    assert!(refusal(wide.to_str().unwrap(), &data).contains("web page"));
    assert!(refusal(folder.path().to_str().unwrap(), &data).contains("this is a folder"));
}

#[test]
fn an_image_of_the_folder_is_its_own_row() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("b")).unwrap();
    fs::create_dir(folder.path().join("c")).unwrap();
    let first = save(folder.path(), "a.png", 1);
    let second = save(folder.path(), "b/x.png", 1);
    save(folder.path(), "b/only.png", 2);
    save(folder.path(), "c/x.png", 3);
    let data = Dataset::open(
        folder.path(),
        &OpenOptions {
            memory_budget: 0,
            ..OpenOptions::default()
        },
    )
    .unwrap();
    assert_eq!(rows(&first, &data), [0]);
    assert_eq!(rows(&second, &data), [2]);
    assert_eq!(rows("only.png", &data), [1]);
    assert_eq!(rows("c/x.png", &data), [3]);
    assert!(refusal("x.png", &data).contains("b/x.png and c/x.png"));
    // Elsewhere, the same pixels are a search by content.
    let elsewhere = tempfile::tempdir().unwrap();
    assert_eq!(rows(&save(elsewhere.path(), "z.png", 1), &data), [0, 2]);
    assert!(refusal(&save(elsewhere.path(), "z.png", 7), &data).contains("c/x.png"));
}

#[test]
fn exact_copies_leave_with_the_forgotten_image_and_near_ones_are_reported() {
    let values = [100, 50, 100, 103, 98, 100, 200, 105];
    let folder = tempfile::tempdir().unwrap();
    for (row, &value) in values.iter().enumerate() {
        save(folder.path(), &format!("{row}.png"), value);
    }
    let on_demand = Dataset::open(
        folder.path(),
        &OpenOptions {
            memory_budget: 0,
            ..OpenOptions::default()
        },
    )
    .unwrap();
    for data in [data(&values), on_demand] {
        let split = Split::new(&data, &[2, 6], 8).unwrap();
        assert_eq!(split.forget, [2, 6]);
        assert_eq!(split.duplicates, [0, 5]);
        assert_eq!(split.retain, [1, 3, 4, 7]);
        let found = near_copies(&data, &split.retain, &split.forget, 8).unwrap();
        let kept = split.clone().with_near(found.clone(), true);
        assert_eq!((&kept.retain, kept.retains_near()), (&split.retain, true));
        let split = split.with_near(found, false);
        assert_eq!(
            (&split.retain[..], split.retains_near()),
            (&[1, 7][..], false)
        );
        let near: Vec<(usize, usize, f64)> = split
            .near
            .iter()
            .map(|one| (one.row, one.of, one.distance))
            .collect();
        assert_eq!(near, [(3, 2, 3.0), (4, 2, 2.0)]);
    }
}
