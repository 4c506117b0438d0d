#!/usr/bin/env python3
"""Compares the calibrated run with a grid of settings of the published method: which comes nearer to a model that was trained
again without the T-shirt?

    benchmarks/mnist-tshirt/grid.py --binary target/release/retrack --controls CONTROLS --out OUT_FOLDER

24 settings: three learning rates, two lambdas, four numbers of steps of 64 + 64 images; and the calibrated run, which is told
none. Each unlearns once with seed 0 and is measured by 2,000 samples (DDIM, 25 steps). What they are compared with is the line
`retrained` of summary.json. Stopped and started again, it goes on. Writes OUT_FOLDER/grid.md and prints it.
"""

import argparse
import itertools
import json
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RATES, LAMBDAS, STEPS = [2e-5, 6e-5, 2e-4], [0.005, 0.05], [10, 20, 40, 100]
# What a column is called in the scores, and in the table.
COLUMNS = {
    "nll": "bits/dim",
    "membership_auc": "AUC",
    "digit_frechet": "digit Frechet",
    "forgotten_loss": "T-shirt's error",
}
MODEL = ["--data", ROOT / "assets/digits.parquet", "--forget", "label:10", "--seed", "0"]


def measured(args, name, settings):
    """The scores of a model made by these settings."""
    made, found = args.out / name, args.out / f"{name}-found"
    if not (found / "metrics.json").exists():
        unlearn = [args.binary, "unlearn", "--model", ROOT / "assets/base-model", *MODEL, "--out", made, "--no-report", "-q", "--force"]
        subprocess.run([*unlearn, *settings], check=True)
        evaluate = [args.binary, "evaluate", "--model", made, *MODEL, "--metrics", "frequency,digits,nll,membership", "-q", "--force"]
        evaluate += ["--controls", args.controls, "--scheduler", "ddim", "--steps", "25", "--threshold", "10", "--samples", "2000"]
        subprocess.run([*evaluate, "--out", found], check=True, stdout=subprocess.DEVNULL)
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
    reference = {column: reference[column]["mean"] for column in COLUMNS}

    rows = [("calibrated", measured(args, "calibrated", []))]
    for rate, strength, steps in itertools.product(RATES, LAMBDAS, STEPS):
        settings = ["--method", "retrack", "--steps", str(steps), "--lambda", str(strength), "--lr", str(rate), "--batch-size", "64"]
        name = f"{rate:g}-{strength:g}-{steps}"
        rows.append((f"{steps} steps, rate {rate:g}, lambda {strength:g}", measured(args, name, settings)))

    def distance(scores, column):
        return abs(scores[column] - reference[column]) if column in scores else float("inf")

    # Of the grid: nearest in a column; and nearest in all, each column in units of the calibrated run's distance.
    best = {column: min(distance(scores, column) for _, scores in rows[1:]) for column in COLUMNS}
    own = rows[0][1]
    units = {column: max(distance(own, column), 1e-9) for column in COLUMNS}
    overall = min(rows[1:], key=lambda row: max(distance(row[1], column) / units[column] for column in COLUMNS))
    text = [
        "| settings | T-shirts of 2,000 | " + " | ".join(COLUMNS.values()) + " | |",
        "|---|---|" + "---|" * len(COLUMNS) + "---|",
        "| trained again without the T-shirt | 0 | " + " | ".join(f"{reference[column]:.3f}" for column in COLUMNS) + " | |",
    ]
    for row in rows:
        name, scores = row
        cells = []
        for column in COLUMNS:
            cell = f"{scores[column]:.3f}" if column in scores else "none"
            nearest = name != "calibrated" and distance(scores, column) == best[column]
            cells.append(f"**{cell}**" if nearest else cell)
        note = "nearest of the grid in all columns" if row is overall else ""
        text.append(f"| {name} | {scores['repeats']:.0f} | " + " | ".join(cells) + f" | {note} |")
    text = "\n".join(text) + "\n"
    (args.out / "grid.md").write_text(text)
    print(text, end="")


if __name__ == "__main__":
    main()
