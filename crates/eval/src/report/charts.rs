//! Charts as SVG: told apart by dashes and marks, not by color alone, and 400 units wide, so that their words stay
//! readable on a phone.

use super::content::{Axis, DotChart, Kind, LineChart};
use super::markup::{Element, el};

const WIDTH: f64 = 400.0;
const RIGHT: f64 = 14.0;

/// The dashes of the first, second, ... line; each has its own mark as well.
const DASHES: [&str; 5] = ["none", "7 4", "2 3", "9 3 2 3", "4 2"];

/// Values along an axis, as places in the picture.
struct Scale {
    log: bool,
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Scale {
    fn new(axis: &Axis, values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let usable = |value: &f64| value.is_finite() && (!axis.log || *value > 0.0);
        let (mut low, mut high) = values
            .filter(usable)
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
                (low.min(value), high.max(value))
            });
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        if axis.log {
            (low, high) = (low.log10(), high.log10());
            let room = ((high - low) * 0.04).max(0.04);
            (low, high) = (low - room, high + room);
        } else {
            if low == high {
                // Equal values are read from zero too.
                (low, high) = match low {
                    0.0 => (0.0, 1.0),
                    value => (value.min(0.0), value.max(0.0)),
                };
            }
            // Lengths are read from zero, unless all lie far from it.
            if low > 0.0 && low < 0.6 * high {
                low = 0.0;
            }
            let room = ((high - low) * 0.05).max(high.abs() * 1e-3).max(1e-9);
            (low, high) = (if low == 0.0 { low } else { low - room }, high + room);
        }
        Self {
            log: axis.log,
            low,
            high,
            from,
            to,
        }
    }

    fn at(&self, value: f64) -> Option<f64> {
        let value = match self.log {
            true if value > 0.0 => value.log10(),
            true => return None,
            false => value,
        };
        let place = self.from + (value - self.low) / (self.high - self.low) * (self.to - self.from);
        place.is_finite().then_some(place)
    }

    fn ticks(&self) -> Vec<f64> {
        if self.log {
            let (first, last) = (self.low.floor() as i32 - 1, self.high.ceil() as i32);
            let within = |steps: &[f64]| -> Vec<f64> {
                let all = (first..=last)
                    .flat_map(|power| steps.iter().map(move |step| step * 10f64.powi(power)));
                all.filter(|tick| (self.low..=self.high).contains(&tick.log10()))
                    .collect()
            };
            let choices: [&[f64]; 4] = [
                &[1.0],
                &[1.0, 3.0],
                &[1.0, 2.0, 5.0],
                &[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0],
            ];
            let ticks = choices
                .into_iter()
                .map(within)
                .find(|ticks| ticks.len() >= 3);
            let mut ticks = ticks.unwrap_or_else(|| within(choices[3]));
            if ticks.len() < 2 {
                ticks = linear(10f64.powf(self.low), 10f64.powf(self.high));
            }
            while ticks.len() > 6 {
                let mut place = 0;
                ticks.retain(|_| {
                    place += 1;
                    place % 2 == 1
                });
            }
            return ticks;
        }
        linear(self.low, self.high)
    }

    /// The ticks, each with what stands beside it.
    fn labels(&self) -> Vec<(f64, String)> {
        let ticks = self.ticks();
        let step = match (self.log, &ticks[..]) {
            (_, []) | (_, [_]) => f64::INFINITY,
            (_, [first, second, ..]) => second - first,
        };
        let text = |tick: f64| match self.log && ticks.len() > 2 && !is_even(&ticks) {
            true => number(tick),
            false => tick_text(tick, step),
        };
        ticks.iter().map(|&tick| (tick, text(tick))).collect()
    }
}

/// Round numbers from `low` to `high`.
fn linear(low: f64, high: f64) -> Vec<f64> {
    let span = high - low;
    let rough = span / 4.0;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
    let step = step
        .into_iter()
        .find(|step| *step >= rough)
        .unwrap_or(rough);
    let first = (low / step).ceil() as i64;
    let ticks = (first..first + 12).map(|number| number as f64 * step);
    ticks
        .take_while(|tick| *tick <= high + 1e-12 * span)
        .collect()
}

/// Whether ticks are all as far from each other.
fn is_even(ticks: &[f64]) -> bool {
    let steps: Vec<f64> = ticks.windows(2).map(|pair| pair[1] - pair[0]).collect();
    steps
        .iter()
        .all(|step| (step / steps[0] - 1.0).abs() < 1e-6)
}

