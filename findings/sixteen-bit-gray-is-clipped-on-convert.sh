#!/usr/bin/env bash
# Pillow 13.0.0: a gray picture of 16 bits becomes white by convert("L") and convert("RGB"), except where it is nearly black.
#
# A PNG or TIFF of 16 bits opens as mode I;16. convert clips its values at 255; it does not scale 65535 to 255, as nearly every other
# decoder does and as Pillow itself does with a PNG of 16 bits in color, which it opens as 8 bits.
#
# Seen with a ramp of 0, 9000, ..., 63000: 0, 255, 255, 255, 255, 255, 255, 255 as L, the same in each channel as RGB; the ramp in
# color comes out as 0, 35, 70, 105, 140, 175, 210, 246.
#
# Training scripts that call convert("RGB") on each picture, as those of diffusers do, then learn white rectangles from X-rays and
# scans. A program that should see what such a model saw has to clip, too, or to refuse.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet pillow==13.0.0 numpy==2.4.0
cat > "$work/seen.py" <<'PYTHON'
import io
import struct
import zlib

import numpy
import PIL
from PIL import Image

print("Pillow", PIL.__version__)
ramp = numpy.arange(8, dtype=numpy.uint16) * 9000


def opened(form):
    file = io.BytesIO()
    Image.fromarray(ramp.reshape(1, 8)).save(file, form)
    return Image.open(io.BytesIO(file.getvalue()))


def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


for form in ("PNG", "TIFF"):
    picture = opened(form)
    gray = numpy.asarray(picture.convert("L")).tolist()[0]
    color = numpy.asarray(picture.convert("RGB"))[0, :, 0].tolist()
    print(form, picture.mode, gray)
    assert picture.mode == "I;16" and gray == color == [0] + [255] * 7, "this has changed"

# The same ramp in three channels, written by hand: Pillow has no way to.
rows = b"\0" + numpy.repeat(ramp, 3).astype(">u2").tobytes()
png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 1, 16, 2, 0, 0, 0))
png += chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
picture = Image.open(io.BytesIO(png))
scaled = numpy.asarray(picture)[0, :, 0]
print("in color", picture.mode, scaled.tolist())
assert picture.mode == "RGB" and (abs(scaled - ramp / 257) <= 1).all(), "this has changed"
PYTHON
"$work/venv/bin/python" "$work/seen.py"
