//! `retrack predict`: a network's output, for comparison from outside.

use burn::tensor::{Tensor, TensorData};
use retrack_networks::parameters::to_host;

use super::tensors::{self, Tensors};
use crate::args::PredictArgs;
use crate::failure::Failure;
use crate::{machine, model};

pub fn run(args: &PredictArgs) -> Result<(), Failure> {
    let device = machine::device(&args.machine.device)?;
    let opened = model::open(&args.model)?;
    let network = opened.network(&device)?;

    let input = Tensors::read(&args.input)?;
    let (values, shape) = input.images("sample", 4)?;
    let (images, height, width) = (shape[0], shape[2], shape[3]);
    let timesteps = input.integers("timestep", images)?;
    let labels = if input.has("class_labels")? {
        Some(input.integers("class_labels", images)?)
    } else {
        None
    };
    opened.config.check_size(height, width)?;
    let sample = TensorData::new(values, [images, height, width, shape[1]]);
    let timesteps: Vec<f32> = timesteps.iter().map(|&t| t as f32).collect();
    let prediction = network.forward(
        Tensor::from_data(sample, &device),
        &timesteps,
        labels.as_deref(),
        None,
    )?;
    let channels = prediction.dims()[3];
    let values = tensors::channel_first(&to_host(prediction), channels, height * width);
    let shape = vec![images, channels, height, width];
    tensors::write(&args.output, &[("prediction".to_string(), shape, values)])
}
