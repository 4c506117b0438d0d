//! Where a forgotten image stands among its look-alikes: how a model denoises it, and how it denoises them.

use std::fmt;

use retrack_eval::distance::mean;
use serde::{Deserialize, Deserializer, Serialize};

use super::usual::{CHANGE, Usual, unchanged_all};

/// Parts of the process in which a profile is compared.
pub const PARTS: usize = 10;
/// Of these the first ones, in which an image shows that is known a little: there what differs from it so little as a look-alike
/// is told from it best. Of 30 images that a small model saw a hundred times an epoch, among 1,000, over the process 25 lie
/// outside of what is usual, and here 28.
pub(super) const EARLY: usize = 3;
/// How often a two-sided test of an image that is not known calls it known or avoided.
const ALPHA: f64 = 0.2;
/// An image is avoided above so many times its look-alikes' error, in their geometric mean. A model that memorized an image half
/// knows its look-alikes, too; small models that were trained again without it denoised it with up to 1.5 times the error.
const TOLERANCE: f64 = 1.8;
/// The first, where a mirror image says that the model does not know the image: it does only if it was trained on mirrored
/// images, too, and then it knows it well. Some pictures are so sharp that any change costs a third.
const SURE: f64 = 0.5;
/// The same in each part of the process: there up to 2.8 times were found.
const UNEVEN: [f64; 2] = [1.0 / 1.6, 3.0];

/// What a model makes of an image, beside what it makes of its look-alikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// It is denoised better.
    Known,
    /// As well.
    Unknown,
    /// Worse.
    Avoided,
}

impl Place {
    /// In a word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Known => "known",
            Self::Unknown => "unknown",
            Self::Avoided => "avoided",
        }
    }
}

/// How a model denoises a forgotten image, and how it denoises look-alikes of it. Errors are mean squared errors of the
/// noise, a value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    /// The mean logarithm of the image's error, over the process.
    #[serde(deserialize_with = "with_null")]
    pub own: f64,
    /// That of each look-alike.
    #[serde(deserialize_with = "with_nulls")]
    pub look_alikes: Vec<f64>,
    /// In each tenth of the process, from the images' end: the geometric mean of the image's error.
    #[serde(deserialize_with = "with_nulls")]
    pub profile: Vec<f64>,
    /// The geometric mean of its look-alikes' errors, and the lowest and highest of them.
    #[serde(deserialize_with = "with_nulls_in_threes")]
    pub levels: Vec<[f64; 3]>,
    /// How retained images stand beside theirs, over the process and early in it: a changed picture is denoised somewhat
    /// better or worse than one that is as it was taken, whether the model knows it or not.
    #[serde(default = "unchanged_all")]
    pub usual: [Usual; 2],
    /// The image beside its mirror image, where that tells anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<Mirror>,
    /// The mean logarithms of its error before and after the request that led it to unknown, if one did, at the times and with the
    /// noises that this standing has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub led: Option<[f64; 2]>,
}

/// An image's mirror image, to which a model mostly pays as little heed as to the side from which a thing is seen. It costs
/// nothing as a change does, so that even a model that knows an image a little betrays it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mirror {
    /// The mean logarithm of its error.
    #[serde(deserialize_with = "with_null")]
    pub error: f64,
    /// What is usual among retained images.
    pub usual: Usual,
}

// JSON has no NaN and no infinity: they are null there.

fn with_null<'de, D: Deserializer<'de>>(json: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(json)?.unwrap_or(f64::NAN))
}

fn with_nulls<'de, D: Deserializer<'de>>(json: D) -> Result<Vec<f64>, D::Error> {
    let values = Vec::<Option<f64>>::deserialize(json)?.into_iter();
    Ok(values.map(|value| value.unwrap_or(f64::NAN)).collect())
}

fn with_nulls_in_threes<'de, D: Deserializer<'de>>(json: D) -> Result<Vec<[f64; 3]>, D::Error> {
    let values = Vec::<[Option<f64>; 3]>::deserialize(json)?.into_iter();
    Ok(values
        .map(|three| three.map(|value| value.unwrap_or(f64::NAN)))
        .collect())
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let [low, high] = self.ranks();
        write!(
            f,
            "{:.2} times its look-alikes' error, ranks {low:.2} and {high:.2}; along the process",
            self.ratio()
        )?;
        let parts = self.profile.iter().zip(&self.levels);
        for (own, [level, ..]) in parts {
            write!(f, " {:.2}", own / level)?;
        }
        Ok(())
    }
}

