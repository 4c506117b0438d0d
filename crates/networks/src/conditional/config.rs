//! `config.json` of a `UNet2DConditionModel`, read strictly: what this crate does not compute, it refuses
//! by name.

use std::ops::Deref;

use serde_json::{Value, json};

use crate::config::{ConfigError, Fields, UNetConfig, check_layers, unsupported};

/// Configuration of [`UNet2DConditionModel`](super::UNet2DConditionModel), with diffusers' names and
/// defaults. Lists have an entry for each level, from the finest on.
#[derive(Debug, Clone, PartialEq)]
pub struct UNet2DConditionConfig {
    /// Its fields are read as this one's own.
    pub unet: UNetConfig,
    /// Whether a level's blocks on the way down are `CrossAttnDownBlock2D`.
    pub(crate) down_attention: Vec<bool>,
    /// Whether a level's blocks on the way up are `CrossAttnUpBlock2D`, from the coarsest level on.
    pub(crate) up_attention: Vec<bool>,
    /// Width of the encoder's hidden states.
    pub cross_attention_dim: usize,
    /// How many heads attend. The file calls it `attention_head_dim`: a wrong name that 40,000
    /// published configurations carry.
    pub(crate) attention_heads: Vec<usize>,
    pub(crate) transformer_layers_per_block: Vec<usize>,
    /// Whether both attentions of a transformer block look at the encoder's hidden states.
    pub(crate) only_cross_attention: Vec<bool>,
    /// What else the network is told of a text; `None` in networks of Stable Diffusion 1.x and 2.x.
    pub(crate) addition: Option<Addition>,
    /// Whether a transformer's projections are stored as linear layers, not as 1x1 convolutions.
    pub(crate) use_linear_projection: bool,
    /// Keys of the file that mean nothing to this network.
    pub unknown_keys: Vec<String>,
}

/// `addition_embed_type` "text_time": a text as one vector, and how the image was cut out of its original.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Addition {
    /// Of that vector.
    pub pooled: usize,
    /// Of each of the six sizes.
    pub size_dim: usize,
}

impl Addition {
    /// How many sizes there are: two each of the original, of the corner, of the result.
    pub(crate) const SIZES: usize = 6;

    /// Width of both together.
    pub(crate) fn inputs(self) -> usize {
        self.pooled + Self::SIZES * self.size_dim
    }

    fn read(fields: &mut Fields) -> Result<Option<Self>, ConfigError> {
        let (sizes, inputs) = (
            "addition_time_embed_dim",
            "projection_class_embeddings_input_dim",
        );
        match fields.optional_text("addition_embed_type")?.as_deref() {
            None => {
                for key in [sizes, inputs] {
                    only(fields, key, &Value::Null, "null")?;
                }
                Ok(None)
            }
            Some("text_time") => {
                let size_dim = fields.optional_count(sizes)?;
                let all = fields.optional_count(inputs)?;
                let missing = |key| {
                    let problem =
                        format!("`{key}` is missing, where `addition_embed_type` is \"text_time\"");
                    ConfigError::Inconsistent(problem)
                };
                let size_dim = size_dim.ok_or_else(|| missing(sizes))?;
                let all = all.ok_or_else(|| missing(inputs))?;
                let pooled = all.checked_sub(Self::SIZES.saturating_mul(size_dim));
                let pooled = pooled.filter(|&pooled| pooled > 0).ok_or_else(|| {
                    ConfigError::Inconsistent(format!(
                        "`{inputs}` is {all}: {} sizes of `{sizes}` = {size_dim} numbers leave none of them for a text",
                        Self::SIZES
                    ))
                })?;
                Ok(Some(Self { pooled, size_dim }))
            }
            Some(other) => Err(unsupported(
                "addition_embed_type",
                other,
                "null (Stable Diffusion 1.x and 2.x), text_time (SDXL)",
            )),
        }
    }
}

impl Deref for UNet2DConditionConfig {
    type Target = UNetConfig;

    fn deref(&self) -> &UNetConfig {
        &self.unet
    }
}

