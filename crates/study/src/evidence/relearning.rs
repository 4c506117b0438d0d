//! What a report shows of further training: after how many steps an image is back.

use retrack_checkpoint::words::counted;
use retrack_eval::relearn::{BATCH_SIZE, RATE, Relearned, Steps, TRIES};
use retrack_eval::report::{
    Axis, DotChart, DotRow, Kind, Mark, MetricRow, MetricTable, MetricValue, Report,
};

use super::comparison::Column;

/// What a copy is trained on.
const ON: [&str; 3] = ["on retained images", "on the image", "on images never seen"];

/// Adds a chart of all steps, and of several images a table with a row each.
pub(super) fn show(report: &mut Report, columns: &[Column]) {
    let found: Vec<(&Column, &Relearned)> = columns
        .iter()
        .filter_map(|column| Some((column, column.relearned?)))
        .collect();
    let Some((_, first)) = found.first() else {
        return;
    };
    report.comparisons.push(chart(&found));
    if first.images.len() > 1 {
        report.metrics.push(table(&found));
    }
}

/// What it comes to for the last of the models.
pub(super) fn sentence(columns: &[Column]) -> Option<String> {
    let relearned = columns.last()?.relearned?;
    let [retained, image, unseen] = relearned.kinds().map(|steps| {
        let (median, at_least) = relearned.median(&steps);
        match at_least {
            true => format!("more than {median}"),
            false => median.to_string(),
        }
    });
    let (are_back, them) = match relearned.images.len() {
        1 => ("the image is back", "it"),
        _ => ("half of the images are back", "them"),
    };
    Some(format!(
        "Steps of further training until {are_back}: {image} on {them}, {unseen} for images never seen, and {retained} on retained \
         images alone."
    ))
}

fn chart(found: &[(&Column, &Relearned)]) -> DotChart {
    let mut rows = Vec::new();
    let mut begins = Vec::new();
    let mut marks: Vec<Mark> = Vec::new();
    for (column, relearned) in found {
        for (kind, on) in relearned.kinds().iter().zip(ON) {
            let never = kind.iter().filter(|steps| steps.is_none()).count();
            let within = match (never, kind.len()) {
                (0, _) => String::new(),
                (_, 1) => format!(" (not within {})", relearned.most),
                (never, all) => format!(" ({never} of {all} not within {})", relearned.most),
            };
            let values = kind
                .iter()
                .map(|steps| steps.unwrap_or(relearned.most) as f64);
            rows.push(DotRow {
                name: format!("{}, {on}{within}", column.name),
                kind: match column.name {
                    _ if on == ON[2] => Kind::Control,
                    "baseline" => Kind::Before,
                    _ => Kind::After,
                },
                values: values.collect(),
            });
        }
        begins.push(match found.len() {
            1 => relearned.from.to_string(),
            _ => format!("{} ({})", relearned.from, column.name),
        });
        let most = relearned.most as f64;
        if !marks.iter().any(|mark| mark.value == most) {
            let name = "no more steps were taken".into();
            marks.push(Mark { name, value: most });
        }
    }
    DotChart {
        title: "Does it come back?".into(),
        note: format!(
            "A copy of the model is trained further: Adam, a rate of {RATE:e}, {} a step; each of the images never seen on itself. An image is back when at least half of \
             {TRIES} attempts bring it back from noise at timestep {}. As many steps as images never seen need: it is learned like \
             one of them. Fewer: a trace of it was left.",
            counted(BATCH_SIZE, "image"),
            begins.join(", "),
        ),
        x: Axis::linear("steps until the image is back"),
        rows,
        marks,
    }
}

fn table(found: &[(&Column, &Relearned)]) -> MetricTable {
    let images = found
        .iter()
        .map(|(_, relearned)| relearned.images.len())
        .max();
    let rows = (0..images.unwrap_or(0)).flat_map(|number| {
        ON.iter().enumerate().map(move |(kind, on)| MetricRow {
            name: format!("image {}, {on}", number + 1),
            meaning: String::new(),
            values: found
                .iter()
                .map(|(_, relearned)| {
                    let image = relearned.images.get(number)?;
                    let steps: &[Steps] = match kind {
                        0 => std::slice::from_ref(&image.retained),
                        1 => std::slice::from_ref(&image.image),
                        _ => &image.controls,
                    };
                    let (value, at_least) = relearned.median(steps);
                    Some(MetricValue {
                        value,
                        count: steps.len(),
                        interval: None,
                        deviation: None,
                        at_least,
                    })
                })
                .collect(),
        })
    });
    MetricTable {
        caption: "Steps of further training until each image is back".into(),
        note: "The median of the images never seen.".into(),
        columns: found
            .iter()
            .map(|(column, _)| column.name.to_string())
            .collect(),
        rows: rows.collect(),
    }
}
