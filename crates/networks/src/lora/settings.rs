//! What PEFT's settings of an adapter say, which it keeps beside the file and diffusers in the file's metadata (peft
//! 0.21.2).
//!
//! A layer's scale is alpha / rank. Both may be said for some layers by patterns, which are regular expressions.

use std::path::Path;

use fancy_regex::{Error, Regex, RegexBuilder};
use serde_json::{Map, Value};

use super::LoraError;
use super::python::{self, Fault};
use retrack_checkpoint::folder::read_weight_file_metadata;
use retrack_checkpoint::json;

/// Where diffusers keeps what PEFT would write to `adapter_config.json`.
const METADATA: &str = "lora_adapter_metadata";

/// After which a pattern of a stranger is given up.
const MOST_STEPS: usize = 100_000;

/// PEFT's alpha and rank where the settings do not say them.
const DEFAULT: u64 = 8;

/// Keys that change nothing of what an adapter adds to the weights: which layers were adapted, how they were trained,
/// by what.
const HARMLESS: [&str; 28] = [
    "auto_mapping",
    "base_model_name_or_path",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "exclude_modules",
    // PEFT goes by it in layers that keep their weights transposed; a UNet has none.
    "fan_in_fan_out",
    "inference_mode",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_dropout",
    "lora_ga_config",
    "megatron_core",
    // Noise while it was trained; merged without.
    "monteclora_config",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "target_modules",
    "task_type",
    // Another way to the same gradients.
    "velora_config",
    // Read below.
    "alpha_pattern",
    "lora_alpha",
    "r",
    "rank_pattern",
    "use_dora",
    "use_rslora",
];

/// Keys that must be absent, null, false or empty, with what they mean otherwise.
const MORE_THAN_FACTORS: [(&str, &str); 11] = [
    (
        "alora_invocation_tokens",
        "it works behind certain tokens only",
    ),
    ("arrow_config", "it chooses among several adapters"),
    (
        "kasa_config",
        "it takes something away from the weights as well",
    ),
    (
        "layer_replication",
        "it works on layers that are there several times",
    ),
    ("lora_bias", "it adds to the biases as well"),
    ("megatron_config", "it works on layers of another library"),
    ("modules_to_save", "other layers were trained with it"),
    (
        "target_parameters",
        "it works on parameters that are no layer's",
    ),
    ("trainable_token_indices", "embeddings were trained with it"),
    ("use_bdlora", "its factors are made of blocks"),
    ("use_qalora", "it works on groups of a layer's inputs"),
];

/// What a file says of its scales; nothing of a file without settings, whose scales are 1.
#[derive(Debug, Default)]
pub(super) struct Settings(Option<Scales>);

#[derive(Debug)]
struct Scales {
    alpha: f64,
    alphas: Vec<(Pattern, f64)>,
    rank: u64,
    ranks: Vec<(Pattern, u64)>,
    /// Scales are alpha / sqrt(rank).
    root: bool,
    /// DoRA: each layer has a magnitude as well.
    magnitudes: bool,
    /// Where they were said, for messages.
    source: &'static str,
}

impl Settings {
    /// Those of the layers whose names in the file begin with `prefix`.
    ///
    /// # Errors
    /// Settings that are damaged, or that ask for more than the product of two factors times a scale.
    pub(super) fn read(path: &Path, prefix: &str) -> Result<Self, LoraError> {
        let metadata = read_weight_file_metadata(path)?;
        // Python takes an empty text for none.
        let own = metadata.iter().find(|(key, _)| key == METADATA);
        let Some((_, text)) = own.filter(|(_, text)| !text.is_empty()) else {
            return Ok(Self::default());
        };
        let malformed = |problem: String| LoraError::Malformed {
            path: path.to_path_buf(),
            problem: format!("its {METADATA}: {problem}"),
        };
        let all = match json::parse(text.as_bytes()) {
            Ok(Value::Object(all)) => all,
            Ok(_) => return Err(malformed("not a JSON object".into())),
            Err(error) => return Err(malformed(format!("not JSON: {error}"))),
        };
        let own = all.into_iter().filter_map(|(key, value)| {
            let key = key.strip_prefix(prefix)?.to_owned();
            Some((key, value))
        });
        Self::new(path, METADATA, &own.collect())
    }

