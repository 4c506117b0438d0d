//! How image files become bytes, and which files are refused.

use std::collections::BTreeSet;
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use image::codecs::jpeg::JpegEncoder;
use image::{
    DynamicImage, GrayAlphaImage, GrayImage, ImageBuffer, ImageFormat, Luma, Rgb, RgbImage,
    RgbaImage,
};
use retrack_data::{Alpha, Dataset, Lossy, OpenOptions};
use serde_json::Value;
use sha2::{Digest, Sha256};

fn files() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files")
}

/// Opens a folder that holds just this file.
fn open_one(name: &str, bytes: &[u8], channels: Option<usize>) -> Result<Dataset, String> {
    let options = OpenOptions {
        channels,
        ..OpenOptions::default()
    };
    open_with(name, bytes, &options)
}

fn open_with(name: &str, bytes: &[u8], options: &OpenOptions) -> Result<Dataset, String> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(name), bytes).unwrap();
    Dataset::open(folder.path(), options).map_err(|error| error.to_string())
}

fn pixels(name: &str, bytes: &[u8], channels: Option<usize>) -> Vec<u8> {
    let data = open_one(name, bytes, channels).unwrap();
    let mut out = vec![0; data.shape().bytes()];
    data.read(0, &mut out).unwrap();
    out
}

fn encode(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn png(image: impl Into<DynamicImage>) -> Vec<u8> {
    encode(image, ImageFormat::Png)
}

fn noise(width: u32, height: u32) -> RgbImage {
    let mut state = 7u32;
    RgbImage::from_fn(width, height, |_, _| {
        Rgb([0; 3].map(|_: u8| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        }))
    })
}

fn jpeg(image: &RgbImage) -> Vec<u8> {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, 95)
        .encode_image(image)
        .unwrap();
    bytes
}

#[test]
fn every_lossless_format_gives_the_pixels_that_were_written() {
    let image = noise(9, 7);
    for format in [
        ImageFormat::Png,
        ImageFormat::Bmp,
        ImageFormat::Tiff,
        ImageFormat::WebP,
    ] {
        let name = format!("a.{}", format.extensions_str()[0]);
        assert_eq!(
            pixels(&name, &encode(image.clone(), format), None),
            *image.as_raw(),
            "{format:?}"
        );
    }
}

#[test]
fn the_content_and_not_the_name_decides_the_format() {
    let image = noise(9, 7);
    assert_eq!(
        pixels("really_png.JPG", &png(image.clone()), None),
        *image.as_raw()
    );
}

#[test]
fn a_gif_is_read_as_color() {
    let two = RgbaImage::from_fn(4, 2, |x, _| {
        image::Rgba([if x < 2 { 255 } else { 0 }, 0, 0, 255])
    });
    let data = open_one("a.gif", &encode(two, ImageFormat::Gif), None).unwrap();
    assert_eq!(data.shape().channels, 3);
    let mut out = vec![0; 24];
    data.read(0, &mut out).unwrap();
    assert!(out[0] > 240 && out[1] < 15 && out[9] < 15, "{out:?}");
}

#[test]
fn gray_stays_gray_and_is_repeated_for_three_channels() {
    let bytes = png(GrayImage::from_raw(3, 1, vec![0, 100, 255]).unwrap());
    assert_eq!(open_one("a.png", &bytes, None).unwrap().shape().channels, 1);
    assert_eq!(pixels("a.png", &bytes, None), [0, 100, 255]);
    assert_eq!(
        pixels("a.png", &bytes, Some(3)),
        [0, 0, 0, 100, 100, 100, 255, 255, 255]
    );
    assert_eq!(
        pixels("a.png", &bytes, Some(2)),
        [0, 255, 100, 255, 255, 255]
    );
}

#[test]
fn color_becomes_the_luma_that_pillow_computes() {
    // Image.fromarray(...).convert("L") of these three pixels.
    let bytes = png(RgbImage::from_raw(3, 1, vec![10, 20, 30, 255, 0, 0, 13, 200, 77]).unwrap());
    assert_eq!(pixels("a.png", &bytes, Some(1)), [18, 76, 130]);
}

