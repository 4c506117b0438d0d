//! From an encoded image to bytes in height, width, channel order.
//!
//! The conversions, all deterministic and independent of the machine:
//! - **EXIF orientation** is applied, as every viewer does.
//! - **16-bit** gray is scaled to 8 bits and rounded, `(v * 255 + 32767) / 65535`, where Pillow's `convert("L")` clips
//!   everything above 255 to white. Of 16-bit color and gray with alpha the high byte is taken, as Pillow does.
//! - **Transparency** is dropped: the color below it stays as it is stored, as in Pillow's `convert("RGB")`, unless the
//!   data set is opened with another [`Alpha`]. Asking for 2 or 4 channels keeps it instead.
//! - **Color to gray** is ITU-R 601 luma in 16-bit fixed point, `(19595 R + 38470 G + 7471 B + 32768) >> 16`,
//!   the rounding that Pillow's `convert("L")` uses; **gray to color** repeats the value.
//! - **CMYK and YCCK** JPEG files become RGB without a color profile. Color profiles are never applied.
//! - **Palettes** and 1, 2 and 4-bit gray are expanded. Of an animation the first frame is read; what lies around a
//!   frame that is smaller than the whole has the transparent color of its palette, else the first, as in Pillow.
//! - **Premultiplied** colors of a TIFF file (associated alpha) are divided by their alpha, as Pillow does.
//! - Floating-point images are refused: nothing says which value is white.

use std::io::Cursor;

use image::codecs::png::PngEncoder;
use image::error::UnsupportedErrorKind;
use image::metadata::Orientation;
use image::{
    DynamicImage, ExtendedColorType, ImageDecoder, ImageEncoder, ImageError, ImageFormat,
    ImageReader, Limits,
};

use super::ImageShape;
use super::alpha::Alpha;
use super::complete::{self, Header, Samples};
use super::error::{DataError, Size};
use super::pillow::amended;
use super::quiet::quietly;

/// Largest decoded image, in bytes of its own color type: 4,096 x 4,096 RGB.
const MAX_DECODED: u64 = 48 << 20;
/// The same of one that is resized before it is kept: 8,192 x 8,192 RGB, more than most cameras take.
const MAX_RESIZED: u64 = 192 << 20;
/// Largest encoded image.
pub(crate) const MAX_ENCODED: u64 = 128 << 20;
/// What a decoder may need besides the pixels (color profiles, tables, rows).
const DECODER_SLACK: u64 = 16 << 20;

/// Bytes that an image may have, in its own color type, that is `resized` before it is kept or is not.
pub(crate) fn most_decoded(resized: bool) -> u64 {
    if resized { MAX_RESIZED } else { MAX_DECODED }
}

/// A decoded image: `pixels` holds `height * width * channels` bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decoded {
    pub size: Size,
    pub channels: usize,
    pub pixels: Vec<u8>,
    /// 16-bit gray became 8-bit gray.
    pub scaled: bool,
    /// Of 16-bit color, or gray with alpha, the high byte was taken.
    pub cut: bool,
}

/// Decodes `bytes`; `expected` is checked before any pixel is decoded, so that a wrong image costs nothing. `None`: the image is
/// to be resized, whatever its size.
///
/// # Errors
/// [`DataError::Image`] with `name` and what is wrong. A wrong size is `Ok(Err(size))`: the caller knows what to
/// compare it with.
pub(crate) fn decode(
    name: &str,
    bytes: &[u8],
    expected: Option<Size>,
) -> Result<Result<Decoded, Size>, DataError> {
    let format = check_complete(name, bytes)?;
    quietly(|| decode_whole(format, bytes, expected))
        .unwrap_or_else(|panic| Err(Problem::Damage(format!("the decoder failed ({panic})"))))
        .map_err(|problem| problem.of(name, format, bytes))
}

/// Why an image was not decoded.
enum Problem {
    /// The file is not as its format says, or too large.
    Damage(String),
    /// It may well be whole, but its kind is not read.
    Kind(String),
}

