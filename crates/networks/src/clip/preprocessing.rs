//! What becomes of an image before CLIP looks at it, as transformers' `CLIPImageProcessor` does it by default: its
//! shorter side resized (bicubic), the square in the middle cut out, each channel normalised.

use serde_json::{Map, Value};

use crate::config::{ConfigError, Fields, unsupported};
use crate::model::ModelError;
use retrack_checkpoint::folder::Part;

/// OpenAI's, over values in [0, 1].
const MEAN: [f64; 3] = [0.48145466, 0.4578275, 0.40821073];
const SD: [f64; 3] = [0.26862954, 0.26130258, 0.27577711];

/// How CLIP wants its images.
#[derive(Debug, Clone, PartialEq)]
pub struct Preprocessing {
    /// The shorter side is resized to this many pixels, and a square of this side is cut out of the middle.
    pub side: usize,
    /// Subtracted from each channel's values in [0, 1].
    pub mean: [f32; 3],
    /// What the differences are then divided by.
    pub sd: [f32; 3],
}

impl Preprocessing {
    /// From `processor_config.json`, which transformers 5 writes, else `preprocessor_config.json`, else the defaults.
    /// `side`: that of the images which the network takes.
    ///
    /// # Errors
    /// A file that is damaged, or that asks for anything else than resizing, cutting and normalising.
    pub(super) fn read(part: &Part, side: usize) -> Result<Self, ModelError> {
        let at = |file: &str| {
            let path = part.path(file);
            move |source| ModelError::Config { path, source }
        };
        const BOTH: &str = "processor_config.json";
        const OWN: &str = "preprocessor_config.json";
        if part.has(BOTH)
            && let Some(own) = part.json(BOTH)?.get("image_processor")
        {
            return Self::from_json(own, side).map_err(at(BOTH));
        }
        if part.has(OWN) {
            return Self::from_json(&part.json(OWN)?, side).map_err(at(OWN));
        }
        Self::from_json(&Map::new().into(), side).map_err(at(OWN))
    }

    fn from_json(json: &Value, side: usize) -> Result<Self, ConfigError> {
        let object = json.as_object().ok_or_else(|| {
            ConfigError::Inconsistent("the image processor is not a JSON object".into())
        })?;
        let mut fields = Fields::new(object);
        for key in ["do_resize", "do_center_crop", "do_rescale", "do_normalize"] {
            if !fields.flag(key, true)? {
                return Err(unsupported(key, "false", "true"));
            }
        }
        if let Some(value) = fields.get("resample").filter(|value| **value != 3) {
            return Err(unsupported("resample", &value.to_string(), "3 (bicubic)"));
        }
        let factor = fields.number("rescale_factor", 1.0 / 255.0)?;
        if (factor * 255.0 - 1.0).abs() > 1e-6 {
            return Err(unsupported("rescale_factor", &factor.to_string(), "1/255"));
        }
        for (key, sides) in [
            ("size", &["shortest_edge"][..]),
            ("crop_size", &["height", "width"]),
        ] {
            let Some(value) = fields.get(key) else {
                continue;
            };
            let is_side = |value: &Value| value.as_u64() == Some(side as u64);
            let of_sides = value.as_object().is_some_and(|object| {
                object.len() == sides.len()
                    && sides
                        .iter()
                        .all(|side| object.get(*side).is_some_and(is_side))
            });
            if !is_side(value) && !of_sides {
                return Err(ConfigError::Inconsistent(format!(
                    "`{key}` is {value}, but the network's images are squares of {side} pixels, to which the shorter \
                     side is resized"
                )));
            }
        }
        let mut three = |key: &'static str, default: [f64; 3]| {
            let Some(value) = fields.get(key) else {
                return Ok(default);
            };
            let numbers = value.as_array().map(|list| list.iter().map(Value::as_f64));
            let numbers: Option<Vec<f64>> = numbers.and_then(Iterator::collect);
            numbers
                .and_then(|numbers| <[f64; 3]>::try_from(numbers).ok())
                .ok_or_else(|| Fields::wrong(key, value, "three numbers"))
        };
        let (mean, sd) = (three("image_mean", MEAN)?, three("image_std", SD)?);
        if !sd.iter().all(|&sd| sd as f32 > 0.0) {
            return Err(ConfigError::Inconsistent(
                "`image_std` must be above 0".into(),
            ));
        }
        Ok(Self {
            side,
            mean: mean.map(|value| value as f32),
            sd: sd.map(|value| value as f32),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn published_and_saved_files_say_the_same_as_none() {
        let none = Preprocessing::from_json(&json!({}), 224).unwrap();
        for json in [
            json!({
                "crop_size": 224, "do_center_crop": true, "do_normalize": true, "do_resize": true,
                "feature_extractor_type": "CLIPFeatureExtractor", "image_mean": MEAN, "image_std": SD,
                "resample": 3, "size": 224
            }),
            json!({
                "crop_size": { "height": 224, "width": 224 }, "size": { "shortest_edge": 224 },
                "rescale_factor": 0.00392156862745098, "do_rescale": true
            }),
        ] {
            assert_eq!(Preprocessing::from_json(&json, 224).unwrap(), none);
        }
    }

    #[test]
    fn what_is_not_done_is_refused_by_name() {
        for (key, value) in [
            ("do_resize", json!(false)),
            ("do_normalize", json!(0)),
            ("resample", json!(2)),
            ("rescale_factor", json!(1.0)),
            ("size", json!({ "height": 224, "width": 224 })),
            ("size", json!(256)),
            ("crop_size", json!({ "height": 224 })),
            ("image_mean", json!([0.5])),
            ("image_std", json!([0.5, 0.0, 0.5])),
        ] {
            let error = Preprocessing::from_json(&json!({ key: value }), 224).unwrap_err();
            assert!(error.to_string().contains(key), "{key}: {error}");
        }
    }
}
