#!/usr/bin/env python3
"""Finds each method the learning rate and strength that suit the shipped base: the same number of settings for all.

    benchmarks/mnist-tshirt/search.py --binary target/release/retrack --out OUT_FOLDER

Each setting unlearns once, with a seed that the experiment does not use, and is judged by 500 samples: fewest
T-shirts first, then the smallest digit Frechet distance. Stopped and started again, it goes on.
Writes OUT_FOLDER/search.md and prints it.
"""

import argparse
import itertools
import json
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SEED = 100
RATES = [2e-5, 6e-5, 2e-4, 6e-4]
# Ascent without a counterweight needs far smaller steps.
SMALL = [1e-6, 2e-6, 5e-6, 1e-5]
GRID = {
    "retrack": list(itertools.product(RATES, [("retrack_lambda", 0.005), ("retrack_lambda", 0.05)])),
    "siss": list(itertools.product(RATES, [("siss_rescale", 1.0), ("siss_rescale", 5.0)])),
    "erasediff": list(itertools.product(RATES, [("erasediff_eta", 1e-3), ("erasediff_eta", 1e-1)])),
    "neggrad": [(rate, None) for rate in [*SMALL, 2e-5, 4e-5, 6e-5, 1e-4]],
    "finetune": [(rate, None) for rate in [*RATES, 4e-5, 1e-4, 4e-4, 1e-3]],
}


def run(binary, out, method, rate, strength):
    name = f"{method}-{rate:g}" + (f"-{strength[1]:g}" if strength else "")
    folder = out / name
    config = out / f"{name}.toml"
    lines = [f"learning_rate = {rate!r}"]
    if strength:
        lines += ["[strength]", f"{strength[0]} = {strength[1]!r}"]
    config.write_text("\n".join(lines) + "\n")
    command = [binary, "experiment", "demo", "--config", config, "--methods", method, "--seeds", str(SEED)]
    command += ["--model", ROOT / "assets/base-model", "--data", ROOT / "assets/digits.parquet"]
    command += ["--metrics", "frequency,digits", "--samples", "500", "--out", folder]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    lines = json.loads((folder / "summary.json").read_text())["lines"]
    scores = {line["line"]: {key: spread["mean"] for key, spread in line["scores"].items()} for line in lines}
    return scores["original"], scores[method]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    table = ["| method | learning rate | strength | T-shirts of 500 | digit Frechet distance | |", "|---|---|---|---|---|---|"]
    for method, settings in GRID.items():
        found = []
        for rate, strength in settings:
            original, scores = run(args.binary.resolve(), args.out, method, rate, strength)
            # A model that draws no digits any more has no distance.
            found.append((scores["repeats"], scores.get("digit_frechet", float("inf")), rate, strength))
        best = min(found, key=lambda one: one[:2])
        for one in found:
            repeats, distance, rate, strength = one
            strength = f"`{strength[0]}` {strength[1]:g}" if strength else ""
            chosen = "chosen" if one is best else ""
            table.append(f"| {method} | {rate:g} | {strength} | {repeats:.0f} | {distance:.3f} | {chosen} |")
    table.append(f"| original | | | {original['repeats']:.0f} | {original['digit_frechet']:.3f} | |")
    text = "\n".join(table) + "\n"
    (args.out / "search.md").write_text(text)
    print(text, end="")


if __name__ == "__main__":
    main()
