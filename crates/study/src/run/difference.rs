//! Whether a run that goes on is the one that was begun.

use std::fmt;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::{RunError, RunFolder};
use crate::source::RESIZE_KEYS;

/// What differs in the configuration of a run that is extended.
pub const LONGER: [&str; 3] = ["steps", "learning_rate", "ended_at"];

/// Where the inputs lay: they may be named in another way or have moved, because digests of what is in them stand beside.
pub const PLACES: [&str; 3] = ["model", "data", "adapter"];

impl RunFolder {
    /// Compares the configuration in `path` with one that would take its place, leaving out the keys in `but`.
    pub(super) fn compare(
        &self,
        path: &Path,
        config: &Value,
        but: &[&str],
    ) -> Result<(), RunError> {
        let problem = |problem: String| RunError::Config {
            path: path.to_path_buf(),
            problem,
        };
        let text = fs::read_to_string(path).map_err(|source| RunError::Io {
            path: path.to_path_buf(),
            source,
        })?;
        let mut old: Value = serde_json::from_str(&text).map_err(|e| problem(e.to_string()))?;
        let mut config = config.clone();
        let (Some(before), Some(now)) = (old.as_object_mut(), config.as_object_mut()) else {
            return Err(problem("not an object".into()));
        };
        for &key in but.iter().chain(&PLACES) {
            before.remove(key);
            now.remove(key);
        }
        match Difference::first(&old, &config) {
            None => Ok(()),
            Some(difference) => Err(RunError::Differs {
                path: self.out.clone(),
                difference,
            }),
        }
    }
}

/// The key of the images' digest.
const DATA_DIGEST: &str = "data_digest";

/// The key of the labels' digest, where they are named by folders.
const LABELS_DIGEST: &str = "labels_digest";

/// Where two configurations differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// As `outer.inner`.
    pub key: String,
    /// The values, or `nothing`.
    pub old: String,
    /// The value now.
    pub new: String,
}

impl fmt::Display for Difference {
    /// As in "the run was started with ...".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, old, new } = self;
        match key.as_str() {
            DATA_DIGEST => write!(
                f,
                "other images: the images have changed since ({key} {old} then, {new} now)"
            ),
            LABELS_DIGEST => write!(
                f,
                "other labels: the folders that name the classes have changed since ({key} {old} then, {new} now)"
            ),
            _ => write!(f, "another {key}: {old} then, {new} now"),
        }
    }
}

impl Difference {
    /// The first difference between a configuration that was read from a file and one that would be written to it. How
    /// the images were read, and whether sealed ones were among them, comes before their digest, which changes with it.
    pub fn first(old: &Value, new: &Value) -> Option<Self> {
        // Through text as well: reading may round a number's last digit.
        let new: Value = serde_json::from_str(&new.to_string()).expect("just written");
        let reading = ["split", "alpha", "keep_sealed"]
            .into_iter()
            .chain(RESIZE_KEYS)
            .find_map(|key| Self::below(old.get(key), new.get(key), key.to_owned()));
        reading.or_else(|| Self::below(Some(old), Some(&new), String::new()))
    }

    fn below(old: Option<&Value>, new: Option<&Value>, key: String) -> Option<Self> {
        if let (Some(Value::Object(a)), Some(Value::Object(b))) = (old, new) {
            return b.keys().chain(a.keys()).find_map(|inner| {
                let dot = if key.is_empty() { "" } else { "." };
                Self::below(a.get(inner), b.get(inner), format!("{key}{dot}{inner}"))
            });
        }
        let shown = |value: Option<&Value>| value.map_or("nothing".into(), Value::to_string);
        (old != new).then(|| Self {
            key,
            old: shown(old),
            new: shown(new),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_differs_is_named_by_its_path() {
        let old = json!({"a": {"b": 1, "c": [2]}, "d": 3});
        let new = json!({"a": {"b": 1, "c": [3]}, "d": 3});
        assert_eq!(Difference::first(&old, &old), None);
        let found = Difference::first(&old, &new).unwrap();
        assert_eq!(
            (&*found.key, &*found.old, &*found.new),
            ("a.c", "[2]", "[3]")
        );
        // How the images were read explains another digest.
        let old = json!({"data_digest": "a", "split": "train"});
        let found = Difference::first(&old, &json!({"data_digest": "b", "split": "test"}));
        assert_eq!(found.unwrap().key, "split");
        let found = Difference::first(&old, &json!({"data_digest": "b", "split": "train"}));
        assert!(
            found
                .unwrap()
                .to_string()
                .contains("the images have changed since")
        );
        let old = json!({"a": {"b": 1, "c": [2]}, "d": 3});
        let found = Difference::first(&old, &json!({"a": old["a"]})).unwrap();
        assert_eq!((&*found.key, &*found.new), ("d", "nothing"));
    }
}
