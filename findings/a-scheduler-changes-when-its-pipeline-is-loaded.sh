#!/usr/bin/env bash
# diffusers 0.42.1: a Stable Diffusion pipeline that was saved and loaded draws another picture from the same latents.
#
# StableDiffusionPipeline's constructor sets `steps_offset` of its scheduler to 1 and `clip_sample` to false where they are not; a
# scheduler that is put into a finished pipeline (pipe.scheduler = ...) keeps its own. save_pretrained writes what it has, so that
# the file says 0 and who loads it samples from other timesteps than who saved it.
#
# Seen with DDIMScheduler(clip_sample=False) in 2 steps: timesteps 500, 0 before, 501, 1 after; the file still says 0.
# from_config(pipe.scheduler.config) then carries the 1 on; DDIMScheduler.from_pretrained, put in as an attribute, the 0.
#
# A program that reads such a folder must know which of the two is meant.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.15.0 diffusers==0.42.1 transformers==5.24.0 accelerate==1.15.0
cat > "$work/seen.py" <<'PYTHON'
import json
import sys

import diffusers
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

folder = sys.argv[1]
words = ["<|startoftext|>", "<|endoftext|>"]
with open(folder + "/vocab.json", "w") as vocabulary, open(folder + "/merges.txt", "w") as merges:
    json.dump({word: number for number, word in enumerate(words)}, vocabulary)
    merges.write("#version: 0.2\n")
torch.manual_seed(0)
pipe = diffusers.StableDiffusionPipeline(
    vae=diffusers.AutoencoderKL(block_out_channels=(4,), norm_num_groups=2),
    text_encoder=CLIPTextModel(CLIPTextConfig(
        vocab_size=2, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, bos_token_id=0, eos_token_id=1
    )),
    tokenizer=CLIPTokenizer(folder + "/vocab.json", folder + "/merges.txt", model_max_length=77),
    unet=diffusers.UNet2DConditionModel(
        sample_size=8,
        layers_per_block=1,
        block_out_channels=(8,),
        norm_num_groups=4,
        cross_attention_dim=8,
        attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",),
    ),
    scheduler=diffusers.PNDMScheduler(steps_offset=1, skip_prk_steps=True),
    safety_checker=None,
    feature_extractor=None,
    requires_safety_checker=False,
)
pipe.scheduler = diffusers.DDIMScheduler(clip_sample=False)
pipe.save_pretrained(folder + "/pipeline")
loaded = diffusers.StableDiffusionPipeline.from_pretrained(folder + "/pipeline", safety_checker=None)


def draw(pipe):
    pipe.set_progress_bar_config(disable=True)
    image = pipe("", latents=torch.ones(1, 4, 8, 8), num_inference_steps=2, guidance_scale=1.0, output_type="pt").images
    return pipe.scheduler.timesteps.tolist(), image


(before, first), (after, second) = draw(pipe), draw(loaded)
with open(folder + "/pipeline/scheduler/scheduler_config.json") as file:
    said = json.load(file)["steps_offset"]
off = (first - second).abs().max().item()
print(f"timesteps {before} before, {after} after; the file says steps_offset {said}; pixels are up to {off:.1e} of 1 apart")
assert (before, after, said) == ([500, 0], [501, 1], 0) and off > 0, "this has changed"
PYTHON
"$work/venv/bin/python" "$work/seen.py" "$work" 2> "$work/log" || { cat "$work/log" >&2; exit 1; }
