#!/usr/bin/env bash
# diffusers 0.42.1 with transformers 5.24: a learned word of three vectors is told as one where its name has a capital letter.
#
# load_textual_inversion adds the tokens <Cat-Toy>, <Cat-Toy>_1, <Cat-Toy>_2. A prompt's <Cat-Toy> is to become all three of them:
# diffusers asks the tokenizer for the prompt's tokens and replaces those that are among the added ones. CLIP's tokenizer finds the
# added token, but answers with its name in small letters, which is no added token's name. The prompt stays as it was, and the text
# encoder gets the first vector alone. Nothing is said.
#
# Seen: "<cat-toy>" -> "<cat-toy> <cat-toy>_1 <cat-toy>_2"; "<Cat-Toy>" -> "<Cat-Toy>", one number.
#
# Names of learned words come from whoever trained them, and capitals are usual. A program that should draw what was learned has to
# expand such names itself; one that should draw what diffusers draws must not.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.15.0 diffusers==0.42.1 transformers==5.24.0 accelerate==1.15.0
cat > "$work/seen.py" <<'PYTHON'
import json
import string
import sys

import diffusers
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

folder = sys.argv[1]
letters = string.ascii_lowercase + "<>-_"
words = ["<|startoftext|>", "<|endoftext|>", *letters, *(letter + "</w>" for letter in letters)]
with open(folder + "/vocab.json", "w") as vocabulary, open(folder + "/merges.txt", "w") as merges:
    json.dump({word: number for number, word in enumerate(words)}, vocabulary)
    merges.write("#version: 0.2\n")


def told(name):
    """The prompt that is told of a word with three vectors, and how many numbers it has between the marks."""
    pipe = diffusers.StableDiffusionPipeline(
        vae=diffusers.AutoencoderKL(block_out_channels=(4,), norm_num_groups=2),
        text_encoder=CLIPTextModel(CLIPTextConfig(
            vocab_size=len(words), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
            bos_token_id=0, eos_token_id=1,
        )),
        tokenizer=CLIPTokenizer(folder + "/vocab.json", folder + "/merges.txt", model_max_length=77),
        unet=diffusers.UNet2DConditionModel(
            sample_size=8, layers_per_block=1, block_out_channels=(8,), norm_num_groups=4, cross_attention_dim=8,
            attention_head_dim=4, down_block_types=("CrossAttnDownBlock2D",), up_block_types=("CrossAttnUpBlock2D",),
        ),
        scheduler=diffusers.DDIMScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.load_textual_inversion({name: torch.randn(3, 8)}, token=name)
    prompt = pipe.maybe_convert_prompt(name, pipe.tokenizer)
    return prompt, len(pipe.tokenizer(prompt).input_ids) - 2


small, capital = told("<cat-toy>"), told("<Cat-Toy>")
print(small, capital)
assert small == ("<cat-toy> <cat-toy>_1 <cat-toy>_2", 3), "this has changed"
assert capital == ("<Cat-Toy>", 1), "this has changed"
PYTHON
"$work/venv/bin/python" "$work/seen.py" "$work" 2> "$work/log" || { cat "$work/log" >&2; exit 1; }
