//! An adapter file: what its names mean, and which weights of a model they change.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use retrack_checkpoint::folder::{RawTensor, read_weight_file};

use super::factors::{Adapters, Factor, Factors};
use super::layers::{Component, Layer, Layers};
use super::settings::Settings;
use super::{LoraError, diffusers, kohya, peft, remedy};

/// What a tensor of an adapter file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// The network that it changes; `None`: the file does not say.
    pub component: Option<Component>,
    /// The layer, by the module's name or as the form of the file writes it.
    pub layer: String,
    pub role: Role,
}

/// Which part of a layer's adapter a tensor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// The first factor, `[rank, in ..]`.
    A,
    /// The second factor, `[out, rank ..]`.
    B,
    /// DoRA's lengths of the merged weight's rows.
    Magnitude,
    /// The scale times the rank, a single number.
    Alpha,
}

/// An adapter file that was read.
#[derive(Debug, Clone)]
pub struct AdapterFile {
    path: PathBuf,
    form: Form,
    layers: BTreeMap<Named, Factors>,
    /// How many layers' alphas hang on the order of the patterns.
    ordered: usize,
    /// How many have another alpha in the file than the one that is taken.
    other_alphas: usize,
}

/// A layer as a file names it.
type Named = (Option<Component>, String);

/// A layer's tensors as they are read.
#[derive(Default)]
struct Parts {
    a: Option<Factor>,
    b: Option<Factor>,
    magnitude: Option<Factor>,
    alpha: Option<Factor>,
}

/// How a file names its tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// `network`: what it calls the denoiser, where it names the network of each layer.
    Diffusers {
        network: Option<&'static str>,
    },
    Peft,
    Kohya,
}

impl Form {
    fn of(keys: &[String]) -> Self {
        if peft::is(keys) {
            Self::Peft
        } else if kohya::is(keys) {
            Self::Kohya
        } else {
            let network = diffusers::network_in(keys);
            Self::Diffusers { network }
        }
    }

    fn place(self, key: &str) -> Option<Place> {
        match self {
            Self::Diffusers { network } => diffusers::place(key, network),
            Self::Peft => peft::place(key),
            Self::Kohya => kohya::place(key),
        }
    }

    /// A text encoder's layer that diffusers 0.42.1 leaves out: it tells names of before by an attention's last
    /// projection, and does not know the others without that.
    fn forgotten<'a>(
        self,
        keys: &[String],
        layers: impl Iterator<Item = &'a Named> + Clone,
    ) -> Option<(Component, &'a str)> {
        let is_of_before = |component: Component| match self {
            Self::Diffusers { .. } => diffusers::has_processors(component, keys),
            Self::Peft => false,
            Self::Kohya => true,
        };
        let texts = [Component::TextEncoder, Component::TextEncoder2].into_iter();
        let mut texts = texts.filter(|&text| is_of_before(text));
        texts.find_map(|text| {
            let own = layers.clone().filter(|(of, _)| *of == Some(text));
            let mut own = own.map(|(_, layer)| layer.as_str());
            if own.clone().any(|layer| layer.ends_with("out_proj")) {
                return None;
            }
            let attends = |layer: &&str| {
                ["q_proj", "k_proj", "v_proj"]
                    .iter()
                    .any(|end| layer.ends_with(end))
            };
            Some((text, own.find(attends)?))
        })
    }

    /// What the file says of the layers of a network.
    fn settings(self, path: &Path, component: Option<Component>) -> Result<Settings, LoraError> {
        match (self, component) {
            (
                Self::Diffusers {
                    network: Some(network),
                },
                Some(component),
            ) => Settings::read(path, &diffusers::prefix(component, network)),
            (Self::Diffusers { .. }, _) => Settings::read(path, ""),
            (Self::Peft, _) => peft::settings(path),
            (Self::Kohya, _) => Ok(Settings::default()),
        }
    }
}

