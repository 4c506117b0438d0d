//! What the numbers of an unlearning run say, before and after.

use crate::evidence::probe::Numbers;
use crate::evidence::verdict::{Findings, Tally};

/// What both measurements say of the image, of the retained ones and of the model. `several`: more than one was to be
/// forgotten.
pub(super) fn findings(before: &Numbers, after: &Numbers, several: bool) -> Findings {
    let tally = |found, of| Tally { found, of };
    let mean = retrack_eval::distance::mean;
    let mut quality = Vec::new();
    // Of an image model something was drawn, whatever became of it.
    let drawn = |of: &dyn Fn(&Numbers) -> usize| of(before) + of(after) > 0;
    let attempts = drawn(&|numbers| numbers.distances.len());
    let samples = drawn(&|numbers| numbers.samples);
    if !samples && !drawn(&|numbers| numbers.broken) {
        let image = if several {
            "Forgotten images are"
        } else {
            "The forgotten image is"
        };
        quality.push(format!(
            "{image} denoised with an error of {:.4} before and {:.4} after. Nothing was drawn for this report: \
             `retrack evaluate` does that.",
            mean(&before.forgotten_errors),
            mean(&after.forgotten_errors)
        ));
    }
    Findings {
        several,
        restored: attempts.then(|| {
            (
                Some(tally(before.restored, before.distances.len())),
                tally(after.restored, after.distances.len()),
            )
        }),
        copies: samples.then(|| {
            (
                Some(tally(before.copies, before.samples)),
                tally(after.copies, after.samples),
            )
        }),
        errors: Some((after.forgotten_errors.clone(), after.control_errors.clone())),
        not_finite: [before.not_finite(), after.not_finite()],
        retained: (!before.control_errors.is_empty())
            .then(|| [mean(&before.control_errors), mean(&after.control_errors)]),
        quality,
        standings: [before.standings.clone(), after.standings.clone()],
        restored_look_alikes: [before.restored_look_alikes, after.restored_look_alikes],
        ..Findings::default()
    }
}
