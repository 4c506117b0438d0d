#!/usr/bin/env python3
"""Compares the calibrated run with a grid of settings of the published method: which comes nearer to a model that was trained
again without the T-shirt?

    benchmarks/mnist-tshirt/grid.py --binary target/release/retrack --controls CONTROLS --out OUT_FOLDER

24 settings: three learning rates, two lambdas, four numbers of steps of 64 + 64 images; and the calibrated run, which is told
none. Each unlearns once with seed 0. What they are compared with is the line `retrained` of summary.json. Of the settings that come
nearest in a column, or in all of them, and of the calibrated run 2,000 samples are drawn, too (DDIM, 25 steps). Stopped and started
again, it goes on. Writes OUT_FOLDER/grid.md and prints it.
"""

import argparse
import itertools
import json
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RATES, LAMBDAS, STEPS = [2e-5, 6e-5, 2e-4], [0.005, 0.05], [5, 10, 20, 40]
# What a column is called in the scores, and in the table: what needs no samples, and what does.
LOOKED_AT = {"nll": "bits/dim", "membership_auc": "AUC", "forgotten_loss": "T-shirt's error"}
DRAWN = {"digit_frechet": "digit Frechet"}
MODEL = ["--data", ROOT / "assets/digits.parquet", "--forget", "label:10", "--seed", "0"]


def measured(args, name, settings, drawn=False):
    """The scores of a model made by these settings."""
    made = args.out / name
    if not (made / "model_index.json").exists():
        unlearn = [args.binary, "unlearn", "--model", ROOT / "assets/base-model", *MODEL, "--out", made, "--no-report", "-q", "--force"]
        subprocess.run([*unlearn, *settings], check=True, stdout=subprocess.DEVNULL)
    found = args.out / f"{name}-{'drawn' if drawn else 'found'}"
    if not (found / "metrics.json").exists():
        evaluate = [args.binary, "evaluate", "--model", made, *MODEL, "-q", "--force", "--out", found]
        if drawn:
            evaluate += ["--metrics", "frequency,digits", "--scheduler", "ddim", "--steps", "25", "--threshold", "10", "--samples", "2000"]
        else:
            evaluate += ["--metrics", "nll,membership", "--controls", args.controls]
        subprocess.run(evaluate, check=True, stdout=subprocess.DEVNULL)
    scores = json.loads((found / "metrics.json").read_text())["model"]["scores"]
    return {score["name"]: score["value"] for score in scores}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, required=True)
    parser.add_argument("--controls", type=Path, required=True, help="what make_controls.py writes")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    lines = json.loads((HERE / "summary.json").read_text())["lines"]
    reference = next(line["scores"] for line in lines if line["line"] == "retrained")
    reference = {column: reference[column]["mean"] for column in [*LOOKED_AT, *DRAWN]}

    rows = {"calibrated": ("calibrated", [])}
    for rate, strength, steps in itertools.product(RATES, LAMBDAS, STEPS):
        settings = ["--method", "retrack", "--steps", str(steps), "--lambda", str(strength), "--lr", str(rate), "--batch-size", "64"]
        rows[f"{rate:g}-{strength:g}-{steps}"] = (f"{steps} steps, rate {rate:g}, lambda {strength:g}", settings)
    scores = {name: measured(args, name, settings) for name, (_, settings) in rows.items()}
    grid = [name for name in rows if name != "calibrated"]

    def distance(name, column):
        return abs(scores[name].get(column, float("inf")) - reference[column])

    nearest = {column: min(grid, key=lambda name: distance(name, column)) for column in LOOKED_AT}
    # In all columns, each in units of how far the model before is from the reference.
    original = next(line["scores"] for line in lines if line["line"] == "original")
    units = {column: abs(original[column]["mean"] - reference[column]) for column in LOOKED_AT}
    overall = min(grid, key=lambda name: max(distance(name, column) / units[column] for column in LOOKED_AT))
    for name in {"calibrated", overall, *nearest.values()}:
        scores[name] |= measured(args, name, rows[name][1], drawn=True)

    titles = [*LOOKED_AT.values(), *DRAWN.values(), "T-shirts of 2,000"]
    text = ["| settings | " + " | ".join(titles) + " | |", "|---|" + "---|" * (len(titles) + 1)]
    known = " | ".join(f"{reference[column]:.3f}" for column in [*LOOKED_AT, *DRAWN])
    text.append(f"| trained again without the T-shirt | {known} | 0 | |")
    for name, (title, _) in rows.items():
        cells = []
        for column in [*LOOKED_AT, *DRAWN]:
            cell = f"{scores[name][column]:.3f}" if column in scores[name] else ""
            cells.append(f"**{cell}**" if nearest.get(column) == name else cell)
        cells.append(f"{scores[name]['repeats']:.0f}" if "repeats" in scores[name] else "")
        note = "the nearest of the grid in all of the first three" if name == overall else ""
        text.append(f"| {title} | {' | '.join(cells)} | {note} |")
    text = "\n".join(text) + "\n"
    (args.out / "grid.md").write_text(text)
    print(text, end="")


if __name__ == "__main__":
    main()
