#!/usr/bin/env bash
# diffusers 0.42.1 writes scheduler_config.json files that are not JSON.
#
# The DPM-Solver schedulers and SA-Solver keep `lambda_min_clipped`, which is minus infinity unless it is chosen. save_pretrained
# writes it as Python's json module does, -Infinity, which RFC 8259 (section 6) does not allow: a strict reader, such as Rust's
# serde_json, refuses the whole file. Python reads it back, so nothing shows there.
#
# Seen, of the schedulers that need no further package: DPMSolverMultistep, DPMSolverMultistepInverse, DPMSolverSinglestep and
# SASolver, each with "lambda_min_clipped": -Infinity.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.15.0 diffusers==0.42.1 transformers==5.24.0
cat > "$work/seen.py" <<'PYTHON'
import json
import pathlib
import sys

import diffusers


def strict(text):
    """As RFC 8259 has it: no NaN, no Infinity."""

    def refuse(word):
        raise ValueError(word)

    return json.loads(text, parse_constant=refuse)


found = {}
for name in sorted(dir(diffusers)):
    if not name.endswith("Scheduler") or name.startswith(("Flax", "Torch")):
        continue
    try:
        scheduler = getattr(diffusers, name)()
    except Exception:
        continue  # Needs another package, or settings.
    if not isinstance(scheduler, diffusers.SchedulerMixin):
        continue
    folder = pathlib.Path(sys.argv[1], name)
    scheduler.save_pretrained(folder)
    text = (folder / "scheduler_config.json").read_text()
    try:
        strict(text)
    except ValueError:
        found[name] = [line.strip(" ,") for line in text.splitlines() if "Infinity" in line or "NaN" in line]
for name, lines in found.items():
    print(name, *lines)
EXPECTED = sys.argv[2].split()
assert sorted(found) == sorted(EXPECTED), "this has changed"
assert all(lines == ['"lambda_min_clipped": -Infinity'] for lines in found.values()), "this has changed"
PYTHON
"$work/venv/bin/python" "$work/seen.py" "$work/schedulers" "DPMSolverMultistepInverseScheduler DPMSolverMultistepScheduler DPMSolverSinglestepScheduler SASolverScheduler" 2> "$work/log" || { cat "$work/log" >&2; exit 1; }
