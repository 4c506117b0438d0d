"""Loads model folders in diffusers and compares them: `python load_written.py FACTOR ORIGINAL WRITTEN [...]`.

Each WRITTEN must load without a missing or unexpected parameter and hold FACTOR times the weights of its ORIGINAL.
"""

import sys
from pathlib import Path

import diffusers
import torch
from diffusers import DiffusionPipeline, UNet2DModel

factor, *folders = sys.argv[1:]
for original, written in zip(folders[::2], folders[1::2], strict=True):
    networks = []
    for folder in (Path(original), Path(written)):
        pipeline = (folder / "model_index.json").exists()
        sharded_bin = (folder / "diffusion_pytorch_model.bin.index.json").exists()
        options = {"use_safetensors": False} if sharded_bin else {}
        if pipeline:
            DiffusionPipeline.from_pretrained(folder, local_files_only=True)
        network, report = UNet2DModel.from_pretrained(
            folder, subfolder="unet" if pipeline else None, output_loading_info=True, **options
        )
        assert not any(report.values()), (folder, report)
        networks.append(network.state_dict())
    before, after = networks
    assert before.keys() == after.keys()
    for name in before:
        assert torch.equal(before[name] * float(factor), after[name]), (written, name)
    print(f"{written}: {len(after)} tensors equal {factor} x the original's (diffusers {diffusers.__version__})")
