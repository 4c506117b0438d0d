//! `config.json` of a `UNet2DModel`, read strictly: what this crate does not compute, it refuses by name.

use std::ops::Deref;

use serde_json::Value;

pub use crate::fields::ConfigError;
pub(crate) use crate::fields::{Fields, unsupported};

/// Many times those of any published network; a stranger's file must not make us build for hours.
pub(crate) const MOST_LAYERS: usize = 1024;

/// Each halves the image: what is left of the largest is a few pixels.
const MOST_LEVELS: usize = 16;

/// How a timestep becomes a vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimeEmbedding {
    /// Sines and cosines of geometrically spaced frequencies (Vaswani et al. 2017, as in DDPM).
    Positional,
    /// Random Fourier features of log t; the network's output is divided by t (Song et al. 2021).
    Fourier,
}

/// How the time embedding enters a residual block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimeScaleShift {
    /// Added to the first convolution's output.
    Default,
    /// Scale and shift of the second normalization.
    ScaleShift,
}

/// How blocks with attention change resolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resample {
    Conv,
    Resnet,
}

/// What both kinds of U-Net are configured by, with diffusers' names and defaults.
#[derive(Debug, Clone, PartialEq)]
pub struct UNetConfig {
    /// Height and width in pixels, or in those of latents; `None` where the file does not say.
    pub sample_size: Option<[usize; 2]>,
    /// Channels of the images that the network takes.
    pub in_channels: usize,
    /// Channels of what it predicts.
    pub out_channels: usize,
    pub(crate) center_input_sample: bool,
    pub(crate) flip_sin_to_cos: bool,
    pub(crate) freq_shift: f64,
    pub(crate) time_embedding_dim: usize,
    /// For each level from the finest on.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks of a level on the way down; one more on the way up.
    pub layers_per_block: usize,
    /// 0 pads one pixel at the bottom and right only, 1 on every side.
    pub(crate) downsample_padding: usize,
    /// The mid block's residual blocks are divided by this, a transformer between them is not.
    pub(crate) mid_block_scale_factor: f64,
    pub(crate) dropout: f64,
    pub(crate) norm_num_groups: usize,
    /// Of the residual blocks.
    pub(crate) norm_eps: f64,
    pub(crate) resnet_time_scale_shift: TimeScaleShift,
}

/// Configuration of [`UNet2DModel`](crate::unet2d::UNet2DModel), with diffusers' names and defaults.
#[derive(Debug, Clone, PartialEq)]
pub struct UNet2DConfig {
    /// Its fields are read as this one's own.
    pub unet: UNetConfig,
    pub(crate) time_embedding_type: TimeEmbedding,
    /// For each level from the finest on: whether its blocks carry attention.
    pub(crate) down_attention: Vec<bool>,
    /// For each level from the coarsest on.
    pub(crate) up_attention: Vec<bool>,
    pub(crate) mid_block: bool,
    pub(crate) downsample_type: Resample,
    pub(crate) upsample_type: Resample,
    /// `None`: one head over all channels.
    pub(crate) attention_head_dim: Option<usize>,
    pub(crate) attn_norm_num_groups: Option<usize>,
    /// Whether the mid block has attention.
    pub(crate) add_attention: bool,
    /// How many classes the network tells apart; `None`: it is told none.
    pub num_class_embeds: Option<usize>,
    /// Keys of the file that mean nothing to this network.
    pub unknown_keys: Vec<String>,
}

impl Deref for UNet2DConfig {
    type Target = UNetConfig;

    fn deref(&self) -> &UNetConfig {
        &self.unet
    }
}