#[test]
fn transparency_is_dropped_as_pillow_does_or_laid_over_white_or_black_as_asked() {
    let image = vec![9, 8, 7, 0, 0, 100, 255, 128, 1, 2, 3, 255];
    let bytes = png(RgbaImage::from_raw(3, 1, image.clone()).unwrap());
    let gray = png(GrayAlphaImage::from_raw(2, 1, vec![0, 51, 40, 255]).unwrap());
    for (alpha, color, of_gray) in [
        (Alpha::Drop, [9, 8, 7, 0, 100, 255, 1, 2, 3], [0, 40]),
        (
            Alpha::White,
            [255, 255, 255, 127, 177, 255, 1, 2, 3],
            [204, 40],
        ),
        (Alpha::Black, [0, 0, 0, 0, 50, 128, 1, 2, 3], [0, 40]),
    ] {
        let options = OpenOptions {
            alpha,
            ..OpenOptions::default()
        };
        let read = |bytes: &[u8]| {
            let data = open_with("a.png", bytes, &options).unwrap();
            let mut out = vec![0; data.shape().bytes()];
            data.read(0, &mut out).unwrap();
            (out, data.lossy().unwrap().transparent)
        };
        assert_eq!(read(&bytes), (color.to_vec(), 1), "{alpha}");
        assert_eq!(read(&gray), (of_gray.to_vec(), 1), "{alpha}");
    }
    assert_eq!(
        pixels("a.png", &bytes, Some(4)),
        [9, 8, 7, 0, 0, 100, 255, 128, 1, 2, 3, 255]
    );
    assert_eq!(open_one("a.png", &gray, None).unwrap().shape().channels, 1);
    assert_eq!(pixels("a.png", &gray, Some(2)), [0, 51, 40, 255]);
}

#[test]
fn sixteen_bit_gray_is_scaled_and_of_color_the_high_byte_is_taken() {
    let gray: ImageBuffer<Luma<u16>, _> =
        ImageBuffer::from_raw(4, 1, vec![0u16, 128, 129, 65535]).unwrap();
    let gray = png(gray);
    assert_eq!(pixels("a.png", &gray, None), [0, 0, 1, 255]);
    for memory_budget in [1 << 20, 0] {
        let options = OpenOptions {
            memory_budget,
            ..OpenOptions::default()
        };
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.png"), &gray).unwrap();
        let data = Dataset::open(folder.path(), &options).unwrap();
        assert_eq!(data.lossy().unwrap().scaled, 1);
    }
    let color: ImageBuffer<Rgb<u16>, _> =
        ImageBuffer::from_raw(1, 1, vec![25700u16, 65406, 300]).unwrap();
    assert_eq!(
        pixels("a.tif", &encode(color, ImageFormat::Tiff), None),
        // As Pillow does: 65406 is 255 there, and rounded it would be 254.
        [100, 255, 1]
    );
}

#[test]
fn what_was_kept_of_sixteen_bit_color_when_it_was_rounded_is_not_found_again() {
    let gray: ImageBuffer<Luma<u16>, _> = ImageBuffer::from_raw(1, 1, vec![300u16]).unwrap();
    let color: ImageBuffer<Rgb<u16>, _> = ImageBuffer::from_raw(1, 1, vec![300u16; 3]).unwrap();
    for (name, content, channels, changed) in [
        ("gray.png", png(gray.clone()), 1, false),
        ("color.png", png(color.clone()), 3, true),
        ("color.tif", encode(color, ImageFormat::Tiff), 3, true),
        ("shallow.png", png(GrayImage::new(1, 1)), 1, false),
    ] {
        let mut before = Sha256::new();
        before.update(b"retrack data 1");
        for number in [1u64, 1, channels, 1] {
            before.update(number.to_le_bytes());
        }
        before.update(Sha256::digest(&content));
        before.update([0]);
        let before: String = before
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(name), &content).unwrap();
        for memory_budget in [1 << 20, 0] {
            let options = OpenOptions {
                memory_budget,
                ..OpenOptions::default()
            };
            let data = Dataset::open(folder.path(), &options).unwrap();
            assert_eq!(data.digest().unwrap() != before, changed, "{name}");
            assert_eq!(data.lossy().unwrap().cut, usize::from(changed), "{name}");
        }
    }
}

#[test]
fn floating_point_pixels_are_refused() {
    let float: ImageBuffer<Rgb<f32>, _> = ImageBuffer::from_raw(1, 1, vec![0.5f32; 3]).unwrap();
    let error = open_one("a.tif", &encode(float, ImageFormat::Tiff), None).unwrap_err();
    assert!(
        error.contains("floating-point") && error.contains("a.tif") && error.contains("WHITE"),
        "{error}"
    );
}

fn bytes(hex: &Value) -> Vec<u8> {
    let hex = hex.as_str().unwrap().as_bytes();
    let digits = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    hex.chunks(2).map(digits).collect()
}

