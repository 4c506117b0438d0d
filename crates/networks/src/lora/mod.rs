//! Low-rank adapters (Hu et al. 2021, arXiv 2106.09685) of attention layers, in the file layout of diffusers and PEFT.
//!
//! An adapted weight is W + s B A with W frozen. The file holds, for every adapted layer, `unet.LAYER.lora_A.weight`
//! (`[rank, in]`) and `unet.LAYER.lora_B.weight` (`[out, rank]`); what s is, `settings` says.

mod python;
mod remedy;
mod settings;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::parameters::{self, Parameter, to_host};
use crate::random::{Random, Stream};
use burn::module::{LoraAdapter, Module, Param, Reparameterizer};
use burn::tensor::{Tensor, TensorData};
use retrack_checkpoint::folder::{Dtype, FolderError, RawTensor, Weights, read_weight_file};

use settings::Settings;

/// The name that diffusers' `load_lora_weights` looks for in a folder.
pub const FILE_NAME: &str = "pytorch_lora_weights.safetensors";

/// The layers of an attention that are adapted.
const ADAPTED: [&str; 4] = ["to_q", "to_k", "to_v", "to_out.0"];
const PREFIX: &str = "unet.";
/// Between a layer's name and `a` or `b` in the names of a network's own parameters.
const FACTOR: &str = ".weight.lora.";
/// How keys of A and of B end; the second names are those of diffusers before it took PEFT's.
const FACTORS: [[&str; 2]; 2] = [
    [".lora_A.weight", ".lora.down.weight"],
    [".lora_B.weight", ".lora.up.weight"],
];

/// The way around what is not merged here. It keeps every layer's alpha, which saving an adapter again would not.
const FUSE: &str = "diffusers merges it: in Python, load the pipeline, then load_lora_weights(FILE), fuse_lora(), \
                    unload_lora_weights() and save_pretrained(DIR)";