impl UNet2DConfig {
    /// Reads a parsed `config.json`.
    ///
    /// # Errors
    /// Names the key whose value has the wrong type, is not supported, or contradicts another.
    pub fn from_json(json: &Value) -> Result<Self, ConfigError> {
        let object = json.as_object().ok_or_else(|| {
            ConfigError::Inconsistent("the configuration is not a JSON object".into())
        })?;
        let mut fields = Fields::new(object);

        let unet = UNetConfig::read(&mut fields, 3, &[224, 448, 672, 896])?;
        let down_attention = fields.blocks("down_block_types", BlockSide::Down)?;
        let up_attention = fields.blocks("up_block_types", BlockSide::Up)?;
        fields.silu()?;
        let class_embed_type = fields.optional_text("class_embed_type")?;
        if let Some(kind) = class_embed_type {
            return Err(unsupported("class_embed_type", &kind, "null"));
        }
        fields.optional_count("num_train_timesteps")?; // only a learned time embedding uses it

        let config = Self {
            unet,
            time_embedding_type: fields.choice(
                "time_embedding_type",
                "positional",
                "positional, fourier",
                |name| match name {
                    "positional" => Some(TimeEmbedding::Positional),
                    "fourier" => Some(TimeEmbedding::Fourier),
                    _ => None,
                },
            )?,
            down_attention,
            up_attention,
            mid_block: fields.mid_block()?,
            downsample_type: fields.choice("downsample_type", "conv", "conv, resnet", resample)?,
            upsample_type: fields.choice("upsample_type", "conv", "conv, resnet", resample)?,
            attention_head_dim: fields.nullable_count("attention_head_dim", Some(8))?,
            attn_norm_num_groups: fields.optional_count("attn_norm_num_groups")?,
            add_attention: fields.flag("add_attention", true)?,
            num_class_embeds: fields.optional_count("num_class_embeds")?,
            unknown_keys: fields.unknown(),
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let levels = self.block_out_channels.len();
        self.unet.check(&[
            ("down_block_types", self.down_attention.len()),
            ("up_block_types", self.up_attention.len()),
        ])?;
        if let Some(groups) = self.attn_norm_num_groups
            && !self.block_out_channels[levels - 1].is_multiple_of(groups)
        {
            return Err(ConfigError::Inconsistent(format!(
                "`attn_norm_num_groups` = {groups} does not divide the mid block's channels"
            )));
        }
        if let Some(dim) = self.attention_head_dim {
            let attended = self.down_attention.iter().zip(&self.block_out_channels);
            let attended = attended.chain(
                self.up_attention
                    .iter()
                    .zip(self.block_out_channels.iter().rev()),
            );
            let mid = self.mid_block && self.add_attention;
            let mid = mid.then(|| self.block_out_channels[levels - 1]);
            for channels in attended.filter(|(on, _)| **on).map(|(_, c)| *c).chain(mid) {
                if dim > channels {
                    return Err(ConfigError::Inconsistent(format!(
                        "`attention_head_dim` = {dim} exceeds a block's {channels} channels"
                    )));
                }
            }
        }
        Ok(())
    }
}

impl UNetConfig {
    /// Reads its keys. `channels` and `widths`: what a file without `in_channels`, `out_channels` and
    /// `block_out_channels` means.
    pub(crate) fn read(
        fields: &mut Fields,
        channels: usize,
        widths: &[usize],
    ) -> Result<Self, ConfigError> {
        let block_out_channels = fields.counts("block_out_channels", widths)?;
        let Some(finest) = block_out_channels.first() else {
            return Err(ConfigError::Inconsistent(
                "`block_out_channels` is empty".into(),
            ));
        };
        Ok(Self {
            sample_size: fields.sample_size()?,
            in_channels: fields.count("in_channels", channels)?,
            out_channels: fields.count("out_channels", channels)?,
            center_input_sample: fields.flag("center_input_sample", false)?,
            flip_sin_to_cos: fields.flag("flip_sin_to_cos", true)?,
            freq_shift: fields.number("freq_shift", 0.0)?,
            time_embedding_dim: fields
                .optional_count("time_embedding_dim")?
                .unwrap_or(finest * 4),
            layers_per_block: fields.count("layers_per_block", 2)?,
            downsample_padding: fields.padding()?,
            mid_block_scale_factor: fields.number("mid_block_scale_factor", 1.0)?,
            dropout: fields.number("dropout", 0.0)?,
            norm_num_groups: fields.count("norm_num_groups", 32)?,
            norm_eps: fields.number("norm_eps", 1e-5)?,
            resnet_time_scale_shift: fields.time_scale_shift()?,
            block_out_channels,
        })
    }

