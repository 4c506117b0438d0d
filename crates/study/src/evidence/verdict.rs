//! The verdict: one sentence with its numbers, and what speaks against it.

use retrack_eval::distance::mean;
use retrack_eval::report::{Outcome, Verdict};

use super::advice::Advice;
use crate::calibration::{Place, Standing};
use crate::failure::Failure;
use crate::field::Field;

/// So many of so many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Pictures that count as a forgotten image.
    pub found: usize,
    /// Pictures looked at.
    pub of: usize,
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {}", self.found, self.of)
    }
}

/// What a verdict rests on. Pairs hold the model before (where it is known) and after.
#[derive(Debug, Clone, Default)]
pub struct Findings {
    /// More than one distinct image was forgotten.
    pub several: bool,
    /// Attempts that brought a forgotten image back.
    pub restored: Option<(Option<Tally>, Tally)>,
    /// Samples that count as a forgotten image.
    pub copies: Option<(Option<Tally>, Tally)>,
    /// Denoising errors after: of the forgotten images, and of retained ones.
    pub errors: Option<(Vec<f64>, Vec<f64>)>,
    /// Mean denoising errors of retained images, before and after.
    pub retained: Option<[f64; 2]>,
    /// The membership score after, with its interval: below one half the images are denoised worse than others.
    pub membership: Option<(f64, [f64; 2])>,
    /// Samples, attempts and denoising errors that are not finite, before and after.
    pub not_finite: [Tally; 2],
    /// Sentences about quality.
    pub quality: Vec<String>,
    /// Where each forgotten image stands among its look-alikes, before and after; empty where nobody looked.
    pub standings: [Vec<Standing>; 2],
    /// Whether the model of before was found to know one by another look than the report's, where there was one.
    pub found_known: Option<bool>,
    /// Attempts that brought a look-alike back, before and after; as many were made as of the forgotten images.
    pub restored_look_alikes: [Option<usize>; 2],
    /// Where images of earlier requests stand, a sentence.
    pub earlier: Option<String>,
    /// Sentences that speak against forgetting whatever the tests found.
    pub doubts: Vec<String>,
    /// What to do next.
    pub advice: Advice,
}

/// The forgotten images' mean error above this multiple of the highest retained one: they are avoided.
const AVOIDED: f64 = 2.0;
/// Retained images' error above this multiple of what it was: the model lost what it should keep.
const DAMAGED: f64 = 1.25;

/// "+3%", "-0.4%", "unchanged".
fn change(before: f64, after: f64) -> String {
    let percent = 100.0 * (after / before - 1.0);
    match percent.abs() {
        small if small < 0.05 => "unchanged".into(),
        small if small < 0.95 => format!("{percent:+.1}%"),
        _ => format!("{percent:+.0}%"),
    }
}

