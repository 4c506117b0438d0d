//! What look-alikes say: where forgotten images stand among theirs, and what of the images that came back counts.

use super::verdict::{Findings, Tally, capital};
use crate::calibration::{Place, Standing};

impl Findings {
    /// What of the restored images counts: noise at the attempts' timestep may still show what an image was, and then images
    /// come back that no model saw. So they count where the model knows them, or where clearly more come back than of look-alikes.
    pub(super) fn beyond_look_alikes(
        &self,
        (before, after): (Option<Tally>, Tally),
        notes: &mut Vec<String>,
    ) -> (Option<Tally>, Tally) {
        let places = self.places();
        let counted = |tally: Tally, model: usize| {
            let others = self.restored_look_alikes[model];
            let more = others.is_none_or(|others| tally.found > others + tally.of / 4);
            match more || places[model] == Some(Place::Known) {
                true => tally,
                false => Tally { found: 0, ..tally },
            }
        };
        let counts = counted(after, 1);
        if counts.found < after.found {
            notes.push(format!(
                "What came back from noise does not count: {} of {} attempts did, and {} of as many with look-alikes, which \
                 no model saw.",
                after.found,
                after.of,
                self.restored_look_alikes[1].unwrap_or(0)
            ));
        }
        (before.map(|before| counted(before, 0)), counts)
    }

    /// Controls that are denoised better or worse than an image that is denoised like its look-alikes are of another kind: a
    /// note, and nothing against the model.
    pub(super) fn controls_of_another_kind(&self, image: &str) -> Option<String> {
        let (auc, [low, high]) = self.membership?;
        let side = match (low, high) {
            (_, high) if high < 0.25 => "worse",
            (low, _) if low > 0.75 => "better",
            _ => return None,
        };
        let [are, its, it] = match self.several {
            true => ["are", "their", "them"],
            false => ["is", "its", "it"],
        };
        (self.places()[1] == Some(Place::Unknown)).then(|| {
            let image = capital(image);
            format!(
                "{image} {are} denoised {side} than images that were never seen (membership {auc:.2}, 95%: {low:.2} to \
                 {high:.2}), and like {its} look-alikes: the controls are of another kind than {it}."
            )
        })
    }

    /// Where each image stands among its look-alikes, before and after.
    fn places_of_each(&self) -> [Vec<Place>; 2] {
        let [before, after] = &self.standings;
        let pairs = before.iter().zip(after);
        let places_after = match before.is_empty() {
            false => pairs
                .map(|(before, after)| after.place_after(before))
                .collect(),
            // Nobody looked at a model of before.
            true => after.iter().map(Standing::place).collect(),
        };
        [before.iter().map(Standing::place).collect(), places_after]
    }

    /// The same of all of them together: known if any is, avoided if any is.
    pub(super) fn places(&self) -> [Option<Place>; 2] {
        let [before, after] = self.places_of_each().map(|places| {
            let any = |place| places.contains(&place).then_some(place);
            any(Place::Known)
                .or_else(|| any(Place::Avoided))
                .or_else(|| any(Place::Unknown))
        });
        [
            before.map(|place| match self.found_known {
                Some(true) => Place::Known,
                _ => place,
            }),
            after,
        ]
    }

    /// How the images are denoised beside their look-alikes, a sentence.
    pub(super) fn beside_look_alikes(&self) -> Option<String> {
        let [before, after] = &self.standings;
        if after.is_empty() {
            return None;
        }
        if let ([], [after]) = (&before[..], &after[..]) {
            let mirror = after.beside_mirror(None).map(|[own, usual]| {
                format!(" and {own:.2} times that of its mirror image; of retained images {usual:.2} is usual")
            });
            return Some(format!(
                "It is denoised with {:.2} times the error of {} look-alikes that nobody has{}.",
                after.ratio(),
                after.look_alikes.len(),
                mirror.unwrap_or_default()
            ));
        }
        if let ([before], [after]) = (&before[..], &after[..]) {
            let mirror = before
                .beside_mirror(None)
                .zip(after.beside_mirror(Some(before)));
            let mirror = mirror.map(|([before, usual], [after, _])| {
                format!(
                    " It had {before:.2} times the error of its mirror image and has {after:.2} times; of retained images \
                     {usual:.2} is usual."
                )
            });
            return Some(format!(
                "The model before denoised it with {:.2} times the error of {} look-alikes that nobody has; the model after \
                 does with {:.2} times that error.{}",
                before.ratio(),
                before.look_alikes.len(),
                after.ratio_after(before),
                mirror.unwrap_or_default()
            ));
        }
        let words = |places: Vec<Place>| {
            let [known, avoided] = [Place::Known, Place::Avoided]
                .map(|place| places.iter().filter(|one| **one == place).count());
            format!("{known} known and {avoided} avoided")
        };
        let [places_before, places_after] = self.places_of_each();
        if before.is_empty() {
            return Some(format!(
                "Beside look-alikes that nobody has, of {} images {}.",
                after.len(),
                words(places_after)
            ));
        }
        Some(format!(
            "Beside look-alikes that nobody has, of {} images {} before, and {} after.",
            after.len(),
            words(places_before),
            words(places_after)
        ))
    }
}
