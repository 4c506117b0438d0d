//! Some of a recipe's values: a preset, a file over it, and what was typed over both.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use retrack_data::neighbors::Neighbors;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Deserializer};

use super::{Recipe, RecipeError, presets};
use crate::keys;
use crate::objective::{self, Method, NAMES};
use crate::optimizer::{AdamWConfig, State};

/// Values of which some may be missing.
pub trait Overlay {
    /// These values, and those of `below` under the keys where there are none.
    #[must_use]
    fn over(self, below: Self) -> Self;
}

impl<T> Overlay for Option<T> {
    fn over(self, below: Self) -> Self {
        self.or(below)
    }
}

impl Overlay for BTreeMap<String, f64> {
    fn over(self, mut below: Self) -> Self {
        below.extend(self);
        below
    }
}

impl Overlay for IgnoredAny {
    fn over(self, _: Self) -> Self {
        self
    }
}

/// Some of the values of a [`Recipe`], as a TOML file has them. A key that is none of these is an error.
///
/// `E` is what the file's table `[experiment]` is read as: what a comparison of methods runs and measures is not the
/// recipe's concern.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[serde(bound(deserialize = "E: Default + DeserializeOwned"))]
pub struct Layer<E = IgnoredAny> {
    /// See [`Recipe::method`].
    pub method: Option<Method>,
    /// See [`Recipe::neighbors`].
    pub neighbors: Option<Neighbors>,
    /// See [`Recipe::steps`].
    pub steps: Option<usize>,
    /// See [`Recipe::batch_size`].
    pub batch_size: Option<usize>,
    /// See [`Recipe::accumulate`].
    pub accumulate: Option<usize>,
    /// See [`Recipe::learning_rate`].
    pub learning_rate: Option<f64>,
    /// See [`Recipe::seed`].
    pub seed: Option<u64>,
    /// See [`Recipe::adamw`].
    pub adamw: AdamWLayer,
    /// How strongly each method forgets: `retrack_lambda` is the parameter `lambda` of `retrack`.
    #[serde(deserialize_with = "strength")]
    pub strength: BTreeMap<String, f64>,
    /// Learning rates of methods that need another than the rest, by the method's name. A `learning_rate` in a layer above
    /// replaces them.
    #[serde(deserialize_with = "rate")]
    pub rate: BTreeMap<String, f64>,
    /// What a comparison of methods runs and measures.
    pub experiment: E,
}

/// Some of the values of an [`AdamWConfig`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default, rename = "AdamWFile")]
pub struct AdamWLayer {
    /// See [`AdamWConfig::betas`].
    pub betas: Option<[f64; 2]>,
    /// See [`AdamWConfig::epsilon`].
    pub epsilon: Option<f64>,
    /// See [`AdamWConfig::weight_decay`].
    pub weight_decay: Option<f64>,
    /// See [`AdamWConfig::max_grad_norm`].
    pub max_grad_norm: Option<f64>,
    /// See [`AdamWConfig::state`].
    pub state: Option<State>,
}

/// The key of a method's parameter in the table `[strength]`.
fn strength_key(method: &str, parameter: &str) -> String {
    format!("{method}_{parameter}")
}

fn strength<'de, D: Deserializer<'de>>(table: D) -> Result<BTreeMap<String, f64>, D::Error> {
    static KEYS: LazyLock<Vec<String>> = LazyLock::new(|| {
        let keys = objective::parameters().iter().flat_map(|shared| {
            let methods = shared.methods.iter();
            methods.map(|method| strength_key(method.name(), shared.parameter.name))
        });
        keys.collect()
    });
    static NAMES: LazyLock<Vec<&str>> = LazyLock::new(|| KEYS.iter().map(String::as_str).collect());
    keys::numbers(table, "Strength", &NAMES)
}

fn rate<'de, D: Deserializer<'de>>(table: D) -> Result<BTreeMap<String, f64>, D::Error> {
    keys::numbers(table, "Rates", &NAMES)
}