    /// `lists`: keys whose lists have an entry for each level, and how many they have.
    pub(crate) fn check(&self, lists: &[(&str, usize)]) -> Result<(), ConfigError> {
        let levels = self.block_out_channels.len();
        for &(key, count) in lists {
            if count != levels {
                return Err(ConfigError::Inconsistent(format!(
                    "`{key}` has {count} entries but `block_out_channels` has {levels}"
                )));
            }
        }
        check_levels(levels)?;
        check_layers("layers_per_block", self.layers_per_block, levels)?;
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(unsupported(
                "dropout",
                &self.dropout.to_string(),
                "0 up to, not including, 1",
            ));
        }
        let frequencies = (self.block_out_channels[0] / 2) as f64;
        if self.freq_shift.abs() >= frequencies {
            return Err(ConfigError::Inconsistent(format!(
                "`freq_shift` = {} leaves nothing of the time embedding's {frequencies} frequencies",
                self.freq_shift
            )));
        }
        if self.mid_block_scale_factor == 0.0 {
            return Err(ConfigError::Inconsistent(
                "`mid_block_scale_factor` is 0, by which nothing can be divided".into(),
            ));
        }
        if self.norm_eps <= 0.0 {
            return Err(ConfigError::Inconsistent(
                "`norm_eps` must be above 0".into(),
            ));
        }
        let groups = self.norm_num_groups;
        let skips = skip_widths(&self.block_out_channels, self.layers_per_block);
        for &channels in self.block_out_channels.iter().chain(&skips) {
            if !channels.is_multiple_of(groups) {
                return Err(ConfigError::Inconsistent(format!(
                    "a normalization over {channels} channels cannot have `norm_num_groups` = {groups} groups"
                )));
            }
        }
        Ok(())
    }
}

/// Refuses more levels than any image can be halved.
pub(crate) fn check_levels(levels: usize) -> Result<(), ConfigError> {
    if levels > MOST_LEVELS {
        return Err(ConfigError::Inconsistent(format!(
            "`block_out_channels` has {levels} entries, more than the {MOST_LEVELS} of any network"
        )));
    }
    Ok(())
}

/// Refuses a number of layers, `times` in a network, that no published one comes near, and none.
pub(crate) fn check_layers(key: &str, layers: usize, times: usize) -> Result<(), ConfigError> {
    if times.saturating_mul(layers) > MOST_LAYERS {
        return Err(ConfigError::Inconsistent(format!(
            "`{key}` = {layers}, {times} times, are more than {MOST_LAYERS} layers"
        )));
    }
    if layers == 0 {
        return Err(ConfigError::Inconsistent(format!(
            "`{key}` is 0; at least one layer is needed"
        )));
    }
    Ok(())
}

/// Widths of the concatenations that enter the residual blocks on the way up.
pub(crate) fn skip_widths(block_out_channels: &[usize], layers_per_block: usize) -> Vec<usize> {
    let mut widths = Vec::new();
    let reversed: Vec<usize> = block_out_channels.iter().rev().copied().collect();
    let mut previous = reversed[0];
    for (level, &out) in reversed.iter().enumerate() {
        let input = reversed[(level + 1).min(reversed.len() - 1)];
        for layer in 0..=layers_per_block {
            let skip = if layer == layers_per_block {
                input
            } else {
                out
            };
            widths.push(skip + if layer == 0 { previous } else { out });
        }
        previous = out;
    }
    widths
}

fn resample(name: &str) -> Option<Resample> {
    match name {
        "conv" => Some(Resample::Conv),
        "resnet" => Some(Resample::Resnet),
        _ => None,
    }
}

enum BlockSide {
    Down,
    Up,
}

