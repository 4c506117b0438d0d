//! The metrics, a file each, and the list of them.

mod clip_iqa;
mod cluster;
mod copies;
mod digits;
mod fid;
mod frequency;
mod inception_score;
mod injection;
mod membership;
mod nll;
mod relearn;
mod sscd;

pub use self::injection::LOOK_ALIKES as RESTORED_LOOK_ALIKES;
pub use self::membership::AUC as MEMBERSHIP_AUC;
use crate::metric::{Finds, Metric, ScoreAbout};

/// All metrics, in the order in which they are listed.
pub static METRICS: &[&dyn Metric] = &[
    &frequency::Frequency,
    &injection::Injection,
    &sscd::Sscd,
    &nll::Nll,
    &membership::Membership,
    &relearn::Relearn,
    &copies::Copies,
    &digits::Digits,
    &fid::Fid,
    &inception_score::Is,
    &cluster::Cluster,
    &clip_iqa::ClipIqa,
];

/// What is measured where nothing is said: of models that denoise pixels, and of text-to-image models the published
/// ones.
pub fn defaults(text_to_image: bool) -> Vec<&'static dyn Metric> {
    match text_to_image {
        true => vec![&cluster::Cluster, &sscd::Sscd, &clip_iqa::ClipIqa],
        false => vec![
            &frequency::Frequency,
            &injection::Injection,
            &copies::Copies,
        ],
    }
}

/// The metric of this name.
pub fn named(name: &str) -> Option<&'static dyn Metric> {
    METRICS.iter().copied().find(|metric| metric.name() == name)
}

/// What is known of all scores, in the order of the metrics.
pub fn scores() -> impl Iterator<Item = &'static ScoreAbout> {
    METRICS.iter().flat_map(|metric| metric.about().scores)
}

/// What is known of the score of this name.
pub fn score(name: &str) -> Option<&'static ScoreAbout> {
    scores().find(|score| score.name == name)
}

/// The scores that find a forgotten image so, or do not.
pub fn finding(how: Finds) -> impl Iterator<Item = &'static ScoreAbout> {
    scores().filter(move |score| score.finds == Some(how))
}

/// The scores that judge quality, the first to judge by first.
pub fn qualities() -> Vec<&'static ScoreAbout> {
    let mut all: Vec<_> = scores().filter(|score| score.quality.is_some()).collect();
    all.sort_by_key(|score| score.quality.map(|quality| quality.rank));
    all
}

/// What a score says, in plain words; nothing of one that no metric has.
pub fn meaning(name: &str) -> &'static str {
    score(name).map_or("", |score| score.meaning)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::metric::Best;

    #[test]
    fn every_metric_and_every_score_has_a_name_of_its_own_and_words() {
        let mut seen = HashSet::new();
        for metric in METRICS {
            let about = metric.about();
            assert!(seen.insert(about.name), "{}", about.name);
            assert!(!about.summary.is_empty() && !about.scores.is_empty());
        }
        let mut seen = HashSet::new();
        for score in scores() {
            assert!(seen.insert(score.name), "{}", score.name);
            assert!(!score.meaning.is_empty(), "{}", score.name);
        }
    }

    #[test]
    fn words_and_directions_agree() {
        for score in scores() {
            let says = |words| score.meaning.ends_with(words);
            assert!(
                !says("lower is better") || score.best == Some(Best::Lowest),
                "{}",
                score.name
            );
            assert!(
                !says("higher is better") || score.best == Some(Best::Highest),
                "{}",
                score.name
            );
            // A verdict on quality needs a direction, and one rank is one score's.
            assert!(
                score.quality.is_none() || score.best.is_some(),
                "{}",
                score.name
            );
        }
        let ranks: HashSet<u8> = qualities()
            .iter()
            .filter_map(|score| Some(score.quality?.rank))
            .collect();
        assert_eq!(ranks.len(), qualities().len());
    }

    #[test]
    fn a_metric_is_written_and_read_by_its_name() {
        for metric in METRICS {
            let text = serde_json::to_string(metric).unwrap();
            assert_eq!(text, format!("\"{}\"", metric.name()));
            let read: &'static dyn Metric = serde_json::from_str(&text).unwrap();
            assert_eq!(read, *metric);
        }
        let unknown = serde_json::from_str::<&'static dyn Metric>("\"ssim\"").unwrap_err();
        assert!(
            unknown
                .to_string()
                .starts_with("unknown variant `ssim`, expected one of `frequency`, `injection`"),
            "{unknown}"
        );
    }
}
