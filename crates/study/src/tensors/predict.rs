//! A network's output.

use std::path::PathBuf;

use burn::tensor::{Tensor, TensorData};
use retrack_networks::denoiser::InputError;
use retrack_networks::diffusion::Condition;
use retrack_networks::parameters::to_host;
use retrack_networks::process::Time;

use super::texts::texts;
use super::{Tensors, channel_first, write};
use crate::failure::Failure;
use crate::folders::{new_file_beside, outside};
use crate::{machine, opened};

/// Which network, on what.
#[derive(Debug, Clone)]
pub struct Predict {
    /// A diffusers pipeline or UNet folder.
    pub model: PathBuf,
    /// Tensors that the network takes, a safetensors file.
    pub input: PathBuf,
    /// Where its output goes.
    pub output: PathBuf,
    /// Replaces the file if it is there.
    pub force: bool,
    /// `cpu`, or `cuda`, `vulkan`, `metal` with an optional `:NUMBER`.
    pub device: String,
}

/// Writes what a network predicts.
///
/// # Errors
/// Whatever is wrong with what was given, a file that cannot be written.
pub fn predict(args: &Predict) -> Result<(), Failure> {
    new_file_beside(&args.output, &args.input, args.force)?;
    outside(&args.output, &args.model, "model")?;
    let device = machine::device(&args.device)?;
    let opened = opened::open_denoiser(&args.model)?;

    let input = Tensors::read(&args.input)?;
    let (values, shape) = input.images("sample", 4)?;
    let (images, height, width) = (shape[0], shape[2], shape[3]);
    let timesteps = input.one_each("timestep", images)?;
    let sample = TensorData::new(values, [images, height, width, shape[1]]);
    let sample = Tensor::from_data(sample, &device);
    let times: Vec<Time> = timesteps.iter().map(|&t| Time::new(t)).collect();
    let labels = if input.has("class_labels")? {
        Some(input.integers("class_labels", images)?)
    } else {
        None
    };
    let mut network = opened.network(&device)?;
    let labels = match opened.config.condition() {
        Condition::Text if labels.is_some() => return Err(InputError::LabelsUnexpected.into()),
        Condition::Text => {
            let texts = texts(&input, "", &device)?;
            let count = texts.len();
            network.tell(texts);
            // One is for all images.
            (count > 1).then(|| (0..count as i64).collect())
        }
        Condition::Nothing | Condition::Class(_) => labels,
    };
    opened.config.check_size(height, width)?;
    let prediction = network.predict(sample, &times, labels.as_deref(), None)?;
    let channels = prediction.dims()[3];
    let values = channel_first(&to_host(prediction), channels, height * width);
    let shape = vec![images, channels, height, width];
    write(&args.output, &[("prediction".to_string(), shape, values)])
}
