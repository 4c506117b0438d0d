//! What becomes of transparency where images are read without an alpha channel.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How transparent pixels become opaque ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Alpha {
    /// The colors stay as they are stored, hidden ones too: what Pillow's `convert("RGB")` gives, and so what training
    /// scripts see.
    #[default]
    Drop,
    /// Laid over white.
    White,
    /// Laid over black.
    Black,
}

impl Alpha {
    /// As it is typed and recorded.
    pub fn name(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::White => "white",
            Self::Black => "black",
        }
    }

    /// A value of a pixel without its alpha, rounded.
    pub(crate) fn opaque(self, value: u8, alpha: u8) -> u8 {
        let background = match self {
            Self::Drop => return value,
            Self::White => 255,
            Self::Black => 0,
        };
        let (value, alpha) = (u32::from(value), u32::from(alpha));
        ((value * alpha + background * (255 - alpha) + 127) / 255) as u8
    }
}

impl fmt::Display for Alpha {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Alpha {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Drop, Self::White, Self::Black]
            .into_iter()
            .find(|alpha| alpha.name() == text)
            .ok_or_else(|| "expected drop, white or black".into())
    }
}
