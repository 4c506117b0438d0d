//! CLIP's image encoder: a vision transformer (Dosovitskiy et al. 2021) whose state at a token of its own, the first,
//! stands for the image.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use serde_json::Value;

use crate::config::{ConfigError, Fields, unsupported};
use crate::layers::{Embedding, LayerNorm};
use crate::patches::PatchEmbedding;
use crate::transformer::{Defaults, Encoder, EncoderConfig};

/// Configuration of a [`VisionTransformer`], with the names and defaults of transformers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct VisionConfig {
    /// Height and width of an image in pixels.
    pub(crate) image_size: usize,
    /// Height and width of the squares that an image is cut into; divides `image_size`.
    pub(crate) patch_size: usize,
    pub(crate) encoder: EncoderConfig,
}

impl VisionConfig {
    /// Reads the `vision_config` of a parsed `config.json`.
    ///
    /// # Errors
    /// Names the key whose value has the wrong type, is not supported, or contradicts another.
    pub(crate) fn from_json(json: &Value) -> Result<Self, ConfigError> {
        let object = json.as_object().ok_or_else(|| {
            ConfigError::Inconsistent("the configuration is not a JSON object".into())
        })?;
        let mut fields = Fields::new(object);
        let channels = fields.count("num_channels", 3)?;
        if channels != 3 {
            return Err(unsupported("num_channels", &channels.to_string(), "3"));
        }
        let defaults = Defaults {
            hidden_size: 768,
            intermediate_size: 3072,
            num_attention_heads: 12,
        };
        let config = Self {
            image_size: fields.count("image_size", 224)?,
            patch_size: fields.count("patch_size", 32)?,
            encoder: EncoderConfig::read(&mut fields, defaults)?,
        };
        let (size, patch) = (config.image_size, config.patch_size);
        if !size.is_multiple_of(patch) {
            return Err(ConfigError::Inconsistent(format!(
                "`image_size` = {size} does not split into patches of `patch_size` = {patch}"
            )));
        }
        Ok(config)
    }

    /// Patches along one side of an image.
    fn grid(&self) -> usize {
        self.image_size / self.patch_size
    }

    /// The network, all parameters zero.
    pub(crate) fn init(&self, device: &Device) -> VisionTransformer {
        let hidden = self.encoder.hidden_size;
        VisionTransformer {
            embeddings: VisionEmbeddings {
                class_embedding: Param::from_tensor(Tensor::zeros([hidden], device)),
                patch_embedding: PatchEmbedding::new(self.patch_size, [3, hidden], false, device),
                position_embedding: Embedding::new(self.grid().pow(2) + 1, hidden, device),
            },
            pre_layrnorm: self.encoder.norm(device),
            encoder: self.encoder.init(device),
            post_layernorm: self.encoder.norm(device),
        }
    }

    /// How many numbers the network has.
    pub(crate) fn parameters(&self) -> u64 {
        let (grid, patch) = (self.grid() as u64, self.patch_size as u64);
        // At most 2^20 each, so that no product of three is too large; their sum with a factor may be.
        let embedded = (1 + grid * grid + 1).saturating_add(3 * patch * patch);
        let each = self.encoder.hidden_size as u64;
        let embedded = embedded.saturating_add(4).saturating_mul(each);
        embedded.saturating_add(self.encoder.parameters())
    }
}

/// The image encoder. Field names are the checkpoint's, so that a parameter's path is its key; `pre_layrnorm` is
/// written like this in all of them.
#[derive(Module, Debug)]
pub(crate) struct VisionTransformer {
    pub(crate) embeddings: VisionEmbeddings,
    pub(crate) pre_layrnorm: LayerNorm,
    pub(crate) encoder: Encoder,
    pub(crate) post_layernorm: LayerNorm,
}

/// A vector for the image, one for each of its patches, and one for each place.
#[derive(Module, Debug)]
pub(crate) struct VisionEmbeddings {
    /// `[channels]`.
    pub(crate) class_embedding: Param<Tensor<1>>,
    pub(crate) patch_embedding: PatchEmbedding,
    pub(crate) position_embedding: Embedding,
}

impl VisionTransformer {
    /// One state for each image.
    ///
    /// # Shapes
    /// `pixels`: `[images, image_size, image_size, 3]`, normalised; result: `[images, hidden_size]`.
    pub(crate) fn forward(&self, pixels: Tensor<4>) -> Tensor<2> {
        let images = pixels.dims()[0];
        let patches = self.embeddings.patch_embedding.forward(pixels);
        let hidden = patches.dims()[2];
        let class = self.embeddings.class_embedding.val();
        let class = class.reshape([1, 1, hidden]).repeat_dim(0, images);
        let places = self.embeddings.position_embedding.weight.val();
        let x = Tensor::cat(vec![class, patches], 1) + places.unsqueeze();
        let tokens = x.dims()[1];
        let x = self
            .pre_layrnorm
            .forward(x.reshape([images * tokens, hidden]));
        let x = self.encoder.forward(x, None, images);
        let first = x.reshape([images, tokens, hidden]).narrow(1, 0, 1);
        self.post_layernorm.forward(first.reshape([images, hidden]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_changes_the_mathematics_is_refused_by_name() {
        for (key, value) in [
            ("patch_size", json!(30)),
            ("patch_size", json!([16, 16])),
            ("image_size", json!(0)),
            ("num_channels", json!(4)),
            ("hidden_act", json!("relu")),
            ("num_attention_heads", json!(5)),
        ] {
            let error = VisionConfig::from_json(&json!({ key: value })).unwrap_err();
            assert!(error.to_string().contains(key), "{key}: {error}");
        }
        let config = VisionConfig::from_json(&json!({})).unwrap();
        assert_eq!((config.image_size, config.patch_size), (224, 32));
        assert_eq!(config.parameters(), 87_456_000);
    }
}