impl Findings {
    /// The verdict that they come to.
    pub fn verdict(&self) -> Verdict {
        let image = if self.several {
            "the forgotten images"
        } else {
            "the forgotten image"
        };
        let mut sentences = Vec::new();
        if let Some((before, after)) = &self.restored {
            let what = format!("attempts brought {image} back from noise");
            sentences.push(match before {
                Some(before) => format!("Before: {before} {what}; after: {after}."),
                None => format!("{after} {what}."),
            });
            let others = "As many attempts with look-alikes, which no model saw, brought";
            match self.restored_look_alikes {
                [Some(before), Some(after)] => {
                    sentences.push(format!("{others} {before} back before and {after} after."))
                }
                [None, Some(after)] => sentences.push(format!("{others} {after} back.")),
                [_, None] => (),
            }
        }
        if let Some((before, after)) = &self.copies {
            sentences.push(match before {
                Some(before) => format!(
                    "Among samples with the same seeds, {before} showed {image} before and {after} after."
                ),
                None => format!("{after} samples showed {image}."),
            });
        }
        if let Some([before, after]) = self.retained
            && (before + after).is_finite()
        {
            sentences.push(format!(
                "Retained images are denoised with an error of {before:.4} before and {after:.4} after ({}).",
                change(before, after)
            ));
        }
        sentences.extend(self.quality.iter().cloned());
        let mut notes = Vec::new();
        sentences.extend(self.beside_look_alikes());
        sentences.extend(self.earlier.clone());
        let [place_before, place_after] = self.places();
        let restored = self
            .restored
            .map(|tallies| self.beyond_look_alikes(tallies, &mut notes));
        let tests: Vec<(Option<Tally>, Tally)> =
            [restored, self.copies].into_iter().flatten().collect();
        let worst = tests
            .iter()
            .map(|(_, after)| after.found)
            .max()
            .unwrap_or(0);
        let drawn_before = tests
            .iter()
            .any(|(before, _)| before.is_some_and(|before| before.found > 0));
        // A model may know an image and seldom draw it.
        let seen_before = drawn_before || place_before == Some(Place::Known);
        // A run that led other images, or none, taught the model nothing of this one.
        let left_alone = self.found_known == Some(false) && !seen_before;
        let known_before =
            place_before.is_some() || tests.iter().any(|(before, _)| before.is_some());
        let less = tests.iter().all(|(before, after)| {
            before.is_some_and(|before| after.found * before.of < before.found * after.of)
                || after.found == 0
        });
        let reserved = self.reservations(image, &mut notes);
        notes.extend(self.controls_of_another_kind(image));
        let [broken_before, broken_after] = self.not_finite.map(|tally| tally.found > 0);
        let is_broken = worst == 0 && broken_after;
        let (outcome, headline) = if is_broken {
            (
                Outcome::Inconclusive,
                "The model that was written is broken, so these tests cannot tell".into(),
            )
        } else if worst == 0 && place_after == Some(Place::Known) && !left_alone {
            (
                Outcome::StillFound,
                format!(
                    "Known: {image} {} still denoised better than look-alikes",
                    self.are()
                ),
            )
        } else if worst == 0
            && !seen_before
            && place_before.is_some_and(|place| place != Place::Known)
        {
            let (was, it) = match self.several {
                true => ("were", "them"),
                false => ("was", "it"),
            };
            notes.insert(
                0,
                format!("The model before knew {it} no better than look-alikes that nobody has."),
            );
            (
                Outcome::Inconclusive,
                format!("{} {was} not shown to be memorized", capital(image)),
            )
        } else if tests.is_empty() && place_after.is_none() {
            (Outcome::Measured, "Measured".to_string())
        } else if worst > 0 {
            let weaker = match less && known_before {
                true => "weaker, but ",
                false => "",
            };
            let headline = format!("{weaker}{image} {} still found", self.are());
            let headline = match place_after {
                Some(Place::Known) => format!("Known: {headline}"),
                _ => capital(&headline),
            };
            (Outcome::StillFound, headline)
        } else if known_before && !seen_before {
            notes.insert(
                0,
                format!("The model before did not show {image} in these tests either, so they say nothing about forgetting."),
            );
            (Outcome::Inconclusive, "These tests cannot tell".into())
        } else {
            if !known_before {
                let (it, was) = if self.several {
                    ("they", "were")
                } else {
                    ("it", "was")
                };
                notes.push(format!(
                    "Without --baseline nothing shows that {it} ever {was}."
                ));
            }
            let found = match (known_before, self.several) {
                (true, false) if !drawn_before => "is denoised no better than look-alikes",
                (true, true) if !drawn_before => "are denoised no better than look-alikes",
                (true, false) => "is no longer found",
                (true, true) => "are no longer found",
                (false, false) => "was not found",
                (false, true) => "were not found",
            };
            let (outcome, with) = match reserved {
                true => (Outcome::Reservations, ", with reservations"),
                false => (Outcome::NotFound, ""),
            };
            let headline = match (known_before, place_after) {
                (true, Some(Place::Unknown)) => format!("Unknown: {image} {found}{with}"),
                (false, Some(Place::Unknown)) => format!("Unknown: no such image is known{with}"),
                (_, Some(Place::Avoided)) => format!("Avoided: {image} {found}{with}"),
                _ => capital(&format!("{image} {found}{with}")),
            };
            (outcome, headline)
        };
        if worst == 0
            && let Some(of) = tests
                .iter()
                .map(|(_, after)| after.of)
                .filter(|of| *of > 0)
                .max()
        {
            // No success in n tries: rates up to 1 - 0.05^(1/n) would do that once in twenty times or more.
            let bound = 100.0 * (1.0 - 0.05f64.powf(1.0 / of as f64));
            notes.push(format!(
                "None of {of} is not never: a rate below {} % is not excluded (95% confidence).",
                if bound < 1.0 {
                    format!("{bound:.2}")
                } else {
                    format!("{bound:.0}")
                }
            ));
        }
        let next = match outcome {
            Outcome::StillFound => self.advice.found.clone(),
            // It may be the base model that is to blame.
            Outcome::Inconclusive if is_broken && broken_before => String::new(),
            Outcome::Inconclusive if is_broken => self.advice.broken.clone(),
            Outcome::Inconclusive => self.advice.unclear.clone(),
            Outcome::NotFound | Outcome::Reservations | Outcome::Measured => String::new(),
        };
        Verdict {
            outcome,
            headline,
            sentence: sentences.join(" "),
            notes,
            next,
        }
    }

