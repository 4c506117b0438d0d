//! Pixels as bytes and as what networks read.

/// A byte as networks read it: 0 to 255 becomes -1 to 1.
pub fn to_unit(byte: u8) -> f32 {
    f32::from(byte) / 127.5 - 1.0
}

/// The way back of [`to_unit`], rounded as diffusers' pipelines do.
pub fn to_byte(value: f32) -> u8 {
    ((value / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8
}
