//! CLIP (Radford et al. 2021, arXiv 2103.00020): a text encoder and an image encoder whose results can be compared.
//! Read from a folder of transformers' `CLIPModel`, such as `openai/clip-vit-base-patch16`.

mod preprocessing;
mod vision;

use std::path::{Path, PathBuf};

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use serde_json::Value;

pub use preprocessing::Preprocessing;
use vision::{VisionConfig, VisionTransformer};

use crate::config::{ConfigError, Fields};
use crate::layers::Projection;
use crate::model::{self, ModelError};
use crate::parameters::to_host;
use crate::text::{LEGACY_END, TextConfig, TextError, TextTransformer, at_end};
use crate::tokenizer::ClipTokenizer;
use retrack_checkpoint::folder::{Library, Part, Weights};

const CONFIG: &str = "config.json";

/// Configuration of a [`CLIPModel`], with the names and defaults of transformers.
#[derive(Debug, Clone, PartialEq)]
pub struct ClipConfig {
    pub(crate) text: TextConfig,
    pub(crate) vision: VisionConfig,
    /// How many numbers a text or an image becomes.
    pub(crate) projection_dim: usize,
    /// The number of the mark at whose place a text's own state is.
    eos_token_id: i64,
}

impl ClipConfig {
    /// Reads a parsed `config.json`.
    ///
    /// # Errors
    /// Names the key whose value has the wrong type, is not supported, or contradicts another.
    pub fn from_json(json: &Value) -> Result<Self, ConfigError> {
        let object = json.as_object().ok_or_else(|| {
            ConfigError::Inconsistent("the configuration is not a JSON object".into())
        })?;
        let text = TextConfig::from_json(part(json, "text_config", "text_config_dict")?)
            .map_err(|error| inside("text_config", error))?;
        let vision = VisionConfig::from_json(part(json, "vision_config", "vision_config_dict")?)
            .map_err(|error| inside("vision_config", error))?;
        let eos_token_id = text.eos_token_id.ok_or_else(|| {
            ConfigError::Inconsistent("`text_config.eos_token_id` is not one number".into())
        })?;
        Ok(Self {
            text,
            vision,
            projection_dim: Fields::new(object).count("projection_dim", 512)?,
            eos_token_id,
        })
    }

    /// The network, all parameters zero: [`parameters`](crate::parameters) fills them.
    pub fn init(&self, device: &Device) -> CLIPModel {
        let (text, vision) = (&self.text.encoder, &self.vision.encoder);
        CLIPModel {
            text_model: self.text.init(device).text_model,
            vision_model: self.vision.init(device),
            text_projection: Projection::new(text.hidden_size, self.projection_dim, device),
            visual_projection: Projection::new(vision.hidden_size, self.projection_dim, device),
            logit_scale: Param::from_tensor(Tensor::zeros([1], device)),
            end: self.eos_token_id,
        }
    }

    /// How many numbers the network has.
    fn parameters(&self) -> u64 {
        let widths = self.text.encoder.hidden_size + self.vision.encoder.hidden_size;
        let projections = widths as u64 * self.projection_dim as u64;
        let encoders = self
            .text
            .parameters()
            .saturating_add(self.vision.parameters());
        encoders.saturating_add(projections + 1)
    }
}

/// One encoder's configuration. Old files hold it twice, and transformers goes by the second, `over`, where it is not
/// null.
fn part<'a>(json: &'a Value, key: &str, over: &str) -> Result<&'a Value, ConfigError> {
    let given = |key: &str| json.get(key).filter(|value| !value.is_null());
    given(over)
        .or(given(key))
        .ok_or_else(|| ConfigError::Inconsistent(format!("`{key}` is missing")))
}

/// The error with the keys as they are called from outside `part`.
fn inside(part: &str, error: ConfigError) -> ConfigError {
    match error {
        ConfigError::Unsupported {
            key,
            value,
            supported,
        } => ConfigError::Unsupported {
            key: format!("{part}.{key}"),
            value,
            supported,
        },
        ConfigError::WrongType {
            key,
            value,
            expected,
        } => ConfigError::WrongType {
            key: format!("{part}.{key}"),
            value,
            expected,
        },
        ConfigError::Inconsistent(problem) => {
            ConfigError::Inconsistent(format!("in `{part}`, {problem}"))
        }
    }
}

