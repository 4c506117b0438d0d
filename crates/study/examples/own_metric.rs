//! A metric of one's own, outside the list, beside one of the list: how much ink the samples of a model have.
//!
//! `cargo run --release -p retrack-study --example own_metric -- [MODEL [SAMPLES]]`

use std::path::{Path, PathBuf};

use retrack_eval::examined::{Examined, Found};
use retrack_eval::metric::{About, Metric, MetricError, Models, Need, ScoreAbout};
use retrack_eval::metrics;
use retrack_study::evaluation::Protocol;
use retrack_study::failure::Failure;
use retrack_study::machine;
use retrack_study::model::open_images;
use retrack_study::source::DataSource;

struct Ink;

const ABOUT: About = About::new("ink", "how much ink samples have", Models::Pixels)
    .needs(&[Need::Samples])
    .scores(&[ScoreAbout::new("ink", "mean share of light pixels")]);

impl Metric for Ink {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn measure(&self, model: &Examined, found: &mut Found) -> Result<(), MetricError> {
        let pixels = model.samples();
        let light = pixels.iter().filter(|&&pixel| pixel > 127).count();
        let samples = pixels.len() / model.shape().iter().product::<usize>();
        found.add("ink", light as f64 / pixels.len() as f64, samples);
        Ok(())
    }
}

fn measure() -> Result<(), Failure> {
    let mut words = std::env::args().skip(1);
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets");
    let model = words.next().map(PathBuf::from);
    let model = model.unwrap_or_else(|| assets.join("base-model"));
    let samples = words
        .next()
        .map_or(64, |word| word.parse().expect("a number"));

    let frequency = metrics::named("frequency").expect("one of the list");
    let protocol = Protocol::new(vec![&Ink, frequency], samples, 10);
    let device = machine::device("cpu")?;
    let data = open_images(&DataSource::at(&assets.join("digits.parquet")), Some(1))?;
    let judges = protocol.judges(&data, &device)?;
    let subject = protocol.subject(&data, &["label:10".into()], None, &judges, None)?;
    let found = protocol.evaluate(&model, &subject, None, 0, &device)?;
    for score in &found.scores {
        println!("{}: {} of {}", score.name, score.value, score.count);
    }
    assert!(found.failed.is_empty() && found.skipped.is_empty());
    Ok(())
}

fn main() {
    measure().unwrap_or_else(|failure| panic!("{}", failure.message));
}
