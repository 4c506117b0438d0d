//! Images in a format of one's own: the shipped model forgets its T-shirt from a file that no other program reads.
//!
//! `cargo run --release -p retrack-study --example own_data -- OUT [STEPS]`

use std::borrow::Cow;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use retrack_data::{DataError, Dataset, Form, ImageShape, OpenOptions, Source};
use retrack_study::source::DataSource;
use retrack_study::task::Task;
use retrack_study::unlearn::unlearn;

/// A file of records: a label in one byte, then 28 x 28 bytes of gray.
struct Records(Vec<u8>);

const SHAPE: ImageShape = ImageShape {
    height: 28,
    width: 28,
    channels: 1,
};
const RECORD: usize = 1 + 28 * 28;

impl Source for Records {
    fn kind(&self) -> &'static str {
        "file of records"
    }

    fn form(&self) -> Form {
        Form::Pixels(SHAPE)
    }

    fn len(&self) -> usize {
        self.0.len() / RECORD
    }

    fn label(&self, row: usize) -> Option<i64> {
        Some(self.0[row * RECORD].into())
    }

    fn stored(&self, row: usize) -> Result<Cow<'_, [u8]>, DataError> {
        Ok(Cow::Borrowed(&self.0[row * RECORD + 1..][..RECORD - 1]))
    }
}

/// The shipped images in that format.
fn records(parquet: &Path) -> Result<Vec<u8>, DataError> {
    let images = Dataset::open(parquet, &OpenOptions::default())?;
    let mut bytes = vec![0; images.len() * RECORD];
    for (row, record) in bytes.chunks_exact_mut(RECORD).enumerate() {
        record[0] = images.label(row).unwrap_or(0) as u8;
        images.read(row, &mut record[1..])?;
    }
    Ok(bytes)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let out = PathBuf::from(words.next().unwrap_or_else(|| "forgotten".into()));
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets");
    let path = out.with_extension("records");
    fs::write(&path, records(&assets.join("digits.parquet"))?)?;

    let data = DataSource::of(&path, Records(fs::read(&path)?));
    let mut task = Task::new(&assets.join("base-model"), &data, "label:10", &out, "cpu");
    task.preset = Some("demo".into());
    task.recipe.steps = words.next().map(|steps| steps.parse()).transpose()?;
    let run = unlearn(&task, &mut ()).map_err(|failure| failure.message)?;
    let report = run.expect("no dry run").report.expect("one was made");
    println!("{}. {}", report.verdict.headline, report.verdict.sentence);
    Ok(())
}
