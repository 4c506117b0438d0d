//! What an unlearning run recorded beside the model that is measured.

use std::collections::BTreeSet;

use retrack_checkpoint::words::counted;
use retrack_data::{Dataset, Split};
use serde_json::{Value, json};

use super::Evaluate;
use crate::failure::Failure;
use crate::field::Field;
use crate::run::RunFolder;
use crate::source::{RESIZE_KEYS, record_resize};

/// What the model's own record, where an unlearning run left one beside it, says otherwise than this command: then
/// another image is looked for than the one that was forgotten.
///
/// # Errors
/// Images that cannot be read.
pub(super) fn other_run(
    args: &Evaluate,
    data: &Dataset,
    split: &Split,
) -> Result<Option<String>, Failure> {
    let Some((recorded, _)) = RunFolder::recorded(&args.model) else {
        return Ok(None);
    };
    if recorded["command"] != "unlearn" || recorded.get("data_digest").is_none() {
        return Ok(None);
    }
    let record = args.model.join("run").join("config.json");
    let says = |what: String| Some(format!("{}: {what}", record.display()));
    let same = recorded["data_digest"] == data.digest()?;
    let mut now = json!({"split": args.data.reading.split, "alpha": data.alpha()});
    record_resize(&mut now, data.resize());
    let [resize, crop, interpolation] = RESIZE_KEYS;
    for (key, field) in [
        ("split", Field::Split),
        ("alpha", Field::Alpha),
        (resize, Field::Resize),
        (crop, Field::Crop),
        (interpolation, Field::Interpolation),
    ] {
        // What was not resized has no such keys, and earlier versions recorded less.
        let differs = match recorded.get(key) {
            Some(then) => *then != now[key],
            None => key == resize && now.get(key).is_some(),
        };
        if !same && differs {
            let shown = |value: &Value| match value {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                _ => "none".to_owned(),
            };
            return Ok(says(format!(
                "this model was unlearned with {field} {}, and is measured with {field} {}: rows and pixels may be \
                 others",
                shown(&recorded[key]),
                shown(&now[key])
            )));
        }
    }
    if !same {
        return Ok(says(format!(
            "this model was unlearned on other images than those of {}: rows may be others",
            data.path().display()
        )));
    }
    let rows = |key: &str| -> Vec<usize> {
        serde_json::from_value(recorded[key].clone()).unwrap_or_default()
    };
    // Exact copies were forgotten too, whichever was named.
    let then: BTreeSet<usize> = [rows("forget_rows"), rows("duplicate_rows")]
        .concat()
        .into_iter()
        .collect();
    let now: BTreeSet<usize> = split
        .forget
        .iter()
        .chain(&split.duplicates)
        .copied()
        .collect();
    // Near copies are looked for, whether they were forgotten or not.
    let near: BTreeSet<usize> = split.near.iter().map(|near| near.row).collect();
    let more = then
        .difference(&now)
        .filter(|row| !near.contains(row))
        .count();
    // What the model's earlier requests forgot.
    let earlier: BTreeSet<usize> = rows("earlier_rows").into_iter().collect();
    let other = now.difference(&then).find(|&row| !earlier.contains(row));
    let is_all = more == 0 || !now.is_disjoint(&earlier);
    if recorded.get("forget_rows").is_none() || (other.is_none() && is_all) {
        return Ok(None);
    }
    Ok(says(match other {
        Some(row) => format!(
            "this model did not forget row {row} of what {} selects",
            Field::Forget
        ),
        None => format!(
            "this model forgot {} more than {} selects, which {} not looked for",
            counted(more, "image"),
            Field::Forget,
            if more == 1 { "is" } else { "are" }
        ),
    }))
}
