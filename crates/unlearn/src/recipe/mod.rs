//! How to unlearn: a method with its strengths, and the numbers of a run.
//!
//! A recipe comes of layers, each of which has some of its values: a preset, a file over it, what was typed over both.
//!
//! ```
//! use retrack_unlearn::recipe::{Layer, Overlay, Recipe};
//!
//! let typed: Layer = Layer { steps: Some(20), ..Layer::default() };
//! let file = Layer::parse("method = \"siss\"\n[strength]\nsiss_lambda = 0.25\n")?;
//! let recipe = typed.over(file).over(Layer::preset("cifar10")?).recipe()?;
//! assert_eq!((recipe.method.name(), recipe.steps, recipe.batch_size), ("siss", 20, 128));
//! assert_eq!(recipe.strengths["lambda"], 0.25);
//!
//! let text = serde_json::to_string(&recipe)?;
//! assert_eq!(serde_json::from_str::<Recipe>(&text)?, recipe);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod layer;
mod presets;

use std::collections::BTreeMap;

use retrack_data::neighbors::Neighbors;
use serde::de::{Error, IgnoredAny};
use serde::{Deserialize, Deserializer, Serialize};

use crate::objective::{Method, MethodError, Objective, Strengths};
use crate::optimizer::AdamWConfig;

pub use layer::{AdamWLayer, Layer, Overlay};
pub use presets::{TEXT_TO_IMAGE, preset_for, preset_names};

/// Everything that decides what an unlearning run computes of its model and data.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Recipe {
    /// How to forget.
    pub method: Method,
    /// How strongly: the method's parameters. In files they stand beside the other values.
    #[serde(flatten)]
    pub strengths: Strengths,
    /// Retained images that take a forgotten one's place, for the methods that draw any.
    pub neighbors: Neighbors,
    /// Steps of the optimizer.
    pub steps: usize,
    /// Images of each stream in a micro-batch.
    pub batch_size: usize,
    /// Micro-batches in a step.
    pub accumulate: usize,
    /// The same in every step.
    pub learning_rate: f64,
    /// The optimizer's other numbers.
    pub adamw: AdamWConfig,
    /// Decides all random numbers.
    pub seed: u64,
}

/// Why there is no recipe.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecipeError {
    /// A preset's name that none has.
    #[error("{name}: unknown; the presets are {}", preset_names().collect::<Vec<_>>().join(", "))]
    UnknownPreset {
        /// The name.
        name: String,
    },
    /// A file that is no layer.
    #[error(transparent)]
    File(#[from] toml::de::Error),
    /// A value that no layer has.
    #[error("there is no `{key}`")]
    Missing {
        /// Its key.
        key: &'static str,
    },
    /// A count that is 0.
    #[error("the {what} is 0; give at least 1")]
    Zero {
        /// What is counted.
        what: &'static str,
    },
    /// A learning rate that is not above 0, or not finite.
    #[error("the learning rate is {0}; give a number above 0")]
    LearningRate(f64),
    /// A parameter of the method.
    #[error(transparent)]
    Method(#[from] MethodError),
    /// A setting of AdamW.
    #[error(
        "`{key}` of [adamw] is out of range: betas lie from 0 to below 1, epsilon and max_grad_norm above 0, weight_decay \
         at 0 or above"
    )]
    AdamW {
        /// Its key.
        key: &'static str,
    },
}

impl Recipe {
    /// A preset, with the first of the methods.
    ///
    /// # Errors
    /// There is no preset of this name.
    pub fn preset(name: &str) -> Result<Self, RecipeError> {
        Layer::<IgnoredAny>::preset(name)?.recipe()
    }

    /// The recipe with another method, whose parameters have their defaults.
    #[must_use]
    pub fn with_method(self, method: Method) -> Self {
        Self {
            method,
            strengths: method.defaults(),
            ..self
        }
    }

    /// The method's objective.
    pub fn objective(&self) -> Box<dyn Objective> {
        self.method.objective(&self.strengths)
    }

