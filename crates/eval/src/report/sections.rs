//! The sections of the page, each from its part of the content.

use retrack_checkpoint::words::counted;
use serde_json::Value;

use super::base64;
use super::charts::{self, number};
use super::content::*;
use super::markup::{Element, el};
use super::page::prose;

pub(super) struct Section {
    pub id: &'static str,
    pub title: &'static str,
    pub content: Vec<Element>,
}

/// Those that have something to show, in the order in which a reader asks.
pub(super) fn all(report: &Report) -> Vec<Section> {
    let section = |id, title, content| Section { id, title, content };
    let mut sections = vec![
        section("request", "What was asked", request(report)),
        section("samples", "Samples", samples(report)),
        section(
            "restoration",
            "Does the image come back?",
            restoration(report),
        ),
        section("metrics", "Scores", metrics(report)),
        section("curves", "Over the steps of the run", curves(report)),
        section("neighbors", "Neighbors", neighbors(report)),
        section("cost", "Cost", cost(report)),
        section("provenance", "Provenance", provenance(report)),
    ];
    sections.retain(|section| !section.content.is_empty());
    sections
}

fn paragraph(text: &str) -> Element {
    prose(el("p"), text)
}

fn note(text: &str) -> Element {
    el("p").class("note").text(text)
}

fn facts(facts: &[Fact]) -> Element {
    let pairs = facts
        .iter()
        .flat_map(|fact| [el("dt").text(&fact.name), el("dd").text(&fact.value)]);
    el("dl").children(pairs)
}

fn picture(report: &Report, name: &str) -> Option<Element> {
    let picture = report.pictures.get(name)?;
    let image = el("img")
        .attr(
            "src",
            format!("data:image/png;base64,{}", base64::encode(&picture.png)),
        )
        .attr("alt", &picture.alt)
        .attr("width", picture.width)
        .attr("height", picture.height);
    Some(
        el("figure")
            .child(el("figcaption").text(&picture.caption))
            .child(image),
    )
}

/// A table that scrolls by itself where it is too wide or too long, by keyboard too.
fn scrolling(table: Element, name: &str, tall: bool) -> Element {
    el("div")
        .class(if tall { "scroll tall" } else { "scroll" })
        .attr("role", "region")
        .attr("tabindex", 0)
        .attr("aria-label", name)
        .child(table)
}

fn heading(text: &str) -> Element {
    el("th").attr("scope", "col").text(text)
}

fn request(report: &Report) -> Vec<Element> {
    let Some(request) = &report.request else {
        return Vec::new();
    };
    let mut content = vec![facts(&request.facts)];
    content.extend(
        request
            .picture
            .iter()
            .filter_map(|name| picture(report, name)),
    );
    if !request.keyed_digests.is_empty() {
        let digests = request
            .keyed_digests
            .iter()
            .map(|digest| el("li").class("hash").text(digest));
        let forgotten = counted(request.keyed_digests.len(), "distinct forgotten image");
        content.push(
            el("details")
                .child(el("summary").text(format!("Keyed digests of {forgotten}")))
                .child(note(&request.digests_note))
                .child(el("ul").children(digests)),
        );
    }
    content
}

fn samples(report: &Report) -> Vec<Element> {
    let Some(samples) = &report.samples else {
        return Vec::new();
    };
    let shown: Vec<Element> = samples
        .pictures
        .iter()
        .filter_map(|name| picture(report, name))
        .collect();
    let mut content = vec![paragraph(&samples.note)];
    if shown.len() != 2 {
        // Of several prompts: those that belong together follow each other.
        let mut shown = shown.into_iter().peekable();
        while shown.peek().is_some() {
            let pair = shown.by_ref().take(2);
            content.push(el("div").class("pair").children(pair));
        }
        return content;
    }
    let name = |place: usize| -> &str { if place == 0 { "before" } else { "after" } };
    let figures = shown
        .into_iter()
        .enumerate()
        .map(|(place, figure)| figure.class(if place == 0 { "first" } else { "second" }));
    let button = |show: &str, text: &str| {
        el("button")
            .attr("type", "button")
            .attr("data-show", show)
            .attr("aria-pressed", "false")
            .text(text)
    };
    let controls = el("div")
        .class("controls")
        .attr("hidden", "")
        .attr("role", "group")
        .attr("aria-label", "Compare samples before and after")
        .child(button("both", "Side by side"))
        .child(button("before", "Before"))
        .child(button("after", "After"))
        .child(el("label").attr("for", "compare").text("Slide"))
        .child(
            el("input")
                .attr("type", "range")
                .attr("id", "compare")
                .attr("min", 0)
                .attr("max", 100)
                .attr("step", 1)
                .attr("value", 50),
        )
        .child(el("span").class("reading").attr("aria-live", "polite"));
    content.push(
        el("div")
            .attr("data-compare", "")
            .attr("data-before", name(0))
            .attr("data-after", name(1))
            .child(controls)
            .child(el("div").class("pair").children(figures)),
    );
    content
}