/// CLIP's two encoders, each with a projection to what they share. Field names are the checkpoint's, so that a
/// parameter's path is its key.
#[derive(Module, Debug)]
pub struct CLIPModel {
    pub(crate) text_model: TextTransformer,
    pub(crate) vision_model: VisionTransformer,
    pub(crate) text_projection: Projection,
    pub(crate) visual_projection: Projection,
    /// `[1]`: the logarithm of what cosines are multiplied with before a softmax.
    pub(crate) logit_scale: Param<Tensor<1>>,
    end: i64,
}

impl CLIPModel {
    /// Texts as vectors, not of length 1: their states at the end mark, projected.
    ///
    /// # Shapes
    /// As many tokens in every text; result: `[texts, projection_dim]`.
    ///
    /// # Errors
    /// As [`CLIPTextModel::forward`](crate::text::CLIPTextModel::forward); a text without an end mark.
    pub fn text_features(&self, texts: &[Vec<i64>]) -> Result<Tensor<2>, TextError> {
        let states = self.text_model.forward(texts)?;
        Ok(self
            .text_projection
            .forward(at_end(&states, texts, self.end)?))
    }

    /// Images as vectors, not of length 1.
    ///
    /// # Shapes
    /// `pixels`: `[images, image_size, image_size, 3]`, normalised as [`Preprocessing`] says; result:
    /// `[images, projection_dim]`.
    pub fn image_features(&self, pixels: Tensor<4>) -> Tensor<2> {
        self.visual_projection
            .forward(self.vision_model.forward(pixels))
    }
}

/// CLIP from a folder, ready to look at texts and images.
#[derive(Debug)]
pub struct Clip {
    /// What the networks are.
    pub config: ClipConfig,
    /// What images go through first.
    pub preprocessing: Preprocessing,
    pub(crate) network: CLIPModel,
    tokenizer: ClipTokenizer,
    root: PathBuf,
}

impl Clip {
    /// Reads the folder of a `CLIPModel` with its tokenizer: `config.json`, `model.safetensors` or
    /// `pytorch_model.bin` in any float type, `vocab.json` with `merges.txt` or `tokenizer.json`, and the image
    /// processor's file where there is one. The network computes in f32.
    ///
    /// # Errors
    /// A folder that holds something else, and anything in it that is damaged, missing, too much or not supported.
    pub fn open(path: &Path, device: &Device) -> Result<Self, ModelError> {
        let folder = Part::at(path)?;
        let json = config(&folder, path)?;
        let at = |source| ModelError::Config {
            path: folder.path(CONFIG),
            source,
        };
        let config = ClipConfig::from_json(&json).map_err(at)?;
        let preprocessing = Preprocessing::read(&folder, config.vision.image_size)?;
        let tokenizer = ClipTokenizer::read(&folder, config.text.max_position_embeddings)?;
        let (end, last) = (tokenizer.end(), config.text.vocab_size - 1);
        if config.eos_token_id != LEGACY_END && config.eos_token_id != end {
            return Err(at(ConfigError::Inconsistent(format!(
                "`text_config.eos_token_id` is {}, but the tokenizer ends a text with token {end}; they do not belong \
                 together",
                config.eos_token_id
            ))));
        }
        if end > last as i64 {
            return Err(ModelError::Text {
                path: path.to_path_buf(),
                source: TextError::Token {
                    token: end,
                    text: 0,
                    last,
                },
            });
        }
        let network = network(&config, &folder.weights(Library::Transformers)?, device)?;
        Ok(Self {
            config,
            preprocessing,
            network,
            tokenizer,
            root: path.to_path_buf(),
        })
    }

    /// The folder as it was given.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What cosines are multiplied with before a softmax: 100 for OpenAI's networks.
    pub fn logit_scale(&self) -> f64 {
        f64::from(to_host(self.network.logit_scale.val())[0]).exp()
    }

    /// Texts as vectors, not of length 1. What is longer than the encoder takes is cut.
    ///
    /// # Shapes
    /// `[texts, projection_dim]`.
    ///
    /// # Errors
    /// No texts; a tokenizer whose numbers the encoder does not know.
    pub fn text_features(&self, texts: &[&str]) -> Result<Tensor<2>, ModelError> {
        let ids = texts
            .iter()
            .map(|text| Ok(self.tokenizer.encode(text)?.ids))
            .collect::<Result<Vec<_>, ModelError>>()?;
        let features = self.network.text_features(&ids);
        features.map_err(|source| ModelError::Text {
            path: self.root.clone(),
            source,
        })
    }

    /// As [`CLIPModel::image_features`].
    pub fn image_features(&self, pixels: Tensor<4>) -> Tensor<2> {
        self.network.image_features(pixels)
    }
}

