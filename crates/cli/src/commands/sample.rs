//! `retrack sample`: images from a model.

use retrack_study::failure::Failure;
use retrack_study::sample::sample;

use crate::args::SampleArgs;

pub fn run(args: &SampleArgs) -> Result<(), Failure> {
    sample(&args.sample())
}
