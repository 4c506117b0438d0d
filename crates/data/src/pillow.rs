//! Two kinds of files of which the decoders make something else than Pillow does.

use image::{DynamicImage, ImageFormat, Rgba, RgbaImage};

use super::complete;

/// A TIFF tag: what the samples after the colors are.
const EXTRA_SAMPLES: u64 = 338;

/// Makes a decoded image what Pillow makes of the file.
pub(crate) fn amended(format: ImageFormat, bytes: &[u8], image: DynamicImage) -> DynamicImage {
    match (format, image) {
        // 1: alpha by which the colors are multiplied already.
        (ImageFormat::Tiff, image) if complete::tiff_value(bytes, EXTRA_SAMPLES) == Some(1) => {
            divided(image)
        }
        (ImageFormat::Gif, DynamicImage::ImageRgba8(mut image)) => {
            if let Some(frame) = GifFrame::first(bytes) {
                frame.surround(&mut image);
            }
            DynamicImage::ImageRgba8(image)
        }
        (_, image) => image,
    }
}

/// Colors divided by their alpha; 16 bits become 8 before that.
fn divided(image: DynamicImage) -> DynamicImage {
    let mut image = match image {
        DynamicImage::ImageRgba8(image) => image,
        DynamicImage::ImageRgba16(image) => {
            let high = |x, y| Rgba(image.get_pixel(x, y).0.map(|value| (value >> 8) as u8));
            RgbaImage::from_fn(image.width(), image.height(), high)
        }
        other => return other,
    };
    for Rgba([red, green, blue, alpha]) in image.pixels_mut() {
        for value in [red, green, blue] {
            *value = (u32::from(*value) * 255)
                .checked_div(u32::from(*alpha))
                .map_or(0, |value| value.min(255) as u8);
        }
    }
    DynamicImage::ImageRgba8(image)
}

/// Where the first frame of a GIF lies, and what Pillow puts around it: the transparent color of its palette, else the
/// first.
struct GifFrame {
    left: u32,
    top: u32,
    width: u32,
    height: u32,
    around: Rgba<u8>,
}

impl GifFrame {
    fn first(bytes: &[u8]) -> Option<Self> {
        let table = |packed: u8| match packed & 0x80 {
            0 => 0,
            _ => 3usize << ((packed & 7) + 1),
        };
        let global = table(*bytes.get(10)?);
        let mut colors = bytes.get(13..13 + global)?;
        let (mut at, mut transparent) = (13 + global, None);
        while *bytes.get(at)? == 0x21 {
            // A graphic control extension: its packed fields say whether its last byte is a transparent color.
            if let [0xF9, 4, packed, _, _, index, ..] = *bytes.get(at + 1..)? {
                transparent = (packed & 1 == 1).then_some(index);
            }
            at += 2;
            while let length @ 1.. = usize::from(*bytes.get(at)?) {
                at += 1 + length;
            }
            at += 1;
        }
        if *bytes.get(at)? != 0x2C {
            return None;
        }
        let number = |place: usize| -> Option<u32> {
            let digits = bytes.get(at + place..at + place + 2)?;
            Some(u32::from(u16::from_le_bytes([digits[0], digits[1]])))
        };
        let local = table(*bytes.get(at + 9)?);
        if local > 0 {
            colors = bytes.get(at + 10..at + 10 + local)?;
        }
        let color = 3 * usize::from(transparent.unwrap_or(0));
        let around = match colors.get(color..color + 3) {
            Some(&[red, green, blue]) => [red, green, blue],
            _ => [0; 3],
        };
        let alpha = if transparent.is_some() { 0 } else { 255 };
        Some(Self {
            left: number(1)?,
            top: number(3)?,
            width: number(5)?,
            height: number(7)?,
            around: Rgba([around[0], around[1], around[2], alpha]),
        })
    }

    fn surround(&self, image: &mut RgbaImage) {
        let columns = self.left..self.left + self.width;
        let rows = self.top..self.top + self.height;
        for (x, y, pixel) in image.enumerate_pixels_mut() {
            if !(columns.contains(&x) && rows.contains(&y)) {
                *pixel = self.around;
            }
        }
    }
}
