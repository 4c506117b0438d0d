//! Images like those of the training that the model never saw.

use std::path::Path;

use retrack_data::{Dataset, OpenOptions};
use retrack_eval::controls::Controls;

use crate::evaluation::check_shape;
use crate::failure::Failure;
use crate::field::Field;
use crate::{model, progress};

/// Opens controls to the images of `data`.
///
/// # Errors
/// No images, or of another shape than those of `data`.
pub fn open(path: &Path, split: Option<String>, data: &Dataset) -> Result<Controls, Failure> {
    let options = OpenOptions {
        channels: Some(data.shape().channels),
        memory_budget: 4 * model::BUDGET as u64,
        split,
        alpha: data.alpha(),
        resize: data.resize(),
    };
    let controls = model::read_data(path, &options, Field::ControlsSplit)?;
    check_shape(controls.shape(), data, path)?;
    let comparing = progress::activity("looking for controls among the images of the data set");
    let controls = Controls::new(controls, data)?;
    drop(comparing);
    Ok(controls)
}