impl Problem {
    fn of(self, name: &str, format: ImageFormat, bytes: &[u8]) -> DataError {
        let unscaled = match format {
            ImageFormat::Tiff => complete::tiff_samples(bytes).filter(Samples::are_clipped),
            _ => None,
        };
        let format = label(format);
        let problem = match (self, unscaled) {
            (Self::Kind(kind), Some(samples)) => format!(
                "this kind of {format} file is not read ({kind}); its samples are {samples}, which Pillow's \
                 convert(\"RGB\") would clip and not scale; save the image as PNG with the value that is white in all of \
                 the images{} in place of WHITE: a = numpy.asarray(Image.open(FILE), float); \
                 Image.fromarray((255 / WHITE * a).round().clip(0, 255).astype(\"uint8\")).save(\"FILE.png\")",
                samples.white()
            ),
            (Self::Damage(problem), _) => format!("the {format} file cannot be decoded: {problem}"),
            (Self::Kind(kind), None) => format!(
                "this kind of {format} file is not read ({kind}); save the image as PNG, as Pillow's \
                 Image.open(FILE).convert(\"RGB\").save(\"FILE.png\") does"
            ),
        };
        DataError::image(name, problem)
    }
}

impl From<ImageError> for Problem {
    fn from(error: ImageError) -> Self {
        match error {
            ImageError::Unsupported(error) => Self::Kind(match error.kind() {
                UnsupportedErrorKind::GenericFeature(what) => feature(&what),
                UnsupportedErrorKind::Color(_) => "the layout of its colors".into(),
                _ => error.to_string(),
            }),
            error => Self::Damage(error.to_string()),
        }
    }
}

/// A decoder's words for what it does not read, without the debug prints that some of them hold.
fn feature(what: &str) -> String {
    let numbered = what.split_once("Unknown(").and_then(|(before, rest)| {
        let (number, after) = rest.split_once(')')?;
        Some(format!("{before}number {number}{after}"))
    });
    let what = numbered.unwrap_or_else(|| what.to_owned());
    if !what.contains(['(', '[', '{']) {
        return what;
    }
    let lower = what.to_lowercase();
    let known = [
        ("interpretation", "the meaning of its colors"),
        ("color type", "the layout of its colors"),
        ("bits per sample", "the bits of its samples"),
        ("sample format", "the kind of its numbers"),
        ("planar", "the order of its planes"),
    ];
    let named = known.iter().find(|(word, _)| lower.contains(word));
    named
        .map_or("it has no decoder", |&(_, named)| named)
        .into()
}

fn decode_whole(
    format: ImageFormat,
    bytes: &[u8],
    expected: Option<Size>,
) -> Result<Result<Decoded, Size>, Problem> {
    if let Some(kind) = complete::unread_kind(format, bytes) {
        return Err(Problem::Kind(kind.into()));
    }
    let most = most_decoded(expected.is_none());
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::default();
    // The header tells the size before a decoder sees the file; without it the general bound holds.
    limits.max_alloc = Some(match fast_header(format, bytes) {
        Some(header) => {
            let size = u64::from(header.width) * u64::from(header.height) * 8;
            size.min(most) + DECODER_SLACK
        }
        None => most + DECODER_SLACK,
    });
    reader.limits(limits);
    let mut decoder = reader.into_decoder()?;
    let (width, height) = decoder.dimensions();
    if width == 0 || height == 0 {
        return Err(Problem::Damage(format!(
            "its size is {width} x {height} pixels"
        )));
    }
    if decoder.total_bytes() > most {
        return Err(Problem::Damage(format!(
            "{width} x {height} pixels take {} bytes, more than the {most} that one image may",
            decoder.total_bytes()
        )));
    }
    let orientation = decoder.orientation()?;
    let mut size = Size {
        width: width as usize,
        height: height as usize,
    };
    if is_sideways(orientation) {
        std::mem::swap(&mut size.width, &mut size.height);
    }
    if expected.is_some_and(|expected| expected != size) {
        return Ok(Err(size));
    }
    let decoded = DynamicImage::from_decoder(decoder)?;
    // A color that stands for transparency makes gray and alpha of gray.
    let scaled = matches!(decoded, DynamicImage::ImageLuma16(_))
        || (format == ImageFormat::Png && complete::png_is_deep_gray(bytes));
    let cut = !scaled
        && matches!(
            decoded,
            DynamicImage::ImageLumaA16(_)
                | DynamicImage::ImageRgb16(_)
                | DynamicImage::ImageRgba16(_)
        );
    let mut decoded = amended(format, bytes, decoded);
    decoded.apply_orientation(orientation);
    let (pixels, channels) = eight_bit(decoded, scaled)?;
    Ok(Ok(Decoded {
        size,
        channels,
        pixels,
        scaled,
        cut,
    }))
}