impl UNet2DConditionConfig {
    /// Reads a parsed `config.json`.
    ///
    /// # Errors
    /// Names the key whose value has the wrong type, is not supported, or contradicts another.
    pub fn from_json(json: &Value) -> Result<Self, ConfigError> {
        let object = json.as_object().ok_or_else(|| {
            ConfigError::Inconsistent("the configuration is not a JSON object".into())
        })?;
        let mut fields = Fields::new(object);
        refuse_variants(&mut fields)?;

        let unet = UNetConfig::read(&mut fields, 4, &[320, 640, 1280, 1280])?;
        let levels = unet.block_out_channels.len();
        let heads_key = "attention_head_dim";
        let layers_key = "transformer_layers_per_block";
        let config = Self {
            down_attention: block_types(
                &mut fields,
                "down_block_types",
                ["DownBlock2D", "CrossAttnDownBlock2D"],
                "DownBlock2D, CrossAttnDownBlock2D",
                &[true, true, true, false],
            )?,
            up_attention: block_types(
                &mut fields,
                "up_block_types",
                ["UpBlock2D", "CrossAttnUpBlock2D"],
                "UpBlock2D, CrossAttnUpBlock2D",
                &[false, true, true, true],
            )?,
            cross_attention_dim: fields.count("cross_attention_dim", 1280)?,
            attention_heads: counts_by_level(&mut fields, heads_key, 8, levels)?,
            transformer_layers_per_block: counts_by_level(&mut fields, layers_key, 1, levels)?,
            only_cross_attention: flags_by_level(&mut fields, "only_cross_attention", levels)?,
            addition: Addition::read(&mut fields)?,
            use_linear_projection: fields.flag("use_linear_projection", false)?,
            unknown_keys: fields.unknown(),
            unet,
        };
        config.check()?;
        Ok(config)
    }

    /// What the height and width of latents must be multiples of. With a pixel of padding on every side odd sides are
    /// rounded up on the way down and cut again on the way up; without it they would grow.
    pub fn side_multiple(&self) -> usize {
        side_multiple(self.downsample_padding, self.block_out_channels.len())
    }

    fn check(&self) -> Result<(), ConfigError> {
        let levels = self.block_out_channels.len();
        self.unet.check(&[
            ("down_block_types", self.down_attention.len()),
            ("up_block_types", self.up_attention.len()),
            ("attention_head_dim", self.attention_heads.len()),
            (
                "transformer_layers_per_block",
                self.transformer_layers_per_block.len(),
            ),
            ("only_cross_attention", self.only_cross_attention.len()),
        ])?;
        if self.mid_block_scale_factor < 0.0 {
            return Err(ConfigError::Inconsistent(format!(
                "`mid_block_scale_factor` is {}; it must be above 0",
                self.mid_block_scale_factor
            )));
        }
        for &layers in &self.transformer_layers_per_block {
            let all = levels * self.layers_per_block;
            check_layers("transformer_layers_per_block", layers, all)?;
        }
        // The coarsest level attends in the mid block in any case.
        for level in 0..levels {
            let attends = self.down_attention[level]
                || self.up_attention[levels - 1 - level]
                || level + 1 == levels;
            let (channels, heads) = (self.block_out_channels[level], self.attention_heads[level]);
            if attends && !channels.is_multiple_of(heads) {
                return Err(ConfigError::Inconsistent(format!(
                    "{channels} channels do not split into {heads} heads (`attention_head_dim`, which in this kind of \
                     network is the number of heads)"
                )));
            }
        }
        Ok(())
    }
}

/// [`UNet2DConditionConfig::side_multiple`] of so many levels.
pub(super) fn side_multiple(downsample_padding: usize, levels: usize) -> usize {
    match downsample_padding {
        0 => 1 << (levels - 1),
        _ => 1,
    }
}

