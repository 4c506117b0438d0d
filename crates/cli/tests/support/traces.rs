//! Finds an image in whatever a run leaves behind: its pixels as bytes, as numbers, or in a picture inside a file.

/// Pixels in a row that make a trace: eight random bytes do not come together twice by chance.
const RUN: usize = 8;
/// Largest enlargement of a picture that is looked into.
const ZOOM: usize = 8;

/// The rows of a gray image.
pub struct Traces {
    rows: Vec<Vec<u8>>,
    bytes: Vec<Vec<u8>>,
}

impl Traces {
    /// `file`: the image's own file, whose compressed content would give it away too.
    pub fn of(pixels: &[u8], side: usize, file: &[u8]) -> Self {
        let rows: Vec<Vec<u8>> = pixels.chunks(side).map(|row| row[..RUN].to_vec()).collect();
        let mut bytes = vec![file.to_vec()];
        if let Some(start) = find(file, b"IDAT") {
            bytes.push(file[start + 4..][..24].to_vec());
        }
        for row in &rows {
            bytes.push(row.clone());
            // As color, three times each.
            bytes.push(row.iter().flat_map(|&byte| [byte; 3]).collect());
            // As the network sees them, and as metrics do.
            let scales: [fn(f32) -> f32; 2] = [|byte| byte / 127.5 - 1.0, |byte| byte / 255.0];
            for scale in scales {
                let values: Vec<f32> = row.iter().map(|&byte| scale(f32::from(byte))).collect();
                bytes.push(values.iter().flat_map(|v| v.to_le_bytes()).collect());
                bytes.push(
                    values
                        .iter()
                        .flat_map(|&v| f64::from(v).to_le_bytes())
                        .collect(),
                );
            }
            // As text: lists of numbers in JSON.
            for between in [",", ", ", " "] {
                let numbers: Vec<String> = row.iter().map(u8::to_string).collect();
                bytes.push(numbers.join(between).into_bytes());
            }
        }
        Self { rows, bytes }
    }

    /// Whether a file's content shows the image anywhere.
    pub fn found_in(&self, content: &[u8]) -> bool {
        self.bytes
            .iter()
            .any(|trace| find(content, trace).is_some())
            || pictures(content).any(|picture| self.in_picture(picture))
            || encoded(content)
                .iter()
                .any(|decoded| self.found_in(decoded))
    }

    /// Looks into a picture, which may be an enlarged grid of many.
    fn in_picture(&self, picture: &[u8]) -> bool {
        let Ok(picture) = image::load_from_memory(picture) else {
            return false;
        };
        let gray = picture.to_luma8();
        let width = gray.width() as usize;
        gray.as_raw().chunks(width).any(|line| {
            (1..=ZOOM).any(|zoom| {
                (0..zoom.min(width)).any(|offset| {
                    let line: Vec<u8> = line[offset..].iter().copied().step_by(zoom).collect();
                    self.rows.iter().any(|row| find(&line, row).is_some())
                })
            })
        })
    }
}

fn find(content: &[u8], part: &[u8]) -> Option<usize> {
    content
        .windows(part.len())
        .position(|window| window == part)
}

/// Every PNG or JPEG that begins anywhere in a file: alone, or in an event of TensorBoard. A decoder stops at its end.
fn pictures(content: &[u8]) -> impl Iterator<Item = &[u8]> {
    const STARTS: [&[u8]; 2] = [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"];
    (0..content.len())
        .map(move |start| &content[start..])
        .filter(|rest| STARTS.iter().any(|start| rest.starts_with(start)))
}

/// What follows `base64,` in a page or a JSON file.
fn encoded(content: &[u8]) -> Vec<Vec<u8>> {
    const MARK: &[u8] = b"base64,";
    let mut found = Vec::new();
    let mut rest = content;
    while let Some(start) = find(rest, MARK) {
        rest = &rest[start + MARK.len()..];
        let mut decoded = Vec::new();
        let (mut bits, mut count) = (0u32, 0);
        for &letter in rest {
            let value = match letter {
                b'A'..=b'Z' => letter - b'A',
                b'a'..=b'z' => letter - b'a' + 26,
                b'0'..=b'9' => letter - b'0' + 52,
                b'+' | b'-' => 62,
                b'/' | b'_' => 63,
                _ => break,
            };
            bits = bits << 6 | u32::from(value);
            count += 6;
            if count >= 8 {
                count -= 8;
                decoded.push((bits >> count) as u8);
            }
        }
        found.push(decoded);
    }
    found
}