    fn are(&self) -> &'static str {
        if self.several { "are" } else { "is" }
    }

    /// `softer`'s options and what they do, or nothing where the command has none.
    fn softer(&self, effect: &str) -> String {
        match self.advice.softer.as_str() {
            "" => String::new(),
            options => format!("; {options}{effect}"),
        }
    }

    /// Adds what speaks against the model. Returns whether anything does.
    fn reservations(&self, image: &str, notes: &mut Vec<String>) -> bool {
        let before = notes.len();
        let (avoid, them) = if self.several {
            ("are", "images")
        } else {
            ("is", "image")
        };
        for (tally, model) in self
            .not_finite
            .iter()
            .zip(["model before", "model that was written"])
            .filter(|(tally, _)| tally.found > 0)
        {
            notes.push(format!(
                "Of the {model}, {tally} samples, attempts and denoising errors hold values that are not finite: it is \
                 broken."
            ));
        }
        notes.extend(self.doubts.iter().cloned());
        if let [_, Some(Place::Avoided)] = self.places() {
            notes.push(format!(
                "{} {avoid} denoised worse than look-alikes that nobody has. Who holds the {them} may recognize that this \
                 model avoids {}{}.",
                capital(image),
                if self.several { "them" } else { "it" },
                self.softer(" avoid less"),
            ));
        } else if let Some((forgotten, controls)) = &self.errors
            && self.standings[1].is_empty()
            && let Some(highest) = controls.iter().copied().reduce(f64::max)
            && mean(forgotten) > AVOIDED * highest
        {
            notes.push(format!(
                "{} {avoid} denoised with an error of {:.3}, where the highest of {} retained images has {highest:.3} \
                 and their mean is {:.3}. Who holds the {them} may recognize that this model avoids {}{}; `retrack \
                 evaluate --metrics membership --controls` compares with images that were never seen.",
                capital(image),
                mean(forgotten),
                controls.len(),
                mean(controls),
                if self.several { "them" } else { "it" },
                self.softer(" avoid less"),
            ));
        }
        if let Some((auc, [low, high])) = self.membership
            && self.places()[1] != Some(Place::Unknown)
        {
            if high < 0.25 {
                notes.push(format!(
                    "{} {avoid} denoised worse than images that were never seen (membership {auc:.2}, 95%: {low:.2} \
                     to {high:.2}; one half: nothing tells them apart). Who holds the {them} can recognize that this \
                     model avoids {}.",
                    capital(image),
                    if self.several { "them" } else { "it" },
                ));
            } else if low > 0.75 {
                notes.push(format!(
                    "{} {avoid} still denoised better than images that were never seen (membership {auc:.2}, 95%: \
                     {low:.2} to {high:.2}; one half: nothing tells them apart).",
                    capital(image),
                ));
            }
        }
        if let Some([first, last]) = self.retained
            && last > DAMAGED * first
        {
            notes.push(format!(
                "Retained images are denoised {:.0}% worse than before: the model lost some of what it should keep{}.",
                100.0 * (last / first - 1.0),
                self.softer(" lose less"),
            ));
        }
        notes.len() > before
    }
}

/// A verdict for a terminal: the sentence, what speaks against it, and what to do. `said` are notes that were printed.
pub fn printed(verdict: &Verdict, said: &[String]) -> String {
    let mut text = format!("{}. {}", verdict.headline, verdict.sentence);
    for note in verdict.notes.iter().filter(|note| !said.contains(note)) {
        text.push_str(&format!("\n- {note}"));
    }
    if !verdict.next.is_empty() {
        text.push_str(&format!("\nWhat to do next: {}", verdict.next));
    }
    text
}

