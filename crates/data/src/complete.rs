//! Is an image file whole?
//!
//! The JPEG decoder fills what is missing with gray and reports success (seen with files cut at 50 to 98% of their
//! bytes), so that a truncated download would teach a model gray bars. The markers are walked here instead.

use image::ImageFormat;

/// What is missing from `bytes`, or `None` when the file has an end. Bytes after the end are allowed: cameras
/// append previews there. Formats whose decoders notice a missing end themselves are not walked.
pub(crate) fn missing_end(format: ImageFormat, bytes: &[u8]) -> Option<&'static str> {
    let (whole, missing) = match format {
        ImageFormat::Jpeg => (jpeg_has_end(bytes), "its end-of-image marker is missing"),
        ImageFormat::Png => (
            png_has_end(bytes).unwrap_or(false),
            "its IEND chunk is missing",
        ),
        ImageFormat::Gif => (
            gif_has_frame(bytes).unwrap_or(false),
            "its first frame has no end",
        ),
        ImageFormat::WebP => (
            webp_has_end(bytes).unwrap_or(false),
            "it is shorter than its header says",
        ),
        ImageFormat::Tiff => (
            tiff_tags_fit(bytes).unwrap_or(false),
            "it is shorter than its tags say",
        ),
        _ => return None,
    };
    (!whole).then_some(missing)
}

/// A marker segment of a JPEG file: its second marker byte and its content.
struct Segment<'a> {
    marker: u8,
    content: &'a [u8],
}

/// Walks from marker to marker, also through entropy-coded data, where 0xFF is followed by 0 or a restart number.
struct Segments<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Segments<'a> {
    type Item = Segment<'a>;

    fn next(&mut self) -> Option<Segment<'a>> {
        loop {
            let start = self.rest.iter().position(|&byte| byte == 0xFF)?;
            self.rest = &self.rest[start + 1..];
            let marker = *self.rest.first()?;
            match marker {
                0xFF => {}                                                // fill byte
                0x00 | 0x01 | 0xD0..=0xD8 => self.rest = &self.rest[1..], // no content
                0xD9 => {
                    self.rest = &self.rest[1..];
                    return Some(Segment {
                        marker,
                        content: &[],
                    });
                }
                _ => {
                    let length =
                        usize::from(u16::from_be_bytes([*self.rest.get(1)?, *self.rest.get(2)?]));
                    let content = self.rest.get(3..1 + length)?;
                    self.rest = &self.rest[1 + length..];
                    return Some(Segment { marker, content });
                }
            }
        }
    }
}

fn jpeg_has_end(bytes: &[u8]) -> bool {
    let mut scans = false;
    for segment in (Segments {
        rest: bytes.get(2..).unwrap_or(&[]),
    }) {
        match segment.marker {
            0xDA => scans = true,
            0xD9 => return scans,
            _ => {}
        }
    }
    false
}

/// What a header says, before any rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub width: u32,
    pub height: u32,
    pub color: bool,
    /// EXIF orientation turns the image by 90 degrees.
    pub sideways: bool,
}

/// Reads a JPEG's frame header from the first bytes of the file; `None` when they do not reach that far.
pub(crate) fn jpeg_header(bytes: &[u8]) -> Option<Header> {
    let mut sideways = false;
    for segment in (Segments {
        rest: bytes.get(2..)?,
    }) {
        match segment.marker {
            0xE1 => {
                if let Some(exif) = segment.content.strip_prefix(b"Exif\0\0") {
                    sideways |= turns(exif);
                }
            }
            // Start of frame, all coding processes; C4, C8 and CC are other segments.
            0xC0..=0xCF if !matches!(segment.marker, 0xC4 | 0xC8 | 0xCC) => {
                let [_, h1, h0, w1, w0, components, ..] = *segment.content else {
                    return None;
                };
                return Some(Header {
                    width: u32::from(u16::from_be_bytes([w1, w0])),
                    height: u32::from(u16::from_be_bytes([h1, h0])),
                    color: components > 1,
                    sideways,
                });
            }
            0xDA | 0xD9 => return None,
            _ => {}
        }
    }
    None
}

/// What makes a whole file one that no decoder here reads, where the decoder would call it damaged.
pub(crate) fn unread_kind(format: ImageFormat, bytes: &[u8]) -> Option<&'static str> {
    if format != ImageFormat::Jpeg {
        return None;
    }
    let frame = Segments {
        rest: bytes.get(2..)?,
    }
    .find(|segment| {
        matches!(segment.marker, 0xC0..=0xCF) && !matches!(segment.marker, 0xC4 | 0xC8 | 0xCC)
    })?;
    match (frame.marker, frame.content.first()?) {
        (0xC3, _) => Some("lossless"),
        (0xC5..=0xC7, _) => Some("hierarchical"),
        (0xC9..=0xCF, _) => Some("arithmetic coding"),
        (_, 8) => None,
        (_, 12) => Some("12 bits"),
        _ => None,
    }
}

