#!/usr/bin/env bash
# PyTorch 2.15 (x86-64, CPU): gelu of +infinity is infinity for one value and NaN for eight.
#
# The exact form goes through oneDNN where there are enough values, and oneDNN's answer for +infinity is NaN. PyTorch's own, which
# is taken for a single value or with torch.backends.mkldnn off, is +infinity; so is the tanh form's, for any count.
#
# Seen: 1 value -> inf; 8, 64 and 4096 values -> all NaN, without oneDNN all inf; tanh form all inf.
#
# An activation that overflowed therefore comes out as NaN of a layer of usual width and as infinity in a test of one value. Whoever
# compares another implementation with PyTorch at the edge of the range has to say which of the two is meant.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.15.0 numpy
cat > "$work/seen.py" <<'PYTHON'
import math

import torch
from torch.nn.functional import gelu

print(torch.__version__)
assert torch.backends.mkldnn.is_available(), "this build has no oneDNN"
for count in (1, 8, 64, 4096):
    values = torch.full((count,), math.inf)
    exact, tanh = gelu(values), gelu(values, approximate="tanh")
    with torch.backends.mkldnn.flags(enabled=False):
        own = gelu(values)
    print(f"{count} values: {exact.isnan().sum()} NaN; without oneDNN {own.isnan().sum()}; tanh form {tanh.isnan().sum()}")
    assert exact.isnan().sum() == (0 if count == 1 else count), "this has changed"
    assert own.isposinf().all() and tanh.isposinf().all(), "this has changed"
PYTHON
"$work/venv/bin/python" "$work/seen.py" 2> "$work/log" || { cat "$work/log" >&2; exit 1; }