fn is_sideways(orientation: Orientation) -> bool {
    matches!(
        orientation,
        Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH
    )
}

/// The size after rotation and whether the image has color, from the first bytes of a file. `None`: the prefix is
/// too short or the format keeps its header elsewhere, and the whole file must be given to [`header`].
pub(crate) fn header_from_prefix(prefix: &[u8]) -> Option<(Size, bool)> {
    let header = fast_header(image::guess_format(prefix).ok()?, prefix)?;
    let (mut width, mut height) = (header.width as usize, header.height as usize);
    if header.sideways {
        std::mem::swap(&mut width, &mut height);
    }
    Some((Size { width, height }, header.color))
}

fn fast_header(format: ImageFormat, bytes: &[u8]) -> Option<Header> {
    match format {
        ImageFormat::Jpeg => complete::jpeg_header(bytes),
        ImageFormat::Png => complete::png_header(bytes),
        _ => None,
    }
}

/// The size after rotation and whether the image has color, without decoding pixels.
pub(crate) fn header(name: &str, bytes: &[u8]) -> Result<(Size, bool), DataError> {
    let format = recognize(name, bytes)?;
    if let Some(header) = header_from_prefix(bytes) {
        return Ok(header);
    }
    let read = || -> Result<(Size, bool), Problem> {
        if let Some(kind) = complete::unread_kind(format, bytes) {
            return Err(Problem::Kind(kind.into()));
        }
        let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
        let mut limits = Limits::default();
        limits.max_alloc = Some(MAX_RESIZED + DECODER_SLACK);
        reader.limits(limits);
        let mut decoder = reader.into_decoder()?;
        let (width, height) = decoder.dimensions();
        let mut size = Size {
            width: width as usize,
            height: height as usize,
        };
        if is_sideways(decoder.orientation()?) {
            std::mem::swap(&mut size.width, &mut size.height);
        }
        Ok((size, decoder.color_type().has_color()))
    };
    quietly(read)
        .unwrap_or_else(|panic| Err(Problem::Damage(panic)))
        .map_err(|problem| problem.of(name, format, bytes))
}

/// The format by content. File names lie: many JPEG files are called `.png`.
pub(crate) fn recognize(name: &str, bytes: &[u8]) -> Result<ImageFormat, DataError> {
    let readable = [
        ImageFormat::Png,
        ImageFormat::Jpeg,
        ImageFormat::Bmp,
        ImageFormat::Gif,
        ImageFormat::WebP,
        ImageFormat::Tiff,
    ];
    match image::guess_format(bytes) {
        Ok(format) if readable.contains(&format) => Ok(format),
        // BigTIFF, which the decoder of TIFF reads too.
        Err(_) if bytes.starts_with(b"II+\0") || bytes.starts_with(b"MM\0+") => {
            Ok(ImageFormat::Tiff)
        }
        Ok(format) if unread(bytes).is_none() => {
            let problem = format!(
                "{} files cannot be read; convert the image to PNG or JPEG",
                label(format)
            );
            Err(DataError::image(name, problem))
        }
        _ => Err(DataError::image(name, not_an_image(bytes))),
    }
}

/// Pictures of newer formats, which no decoder here reads: what it is, and how it becomes PNG.
pub(crate) fn unread_format(what: &str) -> Option<String> {
    let way = match what {
        "AVIF" => {
            "Pillow (11.3 and newer) reads it: python -c \"from PIL import Image; Image.open('FILE').save('FILE.png')\""
        }
        "HEIC" => {
            "pillow-heif reads it (pip install pillow-heif): python -c \"import pillow_heif; \
             pillow_heif.register_heif_opener(); from PIL import Image; Image.open('FILE').save('FILE.png')\""
        }
        "JPEG XL" => "libjxl's djxl reads it: djxl FILE FILE.png",
        _ => return None,
    };
    Some(format!("this is {what}, which is not read; {way}"))
}

