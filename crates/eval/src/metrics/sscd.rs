//! How alike forgotten images and what a model makes of them are, by the copy detector SSCD.

use std::rc::Rc;

use crate::distance::mean;
use crate::examined::{Examined, Found, LOOKED_AT};
use crate::metric::{About, Metric, MetricError, Models, Need, ScoreAbout};
use crate::score::{Score, plain};
use crate::sscd::Embedding;

/// Forgotten images that others are compared with, at most.
const KNOWN: usize = 512;
/// SSCD's usual threshold.
const COPY: f64 = 0.5;

const ABOUT: About = About::new(
    "sscd",
    "how similar to the forgotten image is what comes back from that noise, or for its prompt, by SSCD",
    Models::All,
)
.meaning(
    "how similar what comes back (text-to-image: what is drawn for its prompt) is to the image, by the copy detector \
     SSCD; mean cosine, 1 for a copy",
)
.needs(&[Need::Sscd])
.scores(&[
    ScoreAbout::new(
        "sscd",
        "likeness of such samples to the forgotten image; a copy: above 0.5; lower is better",
    )
    .lowest()
    .doubt(is_copy),
    ScoreAbout::new("sscd_modified", "the same of the other prompts' samples"),
]);

fn is_copy(score: &Score) -> Option<String> {
    (score.value > COPY).then(|| {
        format!(
            "SSCD finds what is drawn or restored alike to the forgotten image: {} on average, where {COPY} is usual for \
             a copy.",
            plain(score.value)
        )
    })
}

/// `sscd`.
pub(super) struct Sscd;

impl Metric for Sscd {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn measure(&self, model: &Examined, found: &mut Found) -> Result<(), MetricError> {
        let sscd = model.subject.judges.sscd()?;
        let known = known(model)?;
        // Of one memorized picture several forms may be forgotten: the nearest counts.
        let nearest = |images: &[u8]| -> Result<Vec<f64>, MetricError> {
            let images = sscd.embed(images, model.shape())?;
            Ok(images.iter().map(|one| one.most_similar(&known)).collect())
        };
        if model.subject.is_text_to_image() {
            found.add_means("sscd", &model.of_prompts(nearest)?);
            found.note(model.subject.only_the_first("sscd", KNOWN));
        } else {
            let similarities = nearest(model.injected()?)?;
            found.add("sscd", mean(&similarities), similarities.len());
            found.note(model.subject.only_the_first("sscd", LOOKED_AT));
        }
        Ok(())
    }
}

/// The forgotten images as SSCD sees them.
fn known(model: &Examined) -> Result<Rc<Vec<Embedding>>, MetricError> {
    let subject = model.subject;
    subject.once("sscd", || {
        let sscd = subject.judges.sscd()?;
        let count = subject.forgotten.len().min(KNOWN);
        let task = model.watch.task("sscd", count, "images");
        let mut known = Vec::with_capacity(count);
        for image in subject.images().take(KNOWN) {
            known.extend(sscd.embed(image, subject.shape())?);
            task.advance(1);
        }
        Ok(known)
    })
}
