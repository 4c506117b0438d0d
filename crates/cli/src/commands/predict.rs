//! `retrack predict`: a network's output, for comparison from outside.

use retrack_study::failure::Failure;
use retrack_study::tensors::predict;

use crate::args::PredictArgs;

pub fn run(args: &PredictArgs) -> Result<(), Failure> {
    predict(&args.predict())
}
