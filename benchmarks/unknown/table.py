#!/usr/bin/env python3
"""The table of what `run.sh` measured: `table.py OUT_FOLDER`."""

import json
import sys
from pathlib import Path


def scores(folder):
    found = json.loads((folder / "metrics.json").read_text())["model"]["scores"]
    return {score["name"]: score["value"] for score in found}


out = Path(sys.argv[1])
print("| image | verdict | copies among 200 samples | bits/dim | membership AUC | denoising error |")
print("|---|---|---|---|---|---|")
for name in "digits", "emoji":
    for label in range(1, 7):
        models = "with", f"forgot-{label}", "without"
        three = [scores(out / name / f"evaluation-{label}-{model}") for model in models]
        report = json.loads((out / name / f"forgot-{label}" / "run" / "report.json").read_text())
        columns = [
            ", ".join(form.format(one[score]) for one in three)
            for score, form in (
                ("repeats", "{:.0f}"),
                ("nll", "{:.2f}"),
                ("membership_auc", "{:.2f}"),
                ("forgotten_loss", "{:.3f}"),
            )
        ]
        print("|", " | ".join([f"{name} {label}", report["verdict"]["headline"].split(":")[0], *columns]), "|")
