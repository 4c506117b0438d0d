//! Whose layers an adapter changes, and how its names find them.

use std::collections::BTreeMap;

use retrack_checkpoint::folder::Weights;

/// A network of a pipeline that an adapter changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Component {
    /// The denoiser.
    Network,
    /// The text encoder, or SDXL's first.
    TextEncoder,
    /// SDXL's second text encoder, which projects.
    TextEncoder2,
}

/// Before the layers of a text encoder.
const TEXT_MODEL: &str = "text_model.";

impl Component {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Network, Self::TextEncoder, Self::TextEncoder2];

    /// Its folder in a pipeline, which is what stands before its layers in diffusers' files, too.
    pub fn folder(self) -> &'static str {
        match self {
            Self::Network => "unet",
            Self::TextEncoder => "text_encoder",
            Self::TextEncoder2 => "text_encoder_2",
        }
    }

    /// What transformers 5 calls a layer, whose `CLIPTextModel` has lost the `text_model.` that files have, while
    /// `CLIPTextModelWithProjection` has kept it.
    pub(super) fn module(self, layer: &str) -> String {
        let short = layer.strip_prefix(TEXT_MODEL).unwrap_or(layer);
        match self {
            Self::Network => layer.to_owned(),
            Self::TextEncoder => short.to_owned(),
            Self::TextEncoder2 if short.starts_with("text_projection") => short.to_owned(),
            Self::TextEncoder2 => format!("{TEXT_MODEL}{short}"),
        }
    }
}

/// The layers of a model's network that adapters can change.
#[derive(Debug, Clone)]
pub struct Layers {
    pub(super) component: Component,
    /// By the name of the module.
    pub(super) all: BTreeMap<String, Layer>,
}

/// A layer's weight.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    /// Its name in the folder.
    pub parameter: String,
    pub shape: Vec<usize>,
}

impl Layers {
    /// Those of a network with these parameters.
    pub fn new(
        component: Component,
        parameters: impl IntoIterator<Item = (String, Vec<usize>)>,
    ) -> Self {
        let layers = parameters.into_iter().filter_map(|(parameter, shape)| {
            let layer = parameter.strip_suffix(".weight")?;
            // PEFT keeps those of embeddings under other names, which are not read.
            let is_embedding = component != Component::Network && layer.ends_with("_embedding");
            let module = component.module(layer);
            (shape.len() >= 2 && !is_embedding).then_some((module, Layer { parameter, shape }))
        });
        Self {
            component,
            all: layers.collect(),
        }
    }

    /// Those of a folder's network.
    pub fn of(component: Component, weights: &Weights) -> Self {
        let parameters = weights.iter();
        let parameters =
            parameters.map(|(name, tensor)| (name.to_owned(), tensor.shape().to_vec()));
        Self::new(component, parameters)
    }
}
