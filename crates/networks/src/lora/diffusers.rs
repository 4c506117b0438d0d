//! The names of diffusers' files, in the three generations of them (diffusers 0.42.1 reads all).

use super::file::{Place, Role};
use super::layers::Component;

/// How names of factors end: those of PEFT, which diffusers took over, and those from before.
const FACTORS: [(&str, Role); 6] = [
    (".lora_A.weight", Role::A),
    (".lora_B.weight", Role::B),
    (".lora.down.weight", Role::A),
    (".lora.up.weight", Role::B),
    (".lora_magnitude_vector", Role::Magnitude),
    (".lora_magnitude_vector.weight", Role::Magnitude),
];
/// The same of a text encoder's layers; `.lora.down` is only its projection's.
const TEXT_FACTORS: [(&str, Role); 6] = [
    (".lora_A.weight", Role::A),
    (".lora_B.weight", Role::B),
    (".lora_linear_layer.down.weight", Role::A),
    (".lora_linear_layer.up.weight", Role::B),
    (".lora_magnitude_vector", Role::Magnitude),
    (".lora_magnitude_vector.weight", Role::Magnitude),
];
/// How they ended when attention processors held them.
const PROCESSOR_FACTORS: [(&str, Role); 2] =
    [("_lora.down.weight", Role::A), ("_lora.up.weight", Role::B)];
/// The projections of those processors, and what they are called in a UNet and in a text encoder.
const PROJECTIONS: [[&str; 3]; 4] = [
    [".to_q", ".to_q", ".q_proj"],
    [".to_k", ".to_k", ".k_proj"],
    [".to_v", ".to_v", ".v_proj"],
    [".to_out", ".to_out.0", ".out_proj"],
];

/// What stands before the layers of a denoiser: a U-Net's, and those of the transformer of Stable Diffusion 3.
const NETWORKS: [&str; 2] = ["unet.", "transformer."];

/// What stands before the layers of a denoiser of which this is one.
pub(super) fn network_of(layer: &str) -> &'static str {
    match layer.starts_with("transformer_blocks.") {
        true => NETWORKS[1],
        false => NETWORKS[0],
    }
}

/// What stands before the layers of a component. `network`: before those of the denoiser.
pub(super) fn prefix(component: Component, network: &str) -> String {
    match component {
        Component::Network => network.to_owned(),
        _ => format!("{}.", component.folder()),
    }
}

/// Whether a file names the component of every layer: then what it calls the denoiser. One that names none is that's own, as
/// its `save_lora_adapter` writes it.
pub(super) fn network_in(keys: &[String]) -> Option<&'static str> {
    let begins = |prefix: &str| keys.iter().any(|key| key.starts_with(prefix));
    let mut networks = NETWORKS.into_iter();
    let text =
        |component: &Component| *component != Component::Network && begins(&prefix(*component, ""));
    match networks.find(|network| begins(network)) {
        Some(network) => Some(network),
        None => Component::ALL.iter().any(text).then_some(NETWORKS[0]),
    }
}

/// Whether some factors of a component are named as attention processors held them.
pub(super) fn has_processors(component: Component, keys: &[String]) -> bool {
    // Asked of text encoders alone, whose names do not hang on the denoiser's.
    let prefix = prefix(component, NETWORKS[0]);
    let own = keys.iter().filter(|key| key.starts_with(&prefix));
    let mut ends = own.flat_map(|key| PROCESSOR_FACTORS.map(|(end, _)| key.ends_with(end)));
    ends.any(|ends| ends)
}

/// What a tensor is. `network`: what the file calls the denoiser, where it names components.
pub(super) fn place(key: &str, network: Option<&str>) -> Option<Place> {
    let (component, rest) = match network {
        None => (Component::Network, key),
        Some(network) => Component::ALL.iter().find_map(|&component| {
            let rest = key.strip_prefix(&prefix(component, network))?;
            Some((component, rest))
        })?,
    };
    let (layer, role) = factor(component, rest)?;
    Some(Place {
        component: Some(component),
        layer: component.module(&layer),
        role,
    })
}

fn factor(component: Component, name: &str) -> Option<(String, Role)> {
    let is_text = component != Component::Network;
    let ends = if is_text { &TEXT_FACTORS } else { &FACTORS };
    for (end, role) in ends {
        if let Some(layer) = name.strip_suffix(end) {
            return Some((layer.to_owned(), *role));
        }
    }
    for (end, role) in PROCESSOR_FACTORS {
        let Some(layer) = name.strip_suffix(end) else {
            continue;
        };
        return PROJECTIONS.iter().find_map(|[old, unet, text]| {
            let attention = layer.strip_suffix(old)?;
            Some(match is_text {
                true => (format!("{attention}{text}"), role),
                false => {
                    let attention = attention.strip_suffix(".processor")?;
                    (format!("{attention}{unet}"), role)
                }
            })
        });
    }
    let projection = |end| {
        name.strip_suffix(end)
            .filter(|&layer| is_text && layer == "text_projection")
    };
    FACTORS[2..4]
        .iter()
        .find_map(|(end, role)| Some((projection(end)?.to_owned(), *role)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_generations_of_names_lead_to_one_layer() {
        for (key, layer, role) in [
            ("unet.a.attn1.to_q.lora_A.weight", "a.attn1.to_q", Role::A),
            ("unet.a.attn1.to_q.lora.up.weight", "a.attn1.to_q", Role::B),
            (
                "unet.a.attn1.processor.to_q_lora.down.weight",
                "a.attn1.to_q",
                Role::A,
            ),
            (
                "unet.a.attn1.processor.to_out_lora.up.weight",
                "a.attn1.to_out.0",
                Role::B,
            ),
        ] {
            let expected = Some(Place {
                component: Some(Component::Network),
                layer: layer.to_owned(),
                role,
            });
            assert_eq!(place(key, Some("unet.")), expected, "{key}");
            assert_eq!(place(&key[5..], None), expected, "{key}");
        }
        for key in [
            "unet.a.to_q.lokr_w1",
            "unet.a.to_q.lora_A.default.weight",
            "unet.a.attn1.to_q_lora.down.weight",
            "unet.a.attn1.processor.to_x_lora.down.weight",
            "unet.a.to_q.alpha",
            "a.attn1.to_q.lora_A.weight",
            "transformer.a.to_q.lora_A.weight",
        ] {
            assert_eq!(place(key, Some("unet.")), None, "{key}");
        }
    }
}
