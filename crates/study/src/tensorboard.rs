//! TensorBoard event files: scalars and PNG images, and nothing else.
//!
//! A file is a sequence of TFRecords (length, checksum, data, checksum), each holding one `Event` message of
//! TensorFlow's `event.proto` and `summary.proto`. The few fields in use are encoded here by hand: the crates that
//! write such files are unmaintained or bring a protobuf compiler along.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// The format that the first record of a file names.
const VERSION: &[u8] = b"brain.Event:2";

/// What can go wrong with an event file.
#[derive(Debug, thiserror::Error)]
pub enum TensorboardError {
    /// The system refused the file.
    #[error("{}: cannot write TensorBoard events: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's own error.
        source: io::Error,
    },
    /// An image whose bytes are not a PNG file.
    #[error("TensorBoard image `{tag}` at step {step} is not a PNG file")]
    NotPng {
        /// The image's name.
        tag: String,
        /// The step.
        step: u64,
    },
}

/// Writes `events.out.tfevents.*` in a run's folder, where TensorBoard finds it.
#[derive(Debug)]
pub struct EventWriter {
    path: PathBuf,
    file: BufWriter<File>,
}

impl EventWriter {
    /// A new file in `folder`, which must exist. The files of a folder make up one run, so a resumed run adds one.
    ///
    /// # Errors
    ///
    /// The file cannot be created or written.
    pub fn create(folder: &Path) -> Result<Self, TensorboardError> {
        let seconds = now().as_secs();
        let process = std::process::id();
        let mut count = 0;
        // Two writers of one process may start within a second.
        let (path, file) = loop {
            let path = folder.join(format!(
                "events.out.tfevents.{seconds:010}.retrack.{process}.{count}"
            ));
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => break (path, file),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => count += 1,
                Err(source) => return Err(TensorboardError::Io { path, source }),
            }
        };
        let mut writer = Self {
            path,
            file: BufWriter::new(file),
        };
        writer.write(&event(now().as_secs_f64(), 0, 3, VERSION))?;
        writer.flush()?;
        Ok(writer)
    }

    /// Whether a file's name is one that [`create`](Self::create) gives.
    pub fn is_name(name: &str) -> bool {
        let parts: Vec<&str> = name.split('.').collect();
        let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        matches!(parts[..], ["events", "out", "tfevents", seconds, "retrack", process, count]
            if [seconds, process, count].into_iter().all(is_number))
    }

    /// Where the events go.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Says that the run goes on at `step`: TensorBoard drops what earlier files hold from there on, which an
    /// interrupted run wrote after its last checkpoint.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn resume_at(&mut self, step: u64) -> Result<(), TensorboardError> {
        self.write(&event(now().as_secs_f64(), step, 7, &session_start()))
    }

    /// Adds values, each under its tag.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn scalars(&mut self, step: u64, values: &[(&str, f32)]) -> Result<(), TensorboardError> {
        self.write(&event(
            now().as_secs_f64(),
            step,
            5,
            &scalar_summary(values),
        ))
    }

    /// Adds a picture: the bytes of a PNG file.
    ///
    /// # Errors
    ///
    /// The bytes are not a PNG file, or the event file cannot be written.
    pub fn image(&mut self, step: u64, tag: &str, png: &[u8]) -> Result<(), TensorboardError> {
        let summary = image_summary(tag, png).ok_or_else(|| TensorboardError::NotPng {
            tag: tag.to_owned(),
            step,
        })?;
        self.write(&event(now().as_secs_f64(), step, 5, &summary))
    }

    /// Hands everything written so far to the operating system.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn flush(&mut self) -> Result<(), TensorboardError> {
        self.file.flush().map_err(|source| self.error(source))
    }

    fn write(&mut self, event: &[u8]) -> Result<(), TensorboardError> {
        self.file
            .write_all(&record(event))
            .map_err(|source| self.error(source))
    }

    fn error(&self, source: io::Error) -> TensorboardError {
        TensorboardError::Io {
            path: self.path.clone(),
            source,
        }
    }
}

