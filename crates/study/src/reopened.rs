//! A model as it lies in its folder: opened again, whoever wrote it, and compared with the one that it was made of.
//!
//! What is said of a model is measured on this, not on the network that was trained: a folder holds its weights in their
//! own type, and to 16 bits they are rounded.

use std::path::Path;

use burn::tensor::Device;
use retrack_checkpoint::folder::{Dtype, FolderError, ModelFolder, TensorError, Weights};
use retrack_checkpoint::words::listed;
use retrack_networks::changes::Changes;
use retrack_networks::denoiser::Embeddings;
use retrack_networks::diffusion::Diffusion;
use retrack_networks::lora::{self, AdapterFile, Component, Layers};
use retrack_networks::model::{Model, ModelError, check_class};
use retrack_networks::network::Network;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::situation::{self, Situation};

/// A network that was read from a folder, in f32 and without autodiff.
pub struct Reopened {
    /// The network.
    pub network: Network,
    /// How its weights differ from the base's.
    pub weights: WeightFacts,
}

/// How the weights of a written model differ from its base's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightFacts {
    /// Element types of the written weights, such as `BF16`; of an adapter, its own.
    pub dtype: String,
    /// All of them.
    pub count: u64,
    /// Those that are not the base's.
    pub changed: u64,
    /// Those that training moved, and those of them that rounded back; not known of a folder alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved: Option<u64>,
    /// Those that training moved and that rounded back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rounded_back: Option<u64>,
    /// The base's are as they were, and an adapter that lies beside them changes these.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub adapter: bool,
}

/// What a model's folder is opened beside.
pub struct Base<'a> {
    /// The model that it was made of.
    pub model: &'a dyn Diffusion,
    /// The adapter beside the folder's weights is what was trained.
    pub adapted: bool,
    /// What the network is told, if it is told texts.
    pub texts: Option<&'a Embeddings>,
}

/// Reads a model's denoiser from `folder`. `trained`: the network whose weights were to be written, where it is at hand.
///
/// # Errors
/// Whatever is wrong with the folder.
pub fn reopen(
    base: &Base,
    folder: &Path,
    trained: Option<&Network>,
    device: &Device,
) -> Result<Reopened, Failure> {
    let device = device.clone().without_autodiff();
    let folder = ModelFolder::open(folder)?;
    check_class(&folder, base.model.folder().class)?;
    let written = Model::from_folder(folder)?;
    let (mut network, weights) = if base.adapted {
        let root = written.folder.root();
        let layers = Layers::of(Component::Network, written.weights());
        let file = AdapterFile::open(&root.join(lora::FILE_NAME))?;
        let mut found = file.resolve(root, &[layers])?;
        let adapters = found.remove(&Component::Network);
        let adapters = adapters.expect("a file with layers, all of them the network's");
        let changes = Changes::by_adapters(written.weights(), &adapters)?;
        let weights = WeightFacts {
            adapter: true,
            ..WeightFacts::of(Dtype::F32.to_string(), changes, false)
        };
        (written.adapted_network(&adapters, &device)?, weights)
    } else {
        let before = base.model.weights();
        let changes = match trained {
            Some(trained) => Changes::of(trained, before, written.weights())?,
            None => Changes::between(before, written.weights())?,
        };
        let weights = WeightFacts::of(dtypes(written.weights()), changes, trained.is_some());
        (written.network(&device)?, weights)
    };
    if let Some(texts) = base.texts {
        network.tell(texts.clone());
    }
    Ok(Reopened { network, weights })
}

impl WeightFacts {
    fn of(dtype: String, changes: Changes, trained: bool) -> Self {
        Self {
            dtype,
            count: changes.weights,
            changed: changes.changed,
            moved: trained.then_some(changes.moved),
            rounded_back: trained.then_some(changes.rounded_back),
            adapter: false,
        }
    }

    /// In a sentence.
    pub fn sentence(&self) -> String {
        let share = percent(self.changed, self.count);
        if self.adapter {
            return format!(
                "the base's as they were; the adapter ({}) changes {} of {} ({share}) when it is loaded",
                self.dtype, self.changed, self.count
            );
        }
        let back = match (self.moved, self.rounded_back) {
            (Some(moved), Some(back)) if back > 0 => format!(
                "; of {moved} that training moved {back} rounded back ({})",
                percent(back, moved)
            ),
            _ => String::new(),
        };
        format!(
            "{} of {} differ from the base's ({share}), as {}{back}",
            self.changed, self.count, self.dtype
        )
    }

    /// What speaks against a model most of whose changes are lost.
    pub fn reservation(&self) -> Option<String> {
        let (moved, back) = (self.moved?, self.rounded_back?);
        (2 * back > moved).then(|| {
            format!(
                "{} of the weights that training moved rounded back to what they were, since the folder holds {}. \
                 What is measured here is the folder as it was written; with --dtype f32 nothing rounds back.",
                percent(back, moved),
                self.dtype
            )
        })
    }
}

/// A share for people: never all or nothing where it is not.
pub fn percent(part: u64, of: u64) -> String {
    let share = 100.0 * part as f64 / (of as f64).max(1.0);
    // Never all or nothing where it is not.
    match part {
        0 => "0%".into(),
        part if part == of => "100%".into(),
        _ => format!("{:.1}%", share.clamp(0.1, 99.9)),
    }
}

fn dtypes(weights: &Weights) -> String {
    let mut names: Vec<&str> = weights
        .iter()
        .map(|(_, tensor)| tensor.dtype().name())
        .collect();
    names.sort_unstable();
    names.dedup();
    listed(names)
}

/// A model that could not be written, with what can be done where its type cannot hold a value.
pub fn failure(error: ModelError, convertible: bool) -> Failure {
    let ModelError::Folder(FolderError::Tensor {
        source: TensorError::OutOfRange { dtype, .. },
        ..
    }) = &error
    else {
        return error.into();
    };
    let situation = match (convertible, dtype) {
        (true, Dtype::F16) => Situation::BeyondHalf,
        (true, _) => Situation::BeyondItsType,
        (false, _) => Situation::BeyondFixedType,
    };
    Failure::diverged(format!("{error}; {}", situation::advice(situation)))
}
