//! How many samples show a forgotten image.

use crate::examined::{Examined, Found};
use crate::frequency;
use crate::metric::{About, Finds, Metric, MetricError, Models, Need, ScoreAbout};

const ABOUT: About = About::new(
    "frequency",
    "samples that show any forgotten image",
    Models::Pixels,
)
.meaning("how many samples count as any forgotten image, and as the one that is repeated most")
.needs(&[Need::Samples, Need::Threshold])
.scores(&[
    ScoreAbout::new(
        "repeats",
        "samples that count as a forgotten image; lower is better",
    )
    .number()
    .lowest()
    .finds(Finds::InSamples),
    ScoreAbout::new(
        "repeats_of_one",
        "those that count as the forgotten image that is repeated most",
    )
    .number(),
    ScoreAbout::new(
        "nearest_sample",
        "distance of the nearest sample to the nearest forgotten image; higher is better",
    )
    .highest(),
]);

/// `frequency`.
pub(super) struct Frequency;

impl Metric for Frequency {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn measure(&self, model: &Examined, found: &mut Found) -> Result<(), MetricError> {
        let (images, thresholds) = model.subject.shown();
        let seen = frequency::Frequency::of_any(model.samples(), &images, &thresholds);
        found.add("repeats", seen.repeats as f64, seen.samples);
        if model.subject.images().nth(1).is_some() {
            found.add("repeats_of_one", seen.of_one as f64, seen.samples);
        }
        found.add("nearest_sample", seen.nearest, seen.samples);
        Ok(())
    }
}