impl Standing {
    /// One-sided conformal ranks of the image among its look-alikes: how often an image that is one of them would be
    /// denoised so well, and how often so badly.
    pub fn ranks(&self) -> [f64; 2] {
        let of = |counts: &dyn Fn(&f64) -> bool| {
            let count = self
                .look_alikes
                .iter()
                .filter(|error| counts(error))
                .count();
            (1 + count) as f64 / (self.look_alikes.len() + 1) as f64
        };
        [
            of(&|error| *error <= self.own),
            of(&|error| *error >= self.own),
        ]
    }

    /// The image's error as a multiple of its look-alikes', both as geometric means.
    pub fn ratio(&self) -> f64 {
        (self.own - mean(&self.look_alikes)).exp()
    }

    /// Whether a rough look leaves it open that the image is known.
    pub fn is_suspect(&self) -> bool {
        let below = |log: f64, usual: &Usual| log < (usual.median + usual.least) / 2.0;
        let mirror = self.mirror.as_ref();
        let [usual, usual_early] = &self.usual;
        below(self.ratio().ln(), usual)
            || below(self.early(), usual_early)
            || mirror.is_some_and(|mirror| below(self.own - mirror.error, &mirror.usual))
    }

    /// How far the image's error lies below what it would be of an image that the model does not know: a logarithm.
    pub fn left(&self) -> f64 {
        let mirror = self.mirror.as_ref();
        let mirror = mirror.map(|mirror| mirror.error + mirror.usual.median);
        let look_alikes = mean(&self.look_alikes);
        look_alikes.max(mirror.unwrap_or(look_alikes)) - self.own
    }

    /// The logarithm of the same early in the process.
    fn early(&self) -> f64 {
        let parts = self.profile.iter().zip(&self.levels).take(EARLY);
        let logs: Vec<f64> = parts.map(|(own, [level, ..])| (own / level).ln()).collect();
        mean(&logs)
    }

    /// The image's error as a multiple of its mirror image's, here and beside what the model of `before` made of that, and what
    /// retained images' mostly is.
    pub fn beside_mirror(&self, before: Option<&Self>) -> Option<[f64; 2]> {
        let mirror = before.unwrap_or(self).mirror.as_ref()?;
        Some([self.own - mirror.error, mirror.usual.median].map(f64::exp))
    }

    /// As an image is judged that a request led to unknown, with these mean logarithms of its error before and after.
    pub fn with_led(self, led: Option<[f64; 2]>) -> Self {
        Self { led, ..self }
    }

    /// On which side the image stands. What is no number is on none: it is not known. What was led is known again once it is
    /// nearer to where it was than to where it was led: look-alikes were led with it and tell little, and its mirror image tells
    /// a few percent, by which models differ that never saw the image.
    pub fn place(&self) -> Place {
        match (self.led, self.beside_others()) {
            (Some([before, after]), _) if self.own < (before + after) / 2.0 => Place::Known,
            (Some(_), Place::Known) => Place::Unknown,
            (_, place) => place,
        }
    }

    fn beside_others(&self) -> Place {
        let [low, high] = self.ranks();
        let ratio = self.ratio();
        let better = low <= ALPHA / 2.0;
        let [usual, usual_early] = self.usual;
        let known = match &self.mirror {
            None => better && (ratio.ln() < usual.least || self.early() < usual_early.least),
            Some(mirror) => {
                let sure = usual.least.min(usual.median + SURE.ln());
                self.own - mirror.error < mirror.usual.least || better && ratio.ln() < sure
            }
        };
        if known {
            Place::Known
        } else if (high <= ALPHA / 2.0 && ratio > TOLERANCE) || !ratio.is_finite() {
            Place::Avoided
        } else {
            Place::Unknown
        }
    }

    /// The image as it stands here beside the look-alikes as they stand in `other`.
    fn beside(&self, other: &Self) -> Self {
        Self {
            look_alikes: other.look_alikes.clone(),
            levels: other.levels.clone(),
            usual: other.usual,
            mirror: other.mirror.clone(),
            ..self.clone()
        }
    }

    /// The image's error after a run as a multiple of what the model of before made of its look-alikes, which it could not
    /// know. A run that leads the image away moves its look-alikes with it.
    pub fn ratio_after(&self, before: &Self) -> f64 {
        self.beside(before).ratio()
    }

    /// On which side the image stands after a run. Beside the look-alikes of before; but what is denoised far better than
    /// the look-alikes of after is known whatever became of both.
    pub fn place_after(&self, before: &Self) -> Place {
        if self.led.is_some() {
            return self.place();
        }
        if self.place() == Place::Known && self.ratio() < UNEVEN[0] {
            return Place::Known;
        }
        let beside = self.beside(before);
        let left = beside.left();
        match left < CHANGE && left < before.left() / 2.0 {
            true => beside.just_led().place(),
            false => beside.place(),
        }
    }

