//! How strongly methods forget, as it is typed.

use std::sync::LazyLock;

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches, value_parser};
use retrack_unlearn::objective::{METHODS, Method, Range, Shared, parameters};

use super::heading;

/// The names of all methods, as a list is typed.
pub fn all_methods() -> &'static str {
    static ALL: LazyLock<String> = LazyLock::new(|| {
        let names: Vec<&str> = METHODS.iter().map(Method::name).collect();
        names.join(",")
    });
    &ALL
}

/// How strongly to forget: an option for each name that a method's parameter has, `--lambda` and the like.
#[derive(Debug, Clone, Default)]
pub struct StrengthArgs {
    /// Names and values of those that were typed.
    typed: Vec<(&'static str, f64)>,
}

impl StrengthArgs {
    /// Names and values of those that were typed.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, f64)> {
        self.typed.iter().copied()
    }
}

/// What the options are shown with.
struct Shown {
    shared: &'static Shared,
    value_name: String,
    help: String,
}

static OPTIONS: LazyLock<Vec<Shown>> = LazyLock::new(|| {
    let shown = |shared: &'static Shared| {
        let parameter = shared.parameter;
        let range = match parameter.range {
            Range::Closed(least, most) => format!(", {least} to {most}"),
            Range::Open(..) | Range::AtLeast(_) => String::new(),
        };
        let methods: Vec<&str> = shared.methods.iter().map(Method::name).collect();
        Shown {
            shared,
            value_name: parameter.name[..1].to_uppercase(),
            help: format!("{}{range} ({})", parameter.meaning, methods.join(", ")),
        }
    };
    parameters().iter().map(shown).collect()
});

impl Args for StrengthArgs {
    fn augment_args(command: Command) -> Command {
        command.args(OPTIONS.iter().map(|option| {
            let name = option.shared.parameter.name;
            Arg::new(name)
                .long(name)
                .value_name(option.value_name.as_str())
                .value_parser(value_parser!(f64))
                .help_heading(heading::METHOD)
                .help(option.help.as_str())
        }))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for StrengthArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let names = parameters().iter().map(|shared| shared.parameter.name);
        let typed = names.filter_map(|name| Some((name, *matches.get_one(name)?)));
        Ok(Self {
            typed: typed.collect(),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
