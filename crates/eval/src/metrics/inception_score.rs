//! How distinct and how varied samples are to Inception (arXiv 1606.03498).

use crate::examined::{Examined, Found};
use crate::inception::CLASSES;
use crate::inception_score::{InceptionScore, SPLITS};
use crate::metric::{About, Metric, MetricError, Models, Need, ScoreAbout};

const ABOUT: About = About::new("is", "Inception score", Models::Pixels)
    .meaning("Inception Score, equal to torch-fidelity's")
    .needs(&[Need::Samples, Need::Inception])
    .scores(&[ScoreAbout::new("inception_score", "Inception score; higher is better").highest()]);

/// `is`.
pub(super) struct Is;

impl Metric for Is {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn measure(&self, model: &Examined, found: &mut Found) -> Result<(), MetricError> {
        let (inception, _) = model.subject.judges.inception()?;
        let others = model.others()?;
        let logits = inception.describe(others, model.shape())?.logits;
        let count = others.len() / model.subject.data.shape().bytes();
        let score = InceptionScore::of_logits(&logits, CLASSES, SPLITS)?;
        found.add("inception_score", score.mean, count);
        Ok(())
    }
}