/// Which of those formats this is, by its content.
fn unread(bytes: &[u8]) -> Option<&'static str> {
    if bytes.starts_with(b"\xff\x0a") || bytes.starts_with(b"\0\0\0\x0cJXL \r\n\x87\n") {
        return Some("JPEG XL");
    }
    if bytes.get(4..8) != Some(b"ftyp") {
        return None;
    }
    // The main brand, then its version and the other ones.
    match bytes.get(8..12)? {
        b"avif" | b"avis" => Some("AVIF"),
        b"heic" | b"heix" | b"hevc" | b"hevx" | b"heim" | b"heis" => Some("HEIC"),
        b"mif1" | b"msf1" => {
            let others = bytes.get(16..bytes.len().min(64))?;
            let has = |brand: &[u8]| others.chunks_exact(4).any(|other| other == brand);
            Some(if has(b"avif") { "AVIF" } else { "HEIC" })
        }
        _ => None,
    }
}

fn not_an_image(bytes: &[u8]) -> String {
    if let Some(said) = unread(bytes).and_then(unread_format) {
        return said;
    }
    let start = String::from_utf8_lossy(&bytes[..bytes.len().min(256)])
        .trim_start()
        .to_lowercase();
    if bytes.is_empty() {
        "the file is empty; fetch it again or remove it".into()
    } else if start.starts_with("version https://git-lfs") {
        "this is a Git LFS pointer, not the image; run `git lfs pull`".into()
    } else if start.starts_with("<!doctype")
        || start.starts_with("<html")
        || start.starts_with("<?xml")
    {
        "this is a web page or XML text, not an image; fetch the image again or remove the file"
            .into()
    } else {
        "this is not an image in a format that can be read (PNG, JPEG, BMP, GIF, WebP, TIFF)".into()
    }
}

fn label(format: ImageFormat) -> &'static str {
    match format {
        ImageFormat::Png => "PNG",
        ImageFormat::Jpeg => "JPEG",
        ImageFormat::Bmp => "BMP",
        ImageFormat::Gif => "GIF",
        ImageFormat::WebP => "WebP",
        ImageFormat::Tiff => "TIFF",
        other => other.extensions_str().first().copied().unwrap_or("such"),
    }
}

/// How the names of files of an image's format end.
pub(crate) fn ending(name: &str, bytes: &[u8]) -> Result<&'static str, DataError> {
    let format = recognize(name, bytes)?;
    Ok(format.extensions_str().first().copied().unwrap_or("img"))
}

/// The PNG file of pixels of this shape, 1 to 4 channels.
pub(crate) fn png(name: &str, pixels: &[u8], shape: ImageShape) -> Result<Vec<u8>, DataError> {
    let color = match shape.channels {
        1 => ExtendedColorType::L8,
        2 => ExtendedColorType::La8,
        3 => ExtendedColorType::Rgb8,
        _ => ExtendedColorType::Rgba8,
    };
    let mut file = Vec::new();
    let [width, height] = [shape.width, shape.height].map(|size| size as u32);
    PngEncoder::new(&mut file)
        .write_image(pixels, width, height, color)
        .map_err(|error| DataError::image(name, error.to_string()))?;
    Ok(file)
}