impl AdapterFile {
    /// Reads an adapter file in one of the forms of diffusers, PEFT and kohya's sd-scripts.
    ///
    /// # Errors
    /// A damaged file; keys or settings that would change more than weights of layers; factors that do not fit.
    pub fn open(path: &Path) -> Result<Self, LoraError> {
        let malformed = |problem: String| LoraError::Malformed {
            path: path.to_path_buf(),
            problem,
        };
        let tensors = read_weight_file(path)?;
        let keys: Vec<String> = tensors.iter().map(|(key, _)| key.clone()).collect();
        let form = Form::of(&keys);
        let mut all: BTreeMap<Named, Parts> = BTreeMap::new();
        for (key, tensor) in tensors {
            let Some(place) = form.place(&key) else {
                return Err(LoraError::Key {
                    path: path.to_path_buf(),
                    reason: remedy::reason(&key, &keys),
                    key,
                });
            };
            let parts = all.entry((place.component, place.layer)).or_default();
            if !parts.take(place.role, &tensor) {
                return Err(malformed(format!(
                    "{key} is there under another name as well"
                )));
            }
        }
        if form == Form::Kohya && kohya::is_mixed(all.keys().map(|(_, layer)| layer.as_str())) {
            return Err(malformed(
                "it names blocks of the U-Net as diffusers does and as the original does, of which diffusers would leave \
                 out the second; keep the ones or the others"
                    .into(),
            ));
        }
        if let Some((component, layer)) = form.forgotten(&keys, all.keys()) {
            return Err(malformed(format!(
                "of the {}'s attention layers none is an out_proj, and without one diffusers 0.42.1 takes nothing of {layer} \
                 under such a name; save the adapter under PEFT's names (lora_A, lora_B), which are read",
                component.folder()
            )));
        }
        let mut alphas = Alphas::of(&all).map_err(malformed)?;
        let (mut layers, mut ordered) = (BTreeMap::new(), 0);
        let mut magnitudes: BTreeMap<Option<Component>, bool> = BTreeMap::new();
        let mut settings: BTreeMap<Option<Component>, Settings> = BTreeMap::new();
        for ((component, layer), parts) in all {
            let settings = match settings.entry(component) {
                Entry::Vacant(free) => free.insert(form.settings(path, component)?),
                Entry::Occupied(read) => read.into_mut(),
            };
            let mut factors = parts.factors(&layer).map_err(malformed)?;
            factors.scale = match form {
                Form::Kohya => alphas.scale(component, &layer, factors.rank()),
                _ => settings.scale(&layer, factors.rank()).map_err(malformed)?,
            };
            ordered += usize::from(settings.hangs_on_order(&layer).map_err(malformed)?);
            let has = factors.magnitudes.is_some();
            let said = settings.magnitudes();
            if *magnitudes.entry(component).or_insert(said.unwrap_or(has)) != has {
                let problem = match has {
                    true => {
                        "a magnitude, which the file's other layers or its settings (`use_dora`) have not"
                    }
                    false => {
                        "no magnitude, which the file's other layers or its settings (`use_dora`) have"
                    }
                };
                return Err(malformed(format!("{layer} has {problem}")));
            }
            layers.insert((component, layer), factors);
        }
        Ok(Self {
            path: path.to_path_buf(),
            form,
            layers,
            ordered,
            other_alphas: alphas.others,
        })
    }

    /// The file beside it that says how strong it is, where it has one.
    pub fn settings_file(&self) -> Option<PathBuf> {
        (self.form == Form::Peft).then(|| peft::config(&self.path))
    }

    /// How many layers match several of the file's patterns with different alphas. The first counts, which need not be
    /// that of the training: diffusers sorts patterns where it saves them.
    pub fn hang_on_order(&self) -> usize {
        self.ordered
    }

    /// How many layers of a kohya file get another alpha than the file has for them: as in diffusers 0.42.1, which gives
    /// attention layers and layers without one the alpha that most layers have. Other programs take the file's.
    pub fn other_alphas(&self) -> usize {
        self.other_alphas
    }

    /// How many layers are adapted.
    pub fn len(&self) -> usize {
        self.layers.len()
    }

    /// Whether no layer is adapted.
    pub fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }

    /// The text encoders that are changed, too; `None` where only the model can tell, by its layers.
    pub fn text_encoders(&self) -> Option<Vec<Component>> {
        let mut all = Vec::new();
        for (component, _) in self.layers.keys() {
            match (*component)? {
                Component::Network => {}
                text if !all.contains(&text) => all.push(text),
                _ => {}
            }
        }
        Some(all)
    }

    /// What is added to the weights of each network of a model. `model`: its folder, for messages.
    ///
    /// # Errors
    /// A layer that the model lacks or has with another shape.
    pub fn resolve(
        self,
        model: &Path,
        networks: &[Layers],
    ) -> Result<BTreeMap<Component, Adapters>, LoraError> {
        let foreign = |component: Component, name: &str| LoraError::Foreign {
            path: self.path.clone(),
            layer: format!("{name} of its {}", component.folder()),
            model: model.to_path_buf(),
        };
        let mut found: BTreeMap<Component, BTreeMap<String, Factors>> = BTreeMap::new();
        let by_name: BTreeMap<Component, Names<'_>> = networks
            .iter()
            .map(|layers| (layers.component, Names::of(self.form, layers)))
            .collect();
        let unnamed = self.unnamed(networks)?;
        for ((component, name), factors) in self.layers {
            let component = component.unwrap_or(unnamed);
            let names = by_name.get(&component);
            let layer = names.and_then(|names| names.layer(component, &name));
            let Some(layer) = layer.filter(|layer| layer.shape == factors.shape()) else {
                return Err(foreign(component, &name));
            };
            let of = found.entry(component).or_default();
            if of.insert(layer.parameter.clone(), factors).is_some() {
                return Err(LoraError::Malformed {
                    path: self.path,
                    problem: format!("{name} is there under another name as well"),
                });
            }
        }
        let adapters = |layers| Adapters {
            layers: Arc::new(layers),
        };
        let found = found.into_iter();
        Ok(found.map(|(of, layers)| (of, adapters(layers))).collect())
    }

    /// The network that a file is for which does not say it: the one that has all its layers, by their shapes or at least by
    /// their names, or else the denoiser.
    ///
    /// # Errors
    /// Several text encoders that have them.
    fn unnamed(&self, networks: &[Layers]) -> Result<Component, LoraError> {
        let fits = |network: &&Layers| {
            self.layers.iter().all(|((_, name), factors)| {
                let layer = network.all.get(&network.component.module(name));
                layer.is_some_and(|layer| layer.shape == factors.shape())
            })
        };
        if self.form != Form::Peft {
            return Ok(Component::Network);
        }
        let mut fitting = networks.iter().filter(fits).map(|one| one.component);
        match (fitting.next(), fitting.next()) {
            (Some(one), Some(_)) if one != Component::Network => Err(LoraError::Malformed {
                path: self.path.clone(),
                problem: "both text encoders of the model have its layers, and it does not say which it is for; write \
                          `text_encoder.` or `text_encoder_2.` for `base_model.model.` before its names, and the \
                          settings into its metadata, as diffusers' save_lora_weights does"
                    .into(),
            }),
            (Some(one), _) => Ok(one),
            // Whose shapes are others.
            (None, _) => {
                let has = |network: &&Layers| {
                    let mut names = self.layers.keys();
                    names.all(|(_, name)| network.all.contains_key(&network.component.module(name)))
                };
                let named = networks.iter().find(has);
                Ok(named.map_or(Component::Network, |network| network.component))
            }
        }
    }
}

