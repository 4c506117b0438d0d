//! What the numbers of an unlearning run say, before and after.

use crate::calibration::{Place, Standing};
use crate::evidence::probe::Numbers;
use crate::evidence::verdict::{Findings, Tally};

/// What both measurements say of the images, of the retained ones and of the model. `images`: how many were to be forgotten,
/// the first of those that stand beside look-alikes; the others are those of earlier requests. `sealed`: some of these were measured by
/// their sealed copies.
pub(super) fn findings(before: &Numbers, after: &Numbers, images: usize, sealed: bool) -> Findings {
    let several = images > 1;
    let standings = [before, after].map(|numbers| {
        let standings = &numbers.standings;
        standings.split_at(images.min(standings.len()))
    });
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
    let earlier = standings.map(|(_, earlier)| earlier);
    let (still, earlier) = of_earlier(earlier, sealed);
    Findings {
        several,
        doubts: still.into_iter().collect(),
        earlier,
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
        standings: standings.map(|(requested, _)| requested.to_vec()),
        restored_look_alikes: [before.restored_look_alikes, after.restored_look_alikes],
        ..Findings::default()
    }
}

/// Where images of earlier requests stand, before and after: what speaks against the model, and a sentence.
fn of_earlier([before, after]: [&[Standing]; 2], sealed: bool) -> (Option<String>, Option<String>) {
    if after.is_empty() {
        return (None, None);
    }
    let known = |place: &Place| *place == Place::Known;
    let was = before.iter().map(Standing::place).filter(known).count();
    let pairs = before.iter().zip(after);
    let places = pairs.map(|(before, after)| after.place_after(before));
    let is = places.filter(known).count();
    let place = |known: usize| if known > 0 { "known" } else { "not known" };
    let sentence = match (after.len(), sealed) {
        (1, false) => format!(
            "The image of an earlier request that still lies in the data was {} before and is {} after.",
            place(was),
            place(is)
        ),
        (1, true) => format!(
            "The image of an earlier request, of which a sealed copy was kept, was {} before and is {} after.",
            place(was),
            place(is)
        ),
        (many, false) => format!(
            "{many} images of earlier requests still lie in the data: {was} known before, {is} after."
        ),
        (many, true) => format!(
            "{many} images of earlier requests still lie in the data or were kept sealed: {was} known before, {is} after."
        ),
    };
    match is {
        0 => (None, Some(sentence)),
        _ => (Some(sentence), None),
    }
}
