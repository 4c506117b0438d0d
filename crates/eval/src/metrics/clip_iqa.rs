//! How good a text-to-image model's samples look (CLIP-IQA, arXiv 2207.12396).

use crate::examined::{Examined, Found};
use crate::metric::{About, Metric, MetricError, Models, Need, ScoreAbout};

const ABOUT: About = About::new(
    "clip-iqa",
    "how good samples look, from 0 to 1",
    Models::Prompts,
)
.meaning("how good samples look, by CLIP between \"good photo\" and \"bad photo\"")
.needs(&[Need::Samples, Need::Clip])
.scores(&[
    ScoreAbout::new(
        "clip_iqa",
        "how good samples of the forgotten prompt look, 0 to 1; higher is better",
    )
    .highest(),
    ScoreAbout::new(
        "clip_iqa_modified",
        "the same of the other prompts' samples",
    )
    .highest()
    .quality(2, "CLIP-IQA of the other prompts' samples"),
]);

/// `clip-iqa`.
pub(super) struct ClipIqa;

impl Metric for ClipIqa {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn measure(&self, model: &Examined, found: &mut Found) -> Result<(), MetricError> {
        let clip = model.subject.judges.clip()?;
        let scores = model.of_prompts(|samples| Ok(clip.scores(samples, model.shape())?))?;
        found.add_means("clip_iqa", &scores);
        Ok(())
    }
}
