//! After how many steps of further training a forgotten image is back.

use crate::examined::{Examined, Found};
use crate::metric::{About, Metric, MetricError, Models, Need, ScoreAbout};
use crate::relearn::{IMAGES, NAME, Steps};
use crate::score::Score;

const ABOUT: About = About::new(
    NAME,
    "after how many steps of further training a forgotten image comes back",
    Models::Pixels,
)
.meaning(
    "steps of further training until the image comes back: of a copy, on retained images alone, on the image, and, to compare with, on \
     images never seen or else on look-alikes",
)
.needs(&[Need::Denoised, Need::Threshold])
.takes(&[Need::Controls])
.scores(&[
    ScoreAbout::new(
        "relearn_retained",
        "steps of training on retained images alone until the image is back; >: not within so many; higher is better",
    )
    .highest(),
    ScoreAbout::new(
        "relearn_image",
        "the same on the image itself; fewer than of images never seen: a trace of it was left",
    ),
    ScoreAbout::new(
        "relearn_unseen",
        "the same of images never seen, each on itself: what the line above is to be compared with",
    ),
]);

/// `relearn`.
pub(super) struct Relearn;

impl Metric for Relearn {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn measure(&self, model: &Examined, found: &mut Found) -> Result<(), MetricError> {
        let relearned = model.relearned()?;
        let mut add = |name, steps: &[Steps]| {
            let (median, at_least) = relearned.median(steps);
            let score = Score::new(name, median, steps.len());
            found.scores.push(Score { at_least, ..score });
        };
        let [retained, image, unseen] = relearned.kinds();
        add("relearn_retained", &retained);
        add("relearn_image", &image);
        add("relearn_unseen", &unseen);
        found.note((relearned.median(&unseen) == (0.0, false)).then(|| {
            "images never seen come back before a step is taken, so the steps of relearn say nothing".into()
        }));
        found.note(model.subject.only_the_first("relearn", IMAGES));
        Ok(())
    }
}