#[test]
fn transparent_palette_and_deep_pictures_are_what_pillow_converts_them_to() {
    let expected = expected();
    for name in expected.as_object().unwrap().keys() {
        is_as_pillow(name, &expected[name]);
    }
}

#[test]
fn premultiplied_and_big_tiffs_and_gifs_with_a_small_frame_are_what_pillow_reads() {
    for name in [
        "premultiplied.tif",
        "big.tif",
        "small_frame.gif",
        "small_transparent_frame.gif",
    ] {
        is_as_pillow(name, &expected()[name]);
    }
}

#[test]
fn sixteen_bit_gray_with_a_transparent_value_is_scaled_and_counted_too() {
    let gray: ImageBuffer<Luma<u16>, _> =
        ImageBuffer::from_raw(4, 1, vec![0u16, 128, 129, 65535]).unwrap();
    let plain = png(gray);
    // A tRNS chunk after the header: the value 129 is transparent.
    let mut chunk = b"tRNS\0\x81".to_vec();
    let mut crc = flate2::Crc::new();
    crc.update(&chunk);
    chunk.extend(crc.sum().to_be_bytes());
    let keyed = [&plain[..33], &[0, 0, 0, 2], &chunk, &plain[33..]].concat();
    let data = open_one("a.png", &keyed, None).unwrap();
    assert_eq!(pixels("a.png", &keyed, None), pixels("a.png", &plain, None));
    let found = Lossy {
        transparent: 1,
        scaled: 1,
        ..Lossy::default()
    };
    assert_eq!(data.lossy().unwrap(), found);
}

fn expected() -> Value {
    let expected = fs::read_to_string(files().join("pillow/expected.json")).unwrap();
    serde_json::from_str(&expected).unwrap()
}

fn is_as_pillow(name: &str, expected: &Value) {
    let content = fs::read(files().join("pillow").join(name)).unwrap();
    let transparent = usize::from(expected["transparent"].as_bool().unwrap());
    for (channels, key) in [(3, "rgb"), (1, "l")] {
        for memory_budget in [1 << 20, 0] {
            let options = OpenOptions {
                channels: Some(channels),
                memory_budget,
                ..OpenOptions::default()
            };
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join(name), &content).unwrap();
            let data = Dataset::open(folder.path(), &options).unwrap();
            let mut out = vec![0; data.shape().bytes()];
            data.read(0, &mut out).unwrap();
            assert_eq!(out, bytes(&expected[key]), "{name} {key}");
            let found = Lossy {
                transparent,
                cut: usize::from(name.contains("16")),
                ..Lossy::default()
            };
            assert_eq!(data.lossy().unwrap(), found, "{name} {key}");
        }
    }
}

#[test]
fn the_digest_depends_on_what_becomes_of_transparency_where_that_changes_pixels() {
    let digests = |name: &str, channels| {
        let content = fs::read(files().join("pillow").join(name)).unwrap();
        let digest = |alpha, memory_budget| {
            let options = OpenOptions {
                channels: Some(channels),
                memory_budget,
                alpha,
                ..OpenOptions::default()
            };
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join("a.png"), &content).unwrap();
            let data = Dataset::open(folder.path(), &options).unwrap();
            data.digest().unwrap()
        };
        let digests = [Alpha::Drop, Alpha::White, Alpha::Black].map(|alpha| {
            let digest_in_memory = digest(alpha, 1 << 20);
            assert_eq!(digest_in_memory, digest(alpha, 0), "{name}");
            digest_in_memory
        });
        digests.into_iter().collect::<BTreeSet<_>>().len()
    };
    assert_eq!(digests("rgba.png", 3), 3);
    assert_eq!(digests("palette_one_transparent.png", 1), 3);
    assert_eq!(digests("rgba.png", 4), 1);
    assert_eq!(digests("opaque_rgba.png", 3), 1);
    assert_eq!(digests("palette.png", 3), 1);
}

/// A gray TIFF file of one pixel, whose sample has so many bits and this format.
fn gray_tiff(bits: u16, format: u16) -> Vec<u8> {
    let entries: [(u16, u16, u32); 10] = [
        (256, 3, 1),
        (257, 3, 1),
        (258, 3, bits.into()),
        (259, 3, 1),
        (262, 3, 1),
        (273, 4, 134),
        (277, 3, 1),
        (278, 3, 1),
        (279, 4, 8),
        (339, 3, format.into()),
    ];
    let mut bytes = b"II*\0\x08\0\0\0\x0a\0".to_vec();
    for (tag, kind, value) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        bytes.extend(1u32.to_le_bytes());
        bytes.extend(value.to_le_bytes());
    }
    bytes.extend([0; 4]);
    assert_eq!(bytes.len(), 134);
    bytes.extend([0x40; 8]);
    bytes
}

