//! docs/reference.md, made of the command line as clap knows it and of the types that files are read into and written
//! from, whose documentation says what each field is.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use clap::{Arg, Command};
use retrack_unlearn::objective::parameters;
use retrack_unlearn::optimizer::AdamWConfig;
use retrack_unlearn::recipe::{Layer, Recipe, preset_names};

const REWRITE: &str = "RETRACK_REWRITE=1 cargo test --workspace --test reference";

#[test]
fn the_reference_is_the_programs() {
    let path = root().join("docs/reference.md");
    let wanted = reference();
    if env::var_os("RETRACK_REWRITE").is_some() {
        fs::write(&path, wanted).unwrap();
        return;
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    let differs = found.lines().zip(wanted.lines()).find(|(a, b)| a != b);
    assert!(
        found == wanted,
        "docs/reference.md is stale, first at {differs:?}; this writes it: {REWRITE}"
    );
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn reference() -> String {
    let mut page = format!(
        "<!-- Made from the program; do not edit. {REWRITE} -->\n\
         # Reference\n\n\
         Every option, and the fields of the files that are read and written. What commands are for is in the \
         [README](../README.md), how files lie in an output folder in [run-folder.md](run-folder.md), what a file of \
         `--arch` holds in [train.md](train.md).\n\n\
         - [Options](#options)\n\
         - [The file of `--config`](#the-file-of---config)\n\
         - [The settings in `run/config.json`](#the-settings-in-runconfigjson)\n\
         - [`report.json`](#reportjson)\n\n\
         ## Options\n\n"
    );
    options(&mut page);
    config_file(&mut page);
    settings(&mut page);
    report(&mut page);
    page
}

// The command line.

fn options(page: &mut String) {
    let mut command = retrack_cli::command_line();
    command.build();
    page.push_str("Of every command:\n\n");
    let global: Vec<&Arg> = command.get_arguments().filter(|arg| shown(arg)).collect();
    argument_table(page, &global);
    for command in command.get_subcommands() {
        subcommand(page, command, "retrack");
    }
}

fn subcommand(page: &mut String, command: &Command, before: &str) {
    if command.get_name() == "help" {
        return;
    }
    let name = format!("{before} {}", command.get_name());
    let about = command.get_long_about().or(command.get_about());
    let about = about.map(ToString::to_string).unwrap_or_default();
    writeln!(page, "### {name}\n\n{}.\n", about.trim_end_matches('.')).unwrap();
    if command.has_subcommands() {
        for command in command.get_subcommands() {
            subcommand(page, command, &name);
        }
        return;
    }
    let own = command
        .get_arguments()
        .filter(|arg| shown(arg) && !arg.is_global_set());
    argument_table(page, &own.collect::<Vec<_>>());
}

fn shown(arg: &Arg) -> bool {
    !arg.is_hide_set()
}

/// The required ones, the common ones, and the others by their heading, as `--help-all` shows them.
fn argument_table(page: &mut String, arguments: &[&Arg]) {
    if arguments.is_empty() {
        page.push_str("No options of its own.\n\n");
        return;
    }
    let mut headings: Vec<Option<&str>> = vec![None];
    for arg in arguments {
        if !headings.contains(&arg.get_help_heading()) {
            headings.push(arg.get_help_heading());
        }
    }
    page.push_str("| option | default | what |\n| --- | --- | --- |\n");
    for heading in headings {
        let mut rows: Vec<&&Arg> = arguments
            .iter()
            .filter(|arg| arg.get_help_heading() == heading)
            .collect();
        rows.sort_by_key(|arg| !arg.is_required_set());
        if let (Some(heading), false) = (heading, rows.is_empty()) {
            writeln!(page, "| **{heading}** | | |").unwrap();
        }
        for arg in rows {
            argument(page, arg);
        }
    }
    page.push('\n');
}

fn argument(page: &mut String, arg: &Arg) {
    let takes = arg.get_action().takes_values();
    let values: Vec<&str> = match arg.get_value_names() {
        Some(names) if takes => names.iter().map(|name| name.as_str()).collect(),
        _ => Vec::new(),
    };
    let mut names = Vec::new();
    if let Some(short) = arg.get_short() {
        names.push(format!("-{short}"));
    }
    if let Some(long) = arg.get_long() {
        names.push(
            [format!("--{long}")]
                .into_iter()
                .chain(values.iter().map(ToString::to_string))
                .collect::<Vec<_>>()
                .join(" "),
        );
    }
    if names.is_empty() {
        names.push(values.join(" "));
    }
    let help = arg.get_long_help().or(arg.get_help());
    let mut what = help.map(ToString::to_string).unwrap_or_default();
    // Help says itself where a default is not one value.
    let mut default = String::new();
    if let Some((before, rest)) = what.clone().split_once("[default: ")
        && let Some((said, after)) = rest.split_once(']')
    {
        default = said.to_owned();
        what = format!("{}{after}", before.trim_end());
    }
    let set: Vec<String> = arg
        .get_default_values()
        .iter()
        .map(|value| format!("`{}`", value.to_string_lossy()))
        .collect();
    if takes && !set.is_empty() {
        default = set.join(" ");
    } else if arg.is_required_set() {
        "required".clone_into(&mut default);
    }
    let possible: Vec<String> = arg
        .get_possible_values()
        .iter()
        .filter(|value| takes && !value.is_hide_set())
        .map(|value| match value.get_help() {
            Some(help) => format!("<br>`{}`: {help}", value.get_name()),
            None => format!(" `{}`", value.get_name()),
        })
        .collect();
    if !possible.is_empty() {
        let spaced = possible[0].starts_with(' ');
        what = format!(
            "{}:{}",
            what.trim_end_matches('.'),
            possible.join(if spaced { "," } else { "" })
        );
    }
    writeln!(
        page,
        "| `{}` | {} | {} |",
        names.join("`, `"),
        cell(&default),
        cell(&what)
    )
    .unwrap();
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
        .replace("\n\n", "<br>")
        .replace('\n', " ")
}

// Types.

/// A field, or a variant of an enumeration.
struct Field {
    name: String,
    kind: String,
    doc: String,
    /// Left out where there is nothing.
    optional: bool,
}

/// Structures and enumerations of one source file: name, documentation, fields.
struct Source(Vec<(String, String, Vec<Field>)>);

impl Source {
    /// Reads what rustfmt leaves: one field a line, its documentation and attributes on the lines before.
    fn read(path: &str) -> Self {
        let text = fs::read_to_string(root().join(path)).unwrap();
        let (mut types, mut doc, mut attributes) = (Vec::new(), String::new(), String::new());
        let mut open: Option<(String, String, Vec<Field>)> = None;
        let mut snake = false;
        for line in text.lines() {
            let code = line.trim();
            let declared = code
                .trim_start_matches("pub ")
                .split_once(' ')
                .filter(|(word, _)| ["struct", "enum"].contains(word) && line.ends_with('{'));
            if let Some(text) = code.strip_prefix("///") {
                doc = format!("{doc} {}", text.trim());
            } else if code.starts_with("#[") {
                attributes.push_str(code);
            } else if let (None, Some((_, rest))) = (&open, declared) {
                let name = rest.split(|c: char| !c.is_alphanumeric()).next().unwrap();
                snake = attributes.contains("snake_case");
                open = Some((name.into(), plain(&doc), Vec::new()));
                (doc, attributes) = Default::default();
            } else if line == "}" {
                types.extend(open.take());
                (doc, attributes) = Default::default();
            } else if let Some((_, _, fields)) = &mut open {
                let field = code.trim_end_matches(',').trim_start_matches("pub ");
                let (name, kind) = field.split_once(": ").unwrap_or((field, ""));
                let name = match snake {
                    true => snake_case(name),
                    false => name.to_owned(),
                };
                fields.push(Field {
                    name,
                    kind: kind.into(),
                    doc: plain(&doc),
                    optional: attributes.contains("skip_serializing_if"),
                });
                (doc, attributes) = Default::default();
            } else {
                (doc, attributes) = Default::default();
            }
        }
        Self(types)
    }

    fn fields(&self, of: &str) -> &[Field] {
        let (_, _, fields) = self
            .0
            .iter()
            .find(|(name, _, _)| name == of)
            .unwrap_or_else(|| panic!("no type {of}"));
        fields
    }

    fn of(&self, structure: &str, field: &str) -> &Field {
        let mut fields = self.fields(structure).iter();
        fields
            .find(|one| one.name == field)
            .unwrap_or_else(|| panic!("{structure} has no field {field}"))
    }
}

fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for (place, letter) in name.chars().enumerate() {
        if letter.is_uppercase() && place > 0 {
            snake.push('_');
        }
        snake.extend(letter.to_lowercase());
    }
    snake
}

/// Documentation without rustdoc's links.
fn plain(doc: &str) -> String {
    let mut text = String::new();
    let mut rest = doc.trim();
    while let Some((before, link)) = rest.split_once("[`") {
        let (name, after) = link.split_once("`]").unwrap();
        let after = match after.strip_prefix('(') {
            Some(target) => target.split_once(')').unwrap().1,
            None => after,
        };
        write!(text, "{before}`{name}`").unwrap();
        rest = after;
    }
    text + rest
}

/// A Rust type as JSON and TOML have it.
fn kind(rust: &str) -> String {
    let inside = |name: &str| rust.strip_prefix(name)?.strip_suffix('>');
    if let Some(one) = inside("Option<") {
        return kind(one);
    }
    if let Some(one) = inside("Vec<") {
        return match one {
            "u8" => "string (Base64)".into(),
            _ => format!("list of {}", kind(one)),
        };
    }
    if let Some(one) = inside("BTreeMap<String, ") {
        return format!("table of {}", kind(one));
    }
    if let Some((one, _)) = rust
        .strip_prefix('[')
        .and_then(|rest| rest.split_once("; 2]"))
    {
        return format!("two {}s", kind(one));
    }
    match rust {
        "usize" | "u32" | "u64" | "i64" => "integer".into(),
        "f64" => "number".into(),
        "State" => "string".into(),
        "bool" => "boolean".into(),
        "String" | "&'static str" => "string".into(),
        "Value" => "any".into(),
        "&'static dyn Metric" => "a metric's name".into(),
        "Method" => "a method's name".into(),
        "SamplerName" => "a sampler's name".into(),
        named => named.into(),
    }
}

// The file of `--config`.

fn config_file(page: &mut String) {
    let recipe = Source::read("crates/unlearn/src/recipe/mod.rs");
    let layer = Source::read("crates/unlearn/src/recipe/layer.rs");
    let adamw = Source::read("crates/unlearn/src/optimizer.rs");
    let study = Source::read("crates/study/src/settings.rs");
    page.push_str(
        "## The file of `--config`\n\n\
         TOML, read over a preset and under the options. A key that is none of these is an error. What stands in neither \
         the file nor the preset has its default.\n\n\
         | key | type | default | what |\n| --- | --- | --- | --- |\n",
    );
    let mut row = |key: &str, kind: &str, default: &str, what: &str| {
        writeln!(page, "| `{key}` | {kind} | {default} | {} |", cell(what)).unwrap();
    };
    let presets = presets();
    let preset = |key: &str| match presets.values().all(|keys| keys.contains_key(key)) {
        true => "the preset's".to_owned(),
        false => defaults(key),
    };
    for field in layer.fields("Layer") {
        let name = field.name.as_str();
        match name {
            "adamw" => {
                for field in layer.fields("AdamWLayer") {
                    let about = adamw.of("AdamWConfig", &field.name);
                    let key = format!("adamw.{}", field.name);
                    row(&key, &kind(&about.kind), &defaults(&key), &about.doc);
                }
            }
            "strength" => {
                for shared in parameters() {
                    for method in &shared.methods {
                        let key = format!("strength.{}_{}", method.name(), shared.parameter.name);
                        let default = method.defaults()[shared.parameter.name].to_string();
                        let what = format!(
                            "`--{}` of the method `{}`",
                            shared.parameter.name,
                            method.name()
                        );
                        row(&key, "number", &default, &what);
                    }
                }
            }
            "rate" => row("rate.METHOD", "number", "`learning_rate`", &field.doc),
            "experiment" => {
                for field in study.fields("ExperimentFile") {
                    let key = format!("experiment.{}", field.name);
                    row(&key, &kind(&field.kind), &preset(&key), &field.doc);
                }
            }
            _ => {
                let about = recipe.of("Recipe", name);
                row(name, &of_recipe(&about.kind), &preset(name), &about.doc);
            }
        }
    }
    page.push_str("\nWhat the presets say:\n\n| key |");
    for name in presets.keys() {
        write!(page, " `{name}` |").unwrap();
    }
    writeln!(page, "\n| --- |{}", " --- |".repeat(presets.len())).unwrap();
    let mut keys: Vec<&String> = Vec::new();
    for key in presets.values().flat_map(|keys| keys.keys()) {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys.sort_by_key(|key| (key.contains('.'), key.as_str()));
    for key in keys {
        write!(page, "| `{key}` |").unwrap();
        for preset in presets.values() {
            write!(page, " {} |", preset.get(key).map_or("", String::as_str)).unwrap();
        }
        page.push('\n');
    }
    page.push('\n');
}

/// The same of a recipe, whose neighbors are a number or a word.
fn of_recipe(rust: &str) -> String {
    match rust {
        "Neighbors" => "integer, or `\"all\"`".into(),
        other => kind(other),
    }
}

/// Each preset's values, by their key.
fn presets() -> BTreeMap<&'static str, BTreeMap<String, String>> {
    let mut presets = BTreeMap::new();
    for name in preset_names() {
        let path = root().join(format!("crates/unlearn/presets/{name}.toml"));
        let file: toml::Table = fs::read_to_string(path).unwrap().parse().unwrap();
        let mut keys = BTreeMap::new();
        for (key, value) in file {
            match value {
                toml::Value::Table(table) => {
                    for (inner, value) in table {
                        keys.insert(format!("{key}.{inner}"), value.to_string());
                    }
                }
                value => drop(keys.insert(key, value.to_string())),
            }
        }
        presets.insert(name, keys);
    }
    presets
}

/// What a key is where nothing says it, of those that have a default.
fn defaults(key: &str) -> String {
    let name = preset_names().next().unwrap();
    let recipe = Recipe::preset(name).unwrap();
    let recipe = serde_json::to_value(recipe).unwrap();
    let adamw = AdamWConfig::default();
    let state = serde_json::to_value(adamw.state).unwrap();
    let mut adamw = serde_json::to_value(adamw).unwrap();
    // Not written where it is the default.
    adamw["state"] = state;
    let value = match key.split_once('.') {
        Some(("adamw", key)) => &adamw[key],
        Some(_) => return String::new(),
        None => &recipe[key],
    };
    match value.as_str() {
        Some(text) => format!("`{text}`"),
        None => value.to_string(),
    }
}

// JSON.

fn settings(page: &mut String) {
    let recipe = Source::read("crates/unlearn/src/recipe/mod.rs");
    let adamw = Source::read("crates/unlearn/src/optimizer.rs");
    page.push_str(
        "## The settings in `run/config.json`\n\n\
         The object `settings`, what preset, file and options came to. The rest of `run/config.json` is in \
         [run-folder.md](run-folder.md).\n\n\
         | field | type | what |\n| --- | --- | --- |\n",
    );
    let mut row = |key: &str, kind: &str, what: &str| {
        writeln!(page, "| `{key}` | {kind} | {} |", cell(what)).unwrap();
    };
    for field in recipe.fields("Recipe") {
        match field.name.as_str() {
            "strengths" => {
                for shared in parameters() {
                    let methods: Vec<String> = shared
                        .methods
                        .iter()
                        .map(|method| format!("`{}`", method.name()))
                        .collect();
                    let name = shared.parameter.name;
                    row(
                        name,
                        "number",
                        &format!("`--{name}`, where the method is {}", methods.join(" or ")),
                    );
                }
            }
            "adamw" => {
                for field in adamw.fields("AdamWConfig") {
                    row(
                        &format!("adamw.{}", field.name),
                        &kind(&field.kind),
                        &field.doc,
                    );
                }
            }
            name => row(name, &of_recipe(&field.kind), &field.doc),
        }
    }
    page.push('\n');
}

fn report(page: &mut String) {
    let source = Source::read("crates/eval/src/report/content.rs");
    page.push_str(
        "## `report.json`\n\n\
         What `unlearn`, `evaluate`, `experiment` and `demo` found; the page shows it and nothing else. The whole is a \
         `Report`. A field that is *optional* is left out where there is nothing.\n\n",
    );
    let named: Vec<&str> = source.0.iter().map(|(name, _, _)| name.as_str()).collect();
    let linked = |rust: &str| {
        let mut shown = kind(rust);
        for name in &named {
            if shown.split(' ').any(|word| word == *name) {
                let place = shown.len() - name.len();
                shown.replace_range(place.., &format!("[{name}](#{})", name.to_lowercase()));
                break;
            }
        }
        shown
    };
    for (name, doc, fields) in &source.0 {
        let values = fields.iter().all(|field| field.kind.is_empty());
        let head = match values {
            true => "| value | what |\n| --- | --- |",
            false => "| field | type | what |\n| --- | --- | --- |",
        };
        writeln!(page, "### {name}\n\n{doc}\n\n{head}").unwrap();
        for Field {
            name,
            kind,
            doc,
            optional,
        } in fields
        {
            let doc = cell(doc);
            match (values, optional) {
                (true, _) => writeln!(page, "| `{name}` | {doc} |"),
                (_, true) => writeln!(page, "| `{name}` | {}, *optional* | {doc} |", linked(kind)),
                _ => writeln!(page, "| `{name}` | {} | {doc} |", linked(kind)),
            }
            .unwrap();
        }
        page.push('\n');
    }
    page.pop();
}

#[test]
fn every_field_of_the_reference_says_what_it_is() {
    for line in reference().lines() {
        // A preset need not say everything.
        let of_presets = line.matches('|').count() > 5;
        assert!(of_presets || !line.ends_with("|  |"), "{line}");
    }
}

#[test]
fn the_types_are_read_as_serde_reads_them() {
    let fields = |path: &str, name: &str| -> Vec<String> {
        let source = Source::read(path);
        source
            .fields(name)
            .iter()
            .map(|field| format!("`{}`", field.name))
            .collect()
    };
    let refused = |text: &str| {
        Layer::<serde::de::IgnoredAny>::parse(text)
            .unwrap_err()
            .to_string()
    };
    let layer = "crates/unlearn/src/recipe/layer.rs";
    assert!(refused("x = 1").contains(&fields(layer, "Layer").join(", ")));
    assert!(refused("[adamw]\nx = 1").contains(&fields(layer, "AdamWLayer").join(", ")));
}
