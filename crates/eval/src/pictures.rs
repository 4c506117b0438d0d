//! Images side by side, as PNG.

use image::{ExtendedColorType, ImageEncoder, codecs::png::PngEncoder};

/// Images in rows, with a thin gap between them.
#[derive(Debug, Clone, Copy)]
pub struct Grid {
    /// Height, width and channels (1 or 3) of each image.
    pub shape: [usize; 3],
    /// Images in a row.
    pub columns: usize,
    /// Each pixel becomes a square of this side.
    pub zoom: usize,
}

/// Why images do not make a picture.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    /// Other than 1 or 3 channels.
    #[error("{channels} channels cannot be shown, only 1 or 3")]
    Channels {
        /// Channels of an image.
        channels: usize,
    },
    /// No images.
    #[error("there are no images to show")]
    Empty,
    /// More pixels than a picture should have.
    #[error("the picture would have {width} x {height} pixels; show fewer images")]
    TooLarge {
        /// Pixels from left to right.
        width: usize,
        /// Pixels from top to bottom.
        height: usize,
    },
    /// The PNG encoder failed.
    #[error("the picture cannot be encoded: {0}")]
    Encode(#[from] image::ImageError),
}

/// Between images, in pixels of the result.
const GAP: usize = 2;
/// Gray of the gap: visible beside black and beside white.
const GAP_GRAY: u8 = 110;

impl Grid {
    /// A zoom that makes small images large enough to see.
    pub fn zoom_for(shape: [usize; 3]) -> usize {
        (56 / shape[1].max(1)).clamp(1, 8)
    }

    /// The PNG file of one image as it is, without a frame.
    ///
    /// # Errors
    /// Two or four channels.
    pub fn single(&self, image: &[u8]) -> Result<Vec<u8>, PictureError> {
        let [height, width, channels] = self.shape;
        encode(image, height, width, channels)
    }

    /// The PNG file of `images`: bytes, one image after another.
    ///
    /// # Errors
    /// Two or four channels, no images, more pixels than a picture should have.
    pub fn png(&self, images: &[u8]) -> Result<Vec<u8>, PictureError> {
        let [height, width, channels] = self.shape;
        let count = images.len() / (height * width * channels);
        if count == 0 {
            return Err(PictureError::Empty);
        }
        let columns = self.columns.clamp(1, count);
        let rows = count.div_ceil(columns);
        let (cell_h, cell_w) = (height * self.zoom + GAP, width * self.zoom + GAP);
        let (full_h, full_w) = (rows * cell_h + GAP, columns * cell_w + GAP);
        if full_h > 16_384 || full_w > 16_384 {
            return Err(PictureError::TooLarge {
                width: full_w,
                height: full_h,
            });
        }
        let mut pixels = vec![GAP_GRAY; full_h * full_w * channels];
        for (i, image) in images.chunks_exact(height * width * channels).enumerate() {
            let top = GAP + i / columns * cell_h;
            let left = GAP + i % columns * cell_w;
            for y in 0..height * self.zoom {
                for x in 0..width * self.zoom {
                    let from = ((y / self.zoom) * width + x / self.zoom) * channels;
                    let to = ((top + y) * full_w + left + x) * channels;
                    pixels[to..to + channels].copy_from_slice(&image[from..from + channels]);
                }
            }
        }
        encode(&pixels, full_h, full_w, channels)
    }
}

fn encode(
    pixels: &[u8],
    height: usize,
    width: usize,
    channels: usize,
) -> Result<Vec<u8>, PictureError> {
    let color = match channels {
        1 => ExtendedColorType::L8,
        3 => ExtendedColorType::Rgb8,
        _ => return Err(PictureError::Channels { channels }),
    };
    let mut png = Vec::new();
    PngEncoder::new(&mut png).write_image(pixels, width as u32, height as u32, color)?;
    // Behind the signature and the header, which is always the first chunk.
    png.splice(HEADER..HEADER, text_chunk());
    Ok(png)
}

/// How far two pictures are from each other: the root of the mean square over their values, 0 to 255. `None` of
/// pictures of different size or kind, and of what is none.
pub fn apart(one: &[u8], other: &[u8]) -> Option<f64> {
    let read = |png| image::load_from_memory_with_format(png, image::ImageFormat::Png).ok();
    let (one, other) = (read(one)?, read(other)?);
    if one.color() != other.color()
        || (one.width(), one.height()) != (other.width(), other.height())
    {
        return None;
    }
    let values = one.as_bytes().iter().zip(other.as_bytes());
    let squares = values.map(|(&a, &b)| f64::from(a.abs_diff(b)).powi(2));
    Some((squares.sum::<f64>() / one.as_bytes().len() as f64).sqrt())
}

/// Bytes of a PNG file's signature and of its header chunk.
const HEADER: usize = 8 + 25;
/// A PNG file's text chunk, whose keyword for the program that wrote it is the standard's.
const MADE_BY: &[u8] = b"tEXtSoftware\0retrack";

/// Length, type, content and checksum.
fn text_chunk() -> Vec<u8> {
    let length = (MADE_BY.len() - 4) as u32;
    let mut chunk = length.to_be_bytes().to_vec();
    chunk.extend(MADE_BY);
    chunk.extend(crc32fast::hash(MADE_BY).to_be_bytes());
    chunk
}

/// Whether these are the first bytes of a picture that was made here. 64 bytes are enough.
pub fn is_own(start: &[u8]) -> bool {
    start
        .get(HEADER + 4..)
        .is_some_and(|rest| rest.starts_with(MADE_BY))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_land_in_their_cells() {
        let grid = Grid {
            shape: [1, 2, 1],
            columns: 2,
            zoom: 3,
        };
        let png = grid.png(&[10, 20, 30, 40, 50, 60]).unwrap();
        let picture = image::load_from_memory(&png).unwrap().to_luma8();
        assert_eq!(picture.dimensions(), (2 * 8 + 2, 2 * 5 + 2));
        let at = |x: u32, y: u32| picture.get_pixel(x, y).0[0];
        assert_eq!((at(2, 2), at(5, 4), at(10, 2), at(13, 2)), (10, 20, 30, 40));
        assert_eq!((at(2, 7), at(5, 7)), (50, 60));
        assert_eq!(at(10, 7), GAP_GRAY); // no sixth image
        assert!(is_own(&png[..64]));
        assert!(!is_own(&png[..20]));
        assert!(!is_own(&png.repeat(2)[30..]));
    }
}
