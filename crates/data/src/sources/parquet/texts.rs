//! A Parquet column of texts where images are looked for: what the texts are, and a way to the images.

use std::path::Path;

use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;

use super::columns::read_texts;
use super::rows::guarded;
use crate::error::DataError;
use crate::foreign::typed;
use crate::sources::images::is_image_name;

/// Rows in which a text is looked for.
const MOST_ROWS: usize = 100;
/// How the files of images begin in Base64: PNG, JPEG, GIF, WebP, BMP, TIFF of both orders.
const ENCODED: [&str; 7] = [
    "iVBORw0KGgo",
    "/9j/",
    "R0lGOD",
    "UklGR",
    "Qk",
    "SUkqA",
    "TU0AK",
];
/// Shorter texts are no image in Base64: the smallest PNG file has 67 bytes.
const SHORTEST: usize = 80;
/// Letters of a text that are shown.
const SHOWN: usize = 60;

#[derive(Debug, PartialEq)]
enum Kind {
    Url,
    Base64,
    Path,
    Other,
}

fn kind_of(text: &str) -> Kind {
    let text = text.trim();
    let data = match text.strip_prefix("data:") {
        Some(rest) => rest.split_once("base64,").map_or(rest, |(_, data)| data),
        None => text,
    };
    let is_letter = |byte: u8| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'\r' | b'\n')
    };
    let begins = ENCODED.iter().any(|start| data.starts_with(start));
    if begins && data.len() >= SHORTEST && data.bytes().all(is_letter) {
        Kind::Base64
    } else if text.contains("://") {
        Kind::Url
    } else if is_image_name(Path::new(text)) {
        Kind::Path
    } else {
        Kind::Other
    }
}

/// What the texts in the leaf `column` are instead of images, with a remedy.
///
/// # Errors
/// A damaged file.
pub(super) fn problem(
    path: &Path,
    metadata: &ParquetMetaData,
    column: usize,
) -> Result<String, DataError> {
    let first = guarded(path, || first_text(path, metadata, column))?;
    let descriptor = metadata.file_metadata().schema_descr().column(column);
    let name = &descriptor.path().parts()[0];
    const AGAIN: &str = "write the table again with their bytes in it";
    let Some(text) = first else {
        return Ok(format!(
            "its `{name}` column holds texts, not images; {AGAIN}"
        ));
    };
    let in_struct = descriptor.path().parts().len() > 1;
    Ok(match kind_of(&text) {
        Kind::Path => format!(
            "its `{name}` column holds paths, not images; open the folder of the images instead, or {AGAIN}"
        ),
        Kind::Url => format!(
            "its `{name}` column holds addresses ({}), not images; fetch the images into a folder and open that, or {AGAIN}",
            shown(&text)
        ),
        Kind::Base64 if !in_struct => format!(
            "its `{name}` column holds images as Base64 texts, which are not read; write them as bytes: python -c \"import \
             base64, pyarrow, pyarrow.parquet as p; t = p.read_table('{}'); i = t.column_names.index('{name}'); \
             p.write_table(t.set_column(i, 'image', pyarrow.array([x and base64.b64decode(x.split(',')[-1]) for x in \
             t[i].to_pylist()], pyarrow.binary())), 'images.parquet')\"",
            typed(path)
        ),
        Kind::Base64 | Kind::Other => format!(
            "its `{name}` column holds texts ({}), not images; if they name the images, open the folder of these instead, \
             or {AGAIN}",
            shown(&text)
        ),
    })
}

/// The first text of a column that is not empty, among the first rows.
fn first_text(
    path: &Path,
    metadata: &ParquetMetaData,
    column: usize,
) -> Result<Option<String>, ParquetError> {
    for (group, of_group) in metadata.row_groups().iter().enumerate() {
        let rows = usize::try_from(of_group.num_rows()).unwrap_or(0);
        let texts = read_texts(path, metadata, group, column, rows.min(MOST_ROWS))?;
        let mut texts = texts.into_iter().flatten().flatten();
        if let Some(text) = texts.find(|text| !text.is_empty()) {
            return Ok(Some(text));
        }
    }
    Ok(None)
}

/// The start of a text from a file, in quotes and without control characters.
fn shown(text: &str) -> String {
    let start: String = text.chars().take(SHOWN).collect();
    match start.len() == text.len() {
        true => format!("{start:?}"),
        false => format!("{start:?}..."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_images_in_base64_and_paths_are_told_apart() {
        let png = format!("iVBORw0KGgo{}", "A".repeat(100));
        for (text, kind) in [
            ("https://example.org/a.png", Kind::Url),
            ("s3://bucket/a.jpg", Kind::Url),
            (png.as_str(), Kind::Base64),
            (&format!("data:image/png;base64,{png}"), Kind::Base64),
            (&format!("/9j/{}", "4AAQSkZJRg/".repeat(20)), Kind::Base64),
            ("images/a.png", Kind::Path),
            ("/9j/a.jpg", Kind::Path),
            ("a cat", Kind::Other),
            ("iVBORw0KGgo", Kind::Other),
        ] {
            assert_eq!(kind_of(text), kind, "{text}");
        }
    }
}
