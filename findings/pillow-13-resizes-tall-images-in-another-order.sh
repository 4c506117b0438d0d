#!/usr/bin/env bash
# Pillow 12.3.0 and 13.0.0: Image.resize gives other bytes for images that shrink much more in height than in width.
#
# A resize is two passes, and each rounds to bytes. Pillow 12 resamples the rows first and then the columns, always. 13 takes the columns first
# where the height loses more than twice as many pixels as the width does, which is less work; the sums round differently then. Of photographs
# that keep their proportions, those higher than about 2 : 1 are concerned: screenshots of a phone, strips, receipts.
#
# Seen, by BICUBIC: of a picture of 120 x 900 shrunk to 64 x 480, 6,831 of 30,720 bytes differ between the versions, by up to 4; of one of 900
# x 120 shrunk to 480 x 64, and of one of 300 x 400 shrunk to 96 x 128, none.
#
# What a model was trained on, and digests of it, depend on the version that resized the pictures; a program that wants Pillow's bytes has to
# say which Pillow's.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for version in 12.3.0 13.0.0; do
    python3 -m venv "$work/$version"
    "$work/$version/bin/pip" install --quiet "pillow==$version"
done
cat > "$work/resize.py" <<'PYTHON'
import sys

from PIL import Image


def picture(width, height):
    # A formula, so that both versions resize the same bytes.
    values = ((x * x * 7 + y * y * 5 + x * y * 3) % 251 for y in range(height) for x in range(width))
    return Image.frombytes("L", (width, height), bytes(values))


out = sys.argv[1]
for name, before, after in [
    ("tall", (120, 900), (64, 480)),
    ("wide", (900, 120), (480, 64)),
    ("portrait", (300, 400), (96, 128)),
]:
    resized = picture(*before).resize(after, Image.Resampling.BICUBIC)
    with open(f"{out}.{name}", "wb") as file:
        file.write(resized.tobytes())
PYTHON
for version in 12.3.0 13.0.0; do
    "$work/$version/bin/python" "$work/resize.py" "$work/out-$version"
done
python3 - "$work" <<'PYTHON'
import sys
from pathlib import Path

work = Path(sys.argv[1])
seen = {}
for name in ("tall", "wide", "portrait"):
    old, new = ((work / f"out-{version}.{name}").read_bytes() for version in ("12.3.0", "13.0.0"))
    differences = [abs(a - b) for a, b in zip(old, new)]
    seen[name] = (sum(d > 0 for d in differences), max(differences))
print(seen)
assert seen == {"tall": (6831, 4), "wide": (0, 0), "portrait": (0, 0)}, "this has changed"
PYTHON
