//! Typed keys of a JSON object, with defaults.

use serde_json::{Map, Value};

/// Why a network configuration cannot be used.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum ConfigError {
    /// A value that asks for other mathematics than is built here.
    #[error("`{key}` is {value}, which is not supported; supported: {supported}")]
    Unsupported {
        /// The key.
        key: String,
        /// Its value, as JSON.
        value: String,
        /// The values that are built.
        supported: &'static str,
    },
    /// A value that is none of this key.
    #[error("`{key}` is {value}, expected {expected}")]
    WrongType {
        /// The key.
        key: String,
        /// Its value, as JSON.
        value: String,
        /// What it would have to be.
        expected: &'static str,
    },
    /// Values that contradict each other: a sentence.
    #[error("{0}")]
    Inconsistent(String),
}

pub(crate) fn unsupported(key: &str, value: &str, supported: &'static str) -> ConfigError {
    ConfigError::Unsupported {
        key: key.into(),
        value: value.into(),
        supported,
    }
}

/// Reads typed fields with defaults and remembers which keys were asked for.
pub(crate) struct Fields<'a> {
    object: &'a Map<String, Value>,
    known: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(object: &'a Map<String, Value>) -> Self {
        Self {
            object,
            known: Vec::new(),
        }
    }

    pub(crate) fn get(&mut self, key: &'static str) -> Option<&'a Value> {
        self.known.push(key);
        self.object.get(key)
    }

    pub(crate) fn wrong(key: &str, value: &Value, expected: &'static str) -> ConfigError {
        ConfigError::WrongType {
            key: key.into(),
            value: value.to_string(),
            expected,
        }
    }

    pub(crate) fn nullable_count(
        &mut self,
        key: &'static str,
        default: Option<usize>,
    ) -> Result<Option<usize>, ConfigError> {
        match self.get(key) {
            None => Ok(default),
            Some(Value::Null) => Ok(None),
            Some(value) => match value.as_u64() {
                // Beyond this no tensor could be allocated, and products of sizes stay in range.
                Some(n) if n > 0 && n <= 1 << 20 => Ok(Some(n as usize)),
                _ => Err(Self::wrong(key, value, "a whole number from 1 to 1048576")),
            },
        }
    }

    pub(crate) fn optional_count(
        &mut self,
        key: &'static str,
    ) -> Result<Option<usize>, ConfigError> {
        self.nullable_count(key, None)
    }

    pub(crate) fn count(
        &mut self,
        key: &'static str,
        default: usize,
    ) -> Result<usize, ConfigError> {
        self.nullable_count(key, Some(default))?
            .ok_or_else(|| Self::wrong(key, &Value::Null, "a whole number"))
    }

    pub(crate) fn counts(
        &mut self,
        key: &'static str,
        default: &[usize],
    ) -> Result<Vec<usize>, ConfigError> {
        let Some(value) = self.get(key) else {
            return Ok(default.to_vec());
        };
        let expected = "a list of whole numbers from 1 to 1048576";
        let list = value
            .as_array()
            .ok_or_else(|| Self::wrong(key, value, expected))?;
        list.iter()
            .map(|item| match item.as_u64() {
                Some(n) if n > 0 && n <= 1 << 20 => Ok(n as usize),
                _ => Err(Self::wrong(key, value, expected)),
            })
            .collect()
    }

    pub(crate) fn number(&mut self, key: &'static str, default: f64) -> Result<f64, ConfigError> {
        match self.get(key) {
            None => Ok(default),
            Some(value) => value
                .as_f64()
                .ok_or_else(|| Self::wrong(key, value, "a number")),
        }
    }

    pub(crate) fn flag(&mut self, key: &'static str, default: bool) -> Result<bool, ConfigError> {
        match self.get(key) {
            None => Ok(default),
            Some(value) => value
                .as_bool()
                .ok_or_else(|| Self::wrong(key, value, "true or false")),
        }
    }

    pub(crate) fn optional_text(
        &mut self,
        key: &'static str,
    ) -> Result<Option<String>, ConfigError> {
        match self.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(value) => Err(Self::wrong(key, value, "a string")),
        }
    }

    pub(crate) fn text(&mut self, key: &'static str, default: &str) -> Result<String, ConfigError> {
        Ok(self.optional_text(key)?.unwrap_or_else(|| default.into()))
    }

    pub(crate) fn choice<T>(
        &mut self,
        key: &'static str,
        default: &str,
        supported: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<T, ConfigError> {
        let name = self.text(key, default)?;
        parse(&name).ok_or_else(|| unsupported(key, &name, supported))
    }

    pub(crate) fn sample_size(&mut self) -> Result<Option<[usize; 2]>, ConfigError> {
        let expected = "a size in pixels, or [height, width]";
        let Some(value) = self.get("sample_size") else {
            return Ok(None);
        };
        let size = |v: &Value| {
            v.as_u64()
                .filter(|n| (1..=1 << 16).contains(n))
                .map(|n| n as usize)
        };
        match value {
            Value::Null => Ok(None),
            Value::Array(pair) if pair.len() == 2 => match (size(&pair[0]), size(&pair[1])) {
                (Some(height), Some(width)) => Ok(Some([height, width])),
                _ => Err(Self::wrong("sample_size", value, expected)),
            },
            _ => size(value)
                .map(|side| Some([side, side]))
                .ok_or_else(|| Self::wrong("sample_size", value, expected)),
        }
    }

    pub(crate) fn unknown(&self) -> Vec<String> {
        self.object
            .keys()
            .filter(|key| !key.starts_with('_') && !self.known.contains(&key.as_str()))
            .cloned()
            .collect()
    }
}