/// A tick of an axis, with the digits that tell it from its neighbors, a `step` away.
fn tick_text(tick: f64, step: f64) -> String {
    if tick == 0.0 || !step.is_finite() {
        return number(tick);
    }
    // The exponent of the first digit, however the number was rounded.
    let exponent = |value: f64| (value.abs() * (1.0 + 1e-9)).log10().floor() as i64;
    if !(1e-3..1e6).contains(&tick.abs()) {
        let digits = (exponent(tick) - exponent(step)).clamp(0, 9) as usize;
        return format!("{tick:.digits$e}");
    }
    let digits = (-exponent(step)).clamp(0, 9) as usize;
    let text = format!("{tick:.digits$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').into(),
        false => text,
    }
}

/// A number as an axis or a table says it: four figures, no more digits than they need.
pub(super) fn number(value: f64) -> String {
    if !value.is_finite() {
        return "not a number".into();
    }
    let size = value.abs();
    if size != 0.0 && !(1e-3..1e6).contains(&size) {
        return format!("{value:.2e}");
    }
    let digits = match size {
        0.0 => 0,
        size => (3 - size.log10().floor() as i64).clamp(0, 6) as usize,
    };
    let text = format!("{value:.digits$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').into()
    } else {
        text
    }
}

fn line(class: &str, [x1, y1, x2, y2]: [f64; 4]) -> Element {
    let place = |value: f64| format!("{value:.1}");
    el("line")
        .class(class)
        .attr("x1", place(x1))
        .attr("y1", place(y1))
        .attr("x2", place(x2))
        .attr("y2", place(y2))
}

fn words(class: &str, x: f64, y: f64, anchor: &'static str, text: &str) -> Element {
    el("text")
        .class(class)
        .attr("x", format!("{x:.1}"))
        .attr("y", format!("{y:.1}"))
        .attr("text-anchor", anchor)
        .text(text)
}

/// A mark at a place: its shape says what it is about.
fn mark(shape: usize, x: f64, y: f64, class: &str) -> Element {
    let path = match shape {
        0 => format!("M{x:.1} {:.1}a4 4 0 1 0 .01 0z", y - 4.0),
        1 => format!("M{x:.1} {:.1}l5 5-5 5-5-5z", y - 5.0),
        2 => format!("M{x:.1} {:.1}v12", y - 6.0),
        3 => format!("M{:.1} {:.1}h7v7h-7z", x - 3.5, y - 3.5),
        _ => format!("M{x:.1} {:.1}l4.5 8h-9z", y - 5.0),
    };
    el("path").class(class).attr("d", path)
}

fn canvas(height: f64, title: &str) -> Element {
    el("svg")
        .attr("viewBox", format!("0 0 {WIDTH} {height:.0}"))
        .attr("role", "img")
        .attr("aria-label", title)
}

/// The horizontal axis with its ticks and name.
fn x_axis(mut svg: Element, axis: &Axis, scale: &Scale, top: f64, bottom: f64) -> Element {
    for (tick, text) in scale.labels() {
        let Some(x) = scale.at(tick) else { continue };
        svg = svg.child(line("grid", [x, top, x, bottom])).child(words(
            "tick",
            x,
            bottom + 15.0,
            "middle",
            &text,
        ));
    }
    let middle = (scale.from + scale.to) / 2.0;
    svg.child(line("axis", [scale.from, bottom, scale.to, bottom]))
        .child(words(
            "name",
            middle,
            bottom + 33.0,
            "middle",
            &axis_name(axis),
        ))
}

fn axis_name(axis: &Axis) -> String {
    let scale = if axis.log { " (log scale)" } else { "" };
    format!("{}{scale}", axis.name)
}