fn restoration(report: &Report) -> Vec<Element> {
    let mut content = Vec::new();
    for test in &report.restoration {
        content.push(el("h3").text(&test.title));
        content.push(paragraph(&test.note));
        let rows = test.attempts.iter().map(|attempts| {
            el("tr")
                .child(el("th").attr("scope", "row").text(&attempts.name))
                .child(el("td").text(format!("{} of {}", attempts.restored, attempts.tries)))
                .child(el("td").text(number(attempts.mean_distance)))
        });
        let table = el("table")
            .child(el("caption").text("What the attempts came to"))
            .child(
                el("thead").child(
                    el("tr")
                        .child(heading("Model"))
                        .child(heading("Restored"))
                        .child(heading("Mean distance")),
                ),
            )
            .child(el("tbody").children(rows));
        content.push(
            el("div")
                .class("charts")
                .child(dot_chart(&test.chart))
                .child(el("div").child(scrolling(
                    table,
                    &format!("{}: attempts", test.title),
                    false,
                ))),
        );
        content.extend(
            test.pictures
                .iter()
                .filter_map(|name| picture(report, name)),
        );
        if let Some(why) = &test.withheld {
            content.push(el("p").class("withheld").text(why));
        }
    }
    content
}

fn metrics(report: &Report) -> Vec<Element> {
    let mut content: Vec<Element> = Vec::new();
    for table in &report.metrics {
        let head = el("tr")
            .child(heading("Score"))
            .children(table.columns.iter().map(|name| heading(name)));
        let rows = table.rows.iter().map(|row| {
            let mut name = el("th").attr("scope", "row").text(&row.name);
            if !row.meaning.is_empty() {
                name = name.child(el("small").text(&row.meaning));
            }
            el("tr").child(name).children(row.values.iter().map(value))
        });
        let shown = el("table")
            .child(el("caption").text(&table.caption))
            .child(el("thead").child(head))
            .child(el("tbody").children(rows));
        content.push(scrolling(shown, &table.caption, false));
        if !table.note.is_empty() {
            content.push(note(&table.note));
        }
    }
    if !report.comparisons.is_empty() {
        content.push(
            el("div")
                .class("charts")
                .children(report.comparisons.iter().map(dot_chart)),
        );
    }
    content
}

fn value(value: &Option<MetricValue>) -> Element {
    let Some(value) = value else {
        return el("td").text("–");
    };
    let mut text = match value.at_least {
        true => format!("> {}", number(value.value)),
        false => number(value.value),
    };
    if let Some(deviation) = value.deviation {
        text.push_str(&format!(" ± {}", number(deviation)));
    }
    let mut details = Vec::new();
    if let Some([low, high]) = value.interval {
        details.push(format!("95%: {} to {}", number(low), number(high)));
    }
    details.push(format!("n = {}", value.count));
    el("td")
        .text(text)
        .child(el("small").text(details.join(", ")))
}

fn dot_chart(chart: &DotChart) -> Element {
    let rows = chart.rows.iter().map(|row| {
        let values: Vec<String> = row.values.iter().map(|value| number(*value)).collect();
        el("tr")
            .child(el("th").attr("scope", "row").text(&row.name))
            .child(el("td").class("words").text(values.join(", ")))
    });
    let table = el("table")
        .child(el("caption").text(&chart.x.name))
        .child(
            el("thead").child(
                el("tr")
                    .child(heading("Row"))
                    .child(el("th").attr("scope", "col").class("words").text("Values")),
            ),
        )
        .child(el("tbody").children(rows));
    framed(&chart.title, &chart.note, charts::dots(chart), table)
}

fn line_chart(chart: &LineChart) -> Element {
    let mut steps: Vec<f64> = chart
        .series
        .iter()
        .flat_map(|series| series.points.iter().map(|point| point[0]))
        .collect();
    steps.sort_by(f64::total_cmp);
    steps.dedup();
    let rows = steps.iter().map(|step| {
        let cells = chart.series.iter().map(|series| {
            let point = series.points.iter().find(|point| point[0] == *step);
            el("td").text(point.map_or_else(|| "–".into(), |point| number(point[1])))
        });
        el("tr")
            .child(el("th").attr("scope", "row").text(number(*step)))
            .children(cells)
    });
    let table = el("table")
        .child(el("caption").text(&chart.y.name))
        .child(
            el("thead").child(
                el("tr")
                    .child(heading(&chart.x.name))
                    .children(chart.series.iter().map(|series| heading(&series.name))),
            ),
        )
        .child(el("tbody").children(rows));
    framed(&chart.title, &chart.note, charts::lines(chart), table)
}

