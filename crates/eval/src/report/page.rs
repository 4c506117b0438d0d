//! The page around the sections: head, verdict, table of contents.
//!
//! Nothing is loaded from anywhere, and the policy in the head forbids it: only the style sheet and the script whose
//! digests it names run, so that markup that slipped in could neither run nor call out.

use retrack_data::digest::sha256;

use super::base64;
use super::content::{Outcome, Report};
use super::markup::{Element, el};
use super::sections;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// The page of a report.
pub(super) fn render(report: &Report) -> String {
    let sections = sections::all(report);
    let contents = sections.iter().map(|section| {
        el("li").child(
            el("a")
                .attr("href", format!("#{}", section.id))
                .text(section.title),
        )
    });
    let body = el("body")
        .child(el("a").class("skip").attr("href", "#main").text("Skip to the content"))
        .child(
            el("header")
                .child(el("p").class("kicker").text(format!(
                    "retrack {} · {} · {} UTC",
                    report.version, report.command, report.made
                )))
                .child(el("h1").text(&report.title)),
        )
        .child(
            el("main")
                .attr("id", "main")
                .child(verdict(report))
                .child(
                    el("nav")
                        .attr("aria-label", "Sections")
                        .child(el("ul").children(contents)),
                )
                .children(sections.into_iter().map(|section| {
                    let heading = format!("{}-title", section.id);
                    el("section")
                        .attr("id", section.id)
                        .attr("aria-labelledby", &heading)
                        .child(el("h2").attr("id", heading).text(section.title))
                        .children(section.content)
                })),
        )
        .child(el("footer").child(el("p").text(
            "Made by retrack on the machine that ran it. This page loads nothing from elsewhere. The same content, for \
             programs, is in report.json beside it; `retrack verify` computes digests and scores of an unlearning run \
             again.",
        )))
        .child(el("script").compiled(SCRIPT));
    let policy = format!(
        "default-src 'none'; img-src data:; style-src 'sha256-{}'; script-src 'sha256-{}'; base-uri 'none'; \
         form-action 'none'",
        base64::encode(&sha256(STYLE.as_bytes())),
        base64::encode(&sha256(SCRIPT.as_bytes()))
    );
    let head = el("head")
        .child(el("meta").attr("charset", "utf-8"))
        .child(
            el("meta")
                .attr("http-equiv", "Content-Security-Policy")
                .attr("content", policy),
        )
        .child(
            el("meta")
                .attr("name", "viewport")
                .attr("content", "width=device-width, initial-scale=1"),
        )
        .child(
            el("meta")
                .attr("name", "referrer")
                .attr("content", "no-referrer"),
        )
        // A browser looks for an icon of the site otherwise.
        .child(el("link").attr("rel", "icon").attr("href", "data:,"))
        .child(el("title").text(format!("{} · retrack", report.title)))
        .child(el("style").compiled(STYLE));
    let page = el("html").attr("lang", "en").child(head).child(body);
    format!("<!doctype html>\n{}\n", page.render())
}

/// Adds text whose commands stand between backticks, an option of one never broken in two.
pub(super) fn prose(mut element: Element, text: &str) -> Element {
    let parts: Vec<&str> = text.split('`').collect();
    if parts.len().is_multiple_of(2) {
        // A name with a backtick in it.
        return element.text(text);
    }
    for (place, part) in parts.into_iter().enumerate() {
        if place % 2 == 0 {
            element = element.text(part);
            continue;
        }
        let mut code = el("code");
        for (place, word) in part.split(' ').enumerate() {
            if place > 0 {
                code = code.text(" ");
            }
            code = match word.starts_with('-') {
                true => code.child(el("span").class("option").text(word)),
                false => code.text(word),
            };
        }
        element = element.child(code);
    }
    element
}

fn verdict(report: &Report) -> Element {
    let verdict = &report.verdict;
    let class = match verdict.outcome {
        Outcome::NotFound => "not_found",
        Outcome::Reservations => "reservations",
        Outcome::StillFound => "still_found",
        Outcome::Inconclusive => "inconclusive",
        Outcome::Measured => "measured",
    };
    let mut shown = el("div")
        .class(&format!("verdict {class}"))
        .attr("role", "region")
        .attr("aria-labelledby", "verdict")
        .child(el("h2").attr("id", "verdict").text(&verdict.headline))
        .child(prose(el("p").class("sentence"), &verdict.sentence));
    if !verdict.notes.is_empty() {
        let notes = verdict.notes.iter().map(|note| prose(el("li"), note));
        shown = shown.child(el("ul").children(notes));
    }
    if !verdict.next.is_empty() {
        let next = format!("What to do next: {}", verdict.next);
        shown = shown.child(prose(el("p").class("next"), &next));
    }
    shown.child(el("p").class("limits").text(
        "This is approximate unlearning, seen through the tests on this page. They are evidence, not a proof that no \
         trace is left in the weights.",
    ))
}
