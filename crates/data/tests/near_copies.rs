//! What is a near copy, and what only looks alike.

use std::io::Cursor;
use std::path::Path;

use image::codecs::jpeg::JpegEncoder;
use image::imageops::{self, FilterType};
use image::{GrayImage, RgbImage};
use retrack_data::near_copies::near_copies;
use retrack_data::{Dataset, ImageShape, NearCopy, OpenOptions};

const SIDE: u32 = 32;

/// A picture of some shapes and colors, another for each number.
fn picture(number: u32) -> RgbImage {
    let mut state = 977 * number + 1;
    let mut next = |below: u32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) % below
    };
    let mut picture = RgbImage::from_pixel(SIDE, SIDE, image::Rgb([250, 250, 245]));
    for _ in 0..7 {
        let (x, y, radius) = (next(SIDE) as i32, next(SIDE) as i32, 3 + next(7) as i32);
        let color = image::Rgb([next(256) as u8, next(256) as u8, next(256) as u8]);
        let is_round = next(2) == 0;
        for (column, row, pixel) in picture.enumerate_pixels_mut() {
            let (down, along) = (row as i32 - y, column as i32 - x);
            let inside = match is_round {
                true => down * down + along * along <= radius * radius,
                false => down.abs() <= radius && 2 * along.abs() <= radius,
            };
            if inside {
                *pixel = color;
            }
        }
    }
    picture
}

fn jpeg(picture: &RgbImage, quality: u8) -> RgbImage {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, quality)
        .encode_image(picture)
        .unwrap();
    let read = image::ImageReader::with_format(Cursor::new(bytes), image::ImageFormat::Jpeg);
    read.decode().unwrap().to_rgb8()
}

/// Made smaller and as large as it was again.
fn rescaled(picture: &RgbImage, share: f32) -> RgbImage {
    let side = (SIDE as f32 * share).round() as u32;
    let small = imageops::resize(picture, side, side, FilterType::Lanczos3);
    imageops::resize(&small, SIDE, SIDE, FilterType::Lanczos3)
}

fn cropped(picture: &RgbImage) -> RgbImage {
    let inner = imageops::crop_imm(picture, 1, 1, SIDE - 2, SIDE - 2).to_image();
    imageops::resize(&inner, SIDE, SIDE, FilterType::CatmullRom)
}

fn moved(picture: &RgbImage) -> RgbImage {
    RgbImage::from_fn(SIDE, SIDE, |x, y| {
        *picture.get_pixel(x.saturating_sub(1), y)
    })
}

fn darker(picture: &RgbImage) -> RgbImage {
    let mut picture = picture.clone();
    for value in picture.iter_mut() {
        *value = (0.85 * f32::from(*value)) as u8;
    }
    picture
}

fn data(pictures: &[RgbImage]) -> Dataset {
    let shape = ImageShape {
        height: SIDE as usize,
        width: SIDE as usize,
        channels: 3,
    };
    let pixels = pictures.iter().flat_map(|one| one.to_vec()).collect();
    Dataset::from_pixels(shape, pixels, Vec::new()).unwrap()
}

fn found(data: &Dataset, of: &[usize]) -> Vec<NearCopy> {
    let rows: Vec<usize> = (0..data.len()).filter(|row| !of.contains(row)).collect();
    near_copies(data, &rows, of, 1 << 20).unwrap()
}

#[test]
fn a_picture_saved_again_rescaled_mirrored_cropped_moved_or_darkened_is_found() {
    for number in 0..20 {
        let own = picture(number);
        let copies = [
            jpeg(&own, 60),
            jpeg(&own, 80),
            rescaled(&own, 0.7),
            rescaled(&own, 0.8),
            imageops::flip_horizontal(&own),
            jpeg(&imageops::flip_horizontal(&own), 60),
            cropped(&own),
            moved(&own),
            darker(&own),
        ];
        let others = (100..140).map(picture);
        let all: Vec<RgbImage> = [own].into_iter().chain(copies).chain(others).collect();
        let found = found(&data(&all), &[0]);
        let rows: Vec<usize> = found.iter().map(|near| near.row).collect();
        assert_eq!(rows, [1, 2, 3, 4, 5, 6, 7, 8, 9], "picture {number}");
        let mirrored = found.iter().filter(|near| near.mirrored);
        let mirrored: Vec<usize> = mirrored.map(|near| near.row).collect();
        assert_eq!(mirrored, [5, 6]);
    }
}

#[test]
fn each_copy_is_that_of_the_picture_that_it_is_most_like() {
    let (one, other) = (picture(1), picture(2));
    let all = [
        one.clone(),
        other.clone(),
        jpeg(&other, 80),
        picture(3),
        jpeg(&one, 80),
        // Forgotten twice.
        one,
    ];
    let data = data(&all);
    for budget in [0, 1 << 20] {
        let found = near_copies(&data, &[2, 3, 4], &[0, 1, 5], budget).unwrap();
        let pairs: Vec<(usize, usize)> = found.iter().map(|near| (near.row, near.of)).collect();
        assert_eq!(pairs, [(2, 1), (4, 0)], "budget {budget}");
    }
}