/// Refuses the settings of other networks of this class.
fn refuse_variants(fields: &mut Fields) -> Result<(), ConfigError> {
    fields.silu()?;
    for key in [
        "class_embed_type",
        "num_class_embeds",
        "encoder_hid_dim",
        "encoder_hid_dim_type",
        "time_embedding_act_fn",
        "timestep_post_act",
        "time_cond_proj_dim",
        "cross_attention_norm",
        "reverse_transformer_layers_per_block",
    ] {
        only(fields, key, &Value::Null, "null")?;
    }
    // diffusers refuses this key too: the number of heads is where `attention_head_dim` is expected.
    only(
        fields,
        "num_attention_heads",
        &Value::Null,
        "null (`attention_head_dim` holds the number of heads)",
    )?;
    for (key, value, supported) in [
        (
            "mid_block_type",
            json!("UNetMidBlock2DCrossAttn"),
            "UNetMidBlock2DCrossAttn",
        ),
        ("time_embedding_type", json!("positional"), "positional"),
        ("attention_type", json!("default"), "default"),
        ("dual_cross_attention", json!(false), "false"),
        ("class_embeddings_concat", json!(false), "false"),
        ("resnet_skip_time_act", json!(false), "false"),
        ("resnet_out_scale_factor", json!(1.0), "1"),
        ("conv_in_kernel", json!(3), "3"),
        ("conv_out_kernel", json!(3), "3"),
    ] {
        only(fields, key, &value, supported)?;
    }
    // The first is about half precision; the blocks computed here do not read the others.
    fields.flag("upcast_attention", false)?;
    fields.get("mid_block_only_cross_attention");
    fields.get("addition_embed_type_num_heads");
    Ok(())
}

/// Accepts `key` where it is absent or has the one value that changes nothing.
pub(crate) fn only(
    fields: &mut Fields,
    key: &'static str,
    accepted: &Value,
    supported: &'static str,
) -> Result<(), ConfigError> {
    let Some(value) = fields.get(key) else {
        return Ok(());
    };
    // 1 and 1.0 are the same number.
    let same_number = value.as_f64().is_some() && value.as_f64() == accepted.as_f64();
    if value == accepted || same_number {
        return Ok(());
    }
    let shown = value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned);
    Err(unsupported(key, &shown, supported))
}

/// Reads a list of block types as whether each carries attention.
fn block_types(
    fields: &mut Fields,
    key: &'static str,
    [plain, attention]: [&str; 2],
    supported: &'static str,
    default: &[bool],
) -> Result<Vec<bool>, ConfigError> {
    let Some(value) = fields.get(key) else {
        return Ok(default.to_vec());
    };
    let list = value
        .as_array()
        .ok_or_else(|| Fields::wrong(key, value, "a list of block types"))?;
    list.iter()
        .map(|item| match item.as_str() {
            Some(name) if name == plain => Ok(false),
            Some(name) if name == attention => Ok(true),
            Some(name) => Err(unsupported(key, name, supported)),
            None => Err(Fields::wrong(key, item, "a block type")),
        })
        .collect()
}

/// A number for all levels, or one for each.
fn counts_by_level(
    fields: &mut Fields,
    key: &'static str,
    default: usize,
    levels: usize,
) -> Result<Vec<usize>, ConfigError> {
    match fields.get(key) {
        Some(Value::Array(_)) => fields.counts(key, &[]),
        _ => Ok(vec![fields.count(key, default)?; levels]),
    }
}

