//! The names of kohya's sd-scripts, which ComfyUI and others read too: underscores stand for the dots of layers' names, so
//! that only a model's own names tell which layer is meant.
//!
//! `lora_unet_LAYER.lora_down.weight`, `.lora_up.weight` and `.alpha`, with `lora_te_` or `lora_te1_` for the text encoder
//! and `lora_te2_` for SDXL's second one. Layers are called as diffusers calls them, and those of SDXL also as in the
//! original U-Net (`input_blocks_4_1_proj_in`).

use std::collections::{BTreeMap, HashMap};

use super::file::{Place, Role};
use super::layers::{Component, Layers};

const STARTS: [(&str, Component); 4] = [
    ("lora_unet_", Component::Network),
    ("lora_te_", Component::TextEncoder),
    ("lora_te1_", Component::TextEncoder),
    ("lora_te2_", Component::TextEncoder2),
];
const ENDS: [(&str, Role); 3] = [
    ("lora_down.weight", Role::A),
    ("lora_up.weight", Role::B),
    ("alpha", Role::Alpha),
];

/// Whether such names are among those of a file; others are then refused by name.
pub(super) fn is(keys: &[String]) -> bool {
    let own = |key: &String| STARTS.iter().any(|(start, _)| key.starts_with(start));
    keys.iter().any(own)
}

/// Whether some of these layers are called as in diffusers and others as in the original U-Net.
pub(super) fn is_mixed<'a>(layers: impl Iterator<Item = &'a str> + Clone) -> bool {
    let any = |blocks: [&str; 3]| {
        let mut layers = layers.clone();
        layers.any(|layer| blocks.iter().any(|block| layer.starts_with(block)))
    };
    any(["down_blocks", "mid_block", "up_blocks"])
        && any(["input_blocks", "middle_block", "output_blocks"])
}

/// What a tensor is; the layer with its underscores.
pub(super) fn place(key: &str) -> Option<Place> {
    let (component, name) = STARTS
        .iter()
        .find_map(|(start, component)| Some((*component, key.strip_prefix(start)?)))?;
    let (layer, end) = name.split_once('.')?;
    let (_, role) = ENDS.iter().find(|(known, _)| *known == end)?;
    Some(Place {
        component: Some(component),
        layer: layer.to_owned(),
        role: *role,
    })
}

/// The layers of a network by the names that kohya's files have for them; `None`: several have this one.
pub(super) fn names(layers: &Layers) -> HashMap<String, Option<&str>> {
    let mut names: HashMap<String, Option<&str>> = HashMap::new();
    let mut add = |name: String, layer| {
        let place = names.entry(name).or_insert(Some(layer));
        if *place != Some(layer) {
            *place = None;
        }
    };
    let original = Original::of(layers);
    for layer in layers.all.keys() {
        // diffusers 0.42.1 takes nothing of these under its own names for them.
        if !(layers.component == Component::Network && layer.starts_with("add_embedding.")) {
            add(underscored(layers.component, layer), layer);
        }
        // As a conversion of diffusers' names makes it with transformers 5.
        if layers.component == Component::TextEncoder {
            add(layer.replace('.', "_"), layer);
        }
        if let Some(name) = original.as_ref().and_then(|original| original.name(layer)) {
            add(name.replace('.', "_"), layer);
        }
    }
    names
}

/// What the files call a layer of diffusers' name.
pub(super) fn underscored(component: Component, layer: &str) -> String {
    let is_text = component != Component::Network;
    let whole = !is_text || layer.starts_with("text_");
    let before = if whole { "" } else { "text_model_" };
    format!("{before}{}", layer.replace('.', "_"))
}

/// What is written for a layer of a denoiser, without what its tensors end with.
pub(super) fn written(layers: &Layers, layer: &str) -> String {
    let original = Original::of(layers).and_then(|original| original.name(layer));
    let name = original.map(|name| name.replace('.', "_"));
    let name = name.unwrap_or_else(|| underscored(Component::Network, layer));
    format!("lora_unet_{name}")
}

