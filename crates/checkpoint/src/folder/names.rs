//! Parameter names of attention blocks before and after diffusers 0.14.

const RENAMED: [(&str, &str); 4] = [
    ("query", "to_q"),
    ("key", "to_k"),
    ("value", "to_v"),
    ("proj_attn", "to_out.0"),
];

/// The present name of a deprecated attention parameter (`mid_block.attentions.0.query.weight` is now
/// `mid_block.attentions.0.to_q.weight`), `None` for every other name.
///
/// The same cases as diffusers' `ModelMixin._fix_state_dict_keys_on_load`: weight and bias of the four projections of
/// the attention blocks that a UNet2DModel or an AutoencoderKL keeps in its `attentions` lists. Shapes are left alone, as there.
pub fn current_name(name: &str) -> Option<String> {
    let (rest, parameter) = name.rsplit_once('.')?;
    let (block, projection) = rest.rsplit_once('.')?;
    let (_, current) = RENAMED
        .iter()
        .find(|(deprecated, _)| *deprecated == projection)?;
    let (list, index) = block.rsplit_once('.')?;
    let is_index = !index.is_empty() && index.bytes().all(|byte| byte.is_ascii_digit());
    let is_attention = list.rsplit('.').next() == Some("attentions");
    let is_parameter = matches!(parameter, "weight" | "bias");
    (is_index && is_attention && is_parameter).then(|| format!("{block}.{current}.{parameter}"))
}

#[cfg(test)]
mod tests {
    use super::current_name;

    #[test]
    fn deprecated_attention_projections_get_their_current_names() {
        for (deprecated, current) in [
            (
                "mid_block.attentions.0.query.weight",
                "mid_block.attentions.0.to_q.weight",
            ),
            (
                "down_blocks.1.attentions.12.key.bias",
                "down_blocks.1.attentions.12.to_k.bias",
            ),
            (
                "up_blocks.0.attentions.1.value.weight",
                "up_blocks.0.attentions.1.to_v.weight",
            ),
            (
                "encoder.mid_block.attentions.0.proj_attn.weight",
                "encoder.mid_block.attentions.0.to_out.0.weight",
            ),
            (
                "up_blocks.0.attentions.1.proj_attn.bias",
                "up_blocks.0.attentions.1.to_out.0.bias",
            ),
        ] {
            assert_eq!(current_name(deprecated).as_deref(), Some(current));
        }
    }

    #[test]
    fn every_other_name_stays() {
        for name in [
            "mid_block.attentions.0.to_q.weight",
            "mid_block.attentions.0.group_norm.weight",
            "mid_block.attentions.0.query.scale",
            "mid_block.attentions.x.query.weight",
            "mid_block.attentions..query.weight",
            "mid_block.resnets.0.query.weight",
            "attentions.query.weight",
            "query.weight",
            "conv_in.weight",
            "",
        ] {
            assert_eq!(current_name(name), None, "{name}");
        }
    }
}
