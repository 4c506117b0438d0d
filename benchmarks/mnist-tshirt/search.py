#!/usr/bin/env python3
"""Finds each method the learning rate and strength that suit the shipped base: the same number of settings for all.

    benchmarks/mnist-tshirt/search.py --binary target/release/retrack --out OUT_FOLDER

Each setting unlearns once, with a seed that the experiment does not use, and is judged by 256 samples and 16 attempts
to bring the T-shirt back from half-way noise: fewest T-shirts among the samples first, then fewest restored, then the
smallest digit Frechet distance. Stopped and started again, it goes on.
Writes OUT_FOLDER/search.md and prints it.
"""

import argparse
import itertools
import json
import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SEED = 100
SAMPLES = 256
# What all settings share: as many images as the published 50 steps of 128.
COMMON = ["steps = 100", "batch_size = 64"]
RATES = [2e-5, 6e-5, 2e-4]
GRID = {
    "retrack": list(itertools.product(RATES, [("retrack_lambda", 0.005), ("retrack_lambda", 0.05)])),
    "siss": list(itertools.product(RATES, [("siss_rescale", 1.0), ("siss_rescale", 5.0)])),
    # Higher rates (6e-5, 2e-4) left no digits: the correction is far longer than the gradient it corrects.
    "erasediff": list(itertools.product([2e-6, 6e-6, 2e-5], [("erasediff_eta", 1e-3), ("erasediff_eta", 1e-1)])),
    # Ascent without a counterweight needs far smaller steps.
    "neggrad": [(rate, None) for rate in [5e-7, 1e-6, 2e-6, 5e-6, 1e-5, 2e-5]],
    "finetune": [(rate, None) for rate in [2e-5, 6e-5, 2e-4, 4e-4, 1e-3, 2e-3]],
}


def run(binary, threads, out, method, rate, strength):
    name = f"{method}-{rate:g}" + (f"-{strength[1]:g}" if strength else "")
    folder = out / name
    config = out / f"{name}.toml"
    lines = [*COMMON, f"learning_rate = {rate!r}"]
    if strength:
        lines += ["[strength]", f"{strength[0]} = {strength[1]!r}"]
    lines += ["[experiment]", 'scheduler = "ddim"']
    config.write_text("\n".join(lines) + "\n")
    first = next(out.glob("*/results/original-*.json"), None)
    if first and not folder.exists():
        # The original model is the same in every setting: measured once.
        (folder / "results").mkdir(parents=True)
        shutil.copy(first, folder / "results")
        shutil.copy(first.parent.parent / "experiment.json", folder)
    command = [binary, "experiment", "mnist-tshirt", "--config", config, "--methods", method, "--seeds", str(SEED)]
    command += ["--model", ROOT / "assets/base-model", "--data", ROOT / "assets/digits.parquet"]
    command += ["--metrics", "frequency,injection,digits", "--samples", str(SAMPLES), "--out", folder]
    command += ["--threads", str(threads)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    lines = json.loads((folder / "summary.json").read_text())["lines"]
    scores = {line["line"]: {key: spread["mean"] for key, spread in line["scores"].items()} for line in lines}
    return scores["original"], scores[method]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--methods", nargs="+", choices=GRID, default=list(GRID), help="only these")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    table = ["| method | learning rate | strength | T-shirts of 256 | restored | digit Frechet distance | |", "|---|---|---|---|---|---|---|"]
    for method in args.methods:
        found = []
        for rate, strength in GRID[method]:
            original, scores = run(args.binary.resolve(), args.threads, args.out, method, rate, strength)
            # A model that draws no digits any more has no distance.
            distance = scores.get("digit_frechet", float("inf"))
            found.append((scores["repeats"], scores["restored"], distance, rate, strength))
        best = min(found, key=lambda one: one[:3])
        for one in found:
            repeats, restored, distance, rate, strength = one
            strength = f"`{strength[0]}` {strength[1]:g}" if strength else ""
            chosen = "chosen" if one is best else ""
            table.append(f"| {method} | {rate:g} | {strength} | {repeats:.0f} | {restored:.2f} | {distance:.3f} | {chosen} |")
    table.append(f"| original | | | {original['repeats']:.0f} | {original['restored']:.2f} | {original['digit_frechet']:.3f} | |")
    text = "\n".join(table) + "\n"
    (args.out / "search.md").write_text(text)
    print(text, end="")


if __name__ == "__main__":
    main()
