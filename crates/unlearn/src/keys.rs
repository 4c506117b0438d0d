//! Reading names that are known only when the program runs, with the errors that serde has for those in its types.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, MapAccess, Visitor};

/// Reads one of some names.
#[derive(Clone, Copy)]
pub(crate) enum OneOf {
    /// The fields of a table.
    Fields(&'static [&'static str]),
    /// The variants of an enum.
    Variants(&'static [&'static str]),
}

impl<'de> DeserializeSeed<'de> for OneOf {
    type Value = &'static str;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for OneOf {
    type Value = &'static str;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Fields(_) => "field identifier",
            Self::Variants(_) => "variant identifier",
        })
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        let (Self::Fields(names) | Self::Variants(names)) = self;
        let found = names.iter().find(|name| **name == text);
        found.copied().ok_or_else(|| match self {
            Self::Fields(_) => E::unknown_field(text, names),
            Self::Variants(_) => E::unknown_variant(text, names),
        })
    }
}

/// Reads a table of numbers, each under one of `keys`. `name`: what errors call the table.
pub(crate) fn numbers<'de, D: Deserializer<'de>>(
    deserializer: D,
    name: &'static str,
    keys: &'static [&'static str],
) -> Result<BTreeMap<String, f64>, D::Error> {
    struct Table {
        name: &'static str,
        keys: &'static [&'static str],
    }

    impl<'de> Visitor<'de> for Table {
        type Value = BTreeMap<String, f64>;

        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            write!(f, "struct {}", self.name)
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut table = BTreeMap::new();
            while let Some(key) = map.next_key_seed(OneOf::Fields(self.keys))? {
                table.insert(key.to_string(), map.next_value()?);
            }
            Ok(table)
        }
    }

    deserializer.deserialize_struct(name, keys, Table { name, keys })
}
