//! Low-rank adapters (Hu et al. 2021, arXiv 2106.09685): trained on attention layers, and read from files in the forms in
//! which they lie on disks.
//!
//! An adapted weight is W + s B A with W frozen. The file that is written holds, for every adapted layer,
//! `unet.LAYER.lora_A.weight` (`[rank, in]`) and `unet.LAYER.lora_B.weight` (`[out, rank]`), of Stable Diffusion 3 `transformer.LAYER`. A module for each form of names
//! (`diffusers`, `peft`, `kohya`) turns a tensor's name into network, layer and factor; `file` puts these together, and finds the
//! layers in a model (`layers`); what s is, `settings` says.

mod diffusers;
mod factors;
mod file;
mod kohya;
mod layers;
mod peft;
mod python;
mod remedy;
mod settings;

use std::path::PathBuf;

use crate::parameters::{self, Parameter, to_host};
use crate::random::{Random, Stream};
use burn::module::{LoraAdapter, Module, Param, Reparameterizer};
use burn::tensor::{Tensor, TensorData};
use retrack_checkpoint::folder::{Dtype, FolderError, RawTensor};

pub use factors::Adapters;
pub use file::AdapterFile;
pub use layers::{Component, Layers};
pub use peft::FILE_NAMES as PEFT_FILE_NAMES;

/// The name that diffusers' `load_lora_weights` looks for in a folder.
pub const FILE_NAME: &str = "pytorch_lora_weights.safetensors";

/// The layers of an attention that are adapted: those that trainers of diffusers adapt, the second row in Stable Diffusion 3 alone.
const ADAPTED: [&str; 8] = [
    "to_q",
    "to_k",
    "to_v",
    "to_out.0",
    "add_q_proj",
    "add_k_proj",
    "add_v_proj",
    "to_add_out",
];
/// Between a layer's name and `a` or `b` in the names of a network's own parameters.
const FACTOR: &str = ".weight.lora.";

/// What is wrong with an adapter file, or with the model it is to change.
#[derive(Debug, thiserror::Error)]
pub enum LoraError {
    /// A file that cannot be read.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// A tensor that is no factor of a layer's adapter, in the form that its file has.
    #[error(
        "{}: {key} is not supported: {reason}",
        path.display()
    )]
    Key {
        /// The adapter.
        path: PathBuf,
        /// The tensor's name.
        key: String,
        /// What it is, and what to do where a way around is known.
        reason: &'static str,
    },
    /// PEFT's settings ask for more than s B A.
    #[error(
        "{}: `{key}` is {value}: {reason}, which is not computed here; {remedy}",
        path.display()
    )]
    Setting {
        /// The adapter.
        path: PathBuf,
        /// The setting.
        key: &'static str,
        /// Its value.
        value: String,
        /// What it would mean.
        reason: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// The adapter's training began with a change of the weights that it was to adapt.
    #[error(
        "{}: `init_lora_weights` is {value}: this initialization changed the weights that the adapter belongs to, and \
         added to the original ones it makes another model; train the adapter with another initialization, or have \
         PEFT turn it into a plain one where it was trained (`path_initial_model_for_weight_conversion`)",
        path.display()
    )]
    ChangedBase {
        /// The adapter.
        path: PathBuf,
        /// Its value.
        value: String,
    },
    /// A file that is no adapter.
    #[error("{}: {problem}", path.display())]
    Malformed {
        /// The adapter.
        path: PathBuf,
        /// How.
        problem: String,
    },
    /// An adapter of another model.
    #[error(
        "{}: the adapter changes {layer}, which the model {} does not have with that shape; is it another model's?",
        path.display(),
        model.display()
    )]
    Foreign {
        /// The adapter.
        path: PathBuf,
        /// The layer.
        layer: String,
        /// The model.
        model: PathBuf,
    },
}

