//! How often a model brings a forgotten image back from its noised form (arXiv 2509.13007).

use crate::examined::{Examined, Found, LOOKED_AT};
use crate::injection::Restored;
use crate::metric::{About, Finds, Metric, MetricError, Models, Need, ScoreAbout};

const ABOUT: About = About::new(
    "injection",
    "how often a forgotten image comes back from noise at a quarter of the schedule",
    Models::Pixels,
)
.meaning(
    "how often a forgotten image comes back from its noised form at a quarter of the schedule (timestep 250 of 1000), by \
     ancestral sampling",
)
.needs(&[Need::Denoised, Need::Threshold])
.scores(&[
    ScoreAbout::new(
        "restored",
        "share of attempts that brought one back from noise; lower is better",
    )
    .share()
    .lowest()
    .finds(Finds::InAttempts),
    ScoreAbout::new(
        "restored_distance",
        "mean distance of those attempts to the nearest forgotten image; higher is better",
    )
    .highest(),
    ScoreAbout::new(
        LOOK_ALIKES,
        "share of attempts with look-alikes, which no model saw, that brought these back: what counts lies above",
    )
    .share(),
]);

/// The score that says what comes back of what the model does not know.
pub const LOOK_ALIKES: &str = "restored_look_alikes";

/// `injection`.
pub(super) struct Injection;

impl Metric for Injection {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn measure(&self, model: &Examined, found: &mut Found) -> Result<(), MetricError> {
        let subject = model.subject;
        // An attempt may lead to any of them, whichever it began with.
        let (images, thresholds) = subject.shown();
        let restored = Restored::of(&images, &thresholds, model.injected()?);
        found.add("restored", restored.share, restored.tries);
        found.add("restored_distance", restored.distance, restored.tries);
        let (back, tries) = model.injected_look_alikes()?;
        found.add(LOOK_ALIKES, back as f64 / tries as f64, tries);
        found.note(subject.only_the_first("injection", LOOKED_AT));
        Ok(())
    }
}