fn turns(exif: &[u8]) -> bool {
    use image::metadata::Orientation;
    matches!(
        Orientation::from_exif_chunk(exif),
        Some(
            Orientation::Rotate90
                | Orientation::Rotate270
                | Orientation::Rotate90FlipH
                | Orientation::Rotate270FlipH
        )
    )
}

const PNG_SIGNATURE: usize = 8;

/// Chunks of a PNG file: type and content. Ends at the first one that is cut off.
fn png_chunks(bytes: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = bytes.get(PNG_SIGNATURE..).unwrap_or(&[]);
    std::iter::from_fn(move || {
        let length = u32::from_be_bytes(rest.get(..4)?.try_into().ok()?) as usize;
        let kind = rest.get(4..8)?;
        let content = rest.get(8..length.checked_add(8)?)?;
        rest = rest.get(length.checked_add(12)?..)?;
        Some((kind, content))
    })
}

fn png_has_end(bytes: &[u8]) -> Option<bool> {
    Some(png_chunks(bytes).any(|(kind, _)| kind == b"IEND"))
}

/// Reads a PNG's header from the first bytes of the file; `None` when they do not reach the pixel data.
pub(crate) fn png_header(bytes: &[u8]) -> Option<Header> {
    let first = bytes.get(PNG_SIGNATURE..PNG_SIGNATURE + 8 + 13)?;
    let number =
        |at: usize| u32::from_be_bytes([first[at], first[at + 1], first[at + 2], first[at + 3]]);
    if &first[4..8] != b"IHDR" {
        return None;
    }
    let mut header = Header {
        width: number(8),
        height: number(12),
        color: first[17] & 2 != 0,
        sideways: false,
    };
    // The pixel data is usually longer than the prefix: its chunk's head alone tells that no rotation can follow.
    let mut at = PNG_SIGNATURE;
    loop {
        let length = u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?) as usize;
        let kind = bytes.get(at + 4..at + 8)?;
        match kind {
            b"IDAT" => return Some(header),
            b"eXIf" => header.sideways |= turns(bytes.get(at + 8..(at + 8).checked_add(length)?)?),
            _ => {}
        }
        at = at.checked_add(length)?.checked_add(12)?;
    }
}

/// Whether a PNG has an alpha channel, a color that stands for transparency, or 16 bits.
pub(crate) fn png_may_be_lossy(bytes: &[u8]) -> bool {
    png_chunks(bytes)
        .take_while(|(kind, _)| *kind != b"IDAT")
        .any(|(kind, content)| match kind {
            b"IHDR" => matches!(content.get(8..10), Some([_, 4 | 6] | [16, _])),
            _ => kind == b"tRNS",
        })
}

/// Whether a PNG holds 16 bits of gray without an alpha channel.
pub(crate) fn png_is_deep_gray(bytes: &[u8]) -> bool {
    let first = png_chunks(bytes).next();
    first.is_some_and(|(kind, content)| {
        kind == b"IHDR" && matches!(content.get(8..10), Some([16, 0]))
    })
}

/// Walks a GIF's blocks to the end of the first frame, the only one that is read.
fn gif_has_frame(bytes: &[u8]) -> Option<bool> {
    let color_table = |packed: u8| {
        if packed & 0x80 != 0 {
            3usize << ((packed & 7) + 1)
        } else {
            0
        }
    };
    let mut at = 13 + color_table(*bytes.get(10)?);
    loop {
        let is_frame = match *bytes.get(at)? {
            0x21 => {
                at += 2;
                false
            }
            0x2C => {
                at += 11 + color_table(*bytes.get(at + 9)?);
                true
            }
            _ => return Some(false),
        };
        loop {
            let length = usize::from(*bytes.get(at)?);
            at += 1 + length;
            if length == 0 {
                break;
            }
        }
        if is_frame {
            return Some(true);
        }
    }
}

fn webp_has_end(bytes: &[u8]) -> Option<bool> {
    let size = u32::from_le_bytes(bytes.get(4..8)?.try_into().ok()?) as usize;
    Some(bytes.len() >= size.checked_add(8)?)
}

/// Values of a TIFF tag, at most: places and lengths of a million strips. The decoder holds each value in 32 bytes.
const MOST_VALUES: u64 = 1 << 20;
/// Tags from here on are of programs and cameras; nothing here reads them.
const PRIVATE: u64 = 0x8000;

