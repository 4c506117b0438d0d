#!/usr/bin/env python3
"""What Stable Diffusion 1.4 takes at full size: peak memory and time of each part of the work, as one JSON object.

    cargo build --release --workspace --bin retrack --example full_size
    benchmarks/stable_diffusion.py --programs target/release
    benchmarks/stable_diffusion.py --programs target/release --out benchmarks/results/stable-diffusion.json

A pipeline of version 1.4's shapes is made by diffusers: random weights, stored as f16, and the small vocabulary of
fixtures/parity. The packages are those of requirements.txt. Takes 6 GB in the temporary folder, 15 GB of memory and
five minutes on two idle cores. Linux only.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import machine
from runners import Failed, Runner

ROOT = Path(__file__).resolve().parent.parent
TOKENIZER = ROOT / "fixtures/parity/pipeline_sd1/model/tokenizer"
PARTS = ["load", "predict", "step", "lora", "encode", "decode", "write"]
SAMPLE = "RETRACK sample --model TEMP/model --prompt cat --count 1 --steps 2 --out TEMP/sample.png"


def write_model(folder):
    """Returns the number of parameters of each network."""
    import torch
    from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    # As published with CompVis/stable-diffusion-v1-4; what is left out has diffusers' or transformers' default.
    unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)
    vae = AutoencoderKL(
        block_out_channels=[128, 256, 512, 512],
        layers_per_block=2,
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        sample_size=512,
    )
    text = CLIPTextModel(
        CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_attention_heads=12, projection_dim=768)
    )
    scheduler = PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        skip_prk_steps=True,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    networks = {"unet": unet, "vae": vae, "text_encoder": text}
    pipeline = StableDiffusionPipeline(
        **networks,
        tokenizer=CLIPTokenizer.from_pretrained(TOKENIZER),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(torch.float16).save_pretrained(folder)
    # As published: saved again, it is laid out as the installed version of transformers lays it out.
    shutil.rmtree(folder / "tokenizer")
    shutil.copytree(TOKENIZER, folder / "tokenizer")
    return {name: sum(one.numel() for one in network.parameters()) for name, network in networks.items()}


def full_size_part(runner, program, part):
    """Seconds of the part itself, and the most memory of the process."""
    said = runner.finished([str(program), "TEMP/model", part], os.cpu_count()).stdout
    lines = [json.loads(line) for line in said.splitlines()]
    # The last of the part's own lines: a second one has all memory in place.
    line = [line for line in lines if line.get("part") == part][-1]
    return {"seconds": round(line["seconds"], 1), "peak_rss_bytes": round(line["peak_gigabytes"] * 1e9)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--programs", type=Path, required=True, metavar="DIR", help="has retrack and examples/full_size"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="where the JSON goes as well")
    args = parser.parse_args()
    retrack, full_size = (args.programs.resolve() / name for name in ["retrack", "examples/full_size"])
    with tempfile.TemporaryDirectory() as temp:
        temp = Path(temp)
        parameters = write_model(temp / "model")
        busy = machine.busy_cores()
        try:
            runner = Runner(retrack, sys.executable, temp)
            parts = {part: full_size_part(runner, full_size, part) for part in PARTS}
            sampled = runner.peak(SAMPLE.split(), os.cpu_count())
            parts["sample --steps 2"] = {key: round(value, 1) for key, value in sampled.items()}
        except Failed as failed:
            sys.exit(str(failed))
    found = {"parameters": parameters, "parts": parts, "busy_cores_before": busy}
    machine.record(found, full_size, machine.commit(ROOT), args.out)


if __name__ == "__main__":
    main()