    /// As an image is judged that this run led. A mirror image tells a few percent, and a model that never saw the image may lie
    /// as far from what this one made of it.
    fn just_led(mut self) -> Self {
        if let Some(Mirror { usual, .. }) = &mut self.mirror {
            usual.least = usual.least.min(usual.median - CHANGE);
        }
        self
    }

    /// Of each part of the process the logarithms of the image's error, and of the least and the greatest that an image has which
    /// the model does not know.
    fn bounded(&self) -> impl Iterator<Item = [f64; 3]> {
        let [usual, usual_early] = self.usual;
        let parts = self.profile.iter().zip(&self.levels).enumerate();
        parts.map(move |(part, (own, [level, low, high]))| {
            let usual = if part < EARLY { usual_early } else { usual };
            let least = low.min(level * UNEVEN[0] * usual.median.min(0.0).exp());
            let greatest = high.max(level * UNEVEN[1]);
            [*own, least, greatest].map(f64::ln)
        })
    }
}

/// Whether images are denoised like their look-alikes all along the process, not only on average. Together: in a single part an
/// image has few draws.
pub(super) fn are_even(standings: &[Standing]) -> bool {
    let bounded = standings
        .iter()
        .map(|standing| standing.bounded().collect());
    let bounded: Vec<Vec<[f64; 3]>> = bounded.collect();
    (0..PARTS).all(|part| {
        let of = |which: usize| bounded.iter().map(|one| one[part][which]).sum::<f64>();
        of(0) >= of(1) && of(0) <= of(2)
    })
}