/// Freezes a network and adapts its attention layers; until the adapters are trained it computes what it did.
///
/// As in PEFT's Gaussian initialization, A is normal with standard deviation 1 / rank and B zero.
pub fn attach<M: Module>(network: M, rank: usize, random: &Random) -> M {
    struct Attach<'a> {
        rank: usize,
        random: &'a Random,
        attached: u64,
    }
    impl Reparameterizer for Attach<'_> {
        type Reparam = LoraAdapter;

        fn reparameterize<const D: usize>(
            &mut self,
            path: &str,
            param: Param<Tensor<D>>,
        ) -> (Param<Tensor<D>>, Option<LoraAdapter>) {
            let base = param.set_require_grad(false);
            let layer = path.strip_suffix(".weight").unwrap_or("");
            let adapted = |name: &&str| {
                let parent = layer.strip_suffix(*name);
                parent.is_some_and(|parent| parent.ends_with('.'))
            };
            if D != 2 || !ADAPTED.iter().any(adapted) {
                return (base, None);
            }
            let weight = base.base();
            let (dims, device) = (weight.dims(), weight.device());
            let (inputs, outputs) = (dims[0], dims[1]);
            let mut draw = self.random.stream(Stream::Init, self.attached);
            self.attached += 1;
            let a = draw.normal(inputs * self.rank).into_iter();
            let a: Vec<f32> = a.map(|z| z / self.rank as f32).collect();
            let adapter = LoraAdapter {
                a: Param::from_tensor(Tensor::from_data(
                    TensorData::new(a, [inputs, self.rank]),
                    &device,
                )),
                b: Param::from_tensor(Tensor::zeros([self.rank, outputs], &device)),
                scale: 1.0,
            };
            (base, Some(adapter))
        }
    }
    network.apply_reparameterization(Attach {
        rank,
        random,
        attached: 0,
    })
}

/// Whether a network has adapters, which are then all that is trained of it.
pub fn is_adapted<M: Module>(network: &M) -> bool {
    let is_factor = |parameter: &Parameter| parameter.name.contains(FACTOR);
    parameters::list(network).iter().any(is_factor)
}

/// The adapters of a network as the tensors of an adapter file of diffusers, in f32.
///
/// # Errors
/// Values that are not finite.
pub fn export<M: Module>(network: &M) -> Result<Vec<(String, RawTensor)>, LoraError> {
    let key = |layer: &str, factor: &str| {
        let network = diffusers::network_of(layer);
        format!("{network}{layer}.lora_{}.weight", factor.to_uppercase())
    };
    Ok(factors_of(network, key)?)
}

/// The same as the tensors of a file of kohya's, which ComfyUI and others read: each layer with its alpha, which is the
/// rank. Layers of SDXL are called as in the original U-Net, as kohya's own files have them.
///
/// # Errors
/// As [`export`].
pub fn export_kohya<M: Module>(network: &M) -> Result<Vec<(String, RawTensor)>, LoraError> {
    let parameters = parameters::list(network).into_iter();
    let parameters = parameters.map(|parameter| (parameter.name, parameter.shape));
    let layers = Layers::new(Component::Network, parameters);
    let key = |layer: &str, factor: &str| {
        let end = if factor == "a" { "down" } else { "up" };
        format!("{}.lora_{end}.weight", kohya::written(&layers, layer))
    };
    let factors = factors_of(network, key)?;
    let mut tensors = Vec::with_capacity(factors.len() * 3 / 2);
    for (key, tensor) in factors {
        let layer = key.strip_suffix(".lora_down.weight");
        let alpha = layer.map(|layer| (format!("{layer}.alpha"), tensor.shape()[0] as f32));
        tensors.push((key, tensor));
        if let Some((key, rank)) = alpha {
            let alpha = RawTensor::from_f32(&[rank], Vec::new(), Dtype::F32);
            tensors.push((key, alpha.expect("a finite number")));
        }
    }
    Ok(tensors)
}

/// The factors of a network under the names that `key` makes of a layer and `a` or `b`.
fn factors_of<M: Module>(
    network: &M,
    key: impl Fn(&str, &str) -> String,
) -> Result<Vec<(String, RawTensor)>, FolderError> {
    let mut tensors = Vec::new();
    let mut result = Ok(());
    parameters::visit(network, |parameter, tensor| {
        let Some((layer, factor)) = parameter.name.split_once(FACTOR) else {
            return;
        };
        let key = key(layer, factor);
        let values = parameter.export(to_host(tensor));
        match RawTensor::from_f32(&values, parameter.shape.clone(), Dtype::F32) {
            Ok(tensor) => tensors.push((key, tensor)),
            Err(source) => {
                result = Err(FolderError::Tensor {
                    path: FILE_NAME.into(),
                    name: key,
                    source,
                });
            }
        }
    });
    result.map(|()| tensors)
}