impl<E: Overlay> Overlay for Layer<E> {
    fn over(self, mut below: Self) -> Self {
        if self.learning_rate.is_some() {
            below.rate.clear();
        }
        Self {
            method: self.method.over(below.method),
            neighbors: self.neighbors.over(below.neighbors),
            steps: self.steps.over(below.steps),
            batch_size: self.batch_size.over(below.batch_size),
            accumulate: self.accumulate.over(below.accumulate),
            learning_rate: self.learning_rate.over(below.learning_rate),
            seed: self.seed.over(below.seed),
            adamw: self.adamw.over(below.adamw),
            strength: self.strength.over(below.strength),
            rate: self.rate.over(below.rate),
            experiment: self.experiment.over(below.experiment),
        }
    }
}

impl Overlay for AdamWLayer {
    fn over(self, below: Self) -> Self {
        Self {
            betas: self.betas.over(below.betas),
            epsilon: self.epsilon.over(below.epsilon),
            weight_decay: self.weight_decay.over(below.weight_decay),
            max_grad_norm: self.max_grad_norm.over(below.max_grad_norm),
            state: self.state.over(below.state),
        }
    }
}

impl<E: Default + DeserializeOwned> Layer<E> {
    /// Reads the text of a TOML file.
    ///
    /// # Errors
    /// What is no TOML, or has a key or a value that no layer has; with its line.
    pub fn parse(text: &str) -> Result<Self, RecipeError> {
        Ok(toml::from_str(text)?)
    }

    /// The preset of this name.
    ///
    /// # Errors
    /// There is none.
    pub fn preset(name: &str) -> Result<Self, RecipeError> {
        let unknown = || RecipeError::UnknownPreset { name: name.into() };
        Self::parse(presets::text(name).ok_or_else(unknown)?)
    }
}

impl<E> Layer<E> {
    /// The recipe's values, and what the table `[experiment]` has.
    pub fn split(self) -> (Layer, E) {
        let layer = Layer {
            method: self.method,
            neighbors: self.neighbors,
            steps: self.steps,
            batch_size: self.batch_size,
            accumulate: self.accumulate,
            learning_rate: self.learning_rate,
            seed: self.seed,
            adamw: self.adamw,
            strength: self.strength,
            rate: self.rate,
            experiment: IgnoredAny,
        };
        (layer, self.experiment)
    }

    /// Whether a parameter of this name has a value in any method.
    pub fn has_strength(&self, parameter: &str) -> bool {
        let shared = objective::parameters().iter();
        let methods = shared
            .filter(|shared| shared.parameter.name == parameter)
            .flat_map(|shared| &shared.methods);
        let mut keys = methods.map(|method| strength_key(method.name(), parameter));
        keys.any(|key| self.strength.contains_key(&key))
    }

    /// Gives a parameter this value in every method that has one of this name.
    pub fn set_strength(&mut self, parameter: &str, value: f64) {
        let shared = objective::parameters().iter();
        for shared in shared.filter(|shared| shared.parameter.name == parameter) {
            for method in &shared.methods {
                let key = strength_key(method.name(), parameter);
                self.strength.insert(key, value);
            }
        }
    }

