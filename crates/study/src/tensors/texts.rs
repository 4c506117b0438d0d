//! What a network is told of texts, from an input file.

use burn::tensor::{Device, Tensor, TensorData};
use retrack_networks::denoiser::{Embeddings, Sizes};

use super::Tensors;
use crate::failure::Failure;

/// Hidden states and, where the file has them, each text as one vector and six sizes in pixels. `prefix`: what stands before a
/// key that holds a stream's own; keys without it are for all streams.
///
/// # Errors
/// What is missing or of another shape.
pub(super) fn texts(input: &Tensors, prefix: &str, device: &Device) -> Result<Embeddings, Failure> {
    let device = &device.clone().without_autodiff();
    let key = |name: &str| -> Result<Option<String>, Failure> {
        for key in [format!("{prefix}{name}"), name.to_string()] {
            if input.has(&key)? {
                return Ok(Some(key));
            }
        }
        Ok(None)
    };
    const STATES: &str = "encoder_hidden_states";
    let states_key = key(STATES)?.unwrap_or(STATES.into());
    let (states, shape) = input.states(&states_key)?;
    let states = TensorData::new(states, shape);
    let mut texts = Embeddings::from(Tensor::<3>::from_data(states, device));
    // SDXL's name for it, and that of Stable Diffusion 3.
    for name in ["text_embeds", "pooled_projections"] {
        if let Some(key) = key(name)? {
            let (pooled, width) = input.rows(&key, shape[0])?;
            let pooled = TensorData::new(pooled, [shape[0], width]);
            texts.pooled = Some(Tensor::from_data(pooled, device));
        }
    }
    if let Some(key) = key("time_ids")? {
        let (sizes, six) = input.rows(&key, shape[0])?;
        if six != 6 {
            return Err(input.fail(format!(
                "`{key}` has {six} numbers a text; give 6: height and width of the original, of the corner, of the result"
            )));
        }
        texts.sizes = Some(Sizes::Each(sizes.as_chunks::<6>().0.to_vec()));
    }
    Ok(texts)
}
