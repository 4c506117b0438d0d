//! The numbers that methods are tuned by.

use std::fmt;
use std::ops::Index;
use std::sync::LazyLock;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::{METHODS, Method};

/// A number that a method is tuned by. Methods that have one of the same name mean the same by it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Parameter {
    /// Lowercase letters and digits: `lambda` is `--lambda` on the command line and `retrack_lambda` in a file of
    /// settings.
    pub name: &'static str,
    /// Its value where nothing else is said: the paper's for MNIST with a T-shirt, where it has one.
    pub default: f64,
    /// Which values make sense.
    pub range: Range,
    /// What it is, in a few words that start with a capital.
    pub meaning: &'static str,
}

/// The values that a [`Parameter`] may have. No number ([`f64::NAN`]) is none of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Range {
    /// From the first to the second.
    Closed(f64, f64),
    /// Between the two.
    Open(f64, f64),
    /// This number and any finite one above it.
    AtLeast(f64),
}

impl Range {
    /// Whether the range has this value.
    pub fn contains(&self, value: f64) -> bool {
        match *self {
            Self::Closed(least, most) => (least..=most).contains(&value),
            Self::Open(below, above) => value > below && value < above,
            Self::AtLeast(least) => value >= least && value.is_finite(),
        }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Closed(least, most) => write!(f, "a number from {least} to {most}"),
            Self::Open(below, above) => write!(f, "a number between {below} and {above}"),
            Self::AtLeast(least) => write!(f, "a number that is {least} or more"),
        }
    }
}

/// A method's parameters with their values, in the order of [`About::parameters`](super::About::parameters).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Strengths(Vec<(&'static str, f64)>);

impl Strengths {
    /// Every parameter at its default.
    pub fn defaults(parameters: &'static [Parameter]) -> Self {
        let parameters = parameters.iter();
        Self(parameters.map(|one| (one.name, one.default)).collect())
    }

    /// Gives the parameter of this name a value. Returns whether there is one.
    pub fn set(&mut self, name: &str, value: f64) -> bool {
        let found = self.0.iter_mut().find(|(own, _)| *own == name);
        found.map(|(_, own)| *own = value).is_some()
    }

    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, f64)> {
        self.0.iter().copied()
    }
}

impl Index<&str> for Strengths {
    type Output = f64;

    /// The value of a parameter.
    ///
    /// # Panics
    /// The method has no parameter of this name.
    fn index(&self, name: &str) -> &f64 {
        let found = self.0.iter().find(|(own, _)| *own == name);
        let (_, value) = found.unwrap_or_else(|| panic!("no parameter is called {name}"));
        value
    }
}

/// A table: each value under its parameter's name.
impl Serialize for Strengths {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// One name that parameters of [`METHODS`] have, and whose they are.
#[derive(Debug)]
pub struct Shared {
    /// As the first of the methods states it.
    pub parameter: &'static Parameter,
    /// In the order of [`METHODS`].
    pub methods: Vec<Method>,
}

/// The parameters of all [`METHODS`], each name once; of the methods that have most of them first, so that what one
/// method takes stands together.
pub fn parameters() -> &'static [Shared] {
    static ALL: LazyLock<Vec<Shared>> = LazyLock::new(|| {
        let mut methods = METHODS.to_vec();
        methods.sort_by_key(|method| std::cmp::Reverse(method.about().parameters.len()));
        let mut all: Vec<Shared> = Vec::new();
        for parameter in methods.iter().flat_map(|method| method.about().parameters) {
            if all.iter().any(|one| one.parameter.name == parameter.name) {
                continue;
            }
            let of = |method: &Method| {
                let mut parameters = method.about().parameters.iter();
                parameters.find(|one| one.name == parameter.name)
            };
            let methods = METHODS.iter().copied().filter(|one| of(one).is_some());
            let methods: Vec<Method> = methods.collect();
            let parameter = of(&methods[0]).expect("whose it is");
            all.push(Shared { parameter, methods });
        }
        all
    });
    &ALL
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn strengths_are_written_under_their_names() {
        let mut strengths = "siss".parse::<Method>().unwrap().defaults();
        assert!(strengths.set("rescale", 500.0));
        assert!(!strengths.set("eta", 1.0));
        let json = serde_json::to_string(&strengths).unwrap();
        assert_eq!(json, r#"{"lambda":0.5,"rescale":500.0}"#);
        let none = "finetune".parse::<Method>().unwrap().defaults();
        assert_eq!(serde_json::to_value(none).unwrap(), json!({}));
    }

    #[test]
    fn a_name_that_methods_share_is_listed_once() {
        let listed = |shared: &Shared| {
            let names: Vec<&str> = shared.methods.iter().map(Method::name).collect();
            format!("{} of {}", shared.parameter.name, names.join(" and "))
        };
        let all: Vec<String> = parameters().iter().map(listed).collect();
        for one in [
            "lambda of retrack and siss",
            "rescale of siss",
            "eta of erasediff",
        ] {
            assert!(all.iter().any(|listed| listed == one), "{all:?}");
        }
        assert_eq!(parameters()[0].parameter.range, Range::Closed(0.0, 1.0));
    }
}