fn now() -> std::time::Duration {
    // A clock before 1970 shows wrong dates; that is no reason to stop a run.
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// `Event { wall_time = 1, step = 2, what }`: `what` is file_version = 3, summary = 5 or session_log = 7.
fn event(wall_time: f64, step: u64, what: u32, content: &[u8]) -> Vec<u8> {
    let mut event = Message::default();
    event.double(1, wall_time);
    event.varint(2, step);
    event.bytes(what, content);
    event.0
}

/// `SessionLog { status = 1 }`.
fn session_start() -> Vec<u8> {
    const START: u64 = 1;
    let mut log = Message::default();
    log.varint(1, START);
    log.0
}

/// `Summary { value = 1: { tag = 1, simple_value = 2 } }`.
fn scalar_summary(values: &[(&str, f32)]) -> Vec<u8> {
    let mut summary = Message::default();
    for (tag, number) in values {
        let mut value = Message::default();
        value.bytes(1, tag.as_bytes());
        value.float(2, *number);
        summary.bytes(1, &value.0);
    }
    summary.0
}

/// `Summary { value = 1: { tag = 1, image = 4: { height = 1, width = 2, colorspace = 3, encoded_image_string = 4 } } }`.
fn image_summary(tag: &str, png: &[u8]) -> Option<Vec<u8>> {
    // Signature, then the header's length and name, width, height, bit depth and color type.
    if !png.starts_with(b"\x89PNG\r\n\x1a\n") || png.get(12..16)? != b"IHDR" {
        return None;
    }
    let size = |from| {
        Some(u32::from_be_bytes(
            png.get(from..from + 4)?.try_into().ok()?,
        ))
    };
    let channels = match png.get(25)? {
        0 => 1,     // gray
        4 => 2,     // gray with alpha
        2 | 3 => 3, // color, palette
        6 => 4,     // color with alpha
        _ => return None,
    };
    let mut image = Message::default();
    image.varint(1, size(20)?.into());
    image.varint(2, size(16)?.into());
    image.varint(3, channels);
    image.bytes(4, png);
    let mut value = Message::default();
    value.bytes(1, tag.as_bytes());
    value.bytes(4, &image.0);
    let mut summary = Message::default();
    summary.bytes(1, &value.0);
    Some(summary.0)
}

/// A protobuf message under construction.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    /// Zero is what an absent field means.
    fn varint(&mut self, field: u32, value: u64) {
        if value != 0 {
            self.key(field, 0);
            self.number(value);
        }
    }

    fn double(&mut self, field: u32, value: f64) {
        self.key(field, 1);
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, field: u32, value: &[u8]) {
        self.key(field, 2);
        self.number(value.len() as u64);
        self.0.extend(value);
    }

    fn float(&mut self, field: u32, value: f32) {
        self.key(field, 5);
        self.0.extend(value.to_le_bytes());
    }

    fn key(&mut self, field: u32, wire_type: u32) {
        self.number(u64::from(field << 3 | wire_type));
    }

    /// Seven bits a byte, the lowest first; the top bit says that more follow.
    fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

/// TFRecord framing: u64 length, checksum of the length, data, checksum of the data, all little-endian.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(data.len() + 16);
    record.extend(length);
    record.extend(masked_crc32c(&length).to_le_bytes());
    record.extend(data);
    record.extend(masked_crc32c(data).to_le_bytes());
    record
}