/// A chart with its title, and its numbers for who cannot or will not read them off.
fn framed(title: &str, remark: &str, chart: Element, table: Element) -> Element {
    let mut caption = el("figcaption").child(el("b").text(title));
    if !remark.is_empty() {
        caption = caption.text(format!(" {remark}"));
    }
    el("figure").child(caption).child(chart).child(
        el("details")
            .attr("data-print", "no")
            .class("only-screen")
            .child(el("summary").text("Numbers"))
            .child(scrolling(table, &format!("{title}: numbers"), true)),
    )
}

fn curves(report: &Report) -> Vec<Element> {
    if report.curves.is_empty() {
        return Vec::new();
    }
    vec![
        el("div")
            .class("charts")
            .children(report.curves.iter().map(line_chart)),
    ]
}

fn neighbors(report: &Report) -> Vec<Element> {
    let Some(neighbors) = &report.neighbors else {
        return Vec::new();
    };
    let mut content = vec![paragraph(&neighbors.note)];
    content.extend(
        neighbors
            .picture
            .iter()
            .filter_map(|name| picture(report, name)),
    );
    if neighbors.groups.is_empty() {
        return content;
    }
    let most = neighbors
        .groups
        .iter()
        .map(|group| group.rows.len())
        .max()
        .unwrap_or(0);
    let rows = neighbors.groups.iter().map(|group| {
        let cells = group
            .rows
            .iter()
            .zip(&group.distances)
            .map(|(row, distance)| {
                el("td")
                    .text(format!("row {row}"))
                    .child(el("small").text(number(*distance)))
            });
        el("tr")
            .child(
                el("th")
                    .attr("scope", "row")
                    .text(format!("row {}", group.of)),
            )
            .children(cells)
    });
    let head = el("tr")
        .child(heading("Forgotten"))
        .children((1..=most).map(|place| heading(&place.to_string())));
    let table =
        el("table")
            .child(el("caption").text(
                "Nearest retained images, with their Euclidean distance over pixels in [0, 1]",
            ))
            .child(el("thead").child(head))
            .child(el("tbody").children(rows));
    content.push(scrolling(table, "Nearest retained images", true));
    content
}

fn cost(report: &Report) -> Vec<Element> {
    if report.cost.is_empty() {
        return Vec::new();
    }
    vec![facts(&report.cost)]
}

fn provenance(report: &Report) -> Vec<Element> {
    let provenance = &report.provenance;
    let mut content = vec![facts(&provenance.facts)];
    if !provenance.files.is_empty() {
        let rows = provenance.files.iter().map(|file| {
            let role = match file.role {
                Role::Input => "input",
                Role::Output => "output",
                Role::Record => "record",
            };
            el("tr")
                .child(el("td").text(role))
                .child(el("td").class("words").text(&file.path))
                .child(el("td").class("words").child(el("code").text(&file.sha256)))
        });
        let words = |text: &str| el("th").attr("scope", "col").class("words").text(text);
        let table = el("table")
            .child(el("caption").text("SHA-256 of every file"))
            .child(
                el("thead").child(
                    el("tr")
                        .child(words("Role"))
                        .child(words("File"))
                        .child(words("SHA-256")),
                ),
            )
            .child(el("tbody").children(rows));
        content.push(scrolling(table, "SHA-256 of every file", false));
    }
    if !provenance.configuration.is_null() {
        let text = outline(&provenance.configuration, 0);
        content.push(
            el("details")
                .child(el("summary").text("Resolved configuration"))
                .child(
                    el("pre")
                        .attr("tabindex", 0)
                        .attr("role", "region")
                        .attr("aria-label", "Resolved configuration")
                        .text(text),
                ),
        );
    }
    content
}

/// JSON with a line for each key, and lists of rows in one line: a thousand of them would be a thousand lines.
fn outline(value: &Value, depth: usize) -> String {
    let Value::Object(entries) = value else {
        return value.to_string();
    };
    let indent = "  ".repeat(depth + 1);
    let lines = entries.iter().map(|(key, value)| {
        let key = Value::from(key.as_str());
        format!("{indent}{key}: {}", outline(value, depth + 1))
    });
    let lines: Vec<String> = lines.collect();
    format!("{{\n{}\n{}}}", lines.join(",\n"), "  ".repeat(depth))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_are_outlined_as_json() {
        let value = serde_json::json!({"a": {"b": [1, 2], "c\"": null}, "d": "<x>"});
        let text = outline(&value, 0);
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
        assert_eq!(text.lines().count(), 7);
    }
}