#[test]
fn pictures_of_other_pictures_are_no_copies() {
    let pictures: Vec<RgbImage> = (0..200).map(picture).collect();
    let of: Vec<usize> = (0..100).collect();
    assert_eq!(found(&data(&pictures), &of), []);
}

#[test]
fn two_clocks_with_other_hands_and_two_hearts_of_other_color_are_no_copies() {
    let clock = |hand: i32| {
        RgbImage::from_fn(SIDE, SIDE, |x, y| {
            let (x, y) = (x as i32 - 16, y as i32 - 16);
            let far = x * x + y * y;
            let is_hand = match hand {
                0 => x.abs() <= 1 && (-10..=0).contains(&y),
                1 => y.abs() <= 1 && (0..=10).contains(&x),
                _ => (x + y).abs() <= 1 && (0..=8).contains(&x),
            };
            image::Rgb(match far {
                _ if is_hand => [20, 20, 20],
                0..=140 => [250, 250, 250],
                141..=200 => [90, 120, 160],
                _ => [255, 255, 255],
            })
        })
    };
    let heart = |color| {
        RgbImage::from_fn(SIDE, SIDE, |x, y| {
            let (x, y) = ((x as f32 - 15.5) / 11.0, (13.5 - y as f32) / 11.0);
            let inside = (x * x + y * y - 1.0).powi(3) < x * x * y * y * y;
            image::Rgb(if inside { color } else { [255, 255, 255] })
        })
    };
    let all = [
        clock(0),
        clock(1),
        clock(2),
        heart([220, 40, 50]),
        heart([60, 120, 40]),
        heart([40, 110, 200]),
    ];
    assert_eq!(found(&data(&all), &[0, 3]), []);
}

#[test]
fn digits_of_one_kind_are_hardly_ever_taken_for_copies() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/digits.parquet");
    let data = Dataset::open(&path, &OpenOptions::default()).unwrap();
    // 400 of the 10,000 digits, and the T-shirt, of which there are exact copies.
    let shirts: Vec<usize> = (0..data.len())
        .filter(|&row| data.label(row) == Some(10))
        .collect();
    let rest = (0..data.len()).filter(|row| !shirts.contains(row));
    let (of, rows): (Vec<usize>, Vec<usize>) = rest.partition(|row| row % 25 == 0);
    let of = [&of[..], &shirts[..1]].concat();
    let found = near_copies(&data, &rows, &of, 64 << 20).unwrap();
    assert!(found.len() <= 1, "{found:?}");
    // Two of the figure one.
    let labels = found.iter().map(|near| data.label(near.row));
    assert!(labels.eq(found.iter().map(|near| data.label(near.of))));
}

#[test]
fn a_digit_saved_as_jpeg_is_found_among_digits() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/digits.parquet");
    let digits = Dataset::open(&path, &OpenOptions::default()).unwrap();
    let shape = digits.shape();
    let own = 11;
    let mut pixels = digits.pixels().unwrap()[..500 * shape.bytes()].to_vec();
    let digit = GrayImage::from_raw(
        28,
        28,
        pixels[own * shape.bytes()..][..shape.bytes()].to_vec(),
    );
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, 60)
        .encode_image(&imageops::flip_horizontal(&digit.unwrap()))
        .unwrap();
    let read = image::ImageReader::with_format(Cursor::new(bytes), image::ImageFormat::Jpeg);
    pixels.extend(read.decode().unwrap().to_luma8().into_raw());
    let data = Dataset::from_pixels(shape, pixels, Vec::new()).unwrap();
    let found = found(&data, &[own]);
    assert_eq!((found.len(), found[0].row, found[0].of), (1, 500, own));
    assert!(found[0].mirrored);
}

#[test]
fn in_pictures_too_small_to_tell_apart_only_distance_counts() {
    let shape = ImageShape {
        height: 4,
        width: 4,
        channels: 1,
    };
    let slope: Vec<u8> = (0..16).map(|at| 10 * at).collect();
    let brighter: Vec<u8> = slope.iter().map(|value| value + 20).collect();
    let close: Vec<u8> = slope.iter().map(|value| value + 3).collect();
    let pixels = [slope, brighter, close].concat();
    let data = Dataset::from_pixels(shape, pixels, Vec::new()).unwrap();
    let found = found(&data, &[0]);
    assert_eq!((found.len(), found[0].row, found[0].distance), (1, 2, 3.0));
}

#[test]
fn pictures_of_one_color_are_compared_by_distance_alone() {
    let plain = |value| RgbImage::from_pixel(SIDE, SIDE, image::Rgb([value; 3]));
    let all = [plain(100), plain(120), plain(102)];
    let found = found(&data(&all), &[0]);
    assert_eq!((found.len(), found[0].row), (1, 2));
}
