#!/usr/bin/env python3
"""One step of the celeba-hq preset at full size: peak memory and time, as one JSON object.

    benchmarks/celeba_hq.py --binary target/release/retrack
    benchmarks/celeba_hq.py --binary target/release/retrack --out benchmarks/results/celeba-hq.json

A network of google/ddpm-ema-celebahq-256's configuration with random weights is made by diffusers, and 300 pictures of
256 x 256 pixels are cut from the two photographs that scikit-learn ships. The packages are those of requirements.txt.
Takes 3 GB in the temporary folder and some minutes. Linux only.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import machine
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
SIDE, PICTURES = 256, 300
LIMIT = 24 << 30
# As published with google/ddpm-ema-celebahq-256; what is left out has diffusers' default.
CONFIG = {
    "sample_size": SIDE,
    "in_channels": 3,
    "out_channels": 3,
    "block_out_channels": [128, 128, 256, 256, 512, 512],
    "layers_per_block": 2,
    "down_block_types": [*["DownBlock2D"] * 4, "AttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "AttnUpBlock2D", *["UpBlock2D"] * 4],
    "attention_head_dim": None,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "norm_eps": 1e-6,
    "norm_num_groups": 32,
}


def write_model(folder):
    """Returns the number of parameters."""
    import torch
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    torch.manual_seed(0)
    network = UNet2DModel(**CONFIG)
    DDPMPipeline(unet=network, scheduler=DDPMScheduler()).save_pretrained(folder)
    return sum(parameter.numel() for parameter in network.parameters())


def write_pictures(folder):
    """Cuts of changing place and size."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    photographs = [Image.fromarray(image) for image in load_sample_images().images]
    source = np.random.default_rng(0)
    folder.mkdir()
    for index in range(PICTURES):
        photograph = photographs[index % len(photographs)]
        width, height = photograph.size
        side = int(source.integers(SIDE // 2, min(width, height) + 1))
        left, top = (int(source.integers(0, size - side + 1)) for size in (width, height))
        cut = photograph.crop((left, top, left + side, top + side))
        cut.resize((SIDE, SIDE), Image.Resampling.LANCZOS).save(folder / f"{index:03}.png")


def run(command, folder):
    """Seconds and the most memory of a command, from the kernel's own account of it."""
    with open(folder / "stderr", "w+") as errors:
        start = time.perf_counter()
        process = subprocess.Popen(
            command, env={**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}, stdout=errors, stderr=errors
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        errors.seek(0)
        said = errors.read()
    if status:
        sys.exit(f"{' '.join(command)}\nexited with {os.waitstatus_to_exitcode(status)}\n{said}")
    return {
        "seconds": round(seconds, 1),
        "processor_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_rss_bytes": usage.ru_maxrss * 1024,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, required=True, metavar="FILE")
    parser.add_argument("--accumulate", type=int, metavar="A", help="instead of the preset's 16 micro-batches")
    parser.add_argument("--commit", metavar="SHA", help="that the binary was built at [the checkout's]")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where the JSON goes as well")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temp:
        temp = Path(temp)
        parameters = write_model(temp / "model")
        write_pictures(temp / "pictures")
        command = "unlearn --model model --data pictures --forget row:0 --preset celeba-hq --steps 1 --out out".split()
        if args.accumulate:
            command += ["--accumulate", str(args.accumulate)]
        places = [str(temp / word) if word in ("model", "pictures", "out") else word for word in command]
        busy = machine.busy_cores()
        found = run([str(args.binary.resolve()), *places], temp)
        event = json.loads((temp / "out/run/events.jsonl").read_text())
    found = {
        "command": " ".join(["retrack", *command]),
        "parameters": parameters,
        "pictures": PICTURES,
        **found,
        "step_seconds": round(event["seconds"], 1),
        "loss": event["loss"],
        "limit_bytes": LIMIT,
        "within_limit": found["peak_rss_bytes"] < LIMIT,
        "busy_cores_before": busy,
        "binary_sha256": machine.sha256(args.binary),
        **({"commit": args.commit} if args.commit else machine.commit(ROOT)),
        "machine": machine.describe(),
        "date": machine.now(),
    }
    text = json.dumps(found, indent=2)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")
    if not found["within_limit"]:
        sys.exit("more than 24 GiB")


if __name__ == "__main__":
    main()
