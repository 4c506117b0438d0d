//! What the networks that judge images ask of them.

/// Why bytes are no images that a network can judge.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImagesError {
    #[error("images of {channels} channels cannot be judged by {judge}, only those of 1 or 3")]
    Channels {
        channels: usize,
        judge: &'static str,
    },
    #[error("{bytes} bytes are no whole images of {height} x {width} x {channels}")]
    Size {
        bytes: usize,
        height: usize,
        width: usize,
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
