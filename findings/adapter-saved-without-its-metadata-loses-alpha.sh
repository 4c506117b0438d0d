#!/usr/bin/env bash
# diffusers 0.42.1 with PEFT 0.21.2: save_lora_weights with the layers alone loses alpha, and the adapter loads at another strength.
#
# The layers that get_peft_model_state_dict returns hold no alpha. Without `unet_lora_adapter_metadata`, which is optional, the file
# has none either, and whoever loads it takes alpha = rank: an adapter of rank 4 trained with alpha 16 comes back at a quarter of its strength,
# one with rsLoRA likewise, without a warning.
#
# Seen: the first adapted layer's factor is 4 as trained and 1 as loaded; with the metadata given, 4 and 4.
#
# "Load it and save it again" is therefore no safe way to convert an adapter.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.15.0 diffusers==0.42.1 transformers==5.24.0 peft==0.21.2 accelerate==1.15.0
cat > "$work/seen.py" <<'PYTHON'
import sys

from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from peft import LoraConfig, get_peft_model_state_dict


def denoiser():
    return UNet2DConditionModel(
        sample_size=8,
        layers_per_block=1,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        cross_attention_dim=8,
        attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )


def factor(unet):
    """What each adapted layer multiplies its product of factors by: alpha over rank."""
    (one,) = {layer.scaling["default"] for layer in unet.modules() if hasattr(layer, "scaling")}
    return one


def loaded(folder):
    unet = denoiser()
    state, alphas, metadata = StableDiffusionPipeline.lora_state_dict(folder, return_lora_metadata=True)
    StableDiffusionPipeline.load_lora_into_unet(state, alphas, unet, metadata=metadata, adapter_name="default")
    return factor(unet)


trained = denoiser()
trained.add_adapter(LoraConfig(r=4, lora_alpha=16, target_modules=["to_q", "to_k", "to_v", "to_out.0"]), "default")
layers = get_peft_model_state_dict(trained)
StableDiffusionPipeline.save_lora_weights(sys.argv[1] + "/layers", unet_lora_layers=layers)
metadata = trained.peft_config["default"].to_dict()
StableDiffusionPipeline.save_lora_weights(sys.argv[1] + "/both", unet_lora_layers=layers, unet_lora_adapter_metadata=metadata)
seen = factor(trained), loaded(sys.argv[1] + "/layers"), loaded(sys.argv[1] + "/both")
print("factor as trained {:g}, loaded from the layers alone {:g}, with metadata {:g}".format(*seen))
assert seen == (4, 1, 4), "this has changed"
PYTHON
"$work/venv/bin/python" "$work/seen.py" "$work" 2> "$work/log" || { cat "$work/log" >&2; exit 1; }