    /// Whether all values make sense.
    ///
    /// # Errors
    /// The first one that does not.
    pub fn check(&self) -> Result<(), RecipeError> {
        let neighbors = match self.neighbors {
            Neighbors::Nearest(k) => k,
            Neighbors::All => 1,
        };
        for (what, value) in [
            ("number of neighbors", neighbors),
            ("number of steps", self.steps),
            ("batch size", self.batch_size),
            ("accumulation", self.accumulate),
        ] {
            if value == 0 {
                return Err(RecipeError::Zero { what });
            }
        }
        if !(self.learning_rate > 0.0 && self.learning_rate.is_finite()) {
            return Err(RecipeError::LearningRate(self.learning_rate));
        }
        self.method.check(&self.strengths)?;
        let adamw = &self.adamw;
        let below_one = |x: f64| (0.0..1.0).contains(&x);
        let known = [
            ("betas", adamw.betas.iter().all(|beta| below_one(*beta))),
            ("epsilon", adamw.epsilon > 0.0 && adamw.epsilon.is_finite()),
            (
                "weight_decay",
                adamw.weight_decay >= 0.0 && adamw.weight_decay.is_finite(),
            ),
            ("max_grad_norm", adamw.max_grad_norm > 0.0),
        ];
        match known.into_iter().find(|(_, holds)| !holds) {
            Some((key, _)) => Err(RecipeError::AdamW { key }),
            None => Ok(()),
        }
    }
}

/// What was written. Strengths that are missing have their defaults; what is none of the method's is an error.
impl<'de> Deserialize<'de> for Recipe {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Written {
            method: Method,
            neighbors: Neighbors,
            steps: usize,
            batch_size: usize,
            accumulate: usize,
            learning_rate: f64,
            adamw: AdamWConfig,
            seed: u64,
            #[serde(flatten)]
            strengths: BTreeMap<String, f64>,
        }
        let written = Written::deserialize(deserializer)?;
        let mut strengths = written.method.defaults();
        for (name, value) in written.strengths {
            if !strengths.set(&name, value) {
                let method = written.method.name();
                return Err(D::Error::custom(format!(
                    "unknown field `{name}`: {method} has no parameter of this name"
                )));
            }
        }
        Ok(Self {
            method: written.method,
            strengths,
            neighbors: written.neighbors,
            steps: written.steps,
            batch_size: written.batch_size,
            accumulate: written.accumulate,
            learning_rate: written.learning_rate,
            adamw: written.adamw,
            seed: written.seed,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::objective::METHODS;

    #[test]
    fn what_is_written_is_read_back() {
        for &method in METHODS {
            let mut recipe = Recipe::preset("celeba-hq").unwrap().with_method(method);
            recipe.seed = u64::MAX;
            recipe.neighbors = Neighbors::All;
            let text = serde_json::to_string(&recipe).unwrap();
            assert_eq!(serde_json::from_str::<Recipe>(&text).unwrap(), recipe);
        }
    }

    #[test]
    fn strengths_stand_beside_the_numbers_of_the_run() {
        let recipe = Recipe::preset("demo").unwrap();
        let text = serde_json::to_string(&recipe).unwrap();
        let starts =
            r#"{"method":"retrack","lambda":0.005,"neighbors":10,"steps":100,"batch_size":64,"#;
        assert!(text.starts_with(starts), "{text}");
    }

    #[test]
    fn a_strength_of_another_method_is_refused() {
        let written = serde_json::to_value(Recipe::preset("demo").unwrap()).unwrap();
        for (method, key) in [
            ("retrack", "eta"),
            ("finetune", "lambda"),
            ("neggrad", "rescale"),
        ] {
            let mut written = written.clone();
            let table = written.as_object_mut().unwrap();
            table.remove("lambda");
            table["method"] = method.into();
            assert!(serde_json::from_value::<Recipe>(json!(table)).is_ok());
            table.insert(key.into(), json!(0.5));
            let error = serde_json::from_value::<Recipe>(json!(table)).unwrap_err();
            let error = error.to_string();
            assert!(
                error.contains("unknown field") && error.contains(key),
                "{error}"
            );
        }
    }
}
