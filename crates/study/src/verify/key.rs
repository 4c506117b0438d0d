//! What only the holder of a run's key can compare: the forgotten images, and the texts of the measured ones.

use std::io;
use std::path::Path;

use retrack_data::Dataset;
use retrack_data::digest::DigestKey;
use retrack_eval::report::Report;

use super::{Verification, split};
use crate::evidence::{Check, Forgotten, OLD_KEY, Private, RowTexts};
use crate::failure::Failure;
use crate::field::Field;
use crate::progress;

/// The run's key: where it is said to be, beside the output folder, or in the run's own, where earlier versions put it.
pub(super) fn key(
    given: Option<&Path>,
    out: &Path,
    folder: &Path,
) -> Result<Option<Private>, Failure> {
    let places = match given {
        Some(path) => vec![path.to_path_buf()],
        None => vec![Private::place(out)?, folder.join(OLD_KEY)],
    };
    for path in &places {
        match DigestKey::open(path) {
            Ok(key) => {
                return Ok(Some(Private {
                    path: path.clone(),
                    key,
                }));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && given.is_none() => {}
            Err(error) => return Err(Failure::read(path, error)),
        }
    }
    progress::warn(format!(
        "{}: not found, so the keyed digests of the forgotten images are not compared; {} says where the key is now",
        places[0].display(),
        Field::Key
    ));
    Ok(None)
}

/// The keyed digests of the forgotten images.
pub(super) fn images(
    report: &Report,
    check: &Check,
    data: &Dataset,
    private: Option<&Private>,
    found: &mut Verification,
) -> Result<(), Failure> {
    let recorded = report
        .request
        .as_ref()
        .map_or(&[][..], |request| &request.keyed_digests);
    let Some(private) = private else {
        return Ok(());
    };
    let forgotten = Forgotten::new(data, &split(check, data)?, check.rule())?;
    let now: Vec<String> = forgotten
        .images()
        .map(|image| private.key.of(data.shape(), image))
        .collect();
    found.compared += recorded.len();
    if now != recorded {
        found.differs("keyed digests of the forgotten images: other images, or another key");
    }
    Ok(())
}

/// The texts of the measured images; nothing of a run that did not keep them.
pub(super) fn texts(
    check: &Check,
    private: Option<&Private>,
    out: &Path,
) -> Result<Option<RowTexts>, Failure> {
    let Some(digest) = &check.texts else {
        return Ok(None);
    };
    let missing = |path: &Path| {
        Failure::input(format!(
            "{}: the texts of the measured images are kept with the run's key, and are not found there; say with {} \
             where that is now",
            path.display(),
            Field::Key
        ))
    };
    let Some(private) = private else {
        return Err(missing(&Private::place(out)?));
    };
    let texts = private.texts(digest)?;
    texts.map(Some).ok_or_else(|| missing(&private.path))
}