    /// Those that lie in a file as `source`.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub(super) fn new(
        path: &Path,
        source: &'static str,
        settings: &Map<String, Value>,
    ) -> Result<Self, LoraError> {
        refuse_more(path, source, settings)?;
        let scales = Scales::read(source, settings);
        scales
            .map(|scales| Self(Some(scales)))
            .map_err(|problem| LoraError::Malformed {
                path: path.to_path_buf(),
                problem: format!("its {source}: {problem}"),
            })
    }

    /// Whether layers have magnitudes; `None`: it is not said.
    pub(super) fn magnitudes(&self) -> Option<bool> {
        self.0.as_ref().map(|scales| scales.magnitudes)
    }

    /// What B A is multiplied with. `rank`: that of the layer's factors.
    ///
    /// # Errors
    /// The settings say another rank.
    pub(super) fn scale(&self, layer: &str, rank: usize) -> Result<f64, String> {
        let Some(scales) = &self.0 else {
            return Ok(1.0);
        };
        let said = first(&scales.ranks, layer)?.unwrap_or(scales.rank);
        if said != rank as u64 {
            return Err(format!(
                "{layer} has factors of rank {rank}, but its {} says {said} (`r` or `rank_pattern`)",
                scales.source
            ));
        }
        let alpha = first(&scales.alphas, layer)?.unwrap_or(scales.alpha);
        let rank = rank as f64;
        Ok(alpha / if scales.root { rank.sqrt() } else { rank })
    }

    /// Whether a layer matches patterns of different alphas, so that their order decides.
    ///
    /// # Errors
    /// A pattern that takes too long.
    pub(super) fn hangs_on_order(&self, layer: &str) -> Result<bool, String> {
        let mut first = None;
        for (pattern, alpha) in self.0.iter().flat_map(|scales| &scales.alphas) {
            if pattern.matches(layer)? && *first.get_or_insert(*alpha) != *alpha {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Scales {
    fn read(source: &'static str, settings: &Map<String, Value>) -> Result<Self, String> {
        let alpha = |value: &Value| {
            let number = value.as_f64().filter(|number| number.is_finite());
            number.ok_or_else(|| format!("{value} is not a number"))
        };
        let rank = |value: &Value| {
            let number = value.as_u64().filter(|&number| number > 0);
            number.ok_or_else(|| format!("{value} is not a rank"))
        };
        let is_set = |key: &str| match settings.get(key) {
            None | Some(Value::Null | Value::Bool(false)) => Ok(false),
            Some(Value::Bool(true)) => Ok(true),
            Some(value) => Err(format!("`{key}` is {value}, expected true or false")),
        };
        Ok(Self {
            alpha: settings
                .get("lora_alpha")
                .map_or(Ok(DEFAULT as f64), alpha)?,
            alphas: patterns(settings, "alpha_pattern", alpha)?,
            rank: settings.get("r").map_or(Ok(DEFAULT), rank)?,
            ranks: patterns(settings, "rank_pattern", rank)?,
            root: is_set("use_rslora")?,
            magnitudes: is_set("use_dora")?,
            source,
        })
    }
}

/// The patterns of a key with their numbers, in the order of the file.
fn patterns<T>(
    settings: &Map<String, Value>,
    key: &str,
    number: impl Fn(&Value) -> Result<T, String>,
) -> Result<Vec<(Pattern, T)>, String> {
    match settings.get(key) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Object(patterns)) => patterns
            .iter()
            .map(|(pattern, value)| Ok((Pattern::new(pattern)?, number(value)?)))
            .collect::<Result<_, String>>()
            .map_err(|problem| format!("`{key}`: {problem}")),
        Some(value) => Err(format!("`{key}` is {value}, expected an object")),
    }
}

/// The number of the first pattern that matches a layer's name.
fn first<T: Copy>(patterns: &[(Pattern, T)], layer: &str) -> Result<Option<T>, String> {
    for (pattern, number) in patterns {
        if pattern.matches(layer)? {
            return Ok(Some(*number));
        }
    }
    Ok(None)
}

/// A regular expression of PEFT: it matches from the start of a layer's name, or from behind one of its dots, to the
/// end.
#[derive(Debug)]
struct Pattern {
    regex: Regex,
    /// As PEFT reads it.
    text: String,
}

impl Pattern {
    fn new(pattern: &str) -> Result<Self, String> {
        let cannot = |problem: &str, remedy: &str| {
            Err(format!(
                "the pattern {} is not understood here: {problem}; {remedy}",
                shown(pattern)
            ))
        };
        // The groups are PEFT's too: a pattern may refer to them by number.
        const BEFORE: &str = r"(.*\.)?(";
        let whole = match python::translated(&format!("{BEFORE}{pattern})$")) {
            Ok(whole) => whole,
            Err(Fault {
                problem,
                place,
                remedy,
            }) => {
                let length = pattern.chars().count();
                let place = place.saturating_sub(BEFORE.len()).min(length);
                return cannot(
                    &format!("{problem} (character {place} of {length})"),
                    remedy,
                );
            }
        };
        match RegexBuilder::new(&format!(r"\A(?:{whole})"))
            .backtrack_limit(MOST_STEPS)
            .build()
        {
            Ok(regex) => Ok(Self {
                regex,
                text: pattern.to_owned(),
            }),
            // What it says beyond its kind is about the expression that was made of it.
            Err(Error::CompileError(_)) => cannot("it is too large", OTHERWISE),
            Err(error) => cannot(&error.to_string(), OTHERWISE),
        }
    }

    fn matches(&self, layer: &str) -> Result<bool, String> {
        let matched = self.regex.is_match(layer);
        matched.map_err(|error| format!("the pattern {}: {error}; {OTHERWISE}", shown(&self.text)))
    }
}

/// What always works.
const OTHERWISE: &str = "write it otherwise: layers may be named in full, joined by |";

fn shown(pattern: &str) -> String {
    format!("{:?}", pattern.chars().take(80).collect::<String>())
}

/// Refuses settings under which an adapter adds something else than factors and magnitudes, and those that are not known.
fn refuse_more(path: &Path, source: &str, settings: &Map<String, Value>) -> Result<(), LoraError> {
    let refused = |key, value: &Value, reason| {
        let value: String = value.to_string().chars().take(80).collect();
        Err(LoraError::Setting {
            path: path.to_path_buf(),
            key,
            value,
            reason,
            remedy: "PEFT merges most adapters where they were trained (merge_and_unload)",
        })
    };
    for (key, value) in settings {
        let more = MORE_THAN_FACTORS.iter().find(|(more, _)| more == key);
        match (key.as_str(), value.as_str()) {
            ("bias", Some("none")) | ("peft_type", Some("LORA")) => {}
            ("bias", _) if !value.is_null() => {
                return refused("bias", value, "biases were trained with it");
            }
            ("peft_type", _) if !value.is_null() => {
                return refused("peft_type", value, "it is no plain low-rank adapter");
            }
            ("init_lora_weights", _) => check_initialization(path, value)?,
            (_, _) if is_off(value) || HARMLESS.contains(&key.as_str()) => {}
            (_, _) => match more {
                Some((key, reason)) => return refused(key, value, reason),
                None => {
                    let shown: String = key.chars().take(80).collect();
                    return Err(LoraError::Malformed {
                        path: path.to_path_buf(),
                        problem: format!(
                            "its {source} has the key {shown:?}, which PEFT 0.21.2 does not have and which may \
                             change what the adapter adds"
                        ),
                    });
                }
            },
        }
    }
    Ok(())
}

fn is_off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(items) => items.is_empty(),
        _ => false,
    }
}