/// What U-Nets have keys of.
impl Fields<'_> {
    /// The one activation of these networks, under its two names.
    pub(crate) fn silu(&mut self) -> Result<(), ConfigError> {
        match self.text("act_fn", "silu")?.as_str() {
            "silu" | "swish" => Ok(()),
            other => Err(unsupported("act_fn", other, "silu")),
        }
    }

    fn time_scale_shift(&mut self) -> Result<TimeScaleShift, ConfigError> {
        self.choice(
            "resnet_time_scale_shift",
            "default",
            "default, scale_shift",
            |name| match name {
                "default" => Some(TimeScaleShift::Default),
                "scale_shift" => Some(TimeScaleShift::ScaleShift),
                _ => None,
            },
        )
    }

    fn blocks(&mut self, key: &'static str, side: BlockSide) -> Result<Vec<bool>, ConfigError> {
        let (plain, attention, supported, default) = match side {
            BlockSide::Down => (
                "DownBlock2D",
                "AttnDownBlock2D",
                "DownBlock2D, AttnDownBlock2D",
                vec![false, true, true, true],
            ),
            BlockSide::Up => (
                "UpBlock2D",
                "AttnUpBlock2D",
                "UpBlock2D, AttnUpBlock2D",
                vec![true, true, true, false],
            ),
        };
        let Some(value) = self.get(key) else {
            return Ok(default);
        };
        let list = value
            .as_array()
            .ok_or_else(|| Self::wrong(key, value, "a list of block types"))?;
        list.iter()
            .map(|item| {
                let name = item
                    .as_str()
                    .ok_or_else(|| Self::wrong(key, item, "a block type"))?;
                // The oldest checkpoints carry this prefix; diffusers drops it as well.
                let short = name.strip_prefix("UNetRes").unwrap_or(name);
                if short == plain {
                    Ok(false)
                } else if short == attention {
                    Ok(true)
                } else {
                    Err(unsupported(key, name, supported))
                }
            })
            .collect()
    }

    fn mid_block(&mut self) -> Result<bool, ConfigError> {
        match self.get("mid_block_type") {
            None => Ok(true),
            Some(Value::Null) => Ok(false),
            Some(Value::String(name)) if name == "UNetMidBlock2D" => Ok(true),
            Some(value) => Err(unsupported(
                "mid_block_type",
                &value.to_string(),
                "UNetMidBlock2D, null",
            )),
        }
    }

    fn padding(&mut self) -> Result<usize, ConfigError> {
        match self.get("downsample_padding") {
            None => Ok(1),
            Some(value) => match value.as_u64() {
                Some(n @ (0 | 1)) => Ok(n as usize),
                _ => Err(unsupported(
                    "downsample_padding",
                    &value.to_string(),
                    "0, 1",
                )),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn small() -> Value {
        json!({
            "_class_name": "UNet2DModel", "sample_size": 28, "in_channels": 1, "out_channels": 1,
            "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
            "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
            "block_out_channels": [32, 64], "attention_head_dim": null
        })
    }

    #[test]
    fn absent_keys_take_the_defaults_of_diffusers() {
        let config = UNet2DConfig::from_json(&small()).unwrap();
        assert_eq!(config.norm_eps, 1e-5);
        assert_eq!(config.downsample_padding, 1);
        assert_eq!(config.freq_shift, 0.0);
        assert!(config.flip_sin_to_cos);
        assert_eq!(config.time_embedding_dim, 128);
        assert_eq!(config.down_attention, [false, true]);
        assert_eq!(config.attention_head_dim, None);
        assert!(config.unknown_keys.is_empty());
    }

    #[test]
    fn an_absent_head_dim_is_eight_and_not_one_head() {
        let mut json = small();
        json.as_object_mut().unwrap().remove("attention_head_dim");
        let config = UNet2DConfig::from_json(&json).unwrap();
        assert_eq!(config.attention_head_dim, Some(8));
    }

    #[test]
    fn what_changes_the_mathematics_is_refused_by_name() {
        for (key, value) in [
            ("act_fn", json!("gelu")),
            ("time_embedding_type", json!("learned")),
            ("class_embed_type", json!("identity")),
            ("resnet_time_scale_shift", json!("spatial")),
            (
                "down_block_types",
                json!(["DownBlock2D", "SkipDownBlock2D"]),
            ),
            ("mid_block_type", json!("UNetMidBlock2DCrossAttn")),
            ("downsample_padding", json!(2)),
            ("downsample_type", json!("fir")),
            ("norm_num_groups", json!(48)),
            ("layers_per_block", json!(0)),
            ("block_out_channels", json!([32])),
            ("in_channels", json!("three")),
            ("dropout", json!(1.0)),
            ("block_out_channels", json!(vec![32; 64])),
        ] {
            let mut json = small();
            json[key] = value;
            let error = UNet2DConfig::from_json(&json).unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        }
    }

    #[test]
    fn keys_that_mean_nothing_are_reported_and_not_refused() {
        let mut json = small();
        json["comment"] = json!("mine");
        let config = UNet2DConfig::from_json(&json).unwrap();
        assert_eq!(config.unknown_keys, ["comment"]);
    }
}
