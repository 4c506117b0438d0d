//! Options that take one of a few names.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use retrack_study::choice::Choice;

/// Reads one of a type's names, which help and errors list.
pub fn one_of<T: Choice + Send + Sync>() -> impl TypedValueParser<Value = T> {
    let names = T::ALL.iter().map(|one| {
        let name = PossibleValue::new(one.name());
        match one.help() {
            Some(help) => name.help(help),
            None => name,
        }
    });
    PossibleValuesParser::new(names).map(|name| T::named(&name).expect("one of the names"))
}
