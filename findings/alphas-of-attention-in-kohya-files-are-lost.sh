#!/usr/bin/env bash
# diffusers 0.42.1 with peft 0.21.2: of a kohya file whose layers have different alphas, the attention layers lose theirs.
#
# Every layer of such a file says its own scale: alpha over rank. diffusers turns the file into PEFT's form with the commonest alpha as the
# common one and the others as a pattern; but the pattern calls attention layers by names that were given up with attention processors
# (attn1.processor.to_q_lora.down.weight), which match nothing. PEFT says so in a RuntimeWarning and goes on. Feed-forward layers keep
# their alphas. Files with one alpha for all layers are as they should be.
#
# Seen, rank 2: with alphas (6, 2, 2, 8) of to_q, to_k, to_v and ff.net.2 the products are added 1, 1, 1 and 4 times; by the file it is 3, 1, 1 and 4.
#
# Files with alphas by layer come from trainings with ranks by block and from tools that resize or merge adapters. A program that merges
# them has to choose between the file and what diffusers makes of it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.15.0 diffusers==0.42.1 transformers==5.24.0 peft==0.21.2 accelerate==1.15.0
cat > "$work/seen.py" <<'PYTHON'
import diffusers
import peft
import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders import StableDiffusionLoraLoaderMixin

RANK = 2
BLOCK = "mid_block.attentions.0.transformer_blocks.0."
LAYERS = ("attn1.to_q", "attn1.to_k", "attn1.to_v", "ff.net.2")


def scales(alphas):
    """How often each layer's product is added to its weight."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=4, block_out_channels=[8], layers_per_block=1, norm_num_groups=4, cross_attention_dim=8,
        down_block_types=["CrossAttnDownBlock2D"], up_block_types=["CrossAttnUpBlock2D"], attention_head_dim=2,
    )
    state, products, before = {}, {}, {}
    for layer, alpha in zip(LAYERS, alphas):
        weight = unet.get_parameter(f"{BLOCK}{layer}.weight").detach()
        before[layer] = weight.clone()
        down, up = torch.randn(RANK, weight.shape[1]), torch.randn(weight.shape[0], RANK)
        products[layer] = up @ down
        key = "lora_unet_" + (BLOCK + layer).replace(".", "_")
        state |= {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up, f"{key}.alpha": torch.tensor(float(alpha))}
    converted, found = StableDiffusionLoraLoaderMixin.lora_state_dict(state, unet_config=unet.config)
    StableDiffusionLoraLoaderMixin.load_lora_into_unet(converted, network_alphas=found, unet=unet)
    unet.fuse_lora()
    seen = []
    for layer in LAYERS:
        change = unet.get_submodule(BLOCK + layer).get_base_layer().weight.detach() - before[layer]
        seen.append(round(((change * products[layer]).sum() / products[layer].square().sum()).item(), 3))
    return seen


print(diffusers.__version__, peft.__version__, scales((2, 2, 2, 2)), scales((6, 2, 2, 8)))
assert scales((2, 2, 2, 2)) == [1, 1, 1, 1], "this has changed"
assert scales((6, 2, 2, 8)) == [1, 1, 1, 4], "this has changed"
PYTHON
"$work/venv/bin/python" "$work/seen.py" 2> "$work/log" || { cat "$work/log" >&2; exit 1; }
