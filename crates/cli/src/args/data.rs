//! Which images, and how they are read, as it is typed.

use std::path::PathBuf;

use clap::Args as ClapArgs;
use retrack_data::Alpha;
use retrack_study::source::{DataSource, Reading};

use super::heading;

const SRC_LONG: &str = "Images: a folder, a Parquet file or folder (Hugging Face image column), an IDX pair \
                        (*-images-idx3-ubyte[.gz]), or CIFAR-10 or CIFAR-100 in the binary version";

/// A data set.
#[derive(Debug, Clone, ClapArgs)]
pub struct DataArgs {
    /// Images: a folder, Parquet, an IDX pair or CIFAR-10 batches
    #[arg(long = "data", value_name = "SRC", long_help = SRC_LONG)]
    pub path: PathBuf,
    #[command(flatten)]
    pub reading: ReadingArgs,
}

/// How a data set is read.
#[derive(Debug, Clone, Default, ClapArgs)]
pub struct ReadingArgs {
    /// Which split, where the data set has several: train, test, ...
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
            path: self.path.clone(),
            reading: self.reading.reading(),
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
