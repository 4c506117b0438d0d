//! `retrack predict`: a network's output, for comparison from outside.

use burn::tensor::{Tensor, TensorData};
use retrack_networks::parameters::to_host;
use retrack_networks::unet2d::InputError;

use super::tensors::{self, Tensors};
use crate::args::PredictArgs;
use retrack_study::failure::Failure;
use retrack_study::folders::{new_file_beside, outside};
use retrack_study::latent::{self, Network};
use retrack_study::machine;

pub fn run(args: &PredictArgs) -> Result<(), Failure> {
    new_file_beside(&args.output, &args.input, args.force)?;
    outside(&args.output, &args.model, "model")?;
    let device = machine::device(&args.machine.device)?;
    let opened = latent::open_network(&args.model)?;

    let input = Tensors::read(&args.input)?;
    let (values, shape) = input.images("sample", 4)?;
    let (images, height, width) = (shape[0], shape[2], shape[3]);
    let timesteps = input.integers("timestep", images)?;
    let sample = TensorData::new(values, [images, height, width, shape[1]]);
    let sample = Tensor::from_data(sample, &device);
    let timesteps: Vec<f32> = timesteps.iter().map(|&t| t as f32).collect();
    let labels = if input.has("class_labels")? {
        Some(input.integers("class_labels", images)?)
    } else {
        None
    };
    let prediction = match opened {
        Network::Image(opened) => {
            let network = opened.network(&device)?;
            opened.config.check_size(height, width)?;
            network.forward(sample, &timesteps, labels.as_deref(), None)?
        }
        Network::Text(opened) => {
            if labels.is_some() {
                return Err(InputError::LabelsUnexpected.into());
            }
            let (states, shape) = input.states("encoder_hidden_states")?;
            let states = Tensor::from_data(TensorData::new(states, shape), &device);
            let network = opened.network(&device)?;
            network.forward(sample, &timesteps, states, None)?
        }
    };
    let channels = prediction.dims()[3];
    let values = tensors::channel_first(&to_host(prediction), channels, height * width);
    let shape = vec![images, channels, height, width];
    tensors::write(&args.output, &[("prediction".to_string(), shape, values)])
}
