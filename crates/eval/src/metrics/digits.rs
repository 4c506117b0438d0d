//! How good samples of digits are, by this project's own classifier.

use retrack_networks::schedule::SchedulerConfig;

use super::fid::{add_frechet, same_classes};
use crate::digits::{DIGITS, DigitClassifier, FEATURES, SIDE};
use crate::examined::{Examined, Found};
use crate::frechet::FeatureStatistics;
use crate::inception_score::InceptionScore;
use crate::metric::{About, Metric, MetricError, Models, Need, ScoreAbout};
use crate::subject::Subject;

const ABOUT: About = About::new(
    "digits",
    "quality of digits by this project's own classifier (28 x 28 gray)",
    Models::Pixels,
)
.meaning(
    "Frechet distance and score in the features of a small digit classifier of ours: not FID, not IS",
)
.condition("28 x 28 gray")
.needs(&[Need::Samples])
.scores(&[
    ScoreAbout::new(
        "digit_frechet",
        "Frechet distance in our digit classifier's features, not FID; lower is better",
    )
    .lowest()
    .quality(1, "Frechet distance of the digits to the retained ones"),
    ScoreAbout::new(
        "digit_score",
        "score by our digit classifier, not IS; higher is better",
    )
    .highest(),
]);

/// `digits`.
pub(super) struct Digits;

impl Metric for Digits {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn lacks(&self, subject: &Subject, _scheduler: &SchedulerConfig) -> Option<String> {
        let fits = subject.shape() == [SIDE, SIDE, 1];
        match fits {
            true => subject.lacks_like(),
            false => Some(format!("made for {SIDE} x {SIDE} gray digits")),
        }
    }

    fn measure(&self, model: &Examined, found: &mut Found) -> Result<(), MetricError> {
        let subject = model.subject;
        let classifier = DigitClassifier::shipped(model.device);
        let classes = model.drawn_classes();
        let retained = subject.once("digits", || {
            let images = subject.read(&subject.like(&classes))?;
            let seen = classifier.digits(&images, model.device);
            let statistics = FeatureStatistics::of(FEATURES, &seen.features);
            Ok((classes.clone(), statistics))
        })?;
        same_classes(&retained.0, &classes)?;
        let others = model.others()?;
        let seen = classifier.digits(others, model.device);
        let count = others.len() / subject.data.shape().bytes();
        add_frechet(found, "digit_frechet", &seen.features, &retained.1)?;
        let score = InceptionScore::of_probabilities(&seen.probabilities, DIGITS, 1)?;
        found.add("digit_score", score.mean, count);
        Ok(())
    }
}