#[test]
fn samples_that_are_no_bytes_are_to_be_scaled_and_not_clipped() {
    for (bits, format, says, white) in [
        (32, 3, "floating-point numbers of 32 bits", "(1, where"),
        (
            32,
            2,
            "signed numbers of 32 bits",
            "images in place of WHITE",
        ),
        (
            16,
            2,
            "signed numbers of 16 bits",
            "images in place of WHITE",
        ),
        (12, 1, "samples are numbers of 12 bits", "(4095, where"),
    ] {
        let error = open_one("a.tif", &gray_tiff(bits, format), None).unwrap_err();
        assert!(
            error.contains(says) && error.contains(white) && error.contains("255 / WHITE * a"),
            "{error}"
        );
        assert!(
            error.contains("would clip") && !error.contains("Image.open(FILE).convert"),
            "{error}"
        );
    }
}

#[test]
fn whole_files_of_kinds_that_are_not_read_are_not_called_damaged() {
    let mut unread: Vec<(String, Vec<u8>)> = fs::read_dir(files().join("unread"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read(entry.path()).unwrap())
        })
        .collect();
    // The frame's marker and precision say what kind it is.
    let whole = jpeg(&noise(16, 16));
    let frame = whole
        .windows(2)
        .position(|pair| pair == [0xFF, 0xC0])
        .unwrap();
    for (name, at, byte) in [
        ("arithmetic", 1, 0xC9),
        ("lossless", 1, 0xC3),
        ("12_bits", 4, 12),
    ] {
        let mut bytes = whole.clone();
        bytes[frame + at] = byte;
        unread.push((format!("{name}.jpg"), bytes));
    }
    assert_eq!(unread.len(), 7);
    for (name, content) in unread {
        let error = open_one(&name, &content, None).unwrap_err();
        assert!(
            error.contains(&name) && error.contains("is not read ("),
            "{error}"
        );
        assert!(error.contains("save the image as PNG"), "{error}");
        for never in ["damaged", "truncated", "fetch it again", "Unknown("] {
            assert!(!error.contains(never), "{error}");
        }
    }
}

fn smooth() -> (Vec<u8>, u32, u32) {
    let image = image::open(files().join("smooth.png")).unwrap().into_rgb8();
    let (width, height) = image.dimensions();
    (image.into_raw(), width, height)
}

fn worst(a: &[u8], b: &[u8]) -> u8 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(&a, &b)| a.abs_diff(b)).max().unwrap()
}

#[test]
fn a_cmyk_jpeg_becomes_rgb() {
    let decoded = pixels("a.jpg", &fs::read(files().join("cmyk.jpg")).unwrap(), None);
    assert!(
        worst(&decoded, &smooth().0) <= 12,
        "{}",
        worst(&decoded, &smooth().0)
    );
}

#[test]
fn a_progressive_jpeg_is_read() {
    let decoded = pixels(
        "a.jpg",
        &fs::read(files().join("progressive.jpg")).unwrap(),
        None,
    );
    assert!(
        worst(&decoded, &smooth().0) <= 6,
        "{}",
        worst(&decoded, &smooth().0)
    );
}

#[test]
fn exif_rotation_is_applied() {
    let (upright, width, height) = smooth();
    let data = open_one(
        "a.jpg",
        &fs::read(files().join("rotated.jpg")).unwrap(),
        None,
    )
    .unwrap();
    assert_eq!(
        (data.shape().height, data.shape().width),
        (width as usize, height as usize)
    );
    let turned = image::imageops::rotate90(&RgbImage::from_raw(width, height, upright).unwrap());
    let mut out = vec![0; data.shape().bytes()];
    data.read(0, &mut out).unwrap();
    assert!(
        worst(&out, turned.as_raw()) <= 6,
        "{}",
        worst(&out, turned.as_raw())
    );
}

