//! What is known of a method before it runs: what it is called, which numbers it takes, and how its objective is made.

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use serde::de::{EnumAccess, VariantAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{METHODS, Objective, Parameter, Strengths};
use crate::keys::OneOf;

/// What a method says of itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct About {
    /// What files and the command line call it: lowercase letters and digits, different from every other method's.
    pub name: &'static str,
    /// What sentences call it.
    pub title: &'static str,
    /// What it does, in a few words that start with a capital.
    pub summary: &'static str,
    /// Where it was published.
    pub citation: Option<Citation>,
    /// The numbers that it is tuned by, in the order in which they are written.
    pub parameters: &'static [Parameter],
    /// The one of these that should be lower where a run forgot at the cost of other images; without one, the learning
    /// rate should.
    pub gentler: Option<&'static str>,
}

/// Where a method was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Citation {
    /// In one line.
    pub line: &'static str,
    /// As an entry of BibTeX.
    pub bibtex: Option<&'static str>,
}

/// A kind of objective, as files, the command line and [`Recipe`](crate::recipe::Recipe)s name it.
///
/// What is read from a file is one of [`METHODS`]. An objective that is not listed there is used in the same way, by
/// [`of`](Self::of).
#[derive(Clone, Copy)]
pub struct Method {
    about: fn() -> &'static About,
    make: fn(&Strengths) -> Box<dyn Objective>,
}

/// Why a method cannot be used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum MethodError {
    /// A name that none of [`METHODS`] has.
    #[error("there is no method {name:?}; the methods are {}", NAMES.join(", "))]
    Unknown {
        /// The name.
        name: String,
    },
    /// A parameter whose value makes no sense.
    #[error("{method}: {option} is {value}, expected {expected}")]
    OutOfRange {
        /// The method's name.
        method: &'static str,
        /// The parameter's name.
        option: &'static str,
        /// Its value.
        value: f64,
        /// Which values make sense, in words.
        expected: String,
    },
}

/// The names of [`METHODS`].
pub(crate) static NAMES: LazyLock<Vec<&'static str>> =
    LazyLock::new(|| METHODS.iter().map(Method::name).collect());

impl Method {
    /// The method of an objective.
    pub const fn of<O: Objective + 'static>() -> Self {
        Self {
            about: O::about,
            make: |strengths| Box::new(O::new(strengths)),
        }
    }

    /// What it says of itself.
    pub fn about(&self) -> &'static About {
        (self.about)()
    }

    /// What files and the command line call it.
    pub fn name(&self) -> &'static str {
        self.about().name
    }

    /// Every parameter at its default.
    pub fn defaults(&self) -> Strengths {
        Strengths::defaults(self.about().parameters)
    }

    /// Its objective with these strengths.
    ///
    /// # Panics
    /// They lack one of its parameters.
    pub fn objective(&self, strengths: &Strengths) -> Box<dyn Objective> {
        (self.make)(strengths)
    }

    /// Whether these strengths make sense.
    ///
    /// # Errors
    /// The first one that does not.
    ///
    /// # Panics
    /// They lack one of its parameters.
    pub fn check(&self, strengths: &Strengths) -> Result<(), MethodError> {
        for parameter in self.about().parameters {
            let value = strengths[parameter.name];
            if !parameter.range.contains(value) {
                return Err(MethodError::OutOfRange {
                    method: self.name(),
                    option: parameter.name,
                    value,
                    expected: parameter.range.to_string(),
                });
            }
        }
        Ok(())
    }
}

impl Default for Method {
    /// The first of [`METHODS`].
    fn default() -> Self {
        METHODS[0]
    }
}

impl PartialEq for Method {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Method {}

impl fmt::Debug for Method {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Method {
    type Err = MethodError;

    /// The one of [`METHODS`] with this name.
    fn from_str(name: &str) -> Result<Self, MethodError> {
        let unknown = || MethodError::Unknown { name: name.into() };
        let found = METHODS.iter().find(|method| method.name() == name);
        found.copied().ok_or_else(unknown)
    }
}

impl Serialize for Method {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// As an enum of the names is read: formats then say which there are, and where another one stands.
impl<'de> Deserialize<'de> for Method {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;

        impl<'de> Visitor<'de> for Name {
            type Value = Method;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("the name of a method")
            }

            fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<Method, A::Error> {
                let (name, nothing) = data.variant_seed(OneOf::Variants(&NAMES))?;
                nothing.unit_variant()?;
                Ok(name.parse().expect("one of the names"))
            }
        }

        deserializer.deserialize_enum("Method", &NAMES, Name)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_name_alone_takes_the_strengths_of_the_paper() {
        for &method in METHODS {
            let read: Method = serde_json::from_value(json!(method.name())).unwrap();
            assert_eq!(read, method);
            assert_eq!(method.name().parse(), Ok(method));
            assert_eq!(method.check(&method.defaults()), Ok(()));
        }
        assert_eq!(Method::default().name(), "retrack");
    }

    #[test]
    fn names_and_parameters_are_what_files_and_options_can_be_called() {
        let plain = |name: &str| {
            let mut letters = name.chars();
            letters.all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit())
        };
        for (place, method) in METHODS.iter().enumerate() {
            let about = method.about();
            assert!(plain(about.name) && !NAMES[..place].contains(&about.name));
            let parameters = about.parameters.iter();
            let names: Vec<&str> = parameters.map(|parameter| parameter.name).collect();
            assert!(names.iter().all(|name| plain(name)), "{names:?}");
            assert!(about.gentler.is_none_or(|name| names.contains(&name)));
        }
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_names_there_are() {
        let error = "retrak".parse::<Method>().unwrap_err().to_string();
        assert!(error.contains("\"retrak\""), "{error}");
        assert!(
            error.contains("retrack, finetune, neggrad, erasediff, siss"),
            "{error}"
        );
    }

    #[test]
    fn options_out_of_range_are_refused_by_name() {
        for (method, option, value, says) in [
            ("retrack", "lambda", 1.5, "lambda is 1.5"),
            ("retrack", "lambda", f64::NAN, "lambda is NaN"),
            ("erasediff", "eta", -1.0, "eta is -1"),
            ("siss", "lambda", 0.0, "lambda is 0"),
            ("siss", "lambda", 1.0, "lambda is 1"),
            ("siss", "rescale", f64::INFINITY, "rescale is inf"),
        ] {
            let method: Method = method.parse().unwrap();
            let mut strengths = method.defaults();
            assert!(strengths.set(option, value));
            let error = method.check(&strengths).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