/// TFRecord rotates and shifts the checksum, so that one of data that holds checksums stays a good one.
fn masked_crc32c(data: &[u8]) -> u32 {
    crc32c::crc32c(data)
        .rotate_right(15)
        .wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: f64 = 1_700_000_000.5;
    /// 5 x 3 red pixels.
    const PNG: &str = "89504e470d0a1a0a0000000d4948445200000005000000030802000000d45452af\
                       0000001049444154789c63fccf80029818f0f3012f910105b112327a0000000049454e44ae426082";

    fn bytes(hex: &str) -> Vec<u8> {
        let digit = |byte: u8| (byte as char).to_digit(16).unwrap() as u8;
        hex.as_bytes()
            .chunks_exact(2)
            .map(|pair| digit(pair[0]) << 4 | digit(pair[1]))
            .collect()
    }

    #[test]
    fn crc32c_gives_the_published_check_values() {
        // RFC 3720 appendix B.4, and the usual check string.
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c::crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
    }

    // The bytes of these tests: `RecordWriter` and the protobuf classes of the Python package tensorboard 2.21.0.

    #[test]
    fn the_version_record_equals_that_of_tensorboard() {
        assert_eq!(
            record(&event(TIME, 0, 3, VERSION)),
            bytes(
                "1800000000000000a37f4b220900002040fc54d9411a0d627261696e2e4576656e743a322b353110"
            )
        );
    }

    #[test]
    fn a_scalar_record_equals_that_of_tensorboard() {
        let summary = scalar_summary(&[("loss", 0.25), ("grad_norm", -2.0)]);
        assert_eq!(
            record(&event(TIME, 300, 5, &summary)),
            bytes(
                "2d000000000000003c418afb0900002040fc54d94110ac022a1f0a0b0a046c6f7373150000803e\
                 0a100a09677261645f6e6f726d15000000c0e76b2357"
            )
        );
    }

    #[test]
    fn a_resume_record_equals_that_of_tensorboard() {
        assert_eq!(
            record(&event(TIME, 300, 7, &session_start())),
            bytes("100000000000000095fbfe180900002040fc54d94110ac023a020801b94512a3")
        );
    }

    #[test]
    fn an_image_record_equals_that_of_tensorboard() {
        let summary = image_summary("x", &bytes(PNG)).unwrap();
        let mut expected = bytes(
            "6500000000000000ebd05a690900002040fc54d94110032a580a560a017822510803100518032249",
        );
        expected.extend(bytes(PNG));
        expected.extend(bytes("28da08a0"));
        assert_eq!(record(&event(TIME, 3, 5, &summary)), expected);
    }

    #[test]
    fn what_is_not_a_png_file_is_refused_by_tag_and_step() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::create(folder.path()).unwrap();
        for bytes in [&b"GIF89a"[..], &bytes(PNG)[..20], b""] {
            let message = writer.image(4, "samples", bytes).unwrap_err().to_string();
            assert_eq!(
                message,
                "TensorBoard image `samples` at step 4 is not a PNG file"
            );
        }
    }

    #[test]
    fn a_file_holds_its_records_in_order_and_a_second_writer_has_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = EventWriter::create(folder.path()).unwrap();
        let second = EventWriter::create(folder.path()).unwrap();
        assert_ne!(first.path(), second.path());
        let name = first.path().file_name().unwrap().to_str().unwrap();
        assert!(name.starts_with("events.out.tfevents."), "{name}");

        first.resume_at(7).unwrap();
        first.scalars(7, &[("loss", 1.0)]).unwrap();
        first.image(7, "samples", &bytes(PNG)).unwrap();
        first.flush().unwrap();
        let file = std::fs::read(first.path()).unwrap();
        let mut rest = &file[..];
        let mut lengths = Vec::new();
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            assert_eq!(record(&rest[12..12 + length]), rest[..length + 16]);
            lengths.push(length);
            rest = &rest[length + 16..];
        }
        let wall_time_and_step = 11;
        assert_eq!(
            lengths,
            [
                24,
                wall_time_and_step + 4,
                wall_time_and_step + 2 + scalar_summary(&[("loss", 1.0)]).len(),
                wall_time_and_step + 2 + image_summary("samples", &bytes(PNG)).unwrap().len(),
            ]
        );
    }

    #[test]
    fn a_folder_that_does_not_exist_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = EventWriter::create(&folder.path().join("missing")).unwrap_err();
        assert!(
            error.to_string().contains("missing/events.out.tfevents."),
            "{error}"
        );
    }
}
