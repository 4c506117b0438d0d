#!/usr/bin/env python3
"""The tables of what `run.sh` measured: `table.py OUT_FOLDER`."""

import json
import sys
from pathlib import Path

out = Path(sys.argv[1])


def scores(folder):
    found = json.loads((folder / "metrics.json").read_text())["model"]["scores"]
    return {score["name"]: score["value"] for score in found}


def verdict(report):
    return report["verdict"]["headline"].split(":")[0]


def retained(report, when):
    """The mean denoising error of 60 retained images."""
    errors = report["check"][when]["control_errors"]
    return sum(errors) / len(errors)


def report(name, series, label):
    return json.loads((out / name / f"{series}-{label}" / "run" / "report.json").read_text())


print("| image | own request | all ten, still in the data | all ten, deleted | copies | bits/dim | membership AUC |")
print("|---|---|---|---|---|---|---|")
for name in "digits", "emoji":
    for label in range(1, 11):
        models = "with", "kept-10", "deleted-10", "without"
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
print("| model | series | steps of each request | error of retained images: first model, after ten requests | change |")
print("|---|---|---|---|---|")
for name in "digits", "emoji":
    for series in "kept", "deleted":
        steps = [
            json.loads((out / name / f"{series}-{label}" / "run" / "calibration.json").read_text())["ended"][0]
            for label in range(1, 11)
        ]
        first = retained(report(name, series, 1), "before")
        last = retained(report(name, series, 10), "after")
        change = 100 * (last / first - 1)
        print(f"| {name} | {series} | {', '.join(map(str, steps))} | {first:.4f}, {last:.4f} | {change:+.0f}% |")