/// Lines with a mark at their ends, and which is which above them.
pub(super) fn lines(chart: &LineChart) -> Element {
    let legend_rows = chart.series.len().div_ceil(2) as f64;
    let top = 24.0 + 17.0 * legend_rows;
    let bottom = top + 170.0;
    let points = || chart.series.iter().flat_map(|series| &series.points);
    let x = Scale::new(
        &chart.x,
        points().map(|point| point[0]),
        50.0,
        WIDTH - RIGHT,
    );
    let y = Scale::new(&chart.y, points().map(|point| point[1]), bottom, top);
    let mut svg = canvas(bottom + 40.0, &describe_lines(chart));
    for (tick, text) in y.labels() {
        let Some(place) = y.at(tick) else { continue };
        svg = svg
            .child(line("grid", [x.from, place, x.to, place]))
            .child(words("tick", x.from - 6.0, place + 4.0, "end", &text));
    }
    svg = svg.child(words("name", 2.0, 14.0, "start", &axis_name(&chart.y)));
    svg = x_axis(svg, &chart.x, &x, top, bottom);
    for (place, series) in chart.series.iter().enumerate() {
        let style = place % DASHES.len();
        let class = format!("series s{style}");
        let left = 50.0 + (place % 2) as f64 * 175.0;
        let row = 30.0 + (place / 2) as f64 * 17.0;
        let sample = line(&class, [left, row, left + 26.0, row]);
        svg = svg
            .child(sample.attr("stroke-dasharray", DASHES[style]))
            .child(mark(style, left + 13.0, row, &format!("mark s{style}")))
            .child(words("key", left + 33.0, row + 4.0, "start", &series.name));
        let mut path = String::new();
        let mut last = None;
        for point in &series.points {
            let (Some(px), Some(py)) = (x.at(point[0]), y.at(point[1])) else {
                continue;
            };
            path.push_str(&format!(
                "{}{px:.1} {py:.1}",
                if path.is_empty() { "M" } else { "L" }
            ));
            last = Some((px, py));
        }
        svg = svg.child(
            el("path")
                .class(&class)
                .attr("stroke-dasharray", DASHES[style])
                .attr("d", if path.is_empty() { "M0 0".into() } else { path }),
        );
        if let Some((px, py)) = last {
            svg = svg.child(mark(style, px, py, &format!("mark s{style}")));
        }
    }
    svg
}

/// What the page's style sheet says of a chart, for one that stands alone.
const STYLE: &str = "<style>svg{background:#fff}text{fill:#1d2733;font:12px system-ui,Arial,sans-serif}\
    .tick{fill:#5b6675;font-size:11px}.name{fill:#5b6675}.grid{stroke:#e3e7ec}.axis{stroke:#5b6675}\
    .series{fill:none;stroke-width:2;stroke-linejoin:round}.mark{stroke-width:2;fill:#fff}\
    .s0{stroke:#1d5fa8}.s1{stroke:#b4531f}.s2{stroke:#2d7d46}.s3{stroke:#5b6675}.s4{stroke:#1d2733}</style>";

/// [`lines`] as a file of its own.
pub(super) fn lines_file(chart: &LineChart) -> String {
    let svg = lines(chart).attr("xmlns", "http://www.w3.org/2000/svg");
    format!("{}\n", svg.compiled(STYLE).render())
}

fn describe_lines(chart: &LineChart) -> String {
    let mut text = format!(
        "Line chart: {}. {} over {}.",
        chart.title,
        axis_name(&chart.y),
        axis_name(&chart.x)
    );
    for series in &chart.series {
        if let (Some(first), Some(last)) = (series.points.first(), series.points.last()) {
            text.push_str(&format!(
                " {}: {} at first, {} at last.",
                series.name,
                number(first[1]),
                number(last[1])
            ));
        }
    }
    text
}

/// A row of marks for each name.
pub(super) fn dots(chart: &DotChart) -> Element {
    const ROW: f64 = 40.0;
    let head = if chart.marks.is_empty() {
        8.0
    } else {
        12.0 + 15.0 * chart.marks.len() as f64
    };
    let bottom = head + ROW * chart.rows.len() as f64 + 2.0;
    let values = chart.rows.iter().flat_map(|row| row.values.iter().copied());
    let values = values.chain(chart.marks.iter().map(|mark| mark.value));
    let x = Scale::new(&chart.x, values, 12.0, WIDTH - RIGHT);
    let mut svg = canvas(bottom + 40.0, &describe_dots(chart));
    svg = x_axis(svg, &chart.x, &x, head, bottom);
    for (place, mark) in chart.marks.iter().enumerate() {
        let Some(at) = x.at(mark.value) else { continue };
        let row = 12.0 + 15.0 * place as f64;
        // Beside the line, on the side with more room.
        let (left, anchor) = if at > WIDTH / 2.0 {
            (at - 5.0, "end")
        } else {
            (at + 5.0, "start")
        };
        svg = svg
            .child(line("limit", [at, row - 8.0, at, bottom]))
            .child(words(
                "key",
                left,
                row,
                anchor,
                &format!("{}: {}", mark.name, number(mark.value)),
            ));
    }
    for (place, row) in chart.rows.iter().enumerate() {
        let top = head + ROW * place as f64;
        let middle = top + 27.0;
        let (shape, class) = match row.kind {
            Kind::Before => (0, "dot before"),
            Kind::After => (1, "dot after"),
            Kind::Control => (2, "dot control"),
        };
        svg = svg
            .child(line("base", [x.from, middle, x.to, middle]))
            .child(words("row", 12.0, top + 14.0, "start", &row.name));
        for at in row.values.iter().filter_map(|value| x.at(*value)) {
            svg = svg.child(mark(shape, at, middle, class));
        }
    }
    svg
}

