//! The report: one page that a person reads, and the same content as JSON.
//!
//! A [`Report`] is plain data. [`Report::json`] writes it, [`Report::html`] shows exactly what it holds, so that a page
//! can be made again from its `report.json` and compared. Who measures fills the structure in; nothing here computes.

mod base64;
mod charts;
mod content;
mod markup;
mod page;
mod sections;

pub use self::content::*;

impl LineChart {
    /// The chart as an SVG file of its own.
    pub fn svg(&self) -> String {
        charts::lines_file(self)
    }
}