#[cfg(test)]
impl Standing {
    /// An image among 24 look-alikes, both with the same error all along the process.
    pub fn even(own: f64, look_alikes: f64) -> Self {
        Self {
            own: own.ln(),
            look_alikes: vec![look_alikes.ln(); 24],
            profile: vec![own; PARTS],
            levels: vec![[look_alikes; 3]; PARTS],
            usual: unchanged_all(),
            mirror: None,
            led: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use retrack_networks::process::Time;

    use super::super::errors::Errors;
    use super::super::usual::Ordinary;
    use super::super::viewer::DRAWS;
    use super::*;

    /// An image among 24 look-alikes, all errors the same along the process.
    fn standing(own: f64, spread: f64) -> Standing {
        let error = |number: usize| vec![0.1 * (1.0 + spread * number as f64 / 23.0); DRAWS];
        Errors {
            times: (0..DRAWS).map(|draw| Time::timestep(50 * draw)).collect(),
            own: vec![own; DRAWS],
            look_alikes: (0..24).map(error).collect(),
            mirror: None,
        }
        .standing(&Ordinary::UNCHANGED)
    }

    #[test]
    fn an_image_is_known_unknown_or_avoided_by_its_look_alikes() {
        for (own, expected) in [
            (0.01, Place::Known),
            (0.07, Place::Known),
            (0.11, Place::Unknown),
            (0.17, Place::Unknown),
            (0.3, Place::Avoided),
            (f64::NAN, Place::Avoided),
        ] {
            assert_eq!(standing(own, 0.2).place(), expected, "{own}");
        }
        let broken = serde_json::to_string(&standing(f64::NAN, 0.2)).unwrap();
        let broken: Standing = serde_json::from_str(&broken).unwrap();
        assert_eq!(broken.place(), Place::Avoided);
        // The first of all, by a hair; and far below the mean of look-alikes that differ as much among themselves.
        assert_eq!(standing(0.099, 0.2).place(), Place::Unknown);
        assert_eq!(standing(0.12, 4.0).place(), Place::Unknown);
    }

    #[test]
    fn after_a_run_an_image_stands_beside_look_alikes_of_before() {
        let before = standing(0.01, 0.2);
        // The run doubled the errors of look-alikes.
        let after = |own| {
            let mut after = standing(own, 0.2);
            for error in &mut after.look_alikes {
                *error += 2f64.ln();
            }
            after
        };
        for (own, expected) in [
            (0.9, Place::Avoided),
            (0.18, Place::Unknown),
            (0.1, Place::Known),
        ] {
            assert_eq!(after(own).place_after(&before), expected, "{own}");
        }
        assert_eq!(standing(0.11, 0.2).place_after(&before), Place::Unknown);
        assert!((after(0.22).ratio_after(&before) - 2.0).abs() < 0.02);
    }

    #[test]
    fn what_was_led_is_known_again_once_it_is_nearer_to_where_it_was() {
        let led = Some([0.01f64.ln(), 0.1f64.ln()]);
        for (own, expected) in [
            (0.02, Place::Known),
            (0.04, Place::Unknown),
            (0.11, Place::Unknown),
            (0.4, Place::Avoided),
        ] {
            let found = standing(own, 0.2).with_led(led);
            assert_eq!(found.place(), expected, "{own}");
            assert_eq!(found.place_after(&standing(0.01, 0.2)), expected, "{own}");
        }
        assert_eq!(standing(0.04, 0.2).place(), Place::Known);
    }

    #[test]
    fn ranks_count_the_image_itself() {
        let [low, high] = standing(0.05, 0.2).ranks();
        assert_eq!([low, high], [1.0 / 25.0, 1.0]);
    }

    #[test]
    fn an_image_is_known_by_as_much_as_retained_ones_are_not() {
        // Changed pictures may be denoised worse than others for no other reason.
        let found = |logs: &[f64]| Standing {
            usual: [Usual::of_look_alikes(logs.to_vec()); 2],
            ..standing(0.09, 0.2)
        };
        assert_eq!(found(&[]).place(), Place::Known);
        // The last of them is repeated in the data.
        assert_eq!(found(&[0.01, 0.0, -0.01, -2.0]).place(), Place::Known);
        assert_eq!(found(&[-0.21, -0.2, -0.22, -2.0]).place(), Place::Unknown);
        assert_eq!(found(&[-0.2, -0.1, 0.0, 0.1]).place(), Place::Unknown);
    }

    /// Retained images that are denoised like their mirror images, mostly, and three that are repeated in the data.
    fn usual() -> Option<Usual> {
        let mut logs: Vec<f64> = (0..17)
            .map(|at| 0.02 * (f64::from(at) / 16.0 - 0.5))
            .collect();
        logs.extend([-0.3, -0.5, -0.6]);
        Usual::of_mirrors(logs)
    }

    #[test]
    fn a_mirror_image_betrays_an_image_that_is_known_a_little() {
        let usual = usual().unwrap();
        assert!((-0.08..-0.04).contains(&usual.least), "{usual:?}");
        let found = |own: f64, mirror: f64| Standing {
            mirror: Some(Mirror {
                error: mirror.ln(),
                usual,
            }),
            ..standing(own, 0.2)
        };
        assert_eq!(standing(0.1, 0.2).place(), Place::Unknown);
        assert_eq!(found(0.1, 0.115).place(), Place::Known);
        assert_eq!(found(0.1, 0.101).place(), Place::Unknown);
        // A sharp picture, that any change blurs; and one that was trained on from both sides.
        assert_eq!(standing(0.07, 0.2).place(), Place::Known);
        assert_eq!(found(0.07, 0.07).place(), Place::Unknown);
        assert_eq!(found(0.03, 0.03).place(), Place::Known);
        // After a run it is unknown once it is denoised as its mirror image was before.
        let before = found(0.1, 0.115);
        assert_eq!(found(0.113, 0.13).place_after(&before), Place::Unknown);
        assert_eq!(found(0.101, 0.115).place_after(&before), Place::Known);
        assert_eq!(
            found(0.105, 0.115).place_after(&found(0.05, 0.115)),
            Place::Unknown
        );
        assert_eq!(
            found(0.09, 0.115).place_after(&found(0.05, 0.115)),
            Place::Known
        );
    }

    #[test]
    fn mirror_images_of_another_kind_say_nothing() {
        let shift = |by: f64| (0..20).map(|at| by + 0.001 * f64::from(at)).collect();
        assert!(Usual::of_mirrors(shift(-0.2)).is_none());
        assert!(Usual::of_mirrors(shift(0.0)).is_some());
        assert!(
            Usual::of_mirrors((0..20).map(|at| 0.02 * f64::from(at) - 0.2).collect()).is_none()
        );
        assert!(Usual::of_mirrors(vec![0.0; 9]).is_none());
    }

    #[test]
    fn a_profile_that_is_wrong_in_time_is_uneven() {
        let mut found = standing(0.11, 0.2);
        let even = found.clone();
        assert!(are_even(std::slice::from_ref(&found)));
        found.profile[3] = 0.05;
        assert!(!are_even(std::slice::from_ref(&found)));
        assert_eq!(found.place(), Place::Unknown);
        // Of several images one part of one says little.
        assert!(are_even(&[found.clone(), even.clone(), even]));
        // Where retained images are denoised better than their look-alikes, so may others be.
        found.usual[0].median = -0.5;
        assert!(are_even(&[found]));
    }
}