fn describe_dots(chart: &DotChart) -> String {
    let mut text = format!("Dot chart: {}. {}.", chart.title, axis_name(&chart.x));
    for row in &chart.rows {
        let low = row.values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = row.values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        match row.values.len() {
            0 => {}
            1 => text.push_str(&format!(" {}: {}.", row.name, number(low))),
            count => text.push_str(&format!(
                " {}: {count} values from {} to {}.",
                row.name,
                number(low),
                number(high)
            )),
        }
    }
    for mark in &chart.marks {
        text.push_str(&format!(" {}: {}.", mark.name, number(mark.value)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{DotRow, Series};

    #[test]
    fn numbers_have_the_figures_they_need() {
        for (value, text) in [
            (0.0, "0"),
            (12.0, "12"),
            (0.05, "0.05"),
            (1234.56, "1235"),
            (1.0 / 3.0, "0.3333"),
            (-2.5, "-2.5"),
            (1e-7, "1.00e-7"),
            (f64::NAN, "not a number"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn axes_have_a_few_round_ticks_within_them() {
        for (log, low, high) in [
            (false, 0.0, 1.0),
            (false, 311.0, 319.0),
            (false, 5.0, 5.0),
            (true, 0.01, 0.012),
            (true, 1e-6, 1e3),
            (true, 2.0, 2.0),
            (true, 1.0, 40.0),
        ] {
            let axis = Axis {
                name: "x".into(),
                log,
            };
            let scale = Scale::new(&axis, [low, high].into_iter(), 0.0, 100.0);
            let ticks = scale.ticks();
            assert!(
                (1..=7).contains(&ticks.len()),
                "{low} {high} {log}: {ticks:?}"
            );
            for tick in ticks {
                let place = scale.at(tick).unwrap();
                assert!(
                    (-1e-6..=100.000001).contains(&place),
                    "{low} {high} {log}: {tick} at {place}"
                );
            }
        }
    }

    #[test]
    fn axes_of_equal_values_are_read_from_zero_and_no_two_ticks_look_alike() {
        let labels = |log, low: f64, high: f64| -> Vec<String> {
            let axis = Axis {
                name: "x".into(),
                log,
            };
            let scale = Scale::new(&axis, [low, high].into_iter(), 0.0, 100.0);
            scale.labels().into_iter().map(|(_, text)| text).collect()
        };
        let unit = ["0", "0.5", "1"];
        assert_eq!(labels(false, 0.0, 0.0), unit);
        assert_eq!(labels(false, 1.0, 1.0), unit);
        assert_eq!(labels(false, -4.0, -4.0), ["-4", "-2", "0"]);
        for (log, low, high) in [
            (false, 0.99999, 1.0),
            (false, 1234567.0, 1234568.0),
            (false, 0.003, 0.003),
            (false, 1e-9, 1e-9),
            (true, 2.0, 2.0),
            (true, 0.0345, 0.0345),
            (true, 6.4, 6.5),
            (true, 1e-6, 1e3),
            (true, 0.3, 40.0),
        ] {
            let found = labels(log, low, high);
            let mut once = found.clone();
            once.dedup();
            assert!(
                found == once && found.len() >= 2,
                "{log} {low} {high}: {found:?}"
            );
            assert!(found.iter().all(|text| text.len() <= 9), "{found:?}");
        }
    }

    #[test]
    fn values_that_cannot_be_drawn_are_left_out() {
        let chart = LineChart {
            title: "t".into(),
            note: String::new(),
            x: Axis::linear("step"),
            y: Axis::log("loss"),
            series: vec![Series {
                name: "a".into(),
                points: vec![[0.0, 0.0], [1.0, f64::NAN], [2.0, 1.0], [3.0, 2.0]],
            }],
        };
        let svg = lines(&chart).render();
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        let chart = DotChart {
            title: "t".into(),
            note: String::new(),
            x: Axis::linear("d"),
            rows: vec![DotRow {
                name: "none".into(),
                kind: Kind::Control,
                values: vec![f64::INFINITY],
            }],
            marks: Vec::new(),
        };
        assert!(!dots(&chart).render().contains("inf"));
    }
}