/// The error of a study that was to say whether the image is found no more, where it is still found.
///
/// # Errors
/// It is.
pub fn fail_if_found(asked: bool, verdict: &Verdict) -> Result<(), Failure> {
    if asked && verdict.outcome == Outcome::StillFound {
        return Err(Failure::found(format!(
            "{}: {}",
            Field::MustLook,
            verdict.headline
        )));
    }
    Ok(())
}

pub(super) fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(letters).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(found: usize) -> Tally {
        Tally { found, of: 8 }
    }

    fn verdict(before: usize, after: usize, change: impl FnOnce(&mut Findings)) -> Verdict {
        let mut findings = Findings {
            restored: Some((Some(tally(before)), tally(after))),
            copies: Some((Some(Tally { found: 1, of: 16 }), Tally { found: 0, of: 16 })),
            errors: Some((vec![0.05], vec![0.03, 0.04])),
            retained: Some([0.03, 0.031]),
            ..Findings::default()
        };
        change(&mut findings);
        findings.verdict()
    }

    #[test]
    fn a_change_is_never_said_to_be_of_nought_percent() {
        for (after, said) in [
            (1.0, "unchanged"),
            (0.9999, "unchanged"),
            (0.996, "-0.4%"),
            (1.0049, "+0.5%"),
            (1.03, "+3%"),
            (0.5, "-50%"),
        ] {
            assert_eq!(change(1.0, after), said);
        }
    }

    #[test]
    fn a_verdict_holds_its_numbers() {
        let found = verdict(8, 0, |_| ());
        assert_eq!(found.outcome, Outcome::NotFound);
        assert_eq!(
            found.sentence,
            "Before: 8 of 8 attempts brought the forgotten image back from noise; after: 0 of 8. Among samples with \
             the same seeds, 1 of 16 showed the forgotten image before and 0 of 16 after. Retained images are denoised \
             with an error of 0.0300 before and 0.0310 after (+3%)."
        );
        assert!(
            found.notes[0].contains("below 17 % is not excluded"),
            "{:?}",
            found.notes
        );
    }

    #[test]
    fn what_is_still_there_is_said() {
        let found = verdict(8, 3, |_| ());
        assert_eq!(found.outcome, Outcome::StillFound);
        assert_eq!(
            found.headline,
            "Weaker, but the forgotten image is still found"
        );
        let found = verdict(8, 8, |findings| findings.several = true);
        assert_eq!(found.headline, "The forgotten images are still found");
        // One sample is enough, whatever the attempts say.
        let found = verdict(8, 0, |findings| {
            findings.copies = Some((Some(tally(0)), tally(1)));
        });
        assert_eq!(found.outcome, Outcome::StillFound);
        assert_eq!(found.headline, "The forgotten image is still found");
    }

    #[test]
    fn what_to_do_next_is_said_where_the_image_is_still_found_or_nothing_can_tell() {
        let advised = |findings: &mut Findings| {
            findings.advice = Advice {
                found: "more of it.".into(),
                unclear: "look longer.".into(),
                broken: "be gentler.".into(),
                softer: "fewer --steps".into(),
            };
        };
        let found = verdict(8, 3, advised);
        assert_eq!(found.next, "more of it.");
        let text = printed(&found, &[]);
        assert!(text.ends_with("\nWhat to do next: more of it."), "{text}");
        let found = verdict(0, 0, |findings| {
            findings.copies = None;
            advised(findings);
        });
        assert_eq!(found.next, "look longer.");
        assert_eq!(verdict(8, 0, advised).next, "");
        let broken = |[before, after]: [usize; 2]| {
            verdict(8, 0, |findings| {
                findings.not_finite = [tally(before), tally(after)];
                advised(findings);
            })
        };
        let found = broken([0, 1]);
        assert_eq!(found.outcome, Outcome::Inconclusive);
        assert!(found.headline.contains("is broken"), "{}", found.headline);
        assert!(found.notes[0].contains("1 of 8 samples"), "{found:?}");
        assert_eq!(found.next, "be gentler.");
        assert_eq!(broken([1, 1]).next, "");
        assert_eq!(broken([1, 0]).outcome, Outcome::Reservations);

        // Reservations are printed too, but for those that were.
        let found = verdict(8, 0, |findings| {
            findings.retained = Some([0.03, 0.06]);
            advised(findings);
        });
        assert!(found.notes[0].ends_with("what it should keep; fewer --steps lose less."));
        let text = printed(&found, &found.notes[1..]);
        assert!(
            text.contains("\n- Retained images are denoised 100% worse"),
            "{text}"
        );
        assert!(!text.contains("None of 16"), "{text}");
    }

    #[test]
    fn only_what_is_still_found_fails_and_only_when_asked() {
        let (found, gone) = (verdict(8, 3, |_| ()), verdict(8, 0, |_| ()));
        assert_eq!(fail_if_found(true, &found).unwrap_err().code, 3);
        assert!(fail_if_found(false, &found).is_ok());
        assert!(fail_if_found(true, &gone).is_ok());
    }

    #[test]
    fn of_a_model_without_one_before_nothing_is_no_longer_found() {
        let alone = |several| {
            verdict(8, 0, |findings| {
                findings.several = several;
                findings.restored = Some((None, tally(0)));
                findings.copies = None;
                findings.retained = None;
            })
        };
        let found = alone(false);
        assert_eq!(found.outcome, Outcome::NotFound);
        assert_eq!(found.headline, "The forgotten image was not found");
        assert_eq!(
            found.notes[0],
            "Without --baseline nothing shows that it ever was."
        );
        assert_eq!(alone(true).headline, "The forgotten images were not found");
    }

    #[test]
    fn tests_that_never_found_the_image_say_nothing() {
        let found = verdict(0, 0, |findings| findings.copies = None);
        assert_eq!(found.outcome, Outcome::Inconclusive);
        assert_eq!(found.headline, "These tests cannot tell");
        // But for the one that it was denoised far better than look-alikes.
        let found = verdict(0, 0, |findings| {
            findings.copies = None;
            findings.standings = [0.01, 0.1].map(|own| vec![Standing::even(own, 0.1)]);
        });
        assert_eq!(
            found.headline,
            "Unknown: the forgotten image is denoised no better than look-alikes"
        );
    }

    #[test]
    fn what_the_run_itself_found_before_it_began_counts() {
        let found = |found_known, own: [f64; 2]| {
            let found = verdict(0, 0, |findings| {
                findings.copies = None;
                findings.found_known = found_known;
                findings.standings = own.map(|own| vec![Standing::even(own, 0.1)]);
            });
            found.headline
        };
        let unknown = "The forgotten image was not shown to be memorized";
        // By the report's look-alikes it is unknown, by those of the run it was known.
        assert_eq!(found(None, [0.09, 0.1]), unknown);
        assert!(found(Some(true), [0.09, 0.1]).starts_with("Unknown: "));
        // Other images were led, and it is denoised a little better than before.
        assert!(found(None, [0.09, 0.08]).starts_with("Known: "));
        assert_eq!(found(Some(false), [0.09, 0.08]), unknown);
    }

    #[test]
    fn avoidance_and_damage_are_reservations() {
        let found = verdict(8, 0, |findings| {
            findings.errors = Some((vec![0.9], vec![0.03, 0.04]))
        });
        assert_eq!(found.outcome, Outcome::Reservations);
        assert!(found.notes[0].contains("may recognize that this model avoids it"));
        let found = verdict(8, 0, |findings| findings.retained = Some([0.03, 0.06]));
        assert_eq!(found.outcome, Outcome::Reservations);
        assert!(found.notes[0].contains("100% worse"));
        let found = verdict(8, 0, |findings| {
            findings.membership = Some((0.02, [0.0, 0.1]))
        });
        assert_eq!(found.outcome, Outcome::Reservations);
        // Look-alikes are of the image's own kind, and controls may be of another.
        let beside = |own| {
            verdict(8, 0, |findings| {
                findings.membership = Some((0.02, [0.0, 0.1]));
                findings.standings = [Vec::new(), vec![Standing::even(own, 0.1)]];
            })
        };
        let found = beside(0.1);
        assert_eq!(found.outcome, Outcome::NotFound);
        assert!(
            found.notes[0].ends_with("the controls are of another kind than it."),
            "{:?}",
            found.notes
        );
        assert_eq!(beside(1.0).outcome, Outcome::Reservations);
        let found = verdict(8, 0, |findings| {
            findings.membership = Some((0.5, [0.1, 0.9]))
        });
        assert_eq!(found.outcome, Outcome::NotFound);
    }
}
