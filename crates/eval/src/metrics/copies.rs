//! Samples that copy a training image (arXiv 2301.13188).

use retrack_data::BUDGET;
use retrack_networks::schedule::SchedulerConfig;

use crate::copies::{CopiesError, NEIGHBORS, THRESHOLD};
use crate::distance::mean;
use crate::examined::{Examined, Found};
use crate::metric::{About, Finds, Metric, MetricError, Models, Need, ScoreAbout};
use crate::score::Score;
use crate::subject::Subject;

const OF_FORGOTTEN: ScoreAbout = ScoreAbout::new(
    "copies_of_forgotten",
    "share of samples that copy a forgotten image; lower is better",
)
.share()
.lowest()
.finds(Finds::InSamples)
.doubt(are_copies);

const ABOUT: About = About::new(
    "copies",
    "how near samples are to training images",
    Models::Pixels,
)
.meaning("samples much nearer to one training image than to their 50 nearest")
.condition("50 different images")
.needs(&[Need::Samples])
.scores(&[
    ScoreAbout::new("copies", "share of samples that copy some training image").share(),
    OF_FORGOTTEN,
    ScoreAbout::new(
        "distance_to_data",
        "mean distance of a sample to the nearest training image",
    )
    .lowest()
    .quality(3, "Mean distance of a sample to the nearest training image"),
]);

fn are_copies(score: &Score) -> Option<String> {
    let found = OF_FORGOTTEN.found(score);
    (found > 0).then(|| {
        format!(
            "{found} of {} samples are copies of a forgotten image: at most half as far from it as from their 50 nearest \
             training images on average.",
            score.count
        )
    })
}

/// `copies`.
pub(super) struct Copies;

impl Metric for Copies {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn lacks(&self, subject: &Subject, _scheduler: &SchedulerConfig) -> Option<String> {
        match subject.training().and_then(|all| all.enough(NEIGHBORS)) {
            Err(error @ CopiesError::Few { .. }) => Some(error.to_string()),
            // What cannot be read is no lack: it fails when it is measured.
            _ => None,
        }
    }

    fn measure(&self, model: &Examined, found: &mut Found) -> Result<(), MetricError> {
        let training = model.subject.training()?;
        let copies = training.nearest(model.samples(), NEIGHBORS, BUDGET)?;
        let count = copies.nearest.len();
        let distances: Vec<f64> = copies.nearest.iter().map(|one| one.distance).collect();
        found.add("copies", copies.share(THRESHOLD), count);
        let forgotten = copies.share_forgotten(THRESHOLD);
        found.add(OF_FORGOTTEN.name, forgotten, count);
        found.add("distance_to_data", mean(&distances), count);
        Ok(())
    }
}
