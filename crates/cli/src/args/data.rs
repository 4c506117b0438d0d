//! Which images, and how they are read, as it is typed.

use std::path::PathBuf;

use clap::{Args as ClapArgs, value_parser};
use retrack_data::resample::Filter;
use retrack_data::{Alpha, Crop, Resize, formats, formats_at_length};
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
    /// Resizes images of any size: their shorter side becomes N pixels, byte for byte as Pillow (and torchvision with it) does
    /// it, after --alpha
    #[arg(
        long,
        value_name = "N",
        value_parser = value_parser!(u64).range(1..=Resize::MOST as u64),
        help_heading = heading::DATA
    )]
    pub resize: Option<u64>,
    /// What --resize makes of the longer side: center keeps N pixels of its middle, none keeps all of it [default: center]
    #[arg(long, value_name = "HOW", requires = "resize", help_heading = heading::DATA)]
    pub crop: Option<Crop>,
    /// How --resize makes new pixels of old ones: bicubic, bilinear (as diffusers' train_unconditional.py does) or lanczos
    /// [default: bicubic]
    #[arg(long, value_name = "HOW", requires = "resize", help_heading = heading::DATA)]
    pub interpolation: Option<Filter>,
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
            resize: self.resize.map(|side| Resize {
                side: side as usize,
                crop: self.crop.unwrap_or_default(),
                interpolation: self.interpolation.unwrap_or_default(),
            }),
        }
    }
}
