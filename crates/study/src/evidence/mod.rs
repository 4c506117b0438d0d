//! Evidence of what a command did: measured cheaply, put into a [`Report`], written
//! beside the results.
//!
//! What a forgotten image looks like stays out of it, unless `--show-forgotten` says otherwise: [`Forgotten`] decides
//! what counts as one and which pictures have to be covered.

pub mod card;
pub mod compared;
pub mod comparison;
pub mod ignored;

mod advice;
mod check;
mod curves;
mod files;
mod gathering;
mod machine_facts;
mod pictures;
mod places;
mod private;
mod probe;
mod relearning;
mod selected;
mod verdict;

use std::path::{Path, PathBuf};

use retrack_eval::forgotten;
pub use retrack_eval::forgotten::{Forgotten, Rule};
use retrack_eval::report::Report;

pub use self::check::Check;
pub use self::curves::read_events;
pub use self::files::{output_files, output_paths, record_files};
pub use self::gathering::{Evidence, Run, alike};
pub use self::machine_facts::{now, peak_memory_bytes};
pub use self::pictures::{covered, show_samples, shrunk};
pub use self::private::{OLD_KEY, Planned, Private, RowTexts};
pub use self::probe::{Measurement, Numbers, Probe};
pub use self::selected::{names_files, selected};
pub use self::verdict::{Findings, Tally, fail_if_found, printed};

use crate::failure::Failure;
use crate::model;

/// The names of the two forms of a report.
pub const PAGE: &str = "report.html";
/// The report's content, from which its page is made.
pub const CONTENT: &str = "report.json";

/// Puts both forms of a report into a run's folder.
///
/// # Errors
/// A file that cannot be written.
pub fn write(folder: &Path, report: &Report) -> Result<(), Failure> {
    for (name, content) in forms(report) {
        model::write(&folder.join(name), &content)?;
    }
    Ok(())
}

/// Both forms of a report, as files.
pub fn forms(report: &Report) -> [(PathBuf, Vec<u8>); 2] {
    [
        (CONTENT.into(), report.json().into_bytes()),
        (PAGE.into(), report.html().into_bytes()),
    ]
}

/// Reads a report again.
///
/// # Errors
/// A file that cannot be read, or that is no report.
pub fn read(folder: &Path) -> Result<Report, Failure> {
    let path = folder.join(CONTENT);
    let bytes = std::fs::read(&path).map_err(|error| Failure::read(&path, error))?;
    serde_json::from_slice(&bytes).map_err(|error| Failure::read(&path, error))
}
