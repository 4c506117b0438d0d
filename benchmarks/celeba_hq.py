#!/usr/bin/env python3
"""One step of the celeba-hq preset at full size: peak memory and time, as one JSON object.

    benchmarks/celeba_hq.py --binary target/release/retrack
    benchmarks/celeba_hq.py --binary target/release/retrack --out benchmarks/results/celeba-hq.json

A network of google/ddpm-ema-celebahq-256's configuration with random weights is made by diffusers, and 300 pictures of
256 x 256 pixels are cut from the two photographs that scikit-learn ships. The packages are those of requirements.txt.
Takes 3 GB in the temporary folder and 17 minutes on two idle cores. Linux only.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

import machine
import numpy as np
from runners import Failed, Runner

ROOT = Path(__file__).resolve().parent.parent
SIDE, PICTURES = 256, 300
LIMIT = 24 << 30
COMMAND = "RETRACK unlearn --model TEMP/model --data TEMP/pictures --forget row:0 --preset celeba-hq --steps 1"
# As published with google/ddpm-ema-celebahq-256; what is left out has diffusers' default.
ARCH = ROOT / "benchmarks/arch/ddpm-ema-celebahq-256.json"


def write_model(folder):
    """Returns the number of parameters."""
    import torch
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    torch.manual_seed(0)
    network = UNet2DModel.from_config(json.loads(ARCH.read_text()))
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
        command = [*COMMAND.split(), "--out", "TEMP/out"]
        if args.accumulate:
            command += ["--accumulate", str(args.accumulate)]
        busy = machine.busy_cores()
        try:
            found = Runner(args.binary.resolve(), sys.executable, temp).peak(command, os.cpu_count())
        except Failed as failed:
            sys.exit(str(failed))
        event = json.loads((temp / "out/run/events.jsonl").read_text())
    found = {
        "command": " ".join(command).replace("RETRACK", "retrack").replace("TEMP/", ""),
        "parameters": parameters,
        "pictures": PICTURES,
        **{key: round(value, 1) for key, value in found.items()},
        "step_seconds": round(event["seconds"], 1),
        "loss": event["loss"],
        "limit_bytes": LIMIT,
        "within_limit": found["peak_rss_bytes"] < LIMIT,
        "busy_cores_before": busy,
    }
    commit = {"commit": args.commit} if args.commit else machine.commit(ROOT)
    machine.record(found, args.binary, commit, args.out)
    if not found["within_limit"]:
        sys.exit("more than 24 GiB")


if __name__ == "__main__":
    main()