/// True or false for all levels, or for each; false where the file does not say.
fn flags_by_level(
    fields: &mut Fields,
    key: &'static str,
    levels: usize,
) -> Result<Vec<bool>, ConfigError> {
    let Some(Value::Array(list)) = fields.get(key) else {
        return Ok(vec![fields.flag(key, false)?; levels]);
    };
    list.iter()
        .map(|item| {
            item.as_bool()
                .ok_or_else(|| Fields::wrong(key, item, "true or false"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Value {
        json!({
            "_class_name": "UNet2DConditionModel", "sample_size": 8,
            "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
            "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
            "block_out_channels": [32, 64], "cross_attention_dim": 16
        })
    }

    #[test]
    fn an_empty_file_is_stable_diffusion_1_with_wider_text() {
        let config = UNet2DConditionConfig::from_json(&json!({})).unwrap();
        assert_eq!(config.block_out_channels, [320, 640, 1280, 1280]);
        assert_eq!(config.down_attention, [true, true, true, false]);
        assert_eq!(config.up_attention, [false, true, true, true]);
        assert_eq!(config.attention_heads, [8; 4]);
        assert_eq!(config.cross_attention_dim, 1280);
        assert_eq!(config.time_embedding_dim, 1280);
    }

    #[test]
    fn the_head_dim_of_the_file_is_the_number_of_heads() {
        let mut json = small();
        json["attention_head_dim"] = json!([2, 4]);
        json["num_attention_heads"] = Value::Null;
        json["upcast_attention"] = json!(true);
        let config = UNet2DConditionConfig::from_json(&json).unwrap();
        assert_eq!(config.attention_heads, [2, 4]);
        assert!(config.unknown_keys.is_empty());
    }

    #[test]
    fn what_sdxl_is_told_beside_hidden_states_is_read_or_refused() {
        let (sizes, inputs) = (
            "addition_time_embed_dim",
            "projection_class_embeddings_input_dim",
        );
        let with = |size_dim: Value, all: Value| {
            let mut json = small();
            json["addition_embed_type"] = json!("text_time");
            json[sizes] = size_dim;
            json[inputs] = all;
            UNet2DConditionConfig::from_json(&json)
        };
        let read = with(json!(256), json!(2816)).unwrap().addition;
        assert_eq!(
            read,
            Some(Addition {
                pooled: 1280,
                size_dim: 256
            })
        );
        for (size_dim, all, key) in [
            (Value::Null, json!(2816), sizes),
            (json!(256), Value::Null, inputs),
            (json!(256), json!(1536), inputs),
            (json!("many"), json!(2816), sizes),
        ] {
            let text = with(size_dim, all).unwrap_err().to_string();
            assert!(text.contains(&format!("`{key}`")), "{text}");
        }
    }

    #[test]
    fn what_changes_the_mathematics_is_refused_by_name() {
        for (key, value) in [
            ("act_fn", json!("gelu")),
            ("addition_embed_type", json!("text_image")),
            ("addition_time_embed_dim", json!(256)),
            ("projection_class_embeddings_input_dim", json!(2816)),
            ("attention_head_dim", json!([2, 2, 2])),
            ("attention_head_dim", json!(24)),
            ("attention_type", json!("gated")),
            ("block_out_channels", json!([])),
            ("class_embed_type", json!("timestep")),
            ("class_embeddings_concat", json!(true)),
            ("conv_in_kernel", json!(1)),
            ("conv_out_kernel", json!(1)),
            ("cross_attention_dim", json!([16, 32])),
            ("cross_attention_norm", json!("group_norm")),
            (
                "down_block_types",
                json!(["AttnDownBlock2D", "DownBlock2D"]),
            ),
            ("dropout", json!(1.0)),
            ("dual_cross_attention", json!(true)),
            ("encoder_hid_dim", json!(8)),
            ("encoder_hid_dim_type", json!("text_proj")),
            ("layers_per_block", json!([1, 2])),
            ("layers_per_block", json!(0)),
            ("layers_per_block", json!(1_000_000_000)),
            ("transformer_layers_per_block", json!(1_000_000_000)),
            ("freq_shift", json!(16)),
            ("layers_per_block", json!(1000)),
            ("transformer_layers_per_block", json!(1 << 20)),
            ("mid_block_type", Value::Null),
            ("mid_block_scale_factor", json!(0)),
            ("mid_block_scale_factor", json!(-1)),
            ("norm_num_groups", json!(48)),
            ("num_attention_heads", json!(8)),
            ("num_class_embeds", json!(10)),
            ("only_cross_attention", json!([true])),
            ("only_cross_attention", json!("yes")),
            ("resnet_out_scale_factor", json!(2)),
            ("resnet_skip_time_act", json!(true)),
            ("resnet_time_scale_shift", json!("spatial")),
            ("reverse_transformer_layers_per_block", json!([[1], [1, 1]])),
            ("time_cond_proj_dim", json!(8)),
            ("time_embedding_act_fn", json!("silu")),
            ("time_embedding_type", json!("fourier")),
            ("timestep_post_act", json!("silu")),
            ("transformer_layers_per_block", json!([[1, 2], [1, 1]])),
            ("up_block_types", json!(["UpBlock2D"])),
        ] {
            let mut json = small();
            json[key] = value;
            let error = UNet2DConditionConfig::from_json(&json)
                .expect_err(key)
                .to_string();
            assert!(error.contains(key), "{key}: {error}");
        }
    }

    #[test]
    fn keys_that_mean_nothing_are_reported_and_not_refused() {
        let mut json = small();
        json["comment"] = json!("mine");
        json["resnet_out_scale_factor"] = json!(1);
        let config = UNet2DConditionConfig::from_json(&json).unwrap();
        assert_eq!(config.unknown_keys, ["comment"]);
    }
}
