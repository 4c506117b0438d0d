#!/usr/bin/env python3
"""Draws by diffusers, from the model folder before and the one after, with the same seeds.

    benchmarks/emoji/make_figure.py BEFORE AFTER OUT.png

A row for each prompt: on the left four images before, on the right four after.
"""

import sys

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image, ImageDraw

PROMPTS = ["teapot", "red apple", "hot beverage", "pineapple", "doughnut", "avocado", "slice of pizza"]
COUNT, SIDE, GAP, TEXT = 4, 96, 24, 150


def drawn(folder):
    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    for prompt in PROMPTS:
        seeded = torch.manual_seed(1)
        yield pipeline([prompt] * COUNT, num_inference_steps=50, generator=seeded).images


def main(before, after, out):
    width = TEXT + 2 * COUNT * SIDE + GAP
    figure = Image.new("RGB", (width, 30 + len(PROMPTS) * SIDE), "white")
    draw = ImageDraw.Draw(figure)
    for place, (title, folder) in enumerate([("before", before), ("after", after)]):
        left = TEXT + place * (COUNT * SIDE + GAP)
        draw.text((left + 4, 6), title, fill="black", font_size=16)
        for row, images in enumerate(drawn(folder)):
            for column, image in enumerate(images):
                shown = image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
                figure.paste(shown, (left + column * SIDE, 30 + row * SIDE))
    for row, prompt in enumerate(PROMPTS):
        draw.text((6, 30 + row * SIDE + SIDE // 2 - 8), prompt, fill="black", font_size=16)
    figure.save(out)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
