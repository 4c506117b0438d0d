//! `retrack gradient`: a method's loss and gradient, for comparison from outside.

use retrack_study::failure::Failure;
use retrack_study::tensors::gradient;

use crate::args::GradientArgs;

pub fn run(args: &GradientArgs) -> Result<(), Failure> {
    gradient(&args.gradient())
}
