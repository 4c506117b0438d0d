//! Which images, and how they are read, as it is typed.

use std::path::PathBuf;

use clap::Args as ClapArgs;
use retrack_data::{Alpha, formats, formats_at_length};
use retrack_study::source::{DataSource, Reading};

use super::heading;

/// A data set.
#[derive(Debug, Clone, ClapArgs)]
pub struct DataArgs {
    #[arg(
        long = "data",
        value_name = "SRC",
        help = format!("Images: {}", formats()),
        long_help = format!("Images: {}", formats_at_length())
    )]
    pub path: PathBuf,
    #[command(flatten)]
    pub reading: ReadingArgs,
}

/// How a data set is read.
#[derive(Debug, Clone, Default, ClapArgs)]
pub struct ReadingArgs {
    /// Which split, where the data set has several: train, test, ...; "" for what lies in none
    #[arg(long, value_name = "NAME", help_heading = heading::DATA)]
    pub split: Option<String>,
    /// Transparent pixels: drop keeps the color below them, as Pillow's convert("RGB") does; white and black lay them
    /// over that color
    #[arg(long, value_name = "HOW", default_value_t, help_heading = heading::DATA)]
    pub alpha: Alpha,
}

impl DataArgs {
    /// The data set that was typed.
    pub fn source(&self) -> DataSource {
        DataSource {
            reading: self.reading.reading(),
            ..DataSource::at(&self.path)
        }
    }
}

impl ReadingArgs {
    /// As it was typed.
    pub fn reading(&self) -> Reading {
        Reading {
            split: self.split.clone(),
            alpha: self.alpha,
        }
    }
}