/// Refuses initializations that changed the weights which an adapter was then trained on.
fn check_initialization(path: &Path, value: &Value) -> Result<(), LoraError> {
    // These leave them alone, whatever the factors are at first.
    const KEPT: [&str; 4] = ["gaussian", "eva", "orthogonal", "mica"];
    const CHANGED: [&str; 5] = ["pissa", "corda", "olora", "loftq", "lora_ga"];
    let text = value.as_str().map(str::to_lowercase);
    let kept = match &text {
        Some(text) => KEPT.contains(&text.as_str()),
        None => value.is_boolean() || value.is_null(),
    };
    if kept {
        return Ok(());
    }
    let value: String = value.to_string().chars().take(80).collect();
    let path = path.to_path_buf();
    // "pissa_niter_16" names its number of iterations.
    if text.is_some_and(|text| CHANGED.iter().any(|changed| text.starts_with(changed))) {
        return Err(LoraError::ChangedBase { path, value });
    }
    Err(LoraError::Malformed {
        path,
        problem: format!(
            "`init_lora_weights` is {value}, which PEFT 0.21.2 does not have: it may have changed the weights that the \
             adapter belongs to"
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn scales(settings: Value) -> Result<Settings, String> {
        let settings = settings.as_object().unwrap();
        Scales::read(METADATA, settings).map(|scales| Settings(Some(scales)))
    }

    #[test]
    fn patterns_match_as_pefts_do() {
        const LAYER: &str = "down_blocks.0.attentions.1.transformer_blocks.0.attn1.to_q";
        for (pattern, matches) in [
            ("to_q", true),
            (LAYER, true),
            (r"attn1\.to_[qk]", true),
            ("^down_blocks.*", true),
            // Anchored at both ends: at the start or behind a dot, and at the end.
            ("o_q", false),
            ("attn1", false),
            ("^attn1.to_q", false),
            ("down_blocks", false),
            ("attn2.to_q|to_k", false),
            ("attn2.to_q|to_q", true),
            ("to_q$", true),
            (r"blocks\.0.*", false),
            (r".*blocks\.0.*", true),
            (r"(?!.*attn2).*to_q", true),
            (r"(?!.*attn1)down_blocks.*", false),
            // The first group is what stands before.
            (r"attn(1)\.to_q", true),
            (r"(to)_q\1", false),
            (r"\d\.attn\d\.to_\w", true),
        ] {
            let found = Pattern::new(pattern).unwrap().matches(LAYER).unwrap();
            assert_eq!(found, matches, "{pattern}");
        }
        for pattern in ["to_(q", "[a", "*"] {
            let error = Pattern::new(pattern).unwrap_err();
            assert!(error.contains(&format!("{pattern:?}")), "{error}");
        }
        // Which stand for an operation on sets elsewhere.
        for pattern in ["[a&&o]&?_q", "[[t]o_q", r"[\[a]o_q"] {
            let pattern = Pattern::new(pattern).unwrap();
            assert_eq!(pattern.matches("a.to_q"), Ok(pattern.text == "[[t]o_q"));
        }
    }

    #[test]
    fn escapes_that_python_reads_in_another_way_are_refused_or_read_as_python_does() {
        for escape in [r"\h", r"\K", r"\G", r"\p", r"\z"] {
            let error = Pattern::new(&format!(r".*{escape}to_q")).unwrap_err();
            assert!(
                error.contains(&format!("`{escape}`, which Python")),
                "{error}"
            );
        }
        // Borders of words elsewhere.
        for (pattern, name) in [
            (r"\<to_q", "<to_q"),
            (r"to_q\>", "to_q>"),
            (r".*\b{end}", "a{end}"),
        ] {
            let pattern = Pattern::new(pattern).unwrap();
            assert_eq!(pattern.matches(name), Ok(true), "{name}");
            assert_eq!(pattern.matches("to_q"), Ok(false), "{name}");
        }
        for pattern in [
            r".*\bto_q",
            r".*\\<to_q",
            r"\Ato_q\Z",
            r"\.\_\-\ \/",
            r"a{2}",
        ] {
            assert!(Pattern::new(pattern).is_ok(), "{pattern}");
        }
    }

    #[test]
    fn the_place_of_a_fault_is_counted_in_the_pattern_itself() {
        let error = Pattern::new("to_q(?<").unwrap_err();
        let place = error.split("(character ").nth(1).unwrap();
        let place: usize = place.split(' ').next().unwrap().parse().unwrap();
        assert!(
            (4..=7).contains(&place) && error.contains("of 7)"),
            "{error}"
        );
        for pattern in ["a{2}{999999999}", "(?:a{999999}){999999}"] {
            let error = Pattern::new(pattern).map(|_| ()).unwrap_err();
            assert!(!error.contains(r"(.*\.)?("), "{error}");
        }
    }

    /// `fixtures/parity/lora_expressions/patterns.json`: which names each pattern matches as PEFT has it, if Python reads it.
    #[test]
    fn a_pattern_means_what_python_reads_or_is_refused_with_what_to_write() {
        /// Valid there and not read here, with what to write.
        const NOT_HERE: [(&str, &str); 9] = [
            (r"\N{", "write the letter itself"),
            ("(?(", "write the cases one by one"),
            ("x", "write the pattern without it"),
            ("(?<", "write what it stands for"),
            ("é", "write both its forms"),
            ("ſ", "write both its forms"),
            ("ı", "write both its forms"),
            ("(?P<é", "write a name of ASCII letters"),
            (r"\ud8", "leave it out"),
        ];
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../fixtures/parity/lora_expressions/patterns.json");
        let file = json::parse(&std::fs::read(path).unwrap()).unwrap();
        let names: Vec<String> = serde_json::from_value(file["names"].clone()).unwrap();
        let (mut read, mut refused, mut wrong) = (0, 0, Vec::new());
        for case in file["cases"].as_array().unwrap() {
            let text = case[0].as_str().unwrap();
            match (Pattern::new(text), &case[1]) {
                (Ok(pattern), Value::Array(expected)) => {
                    read += 1;
                    let matched = |name: &String| pattern.matches(name).map(u8::from);
                    let found: Result<Vec<u8>, String> = names.iter().map(matched).collect();
                    let expected = expected.iter().map(|one| one.as_u64().unwrap() as u8);
                    if found != Ok(expected.collect()) {
                        wrong.push(format!("{text:?} matches {found:?}, not {}", case[1]));
                    }
                }
                (Ok(_), _) => wrong.push(format!("{text:?} is read, which Python refuses")),
                (Err(error), Value::Array(_)) => {
                    let known = NOT_HERE
                        .iter()
                        .any(|(part, way)| text.contains(part) && error.contains(way));
                    if !known {
                        wrong.push(error);
                    }
                }
                (Err(error), _) => {
                    refused += 1;
                    if !(error.contains("correct the pattern") || error.contains("write ")) {
                        wrong.push(error);
                    }
                }
            }
        }
        assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
        assert!(read > 200 && refused > 100, "{read} {refused}");
    }

    /// `fixtures/parity/lora_patterns/scales.json`: what PEFT gives every layer of a network.
    #[test]
    fn scales_and_ranks_by_patterns_are_those_of_peft() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../fixtures/parity/lora_patterns/scales.json");
        let file = json::parse(&std::fs::read(path).unwrap()).unwrap();
        let layers: Vec<String> = serde_json::from_value(file["layers"].clone()).unwrap();
        let cases = file["cases"].as_array().unwrap();
        assert!(cases.len() > 20 && layers.len() == 48);
        for case in cases {
            let settings = &case["settings"];
            let found = scales(settings.clone()).unwrap();
            let mut seen = 0;
            for group in case["groups"].as_array().unwrap() {
                let rank = group["rank"].as_u64().unwrap() as usize;
                let expected = group["scale"].as_f64().unwrap();
                for layer in group["layers"].as_array().unwrap() {
                    let layer = &layers[layer.as_u64().unwrap() as usize];
                    let scale = found.scale(layer, rank);
                    let scale = scale.unwrap_or_else(|error| panic!("{settings}: {error}"));
                    assert!(
                        (scale - expected).abs() < 1e-12,
                        "{settings}, {layer}: {scale}"
                    );
                    assert!(found.scale(layer, rank + 1).is_err(), "{settings}, {layer}");
                    seen += 1;
                }
            }
            assert_eq!(seen, layers.len());
        }
    }

    #[test]
    fn the_first_pattern_in_the_order_of_the_file_counts() {
        let settings = scales(json!({
            "r": 4, "lora_alpha": 2, "alpha_pattern": { "to_q": 8, "a.to_q": 16, "a.*": 32 }
        }));
        let settings = settings.unwrap();
        assert_eq!(settings.scale("a.to_q", 4), Ok(2.0));
        assert_eq!(settings.scale("a.to_k", 4), Ok(8.0));
        assert_eq!(settings.scale("b.to_k", 4), Ok(0.5));
        let hangs = ["a.to_q", "a.to_k", "b.to_q"].map(|layer| settings.hangs_on_order(layer));
        assert_eq!(hangs, [Ok(true), Ok(false), Ok(false)]);
    }

    #[test]
    fn ranks_by_patterns_must_be_those_of_the_factors() {
        let settings = scales(json!({ "r": 4, "rank_pattern": { "to_q": 2 }, "use_rslora": true }));
        let settings = settings.unwrap();
        assert_eq!(settings.scale("a.to_k", 4), Ok(4.0));
        assert_eq!(settings.scale("a.to_q", 2), Ok(8.0 / 2f64.sqrt()));
        let error = settings.scale("a.to_q", 4).unwrap_err();
        assert!(error.contains("a.to_q has factors of rank 4") && error.contains("says 2"));
        // PEFT's defaults.
        let settings = scales(json!({})).unwrap();
        assert_eq!(settings.scale("a", 8), Ok(1.0));
        assert!(settings.scale("a", 4).is_err());
        assert_eq!(Settings::default().scale("a", 3), Ok(1.0));
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for settings in [
            json!({ "lora_alpha": "NaN" }),
            json!({ "r": 0 }),
            json!({ "alpha_pattern": [] }),
            json!({ "alpha_pattern": { "a": null } }),
            json!({ "rank_pattern": { "a": 1.5 } }),
            json!({ "use_rslora": 1 }),
            json!({ "use_dora": "yes" }),
        ] {
            assert!(scales(settings.clone()).is_err(), "{settings}");
        }
    }

    #[test]
    fn settings_of_other_adapters_are_refused_by_name() {
        let refused = |key: &str, value: Value| {
            let settings = json!({ key: value });
            let result = refuse_more(Path::new("x"), METADATA, settings.as_object().unwrap());
            result.map_err(|error| error.to_string())
        };
        for (key, _) in MORE_THAN_FACTORS {
            for value in [json!(true), json!(["a"]), json!({ "a": 1 })] {
                let error = refused(key, value).unwrap_err();
                assert!(error.contains(&format!("`{key}`")), "{error}");
                assert!(!error.contains("save_lora_weights"), "{error}");
            }
            for value in [Value::Null, json!(false), json!([])] {
                assert_eq!(refused(key, value), Ok(()), "{key}");
            }
        }
        for value in [
            "pissa",
            "pissa_niter_16",
            "PiSSA",
            "olora",
            "corda",
            "lora_ga",
            "loftq",
        ] {
            let error = refused("init_lora_weights", value.into()).unwrap_err();
            assert!(
                error.contains(value) && error.contains("changed"),
                "{error}"
            );
        }
        for value in [
            json!("gaussian"),
            json!("eva"),
            json!("orthogonal"),
            json!("mica"),
            json!(true),
            json!(false),
        ] {
            assert_eq!(refused("init_lora_weights", value), Ok(()));
        }
        for (key, value) in [
            ("init_lora_weights", json!("newest")),
            ("bias", json!("all")),
            ("bias", json!("lora_only")),
            ("peft_type", json!("LOHA")),
            ("newest_key", json!(1)),
        ] {
            let error = refused(key, value).unwrap_err();
            assert!(error.contains(key), "{error}");
        }
        for key in HARMLESS {
            assert_eq!(refused(key, json!({ "a": 1 })), Ok(()));
        }
        assert_eq!(refused("newest_key", Value::Null), Ok(()));
    }
}