/// 8-bit samples and their number of channels: 1 gray, 2 gray and alpha, 3 RGB, 4 RGBA. `deep_gray`: gray with alpha was
/// gray in the file, whose 16 bits are scaled.
fn eight_bit(image: DynamicImage, deep_gray: bool) -> Result<(Vec<u8>, usize), Problem> {
    let high_bytes =
        |samples: Vec<u16>| -> Vec<u8> { samples.into_iter().map(|v| (v >> 8) as u8).collect() };
    let scaled = |v: u16| ((u32::from(v) * 255 + 32767) / 65535) as u8;
    Ok(match image {
        DynamicImage::ImageLuma8(buffer) => (buffer.into_raw(), 1),
        DynamicImage::ImageLumaA8(buffer) => (buffer.into_raw(), 2),
        DynamicImage::ImageRgb8(buffer) => (buffer.into_raw(), 3),
        DynamicImage::ImageRgba8(buffer) => (buffer.into_raw(), 4),
        DynamicImage::ImageLuma16(buffer) => (buffer.iter().map(|&v| scaled(v)).collect(), 1),
        DynamicImage::ImageLumaA16(buffer) if deep_gray => {
            (buffer.iter().map(|&v| scaled(v)).collect(), 2)
        }
        DynamicImage::ImageLumaA16(buffer) => (high_bytes(buffer.into_raw()), 2),
        DynamicImage::ImageRgb16(buffer) => (high_bytes(buffer.into_raw()), 3),
        DynamicImage::ImageRgba16(buffer) => (high_bytes(buffer.into_raw()), 4),
        _ => {
            return Err(Problem::Kind("its pixels are floating-point".into()));
        }
    })
}

/// Whether any pixel is not opaque; `channels` is 1 to 4.
pub(crate) fn is_transparent(pixels: &[u8], channels: usize) -> bool {
    channels.is_multiple_of(2)
        && pixels
            .chunks_exact(channels)
            .any(|pixel| pixel[channels - 1] < 255)
}

/// Whether the header of an encoded image leaves room for transparency or for 16 bits.
pub(crate) fn may_be_lossy(bytes: &[u8]) -> bool {
    match image::guess_format(bytes) {
        Ok(ImageFormat::Jpeg) => false,
        Ok(ImageFormat::Png) => complete::png_may_be_lossy(bytes),
        // The decoders of the others may change what they make of a file: decoding tells.
        _ => true,
    }
}

/// Changes the number of channels as the module's documentation says. Both counts are 1 to 4.
pub(crate) fn convert_channels(
    pixels: &[u8],
    from: usize,
    to: usize,
    transparency: Alpha,
    out: &mut [u8],
) {
    if from == to {
        out.copy_from_slice(pixels);
        return;
    }
    for (input, output) in pixels.chunks_exact(from).zip(out.chunks_exact_mut(to)) {
        let alpha = if from.is_multiple_of(2) {
            input[from - 1]
        } else {
            255
        };
        let color = if from <= 2 {
            [input[0]; 3]
        } else {
            [input[0], input[1], input[2]]
        };
        match to {
            1 => output[0] = luma(color.map(|value| transparency.opaque(value, alpha))),
            2 => output.copy_from_slice(&[luma(color), alpha]),
            3 => output.copy_from_slice(&color.map(|value| transparency.opaque(value, alpha))),
            _ => {
                output[..3].copy_from_slice(&color);
                output[3] = alpha;
            }
        }
    }
}

/// The weights sum to 65,536, so gray stays exactly what it was.
fn luma([red, green, blue]: [u8; 3]) -> u8 {
    ((u32::from(red) * 19595 + u32::from(green) * 38470 + u32::from(blue) * 7471 + 32768) >> 16)
        as u8
}

/// Fails unless the file has a known format and an end.
pub(crate) fn check_complete(name: &str, bytes: &[u8]) -> Result<ImageFormat, DataError> {
    let format = recognize(name, bytes)?;
    if let Some(missing) = complete::missing_end(format, bytes) {
        return Err(DataError::image(
            name,
            format!(
                "the {} file is truncated ({missing}); fetch it again or remove it",
                label(format)
            ),
        ));
    }
    Ok(format)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_decoder_lacks_is_said_without_debug_prints() {
        for (said, shown) in [
            (
                "compression method Unknown(34925) is unsupported",
                "compression method number 34925 is unsupported",
            ),
            (
                "compression method Fax4 is unsupported",
                "compression method Fax4 is unsupported",
            ),
            (
                "sample format [Void] is unsupported",
                "the kind of its numbers",
            ),
            (
                "color type Multiband { bit_depth: 8, num_samples: 5 } is unsupported",
                "the layout of its colors",
            ),
            (
                "unsupported planar configuration “Some(Planar)”",
                "the order of its planes",
            ),
        ] {
            assert_eq!(feature(said), shown);
        }
    }
}