#[test]
fn a_jpeg_cut_anywhere_is_refused_and_bytes_after_its_end_are_not_minded() {
    let progressive = fs::read(files().join("progressive.jpg")).unwrap();
    for whole in [jpeg(&noise(64, 64)), progressive] {
        for percent in [10, 30, 50, 70, 90, 98] {
            let error =
                open_one("cut.jpg", &whole[..whole.len() * percent / 100], None).unwrap_err();
            assert!(error.contains("cut.jpg"), "{error}");
            assert!(
                error.contains("truncated") || percent < 30,
                "{percent}%: {error}"
            );
        }
        let error = open_one("cut.jpg", &whole[..whole.len() - 1], None).unwrap_err();
        assert!(
            error.contains("truncated") && error.contains("fetch it again"),
            "{error}"
        );
        let mut longer = whole.clone();
        longer.extend_from_slice(b"a camera's preview");
        assert_eq!(
            pixels("a.jpg", &longer, None),
            pixels("a.jpg", &whole, None)
        );
    }
}

#[test]
fn other_formats_cut_anywhere_are_refused() {
    let gif = {
        let image = RgbaImage::from_fn(40, 40, |x, y| {
            image::Rgba([(x * 6) as u8, (y * 6) as u8, (x ^ y) as u8, 255])
        });
        encode(image, ImageFormat::Gif)
    };
    let mut wholes = vec![(ImageFormat::Gif, gif)];
    for format in [
        ImageFormat::Png,
        ImageFormat::Bmp,
        ImageFormat::Tiff,
        ImageFormat::WebP,
    ] {
        wholes.push((format, encode(noise(40, 40), format)));
    }
    for (format, whole) in wholes {
        let name = format!("cut.{}", format.extensions_str()[0]);
        assert!(open_one(&name, &whole, None).is_ok(), "{format:?}");
        for percent in [0, 1, 20, 50, 80, 95] {
            let error =
                open_one(&name, &whole[..whole.len() * percent / 100], None).expect_err(&name);
            assert!(error.contains(&name), "{format:?} {percent}%: {error}");
        }
    }
}

#[test]
fn empty_files_web_pages_and_lfs_pointers_get_their_own_message() {
    for (bytes, message) in [
        (b"".as_slice(), "empty"),
        (b"<!DOCTYPE html><html>404</html>", "web page"),
        (b"\n<html>", "web page"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0",
            "git lfs pull",
        ),
        (b"hello", "not an image"),
    ] {
        let error = open_one("a.png", bytes, None).unwrap_err();
        assert!(
            error.contains("a.png") && error.contains(message),
            "{error}"
        );
    }
}

#[test]
fn zero_sizes_are_refused() {
    let mut bytes = png(GrayImage::new(3, 3));
    bytes[16..20].fill(0);
    let error = open_one("a.png", &bytes, None).unwrap_err();
    assert!(error.contains("a.png"), "{error}");
}

/// A PNG chunk with its checksum.
fn chunk(kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
    let mut crc = flate2::Crc::new();
    crc.update(kind);
    crc.update(content);
    let mut chunk = (content.len() as u32).to_be_bytes().to_vec();
    chunk.extend_from_slice(kind);
    chunk.extend_from_slice(content);
    chunk.extend_from_slice(&crc.sum().to_be_bytes());
    chunk
}

fn zeros_packed(length: u64) -> Vec<u8> {
    use std::io::Read;
    let mut packed = Vec::new();
    let zeros = std::io::repeat(0).take(length);
    flate2::read::ZlibEncoder::new(zeros, flate2::Compression::best())
        .read_to_end(&mut packed)
        .unwrap();
    packed
}

/// Held by tests that take much memory and by those that measure it: the peak is the process's.
static MEMORY: Mutex<()> = Mutex::new(());

fn peak_kib() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?
        .trim()
        .strip_suffix(" kB")?
        .trim()
        .parse()
        .ok()
}

#[test]
fn image_bombs_are_refused_without_the_memory_they_ask_for() {
    let _one = MEMORY.lock().unwrap_or_else(PoisonError::into_inner);
    let head = |width: u32, height: u32| {
        let mut content = [width.to_be_bytes(), height.to_be_bytes()].concat();
        content.extend_from_slice(&[8, 2, 0, 0, 0]);
        [b"\x89PNG\r\n\x1a\n".to_vec(), chunk(b"IHDR", &content)].concat()
    };
    let pixels = [
        head(30_000, 30_000),
        chunk(b"IDAT", &zeros_packed(1 << 20)),
        chunk(b"IEND", b""),
    ]
    .concat();
    let profile = [b"a\0\0".to_vec(), zeros_packed(200 << 20)].concat();
    let row = zeros_packed(4);
    let icc = [
        head(1, 1),
        chunk(b"iCCP", &profile),
        chunk(b"IDAT", &row),
        chunk(b"IEND", b""),
    ]
    .concat();
    assert!(icc.len() < 1 << 20);
    let before = peak_kib();
    let error = open_one("bomb.png", &pixels, None).unwrap_err();
    assert!(error.contains("bomb.png"), "{error}");
    // A profile that is too large may be ignored or refused; it may not be unpacked.
    if let Err(error) = open_one("icc.png", &icc, None) {
        assert!(error.contains("icc.png"), "{error}");
    }
    if let (Some(before), Some(after)) = (before, peak_kib()) {
        assert!(
            after - before < 100 << 10,
            "peak memory rose by {} KiB",
            after - before
        );
    }
}

