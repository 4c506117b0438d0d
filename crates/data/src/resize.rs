//! Images of any size brought to one, as diffusers' training scripts do it: `transforms.Resize(N)`, which makes the shorter
//! side N, and `transforms.CenterCrop(N)` of torchvision, on images of Pillow.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ImageShape;
use super::error::{DataError, Size};
use super::resample::{Axis, Filter, Order, resample};

/// How images are resized: smoothed where they shrink, byte for byte as Pillow 13 does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Resize {
    /// What the shorter side becomes, in pixels: 1 to [`MOST`](Self::MOST).
    pub side: usize,
    /// What becomes of the longer side.
    pub crop: Crop,
    /// How new pixels are made of old ones.
    pub interpolation: Filter,
}

/// What becomes of the longer side of an image whose shorter side has its size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Crop {
    /// As much as the shorter side is kept of it, its middle.
    #[default]
    Center,
    /// All of it is kept.
    None,
}

impl Crop {
    /// As it is typed and recorded.
    pub fn name(self) -> &'static str {
        match self {
            Self::Center => "center",
            Self::None => "none",
        }
    }
}

impl fmt::Display for Crop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Crop {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Center, Self::None]
            .into_iter()
            .find(|crop| crop.name() == text)
            .ok_or_else(|| "expected center or none".into())
    }
}

impl Resize {
    /// The longest shorter side.
    pub const MOST: usize = 4096;

    pub(crate) fn check(self) -> Result<(), DataError> {
        match self.side {
            1..=Self::MOST => Ok(()),
            side => Err(DataError::Side { side }),
        }
    }

    /// The size of an image of this size, which is not empty, afterwards.
    pub(crate) fn size(self, from: Size) -> Size {
        let shorter = from.width.min(from.height);
        // torchvision's int(N * long / short).
        let side = |side: usize| match self.crop {
            Crop::Center => self.side,
            Crop::None => self.side.saturating_mul(side) / shorter,
        };
        Size {
            width: side(from.width),
            height: side(from.height),
        }
    }

    /// The pixels of an image of this shape afterwards.
    pub(crate) fn apply(self, pixels: &[u8], shape: ImageShape) -> Vec<u8> {
        let ImageShape {
            height,
            width,
            channels,
        } = shape;
        let shorter = height.min(width);
        let axis = |size| match self.crop {
            Crop::Center => Axis::part(size, shorter, self.side, before),
            Crop::None => Axis::whole(size, self.side * size / shorter),
        };
        let (rows, columns) = (axis(height), axis(width));
        if rows.wanted == (0..height) && columns.wanted == (0..width) {
            return pixels.to_vec();
        }
        let filter = self.interpolation;
        if !channels.is_multiple_of(2) {
            return resample(pixels, &rows, &columns, channels, filter, Order::Shorter);
        }
        // Colors below transparent pixels do not bleed.
        let mut weighted = pixels.to_vec();
        for pixel in weighted.chunks_exact_mut(channels) {
            multiply(pixel);
        }
        let mut resized = resample(&weighted, &rows, &columns, channels, filter, Order::Shorter);
        for pixel in resized.chunks_exact_mut(channels) {
            divide(pixel);
        }
        resized
    }
}

/// Of so many pixels that are cut off, those before the middle: torchvision's `int(round(rest / 2.0))`, where a half goes to the
/// even number.
fn before(rest: usize) -> usize {
    let half = rest / 2;
    half + rest % 2 * (half % 2)
}

/// Colors times their alpha, the last value of a pixel, as Pillow's `RGBa` has them.
fn multiply(pixel: &mut [u8]) {
    if let [colors @ .., alpha] = pixel {
        for value in colors {
            let product = u32::from(*value) * u32::from(*alpha) + 128;
            *value = (((product >> 8) + product) >> 8) as u8;
        }
    }
}

/// The way back.
fn divide(pixel: &mut [u8]) {
    if let [colors @ .., alpha @ 1..=254] = pixel {
        for value in colors {
            *value = (255 * u32::from(*value) / u32::from(*alpha)).min(255) as u8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_torchvisions() {
        // transforms.Resize(N) of PIL images of these sizes, and what CenterCrop(N) leaves out before them.
        for (side, from, to, cut) in [
            (64, [100, 150], [64, 96], [0, 16]),
            (64, [333, 1000], [64, 192], [0, 64]),
            (64, [65, 67], [64, 65], [0, 0]),
            (64, [64, 67], [64, 67], [0, 2]),
            (64, [64, 69], [64, 69], [0, 2]),
            (64, [64, 71], [64, 71], [0, 4]),
            (7, [3, 1], [21, 7], [7, 0]),
        ] {
            let interpolation = Filter::default();
            let resize = |crop| Resize {
                side,
                crop,
                interpolation,
            };
            let [width, height] = from;
            let size = Size { width, height };
            let found = resize(Crop::None).size(size);
            assert_eq!([found.width, found.height], to);
            let found = resize(Crop::Center).size(size);
            assert_eq!([found.width, found.height], [side; 2]);
            assert_eq!(to.map(|to| before(to - side)), cut);
        }
    }

    #[test]
    fn only_sides_of_some_pixels_are_taken() {
        let of = |side| {
            let (crop, interpolation) = (Crop::Center, Filter::Bicubic);
            let resize = Resize {
                side,
                crop,
                interpolation,
            };
            resize.check().is_ok()
        };
        assert!(!of(0) && of(1) && of(Resize::MOST) && !of(Resize::MOST + 1));
    }
}