/// A tag of a TIFF file's first image, the only one that is read.
struct TiffTag {
    tag: u64,
    kind: u64,
    /// Values.
    count: u64,
    /// Where its values lie, or where that is said if they need more than `width` bytes.
    at: u64,
}

/// A TIFF file's tags, and how many bytes a number or a place has in it. `None`: the file ends before they do.
fn tiff_tags(bytes: &[u8]) -> Option<(Vec<TiffTag>, usize)> {
    let number = |at, length| tiff_number(bytes, at, length);
    // BigTIFF has wider numbers: of tags, of values and of places.
    let (first, counted, width) = match number(2, 2)? {
        42 => (number(4, 4)?, 2, 4),
        _ => (number(8, 8)?, 8, 8),
    };
    let entry_length = 4 + 2 * width as u64;
    let entries = first.checked_add(counted as u64)?;
    let mut tags = Vec::new();
    for entry in 0..number(first, counted)? {
        let at = entry.checked_mul(entry_length)?.checked_add(entries)?;
        let found = TiffTag {
            tag: number(at, 2)?,
            kind: number(at + 2, 2)?,
            count: number(at + 4, width)?,
            at: at + 4 + width as u64,
        };
        // The whole entry must be there.
        number(found.at, width)?;
        tags.push(found);
    }
    Some((tags, width))
}

fn tiff_number(bytes: &[u8], at: u64, length: usize) -> Option<u64> {
    let at = usize::try_from(at).ok()?;
    let digits = bytes.get(at..at.checked_add(length)?)?.iter();
    let add = |sum: u64, digit: &u8| sum << 8 | u64::from(*digit);
    Some(if bytes.starts_with(b"II") {
        digits.rev().fold(0, add)
    } else {
        digits.fold(0, add)
    })
}

/// The first value of a tag of short numbers.
pub(crate) fn tiff_value(bytes: &[u8], tag: u64) -> Option<u64> {
    let (tags, width) = tiff_tags(bytes)?;
    let found = tags
        .into_iter()
        .find(|found| found.tag == tag && found.kind == 3)?;
    let at = if found.count.checked_mul(2)? > width as u64 {
        tiff_number(bytes, found.at, width)?
    } else {
        found.at
    };
    tiff_number(bytes, at, 2)
}

/// What one number of a TIFF file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Samples {
    bits: u64,
    /// Tag `SampleFormat` (TIFF 6.0, section 19): 1 unsigned, 2 signed, 3 floating point.
    format: u64,
}

/// What the samples of a TIFF file are, by its tags `BitsPerSample` and `SampleFormat`.
pub(crate) fn tiff_samples(bytes: &[u8]) -> Option<Samples> {
    Some(Samples {
        bits: tiff_value(bytes, 258)?,
        format: tiff_value(bytes, 339).unwrap_or(1),
    })
}

impl Samples {
    /// Whether they are no bytes that stand for black to white.
    pub(crate) fn are_clipped(&self) -> bool {
        self.bits > 8 || matches!(self.format, 2 | 3)
    }

    /// Which value is white, for a remedy, where anything is known.
    pub(crate) fn white(&self) -> String {
        match self.format {
            3 => " (1, where they are of 0 to 1)".into(),
            1 if self.bits < 32 => {
                format!(" ({}, where all bits are used)", (1u64 << self.bits) - 1)
            }
            _ => String::new(),
        }
    }
}

impl std::fmt::Display for Samples {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let what = match self.format {
            2 => "signed numbers",
            3 => "floating-point numbers",
            _ => "numbers",
        };
        write!(f, "{what} of {} bits", self.bits)
    }
}

/// Whether the values of the tags lie in the file. The decoder makes room for as many values as a tag says that it has:
/// 267 MB for a file of 570 bytes.
fn tiff_tags_fit(bytes: &[u8]) -> Option<bool> {
    let (tags, width) = tiff_tags(bytes)?;
    for TiffTag {
        tag,
        kind,
        count,
        at,
    } in tags
    {
        let size = match kind {
            3 | 8 => 2,
            4 | 9 | 11 | 13 => 4,
            5 | 10 | 12 | 16..=18 => 8,
            _ => 1,
        };
        let length = count.checked_mul(size)?;
        let end = if length > width as u64 {
            tiff_number(bytes, at, width)?.checked_add(length)?
        } else {
            0
        };
        if tag < PRIVATE && (count > MOST_VALUES || end > bytes.len() as u64) {
            return Some(false);
        }
    }
    Some(true)
}
