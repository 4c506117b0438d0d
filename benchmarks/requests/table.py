#!/usr/bin/env python3
"""The tables of what `run.sh` measured: `table.py OUT_FOLDER COUNT`."""

import json
import sys
from pathlib import Path

out, count = Path(sys.argv[1]), int(sys.argv[2])


def scores(folder):
    found = json.loads((folder / "metrics.json").read_text())["model"]["scores"]
    return {score["name"]: score["value"] for score in found}


def verdict(report):
    return report["verdict"]["headline"].split(":")[0]


def report(name, series, label):
    return json.loads((out / name / f"{series}-{label}" / "run" / "report.json").read_text())


print("| image | own request | all, still in the data | all, deleted | copies | bits/dim | membership AUC |")
print("|---|---|---|---|---|---|---|")
for name in "digits", "emoji":
    for label in range(1, count + 1):
        models = "with", f"kept-{count}", f"deleted-{count}", "without"
        four = [scores(out / name / f"evaluation-{label}-{model}") for model in models]
        own = report(name, "kept", label)
        verdicts = [
            json.loads((out / name / f"evaluation-{label}-{model}" / "metrics.json").read_text())["verdict"]["headline"]
            for model in models[1:3]
        ]
        columns = [
            ", ".join(form.format(one[score]) for one in four)
            for score, form in (("repeats", "{:.0f}"), ("nll", "{:.2f}"), ("membership_auc", "{:.2f}"))
        ]
        heads = [verdict(own), *(headline.split(":")[0] for headline in verdicts)]
        print("|", " | ".join([f"{name} {label}", *heads, *columns]), "|")

print()
print("| model | series | steps of each request | retained images: bits/dim, denoising error | change of the error |")
print("|---|---|---|---|---|")
for name in "digits", "emoji":
    first = scores(out / name / "evaluation-retained-with")
    print(f"| {name} | before | | {first['nll']:.2f}, {first['forgotten_loss']:.4f} | |")
    for series in "kept", "deleted":
        steps = [
            json.loads((out / name / f"{series}-{label}" / "run" / "calibration.json").read_text())["ended"][0]
            for label in range(1, count + 1)
        ]
        last = scores(out / name / f"evaluation-retained-{series}-{count}")
        change = 100 * (last["forgotten_loss"] / first["forgotten_loss"] - 1)
        errors = f"{last['nll']:.2f}, {last['forgotten_loss']:.4f}"
        print(f"| {name} | {series} | {', '.join(map(str, steps))} | {errors} | {change:+.0f}% |")
