#!/usr/bin/env bash
# diffusers 0.42.1: a StableDiffusion3Pipeline without its third text encoder is saved, and from_pretrained refuses the folder.
#
# Leaving T5 out (text_encoder_3=None, tokenizer_3=None) is how Stable Diffusion 3 is run in little memory: the pipeline draws with zeros
# in its place. save_pretrained writes model_index.json with [null, null] for both parts, as it does for parts that are left out
# elsewhere; from_pretrained then misses them and stops, unless it is told text_encoder_3=None and tokenizer_3=None again. A folder of
# StableDiffusionXLPipeline without its first text encoder loads: there these parts are declared optional.
#
# Seen: SDXL loads; SD3: ValueError "Pipeline ... expected [... 'text_encoder_3', ... 'tokenizer_3', ...], but only {...} were passed."
#
# Whoever reads these folders himself should take [null, null] for "left out" and go on; whoever trains on such a pipeline and saves it
# should know that others have to say what is missing.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet diffusers==0.42.1 transformers==5.24.0 torch==2.15.0 numpy==2.4.6
cat > "$work/seen.py" <<'PYTHON'
import string
import sys
from pathlib import Path

import diffusers
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

work = Path(sys.argv[1])
letters = string.ascii_lowercase
words = ["<|startoftext|>", "<|endoftext|>", *letters, *(letter + "</w>" for letter in letters)]
numbers = {word: number for number, word in enumerate(words)}
tokenizer = CLIPTokenizer(vocab=numbers, merges=[], model_max_length=77)
text = CLIPTextConfig(
    vocab_size=len(words), hidden_size=8, intermediate_size=8, num_hidden_layers=2, num_attention_heads=2,
    projection_dim=8, bos_token_id=0, eos_token_id=1,
)
vae = AutoencoderKL(block_out_channels=[4], norm_num_groups=2, shift_factor=0.0)
sd3 = StableDiffusion3Pipeline(
    vae=vae,
    text_encoder=CLIPTextModelWithProjection(text),
    text_encoder_2=CLIPTextModelWithProjection(text),
    text_encoder_3=None,
    tokenizer=tokenizer,
    tokenizer_2=tokenizer,
    tokenizer_3=None,
    scheduler=FlowMatchEulerDiscreteScheduler(),
    transformer=SD3Transformer2DModel(
        sample_size=4, in_channels=4, out_channels=4, num_layers=1, attention_head_dim=4, num_attention_heads=2,
        joint_attention_dim=16, caption_projection_dim=8, pooled_projection_dim=16, pos_embed_max_size=4,
    ),
)
sd3.set_progress_bar_config(disable=True)
drawn = sd3("a b", num_inference_steps=1, output_type="np").images
assert len(drawn) == 1, "it draws without the third encoder"
sdxl = StableDiffusionXLPipeline(
    vae=vae,
    text_encoder=None,
    text_encoder_2=CLIPTextModelWithProjection(text),
    tokenizer=None,
    tokenizer_2=tokenizer,
    scheduler=EulerDiscreteScheduler(),
    unet=UNet2DConditionModel(
        sample_size=4, block_out_channels=[8], layers_per_block=1, norm_num_groups=4, cross_attention_dim=8,
        down_block_types=["CrossAttnDownBlock2D"], up_block_types=["CrossAttnUpBlock2D"], attention_head_dim=2,
        addition_embed_type="text_time", addition_time_embed_dim=4, projection_class_embeddings_input_dim=32,
    ),
)
seen = {}
for name, pipeline in [("SDXL", sdxl), ("SD3", sd3)]:
    pipeline.save_pretrained(work / name)
    try:
        type(pipeline).from_pretrained(work / name)
        seen[name] = "loads"
    except ValueError as error:
        assert "text_encoder_3" in str(error) and "were passed" in str(error), error
        seen[name] = "is refused"
told = StableDiffusion3Pipeline.from_pretrained(work / "SD3", text_encoder_3=None, tokenizer_3=None)
print(diffusers.__version__, seen)
assert seen == {"SDXL": "loads", "SD3": "is refused"} and told.text_encoder_3 is None, "this has changed"
PYTHON
"$work/venv/bin/python" "$work/seen.py" "$work" 2> "$work/log" || { cat "$work/log" >&2; exit 1; }
