#!/usr/bin/env python3
"""Prints what run.sh found as a table: table.py OUT_FOLDER"""

import json
import sys
from pathlib import Path

MODELS = {
    "base": "the shipped base, which knows the T-shirt",
    "published": "after the published method",
    "calibrated": "after calibrated unlearning",
    "retrained": "retrained without the T-shirt",
}


def main():
    out = Path(sys.argv[1])
    print("| model | begins at | on retained images | on the T-shirt | on look-alikes | on T-shirts never seen |")
    print("| --- | --- | --- | --- | --- | --- |")
    for model, words in MODELS.items():
        found = [json.loads((out / f"{model}-{kind}/metrics.json").read_text()) for kind in ("look-alikes", "controls")]
        found = [one["model"]["relearned"] for one in found]

        def said(steps):
            return f"> {found[0]['most']}" if steps is None else str(steps)

        own = [one["images"][0] for one in found]
        # The same numbers but for what it is compared with, unless that moved where attempts begin.
        columns = [sorted({said(one[kind]) for one in own}) for kind in ("retained", "image")]
        columns += [[said(steps) for steps in one["controls"]] for one in own]
        begins = sorted({f"{one['from']:g}" for one in found})
        print("|", " | ".join([words, *(", ".join(cells) for cells in [begins, *columns])]), "|")


main()