/// Whether diffusers 0.42.1 gives a layer the alpha that the file has for it.
///
/// It looks those of attention layers up under names of before, and those of a text encoder's other layers under names
/// that begin with `text_model.`, which transformers 5 has left in the second encoder alone.
pub(super) fn has_own_alpha(component: Component, layer: &str) -> bool {
    let attends = |projections: [&str; 4]| projections.iter().any(|end| layer.ends_with(end));
    match component {
        Component::Network => !attends(["_to_q", "_to_k", "_to_v", "_to_out_0"]),
        Component::TextEncoder => layer == "text_projection",
        Component::TextEncoder2 => !attends(["_q_proj", "_k_proj", "_v_proj", "_out_proj"]),
    }
}

/// The commonest of alphas, the first of several; as Python's `Counter` has it.
pub(super) fn commonest(alphas: &[f64]) -> Option<f64> {
    let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
    for alpha in alphas {
        *counts.entry(alpha.to_bits()).or_default() += 1;
    }
    let most = counts.values().max()?;
    let mut alphas = alphas.iter().copied();
    alphas.find(|alpha| counts[&alpha.to_bits()] == *most)
}

/// Names of SDXL's original U-Net: blocks counted through, each with its parts.
struct Original {
    /// Resnets of a level on the way down; one more on the way up.
    resnets: usize,
}

impl Original {
    /// Of SDXL alone: kohya's and diffusers' files of other U-Nets have no such names.
    fn of(layers: &Layers) -> Option<Self> {
        let is_network = layers.component == Component::Network;
        if !is_network || !layers.all.contains_key("add_embedding.linear_1") {
            return None;
        }
        let numbers = layers.all.keys().filter_map(|layer| {
            let rest = layer.strip_prefix("down_blocks.0.resnets.")?;
            rest.split('.').next()?.parse::<usize>().ok()
        });
        Some(Self {
            resnets: numbers.max()? + 1,
        })
    }

    fn name(&self, layer: &str) -> Option<String> {
        const OUTSIDE: [(&str, &str); 6] = [
            ("conv_in", "input_blocks.0.0"),
            ("conv_out", "out.2"),
            ("time_embedding.linear_1", "time_embed.0"),
            ("time_embedding.linear_2", "time_embed.2"),
            ("add_embedding.linear_1", "label_emb.0.0"),
            ("add_embedding.linear_2", "label_emb.0.2"),
        ];
        if let Some((_, name)) = OUTSIDE.iter().find(|(ours, _)| *ours == layer) {
            return Some((*name).to_owned());
        }
        let (block, rest) = layer.split_once('.')?;
        if block == "mid_block" {
            let (part, number, inside) = part(rest)?;
            return Some(match (part, number) {
                ("attentions", 0) => format!("middle_block.1.{inside}"),
                ("resnets", number @ 0..=1) => {
                    format!("middle_block.{}.{}", 2 * number, resnet(inside)?)
                }
                _ => return None,
            });
        }
        let (level, rest) = rest.split_once('.')?;
        let level: usize = level.parse().ok()?;
        let (part, number, inside) = part(rest)?;
        let first = level.checked_mul(self.resnets + 1)?;
        let at = first.checked_add(number)?;
        let last = first.checked_add(self.resnets)?;
        Some(match (block, part) {
            ("down_blocks", "resnets") => format!("input_blocks.{}.0.{}", at + 1, resnet(inside)?),
            ("down_blocks", "attentions") => format!("input_blocks.{}.1.{inside}", at + 1),
            ("down_blocks", "downsamplers") if inside == "conv" => {
                format!("input_blocks.{}.0.op", last + 1)
            }
            ("up_blocks", "resnets") => format!("output_blocks.{at}.0.{}", resnet(inside)?),
            ("up_blocks", "attentions") => format!("output_blocks.{at}.1.{inside}"),
            // Behind resnet and attention; SDXL has none without.
            ("up_blocks", "upsamplers") => format!("output_blocks.{last}.2.{inside}"),
            _ => return None,
        })
    }
}

