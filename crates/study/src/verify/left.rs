//! A data set that forgotten images have left, as their deletion demands.

use std::collections::BTreeSet;
use std::path::Path;

use retrack_checkpoint::chain::Chain;
use retrack_checkpoint::words::counted;
use retrack_data::Dataset;
use retrack_eval::report::Report;

use crate::evidence::{Check, Private};
use crate::failure::Failure;
use crate::field::Field;
use crate::{model, progress, sealed};

/// The data set with what was sealed beside the run in its place again; as it is, if that does not make it the run's.
///
/// # Errors
/// Sealed images that cannot be opened.
pub(super) fn put_back(
    data: Dataset,
    key: &Path,
    out: &Path,
    check: &Check,
) -> Result<Dataset, Failure> {
    let archive = sealed::open(key, out)?;
    match sealed::restored(&data, &archive, &check.data_digest)? {
        Some(whole) => {
            progress::note(match whole.returned().len() {
                0 => format!("no image is missing in {}", data.path().display()),
                some => format!(
                    "{}: {} put back in memory from {}",
                    data.path().display(),
                    counted(some, "row"),
                    archive.path().display()
                ),
            });
            Ok(whole)
        }
        None => {
            progress::warn(format!(
                "{}: also with the images of {} it is not the data set of the run",
                data.path().display(),
                archive.path().display()
            ));
            Ok(data)
        }
    }
}

/// What of the forgotten images left the data set, in words, if that is all that is different. `None`: it is another data set.
/// `private`: the run's key, by which those that are still there are known.
///
/// # Errors
/// An image that cannot be read.
pub(super) fn images(
    report: &Report,
    check: &Check,
    data: &Dataset,
    private: Option<&Private>,
    out: &Path,
) -> Result<Option<String>, Failure> {
    let mut digests: BTreeSet<&str> = BTreeSet::new();
    let chain = Chain::read(out).ok().flatten();
    digests.extend(chain.iter().flat_map(|chain| chain.images().into_keys()));
    let request = report.request.iter();
    digests.extend(request.flat_map(|request| request.keyed_digests.iter().map(String::as_str)));
    let digests = digests.into_iter().zip(0..).collect();
    let there = match private {
        Some(private) => private.key.find(data, &digests, model::BUDGET)?,
        None => Default::default(),
    };
    let rows = (0..data.len()).filter(|row| !there.contains_key(row));
    let rest = data.digest_of(&rows.collect::<Vec<_>>())?;
    let Some(place) = check.rest_digests.iter().position(|digest| *digest == rest) else {
        return Ok(None);
    };
    let near = match place {
        0 => "",
        _ => " and what was nearly a copy of one",
    };
    Ok(Some(match there.len() {
        0 => format!("the forgotten images{near}"),
        some => format!("forgotten images{near} (all but {})", counted(some, "row")),
    }))
}

/// What that leaves unmeasured, and what would measure it.
pub(super) fn not_measured(left: &str, check: &Check, out: &Path) -> Vec<String> {
    let mut scores = Vec::new();
    let before = &check.before;
    for (what, is_there) in [
        ("samples that show one", before.samples > 0),
        ("attempts to restore one", !before.distances.is_empty()),
        (
            "their denoising errors beside those of retained images",
            true,
        ),
        (
            "where they stand among look-alikes",
            !before.standings.is_empty(),
        ),
        ("their keyed digests", true),
    ] {
        if is_there {
            scores.push(what);
        }
    }
    let remedy = match sealed::beside(out) {
        Some(path) => format!(
            "{} holds them: {} KEYFILE measures with them",
            path.display(),
            Field::Sealed
        ),
        None => format!(
            "no sealed copy of them lies beside {} (`retrack unlearn --keep-sealed` makes one): put them back among the data \
             to measure again",
            out.display()
        ),
    };
    vec![
        format!(
            "{left} left the data, which is otherwise the run's; not measured again: {}",
            scores.join(", ")
        ),
        remedy,
    ]
}