/// How a form's names find a network's layers.
enum Names<'a> {
    /// By the module's name.
    Modules(&'a Layers),
    Kohya(&'a Layers, HashMap<String, Option<&'a str>>),
}

impl<'a> Names<'a> {
    fn of(form: Form, layers: &'a Layers) -> Self {
        match form {
            Form::Kohya => Self::Kohya(layers, kohya::names(layers)),
            _ => Self::Modules(layers),
        }
    }

    fn layer(&self, component: Component, name: &str) -> Option<&'a Layer> {
        match self {
            Self::Modules(layers) => layers.all.get(&component.module(name)),
            Self::Kohya(layers, names) => {
                let layer = names.get(name).copied().flatten()?;
                layers.all.get(layer)
            }
        }
    }
}

/// The alphas of a kohya file, as diffusers 0.42.1 gives them to layers.
#[derive(Default)]
struct Alphas {
    own: BTreeMap<Named, f64>,
    /// What most layers of a network have.
    commonest: BTreeMap<Option<Component>, f64>,
    /// How many layers got another one than the file has for them.
    others: usize,
}

impl Alphas {
    fn of(all: &BTreeMap<Named, Parts>) -> Result<Self, String> {
        let mut alphas = Self::default();
        let mut each: BTreeMap<Option<Component>, Vec<f64>> = BTreeMap::new();
        for (named, parts) in all {
            let Some((values, shape)) = &parts.alpha else {
                continue;
            };
            let &[alpha] = values.as_slice() else {
                return Err(format!(
                    "the alpha of {} has shape {shape:?}, and is no number",
                    named.1
                ));
            };
            alphas.own.insert(named.clone(), alpha.into());
            each.entry(named.0).or_default().push(alpha.into());
        }
        let commonest = each.iter();
        let commonest = commonest.filter_map(|(of, each)| Some((*of, kohya::commonest(each)?)));
        alphas.commonest = commonest.collect();
        Ok(alphas)
    }

    fn scale(&mut self, component: Option<Component>, layer: &str, rank: usize) -> f64 {
        let own = self.own.get(&(component, layer.to_owned())).copied();
        let commonest = self.commonest.get(&component).copied();
        let is_read = component.is_some_and(|of| kohya::has_own_alpha(of, layer));
        let taken = own.filter(|_| is_read).or(commonest);
        // A layer without one has the rank for its alpha.
        let rank = rank as f64;
        self.others += usize::from(taken.unwrap_or(rank) != own.unwrap_or(rank));
        taken.unwrap_or(rank) / rank
    }
}

impl Parts {
    /// Whether it was not there already.
    fn take(&mut self, role: Role, tensor: &RawTensor) -> bool {
        let place = match role {
            Role::A => &mut self.a,
            Role::B => &mut self.b,
            Role::Magnitude => &mut self.magnitude,
            Role::Alpha => &mut self.alpha,
        };
        let values = (tensor.to_f32(), tensor.shape().to_vec());
        place.replace(values).is_none()
    }

    /// With a scale of 1.
    fn factors(self, layer: &str) -> Result<Factors, String> {
        let (Some(a), Some(b)) = (self.a, self.b) else {
            return Err(format!("{layer} has one factor only"));
        };
        let shapes = format!("{:?} and {:?}", a.1, b.1);
        let Some(mut factors) = Factors::new(a, b) else {
            return Err(format!(
                "the factors of {layer} have shapes {shapes}, which have no product"
            ));
        };
        if let Some((values, shape)) = self.magnitude {
            let outputs = factors.shape()[0];
            // `[out]`, or of a convolution `[1, out, 1, 1]`.
            if values.len() != outputs || !shape.contains(&outputs) {
                return Err(format!(
                    "the magnitudes of {layer} have shape {shape:?}, and it has {outputs} outputs"
                ));
            }
            factors.magnitudes = Some(values);
        }
        Ok(factors)
    }
}