#[test]
fn the_largest_images_are_read_in_every_format() {
    let _one = MEMORY.lock().unwrap_or_else(PoisonError::into_inner);
    let formats = [
        ("a.png", ImageFormat::Png),
        ("a.jpg", ImageFormat::Jpeg),
        ("a.tif", ImageFormat::Tiff),
        ("a.bmp", ImageFormat::Bmp),
    ];
    for (name, format) in formats {
        let bytes = encode(RgbImage::new(4096, 4096), format);
        let data = open_one(name, &bytes, None).unwrap();
        assert_eq!(data.shape().bytes(), 3 << 24, "{name}");
    }
}

#[test]
fn a_tiff_whose_tags_count_more_values_than_it_has_is_refused_without_room_for_them() {
    let _one = MEMORY.lock().unwrap_or_else(PoisonError::into_inner);
    let whole = encode(GrayImage::new(24, 16), ImageFormat::Tiff);
    assert!(whole.starts_with(b"II*\0"));
    let number = |at: usize, length: usize| {
        let digits = whole[at..at + length].iter().rev();
        digits.fold(0, |sum, &digit| sum << 8 | usize::from(digit))
    };
    let first = number(4, 4);
    let before = peak_kib();
    let mut refused = 0;
    for entry in 0..number(first, 2) {
        let count_at = first + 2 + 12 * entry + 4;
        for count in [0x7f_0001u32, 200] {
            let mut bytes = whole.clone();
            bytes[count_at..count_at + 4].copy_from_slice(&count.to_le_bytes());
            if let Err(error) = open_one("a.tif", &bytes, None) {
                assert!(error.contains("a.tif"), "{error}");
                refused += usize::from(error.contains("shorter than its tags say"));
            }
        }
    }
    assert!(refused >= number(first, 2), "{refused}");
    if let (Some(before), Some(after)) = (before, peak_kib()) {
        assert!(
            after - before < 50 << 10,
            "peak memory rose by {} KiB",
            after - before
        );
    }
}

#[test]
fn flipped_bits_never_panic() {
    for (name, whole) in [("a.png", png(noise(8, 8))), ("a.jpg", jpeg(&noise(16, 16)))] {
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x41;
            let _ = open_one(name, &bytes, None);
        }
    }
}

#[test]
fn pictures_of_newer_formats_are_named_with_a_way_out_whatever_they_are_called() {
    let container = |brands: &[u8]| {
        let length = (8 + brands.len()) as u32;
        [&length.to_be_bytes(), &b"ftyp"[..], brands, &[0; 40]].concat()
    };
    for (name, content, says) in [
        ("a.jpg", container(b"heic\0\0\0\0mif1heic"), "this is HEIC"),
        ("a.jpg", container(b"mif1\0\0\0\0mif1heic"), "this is HEIC"),
        ("a.png", container(b"avif\0\0\0\0avifmif1"), "this is AVIF"),
        ("a.png", container(b"mif1\0\0\0\0mif1avif"), "this is AVIF"),
        ("a.jpg", b"\xff\x0a rest of it".to_vec(), "this is JPEG XL"),
        (
            "a.jpg",
            b"\0\0\0\x0cJXL \r\n\x87\n rest of it".to_vec(),
            "this is JPEG XL",
        ),
        ("a.heic", vec![0], "this is HEIC"),
        ("a.avif", vec![0], "this is AVIF"),
        ("a.jxl", vec![0], "this is JPEG XL"),
        ("a.qoi", vec![0], "qoi files cannot be read"),
    ] {
        let error = open_one(name, &content, None).unwrap_err();
        assert!(error.contains(says), "{name}: {error}");
        let way = ["Image.open('FILE')", "djxl FILE", "convert the image"];
        assert!(way.iter().any(|way| error.contains(way)), "{error}");
    }
}