/// What is wrong with an adapter file, or with the model it is to change.
#[derive(Debug, thiserror::Error)]
pub enum LoraError {
    /// A file that cannot be read.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// A tensor that belongs to no layer that is adapted here.
    #[error(
        "{}: {key} is not supported: only `unet.LAYER.lora_A.weight` and `.lora_B.weight` are{remedy}",
        path.display()
    )]
    Key {
        /// The adapter.
        path: PathBuf,
        /// The tensor's name.
        key: String,
        /// What to do, behind a semicolon; nothing where no way around is known.
        remedy: String,
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

/// The adapters of a network as the tensors of an adapter file, in f32.
///
/// # Errors
/// Values that are not finite.
pub fn export<M: Module>(network: &M) -> Result<Vec<(String, RawTensor)>, LoraError> {
    let mut tensors = Vec::new();
    let mut result = Ok(());
    parameters::visit(network, |parameter, tensor| {
        let Some((layer, factor)) = parameter.name.split_once(FACTOR) else {
            return;
        };
        let key = format!("{PREFIX}{layer}.lora_{}.weight", factor.to_uppercase());
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
    Ok(result.map(|()| tensors)?)
}

/// Adapters read from a file.
#[derive(Debug, Clone)]
pub struct Adapters {
    path: PathBuf,
    layers: BTreeMap<String, Factors>,
    /// How many layers' alphas hang on the order of the patterns.
    ordered: usize,
}

/// Values with their shape, in the checkpoint's layout.
type Factor = (Vec<f32>, Vec<usize>);

/// What is added to one layer's weight: scale B A.
#[derive(Debug, Clone, Default)]
struct Factors {
    /// `[rank, in ..]` and its shape.
    a: Option<Factor>,
    /// `[out, rank ..]` and its shape.
    b: Option<Factor>,
    scale: f64,
}

impl Adapters {
    /// Reads an adapter file as diffusers' `save_lora_weights` writes it.
    ///
    /// # Errors
    /// A damaged file; keys or settings that would change more than layers of the UNet; factors that do not fit.
    pub fn open(path: &Path) -> Result<Self, LoraError> {
        let malformed = |problem: String| LoraError::Malformed {
            path: path.to_path_buf(),
            problem,
        };
        let settings = Settings::read(path)?;
        let mut layers: BTreeMap<String, Factors> = BTreeMap::new();
        let tensors = read_weight_file(path)?;
        let keys: Vec<String> = tensors.iter().map(|(key, _)| key.clone()).collect();
        for (key, tensor) in tensors {
            let place = key.strip_prefix(PREFIX).and_then(|rest| {
                let [a, b] = FACTORS.map(|names| {
                    let mut layers = names.iter().filter_map(|name| rest.strip_suffix(name));
                    layers.next()
                });
                Some((a.or(b)?, a.is_some()))
            });
            let Some((layer, is_a)) = place else {
                let path = path.to_path_buf();
                let remedy = remedy::of(&keys).map_or_else(String::new, |way| format!("; {way}"));
                return Err(LoraError::Key { path, key, remedy });
            };
            let factors = layers.entry(layer.to_string()).or_default();
            let values = (tensor.to_f32(), tensor.shape().to_vec());
            if is_a {
                factors.a = Some(values);
            } else {
                factors.b = Some(values);
            }
        }
        let mut ordered = 0;
        for (layer, factors) in &mut layers {
            let (Some((_, a)), Some((_, b))) = (&factors.a, &factors.b) else {
                return Err(malformed(format!("{layer} has one factor only")));
            };
            let product = a.len() >= 2 && a.len() == b.len() && b[1] == a[0] && a[0] > 0;
            if !product || b[2..].iter().any(|&side| side != 1) {
                return Err(malformed(format!(
                    "the factors of {layer} have shapes {a:?} and {b:?}, which have no product"
                )));
            }
            factors.scale = settings.scale(layer, a[0]).map_err(malformed)?;
            ordered += usize::from(settings.hangs_on_order(layer).map_err(malformed)?);
        }
        Ok(Self {
            path: path.to_path_buf(),
            layers,
            ordered,
        })
    }

    /// How many layers match several of the file's patterns with different alphas. The first counts, which need not be
    /// that of the training: diffusers sorts patterns where it saves them.
    pub fn hang_on_order(&self) -> usize {
        self.ordered
    }

    /// How many layers are adapted.
    pub fn len(&self) -> usize {
        self.layers.len()
    }

    /// Whether they add something to a parameter.
    pub fn adapt(&self, parameter: &str) -> bool {
        let layer = parameter.strip_suffix(".weight");
        layer.is_some_and(|layer| self.layers.contains_key(layer))
    }

    /// Whether no layer is adapted.
    pub fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }

    /// Adds the adapters to the weights of a model folder: each is computed, in f32, when the folder is written.
    ///
    /// # Errors
    /// A layer that the model lacks or has with another shape.
    pub fn merge_into(self, weights: &mut Weights) -> Result<(), LoraError> {
        let foreign = |layer: &str, weights: &Weights| LoraError::Foreign {
            path: self.path.clone(),
            layer: layer.to_string(),
            model: weights.root().to_path_buf(),
        };
        for (layer, factors) in &self.layers {
            let name = format!("{layer}.weight");
            let shape = weights.get(&name).map(|tensor| tensor.shape());
            if shape != Some(factors.shape().as_slice()) {
                return Err(foreign(layer, weights));
            }
        }
        let adapters = Arc::new(self);
        for layer in adapters.layers.keys() {
            let name = format!("{layer}.weight");
            let base = weights.get(&name).expect("looked up above").clone();
            let (adapters, key) = (Arc::clone(&adapters), name.clone());
            let merged = move || Ok(adapters.added_to(&key, base.read()?.to_f32()));
            weights.set_later(&name, merged)?;
        }
        Ok(())
    }

    /// The values of a parameter, in the checkpoint's layout, with what its layer's adapter adds.
    ///
    /// # Panics
    /// Values of another shape than the adapter's.
    pub fn added_to(&self, parameter: &str, mut values: Vec<f32>) -> Vec<f32> {
        let layer = parameter.strip_suffix(".weight");
        if let Some(factors) = layer.and_then(|layer| self.layers.get(layer)) {
            factors.add_to(&mut values);
        }
        values
    }
}

impl Factors {
    fn both(&self) -> (&Factor, &Factor) {
        let both = self.a.as_ref().zip(self.b.as_ref());
        both.expect("checked when read")
    }

    /// Of the weight that they add to.
    fn shape(&self) -> Vec<usize> {
        let ((_, a), (_, b)) = self.both();
        let mut shape = a.clone();
        shape[0] = b[0];
        shape
    }

    fn add_to(&self, weight: &mut [f32]) {
        let ((a, shape), (b, _)) = self.both();
        let rank = shape[0];
        let columns = a.len() / rank;
        assert_eq!(
            weight.len() * rank * rank,
            a.len() * b.len(),
            "a weight of another shape"
        );
        let rows = weight.chunks_exact_mut(columns.max(1));
        let mut delta = vec![0.0f32; columns];
        for (row, b) in rows.zip(b.chunks_exact(rank)) {
            delta.fill(0.0);
            for (&b, a) in b.iter().zip(a.chunks_exact(columns)) {
                delta.iter_mut().zip(a).for_each(|(d, a)| *d += b * a);
            }
            let scale = self.scale as f32;
            row.iter_mut()
                .zip(&delta)
                .for_each(|(w, d)| *w += scale * d);
        }
    }
}
