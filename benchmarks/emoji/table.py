#!/usr/bin/env python3
"""The table of what `unknown.sh` measured: `table.py OUT_FOLDER`."""

import json
import sys
from pathlib import Path

NAMES = {
    "model": "with 40 teapots",
    "unknown": "calibrated",
    "merged": "calibrated, an adapter of rank 4",
    "reference": "never saw it",
}


def found(folder):
    report = json.loads((folder / "metrics.json").read_text())
    scores = {score["name"]: score["value"] for score in report["model"]["scores"]}
    return scores, report["verdict"]["headline"].split(":")[0]


out = Path(sys.argv[1])
print("| model | verdict of `evaluate` | teapots of 16 | bits/dim of its latent | membership AUC | its error | every sixth of the others: bits/dim (of 16), error (of 22) |")
print("|---|---|---|---|---|---|---|")
for model, name in NAMES.items():
    scores, verdict = found(out / f"teapot-{model}")
    others, _ = found(out / f"retained-{model}")
    row = [
        name,
        verdict,
        f"{16 * scores['memorized']:.0f}" if scores["memorized"] <= 1 else f"{scores['memorized']:.0f}",
        f"{scores['nll']:.2f}",
        f"{scores['membership_auc']:.2f}",
        f"{scores['forgotten_loss']:.3f}",
        f"{others['nll']:.2f}, {others['forgotten_loss']:.3f}",
    ]
    print("|", " | ".join(row), "|")
