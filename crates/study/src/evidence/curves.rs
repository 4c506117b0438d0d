//! The curves of a run, from what it recorded.

use std::fs;
use std::path::Path;

use retrack_eval::report::{Axis, LineChart, Series};
use serde_json::Value;

use crate::failure::Failure;

/// Points of a curve, at most.
const POINTS: usize = 400;

/// The lines of `events.jsonl`.
///
/// # Errors
/// The system's.
pub fn read_events(path: &Path) -> Result<Vec<Value>, Failure> {
    let text = fs::read_to_string(path).map_err(|error| Failure::read(path, error))?;
    Ok(text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect())
}

/// The curves in `events.jsonl`. `first`: the denoising errors before the first step.
pub fn curves(events: &[Value], first: [f64; 2]) -> Vec<LineChart> {
    let series = |key: &str, name: &str| -> Option<Series> {
        let points: Vec<[f64; 2]> = events
            .iter()
            .filter_map(|event| Some([event["step"].as_f64()?, event.get(key)?.as_f64()?]))
            .collect();
        let stride = points.len().div_ceil(POINTS).max(1);
        let last = points.len().saturating_sub(1);
        let kept = points
            .iter()
            .enumerate()
            .filter(|(place, _)| place % stride == 0 || *place == last);
        let points: Vec<[f64; 2]> = kept.map(|(_, point)| *point).collect();
        (!points.is_empty()).then(|| Series {
            name: name.into(),
            points,
        })
    };
    let chart = |title: &str, note: &str, y: &str, series: Vec<Series>| {
        let values = || {
            series
                .iter()
                .flat_map(|series| series.points.iter().map(|point| point[1]))
        };
        let low = values().fold(f64::INFINITY, f64::min);
        let high = values().fold(f64::NEG_INFINITY, f64::max);
        // Curves of very different height share a picture only on a logarithmic axis.
        let log = low > 0.0 && high > 8.0 * low;
        (!series.is_empty()).then(|| LineChart {
            title: title.into(),
            note: note.into(),
            x: Axis::linear("step"),
            y: Axis {
                name: y.into(),
                log,
            },
            series,
        })
    };
    let list = |names: &[(&str, &str)]| {
        names
            .iter()
            .filter_map(|(key, name)| series(key, name))
            .collect()
    };
    let mut errors: Vec<Series> = list(&[
        ("forgotten_error", "forgotten"),
        ("retained_error", "retained controls"),
    ]);
    for (series, value) in errors.iter_mut().zip(first) {
        if value.is_finite() {
            series.points.insert(0, [0.0, value]);
        }
    }
    [
        chart(
            "Denoising error on the way",
            "Of the images, timesteps and noises of the scores, which are its first and last points: the last is the \
             folder that was written, those between are the network in training.",
            "mean squared error, a value",
            errors,
        ),
        chart(
            "Loss",
            "What the method minimizes, and its terms, on each step's own images and noise.",
            "squared error, summed over an image",
            list(&[
                ("loss", "loss"),
                ("retain_loss", "retained"),
                ("forget_loss", "forgotten"),
                ("correction_loss", "correction"),
            ]),
        ),
        chart(
            "Gradient norm",
            "Before clipping.",
            "Euclidean norm",
            list(&[("gradient_norm", "gradient norm")]),
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}
