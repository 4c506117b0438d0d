//! Images as bytes: what the networks that judge them ask of them, and what those of a model are.

use retrack_data::pixels::to_byte;

/// Why bytes are no images that a network can judge.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImagesError {
    /// Other than 1 or 3 channels.
    #[error("images of {channels} channels cannot be judged by {judge}, only those of 1 or 3")]
    Channels {
        /// Channels of an image.
        channels: usize,
        /// The network that would look at them.
        judge: &'static str,
    },
    /// No whole number of images.
    #[error("{bytes} bytes are no whole images of {height} x {width} x {channels}")]
    Size {
        /// Bytes given.
        bytes: usize,
        /// Pixels from top to bottom.
        height: usize,
        /// Pixels from left to right.
        width: usize,
        /// Channels of an image.
        channels: usize,
    },
}

/// The bytes of one of `images`: `shape` (height, width, channels) each, one after another.
///
/// # Errors
/// Other than 1 or 3 channels, no whole number of images.
pub(crate) fn image_len(
    images: &[u8],
    shape: [usize; 3],
    judge: &'static str,
) -> Result<usize, ImagesError> {
    let [height, width, channels] = shape;
    if channels != 1 && channels != 3 {
        return Err(ImagesError::Channels { channels, judge });
    }
    let len = height * width * channels;
    if len == 0 || !images.len().is_multiple_of(len) {
        return Err(ImagesError::Size {
            bytes: images.len(),
            height,
            width,
            channels,
        });
    }
    Ok(len)
}

/// Values of a model's images that are no numbers: as bytes they would be black, and no image that was forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the model's {what} hold values that are not finite; it is broken")]
pub struct NotFinite {
    /// Which images.
    pub what: &'static str,
}

/// Pixels of what a network made, values around [-1, 1]. `what` they are is for the error.
///
/// # Errors
/// Values that are not finite.
pub fn to_bytes(values: &[f32], what: &'static str) -> Result<Vec<u8>, NotFinite> {
    if values.iter().any(|value| !value.is_finite()) {
        return Err(NotFinite { what });
    }
    Ok(values.iter().map(|&value| to_byte(value)).collect())
}