/// The configuration of a folder that says to be a whole CLIP.
fn config(folder: &Part, root: &Path) -> Result<Value, ModelError> {
    let not_clip = |found: String| ModelError::NotClip {
        path: root.to_path_buf(),
        found,
    };
    if !folder.has(CONFIG) {
        let found = if folder.has("model_index.json") {
            "a pipeline of diffusers"
        } else {
            "no config.json"
        };
        return Err(not_clip(found.into()));
    }
    let json = folder.json(CONFIG)?;
    let kind = ["model_type", "_class_name"].map(|key| json[key].as_str());
    match kind.into_iter().flatten().next() {
        Some("clip") => {}
        Some("clip_text_model") => return Err(not_clip("a text encoder alone".into())),
        Some("clip_vision_model") => return Err(not_clip("an image encoder alone".into())),
        Some(other) => {
            let shown: String = other.chars().take(40).collect();
            return Err(not_clip(format!("a model of the kind {shown:?}")));
        }
        None => return Err(not_clip("a config.json without `model_type`".into())),
    }
    Ok(json)
}

/// The network with the folder's weights.
fn network(
    config: &ClipConfig,
    weights: &Weights,
    device: &Device,
) -> Result<CLIPModel, ModelError> {
    let root = weights.root().to_path_buf();
    for (prefix, found) in [
        ("text_model.", "weights without a text encoder"),
        ("vision_model.", "weights without an image encoder"),
    ] {
        if !weights.names().any(|name| name.starts_with(prefix)) {
            let found = found.into();
            return Err(ModelError::NotClip { path: root, found });
        }
    }
    let stored = model::stored(weights);
    model::check_parameters(config.parameters(), stored, root.join(CONFIG))?;
    let shapes = weights.iter().filter_map(|(name, tensor)| {
        // Old files carry the places' numbers, 0, 1, 2 and so on.
        if name.ends_with("embeddings.position_ids") {
            return None;
        }
        // A number by itself is a vector of one here.
        let shape = match tensor.shape() {
            [] => vec![1],
            shape => shape.to_vec(),
        };
        Some((name.to_string(), shape))
    });
    let shapes: Vec<_> = shapes.collect();
    model::fill_shapes(config.init(device), weights, &shapes, &root)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters;
    use serde_json::json;

    fn small() -> Value {
        let encoder = |json: Value| {
            let mut whole = json!({
                "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 3, "num_attention_heads": 2,
            });
            whole
                .as_object_mut()
                .unwrap()
                .append(&mut json.as_object().unwrap().clone());
            whole
        };
        json!({
            "model_type": "clip",
            "projection_dim": 5,
            "text_config": encoder(json!({ "vocab_size": 10, "max_position_embeddings": 4 })),
            "vision_config": encoder(json!({ "image_size": 12, "patch_size": 4 })),
        })
    }

    #[test]
    fn what_cannot_be_computed_is_refused_by_its_whole_name() {
        for (part, key, value) in [
            ("text_config", "hidden_act", json!("relu")),
            ("text_config", "eos_token_id", json!([1, 2])),
            ("vision_config", "patch_size", json!("large")),
            ("vision_config", "patch_size", json!(5)),
        ] {
            let mut json = small();
            json[part][key] = value;
            let error = ClipConfig::from_json(&json).unwrap_err().to_string();
            assert!(
                error.contains(part) && error.contains(key),
                "{key}: {error}"
            );
        }
        for key in ["text_config", "vision_config"] {
            let mut json = small();
            json[key] = Value::Null;
            let error = ClipConfig::from_json(&json).unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        }
    }

    #[test]
    fn what_old_files_say_a_second_time_counts() {
        let mut json = small();
        json["text_config_dict"] = json!({ "hidden_size": 16, "num_attention_heads": 4 });
        json["vision_config_dict"] = Value::Null;
        let config = ClipConfig::from_json(&json).unwrap();
        assert_eq!(
            (config.text.encoder.hidden_size, config.text.vocab_size),
            (16, 49408)
        );
        assert_eq!(config.vision.encoder.hidden_size, 8);
    }

    #[test]
    fn the_count_of_parameters_is_that_of_the_network() {
        let config = ClipConfig::from_json(&small()).unwrap();
        let network = config.init(&Device::flex());
        let all = parameters::list(&network);
        let count: usize = all.iter().map(|p| p.shape.iter().product::<usize>()).sum();
        assert_eq!(config.parameters(), count as u64);
    }
}