/// `attentions.1.proj_in` as its list, number and rest.
fn part(name: &str) -> Option<(&str, usize, &str)> {
    let (part, rest) = name.split_once('.')?;
    let (number, inside) = rest.split_once('.')?;
    Some((
        part,
        number.parse().ok().filter(|&number| number < 1 << 16)?,
        inside,
    ))
}

fn resnet(layer: &str) -> Option<&'static str> {
    const INSIDE: [(&str, &str); 4] = [
        ("conv1", "in_layers.2"),
        ("conv2", "out_layers.3"),
        ("time_emb_proj", "emb_layers.1"),
        ("conv_shortcut", "skip_connection"),
    ];
    let mut inside = INSIDE.iter();
    inside
        .find(|(ours, _)| *ours == layer)
        .map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers(names: &[&str]) -> Layers {
        let parameters = names
            .iter()
            .map(|name| (format!("{name}.weight"), vec![2, 2]));
        Layers::new(Component::Network, parameters)
    }

    #[test]
    fn underscores_are_resolved_by_the_models_own_names_and_not_where_two_are_meant() {
        let layers = layers(&["mid_block.to_q", "mid.block.to_q", "down_blocks.0.to_out.0"]);
        let names = names(&layers);
        assert_eq!(
            names["down_blocks_0_to_out_0"],
            Some("down_blocks.0.to_out.0")
        );
        assert_eq!(names["mid_block_to_q"], None);
        assert!(!names.contains_key("down_blocks.0.to_out.0"));
    }

    /// Names as published adapters of SDXL have them.
    #[test]
    fn sdxls_original_names_are_those_of_the_published_model() {
        let resnets = [
            "down_blocks.0.resnets.0.conv1",
            "down_blocks.0.resnets.1.conv1",
        ];
        let pairs = [
            (
                "input_blocks_4_1_transformer_blocks_0_attn1_to_q",
                "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
            ),
            (
                "input_blocks_8_1_proj_in",
                "down_blocks.2.attentions.1.proj_in",
            ),
            ("input_blocks_3_0_op", "down_blocks.0.downsamplers.0.conv"),
            (
                "input_blocks_7_0_emb_layers_1",
                "down_blocks.2.resnets.0.time_emb_proj",
            ),
            (
                "middle_block_1_transformer_blocks_9_ff_net_0_proj",
                "mid_block.attentions.0.transformer_blocks.9.ff.net.0.proj",
            ),
            ("middle_block_2_out_layers_3", "mid_block.resnets.1.conv2"),
            ("output_blocks_2_2_conv", "up_blocks.0.upsamplers.0.conv"),
            (
                "output_blocks_5_1_proj_out",
                "up_blocks.1.attentions.2.proj_out",
            ),
            (
                "output_blocks_8_0_skip_connection",
                "up_blocks.2.resnets.2.conv_shortcut",
            ),
            ("label_emb_0_2", "add_embedding.linear_2"),
        ];
        let mut all: Vec<&str> = pairs.iter().map(|(_, ours)| *ours).collect();
        all.extend(resnets);
        // Without it, it is no SDXL.
        assert!(!names(&layers(&all)).contains_key("input_blocks_8_1_proj_in"));
        all.push("add_embedding.linear_1");
        let layers = layers(&all);
        let names = names(&layers);
        for (theirs, ours) in pairs {
            assert_eq!(names.get(theirs), Some(&Some(ours)), "{theirs}");
        }
    }

    #[test]
    fn the_commonest_alpha_is_the_first_of_several() {
        assert_eq!(commonest(&[]), None);
        assert_eq!(commonest(&[4.0, 1.0, 4.0]), Some(4.0));
        assert_eq!(commonest(&[2.0, 1.0, 1.0, 2.0]), Some(2.0));
    }
}
