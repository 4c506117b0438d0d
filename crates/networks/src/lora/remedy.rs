//! What a tensor is that is no part of a low-rank adapter, by its name (diffusers 0.42.1, peft 0.21.2).

/// What names of adapters hold, by their kinds.
const ADAPTERS: [&str; 5] = ["lora", "lokr_", "hada_", "oft_", "dora"];
/// Names of other tensors than factors, with what they are.
const OTHERS: [(&str, &str); 12] = [
    (
        ".dora_scale",
        "it is the magnitude of a DoRA in kohya's form, which diffusers would leave out; have the program that trained it \
         merge it, or save it in PEFT's form, which is read",
    ),
    (
        ".lora_mid.",
        "it is a third factor between two (LoCon with a Tucker decomposition), which diffusers does not read either; have \
         the program that trained it merge it",
    ),
    (
        ".lokr_",
        "it is of a LoKr, whose factors are multiplied in another way; have the program that trained it merge it",
    ),
    (
        ".hada_",
        "it is of a LoHa, whose factors are multiplied in another way; have the program that trained it merge it",
    ),
    (
        ".oft_",
        "it is of an OFT, which turns weights; have the program that trained it merge it",
    ),
    (
        ".diff",
        "it is a whole layer's change and no low-rank adapter; have the program that trained it merge it",
    ),
    (
        ".lora_B.bias",
        "it is added to a layer's bias; have PEFT merge it where it was trained (merge_and_unload)",
    ),
    (
        ".lora_embedding_",
        "it adapts an embedding; have PEFT merge it where it was trained (merge_and_unload)",
    ),
    (
        ".modules_to_save.",
        "it is a whole layer that was trained with the adapter; have PEFT merge it (merge_and_unload)",
    ),
    (
        ".default.",
        "it has the name of PEFT's adapter within its own, as the state of a live model has; save it with \
                   get_peft_model_state_dict or save_lora_weights",
    ),
    (
        "transformer.",
        "it is of a diffusion transformer's adapter, and these models are not read",
    ),
    ("lora_controlnet", "it is of a ControlNet's adapter"),
];
const OTHERWISE: &str =
    "it is not named as a factor of a layer's adapter in a form of diffusers, PEFT or kohya";
const MIXED: &str =
    "the file's names are of several forms, of which diffusers would read one; keep that alone";
const NO_ADAPTER: &str = "no name in it is an adapter's: is it a file of a model's own weights?";

/// Why `key` is not read among the `keys` of a file.
pub(super) fn reason(key: &str, keys: &[String]) -> &'static str {
    let is_adapters = |key: &String| ADAPTERS.iter().any(|kind| key.contains(kind));
    if !keys.iter().any(is_adapters) {
        return NO_ADAPTER;
    }
    let of_other = OTHERS
        .iter()
        .find(|(part, _)| match part.strip_suffix('.') {
            Some(_) if !part.starts_with('.') => key.starts_with(part),
            _ => key.contains(part),
        });
    if let Some((_, reason)) = of_other {
        return reason;
    }
    let is_factor = [
        ".lora_A.",
        ".lora_B.",
        ".lora_down.",
        ".lora_up.",
        "lora.down.",
        "lora.up.",
    ];
    match is_factor.iter().any(|part| key.contains(part)) {
        true => MIXED,
        false => OTHERWISE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(key: &str, others: &[&str]) -> &'static str {
        let keys = others.iter().chain([&key]).map(|&key| key.to_owned());
        super::reason(key, &keys.collect::<Vec<_>>())
    }

    #[test]
    fn what_is_not_read_is_called_by_its_name() {
        for (key, expected) in [
            ("lora_unet_a.dora_scale", "DoRA"),
            ("lora_unet_a.lora_mid.weight", "Tucker"),
            ("lora_unet_a.lokr_w1", "LoKr"),
            ("unet.a.lokr_w1", "LoKr"),
            ("lora_unet_a.hada_w1_a", "LoHa"),
            ("base_model.model.a.lora_embedding_A", "embedding"),
            ("unet.a.to_q.lora_A.default.weight", "save_lora_weights"),
            ("transformer.a.to_q.lora_A.weight", "transformer"),
            ("unet.a.lora_B.bias", "bias"),
            ("a.attn1.to_q.lora_A.weight", "several forms"),
            ("lora_te3_a.alpha", "diffusers, PEFT or kohya"),
        ] {
            let found = reason(key, &["unet.b.lora_A.weight"]);
            assert!(found.contains(expected), "{key}: {found}");
        }
        assert_eq!(reason("conv_in.weight", &["conv_out.weight"]), NO_ADAPTER);
    }
}