    /// The recipe that these values make. Strengths, AdamW's settings, method and seed have defaults.
    ///
    /// # Errors
    /// A missing value, or one that makes no sense.
    pub fn recipe(&self) -> Result<Recipe, RecipeError> {
        fn known<T>(key: &'static str, value: Option<T>) -> Result<T, RecipeError> {
            value.ok_or(RecipeError::Missing { key })
        }
        let method = self.method.unwrap_or_default();
        let mut strengths = method.defaults();
        for parameter in method.about().parameters {
            let key = strength_key(method.name(), parameter.name);
            if let Some(&value) = self.strength.get(&key) {
                strengths.set(parameter.name, value);
            }
        }
        let rate = self.rate.get(method.name()).copied();
        let default = AdamWConfig::default();
        let recipe = Recipe {
            method,
            strengths,
            neighbors: known("neighbors", self.neighbors)?,
            steps: known("steps", self.steps)?,
            batch_size: known("batch_size", self.batch_size)?,
            accumulate: known("accumulate", self.accumulate)?,
            learning_rate: known("learning_rate", rate.or(self.learning_rate))?,
            adamw: AdamWConfig {
                betas: self.adamw.betas.unwrap_or(default.betas),
                epsilon: self.adamw.epsilon.unwrap_or(default.epsilon),
                weight_decay: self.adamw.weight_decay.unwrap_or(default.weight_decay),
                max_grad_norm: self.adamw.max_grad_norm.unwrap_or(default.max_grad_norm),
                state: self.adamw.state.unwrap_or(default.state),
            },
            seed: self.seed.unwrap_or(0),
        };
        recipe.check()?;
        Ok(recipe)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(text: &str) -> Layer {
        Layer::parse(text).unwrap()
    }

    #[test]
    fn every_preset_makes_a_recipe_of_every_method() {
        for preset in presets::preset_names() {
            let preset = Layer::<IgnoredAny>::preset(preset).unwrap();
            for &method in objective::METHODS {
                let typed = Layer {
                    method: Some(method),
                    ..Layer::default()
                };
                assert_eq!(typed.over(preset.clone()).recipe().unwrap().method, method);
            }
        }
    }

    #[test]
    fn a_layer_replaces_what_it_has_of_the_one_below() {
        let below = layer(
            "steps = 5\n[adamw]\nepsilon = 0.5\nbetas = [0.1, 0.2]\n[strength]\nsiss_lambda = 0.25\nretrack_lambda = 0.5\n",
        );
        let above =
            layer("accumulate = 3\n[adamw]\nepsilon = 0.25\n[strength]\nretrack_lambda = 0.75\n");
        let both = above.over(below);
        assert_eq!((both.steps, both.accumulate), (Some(5), Some(3)));
        assert_eq!(both.adamw.epsilon, Some(0.25));
        assert_eq!(both.adamw.betas, Some([0.1, 0.2]));
        let strengths: Vec<_> = both.strength.into_iter().collect();
        let expected = [("retrack_lambda", 0.75), ("siss_lambda", 0.25)];
        assert_eq!(strengths, expected.map(|(key, value)| (key.into(), value)));
    }

    #[test]
    fn a_methods_own_rate_gives_way_to_a_rate_above_it() {
        let rate_of = |layers: Layer| {
            let layers = layers.over(Layer::preset("demo").unwrap());
            layers.recipe().unwrap().learning_rate
        };
        let own = || layer("learning_rate = 1.0\n[rate]\nretrack = 2.0\n");
        assert_eq!(rate_of(own()), 2.0);
        assert_eq!(rate_of(layer("steps = 1").over(own())), 2.0);
        assert_eq!(rate_of(layer("learning_rate = 3.0").over(own())), 3.0);
        assert_eq!(rate_of(own().over(layer("learning_rate = 3.0"))), 2.0);
        let others = layer("learning_rate = 1.0\n[rate]\nneggrad = 2.0\n");
        assert_eq!(rate_of(others), 1.0);
    }

    #[test]
    fn a_strength_is_set_in_every_method_that_has_it() {
        let mut layer: Layer = Layer::default();
        layer.set_strength("lambda", 0.5);
        layer.set_strength("nothing", 0.5);
        let keys: Vec<&str> = layer.strength.keys().map(String::as_str).collect();
        assert_eq!(keys, ["retrack_lambda", "siss_lambda"]);
    }

    #[test]
    fn what_no_layer_has_is_refused_with_what_there_is() {
        for (text, says) in [
            (
                "step = 3",
                "unknown field `step`, expected one of `method`, `neighbors`",
            ),
            (
                "[rate]\nsis = 1.0",
                "unknown field `sis`, expected one of `retrack`, `finetune`",
            ),
            (
                "[strength]\nretrack_eta = 1.0",
                "unknown field `retrack_eta`, expected one of `retrack_lambda`, `siss_lambda`, `siss_rescale`",
            ),
            (
                "method = \"sis\"",
                "unknown variant `sis`, expected one of `retrack`, `finetune`",
            ),
            (
                "[strength]\nsiss_rescale = \"a\"",
                "invalid type: string \"a\", expected f64",
            ),
        ] {
            let error = Layer::<IgnoredAny>::parse(text).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        let missing = layer("steps = 3").recipe().unwrap_err();
        assert_eq!(missing.to_string(), "there is no `neighbors`");
    }
}
