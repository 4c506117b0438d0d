//! Ways around an adapter file whose names are not read here: only those that work, for the names of the whole file
//! (diffusers 0.42.1, peft 0.21.2).

use super::{FACTORS, FUSE};

/// What PEFT's `save_pretrained` puts before every name.
const PEFT: &str = "base_model.model.";
/// Names that a UNet's layers begin with.
const LAYERS: [&str; 8] = [
    "add_embedding.",
    "class_embedding.",
    "conv_in.",
    "conv_out.",
    "down_blocks.",
    "mid_block.",
    "time_embedding.",
    "up_blocks.",
];
const TEXT: &str = "text_encoder.text_model.";
/// How diffusers named the factors when its attention processors held them.
const PROCESSORS: [&str; 2] = ["_lora.down.weight", "_lora.up.weight"];
const TEXT_ENDS: [&str; 2] = [
    ".lora_linear_layer.down.weight",
    ".lora_linear_layer.up.weight",
];
/// Prefixes of kohya's sd-scripts, and how their names end.
const KOHYA: [&str; 2] = ["lora_unet_", "lora_te_"];
const KOHYA_ENDS: [&str; 3] = [".lora_down.weight", ".lora_up.weight", ".alpha"];

/// What names of adapters hold, by their kinds.
const ADAPTERS: [&str; 5] = ["lora", "lokr_", "hada_", "oft_", "dora"];

/// What to do with a file of these names.
pub(super) fn of(keys: &[String]) -> Option<&'static str> {
    let all = |test: fn(&str) -> bool| keys.iter().all(|key| test(key));
    // A mixture is merged in part only.
    if all(is_named_now) || all(is_named_of_old) || all(is_kohya) {
        return Some(FUSE);
    }
    if all(|key| {
        let layer = key.strip_prefix(PEFT);
        layer.is_some_and(|layer| begins_as(layer, &LAYERS)) && !key.contains(".default.")
    }) {
        return Some(
            "it is PEFT's own: in Python, with adapter_config.json beside it, \
             PeftModel.from_pretrained(pipeline.unet, DIR).merge_and_unload(), then pipeline.save_pretrained(NEW_DIR)",
        );
    }
    if all(|key| !ADAPTERS.iter().any(|kind| key.contains(kind))) {
        return Some("no name in it is an adapter's: is it a file of a model's own weights?");
    }
    if all(|key| begins_as(key, &LAYERS) && is_factor(key)) {
        return Some("put `unet.` before every name");
    }
    None
}

fn begins_as(key: &str, layers: &[&str]) -> bool {
    layers.iter().any(|layer| key.starts_with(layer))
}

fn is_factor(key: &str) -> bool {
    FACTORS.iter().flatten().any(|end| key.ends_with(end))
}

/// Whether diffusers reads a name as a factor of the UNet's or of the text encoder's adapter, as it writes them now.
fn is_named_now(key: &str) -> bool {
    let layer = key.strip_prefix("unet.");
    let own = layer.is_some_and(|layer| begins_as(layer, &LAYERS)) || key.starts_with(TEXT);
    own && FACTORS.iter().any(|[end, _]| key.ends_with(end))
}

/// The same as it wrote them once.
fn is_named_of_old(key: &str) -> bool {
    let ends = |ends: &[&str]| ends.iter().any(|end| key.ends_with(end));
    if key.starts_with(TEXT) {
        return ends(&TEXT_ENDS);
    }
    let layer = key.strip_prefix("unet.");
    layer.is_some_and(|layer| begins_as(layer, &LAYERS))
        && (FACTORS.iter().any(|[_, end]| key.ends_with(end))
            || key.contains(".processor.") && ends(&PROCESSORS))
}

fn is_kohya(key: &str) -> bool {
    begins_as(key, &KOHYA) && KOHYA_ENDS.iter().any(|end| key.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(keys: &[&str]) -> Option<&'static str> {
        let keys: Vec<String> = keys.iter().map(|&key| key.to_owned()).collect();
        of(&keys)
    }

    #[test]
    fn diffusers_is_named_only_for_adapters_that_it_merges() {
        for keys in [
            &["unet.down_blocks.0.attn1.processor.to_k_lora.down.weight"][..],
            &[
                "unet.down_blocks.0.attn1.to_q.lora_A.weight",
                "text_encoder.text_model.a.q_proj.lora_A.weight",
            ],
            &[
                "lora_unet_down_blocks_0_attn1_to_q.alpha",
                "lora_te_text_model_a.lora_up.weight",
            ],
        ] {
            assert_eq!(way(keys), Some(FUSE), "{keys:?}");
        }
        // diffusers takes nothing or a part of these, or raises.
        for keys in [
            &[
                "unet.mid_block.to_q.lora_A.weight",
                "unet.mid_block.processor.to_k_lora.up.weight",
            ][..],
            &["text_encoder.text_model.q_proj.lora.down.weight"],
            &["module.unet.down_blocks.0.to_q.lora_A.weight"],
            &["unet.module.down_blocks.0.to_q.lora_A.weight"],
            &["unet.base_model.model.down_blocks.0.to_q.lora_A.weight"],
            &["unet.down_blocks.0.to_q.lora_A.default.weight"],
            &["unet.down_blocks.0.to_q.lokr_w1"],
            &[
                "unet.down_blocks.0.to_q.lora.down.weight",
                "unet.down_blocks.0.to_q.alpha",
            ],
            &[
                "lora_unet_down_blocks_0_to_q.lokr_w1",
                "lora_unet_down_blocks_0_to_q.alpha",
            ],
            &["transformer.blocks.0.to_q.lora_A.weight"],
        ] {
            assert_eq!(way(keys), None, "{keys:?}");
        }
    }

    #[test]
    fn adapters_of_peft_and_without_a_prefix_have_ways_of_their_own() {
        let peft = way(&["base_model.model.down_blocks.0.to_q.lora_A.weight"]).unwrap();
        assert!(peft.contains("merge_and_unload()"), "{peft}");
        for key in [
            "down_blocks.0.to_q.lora_A.weight",
            "mid_block.to_q.lora.up.weight",
        ] {
            assert_eq!(way(&[key]), Some("put `unet.` before every name"));
        }
        assert_eq!(
            way(&["base_model.model.text_model.q_proj.lora_A.weight"]),
            None
        );
        assert_eq!(way(&["down_blocks.0.to_q.lora_A.default.weight"]), None);
    }
}
